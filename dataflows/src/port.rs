//! What the outside implements: inputs, formats, stores and sinks, as traits with their guarantees.

use std::{collections::HashSet, fmt, io, ops::ControlFlow, sync::Arc};

use serde::{Deserialize, Serialize};

use crate::{
    event::{Cause, Event},
    functions::stats::Stats,
    letter::DeadLetter,
    rollup::Width,
    time::EventTime,
};

/// An error from outside, kept as the source of ours.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// One partition of the input, numbered from 0.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PartitionId(pub u32);

/// One record of a partition, borrowed from its reader.
#[derive(Copy, Clone, Debug)]
pub struct Record<'a> {
    /// Its place in the partition; the next one's is greater, not always by one.
    pub offset: u64,
    /// When the log received it; plain files do not say.
    pub append_time: Option<EventTime>,
    /// Its key, if the log keeps one.
    pub key: Option<&'a [u8]>,
    /// Its headers, if the log keeps any.
    pub headers: Option<&'a dyn Headers>,
    /// Its bytes.
    pub payload: &'a [u8],
}

/// One header of a record: its name, and its value if it has one.
pub type Header = (String, Option<Vec<u8>>);

/// A record's headers, asked for only where a record is refused.
pub trait Headers {
    /// All of them, in order.
    fn list(&self) -> Vec<Header>;
}

impl fmt::Debug for dyn Headers + '_ {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.list().iter().map(|(name, _)| name)).finish()
    }
}

/// The last record before a cut of a partition: enough to tell whether the log still holds the same one there.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tail {
    /// Its offset.
    pub offset: u64,
    /// XXH3-64 of its payload, with its append time as the seed.
    pub hash: u64,
}

impl Tail {
    /// Describes a record.
    pub fn of(record: &Record<'_>) -> Self {
        let hash = xxhash_rust::xxh3::xxh3_64_with_seed(record.payload, record.append_time.unwrap_or(0));
        Self { offset: record.offset, hash }
    }
}

/// Where a read left its partition.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Reached {
    /// There may be more to read at once.
    More,
    /// The present end: more may be appended.
    End,
    /// Nothing is here now, which is no proof of an end: the log can't be asked, or has not answered yet.
    Waiting,
    /// The end for good: nothing will ever follow.
    Finished,
    /// Records that are gone were passed over, as told; nothing was visited.
    Passed(Passed),
}

/// Records that a partition has lost before they were read.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Passed {
    /// The first of their offsets.
    pub wanted: u64,
    /// The offset behind the last.
    pub first: u64,
}

/// Reads one partition in order.
///
/// * Never blocks: what is not there yet is [`Reached::End`] or [`Reached::Waiting`]; the latter while the log is away.
/// * Each record is visited once, in offset order, from the offset that the reader was opened at.
/// * A record whose visit breaks counts as visited; the next read goes on behind it.
/// * One read visits a bounded number of records (about a thousand).
pub trait PartitionReader {
    /// Which partition this is.
    fn partition(&self) -> PartitionId;

    /// The offset that the next visited record will have at the least.
    fn next_offset(&self) -> u64;

    /// Whether the log could be replaced behind our back, so that checkpoints keep the [`Tail`] of what was read.
    fn keeps_tail(&self) -> bool {
        false
    }

    /// Visits the next records until `visit` breaks or the batch is full.
    fn read(&mut self, visit: &mut dyn FnMut(Record<'_>) -> ControlFlow<()>) -> Result<Reached, SourceError>;
}

/// Why a partition can't be read on. All of them end the run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SourceError {
    /// The log no longer holds what the checkpoint says comes next: it was replaced or cut.
    #[error(
        "partition {} was replaced or truncated: offset {wanted} is wanted, the log holds {first} to {end}, {lost} records are lost",
        partition.0
    )]
    Replaced {
        /// The partition.
        partition: PartitionId,
        /// The next offset by the checkpoint.
        wanted: u64,
        /// The first offset that the log holds.
        first: u64,
        /// The offset behind the last that the log holds.
        end: u64,
        /// How many records are gone.
        lost: u64,
    },
    /// A record in the middle of the log does not have its checksum.
    #[error("partition {} is corrupt at offset {offset}: {what}", partition.0)]
    Corrupt {
        /// The partition.
        partition: PartitionId,
        /// The offset of the first bad record.
        offset: u64,
        /// What is wrong with it.
        what: String,
    },
    /// Reading failed.
    #[error("partition {} can't be read", partition.0)]
    Unreadable {
        /// The partition.
        partition: PartitionId,
        /// Why.
        #[source]
        cause: BoxError,
    },
}

/// A record format: bytes in, a well-formed event out.
///
/// The verdict depends on the bytes alone. Records over [`crate::event::RECORD_BYTES_MAX`] never get here.
pub trait Decode: Clone + 'static {
    /// Decodes one record, or says why it is malformed.
    fn decode<'a>(&self, payload: &'a [u8]) -> Result<Event<'a>, Cause>;
}

