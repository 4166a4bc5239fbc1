//! `GET /v1/status` in words and numbers, `/readyz` and `/healthz`.

use std::time::{SystemTime, UNIX_EPOCH};

use dataflows::{
    announce::{Announcement, PartitionAt},
    ledger::Ledger,
    time::{END_OF_TIME, EventTime},
};
use serde::Serialize;
use utoipa::ToSchema;
use warp::http::StatusCode;

use super::{Response, State, json, openapi::MayBeUnready, params::TIMES_END, problem::Problem, respond};
use crate::service::{AsOfError, CheckpointFacts, Facts};

/// The accounts of a ledger, by the contract's words.
pub fn accounts(ledger: &Ledger) -> [(&'static str, u64); 7] {
    [
        ("read", ledger.read),
        ("counted", ledger.counted),
        ("duplicate", ledger.duplicate),
        ("late", ledger.late),
        ("future", ledger.future),
        ("malformed", ledger.malformed),
        ("oversize", ledger.oversize),
    ]
}

/// Why the process is not ready; nothing where it is.
pub fn unready(state: &State, facts: &Facts) -> Vec<String> {
    let mut reasons = facts.degraded.clone();
    if state.queries.latest().is_none() {
        reasons.push("no frontier has been reached yet".to_owned());
    }
    reasons
}

/// Alive: this process answers.
#[utoipa::path(
    get,
    path = "/healthz",
    tag = "operation",
    security(()),
    description = "`ok` while the process answers.\n\n`curl -sS http://127.0.0.1:7070/healthz`",
    responses((status = 200, body = String, content_type = "text/plain"))
)]
pub fn healthz() -> Response {
    respond(StatusCode::OK, "text/plain; charset=utf-8", "ok".to_owned())
}

/// Ready: there are answers, and nothing is degraded.
#[utoipa::path(
    get,
    path = "/readyz",
    tag = "operation",
    security(()),
    description = "`ready`, or 503 with a sentence in `reasons` for each thing that is amiss.\n\n\
        `curl -sS http://127.0.0.1:7070/readyz`",
    responses((status = 200, body = String, content_type = "text/plain"), MayBeUnready)
)]
pub fn readyz(state: &State) -> Result<Response, Problem> {
    let reasons = unready(state, &state.status.facts());
    if reasons.is_empty() {
        return Ok(respond(StatusCode::OK, "text/plain; charset=utf-8", "ready".to_owned()));
    }
    Err(Problem::unavailable(reasons.join("; ")).with("reasons", reasons))
}

/// How it goes, in words and numbers. What needs a frontier is null until the first.
#[derive(Debug, Serialize, ToSchema)]
pub struct Status {
    /// All of it in a sentence.
    summary: String,
    /// Whether `/readyz` says so.
    ready: bool,
    /// What keeps it from being ready, a sentence each.
    degraded: Vec<String>,
    /// What holds the flow back now, in words.
    bottleneck: String,
    uptime_ms: u64,
    /// Claimed at this start.
    generation: u64,
    /// All records below it are counted, epoch ms.
    frontier: Option<EventTime>,
    /// The oldest frontier that `as_of` can name, epoch ms.
    oldest_as_of: Option<EventTime>,
    /// Windows that start before it have left memory, epoch ms. Answers have them none the less.
    hot_from: Option<EventTime>,
    /// How far the frontier is behind the wall clock.
    lag_ms: Option<u64>,
    /// Windows that end here or before are final, epoch ms.
    watermark: Option<EventTime>,
    watermark_held_by: Option<HeldBy>,
    ledger: Option<Accounts>,
    partitions: Vec<Partition>,
    checkpoints: Checkpoints,
    workers: Vec<Worker>,
}

/// Whose clock the watermark waits for.
#[derive(Debug, Serialize, ToSchema)]
struct HeldBy {
    partition: Option<u32>,
    clock: Option<EventTime>,
    words: String,
}

/// What became of the records read.
#[derive(Debug, Serialize, ToSchema)]
struct Accounts {
    read: u64,
    counted: u64,
    duplicate: u64,
    late: u64,
    future: u64,
    malformed: u64,
    oversize: u64,
    /// Offsets that were gone before they were read: not among them.
    lost: u64,
    /// Whether read is the sum of the others.
    balances: bool,
}

/// One partition at the frontier.
#[derive(Debug, Serialize, ToSchema)]
struct Partition {
    partition: u32,
    next_offset: u64,
    /// Null before its first event.
    clock: Option<EventTime>,
    /// Whether nothing can follow.
    ended: bool,
    ledger: Accounts,
}

#[derive(Debug, Serialize, ToSchema)]
struct Checkpoints {
    /// The newest that was committed or resumed from.
    last: Option<Checkpoint>,
    /// Since the start.
    failed: u64,
}

