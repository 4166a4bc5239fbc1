//! What a process does not have itself, the embedded log or the names: what it is given is passed on to the first process.

use std::{collections::BTreeMap, ops::Range, sync::Arc, time::Duration};

use connectors::cells;
use dataflows::{
    announce::PartitionState,
    port::{BoxError, ColdSum, ColdWindow, PartitionId, PartitionReader, SourceError},
    time::EventTime,
};
use serde::Deserialize;

use super::{
    cluster::Place,
    input::{Input, Offsets},
};
use crate::{
    config::HttpSettings,
    engine::SendReader,
    exit::Failure,
    http::{Token, percent},
    service::{BoxFuture, Cold, ColdQuestion, ColdSumsQuestion, Entry, Ingest, IngestError},
    token,
};

/// How long the first process has to make events durable.
const TIMEOUT: Duration = Duration::from_secs(30);

/// One answer that is read from the first process, bytes: more than a hundred years of one series, or sums of a hundred million videos.
const CELLS_BYTES_MAX: u64 = 16 << 30;

/// The way to the first process.
#[derive(Clone)]
pub struct Forward {
    agent: ureq::Agent,
    url: String,
    authorization: Option<String>,
    /// The first process takes no larger body. What came here compressed may have become one.
    body_bytes_max: usize,
}

/// What of a receipt matters here.
#[derive(Deserialize)]
struct Receipt {
    /// Of events.
    #[serde(default)]
    token: String,
}

impl Forward {
    /// To a path of the first process of this one's cluster.
    pub fn to_first(http: &HttpSettings, place: &Place, path: &str) -> Result<Self, Failure> {
        let url = format!("http://{}{path}", place.first_http(http.listen));
        let authorization = token::authorization(http.token_file.as_deref())?;
        let agent = ureq::Agent::new_with_config(
            ureq::Agent::config_builder().timeout_global(Some(TIMEOUT)).http_status_as_error(false).build(),
        );
        Ok(Self { agent, url, authorization, body_bytes_max: http.limits.body_bytes.get() })
    }

    /// In as many requests as it takes. Where one fails, those before it are done: then none of it is promised.
    fn post_all(&self, entries: &[Entry]) -> Result<Vec<(PartitionId, u64)>, IngestError> {
        let mut ends = BTreeMap::new();
        for body in bodies(entries, self.body_bytes_max) {
            // Later records of a partition end later.
            ends.extend(self.post(&body)?);
        }
        Ok(ends.into_iter().collect())
    }

    fn post(&self, body: &[u8]) -> Result<Vec<(PartitionId, u64)>, IngestError> {
        let failed = |error: &dyn std::fmt::Display| IngestError::Failed(format!("the first process: {error}"));
        let mut request = self.agent.post(&self.url).content_type("application/json");
        if let Some(authorization) = &self.authorization {
            request = request.header("authorization", authorization);
        }
        let mut answer = request.send(body).map_err(|error| failed(&error))?;
        match answer.status().as_u16() {
            202 => {}
            429 | 503 => return Err(IngestError::Busy),
            507 => return Err(IngestError::NoRoom),
            status => return Err(failed(&format!("it answered {status}"))),
        }
        let receipt: Receipt = answer.body_mut().read_json().map_err(|error| failed(&error))?;
        let token = Token::parse(&receipt.token).map_err(|_| failed(&"its token makes no sense"))?;
        Ok(token.0)
    }
}

/// The store of the first process, read over HTTP.
pub struct ColdOfFirst {
    agent: ureq::Agent,
    url: String,
    authorization: Option<String>,
}

impl ColdOfFirst {
    /// Of the first process of this one's cluster.
    pub fn new(http: &HttpSettings, place: &Place) -> Result<Self, Failure> {
        let Forward { agent, url, authorization, .. } = Forward::to_first(http, place, "/v1/cells")?;
        Ok(Self { agent, url, authorization })
    }
}

impl Cold for ColdOfFirst {
    fn read(&self, question: &ColdQuestion) -> Result<Vec<ColdWindow>, BoxError> {
        let ColdQuestion { video_id, width, functions, .. } = question;
        let (video, width) = (percent::encode(video_id), width.as_str());
        let of = format!("&video_id={video}&width={width}&functions={functions}");
        cells::decode(&self.get(&question.event_type, &question.starts, &of)?).ok_or_else(of_another_build)
    }

