//! Windows that leave memory (`index.hot`): answers, audit and replay are as before, also after a kill, and a start without the
//! store that has them is refused. Any range is what a look at every event makes of it, wherever it begins and ends: of one video, of
//! a channel, and in a top list.

#![allow(clippy::unwrap_used)]

mod live_support;

use std::{fs, path::Path};

use live_support::{
    Run, SOON, Server,
    ranges::{BEGIN, MINUTE, check_any_range, hot_start, let_leave, send},
    tidemark_with,
    tops::{check_any_top, load_channels},
    truth::{end_offsets, number},
    wait_for,
};
use rustix::process::{Signal, kill_process};
use serde_json::{Value, json};

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

#[test]
fn windows_that_leave_memory_are_answered_audited_and_replayed_as_before() {
    let folder = tempfile::tempdir().unwrap();
    let data_dir = folder.path().join("data");
    let server = run(&data_dir).start();
    send(&server.client, 0..90, 1);
    let sent = let_leave(&server.client, 90, 1, 80);
    check(&server, sent);
    load_channels(&server.client);
    check_any_top(&server.client, sent, 1, true);
    server.kill();

    let server = run(&data_dir).workers(3).start();
    server.client.wait_until_visible(&end_offsets(&data_dir), SOON);
    check(&server, sent);
    check_any_range(&server.client, sent, 1);
    check_any_top(&server.client, sent, 1, true);
    let sent = let_leave(&server.client, sent, 1, sent - 4);
    check(&server, sent);
    check_any_range(&server.client, sent, 1);
    server.stop();

    let shown = tidemark(&data_dir, &["checkpoint", "show"]);
    shown.expect(0, &[]);
    let left = shown.stdout.lines().find_map(|line| line.trim().strip_prefix("left memory")).unwrap().trim().to_owned();
    let left: u64 = left.split_once(' ').unwrap().0.parse().unwrap();
    assert!(2 * 80 < left && left < 2 * sent, "{}", shown.stdout);
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
    send(&server.client, 0..514, 7);
    let sent = let_leave(&server.client, 514, 7, 510);
    load_channels(&server.client);
    for client in &server.clients {
        wait_for("all is visible", SOON, || (client.stats("v", "").expect(200)["total"] == sent).then_some(()));
        // The second time over, days come from the cache.
        (0..2).for_each(|_| check_any_range(client, sent, 7));
        check_any_top(client, sent, 7, true);
    }
    server.stop();
}

#[test]
fn whole_days_in_memory_are_what_their_minutes_come_to_and_the_last_one_still_grows() {
    let folder = tempfile::tempdir().unwrap();
    let server = run(&folder.path().join("data")).env("TIDEMARK_INDEX__HOT", "3650d").workers(2).start();
    let mut sent = 0;
    // Within the second day, and from there into the third.
    for until in [300, 320, 420, 430] {
        send(&server.client, sent..until, 7);
        sent = until;
        assert!(hot_start(&server.client) < BEGIN, "nothing leaves");
        (0..2).for_each(|_| check_any_range(&server.client, sent, 7));
    }
    server.stop();
}

#[test]
fn every_process_answers_with_the_windows_that_the_store_of_the_first_one_has() {
    let folder = tempfile::tempdir().unwrap();
    let data_dir = folder.path().join("data");
    let mut server = run(&data_dir).supervised(2).workers(2).start();
    send(&server.client, 0..90, 1);
    let sent = let_leave(&server.client, 90, 1, 80);
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
    let sent = let_leave(&server.client, sent, 1, sent - 4);
    check(&server, sent);
    server.stop();
    tidemark(&data_dir, &["audit"]).expect(0, &[]);
}
