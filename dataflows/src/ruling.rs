//! Rulings: the verdicts that a partition's log alone does not give.
//!
//! An event behind the watermark, or behind the floor of a partition that was added, is late because of what other
//! partitions had come to when it was read. So is what was forgotten meanwhile, though its own partition's clock would
//! remember it. Each such verdict is stored by the place of its record, and whoever reads that record again applies it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{dedup::Verdict, port::PartitionId};

/// What was ruled of a record. The log alone says the rest.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Ruled {
    /// Late: it moved no clock, and no event that it repeats was remembered.
    Late,
    /// Behind, so it moved no clock, but a repeat of a remembered event.
    Repeat,
    /// Counted: an event that it repeats was forgotten.
    Counted,
}

impl Ruled {
    /// What a verdict rules, on a row that its partition calls late or not. A repeat that is not late needs no ruling:
    /// who has forgotten less finds it to be one as well.
    pub fn of(verdict: Verdict, late: bool) -> Option<Self> {
        match (verdict, late) {
            (Verdict::Late, _) => Some(Self::Late),
            (Verdict::Duplicate, true) => Some(Self::Repeat),
            (Verdict::Duplicate, false) => None,
            (Verdict::Counted, _) => Some(Self::Counted),
        }
    }
}

/// A ruling and its place.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Ruling {
    /// Which partition.
    pub partition: PartitionId,
    /// The record's offset.
    pub offset: u64,
    /// What was ruled.
    pub ruled: Ruled,
}

/// The rulings of one partition, by offset.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rulings(BTreeMap<u64, Ruled>);

impl Rulings {
    /// Those of `partition` from `next_offset` on.
    pub fn of(all: &[Ruling], partition: PartitionId, next_offset: u64) -> Self {
        let ours = all.iter().filter(|ruling| ruling.partition == partition && next_offset <= ruling.offset);
        Self(ours.map(|ruling| (ruling.offset, ruling.ruled)).collect())
    }

    /// What was ruled of the record at `offset`.
    #[inline]
    pub fn at(&self, offset: u64) -> Option<Ruled> {
        if self.0.is_empty() { None } else { self.0.get(&offset).copied() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partition_has_its_own_rulings_from_where_it_is_read_on() {
        let ruling = |partition, offset| Ruling { partition: PartitionId(partition), offset, ruled: Ruled::Late };
        let all = [ruling(0, 7), ruling(1, 7), ruling(1, 9)];
        let rulings = Rulings::of(&all, PartitionId(1), 8);
        assert_eq!([7, 8, 9].map(|offset| rulings.at(offset)), [None, None, Some(Ruled::Late)]);
    }
}
