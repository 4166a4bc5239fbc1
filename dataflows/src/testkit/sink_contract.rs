//! What every [`CountSink`] owes its caller.

use std::collections::BTreeMap;

use super::SplitMix64;
use crate::{
    port::{Claim, CountRow, CountSink, SinkError, Version},
    rollup::Width,
    time::{EVENT_TIME_MAX, MINUTE_MS, floor_to},
};

/// Rows of one write: more than the embedded store puts into one batch.
const MANY_ROWS: u64 = 10_500;

/// Generation, number and count.
type Written = (u64, u64, u64);

/// Panics unless the sinks that `open` gives, each fresh and empty, keep the contract. `stored` gives all rows of a
/// sink in any order.
pub fn check<S: CountSink>(mut open: impl FnMut() -> S, stored: impl Fn(&mut S) -> Vec<CountRow>) {
    a_claim_is_none_until_it_is_set_and_then_the_last_one(open());
    the_greatest_version_wins(&mut open, &stored);
    any_order_with_any_repeats_ends_the_same(&mut open, &stored);
    every_field_survives_and_no_key_shadows_another(open(), &stored);
    one_write_takes_no_row_or_many(open(), &stored);
    a_greater_generation_keeps_its_claim(open());
    another_history_keeps_its_claim(open());
    a_cleared_one_is_as_new(open(), &stored);
}

fn version(generation: u64, number: u64) -> Version {
    Version { generation, number }
}

fn row(video_id: &str, window_start: u64, count: u64) -> CountRow {
    CountRow {
        video_id: video_id.to_owned(),
        event_type: "view".to_owned(),
        window_start,
        count,
        width: Width::Minute,
        stats: None,
        is_final: false,
        as_of: 1,
    }
}

fn sorted(mut rows: Vec<CountRow>) -> Vec<CountRow> {
    rows.sort();
    rows
}

fn a_claim_is_none_until_it_is_set_and_then_the_last_one<S: CountSink>(mut sink: S) {
    assert_eq!(sink.claim().expect("a claim can be read"), None);
    let history = u128::MAX - 1;
    let first = Claim { history, generation: 1, frontier: 0 };
    let further = Claim { history, generation: 1, frontier: 60_000 };
    let second = Claim { history, generation: 3, frontier: EVENT_TIME_MAX };
    for claim in [&first, &further, &second, &second] {
        sink.set_claim(claim).expect("a claim can be set");
        assert_eq!(sink.claim().expect("a claim can be read").as_ref(), Some(claim));
    }
}

fn a_greater_generation_keeps_its_claim<S: CountSink>(mut sink: S) {
    let newer = Claim { history: 7, generation: 3, frontier: 5 };
    sink.set_claim(&newer).expect("a claim can be set");
    let older = sink.set_claim(&Claim { history: 7, generation: 2, frontier: 9 });
    assert!(matches!(older, Err(SinkError::Fenced { .. })), "{older:?}");
    assert_eq!(sink.claim().expect("a claim can be read"), Some(newer));
}

fn another_history_keeps_its_claim<S: CountSink>(mut sink: S) {
    let there = Claim { history: 7, generation: 3, frontier: 5 };
    sink.set_claim(&there).expect("a claim can be set");
    for generation in [2, 3, 4] {
        let other = sink.set_claim(&Claim { history: 8, generation, frontier: 9 });
        assert!(matches!(other, Err(SinkError::Fenced { .. })), "generation {generation}: {other:?}");
        assert_eq!(sink.claim().expect("a claim can be read").as_ref(), Some(&there));
    }
}

fn a_cleared_one_is_as_new<S: CountSink>(mut sink: S, stored: &impl Fn(&mut S) -> Vec<CountRow>) {
    sink.set_claim(&Claim { history: 7, generation: 3, frontier: 5 }).expect("a claim can be set");
    sink.write(version(3, 1), &[row("v1", 60_000, 5)]).expect("a row can be written");
    sink.clear().expect("it can be cleared");
    assert_eq!((sink.claim().expect("a claim can be read"), stored(&mut sink)), (None, vec![]));
    sink.set_claim(&Claim { history: 8, generation: 1, frontier: 0 }).expect("a claim can be set");
    sink.write(version(4, 1), &[row("v1", 60_000, 1)]).expect("a row can be written");
    assert_eq!(stored(&mut sink), [row("v1", 60_000, 1)]);
}

