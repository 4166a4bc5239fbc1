//! What is served at a checkpoint: stored rows, or the answers of a running process.

use std::{ops::ControlFlow, time::Duration};

use anyhow::{Context as _, anyhow};
use connectors::embedded::store::Store;
use dataflows::{checkpoint::plan::Loaded, port::CountRow};
use serde::{Deserialize, Serialize};
use ureq::Agent;

use super::{Counts, cells, window};
use crate::{
    commands::replay::store_failure,
    config::{Settings, SinkKind},
    exit::{Exit, Failure},
    token,
};

/// Questions in one request; the server takes 1,000.
const QUESTIONS: usize = 500;

/// From sending a request to the end of its answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(60);

/// An answer is not read any further, bytes.
const ANSWER_BYTES_MAX: u64 = 1 << 30;

/// Reads what is served; `None` where nothing is to be read, which is told.
pub fn read(settings: &Settings, loaded: &Loaded, right: &Counts, is_idle: bool) -> Result<Option<Counts>, Failure> {
    let frontier = loaded.manifest.frontier;
    let mut newer = Vec::new();
    let mut counts = Counts::new();
    let mut visit = |row: CountRow| {
        match frontier < row.as_of {
            // Of a later checkpoint: not what is audited.
            true => newer.push(window(&row)),
            false => drop(counts.insert(window(&row), row.count)),
        }
        ControlFlow::Continue(())
    };
    match settings.sink {
        SinkKind::Store if is_idle => {
            let dir = settings.data_dir.join("store");
            if !dir.is_dir() {
                eprintln!("there is no store: only the checkpoint is compared");
                return Ok(None);
            }
            Store::open(dir).and_then(|store| store.scan_all(&mut visit)).map_err(store_failure)?;
        }
        #[cfg(feature = "cassandra")]
        SinkKind::Cassandra => tables(settings, &mut visit)?,
        _ if is_idle => {
            eprintln!("there is no sink: only the checkpoint is compared");
            return Ok(None);
        }
        _ => return ask(settings, loaded, right),
    }
    if !newer.is_empty() {
        eprintln!("{} rows are of later checkpoints, and are not compared", newer.len());
        // They are taken for right.
        counts.extend(newer.into_iter().filter_map(|window| right.get(&window).map(|count| (window.clone(), *count))));
    }
    Ok(Some(counts))
}

#[cfg(feature = "cassandra")]
fn tables(settings: &Settings, visit: &mut dyn FnMut(CountRow) -> ControlFlow<()>) -> Result<(), Failure> {
    use connectors::cassandra::Tables;

    use crate::engine::cassandra::{failure, settings_of};

    let patience = Duration::from_millis(settings.cluster.patience_ms);
    let tables = Tables::open_existing(&settings_of(&settings.cassandra), patience).map_err(failure)?;
    tables.scan_all(visit).map_err(failure)
}

#[derive(Debug, Serialize)]
struct Question<'a> {
    video_id: &'a str,
    event_type: &'a str,
    as_of: u64,
}

#[derive(Debug, Deserialize)]
struct Answer {
    video_id: String,
    event_type: String,
    as_of: u64,
    series: Vec<Point>,
}

#[derive(Debug, Deserialize)]
struct Point {
    start: u64,
    value: u64,
}

/// Asks the running process for every series that is known, as it was at the frontier.
fn ask(settings: &Settings, loaded: &Loaded, right: &Counts) -> Result<Option<Counts>, Failure> {
    let frontier = loaded.manifest.frontier;
    let kept = cells(loaded);
    let mut series: Vec<(&str, &str)> =
        right.keys().chain(kept.keys()).map(|(video, kind, _)| (&**video, &**kind)).collect();
    series.dedup();
    series.sort_unstable();
    series.dedup();
    let url = format!("http://{}/v1/stats", settings.http.listen);
    let authorization = token::authorization(settings.http.token_file.as_deref())?;
    let config = Agent::config_builder().http_status_as_error(false).timeout_global(Some(ANSWER_WITHIN));
    let agent: Agent = config.build().into();
    let mut counts = Counts::new();
    for some in series.chunks(QUESTIONS) {
        let questions: Vec<_> =
            some.iter().map(|(video_id, event_type)| Question { video_id, event_type, as_of: frontier }).collect();
        let mut request = agent.post(&url);
        if let Some(authorization) = &authorization {
            request = request.header("authorization", authorization);
        }
        let unreachable = |error: ureq::Error| {
            let what = format!("asking the process that runs on the folder at {url}; --config says where it listens");
            Failure::new(Exit::Unreachable, anyhow!(error).context(what))
        };
        let mut response = request.send_json(&questions).map_err(unreachable)?;
        let text = response.body_mut().with_config().limit(ANSWER_BYTES_MAX).read_to_string().map_err(unreachable)?;
        match response.status().as_u16() {
            200 => {}
            400 | 410 => {
                eprintln!(
                    "the running process does not answer at frontier {frontier}, which is from before its start or too \
                     long ago: only the checkpoint is compared"
                );
                return Ok(None);
            }
            status => return Err(anyhow!("{url} answered {status}: {text}").into()),
        }
        let answers: Vec<Answer> =
            serde_json::from_str(&text).with_context(|| format!("reading the answer of {url}"))?;
        for answer in answers {
            if answer.as_of != frontier {
                eprintln!("the running process has passed by frontier {frontier}: only the checkpoint is compared");
                return Ok(None);
            }
            let Answer { video_id, event_type, .. } = answer;
            let counted = |point: Point| ((video_id.clone(), event_type.clone(), point.start), point.value);
            counts.extend(answer.series.into_iter().map(counted));
        }
    }
    Ok(Some(counts))
}