/// A clock that only goes forward. Time comes into the dataflow through it alone. It decides no count, but where quiet
/// partitions hold nobody back: there it lets windows become final.
pub trait Timer: 'static {
    /// Milliseconds since some fixed moment.
    fn monotonic_ms(&self) -> u64;

    /// Whether the wall clock shows `time`, more or less. Where nobody knows, time is taken for history.
    fn is_wall_clock_within(&self, _time: EventTime, _within_ms: u64) -> bool {
        false
    }
}

/// Names a checkpoint and everything written for it. Greater is newer.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Version {
    /// Claimed once at each start.
    pub generation: u64,
    /// Counted up within the history, over all generations.
    pub number: u64,
}

/// The absolute count of one window, as it was at one frontier.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct CountRow {
    /// How wide the window is.
    pub width: Width,
    /// Of which video.
    pub video_id: String,
    /// Of which event type.
    pub event_type: String,
    /// The window's first millisecond.
    pub window_start: EventTime,
    /// How many events.
    pub count: u64,
    /// The functions that are kept of it, if any.
    pub stats: Option<Stats>,
    /// Whether the watermark had reached the window's end.
    pub is_final: bool,
    /// The frontier at which this is true.
    pub as_of: EventTime,
}

/// Whose windows are read back from a sink.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct ColdSeries<'a> {
    /// Of which video.
    pub video_id: &'a str,
    /// Of which event type.
    pub event_type: &'a str,
    /// Whether with what functions are made of, or counts alone.
    pub functions: bool,
}

/// A window that has left memory, and so is final.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ColdWindow {
    /// Its first millisecond.
    pub start: EventTime,
    /// How many events.
    pub count: u64,
    /// What its functions are made of, where that was asked for and is kept.
    pub stats: Option<Stats>,
}

impl ColdWindow {
    /// Takes another window in, which begins no earlier.
    pub fn merge(&mut self, other: &Self) {
        self.count += other.count;
        match (&mut self.stats, &other.stats) {
            (Some(all), Some(stats)) => all.merge(stats),
            (None, Some(stats)) => self.stats = Some(stats.clone()),
            (_, None) => {}
        }
    }
}

/// What the windows of one video and event type in a range come to that have left memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ColdSum {
    /// Of which video.
    pub video_id: String,
    /// How many events; not 0.
    pub count: u64,
    /// The first window's first millisecond.
    pub first: EventTime,
    /// The last window's first millisecond.
    pub last: EventTime,
}

impl ColdSum {
    /// Of one window.
    pub fn of(video_id: String, start: EventTime, count: u64) -> Self {
        Self { video_id, count, first: start, last: start }
    }

    /// Takes another window of the video in.
    pub fn add(&mut self, start: EventTime, count: u64) {
        self.merge(&Self { video_id: String::new(), count, first: start, last: start });
    }

    /// Takes other windows of the same video in.
    pub fn merge(&mut self, other: &Self) {
        self.count += other.count;
        self.first = self.first.min(other.first);
        self.last = self.last.max(other.last);
    }
}

/// Who writes a sink, and how far: kept in the sink itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The history whose rows these are.
    pub history: u128,
    /// The generation that wrote last.
    pub generation: u64,
    /// The frontier of the newest rows.
    pub frontier: EventTime,
}

/// What a video is called and whose it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VideoLabel {
    /// Its name.
    pub name: Option<String>,
    /// Its channel.
    pub channel_id: Option<String>,
    /// The channel's name.
    pub channel_name: Option<String>,
}

/// What is known of videos now, whatever the frontier.
pub trait Labels: Send + Sync {
    /// All there is to say of a video; `None` where nothing is known of it.
    fn video(&self, video_id: &str) -> Option<VideoLabel>;
}

/// A durable table of window counts, keyed by `(width, video, event type, window)`.
///
/// * Absolute: a row replaces its predecessor, unless that one's version is greater; nothing is added up.
/// * Repeatable: after a restart the caller sends rows that are already there.
/// * `Ok` means durable. After `Err` any subset may be; the caller sends all rows again.
/// * Not promised: order between rows, atomicity across rows.
pub trait CountSink: Send {
    /// Who owns the table, or `None` where nobody has claimed it yet.
    fn claim(&mut self) -> Result<Option<Claim>, SinkError>;

    /// Takes the table over, or notes how far it has got. Durable when `Ok`; [`SinkError::Fenced`] where the claim of a
    /// greater generation or of another history is there. A generation only goes forward.
    fn set_claim(&mut self, claim: &Claim) -> Result<(), SinkError>;

    /// Whether rows of hours and days are wanted as well.
    fn wants_rollups(&self) -> bool {
        false
    }

    /// Names those to ask what videos are called. A sink that shows that asks at each write; others need not know.
    fn label_by(&mut self, _labels: Arc<dyn Labels>) {}

