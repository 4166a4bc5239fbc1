//! A partition in memory: the twin of [`crate::embedded::log`] for tests.

use std::{
    ops::ControlFlow,
    sync::{Arc, Mutex, MutexGuard},
};

use dataflows::{
    port::{PartitionId, PartitionReader, Reached, Record, SourceError},
    time::EventTime,
};

/// As many records as the embedded log's reader visits.
const READ_RECORDS_MAX: usize = 1_024;

/// One partition. Clones share its records.
#[derive(Clone, Default)]
pub struct MemoryPartition {
    partition: PartitionId,
    rows: Arc<Mutex<Rows>>,
}

#[derive(Default)]
struct Rows {
    records: Vec<Row>,
    finished: bool,
}

struct Row {
    append_time: Option<EventTime>,
    key: Option<Vec<u8>>,
    payload: Vec<u8>,
}

impl MemoryPartition {
    /// An empty partition.
    pub fn new(partition: PartitionId) -> Self {
        Self { partition, ..Self::default() }
    }

    /// Adds a record, which readers see at once; returns the offset behind it.
    pub fn append(&self, append_time: Option<EventTime>, key: Option<&[u8]>, payload: &[u8]) -> u64 {
        let mut rows = self.rows();
        assert!(!rows.finished, "nothing follows the end for good");
        rows.records.push(Row { append_time, key: key.map(<[u8]>::to_vec), payload: payload.to_vec() });
        rows.records.len() as u64
    }

    /// The present end is the end for good.
    pub fn finish(&self) {
        self.rows().finished = true;
    }

    /// Reads from an offset on. A visit must not append: it would wait for itself.
    pub fn reader(&self, from: u64) -> Result<MemoryReader, SourceError> {
        let end = self.rows().records.len() as u64;
        if end < from {
            let partition = self.partition;
            return Err(SourceError::Replaced { partition, wanted: from, first: 0, end, lost: from - end });
        }
        Ok(MemoryReader { log: self.clone(), next_offset: from })
    }

    fn rows(&self) -> MutexGuard<'_, Rows> {
        self.rows.lock().expect("a visit that panics ends the test")
    }
}

/// A place in a [`MemoryPartition`].
pub struct MemoryReader {
    log: MemoryPartition,
    next_offset: u64,
}

impl PartitionReader for MemoryReader {
    fn partition(&self) -> PartitionId {
        self.log.partition
    }

    fn next_offset(&self) -> u64 {
        self.next_offset
    }

    fn read(&mut self, visit: &mut dyn FnMut(Record<'_>) -> ControlFlow<()>) -> Result<Reached, SourceError> {
        let rows = self.log.rows();
        let unread = rows.records.iter().skip(self.next_offset as usize).take(READ_RECORDS_MAX);
        for Row { append_time, key, payload } in unread {
            let offset = self.next_offset;
            self.next_offset += 1;
            let record = Record { offset, append_time: *append_time, key: key.as_deref(), headers: None, payload };
            if visit(record).is_break() {
                break;
            }
        }
        Ok(match (rows.records.len() as u64 <= self.next_offset, rows.finished) {
            (false, _) => Reached::More,
            (true, false) => Reached::End,
            (true, true) => Reached::Finished,
        })
    }
}

/// What every [`PartitionReader`] over a growing log promises.
#[cfg(test)]
pub mod contract {
    use super::*;

    /// A log of one partition under test.
    pub trait Subject {
        /// Adds a record and waits until readers may see it.
        fn append(&self, key: Option<&[u8]>, payload: &[u8]);
        /// Reads from an offset on.
        fn reader(&self, from: u64) -> Result<Box<dyn PartitionReader>, SourceError>;
        /// Reads from an offset on to the present end, which is the end for good. Nothing is appended any more.
        fn last_reader(&self, from: u64) -> Box<dyn PartitionReader>;
    }

    type Seen = (u64, Option<Vec<u8>>, Vec<u8>);

    /// Reads once, and breaks the visit of the record that makes `most`.
    fn read(reader: &mut dyn PartitionReader, most: usize) -> (Vec<Seen>, Reached) {
        let mut seen = Vec::new();
        let reached = reader.read(&mut |record| {
            seen.push((record.offset, record.key.map(<[u8]>::to_vec), record.payload.to_vec()));
            if seen.len() == most { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        (seen, reached.expect("nothing is wrong with the log"))
    }

    /// Runs the suite on a fresh, empty log.
    pub fn check(log: &dyn Subject) {
        let row = |index: u64| -> Seen {
            let key = (index % 3).checked_sub(1).map(|length| vec![b'k'; length as usize]);
            (index, key, format!("payload {index}").into_bytes())
        };
        let append = |range: std::ops::Range<u64>| {
            for (_, key, payload) in range.map(row) {
                log.append(key.as_deref(), &payload);
            }
        };

        let mut tailing = log.reader(0).expect("an empty log can be read from its start");
        assert_eq!(tailing.next_offset(), 0);
        assert_eq!(read(&mut *tailing, 9), (vec![], Reached::End), "an empty log is at its end");

        append(0..5);
        let (seen, reached) = read(&mut *tailing, 2);
        assert_eq!((seen, reached), ((0..2).map(row).collect(), Reached::More), "a broken visit counts");
        assert_eq!(tailing.next_offset(), 2);
        assert_eq!(
            read(&mut *tailing, 9),
            ((2..5).map(row).collect(), Reached::End),
            "the next read goes on behind it"
        );
        assert_eq!(read(&mut *tailing, 9), (vec![], Reached::End), "a record is visited once");

        append(5..6);
        assert_eq!(read(&mut *tailing, 1), (vec![row(5)], Reached::End), "a break at the last record is at the end");

        append(6..3_000);
        let mut whole = log.reader(0).expect("the log still starts at 0");
        let mut seen = Vec::new();
        for reads in 1.. {
            assert!(reads < 3_000, "a read makes progress");
            let (some, reached) = read(&mut *whole, usize::MAX);
            assert!(some.len() <= 1_024, "a read is bounded");
            seen.extend(some);
            if reached != Reached::More {
                assert_eq!(reached, Reached::End);
                break;
            }
        }
        assert_eq!(seen, (0..3_000).map(row).collect::<Vec<_>>());

        let mut from_the_middle = log.reader(2_998).expect("the log holds 2998");
        assert_eq!(read(&mut *from_the_middle, 9), ((2_998..3_000).map(row).collect(), Reached::End));
        match log.reader(3_001).err() {
            Some(SourceError::Replaced { wanted: 3_001, first: 0, end: 3_000, lost: 1, .. }) => {}
            other => panic!("an offset behind the end is a lost record, not {other:?}"),
        }

        let mut last = log.last_reader(2_999);
        assert_eq!(read(&mut *last, 9), (vec![row(2_999)], Reached::Finished));
        assert_eq!(read(&mut *last, 9), (vec![], Reached::Finished));
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    impl contract::Subject for MemoryPartition {
        fn append(&self, key: Option<&[u8]>, payload: &[u8]) {
            MemoryPartition::append(self, Some(1), key, payload);
        }

        fn reader(&self, from: u64) -> Result<Box<dyn PartitionReader>, SourceError> {
            Ok(Box::new(MemoryPartition::reader(self, from)?))
        }

        fn last_reader(&self, from: u64) -> Box<dyn PartitionReader> {
            self.finish();
            Box::new(MemoryPartition::reader(self, from).unwrap())
        }
    }

    #[test]
    fn it_keeps_the_contract_of_a_partition_reader() {
        contract::check(&MemoryPartition::new(PartitionId(0)));
    }
}
