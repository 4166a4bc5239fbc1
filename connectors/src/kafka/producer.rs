//! Produces events: idempotent, acknowledged by all replicas, a batch taken whole or not at all.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Condvar, Mutex, MutexGuard},
    time::Duration,
};

use dataflows::port::PartitionId;
use rdkafka::{
    ClientContext, Message, Statistics,
    config::{ClientConfig, RDKafkaLogLevel},
    error::KafkaError as RdError,
    producer::{BaseRecord, DeliveryResult, Producer as _, ProducerContext, ThreadedProducer},
    types::RDKafkaErrorCode,
};
use tokio::sync::oneshot;

use super::{
    context::{log, warn_gently},
    error::KafkaError,
    settings::Settings,
    topic::client,
};

/// What a record costs in librdkafka's queue besides its bytes, about.
const RECORD_OVERHEAD: usize = 128;

/// What a producer may have on its hands.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct ProducerLimits {
    /// Bytes that wait or are on their way; beyond them a batch is [`ProduceError::Busy`].
    pub queued_bytes: usize,
    /// After this long without an acknowledgement a record is [`ProduceError::Failed`].
    pub timeout: Duration,
}

impl Default for ProducerLimits {
    fn default() -> Self {
        Self { queued_bytes: 64 << 20, timeout: Duration::from_secs(10) }
    }
}

/// Why a batch was not acknowledged.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProduceError {
    /// Too much waits already. Nothing of the batch was sent.
    #[error("too much waits to be produced")]
    Busy,
    /// A record is larger than the topic takes. Others of its batch may be durable.
    #[error("a record of {bytes} bytes is larger than the topic takes")]
    TooLarge {
        /// Its key and payload.
        bytes: usize,
    },
    /// Not all records were acknowledged in time, or one was refused. Any of them may be durable; none is promised to be.
    #[error("not acknowledged: {0}")]
    Failed(String),
}

/// Where a batch went: for each partition that it touched, the offset behind its last record there, ascending.
pub type Places = Vec<(PartitionId, u64)>;

/// Is told what a batch came to. Runs on the producer's thread: it must be quick, and must not drop the producer.
pub type Done = Box<dyn FnOnce(Result<Places, ProduceError>) + Send>;

/// Produces to the input topic. Cheap to clone; with the last clone goes what is not yet acknowledged.
#[derive(Clone)]
pub struct Producer {
    topic: Arc<str>,
    queued_bytes_max: usize,
    config: Arc<ClientConfig>,
    native: Arc<Mutex<Native>>,
    queued: Arc<Queued>,
}

/// The client, which another takes the place of after an error that it can't go on after.
type Native = Arc<ThreadedProducer<Deliveries>>;

impl Producer {
    /// Makes a producer. Does not wait for the brokers, nor ask whether the topic is there.
    pub fn open(settings: &Settings, limits: ProducerLimits) -> Result<Self, KafkaError> {
        let config = settings.producer(limits.timeout);
        let native: Native = Arc::new(client(&config, Deliveries)?);
        Ok(Self {
            topic: settings.topic.as_str().into(),
            queued_bytes_max: limits.queued_bytes,
            config: Arc::new(config),
            native: Arc::new(Mutex::new(native)),
            queued: Arc::default(),
        })
    }

    /// Produces a batch of keys and payloads; resolves when all of it is acknowledged. Needs no runtime. What was begun is
    /// not undone by dropping the future.
    pub fn send(
        &self,
        batch: Vec<(Vec<u8>, Vec<u8>)>,
    ) -> impl Future<Output = Result<Places, ProduceError>> + Send + use<> {
        let (sender, receiver) = oneshot::channel();
        // The receiver may be gone: then nobody wants to know.
        self.produce(&batch, Box::new(|outcome| drop(sender.send(outcome))));
        async move { receiver.await.unwrap_or_else(|_| Err(ProduceError::Failed("the producer ended".to_owned()))) }
    }

    /// Produces a batch, and calls `done` once: at once where nothing was sent.
    pub fn produce(&self, batch: &[(Vec<u8>, Vec<u8>)], done: Done) {
        let bytes = batch_bytes(batch);
        match self.queued.reserve(bytes, self.queued_bytes_max) {
            true => self.enqueue(batch, bytes, done),
            false => done(Err(ProduceError::Busy)),
        }
    }

