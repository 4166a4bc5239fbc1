//! Checkpoints in a bucket of a real S3 (moto's server): a crash, a server that is away, another owner, none at the start.

#![allow(clippy::unwrap_used)]

mod live_support;

use std::time::{Duration, Instant};

use live_support::{SOON, client::event, now_ms, stage::Stage, tidemark_with, wait_for};
use servers::{Answers, S3, Wire};

/// From a server that falls silent to `/readyz`: one request's time limit, and a busy machine.
const DEGRADED_WITHIN: Duration = Duration::from_secs(60);

/// The longest wait between two tries, a request that was under way, and a busy machine.
const RESUMED_WITHIN: Duration = Duration::from_secs(60);

/// A job whose checkpoints are in a bucket.
fn on(s3: &S3, prefix: &str) -> Stage {
    let mut stage = Stage::new();
    stage.environment = s3.environment();
    stage.environment.push(("TIDEMARK_CHECKPOINT__STORE".to_owned(), format!("s3://{}/{prefix}", S3::BUCKET)));
    stage
}

#[test]
fn after_a_kill_it_goes_on_from_the_bucket_and_every_count_is_exact() {
    let s3 = S3::start();
    let mut job = on(&s3, "jobs/views");
    let server = job.run().start();
    job.send_over_checkpoints(&server, 3);
    job.send(&server.client, 20);
    let first = server.kill();
    let server = job.run().start();
    assert!(server.logged("resumed from a checkpoint", "checkpoint").is_some_and(|number| 3 <= number));
    job.send_over_checkpoints(&server, 2);
    job.assert_exact(server);
    assert!(!job.data_dir().join("checkpoints").exists(), "nothing is kept beside the bucket");

    let command = |words: &[&str]| tidemark_with(words, &job.environment);
    let listed = command(&["checkpoint", "list"]);
    listed.expect(0, &[]);
    assert_eq!(listed.stdout.lines().count(), 1 + 3, "a head and the three that are kept: {listed}");
    let verified = command(&["checkpoint", "verify"]);
    verified.expect(0, &[]);
    assert_eq!(verified.stdout.matches("good").count(), 3, "{verified}");
    command(&["checkpoint", "show"]).expect(0, &[]);
    let shown = command(&["config", "show"]);
    assert!(shown.stdout.contains("s3://tidemark/jobs/views"), "{shown}");

    let (_, secret) = job.environment.iter().find(|(name, _)| name == "AWS_SECRET_ACCESS_KEY").unwrap();
    for said in [&first, &listed, &verified, &shown] {
        assert!(!said.to_string().contains(secret), "{said}");
    }
}

#[test]
fn while_the_server_is_away_it_counts_and_says_so_and_it_goes_on_by_itself() {
    let mut s3 = S3::start();
    let mut job = on(&s3, "away");
    let server = job.run().start();
    job.send_over_checkpoints(&server, 2);
    type Act = fn(&mut S3);
    let away: [(&str, Act, Act); 2] =
        [("frozen", |s3| s3.stop_signal(), |s3| s3.continue_signal()), ("killed", S3::kill, S3::restart)];
    for (how, leave, come_back) in away {
        let number = server.client.checkpoint().unwrap();
        leave(&mut s3);
        let left = Instant::now();
        job.send_and_see(&server, 20);
        wait_for("it says that it can't write", DEGRADED_WITHIN, || {
            let answer = server.client.get("/readyz").unwrap();
            (answer.status == 503 && answer.text.contains("s3://tidemark/away")).then_some(())
        });
        println!("{how}: degraded after {:?}", left.elapsed());
        // Far beyond what is held back for anybody.
        job.send_and_see(&server, 200);
        if how == "killed" {
            tidemark_with(&["checkpoint", "list"], &job.environment).expect(69, &["s3://tidemark/away", "refused"]);
        }
        assert!(server.client.checkpoint().unwrap() <= number + 1, "there is nowhere to write to");
        come_back(&mut s3);
        let back = Instant::now();
        wait_for("it is ready again", RESUMED_WITHIN, || server.client.is_ready().then_some(()));
        job.send(&server.client, 1);
        wait_for("a checkpoint", RESUMED_WITHIN, || server.client.checkpoint().filter(|newest| number + 1 < *newest));
        println!("{how}: goes on {:?} after its return", back.elapsed());
    }
    // Told to stop, it does not wait for a server that says nothing.
    s3.stop_signal();
    job.send_and_see(&server, 20);
    server.stop();
    s3.continue_signal();
    let server = job.run().start();
    assert!(server.logged("resumed from a checkpoint", "checkpoint").is_some());
    job.assert_exact(server);
}

