//! `GET /v1/status` in words and numbers, `/readyz` and `/healthz`.

use std::time::{SystemTime, UNIX_EPOCH};

use dataflows::{announce::Announcement, ledger::Ledger, time::END_OF_TIME};
use serde_json::{Value, json};
use warp::http::StatusCode;

use super::{Response, State, json, params::TIMES_END, problem::Problem, respond};
use crate::service::Facts;

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
pub fn healthz() -> Response {
    respond(StatusCode::OK, "text/plain; charset=utf-8", "ok".to_owned())
}

/// Ready: there are answers, and nothing is degraded.
pub fn readyz(state: &State) -> Result<Response, Problem> {
    let reasons = unready(state, &state.status.facts());
    if reasons.is_empty() {
        return Ok(respond(StatusCode::OK, "text/plain; charset=utf-8", "ready".to_owned()));
    }
    Err(Problem::unavailable(reasons.join("; ")).with("reasons", reasons))
}

/// How it goes.
pub fn status(state: &State) -> Response {
    let latest = state.queries.latest();
    let facts = state.status.facts();
    let unready = unready(state, &facts);
    let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64);
    let lag_ms = latest.as_ref().map(|latest| now_ms.saturating_sub(latest.frontier));
    let held_by = latest.as_ref().map(|latest| held_by(latest));
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
    json(&json!({
        "summary": summary,
        "ready": unready.is_empty(),
        "degraded": facts.degraded,
        "bottleneck": facts.bottleneck,
        "uptime_ms": facts.uptime_ms,
        "generation": facts.generation,
        "frontier": latest.as_ref().map(|latest| latest.frontier),
        "lag_ms": lag_ms,
        "watermark": latest.as_ref().map(|latest| latest.watermark.min(TIMES_END)),
        "watermark_held_by": held_by,
        "ledger": latest.as_ref().map(|latest| total(latest)),
        "partitions": latest.as_ref().map_or_else(Vec::new, |latest| partitions(latest)),
        "checkpoints": {
            "last": facts.last_checkpoint.as_ref().map(|last| json!({
                "number": last.number,
                "frontier": last.frontier,
                "age_ms": last.age_ms,
                "bytes": last.bytes,
                "duration_ms": last.duration_ms,
            })),
            "failed": facts.checkpoints_failed,
        },
        "workers": facts.heartbeat_ages_ms.iter().enumerate()
            .map(|(worker, age_ms)| json!({"worker": worker, "heartbeat_age_ms": age_ms}))
            .collect::<Vec<_>>(),
    }))
}

fn held_by(latest: &Announcement) -> Value {
    let at = latest.held_by.and_then(|held_by| latest.partitions.iter().find(|at| at.partition == held_by));
    let words = match at {
        Some(at) => match at.clock {
            Some(clock) => format!("partition {} has the least clock, {clock}", at.partition.0),
            None => format!("partition {} has no clock yet: no event came there", at.partition.0),
        },
        None if latest.watermark == END_OF_TIME => "nobody: all partitions have ended".to_owned(),
        None => "nobody".to_owned(),
    };
    json!({
        "partition": latest.held_by.map(|partition| partition.0),
        "clock": at.and_then(|at| at.clock),
        "words": words,
    })
}

fn partitions(latest: &Announcement) -> Vec<Value> {
    let partition = |at: &dataflows::announce::PartitionAt| {
        json!({
            "partition": at.partition.0,
            "next_offset": at.next_offset,
            "clock": at.clock,
            "ended": at.ended,
            "ledger": ledger(&at.ledger, at.ledger.balances()),
        })
    };
    latest.partitions.iter().map(partition).collect()
}

/// The sum balances only where each partition does: two faults must not cancel out.
fn total(latest: &Announcement) -> Value {
    ledger(&latest.ledger(), latest.partitions.iter().all(|at| at.ledger.balances()))
}

fn ledger(ledger: &Ledger, balances: bool) -> Value {
    let mut members: serde_json::Map<_, _> =
        accounts(ledger).into_iter().map(|(account, records)| (account.to_owned(), records.into())).collect();
    members.insert("balances".to_owned(), balances.into());
    members.into()
}
