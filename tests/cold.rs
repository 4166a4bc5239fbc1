//! Windows that leave memory (`index.hot`): answers, audit and replay are as before, also after a kill, and a start without the
//! store that has them is refused. Any range is what a look at every event makes of it, wherever it begins and ends.

#![allow(clippy::unwrap_used)]

mod live_support;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use live_support::{
    Run, SOON, Server,
    client::Client,
    tidemark_with,
    truth::{end_offsets, number},
    wait_for,
};
use proptest::{
    prelude::*,
    test_runner::{Config, TestRunner},
};
use rustix::process::{Signal, kill_process};
use serde_json::{Value, json};

const MINUTE: u64 = 60_000;
const BEGIN: u64 = 1_767_225_600_000;

const SETTINGS: [(&str, &str); 4] = [
    ("TIDEMARK_SOURCE__PARTITIONS", "1"),
    ("TIDEMARK_TIME__LATENESS", "1m"),
    ("TIDEMARK_INDEX__AS_OF", "1m"),
    ("TIDEMARK_INDEX__HOT", "3m"),
];

fn run(data_dir: &Path) -> Run {
    SETTINGS.into_iter().fold(Run::new(data_dir).checkpoints_every("100ms"), |run, (name, value)| run.env(name, value))
}

fn tidemark(data_dir: &Path, command: &[&str]) -> live_support::Ended {
    let dir = data_dir.display().to_string();
    let settings = SETTINGS.map(|(name, value)| (name.to_owned(), value.to_owned()));
    tidemark_with(&[command, &["--data-dir", &dir]].concat(), &settings)
}

/// Events by number, each worth it: one every so many minutes.
fn send(server: &Server, data_dir: &Path, numbers: std::ops::Range<u64>, every: u64) {
    let event = |number: u64| {
        json!({"event_id": number.to_string(), "video_id": "v", "event_type": "view",
               "timestamp": BEGIN + number * every * MINUTE, "user_id": format!("u{}", number % 7),
               "value": number as f64 / 8.0})
        .to_string()
    };
    server.client.send(&numbers.map(event).collect::<Vec<_>>());
    server.client.wait_until_visible(&end_offsets(data_dir), SOON);
}

/// Sends event after event from `next` on until the windows before that of `beyond` have left; gives the first that was not sent.
fn let_leave(server: &Server, data_dir: &Path, mut next: u64, every: u64, beyond: u64) -> u64 {
    wait_for("windows leave memory", SOON, || {
        let before = server.client.checkpoint().unwrap_or(0);
        send(server, data_dir, next..next + 1, every);
        next += 1;
        server.client.wait_for_checkpoint_after(before);
        (BEGIN + beyond * every * MINUTE <= hot_start(&server.client)).then_some(())
    });
    next
}

/// From where on top lists are made: of what is in memory.
fn hot_start(client: &Client) -> u64 {
    number(&client.get("/v1/top").unwrap().expect(200)["start"])
}

fn answer(server: &Server, query: &str) -> Value {
    server.client.stats("v", query).expect(200)
}

fn check(server: &Server, minutes: u64) {
    let all = answer(server, "");
    assert_eq!((number(&all["total"]), all["series"].as_array().unwrap().len() as u64), (minutes, minutes), "{all}");
    assert_eq!(all["start"], BEGIN);
    let sum: u64 = (0..minutes).sum();
    assert_eq!(answer(server, "function=sum&granularity=all")["total"].as_f64(), Some(sum as f64 / 8.0));
    assert_eq!(answer(server, "function=distinct&granularity=hour")["total"], 7);
    let first = answer(server, &format!("function=max&start={BEGIN}&end={}", BEGIN + 10 * MINUTE));
    assert_eq!((&first["total"], &first["final"]), (&json!(9.0 / 8.0), &json!(true)));
}

#[derive(Clone, Debug)]
struct Draw {
    granularity: &'static str,
    function: &'static str,
    /// Minutes.
    start: Option<u64>,
    end: Option<u64>,
    is_batch: bool,
}

fn draw(minutes: u64) -> impl Strategy<Value = Draw> {
    let granularity = prop::sample::select(vec!["minute", "hour", "day", "all"]);
    let function = prop::sample::select(vec!["count", "sum", "max", "distinct"]);
    let bound = || prop::option::weighted(0.8, 0..minutes + 100);
    (granularity, function, bound(), bound(), any::<bool>()).prop_map(|(granularity, function, a, b, is_batch)| {
        let (start, end) = match (a, b) {
            (Some(a), Some(b)) => (Some(a.min(b)), Some(a.max(b))),
            other => other,
        };
        Draw { granularity, function, start, end, is_batch }
    })
}

/// A function of some events.
fn naive(function: &str, numbers: &BTreeSet<u64>) -> f64 {
    let values = numbers.iter().map(|number| *number as f64 / 8.0);
    match function {
        "count" => numbers.len() as f64,
        "sum" => values.sum(),
        "max" => values.fold(f64::MIN, f64::max),
        _ => numbers.iter().map(|number| number % 7).collect::<BTreeSet<_>>().len() as f64,
    }
}

