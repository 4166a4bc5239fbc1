//! Windows that leave memory: what is in the sink and what is in the index are together what the oracle counts, each window in one of
//! the two, after any restart on any number of workers. Where hours are written, they leave as a whole, and are still what their
//! minutes come to.

mod harness;

use std::{collections::BTreeMap, sync::Arc};

use dataflows::{
    functions::{Functions, Kept, stats::Stats},
    graph::Start,
    rollup::Width,
    tally::Cooling,
    time::{EventTime, Minute},
};
use harness::{
    Appended, Live, Log, Setup,
    drafts::{draft, ledgers, log, oracle_rules, rules},
    fresh,
};
use proptest::prelude::*;

/// Rows by video id, event type and window.
type Rows = BTreeMap<(String, String, EventTime), (u64, Option<Stats>)>;

fn setup(log: &Log, step: Width, workers: usize, batch: usize, start: Arc<Start>) -> Setup {
    let functions = Functions::of_all(Kept::ALL);
    let cooling = Some(Cooling { hot_ms: 125_000, step });
    Setup { functions, cooling, rolls_up: step != Width::Minute, ..Setup::new(rules(), log, workers, batch, start) }
}

/// Takes a checkpoint, and writes its rows.
fn keep(live: &Live, sink: &mut Rows, hours: &mut Rows) -> Option<Start> {
    let (start, cuts) = live.checkpoint()?;
    for row in cuts.iter().flat_map(|cut| &cut.rollups).filter(|row| row.width == Width::Hour) {
        let window = (row.video_id.clone(), row.event_type.clone(), row.window_start);
        hours.insert(window, (row.count, row.stats.clone()));
    }
    for group in cuts.into_iter().flat_map(|cut| cut.part.groups) {
        let stats: BTreeMap<_, _> =
            group.stats.into_iter().map(|(series, minute, stats)| ((series, minute), stats)).collect();
        for cell in group.cells {
            let (video_id, event_type) = &group.names[cell.series.0 as usize];
            let stats = stats.get(&(cell.series, cell.minute)).cloned();
            sink.insert((video_id.to_string(), event_type.to_string(), cell.minute.start()), (cell.count, stats));
        }
    }
    Some(start)
}

/// So many more records of each partition.
fn append(appended: &Appended, log: &Log, records: usize) {
    (0..log.len()).for_each(|partition| appended.append(log, partition, records));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 20, max_shrink_iters: 100, ..ProptestConfig::default() })]

    #[test]
    fn sink_and_index_are_together_what_the_oracle_counts_and_no_window_is_in_both(
        drafts in prop::collection::vec(draft(), 200..600),
        partitions in 1..=2_usize,
        batch in 1..40_usize,
        incarnations in prop::collection::vec((1..=4_usize, 0..5_usize), 0..4),
        last in 1..=4_usize,
        step in prop_oneof![Just(Width::Minute), Just(Width::Hour)],
    ) {
        let log = log(&drafts, partitions);
        let appended = Appended::none(&log);
        let (mut start, mut sink, mut hours) = (fresh(partitions), Rows::new(), Rows::new());
        let of = |workers, start| Setup { appended: appended.clone(), ..setup(&log, step, workers, batch, start) };
        for (workers, checkpoints) in incarnations {
            let live = Live::start(of(workers, Arc::clone(&start)));
            for _ in 0..checkpoints {
                append(&appended, &log, 10);
                start = keep(&live, &mut sink, &mut hours).map_or(start, Arc::new);
            }
            live.crash();
        }
        // The rest comes bit by bit, so that windows leave while others come.
        let live = Live::start(of(last, start));
        while appended.ends() != Appended::all(&log).ends() {
            append(&appended, &log, 40);
            live.settle_at(&appended.ends());
            keep(&live, &mut sink, &mut hours);
        }
        while keep(&live, &mut sink, &mut hours).is_some() {}
        let at = live.latest().expect("something was announced");
        let hot = live.functions(at.frontier);
        let ledger: Vec<_> = at.partitions.iter().map(|at| at.ledger).collect();
        live.crash();

        let is_cold = |start: EventTime| Minute::of(start) < at.hot_from;
        prop_assert!(hot.keys().all(|(.., start)| !is_cold(*start)), "what has left is not in the index any more");
        let outcome = oracle::run(&oracle_rules(), &log);
        // Else a question about all times would ask the sink, which may be away, for nothing.
        let has_left = outcome.counts.keys().any(|(.., start)| is_cold(*start));
        prop_assert!(at.hot_from == Minute(0) || has_left, "nothing is before {:?}", at.hot_from);
        let mut whole: BTreeMap<_, _> = hot.into_iter().map(|(window, (count, _))| (window, count)).collect();
        for (window, (count, stats)) in sink.into_iter().filter(|((.., start), _)| is_cold(*start)) {
            prop_assert_eq!(stats.map(|stats| stats.whole(count)), Some(Kept::ALL));
            whole.insert(window, count);
        }
        if step == Width::Hour {
            prop_assert_eq!(at.hot_from, Minute::of(step.start(at.hot_from)));
            let mut naive: BTreeMap<_, u64> = BTreeMap::new();
            for ((video, kind, start), count) in &outcome.counts {
                *naive.entry((video.clone(), kind.clone(), start / 3_600_000 * 3_600_000)).or_default() += count;
            }
            let hours: BTreeMap<_, _> = hours.into_iter().map(|(window, (count, _))| (window, count)).collect();
            prop_assert_eq!(hours, naive);
        }
        prop_assert_eq!((whole, ledger), (outcome.counts.clone(), ledgers(&outcome)));
    }
}
