//! What a live job reads, and the way into it: one trait over the embedded log and Kafka.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use dataflows::{
    announce::PartitionState,
    port::{PartitionId, PartitionReader, SourceError},
};

use crate::{engine::SendReader, exit::Failure, service::Ingest};

/// Offsets of a partition: the first that is there, and the one behind the last.
pub type Offsets = (u64, u64);

/// Told of partitions that were added while running.
pub type OnJoined = Box<dyn FnMut(PartitionId) + Send>;

/// A log that a live job reads and that `POST /v1/events` writes.
pub trait Input: Send + Sync {
    /// Which log this is: another one under the same name has another id.
    fn id(&self) -> u128;

    /// The partitions that there are now, by number, with their offsets.
    fn offsets(&self) -> Result<Vec<Offsets>, Failure>;

    /// Makes sure that the log still holds what comes next by a checkpoint, if that is known without asking others:
    /// [`Input::reader`] does it in any case.
    fn check(&self, _partition: PartitionId, _at: &PartitionState) -> Result<(), SourceError> {
        Ok(())
    }

    /// Opens a partition where a checkpoint left it, after making sure that the log still holds what comes next, and
    /// before it what it held then.
    fn reader(&self, partition: PartitionId, at: &PartitionState) -> Result<SendReader, SourceError>;

    /// The same for a partition that was added while running: from its first record.
    fn new_reader(&self, partition: PartitionId) -> Result<Box<dyn PartitionReader>, SourceError>;

    /// Starts watching for partitions that are added.
    fn watch(&self, _joined: OnJoined) {}

    /// Makes sure that the log is still the one that was opened, so that what was read of it may become durable.
    fn confirm(&self) -> Result<(), Failure> {
        Ok(())
    }

    /// The offsets behind the last records, as last heard of; empty where nothing is known.
    fn ends(&self) -> Vec<u64>;

    /// Since when the log has not answered.
    fn away_since(&self) -> Option<Instant> {
        None
    }

    /// The partitions that an unfinished transaction holds up.
    fn held_up(&self) -> Vec<u32> {
        Vec::new()
    }

    /// The way into it.
    fn door(&self) -> Arc<dyn Ingest>;

    /// Takes no more; what was acknowledged is durable.
    fn close(&self) {}
}

/// A log that is away for less than this may just be slow.
pub const AWAY_AFTER: Duration = Duration::from_secs(10);
