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
    bottleneck::{Behind, Flow, away_text, stalled_text, unwritten_text},
    door::Refusals,
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

    /// Ends the process when a worker is stuck: the others would wait for it for ever. Also tells of a keeper that waits,
    /// since that can't. Watches as long as anybody holds the heartbeats.
    pub fn watch(self: &Arc<Self>, keeper: &Arc<KeeperFacts>) {
        let (beats, keeper): (Weak<Self>, _) = (Arc::downgrade(self), Arc::clone(keeper));
        thread::spawn(move || {
            while let Some(beats) = beats.upgrade() {
                for (worker, age_ms) in beats.ages_ms().into_iter().enumerate() {
                    if STUCK.as_millis() as u64 <= age_ms {
                        tracing::error!(worker, age_ms, "a worker is stuck: ending the process");
                        std::process::abort();
                    }
                }
                drop(beats);
                keeper.warn_of_slow_rows();
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
    pub refusals: Refusals,
    pub generation: u64,
}

impl StatusSource for Health {
    fn facts(&self) -> Facts {
        let heartbeat_ages_ms = self.beats.ages_ms();
        let stalled: Vec<(usize, u64)> = stalled(&heartbeat_ages_ms).collect();
        let (trouble, away) = (self.keeper.trouble(), self.input.away_since().map(|since| since.elapsed()));
        let mut degraded: Vec<String> = stalled.iter().map(|(worker, age_ms)| stalled_text(*worker, *age_ms)).collect();
        degraded.extend(trouble.as_deref().map(unwritten_text));
        degraded.extend(away.filter(|away| AWAY_AFTER <= *away).map(away_text));
        let flow = Flow {
            stalled: stalled.first().copied(),
            away,
            trouble,
            waiting: self.keeper.waiting(),
            is_full: self.keeper.is_full(),
            held_up: self.input.held_up(),
            refuses: self.refusals.are_recent(),
            behind: self.behind(),
        };
        Facts {
            uptime_ms: self.beats.now_ms(),
            generation: self.generation,
            last_checkpoint: self.keeper.last(),
            checkpoints_failed: self.keeper.failed(),
            heartbeat_ages_ms,
            degraded,
            bottleneck: flow.bottleneck(),
        }
    }
}

fn stalled(ages_ms: &[u64]) -> impl Iterator<Item = (usize, u64)> {
    ages_ms.iter().copied().enumerate().filter(|(_, age_ms)| STALLED.as_millis() as u64 <= *age_ms)
}

impl Health {
    /// What of each partition is not visible yet.
    fn behind(&self) -> Vec<Behind> {
        let (ends, latest) = (self.input.ends(), self.shelf.latest());
        let partitions = latest.iter().flat_map(|latest| &latest.partitions);
        let behind = partitions.map(|at| {
            let end = ends.get(at.partition.0 as usize).copied().unwrap_or(at.next_offset);
            let records = end.saturating_sub(at.next_offset);
            Behind { partition: at.partition.0, records, has_clock: at.clock.is_some() }
        });
        behind.collect()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::{os::unix::process::ExitStatusExt as _, process::Command};

    use super::*;

    const CHILD: &str = "TIDEMARK_TEST_STUCK_WORKER";

    #[test]
    fn a_worker_that_does_not_move_is_stalled_after_5_s() {
        let ages = [0, 4_999, 5_000, 60_000];
        assert_eq!(stalled(&ages).collect::<Vec<_>>(), [(2, 5_000), (3, 60_000)]);
    }

    /// In a process of its own, since that ends.
    #[test]
    fn one_stuck_worker_aborts_the_process_whatever_the_others_do() {
        if std::env::var_os(CHILD).is_some() {
            return be_stuck();
        }
        let (_, name) = concat!(module_path!(), "::one_stuck_worker_aborts_the_process_whatever_the_others_do")
            .split_once("::")
            .unwrap();
        let mut test = Command::new(std::env::current_exe().unwrap());
        let ended = test.args(["--exact", "--nocapture", name]).env(CHILD, "1").output().unwrap();
        let said = String::from_utf8_lossy(&ended.stdout);
        assert_eq!(ended.status.signal(), Some(rustix::process::Signal::ABORT.as_raw()), "{said}");
        assert!(said.contains("the others go on"), "{said}");
    }

    fn be_stuck() {
        let started = Instant::now().checked_sub(STUCK).expect("the machine runs for longer");
        let beats = Arc::new(Heartbeats { start: started, beats: (0..2).map(|_| AtomicU64::new(0)).collect() });
        println!("the others go on");
        beats.beat(0);
        beats.watch(&Arc::default());
        let watched = Instant::now();
        while watched.elapsed() < STUCK {
            beats.beat(0);
            thread::yield_now();
        }
    }
}
