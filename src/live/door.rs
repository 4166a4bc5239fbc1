//! The way into the embedded log.

use connectors::{
    embedded::log::{AppendError, Appender, NewRecord},
    json::JsonEvents,
    partition::partition_of,
};
use dataflows::port::{Decode as _, PartitionId};
use tokio::sync::oneshot;

use crate::service::{BoxFuture, Entry, EventCheck, Ingest, IngestError};

/// Appends to the log, partitioned as Kafka's default partitioner would.
pub struct Door {
    appender: Appender,
    partitions: u32,
}

impl Door {
    /// A door to a log of so many partitions.
    pub fn new(appender: Appender, partitions: u32) -> Self {
        Self { appender, partitions }
    }
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
    IngestError::Failed(error.to_string())
}

/// Judges at the door as the dataflow will.
pub struct JsonCheck;

impl EventCheck for JsonCheck {
    fn check(&self, payload: &[u8]) -> Result<String, &'static str> {
        let event = JsonEvents.decode(payload).map_err(|cause| cause.as_str())?;
        Ok(event.video_id.into_owned())
    }
}
