//! Watches a topic from the side: whether the brokers answer, where the partitions end, whether it is still the same topic,
//! whether it has grown, and whether an unfinished transaction holds up its readers.

use std::{
    collections::BTreeMap,
    ops::Range,
    sync::{Arc, Mutex, MutexGuard, atomic::Ordering},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TryRecvError, bounded};

use super::{
    error::Fault,
    native::{Described, Place},
    topic::{Seen, Shared},
};

/// A suspicion is looked into this soon.
const SUSPECT_AGAIN: Duration = Duration::from_millis(250);

/// A topic must be gone for this long: a broker that starts knows none for a moment.
const GONE_FOR: Duration = Duration::from_secs(3);

/// A last stable offset that stands still before the end for this long is worth a warning, and again after as long.
const HANGS_AFTER: Duration = Duration::from_secs(60);

/// While nobody answers, that is said as often as this.
const AWAY_AGAIN: Duration = Duration::from_secs(30);

/// The thread that watches, until it is dropped.
pub struct Watch {
    shared: Arc<Shared>,
    away: Arc<Mutex<Option<Instant>>>,
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    pub(super) fn new(
        shared: Arc<Shared>,
        every: Duration,
        on_new_partitions: Box<dyn FnMut(Range<u32>) + Send>,
    ) -> Self {
        // It was just opened, so it was just reachable.
        let offsets = Vec::new();
        *lock(&shared.seen) = Some(Seen { answered: Instant::now(), reachable: true, offsets });
        let away = Arc::new(Mutex::new(None));
        let (stop, stopped) = bounded(0);
        let watcher = Watcher {
            shared: Arc::clone(&shared),
            away: Arc::clone(&away),
            stopped,
            every,
            on_new_partitions,
            suspicion: None,
            said_away: None,
            standing: BTreeMap::new(),
        };
        let thread = thread::Builder::new().name("kafka-watch".into()).spawn(|| watcher.run());
        let thread = thread.map_err(|error| tracing::error!(%error, "the topic is not watched: no thread")).ok();
        Self { shared, away, stop: Some(stop), thread }
    }

    /// Since when the brokers do not answer; `None` while they do.
    pub fn away_since(&self) -> Option<Instant> {
        *lock(&self.away)
    }

    /// First and end offset of each partition, as the brokers last told; empty before they first did.
    pub fn offsets(&self) -> Vec<(u64, u64)> {
        lock(&self.shared.seen).as_ref().map(|seen| seen.offsets.clone()).unwrap_or_default()
    }

    /// Whether it is certain that the topic was deleted or replaced. Its readers say with what loss.
    pub fn is_replaced(&self) -> bool {
        self.shared.replaced.load(Ordering::Acquire)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(Err(panic)) = self.thread.take().map(JoinHandle::join)
            && !thread::panicking()
        {
            std::panic::resume_unwind(panic);
        }
        *lock(&self.shared.seen) = None;
    }
}

struct Watcher {
    shared: Arc<Shared>,
    away: Arc<Mutex<Option<Instant>>>,
    stopped: Receiver<()>,
    every: Duration,
    on_new_partitions: Box<dyn FnMut(Range<u32>) + Send>,
    suspicion: Option<Suspicion>,
    said_away: Option<Instant>,
    /// Where a partition's last stable offset has stood, and since when, while records are behind it.
    standing: BTreeMap<u32, (u64, Instant)>,
}

/// That the topic is not the one that was opened.
#[derive(Copy, Clone)]
struct Suspicion {
    since: Instant,
    times: u32,
    gone: bool,
}

/// What one look has found.
enum Look {
    Same { partitions: u32, ends: Vec<Ends> },
    Another,
    Gone,
}

struct Ends {
    first: u64,
    stable: u64,
    high: u64,
}

impl Watcher {
    fn run(mut self) {
        loop {
            let look = self.look();
            if self.is_stopped() {
                return;
            }
            match look {
                Ok(look) => self.on_answer(look),
                Err(fault) => self.on_silence(&fault),
            }
            let pause = if self.suspicion.is_some() { SUSPECT_AGAIN.min(self.every) } else { self.every };
            if self.stopped.recv_timeout(pause) == Err(RecvTimeoutError::Disconnected) {
                return;
            }
        }
    }

