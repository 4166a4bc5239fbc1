//! Reads published letters back, up to where the topic ends now.

use std::{
    collections::{BTreeMap, VecDeque},
    ops::ControlFlow,
    thread,
    time::{Duration, Instant},
};

use dataflows::port::{PartitionId, PartitionReader, Reached, Record, SourceError, Version};
use serde::Deserialize;

use super::{GENERATION, HISTORY, NUMBER, TOPIC_ID};
use crate::{
    kafka::{KafkaError, Reader, Settings, Topic},
    letter::{Letter, Source},
};

/// Brokers that give nothing for this long are given up.
const SILENCE: Duration = Duration::from_secs(30);

/// Records in which the last one is looked for first: about as many as come at once.
const LAST_RECORDS: u64 = 1_024;

/// Between two looks whether a transaction is finished.
const SETTLE_AGAIN: Duration = Duration::from_millis(100);

/// Between two looks for more.
const LOOK_AGAIN: Duration = Duration::from_millis(2);

/// Why letters can't be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The topic can't be used.
    #[error("the topic of dead letters can't be read")]
    Topic(#[from] KafkaError),
    /// A partition of it can't be read.
    #[error("the topic of dead letters can't be read")]
    Source(#[from] SourceError),
    /// Somebody's transaction is not finished.
    #[error("an unfinished transaction holds partition {} up at offset {offset}", partition.0)]
    HeldUp {
        /// The partition.
        partition: PartitionId,
        /// The first offset that can't be read.
        offset: u64,
    },
    /// The brokers gave nothing.
    #[error("no dead letters came within {waited:?}")]
    Silent {
        /// For how long.
        waited: Duration,
    },
    /// A record is no letter.
    #[error("the record at partition {} offset {offset} is no letter", partition.0)]
    NoLetter {
        /// The partition of the topic of dead letters.
        partition: PartitionId,
        /// The record's offset there.
        offset: u64,
        /// Why.
        #[source]
        cause: serde_json::Error,
    },
}

/// The letters in the topic, as published: those of one reason, or all; `limit` of them at the most.
pub fn read(
    settings: &Settings,
    reason: Option<&str>,
    limit: Option<usize>,
    patience: Duration,
) -> Result<Reading, ReadError> {
    let topic = Topic::open_named(settings, &settings.dead_letter_topic, None, patience)?;
    Ok(Reading {
        records: Records::within(&topic, present(&topic)?, whole),
        reason: reason.map(str::to_owned),
        left: limit.unwrap_or(usize::MAX),
    })
}

/// How many letters of each reason are in the topic.
pub fn count(settings: &Settings, patience: Duration) -> Result<BTreeMap<String, u64>, ReadError> {
    let mut counts = BTreeMap::new();
    for letter in read(settings, None, None, patience)? {
        *counts.entry(letter?.reason).or_default() += 1;
    }
    Ok(counts)
}

/// Reads letters one by one. Behind a record that is no letter it goes on; any other error is the last item.
pub struct Reading {
    records: Records<Result<Letter, ReadError>>,
    reason: Option<String>,
    left: usize,
}

impl Iterator for Reading {
    type Item = Result<Letter, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        while 0 < self.left {
            match self.records.next()?.and_then(|letter| letter) {
                Ok(letter) if self.reason.as_ref().is_some_and(|reason| *reason != letter.reason) => {}
                Ok(letter) => {
                    self.left -= 1;
                    return Some(Ok(letter));
                }
                Err(error) => return Some(Err(error)),
            }
        }
        None
    }
}

fn whole(partition: PartitionId, record: &Record<'_>) -> Result<Letter, ReadError> {
    let offset = record.offset;
    serde_json::from_slice(record.payload).map_err(|cause| ReadError::NoLetter { partition, offset, cause })
}

/// What the sink wants to know of a record.
pub struct Published {
    pub history: Option<u128>,
    pub version: Option<Version>,
    pub topic_id: u128,
    /// Where the refused record is; `None` for a record that somebody else put there.
    pub source: Option<Source>,
}

impl Published {
    pub fn within(topic: &Topic, bounds: Vec<(PartitionId, Bounds)>) -> Records<Self> {
        Records::within(topic, bounds, |_, record| Self::from(record))
    }

