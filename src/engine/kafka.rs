//! What commands that name Kafka share: its settings and its failures.

use connectors::kafka::{KafkaError, Passing, Settings};

use crate::{
    config::KafkaSettings,
    exit::{Exit, Failure},
};

/// The connector's settings by the configuration's.
pub fn settings_of(kafka: &KafkaSettings) -> Settings {
    Settings {
        brokers: kafka.brokers.clone(),
        topic: kafka.topic.clone(),
        dead_letter_topic: kafka.dead_letter_topic.clone(),
        properties: kafka.properties.0.clone(),
        passing: Passing { gaps: kafka.passes_gaps, batches: kafka.skip_batches.clone() },
    }
}

/// The failure of Kafka.
pub fn failure(error: KafkaError) -> Failure {
    let code = match error {
        KafkaError::Property { .. } => Exit::Usage,
        KafkaError::Unreachable { .. } | KafkaError::Missing { .. } => Exit::Unreachable,
        KafkaError::Replaced { .. } => Exit::InputReplaced,
        _ => Exit::Failed,
    };
    Failure::new(code, error)
}
