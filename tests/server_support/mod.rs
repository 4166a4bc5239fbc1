//! A job on real servers, and what outsiders see of it: everything that goes into Kafka or comes out of Kafka and Cassandra
//! here does so through clients that share nothing with the connectors' own code.

// Each test binary uses its own share of this.
#![allow(dead_code, unreachable_pub)]

pub mod feed;
pub mod outside;
pub mod truth;

use std::{
    path::Path,
    sync::atomic::{AtomicU32, Ordering},
};

use crate::live_support::{Run, now_ms};

/// Where a job reads and writes: on which servers, and under which names.
#[derive(Clone, Debug)]
pub struct Place {
    pub kafka: String,
    pub cassandra: String,
    pub topic: String,
    pub dead_letters: String,
    pub keyspace: String,
}

impl Place {
    /// Names that nobody else uses.
    pub fn on(kafka: &str, cassandra: &str, what: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("{what}_{}_{}", now_ms(), COUNT.fetch_add(1, Ordering::Relaxed));
        Self {
            kafka: kafka.to_owned(),
            cassandra: cassandra.to_owned(),
            topic: name.clone(),
            dead_letters: format!("{name}.dead-letters"),
            keyspace: name,
        }
    }

    /// On the servers that are there for all tests.
    pub fn shared(what: &str) -> Self {
        Self::on(&servers::shared_kafka(), &servers::shared_cassandra(), what)
    }

    /// A job here, with a checkpoint often enough that a test sees many.
    pub fn run(&self, data_dir: &Path) -> Run {
        Run::new(data_dir)
            .env("TIDEMARK_SOURCE__KIND", "kafka")
            .env("TIDEMARK_KAFKA__BROKERS", &self.kafka)
            .env("TIDEMARK_KAFKA__TOPIC", &self.topic)
            .env("TIDEMARK_KAFKA__DEAD_LETTER_TOPIC", &self.dead_letters)
            .env("TIDEMARK_SINK__KIND", "cassandra")
            .env("TIDEMARK_CASSANDRA__CONTACT_POINTS", &self.cassandra)
            .env("TIDEMARK_CASSANDRA__KEYSPACE", &self.keyspace)
            .checkpoints_every("500ms")
    }
}
