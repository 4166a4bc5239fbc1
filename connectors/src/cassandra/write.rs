//! Writing many rows: several requests in flight, each repeated as it is until it is acknowledged or patience is over.

use std::{
    collections::BTreeMap,
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use scylla::{
    errors::ExecutionError,
    statement::batch::{Batch, BatchStatement, BatchType},
};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep_until},
};

use super::{
    CassandraError, Link, error,
    limiter::Era,
    requests::Requests,
    statements::{Bound, Upsert},
};

/// Attempts at one request: with the waits between them they outlast a node that restarts (about 20 s).
const ATTEMPTS_MAX: usize = 10;
/// Between attempts at one request, least and greatest.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(4));
/// A write in which nothing was acknowledged for so long gives up: four request timeouts.
pub(super) const STALL: Duration = Duration::from_secs(40);

/// Figures since the tables were opened.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Rows that Cassandra has acknowledged. Of rows with one key in one write only the last is sent and counted.
    pub rows_acknowledged: u64,
    /// Upserts of rows that were sent, repetitions included: what divided by the above is the amplification.
    pub statements_sent: u64,
    /// Requests that were sent, each of 1 to 100 upserts.
    pub requests_sent: u64,
    /// Requests that failed and were tried again.
    pub retries: u64,
    /// How many requests may be in flight at present.
    pub concurrency: u64,
}

#[derive(Default)]
pub(super) struct Counters {
    rows_acknowledged: AtomicU64,
    statements_sent: AtomicU64,
    requests_sent: AtomicU64,
    retries: AtomicU64,
}

impl Counters {
    pub(super) fn stats(&self, concurrency: usize) -> Stats {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Stats {
            rows_acknowledged: read(&self.rows_acknowledged),
            statements_sent: read(&self.statements_sent),
            requests_sent: read(&self.requests_sent),
            retries: read(&self.retries),
            concurrency: concurrency as u64,
        }
    }
}

/// One request of a write, and how often it has failed.
struct Request {
    rows: Range<usize>,
    /// The waits that are left; its length bounds the attempts.
    waits: ExponentialBackoff,
}

/// A request that came back.
struct Done {
    request: Request,
    sent_in: Era,
    result: Result<(), ExecutionError>,
}

/// The requests that are not in flight: those still to be sent, and those that wait to be sent again.
struct Pending {
    fresh: std::vec::IntoIter<Range<usize>>,
    /// By when they are due, and a number that makes keys unique.
    again: BTreeMap<(Instant, u64), Request>,
    waited: u64,
}

impl Pending {
    /// The next one to send. Those that wait take up room: else a cluster that fails at once would be sent all.
    fn next(&mut self, in_flight: usize, limit: usize) -> Option<Request> {
        if limit <= in_flight {
            return None;
        }
        let waiting = self.again.len();
        if let Some(first) = self.again.first_entry()
            && first.key().0 <= Instant::now()
        {
            return Some(first.remove());
        }
        if limit <= in_flight + waiting {
            return None;
        }
        let rows = self.fresh.next()?;
        let waits = ExponentialBuilder::default()
            .with_min_delay(BACKOFF.0)
            .with_max_delay(BACKOFF.1)
            .with_max_times(ATTEMPTS_MAX - 1)
            .with_jitter()
            .build();
        Some(Request { rows, waits })
    }

    /// Puts one back; false if it has failed too often.
    fn put_back(&mut self, mut request: Request) -> bool {
        let Some(wait) = request.waits.next() else {
            return false;
        };
        self.waited += 1;
        self.again.insert((Instant::now() + wait, self.waited), request);
        true
    }

    fn next_due(&self) -> Option<Instant> {
        self.again.first_key_value().map(|((due, _), _)| *due)
    }
}

/// Writes all rows. What is in flight when it fails is left to its fate: it may be stored or not, and may be repeated.
pub(super) async fn write(link: Arc<Link>, requests: Requests) -> Result<(), CassandraError> {
    let rows: Arc<[Upsert]> = requests.rows.into();
    let mut pending = Pending { fresh: requests.ranges.into_iter(), again: BTreeMap::new(), waited: 0 };
    let mut flights = JoinSet::new();
    let mut give_up = Instant::now() + STALL;
    let mut last_error = None;
    loop {
        let (limit, era) = link.with_limiter(|limiter| (limiter.limit(), limiter.era()));
        while let Some(request) = pending.next(flights.len(), limit) {
            flights.spawn(fly(Arc::clone(&link), Arc::clone(&rows), request, era));
        }
        let due = pending.next_due();
        let done = tokio::select! {
            biased;
            Some(done) = flights.join_next() => done,
            () = sleep_until(due.unwrap_or(give_up)), if due.is_some() && flights.len() < limit => continue,
            () = sleep_until(give_up), if due.is_some() || !flights.is_empty() => {
                return Err(gave_up(&link, last_error));
            }
            else => return Ok(()),
        };
        let Done { request, sent_in, result } = done.expect("a flight neither panics nor is it called off");
        match result {
            Ok(()) => {
                link.with_limiter(|limiter| limiter.succeeded());
                link.counters.rows_acknowledged.fetch_add(request.rows.len() as u64, Ordering::Relaxed);
                give_up = Instant::now() + STALL;
            }
            Err(cause) if error::comes_again(&cause) => return Err(CassandraError::of(link.upsert_text(), cause)),
            Err(cause) => {
                link.with_limiter(|limiter| limiter.failed(sent_in));
                if !pending.put_back(request) {
                    return Err(gave_up(&link, Some(cause)));
                }
                last_error = Some(cause);
                link.counters.retries.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

fn gave_up(link: &Link, last_error: Option<ExecutionError>) -> CassandraError {
    CassandraError::of(link.upsert_text(), last_error.unwrap_or(ExecutionError::RequestTimeout(STALL)))
}

async fn fly(link: Arc<Link>, rows: Arc<[Upsert]>, request: Request, sent_in: Era) -> Done {
    let upserts = &rows[request.rows.clone()];
    let bound: Vec<Bound<'_>> = upserts.iter().flat_map(Upsert::bound).collect();
    let result = match &bound[..] {
        [one] => link.session.execute_unpaged(one.statement(&link.statements), one).await,
        all => {
            // Of one partition, in two tables at the most: Cassandra makes one mutation of it.
            let statement =
                |one: &Bound<'_>| BatchStatement::PreparedStatement(one.statement(&link.statements).clone());
            let mut batch = Batch::new_with_statements(BatchType::Unlogged, all.iter().map(statement).collect());
            batch.set_is_idempotent(true);
            link.session.batch(&batch, all).await
        }
    };
    if !result.as_ref().is_err_and(error::was_not_sent) {
        link.counters.requests_sent.fetch_add(1, Ordering::Relaxed);
        link.counters.statements_sent.fetch_add(upserts.len() as u64, Ordering::Relaxed);
    }
    Done { request, sent_in, result: result.map(|_| ()) }
}
