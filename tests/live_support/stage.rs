//! A job and its producer, for tests that stop and start it again on one folder.

#![allow(clippy::unwrap_used)]

use std::{
    fs,
    path::{Path, PathBuf},
};

use tempfile::TempDir;

use super::{
    Run, SOON, Server,
    client::{Client, event, video_of_each},
    now_ms,
    traffic::PARTITIONS,
    truth::{Truth, end_offsets},
};

/// A data folder, and a producer that knows which events it has sent.
pub struct Stage {
    pub folder: TempDir,
    /// Of every run.
    pub environment: Vec<(String, String)>,
    pub start_ms: u64,
    pub videos: Vec<String>,
    sent: u64,
}

impl Stage {
    pub fn new() -> Self {
        let start_ms = now_ms() - 3_600_000;
        Self {
            folder: tempfile::tempdir().unwrap(),
            environment: Vec::new(),
            start_ms,
            videos: video_of_each(PARTITIONS),
            sent: 0,
        }
    }

    pub fn data_dir(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    pub fn run(&self) -> Run {
        self.run_in(&self.data_dir())
    }

    /// The same on another folder.
    pub fn run_in(&self, data_dir: &Path) -> Run {
        let run = Run::new(data_dir).checkpoints_every("200ms");
        self.environment.iter().fold(run, |run, (name, value)| run.env(name, value))
    }

    /// Sends as many events to each partition, a second of event time apart, every seventh a minute late and some twice,
    /// and a few that are refused as late or future.
    pub fn send(&mut self, client: &Client, each: u64) {
        let mut events = Vec::new();
        for _ in 0..each {
            self.sent += 1;
            let at = self.start_ms + self.sent * 1_000;
            for video in &self.videos {
                let back = if self.sent.is_multiple_of(7) { 60_000 } else { 0 };
                let line = event(&format!("e{}", self.sent), video, "view", at - back);
                if self.sent.is_multiple_of(5) {
                    events.push(line.clone());
                }
                events.push(line);
                if self.sent.is_multiple_of(11) {
                    events.push(event(&format!("late{}", self.sent), video, "view", at - 3_000_000));
                    events.push(event(&format!("future{}", self.sent), video, "view", 4_070_908_800_000));
                }
            }
        }
        client.send(&events);
    }

    /// Sends until there are so many checkpoints more, each with records of its own.
    pub fn send_over_checkpoints(&mut self, server: &Server, count: usize) {
        for _ in 0..count {
            let number = server.client.checkpoint().unwrap_or(0);
            self.send(&server.client, 20);
            server.client.wait_for_checkpoint_after(number);
        }
    }

    /// Sends, and waits until all is visible, so that a last checkpoint has it.
    pub fn send_and_see(&mut self, server: &Server, each: u64) {
        self.send(&server.client, each);
        server.client.wait_until_visible(&end_offsets(&self.data_dir()), SOON);
    }

    /// All is visible, and the index is exact; then all is exact that is left after a stop.
    #[track_caller]
    pub fn assert_exact(&self, server: Server) {
        let truth = Truth::of(&self.data_dir());
        let status = server.client.wait_until_visible(&truth.end_offsets(), SOON);
        truth.assert_status(&status);
        truth.assert_index(&server.client);
        server.stop();
        truth.assert_stopped(&self.data_dir());
    }

    pub fn checkpoint_dir(&self) -> PathBuf {
        self.data_dir().join("checkpoints")
    }

    /// The only one of a partition's log.
    pub fn segment(&self, partition: u32) -> PathBuf {
        let folder = self.data_dir().join("log").join(format!("partition-{partition}"));
        let mut segments: Vec<PathBuf> = fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.extension().is_some())
            .collect();
        assert_eq!(segments.len(), 1, "so few records are in one segment");
        segments.pop().unwrap()
    }
}
