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
        records: Records::of(&topic, whole)?,
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
    pub fn of(topic: &Topic) -> Result<Records<Self>, ReadError> {
        Records::of(topic, |_, record| Self::from(record))
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

/// The records of all partitions, one after the other.
pub struct Records<T> {
    topic: Topic,
    /// Partitions that are still to be read, with where they begin and end.
    partitions: VecDeque<(PartitionId, (u64, u64))>,
    open: Option<Reader>,
    take: fn(PartitionId, &Record<'_>) -> T,
    taken: VecDeque<T>,
}

impl<T> Records<T> {
    fn of(topic: &Topic, take: fn(PartitionId, &Record<'_>) -> T) -> Result<Self, ReadError> {
        let partitions = (0..).map(PartitionId).zip(topic.offsets()?).collect();
        Ok(Self { topic: topic.clone(), partitions, open: None, take, taken: VecDeque::new() })
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
                Reached::More => {}
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
