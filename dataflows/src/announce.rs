//! What is true at a frontier, beside the counts: the watermark, each partition's clock, offset and ledger.
//!
//! Every worker is told of every partition, under the times that the records travel at, and puts it together when the
//! frontier has passed them. So all workers know the same at the same frontier, and it is the fold of exactly the
//! records before it.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};
use timely::dataflow::{
    StreamVec,
    channels::pact::Exchange,
    operators::{generic::operator::Operator, vec::Map},
};

use crate::{
    clock::Clock,
    control::{Gate, Hub},
    dedup,
    gap::{self, Gap},
    ledger::Ledger,
    parcel::Account,
    port::{PartitionId, Tail},
    rules::{Quiet, Rules},
    time::{END_OF_TIME, EventTime, Minute},
};

/// News of one partition at one time: what a worker decided about its records, and how far it has been read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct News {
    /// Which partition.
    pub partition: PartitionId,
    /// Events counted.
    pub counted: u64,
    /// Repeats.
    pub duplicate: u64,
    /// Late events.
    pub late: u64,
    /// The partition's account, from the worker that reads it.
    pub account: Option<Account>,
}

impl News {
    /// No news yet.
    pub fn new(partition: PartitionId) -> Self {
        Self { partition, counted: 0, duplicate: 0, late: 0, account: None }
    }

    /// Adds later news of the same partition.
    pub fn merge(&mut self, later: Self) {
        self.counted += later.counted;
        self.duplicate += later.duplicate;
        self.late += later.late;
        self.account = match (self.account.take(), later.account) {
            (Some(earlier), Some(later)) => Some(later.after(&earlier)),
            (earlier, later) => later.or(earlier),
        };
    }
}

/// One partition at a frontier, as a checkpoint keeps it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartitionState {
    /// The offset behind the last record before the frontier.
    pub next_offset: u64,
    /// That record, where the log could be replaced behind our back.
    pub tail: Option<Tail>,
    /// Its clock, with the row of events beyond its reach.
    pub clock: Clock,
    /// Whether it has ended for good.
    pub ended: bool,
    /// What became of its records.
    pub ledger: Ledger,
    /// What was gone before it was read, ascending.
    pub gaps: Vec<Gap>,
}

/// All partitions at a frontier.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Partitions(pub BTreeMap<PartitionId, PartitionState>);

impl Partitions {
    /// Adds what came at one time. A partition that was not there joins: its clock gets the least of the others, as it
    /// was before that time, for a floor.
    pub fn apply(&mut self, step: Vec<News>) {
        let floor = self.least_clock();
        step.into_iter().for_each(|news| self.apply_one(news, floor));
    }

    fn apply_one(&mut self, news: News, floor: Option<EventTime>) {
        let joined = || PartitionState { clock: Clock::default().with_floor(floor), ..PartitionState::default() };
        let state = self.0.entry(news.partition).or_insert_with(joined);
        state.ledger.counted += news.counted;
        state.ledger.duplicate += news.duplicate;
        state.ledger.late += news.late;
        if let Some(account) = news.account {
            state.next_offset = account.next_offset;
            state.tail = account.tail.or(state.tail);
            state.clock = account.clock.with_floor(state.clock.floor());
            state.ended = account.ended;
            state.ledger.read += account.read;
            state.ledger.malformed += account.malformed;
            state.ledger.oversize += account.oversize;
            state.ledger.future += account.future;
            account.gaps.into_iter().for_each(|gap| gap::note(&mut state.gaps, gap));
        }
    }

    /// The least clock (or floor) of the partitions that have not ended, once each has one.
    pub fn least_clock(&self) -> Option<EventTime> {
        self.slowest().and_then(|(_, clock)| clock)
    }

    /// The partition with the least clock (or floor) among those that have not ended, and that clock: `None` where one has none yet.
    fn slowest(&self) -> Option<(PartitionId, Option<EventTime>)> {
        let open = self.0.iter().filter(|(_, state)| !state.ended);
        open.map(|(partition, state)| (*partition, state.clock.judging())).min_by_key(|(_, clock)| *clock)
    }

    /// What is final at a frontier: the least clock less the lateness, 0 before each partition has a clock. Where quiet
    /// partitions hold nobody back, at least the frontier less the lateness.
    pub fn watermark(&self, frontier: EventTime, rules: &Rules) -> EventTime {
        let held = match self.slowest() {
            None => return END_OF_TIME,
            Some((_, clock)) => clock.unwrap_or(0).saturating_sub(rules.lateness_ms),
        };
        match rules.quiet {
            Quiet::Hold => held,
            Quiet::Release => held.max(frontier.saturating_sub(rules.lateness_ms)),
        }
    }

    /// The first window that any partition may still remember at a frontier.
    pub fn first_remembered(&self, frontier: EventTime, rules: &Rules) -> Minute {
        let held = match self.slowest() {
            None => return Minute(u32::MAX),
            Some((_, clock)) => dedup::first_remembered(clock.unwrap_or(0), rules.remember_ms),
        };
        match rules.quiet {
            Quiet::Hold => held,
            Quiet::Release => held.max(dedup::first_remembered_at(frontier, rules)),
        }
    }

