//! `GET /metrics`: the Prometheus text format. Counters are kept as requests go by; gauges are set at the scrape.

use std::sync::atomic::AtomicU64;

use prometheus_client::{
    encoding::{EncodeLabelSet, prometheus_text},
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};
use warp::http::StatusCode;

use super::{Response, State, events::Rejected, openapi::MayBreak, problem::Problem, respond};

type Seconds = Gauge<f64, AtomicU64>;
type Whole = Gauge<u64, AtomicU64>;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Request {
    route: &'static str,
    status: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Refusal {
    reason: &'static str,
    detail: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Account {
    partition: u32,
    account: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Partition {
    partition: u32,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Of {
    of: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Worker {
    worker: u32,
}

/// What the HTTP side counts and shows.
#[derive(Default)]
pub struct Metrics {
    requests: Family<Request, Counter>,
    accepted: Counter,
    rejected: Family<Refusal, Counter>,
    frontier: Seconds,
    watermark: Seconds,
    ledger: Family<Account, Whole>,
    lost: Family<Partition, Whole>,
    ledger_balances: Whole,
    checkpoint_number: Whole,
    checkpoint_frontier: Seconds,
    checkpoint_age: Seconds,
    checkpoint_duration: Seconds,
    checkpoint_bytes: Whole,
    checkpoints_failed: Whole,
    heartbeat_age: Family<Worker, Seconds>,
    labels: Family<Of, Whole>,
    ready: Whole,
}

impl Metrics {
    /// Registers everything under `tidemark_`.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        let m = metrics.clone_handles();
        let registry = registry.sub_registry_with_prefix("tidemark");
        registry.register("http_requests", "HTTP requests answered", m.requests);
        registry.register("ingest_accepted", "Events that HTTP took into the log", m.accepted);
        registry.register("ingest_rejected", "Events that HTTP refused", m.rejected);
        registry.register("frontier_seconds", "The newest frontier, as Unix time", m.frontier);
        registry.register("watermark_seconds", "The watermark there, as Unix time", m.watermark);
        registry.register("ledger_records", "What became of the records read, at the newest frontier", m.ledger);
        registry.register(
            "lost_offsets",
            "Offsets that were gone before they were read, at the newest frontier",
            m.lost,
        );
        registry.register("ledger_balances", "1 where every record read has one verdict", m.ledger_balances);
        registry.register("checkpoint_number", "The last checkpoint", m.checkpoint_number);
        registry.register("checkpoint_frontier_seconds", "Its frontier, as Unix time", m.checkpoint_frontier);
        registry.register("checkpoint_age_seconds", "Since its commit", m.checkpoint_age);
        registry.register("checkpoint_duration_seconds", "How long it took", m.checkpoint_duration);
        registry.register("checkpoint_size_bytes", "What was written for it", m.checkpoint_bytes);
        registry.register("checkpoints_failed", "Checkpoints failed since the start", m.checkpoints_failed);
        registry.register("worker_heartbeat_age_seconds", "Since each worker's last round", m.heartbeat_age);
        registry.register("labels", "Videos and channels that something is known of", m.labels);
        registry.register("ready", "1 where /readyz says so", m.ready);
        metrics
    }

    /// The registry's own handles to the same numbers.
    fn clone_handles(&self) -> Self {
        Self {
            requests: self.requests.clone(),
            accepted: self.accepted.clone(),
            rejected: self.rejected.clone(),
            frontier: self.frontier.clone(),
            watermark: self.watermark.clone(),
            ledger: self.ledger.clone(),
            lost: self.lost.clone(),
            ledger_balances: self.ledger_balances.clone(),
            checkpoint_number: self.checkpoint_number.clone(),
            checkpoint_frontier: self.checkpoint_frontier.clone(),
            checkpoint_age: self.checkpoint_age.clone(),
            checkpoint_duration: self.checkpoint_duration.clone(),
            checkpoint_bytes: self.checkpoint_bytes.clone(),
            checkpoints_failed: self.checkpoints_failed.clone(),
            heartbeat_age: self.heartbeat_age.clone(),
            labels: self.labels.clone(),
            ready: self.ready.clone(),
        }
    }

    /// Notes an answer.
    pub fn answered(&self, route: &'static str, status: StatusCode) {
        self.requests.get_or_create(&Request { route, status: status.as_u16() }).inc();
    }

    /// Notes what became of a request's events.
    pub fn ingested(&self, accepted: usize, rejected: &[Rejected]) {
        self.accepted.inc_by(accepted as u64);
        for &Rejected { reason, detail, .. } in rejected {
            self.rejected.get_or_create(&Refusal { reason, detail }).inc();
        }
    }

    fn refresh(&self, state: &State) {
        if let Some(latest) = state.queries.latest() {
            self.frontier.set(seconds(latest.frontier));
            self.watermark.set(seconds(latest.watermark));
            self.ledger_balances.set(latest.partitions.iter().all(|at| at.ledger.balances()).into());
            for at in &latest.partitions {
                for (account, records) in super::status::accounts(&at.ledger) {
                    self.ledger.get_or_create(&Account { partition: at.partition.0, account }).set(records);
                }
                self.lost.get_or_create(&Partition { partition: at.partition.0 }).set(at.lost());
            }
        }
        let facts = state.status.facts();
        if let Some(last) = &facts.last_checkpoint {
            self.checkpoint_number.set(last.number);
            self.checkpoint_frontier.set(seconds(last.frontier));
            self.checkpoint_age.set(seconds(last.age_ms));
            self.checkpoint_duration.set(seconds(last.duration_ms));
            self.checkpoint_bytes.set(last.bytes);
        }
        self.checkpoints_failed.set(facts.checkpoints_failed);
        for (worker, &age_ms) in (0..).zip(&facts.heartbeat_ages_ms) {
            self.heartbeat_age.get_or_create(&Worker { worker }).set(seconds(age_ms));
        }
        let (videos, channels) = state.names.counts();
        for (of, number) in [("video", videos), ("channel", channels)] {
            self.labels.get_or_create(&Of { of }).set(number as u64);
        }
        self.ready.set(super::status::unready(state, &facts).is_empty().into());
    }
}

fn seconds(ms: u64) -> f64 {
    ms as f64 / 1000.0
}

/// Everything in the registry, as text.
#[utoipa::path(
    get,
    path = "/metrics",
    tag = "operation",
    description = "Everything in the registry, in Prometheus' text format.\n\n\
        `curl -sS http://127.0.0.1:7070/metrics`",
    responses((status = 200, body = String, content_type = "text/plain"), MayBreak)
)]
pub fn scrape(state: &State) -> Result<Response, Problem> {
    state.metrics.refresh(state);
    let mut text = String::new();
    prometheus_text::encode(&mut text, &state.registry)
        .map_err(|_fmt| Problem::internal("the metrics can't be written"))?;
    Ok(respond(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", text))
}
