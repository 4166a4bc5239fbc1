//! The embedded log: partitioned, append-only, durable before it is seen or acknowledged.
//!
//! ```text
//! DIR/log.json                                the log's id, partition count, format version
//! DIR/lock                                    held by the process that appends
//! DIR/partition-0/00000000000000000000.log    a segment: records from offset 0 on, see frame.rs
//! DIR/partition-0/00000000000000418002.log    the next: the first one ends before 418002, whatever it holds behind that
//! ```
//!
//! One thread writes everything that waits, syncs it and then answers (group commit), so the cost of `fsync` is shared.
//!
//! Promised:
//! * What was acknowledged is durable; a reader sees a record only when it is. Offsets have no gaps.
//! * Append times never go back, over all partitions and restarts, whatever the wall clock does.
//! * After a failed write or `fsync` the file is never touched again, and the log goes on in a new one.
//! * Opening cuts an unfinished record off the end. Damage before the end is never skipped: [`LogError::Corrupt`].
//!
//! Not promised:
//! * A batch that failed may be there in part: in the partitions that did not fail.
//! * Segments before the last are not checked at opening but as they are read; [`LogView::verify`] checks them at once.
//! * Old segments are never removed.

use std::{
    fs::{DirBuilder, File, TryLockError},
    io,
    ops::Deref,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    sync::Arc,
    thread::{self, JoinHandle},
};

use dataflows::port::{PartitionId, SourceError};

mod disk;
mod frame;
mod manifest;
mod partition;
mod queue;
mod reader;
mod recover;
mod segment;
#[cfg(test)]
mod tests;
mod writer;

use disk::{Disk, FileSystem};
use manifest::Manifest;
use partition::Partition;
use queue::{Pushed, Queue};
use writer::{Tail, Writer};

pub use frame::RECORD_BYTES_MAX;
pub use queue::{QUEUE_BATCHES_MAX, QUEUE_BYTES_MAX};
pub use reader::{LogReader, READ_BYTES_MAX, READ_RECORDS_MAX};

/// A segment that has grown to this is followed by a new one, bytes. Opening reads one segment per partition, and a
/// reader that starts in the middle reads up to there: both take a fraction of a second.
const SEGMENT_BYTES_MAX: u64 = 128 << 20;

/// Folders that only their owner enters.
const FOLDER_MODE: u32 = 0o700;

/// A record to be appended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewRecord {
    /// Which partition, by number.
    pub partition: u32,
    /// Its key, if it has one.
    pub key: Option<Vec<u8>>,
    /// Its bytes.
    pub payload: Vec<u8>,
}

/// Is told what an append came to: for each partition that the batch touched, by number, the offset behind the batch's
/// last record there. Runs on the writer's thread, so it must be quick, and must not drop the log.
pub type Done = Box<dyn FnOnce(Result<Vec<(PartitionId, u64)>, AppendError>) + Send>;

/// Why a batch was not acknowledged.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AppendError {
    /// The log is closed. Nothing was written.
    #[error("the log is closed")]
    Closed,
    /// A record names a partition that is not there. Nothing was written.
    #[error("partition {wanted} is not one of {partitions}")]
    NoSuchPartition {
        /// The one it names.
        wanted: u32,
        /// How many there are.
        partitions: u32,
    },
    /// A record is over [`RECORD_BYTES_MAX`]. Nothing was written.
    #[error("a record of {bytes} bytes is over {RECORD_BYTES_MAX}")]
    TooLarge {
        /// Its key and payload.
        bytes: usize,
    },
    /// The disk failed; its `kind` tells a full one. What the batch has in other partitions may be there, so the caller
    /// sends all of it again.
    #[error("partition {} can't be appended to", partition.0)]
    Failed {
        /// The first partition that failed in this group.
        partition: PartitionId,
        /// Why.
        #[source]
        cause: Arc<io::Error>,
    },
}

/// The queue has no room: the batch comes back, to be tried again later.
#[derive(thiserror::Error)]
#[error("the log's queue is full")]
pub struct Full {
    /// As it was given.
    pub batch: Vec<NewRecord>,
    /// As it was given, not called.
    pub done: Done,
}

impl std::fmt::Debug for Full {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Full").field("records", &self.batch.len()).finish_non_exhaustive()
    }
}

/// Why a log can't be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LogError {
    /// Another process appends to it.
    #[error("the log {dir:?} belongs to another process")]
    Owned {
        /// The log.
        dir: PathBuf,
    },
    /// It has another number of partitions, which is fixed when a log is made.
    #[error("the log {dir:?} has {held} partitions, not {wanted}; the number can't be changed")]
    Partitions {
        /// The log.
        dir: PathBuf,
        /// As configured.
        wanted: u32,
        /// As it is.
        held: u32,
    },
    /// There is no log.
    #[error("{dir:?} holds no log")]
    Missing {
        /// Where it was looked for.
        dir: PathBuf,
    },
    /// The file that says what the log is can't be understood, or is missing although there are records.
    #[error("the log's {path:?} is not usable: {what}")]
    Manifest {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// A record before the end does not have its checksum: history is damaged.
    #[error("partition {} is corrupt at offset {offset}, in {path:?}: {what}", partition.0)]
    Corrupt {
        /// The partition.
        partition: PartitionId,
        /// The offset of the first bad record.
        offset: u64,
        /// The segment.
        path: PathBuf,
        /// What is wrong there.
        what: String,
    },
    /// The file system failed.
    #[error("{path:?} can't be read or written")]
    Io {
        /// What was being read or written.
        path: PathBuf,
        /// Why.
        #[source]
        cause: io::Error,
    },
}

