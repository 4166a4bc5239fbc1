//! `time.quiet = "release"`: a quiet partition holds no window open. What it brings behind the watermark is late, and stays so
//! after a kill, in the letters and in a replay of that log with its checkpoints.

#![allow(clippy::unwrap_used)]

mod live_support;

use std::{fs, path::Path, process::Command};

use live_support::{
    Run, SOON, Server,
    client::{event, video_of_each},
    now_ms, tidemark,
    truth::{end_offsets, number},
    wait_for,
};

const PARTITIONS: u32 = 4;

fn run(data_dir: &Path) -> Run {
    Run::new(data_dir)
        .checkpoints_every("200ms")
        .env("TIDEMARK_TIME__QUIET", "release")
        .env("TIDEMARK_TIME__LATENESS", "2s")
}

/// A replay's table, under the same settings.
fn replay(log: &Path, out: &Path) -> Vec<String> {
    let (from, to) = (format!("log:{}", log.display()), format!("tsv:{}", out.display()));
    let env = [("TIDEMARK_TIME__LATENESS".to_owned(), "2s".to_owned())];
    live_support::tidemark_with(&["replay", "--from", &from, "--out", &to], &env).expect(0, &[]);
    fs::read_to_string(out).unwrap().lines().map(str::to_owned).collect()
}

/// A process whose watermark has passed by its only event, though three partitions have no clock at all, and the first has no more
/// events; with the time of that event, and the watermark.
fn passed_by(data_dir: &Path, video: &str) -> (Server, u64, u64) {
    let server = run(data_dir).start();
    let first = now_ms();
    server.client.send(&[event("1", video, "view", first)]);
    let watermark = wait_for("the watermark passes by the only event", SOON, || {
        Some(number(&server.client.status()["watermark"])).filter(|watermark| first < *watermark)
    });
    (server, first, watermark)
}

#[test]
fn time_goes_on_without_events_and_what_comes_behind_it_is_late_for_good() {
    let folder = tempfile::tempdir().unwrap();
    let data_dir = folder.path().join("data");
    let videos = video_of_each(PARTITIONS);
    let (server, first, watermark) = passed_by(&data_dir, &videos[0]);
    assert_eq!(server.client.status()["watermark_held_by"]["partition"], serde_json::Value::Null);

    let (behind, present) = (event("2", &videos[1], "view", first), event("3", &videos[1], "view", now_ms()));
    server.client.send(&[behind, present]);
    let ends = end_offsets(&data_dir);
    let status = server.client.wait_until_visible(&ends, SOON);
    let ledger = &status["partitions"][1]["ledger"];
    assert_eq!((number(&ledger["counted"]), number(&ledger["late"])), (1, 1), "{status}");
    let checkpoint = server.client.checkpoint().unwrap_or(0);
    server.client.wait_for_checkpoint_after(checkpoint + 1);
    server.kill();

    let server = run(&data_dir).workers(3).start();
    let status = server.client.wait_until_visible(&ends, SOON);
    assert!(watermark <= number(&status["watermark"]), "what was final is so after a crash: {status}");
    let ledger = &status["partitions"][1]["ledger"];
    assert_eq!((number(&ledger["counted"]), number(&ledger["late"])), (1, 1), "{status}");
    server.stop();
    let dir = data_dir.display().to_string();
    let letters = tidemark(&["dead-letters", "list", "--data-dir", &dir]);
    letters.expect(0, &[]);
    let letter: serde_json::Value = serde_json::from_str(letters.stdout.trim_end()).unwrap();
    assert_eq!((letter["reason"].as_str(), letter["detail"].as_str()), (Some("late"), Some("behind")), "{letter}");

    let out = folder.path().join("out.tsv");
    assert_eq!(replay(&data_dir.join("log"), &out).iter().map(|row| count(row)).sum::<u64>(), 2);
    // The log alone can't say that it was late.
    let copied = folder.path().join("copy");
    assert!(Command::new("cp").arg("-r").arg(data_dir.join("log")).arg(&copied).status().unwrap().success());
    assert_eq!(replay(&copied, &out).iter().map(|row| count(row)).sum::<u64>(), 3);
}

fn count(row: &str) -> u64 {
    row.rsplit('\t').next().unwrap().parse().unwrap()
}

#[test]
fn a_change_from_release_to_hold_keeps_what_is_final() {
    let folder = tempfile::tempdir().unwrap();
    let data_dir = folder.path().join("data");
    let videos = video_of_each(PARTITIONS);
    let (server, first, _) = passed_by(&data_dir, &videos[0]);
    server.stop();
    let server = run(&data_dir).env("TIDEMARK_TIME__QUIET", "hold").start();
    let watermark = number(&server.client.status()["watermark"]);
    assert!(first < watermark, "{watermark}");
    server.client.send(&[event("2", &videos[1], "view", first)]);
    let status = server.client.wait_until_visible(&end_offsets(&data_dir), SOON);
    assert_eq!((number(&status["ledger"]["late"]), number(&status["watermark"])), (1, watermark), "{status}");
    server.stop();
}
