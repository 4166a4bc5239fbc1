//! What functions of a window's events should be: all of them listed, and looked at one by one.

use std::collections::{BTreeMap, BTreeSet};

use crate::{Outcome, Record, Verdict, decode, judge::WINDOW_MS};

/// Everything that was counted in a window.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Window {
    pub events: u64,
    /// Of the events that have one, ascending.
    pub values: Vec<f64>,
    pub users: BTreeSet<String>,
}

/// The windows by video id, event type and start.
pub type Windows = BTreeMap<(String, String, u64), Window>;

/// Lists the counted events of a run.
pub fn windows(outcome: &Outcome, partitions: &[Vec<Record>]) -> Windows {
    let mut windows = Windows::new();
    for (records, verdicts) in partitions.iter().zip(&outcome.verdicts) {
        for (record, _) in records.iter().zip(verdicts).filter(|(_, verdict)| **verdict == Verdict::Counted) {
            let event = decode(&record.payload).expect("what is counted is an event");
            let start = event.timestamp_ms / WINDOW_MS * WINDOW_MS;
            let window = windows.entry((event.video_id, event.event_type, start)).or_default();
            window.events += 1;
            window.values.extend(event.value);
            window.users.extend(event.user_id);
        }
    }
    windows.values_mut().for_each(|window| window.values.sort_by(f64::total_cmp));
    windows
}

impl Window {
    /// One window with the events of both.
    pub fn and(mut self, other: &Self) -> Self {
        self.events += other.events;
        self.values.extend(&other.values);
        self.values.sort_by(f64::total_cmp);
        self.users.extend(other.users.iter().cloned());
        self
    }

    /// The sum, rounded once. Of values that are whole in units of `2^-80` and below `2^40`.
    pub fn sum(&self) -> f64 {
        let unit = 2.0_f64.powi(-80);
        let in_units = |value: &f64| {
            let units = value / unit;
            assert!(units.fract() == 0.0 && value.abs() < 2.0_f64.powi(40), "{value} is not in the oracle's reach");
            units as i128
        };
        self.values.iter().map(in_units).sum::<i128>() as f64 * unit
    }

    /// The value that `percent` of the others are below.
    pub fn quantile(&self, percent: usize) -> Option<f64> {
        self.values.len().checked_sub(1).map(|last| self.values[last * percent / 100])
    }
}
