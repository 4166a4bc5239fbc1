//! The clock of one partition, with the jump rule.
//!
//! Invariant: `row` holds the events since the last one within reach that were more than `max_jump_ms` ahead of `now_ms`, by their
//! distinct event ids; it is empty while there is no clock.

use std::collections::BTreeSet;

/// So many distinct event ids in a row, all out of reach, move the clock.
pub const CONFIRMATIONS: usize = 16;

/// Stream time of one partition. It is shown well-formed events only, and only those that are neither future nor late.
#[derive(Clone, Debug, Default)]
pub struct Clock {
    now_ms: Option<u64>,
    row_ids: BTreeSet<String>,
    row_least_ms: u64,
}

impl Clock {
    pub fn now_ms(&self) -> Option<u64> {
        self.now_ms
    }

    /// Whether an event of this time is behind the clock by more than the lateness. Nothing is late before there is a clock.
    pub fn is_late(&self, timestamp_ms: u64, lateness_ms: u64) -> bool {
        self.now_ms.is_some_and(|now_ms| timestamp_ms.saturating_add(lateness_ms) < now_ms)
    }

    /// Takes in an event that is neither future nor late.
    pub fn observe(&mut self, event_id: &str, timestamp_ms: u64, max_jump_ms: u64) {
        match self.now_ms {
            Some(now_ms) if now_ms.saturating_add(max_jump_ms) < timestamp_ms => {
                self.observe_far(event_id, timestamp_ms)
            }
            _ => {
                self.now_ms = self.now_ms.max(Some(timestamp_ms));
                self.row_ids.clear();
            }
        }
    }

    fn observe_far(&mut self, event_id: &str, timestamp_ms: u64) {
        self.row_least_ms = if self.row_ids.is_empty() { timestamp_ms } else { self.row_least_ms.min(timestamp_ms) };
        self.row_ids.insert(event_id.to_owned());
        if self.row_ids.len() == CONFIRMATIONS {
            self.now_ms = Some(self.row_least_ms);
            self.row_ids.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const JUMP: u64 = 3_600_000;

    /// Feeds (id, timestamp) rows to a clock at 1,000 and expects where it stands afterwards.
    fn check(case: &str, rows: &[(&str, u64)], expected: u64) {
        let mut clock = Clock::default();
        clock.observe("first", 1_000, JUMP);
        for (id, timestamp_ms) in rows {
            clock.observe(id, *timestamp_ms, JUMP);
        }
        assert_eq!(clock.now_ms(), Some(expected), "{case}");
    }

    fn far(ids: std::ops::Range<usize>, timestamp_ms: u64) -> Vec<(&'static str, u64)> {
        const IDS: [&str; 17] = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l", "m", "n", "o", "p", "q"];
        ids.map(|index| (IDS[index], timestamp_ms)).collect()
    }

    #[test]
    fn within_reach_the_clock_follows_the_greatest_timestamp() {
        check("exactly in reach", &[("a", 1_000 + JUMP)], 1_000 + JUMP);
        check("one beyond reach", &[("a", 1_001 + JUMP)], 1_000);
        check("backwards", &[("a", 5_000), ("b", 2_000)], 5_000);
    }

    #[test]
    fn the_sixteenth_distinct_id_in_a_row_moves_the_clock_to_the_least_of_the_row() {
        let wild = 10 * JUMP;
        check("15", &far(0..15, wild), 1_000);
        check("16", &far(0..16, wild), wild);
        check("17", &far(0..17, wild), wild);

        let mut rows = far(0..16, wild);
        rows[7].1 = wild - 77;
        check("the least is in the middle", &rows, wild - 77);
        let mut rows = far(0..16, wild);
        rows[15].1 = wild - 88;
        check("the least is the last", &rows, wild - 88);
    }

    #[test]
    fn a_repeated_id_does_not_confirm_but_its_timestamp_is_of_the_row() {
        let wild = 10 * JUMP;
        let mut rows = far(0..15, wild);
        rows.push(("a", wild - 99));
        check("16 events, 15 ids", &rows, 1_000);
        rows.push(("p", wild));
        check("17 events, 16 ids", &rows, wild - 99);
    }

    #[test]
    fn an_event_within_reach_ends_the_row() {
        let wild = 10 * JUMP;
        let mut rows = far(0..15, wild);
        rows.push(("near", 900)); // behind the clock, yet within reach
        rows.extend(far(0..15, wild));
        check("15, near, 15", &rows, 1_000);
        rows.push(("p", wild));
        check("15, near, 16", &rows, wild);
    }

    #[test]
    fn after_a_jump_a_new_row_starts_empty() {
        let mut rows = far(0..16, 10 * JUMP);
        rows.extend(far(0..15, 20 * JUMP));
        check("16, then 15 further on", &rows, 10 * JUMP);
        rows.push(("q", 20 * JUMP));
        check("16, then 16 further on", &rows, 20 * JUMP);

        // The least of a row may lie more than the reach behind its other events: they are not counted again.
        let mut rows = far(0..16, 20 * JUMP);
        rows[0].1 = 10 * JUMP;
        check("a wide row", &rows, 10 * JUMP);
    }
}
