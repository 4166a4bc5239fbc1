//! Is the log still the one that was read?
//!
//! Three things are asked, and the first that is amiss ends it: does the log still hold the next offset (or may what it has
//! lost be passed over), does it reach as far, and is the last record that was read (its tail) still the same one. A tail
//! that is gone by retention or compaction proves nothing: there the topic's id decides, which the caller compares.

use std::time::{Duration, Instant};

use dataflows::port::{PartitionId, Record, SourceError, Tail};
use rdkafka::{Offset, TopicPartitionList, consumer::Consumer, types::RDKafkaErrorCode};

use super::{
    error::Fault,
    native::{Message, PartitionQueue, Place},
    topic::Shared,
};

/// How long what is at an offset may take to come. A new consumer takes half a second.
const LOOK_LIMIT: Duration = Duration::from_secs(15);

/// A topic must be gone for this long: a broker that starts knows none for a moment.
const GONE_FOR: Duration = Duration::from_secs(3);

/// Between two questions.
const ASK_AGAIN: Duration = Duration::from_millis(500);

/// What is to be found again.
#[derive(Copy, Clone, Debug)]
pub struct Wanted {
    pub partition: PartitionId,
    pub next_offset: u64,
    pub tail: Option<Tail>,
}

/// Why a check did not pass.
pub enum Failed {
    /// The log is another one, or is cut.
    Replaced(SourceError),
    /// The brokers did not say.
    Unknown(Fault),
}

impl From<Fault> for Failed {
    fn from(fault: Fault) -> Self {
        Self::Unknown(fault)
    }
}

impl Wanted {
    fn replaced(&self, first: u64, end: u64, lost: u64) -> Failed {
        let (partition, wanted) = (self.partition, self.next_offset);
        Failed::Replaced(SourceError::Replaced { partition, wanted, first, end, lost })
    }

    /// Checks the partition as it is now, whatever topic it belongs to; gives the offset to go on at.
    pub fn check(&self, shared: &Shared) -> Result<u64, Failed> {
        let (first, end) = self.bounds(shared)?;
        if self.next_offset < first && !shared.passing.gaps {
            return Err(self.replaced(first, end, first - self.next_offset));
        }
        if end < self.next_offset {
            return Err(self.replaced(first, end, self.next_offset - end));
        }
        let go_on = self.next_offset.max(first);
        let Some(tail) = self.tail.filter(|tail| first <= tail.offset) else { return Ok(go_on) };
        match fetch_tail(shared, self.partition, tail.offset)? {
            Found::Record(found) if found == tail => Ok(go_on),
            Found::Behind => Ok(go_on),
            // How many records before it are others can't be known, so all that the log still holds are called lost.
            Found::Record(_) | Found::Nothing => Err(self.replaced(first, end, self.next_offset - first)),
        }
    }

    /// Checks while the topic is being read: it must also be the one that was opened.
    pub fn check_identity(&self, shared: &Shared, unwanted: &dyn Fn() -> bool) -> Result<u64, Failed> {
        let start = Instant::now();
        loop {
            match shared.describe(unwanted) {
                Ok(found) if found.id == shared.id => return self.check(shared),
                Ok(_) => return Err(self.another(shared)?),
                Err(fault) if fault.is_unknown_topic() && GONE_FOR <= start.elapsed() => {
                    return Err(self.replaced(0, 0, self.next_offset));
                }
                Err(fault) if fault.is_unknown_topic() && !unwanted() => std::thread::sleep(ASK_AGAIN),
                Err(fault) => return Err(fault.into()),
            }
        }
    }

    /// The topic was made anew.
    fn another(&self, shared: &Shared) -> Result<Failed, Fault> {
        let (first, end) = match self.bounds(shared) {
            Ok(bounds) => bounds,
            Err(fault) if fault.is_unknown_topic() => (0, 0),
            Err(fault) => return Err(fault),
        };
        let lost = if self.next_offset < first {
            first - self.next_offset
        } else if end < self.next_offset {
            self.next_offset - end
        } else {
            self.next_offset - first
        };
        Ok(self.replaced(first, end, lost))
    }

    fn bounds(&self, shared: &Shared) -> Result<(u64, u64), Fault> {
        let ask = |place| shared.offsets_of(&[self.partition.0], place, &|| false).map(|offsets| offsets[0]);
        Ok((ask(Place::First)?, ask(Place::High)?))
    }
}

enum Found {
    /// The record at the offset.
    Record(Tail),
    /// None at the offset, but one behind it.
    Behind,
    /// None at the offset or behind it.
    Nothing,
}

/// Fetches one record.
fn fetch_tail(shared: &Shared, partition: PartitionId, offset: u64) -> Result<Found, Fault> {
    look_at(shared, partition, offset, |message| match (message.event(), message.offset()) {
        (None, Some(found)) if found == offset => {
            let append_time = message.append_time();
            let record = Record { offset, append_time, key: None, headers: None, payload: message.payload() };
            Ok(Some(Found::Record(Tail::of(&record))))
        }
        (None, Some(found)) if offset < found => Ok(Some(Found::Behind)),
        (None, _) => Ok(None),
        (Some(event), _) if event.is(RDKafkaErrorCode::PartitionEOF) => Ok(Some(Found::Nothing)),
        (Some(event), _) if event.is_transient() => Ok(None),
        (Some(event), _) => Err(event),
    })
}

/// Reads from an offset on with a consumer of its own, until a message says what is wanted.
pub fn look_at<T>(
    shared: &Shared,
    partition: PartitionId,
    offset: u64,
    mut says: impl FnMut(&Message<'_>) -> Result<Option<T>, Fault>,
) -> Result<T, Fault> {
    let mut queue = open_queue(shared, partition, offset)?;
    let start = Instant::now();
    while start.elapsed() < LOOK_LIMIT {
        queue.fill();
        while let Some(message) = queue.take() {
            if let Some(said) = says(&message)? {
                return Ok(said);
            }
        }
        queue.consumer().poll(Duration::from_millis(5));
    }
    let what = format!("nothing came from offset {offset} of partition {} on", partition.0);
    Err(Fault::new(RDKafkaErrorCode::OperationTimedOut, what))
}

/// A consumer of one partition, from an offset on.
pub fn open_queue(shared: &Shared, partition: PartitionId, offset: u64) -> Result<PartitionQueue, Fault> {
    let queue = PartitionQueue::new(shared.consumer()?, &shared.name, partition.0)?;
    assign(&queue, shared, partition, offset)?;
    Ok(queue)
}

/// Lets a consumer read from an offset on, wherever it was.
pub fn assign(queue: &PartitionQueue, shared: &Shared, partition: PartitionId, offset: u64) -> Result<(), Fault> {
    let invalid = |what: &str| Fault::new(RDKafkaErrorCode::InvalidArgument, what);
    let number = i32::try_from(partition.0).map_err(|_| invalid("no partition has such a number"))?;
    let offset = i64::try_from(offset).map_err(|_| invalid("no record has such an offset"))?;
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(&shared.name, number, Offset::Offset(offset))?;
    queue.consumer().assign(&list)?;
    Ok(())
}
