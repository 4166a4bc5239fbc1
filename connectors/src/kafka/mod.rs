//! Kafka: a topic as the input, records produced to it, and dead letters in a topic of their own.
//!
//! ```text
//! Topic ── reader ──> Reader      one consumer for each partition, assigned, in no group, read without blocking
//!   │
//!   ├── watch ──> Watch           a thread that asks the brokers: reachable? replaced? grown? how far behind?
//!   └── check, confirm            is the log still the one that a checkpoint was made of?
//! Producer                        idempotent, acknowledged by all replicas, keys placed as Kafka's own clients do
//! Letters                         a `LetterSink`: one transaction for each checkpoint
//! Dimensions                      a compacted topic: what is known of videos and channels
//! ```
//!
//! Promised:
//! * Only committed records are seen, each once, in order. The end is the last stable offset.
//! * An offset that the brokers do not hold is never replaced by another one: it ends the run, with the loss; or, where
//!   [`Passing`] says so, the reader tells which records it has passed over.
//! * A broker that is away is waited for, whatever it takes; nothing but opening has a limit.
//!
//! Not promised:
//! * librdkafka reads on at the same offset of a topic that was deleted and made again while it was reading, if the new one
//!   is as long. [`Watch`] notices within seconds. What was read in between must not become durable: call
//!   [`Topic::confirm`] before a checkpoint is committed.

mod ask;
mod check;
mod context;
mod dimensions;
mod error;
pub mod letters;
mod native;
mod pass;
mod producer;
mod reader;
mod settings;
mod topic;
mod wait;
mod watch;

pub use dimensions::{Dimensions, DimensionsError, Following};
pub use error::KafkaError;
pub use letters::{Letters, ReadError, Reading, read as read_letters};
pub use producer::{Done, Feed, Places, ProduceError, Producer, ProducerLimits};
pub use reader::Reader;
pub use settings::{Passing, Settings};
pub use topic::Topic;
pub use watch::Watch;