    fn is_stopped(&self) -> bool {
        self.stopped.try_recv() == Err(TryRecvError::Disconnected)
    }

    fn look(&self) -> Result<Look, Fault> {
        let stopped = || self.is_stopped();
        let partitions = match self.shared.describe(&stopped) {
            Ok(Described { id, .. }) if id != self.shared.id => return Ok(Look::Another),
            Ok(Described { partitions, .. }) => partitions,
            Err(fault) if fault.is_unknown_topic() => return Ok(Look::Gone),
            Err(fault) => return Err(fault),
        };
        let known = self.shared.partitions.load(Ordering::Acquire);
        if partitions < known {
            // Partitions are never taken away; where brokers have no ids this is what shows that the topic is another one.
            return Ok(Look::Another);
        }
        let all: Vec<u32> = (0..known).collect();
        let ask = |place| self.shared.offsets_of(&all, place, &stopped);
        let (first, stable, high) = (ask(Place::First)?, ask(Place::Stable)?, ask(Place::High)?);
        let ends = first.into_iter().zip(stable).zip(high);
        let ends = ends.map(|((first, stable), high)| Ends { first, stable, high }).collect();
        Ok(Look::Same { partitions, ends })
    }

    fn on_answer(&mut self, look: Look) {
        let now = Instant::now();
        if let Some(since) = lock(&self.away).take() {
            tracing::info!(topic = self.shared.name, away = ?since.elapsed(), "kafka answers again");
        }
        self.said_away = None;
        match look {
            Look::Same { partitions, ends } => {
                self.suspicion = None;
                self.warn_of_hanging(&ends, now);
                let offsets = ends.iter().map(|ends| (ends.first, ends.stable)).collect();
                *lock(&self.shared.seen) = Some(Seen { answered: now, reachable: true, offsets });
                let known = self.shared.partitions.load(Ordering::Acquire);
                if known < partitions {
                    tracing::info!(topic = self.shared.name, known, partitions, "the topic has new partitions");
                    self.shared.partitions.store(partitions, Ordering::Release);
                    (self.on_new_partitions)(known..partitions);
                }
            }
            Look::Another => self.suspect(false, now),
            Look::Gone => self.suspect(true, now),
        }
    }

    /// Twice the same, and a topic that is gone must be gone for a while.
    fn suspect(&mut self, gone: bool, now: Instant) {
        // No end is proven while it is in doubt.
        if let Some(seen) = lock(&self.shared.seen).as_mut() {
            seen.reachable = false;
        }
        let before = self.suspicion.filter(|before| before.gone == gone);
        let Suspicion { since, times, .. } = before.unwrap_or(Suspicion { since: now, times: 0, gone });
        self.suspicion = Some(Suspicion { since, times: times + 1, gone });
        let certain = 1 <= times && (!gone || GONE_FOR <= now.duration_since(since));
        if certain && !self.shared.replaced.swap(true, Ordering::AcqRel) {
            tracing::error!(topic = self.shared.name, gone, "the topic was deleted or replaced");
        }
    }

    fn on_silence(&mut self, fault: &Fault) {
        let now = Instant::now();
        let answered = {
            let mut seen = lock(&self.shared.seen);
            let seen = seen.get_or_insert_with(|| Seen { answered: now, reachable: true, offsets: Vec::new() });
            seen.reachable = false;
            seen.answered
        };
        let since = *lock(&self.away).get_or_insert(answered);
        if self.said_away.is_none_or(|said| AWAY_AGAIN <= now.duration_since(said)) {
            self.said_away = Some(now);
            tracing::warn!(topic = self.shared.name, away = ?since.elapsed(), %fault, "kafka does not answer");
        }
    }

    fn warn_of_hanging(&mut self, ends: &[Ends], now: Instant) {
        for (partition, ends) in (0..).zip(ends) {
            if ends.stable == ends.high {
                self.standing.remove(&partition);
                continue;
            }
            let (offset, since) = self.standing.entry(partition).or_insert((ends.stable, now));
            if *offset != ends.stable {
                (*offset, *since) = (ends.stable, now);
            } else if HANGS_AFTER <= now.duration_since(*since) {
                *since = now;
                tracing::warn!(
                    topic = self.shared.name,
                    partition,
                    next_offset = ends.stable,
                    end = ends.high,
                    "an unfinished transaction holds this partition up"
                );
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}
