//! What is true at a frontier, beside the counts: the watermark, each partition's clock, offset and ledger.

use serde::{Deserialize, Serialize};

use crate::{
    ledger::Ledger,
    port::PartitionId,
    time::{EventTime, Minute},
};

/// One partition at a frontier: the cut of its log, and what the records before the cut came to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartitionAt {
    /// Which partition.
    pub partition: PartitionId,
    /// The offset behind the last record before the frontier.
    pub next_offset: u64,
    /// Its clock, once it has one.
    pub clock: Option<EventTime>,
    /// Whether it has ended for good.
    pub ended: bool,
    /// What became of its records.
    pub ledger: Ledger,
}

/// A frontier that every worker has reached, and the facts that hold at it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announcement {
    /// All updates before this time are in.
    pub frontier: EventTime,
    /// What is final: windows whose end is at or before it. 0 where some partition has no clock yet,
    /// [`crate::time::END_OF_TIME`] where all have ended.
    pub watermark: EventTime,
    /// Who holds the watermark back: the partition with the least clock.
    pub held_by: Option<PartitionId>,
    /// Every partition, by number.
    pub partitions: Vec<PartitionAt>,
}

impl Announcement {
    /// Whether the window can change no more.
    pub fn is_final(&self, minute: Minute) -> bool {
        minute.is_final(self.watermark)
    }

    /// The sum of all partitions' ledgers.
    pub fn ledger(&self) -> Ledger {
        let mut sum = Ledger::default();
        for at in &self.partitions {
            sum += at.ledger;
        }
        sum
    }
}
