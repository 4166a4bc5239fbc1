//! Lines into the embedded log of a data folder that no process is using: history for a first start, or load without HTTP.

use std::{path::Path, sync::mpsc};

use anyhow::{Context as _, anyhow};
use connectors::{
    embedded::log::{AppendError, Appender, Log, LogError, NewRecord},
    partition::partition_of,
};

use super::{Line, Target};
use crate::{
    engine,
    exit::{Exit, Failure},
    recount::log_failure,
};

/// Records of one append: enough to be fast, few enough to be a small loss when a write fails.
const BATCH: usize = 1_000;

/// Appends under way: the log writes one group while the next is filled.
const IN_FLIGHT: usize = 8;

/// How one append went.
type Done = Result<(), AppendError>;

/// Appends to a log.
pub struct LogTarget {
    log: Log,
    appender: Appender,
    partitions: u32,
    batch: Vec<NewRecord>,
    round_robin: u32,
    in_flight: usize,
    tell: mpsc::Sender<Done>,
    told: mpsc::Receiver<Done>,
    durable: u64,
}

impl LogTarget {
    /// Opens the log, or creates it with so many partitions.
    pub fn open(dir: &Path, partitions: u32) -> Result<Self, Failure> {
        let partitions = match Log::open_read_only(dir) {
            Ok(there) => there.partitions(),
            Err(LogError::Missing { .. }) => partitions,
            Err(error) => return Err(log_failure(error)),
        };
        let log = Log::open(dir, partitions, engine::wall_clock_ms).map_err(log_failure)?;
        let appender = log.appender();
        let batch = Vec::with_capacity(BATCH);
        let (tell, told) = mpsc::channel();
        Ok(Self { log, appender, partitions, batch, round_robin: 0, in_flight: 0, tell, told, durable: 0 })
    }

    fn append(&mut self) -> Result<(), Failure> {
        if self.batch.is_empty() {
            return Ok(());
        }
        while IN_FLIGHT <= self.in_flight {
            self.wait()?;
        }
        let batch = std::mem::replace(&mut self.batch, Vec::with_capacity(BATCH));
        let (records, done) = (batch.len() as u64, self.tell.clone());
        // The receiver lives as long as the target.
        let tell = Box::new(move |result: Result<_, _>| drop(done.send(result.map(|_| ()))));
        self.appender.append(batch, tell).map_err(|_| anyhow!("the log's queue holds more than this command sends"))?;
        self.in_flight += 1;
        self.durable += records;
        Ok(())
    }

    fn wait(&mut self) -> Result<(), Failure> {
        let done = self.told.recv().context("the log ended without a word")?;
        self.in_flight -= 1;
        done.map_err(|error| Failure::new(Exit::StateUnwritable, error))
    }
}

impl Target for LogTarget {
    fn send(&mut self, line: Line<'_>) -> Result<(), Failure> {
        let partition = line.key.map_or(self.round_robin % self.partitions, |key| partition_of(key, self.partitions));
        self.round_robin = self.round_robin.wrapping_add(1);
        self.batch.push(NewRecord { partition, key: line.key.map(<[u8]>::to_vec), payload: line.record.to_vec() });
        if self.batch.len() == BATCH { self.append() } else { Ok(()) }
    }

    fn finish(&mut self) -> Result<String, Failure> {
        self.append()?;
        while 0 < self.in_flight {
            self.wait()?;
        }
        let ends = self.log.end_offsets().iter().map(u64::to_string).collect::<Vec<_>>().join(", ");
        Ok(format!("{} records are durable; the partitions end at {ends}", self.durable))
    }
}