    fn from(record: &Record<'_>) -> Self {
        #[derive(Deserialize)]
        struct Sourced {
            source: Source,
        }
        let headers = record.headers.map(|headers| headers.list()).unwrap_or_default();
        let text = |wanted: &str| {
            let header = headers.iter().find(|(name, _)| name == wanted)?;
            std::str::from_utf8(header.1.as_deref()?).ok()
        };
        let hexadecimal = |name| text(name).and_then(|text| u128::from_str_radix(text, 16).ok());
        let number = |name| text(name).and_then(|text| text.parse().ok());
        let version = number(GENERATION).zip(number(NUMBER));
        Self {
            history: hexadecimal(HISTORY),
            version: version.map(|(generation, number)| Version { generation, number }),
            topic_id: hexadecimal(TOPIC_ID).unwrap_or(0),
            source: serde_json::from_slice(record.payload).ok().map(|Sourced { source }| source),
        }
    }
}

/// What can be read now.
pub fn present(topic: &Topic) -> Result<Vec<(PartitionId, Bounds)>, KafkaError> {
    Ok((0..).map(PartitionId).zip(topic.offsets()?).collect())
}

/// Waits until everything that lies in the topic now can be read: what a finished owner published may lie behind a
/// transaction that somebody else has not finished.
pub fn settled(topic: &Topic, limit: Duration) -> Result<Vec<(PartitionId, Bounds)>, ReadError> {
    let start = Instant::now();
    let highs = topic.high_offsets()?;
    loop {
        let bounds = present(topic)?;
        let behind = bounds.iter().zip(&highs).find(|((_, (_, stable)), high)| stable < *high);
        match behind {
            None => return Ok(bounds),
            Some(((partition, (_, stable)), _)) if limit < start.elapsed() => {
                return Err(ReadError::HeldUp { partition: *partition, offset: *stable });
            }
            Some(_) => thread::sleep(SETTLE_AGAIN),
        }
    }
}

/// The last of a partition's records that `find` finds something in, looked for from its end.
pub fn last<T>(
    topic: &Topic,
    partition: PartitionId,
    (first, end): Bounds,
    find: impl Fn(&Published) -> Option<T>,
) -> Result<Option<T>, ReadError> {
    let (mut until, mut width) = (end, LAST_RECORDS);
    while first < until {
        let from = until.saturating_sub(width).max(first);
        let mut last = None;
        for published in Published::within(topic, vec![(partition, (from, until))]) {
            last = find(&published?).or(last);
        }
        if last.is_some() {
            return Ok(last);
        }
        (until, width) = (from, width.saturating_mul(8));
    }
    Ok(None)
}

/// Where a partition begins and ends.
pub type Bounds = (u64, u64);

/// The records of all partitions, one after the other.
pub struct Records<T> {
    topic: Topic,
    /// Partitions that are still to be read.
    partitions: VecDeque<(PartitionId, Bounds)>,
    open: Option<Reader>,
    take: fn(PartitionId, &Record<'_>) -> T,
    taken: VecDeque<T>,
}

impl<T> Records<T> {
    fn within(topic: &Topic, bounds: Vec<(PartitionId, Bounds)>, take: fn(PartitionId, &Record<'_>) -> T) -> Self {
        Self { topic: topic.clone(), partitions: bounds.into(), open: None, take, taken: VecDeque::new() }
    }

    /// Reads until something is there; false at the end.
    fn fetch(&mut self) -> Result<bool, ReadError> {
        let start = Instant::now();
        while self.taken.is_empty() {
            let Some(reader) = &mut self.open else {
                let Some((partition, (first, end))) = self.partitions.pop_front() else { return Ok(false) };
                if first < end {
                    self.open = Some(self.topic.reader_until(partition, first, end)?);
                }
                continue;
            };
            let (partition, take, taken) = (reader.partition(), self.take, &mut self.taken);
            let reached = reader.read(&mut |record| {
                taken.push_back(take(partition, &record));
                ControlFlow::Continue(())
            })?;
            match reached {
                Reached::Finished => self.open = None,
                Reached::More | Reached::Passed(_) => {}
                Reached::End | Reached::Waiting if SILENCE < start.elapsed() => {
                    return Err(ReadError::Silent { waited: SILENCE });
                }
                Reached::End | Reached::Waiting => thread::sleep(LOOK_AGAIN),
            }
        }
        Ok(true)
    }
}

impl<T> Iterator for Records<T> {
    type Item = Result<T, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        match self.fetch() {
            Ok(true) => self.taken.pop_front().map(Ok),
            Ok(false) => None,
            Err(error) => {
                self.open = None;
                self.partitions.clear();
                Some(Err(error))
            }
        }
    }
}
