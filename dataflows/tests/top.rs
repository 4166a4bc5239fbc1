//! Top lists against a naive ranking of what the oracle counts: any range, length, order, frontier and number of workers.

mod harness;

use std::{cmp::Reverse, collections::BTreeMap};

use dataflows::{
    announce::Announcement,
    time::Minute,
    top::{Order, Ranked, TopAnswer, TopQuestion},
    totals::Span,
};
use harness::{
    Counts, Event, Live, Log, Setup,
    drafts::{draft, log, oracle_rules, rules},
    fresh,
};
use proptest::prelude::*;

/// All that the oracle counts of the records below an announced frontier.
fn counted(log: &Log, at: &Announcement) -> Counts {
    let read = |partition: usize| at.partitions[partition].next_offset as usize;
    let below: Vec<Vec<oracle::Record>> =
        log.iter().enumerate().map(|(partition, records)| records[..read(partition)].to_vec()).collect();
    oracle::run(&oracle_rules(), &below).counts
}

/// The videos with an event, ranked by looking at each count for each of them.
fn ranked(counts: &Counts, question: &TopQuestion) -> Vec<Ranked> {
    let (first, end) = (i64::from(question.first.0), i64::from(question.end.0));
    let before = match question.order {
        Order::Count => first,
        Order::Rising => first - (end - first),
    };
    let mut all: BTreeMap<&str, (i64, i64)> = BTreeMap::new();
    for ((video, kind, start), count) in counts.iter().filter(|((_, kind, _), _)| *kind == question.event_type) {
        let minute = (start / 60_000) as i64;
        let (now, then) = all.entry(video).or_default();
        *now += if (first..end).contains(&minute) { *count as i64 } else { 0 };
        *then += if (before..first).contains(&minute) { *count as i64 } else { 0 };
        assert_eq!(*kind, question.event_type);
    }
    all.retain(|_, sums| *sums != (0, 0));
    let mut all: Vec<_> = all.into_iter().collect();
    all.sort_by_key(|(video, (now, then))| match question.order {
        Order::Count => (Reverse(*now), *video),
        Order::Rising => (Reverse(now - then), *video),
    });
    let row = |(video, (now, then)): (&str, (i64, i64))| Ranked {
        id: video.to_owned(),
        count: now as u64,
        before: then as u64,
    };
    all.into_iter().take(question.k).map(row).collect()
}

/// The first and the last minute with an event of the type, of those that a question without an order looks at.
fn known(counts: &Counts, question: &TopQuestion) -> Option<(Minute, Minute)> {
    let asked = question.first..question.end;
    let of_type = counts.keys().filter(|(_, kind, _)| *kind == question.event_type);
    let minutes: Vec<_> = of_type.map(|(_, _, start)| Minute::of(*start)).filter(|m| asked.contains(m)).collect();
    minutes.iter().min().copied().zip(minutes.iter().max().copied())
}

#[derive(Clone, Debug)]
struct Draw {
    kind: &'static str,
    /// Minutes; the events of drafts begin at 166.
    first: u32,
    length: u32,
    is_whole: bool,
    /// Instead of that.
    span: Option<Span>,
    order: Order,
    k: usize,
    /// Which announced frontier, the newest being 0.
    back: usize,
}

fn draw() -> impl Strategy<Value = Draw> {
    let kind = prop::sample::select(vec!["view", "like", "share"]);
    let order = prop::sample::select(vec![Order::Count, Order::Rising]);
    let span = prop::option::of(prop::sample::select(vec![Span::Hour, Span::Day]));
    // Running totals are for the newest.
    let back = prop_oneof![Just(0), 0..40_usize];
    (kind, 160..190_u32, 0..12_u32, any::<bool>(), span, order, 0..9_usize, back).prop_map(
        |(kind, first, length, is_whole, span, order, k, back)| Draw {
            kind,
            first,
            length,
            is_whole,
            span,
            order,
            k,
            back,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, max_shrink_iters: 200, ..ProptestConfig::default() })]

    #[test]
    fn a_top_list_equals_a_naive_ranking_at_any_frontier_on_any_number_of_workers(
        drafts in prop::collection::vec(draft(), 1..300),
        partitions in 1..=4_usize,
        workers in 1..=4_usize,
        batch in 1..40_usize,
        draws in prop::collection::vec(draw(), 1..20),
    ) {
        let log = log(&drafts, partitions);
        let start = fresh(partitions);
        let live = Live::start(Setup::new(rules(), &log, workers, batch, start));
        let mut told: Vec<Announcement> = Vec::new();
        let is_whole = |at: &Announcement| {
            at.partitions.iter().zip(log.iter()).all(|(at, records)| at.next_offset == records.len() as u64)
        };
        while !told.last().is_some_and(is_whole) {
            if let Event::Told(announcement) = live.next() {
                told.push(announcement);
            }
        }
        for Draw { kind, first, length, is_whole, span, order, k, back } in draws {
            let at = &told[told.len() - 1 - back.min(told.len() - 1)];
            let (first, end) = if is_whole { (0, u32::MAX) } else { (first, first + length) };
            let asked = span.map_or(Minute(first)..Minute(end), |span| span.at(at.frontier));
            let (first, end, event_type) = (asked.start, asked.end, kind.to_owned());
            let question = TopQuestion { event_type, first, end, order, k, as_of: at.frontier };
            match live.top(question.clone()) {
                TopAnswer::Top { known: spanned, top } => {
                    let counts = counted(&log, at);
                    prop_assert_eq!(top, ranked(&counts, &question), "{:?} of {:?}", &question, counts);
                    if order == Order::Count && span.is_none() {
                        prop_assert_eq!(spanned, known(&counts, &question));
                    }
                }
                TopAnswer::Gone { oldest } => {
                    prop_assert!(0 < back && at.frontier < oldest);
                }
            }
        }
        live.crash();
    }
}
