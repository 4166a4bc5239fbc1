//! Counts in Cassandra: tables that anybody may read, written as absolute values that any number of repetitions leave
//! as they are.
//!
//! * Rows are upserts with a timestamp made of their version (`version`), never of a clock: of two writes of one row the
//!   greater version wins, in whatever order they arrive, and so a retry, a zombie or a stray edit changes nothing.
//! * The keyspace has one owner, kept in the claim row (`claim`) by the only lightweight transactions there are.
//! * What a video is called stands in static columns of its partitions: as it was known when they were last written.
//! * Requests go out many at a time (`limiter`, `write`), each on its own partition (`requests`).
//! * Tables are created where they are missing, and refused where they differ (`schema`).
//!
//! Everything runs on two threads of our own (`worker`): callers wait on plain channels and need no runtime.
//!
//! Not promised: that a zombie's row of a window that its successor never writes stays away. A zombie may write between
//! [`Tables::clear`] and the moment in which it learns that it is fenced.

mod answer;
mod claim;
mod connect;
mod error;
mod limiter;
mod requests;
mod scan;
mod schema;
mod settings;
mod statements;
mod tls;
mod version;
mod worker;
mod write;

use std::{
    ops::{ControlFlow, Range},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use dataflows::{
    port::{Claim, ColdSeries, ColdSum, ColdWindow, CountRow, CountSink, Labels, SinkError, Version},
    time::EventTime,
};
use scylla::{client::session::Session, statement::Statement};

use self::{
    connect::{Access, Patience},
    limiter::Limiter,
    requests::Requests,
    scan::Place,
    schema::Missing,
    statements::Statements,
    worker::Worker,
    write::Counters,
};
pub use self::{error::CassandraError, settings::Settings, write::Stats};

/// How long one request may take. Cassandra itself gives up after 2 to 10 s, so this is for a node that says nothing.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// Cassandra gives a truncation 60 s.
const TRUNCATE_TIMEOUT: Duration = Duration::from_secs(70);

/// The tables of one keyspace. Clones are handles of the same session.
///
/// * A write is `Ok` once a quorum of the local data centre has acknowledged it, and as durable as those nodes keep it.
///   With their default, `commitlog_sync: periodic`, a node that dies loses what it acknowledged last (up to 10 s, and it
///   is not only the machine that has to die): one copy alone is durable with `commitlog_sync: batch` or `group` only.
/// * It is atomic within 100 rows of one partition and not beyond.
/// * Of two rows of one window in one write the last counts.
/// * A write in which nothing is acknowledged any more ends after 40 s at the latest ([`SinkError::Unanswered`]); all
///   other calls but [`CountSink::clear`] after a few request timeouts (10 s each).
/// * Reads ask for a quorum of the local data centre too, so they see all that was acknowledged.
#[derive(Clone)]
pub struct Tables {
    shared: Arc<Shared>,
    /// What this handle writes of videos beside their counts.
    labels: Option<Arc<dyn Labels>>,
}

struct Shared {
    /// What errors call it.
    name: String,
    worker: Worker,
    link: Arc<Link>,
}

/// What the work on our threads needs.
struct Link {
    session: Session,
    statements: Statements,
    limiter: Mutex<Limiter>,
    counters: Counters,
    /// The statements that empty the tables.
    truncates: Vec<String>,
}

impl Link {
    fn with_limiter<T>(&self, act: impl FnOnce(&mut Limiter) -> T) -> T {
        // No step leaves it half changed, so a panic elsewhere spoils nothing.
        act(&mut self.limiter.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn upsert_text(&self) -> &str {
        self.statements.upserts[0].get_statement()
    }
}

impl Tables {
    /// Connects, creates what is missing of keyspace and tables, and checks the rest. Tries for as long as `patience`
    /// says while nobody answers; what would be refused again is refused at once, as is a user that may not write.
    ///
    /// For one process: several that create the same tables at the same time can confuse a cluster.
    pub fn open(settings: &Settings, patience: Duration) -> Result<Self, CassandraError> {
        Self::open_with(settings, patience, Missing::Create)
    }

    /// Connects and checks; creates nothing. Waits for as long as `patience` says for tables that another process may
    /// be about to create.
    pub fn open_existing(settings: &Settings, patience: Duration) -> Result<Self, CassandraError> {
        Self::open_with(settings, patience, Missing::Refuse)
    }

    fn open_with(settings: &Settings, patience: Duration, missing: Missing) -> Result<Self, CassandraError> {
        let access = Access::read(settings)?;
        let worker = Worker::start()?;
        let link = worker.ask(async move { link(access, patience, missing).await })?;
        let name = format!("cassandra keyspace {}", settings.keyspace);
        Ok(Self { shared: Arc::new(Shared { name, worker, link: Arc::new(link) }), labels: None })
    }

    /// The rows of the windows that start in the range, ascending. Reads one partition for each day of the range, so it
    /// should not be wider than needed; one of more than a hundred years is refused.
    pub fn scan(
        &self,
        video_id: &str,
        event_type: &str,
        starts: Range<EventTime>,
    ) -> Result<Vec<CountRow>, CassandraError> {
        let link = Arc::clone(&self.shared.link);
        let (video_id, event_type) = (video_id.to_owned(), event_type.to_owned());
        self.shared.worker.ask(scan::range(link, video_id, event_type, starts))
    }

    /// The windows of a series that start in a range of any width, ascending: functions are there for final ones.
    pub fn scan_cold(
        &self,
        series: ColdSeries<'_>,
        starts: Range<EventTime>,
    ) -> Result<Vec<ColdWindow>, CassandraError> {
        self.shared.worker.ask(scan::cold(Arc::clone(&self.shared.link), series.into(), starts))
    }

    /// The beginnings of the days that start in the range and have any of a series' windows, ascending.
    pub fn scan_days(
        &self,
        series: ColdSeries<'_>,
        starts: Range<EventTime>,
    ) -> Result<Vec<EventTime>, CassandraError> {
        self.shared.worker.ask(scan::days(Arc::clone(&self.shared.link), series.into(), starts))
    }

    /// What the windows of each video come to that are of the event type, final, and start in the range, ascending by video. Of days
    /// that are in it as a whole, a first or last window is the day's.
    pub fn scan_sums(&self, event_type: &str, starts: Range<EventTime>) -> Result<Vec<ColdSum>, CassandraError> {
        self.shared.worker.ask(scan::sums(Arc::clone(&self.shared.link), event_type.into(), starts))
    }

    /// Visits every row, the windows of one video, event type and day together and ascending, all else in no order,
    /// until `visit` breaks. Rows that are written meanwhile may be seen or not.
    pub fn scan_all(&self, mut visit: impl FnMut(CountRow) -> ControlFlow<()>) -> Result<(), CassandraError> {
        let mut place = Some(Place::start());
        while let Some(from) = place {
            let (rows, next) = self.shared.worker.ask(scan::page(Arc::clone(&self.shared.link), from))?;
            if rows.into_iter().try_for_each(&mut visit).is_break() {
                return Ok(());
            }
            place = next;
        }
        Ok(())
    }

    /// Figures since it was opened, for all handles together.
    pub fn stats(&self) -> Stats {
        let link = &self.shared.link;
        link.counters.stats(link.with_limiter(|limiter| limiter.limit()))
    }

    fn as_sink_error(&self, what: impl Into<String>) -> impl FnOnce(CassandraError) -> SinkError {
        let what = what.into();
        move |error| error.of_sink(&self.shared.name, what)
    }
}

async fn link(access: Access, patience: Duration, missing: Missing) -> Result<Link, CassandraError> {
    let settings = access.settings();
    let patience = Patience::new(settings, patience);
    let session = patience.with(|_| false, || access.session(patience.left())).await?;
    // Who may create nothing waits for the one that may.
    let may_mend = |error: &CassandraError| missing == Missing::Refuse && schema::is_missing(error);
    patience.with(may_mend, || schema::ensure(&session, settings, missing)).await?;
    let keyspace = settings.quoted_keyspace();
    // A node shows tables in system_schema a moment before it knows them.
    let may_mend =
        |error: &CassandraError| missing == Missing::Refuse && matches!(error, CassandraError::Refused { .. });
    let statements = patience.with(may_mend, || Statements::prepare(&session, &keyspace)).await?;
    if missing == Missing::Create {
        patience.with(|_| false, || claim::may_write(&session, &statements)).await?;
    }
    let truncates = schema::WINDOWS.iter().map(|table| format!("TRUNCATE {keyspace}.{}", table.name)).collect();
    let (limiter, counters) = (Mutex::new(Limiter::new()), Counters::default());
    Ok(Link { session, statements, limiter, counters, truncates })
}

impl CountSink for Tables {
    fn claim(&mut self) -> Result<Option<Claim>, SinkError> {
        let link = Arc::clone(&self.shared.link);
        let read = async move { claim::read(&link.session, &link.statements).await };
        self.shared.worker.ask(read).map_err(self.as_sink_error("a read of its claim"))
    }

    /// Also [`SinkError::Fenced`] where the claim of another history is there, whatever its generation.
    fn set_claim(&mut self, claim: &Claim) -> Result<(), SinkError> {
        let (link, name, claim) = (Arc::clone(&self.shared.link), self.shared.name.clone(), claim.clone());
        self.shared.worker.ask(async move { claim::set(&link.session, &link.statements, &name, &claim).await })
    }

    fn wants_rollups(&self) -> bool {
        true
    }

    fn label_by(&mut self, labels: Arc<dyn Labels>) {
        self.labels = Some(labels);
    }

    fn write(&mut self, version: Version, rows: &[CountRow]) -> Result<(), SinkError> {
        let requests = Requests::plan(version, rows, self.labels.as_deref()).map_err(|row| SinkError::Refused {
            sink: self.shared.name.clone(),
            what: format!("a row of video {:?} under {version:?}", row.video_id),
            cause: "its numbers are greater than the columns and the timestamp can hold".into(),
        })?;
        if requests.ranges.is_empty() {
            return Ok(());
        }
        let written = self.shared.worker.ask(write::write(Arc::clone(&self.shared.link), requests));
        written.map_err(self.as_sink_error(format!("{} rows", rows.len())))
    }

    /// Only for a history that is counted anew from its first record (`--from-start`). Needs every node that holds rows.
    ///
    /// Truncates rather than deletes: a deletion under a timestamp above all rows would hide all rows to come, and
    /// Cassandra knows what it truncated by files and log positions, not by timestamps. The claim is marked before and
    /// deleted after, so a crash in between leaves a claim of no history, which has to be cleared again. By default
    /// Cassandra keeps a snapshot of what is truncated (`auto_snapshot`).
    fn clear(&mut self) -> Result<(), SinkError> {
        let link = Arc::clone(&self.shared.link);
        let clear = async move {
            claim::mark(&link.session, &link.statements).await?;
            for truncate in &link.truncates {
                let mut statement = Statement::new(truncate.as_str());
                statement.set_request_timeout(Some(TRUNCATE_TIMEOUT));
                let done = link.session.query_unpaged(statement, ()).await;
                done.map_err(|cause| CassandraError::of(truncate, cause))?;
            }
            claim::delete(&link.session, &link.statements).await
        };
        self.shared.worker.ask(clear).map_err(self.as_sink_error("to be emptied"))
    }
}
