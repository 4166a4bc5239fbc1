//! Group commit: one thread writes all that waits, syncs it, shows it to readers, then answers.
//!
//! Invariant, per partition: published end <= what is durable <= what is written. A file whose write or sync failed
//! is dropped; the next one begins at the published end, so what the failed one holds behind it is out of the log.

use std::{io, sync::Arc};

use dataflows::port::PartitionId;

use super::{
    AppendError, NewRecord,
    disk::{Disk, SegmentFile},
    frame::Frame,
    partition::Partition,
    queue::{Entry, Queue},
};

/// A write buffer that grew beyond this for one large group is let go of, bytes.
const BUFFER_BYTES_KEPT: usize = 4 << 20;

/// What an append comes to: the next offset (exclusive) of each partition that it touched.
type Appended = Result<Vec<(PartitionId, u64)>, AppendError>;

/// The writer thread's state.
pub struct Writer {
    pub queue: Arc<Queue>,
    pub disk: Box<dyn Disk>,
    pub tails: Vec<Tail>,
    pub segment_bytes_max: u64,
    pub now_ms: Box<dyn Fn() -> u64 + Send>,
    /// Of the whole log; the next one is not less.
    pub append_ms: u64,
}

impl Writer {
    /// Writes until the queue is closed and empty.
    pub fn run(mut self) {
        while let Some(group) = self.queue.take() {
            let (bytes, batches) = group.room();
            let answers = self.commit(group.entries);
            self.queue.release(bytes, batches);
            for (done, answer) in answers {
                done(answer);
            }
        }
    }

    fn commit(&mut self, entries: Vec<Entry>) -> Vec<(super::Done, Appended)> {
        self.append_ms = self.append_ms.max((self.now_ms)());
        let mut answers = Vec::with_capacity(entries.len());
        for Entry { batch, done } in entries {
            answers.push((done, Ok(self.encode(batch))));
        }
        if let Err(error) = self.write_and_sync() {
            for (_, answer) in &mut answers {
                *answer = Err(error.clone());
            }
        }
        answers
    }

    fn encode(&mut self, batch: Vec<NewRecord>) -> Vec<(PartitionId, u64)> {
        let mut ends: Vec<(PartitionId, u64)> = Vec::new();
        for record in batch {
            let tail = &mut self.tails[record.partition as usize];
            tail.encode(&record, self.append_ms);
            let id = tail.partition.id;
            match ends.iter_mut().find(|(partition, _)| *partition == id) {
                Some((_, end)) => *end = tail.next_offset,
                None => ends.push((id, tail.next_offset)),
            }
        }
        ends.sort_unstable();
        ends
    }

    /// Writes all, then syncs all: the first sync often carries the others' metadata along. The partitions that succeed
    /// go on even if another fails: their records are durable, and no one was told otherwise.
    fn write_and_sync(&mut self) -> Result<(), AppendError> {
        let Self { tails, disk, segment_bytes_max, .. } = self;
        let mut first_failure = Ok(());
        let mut written: Vec<&mut Tail> = Vec::new();
        for tail in tails.iter_mut().filter(|tail| !tail.frames.is_empty()) {
            match tail.write(&**disk, *segment_bytes_max) {
                Ok(()) => written.push(tail),
                Err(cause) => first_failure = first_failure.and(Err(tail.give_up(&**disk, cause))),
            }
        }
        for tail in written {
            match tail.sync() {
                Ok(()) => {}
                Err(cause) => first_failure = first_failure.and(Err(tail.give_up(&**disk, cause))),
            }
        }
        first_failure
    }
}

/// Where a partition is written on.
pub struct Tail {
    partition: Arc<Partition>,
    /// The segment and its length. `None` before the first record and after a failure.
    file: Option<(Box<dyn SegmentFile>, u64)>,
    /// The group's frames, until they are synced.
    frames: Vec<u8>,
    /// Behind the last of them.
    next_offset: u64,
}

impl Tail {
    pub fn new(partition: Arc<Partition>, file: Option<(Box<dyn SegmentFile>, u64)>) -> Self {
        let next_offset = partition.end();
        Self { partition, file, frames: Vec::new(), next_offset }
    }

    fn encode(&mut self, record: &NewRecord, append_ms: u64) {
        let NewRecord { key, payload, .. } = record;
        Frame { offset: self.next_offset, append_ms, key: key.as_deref(), payload }.encode(&mut self.frames);
        self.next_offset += 1;
    }

    fn write(&mut self, disk: &dyn Disk, segment_bytes_max: u64) -> io::Result<()> {
        if self.file.as_ref().is_none_or(|(_, bytes)| segment_bytes_max <= *bytes) {
            self.roll(disk)?;
        }
        let (file, bytes) = self.file.as_mut().expect("rolled above");
        let written = file.write_all(&self.frames);
        *bytes += self.frames.len() as u64;
        if written.is_err() {
            self.file = None;
        }
        written
    }

    fn sync(&mut self) -> io::Result<()> {
        let (file, _) = self.file.as_mut().expect("written before it is synced");
        let synced = file.sync_data();
        match &synced {
            Ok(()) => self.partition.publish(self.next_offset),
            Err(_) => self.file = None,
        }
        self.clear();
        synced
    }

    /// Begins a segment at the published end.
    fn roll(&mut self, disk: &dyn Disk) -> io::Result<()> {
        let base = self.partition.end();
        let file = disk.create(&self.partition.path(base))?;
        self.partition.add_segment(base);
        self.file = Some((file, 0));
        Ok(())
    }

    /// Takes the group's records back. Seals a failed file at once, if that works, so that a restart does not
    /// find the records that nobody was promised; else the next group tries again.
    fn give_up(&mut self, disk: &dyn Disk, cause: io::Error) -> AppendError {
        self.clear();
        self.next_offset = self.partition.end();
        let partition = self.partition.id;
        tracing::error!(partition = partition.0, error = %cause, "records can't be appended");
        if self.file.is_none()
            && let Err(error) = self.roll(disk)
        {
            tracing::error!(partition = partition.0, %error, "a new segment can't be made yet");
        }
        AppendError::Failed { partition, cause: Arc::new(cause) }
    }

    fn clear(&mut self) {
        self.frames.clear();
        self.frames.shrink_to(BUFFER_BYTES_KEPT);
    }
}