fn the_greatest_version_wins<S: CountSink>(open: &mut impl FnMut() -> S, stored: &impl Fn(&mut S) -> Vec<CountRow>) {
    // writes, in order | the count that stays
    let cases: [(&[Written], u64); 7] = [
        (&[(1, 1, 5)], 5),
        (&[(1, 1, 5), (1, 1, 5)], 5),
        (&[(1, 1, 5), (1, 2, 3)], 3),
        (&[(1, 2, 3), (1, 1, 5)], 3),
        (&[(2, 1, 4), (1, 9, 8)], 4),
        (&[(1, 9, 8), (2, 1, 4), (1, 10, 9)], 4),
        (&[(1, 1, 5), (1, 2, 3), (1, 1, 5), (1, 2, 3)], 3),
    ];
    for (writes, expected) in cases {
        let mut sink = open();
        for (generation, number, count) in writes {
            sink.write(version(*generation, *number), &[row("v1", 60_000, *count)]).expect("a row can be written");
        }
        assert_eq!(stored(&mut sink), [row("v1", 60_000, expected)], "after {writes:?}");
    }
}

fn any_order_with_any_repeats_ends_the_same<S: CountSink>(
    open: &mut impl FnMut() -> S,
    stored: &impl Fn(&mut S) -> Vec<CountRow>,
) {
    // What a row says depends on its key and version alone, as absolute counts do.
    let write_of = |number: u64, seed: u64| {
        let mut dice = SplitMix64::new(seed ^ number);
        let mut rows = BTreeMap::new();
        for _ in 0..20 {
            let (video, minute) = (dice.below(5), dice.below(4));
            rows.insert((video, minute), row(&format!("v{video}"), minute * MINUTE_MS, 1_000 * number + video));
        }
        (version(1 + number / 4, number), rows)
    };
    for seed in [11, 12, 13] {
        let writes: Vec<_> = (1..=8).map(|number| write_of(number, seed)).collect();
        let mut expected = BTreeMap::new();
        for (_, rows) in &writes {
            expected.extend(rows.clone());
        }
        let expected = sorted(expected.into_values().collect());

        let reversed: Vec<_> = writes.iter().rev().collect();
        let mut shuffled: Vec<_> = writes.iter().chain(&writes).collect();
        SplitMix64::new(seed).shuffle(&mut shuffled);
        for (order, writes) in [("reversed", reversed), ("shuffled twice", shuffled)] {
            let mut sink = open();
            for (version, rows) in writes {
                let rows: Vec<CountRow> = rows.values().cloned().collect();
                sink.write(*version, &rows).expect("rows can be written");
            }
            assert_eq!(sorted(stored(&mut sink)), expected, "{order}, seed {seed}");
        }
    }
}

fn every_field_survives_and_no_key_shadows_another<S: CountSink>(
    mut sink: S,
    stored: &impl Fn(&mut S) -> Vec<CountRow>,
) {
    let last_window = floor_to(EVENT_TIME_MAX, MINUTE_MS);
    let longest = "é".repeat(64);
    let mut rows = Vec::new();
    for video_id in ["a", "ab", "a b", "a:view", "A", "é", "\u{10ffff}", longest.as_str()] {
        for event_type in ["view", "v", "view.a", "a"] {
            for window_start in [0, MINUTE_MS, last_window] {
                rows.push(CountRow {
                    video_id: video_id.to_owned(),
                    event_type: event_type.to_owned(),
                    window_start,
                    count: i64::MAX as u64 - rows.len() as u64,
                    width: Width::Minute,
                    stats: None,
                    is_final: rows.len().is_multiple_of(2),
                    as_of: EVENT_TIME_MAX - rows.len() as u64,
                });
            }
        }
    }
    sink.write(version(1, 1), &rows).expect("rows can be written");
    assert_eq!(sorted(stored(&mut sink)), sorted(rows));
}

fn one_write_takes_no_row_or_many<S: CountSink>(mut sink: S, stored: &impl Fn(&mut S) -> Vec<CountRow>) {
    sink.write(version(1, 1), &[]).expect("an empty write is one");
    assert_eq!(stored(&mut sink), []);
    let rows: Vec<CountRow> = (0..MANY_ROWS).map(|number| row("v1", number * MINUTE_MS, number)).collect();
    sink.write(version(1, 2), &rows).expect("many rows can be written");
    assert_eq!(sorted(stored(&mut sink)), sorted(rows));
}
