//! The tables of Cassandra, against a real one.

// The whole file is a test: its helpers may unwrap as well.
#![allow(clippy::unwrap_used)]

mod cassandra_support;

use std::{
    net::TcpListener,
    sync::{Arc, Barrier, Mutex},
    thread,
    time::{Duration, Instant},
};

use cassandra_support::{Keyspace, PATIENCE, chain, row, stored};
use connectors::cassandra::{CassandraError, Settings, Tables};
use dataflows::{
    functions::{
        Kept,
        stats::{Detail, Stats},
    },
    port::{Claim, ColdSeries, ColdWindow, CountRow, CountSink, Labels, SinkError, Version, VideoLabel},
    rollup::Width,
    testkit::{Faulty, Retrying, sink_contract},
    time::MINUTE_MS,
};

fn version(generation: u64, number: u64) -> Version {
    Version { generation, number }
}

/// Handles of the same tables, emptied each time one is asked for.
fn emptied(tables: &Tables) -> Tables {
    let mut handle = tables.clone();
    handle.clear().expect("the tables can be emptied");
    handle
}

#[test]
fn it_keeps_the_contract_of_count_sinks() {
    let keyspace = Keyspace::new("contract");
    let tables = keyspace.open();
    sink_contract::check(|| emptied(&tables), |sink| stored(sink));
}

#[test]
fn behind_faults_and_retries_it_keeps_the_contract_of_count_sinks() {
    let keyspace = Keyspace::new("faulty");
    let tables = keyspace.open();
    for seed in 0..3 {
        sink_contract::check(
            || Retrying::new(Faulty::new(emptied(&tables), seed)),
            |sink| stored(sink.inner().inner()),
        );
    }
}

#[test]
fn the_tables_are_those_of_the_contract() {
    let keyspace = Keyspace::new("schema");
    drop(keyspace.open());
    let created: Vec<(String, String)> = ["stats_minute", "stats_hour", "stats_day"]
        .into_iter()
        .map(|table| {
            let describe = format!("DESCRIBE TABLE {}.{table}", keyspace.name);
            let rows = keyspace.cql.rows::<(String, String, String, String)>(&describe);
            let text = rows.into_iter().next().expect("the table is there").3;
            let columns = text.split(") WITH").next().expect("there are columns");
            let words: Vec<&str> = columns.split_whitespace().collect();
            (table.to_owned(), words.join(" "))
        })
        .collect();
    let rest =
        "as_of timestamp, count bigint, distinct_users bigint, final boolean, max double, min double, sum double, ";
    for (table, text) in created {
        let (key, primary) = match table.as_str() {
            "stats_minute" => ("day date, ", "(video_id, event_type, day), window_start"),
            "stats_hour" => ("month date, ", "(video_id, event_type, month), window_start"),
            _ => ("", "(video_id, event_type), window_start"),
        };
        let expected = format!(
            "CREATE TABLE {}.{table} ( video_id text, event_type text, {key}window_start timestamp, \
             channel_id text static, channel_name text static, video_name text static, {rest}\
             PRIMARY KEY ({primary}",
            keyspace.name
        );
        assert!(text.starts_with(&expected), "{text}\nis not\n{expected}");
    }
}

#[test]
fn minutes_hours_and_days_are_in_tables_of_their_own_with_the_functions_that_are_kept_of_all_their_events() {
    const MARCH: u64 = 1_772_323_200_000;
    let keyspace = Keyspace::new("widths");
    let mut tables = keyspace.open();
    assert!(tables.wants_rollups());
    let mut stats = Stats::default();
    for (value, user) in [(0.1, 1), (0.2, 2), (0.4, 1)] {
        stats.add(Detail { kept: Kept::ALL, value: Some(value), user: Some(user) });
    }
    let of = |width, window_start, count, stats: Option<&Stats>| CountRow {
        width,
        stats: stats.cloned(),
        ..row("v1", window_start, count)
    };
    let last_hour = MARCH - 3_600_000;
    let rows = [
        of(Width::Minute, MARCH, 3, Some(&stats)),
        of(Width::Minute, MARCH + MINUTE_MS, 1, None),
        of(Width::Hour, MARCH, 3, Some(&stats)),
        // Of four events, one of which came before functions were kept.
        of(Width::Hour, last_hour, 4, Some(&stats)),
        of(Width::Day, MARCH, 4, None),
    ];
    tables.write(version(1, 1), &rows).unwrap();
    type Found = (i64, Option<f64>, Option<f64>, Option<f64>, Option<i64>);
    let read = |table: &str, key: &str| {
        let columns = "count, sum, min, max, distinct_users";
        let partition = "video_id = 'v1' AND event_type = 'view'";
        keyspace.cql.rows::<Found>(&format!("SELECT {columns} FROM {}.{table} WHERE {partition}{key}", keyspace.name))
    };
    // The double nearest to the sum of these three is the one above 0.7.
    let whole = (Some(0.700_000_000_000_000_1), Some(0.1), Some(0.4), Some(2));
    let (sum, least, greatest, users) = whole;
    let none = |count| (count, None, None, None, None);
    let whole = (3, sum, least, greatest, users);
    assert_eq!(read("stats_minute", " AND day = '2026-03-01'"), [whole, none(1)]);
    assert_eq!(read("stats_hour", " AND month = '2026-03-01'"), [whole]);
    assert_eq!(read("stats_hour", " AND month = '2026-02-01'"), [none(4)]);
    assert_eq!(read("stats_day", ""), [none(4)]);
    assert_eq!(stored(&tables).len(), 2, "what is read back is minutes");
}

