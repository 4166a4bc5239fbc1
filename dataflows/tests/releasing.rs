//! Where quiet partitions hold nobody back: what is behind is late for good, and what was called final never changes.

mod harness;

use std::{collections::BTreeMap, sync::Arc};

use dataflows::{
    announce::Announcement,
    event::Reason,
    graph::Start,
    ledger::Ledger,
    port::PartitionId,
    rules::{Quiet, Rules},
    ruling::{Ruled, Ruling},
    time::MINUTE_MS,
};
use harness::{
    Appended, Counts, Live, Log, Setup,
    drafts::{self, draft, ledgers, log, oracle_rules},
    replay,
};
use proptest::prelude::*;

fn rules() -> Rules {
    Rules { quiet: Quiet::Release, ..drafts::rules() }
}

/// What the oracle expects, given what was ruled.
fn expected(log: &Log, rulings: &[Ruling]) -> (Counts, Vec<Ledger>) {
    let mut ruled: oracle::Rulings = vec![BTreeMap::new(); log.len()];
    for ruling in rulings {
        let verdict = match ruling.ruled {
            Ruled::Late => oracle::Verdict::Late,
            Ruled::Repeat => oracle::Verdict::Duplicate,
            Ruled::Counted => oracle::Verdict::Counted,
        };
        let before = ruled[ruling.partition.0 as usize].insert(ruling.offset as usize, verdict);
        assert_eq!(before, None, "a record is ruled once: {ruling:?}");
    }
    let outcome = oracle::run_ruled(&oracle_rules(), log, &ruled);
    let ledgers = ledgers(&outcome);
    (outcome.counts, ledgers)
}

/// One job over its restarts, with everything that it has ever told.
struct Job {
    log: Log,
    appended: Appended,
    is_present: bool,
    start: Arc<Start>,
    live: Option<Live>,
    /// What was final when all was asked for.
    watermark: u64,
    finals: BTreeMap<(String, String, u64), u64>,
}

impl Job {
    fn new(log: &Log, is_present: bool) -> Self {
        let start = Start::fresh((0..log.len() as u32).map(PartitionId));
        let (log, appended) = (Arc::clone(log), Appended::none(log));
        Self { log, appended, is_present, start: Arc::new(start), live: None, watermark: 0, finals: BTreeMap::new() }
    }

    /// One whose first partition has come to its end, and whose second is quiet after its first event.
    fn of_two(log: &Log) -> Self {
        let mut job = Self::new(log, false);
        job.restart(rules(), 1, 17);
        job.appended.append(log, 0, 3);
        job.appended.append(log, 1, 1);
        job.settle();
        job
    }

    /// Starts where the last checkpoint was, after a crash if it was running.
    fn restart(&mut self, rules: Rules, workers: usize, batch: usize) {
        if let Some(live) = self.live.take() {
            live.crash();
        }
        let setup = Setup::new(rules, &self.log, workers, batch, Arc::clone(&self.start));
        let setup = Setup { appended: self.appended.clone(), is_present: self.is_present, ..setup };
        self.live = Some(Live::start(setup));
    }

    fn live(&self) -> &Live {
        self.live.as_ref().expect("it was started")
    }

    /// Waits until everything appended is visible, then asks for it all: what was final is as it was.
    fn settle(&mut self) -> (Announcement, Counts) {
        let ends = self.appended.ends();
        let is_all = |at: &Announcement| at.partitions.iter().map(|at| at.next_offset).eq(ends.iter().copied());
        let settled = loop {
            match self.live().latest().filter(is_all) {
                Some(announcement) => break announcement,
                None => drop(self.live().next()),
            }
        };
        let counts = self.live().answered(settled.frontier);
        let is_final = |window: &(String, String, u64), watermark| window.2 + MINUTE_MS <= watermark;
        for (window, count) in &self.finals {
            assert_eq!(counts.get(window), Some(count), "{window:?} was final");
        }
        for (window, count) in counts.iter().filter(|(window, _)| is_final(window, settled.watermark)) {
            let known = self.finals.insert(window.clone(), *count);
            assert!(known.is_some() || !is_final(window, self.watermark), "{window:?} came too late");
        }
        self.watermark = self.watermark.max(settled.watermark);
        (settled, counts)
    }

    fn checkpoint(&mut self) {
        if let Some((start, _)) = self.live().checkpoint() {
            self.start = Arc::new(start);
        }
    }
}

