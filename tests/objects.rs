//! Checkpoints in a bucket of a real S3 (moto's server): a crash, a server that is away, another owner, none at the start.

#![allow(clippy::unwrap_used)]

mod live_support;

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use live_support::{
    Run, SOON, Server,
    client::{Client, event, video_of_each},
    now_ms, tidemark_with,
    truth::{Truth, end_offsets},
    wait_for,
};
use servers::{Answers, S3, Wire};
use tempfile::TempDir;

const PARTITIONS: u32 = 4;

/// From a server that falls silent to `/readyz`: one request's time limit, and a busy machine.
const DEGRADED_WITHIN: Duration = Duration::from_secs(60);

/// The longest wait between two tries, a request that was under way, and a busy machine.
const RESUMED_WITHIN: Duration = Duration::from_secs(60);

/// A job whose checkpoints are in a bucket, and how many events it was sent.
struct Job {
    folder: TempDir,
    environment: Vec<(String, String)>,
    start_ms: u64,
    sent: u64,
}

impl Job {
    fn on(s3: &S3, prefix: &str) -> Self {
        let mut environment = s3.environment();
        environment.push(("TIDEMARK_CHECKPOINT__STORE".to_owned(), format!("s3://{}/{prefix}", S3::BUCKET)));
        let start_ms = now_ms() - 3_600_000;
        Self { folder: tempfile::tempdir().unwrap(), environment, start_ms, sent: 0 }
    }

    fn data_dir(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn run(&self) -> Run {
        self.run_in(&self.data_dir())
    }

    fn run_in(&self, data_dir: &Path) -> Run {
        let run = Run::new(data_dir).checkpoints_every("200ms");
        self.environment.iter().fold(run, |run, (name, value)| run.env(name, value))
    }

    /// As many events to each partition, every fifth of them twice and every eleventh with a late one.
    fn send(&mut self, client: &Client, each: u64) {
        let mut events = Vec::new();
        for _ in 0..each {
            self.sent += 1;
            let at = self.start_ms + self.sent * 1_000;
            for video in video_of_each(PARTITIONS) {
                let line = event(&format!("e{}", self.sent), &video, "view", at);
                if self.sent.is_multiple_of(5) {
                    events.push(line.clone());
                }
                if self.sent.is_multiple_of(11) {
                    events.push(event(&format!("late{}", self.sent), &video, "view", at - 3_000_000));
                }
                events.push(line);
            }
        }
        client.send(&events);
    }

    /// Sends, and waits until all is counted.
    fn send_and_see(&mut self, server: &Server, each: u64) {
        self.send(&server.client, each);
        server.client.wait_until_visible(&end_offsets(&self.data_dir()), SOON);
    }

    fn send_over_checkpoints(&mut self, server: &Server, count: usize) {
        for _ in 0..count {
            let number = server.client.checkpoint().unwrap_or(0);
            self.send(&server.client, 20);
            server.client.wait_for_checkpoint_after(number);
        }
    }

    /// All is visible, and the index is exact; then all is exact that is left after a stop.
    #[track_caller]
    fn assert_exact(&self, server: Server) {
        let truth = Truth::of(&self.data_dir());
        let status = server.client.wait_until_visible(&truth.end_offsets(), SOON);
        truth.assert_status(&status);
        truth.assert_index(&server.client);
        server.stop();
        truth.assert_stopped(&self.data_dir());
    }
}

#[test]
fn after_a_kill_it_goes_on_from_the_bucket_and_every_count_is_exact() {
    let s3 = S3::start();
    let mut job = Job::on(&s3, "jobs/views");
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
    let mut job = Job::on(&s3, "away");
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
    let mut job = Job::on(&s3, "lost");
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
    let mut job = Job::on(&s3, "owners");
    let old = job.run().start();
    job.send_over_checkpoints(&old, 2);

    let folder = tempfile::tempdir().unwrap();
    let new = job.run_in(&folder.path().join("data")).flag("--from-start").start();
    // It may have ended already, as its last checkpoint was about to drop an older one.
    let _ = old.client.post("/v1/events", "application/json", event("f", "v", "view", now_ms()).as_bytes());
    old.wait_for_end(SOON).expect(75, &["s3://tidemark/owners", "already taken by another writer"]);

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
    let mut job = Job::on(&s3, "start");
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
    let mut job = Job::on(&s3, "shared");
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