/// Knows v1, by a name that it may be told anew; and nothing of others.
#[derive(Default)]
struct Known(Mutex<VideoLabel>);

impl Labels for Known {
    fn video(&self, video_id: &str) -> Option<VideoLabel> {
        (video_id == "v1").then(|| self.0.lock().unwrap().clone())
    }
}

#[test]
fn partitions_carry_what_their_video_is_called_when_they_are_written_and_keep_it_where_nothing_is_known() {
    let keyspace = Keyspace::new("names");
    let (mut tables, known) = (keyspace.open(), Arc::new(Known::default()));
    let call = |name: Option<&str>, channel: Option<(&str, &str)>| {
        let owned = |text: Option<&str>| text.map(str::to_owned);
        let (channel_id, channel_name) = (owned(channel.map(|it| it.0)), owned(channel.map(|it| it.1)));
        *known.0.lock().unwrap() = VideoLabel { name: owned(name), channel_id, channel_name };
    };
    call(Some("A cat"), Some(("c1", "Cats")));
    tables.label_by(Arc::clone(&known) as _);
    type Label = (Option<String>, Option<String>, Option<String>);
    let read = |table: &str, video: &str| -> Vec<Label> {
        let partition = format!("video_id = '{video}' AND event_type = 'view' AND day = '1970-01-01'");
        let partition = if table == "stats_day" { partition.replace(" AND day = '1970-01-01'", "") } else { partition };
        let columns = "video_name, channel_id, channel_name";
        let found = format!("SELECT {columns} FROM {}.{table} WHERE {partition} LIMIT 1", keyspace.name);
        keyspace.cql.rows::<Label>(&found)
    };
    let label = |all: [&str; 3]| all.map(|text| Some(text.to_owned()).filter(|text| !text.is_empty())).into();
    let days = CountRow { width: Width::Day, ..row("v1", 0, 2) };
    tables.write(version(1, 1), &[row("v1", 0, 1), row("v1", MINUTE_MS, 1), row("v2", 0, 1), days]).unwrap();
    for table in ["stats_minute", "stats_day"] {
        assert_eq!(read(table, "v1"), [label(["A cat", "c1", "Cats"])], "{table}");
    }
    assert_eq!(read("stats_minute", "v2"), [label(["", "", ""])]);
    // It has left its channel; and a handle that knows nothing takes nothing away.
    call(Some("The cat"), None);
    tables.write(version(1, 2), &[row("v1", MINUTE_MS, 2)]).unwrap();
    assert_eq!(read("stats_minute", "v1"), [label(["The cat", "", ""])]);
    keyspace.open().write(version(1, 3), &[row("v1", 0, 3)]).unwrap();
    assert_eq!(read("stats_minute", "v1"), [label(["The cat", "", ""])]);
}

#[test]
fn an_edit_under_the_wall_clock_does_not_win() {
    let keyspace = Keyspace::new("stray");
    let mut tables = keyspace.open();
    let (name, cql) = (&keyspace.name, &keyspace.cql);
    tables.write(version(1, 1), &[row("v1", 0, 5)]).unwrap();
    let key = "video_id = 'v1' AND event_type = 'view' AND day = '1970-01-01'";
    cql.run(&format!("UPDATE {name}.stats_minute SET count = 9 WHERE {key} AND window_start = 0"));
    cql.run(&format!("DELETE FROM {name}.stats_minute WHERE {key} AND window_start = 0"));
    cql.run(&format!("DELETE FROM {name}.stats_minute WHERE {key}"));
    assert_eq!(stored(&tables), [row("v1", 0, 5)]);
    let times = cql.rows::<(i64,)>(&format!("SELECT writetime(count) FROM {name}.stats_minute WHERE {key}"));
    assert_eq!(times, [((1 << 62) + (1 << 34) + 1,)]);
}

