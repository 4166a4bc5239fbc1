//! Getting a session: patient with nodes that are not up yet, at once with an answer that would come again.

use std::{future::Future, sync::Arc, time::Duration};

use backon::{BackoffBuilder, ExponentialBuilder};
use dataflows::port::BoxError;
use rustls::ClientConfig;
use scylla::{
    client::{execution_profile::ExecutionProfile, session::Session, session_builder::SessionBuilder},
    errors::NewSessionError,
    policies::{load_balancing::DefaultPolicy, retry::FallthroughRetryPolicy},
    statement::{Consistency, SerialConsistency},
};
use tokio::time::{Instant, sleep, timeout};

use super::{CassandraError, REQUEST_TIMEOUT, Settings, error, settings::Credentials, tls};

/// One attempt, at least and at most: a node that accepts connections and says nothing must not use up all patience.
const ATTEMPT: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(15));
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A connection is asked this often whether it lives, and given up when it doesn't say so for as long.
const KEEPALIVE: Duration = Duration::from_secs(10);
/// Between attempts, least and greatest.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// What a session is made from, again at each attempt.
pub(super) struct Access {
    settings: Settings,
    credentials: Option<Credentials>,
    tls: Option<Arc<ClientConfig>>,
}

impl Access {
    /// Reads the files that the settings name.
    pub(super) fn read(settings: &Settings) -> Result<Self, CassandraError> {
        settings.check()?;
        Ok(Self { settings: settings.clone(), credentials: settings.credentials()?, tls: tls::context(settings)? })
    }

    pub(super) fn settings(&self) -> &Settings {
        &self.settings
    }

    /// One attempt at a session, with that much time left for it.
    pub(super) async fn session(&self, left: Duration) -> Result<Session, CassandraError> {
        let limit = left.clamp(ATTEMPT.0, ATTEMPT.1);
        let settings = &self.settings;
        let mut builder = SessionBuilder::new()
            .known_nodes(&settings.contact_points)
            .default_execution_profile_handle(profile(settings).into_handle())
            .keyspaces_to_fetch([&settings.keyspace])
            .fetch_full_schema_metadata(false)
            .connection_timeout(CONNECT_TIMEOUT)
            .keepalive_interval(KEEPALIVE)
            .keepalive_timeout(KEEPALIVE)
            .tls_context(self.tls.clone());
        if let Some(Credentials { username, password }) = &self.credentials {
            builder = builder.user(username, password);
        }
        let session = match timeout(limit, builder.build()).await {
            Ok(Ok(session)) => session,
            Ok(Err(cause)) => return Err(self.refusal(cause)),
            Err(_) => return Err(unanswered(format!("nothing within {limit:?}").into())),
        };
        self.check_datacenter(&session)?;
        Ok(session)
    }

    fn refusal(&self, cause: NewSessionError) -> CassandraError {
        let Some(inner) = error::connection_error(&cause).cloned() else {
            return unanswered(Box::new(cause));
        };
        if error::is_untrusted(&inner) {
            let contact_points = self.settings.contact_points.clone();
            return CassandraError::Untrusted { contact_points, cause: Box::new(inner) };
        }
        if error::is_login_refused(&inner) {
            let statement = match &self.credentials {
                Some(Credentials { username, .. }) => format!("the login of {username:?}"),
                None => "a login without username".to_owned(),
            };
            return CassandraError::Refused { statement, cause: Box::new(inner) };
        }
        unanswered(Box::new(inner))
    }

    /// Only nodes of this data centre are ever asked, so a wrong name means that nobody is.
    fn check_datacenter(&self, session: &Session) -> Result<(), CassandraError> {
        let state = session.get_cluster_state();
        let datacenters = state.get_nodes_info().iter().filter_map(|node| node.datacenter.as_deref()).collect();
        has_datacenter(&self.settings.local_datacenter, datacenters)
    }
}

/// Whether one of the nodes' data centres is the local one. Where no node says its own, the cluster has not told of them yet.
fn has_datacenter(local: &str, mut datacenters: Vec<&str>) -> Result<(), CassandraError> {
    datacenters.sort_unstable();
    datacenters.dedup();
    match datacenters[..] {
        [] => Err(unanswered("no node says which data centre it is in".into())),
        _ if datacenters.contains(&local) => Ok(()),
        _ => {
            let what = format!("no node is in {local:?}, but in {datacenters:?}");
            Err(CassandraError::Settings { key: "local_datacenter", what })
        }
    }
}

fn unanswered(cause: BoxError) -> CassandraError {
    CassandraError::Unanswered { statement: "a connection".to_owned(), cause }
}

/// Quorums of the local data centre; no retries by the driver, since only the writer knows how many there may be.
fn profile(settings: &Settings) -> ExecutionProfile {
    let policy =
        DefaultPolicy::builder().prefer_datacenter(settings.local_datacenter.clone()).permit_dc_failover(false).build();
    ExecutionProfile::builder()
        .consistency(Consistency::LocalQuorum)
        .serial_consistency(Some(SerialConsistency::LocalSerial))
        .request_timeout(Some(REQUEST_TIMEOUT))
        .retry_policy(Arc::new(FallthroughRetryPolicy::new()))
        .load_balancing_policy(policy)
        .build()
}

/// How long to be patient, and with whom.
pub(super) struct Patience {
    contact_points: Vec<String>,
    limit: Duration,
    until: Instant,
}

impl Patience {
    pub(super) fn new(settings: &Settings, limit: Duration) -> Self {
        Self { contact_points: settings.contact_points.clone(), limit, until: Instant::now() + limit }
    }

    pub(super) fn left(&self) -> Duration {
        self.until.saturating_duration_since(Instant::now())
    }

    /// Tries until it is done, an answer would come again, or patience is over.
    pub(super) async fn with<T, F>(
        &self,
        may_mend: impl Fn(&CassandraError) -> bool,
        mut attempt: impl FnMut() -> F,
    ) -> Result<T, CassandraError>
    where
        F: Future<Output = Result<T, CassandraError>>,
    {
        let mut waits = ExponentialBuilder::default()
            .with_min_delay(BACKOFF.0)
            .with_max_delay(BACKOFF.1)
            .with_jitter()
            .without_max_times()
            .build();
        loop {
            let error = match attempt().await {
                Err(error) if may_mend(&error) || matches!(error, CassandraError::Unanswered { .. }) => error,
                done => return done,
            };
            let wait = waits.next().unwrap_or(BACKOFF.1);
            if self.until <= Instant::now() + wait {
                return Err(self.over(error));
            }
            tracing::info!(error = &error as &dyn std::error::Error, ?wait, "waiting for cassandra");
            sleep(wait).await;
        }
    }

    fn over(&self, error: CassandraError) -> CassandraError {
        match error {
            error @ CassandraError::Unanswered { .. } => CassandraError::Unreachable {
                contact_points: self.contact_points.clone(),
                waited: self.limit,
                cause: Box::new(error),
            },
            error => error,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn regression_a_cluster_that_has_not_told_of_its_nodes_yet_is_asked_again() {
        // It was taken for a wrong name, which ends the start.
        assert!(matches!(has_datacenter("dc1", vec![]), Err(CassandraError::Unanswered { .. })));
        assert!(matches!(has_datacenter("dc1", vec!["dc2", "dc2"]), Err(CassandraError::Settings { .. })));
        assert!(has_datacenter("dc1", vec!["dc2", "dc1"]).is_ok());
    }
}
