//! Exact deduplication: which events are remembered, and the last part of a verdict.
//!
//! Invariant: an identity is in the table if and only if a counted event had it and some partition's clock may still
//! remember it; its tag is the window of the latest such event. By the clock of a repeat's partition the event is
//! remembered while `window end > clock - remember`. Records carry that bound as a minute (`forgotten`): windows
//! before it are forgotten, which is the same since windows end on whole minutes.
//!
//! What was remembered since the last checkpoint is noted besides, as long as that is less than all there is.

use crate::{
    identity::{EventKey, KEY_GROUPS, KeyGroup},
    ids::Ids,
    pages::Pages,
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
    /// What [`Remembered::take_changes`] will give, or `None` where nobody will ask.
    changes: Option<Vec<Changes>>,
    /// Windows before this one are forgotten by all, though they may still be in a table.
    forgotten: Minute,
}

/// What a group remembers since it was last asked.
enum Changes {
    /// These, the later of two with one identity being in force.
    Some(Pages<RememberedId>),
    /// So many that all of the group is no more.
    All,
}

impl Changes {
    #[inline]
    fn note(&mut self, known: RememberedId, of: usize) {
        match self {
            Changes::Some(ids) if ids.len() <= of => ids.push(known),
            Changes::Some(_) => *self = Changes::All,
            Changes::All => {}
        }
    }
}

impl Remembered {
    /// Remembers nothing yet. `notes_changes` where checkpoints will ask for them.
    pub fn new(notes_changes: bool) -> Self {
        let none = || (0..KEY_GROUPS).map(|_| Changes::Some(Pages::default())).collect();
        Self { groups: vec![Ids::default(); KEY_GROUPS], changes: notes_changes.then(none), forgotten: Minute(0) }
    }