#[test]
fn of_two_writes_of_one_window_the_greater_version_wins_whenever_it_comes() {
    let keyspace = Keyspace::new("versions");
    let mut tables = keyspace.open();
    tables.write(version(2, 3), &[row("v1", 0, 5)]).unwrap();
    for (older, count) in [(version(2, 2), 9), (version(1, 999), 8), (version(0, 0), 7)] {
        tables.write(older, &[row("v1", 0, count), row("v1", MINUTE_MS, count)]).unwrap();
        assert_eq!(tables.scan("v1", "view", 0..MINUTE_MS).unwrap(), [row("v1", 0, 5)], "after {older:?}");
    }
    tables.write(version(2, 3), &[row("v1", 0, 5)]).unwrap();
    assert_eq!(stored(&tables), [row("v1", 0, 5), row("v1", MINUTE_MS, 9)]);
    tables.write(version(3, 0), &[row("v1", 0, 1)]).unwrap();
    assert_eq!(stored(&tables), [row("v1", 0, 1), row("v1", MINUTE_MS, 9)]);
}

#[test]
fn a_range_is_read_across_days_and_of_one_video_and_type() {
    let keyspace = Keyspace::new("range");
    let mut tables = keyspace.open();
    let minutes = |minutes: std::ops::Range<u64>| -> Vec<CountRow> {
        minutes.map(|minute| row("v1", minute * MINUTE_MS, minute)).collect()
    };
    let mut rows = minutes(1_430..2_890);
    let other_type = CountRow { event_type: "like".to_owned(), ..row("v1", 1_440 * MINUTE_MS, 7) };
    rows.extend([row("v2", 1_440 * MINUTE_MS, 7), other_type]);
    tables.write(version(1, 1), &rows).unwrap();
    let scan = |from: u64, until: u64| tables.scan("v1", "view", from..until).unwrap();
    assert_eq!(scan(0, 9_999 * MINUTE_MS), minutes(1_430..2_890));
    assert_eq!(scan(1_440 * MINUTE_MS, 1_441 * MINUTE_MS), minutes(1_440..1_441));
    assert_eq!(scan(1_439 * MINUTE_MS + 1, 2_880 * MINUTE_MS), minutes(1_440..2_880));
    assert_eq!(scan(5, 5), []);
    assert_eq!(tables.scan("v3", "view", 0..MINUTE_MS).unwrap(), []);
    assert!(tables.scan("v1", "view", 0..u64::MAX).is_err());
}

#[test]
fn functions_of_final_minutes_are_read_back_whole_and_days_are_found_over_all_time() {
    let keyspace = Keyspace::new("cold");
    let mut tables = keyspace.open();
    const DAY_MS: u64 = 86_400_000;
    let of = |minute: u64, is_final| {
        let mut stats = Stats::default();
        stats.add(Detail { kept: Kept::ALL, value: Some(minute as f64), user: Some(minute) });
        CountRow { stats: Some(stats), is_final, ..row("v1", minute * MINUTE_MS, 1) }
    };
    let bare = CountRow { is_final: true, ..row("v1", 3 * MINUTE_MS, 4) };
    let far = 20_000 * 1_440;
    let mut rows = [of(1, true), of(2, false), bare, of(1_440, true), of(far, true)];
    let days = rows.iter().map(|row| CountRow {
        width: Width::Day,
        window_start: row.window_start / DAY_MS * DAY_MS,
        ..row.clone()
    });
    let all: Vec<CountRow> = rows.iter().cloned().chain(days).collect();
    tables.write(version(1, 1), &all).unwrap();
    let series = ColdSeries { video_id: "v1", event_type: "view", functions: true };
    // One that may still change is not read from here, so what its functions are made of is not kept.
    rows[1].stats = None;
    let window = |row: &CountRow| ColdWindow { start: row.window_start, count: row.count, stats: row.stats.clone() };
    let windows: Vec<ColdWindow> = rows.iter().map(window).collect();
    assert_eq!(tables.scan_cold(series, 0..u64::MAX).unwrap(), windows);
    assert_eq!(tables.scan_cold(series, 2 * MINUTE_MS..DAY_MS).unwrap(), windows[1..3]);
    let counts = tables.scan_cold(ColdSeries { functions: false, ..series }, MINUTE_MS..DAY_MS + 1).unwrap();
    assert_eq!(counts, windows[..4].iter().map(|it| ColdWindow { stats: None, ..it.clone() }).collect::<Vec<_>>());
    assert_eq!(tables.scan_days(series, 0..u64::MAX).unwrap(), [0, DAY_MS, 20_000 * DAY_MS]);
    let other = ColdSeries { video_id: "v2", ..series };
    assert!(tables.scan_days(other, 0..u64::MAX).unwrap().is_empty());

    // A retry under a greater version, as after a restart, leaves it as it is.
    tables.write(version(2, 1), &all).unwrap();
    assert_eq!(tables.scan_cold(series, 0..u64::MAX).unwrap(), windows);
    tables.clear().unwrap();
    assert_eq!(tables.scan_cold(series, 0..u64::MAX).unwrap(), []);
}

