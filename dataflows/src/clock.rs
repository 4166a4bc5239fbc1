//! A partition's clock: the stream time that judges its records.
//!
//! It follows the greatest timestamp of the partition's well-formed events that are neither late nor future, but one
//! wild stamp can't move it: an event more than `max_jump` ahead moves it only as the 16th distinct event id of such
//! events in a row, and then to the least timestamp of that row.
//!
//! Late means `timestamp < clock - lateness` here, whatever the verdict: such a repeat is called a duplicate, yet it
//! leaves clock and row alone, so that the clock follows from the partition's log and never from remembered ids.
//!
//! A partition that was added later has a floor: the least clock of the others at the moment when it joined. It judges as
//! if its clock stood there until it has gone past it, so what is final stays so, and what is forgotten counts once.

use serde::{Deserialize, Serialize};

use crate::{rules::Rules, time::EventTime};

/// How many distinct event ids in a row confirm a jump.
pub const JUMP_IDS: usize = 16;

/// The clock, with the row of events beyond its reach that is under way.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Clock {
    time: Option<EventTime>,
    row: Option<Row>,
    floor: Option<EventTime>,
}

/// Events beyond reach, in a row: their distinct ids, fewer than [`JUMP_IDS`], and their least timestamp.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    /// The distinct event ids, in the order of their first appearance.
    pub event_ids: Vec<String>,
    /// The least timestamp of all events in the row, repeats included.
    pub least: EventTime,
}

impl Clock {
    /// A clock as it was saved.
    pub fn restore(time: Option<EventTime>, row: Option<Row>) -> Self {
        Self { time, row, floor: None }
    }

    /// The same clock in a partition that joined when the least clock of the others was `floor`.
    pub fn with_floor(self, floor: Option<EventTime>) -> Self {
        Self { floor, ..self }
    }

    /// The least clock of the other partitions when this one joined them.
    pub fn floor(&self) -> Option<EventTime> {
        self.floor
    }

    /// The time that records are judged by: the clock's, or the floor while that is greater.
    #[inline]
    pub fn judging(&self) -> Option<EventTime> {
        self.time.max(self.floor)
    }

    /// The clock's time; `None` before the first event.
    #[inline]
    pub fn time(&self) -> Option<EventTime> {
        self.time
    }

    /// The row under way.
    pub fn row(&self) -> Option<&Row> {
        self.row.as_ref()
    }

    /// Whether an event is late by this clock, which has not seen it yet.
    #[inline]
    pub fn is_late(&self, event_time: EventTime, lateness_ms: u64) -> bool {
        self.judging().is_some_and(|time| event_time.saturating_add(lateness_ms) < time)
    }

    /// Whether a late event is late only by the floor.
    pub fn is_behind(&self, event_time: EventTime, lateness_ms: u64) -> bool {
        self.time.is_none_or(|time| time <= event_time.saturating_add(lateness_ms))
    }

    /// Whether that event may move the clock to `limit` or beyond, or change more than its time.
    #[inline]
    pub fn may_reach(&self, event_time: EventTime, limit: EventTime) -> bool {
        self.row.is_some() || limit <= event_time || self.time.is_none_or(|time| limit <= time)
    }

    /// Lets a well-formed event that is neither late nor future move the clock.
    #[inline]
    pub fn observe(&mut self, event_id: &str, event_time: EventTime, rules: &Rules) {
        match self.time {
            Some(time) if event_time > time.saturating_add(rules.max_jump_ms) => {
                self.reach_beyond(event_id, event_time)
            }
            time => {
                self.time = time.max(Some(event_time));
                self.row = None;
            }
        }
    }

    fn reach_beyond(&mut self, event_id: &str, event_time: EventTime) {
        let row = self.row.get_or_insert_with(|| Row { event_ids: Vec::new(), least: event_time });
        row.least = row.least.min(event_time);
        if !row.event_ids.iter().any(|known| known == event_id) {
            row.event_ids.push(event_id.to_owned());
        }
        if row.event_ids.len() == JUMP_IDS {
            self.time = Some(row.least);
            self.row = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: EventTime = 100_000_000;

    fn clock_after(events: &[(&str, EventTime)]) -> Clock {
        let rules = Rules::default();
        let mut clock = Clock::default();
        for (id, time) in events {
            assert!(!clock.is_late(*time, rules.lateness_ms), "the table holds no late events");
            clock.observe(id, *time, &rules);
        }
        clock
    }

    fn row_of(ids: usize, time: EventTime) -> Vec<(String, EventTime)> {
        (0..ids).map(|n| (format!("e{n}"), time + n as u64)).collect()
    }

    #[test]
    fn the_clock_is_the_greatest_timestamp_so_far() {
        assert_eq!(clock_after(&[]).time(), None);
        assert_eq!(clock_after(&[("a", START), ("b", START - 5), ("c", START + 7)]).time(), Some(START + 7));
    }

    #[test]
    fn late_is_strictly_before_the_clock_less_the_lateness() {
        let clock = clock_after(&[("a", START)]);
        assert!(!clock.is_late(START - 600_000, 600_000));
        assert!(clock.is_late(START - 600_001, 600_000));
    }

    #[test]
    fn reach_ends_an_hour_ahead() {
        let reach = START + 3_600_000;
        assert_eq!(clock_after(&[("a", START), ("b", reach)]).time(), Some(reach));
        assert_eq!(clock_after(&[("a", START), ("b", reach + 1)]).time(), Some(START));
    }

    #[test]
    fn the_sixteenth_distinct_id_in_a_row_moves_the_clock_to_the_least_of_the_row() {
        let far = START + 10_000_000;
        for (ids, expect) in [(15, START), (16, far), (17, far + 16)] {
            let row = row_of(ids, far);
            let mut events = vec![("a", START)];
            events.extend(row.iter().map(|(id, time)| (id.as_str(), *time)));
            assert_eq!(clock_after(&events).time(), Some(expect), "{ids} ids");
        }
    }

    #[test]
    fn a_repeated_id_confirms_nothing_but_its_timestamp_belongs_to_the_row() {
        let far = START + 10_000_000;
        let row = row_of(15, far);
        let mut events = vec![("a", START)];
        events.extend(row.iter().map(|(id, time)| (id.as_str(), *time)));
        events.push(("e3", far - 9));
        assert_eq!(clock_after(&events).time(), Some(START));
        events.push(("last", far + 99));
        assert_eq!(clock_after(&events).time(), Some(far - 9));
    }

    #[test]
    fn an_event_within_reach_ends_the_row() {
        let far = START + 10_000_000;
        let row = row_of(15, far);
        let mut events = vec![("a", START)];
        events.extend(row.iter().map(|(id, time)| (id.as_str(), *time)));
        events.push(("near", START));
        events.push(("e99", far));
        assert_eq!(clock_after(&events).time(), Some(START));
    }
}