#[test]
fn no_owner_takes_itself_for_a_zombie_where_answers_to_its_commits_are_lost() {
    let s3 = S3::start();
    let wire = Wire::to(s3.address());
    let mut job = on(&s3, "lost");
    job.environment.extend(wire.s3_environment());
    let server = job.run().start();
    for _ in 0..8 {
        // Each manifest is the first request of its connection.
        wire.set(Answers::LostToNext("if-none-match"));
        job.send_over_checkpoints(&server, 1);
    }
    let said = server.stderr();
    assert!(8 <= said.matches("trying again").count() && said.contains(".manifest"), "{said}");
    job.assert_exact(server);
}

#[test]
fn another_owner_of_the_bucket_ends_the_old_one_with_75() {
    let s3 = S3::start();
    let mut job = on(&s3, "owners");
    let old = job.run().start();
    job.send_over_checkpoints(&old, 2);

    let folder = tempfile::tempdir().unwrap();
    let new = job.run_in(&folder.path().join("data")).flag("--from-start").start();
    // It may have ended already, as its last checkpoint was about to drop an older one.
    let _ = old.client.post("/v1/events", "application/json", event("f", "v", "view", now_ms()).as_bytes());
    old.wait_for_end(SOON).expect(75, &["s3://tidemark/owners", "belongs to another owner now"]);

    // The new one does not notice.
    let number = new.client.checkpoint().unwrap_or(0);
    let token = new.client.send(&[event("e", "v", "view", now_ms())]);
    assert_eq!(new.client.stats("v", &format!("after={token}")).expect(200)["total"], 1);
    new.client.wait_for_checkpoint_after(number);
    new.stop();
    // The log is no longer the one that the newest checkpoint was made from.
    job.run().start_and_end().expect(65, &["the log was replaced"]);
}

#[test]
fn a_server_that_is_not_there_at_the_start_is_waited_for_and_then_it_ends_with_69() {
    let mut s3 = S3::start();
    let mut job = on(&s3, "start");
    let server = job.run().start();
    job.send_over_checkpoints(&server, 1);
    server.stop();
    s3.kill();
    let began = Instant::now();
    let ended = job.run().env("TIDEMARK_CLUSTER__PATIENCE", "3s").start_and_end();
    ended.expect(69, &["s3://tidemark/start", "refused", "trying again"]);
    assert!(Duration::from_secs(3) <= began.elapsed(), "it was not waited for");
    println!("it ended after {:?}", began.elapsed());

    let mut server = job.run().begin();
    wait_for("it waits", SOON, || server.stderr().contains("trying again").then_some(()));
    s3.restart();
    server.wait_until_ready();
    assert!(server.logged("resumed from a checkpoint", "checkpoint").is_some());
    job.send(&server.client, 5);
    job.assert_exact(server);

    // What no waiting mends is told at once.
    let mut refused = job.run();
    refused.env.retain(|(name, _)| name != "AWS_ALLOW_HTTP");
    refused.start_and_end().expect(2, &["AWS_ALLOW_HTTP"]);
}

#[test]
fn two_processes_share_a_bucket_and_go_on_from_it_together() {
    let s3 = S3::start();
    let mut job = on(&s3, "shared");
    for round in 0..2 {
        let server = job.run().supervised(2).start();
        job.send_over_checkpoints(&server, 2);
        job.send(&server.clients[1], 20);
        if round == 0 {
            server.stop();
        } else {
            job.assert_exact(server);
        }
    }
}
