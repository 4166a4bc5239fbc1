//! Hand-computed boundary tables, and the same rules once more in their literal, quadratic form.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::Verdict::{Counted, Duplicate, Future, Late};
use super::*;

const MINUTE: u64 = 60_000;
const HOUR: u64 = 60 * MINUTE;

fn line(video_id: &str, event_id: &str, timestamp_ms: u64) -> Vec<u8> {
    format!(r#"{{"event_id":"{event_id}","video_id":"{video_id}","event_type":"view","timestamp":{timestamp_ms}}}"#)
        .into_bytes()
}

fn record(event_id: &str, timestamp_ms: u64) -> Record {
    Record { append_time_ms: None, payload: line("v", event_id, timestamp_ms) }
}

/// One partition, one video: (event id, timestamp, expected verdict).
fn check(case: &str, rows: &[(&str, u64, Verdict)]) -> Outcome {
    let records: Vec<Record> = rows.iter().map(|(id, at, _)| record(id, *at)).collect();
    let expected: Vec<Verdict> = rows.iter().map(|(_, _, verdict)| *verdict).collect();
    let outcome = run(&Rules::default(), &[records]);
    assert_eq!(outcome.verdicts[0], expected, "{case}");
    assert!(outcome.ledger.iter().all(Ledger::balances), "{case}");
    assert_eq!(outcome.ledger[0].counted, outcome.counts.values().sum::<u64>(), "{case}");
    outcome
}

fn row_of_ids(count: usize, prefix: &str, timestamp_ms: u64) -> Vec<Record> {
    (0..count).map(|index| record(&format!("{prefix}{index}"), timestamp_ms)).collect()
}

#[test]
fn an_event_is_late_below_the_clock_minus_lateness_and_not_at_it() {
    let clock = 100 * MINUTE + 17;
    for (case, at, expected) in [
        ("one ms above", clock - 10 * MINUTE + 1, Counted),
        ("exactly", clock - 10 * MINUTE, Counted),
        ("one ms below", clock - 10 * MINUTE - 1, Late),
        ("at the epoch", 0, Late),
    ] {
        let outcome = check(case, &[("a", clock, Counted), ("b", at, expected), ("c", clock, Counted)]);
        assert_eq!(outcome.clocks, [Some(clock)], "{case}");
    }
}

#[test]
fn lateness_is_judged_by_the_clock_before_the_event() {
    // The clock follows b at once; c, eleven minutes older than b, would not have been late before it.
    check("b moves it", &[("a", 100 * MINUTE, Counted), ("b", 111 * MINUTE, Counted), ("c", 100 * MINUTE, Late)]);
    // Nothing is late to the first event's clock before that event, whatever it says.
    check("first at zero", &[("a", 0, Counted), ("b", 0, Counted)]);
}

#[test]
fn a_window_holds_its_start_and_not_its_end() {
    let outcome = check(
        "edges",
        &[
            ("a", 10 * MINUTE - 1, Counted),
            ("b", 10 * MINUTE, Counted),
            ("c", 11 * MINUTE - 1, Counted),
            ("d", 11 * MINUTE, Counted),
            ("e", 11 * MINUTE + 1, Counted),
        ],
    );
    let counts: Vec<(u64, u64)> = outcome.counts.iter().map(|((_, _, start), count)| (*start, *count)).collect();
    assert_eq!(counts, [(9 * MINUTE, 1), (10 * MINUTE, 2), (11 * MINUTE, 2)]);
}

#[test]
fn a_repeat_is_a_duplicate_until_its_window_is_forgotten() {
    // Counted at 20:30, so in the window [20:00, 21:00): remembered while the clock is below 31:00.
    let first = 20 * MINUTE + 30_000;
    let forgotten = 31 * MINUTE;
    for (case, clock, expected) in [
        ("long before", 25 * MINUTE, Duplicate),
        ("late, yet remembered", forgotten - 1, Duplicate),
        ("just forgotten", forgotten, Late),
        ("long forgotten", forgotten + MINUTE, Late),
    ] {
        check(case, &[("a", first, Counted), ("b", clock, Counted), ("a", first, expected)]);
    }
}

#[test]
fn an_id_used_again_counts_only_once_the_first_use_is_forgotten() {
    let first = 20 * MINUTE + 59_999;
    // The repeat's own timestamp is in the clock that decides.
    check("its own stamp forgets it", &[("a", first, Counted), ("a", 31 * MINUTE, Counted)]);
    check("its own stamp is one short", &[("a", first, Counted), ("a", 31 * MINUTE - 1, Duplicate)]);
    // The second use is then remembered in turn, by its own window.
    check(
        "twice over",
        &[
            ("a", first, Counted),
            ("a", 31 * MINUTE, Counted),
            ("b", 42 * MINUTE - 1, Counted),
            ("a", 31 * MINUTE, Duplicate),
            ("c", 42 * MINUTE, Counted),
            ("a", 31 * MINUTE, Late),
            ("a", 42 * MINUTE, Counted),
        ],
    );
    // Beyond reach the clock stands still, so nothing is forgotten.
    check("two hours on", &[("a", first, Counted), ("a", first + 2 * HOUR, Duplicate)]);
}

#[test]
fn nothing_but_the_identity_matters_to_a_repeat() {
    let partition = vec![
        Record { append_time_ms: None, payload: line("v", "a", 20 * MINUTE) },
        Record { append_time_ms: None, payload: line("w", "a", 20 * MINUTE) },
        Record {
            append_time_ms: None,
            payload: br#"{"value":1,"timestamp":1260000,"event_type":"like","video_id":"v","event_id":"\u0061"}"#
                .to_vec(),
        },
        Record { append_time_ms: None, payload: line("v", "A", 20 * MINUTE) },
    ];
    let outcome = run(&Rules::default(), &[partition]);
    assert_eq!(outcome.verdicts[0], [Counted, Counted, Duplicate, Counted]);
    assert_eq!(outcome.clocks, [Some(21 * MINUTE)]);
}

#[test]
fn a_refused_first_copy_never_shadows_a_good_second_one() {
    check("late first", &[("x", 30 * MINUTE, Counted), ("a", 19 * MINUTE, Late), ("a", 30 * MINUTE, Counted)]);
    let at = |append: u64, payload: Vec<u8>| Record { append_time_ms: Some(append), payload };
    let mut oversize = line("v", "a", 10 * MINUTE);
    oversize.resize(RECORD_BYTES_MAX + 1, b' ');
    let partition = vec![
        at(10 * MINUTE, line("v", "a", 16 * MINUTE)),
        at(10 * MINUTE, oversize),
        at(10 * MINUTE, b"{}".to_vec()),
        at(10 * MINUTE, line("v", "a", 10 * MINUTE)),
        at(10 * MINUTE, line("v", "a", 10 * MINUTE)),
    ];
    let expected = [Future, Verdict::Oversize, Verdict::Malformed(Cause::Missing), Counted, Duplicate];
    assert_eq!(run(&Rules::default(), &[partition]).verdicts[0], expected);
}

#[test]
fn an_event_is_future_above_append_time_plus_the_limit_and_moves_no_clock() {
    let append = 100 * MINUTE;
    let at =
        |id: &str, timestamp_ms: u64| Record { append_time_ms: Some(append), payload: line("v", id, timestamp_ms) };
    let partition = vec![
        at("a", 100 * MINUTE),
        at("b", 105 * MINUTE + 1),
        at("c", 105 * MINUTE),
        at("c", 105 * MINUTE + 1), // future comes before duplicate
        at("d", 95 * MINUTE),
        at("e", 95 * MINUTE - 1),
    ];
    let outcome = run(&Rules::default(), &[partition]);
    assert_eq!(outcome.verdicts[0], [Counted, Future, Counted, Future, Counted, Late]);
    assert_eq!(outcome.clocks, [Some(105 * MINUTE)]);
}

#[test]
fn a_future_first_event_sets_no_clock() {
    let partition = vec![
        Record { append_time_ms: Some(0), payload: line("v", "a", 5 * MINUTE + 1) },
        Record { append_time_ms: Some(0), payload: line("v", "b", 1) },
    ];
    let outcome = run(&Rules::default(), &[partition]);
    assert_eq!(outcome.verdicts[0], [Future, Counted]);
    assert_eq!(outcome.clocks, [Some(1)]);
}

#[test]
fn a_record_of_exactly_the_limit_is_read_and_one_more_byte_is_oversize() {
    let padded = |bytes: usize| {
        let mut payload = line("v", "a", 0);
        payload.resize(bytes, b' ');
        Record { append_time_ms: None, payload }
    };
    // Oversize comes before malformed.
    let noise = Record { append_time_ms: None, payload: vec![0xff; RECORD_BYTES_MAX + 1] };
    let outcome = run(&Rules::default(), &[vec![padded(RECORD_BYTES_MAX + 1), noise, padded(RECORD_BYTES_MAX)]]);
    assert_eq!(outcome.verdicts[0], [Verdict::Oversize, Verdict::Oversize, Counted]);
}

#[test]
fn fifteen_sixteen_and_seventeen_confirmations() {
    let wild = 50 * HOUR;
    for (confirmations, clock) in [(1, HOUR), (15, HOUR), (16, wild), (17, wild)] {
        let mut partition = vec![record("first", HOUR)];
        partition.extend(row_of_ids(confirmations, "w", wild));
        let expected = vec![Counted; partition.len()];
        let outcome = run(&Rules::default(), &[partition]);
        assert_eq!(outcome.verdicts[0], expected, "{confirmations} confirmations");
        assert_eq!(outcome.clocks, [Some(clock)], "{confirmations} confirmations");
        assert_eq!(outcome.counts[&("v".to_owned(), "view".to_owned(), wild)], confirmations as u64);
    }
}

#[test]
fn the_clock_jumps_to_the_least_of_the_row_and_judges_by_it() {
    // The 16th is itself judged late by nothing: the clock before it is the old one.
    let mut partition = vec![record("first", HOUR)];
    partition.extend(row_of_ids(15, "w", 50 * HOUR));
    partition.push(record("least", 49 * HOUR));
    partition.push(record("edge", 49 * HOUR - 10 * MINUTE));
    partition.push(record("late", 49 * HOUR - 10 * MINUTE - 1));
    partition.push(record("first", HOUR)); // forgotten by the jump, hence late
    let outcome = run(&Rules::default(), &[partition]);
    assert_eq!(outcome.verdicts[0][16..], [Counted, Counted, Late, Late]);
    assert_eq!(outcome.clocks, [Some(49 * HOUR)]);
}

#[test]
fn late_future_and_malformed_events_do_not_end_a_row_and_are_not_of_it() {
    let wild = 50 * HOUR;
    let rows = |between: &Record| {
        let mut partition = vec![record("first", HOUR)];
        partition.extend(row_of_ids(15, "w", wild));
        partition.push(between.clone());
        partition.push(record("last", wild));
        run(&Rules::default(), &[partition])
    };
    let (past, wild_again) = (HOUR - 10 * MINUTE - 1, wild + HOUR);
    for (case, between, verdict, clock) in [
        ("late", record("x", past), Late, wild),
        ("malformed", Record { append_time_ms: None, payload: b"?".to_vec() }, Verdict::Malformed(Cause::Json), wild),
        ("future", Record { append_time_ms: Some(HOUR), payload: line("v", "x", wild_again) }, Future, wild),
        ("within reach", record("x", HOUR - MINUTE), Counted, HOUR),
        // A repeat that is called duplicate is within reach all the same.
        ("repeat", record("first", HOUR), Duplicate, HOUR),
        // So old that it is late by its timestamp, though its verdict is duplicate: it does not end the row.
        ("old repeat", record("first", past), Duplicate, wild),
    ] {
        let outcome = rows(&between);
        assert_eq!(outcome.verdicts[0][16], verdict, "{case}");
        assert_eq!(outcome.clocks, [Some(clock)], "{case}");
    }
    // And none of these counts as a confirmation.
    for between in [record("x", past), Record { append_time_ms: Some(HOUR), payload: line("v", "x", wild_again) }] {
        let mut partition = vec![record("first", HOUR), between];
        partition.extend(row_of_ids(15, "w", wild));
        assert_eq!(run(&Rules::default(), &[partition]).clocks, [Some(HOUR)]);
    }
}

#[test]
fn confirmations_are_distinct_event_ids_whatever_their_video() {
    let wild = 50 * HOUR;
    let mut partition = vec![record("first", HOUR)];
    partition.extend(row_of_ids(15, "w", wild));
    partition.push(Record { append_time_ms: None, payload: line("another", "w3", wild - MINUTE) });
    assert_eq!(run(&Rules::default(), &[partition.clone()]).clocks, [Some(HOUR)]);
    partition.push(record("w15", wild));
    assert_eq!(run(&Rules::default(), &[partition]).clocks, [Some(wild - MINUTE)]);
}

#[test]
fn a_repeat_in_the_row_is_a_duplicate_and_still_lends_its_timestamp() {
    let wild = 50 * HOUR;
    let mut partition = vec![record("first", HOUR)];
    partition.extend(row_of_ids(15, "w", wild));
    partition.push(record("w3", wild - 2 * HOUR));
    partition.push(record("w15", wild));
    let outcome = run(&Rules::default(), &[partition]);
    assert_eq!(outcome.verdicts[0][16..], [Duplicate, Counted]);
    assert_eq!(outcome.clocks, [Some(wild - 2 * HOUR)]);
}

#[test]
fn a_late_repeat_moves_no_clock_and_a_repeat_in_time_does() {
    check("in time", &[("a", 20 * MINUTE, Counted), ("a", 25 * MINUTE, Duplicate), ("b", 15 * MINUTE - 1, Late)]);
    // The repeat at 28:59 is remembered (window until 30:00 > 39:00 - 10:00) and late by its stamp.
    check("late", &[("a", 29 * MINUTE, Counted), ("b", 39 * MINUTE, Counted), ("a", 29 * MINUTE - 1, Duplicate)]);
}

#[test]
fn partitions_have_clocks_of_their_own_and_one_memory() {
    let outcome = run(
        &Rules::default(),
        &[
            vec![record("a", 100 * MINUTE), record("b", 80 * MINUTE)],
            vec![record("c", 80 * MINUTE), record("a", 100 * MINUTE)],
            vec![record("d", 120 * MINUTE), record("a", 100 * MINUTE)],
            vec![],
        ],
    );
    assert_eq!(outcome.verdicts, [vec![Counted, Late], vec![Counted, Duplicate], vec![Counted, Late], vec![]]);
    assert_eq!(outcome.clocks, [Some(100 * MINUTE), Some(100 * MINUTE), Some(120 * MINUTE), None]);
    let total = outcome.ledger.iter().fold(Ledger::default(), |sum, ledger| sum + *ledger);
    assert_eq!(total, Ledger { read: 6, counted: 3, duplicate: 1, late: 2, ..Ledger::default() });
}

#[test]
fn every_setting_is_heeded() {
    let rules = Rules { lateness_ms: 1_000, remember_ms: 2_000, max_jump_ms: 500, max_future_ms: 100 };
    let at = |append: u64, id: &str, timestamp_ms: u64| Record {
        append_time_ms: Some(append),
        payload: line("v", id, MINUTE + timestamp_ms),
    };
    let append = MINUTE + 100_000;
    let partition = vec![
        at(append, "a", 59_999),
        at(append, "b", 60_499),          // in reach
        at(append, "c", 61_000),          // out of reach
        at(append, "b", 59_499),          // not late, a duplicate
        at(append, "d", 59_498),          // late
        at(MINUTE + 60_000, "e", 60_101), // future
        at(append, "f", 60_999),          // in reach
        at(append, "g", 61_499),
        at(append, "h", 61_999),
        at(append, "a", 59_999), // late, but the window [1:00, 2:00) is remembered below 2:02
        at(append, "i", 62_000),
        at(append, "a", 59_999), // forgotten
    ];
    let expected =
        [Counted, Counted, Counted, Duplicate, Late, Future, Counted, Counted, Counted, Duplicate, Counted, Late];
    assert_eq!(run(&rules, &[partition]).verdicts[0], expected);
}

/// The contract read literally: every clock is computed anew from the whole prefix, every repeat is looked up among all counted events.
fn literal(rules: &Rules, log: &[(String, u64)]) -> Vec<Verdict> {
    let mut verdicts: Vec<Verdict> = Vec::new();
    for (index, (id, at)) in log.iter().enumerate() {
        let before = literal_clock(rules, &log[..index]);
        let after = literal_clock(rules, &log[..=index]).unwrap();
        let remembered = (0..index).any(|earlier| {
            let end = log[earlier].1 / WINDOW_MS * WINDOW_MS + WINDOW_MS;
            verdicts[earlier] == Counted && log[earlier].0 == *id && after < end + rules.remember_ms
        });
        let late = before.is_some_and(|clock| at + rules.lateness_ms < clock);
        verdicts.push(if remembered {
            Duplicate
        } else if late {
            Late
        } else {
            Counted
        });
    }
    verdicts
}

fn literal_clock(rules: &Rules, prefix: &[(String, u64)]) -> Option<u64> {
    let mut clock: Option<u64> = None;
    let mut row: Vec<&(String, u64)> = Vec::new();
    for event in prefix {
        let Some(now) = clock else {
            clock = Some(event.1);
            continue;
        };
        if event.1 + rules.lateness_ms < now {
            continue;
        }
        if event.1 <= now + rules.max_jump_ms {
            row.clear();
            clock = Some(now.max(event.1));
            continue;
        }
        row.push(event);
        let mut ids: Vec<&str> = row.iter().map(|(id, _)| id.as_str()).collect();
        ids.sort_unstable();
        ids.dedup();
        if ids.len() == 16 {
            clock = row.iter().map(|(_, at)| *at).min();
            row.clear();
        }
    }
    clock
}

#[test]
fn random_logs_are_judged_as_the_contract_reads() {
    let rules = Rules { lateness_ms: 2 * MINUTE, remember_ms: 3 * MINUTE, max_jump_ms: 4 * MINUTE, max_future_ms: 0 };
    let (mut jumps, mut seen) = (0, BTreeMap::<Verdict, u64>::new());
    for seed in 0..300 {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut base = 60 * MINUTE;
        let log: Vec<(String, u64)> = (0..150)
            .map(|_| {
                base += rng.random_range(0..20_000);
                if rng.random_bool(0.01) {
                    base += 10 * MINUTE;
                }
                let wild = if rng.random_bool(0.1) { 20 * MINUTE } else { 0 };
                let at = (base + wild - rng.random_range(0..4 * MINUTE)) / 500 * 500;
                (format!("e{}", rng.random_range(0..60)), at)
            })
            .collect();
        let records: Vec<Record> = log.iter().map(|(id, at)| record(id, *at)).collect();
        let outcome = run(&rules, &[records]);
        assert_eq!(outcome.verdicts[0], literal(&rules, &log), "seed {seed}");
        assert_eq!(outcome.clocks, [literal_clock(&rules, &log)], "seed {seed}");
        outcome.verdicts[0].iter().for_each(|verdict| *seen.entry(*verdict).or_default() += 1);
        jumps += u64::from(outcome.clocks[0] > Some(base - 4 * MINUTE));
    }
    assert!(seen.len() == 3 && seen.values().all(|count| 2_000 < *count) && 50 < jumps, "{seen:?}, {jumps} jumps");
}