    /// Judges an event: `first` is the first window that its partition remembers, itself included; `late` whether its
    /// partition's clock calls it late.
    #[inline]
    pub fn judge(&mut self, group: KeyGroup, id: EventKey, minute: Minute, first: Minute, late: bool) -> Verdict {
        let place = usize::from(group.0);
        let ids = &mut self.groups[place];
        match ids.find(id) {
            Ok(at) if ids.minute(at) >= first => return Verdict::Duplicate,
            _ if late => return Verdict::Late,
            Ok(at) => ids.set_minute(at, minute),
            Err(at) => ids.insert(at, id, minute, self.forgotten),
        }
        if let Some(changes) = &mut self.changes {
            changes[place].note(RememberedId { id, minute }, self.groups[place].len());
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

    /// What a group remembers, in no order.
    pub fn group(&self, group: KeyGroup) -> impl Iterator<Item = RememberedId> + '_ {
        let ids = self.groups[usize::from(group.0)].iter().map(|(id, minute)| RememberedId { id, minute });
        ids.filter(|known| known.minute >= self.forgotten)
    }

    /// Has the memory fetched that judging this event will read.
    #[inline]
    pub fn prefetch(&self, group: KeyGroup, id: EventKey) {
        self.groups[usize::from(group.0)].prefetch(id);
    }

    /// Takes what a group remembers since the last call, or more: the later of two with one identity is in force.
    pub fn take_changes(&mut self, group: KeyGroup) -> Pages<RememberedId> {
        let place = usize::from(group.0);
        let Some(changes) = &mut self.changes else { return Pages::default() };
        match std::mem::replace(&mut changes[place], Changes::Some(Pages::default())) {
            Changes::Some(ids) => ids,
            Changes::All => self.group(group).collect(),
        }
    }

    /// Puts back what checkpoints remembered: the later of two with one identity is in force.
    pub fn restore(&mut self, group: KeyGroup, ids: &Pages<RememberedId>) {
        let table = &mut self.groups[usize::from(group.0)];
        table.reserve(ids.len());
        for known in ids.iter() {
            match table.find(known.id) {
                Ok(at) => table.set_minute(at, known.minute),
                Err(at) => table.insert(at, known.id, known.minute, self.forgotten),
            }
        }
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

    const G: KeyGroup = KeyGroup(5);

    #[test]
    fn an_event_is_remembered_until_the_clock_less_remember_reaches_its_windows_end() {
        // (remember 10 min) an event in minute 2 ends at 180,000: remembered while 180,000 > clock - 600,000
        for (clock, expect) in [(0, true), (779_999, true), (780_000, false), (900_000, false)] {
            let first = first_remembered(clock, 600_000);
            let mut ids = Remembered::new(true);
            assert_eq!(ids.judge(G, [1, 1], Minute(2), Minute(0), false), Verdict::Counted);
            let expect = if expect { Verdict::Duplicate } else { Verdict::Counted };
            assert_eq!(ids.judge(G, [1, 1], Minute(9), first, false), expect, "clock {clock}");
        }
    }

    #[test]
    fn a_repeat_is_a_duplicate_before_it_is_late() {
        let mut ids = Remembered::new(true);
        ids.judge(G, [1, 1], Minute(2), Minute(0), false);
        assert_eq!(ids.judge(G, [1, 1], Minute(2), Minute(2), true), Verdict::Duplicate);
        assert_eq!(ids.judge(G, [1, 1], Minute(2), Minute(3), true), Verdict::Late);
        assert_eq!(ids.judge(G, [2, 1], Minute(2), Minute(2), true), Verdict::Late);
        assert_eq!(ids.len(), 1, "a late event is not remembered");
    }

    #[test]
    fn an_id_counted_again_is_remembered_by_its_new_window() {
        let mut ids = Remembered::new(true);
        ids.judge(G, [1, 1], Minute(2), Minute(0), false);
        assert_eq!(ids.judge(G, [1, 1], Minute(20), Minute(3), false), Verdict::Counted);
        assert_eq!(ids.judge(G, [1, 1], Minute(2), Minute(20), false), Verdict::Duplicate);
    }

    #[test]
    fn changes_are_given_once_in_order() {
        let mut ids = Remembered::new(true);
        ids.judge(G, [1, 1], Minute(2), Minute(0), false);
        ids.judge(G, [2, 1], Minute(3), Minute(0), false);
        ids.judge(G, [2, 1], Minute(3), Minute(0), false);
        let taken =
            |ids: &mut Remembered| ids.take_changes(G).iter().map(|id| (id.id[0], id.minute.0)).collect::<Vec<_>>();
        assert_eq!(taken(&mut ids), [(1, 2), (2, 3)]);
        assert_eq!(taken(&mut ids), []);
        ids.judge(G, [1, 1], Minute(20), Minute(3), false);
        assert_eq!(taken(&mut ids), [(1, 20)]);
        let mut back = Remembered::new(false);
        let ids = [(1, 2), (2, 3), (1, 20)];
        back.restore(
            G,
            &ids.map(|(id, minute)| RememberedId { id: [id, 1], minute: Minute(minute) }).into_iter().collect(),
        );
        assert_eq!(back.len(), 2);
        assert_eq!(
            back.judge(G, [1, 1], Minute(2), Minute(20), false),
            Verdict::Duplicate,
            "the later one is in force"
        );
        assert!(back.take_changes(G).is_empty(), "nobody asks");
    }

    #[test]
    fn changes_never_take_more_room_than_all_there_is() {
        let mut ids = Remembered::new(true);
        for round in 0..100 {
            ids.judge(G, [round, 1], Minute(round as u32), Minute(0), false);
            ids.sweep(Minute(round as u32));
        }
        assert!(matches!(&ids.changes.as_ref().unwrap()[5], Changes::All));
        assert_eq!(ids.take_changes(G), vec![RememberedId { id: [99, 1], minute: Minute(99) }].into());
        ids.judge(G, [7, 7], Minute(99), Minute(0), false);
        assert_eq!(ids.take_changes(G).len(), 1, "from here on it is the changes again");
    }

    #[test]
    fn a_sweep_forgets_only_what_no_partition_remembers() {
        let mut ids = Remembered::new(true);
        ids.judge(G, [1, 1], Minute(2), Minute(0), false);
        ids.judge(G, [2, 1], Minute(3), Minute(0), false);
        ids.sweep(Minute(3));
        assert_eq!(ids.group(G).map(|known| known.id).collect::<Vec<_>>(), [[2, 1]]);
    }
}
