//! Lines into a Kafka topic, acknowledged by all replicas.

use std::time::Duration;

use connectors::kafka::{Feed, ProduceError, Producer, ProducerLimits, Topic};

use super::{Line, Target};
use crate::{
    config::Settings,
    engine::kafka::{failure, settings_of},
    exit::{Exit, Failure},
};

/// Records handed over at once.
const BATCH: usize = 1_000;

/// Produces to the topic of the configuration.
pub struct KafkaTarget {
    feed: Option<Feed>,
    batch: Vec<(Vec<u8>, Vec<u8>)>,
    sent: u64,
}

impl KafkaTarget {
    /// Opens the topic, or creates it with so many partitions. A record that is not acknowledged for `give_up_after_ms`
    /// fails the command.
    pub fn open(settings: &Settings, partitions: u32, give_up_after_ms: u64) -> Result<Self, Failure> {
        let kafka = settings_of(&settings.kafka);
        Topic::open(&kafka, Some(partitions), Duration::from_millis(settings.cluster.patience_ms)).map_err(failure)?;
        let limits = ProducerLimits { timeout: Duration::from_millis(give_up_after_ms), ..ProducerLimits::default() };
        let producer = Producer::open(&kafka, limits).map_err(failure)?;
        Ok(Self { feed: Some(producer.feed()), batch: Vec::with_capacity(BATCH), sent: 0 })
    }

    fn put(&mut self) -> Result<(), Failure> {
        if let Some(feed) = self.feed.as_mut().filter(|_| !self.batch.is_empty()) {
            self.sent += self.batch.len() as u64;
            feed.put(&self.batch).map_err(unacknowledged)?;
            self.batch.clear();
        }
        Ok(())
    }
}

fn unacknowledged(error: ProduceError) -> Failure {
    Failure::new(Exit::Unreachable, error)
}

impl Target for KafkaTarget {
    fn send(&mut self, line: Line<'_>) -> Result<(), Failure> {
        self.batch.push((line.key.unwrap_or_default().to_vec(), line.record.to_vec()));
        if self.batch.len() == BATCH { self.put() } else { Ok(()) }
    }

    fn finish(&mut self) -> Result<String, Failure> {
        self.put()?;
        let places = self.feed.take().map_or(Ok(Vec::new()), Feed::finish).map_err(unacknowledged)?;
        let ends: Vec<String> = places.iter().map(|(partition, next)| format!("{}:{next}", partition.0)).collect();
        Ok(format!("{} records are acknowledged, up to {}", self.sent, ends.join(",")))
    }
}