    fn sums(&self, question: &ColdSumsQuestion) -> Result<Vec<ColdSum>, BoxError> {
        cells::decode_sums(&self.get(&question.event_type, &question.starts, "")?).ok_or_else(of_another_build)
    }
}

fn of_another_build() -> BoxError {
    "the first process is of another build".into()
}

impl ColdOfFirst {
    /// The bytes that the first process has for a range; `of` says of what.
    fn get(&self, event_type: &str, starts: &Range<EventTime>, of: &str) -> Result<Vec<u8>, BoxError> {
        let (kind, Range { start, end }) = (percent::encode(event_type), starts);
        let mut request = self.agent.get(format!("{}?event_type={kind}&start={start}&end={end}{of}", self.url));
        if let Some(authorization) = &self.authorization {
            request = request.header("authorization", authorization);
        }
        let mut answer = request.call()?;
        if answer.status() != 200 {
            return Err(format!("the first process answered {}", answer.status()).into());
        }
        Ok(answer.body_mut().with_config().limit(CELLS_BYTES_MAX).read_to_vec()?)
    }
}

/// Arrays, since an event may hold line feeds; none larger than this, if no event is.
fn bodies(entries: &[Entry], bytes_max: usize) -> Vec<Vec<u8>> {
    let mut bodies = Vec::new();
    let mut body = Vec::new();
    for entry in entries {
        if !body.is_empty() && bytes_max < body.len() + entry.payload.len() + 2 {
            body.push(b']');
            bodies.push(std::mem::take(&mut body));
        }
        body.push(if body.is_empty() { b'[' } else { b',' });
        body.extend_from_slice(&entry.payload);
    }
    if !body.is_empty() {
        body.push(b']');
        bodies.push(body);
    }
    bodies
}

impl Ingest for Forward {
    fn append(&self, entries: Vec<Entry>) -> BoxFuture<Result<Vec<(PartitionId, u64)>, IngestError>> {
        let forward = self.clone();
        Box::pin(async move {
            let posted = tokio::task::spawn_blocking(move || forward.post_all(&entries)).await;
            posted.unwrap_or_else(|_| Err(IngestError::Failed("this process is ending".to_owned())))
        })
    }
}

impl Input for Forward {
    fn id(&self) -> u128 {
        0
    }

    fn offsets(&self) -> Result<Vec<Offsets>, Failure> {
        Ok(Vec::new())
    }

    fn reader(&self, partition: PartitionId, _: &PartitionState) -> Result<SendReader, SourceError> {
        Err(elsewhere(partition))
    }

    fn new_reader(&self, partition: PartitionId) -> Result<Box<dyn PartitionReader>, SourceError> {
        Err(elsewhere(partition))
    }

    fn ends(&self) -> Vec<u64> {
        Vec::new()
    }

    fn door(&self) -> Arc<dyn Ingest> {
        Arc::new(self.clone())
    }
}

fn elsewhere(partition: PartitionId) -> SourceError {
    SourceError::Unreadable { partition, cause: "the first process reads the embedded log".into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_hold_every_event_once_and_are_no_larger_than_they_may_be() {
        let entry = |payload: &str| Entry { key: String::new(), payload: payload.as_bytes().to_vec() };
        let entries: Vec<Entry> = ["1", "22", "3", "4444444", "5", "6", "7"].map(entry).into();
        let bodies = |bytes_max| -> Vec<String> {
            bodies(&entries, bytes_max).into_iter().map(|body| String::from_utf8(body).unwrap()).collect()
        };
        assert_eq!(bodies(100), ["[1,22,3,4444444,5,6,7]"]);
        assert_eq!(bodies(6), ["[1,22]", "[3]", "[4444444]", "[5,6]", "[7]"]);
        assert_eq!(bodies(7), ["[1,22]", "[3]", "[4444444]", "[5,6,7]"]);
        assert!(super::bodies(&[], 6).is_empty());
    }
}
