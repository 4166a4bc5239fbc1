//! What commands that name Cassandra share: its settings and its failures.

use connectors::cassandra::{CassandraError, Settings};

use crate::{
    config::CassandraSettings,
    exit::{Exit, Failure},
};

/// The connector's settings by the configuration's.
pub fn settings_of(cassandra: &CassandraSettings) -> Settings {
    Settings {
        contact_points: cassandra.contact_points.clone(),
        keyspace: cassandra.keyspace.clone(),
        local_datacenter: cassandra.local_datacenter.clone(),
        replication_factor: cassandra.replication_factor.get(),
        username: cassandra.username.clone(),
        password_file: cassandra.password_file.clone(),
        tls: cassandra.tls,
        ca_file: cassandra.ca_file.clone(),
    }
}

/// The failure of Cassandra: by contract all of them are a dependency that can't be used.
pub fn failure(error: CassandraError) -> Failure {
    let code = match error {
        CassandraError::Settings { .. } | CassandraError::Unreadable { .. } => Exit::Usage,
        _ => Exit::Unreachable,
    };
    Failure::new(code, error)
}