    /// Produces batch after batch, each as soon as there is room for it.
    pub fn feed(&self) -> Feed {
        Feed { producer: self.clone(), so_far: Arc::default() }
    }

    /// The client, made anew where it is of no use any more: brokers that lost what they had acknowledged, say.
    fn native(&self) -> Native {
        let mut native = lock(&self.native);
        if let Some((code, what)) = native.client().fatal_error() {
            tracing::warn!(%code, what, "the producer is made anew");
            match client(&self.config, Deliveries) {
                Ok(new) => *native = Arc::new(new),
                Err(error) => tracing::error!(%error, "the producer can't be made anew"),
            }
        }
        Arc::clone(&native)
    }

    /// The bytes are reserved.
    fn enqueue(&self, batch: &[(Vec<u8>, Vec<u8>)], bytes: usize, done: Done) {
        let waiting = Arc::new(Waiting {
            state: Mutex::new(State { left: batch.len() + 1, places: BTreeMap::new(), error: None, done: Some(done) }),
            queued: Arc::clone(&self.queued),
            bytes,
        });
        let native = self.native();
        for (key, payload) in batch {
            let record = BaseRecord::with_opaque_to(&self.topic, Arc::clone(&waiting)).key(key).payload(payload);
            if let Err((error, _)) = native.send(record) {
                waiting.one_is_over(Err(failed(&error, key.len() + payload.len())));
            }
        }
        // The one more that was counted, so that the batch is not over before all of it was sent.
        waiting.one_is_over(Ok(None));
    }
}

fn batch_bytes(batch: &[(Vec<u8>, Vec<u8>)]) -> usize {
    batch.iter().map(|(key, payload)| key.len() + payload.len() + RECORD_OVERHEAD).sum()
}

fn failed(error: &RdError, bytes: usize) -> ProduceError {
    match error.rdkafka_error_code() {
        Some(RDKafkaErrorCode::MessageSizeTooLarge | RDKafkaErrorCode::MessageBatchTooLarge) => {
            ProduceError::TooLarge { bytes }
        }
        Some(code) => ProduceError::Failed(code.to_string()),
        None => ProduceError::Failed(error.to_string()),
    }
}

/// Bytes that wait or are on their way.
#[derive(Default)]
struct Queued {
    bytes: Mutex<usize>,
    less: Condvar,
}

impl Queued {
    /// Reserves room. Where nothing waits there is room for a batch of any size.
    fn reserve(&self, bytes: usize, max: usize) -> bool {
        let mut queued = lock(&self.bytes);
        let fits = *queued == 0 || *queued + bytes <= max;
        if fits {
            *queued += bytes;
        }
        fits
    }

    fn reserve_or_wait(&self, bytes: usize, max: usize) {
        let full = |queued: &mut usize| *queued != 0 && max < *queued + bytes;
        let queued = self.less.wait_while(lock(&self.bytes), full);
        *queued.unwrap_or_else(|poisoned| poisoned.into_inner()) += bytes;
    }

    fn release(&self, bytes: usize) {
        *lock(&self.bytes) -= bytes;
        self.less.notify_all();
    }
}

/// A batch that is on its way.
struct Waiting {
    state: Mutex<State>,
    queued: Arc<Queued>,
    bytes: usize,
}

struct State {
    left: usize,
    places: BTreeMap<PartitionId, u64>,
    error: Option<ProduceError>,
    done: Option<Done>,
}

impl Waiting {
    fn one_is_over(&self, outcome: Result<Option<(PartitionId, u64)>, ProduceError>) {
        let mut state = lock(&self.state);
        state.left -= 1;
        match outcome {
            Ok(None) => {}
            Ok(Some((partition, offset))) => {
                let next = state.places.entry(partition).or_default();
                *next = (*next).max(offset + 1);
            }
            Err(error) => {
                state.error.get_or_insert(error);
            }
        }
        if state.left == 0
            && let Some(done) = state.done.take()
        {
            let outcome = match state.error.take() {
                Some(error) => Err(error),
                None => Ok(std::mem::take(&mut state.places).into_iter().collect()),
            };
            drop(state);
            // First there is room again: whoever hears that a batch is over may send the next.
            self.queued.release(self.bytes);
            done(outcome);
        }
    }
}

