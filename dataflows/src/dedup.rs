//! Exact deduplication: which events are remembered, and the last part of a verdict.
//!
//! Invariant: an identity is in the table if and only if a counted event had it and some partition's clock may still
//! remember it; its tag is the window of the latest such event. By the clock of a repeat's partition the event is
//! remembered while `window end > clock - remember`. Records carry that bound as a minute (`forgotten`): windows
//! before it are forgotten, which is the same since windows end on whole minutes.

use crate::{
    identity::{EventKey, KEY_GROUPS, KeyGroup},
    ids::Ids,
    pages::IdPages,
    rules::Rules,
    time::{EventTime, MINUTE_MS, Minute},
};

/// Every so many minutes a group forgets what it may.
const SWEEP_TURNS: u32 = 8;

/// The verdicts that are given where the ids are.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// First of its identity, as far as is remembered, and in time.
    Counted,
    /// The same identity as a counted event that is still remembered.
    Duplicate,
    /// Not a duplicate, and behind its partition's clock by more than the lateness.
    Late,
}

/// The first window that a partition at `clock` still remembers.
#[inline]
pub fn first_remembered(clock: EventTime, remember_ms: u64) -> Minute {
    Minute((clock.saturating_sub(remember_ms) / MINUTE_MS) as u32)
}

/// The first window that anybody remembers who has been given up to `time` and calls late what is behind that.
#[inline]
pub fn first_remembered_at(time: EventTime, rules: &Rules) -> Minute {
    first_remembered(time.saturating_sub(rules.lateness_ms), rules.remember_ms)
}

/// One remembered identity, as checkpoints have it.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct RememberedId {
    /// Whose.
    pub id: EventKey,
    /// The window of the counted event.
    pub minute: Minute,
}

/// The remembered identities, by key group.
pub struct Remembered {
    groups: Vec<Ids>,
    /// Windows before this one are forgotten by all, though they may still be in a table.
    forgotten: Minute,
}

impl Default for Remembered {
    /// Remembers nothing yet.
    fn default() -> Self {
        Self { groups: vec![Ids::default(); KEY_GROUPS], forgotten: Minute(0) }
    }
}

impl Remembered {
    /// Judges an event: `first` is the first window that its partition remembers, itself included; `late` whether its
    /// partition's clock calls it late.
    #[inline]
    pub fn judge(&mut self, group: KeyGroup, id: EventKey, minute: Minute, first: Minute, late: bool) -> Verdict {
        let ids = &mut self.groups[usize::from(group.0)];
        match ids.find(id) {
            Ok(at) if ids.minute(at) >= first => return Verdict::Duplicate,
            _ if late => return Verdict::Late,
            Ok(at) => ids.put_again(at, id, minute),
            Err(at) => ids.insert(at, id, minute, self.forgotten),
        }
        Verdict::Counted
    }

    /// The windows before `first` are those that no partition remembers any more: some groups forget them now, each one
    /// with every eighth minute, or when it needs room.
    pub fn sweep(&mut self, first: Minute) {
        while self.forgotten < first {
            // After a long time each has one turn.
            self.forgotten = Minute((self.forgotten.0 + 1).max(first.0.saturating_sub(SWEEP_TURNS)));
            let turn = (self.forgotten.0 % SWEEP_TURNS) as usize;
            for group in self.groups.iter_mut().skip(turn).step_by(SWEEP_TURNS as usize) {
                group.retain(first);
            }
        }
    }

