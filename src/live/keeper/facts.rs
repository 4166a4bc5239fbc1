//! What the status shows of the keeper.

use std::{
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use super::whole_ms;
use crate::service::CheckpointFacts;

/// The newest checkpoint, and what goes wrong.
#[derive(Default)]
pub struct KeeperFacts {
    last: Mutex<Option<(CheckpointFacts, Instant)>>,
    failed: AtomicU64,
    trouble: Mutex<Option<String>>,
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
