//! The judge: one verdict for each record, in the order of the contract: oversize, malformed, future, duplicate, late, counted.
//!
//! Invariant: for each partition, `read` is the sum of the other numbers of its ledger, and `counted` over all partitions is the sum
//! over all windows.

use std::collections::{BTreeMap, HashMap};
use std::ops::Add;

use crate::clock::Clock;
use crate::event::{Event, decode};
use crate::{Cause, clock};

/// A greater record is oversize.
pub const RECORD_BYTES_MAX: usize = 1_048_576;

/// The width of a window.
pub const WINDOW_MS: u64 = 60_000;

/// The settings that verdicts depend on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    pub lateness_ms: u64,
    /// Never less than the lateness.
    pub remember_ms: u64,
    pub max_jump_ms: u64,
    pub max_future_ms: u64,
}

impl Default for Rules {
    fn default() -> Self {
        Self { lateness_ms: 600_000, remember_ms: 600_000, max_jump_ms: 3_600_000, max_future_ms: 300_000 }
    }
}

/// A record of a partition's log. Plain files have no append time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    pub append_time_ms: Option<u64>,
    pub payload: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verdict {
    Counted,
    Duplicate,
    Late,
    Future,
    Malformed(Cause),
    Oversize,
}

/// How the records of one partition were judged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ledger {
    pub read: u64,
    pub counted: u64,
    pub duplicate: u64,
    pub late: u64,
    pub future: u64,
    pub malformed: u64,
    pub oversize: u64,
}

impl Ledger {
    pub fn enter(&mut self, verdict: Verdict) {
        self.read += 1;
        *match verdict {
            Verdict::Counted => &mut self.counted,
            Verdict::Duplicate => &mut self.duplicate,
            Verdict::Late => &mut self.late,
            Verdict::Future => &mut self.future,
            Verdict::Malformed(_) => &mut self.malformed,
            Verdict::Oversize => &mut self.oversize,
        } += 1;
    }

    pub fn balances(&self) -> bool {
        self.read == self.counted + self.duplicate + self.late + self.future + self.malformed + self.oversize
    }
}

impl Add for Ledger {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            read: self.read + other.read,
            counted: self.counted + other.counted,
            duplicate: self.duplicate + other.duplicate,
            late: self.late + other.late,
            future: self.future + other.future,
            malformed: self.malformed + other.malformed,
            oversize: self.oversize + other.oversize,
        }
    }
}

/// Counted events by (video, event type, start of the window in epoch milliseconds).
pub type Counts = BTreeMap<(String, String, u64), u64>;

/// What a run over whole partitions came to. The vectors have one entry for each partition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    pub verdicts: Vec<Vec<Verdict>>,
    pub ledger: Vec<Ledger>,
    pub counts: Counts,
    pub clocks: Vec<Option<u64>>,
}

/// Judges all partitions, one after the other.
pub fn run(rules: &Rules, partitions: &[Vec<Record>]) -> Outcome {
    let mut judge = Judge::new(*rules, partitions.len());
    let mut verdicts = Vec::with_capacity(partitions.len());
    for (partition, records) in partitions.iter().enumerate() {
        let judged = records.iter().map(|record| judge.judge(partition, record.append_time_ms, &record.payload));
        verdicts.push(judged.collect());
    }
    Outcome { verdicts, ..judge.finish() }
}

/// What was ruled of a partition's records, by their places, because of what other partitions had come to: late (behind what
/// was final by then) or duplicate, either without a say in the clock; or counted, what it repeats being forgotten.
pub type Rulings = Vec<BTreeMap<usize, Verdict>>;

/// Judges all partitions, one after the other, with these verdicts given.
pub fn run_ruled(rules: &Rules, partitions: &[Vec<Record>], rulings: &Rulings) -> Outcome {
    let mut judge = Judge::new(*rules, partitions.len());
    let mut verdicts = Vec::with_capacity(partitions.len());
    for (partition, records) in partitions.iter().enumerate() {
        let judged = records.iter().enumerate().map(|(place, record)| {
            let ruled = rulings[partition].get(&place).copied();
            let verdict = judge.verdict(partition, record.append_time_ms, &record.payload, ruled);
            judge.ledger[partition].enter(verdict);
            verdict
        });
        verdicts.push(judged.collect());
    }
    Outcome { verdicts, ..judge.finish() }
}

