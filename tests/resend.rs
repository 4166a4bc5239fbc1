//! `tidemark dead-letters replay`: mended letters go through again, once each however often they are sent.

#![allow(clippy::unwrap_used)]

mod live_support;

use std::fs;

use live_support::{
    Ended, SOON, Server,
    client::event,
    stage::Stage,
    tidemark,
    traffic::append,
    truth::{end_offsets, number},
};

/// A running job with two malformed letters and late ones, and the folder's flag.
fn stage() -> (Stage, Server, String) {
    let mut stage = Stage::new();
    let server = stage.run().start();
    stage.send_and_see(&server, 12);
    server.stop();
    let broken = |id: &str| event(id, &stage.videos[2], "view", stage.start_ms + 13_000).replace("timestamp", "time");
    append(&stage.data_dir(), [broken("m1"), broken("m2")].into_iter().map(|line| (2, line.into_bytes())));
    let server = stage.run().start();
    let status = server.client.wait_until_visible(&end_offsets(&stage.data_dir()), SOON);
    assert_eq!(number(&status["ledger"]["malformed"]), 2);
    let checkpoint = server.client.checkpoint().unwrap_or(0);
    stage.send_and_see(&server, 1);
    server.client.wait_for_checkpoint_after(checkpoint);
    let dir = stage.data_dir().display().to_string();
    (stage, server, dir)
}

fn resend(dir: &str, server: &Server, more: &[&str]) -> Ended {
    let words = [&["dead-letters", "replay", "--data-dir", dir, "--url", &server.client.base], more].concat();
    tidemark(&words)
}

#[test]
fn mended_letters_are_counted_and_sent_twice_they_are_duplicates() {
    let (stage, server, dir) = stage();
    let listed = tidemark(&["dead-letters", "list", "--reason", "malformed", "--data-dir", &dir]);
    listed.expect(0, &[]);
    let mended = stage.folder.path().join("mended.jsonl");
    fs::write(&mended, listed.stdout.replace("\\\"time\\\"", "\\\"timestamp\\\"")).unwrap();
    let mended = mended.display().to_string();
    let before = server.client.status()["ledger"].clone();

    let dry = resend(&dir, &server, &[&mended, "--dry-run"]);
    dry.expect(0, &[]);
    assert!(dry.stdout.starts_with("2 letters would be sent again"), "{dry}");
    for (counted, duplicate) in [(2, 0), (2, 2)] {
        let sent = resend(&dir, &server, &[&mended]);
        sent.expect(0, &[]);
        assert!(sent.stdout.starts_with("2 letters were sent again"), "{sent}");
        let ledger = server.client.wait_until_visible(&end_offsets(&stage.data_dir()), SOON)["ledger"].clone();
        let more = |account: &str| number(&ledger[account]) - number(&before[account]);
        assert_eq!((more("counted"), more("duplicate")), (counted, duplicate), "a dry run sends none");
    }
    server.stop();
}

#[test]
fn late_letters_and_what_is_no_event_are_refused_with_the_way_out() {
    let (stage, server, dir) = stage();
    let ends = end_offsets(&stage.data_dir());
    resend(&dir, &server, &["--reason", "late"]).expect(2, &["tidemark replay", "tidemark audit"]);
    resend(&dir, &server, &[]).expect(2, &["--reason"]);
    let unmended = resend(&dir, &server, &["--reason", "malformed"]);
    unmended.expect(1, &["not sent, no event (missing): log, 2:", "2 letters were not sent"]);
    let all = tidemark(&["dead-letters", "list", "--data-dir", &dir]);
    let letters = stage.folder.path().join("all.jsonl");
    fs::write(&letters, &all.stdout).unwrap();
    let late = all.stdout.matches("\"reason\":\"late\"").count();
    assert!(0 < late, "{all}");
    let refused = resend(&dir, &server, &[&letters.display().to_string()]);
    refused.expect(1, &[&format!("{late} of the letters are late"), "tidemark audit"]);
    assert!(refused.stdout.starts_with("0 letters were sent again"), "{refused}");
    assert_eq!(end_offsets(&stage.data_dir()), ends, "nothing was sent");
    server.stop();
}
