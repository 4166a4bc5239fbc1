//! Reads the durable records of one partition.

use std::{io, ops::ControlFlow, sync::Arc};

use dataflows::port::{PartitionId, PartitionReader, Reached, Record, SourceError};

use super::{
    frame::Frame,
    partition::Partition,
    segment::{Segment, Step},
};

/// How many records one read visits at the most.
pub const READ_RECORDS_MAX: usize = 1_024;

/// A read stops behind the record that takes it here, bytes of keys and payloads.
pub const READ_BYTES_MAX: usize = 1 << 20;

/// A place in one partition of the log.
pub struct LogReader {
    partition: Arc<Partition>,
    next_offset: u64,
    /// Where it ends for good, if it does.
    until: Option<u64>,
    /// Below this, what was read ahead is what is durable. Behind it, a writer may still have been at work.
    trusted_end: u64,
    open: Option<Open>,
}

/// The segment that holds the next record.
struct Open {
    segment: Segment,
    base: u64,
    next_base: Option<u64>,
}

impl LogReader {
    pub(super) fn new(partition: Arc<Partition>, from: u64, until: Option<u64>) -> Result<Self, SourceError> {
        let (first, end) = (partition.first(), partition.end());
        let replaced =
            |wanted: u64, lost: u64| SourceError::Replaced { partition: partition.id, wanted, first, end, lost };
        let furthest = until.map_or(from, |until| until.max(from));
        if from < first {
            return Err(replaced(from, first - from));
        }
        if end < furthest {
            return Err(replaced(furthest, furthest - end));
        }
        Ok(Self { partition, next_offset: from, until, trusted_end: from, open: None })
    }

    /// Takes a new durable end: what was read ahead behind the old one is forgotten, and a segment may have begun there.
    fn trust(&mut self, end: u64) {
        self.trusted_end = end;
        if let Some(Open { segment, base, next_base }) = &mut self.open {
            segment.discard();
            *next_base = self.partition.segment_of(*base).and_then(|(_, next_base)| next_base);
        }
    }

    /// The segment that holds the next record, at its place. The record is below `trusted_end`.
    fn segment(&mut self) -> Result<&mut Segment, SourceError> {
        let next_offset = self.next_offset;
        let is_behind = |open: &Open| open.next_base.is_some_and(|next_base| next_base <= next_offset);
        if self.open.as_ref().is_none_or(is_behind) {
            let id = self.partition.id;
            let (base, next_base) =
                self.partition.segment_of(next_offset).expect("a durable record is in a listed segment");
            let mut segment = Segment::open(&self.partition.path(base)).map_err(|error| unreadable(id, error))?;
            for offset in base..next_offset {
                good(id, offset, segment.next(offset))?;
            }
            self.open = Some(Open { segment, base, next_base });
        }
        Ok(&mut self.open.as_mut().expect("opened above").segment)
    }
}

impl PartitionReader for LogReader {
    fn partition(&self) -> PartitionId {
        self.partition.id
    }

    fn next_offset(&self) -> u64 {
        self.next_offset
    }

    fn read(&mut self, visit: &mut dyn FnMut(Record<'_>) -> ControlFlow<()>) -> Result<Reached, SourceError> {
        let id = self.partition.id;
        let durable = self.partition.end();
        if self.trusted_end <= self.next_offset {
            self.trust(durable);
        }
        let end = self.until.unwrap_or(durable);
        let (mut records, mut bytes) = (0, 0);
        while self.next_offset < end.min(self.trusted_end) && records < READ_RECORDS_MAX && bytes < READ_BYTES_MAX {
            let offset = self.next_offset;
            let Frame { append_ms, key, payload, .. } = good(id, offset, self.segment()?.next(offset))?;
            records += 1;
            bytes += key.map_or(0, <[u8]>::len) + payload.len();
            let flow = visit(Record { offset, append_time: Some(append_ms), key, headers: None, payload });
            self.next_offset += 1;
            if flow.is_break() {
                break;
            }
        }
        Ok(match self.until {
            Some(until) if until <= self.next_offset => Reached::Finished,
            None if durable <= self.next_offset => Reached::End,
            _ => Reached::More,
        })
    }
}

/// Below the durable end, anything but the expected frame is damage.
fn good(partition: PartitionId, offset: u64, step: io::Result<Step<'_>>) -> Result<Frame<'_>, SourceError> {
    match step.map_err(|error| unreadable(partition, error))? {
        Step::Frame(frame) => Ok(frame),
        step => Err(SourceError::Corrupt { partition, offset, what: step.fault() }),
    }
}

fn unreadable(partition: PartitionId, cause: io::Error) -> SourceError {
    SourceError::Unreadable { partition, cause: cause.into() }
}
