//! Questions about a topic, put to whichever broker answers.

use std::time::{Duration, Instant};

use rdkafka::{
    consumer::{BaseConsumer, Consumer},
    metadata::Metadata,
    types::RDKafkaErrorCode,
};

use super::{
    context::Context,
    error::{Fault, KafkaError},
    native::{self, Described, Place},
    settings::Settings,
    topic::client,
};

/// One question.
pub const ASK_LIMIT: Duration = Duration::from_secs(5);

/// How long a question that can't be taken back keeps on before the asker is asked whether it is still wanted.
const SLICE: Duration = Duration::from_millis(500);

/// Log lines and errors that are taken from the client after each question: more than come in between.
const EVENTS: usize = 8;

/// A client that reads nothing.
pub struct Asker {
    client: BaseConsumer<Context>,
    topic: String,
}

impl Asker {
    pub fn new(settings: &Settings, topic: &str) -> Result<Self, KafkaError> {
        Ok(Self { client: client(&settings.asker(), Context::default())?, topic: topic.to_owned() })
    }

    /// What the topic is now. Gives up when it is `unwanted`.
    pub fn describe(&self, unwanted: &dyn Fn() -> bool) -> Result<Described, Fault> {
        self.drained(self.metadata(unwanted).and_then(|metadata| {
            let broker = answering_broker(&metadata);
            native::describe(&self.client, &self.topic, broker, ASK_LIMIT, unwanted)
        }))
    }

    /// One offset of each of these partitions.
    pub fn offsets_of(&self, partitions: &[u32], place: Place, unwanted: &dyn Fn() -> bool) -> Result<Vec<u64>, Fault> {
        let ask = || native::offsets(&self.client, &self.topic, partitions, place, ASK_LIMIT, unwanted);
        // What librdkafka remembers of a leader may be out of date, and it does not look again by itself.
        let again = |fault: Fault| match fault.is_transient() {
            true => self.metadata(unwanted).and_then(|_| ask()),
            false => Err(fault),
        };
        self.drained(ask().or_else(again))
    }

    /// Asks any broker that answers. librdkafka then also knows again which brokers there are.
    fn metadata(&self, unwanted: &dyn Fn() -> bool) -> Result<Metadata, Fault> {
        let start = Instant::now();
        loop {
            match self.client.fetch_metadata(Some(&self.topic), SLICE) {
                Ok(metadata) => {
                    let error = metadata.topics().iter().find_map(|topic| topic.error());
                    return match error.map(RDKafkaErrorCode::from) {
                        // Partitions without a leader are found out when their offsets are asked for.
                        None | Some(RDKafkaErrorCode::LeaderNotAvailable) => Ok(metadata),
                        Some(code) => Err(Fault::new(code, code.to_string())),
                    };
                }
                Err(error) => {
                    let fault = Fault::from(error);
                    if !fault.is_transient() || unwanted() || ASK_LIMIT < start.elapsed() {
                        return Err(fault);
                    }
                }
            }
            // Without any connection the question fails at once.
            self.client.poll(Duration::from_millis(20));
        }
    }

    /// Lets the client say what it has to say.
    fn drained<T>(&self, answer: T) -> T {
        for _ in 0..EVENTS {
            self.client.poll(Duration::ZERO);
        }
        answer
    }
}

/// The broker that gave this answer, or one that leads a partition: it is likely to give the next one too.
fn answering_broker(metadata: &Metadata) -> Option<i32> {
    let leaders = metadata.topics().iter().flat_map(|topic| topic.partitions()).map(|partition| partition.leader());
    std::iter::once(metadata.orig_broker_id()).chain(leaders).find(|broker| 0 <= *broker)
}
