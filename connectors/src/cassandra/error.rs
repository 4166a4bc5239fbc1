//! What can go wrong, by what the caller can do about it.

use std::{path::PathBuf, time::Duration};

use dataflows::port::{BoxError, SinkError};
use scylla::errors::{
    ConnectionError, ConnectionPoolError, ConnectionSetupRequestErrorKind, DbError, ExecutionError, MetadataError,
    NewSessionError, PrepareError, RequestAttemptError,
};

/// Why the tables can't be opened or read. No variant holds the password.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CassandraError {
    /// Nobody answered as it should for as long as we were told to try.
    #[error("cassandra at {} did not answer within {waited:?}", contact_points.join(", "))]
    Unreachable {
        /// Whom we asked.
        contact_points: Vec<String>,
        /// For how long.
        waited: Duration,
        /// What the last attempt met.
        #[source]
        cause: BoxError,
    },
    /// Cassandra said no, and would again.
    #[error("cassandra refused {statement}")]
    Refused {
        /// The statement, or the login.
        statement: String,
        /// Why.
        #[source]
        cause: BoxError,
    },
    /// No answer, or one that may be another the next time. It may have been done.
    #[error("cassandra did not take {statement}")]
    Unanswered {
        /// The statement.
        statement: String,
        /// Why.
        #[source]
        cause: BoxError,
    },
    /// A table or the keyspace is not as it has to be. It is never changed or created anew by us.
    #[error("{table} in cassandra is not as it has to be: {what}")]
    Schema {
        /// The table, or the keyspace.
        table: String,
        /// What differs, and the statement that would create it.
        what: String,
    },
    /// A setting can't be right.
    #[error("cassandra.{key} is wrong: {what}")]
    Settings {
        /// Its key.
        key: &'static str,
        /// What is wrong with it.
        what: String,
    },
    /// A file that the settings name can't be read.
    #[error("{} can't be read", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        cause: BoxError,
    },
    /// The node did not prove who it is.
    #[error("cassandra at {} can't be trusted", contact_points.join(", "))]
    Untrusted {
        /// Whom we asked.
        contact_points: Vec<String>,
        /// What TLS says.
        #[source]
        cause: BoxError,
    },
    /// The threads that talk to Cassandra can't be started.
    #[error("the threads that talk to cassandra can't be started")]
    Threads {
        /// Why.
        #[source]
        cause: std::io::Error,
    },
}

impl CassandraError {
    pub(super) fn of(statement: &str, cause: ExecutionError) -> Self {
        let statement = statement.to_owned();
        let comes_again = comes_again(&cause);
        let cause = Box::new(cause);
        if comes_again { Self::Refused { statement, cause } } else { Self::Unanswered { statement, cause } }
    }

    pub(super) fn of_prepare(statement: &str, cause: PrepareError) -> Self {
        Self::of(statement, ExecutionError::PrepareError(cause))
    }

    /// An answer that is not of the kind that its statement has: a driver or a server that we don't know.
    pub(super) fn of_answer(statement: &str, cause: impl Into<BoxError>) -> Self {
        Self::Refused { statement: statement.to_owned(), cause: cause.into() }
    }

    /// As the error of a sink that was given `what`.
    pub(super) fn of_sink(self, sink: &str, what: String) -> SinkError {
        let (sink, cause) = (sink.to_owned(), Box::new(self));
        match *cause {
            Self::Unanswered { .. } | Self::Unreachable { .. } => SinkError::Unanswered { sink, what, cause },
            _ => SinkError::Refused { sink, what, cause },
        }
    }
}

/// Whether the same statement would meet the same error again.
pub(super) fn comes_again(error: &ExecutionError) -> bool {
    match error {
        ExecutionError::BadQuery(_) => true,
        ExecutionError::PrepareError(PrepareError::AllAttemptsFailed { first_attempt }) => {
            attempt_comes_again(first_attempt)
        }
        ExecutionError::PrepareError(PrepareError::ConnectionPoolError(error))
        | ExecutionError::ConnectionPoolError(error) => broken_by(error).is_some_and(is_login_refused),
        ExecutionError::LastAttemptError(error) => attempt_comes_again(error),
        _ => false,
    }
}

