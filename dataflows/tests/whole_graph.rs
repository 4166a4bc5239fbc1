//! The whole graph against the oracle: any order, repeats, lateness, jumps, partitions and workers, restarts anywhere.

mod harness;

use std::sync::Arc;

use dataflows::{graph::Start, ledger::Ledger, port::PartitionId};
use harness::{
    Counts, Live, Log, Setup,
    drafts::{draft, log, oracle_rules, rules},
    replay,
};
use proptest::prelude::*;

/// What the oracle expects.
fn expected(log: &Log) -> (Counts, Vec<Ledger>) {
    let outcome = oracle::run(&oracle_rules(), log);
    let ledger = |ledger: &oracle::Ledger| Ledger {
        read: ledger.read,
        counted: ledger.counted,
        duplicate: ledger.duplicate,
        late: ledger.late,
        future: ledger.future,
        malformed: ledger.malformed,
        oversize: ledger.oversize,
    };
    (outcome.counts, outcome.ledger.iter().map(ledger).collect())
}

fn fresh(partitions: usize) -> Arc<Start> {
    Arc::new(Start::fresh((0..partitions as u32).map(PartitionId)))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, max_shrink_iters: 200, ..ProptestConfig::default() })]

    #[test]
    fn a_replay_equals_the_oracle_on_any_number_of_workers(
        drafts in prop::collection::vec(draft(), 0..400),
        partitions in 1..=5_usize,
        workers in 1..=4_usize,
        batch in 1..60_usize,
    ) {
        let log = log(&drafts, partitions);
        let (counts, ledgers) = replay(Setup::new(rules(), &log, workers, batch, fresh(partitions)));
        prop_assert_eq!((counts, ledgers), expected(&log));
    }

    #[test]
    fn a_live_job_restarted_at_any_frontier_equals_the_oracle(
        drafts in prop::collection::vec(draft(), 1..300),
        partitions in 1..=5_usize,
        batch in 1..40_usize,
        incarnations in prop::collection::vec((1..=4_usize, 0..4_usize), 1..4),
        last in 1..=4_usize,
    ) {
        let log = log(&drafts, partitions);
        let mut start = fresh(partitions);
        for (workers, checkpoints) in incarnations {
            let live = Live::start(Setup::new(rules(), &log, workers, batch, Arc::clone(&start)));
            for _ in 0..checkpoints {
                if let Some((at, _)) = live.checkpoint() {
                    start = Arc::new(at);
                }
            }
            live.crash();
        }
        let live = Live::start(Setup::new(rules(), &log, last, batch, Arc::clone(&start)));
        let settled = live.settle(&log);
        let (counts, ledgers) = expected(&log);
        prop_assert_eq!(&settled.partitions.iter().map(|at| at.ledger).collect::<Vec<_>>(), &ledgers);
        let mut answered = Counts::new();
        for video in 0..6 {
            for kind in ["view", "like"] {
                for (minute, count) in live.ask(&format!("v{video}"), kind, settled.frontier) {
                    answered.insert((format!("v{video}"), kind.to_owned(), minute.start()), count);
                }
            }
        }
        prop_assert_eq!(answered, counts);
        live.crash();
    }
}
