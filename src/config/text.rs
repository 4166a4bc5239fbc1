//! The configuration as people write it: one field a key, durations and sizes still text.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};

/// The defaults and their reasons, compiled in.
pub const EMBEDDED: &str = include_str!("../../config/embedded.toml");

/// Everything that can be set. The keys are explained in `config/embedded.toml`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    pub data_dir: String,
    pub workers: i64,
    pub source: Source,
    pub kafka: Kafka,
    pub sink: Sink,
    pub cassandra: Cassandra,
    pub time: Time,
    pub functions: Functions,
    pub index: Index,
    pub checkpoint: Checkpoint,
    pub cluster: Cluster,
    pub http: Http,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Source {
    pub kind: String,
    pub partitions: i64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kafka {
    pub brokers: Vec<String>,
    pub topic: String,
    pub dead_letter_topic: String,
    pub dimensions_topic: String,
    pub properties: Properties,
    pub on_gap: String,
    pub skip_batches: Vec<String>,
}

/// librdkafka's own keys. Some hold secrets, so `Debug` shows none of the values.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Properties(pub BTreeMap<String, String>);

impl fmt::Debug for Properties {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sink {
    pub kind: String,
    pub buffer: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cassandra {
    pub contact_points: Vec<String>,
    pub keyspace: String,
    pub local_datacenter: String,
    pub replication_factor: i64,
    pub username: Option<String>,
    pub password_file: Option<String>,
    pub tls: bool,
    pub ca_file: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Time {
    pub lateness: String,
    pub remember: Option<String>,
    pub idle_after: String,
    pub max_future: String,
    pub max_jump: String,
    pub tick: String,
    pub alignment: String,
    pub quiet: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Functions {
    pub default: Vec<String>,
    /// By event type, names separated by commas.
    pub by_type: BTreeMap<String, String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Index {
    pub hot: String,
    pub as_of: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Checkpoint {
    pub interval: String,
    pub keep: i64,
    pub store: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cluster {
    pub key_file: Option<String>,
    pub patience: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Http {
    pub listen: String,
    pub token_file: Option<String>,
    pub limits: Limits,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    pub header_read: String,
    pub body_read: String,
    pub idle: String,
    pub write: String,
    pub after_wait: String,
    pub header_bytes: String,
    pub body_bytes: String,
    pub decompressed_bytes: String,
    pub connections: i64,
    pub connections_per_address: i64,
}

impl Config {
    /// The built-in defaults.
    pub fn embedded() -> Self {
        toml::from_str(EMBEDDED).expect("config/embedded.toml is compiled in, and a test parses it")
    }
}