    /// Makes what is final by a watermark stay so: no partition counts what is behind it, whatever its clock.
    pub fn raise_floors(&mut self, watermark: EventTime, rules: &Rules) {
        let floor = watermark.saturating_add(rules.lateness_ms);
        for state in self.0.values_mut().filter(|state| !state.ended && state.clock.judging() < Some(floor)) {
            state.clock = std::mem::take(&mut state.clock).with_floor(Some(floor));
        }
    }

    /// What to tell the outside at a frontier. `durable` is the watermark of the newest checkpoint: where quiet partitions
    /// hold nobody back, a restart judges anew what is behind it, so nothing more is called final.
    pub fn announcement(
        &self,
        frontier: EventTime,
        durable: EventTime,
        hot_from: Minute,
        rules: &Rules,
    ) -> Announcement {
        let at = |(partition, state): (&PartitionId, &PartitionState)| PartitionAt {
            partition: *partition,
            next_offset: state.next_offset,
            clock: state.clock.time(),
            ended: state.ended,
            ledger: state.ledger,
            gaps: state.gaps.clone(),
        };
        Announcement {
            frontier,
            watermark: match rules.quiet {
                Quiet::Hold => self.watermark(frontier, rules),
                Quiet::Release => durable,
            },
            held_by: self.slowest().map(|(partition, _)| partition).filter(|_| rules.quiet == Quiet::Hold),
            hot_from,
            partitions: self.0.iter().map(at).collect(),
        }
    }
}

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
    /// What was gone before it was read, ascending.
    pub gaps: Vec<Gap>,
}

impl PartitionAt {
    /// How many offsets were gone before they were read.
    pub fn lost(&self) -> u64 {
        self.gaps.iter().map(Gap::lost).sum()
    }
}

/// A frontier that every worker has reached, and the facts that hold at it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announcement {
    /// All updates before this time are in.
    pub frontier: EventTime,
    /// What is final: windows whose end is at or before it. 0 where some partition has no clock yet,
    /// [`crate::time::END_OF_TIME`] where all have ended.
    pub watermark: EventTime,
    /// Who holds the watermark back: the partition with the least clock, if any does.
    pub held_by: Option<PartitionId>,
    /// The first window that is in memory: those before it are in the sink alone, and final.
    pub hot_from: Minute,
    /// Every partition, by number.
    pub partitions: Vec<PartitionAt>,
}

impl Announcement {
    /// What one must know to ask at it.
    pub fn moment(&self) -> Moment {
        Moment { frontier: self.frontier, watermark: self.watermark, hot_from: self.hot_from }
    }

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

/// Why an `as_of` can't be answered.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum AsOfError {
    /// It lies ahead of the newest announced frontier.
    Ahead {
        /// The newest frontier.
        frontier: EventTime,
    },
    /// It lies before what is retained, or before this start.
    Gone {
        /// The oldest frontier that can be answered.
        oldest: EventTime,
    },
}

/// A frontier that was announced, with what one must know to ask at it.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub struct Moment {
    /// The frontier.
    pub frontier: EventTime,
    /// What is final at it.
    pub watermark: EventTime,
    /// The first window that is in memory at it.
    pub hot_from: Minute,
}

/// The frontiers that have been announced and can still be asked for, ascending.
#[derive(Clone, Debug, Default)]
pub struct Announced {
    moments: VecDeque<Moment>,
}

impl Announced {
    /// Notes a frontier, and drops those that lie more than `retain_ms` behind it, but for the newest of them.
    pub fn push(&mut self, moment: Moment, retain_ms: u64) {
        self.moments.push_back(moment);
        while self.moments.front().is_some_and(|old| old.frontier.saturating_add(retain_ms) < moment.frontier) {
            self.moments.pop_front();
        }
    }

    /// The nearest announced frontier at or before `as_of`.
    pub fn lower(&self, as_of: EventTime) -> Result<Moment, AsOfError> {
        let newest = self.moments.back().map_or(0, |newest| newest.frontier);
        if newest < as_of {
            return Err(AsOfError::Ahead { frontier: newest });
        }
        let behind = self.moments.partition_point(|moment| moment.frontier <= as_of);
        let oldest = self.moments.front().map_or(0, |oldest| oldest.frontier);
        behind.checked_sub(1).map(|at| self.moments[at]).ok_or(AsOfError::Gone { oldest })
    }
}

/// Tells the outside of a frontier; the last one, when the input has ended, is [`END_OF_TIME`]. Must not block.
pub type Tell = Box<dyn FnMut(Announcement)>;

