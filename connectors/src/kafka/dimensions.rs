//! What is known of videos and channels, from a compacted topic: read to its end, then followed as it grows.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use dataflows::{
    dimensions::Change,
    port::{PartitionId, PartitionReader as _, Reached, Record, SourceError},
};

use super::{
    error::KafkaError,
    reader::Reader,
    settings::Settings,
    topic::{Creation, Topic},
};
use crate::dimension;

/// How long to wait before looking again for what was not there.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// How long to wait before a partition that can't be read is opened again.
const OPEN_AGAIN: Duration = Duration::from_secs(1);

/// The topic with what is known of videos and channels.
pub struct Dimensions {
    topic: Topic,
    readers: Vec<Reader>,
}

/// Reads on until it is dropped.
pub struct Following {
    is_over: Arc<AtomicBool>,
}

impl Drop for Following {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
    }
}

impl Dimensions {
    /// Opens the topic, and makes it where it is missing: compacted, with one partition.
    pub fn open(settings: &Settings, name: &str, patience: Duration) -> Result<Self, KafkaError> {
        let create = Creation { partitions: 1, properties: &[("cleanup.policy", "compact")] };
        let topic = Topic::open_named(settings, name, Some(create), patience)?;
        Ok(Self { topic, readers: Vec::new() })
    }

    /// Reads from the first record to the end as it is now.
    pub fn read_to_end(&mut self) -> Result<Vec<Change>, DimensionsError> {
        let offsets = self.topic.offsets().map_err(DimensionsError::Asked)?;
        let mut known = Vec::new();
        for (partition, (first, end)) in (0..).map(PartitionId).zip(offsets) {
            let mut reader = self.topic.reader(partition, first, None)?;
            // What compaction or a transaction left behind is skipped only once the end is reached.
            while reader.next_offset() < end {
                match read(&mut reader, &mut known)? {
                    Reached::More | Reached::Finished | Reached::Passed(_) => {}
                    Reached::End => break,
                    Reached::Waiting => thread::sleep(LOOK_AGAIN),
                }
            }
            self.readers.push(reader);
        }
        Ok(known)
    }

    /// Tells of each change from there on, on a thread of its own. Partitions that are added later are read from the next start on.
    pub fn follow(self, mut tell: impl FnMut(Vec<Change>) + Send + 'static) -> std::io::Result<Following> {
        let is_over = Arc::new(AtomicBool::new(false));
        let over = Arc::clone(&is_over);
        let Self { topic, mut readers } = self;
        thread::Builder::new().name("dimensions".to_owned()).spawn(move || {
            while !over.load(Ordering::Relaxed) {
                let mut more = false;
                for reader in &mut readers {
                    let mut changes = Vec::new();
                    match read(reader, &mut changes) {
                        Ok(reached) => more |= reached == Reached::More,
                        Err(error) => open_again(&topic, reader, &error),
                    }
                    if !changes.is_empty() {
                        tell(changes);
                    }
                }
                if !more {
                    thread::sleep(LOOK_AGAIN);
                }
            }
        })?;
        Ok(Following { is_over })
    }
}

/// Reads a partition from its first record: what is told twice changes nothing.
fn open_again(topic: &Topic, reader: &mut Reader, error: &SourceError) {
    tracing::error!(topic = topic.name(), %error, "names can't be read on: reading them anew");
    thread::sleep(OPEN_AGAIN);
    if let Ok(new) = topic.reader_of_new(reader.partition()) {
        *reader = new;
    }
}

fn read(reader: &mut Reader, changes: &mut Vec<Change>) -> Result<Reached, SourceError> {
    reader.read(&mut |record| {
        changes.extend(change(&record));
        std::ops::ControlFlow::Continue(())
    })
}

/// What a record says. One that says nothing that can be understood is told of and passed over: it stands for no event.
fn change(record: &Record<'_>) -> Option<Change> {
    let change = match record.payload {
        [] => {
            let key = record.key.and_then(|key| std::str::from_utf8(key).ok());
            key.and_then(dimension::forget).ok_or("its key names no video or channel")
        }
        payload => dimension::decode(payload).map_err(|cause| cause.as_str()),
    };
    change.inspect_err(|why| tracing::warn!(record.offset, why, "a record of names is passed over")).ok()
}

/// Why the topic can't be read.
#[derive(Debug, thiserror::Error)]
pub enum DimensionsError {
    /// The brokers were asked in vain.
    #[error("the topic with names can't be asked about")]
    Asked(#[source] KafkaError),
    /// A partition can't be read.
    #[error("the topic with names can't be read")]
    Read(#[from] SourceError),
}
