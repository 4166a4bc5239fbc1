//! What `run` and `replay` share: rules from settings, time, and the partitions' way to the workers.

#[cfg(feature = "cassandra")]
pub mod cassandra;
#[cfg(feature = "kafka")]
pub mod kafka;
pub mod kept;
#[cfg(feature = "objects")]
pub mod objects;
pub mod reach;
pub mod spread;

use std::{
    collections::BTreeMap,
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use dataflows::{
    port::{PartitionId, PartitionReader, SourceError, Timer},
    rules::Rules,
    time::EventTime,
};
use timely::worker::Worker;

use self::spread::{Shares, owners};
use crate::{
    config::TimeSettings,
    exit::{Exit, Failure},
};

/// A reader on its way to its worker.
pub type SendReader = Box<dyn PartitionReader + Send>;

/// How long a worker sleeps at most: its heartbeat shows that often.
const PARK: Duration = Duration::from_millis(100);

/// The dataflow's rules by the configuration.
pub fn rules(time: &TimeSettings) -> Rules {
    Rules {
        lateness_ms: time.lateness_ms,
        remember_ms: time.remember_ms,
        max_future_ms: time.max_future_ms,
        max_jump_ms: time.max_jump_ms,
        tick_ms: time.tick_ms,
        coarse_ms: time.coarsest_step_ms(),
        idle_after_ms: time.idle_after_ms,
        alignment_ms: time.alignment_ms,
        quiet: time.quiet,
    }
}

/// The monotonic clock.
#[derive(Copy, Clone, Debug)]
pub struct Monotonic {
    start: Instant,
}

impl Monotonic {
    /// Starts at zero.
    pub fn start() -> Self {
        Self { start: Instant::now() }
    }
}

impl Timer for Monotonic {
    fn monotonic_ms(&self) -> u64 {
        self.start.elapsed().as_millis() as u64
    }

    fn is_wall_clock_within(&self, time: EventTime, within_ms: u64) -> bool {
        wall_clock_ms().abs_diff(time) <= within_ms
    }
}

/// The wall clock, ms since the epoch; one that is set before 1970 counts as 1970.
pub fn wall_clock_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

/// An error with its causes on one line.
pub fn one_line(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text += &format!(": {cause}");
        next = cause.source();
    }
    text
}

/// Readers by worker, each taken once.
pub struct Handout {
    by_worker: Mutex<BTreeMap<usize, Vec<SendReader>>>,
}

impl Handout {
    /// Readers, each with the worker that it is for.
    pub fn new(readers: Vec<(usize, SendReader)>) -> Self {
        let mut by_worker: BTreeMap<usize, Vec<SendReader>> = BTreeMap::new();
        for (worker, reader) in readers {
            by_worker.entry(worker).or_default().push(reader);
        }
        Self { by_worker: Mutex::new(by_worker) }
    }

    /// Spreads readers of so much each over workers.
    pub fn by_size(readers: Vec<(u64, SendReader)>, shares: &Shares, workers: usize) -> Self {
        let sizes: Vec<(PartitionId, u64)> = readers.iter().map(|(size, reader)| (reader.partition(), *size)).collect();
        let owners = owners(&sizes, shares, workers, workers);
        Self::new(readers.into_iter().map(|(_, reader)| (owners[&reader.partition()], reader)).collect())
    }

    /// The readers of a worker.
    pub fn take(&self, worker: usize) -> Vec<Box<dyn PartitionReader>> {
        let mut by_worker = self.by_worker.lock().expect("nobody panics while holding the readers");
        let readers = by_worker.remove(&worker).unwrap_or_default();
        readers.into_iter().map(|reader| reader as Box<dyn PartitionReader>).collect()
    }
}

/// The first error that a worker met; all workers end when there is one.
#[derive(Default)]
pub struct FirstError {
    met: AtomicBool,
    error: Mutex<Option<SourceError>>,
}

impl FirstError {
    /// Notes an error.
    pub fn set(&self, error: SourceError) {
        self.error.lock().expect("nobody panics while holding an error").get_or_insert(error);
        self.met.store(true, Ordering::Release);
    }

    /// Ends all workers without an error of theirs.
    pub fn stop(&self) {
        self.met.store(true, Ordering::Release);
    }

    /// Whether the workers are to end.
    pub fn is_met(&self) -> bool {
        self.met.load(Ordering::Acquire)
    }

    /// The error as a failure.
    pub fn failure(&self) -> Option<Failure> {
        self.error.lock().expect("nobody panics while holding an error").take().map(source_failure)
    }
}

/// The failure of an input.
pub fn source_failure(error: SourceError) -> Failure {
    let code = match error {
        SourceError::Replaced { .. } | SourceError::Corrupt { .. } => Exit::InputReplaced,
        _ => Exit::Failed,
    };
    Failure::new(code, error)
}

/// Steps a worker until its dataflows have ended, or an input has failed; `beat` is called at each round.
pub fn drive(worker: &mut Worker, errors: &FirstError, mut beat: impl FnMut()) {
    while worker.has_dataflows() && !errors.is_met() {
        beat();
        worker.step_or_park(Some(PARK));
    }
    for dataflow in worker.installed_dataflows() {
        worker.drop_dataflow(dataflow);
    }
}
