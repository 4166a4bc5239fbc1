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

/// For how long an answer proves an end, if the next one is not late anyway.
const FRESH_FOR: Duration = Duration::from_secs(3);

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
    status: Arc<Mutex<Status>>,
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
        let (answered, offsets) = (Instant::now(), Vec::new());
        *lock(&shared.seen) = Some(Seen { answered, reachable: true, fresh_for: fresh_for(every), offsets });
        let status = Arc::new(Mutex::new(Status::default()));
        let (stop, stopped) = bounded(0);
        let watcher = Watcher {
            shared: Arc::clone(&shared),
            status: Arc::clone(&status),
            stopped,
            every,
            on_new_partitions,
            suspicion: None,
            said_away: None,
            standing: Standing::default(),
        };
        let thread = thread::Builder::new().name("kafka-watch".into()).spawn(|| watcher.run());
        let thread = thread.map_err(|error| tracing::error!(%error, "the topic is not watched: no thread")).ok();
        Self { shared, status, stop: Some(stop), thread }
    }

    /// Since when the brokers do not answer; `None` while they do.
    pub fn away_since(&self) -> Option<Instant> {
        let late = |seen: &Seen| (seen.fresh_for < seen.answered.elapsed()).then_some(seen.answered);
        let away_since = lock(&self.status).away_since;
        // A question that is not answered takes a while to end.
        away_since.or_else(|| lock(&self.shared.seen).as_ref().and_then(late))
    }

    /// The partitions that an unfinished transaction has held up for a minute or longer.
    pub fn held_up(&self) -> Vec<u32> {
        lock(&self.status).held_up.clone()
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

/// What the thread has found out.
#[derive(Default)]
struct Status {
    away_since: Option<Instant>,
    held_up: Vec<u32>,
}

struct Watcher {
    shared: Arc<Shared>,
    status: Arc<Mutex<Status>>,
    stopped: Receiver<()>,
    every: Duration,
    on_new_partitions: Box<dyn FnMut(Range<u32>) + Send>,
    suspicion: Option<Suspicion>,
    said_away: Option<Instant>,
    standing: Standing,
}

/// That the topic is not the one that was opened.
#[derive(Copy, Clone)]
struct Suspicion {
    since: Instant,
    times: u32,
    gone: bool,
}

impl Suspicion {
    /// One more answer of the kind; the topic is gone, or is another one.
    fn again(before: Option<Self>, gone: bool, now: Instant) -> Self {
        let before = before.filter(|before| before.gone == gone);
        let Self { since, times, .. } = before.unwrap_or(Self { since: now, times: 0, gone });
        Self { since, times: times + 1, gone }
    }

    /// Twice the same, and a topic that is gone must be gone for a while.
    fn is_certain(&self, now: Instant) -> bool {
        2 <= self.times && (!self.gone || GONE_FOR <= now.duration_since(self.since))
    }
}

/// Where partitions' last stable offsets have stood, and since when, while records are behind them.
#[derive(Default)]
struct Standing(BTreeMap<u32, Stand>);

struct Stand {
    offset: u64,
    since: Instant,
    said: Option<Instant>,
}

impl Standing {
    /// The partitions that stand still for too long, and whether that is to be said of each now.
    fn look(&mut self, ends: &[Ends], now: Instant) -> Vec<(u32, bool)> {
        let mut held_up = Vec::new();
        for (partition, ends) in (0..).zip(ends) {
            if ends.stable == ends.high {
                self.0.remove(&partition);
                continue;
            }
            let new = || Stand { offset: ends.stable, since: now, said: None };
            let stand = self.0.entry(partition).or_insert_with(new);
            if stand.offset != ends.stable {
                *stand = new();
            }
            if HANGS_AFTER <= now.duration_since(stand.since) {
                let say = stand.said.is_none_or(|said| HANGS_AFTER <= now.duration_since(said));
                if say {
                    stand.said = Some(now);
                }
                held_up.push((partition, say));
            }
        }
        held_up
    }
}

/// What one look has found.
enum Look {
    Same { partitions: u32, ends: Vec<Ends> },
    Another,
    Gone,
}

#[derive(Copy, Clone)]
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
        if let Some(since) = lock(&self.status).away_since.take() {
            tracing::info!(topic = self.shared.name, away = ?since.elapsed(), "kafka answers again");
        }
        self.said_away = None;
        match look {
            Look::Same { partitions, ends } => {
                self.suspicion = None;
                self.warn_of_hanging(&ends, now);
                let offsets = ends.iter().map(|ends| (ends.first, ends.stable)).collect();
                let fresh_for = fresh_for(self.every);
                *lock(&self.shared.seen) = Some(Seen { answered: now, reachable: true, fresh_for, offsets });
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

    fn suspect(&mut self, gone: bool, now: Instant) {
        // No end is proven while it is in doubt.
        if let Some(seen) = lock(&self.shared.seen).as_mut() {
            seen.reachable = false;
        }
        let suspicion = Suspicion::again(self.suspicion, gone, now);
        self.suspicion = Some(suspicion);
        if suspicion.is_certain(now) && !self.shared.replaced.swap(true, Ordering::AcqRel) {
            tracing::error!(topic = self.shared.name, gone, "the topic was deleted or replaced");
        }
    }

    fn on_silence(&mut self, fault: &Fault) {
        let now = Instant::now();
        let answered = lock(&self.shared.seen).as_mut().map_or(now, |seen| {
            seen.reachable = false;
            seen.answered
        });
        let since = *lock(&self.status).away_since.get_or_insert(answered);
        if self.said_away.is_none_or(|said| AWAY_AGAIN <= now.duration_since(said)) {
            self.said_away = Some(now);
            tracing::warn!(topic = self.shared.name, away = ?since.elapsed(), %fault, "kafka does not answer");
        }
    }

    fn warn_of_hanging(&mut self, ends: &[Ends], now: Instant) {
        let held_up = self.standing.look(ends, now);
        for (partition, _) in held_up.iter().filter(|(_, say)| *say) {
            let Ends { stable, high, .. } = ends[*partition as usize];
            tracing::warn!(
                topic = self.shared.name,
                partition,
                next_offset = stable,
                end = high,
                "an unfinished transaction holds this partition up"
            );
        }
        lock(&self.status).held_up = held_up.into_iter().map(|(partition, _)| partition).collect();
    }
}

fn fresh_for(every: Duration) -> Duration {
    FRESH_FOR.max(every * 3)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partition_is_held_up_when_its_stable_offset_stands_still_before_its_end() {
        let start = Instant::now();
        let mut standing = Standing::default();
        type HeldUp = &'static [(u32, bool)];
        // at (s) | stable, end | held up, and to be said
        let rows: [(u64, u64, u64, HeldUp); 9] = [
            (0, 5, 9, &[]),
            (59, 5, 10, &[]),
            (60, 5, 10, &[(0, true)]),
            (61, 5, 11, &[(0, false)]),
            (120, 5, 11, &[(0, true)]),
            (121, 6, 11, &[]),
            (181, 6, 11, &[(0, true)]),
            (182, 11, 11, &[]),
            (300, 11, 12, &[]),
        ];
        for (at, stable, high, expected) in rows {
            let now = start + Duration::from_secs(at);
            assert_eq!(standing.look(&[Ends { first: 0, stable, high }], now), expected, "at {at} s");
        }
    }

    #[test]
    fn a_topic_is_another_one_at_the_second_look_and_gone_when_it_stays_away() {
        let start = Instant::now();
        // at (ms), gone | certain
        let rows = [(0, true, false), (250, true, false), (500, false, false), (750, false, true)];
        let mut suspicion = None;
        for (at, gone, certain) in rows {
            let now = start + Duration::from_millis(at);
            let next = Suspicion::again(suspicion, gone, now);
            assert_eq!(next.is_certain(now), certain, "at {at} ms");
            suspicion = Some(next);
        }
        let first = Suspicion::again(None, true, start);
        let later = start + GONE_FOR;
        assert!(Suspicion::again(Some(first), true, later).is_certain(later));
        assert!(!Suspicion::again(None, true, later).is_certain(later));
    }
}