#[test]
fn a_zombie_is_fenced_whether_it_claims_before_or_after_its_successor() {
    let keyspace = Keyspace::new("zombie");
    let (mut older, mut newer) = (keyspace.open(), keyspace.open());
    let claim = |generation, frontier| Claim { history: 7, generation, frontier };
    let is_fenced = |answer: Result<(), SinkError>| matches!(answer, Err(SinkError::Fenced { .. }));
    older.set_claim(&claim(1, 10)).unwrap();
    newer.set_claim(&claim(2, 5)).unwrap();
    assert!(is_fenced(older.set_claim(&claim(1, 20))));
    newer.set_claim(&claim(2, 15)).unwrap();
    assert_eq!(older.claim().unwrap(), Some(claim(2, 15)));

    newer.clear().unwrap();
    newer.set_claim(&claim(2, 5)).unwrap();
    assert!(is_fenced(older.set_claim(&claim(1, 20))));
    assert_eq!(older.claim().unwrap(), Some(claim(2, 5)));
}

/// Whether we may write is asked by a transaction that does not take effect. Where there was a claim, its answer was taken for
/// a claim that is not whole, and no job could be started a second time.
#[test]
fn regression_tables_that_are_claimed_open_again() {
    let keyspace = Keyspace::new("again");
    let claim = Claim { history: 7, generation: 1, frontier: 10 };
    keyspace.open().set_claim(&claim).unwrap();
    assert_eq!(keyspace.open().claim().unwrap(), Some(claim));
}

/// The answer to a takeover that came too late lacked the frontier, and was taken for a claim that is not whole.
#[test]
fn regression_of_generations_that_take_over_at_once_the_greatest_wins_and_the_others_are_fenced() {
    let keyspace = Keyspace::new("takeover");
    let tables = keyspace.open();
    tables.clone().set_claim(&Claim { history: 7, generation: 1, frontier: 0 }).unwrap();
    for round in 1..20_u64 {
        let both = Barrier::new(4);
        thread::scope(|scope| {
            for older in 0..4 {
                let (mut tables, both) = (tables.clone(), &both);
                scope.spawn(move || {
                    both.wait();
                    match tables.set_claim(&Claim { history: 7, generation: 10 * round - older, frontier: round }) {
                        Ok(()) => {}
                        Err(SinkError::Fenced { .. }) => assert_ne!(older, 0, "the greatest is fenced by nobody"),
                        Err(other) => panic!("round {round}, generation {}: {other:?}", 10 * round - older),
                    }
                });
            }
        });
        assert_eq!(tables.clone().claim().unwrap().map(|claim| claim.generation), Some(10 * round));
    }
}

#[test]
fn of_two_histories_that_claim_at_once_exactly_one_wins() {
    let keyspace = Keyspace::new("race");
    let tables = [keyspace.open(), keyspace.open()];
    for round in 0..10_u64 {
        emptied(&tables[0]);
        let both = Barrier::new(2);
        let answers = thread::scope(|scope| {
            let claims: Vec<_> = tables
                .iter()
                .zip(1..)
                .map(|(tables, history)| {
                    let mut tables = tables.clone();
                    // The generations differ in either direction: they decide nothing between histories.
                    let claim = Claim { history, generation: (round + history as u64) % 3, frontier: 1 };
                    let both = &both;
                    scope.spawn(move || {
                        both.wait();
                        (tables.set_claim(&claim), claim)
                    })
                })
                .collect();
            claims.into_iter().map(|claim| claim.join().unwrap()).collect::<Vec<_>>()
        });
        let there = tables[0].clone().claim().unwrap();
        for (answer, claim) in answers {
            match answer {
                Ok(()) => assert_eq!(there.as_ref(), Some(&claim), "round {round}"),
                Err(SinkError::Fenced { .. }) => assert_ne!(there.as_ref(), Some(&claim), "round {round}"),
                Err(other) => panic!("round {round}: {other:?}"),
            }
        }
    }
}