/// Asks for ranges that begin and end anywhere around so many events.
fn check_any_range(client: &Client, events: u64, every: u64) {
    let minutes = events * every;
    let mut runner = TestRunner::new(Config { cases: 300, failure_persistence: None, ..Config::default() });
    let looked = runner.run(&draw(minutes), |draw| {
        let Draw { granularity, function, start, end, is_batch } = &draw;
        let time = |minute: &u64| BEGIN + minute * MINUTE;
        let mut question = json!({"video_id": "v", "granularity": granularity, "function": function});
        let mut query = format!("granularity={granularity}&function={function}");
        for (name, bound) in [("start", start), ("end", end)] {
            if let Some(bound) = bound {
                question[name] = json!(time(bound));
                query += &format!("&{name}={}", time(bound));
            }
        }
        let answer = match is_batch {
            false => client.stats("v", &query).expect(200),
            true => {
                let body = json!([question, question]).to_string();
                let both = client.post("/v1/stats", "application/json", body.as_bytes()).unwrap().expect(200);
                prop_assert_eq!(&both[0], &both[1]);
                both[0].clone()
            }
        };
        let width = match *granularity {
            "hour" => 60,
            "day" => 24 * 60,
            _ => 1,
        };
        // The first minute begins a day, so windows can be counted from there.
        let within = start.unwrap_or(0) / width * width..end.map_or(minutes, |end| end.div_ceil(width) * width);
        let there: BTreeSet<u64> = (0..events).filter(|number| within.contains(&(number * every))).collect();
        let mut windows: BTreeMap<u64, BTreeSet<u64>> = BTreeMap::new();
        for number in &there {
            let first = if *granularity == "all" { start.unwrap_or(0) } else { number * every / width * width };
            windows.entry(time(&first)).or_default().insert(*number);
        }
        let expect: Vec<_> = windows.iter().map(|(start, of)| (*start, naive(function, of))).collect();
        let point = |point: &Value| (number(&point["start"]), point["value"].as_f64().unwrap());
        let found: Vec<_> = answer["series"].as_array().unwrap().iter().map(point).collect();
        prop_assert_eq!(found, expect, "{}", &answer);
        if !there.is_empty() {
            prop_assert_eq!(answer["total"].as_f64(), Some(naive(function, &there)));
        }
        Ok(())
    });
    looked.unwrap_or_else(|error| panic!("{error}"));
}

#[test]
fn windows_that_leave_memory_are_answered_audited_and_replayed_as_before() {
    let folder = tempfile::tempdir().unwrap();
    let data_dir = folder.path().join("data");
    let server = run(&data_dir).start();
    send(&server, &data_dir, 0..90, 1);
    let sent = let_leave(&server, &data_dir, 90, 1, 80);
    check(&server, sent);
    let too_early = server.client.get(&format!("/v1/top?start={BEGIN}")).unwrap().expect(410);
    assert!(BEGIN + 80 * MINUTE <= number(&too_early["oldest_start"]), "{too_early}");
    server.kill();

    let server = run(&data_dir).workers(3).start();
    server.client.wait_until_visible(&end_offsets(&data_dir), SOON);
    check(&server, sent);
    check_any_range(&server.client, sent, 1);
    let sent = let_leave(&server, &data_dir, sent, 1, sent - 4);
    check(&server, sent);
    check_any_range(&server.client, sent, 1);
    server.stop();

    let shown = tidemark(&data_dir, &["checkpoint", "show"]);
    shown.expect(0, &[]);
    let left = shown.stdout.lines().find_map(|line| line.trim().strip_prefix("left memory")).unwrap().trim().to_owned();
    let left: u64 = left.split_once(' ').unwrap().0.parse().unwrap();
    assert!(80 < left && left < sent, "{}", shown.stdout);
    tidemark(&data_dir, &["checkpoint", "verify"]).expect(0, &[]);
    tidemark(&data_dir, &["audit"]).expect(0, &[]);

    fs::remove_dir_all(data_dir.join("store")).unwrap();
    run(&data_dir).start_and_end().expect(66, &["have left memory", "--from-start"]);
    let server = run(&data_dir).flag("--from-start").start();
    server.client.wait_until_visible(&end_offsets(&data_dir), SOON);
    check(&server, sent);
    server.stop();
}

#[test]
fn whole_days_that_have_left_are_what_their_minutes_come_to_in_every_process() {
    let folder = tempfile::tempdir().unwrap();
    let data_dir = folder.path().join("data");
    let server = run(&data_dir).supervised(2).workers(1).start();
    // Two days and a half, an event every seven minutes.
    send(&server, &data_dir, 0..514, 7);
    let sent = let_leave(&server, &data_dir, 514, 7, 510);
    for client in &server.clients {
        wait_for("all is visible", SOON, || (client.stats("v", "").expect(200)["total"] == sent).then_some(()));
        // The second time over, days come from the cache.
        (0..2).for_each(|_| check_any_range(client, sent, 7));
    }
    server.stop();
}

#[test]
fn every_process_answers_with_the_windows_that_the_store_of_the_first_one_has() {
    let folder = tempfile::tempdir().unwrap();
    let data_dir = folder.path().join("data");
    let mut server = run(&data_dir).supervised(2).workers(2).start();
    send(&server, &data_dir, 0..90, 1);
    let sent = let_leave(&server, &data_dir, 90, 1, 80);
    let check = |server: &Server, minutes: u64| {
        for client in &server.clients {
            wait_for("all is visible", SOON, || (client.stats("v", "").expect(200)["total"] == minutes).then_some(()));
            assert!(BEGIN < hot_start(client), "windows have left");
            check_any_range(client, minutes, 1);
        }
    };
    check(&server, sent);

    let starts = server.starts().len();
    kill_process(server.pids()[1], Signal::KILL).unwrap();
    server.wait_for_start_after(starts);
    check(&server, sent);
    let sent = let_leave(&server, &data_dir, sent, 1, sent - 4);
    check(&server, sent);
    server.stop();
    tidemark(&data_dir, &["audit"]).expect(0, &[]);
}