impl LogError {
    fn io(path: &Path) -> impl FnOnce(io::Error) -> Self {
        |cause| LogError::Io { path: path.to_owned(), cause }
    }
}

/// The reading side of a log. Cheap to clone; outlives the [`Log`], whose end then stays where it was.
#[derive(Clone)]
pub struct LogView {
    id: u128,
    partitions: Arc<[Arc<Partition>]>,
}

impl LogView {
    /// Drawn when the log was made. Another id: another log, whatever its offsets.
    pub fn id(&self) -> u128 {
        self.id
    }

    /// How many partitions there are.
    pub fn partitions(&self) -> u32 {
        self.partitions.len() as u32
    }

    /// The first offset that each partition holds.
    pub fn first_offsets(&self) -> Vec<u64> {
        self.partitions.iter().map(|partition| partition.first()).collect()
    }

    /// The offset behind the last durable record of each partition.
    pub fn end_offsets(&self) -> Vec<u64> {
        self.partitions.iter().map(|partition| partition.end()).collect()
    }

    /// Reads a partition from an offset on, and on as it grows.
    pub fn reader(&self, partition: PartitionId, from: u64) -> Result<LogReader, SourceError> {
        LogReader::new(self.partition(partition)?, from, None)
    }

    /// Reads a partition from an offset up to another one (exclusive), where it is finished.
    pub fn reader_until(&self, partition: PartitionId, from: u64, end_offset: u64) -> Result<LogReader, SourceError> {
        LogReader::new(self.partition(partition)?, from, Some(end_offset))
    }

    /// Checks every record before the last segments, which were checked at opening. Reads the whole log.
    pub fn verify(&self) -> Result<(), LogError> {
        self.partitions.iter().try_for_each(|partition| recover::verify(partition))
    }

    fn partition(&self, id: PartitionId) -> Result<Arc<Partition>, SourceError> {
        let partition = self.partitions.get(id.0 as usize).cloned();
        partition.ok_or_else(|| SourceError::Unreadable {
            partition: id,
            cause: format!("the log has {} partitions", self.partitions()).into(),
        })
    }
}

/// Hands batches to the writer. Cheap to clone.
#[derive(Clone)]
pub struct Appender {
    queue: Arc<Queue>,
    partitions: u32,
}

impl Appender {
    /// Queues a batch. `done` is called once: by the writer when the batch is durable or has failed, or at once for a
    /// batch that can't be written at all. Never blocks on the disk. Batches of one caller are written in order.
    pub fn append(&self, batch: Vec<NewRecord>, done: Done) -> Result<(), Full> {
        if let Err(error) = batch.iter().try_for_each(|record| self.check(record)) {
            done(Err(error));
            return Ok(());
        }
        match self.queue.push(batch, done) {
            Pushed::Taken => {}
            Pushed::Full(full) => return Err(full),
            Pushed::Closed(done) => done(Err(AppendError::Closed)),
        }
        Ok(())
    }

    fn check(&self, record: &NewRecord) -> Result<(), AppendError> {
        let bytes = record.key.as_ref().map_or(0, Vec::len) + record.payload.len();
        if self.partitions <= record.partition {
            return Err(AppendError::NoSuchPartition { wanted: record.partition, partitions: self.partitions });
        }
        if RECORD_BYTES_MAX < bytes {
            return Err(AppendError::TooLarge { bytes });
        }
        Ok(())
    }
}

/// A log that this process owns: it appends, and reads as [`LogView`] does.
pub struct Log {
    view: LogView,
    queue: Arc<Queue>,
    writer: Option<JoinHandle<()>>,
    /// Locked while the log is open.
    _lock: File,
}

impl Deref for Log {
    type Target = LogView;

    fn deref(&self) -> &LogView {
        &self.view
    }
}

impl Log {
    /// Opens the log in `dir`, or makes one. `now_ms` is the wall clock, ms since the epoch.
    pub fn open(dir: &Path, partitions: u32, now_ms: impl Fn() -> u64 + Send + 'static) -> Result<Self, LogError> {
        Self::open_with(dir, partitions, Box::new(now_ms), Box::new(FileSystem), SEGMENT_BYTES_MAX)
    }

