//! Dead letters as everybody sees them: one JSON object each, as the contract's section 6 has it.

use base64::{Engine, prelude::BASE64_STANDARD};
use dataflows::{letter::DeadLetter, port::PartitionId, time::EventTime};
use serde::{Deserialize, Deserializer, Serialize};

/// What the embedded log is called where Kafka has a topic's name.
pub const LOG_TOPIC: &str = "log";

/// One dead letter in its public form.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Letter {
    /// `malformed`, `late`, `future` or `oversize`.
    pub reason: String,
    /// One word more about it.
    pub detail: String,
    /// Where the record is.
    pub source: Source,
    /// When the log received it, epoch ms, if the log says so.
    pub received_at: Option<EventTime>,
    /// The record's key, if it had one that is UTF-8.
    pub key: Option<String>,
    /// The key, if it is not UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_base64: Option<String>,
    /// The record's headers, in order; the embedded log has none.
    #[serde(default, deserialize_with = "list_or_null")]
    pub headers: Vec<HeaderText>,
    /// The record, if it is UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payload: Option<String>,
    /// The record, if it is not UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payload_base64: Option<String>,
}

/// The place of a record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// The topic, or [`LOG_TOPIC`].
    pub topic: String,
    /// The partition, from 0.
    pub partition: u32,
    /// The offset in it.
    pub offset: u64,
}

impl Source {
    /// The place within its topic.
    pub fn place(&self) -> (PartitionId, u64) {
        (PartitionId(self.partition), self.offset)
    }
}

/// One header in its public form.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeaderText {
    /// Its name.
    pub name: String,
    /// Its value, if it has one that is UTF-8.
    pub value: Option<String>,
    /// The value, if it is not UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value_base64: Option<String>,
}

impl HeaderText {
    fn new(name: &str, value: Option<&[u8]>) -> Self {
        let (value, value_base64) = value.map_or((None, None), text_or_base64);
        Self { name: name.to_owned(), value, value_base64 }
    }
}

/// Letters of the first versions say `null` where they have no headers.
fn list_or_null<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<HeaderText>, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

impl Letter {
    /// The public form of a letter from this topic.
    pub fn new(topic: &str, letter: &DeadLetter) -> Self {
        let (key, key_base64) = letter.key.as_deref().map_or((None, None), text_or_base64);
        let (payload, payload_base64) = text_or_base64(&letter.payload);
        Self {
            reason: letter.reason.as_str().to_owned(),
            detail: letter.reason.detail().to_owned(),
            source: Source { topic: topic.to_owned(), partition: letter.partition.0, offset: letter.offset },
            received_at: letter.append_time,
            key,
            key_base64,
            headers: letter.headers.iter().map(|(name, value)| HeaderText::new(name, value.as_deref())).collect(),
            payload,
            payload_base64,
        }
    }

    /// The record's bytes, however they are carried; `None` if they are not.
    pub fn payload_bytes(&self) -> Option<Vec<u8>> {
        match (&self.payload, &self.payload_base64) {
            (Some(text), _) => Some(text.clone().into_bytes()),
            (None, Some(base64)) => BASE64_STANDARD.decode(base64).ok(),
            (None, None) => None,
        }
    }
}

fn text_or_base64(bytes: &[u8]) -> (Option<String>, Option<String>) {
    match std::str::from_utf8(bytes) {
        Ok(text) => (Some(text.to_owned()), None),
        Err(_) => (None, Some(BASE64_STANDARD.encode(bytes))),
    }
}
