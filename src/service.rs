//! What the HTTP side asks of the rest: answers from the dataflow, and room in the log.

use std::{future::Future, pin::Pin, sync::Arc};

use dataflows::{
    announce::Announcement,
    port::PartitionId,
    query::{Answer, Question},
    time::EventTime,
};

/// A boxed future, since these traits are used as objects.
pub type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// Why an `as_of` can't be answered.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum AsOfError {
    /// It lies ahead of the newest announced frontier.
    Ahead {
        /// The newest frontier.
        frontier: EventTime,
    },
    /// It lies before what is retained, or before this start.
    Gone {
        /// The oldest frontier that can be answered.
        oldest: EventTime,
    },
}

/// Point-in-time answers.
pub trait Queries: Send + Sync + 'static {
    /// The newest announced frontier and what holds there; `None` until the first.
    fn latest(&self) -> Option<Arc<Announcement>>;

    /// Lowers `as_of` to the nearest announced frontier; gives it with its watermark.
    fn lower(&self, as_of: EventTime) -> Result<(EventTime, EventTime), AsOfError>;

    /// Answers one question at its `as_of`, which must be announced. `None` where the dataflow has ended.
    fn ask(&self, question: Question) -> BoxFuture<Option<Answer>>;

    /// Changes at each announcement; its value is the newest frontier.
    fn changes(&self) -> tokio::sync::watch::Receiver<EventTime>;
}

/// One event on its way into the log: already judged well-formed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The video id, which is the record's key and decides its partition.
    pub key: String,
    /// The record's bytes.
    pub payload: Vec<u8>,
}

/// Why entries were not taken.
#[derive(Debug, thiserror::Error)]
pub enum IngestError {
    /// The log's queue is full: try again later.
    #[error("the log is busy")]
    Busy,
    /// The log can't be written: nothing of the request is durable as far as is known.
    #[error("the log can't be written: {0}")]
    Failed(String),
}

/// The way into the log.
pub trait Ingest: Send + Sync + 'static {
    /// Appends all entries. Ready once they are durable, with the next offset of each partition touched.
    fn append(&self, entries: Vec<Entry>) -> BoxFuture<Result<Vec<(PartitionId, u64)>, IngestError>>;
}
