//! What can go wrong, and which of it passes by itself.

use std::{fmt, time::Duration};

use dataflows::port::BoxError;
use rdkafka::{error::KafkaError as RdError, types::RDKafkaErrorCode};

/// Why Kafka can't be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KafkaError {
    /// A client can't be made from the settings. The value is not told: it may be a secret.
    #[error("the librdkafka property {key:?} is unknown, or has a value that it can't have")]
    Property {
        /// Which one.
        key: String,
    },
    /// The brokers did not answer in time.
    #[error("no answer from {brokers} within {waited:?}")]
    Unreachable {
        /// Who was asked.
        brokers: String,
        /// For how long.
        waited: Duration,
        /// The last thing that went wrong.
        #[source]
        cause: BoxError,
    },
    /// There is no such topic.
    #[error("topic {topic:?} does not exist")]
    Missing {
        /// Its name.
        topic: String,
    },
    /// The topic is not the one that was opened: it was deleted, and maybe made again.
    #[error("topic {topic:?} was deleted or replaced")]
    Replaced {
        /// Its name.
        topic: String,
    },
    /// The brokers refused, or something failed for good.
    #[error("{what} failed")]
    Failed {
        /// What was being done.
        what: String,
        /// Why.
        #[source]
        cause: BoxError,
    },
}

/// An error of librdkafka or a broker: its code, and what it says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The code; negative ones are librdkafka's own.
    pub code: i32,
    /// In words.
    pub text: String,
}

impl Fault {
    pub fn new(code: RDKafkaErrorCode, text: impl Into<String>) -> Self {
        Self { code: code as i32, text: text.into() }
    }

    /// Whether it has this code.
    pub fn is(&self, code: RDKafkaErrorCode) -> bool {
        self.code == code as i32
    }

    /// Whether it may pass without anybody doing anything.
    pub fn is_transient(&self) -> bool {
        is_any(self.code, &TRANSIENT)
    }

    /// Whether it says that there is no such topic, which a broker also says while it starts.
    pub fn is_unknown_topic(&self) -> bool {
        is_any(self.code, &UNKNOWN_TOPIC)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Fault {}

impl From<RdError> for Fault {
    fn from(error: RdError) -> Self {
        let code = match &error {
            RdError::Transaction(error) => error.code(),
            error => error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Fail),
        };
        Self::new(code, error.to_string())
    }
}

/// Whether a code is one of these.
pub fn is_any(code: i32, codes: &[RDKafkaErrorCode]) -> bool {
    codes.iter().any(|one| *one as i32 == code)
}

/// No such topic, partition or topic id.
pub const UNKNOWN_TOPIC: [RDKafkaErrorCode; 4] = [
    RDKafkaErrorCode::UnknownTopicOrPartition,
    RDKafkaErrorCode::UnknownTopic,
    RDKafkaErrorCode::UnknownPartition,
    RDKafkaErrorCode::UnknownTopicId,
];

/// The brokers' word that this client may not do this.
pub const FORBIDDEN: [RDKafkaErrorCode; 5] = [
    RDKafkaErrorCode::TopicAuthorizationFailed,
    RDKafkaErrorCode::GroupAuthorizationFailed,
    RDKafkaErrorCode::ClusterAuthorizationFailed,
    RDKafkaErrorCode::TransactionalIdAuthorizationFailed,
    RDKafkaErrorCode::SaslAuthenticationFailed,
];

/// A read that its client can't take in, now or ever.
pub const CORRUPT: [RDKafkaErrorCode; 6] = [
    RDKafkaErrorCode::BadMessage,
    RDKafkaErrorCode::BadCompression,
    RDKafkaErrorCode::NotImplemented,
    RDKafkaErrorCode::InvalidMessage,
    RDKafkaErrorCode::MessageSizeTooLarge,
    RDKafkaErrorCode::UnsupportedCompressionType,
];

const TRANSIENT: [RDKafkaErrorCode; 33] = [
    // A question about a partition that has no leader yet.
    RDKafkaErrorCode::NoEnt,
    RDKafkaErrorCode::BrokerTransportFailure,
    RDKafkaErrorCode::AllBrokersDown,
    RDKafkaErrorCode::Resolve,
    RDKafkaErrorCode::OperationTimedOut,
    RDKafkaErrorCode::MessageTimedOut,
    RDKafkaErrorCode::TimedOutQueue,
    RDKafkaErrorCode::WaitingForCoordinator,
    RDKafkaErrorCode::WaitCache,
    RDKafkaErrorCode::InProgress,
    RDKafkaErrorCode::Retry,
    RDKafkaErrorCode::NodeUpdate,
    RDKafkaErrorCode::Authentication,
    RDKafkaErrorCode::LeaderNotAvailable,
    RDKafkaErrorCode::NotLeaderForPartition,
    RDKafkaErrorCode::RequestTimedOut,
    RDKafkaErrorCode::BrokerNotAvailable,
    RDKafkaErrorCode::ReplicaNotAvailable,
    RDKafkaErrorCode::NetworkException,
    RDKafkaErrorCode::CoordinatorLoadInProgress,
    RDKafkaErrorCode::CoordinatorNotAvailable,
    RDKafkaErrorCode::NotCoordinator,
    RDKafkaErrorCode::NotController,
    RDKafkaErrorCode::NotEnoughReplicas,
    RDKafkaErrorCode::NotEnoughReplicasAfterAppend,
    RDKafkaErrorCode::KafkaStorageError,
    RDKafkaErrorCode::FencedLeaderEpoch,
    RDKafkaErrorCode::UnknownLeaderEpoch,
    RDKafkaErrorCode::OffsetNotAvailable,
    RDKafkaErrorCode::PreferredLeaderNotAvailable,
    RDKafkaErrorCode::ThrottlingQuotaExceeded,
    RDKafkaErrorCode::UnstableOffsetCommit,
    RDKafkaErrorCode::ConcurrentTransactions,
];