/// Opens tables that can't be used, and gives the whole error as text.
fn refused(opened: Result<Tables, CassandraError>) -> (CassandraError, String) {
    let error = opened.err().expect("these tables can't be used");
    let text = chain(&error);
    (error, text)
}

#[test]
fn tables_that_differ_are_refused_by_name_and_left_as_they_are() {
    // what happens to the keyspace | in the error
    let cases = [
        (
            "ALTER TABLE {}.stats_minute DROP count",
            "stats_minute in cassandra is not as it has to be: column count is missing",
        ),
        ("ALTER TABLE {}.stats_day DROP channel_id", "column channel_id is missing"),
        (
            "DROP TABLE {0}.stats_hour; CREATE TABLE {0}.stats_hour (video_id text PRIMARY KEY, count int)",
            "stats_hour in cassandra is not as it has to be",
        ),
        (
            "DROP TABLE {0}.claim; CREATE TABLE {0}.claim (scope text PRIMARY KEY, history blob, generation bigint, \
             frontier timestamp)",
            "column history is blob (regular), not text (regular)",
        ),
    ];
    for (spoil, expected) in cases {
        let keyspace = Keyspace::new("differ");
        drop(keyspace.open());
        for statement in spoil.split("; ") {
            keyspace.cql.run(&statement.replace("{0}", &keyspace.name).replace("{}", &keyspace.name));
        }
        let columns = format!(
            "SELECT table_name, column_name, type FROM system_schema.columns WHERE keyspace_name = '{}'",
            keyspace.name
        );
        let before = keyspace.cql.rows::<(String, String, String)>(&columns);
        let (error, text) = refused(Tables::open(&keyspace.settings(), PATIENCE));
        assert!(matches!(error, CassandraError::Schema { .. }), "{text}");
        assert!(text.contains(expected) && text.contains("CREATE TABLE"), "{text}");
        assert_eq!(keyspace.cql.rows::<(String, String, String)>(&columns), before);
    }
}

#[test]
fn who_may_create_nothing_waits_for_the_tables_and_then_says_which_is_missing() {
    let keyspace = Keyspace::new("existing");
    let (_, text) = refused(Tables::open_existing(&keyspace.settings(), Duration::from_millis(300)));
    assert!(text.contains("the keyspace is missing; CREATE KEYSPACE"), "{text}");
    thread::scope(|scope| {
        let waiting = scope.spawn(|| Tables::open_existing(&keyspace.settings(), PATIENCE));
        let mut tables = keyspace.open();
        tables.write(version(1, 1), &[row("v1", 0, 5)]).unwrap();
        let waiting = waiting.join().unwrap().expect("the tables are there by now");
        assert_eq!(stored(&waiting), [row("v1", 0, 5)]);
    });
    keyspace.cql.run(&format!("DROP TABLE {}.stats_day", keyspace.name));
    let (_, text) = refused(Tables::open_existing(&keyspace.settings(), Duration::from_millis(300)));
    assert!(text.contains("stats_day") && text.contains("the table is missing; CREATE TABLE"), "{text}");
}

#[test]
fn a_table_that_was_dropped_with_claimed_rows_is_not_created_anew() {
    let keyspace = Keyspace::new("gone");
    let mut tables = keyspace.open();
    tables.set_claim(&Claim { history: 7, generation: 1, frontier: 5 }).unwrap();
    drop(tables);
    keyspace.cql.run(&format!("DROP TABLE {}.stats_minute", keyspace.name));
    for open in [Tables::open, Tables::open_existing] {
        let (error, text) = refused(open(&keyspace.settings(), Duration::from_millis(300)));
        assert!(matches!(error, CassandraError::Schema { .. }), "{text}");
        assert!(text.contains("stats_minute") && text.contains("dropped with its rows"), "{text}");
    }
    keyspace.cql.run(&format!("DROP TABLE {}.claim", keyspace.name));
    assert_eq!(stored(&keyspace.open()), []);
}

