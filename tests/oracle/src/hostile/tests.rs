//! The hostile stream holds what it promises, as seen by the oracle.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Add;

use super::*;
use crate::{Cause, Ledger, Record, Rules, Verdict, decode, run};

fn records(lines: &[Vec<Vec<u8>>]) -> Vec<Vec<Record>> {
    let record = |line: &Vec<u8>| Record { append_time_ms: None, payload: line.clone() };
    lines.iter().map(|lines| lines.iter().map(record).collect()).collect()
}

#[test]
fn every_verdict_and_every_cause_occurs_and_most_events_count() {
    let spec = Spec { events: 40_000, ..Spec::default() };
    let outcome = run(&Rules::default(), &records(&hostile(11, &spec)));
    let total = outcome.ledger.iter().copied().fold(Ledger::default(), Ledger::add);
    assert!(outcome.ledger.iter().all(|ledger| ledger.balances() && 1_000 < ledger.counted), "{:?}", outcome.ledger);
    assert!(total.read * 7 / 10 < total.counted, "{total:?}");
    assert!(total.read / 100 < total.duplicate && total.read / 100 < total.late && total.read / 100 < total.malformed);
    assert_eq!(total.oversize, 3);
    let causes: BTreeSet<Cause> = outcome
        .verdicts
        .iter()
        .flatten()
        .filter_map(|verdict| if let Verdict::Malformed(cause) = verdict { Some(*cause) } else { None })
        .collect();
    assert_eq!(causes.len(), 7, "all but empty, which is a blank line: {causes:?}");
}

#[test]
fn no_wild_stamp_has_moved_a_clock() {
    for seed in 0..12 {
        let spec = Spec { events: 20_000, ..Spec::default() };
        let outcome = run(&Rules::default(), &records(&hostile(seed, &spec)));
        for clock in outcome.clocks {
            let passed_ms = clock.expect("every partition has events") - spec.start_ms;
            // The span, the jump of two hours, and up to five jumps of a little over one hour alone.
            assert!(
                (6 * 3_600_000 - 60_000..=6 * 3_600_000 + 5 * 3_720_000).contains(&passed_ms),
                "seed {seed}: {passed_ms}"
            );
        }
    }
}

#[test]
fn without_jumps_all_clocks_end_together() {
    let spec = Spec { events: 20_000, jumps: Jumps::None, ..Spec::default() };
    let outcome = run(&Rules::default(), &records(&hostile(5, &spec)));
    for clock in outcome.clocks {
        let behind_ms = spec.start_ms + spec.span_ms - clock.expect("every partition has events");
        assert!(behind_ms < 60_000, "{behind_ms}");
    }
}

#[test]
fn every_identity_stays_in_one_partition() {
    let lines = hostile(3, &Spec { events: 20_000, ..Spec::default() });
    let mut home = BTreeMap::new();
    for (partition, line) in
        lines.iter().enumerate().flat_map(|(partition, lines)| lines.iter().map(move |line| (partition, line)))
    {
        if let Ok(event) = decode(line) {
            let first = *home.entry((event.video_id, event.event_id)).or_insert(partition);
            assert_eq!(first, partition, "{}", String::from_utf8_lossy(&line[..line.len().min(300)]));
        }
    }
}

#[test]
fn one_video_has_two_fifths_and_one_line_is_of_exactly_the_limit() {
    let lines = hostile(4, &Spec { events: 20_000, ..Spec::default() });
    let all: Vec<&Vec<u8>> = lines.iter().flatten().collect();
    let hot = all.iter().filter(|line| decode(line).is_ok_and(|event| event.video_id == "v0000000")).count();
    assert!((all.len() * 36 / 100..all.len() * 44 / 100).contains(&hot), "{hot} of {}", all.len());
    assert_eq!(all.iter().filter(|line| line.len() == crate::judge::RECORD_BYTES_MAX).count(), 1);
}

#[test]
fn the_same_seed_gives_the_same_lines_and_small_streams_work() {
    let spec = Spec { events: 2_000, ..Spec::default() };
    assert_eq!(hostile(1, &spec), hostile(1, &spec));
    assert_ne!(hostile(1, &spec), hostile(2, &spec));
    for (events, partitions, videos) in [(0, 1, 1), (1, 1, 1), (7, 3, 1), (50, 64, 5)] {
        let lines = hostile(1, &Spec { events, partitions, videos, ..Spec::default() });
        assert!(events as usize <= lines.iter().map(Vec::len).sum());
    }
}