    /// What a group remembers.
    pub fn group(&self, group: KeyGroup) -> impl Iterator<Item = RememberedId> + '_ {
        self.groups[usize::from(group.0)].iter().filter(|known| known.minute >= self.forgotten)
    }

    /// Has the memory fetched that judging this event will read.
    #[inline]
    pub fn prefetch(&self, group: KeyGroup, id: EventKey) {
        self.groups[usize::from(group.0)].prefetch(id);
    }

    /// Takes what a group remembers since the last call, with it up to a page of what is forgotten.
    pub fn take_changes(&mut self, group: KeyGroup) -> IdPages {
        let mut new = self.groups[usize::from(group.0)].take_new();
        new.forget(self.forgotten);
        new
    }

    /// Puts back what checkpoints remembered: the later of two with one identity is in force.
    pub fn restore(&mut self, group: KeyGroup, ids: &IdPages) {
        let group = &mut self.groups[usize::from(group.0)];
        group.extend(ids);
        group.mark_taken();
    }

    /// How many identities are in memory, some of them forgotten.
    pub fn len(&self) -> usize {
        self.groups.iter().map(Ids::len).sum()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pages::PAGE_IDS;

    const G: KeyGroup = KeyGroup(5);

    #[test]
    fn an_event_is_remembered_until_the_clock_less_remember_reaches_its_windows_end() {
        // (remember 10 min) an event in minute 2 ends at 180,000: remembered while 180,000 > clock - 600,000
        for (clock, expect) in [(0, true), (779_999, true), (780_000, false), (900_000, false)] {
            let first = first_remembered(clock, 600_000);
            let mut ids = Remembered::default();
            assert_eq!(ids.judge(G, [1, 1], Minute(2), Minute(0), false), Verdict::Counted);
            let expect = if expect { Verdict::Duplicate } else { Verdict::Counted };
            assert_eq!(ids.judge(G, [1, 1], Minute(9), first, false), expect, "clock {clock}");
        }
    }

    #[test]
    fn a_repeat_is_a_duplicate_before_it_is_late() {
        let mut ids = Remembered::default();
        ids.judge(G, [1, 1], Minute(2), Minute(0), false);
        assert_eq!(ids.judge(G, [1, 1], Minute(2), Minute(2), true), Verdict::Duplicate);
        assert_eq!(ids.judge(G, [1, 1], Minute(2), Minute(3), true), Verdict::Late);
        assert_eq!(ids.judge(G, [2, 1], Minute(2), Minute(2), true), Verdict::Late);
        assert_eq!(ids.len(), 1, "a late event is not remembered");
    }

    #[test]
    fn an_id_counted_again_is_remembered_by_its_new_window() {
        let mut ids = Remembered::default();
        ids.judge(G, [1, 1], Minute(2), Minute(0), false);
        assert_eq!(ids.judge(G, [1, 1], Minute(20), Minute(3), false), Verdict::Counted);
        assert_eq!(ids.judge(G, [1, 1], Minute(2), Minute(20), false), Verdict::Duplicate);
    }

    #[test]
    fn changes_are_given_once_in_order() {
        let mut ids = Remembered::default();
        ids.judge(G, [1, 1], Minute(2), Minute(0), false);
        ids.judge(G, [2, 1], Minute(3), Minute(0), false);
        ids.judge(G, [2, 1], Minute(3), Minute(0), false);
        let taken =
            |ids: &mut Remembered| ids.take_changes(G).iter().map(|id| (id.id[0], id.minute.0)).collect::<Vec<_>>();
        assert_eq!(taken(&mut ids), [(1, 2), (2, 3)]);
        assert_eq!(taken(&mut ids), []);
        ids.judge(G, [1, 1], Minute(20), Minute(3), false);
        assert_eq!(taken(&mut ids), [(1, 20)]);
        let stored = [(1, 2), (2, 3), (1, 20)].map(|(id, minute)| RememberedId { id: [id, 1], minute: Minute(minute) });
        let mut back = Remembered::default();
        back.restore(G, &stored.into_iter().collect());
        assert_eq!(back.len(), 2);
        assert_eq!(back.group(G).collect::<Vec<_>>(), stored[1..], "each once");
        assert_eq!(
            back.judge(G, [1, 1], Minute(2), Minute(20), false),
            Verdict::Duplicate,
            "the later one is in force"
        );
        assert!(back.take_changes(G).is_empty(), "nothing of it is new");
    }

    #[test]
    fn changes_are_at_most_what_is_in_memory() {
        let mut ids = Remembered::default();
        for round in 0..100_000_u32 {
            ids.judge(
                G,
                [u64::from(round).wrapping_mul(0x9E37_79B9_7F4A_7C15), 1],
                Minute(round / 100),
                Minute(0),
                false,
            );
            ids.sweep(Minute(round / 100));
        }
        assert!(ids.len() < 10_000, "{} in memory", ids.len());
        assert!(ids.take_changes(G).len() < 100 + 2 * PAGE_IDS, "one minute, and at most two pages with some of it");
        ids.judge(G, [7, 7], Minute(999), Minute(0), false);
        assert_eq!(ids.take_changes(G).len(), 1);
    }

    #[test]
    fn a_sweep_forgets_only_what_no_partition_remembers() {
        let mut ids = Remembered::default();
        ids.judge(G, [1, 1], Minute(2), Minute(0), false);
        ids.judge(G, [2, 1], Minute(3), Minute(0), false);
        ids.sweep(Minute(3));
        assert_eq!(ids.group(G).map(|known| known.id).collect::<Vec<_>>(), [[2, 1]]);
    }
}
