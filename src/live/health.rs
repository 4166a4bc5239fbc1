//! How the process is doing: heartbeats of the workers, and what the status says in words.

use std::{
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use super::{
    input::{AWAY_AFTER, Input},
    keeper::KeeperFacts,
    shelf::Shelf,
};
use crate::service::{Facts, Queries as _, StatusSource};

/// A worker that has not gone round its loop for so long makes the process unready.
const STALLED: Duration = Duration::from_secs(5);

/// And after so long the process ends, to be started again from its last checkpoint.
const STUCK: Duration = Duration::from_secs(30);

/// How often the heartbeats are looked at.
const WATCH_EVERY: Duration = Duration::from_secs(1);

/// One worker after the other: when it last went round its loop.
pub struct Heartbeats {
    start: Instant,
    beats: Vec<AtomicU64>,
}

impl Heartbeats {
    /// All workers alive as of now.
    pub fn start(workers: usize) -> Arc<Self> {
        Arc::new(Self { start: Instant::now(), beats: (0..workers).map(|_| AtomicU64::new(0)).collect() })
    }

    fn now_ms(&self) -> u64 {
        self.start.elapsed().as_millis() as u64
    }

    /// A worker goes round its loop.
    pub fn beat(&self, worker: usize) {
        self.beats[worker].store(self.now_ms(), Ordering::Relaxed);
    }

    /// How long ago each worker did, ms.
    pub fn ages_ms(&self) -> Vec<u64> {
        let now_ms = self.now_ms();
        self.beats.iter().map(|beat| now_ms.saturating_sub(beat.load(Ordering::Relaxed))).collect()
    }

    /// Ends the process when a worker is stuck: the others would wait for it for ever. Watches as long as anybody holds
    /// the heartbeats.
    pub fn watch(self: &Arc<Self>) {
        let beats: Weak<Self> = Arc::downgrade(self);
        thread::spawn(move || {
            while let Some(beats) = beats.upgrade() {
                for (worker, age_ms) in beats.ages_ms().into_iter().enumerate() {
                    if STUCK.as_millis() as u64 <= age_ms {
                        tracing::error!(worker, age_ms, "a worker is stuck: ending the process");
                        std::process::abort();
                    }
                }
                drop(beats);
                thread::sleep(WATCH_EVERY);
            }
        });
    }
}

/// What the status page asks.
pub struct Health {
    pub beats: Arc<Heartbeats>,
    pub keeper: Arc<KeeperFacts>,
    pub shelf: Arc<Shelf>,
    pub input: Arc<dyn Input>,
    pub generation: u64,
}

impl StatusSource for Health {
    fn facts(&self) -> Facts {
        let heartbeat_ages_ms = self.beats.ages_ms();
        let stalled = |(worker, age_ms): (usize, &u64)| {
            (STALLED.as_millis() as u64 <= *age_ms).then(|| format!("worker {worker} has not moved for {age_ms} ms"))
        };
        let mut degraded: Vec<String> = heartbeat_ages_ms.iter().enumerate().filter_map(stalled).collect();
        degraded.extend(self.keeper.trouble().map(|trouble| format!("state can't be written: {trouble}")));
        degraded.extend(self.away().filter(|away| AWAY_AFTER <= *away).map(away_text));
        Facts {
            uptime_ms: self.beats.now_ms(),
            generation: self.generation,
            last_checkpoint: self.keeper.last(),
            checkpoints_failed: self.keeper.failed(),
            heartbeat_ages_ms,
            degraded,
            bottleneck: self.bottleneck(),
        }
    }
}

fn away_text(away: Duration) -> String {
    format!("the log has not answered for {} s", away.as_secs())
}

impl Health {
    fn away(&self) -> Option<Duration> {
        self.input.away_since().map(|since| since.elapsed())
    }

    fn bottleneck(&self) -> String {
        if let Some(trouble) = self.keeper.trouble() {
            return format!("checkpoints: {trouble}");
        }
        if let Some(away) = self.away() {
            return away_text(away);
        }
        let ends = self.input.ends();
        let latest = self.shelf.latest();
        let behind = latest.iter().flat_map(|latest| &latest.partitions).map(|at| {
            let end = ends.get(at.partition.0 as usize).copied().unwrap_or(at.next_offset);
            (end.saturating_sub(at.next_offset), at.partition)
        });
        match behind.max() {
            Some((records, partition)) if records > 0 => {
                format!("reading: partition {} has {records} records that are not visible yet", partition.0)
            }
            _ => "nothing: every record in the log is visible".to_owned(),
        }
    }
}
