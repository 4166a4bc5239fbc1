//! The whole graph against the oracle: any order, repeats, lateness, jumps, partitions and workers, restarts anywhere.

mod harness;

use std::sync::Arc;

use dataflows::{graph::Start, ledger::Ledger, port::PartitionId, rules::Rules};
use harness::{Counts, Live, Log, Reading, Setup, replay};
use proptest::prelude::*;

/// Short spans, so that a few hundred events meet every rule.
fn rules() -> Rules {
    Rules {
        lateness_ms: 60_000,
        remember_ms: 90_000,
        max_future_ms: 30_000,
        max_jump_ms: 300_000,
        tick_ms: 100,
        coarse_ms: 1_000,
        idle_after_ms: 20,
        alignment_ms: 40_000,
    }
}

fn oracle_rules() -> oracle::Rules {
    let rules = rules();
    oracle::Rules {
        lateness_ms: rules.lateness_ms,
        remember_ms: rules.remember_ms,
        max_jump_ms: rules.max_jump_ms,
        max_future_ms: rules.max_future_ms,
    }
}

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

/// One event to come: which id, which video and type, how far the partition's time goes on and how far this is off it.
#[derive(Clone, Debug)]
struct Draft {
    id: u8,
    video: u8,
    kind: u8,
    step_ms: u64,
    off_ms: i64,
    append_ms: Option<i64>,
    bad: bool,
}

fn draft() -> impl Strategy<Value = Draft> {
    let off = prop_oneof![
        6 => -20_000..=20_000_i64,
        2 => -70_000..=-50_000_i64,
        1 => -400_000..=400_000_i64,
        1 => 290_000..=310_000_i64,
        2 => 1_000_000..=1_000_050_i64,
    ];
    let append = prop_oneof![3 => Just(None), 1 => (-40_000..=40_000_i64).prop_map(Some)];
    (0..60_u8, 0..6_u8, 0..2_u8, 0..4_000_u64, off, append, 0..30_u8).prop_map(
        |(id, video, kind, step_ms, off_ms, append_ms, bad)| Draft {
            id,
            video,
            kind,
            step_ms,
            off_ms,
            append_ms,
            bad: bad == 0,
        },
    )
}

fn log(drafts: &[Draft], partitions: usize) -> Log {
    let mut log: Vec<Vec<oracle::Record>> = vec![Vec::new(); partitions];
    let mut times = vec![10_000_000_u64; partitions];
    for draft in drafts {
        // A video stays in its partition, as keyed producers see to, so that every verdict is determined.
        let partition = usize::from(draft.video) % partitions;
        times[partition] += draft.step_ms;
        let time = times[partition].saturating_add_signed(draft.off_ms);
        let payload = if draft.bad {
            b"{".to_vec()
        } else {
            let kind = ["view", "like"][usize::from(draft.kind)];
            format!(
                r#"{{"event_id":"e{}","video_id":"v{}","event_type":"{kind}","timestamp":{time}}}"#,
                draft.id, draft.video
            )
            .into_bytes()
        };
        let append_time_ms = draft.append_ms.map(|off| time.saturating_add_signed(off));
        log[partition].push(oracle::Record { append_time_ms, payload });
    }
    Arc::new(log)
}

fn fresh(partitions: usize) -> Arc<Start> {
    Arc::new(Start::fresh((0..partitions as u32).map(PartitionId)))
}

/// What a live job comes to: all counts, as it answers them, and the ledgers.
fn settled(live: &Live, log: &Log) -> (Counts, Vec<Ledger>) {
    let settled = live.settle(log);
    let mut answered = Counts::new();
    for video in 0..6 {
        for kind in ["view", "like"] {
            for (minute, count) in live.ask(&format!("v{video}"), kind, settled.frontier) {
                answered.insert((format!("v{video}"), kind.to_owned(), minute.start()), count);
            }
        }
    }
    (answered, settled.partitions.iter().map(|at| at.ledger).collect())
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
            for _ in 0..checkpoints {
                if let Some((at, _)) = live.checkpoint() {
                    start = Arc::new(at);
                }
            }
            live.crash();
        }
        let reading = Reading::Unsteady(seed);
        let live = Live::start(Setup { reading, ..Setup::new(rules(), &log, last, batch, Arc::clone(&start)) });
        prop_assert_eq!(settled(&live, &log), expected(&log));
        live.crash();
        let replayed = replay(Setup { reading, ..Setup::new(rules(), &log, last, batch, fresh(partitions)) });
        prop_assert_eq!(replayed, expected(&log));
    }
}
