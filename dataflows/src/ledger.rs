//! The ledger: what became of every record that was read, per partition.
//!
//! Invariant, at every frontier: `read = counted + duplicate + late + future + malformed + oversize`, each account
//! counted where it is decided and none computed from the others.

use std::ops::AddAssign;

use serde::{Deserialize, Serialize};

/// The accounts of one partition, in records.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ledger {
    /// Read from the log.
    pub read: u64,
    /// Counted once.
    pub counted: u64,
    /// Repeats of counted events.
    pub duplicate: u64,
    /// Behind the partition's clock by more than the lateness.
    pub late: u64,
    /// Ahead of their append time by more than is allowed.
    pub future: u64,
    /// Not an event.
    pub malformed: u64,
    /// Too long to look at.
    pub oversize: u64,
}

impl Ledger {
    /// Whether every record read has got exactly one verdict.
    pub fn balances(&self) -> bool {
        self.read == self.counted + self.duplicate + self.late + self.future + self.malformed + self.oversize
    }
}

impl AddAssign for Ledger {
    fn add_assign(&mut self, other: Self) {
        self.read += other.read;
        self.counted += other.counted;
        self.duplicate += other.duplicate;
        self.late += other.late;
        self.future += other.future;
        self.malformed += other.malformed;
        self.oversize += other.oversize;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ledger_balances_when_every_record_has_one_verdict() {
        let mut ledger = Ledger { read: 6, counted: 1, duplicate: 1, late: 1, future: 1, malformed: 1, oversize: 1 };
        assert!(ledger.balances());
        ledger += Ledger { read: 1, ..Ledger::default() };
        assert!(!ledger.balances());
    }
}
