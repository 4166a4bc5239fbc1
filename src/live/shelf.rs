//! Answers for the HTTP side: the announced frontiers, and questions on their way through the dataflow.

use std::{
    collections::{HashMap, VecDeque},
    future::ready,
    sync::{
        Arc, Mutex, MutexGuard, RwLock,
        atomic::{AtomicU64, Ordering},
    },
};

use dataflows::{
    announce::{Announced, Announcement, AsOfError, Moment},
    channels::{ChannelAnswer, ChannelQuestion},
    identity::KeyGroup,
    index::Questions,
    port::BoxError,
    query::{Answer, Question},
    rollup::Width,
    snapshot::Snapshots,
    time::{END_OF_TIME, EventTime},
    top::{TopAnswer, TopQuestion},
};
use tokio::sync::{oneshot, watch};

use super::{cluster::Place, days::Days, hot};
use crate::service::{BoxFuture, Cold, ColdError, ColdQuestion, ColdRows, ColdSums, ColdSumsQuestion, Queries};

/// Windows that are read at once, minutes; more of them don't keep the threads that serve others.
const SHORT_MINUTES: u32 = 2 * 24 * 60;

/// What has been announced, and who waits for an answer.
pub struct Shelf {
    /// Of each worker of this process, from the first on.
    snapshots: Vec<Snapshots>,
    first_worker: usize,
    workers: usize,
    series: Counter<Question, Answer>,
    tops: Counter<TopQuestion, TopAnswer>,
    channels: Counter<ChannelQuestion, ChannelAnswer>,
    retain_ms: u64,
    /// What the snapshots have not reached yet.
    ahead: Mutex<VecDeque<Announcement>>,
    latest: RwLock<Option<Arc<Announcement>>>,
    announced: Mutex<Announced>,
    changed: watch::Sender<EventTime>,
    /// Of what is in memory.
    days: Arc<Days>,
    cold: Option<Arc<dyn Cold>>,
}

/// A desk of the dataflow, and who waits there.
struct Counter<Q, A> {
    desk: Questions<Q>,
    tickets: AtomicU64,
    waiting: Mutex<HashMap<u64, oneshot::Sender<A>>>,
}

impl<Q, A> Default for Counter<Q, A> {
    fn default() -> Self {
        Self { desk: Questions::default(), tickets: AtomicU64::new(0), waiting: Mutex::default() }
    }
}

impl<Q, A: Send + 'static> Counter<Q, A> {
    fn waiting(&self) -> MutexGuard<'_, HashMap<u64, oneshot::Sender<A>>> {
        self.waiting.lock().expect("nobody panics while holding it")
    }

    fn ask(&self, question: Q) -> BoxFuture<Option<A>> {
        let ticket = self.tickets.fetch_add(1, Ordering::Relaxed);
        let (send, answer) = oneshot::channel();
        self.waiting().insert(ticket, send);
        if !self.desk.ask(ticket, question) {
            self.waiting().remove(&ticket);
        }
        Box::pin(async move { answer.await.ok() })
    }

    fn reply(&self, ticket: u64, answer: A) {
        let waiting = self.waiting().remove(&ticket);
        if let Some(waiting) = waiting {
            // Whoever asked may have gone away.
            let _ = waiting.send(answer);
        }
    }
}

impl Shelf {
    /// The shelf of one process, whose answers reach `retain_ms` of stream time back, with what has left memory, if that is at hand.
    pub fn new(place: &Place, retain_ms: u64, days: Arc<Days>, cold: Option<Arc<dyn Cold>>) -> Self {
        Self {
            snapshots: (0..place.workers).map(|_| Snapshots::default()).collect(),
            first_worker: place.first_worker(),
            workers: place.workers * place.processes(),
            series: Counter::default(),
            tops: Counter::default(),
            channels: Counter::default(),
            retain_ms,
            ahead: Mutex::default(),
            latest: RwLock::default(),
            announced: Mutex::default(),
            changed: watch::Sender::new(0),
            days,
            cold,
        }
    }

    /// Takes an announcement from the dataflow.
    pub fn announce(&self, announcement: Announcement) {
        if announcement.frontier == END_OF_TIME {
            // The dataflow is ending: what was announced before stays true.
            return;
        }
        self.ahead().push_back(announcement);
        self.settle();
    }

    /// Lets announcements be known that every snapshot of this process has reached: whoever asks at one waits for none of its workers.
    pub fn settle(&self) {
        // None is the least: a worker that has put up nothing answers nothing, also at a frontier of 0.
        let reached = self.snapshots.iter().map(Snapshots::reached).min().flatten();
        // Held to the end, so that they become known in their order.
        let mut ahead = self.ahead();
        while let Some(announcement) = ahead.pop_front_if(|next| Some(next.frontier) <= reached) {
            let moment = announcement.moment();
            self.announced.lock().expect("nobody panics while holding it").push(moment, self.retain_ms);
            *self.latest.write().expect("nobody panics while holding it") = Some(Arc::new(announcement));
            self.changed.send_replace(moment.frontier);
        }
    }

