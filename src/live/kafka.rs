//! Kafka as a live job's input: a topic that every process reads its share of, and produces to.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use connectors::kafka::{Letters, ProduceError, Producer, ProducerLimits, Topic, Watch};
use dataflows::{
    announce::PartitionState,
    port::{LetterSink, PartitionId, PartitionReader, SourceError},
};

use super::{
    cluster::Place,
    input::{Input, Offsets, OnJoined},
};
use crate::{
    config::Settings,
    engine::{
        SendReader,
        kafka::{failure, settings_of},
    },
    exit::Failure,
    service::{BoxFuture, Entry, Ingest, IngestError},
};

/// How often the brokers are asked how the topic is.
const WATCH_EVERY: Duration = Duration::from_secs(1);

/// Brokers that have not answered for so long take no events now: that is said at once, not after a timeout each.
const BREAKS_AFTER: Duration = Duration::from_secs(3);

/// A topic, opened.
pub struct Kafka {
    topic: Topic,
    producer: Producer,
    watch: Arc<Mutex<Option<Watch>>>,
}

impl Kafka {
    /// Opens the topic; the first process creates it where it is missing.
    pub fn open(settings: &Settings, place: &Place) -> Result<Self, Failure> {
        let kafka = settings_of(&settings.kafka);
        let patience = Duration::from_millis(settings.cluster.patience_ms);
        let create = place.leads().then_some(settings.source.partitions.get());
        let topic = Topic::open(&kafka, create, patience).map_err(failure)?;
        let producer = Producer::open(&kafka, ProducerLimits::default()).map_err(failure)?;
        Ok(Self { topic, producer, watch: Arc::default() })
    }
}

/// The way into another topic.
pub fn producer(settings: &connectors::kafka::Settings) -> Result<Arc<dyn Ingest>, Failure> {
    let producer = Producer::open(settings, ProducerLimits::default()).map_err(failure)?;
    Ok(Arc::new(Door { producer, watch: Arc::default() }))
}

/// Where the dead letters of a history go, a new one or one that others may know of.
pub fn letters(settings: &Settings, history: u128, is_new: bool) -> Result<Box<dyn LetterSink>, Failure> {
    let patience = Duration::from_millis(settings.cluster.patience_ms);
    let open = if is_new { Letters::open_new } else { Letters::open };
    Ok(Box::new(open(&settings_of(&settings.kafka), history, patience).map_err(failure)?))
}

fn away_since(watch: &Mutex<Option<Watch>>) -> Option<Instant> {
    watch.lock().expect("nobody panics while holding it").as_ref()?.away_since()
}

impl Input for Kafka {
    fn id(&self) -> u128 {
        self.topic.id()
    }

    fn offsets(&self) -> Result<Vec<Offsets>, Failure> {
        self.topic.offsets().map_err(failure)
    }

    fn reader(&self, partition: PartitionId, at: &PartitionState) -> Result<SendReader, SourceError> {
        Ok(Box::new(self.topic.reader(partition, at.next_offset, at.tail)?))
    }

    fn new_reader(&self, partition: PartitionId) -> Result<Box<dyn PartitionReader>, SourceError> {
        Ok(Box::new(self.topic.reader_of_new(partition)?))
    }

    fn watch(&self, mut joined: OnJoined) {
        let on_new = Box::new(move |new: std::ops::Range<u32>| {
            tracing::info!(from = new.start, until = new.end, "the topic has more partitions");
            new.map(PartitionId).for_each(&mut joined);
        });
        *self.watch.lock().expect("nobody panics while holding it") = Some(self.topic.watch(WATCH_EVERY, on_new));
    }

    fn confirm(&self) -> Result<(), Failure> {
        self.topic.confirm().map_err(failure)
    }

    fn ends(&self) -> Vec<u64> {
        let watch = self.watch.lock().expect("nobody panics while holding it");
        watch.iter().flat_map(Watch::offsets).map(|(_, end)| end).collect()
    }

    fn away_since(&self) -> Option<Instant> {
        away_since(&self.watch)
    }

    fn held_up(&self) -> Vec<u32> {
        let watch = self.watch.lock().expect("nobody panics while holding it");
        watch.as_ref().map(Watch::held_up).unwrap_or_default()
    }

    fn door(&self) -> Arc<dyn Ingest> {
        Arc::new(Door { producer: self.producer.clone(), watch: Arc::clone(&self.watch) })
    }

    fn close(&self) {
        let watch = self.watch.lock().expect("nobody panics while holding it").take();
        drop(watch);
    }
}

/// Produces to the topic.
struct Door {
    producer: Producer,
    watch: Arc<Mutex<Option<Watch>>>,
}

impl Ingest for Door {
    fn append(&self, entries: Vec<Entry>) -> BoxFuture<Result<Vec<(PartitionId, u64)>, IngestError>> {
        if away_since(&self.watch).is_some_and(|since| BREAKS_AFTER <= since.elapsed()) {
            return Box::pin(async { Err(IngestError::Failed("the brokers do not answer".to_owned())) });
        }
        let batch = entries.into_iter().map(|entry| (entry.key.into_bytes(), entry.payload)).collect();
        let sent = self.producer.send(batch);
        Box::pin(async move {
            sent.await.map_err(|error| match error {
                ProduceError::Busy => IngestError::Busy,
                error => IngestError::Failed(error.to_string()),
            })
        })
    }
}
