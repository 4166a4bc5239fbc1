//! Records that are gone from a partition's log before they were read, and which windows may lack them.
//!
//! A lost event would have been counted only in a window that was open when the partition's clock stood where the hole
//! begins, and it was not future when it was appended, which was before the record behind the hole: windows between these
//! two bounds may lack it, and no others.

use serde::{Deserialize, Serialize};

use crate::time::{EventTime, MINUTE_MS, floor_to};

/// A hole in a partition that was passed over, as told.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    /// The offset that was to be read next.
    pub wanted: u64,
    /// The first offset behind it.
    pub first: u64,
    /// The least time of an event that would have been counted, ms.
    pub from: EventTime,
    /// The greatest, ms; `None` while no record behind it was read.
    pub until: Option<EventTime>,
}

impl Gap {
    /// How many offsets are lost.
    pub fn lost(&self) -> u64 {
        self.first - self.wanted
    }

    /// The windows of a minute that may lack events: where the first one begins, and where the last one ends, if it is known.
    pub fn windows(&self) -> (EventTime, Option<EventTime>) {
        (floor_to(self.from, MINUTE_MS), self.until.map(|until| floor_to(until, MINUTE_MS) + MINUTE_MS))
    }
}

/// Takes in what became known of a hole: it continues the last one where no record behind that was read.
pub fn note(gaps: &mut Vec<Gap>, gap: Gap) {
    match gaps.last_mut().filter(|last| last.until.is_none()) {
        Some(last) => *last = Gap { wanted: last.wanted, from: last.from, ..gap },
        None => gaps.push(gap),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hole_touches_the_windows_between_its_bounds_and_every_later_one_while_it_is_open() {
        let gap = Gap { wanted: 5, first: 9, from: 120_000, until: Some(240_000) };
        assert_eq!(gap.lost(), 4);
        let touched = |gap: Gap| {
            let (start, end) = gap.windows();
            (0..6).filter(|n| (start..end.unwrap_or(u64::MAX)).contains(&(n * 60_000))).collect::<Vec<_>>()
        };
        assert_eq!(touched(gap), [2, 3, 4]);
        assert_eq!(touched(Gap { from: 119_999, until: Some(239_999), ..gap }), [1, 2, 3]);
        assert_eq!(touched(Gap { until: None, ..gap }), [2, 3, 4, 5]);
    }

    #[test]
    fn a_hole_grows_until_a_record_behind_it_is_read_and_then_another_one_begins() {
        let mut gaps = Vec::new();
        note(&mut gaps, Gap { wanted: 5, first: 9, from: 100, until: None });
        note(&mut gaps, Gap { wanted: 9, first: 12, from: 100, until: None });
        note(&mut gaps, Gap { wanted: 5, first: 12, from: 100, until: Some(700) });
        note(&mut gaps, Gap { wanted: 20, first: 21, from: 600, until: None });
        let expect = [
            Gap { wanted: 5, first: 12, from: 100, until: Some(700) },
            Gap { wanted: 20, first: 21, from: 600, until: None },
        ];
        assert_eq!(gaps, expect);
    }
}