    fn ahead(&self) -> MutexGuard<'_, VecDeque<Announcement>> {
        self.ahead.lock().expect("nobody panics while holding it")
    }

    /// Where a worker of this process, by its number within it, puts up what it has.
    pub fn snapshots(&self, local: usize) -> Snapshots {
        self.snapshots[local].clone()
    }

    /// The snapshots that have a video, where its owner is a worker of this process.
    fn owner(&self, video_id: &str) -> Option<&Snapshots> {
        let owner = KeyGroup::of(video_id).owner(self.workers);
        self.snapshots.get(owner.checked_sub(self.first_worker)?)
    }

    /// Where workers of other processes are asked.
    pub fn desk(&self) -> Questions {
        self.series.desk.clone()
    }

    /// Takes an answer from the dataflow.
    pub fn reply(&self, ticket: u64, answer: Answer) {
        self.series.reply(ticket, answer);
    }

    /// Where top lists are asked for.
    pub fn top_desk(&self) -> Questions<TopQuestion> {
        self.tops.desk.clone()
    }

    /// Takes a top list from the dataflow.
    pub fn top_reply(&self, ticket: u64, answer: TopAnswer) {
        self.tops.reply(ticket, answer);
    }

    /// Where channels are asked about.
    pub fn channel_desk(&self) -> Questions<ChannelQuestion> {
        self.channels.desk.clone()
    }

    /// Takes what is to be said about channels from the dataflow.
    pub fn channel_reply(&self, ticket: u64, answer: ChannelAnswer) {
        self.channels.reply(ticket, answer);
    }

    /// Reads what has left memory, on a thread where that may take a while.
    fn read_cold<T: Send + 'static>(
        &self,
        read: impl FnOnce(&dyn Cold) -> Result<T, BoxError> + Send + 'static,
    ) -> BoxFuture<Result<T, ColdError>> {
        let Some(cold) = self.cold.clone() else { return Box::pin(ready(Err(ColdError::Elsewhere))) };
        let read = tokio::task::spawn_blocking(move || read(&*cold));
        Box::pin(async move { read.await.expect("a panic aborts the process").map_err(ColdError::Failed) })
    }

    /// Lets everybody go who waits: no more answers come.
    pub fn close(&self) {
        self.series.waiting().clear();
        self.tops.waiting().clear();
        self.channels.waiting().clear();
    }
}

impl Queries for Shelf {
    fn latest(&self) -> Option<Arc<Announcement>> {
        self.latest.read().expect("nobody panics while holding it").clone()
    }

    fn lower(&self, as_of: EventTime) -> Result<Moment, AsOfError> {
        self.announced.lock().expect("nobody panics while holding it").lower(as_of)
    }

    fn ask(&self, question: Question, width: Width, settled: EventTime) -> BoxFuture<Option<Answer>> {
        let Some(owner) = self.owner(&question.video_id) else { return self.series.ask(question) };
        if question.end.0.saturating_sub(question.first.0) <= SHORT_MINUTES {
            return Box::pin(ready(hot::answer(owner, &self.days, &question, width, settled)));
        }
        let (owner, days) = (owner.clone(), Arc::clone(&self.days));
        let read = tokio::task::spawn_blocking(move || hot::answer(&owner, &days, &question, width, settled));
        Box::pin(async move { read.await.expect("a panic aborts the process") })
    }

    fn cold(&self, question: ColdQuestion) -> BoxFuture<ColdRows> {
        self.read_cold(move |cold| cold.read(&question))
    }

    fn cold_sums(&self, question: ColdSumsQuestion) -> BoxFuture<ColdSums> {
        self.read_cold(move |cold| cold.sums(&question))
    }

    fn top(&self, question: TopQuestion) -> BoxFuture<Option<TopAnswer>> {
        self.tops.ask(question)
    }

    fn channels(&self, question: ChannelQuestion) -> BoxFuture<Option<ChannelAnswer>> {
        self.channels.ask(question)
    }

    fn changes(&self) -> watch::Receiver<EventTime> {
        self.changed.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use dataflows::time::Minute;

    use super::*;

    #[test]
    fn regression_the_first_frontier_is_not_known_before_each_worker_has_put_up_a_snapshot() {
        let shelf = Shelf::new(&Place::alone(2), 1_000, Arc::default(), None);
        shelf.announce(Announcement {
            frontier: 0,
            watermark: 0,
            held_by: None,
            hot_from: Minute(0),
            partitions: Vec::new(),
        });
        assert!(shelf.latest().is_none(), "whoever asked at it would be told that the dataflow has ended");
    }
}