/// One committed checkpoint.
#[derive(Debug, Serialize, ToSchema)]
struct Checkpoint {
    number: u64,
    frontier: EventTime,
    age_ms: u64,
    bytes: u64,
    duration_ms: u64,
}

/// One worker thread of this process.
#[derive(Debug, Serialize, ToSchema)]
struct Worker {
    worker: usize,
    heartbeat_age_ms: u64,
}

/// How it goes.
#[utoipa::path(
    get,
    path = "/v1/status",
    tag = "operation",
    description = "Frontier, watermark and which partition holds it, ledger, checkpoints, what is waited for.\n\n\
        `curl -sS http://127.0.0.1:7070/v1/status`",
    responses((status = 200, body = Status))
)]
pub fn status(state: &State) -> Response {
    let latest = state.queries.latest();
    let facts = state.status.facts();
    let unready = unready(state, &facts);
    let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64);
    let lag_ms = latest.as_ref().map(|latest| now_ms.saturating_sub(latest.frontier));
    let summary = match (&latest, unready.is_empty()) {
        (None, _) => format!("not ready: {}", unready.join("; ")),
        (Some(_), false) => format!("degraded: {}", unready.join("; ")),
        (Some(latest), true) => {
            let counted = latest.ledger().counted;
            format!(
                "ready: {counted} events are counted, the frontier is {} ms behind the wall clock",
                lag_ms.unwrap_or(0)
            )
        }
    };
    json(&Status {
        summary,
        ready: unready.is_empty(),
        degraded: facts.degraded,
        bottleneck: facts.bottleneck,
        uptime_ms: facts.uptime_ms,
        generation: facts.generation,
        frontier: latest.as_ref().map(|latest| latest.frontier),
        oldest_as_of: latest.as_ref().and_then(|_latest| oldest_as_of(state)),
        lag_ms,
        hot_from: latest.as_ref().map(|latest| latest.hot_from.start()),
        watermark: latest.as_ref().map(|latest| latest.watermark.min(TIMES_END)),
        watermark_held_by: latest.as_ref().map(|latest| HeldBy::of(latest)),
        ledger: latest.as_ref().map(|latest| total(latest)),
        partitions: latest
            .as_ref()
            .map_or_else(Vec::new, |latest| latest.partitions.iter().map(Partition::from).collect()),
        checkpoints: Checkpoints {
            last: facts.last_checkpoint.as_ref().map(Checkpoint::from),
            failed: facts.checkpoints_failed,
        },
        workers: (facts.heartbeat_ages_ms.iter().enumerate())
            .map(|(worker, &heartbeat_age_ms)| Worker { worker, heartbeat_age_ms })
            .collect(),
    })
}

/// The beginning of time is before all that is retained, so the refusal names the oldest.
fn oldest_as_of(state: &State) -> Option<EventTime> {
    match state.queries.lower(0) {
        Ok(oldest) => Some(oldest.frontier),
        Err(AsOfError::Gone { oldest }) => Some(oldest),
        Err(AsOfError::Ahead { .. }) => None,
    }
}

impl HeldBy {
    fn of(latest: &Announcement) -> Self {
        let at = latest.held_by.and_then(|held_by| latest.partitions.iter().find(|at| at.partition == held_by));
        let words = match at {
            Some(at) => match at.clock {
                Some(clock) => format!("partition {} has the least clock, {clock}", at.partition.0),
                None => format!("partition {} has no clock yet: no event came there", at.partition.0),
            },
            None if latest.watermark == END_OF_TIME => "nobody: all partitions have ended".to_owned(),
            None => "nobody".to_owned(),
        };
        Self { partition: latest.held_by.map(|partition| partition.0), clock: at.and_then(|at| at.clock), words }
    }
}

impl From<&PartitionAt> for Partition {
    fn from(at: &PartitionAt) -> Self {
        Self {
            partition: at.partition.0,
            next_offset: at.next_offset,
            clock: at.clock,
            ended: at.ended,
            ledger: Accounts::of(&at.ledger, at.lost(), at.ledger.balances()),
        }
    }
}

impl From<&CheckpointFacts> for Checkpoint {
    fn from(last: &CheckpointFacts) -> Self {
        let &CheckpointFacts { number, frontier, age_ms, bytes, duration_ms } = last;
        Self { number, frontier, age_ms, bytes, duration_ms }
    }
}

/// The sum balances only where each partition does: two faults must not cancel out.
fn total(latest: &Announcement) -> Accounts {
    let lost = latest.partitions.iter().map(PartitionAt::lost).sum();
    Accounts::of(&latest.ledger(), lost, latest.partitions.iter().all(|at| at.ledger.balances()))
}

impl Accounts {
    fn of(ledger: &Ledger, lost: u64, balances: bool) -> Self {
        let &Ledger { read, counted, duplicate, late, future, malformed, oversize } = ledger;
        Self { read, counted, duplicate, late, future, malformed, oversize, lost, balances }
    }
}