    /// Opens a log to read what it holds now, without changing anything, also while another process appends to it.
    pub fn open_read_only(dir: &Path) -> Result<LogView, LogError> {
        let manifest = Manifest::read(dir)?.ok_or_else(|| LogError::Missing { dir: dir.to_owned() })?;
        let looked = look_at_all(dir, manifest)?;
        Ok(LogView { id: manifest.id, partitions: looked.into_iter().map(|(partition, _)| partition).collect() })
    }

    /// The writing side.
    pub fn appender(&self) -> Appender {
        Appender { queue: Arc::clone(&self.queue), partitions: self.view.partitions() }
    }

    /// The reading side.
    pub fn view(&self) -> LogView {
        self.view.clone()
    }

    /// Writes what waits, answers, and lets go of the log. So does dropping it.
    pub fn close(self) {}

    fn open_with(
        dir: &Path,
        partitions: u32,
        now_ms: Box<dyn Fn() -> u64 + Send>,
        disk: Box<dyn Disk>,
        segment_bytes_max: u64,
    ) -> Result<Self, LogError> {
        assert!(0 < partitions, "a log has a partition");
        make_folder(dir)?;
        let lock = own(dir)?;
        let manifest = find_or_make(dir, partitions)?;
        let looked = look_at_all(dir, manifest)?;
        let mut tails = Vec::new();
        for (partition, found) in &looked {
            tails.push(recover_tail(partition, found, &*disk)?);
        }
        let append_ms = looked.iter().map(|(_, found)| found.append_ms).max().unwrap_or(0);
        let view =
            LogView { id: manifest.id, partitions: looked.into_iter().map(|(partition, _)| partition).collect() };
        let queue = Arc::new(Queue::default());
        let writer = Writer { queue: Arc::clone(&queue), disk, tails, segment_bytes_max, now_ms, append_ms };
        let writer = thread::Builder::new().name("log-writer".into()).spawn(|| writer.run());
        let writer = writer.map_err(LogError::io(dir))?;
        Ok(Self { view, queue, writer: Some(writer), _lock: lock })
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        self.queue.close();
        let ended = self.writer.take().map(JoinHandle::join);
        assert!(thread::panicking() || matches!(ended, Some(Ok(()))), "the log's writer panicked");
    }
}

/// Makes a folder, if it is not there, so that it stays.
fn make_folder(path: &Path) -> Result<(), LogError> {
    let make = || {
        DirBuilder::new().recursive(true).mode(FOLDER_MODE).create(path)?;
        disk::sync_folder(path.parent().unwrap_or(path))
    };
    make().map_err(LogError::io(path))
}

/// Keeps other processes from appending, until the file is dropped.
fn own(dir: &Path) -> Result<File, LogError> {
    let path = dir.join("lock");
    let lock = disk::open_lock(&path).map_err(LogError::io(&path))?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(LogError::Owned { dir: dir.to_owned() }),
        Err(TryLockError::Error(cause)) => Err(LogError::Io { path, cause }),
    }
}

/// Reads what the log is, or makes a new one. The manifest comes last: with it, all folders are there.
fn find_or_make(dir: &Path, partitions: u32) -> Result<Manifest, LogError> {
    if let Some(manifest) = Manifest::read(dir)? {
        if manifest.partitions != partitions {
            return Err(LogError::Partitions { dir: dir.to_owned(), wanted: partitions, held: manifest.partitions });
        }
        return Ok(manifest);
    }
    for id in ids(partitions) {
        let folder = partition::folder(dir, id);
        make_folder(&folder)?;
        if !partition::list_bases(&folder).map_err(LogError::io(&folder))?.is_empty() {
            let what = format!("it is missing, but {folder:?} holds records");
            return Err(LogError::Manifest { path: Manifest::path(dir), what });
        }
    }
    let manifest = Manifest::draw(partitions).map_err(LogError::io(dir))?;
    manifest.write(dir)?;
    Ok(manifest)
}

fn ids(partitions: u32) -> impl Iterator<Item = PartitionId> {
    (0..partitions).map(PartitionId)
}

/// Finds what each partition holds, without changing anything.
fn look_at_all(dir: &Path, manifest: Manifest) -> Result<Vec<(Arc<Partition>, recover::Found)>, LogError> {
    let look = |id| {
        let folder = partition::folder(dir, id);
        let bases = partition::list_bases(&folder).map_err(LogError::io(&folder))?;
        let found = recover::look(id, &folder, &bases)?;
        Ok((Arc::new(Partition::new(id, folder, bases, found.end)), found))
    };
    ids(manifest.partitions).map(look).collect()
}

/// Cuts a torn tail and opens the last segment to write on.
fn recover_tail(partition: &Arc<Partition>, found: &recover::Found, disk: &dyn Disk) -> Result<Tail, LogError> {
    let Some(last) = found.last else {
        return Ok(Tail::new(Arc::clone(partition), None));
    };
    let path = partition.path(last.base);
    recover::cut(partition.id, &path, last)?;
    let file = disk.append_to(&path).map_err(LogError::io(&path))?;
    Ok(Tail::new(Arc::clone(partition), Some((file, last.good_bytes))))
}
