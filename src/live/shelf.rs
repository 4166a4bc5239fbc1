//! Answers for the HTTP side: the announced frontiers, and questions on their way through the dataflow.

use std::{
    collections::HashMap,
    future::ready,
    ops::Range,
    sync::{
        Arc, Mutex, MutexGuard, RwLock,
        atomic::{AtomicU64, Ordering},
    },
};

use dataflows::{
    announce::{Announced, Announcement, AsOfError, Moment},
    channels::{ChannelAnswer, ChannelQuestion},
    index::Questions,
    query::{Answer, Question},
    time::{END_OF_TIME, EventTime},
    top::{TopAnswer, TopQuestion},
};
use tokio::sync::{oneshot, watch};

use crate::service::{BoxFuture, Cold, ColdError, ColdRows, Queries};

/// What has been announced, and who waits for an answer.
pub struct Shelf {
    series: Counter<Question, Answer>,
    tops: Counter<TopQuestion, TopAnswer>,
    channels: Counter<ChannelQuestion, ChannelAnswer>,
    retain_ms: u64,
    latest: RwLock<Option<Arc<Announcement>>>,
    announced: Mutex<Announced>,
    changed: watch::Sender<EventTime>,
    cold: Option<Arc<dyn Cold>>,
}

/// A desk of the dataflow, and who waits there.
struct Counter<Q, A> {
    desk: Questions<Q>,
    tickets: AtomicU64,
    waiting: Mutex<HashMap<u64, oneshot::Sender<A>>>,
}

impl<Q, A: Send + 'static> Counter<Q, A> {
    fn new(desk: Questions<Q>) -> Self {
        Self { desk, tickets: AtomicU64::new(0), waiting: Mutex::default() }
    }

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
    /// A shelf whose answers reach `retain_ms` of stream time back, with what has left memory, if that is at hand.
    pub fn new(desk: Questions, retain_ms: u64, cold: Option<Arc<dyn Cold>>) -> Self {
        Self {
            series: Counter::new(desk),
            tops: Counter::new(Questions::default()),
            channels: Counter::new(Questions::default()),
            retain_ms,
            latest: RwLock::default(),
            announced: Mutex::default(),
            changed: watch::Sender::new(0),
            cold,
        }
    }

    /// Takes an announcement from the dataflow.
    pub fn announce(&self, announcement: Announcement) {
        let moment = announcement.moment();
        if moment.frontier == END_OF_TIME {
            // The dataflow is ending: what was announced before stays true.
            return;
        }
        self.announced.lock().expect("nobody panics while holding it").push(moment, self.retain_ms);
        *self.latest.write().expect("nobody panics while holding it") = Some(Arc::new(announcement));
        self.changed.send_replace(moment.frontier);
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

    fn ask(&self, question: Question) -> BoxFuture<Option<Answer>> {
        self.series.ask(question)
    }

    fn cold(&self, video_id: String, event_type: String, starts: Range<EventTime>) -> BoxFuture<ColdRows> {
        let Some(cold) = self.cold.clone() else { return Box::pin(ready(Err(ColdError::Elsewhere))) };
        let read = tokio::task::spawn_blocking(move || cold.read(&video_id, &event_type, starts));
        Box::pin(async move {
            let rows = read.await.expect("a panic aborts the process");
            rows.map_err(ColdError::Failed)
        })
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