/// What happens to a running job.
#[derive(Clone, Debug)]
enum Step {
    Append(usize, usize),
    Settle,
    Checkpoint,
    Restart(usize, usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..4_usize, 1..60_usize).prop_map(|(partition, records)| Step::Append(partition, records)),
        3 => Just(Step::Settle),
        2 => Just(Step::Checkpoint),
        2 => (1..=3_usize, 1..40_usize).prop_map(|(workers, batch)| Step::Restart(workers, batch)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, max_shrink_iters: 100, ..ProptestConfig::default() })]

    #[test]
    fn counts_are_the_oracles_by_what_was_ruled_and_what_was_final_stays_so_over_any_crash(
        drafts in prop::collection::vec(draft(), 1..200),
        partitions in 1..=4_usize,
        steps in prop::collection::vec(step(), 1..16),
        is_present in any::<bool>(),
        workers in 1..=3_usize,
    ) {
        let log = log(&drafts, partitions);
        let mut job = Job::new(&log, is_present);
        job.restart(rules(), workers, 17);
        for step in steps {
            match step {
                Step::Append(partition, records) => job.appended.append(&log, partition % partitions, records),
                Step::Settle => drop(job.settle()),
                Step::Checkpoint => job.checkpoint(),
                Step::Restart(workers, batch) => job.restart(rules(), workers, batch),
            }
        }
        for partition in 0..partitions {
            job.appended.append(&log, partition, usize::MAX);
        }
        let (settled, counts) = job.settle();
        job.checkpoint();
        let rulings = job.start.state.rulings.clone();
        let ledgers: Vec<_> = settled.partitions.iter().map(|at| at.ledger).collect();
        prop_assert_eq!((&counts, &ledgers), (&expected(&log, &rulings).0, &expected(&log, &rulings).1));

        let mut start = Start::fresh((0..partitions as u32).map(PartitionId));
        start.state.rulings = rulings;
        let replayed = replay(Setup::new(drafts::rules(), &log, workers, 17, Arc::new(start)));
        prop_assert_eq!(replayed, (counts, ledgers), "a replay that is told the rulings");
    }
}

fn record(video: &str, id: &str, timestamp: u64) -> oracle::Record {
    let payload = format!(r#"{{"event_id":"{id}","video_id":"{video}","event_type":"view","timestamp":{timestamp}}}"#);
    oracle::Record { append_time_ms: None, payload: payload.into_bytes() }
}

const NOON: u64 = 720 * MINUTE_MS;

/// A partition that goes on, and one that is quiet after its first event.
fn two(others: &[(&str, u64)]) -> Log {
    let first = [0, 5, 10].map(|minute| record("v0", &minute.to_string(), NOON + minute * MINUTE_MS)).to_vec();
    let others = others.iter().map(|(id, timestamp)| record("v1", id, *timestamp)).collect();
    Arc::new(vec![first, others])
}

#[test]
fn a_quiet_partition_holds_nobody_back_and_what_it_brings_behind_the_watermark_is_late() {
    // The lateness is a minute: what is before 12:09 is behind.
    let (quiet, behind, present) = (NOON + 5 * MINUTE_MS, NOON + 9 * MINUTE_MS - 1, NOON + 9 * MINUTE_MS + 200);
    let log = two(&[("1", quiet), ("2", behind), ("1", quiet), ("3", present)]);
    let mut job = Job::of_two(&log);
    job.checkpoint();
    job.appended.append(&log, 1, 3);
    let (settled, _) = job.settle();
    let ledger = settled.partitions[1].ledger;
    assert_eq!((ledger.counted, ledger.late, ledger.duplicate), (2, 2, 0));
    assert_eq!(settled.partitions[1].clock, Some(present), "what is behind moves no clock");
    assert!(NOON + 9 * MINUTE_MS <= settled.watermark, "{}", settled.watermark);
    assert_eq!(settled.held_by, None);
    let (start, cuts) = job.live().checkpoint().expect("it has changed");
    let letters: Vec<_> = cuts.iter().flat_map(|cut| &cut.part.letters).map(|letter| letter.reason).collect();
    assert_eq!(letters, [Reason::Behind, Reason::Behind]);
    let ruling = |offset| Ruling { partition: PartitionId(1), offset, ruled: Ruled::Late };
    assert_eq!(start.state.rulings, [ruling(1), ruling(2)]);
}

#[test]
fn nothing_is_called_final_that_a_restart_without_a_checkpoint_would_judge_anew() {
    let log = two(&[("1", NOON + 5 * MINUTE_MS), ("2", NOON + 8 * MINUTE_MS)]);
    let mut job = Job::of_two(&log);
    // What comes now is behind, but no checkpoint says so.
    job.restart(rules(), 2, 17);
    job.appended.append(&log, 1, 1);
    let (settled, _) = job.settle();
    assert_eq!((settled.partitions[1].ledger.counted, settled.partitions[1].ledger.late), (2, 0));
}

#[test]
fn what_is_final_by_the_frontier_stays_so_when_quiet_partitions_hold_from_now_on() {
    let log = two(&[("1", NOON + 5 * MINUTE_MS), ("2", NOON + 9 * MINUTE_MS - 1)]);
    let mut job = Job::of_two(&log);
    job.checkpoint();
    let watermark = job.start.partitions.watermark(job.start.frontier, &rules());
    let mut start = (*job.start).clone();
    start.partitions.raise_floors(watermark, &drafts::rules());
    job.start = Arc::new(start);
    job.restart(drafts::rules(), 1, 17);
    job.appended.append(&log, 1, 1);
    let (settled, _) = job.settle();
    assert_eq!((settled.partitions[1].ledger.late, settled.watermark), (1, watermark));
}

#[test]
fn time_goes_on_while_all_is_quiet_so_that_the_newest_window_becomes_final() {
    let end = NOON + 6 * MINUTE_MS;
    let log: Log = Arc::new(vec![vec![record("v0", "1", end - 100)], vec![record("v1", "1", end - 50)], Vec::new()]);
    let mut job = Job::new(&log, true);
    job.restart(Rules { lateness_ms: 200, ..rules() }, 2, 17);
    job.appended.append(&log, 0, 1);
    job.appended.append(&log, 1, 1);
    job.settle();
    assert_eq!(job.finals.len(), 0);
    while job.watermark < end {
        job.checkpoint();
        job.settle();
    }
    assert_eq!(job.finals.len(), 2);
}
