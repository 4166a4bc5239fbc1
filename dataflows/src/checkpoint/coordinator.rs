//! Who says when a checkpoint is cut, and at which frontier: a pure state machine on worker 0.
//!
//! The frontier of a cut must be one that every worker can still stop at. So all are asked to hold where they are; the
//! greatest of their frontiers was reached by one of them, hence everybody will reach it without new input, and nobody
//! has gone past it. Then they cut there and go on, and the manifest is written once all parts are durable.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::time::{EventTime, Minute};

use super::manifest::PartInfo;

/// What the coordinator says to all workers.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Order {
    /// Hold where you are and say where that is.
    Hold {
        /// Of which checkpoint.
        number: u64,
    },
    /// Go to this frontier, cut, and go on.
    Cut {
        /// Of which checkpoint.
        number: u64,
        /// Where to cut.
        frontier: EventTime,
        /// The first window that any worker had in memory at the checkpoint before: none before it can leave. The last there
        /// can be where that is not known.
        first: Minute,
    },
    /// Go on: there is nothing to cut.
    Release,
}

/// A worker's part that is durable.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredPart {
    /// Which file.
    pub info: PartInfo,
    /// How many events its worker has counted, also those of windows that have left memory.
    pub counted: u64,
    /// Of them, these.
    pub left: u64,
    /// Its first window in memory.
    pub first: Option<Minute>,
    /// Whether it holds dead letters.
    pub has_letters: bool,
}

/// Where a checkpoint under way stands.
#[derive(Debug)]
enum Phase {
    Idle,
    Holding { at: BTreeMap<usize, EventTime> },
    Cutting { parts: BTreeMap<usize, StoredPart> },
    Committing { acknowledged: BTreeSet<usize> },
}

/// The coordinator's state.
#[derive(Debug)]
pub struct Coordinator {
    workers: usize,
    processes: usize,
    number: u64,
    last_frontier: EventTime,
    /// The first window in memory at the last checkpoint.
    first: Minute,
    phase: Phase,
}

impl Coordinator {
    /// For `workers` workers in all, in `processes` processes; the last checkpoint was `number` at `frontier`.
    pub fn new(workers: usize, processes: usize, number: u64, frontier: EventTime) -> Self {
        Self { workers, processes, number, last_frontier: frontier, first: Minute::LAST, phase: Phase::Idle }
    }

    /// A checkpoint is due. Ignored while one is under way.
    pub fn due(&mut self) -> Option<Order> {
        matches!(self.phase, Phase::Idle).then(|| {
            self.number += 1;
            self.phase = Phase::Holding { at: BTreeMap::new() };
            Order::Hold { number: self.number }
        })
    }

    /// A worker holds at its frontier.
    pub fn held(&mut self, number: u64, worker: usize, frontier: EventTime) -> Option<Order> {
        let Phase::Holding { at } = &mut self.phase else { return None };
        if number != self.number {
            return None;
        }
        at.insert(worker, frontier);
        if at.len() < self.workers {
            return None;
        }
        let frontier = *at.values().max().expect("there is a worker");
        if frontier == self.last_frontier {
            // The state is the fold of the records below the frontier: at the same frontier it is the same.
            self.phase = Phase::Idle;
            self.number -= 1;
            return Some(Order::Release);
        }
        self.last_frontier = frontier;
        self.phase = Phase::Cutting { parts: BTreeMap::new() };
        Some(Order::Cut { number, frontier, first: self.first })
    }

    /// A worker's part is durable. Gives all parts when they are: the manifest may be written.
    pub fn written(&mut self, number: u64, worker: usize, part: StoredPart) -> Option<Vec<StoredPart>> {
        let Phase::Cutting { parts } = &mut self.phase else { return None };
        if number != self.number {
            return None;
        }
        parts.insert(worker, part);
        if parts.len() < self.workers {
            return None;
        }
        let parts: Vec<_> = std::mem::take(parts).into_values().collect();
        self.first = parts.iter().filter_map(|part| part.first).min().unwrap_or(Minute::LAST);
        self.phase = Phase::Committing { acknowledged: BTreeSet::new() };
        Some(parts)
    }

    /// What a process writes for the committed checkpoint is acknowledged. Says whether that holds for all of them now:
    /// the next checkpoint may come.
    pub fn acknowledged(&mut self, number: u64, process: usize) -> bool {
        let Phase::Committing { acknowledged } = &mut self.phase else { return false };
        if number != self.number {
            return false;
        }
        acknowledged.insert(process);
        let is_settled = acknowledged.len() == self.processes;
        if is_settled {
            self.phase = Phase::Idle;
        }
        is_settled
    }

    /// Whether nothing is under way.
    pub fn is_idle(&self) -> bool {
        matches!(self.phase, Phase::Idle)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(name: &str) -> StoredPart {
        let (info, first) = (PartInfo::of(name.into(), 1, b""), (name == "b").then_some(Minute(3)));
        StoredPart { info, counted: 1, left: 0, first, has_letters: name == "b" }
    }

    #[test]
    fn the_cut_is_at_the_greatest_frontier_that_anyone_holds_at() {
        let mut coordinator = Coordinator::new(2, 2, 4, 100);
        assert_eq!(coordinator.due(), Some(Order::Hold { number: 5 }));
        assert_eq!(coordinator.due(), None, "one at a time");
        assert_eq!(coordinator.held(5, 1, 700), None);
        assert_eq!(coordinator.held(5, 1, 700), None, "the same worker twice is one worker");
        assert_eq!(coordinator.held(5, 0, 300), Some(Order::Cut { number: 5, frontier: 700, first: Minute::LAST }));
        assert_eq!(coordinator.written(5, 0, part("a")), None);
        assert_eq!(coordinator.written(4, 1, part("b")), None, "an answer to another checkpoint");
        assert_eq!(coordinator.written(5, 1, part("b")), Some(vec![part("a"), part("b")]));
        assert_eq!(coordinator.due(), None, "not before the rows are acknowledged");
        assert!(!coordinator.acknowledged(5, 1), "one of two processes");
        assert!(!coordinator.acknowledged(5, 1), "the same process twice is one process");
        assert_eq!(coordinator.due(), None, "not before all rows are acknowledged");
        assert!(coordinator.acknowledged(5, 0));
        assert_eq!(coordinator.due(), Some(Order::Hold { number: 6 }));
        assert_eq!(coordinator.held(6, 0, 800), None);
        assert_eq!(
            coordinator.held(6, 1, 800),
            Some(Order::Cut { number: 6, frontier: 800, first: Minute(3) }),
            "one of the two parts holds windows"
        );
    }

    #[test]
    fn where_nothing_moved_nothing_is_written() {
        let mut coordinator = Coordinator::new(1, 1, 4, 700);
        coordinator.due();
        assert_eq!(coordinator.held(5, 0, 700), Some(Order::Release));
        assert_eq!(coordinator.due(), Some(Order::Hold { number: 5 }), "the number was not used");
    }
}