/// Listens to the producer.
struct Deliveries;

impl ClientContext for Deliveries {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        log(level, facility, line);
    }

    fn stats(&self, _: Statistics) {}

    fn error(&self, _: RdError, reason: &str) {
        warn_gently(reason);
    }
}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = Arc<Waiting>;

    fn delivery(&self, result: &DeliveryResult<'_>, waiting: Arc<Waiting>) {
        waiting.one_is_over(match result {
            Ok(message) => match (u32::try_from(message.partition()), u64::try_from(message.offset())) {
                (Ok(partition), Ok(offset)) => Ok(Some((PartitionId(partition), offset))),
                // Without an offset there is nothing to promise.
                _ => Err(ProduceError::Failed("acknowledged without an offset".to_owned())),
            },
            Err((error, message)) => {
                let bytes = message.key().map_or(0, <[u8]>::len) + message.payload().map_or(0, <[u8]>::len);
                Err(failed(error, bytes))
            }
        });
    }
}

/// Produces many batches from one thread, waiting where there is no room.
pub struct Feed {
    producer: Producer,
    so_far: Arc<SoFar>,
}

/// What became of a feed's batches.
#[derive(Default)]
struct SoFar {
    told: Mutex<Told>,
    less: Condvar,
}

#[derive(Default)]
struct Told {
    under_way: usize,
    places: BTreeMap<PartitionId, u64>,
    /// The first one.
    error: Option<ProduceError>,
}

impl SoFar {
    fn batch_is_over(&self, outcome: Result<Places, ProduceError>) {
        let mut told = lock(&self.told);
        told.under_way -= 1;
        match outcome {
            Ok(places) => {
                for (partition, next) in places {
                    let known = told.places.entry(partition).or_default();
                    *known = (*known).max(next);
                }
            }
            Err(error) => {
                told.error.get_or_insert(error);
            }
        }
        self.less.notify_all();
    }
}

impl Feed {
    /// Sends a batch when there is room; fails with the first error of the batches before.
    pub fn put(&mut self, batch: &[(Vec<u8>, Vec<u8>)]) -> Result<(), ProduceError> {
        let mut told = lock(&self.so_far.told);
        if let Some(error) = &told.error {
            return Err(error.clone());
        }
        told.under_way += 1;
        drop(told);
        let bytes = batch_bytes(batch);
        self.producer.queued.reserve_or_wait(bytes, self.producer.queued_bytes_max);
        let so_far = Arc::clone(&self.so_far);
        self.producer.enqueue(batch, bytes, Box::new(move |outcome| so_far.batch_is_over(outcome)));
        Ok(())
    }

    /// Waits until all is acknowledged; where it went, as for one batch.
    pub fn finish(self) -> Result<Places, ProduceError> {
        let told = self.so_far.less.wait_while(lock(&self.so_far.told), |told| told.under_way != 0);
        let mut told = told.unwrap_or_else(|poisoned| poisoned.into_inner());
        match told.error.take() {
            Some(error) => Err(error),
            None => Ok(std::mem::take(&mut told.places).into_iter().collect()),
        }
    }
}

impl fmt::Debug for Producer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Producer").field("topic", &self.topic).finish_non_exhaustive()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kafka::{native::break_for_good, wait::block_on};

    #[test]
    fn after_an_error_that_it_cannot_go_on_after_a_producer_is_made_anew() {
        let settings = Settings {
            brokers: vec!["127.0.0.1:1".into()],
            topic: "t".into(),
            dead_letter_topic: String::new(),
            properties: BTreeMap::new(),
            passing: Default::default(),
        };
        let limits = ProducerLimits { timeout: Duration::from_millis(100), ..ProducerLimits::default() };
        let producer = Producer::open(&settings, limits).unwrap();
        let old = producer.native();
        break_for_good(old.client());
        assert!(old.client().fatal_error().is_some());
        let Err(ProduceError::Failed(what)) = block_on(producer.send(vec![(vec![1], vec![2])])) else {
            panic!("nobody is there")
        };
        assert!(what.contains("timed out"), "it waited for a broker: {what}");
        assert!(!Arc::ptr_eq(&old, &producer.native()));
    }
}
