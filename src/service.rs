//! What the HTTP side asks of the rest: answers from the dataflow, and room in the log.

use std::{
    collections::HashMap,
    future::Future,
    ops::Range,
    pin::Pin,
    sync::{Arc, PoisonError, RwLock},
};

use dataflows::{
    announce::{Announcement, Moment},
    channels::{ChannelAnswer, ChannelQuestion},
    dimensions::Change,
    port::{BoxError, ColdSeries, ColdSum, ColdWindow, Labels, PartitionId, VideoLabel},
    query::{Answer, Question},
    rollup::Width,
    time::EventTime,
    top::{TopAnswer, TopQuestion},
};

pub use dataflows::announce::AsOfError;

/// A boxed future, since these traits are used as objects.
pub type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// Point-in-time answers.
pub trait Queries: Send + Sync + 'static {
    /// The newest announced frontier and what holds there; `None` until the first.
    fn latest(&self) -> Option<Arc<Announcement>>;

    /// Lowers `as_of` to the nearest announced frontier.
    fn lower(&self, as_of: EventTime) -> Result<Moment, AsOfError>;

    /// Answers one question at its `as_of`, which must be announced; in windows of the width where that saves some before `settled`, the
    /// watermark there, and in minutes where it does not. `None` where the dataflow has ended.
    fn ask(&self, question: Question, width: Width, settled: EventTime) -> BoxFuture<Option<Answer>>;

    /// Reads windows that have left memory.
    fn cold(&self, question: ColdQuestion) -> BoxFuture<ColdRows>;

    /// Sums up windows that have left memory, of every video.
    fn cold_sums(&self, question: ColdSumsQuestion) -> BoxFuture<ColdSums>;

    /// Makes a top list at its `as_of`, which must be announced. `None` where the dataflow has ended.
    fn top(&self, question: TopQuestion) -> BoxFuture<Option<TopAnswer>>;

    /// Answers one question about channels at its `as_of`, which must be announced. `None` where the dataflow has ended.
    fn channels(&self, question: ChannelQuestion) -> BoxFuture<Option<ChannelAnswer>>;

    /// Changes at each announcement; its value is the newest frontier.
    fn changes(&self) -> tokio::sync::watch::Receiver<EventTime>;
}

/// Asks for the windows of one video and event type that start within a range that has left memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ColdQuestion {
    pub video_id: String,
    pub event_type: String,
    pub starts: Range<EventTime>,
    /// Windows so wide will do where that saves some; minutes where it does not.
    pub width: Width,
    /// Whether with what functions are made of.
    pub functions: bool,
}

impl ColdQuestion {
    /// Whose windows.
    pub fn series(&self) -> ColdSeries<'_> {
        ColdSeries { video_id: &self.video_id, event_type: &self.event_type, functions: self.functions }
    }
}

/// Asks what the windows of each video come to that are of one event type and start within a range that has left memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ColdSumsQuestion {
    pub event_type: String,
    pub starts: Range<EventTime>,
}

/// Sums of windows that have left memory, ascending by video.
pub type ColdSums = Result<Vec<ColdSum>, ColdError>;

/// Windows that have left memory, ascending.
pub type ColdRows = Result<Vec<ColdWindow>, ColdError>;

/// Why windows that have left memory can't be read.
#[derive(Debug, thiserror::Error)]
pub enum ColdError {
    /// They are not within this process's reach.
    #[error("windows that have left memory are not in the reach of this process")]
    Elsewhere,
    /// Reading failed.
    #[error("windows that have left memory can't be read")]
    Failed(#[source] BoxError),
}

/// What has left memory.
pub trait Cold: Send + Sync + 'static {
    /// The windows asked for, ascending. Blocks.
    fn read(&self, question: &ColdQuestion) -> Result<Vec<ColdWindow>, BoxError>;

    /// The sums asked for, ascending by video. Blocks.
    fn sums(&self, question: &ColdSumsQuestion) -> Result<Vec<ColdSum>, BoxError>;
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
    /// The disk is full: nothing of the request is durable as far as is known.
    #[error("there is no room on the disk of the log")]
    NoRoom,
    /// The log can't be written: nothing of the request is durable as far as is known.
    #[error("the log can't be written: {0}")]
    Failed(String),
}

/// The way into the log.
pub trait Ingest: Send + Sync + 'static {
    /// Appends all entries. Ready once they are durable, with the next offset of each partition touched.
    fn append(&self, entries: Vec<Entry>) -> BoxFuture<Result<Vec<(PartitionId, u64)>, IngestError>>;
}

/// Judges a record at the door, by its bytes alone, as the dataflow will.
pub trait EventCheck: Send + Sync + 'static {
    /// The video id of a well-formed event, or the detail word ([`dataflows::event::Cause`]) of what is amiss.
    fn check(&self, payload: &[u8]) -> Result<String, &'static str>;
}

/// What is known of videos and channels, as of now: labels of answers, which no frontier has a say in.
#[derive(Default)]
pub struct Names(RwLock<Known>);

#[derive(Default)]
struct Known {
    videos: HashMap<String, VideoLabel>,
    channels: HashMap<String, String>,
}

impl Names {
    /// Takes changes in.
    pub fn apply(&self, changes: &[Change]) {
        let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
        for change in changes.iter().cloned() {
            match change {
                Change::Video { video_id, name: None, channel_id: None } => drop(known.videos.remove(&video_id)),
                Change::Video { video_id, name, channel_id } => {
                    known.videos.insert(video_id, VideoLabel { name, channel_id, channel_name: None });
                }
                Change::Channel { channel_id, name: None } => drop(known.channels.remove(&channel_id)),
                Change::Channel { channel_id, name: Some(name) } => drop(known.channels.insert(channel_id, name)),
            }
        }
    }

    /// The name of a channel.
    pub fn channel(&self, channel_id: &str) -> Option<String> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).channels.get(channel_id).cloned()
    }

    /// How many videos and channels there is something known of.
    pub fn counts(&self) -> (usize, usize) {
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
        (known.videos.len(), known.channels.len())
    }
}

impl Labels for Names {
    fn video(&self, video_id: &str) -> Option<VideoLabel> {
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let label = known.videos.get(video_id)?;
        let channel_name = label.channel_id.as_ref().and_then(|channel_id| known.channels.get(channel_id)).cloned();
        Some(VideoLabel { channel_name, ..label.clone() })
    }
}

/// How the process itself is doing: what no announcement can tell.
pub trait StatusSource: Send + Sync + 'static {
    /// The facts of this moment. Cheap: it is asked at every scrape.
    fn facts(&self) -> Facts;
}

/// What a [`StatusSource`] knows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// Since the process started, ms.
    pub uptime_ms: u64,
    /// Claimed at this start.
    pub generation: u64,
    /// The newest checkpoint that was committed or resumed from.
    pub last_checkpoint: Option<CheckpointFacts>,
    /// Checkpoints that failed since the start.
    pub checkpoints_failed: u64,
    /// How long ago each worker last went round its loop, ms, by worker number.
    pub heartbeat_ages_ms: Vec<u64>,
    /// What keeps the process from being ready, one sentence each; empty when all is well.
    pub degraded: Vec<String>,
    /// What holds the flow back now, in words.
    pub bottleneck: String,
}

/// One committed checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckpointFacts {
    /// Its number within the history.
    pub number: u64,
    /// Its frontier.
    pub frontier: EventTime,
    /// How long ago it was committed, ms.
    pub age_ms: u64,
    /// What was written for it, bytes.
    pub bytes: u64,
    /// From its frontier being reached to its commit, ms.
    pub duration_ms: u64,
}
