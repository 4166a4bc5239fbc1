//! What the status shows of the keeper.

use std::{
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use dataflows::control::Outcome;

use super::whole_ms;
use crate::{live::bottleneck::WaitingRows, service::CheckpointFacts};

/// Rows that are not taken for so long are told of: the sink may be frozen, and its driver is patient.
const SLOW_AFTER: Duration = Duration::from_secs(5);

/// And again after this.
const SLOW_AGAIN: Duration = Duration::from_secs(10);

/// The newest checkpoint, and what goes wrong.
#[derive(Default)]
pub struct KeeperFacts {
    last: Mutex<Option<(CheckpointFacts, Instant)>>,
    failed: AtomicU64,
    trouble: Mutex<Option<String>>,
    rows: Mutex<Option<Rows>>,
    is_full: AtomicBool,
}

/// Rows on their way into the sink.
struct Rows {
    sink: &'static str,
    rows: usize,
    since: Instant,
    said: Option<Instant>,
}

impl Rows {
    /// Whether it is to be told now that they are not taken.
    fn is_to_be_told(&mut self, now: Instant) -> bool {
        let again = self.said.is_none_or(|said| SLOW_AGAIN <= now.duration_since(said));
        let told = SLOW_AFTER <= now.duration_since(self.since) && again;
        if told {
            self.said = Some(now);
        }
        told
    }
}

impl KeeperFacts {
    /// The newest checkpoint, with its present age.
    pub fn last(&self) -> Option<CheckpointFacts> {
        let last = self.last.lock().expect("nobody panics while holding it");
        last.as_ref().map(|(facts, at)| CheckpointFacts { age_ms: whole_ms(at.elapsed()), ..facts.clone() })
    }

    /// How many tries to write have failed.
    pub fn failed(&self) -> u64 {
        self.failed.load(Ordering::Relaxed)
    }

    /// Why nothing can be written at the moment.
    pub fn trouble(&self) -> Option<String> {
        self.trouble.lock().expect("nobody panics while holding it").clone()
    }

    /// Rows that the sink has not taken yet.
    pub fn waiting(&self) -> Option<WaitingRows> {
        let rows = self.rows.lock().expect("nobody panics while holding it");
        rows.as_ref().map(|rows| WaitingRows { sink: rows.sink, rows: rows.rows, lasting: rows.since.elapsed() })
    }

    /// Whether as much waits for the sink as may.
    pub fn is_full(&self) -> bool {
        self.is_full.load(Ordering::Relaxed)
    }

    /// Notes what the workers have told of that.
    pub fn heed(&self, outcome: &Outcome) {
        match outcome {
            Outcome::Full => self.is_full.store(true, Ordering::Relaxed),
            Outcome::Room => self.is_full.store(false, Ordering::Relaxed),
            _ => {}
        }
    }

    /// Warns of rows that the sink does not take, now and then.
    pub fn warn_of_slow_rows(&self) {
        let mut rows = self.rows.lock().expect("nobody panics while holding it");
        if let Some(rows) = rows.as_mut()
            && rows.is_to_be_told(Instant::now())
        {
            let Rows { sink, rows, since, .. } = rows;
            tracing::warn!(sink, rows, waiting = ?since.elapsed(), "rows wait for the sink, which has not taken them yet");
        }
    }

    /// Does what rows wait for.
    pub(super) fn while_rows_wait<T>(&self, sink: &'static str, rows: usize, act: impl FnOnce() -> T) -> T {
        let set = |rows| *self.rows.lock().expect("nobody panics while holding it") = rows;
        set(Some(Rows { sink, rows, since: Instant::now(), said: None }));
        let done = act();
        set(None);
        done
    }

    /// Notes the checkpoint that was resumed, or is now committed.
    pub fn set_last(&self, facts: CheckpointFacts) {
        *self.last.lock().expect("nobody panics while holding it") = Some((facts, Instant::now()));
    }

    pub(super) fn set_trouble(&self, trouble: Option<String>) {
        if trouble.is_some() {
            self.failed.fetch_add(1, Ordering::Relaxed);
        }
        *self.trouble.lock().expect("nobody panics while holding it") = trouble;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_that_are_not_taken_are_told_of_after_5_s_and_every_10_s_again() {
        let since = Instant::now();
        let mut rows = Rows { sink: "Cassandra", rows: 1, since, said: None };
        let told: Vec<u64> =
            (0..40).filter(|second| rows.is_to_be_told(since + Duration::from_secs(*second))).collect();
        assert_eq!(told, [5, 15, 25, 35]);
    }
}
