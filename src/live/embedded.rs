//! The embedded log as a live job's input. It belongs to one process, so in a cluster the first one reads and writes it
//! all, and the others pass on what they are given.

use std::{
    io,
    path::Path,
    sync::{Arc, Mutex},
};

use connectors::{
    embedded::log::{AppendError, Appender, Log, LogView, NewRecord},
    partition::partition_of,
};
use dataflows::{
    announce::PartitionState,
    port::{PartitionId, PartitionReader, SourceError},
};
use tokio::sync::oneshot;

use super::input::{Input, Offsets};
use crate::{
    engine::{self, SendReader},
    exit::Failure,
    recount::log_failure,
    service::{BoxFuture, Entry, Ingest, IngestError},
};

/// The embedded log, opened for writing.
pub struct EmbeddedLog {
    view: LogView,
    appender: Appender,
    /// Until it is closed.
    log: Mutex<Option<Log>>,
}

impl EmbeddedLog {
    /// Opens the log in a folder, creating it with so many partitions where it is missing.
    pub fn open(dir: &Path, partitions: u32) -> Result<Self, Failure> {
        let log = Log::open(dir, partitions, engine::wall_clock_ms).map_err(log_failure)?;
        Ok(Self { view: log.view(), appender: log.appender(), log: Mutex::new(Some(log)) })
    }
}

impl Input for EmbeddedLog {
    fn id(&self) -> u128 {
        self.view.id()
    }

    fn offsets(&self) -> Result<Vec<Offsets>, Failure> {
        Ok(self.view.first_offsets().into_iter().zip(self.view.end_offsets()).collect())
    }

    fn check(&self, partition: PartitionId, at: &PartitionState) -> Result<(), SourceError> {
        self.reader(partition, at).map(drop)
    }

    fn reader(&self, partition: PartitionId, at: &PartitionState) -> Result<SendReader, SourceError> {
        Ok(Box::new(self.view.reader(partition, at.next_offset)?))
    }

    fn new_reader(&self, partition: PartitionId) -> Result<Box<dyn PartitionReader>, SourceError> {
        Ok(self.reader(partition, &PartitionState::default())?)
    }

    fn ends(&self) -> Vec<u64> {
        self.view.end_offsets()
    }

    fn door(&self) -> Arc<dyn Ingest> {
        Arc::new(Door { appender: self.appender.clone(), partitions: self.view.partitions() })
    }

    fn close(&self) {
        if let Some(log) = self.log.lock().expect("nobody panics while holding it").take() {
            log.close();
        }
    }
}

/// Appends to the log, partitioned as Kafka's default partitioner would.
struct Door {
    appender: Appender,
    partitions: u32,
}

impl Ingest for Door {
    fn append(&self, entries: Vec<Entry>) -> BoxFuture<Result<Vec<(PartitionId, u64)>, IngestError>> {
        let record = |entry: Entry| NewRecord {
            partition: partition_of(entry.key.as_bytes(), self.partitions),
            key: Some(entry.key.into_bytes()),
            payload: entry.payload,
        };
        let batch = entries.into_iter().map(record).collect();
        let (send, done) = oneshot::channel();
        let taken = self.appender.append(
            batch,
            Box::new(move |result| {
                // Whoever asked may have gone away.
                let _ = send.send(result);
            }),
        );
        Box::pin(async move {
            taken.map_err(|_| IngestError::Busy)?;
            match done.await {
                Ok(Ok(ends)) => Ok(ends),
                Ok(Err(error)) => Err(failed(&error)),
                Err(_) => Err(IngestError::Failed("it was closed".to_owned())),
            }
        })
    }
}

fn failed(error: &AppendError) -> IngestError {
    match error {
        AppendError::Failed { cause, .. } if cause.kind() == io::ErrorKind::StorageFull => IngestError::NoRoom,
        error => IngestError::Failed(error.to_string()),
    }
}