/// Whether the request did not even leave.
pub(super) fn was_not_sent(error: &ExecutionError) -> bool {
    matches!(error, ExecutionError::ConnectionPoolError(_) | ExecutionError::EmptyPlan | ExecutionError::BadQuery(_))
}

fn attempt_comes_again(error: &RequestAttemptError) -> bool {
    match error {
        RequestAttemptError::SerializationError(_)
        | RequestAttemptError::CqlRequestSerialization(_)
        | RequestAttemptError::RepreparedIdChanged { .. } => true,
        RequestAttemptError::DbError(error, message) => answer_comes_again(error, message),
        _ => false,
    }
}

fn answer_comes_again(error: &DbError, message: &str) -> bool {
    match error {
        DbError::AuthenticationError => !message.contains(UNABLE),
        DbError::SyntaxError
        | DbError::Invalid
        | DbError::AlreadyExists { .. }
        | DbError::FunctionFailure { .. }
        | DbError::Unauthorized
        | DbError::ConfigError
        | DbError::ProtocolError => true,
        _ => false,
    }
}

/// How Cassandra begins the message of a login that it could not judge, because the tables of the users can't be read.
const UNABLE: &str = "Unable to perform";

/// What broke the connections that a session would be made of.
pub(super) fn connection_error(error: &NewSessionError) -> Option<&ConnectionError> {
    match error {
        NewSessionError::MetadataError(MetadataError::ConnectionPoolError(error)) => broken_by(error),
        _ => None,
    }
}

fn broken_by(error: &ConnectionPoolError) -> Option<&ConnectionError> {
    match error {
        ConnectionPoolError::Broken { last_connection_error } => Some(last_connection_error),
        _ => None,
    }
}

/// Whether the node did not let us in, and would not the next time.
pub(super) fn is_login_refused(error: &ConnectionError) -> bool {
    let ConnectionError::ConnectionSetupRequestError(error) = error else {
        return false;
    };
    match error.get_error() {
        ConnectionSetupRequestErrorKind::DbError(error, message) => answer_comes_again(error, message),
        ConnectionSetupRequestErrorKind::MissingAuthentication
        | ConnectionSetupRequestErrorKind::StartAuthSessionError(_)
        | ConnectionSetupRequestErrorKind::AuthChallengeEvaluationError(_)
        | ConnectionSetupRequestErrorKind::AuthFinishError(_) => true,
        _ => false,
    }
}

/// Whether TLS found that the node is not who it should be.
pub(super) fn is_untrusted(error: &ConnectionError) -> bool {
    let ConnectionError::IoError(error) = error else {
        return false;
    };
    let tls = error.get_ref().and_then(|error| error.downcast_ref::<rustls::Error>());
    matches!(tls, Some(rustls::Error::InvalidCertificate(_)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(error: DbError, message: &str) -> ExecutionError {
        ExecutionError::LastAttemptError(RequestAttemptError::DbError(error, message.to_owned()))
    }

    #[test]
    fn an_answer_that_time_may_change_is_told_from_one_that_it_will_not() {
        let cases = [
            (answered(DbError::Overloaded, ""), false),
            (answered(DbError::IsBootstrapping, ""), false),
            (answered(DbError::ServerError, ""), false),
            (answered(DbError::TruncateError, ""), false),
            (ExecutionError::RequestTimeout(Duration::from_secs(10)), false),
            (ExecutionError::EmptyPlan, false),
            (answered(DbError::Invalid, "unconfigured table stats_minute"), true),
            (answered(DbError::Unauthorized, ""), true),
            (answered(DbError::AuthenticationError, "Provided username u and/or password are incorrect"), true),
            (answered(DbError::AuthenticationError, "Unable to perform authentication: no quorum"), false),
        ];
        for (error, expected) in cases {
            assert_eq!(comes_again(&error), expected, "{error:?}");
            let error = CassandraError::of("SELECT 1", error);
            assert_eq!(matches!(error, CassandraError::Refused { .. }), expected);
            let of_sink = error.of_sink("cassandra", "rows".to_owned());
            assert_eq!(matches!(of_sink, SinkError::Refused { .. }), expected);
        }
    }
}