/// Puts the news together at each frontier, and tells this worker's operators and the outside.
///
/// * input: [`News`] of every partition from every worker, at the times that the records travel at
/// * exchange: everything to all workers. State: [`Partitions`] at the frontier, and the news beyond it
pub fn announce<'scope>(news: StreamVec<'scope, EventTime, News>, hub: &Hub, rules: Rules, mut tell: Tell) {
    let hub = hub.clone();
    let peers = news.scope().peers() as u64;
    let to_all = news.flat_map(move |news| (0..peers).map(move |to| (to, news.clone())));
    let arrived = Exchange::new(|(to, _): &(u64, News)| *to);
    let mut stash: BTreeMap<EventTime, Vec<News>> = BTreeMap::new();
    let resumed = hub.with(|shared| shared.facts.clone());
    tell(resumed.partitions.announcement(resumed.frontier, resumed.watermark, resumed.hot_from, &rules));
    to_all.sink(arrived, "Announce", move |(input, frontier)| {
        input.for_each(|capability, batch| {
            let time = *capability.least().expect("news travel at a time");
            stash.entry(time).or_default().extend(batch.drain(..).map(|(_, news)| news));
        });
        let complete = frontier.frontier().as_option().copied().unwrap_or(END_OF_TIME);
        let told = hub.with(|shared| {
            if complete <= shared.facts.frontier {
                return None;
            }
            while let Some(step) = stash.first_entry().filter(|step| *step.key() < complete) {
                shared.facts.partitions.apply(step.remove());
            }
            shared.facts.frontier = complete;
            let durable = shared.durable.watermark;
            let announcement = shared.facts.partitions.announcement(complete, durable, shared.hot_from, &rules);
            (shared.facts.watermark, shared.facts.hot_from) = (announcement.watermark, announcement.hot_from);
            Some((announcement, shared.gate != Gate::Open))
        });
        if let Some((announcement, cut_waits)) = told {
            tell(announcement);
            hub.wake_followers();
            if cut_waits {
                hub.wake_all();
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_as_of_is_lowered_to_the_nearest_announced_frontier() {
        let mut announced = Announced::default();
        let moment = |frontier, watermark, hot_from| Moment { frontier, watermark, hot_from: Minute(hot_from) };
        for (frontier, watermark, hot_from) in [(1_000, 0, 0), (2_000, 10, 0), (2_500, 20, 1)] {
            announced.push(moment(frontier, watermark, hot_from), 1_500);
        }
        assert_eq!(announced.lower(2_499), Ok(moment(2_000, 10, 0)));
        assert_eq!(announced.lower(2_500), Ok(moment(2_500, 20, 1)));
        assert_eq!(announced.lower(999), Err(AsOfError::Gone { oldest: 1_000 }));
        assert_eq!(announced.lower(2_501), Err(AsOfError::Ahead { frontier: 2_500 }));
        announced.push(moment(2_600, 30, 1), 1_500);
        assert_eq!(announced.lower(1_999), Err(AsOfError::Gone { oldest: 2_000 }));
    }

    fn partitions(clocks: &[(Option<EventTime>, bool)]) -> Partitions {
        let state = |(clock, ended): &(Option<EventTime>, bool)| PartitionState {
            clock: Clock::restore(*clock, None),
            ended: *ended,
            ..PartitionState::default()
        };
        Partitions(clocks.iter().enumerate().map(|(n, at)| (PartitionId(n as u32), state(at))).collect())
    }

    #[test]
    fn the_watermark_is_the_least_clock_less_the_lateness_once_each_has_one() {
        let rules = Rules::default();
        let watermark = |clocks: &[_]| partitions(clocks).watermark(2_000_000, &rules);
        assert_eq!(watermark(&[(Some(900_000), false), (Some(700_000), false)]), 100_000);
        assert_eq!(watermark(&[(Some(900_000), false), (None, false)]), 0);
        assert_eq!(watermark(&[(Some(900_000), false), (Some(700_000), true)]), 300_000);
        assert_eq!(watermark(&[(Some(900_000), true), (None, true)]), END_OF_TIME);
        let rules = Rules { quiet: Quiet::Release, ..rules };
        let released = |clocks: &[_]| partitions(clocks).watermark(1_000_000, &rules);
        assert_eq!(released(&[(Some(900_000), false), (None, false)]), 400_000, "quiet ones hold nobody back");
        assert_eq!(released(&[(Some(1_000_050), false)]), 400_050, "nor does the step of the frontier");
    }

    #[test]
    fn nothing_is_announced_final_before_a_checkpoint_has_what_makes_it_so() {
        let rules = Rules { quiet: Quiet::Release, ..Rules::default() };
        let all = partitions(&[(Some(1_000_000), false), (Some(2_000_000), false)]);
        assert_eq!(all.announcement(1_000_000, 200_000, Minute(0), &rules).watermark, 200_000);
        assert_eq!(all.announcement(1_000_000, 200_000, Minute(0), &Rules::default()).watermark, 400_000);
    }

    #[test]
    fn what_was_final_stays_so_when_quiet_partitions_hold_it_from_now_on() {
        let rules = Rules::default();
        let mut all = partitions(&[(Some(900_000), false), (None, false), (Some(2_000_000), false)]);
        all.raise_floors(400_000, &rules);
        assert_eq!(all.watermark(0, &rules), 400_000);
        let floors: Vec<_> = all.0.values().map(|state| state.clock.floor()).collect();
        assert_eq!(floors, [Some(1_000_000), Some(1_000_000), None]);
    }
}
