//! The functions of windows against the oracle: any order, workers and restarts, to the last bit.

mod harness;

use std::{collections::BTreeMap, sync::Arc};

use dataflows::{
    functions::{Functions, Kept, stats::Stats},
    graph::Start,
    rollup::Width,
};
use harness::{
    Live, Log, Setup, crashed_after,
    drafts::{draft, log, oracle_rules, rules},
    fresh, replay_rows,
    windows::check,
};
use oracle::functions::{Window, Windows};
use proptest::prelude::*;

type Found = BTreeMap<(String, String, u64), (u64, Stats)>;

fn expected(log: &Log) -> Windows {
    oracle::functions::windows(&oracle::run(&oracle_rules(), log), log)
}

fn setup(log: &Log, workers: usize, batch: usize, start: Arc<Start>) -> Setup {
    Setup { functions: Functions::of_all(Kept::ALL), ..Setup::new(rules(), log, workers, batch, start) }
}

fn check_all(found: &Found, expected: &Windows) {
    assert_eq!(found.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
    let (mut all, mut count, mut every) = (Stats::default(), 0, Window::default());
    for ((events, stats), window) in found.values().zip(expected.values()) {
        check(*events, stats, window);
        all.merge(stats);
        count += events;
        every = every.and(window);
    }
    if 0 < count {
        check(count, &all, &every);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, max_shrink_iters: 200, ..ProptestConfig::default() })]

    #[test]
    fn functions_equal_the_oracle_and_their_bytes_are_the_same_on_any_workers_and_after_any_restart(
        drafts in prop::collection::vec(draft(), 1..300),
        partitions in 1..=4_usize,
        batch in 1..40_usize,
        incarnations in prop::collection::vec((1..=4_usize, 0..4_usize), 0..3),
        last in 1..=4_usize,
    ) {
        let log = log(&drafts, partitions);
        let expected = expected(&log);
        let mut start = fresh(partitions);
        for (workers, checkpoints) in incarnations {
            let live = Live::start(setup(&log, workers, batch, Arc::clone(&start)));
            start = crashed_after(live, checkpoints, start);
        }
        let live = Live::start(setup(&log, last, batch, start));
        let frontier = live.settle(&log).frontier;
        let found = live.functions(frontier);
        live.crash();
        check_all(&found, &expected);

        let rows = replay_rows(setup(&log, last % 4 + 1, batch, fresh(partitions))).0;
        let replayed: Found = rows
            .into_iter()
            .map(|row| ((row.video_id, row.event_type, row.window_start), (row.count, row.stats.unwrap_or_default())))
            .collect();
        prop_assert_eq!(replayed, found);
    }
}

/// Hours and days by width, video id, event type and start.
type Rolled = BTreeMap<(Width, String, String, u64), (u64, Option<Stats>)>;

/// Takes checkpoints until nothing has changed, with what is to be written of hours and days.
fn keep(live: &Live, rolled: &mut Rolled) -> Option<Start> {
    let (start, cuts) = live.checkpoint()?;
    for row in cuts.into_iter().flat_map(|cut| cut.rollups) {
        rolled.insert((row.width, row.video_id, row.event_type, row.window_start), (row.count, row.stats));
    }
    Some(start)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 30, max_shrink_iters: 100, ..ProptestConfig::default() })]

    #[test]
    fn hours_and_days_that_checkpoints_have_written_are_what_their_minutes_come_to(
        drafts in prop::collection::vec(draft(), 1..200),
        partitions in 1..=3_usize,
        batch in 1..40_usize,
        incarnations in prop::collection::vec((1..=3_usize, 1..4_usize), 0..3),
        last in 1..=3_usize,
    ) {
        let log = log(&drafts, partitions);
        let (mut start, mut rolled) = (fresh(partitions), Rolled::new());
        for (workers, checkpoints) in incarnations {
            let live = Live::start(Setup { rolls_up: true, ..setup(&log, workers, batch, Arc::clone(&start)) });
            for _ in 0..checkpoints {
                start = keep(&live, &mut rolled).map_or(start, Arc::new);
            }
            live.crash();
        }
        let live = Live::start(Setup { rolls_up: true, ..setup(&log, last, batch, start) });
        live.settle(&log);
        while keep(&live, &mut rolled).is_some() {}
        live.crash();

        let mut naive: BTreeMap<(Width, String, String, u64), Window> = BTreeMap::new();
        for ((video, kind, start), window) in &expected(&log) {
            for (width, ms) in [(Width::Hour, 3_600_000), (Width::Day, 86_400_000)] {
                let parent = naive.entry((width, video.clone(), kind.clone(), start / ms * ms)).or_default();
                *parent = std::mem::take(parent).and(window);
            }
        }
        prop_assert_eq!(rolled.keys().collect::<Vec<_>>(), naive.keys().collect::<Vec<_>>());
        for ((count, stats), window) in rolled.values().zip(naive.values()) {
            check(*count, stats.as_ref().expect("all are kept"), window);
        }
    }
}

#[test]
fn functions_kept_from_a_restart_on_tell_the_windows_that_they_miss_events_of() {
    let event = |id: u32, time: u64| oracle::Record {
        append_time_ms: None,
        payload: format!(
            r#"{{"event_id":"e{id}","video_id":"v0","event_type":"view","timestamp":{time},"value":1.5}}"#
        )
        .into_bytes(),
    };
    let log: Log = Arc::new(vec![vec![event(1, 600_000), event(2, 600_500), event(3, 700_000)]]);
    let appended = harness::Appended::none(&log);
    appended.append(&log, 0, 1);
    let without = Setup { appended: appended.clone(), ..Setup::new(rules(), &log, 1, 9, fresh(1)) };
    let live = Live::start(without);
    let start = loop {
        match live.checkpoint() {
            Some((start, _)) if start.partitions.0.values().all(|at| at.next_offset == 1) => break start,
            _ => {}
        }
    };
    live.crash();
    appended.append(&log, 0, 2);
    let live = Live::start(setup(&log, 2, 9, Arc::new(start)));
    let frontier = live.settle(&log).frontier;
    let whole: Vec<_> =
        live.functions(frontier).into_values().map(|(count, stats)| (count, stats.whole(count))).collect();
    live.crash();
    assert_eq!(whole, [(2, Kept::NONE), (1, Kept::ALL)]);
}
