//! The whole graph against the oracle: any order, repeats, lateness, jumps, partitions and workers, restarts anywhere.

mod harness;

use std::sync::Arc;

use dataflows::ledger::Ledger;
use harness::{
    Counts, Live, Log, Reading, Setup, crashed_after,
    drafts::{draft, ledgers, log, oracle_rules, rules},
    fresh, replay,
};
use proptest::prelude::*;

/// What the oracle expects.
fn expected(log: &Log) -> (Counts, Vec<Ledger>) {
    let outcome = oracle::run(&oracle_rules(), log);
    let ledgers = ledgers(&outcome);
    (outcome.counts, ledgers)
}

/// What a live job comes to: all counts, as it answers them, and the ledgers.
fn settled(live: &Live, log: &Log) -> (Counts, Vec<Ledger>) {
    let settled = live.settle(log);
    (live.answered(settled.frontier), settled.partitions.iter().map(|at| at.ledger).collect())
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
            start = crashed_after(live, checkpoints, start);
        }
        let live = Live::start(Setup::new(rules(), &log, last, batch, Arc::clone(&start)));
        prop_assert_eq!(settled(&live, &log), expected(&log));
        live.crash();
    }

    #[test]
    fn partitions_that_give_less_than_there_is_fall_silent_and_break_off_equal_the_oracle(
        drafts in prop::collection::vec(draft(), 1..200),
        partitions in 1..=4_usize,
        batch in 1..40_usize,
        incarnations in prop::collection::vec((1..=3_usize, 0..3_usize), 1..4),
        last in 1..=3_usize,
        seed in any::<u64>(),
    ) {
        let log = log(&drafts, partitions);
        let mut start = fresh(partitions);
        for (number, (workers, checkpoints)) in (1..).zip(incarnations) {
            let reading = Reading::BreaksOff(seed.wrapping_mul(number));
            let live = Live::start(Setup { reading, ..Setup::new(rules(), &log, workers, batch, Arc::clone(&start)) });
            start = crashed_after(live, checkpoints, start);
        }
        let reading = Reading::Unsteady(seed);
        let live = Live::start(Setup { reading, ..Setup::new(rules(), &log, last, batch, Arc::clone(&start)) });
        prop_assert_eq!(settled(&live, &log), expected(&log));
        live.crash();
        let replayed = replay(Setup { reading, ..Setup::new(rules(), &log, last, batch, fresh(partitions)) });
        prop_assert_eq!(replayed, expected(&log));
    }
}
