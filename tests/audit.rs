//! `tidemark audit`: finds exactly the rows that differ from what the log comes to, and mends them.

#![allow(clippy::unwrap_used)]

mod live_support;

use std::path::Path;

use connectors::embedded::store::Store;
use dataflows::port::{CountRow, CountSink as _, Version};
use live_support::{Ended, stage::Stage, tidemark, truth::store_rows};

fn audit(stage: &Stage, more: &[&str]) -> Ended {
    let dir = stage.data_dir().display().to_string();
    tidemark(&[&["audit", "--data-dir", &dir][..], more].concat())
}

/// A job with some checkpoints, stopped.
fn stopped() -> Stage {
    let mut stage = Stage::new();
    let server = stage.run().start();
    stage.send_over_checkpoints(&server, 2);
    stage.send_and_see(&server, 10);
    server.stop();
    stage
}

/// Writes rows as a fault would: in the store, under the generation of the job.
fn damage(store: &Path, rows: &[CountRow]) {
    Store::open(store).unwrap().write(Version { generation: 1, number: 1_000_000 }, rows).unwrap();
}

fn line(row: &CountRow, served: u64, right: u64) -> String {
    format!("{}\t{}\t{}\t{served}\t{right}", row.video_id, row.event_type, row.window_start)
}

#[test]
fn an_audit_finds_exactly_the_damaged_rows_and_mends_them_and_the_job_goes_on() {
    let mut stage = stopped();
    audit(&stage, &[]).expect(0, &["0 differ in the checkpoint, 0 in what is served"]);

    let store = stage.data_dir().join("store");
    let rows = store_rows(&store);
    let wrong = CountRow { count: rows[0].count + 7, ..rows[0].clone() };
    let phantom = CountRow { video_id: "nobody".to_owned(), count: 3, ..rows[1].clone() };
    damage(&store, &[wrong.clone(), phantom.clone()]);
    let mut expected = [line(&rows[0], wrong.count, rows[0].count), line(&phantom, 3, 0)];
    expected.sort();
    let ended = audit(&stage, &[]);
    ended.expect(1, &["2 rows differ", "--apply"]);
    assert_eq!(ended.stdout.lines().collect::<Vec<_>>(), expected);

    audit(&stage, &["--apply"]).expect(0, &["2 rows are written anew"]);
    let again = audit(&stage, &[]);
    again.expect(0, &[]);
    assert_eq!(again.stdout, "");

    let server = stage.run().start();
    stage.send_and_see(&server, 10);
    server.stop();
    audit(&stage, &[]).expect(0, &["0 differ in the checkpoint, 0 in what is served"]);
}

#[test]
fn beside_a_running_job_its_answers_are_audited_and_nothing_is_mended() {
    let mut stage = Stage::new();
    let run = stage.run();
    let server = run.start();
    stage.send_over_checkpoints(&server, 2);
    stage.send_and_see(&server, 10);
    let checkpoint = server.client.checkpoint().unwrap();
    server.client.wait_for_checkpoint_after(checkpoint.saturating_sub(1));
    let listen = format!("127.0.0.1:{}", run.port);
    let ended = audit(&stage, &["--listen", &listen]);
    ended.expect(0, &["0 differ in the checkpoint, 0 in what is served"]);
    assert!(!ended.stderr.contains("only the checkpoint"), "{ended}");
    audit(&stage, &["--apply", "--listen", &listen]).expect(75, &["belongs to another process"]);
    server.stop();
}

#[test]
fn a_checkpoint_can_be_named_and_one_that_is_not_there_ends_with_66() {
    let stage = stopped();
    let manifest = live_support::truth::manifests(&stage.data_dir()).remove(0);
    let name = format!("{}-{}", manifest.version.generation, manifest.version.number);
    let ended = audit(&stage, &["--checkpoint", &name]);
    ended.expect(0, &[&format!("checkpoint {name}"), "0 differ in the checkpoint"]);
    audit(&stage, &["--checkpoint", "1-999999"]).expect(66, &["no checkpoint 1-999999"]);
    audit(&stage, &["--checkpoint", "7"]).expect(2, &["a generation, a hyphen and a number"]);
}

#[test]
fn copies_of_one_id_that_differ_are_named_where_they_are() {
    let mut stage = Stage::new();
    let server = stage.run().start();
    stage.send_and_see(&server, 3);
    let (video, at) = (stage.videos[0].clone(), stage.start_ms + 500);
    let copy = |timestamp| live_support::client::event("twice", &video, "view", timestamp);
    server.client.send(&[copy(at), copy(at), copy(at + 1)]);
    stage.send_and_see(&server, 1);
    server.stop();
    let ended = audit(&stage, &[]);
    ended.expect(0, &[&format!("copies differ: video {video}, event twice, at 0:"), "1 copies differ"]);
}
