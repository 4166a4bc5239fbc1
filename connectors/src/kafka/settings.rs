//! What a cluster and its topics are called, and the librdkafka configuration that follows from it.

use std::{collections::BTreeMap, fmt, time::Duration};

use dataflows::port::PartitionId;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};

/// Where Kafka is, and what is whose topic.
#[derive(Clone, PartialEq, Eq)]
pub struct Settings {
    /// `host:port` of some brokers; the others are found through them.
    pub brokers: Vec<String>,
    /// The input.
    pub topic: String,
    /// Where dead letters go.
    pub dead_letter_topic: String,
    /// Any librdkafka property. They win over what Tidemark would choose, except where its meaning depends on it.
    pub properties: BTreeMap<String, String>,
    /// What of the input may be left out.
    pub passing: Passing,
}

/// What is passed over, and told as lost, where it would end the run otherwise.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Passing {
    /// What retention took before it was read.
    pub gaps: bool,
    /// Batches that the client can't take in: the partition and the offset that the error names.
    pub batches: Vec<(PartitionId, u64)>,
}

/// Values may be secrets.
impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("brokers", &self.brokers)
            .field("topic", &self.topic)
            .field("dead_letter_topic", &self.dead_letter_topic)
            .field("properties", &self.properties.keys().collect::<Vec<_>>())
            .field("passing", &self.passing)
            .finish()
    }
}

/// What properties can't change, aliases included: what is counted would change with them, or what "durable" means.
const FIXED: [&str; 22] = [
    "acks",
    "auto.commit.enable",
    "auto.offset.reset",
    "bootstrap.servers",
    "delivery.report.only.error",
    "enable.auto.commit",
    "enable.auto.offset.store",
    "enable.idempotence",
    "enable.partition.eof",
    "group.id",
    "isolation.level",
    "log.queue",
    "max.in.flight",
    "max.in.flight.requests.per.connection",
    "metadata.broker.list",
    "partitioner",
    "request.required.acks",
    "retries",
    "message.send.max.retries",
    "transaction.timeout.ms",
    "transactional.id",
    "allow.auto.create.topics",
];

/// A connection that answers nothing for this long is given up, so that a broker that came back is found again soon.
const SOCKET_TIMEOUT: &str = "10000";

/// The same for questions that are asked again anyway.
const ASKER_SOCKET_TIMEOUT: &str = "5000";

/// What all readers together may hold that is fetched and not yet read, KiB.
const QUEUED_KIB: u32 = 64 << 10;

/// What one reader may hold, KiB: a few fetches. librdkafka takes some five times this for small records, and more makes nothing faster.
const READER_QUEUED_KIB_MAX: u32 = 4 << 10;

/// What one reader may at least hold, KiB: many small partitions go over [`QUEUED_KIB`], but stay readable.
const READER_QUEUED_KIB_MIN: u32 = 1 << 10;

/// What is asked for at once, bytes.
const FETCH_BYTES: u32 = 1 << 20;

/// A dead letter in a record, bytes: a mebibyte that JSON writes as six, a key, headers.
pub const LETTER_RECORD_BYTES_MAX: u32 = 8 << 20;

impl Settings {
    /// Properties that are set and have no effect.
    pub fn without_effect(&self) -> impl Iterator<Item = &str> {
        self.properties.keys().map(String::as_str).filter(|key| FIXED.contains(key))
    }

    fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config
            .set("client.id", "tidemark")
            .set("reconnect.backoff.ms", "100")
            // A look asks several questions one after the other: waiting for a connection must not add up to many seconds.
            .set("reconnect.backoff.max.ms", "1000")
            .set("socket.timeout.ms", SOCKET_TIMEOUT)
            .set("socket.connection.setup.timeout.ms", "5000")
            .set("socket.keepalive.enable", "true")
            .set_log_level(RDKafkaLogLevel::Warning);
        config
    }

    /// Properties, then what they can't change.
    fn fixed(&self, mut config: ClientConfig, fixed: &[(&str, &str)]) -> ClientConfig {
        for (key, value) in self.properties.iter().filter(|(key, _)| !FIXED.contains(&key.as_str())) {
            config.set(key, value);
        }
        config.set("bootstrap.servers", self.brokers.join(",")).set("allow.auto.create.topics", "false");
        for (key, value) in fixed {
            config.set(*key, *value);
        }
        config
    }

    /// Asks about topics, reads nothing.
    pub(super) fn asker(&self) -> ClientConfig {
        let mut config = self.client();
        config.set("socket.timeout.ms", ASKER_SOCKET_TIMEOUT).set("socket.connection.setup.timeout.ms", "3000");
        self.fixed(config, &[])
    }

    /// Reads one of `partitions` partitions.
    pub(super) fn reader(&self, partitions: u32) -> ClientConfig {
        let queued_kib = (QUEUED_KIB / partitions.max(1)).clamp(READER_QUEUED_KIB_MIN, READER_QUEUED_KIB_MAX);
        let mut config = self.client();
        config
            // The default makes a reader that was full wait for a second.
            .set("fetch.queue.backoff.ms", "5")
            .set("fetch.wait.max.ms", "100")
            .set("fetch.message.max.bytes", FETCH_BYTES.min(queued_kib << 10).to_string())
            .set("queued.max.messages.kbytes", queued_kib.to_string())
            // An answer holds one batch at the least, however large the topic lets it be.
            .set("receive.message.max.bytes", "134217728")
            .set("check.crcs", "true");
        let fixed = [
            ("group.id", "tidemark-reader"),
            ("enable.auto.commit", "false"),
            ("enable.auto.offset.store", "false"),
            ("auto.offset.reset", "error"),
            ("isolation.level", "read_committed"),
            ("enable.partition.eof", "true"),
        ];
        self.fixed(config, &fixed)
    }

    /// Produces events; gives a record up after `timeout`.
    pub(super) fn producer(&self, timeout: Duration) -> ClientConfig {
        let mut config = self.client();
        config
            .set("linger.ms", "5")
            .set("compression.type", "lz4")
            // What waits is bounded in bytes by the producer itself, a batch of records whole or not at all.
            .set("queue.buffering.max.messages", "0")
            .set("queue.buffering.max.kbytes", "2097151")
            // The topic decides what is too large.
            .set("message.max.bytes", "67108864");
        let timeout_ms = timeout.as_millis().max(1).to_string();
        let fixed = [
            ("acks", "all"),
            ("enable.idempotence", "true"),
            ("partitioner", "murmur2_random"),
            ("delivery.report.only.error", "false"),
            ("message.timeout.ms", timeout_ms.as_str()),
        ];
        self.fixed(config, &fixed)
    }

    /// Publishes dead letters under a transactional id, so many bytes at once.
    pub(super) fn letters(&self, transactional_id: &str, batch_bytes: usize) -> ClientConfig {
        let mut config = self.client();
        config
            .set("linger.ms", "5")
            .set("compression.type", "lz4")
            .set("queue.buffering.max.messages", "0")
            .set("queue.buffering.max.kbytes", "262144")
            .set("message.max.bytes", LETTER_RECORD_BYTES_MAX.to_string());
        let batch_bytes = batch_bytes.to_string();
        let fixed = [
            ("batch.size", batch_bytes.as_str()),
            ("acks", "all"),
            ("enable.idempotence", "true"),
            ("delivery.report.only.error", "false"),
            ("transactional.id", transactional_id),
            // An unfinished transaction keeps readers from what is behind it for as long.
            ("transaction.timeout.ms", "60000"),
        ];
        self.fixed(config, &fixed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(properties: &[(&str, &str)]) -> Settings {
        Settings {
            brokers: vec!["a:1".into(), "b:2".into()],
            topic: "events".into(),
            dead_letter_topic: "letters".into(),
            properties: properties.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect(),
            passing: Passing::default(),
        }
    }

    #[test]
    fn properties_win_except_where_the_meaning_depends_on_it() {
        let given = settings(&[("fetch.wait.max.ms", "7"), ("isolation.level", "read_uncommitted"), ("acks", "0")]);
        assert_eq!(given.reader(1).get("fetch.wait.max.ms"), Some("7"));
        assert_eq!(given.reader(1).get("isolation.level"), Some("read_committed"));
        assert_eq!(given.producer(Duration::from_secs(1)).get("acks"), Some("all"));
        assert_eq!(given.reader(1).get("bootstrap.servers"), Some("a:1,b:2"));
        assert_eq!(given.without_effect().collect::<Vec<_>>(), ["acks", "isolation.level"]);
    }

    #[test]
    fn values_of_properties_are_not_shown() {
        let shown = format!("{:?}", settings(&[("sasl.password", "hunter2")]));
        assert!(shown.contains("sasl.password") && !shown.contains("hunter2"), "{shown}");
    }

    #[test]
    fn readers_share_a_bounded_memory() {
        for (partitions, kib) in [(1, "4096"), (16, "4096"), (32, "2048"), (10_000, "1024")] {
            let config = settings(&[]).reader(partitions);
            assert_eq!(config.get("queued.max.messages.kbytes"), Some(kib), "{partitions}");
        }
    }
}