/// Judges records one at a time, for inputs that do not fit into memory. A partition's records are given in its order.
#[derive(Clone, Debug)]
pub struct Judge {
    rules: Rules,
    clocks: Vec<Clock>,
    ledger: Vec<Ledger>,
    /// The end of the window in which an identity was last counted, in any partition. An earlier copy needs no entry: a copy is counted
    /// anew only when the former is forgotten, and then in a later window.
    counted_until: HashMap<Box<str>, u64>,
    counts: Counts,
}

impl Judge {
    pub fn new(rules: Rules, partitions: usize) -> Self {
        assert!(rules.lateness_ms <= rules.remember_ms, "remember is never less than lateness");
        Self {
            rules,
            clocks: vec![Clock::default(); partitions],
            ledger: vec![Ledger::default(); partitions],
            counted_until: HashMap::new(),
            counts: Counts::new(),
        }
    }

    pub fn judge(&mut self, partition: usize, append_time_ms: Option<u64>, payload: &[u8]) -> Verdict {
        let verdict = self.verdict(partition, append_time_ms, payload, None);
        self.ledger[partition].enter(verdict);
        verdict
    }

    /// The outcome without verdicts: whoever wants those has them from [`Judge::judge`].
    pub fn finish(self) -> Outcome {
        let clocks = self.clocks.iter().map(clock::Clock::now_ms).collect();
        Outcome { verdicts: Vec::new(), ledger: self.ledger, counts: self.counts, clocks }
    }

    fn verdict(
        &mut self,
        partition: usize,
        append_time_ms: Option<u64>,
        payload: &[u8],
        ruled: Option<Verdict>,
    ) -> Verdict {
        if RECORD_BYTES_MAX < payload.len() {
            return Verdict::Oversize;
        }
        let event = match decode(payload) {
            Ok(event) => event,
            Err(cause) => return Verdict::Malformed(cause),
        };
        let is_future = |append_ms: u64| append_ms.saturating_add(self.rules.max_future_ms) < event.timestamp_ms;
        if append_time_ms.is_some_and(is_future) {
            return Verdict::Future;
        }
        // Late by the clock before the event; remembered by the clock with the event included.
        let clock = &mut self.clocks[partition];
        let is_behind = matches!(ruled, Some(Verdict::Late | Verdict::Duplicate));
        let is_late = is_behind || clock.is_late(event.timestamp_ms, self.rules.lateness_ms);
        if !is_late {
            clock.observe(&event.event_id, event.timestamp_ms, self.rules.max_jump_ms);
        }
        // None where all so far were behind.
        let now_ms = clock.now_ms().unwrap_or(0);
        let identity = identity(&event);
        let counted_until = self.counted_until.get(&identity);
        if ruled == Some(Verdict::Duplicate) {
            assert!(counted_until.is_some(), "a duplicate repeats a counted event");
            return Verdict::Duplicate;
        }
        if ruled.is_none() && counted_until.is_some_and(|end_ms| now_ms < end_ms.saturating_add(self.rules.remember_ms))
        {
            return Verdict::Duplicate;
        }
        if is_late {
            return Verdict::Late;
        }
        let start_ms = event.timestamp_ms - event.timestamp_ms % WINDOW_MS;
        self.counted_until.insert(identity, start_ms + WINDOW_MS);
        *self.counts.entry((event.video_id, event.event_type, start_ms)).or_default() += 1;
        Verdict::Counted
    }
}

/// An id has no control characters, so one of them keeps the two apart.
fn identity(event: &Event) -> Box<str> {
    format!("{}\0{}", event.video_id, event.event_id).into_boxed_str()
}

#[cfg(test)]
mod tests;