#[test]
fn a_table_that_is_dropped_under_way_refuses_rows_with_the_statement() {
    let keyspace = Keyspace::new("dropped");
    let mut tables = keyspace.open();
    let rows = [row("v1", 0, 5), row("v1", MINUTE_MS, 5), row("v2", 0, 5)];
    tables.write(version(1, 1), &rows).unwrap();
    keyspace.cql.run(&format!("ALTER TABLE {}.stats_minute DROP as_of", keyspace.name));
    for _ in 0..2 {
        match tables.write(version(1, 2), &rows) {
            Err(SinkError::Refused { cause, .. }) => assert!(cause.to_string().contains("INSERT INTO"), "{cause}"),
            other => panic!("without a column: {other:?}"),
        }
        keyspace.cql.run(&format!("DROP TABLE IF EXISTS {}.stats_minute", keyspace.name));
    }
}

#[test]
fn settings_that_can_not_be_right_are_told_from_a_cassandra_that_is_away() {
    let keyspace = Keyspace::new("settings");
    let opened = |change: &dyn Fn(&mut Settings)| {
        let mut settings = keyspace.settings();
        change(&mut settings);
        refused(Tables::open(&settings, Duration::from_secs(1)))
    };
    let (error, text) = opened(&|settings| settings.local_datacenter = "elsewhere".to_owned());
    assert!(matches!(error, CassandraError::Settings { key: "local_datacenter", .. }), "{text}");
    assert!(text.contains("datacenter1"), "{text}");
    let (error, text) = opened(&|settings| settings.keyspace = "a;b".to_owned());
    assert!(matches!(error, CassandraError::Settings { key: "keyspace", .. }), "{text}");
    let (error, text) = opened(&|settings| settings.keyspace = "system".to_owned());
    assert!(matches!(error, CassandraError::Refused { .. }) && text.contains("CREATE TABLE"), "{text}");

    // A port that nobody listens on any more.
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let begun = Instant::now();
    let (error, text) = opened(&|settings| settings.contact_points = vec![free.clone()]);
    assert!(matches!(error, CassandraError::Unreachable { .. }) && text.contains(&free), "{text}");
    assert!(begun.elapsed() < Duration::from_secs(10));
}

#[test]
fn it_works_inside_a_runtime() {
    let keyspace = Keyspace::new("runtime");
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let mut tables = keyspace.open();
        tables.write(version(1, 1), &[row("v1", 0, 5)]).unwrap();
        assert_eq!(tables.scan("v1", "view", 0..1).unwrap(), [row("v1", 0, 5)]);
    });
}

#[test]
fn what_does_not_fit_its_bits_is_refused() {
    let keyspace = Keyspace::new("bits");
    let mut tables = keyspace.open();
    let is_refused = |answer| matches!(answer, Err(SinkError::Refused { .. }));
    assert!(is_refused(tables.write(version(1 << 28, 1), &[row("v1", 0, 5)])));
    assert!(is_refused(tables.write(version(1, 1 << 34), &[row("v1", 0, 5)])));
    assert!(is_refused(tables.write(version(1, 1), &[row("v1", 0, 5), row("v2", 0, u64::MAX)])));
    assert!(is_refused(tables.set_claim(&Claim { history: 0, generation: 1, frontier: 1 })));
    assert!(is_refused(tables.set_claim(&Claim { history: 1, generation: u64::MAX, frontier: 1 })));
    assert_eq!((tables.claim().unwrap(), stored(&tables)), (None, vec![]));
}

#[test]
fn a_clearing_that_broke_off_leaves_a_claim_that_nobody_takes_for_its_own() {
    let keyspace = Keyspace::new("halfway");
    let mut tables = keyspace.open();
    let claim = Claim { history: 7, generation: 3, frontier: 5 };
    tables.set_claim(&claim).unwrap();
    // As clear() does first.
    let nobody = "0".repeat(32);
    keyspace
        .cql
        .run(&format!("UPDATE {}.claim SET history = '{nobody}' WHERE scope = 'tidemark' IF EXISTS", keyspace.name));
    assert_eq!(tables.claim().unwrap(), Some(Claim { history: 0, ..claim.clone() }));
    let answer = tables.set_claim(&Claim { generation: 4, ..claim.clone() });
    assert!(matches!(answer, Err(SinkError::Fenced { .. })), "{answer:?}");
    tables.clear().unwrap();
    assert_eq!(tables.claim().unwrap(), None);
    tables.set_claim(&claim).unwrap();
}
