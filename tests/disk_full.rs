//! A full disk under the whole job: what is not durable is not acknowledged, the old checkpoint stays, queries are answered; with
//! room again it goes on by itself, and all is exact.

#![allow(clippy::unwrap_used)]

mod live_support;

use live_support::{
    SOON, Server,
    client::event,
    stage::Stage,
    tmpfs::Tmpfs,
    truth::{Truth, end_offsets},
    wait_for,
};

/// The store takes 64 MiB at a time for its journal.
const ROOM_BYTES: u64 = 256 << 20;

/// Some pages: less than a checkpoint.
const LEFT_BYTES: u64 = 16 << 10;

/// An event that takes 100 KB of the log, as what is unknown stays in it.
fn large(number: u64, video: &str, at: u64) -> String {
    let event = event(&format!("large-{number}"), video, "view", at);
    format!("{},\"unknown\":\"{}\"}}", event.strip_suffix('}').unwrap(), "x".repeat(100_000))
}

/// Posts large events until one is refused, and gives the ids of those that were taken.
fn fill_the_log(stage: &Stage, server: &Server, first: u64) -> Vec<String> {
    let mut acknowledged = Vec::new();
    for number in first.. {
        let body = large(number, &stage.videos[0], stage.start_ms);
        let answer = server.client.post("/v1/events", "application/json", body.as_bytes()).unwrap();
        match answer.status {
            202 => acknowledged.push(format!("\"large-{number}\"")),
            507 => break,
            _ => panic!("{}", answer.text),
        }
    }
    acknowledged
}

/// It says that it can't write, and why that is what holds it up; and it answers queries all the same.
fn assert_degraded(stage: &Stage, server: &Server) {
    wait_for("it says that it can't write", SOON, || {
        // A start is logged before it serves.
        let answer = server.client.get("/readyz").ok()?;
        (answer.status == 503 && answer.text.contains("state can't be written")).then_some(())
    });
    let status = server.client.status();
    let bottleneck = status["bottleneck"].as_str().unwrap();
    assert!(
        bottleneck.contains("state can't be written") || bottleneck.contains("rows wait for the store"),
        "{bottleneck}"
    );
    let total = server.client.stats(&stage.videos[1], "granularity=all").expect(200)["total"].as_u64();
    assert!(Some(0) < total, "queries are answered");
}

#[test]
fn a_full_disk_in_mid_ingest_refuses_events_and_with_room_again_all_is_exact() {
    let mut stage = Stage::new();
    let disk = Tmpfs::mount(&stage.data_dir(), ROOM_BYTES);
    let mut server = stage.run().start();
    stage.send_over_checkpoints(&server, 2);
    disk.leave(1 << 20);
    let mut acknowledged = fill_the_log(&stage, &server, 0);
    println!("{} large events fit", acknowledged.len());
    disk.leave(0);
    assert_eq!(fill_the_log(&stage, &server, 1_000), Vec::<String>::new());
    let total = server.client.stats(&stage.videos[1], "granularity=all").expect(200)["total"].as_u64();
    assert!(Some(0) < total && server.is_running(), "queries are answered");

    disk.resize(ROOM_BYTES);
    wait_for("it is ready by itself", SOON, || server.client.is_ready().then_some(()));
    stage.send_over_checkpoints(&server, 1);
    // Killed, it has all of it.
    server.kill();
    let server = stage.run().start();
    let log = Truth::of(&stage.data_dir()).log;
    acknowledged.retain(|id| !log[0].iter().any(|record| String::from_utf8_lossy(&record.payload).contains(id)));
    assert_eq!(acknowledged, Vec::<String>::new(), "acknowledged, and not in the log");
    stage.assert_exact(server);
}

#[test]
fn a_full_disk_in_mid_checkpoint_leaves_the_last_one_and_with_room_again_all_is_exact() {
    let mut stage = Stage::new();
    let checkpoints = stage.folder.path().join("small");
    let disk = Tmpfs::mount(&checkpoints, ROOM_BYTES);
    stage.environment.push(("TIDEMARK_CHECKPOINT__STORE".to_owned(), format!("file:{}", checkpoints.display())));
    let server = stage.run().start();
    stage.send_over_checkpoints(&server, 2);
    server.client.wait_until_visible(&end_offsets(&stage.data_dir()), SOON);
    disk.leave(LEFT_BYTES);
    stage.send(&server.client, 400);
    assert_degraded(&stage, &server);
    // What can't be kept is counted and served.
    stage.send_and_see(&server, 20);
    let newest = server.client.checkpoint().unwrap();
    server.kill();
    // A start needs no room but for its claim.
    let server = stage.run().begin();
    let start = wait_for("another start", SOON, || server.starts().first().copied());
    assert!(Some(newest) <= start.checkpoint && 0 < start.records_to_read, "{newest} {start:?}");
    assert_degraded(&stage, &server);

    disk.resize(ROOM_BYTES);
    wait_for("it is ready by itself", SOON, || server.client.is_ready().then_some(()));
    server.client.wait_for_checkpoint_after(newest);
    stage.send_over_checkpoints(&server, 1);
    stage.assert_exact(server);
}