    /// Writes rows under a version: of minutes, and where rollups are wanted of hours and days.
    fn write(&mut self, version: Version, rows: &[CountRow]) -> Result<(), SinkError>;

    /// Removes the claim and all rows.
    fn clear(&mut self) -> Result<(), SinkError>;
}

/// Where dead letters go.
///
/// * Once: a version that was published before is skipped whole.
/// * `Ok` means durable; after `Err` the caller publishes the same letters under the same version again.
pub trait LetterSink: Send {
    /// Sees to it that, from here on, nobody else publishes for the same history, where another process could. Asked before a first checkpoint
    /// lets others know of a new history.
    fn own(&mut self) -> Result<(), SinkError> {
        Ok(())
    }

    /// The newest version that was published: one that is not greater would be taken for it, and skipped.
    fn newest(&mut self) -> Result<Option<Version>, SinkError>;

    /// The places of all records whose letters are published.
    fn published(&mut self) -> Result<HashSet<(PartitionId, u64)>, SinkError>;

    /// Publishes the letters of one checkpoint, all or none.
    fn publish(&mut self, version: Version, letters: &[DeadLetter]) -> Result<(), SinkError>;
}

/// Why a sink did not take what it was given.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SinkError {
    /// The sink said no, and would again: fix it or what is sent.
    #[error("{sink} refused {what}")]
    Refused {
        /// Which sink.
        sink: String,
        /// What it refused.
        what: String,
        /// Why.
        #[source]
        cause: BoxError,
    },
    /// Another owner has taken it over: this one is a zombie and must end.
    #[error("{sink} belongs to another owner now: {what}")]
    Fenced {
        /// Which sink.
        sink: String,
        /// Who owns it.
        what: String,
    },
    /// No answer, or one that leaves open what happened. Safe to repeat, by contract.
    #[error("{sink} did not take {what}")]
    Unanswered {
        /// Which sink.
        sink: String,
        /// What it was given.
        what: String,
        /// Why.
        #[source]
        cause: BoxError,
    },
}

/// Makes the bytes of a part while they are written. It may be asked more than once, and makes the same ones.
pub type WritePart<'a> = dyn FnMut(&mut dyn io::Write) -> io::Result<()> + 'a;

/// Where checkpoints live: parts, and the manifests that make them count.
///
/// * `Ok` from a write means durable, the name included.
/// * A manifest is created exclusively: of two writers of one version, one fails with [`StoreError::Taken`].
/// * Where a greater generation is claimed, a commit fails with [`StoreError::Fenced`], also one that is repeated because its
///   answer was lost: an owner claims before it lists, so it may not have seen what was committed meanwhile.
/// * A part may be overwritten only by the same bytes; names carry the version, so writers never share one.
/// * Bytes come back as they were written or not at all is NOT promised: callers verify checksums.
pub trait CheckpointStore: Send {
    /// Claims the next generation, exclusively. Greater than every generation that was ever claimed here, and than
    /// `above`: the greatest one that is known from elsewhere, since these checkpoints may be younger than the rows and letters.
    fn claim_generation(&mut self, above: u64) -> Result<u64, StoreError>;

    /// Writes a part under a name of ASCII letters, digits, `-` and `.`.
    fn write_part(&mut self, name: &str, write: &mut WritePart<'_>) -> Result<(), StoreError>;

    /// The same of bytes that are there.
    fn put_part(&mut self, name: &str, bytes: &[u8]) -> Result<(), StoreError> {
        self.write_part(name, &mut |out| out.write_all(bytes))
    }

    /// Writes a manifest: the commit of its checkpoint.
    fn commit(&mut self, version: Version, manifest: &[u8]) -> Result<(), StoreError>;

    /// The committed versions, ascending.
    fn manifests(&mut self) -> Result<Vec<Version>, StoreError>;

    /// Reads a manifest.
    fn manifest(&mut self, version: Version) -> Result<Vec<u8>, StoreError>;

    /// Reads a part.
    fn part(&mut self, name: &str) -> Result<Vec<u8>, StoreError>;

    /// Drops manifests other than `versions`, then parts other than `parts`, and leftovers of unfinished writes.
    fn retain(&mut self, versions: &[Version], parts: &[String]) -> Result<(), StoreError>;
}

/// Why a checkpoint store failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// It is there already: by another writer, or by an earlier try of this one whose answer was lost.
    #[error("{name} was already taken by another writer")]
    Taken {
        /// What was to be created.
        name: String,
    },
    /// A greater generation is claimed: this writer is a zombie and must end, whether or not the write is there.
    #[error("{name} belongs to another owner now, of a greater generation")]
    Fenced {
        /// What was to be changed.
        name: String,
    },
    /// It is not there.
    #[error("{name} is missing")]
    Missing {
        /// What was asked for.
        name: String,
    },
    /// The store failed; what was written may or may not be there.
    #[error("{name} can't be written or read")]
    Failed {
        /// What was being written or read.
        name: String,
        /// Why.
        #[source]
        cause: BoxError,
    },
}
