//! A client of the HTTP door, on one kept-alive connection pool.

use std::{fmt::Write as _, time::Duration};

use serde_json::Value;
use ureq::{Agent, http::Response};

use super::{SOON, wait_for};

/// How long one request may take before the connection is given up.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(20);

/// A status and a body.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    pub json: Value,
    pub text: String,
}

impl Answer {
    /// The JSON of an answer with this status.
    #[track_caller]
    pub fn expect(self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", self.text);
        self.json
    }
}

/// One client.
#[derive(Clone)]
pub struct Client {
    agent: Agent,
    pub base: String,
}

impl Client {
    pub fn new(port: u16) -> Self {
        let config = Agent::config_builder().http_status_as_error(false).timeout_global(Some(REQUEST_TIMEOUT)).build();
        Self { agent: config.new_agent(), base: format!("http://127.0.0.1:{port}") }
    }

    /// A client with connections of its own.
    pub fn another(&self) -> Self {
        let config = Agent::config_builder().http_status_as_error(false).timeout_global(Some(REQUEST_TIMEOUT)).build();
        Self { agent: config.new_agent(), base: self.base.clone() }
    }

    pub fn get(&self, path: &str) -> Result<Answer, ureq::Error> {
        read(self.agent.get(format!("{}{path}", self.base)).call()?)
    }

    pub fn post(&self, path: &str, content_type: &str, body: &[u8]) -> Result<Answer, ureq::Error> {
        read(self.agent.post(format!("{}{path}", self.base)).content_type(content_type).send(body)?)
    }

    pub fn post_encoded(
        &self,
        path: &str,
        content_type: &str,
        encoding: &str,
        body: &[u8],
    ) -> Result<Answer, ureq::Error> {
        let request = self.agent.post(format!("{}{path}", self.base)).content_type(content_type);
        read(request.header("content-encoding", encoding).send(body)?)
    }

    pub fn is_ready(&self) -> bool {
        self.get("/readyz").is_ok_and(|answer| answer.status == 200)
    }

    /// Posts events, one a line, and gives the token.
    #[track_caller]
    pub fn send(&self, events: &[String]) -> String {
        let answer = self.post("/v1/events", "application/x-ndjson", events.join("\n").as_bytes());
        let json = answer.expect("the events are answered").expect(202);
        assert_eq!((json["accepted"].as_u64(), &json["rejected"]), (Some(events.len() as u64), &Value::Array(vec![])));
        json["token"].as_str().expect("there is a token").to_owned()
    }

    /// The stats of a video; `query` is what follows the question mark.
    pub fn stats(&self, video_id: &str, query: &str) -> Answer {
        self.get(&format!("/v1/videos/{}/stats?{query}", percent(video_id))).expect("the query is answered")
    }

    #[track_caller]
    pub fn status(&self) -> Value {
        self.get("/v1/status").expect("the status is answered").expect(200)
    }

    /// The number of the newest checkpoint that is committed or resumed from.
    #[track_caller]
    pub fn checkpoint(&self) -> Option<u64> {
        self.status()["checkpoints"]["last"]["number"].as_u64()
    }

    /// The same of a process that may not answer.
    pub fn try_checkpoint(&self) -> Option<u64> {
        self.get("/v1/status").ok()?.json["checkpoints"]["last"]["number"].as_u64()
    }

    /// Waits until a checkpoint newer than `number` is committed.
    #[track_caller]
    pub fn wait_for_checkpoint_after(&self, number: u64) -> u64 {
        wait_for("a new checkpoint", SOON, || self.checkpoint().filter(|newest| number < *newest))
    }

    /// Waits until everything below these offsets is visible.
    #[track_caller]
    pub fn wait_until_visible(&self, end_offsets: &[u64], within: Duration) -> Value {
        wait_for("all records visible", within, || {
            let status = self.status();
            let partitions = status["partitions"].as_array()?;
            let reached = |partition: &Value| {
                let index = partition["partition"].as_u64()? as usize;
                Some(end_offsets[index] <= partition["next_offset"].as_u64()?)
            };
            let all = partitions.len() == end_offsets.len() && partitions.iter().all(|p| reached(p) == Some(true));
            all.then_some(status)
        })
    }
}

fn read(mut response: Response<ureq::Body>) -> Result<Answer, ureq::Error> {
    let status = response.status().as_u16();
    let text = response.body_mut().with_config().limit(1 << 30).read_to_string()?;
    let json = serde_json::from_str(&text).unwrap_or(Value::Null);
    Ok(Answer { status, json, text })
}

/// A text as one segment of a path.
pub fn percent(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'~' => encoded.push(char::from(byte)),
            _ => write!(encoded, "%{byte:02X}").expect("a string takes everything"),
        }
    }
    encoded
}

/// An event as a line.
pub fn event(event_id: &str, video_id: &str, event_type: &str, timestamp: u64) -> String {
    serde_json::json!({"event_id": event_id, "video_id": video_id, "event_type": event_type, "timestamp": timestamp})
        .to_string()
}

/// A video for each of `partitions` partitions, in their order.
pub fn video_of_each(partitions: u32) -> Vec<String> {
    let of = |wanted| {
        let mut names = (0..).map(|n| format!("video-{n}"));
        names.find(|name| connectors::partition::partition_of(name.as_bytes(), partitions) == wanted)
    };
    (0..partitions).map(|wanted| of(wanted).expect("a hash reaches every partition")).collect()
}
