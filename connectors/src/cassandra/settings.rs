//! What is needed to find a Cassandra and to be let in.

use std::{fs, path::PathBuf};

use super::CassandraError;

/// The longest name that Cassandra gives a keyspace.
const KEYSPACE_BYTES_MAX: usize = 48;

/// Where the tables are. The password itself is never in here, so that `Debug` can't show it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Nodes to ask first, as `host` or `host:port`; the others are learnt from them.
    pub contact_points: Vec<String>,
    /// The keyspace, in the case in which it is written: 1 to 48 of `[A-Za-z0-9_]`.
    pub keyspace: String,
    /// Only nodes of this data centre are asked, and theirs is the quorum.
    pub local_datacenter: String,
    /// How many nodes of the local data centre hold each row, where the keyspace is created.
    pub replication_factor: u32,
    /// Who we are, if Cassandra asks.
    pub username: Option<String>,
    /// The file that holds the password and nothing else but a line end. It is read at each connect.
    pub password_file: Option<PathBuf>,
    /// Whether to speak TLS. The certificate must name the node's address (an IP subject alternative name).
    pub tls: bool,
    /// The certificates (PEM) that TLS trusts: nothing else is trusted, not even what the system trusts.
    pub ca_file: Option<PathBuf>,
}

/// A user and the password, which nothing prints.
pub(super) struct Credentials {
    pub(super) username: String,
    pub(super) password: String,
}

impl Settings {
    /// Says what is wrong with the settings without asking anybody.
    pub(super) fn check(&self) -> Result<(), CassandraError> {
        let wrong = |key, what: &str| Err(CassandraError::Settings { key, what: what.to_owned() });
        let is_name = |text: &str| text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        if self.contact_points.is_empty() {
            return wrong("contact_points", "at least one is needed");
        }
        if !(1..=KEYSPACE_BYTES_MAX).contains(&self.keyspace.len()) || !is_name(&self.keyspace) {
            return wrong("keyspace", &format!("{:?} is no name of 1 to 48 letters, digits and _", self.keyspace));
        }
        if self.local_datacenter.is_empty() {
            return wrong("local_datacenter", "it is empty; nodetool status shows the name");
        }
        if self.replication_factor == 0 {
            return wrong("replication_factor", "somebody must hold the rows");
        }
        match (&self.username, &self.password_file) {
            (Some(_), None) => wrong("password_file", "a username is given, so it is needed"),
            (None, Some(_)) => wrong("username", "a password_file is given, so it is needed"),
            _ => Ok(()),
        }
    }

    pub(super) fn credentials(&self) -> Result<Option<Credentials>, CassandraError> {
        let (Some(username), Some(path)) = (&self.username, &self.password_file) else {
            return Ok(None);
        };
        let text = fs::read_to_string(path)
            .map_err(|cause| CassandraError::Unreadable { path: path.clone(), cause: Box::new(cause) })?;
        let password = text.strip_suffix('\n').unwrap_or(&text);
        let password = password.strip_suffix('\r').unwrap_or(password).to_owned();
        Ok(Some(Credentials { username: username.clone(), password }))
    }

    /// The keyspace as a quoted identifier.
    pub(super) fn quoted_keyspace(&self) -> String {
        format!("\"{}\"", self.keyspace)
    }
}

#[cfg(test)]
pub(super) fn sample() -> Settings {
    Settings {
        contact_points: vec!["127.0.0.1:9042".to_owned()],
        keyspace: "tidemark".to_owned(),
        local_datacenter: "datacenter1".to_owned(),
        replication_factor: 1,
        username: None,
        password_file: None,
        tls: false,
        ca_file: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_that_can_not_work_are_named_by_their_key() {
        type Spoil = fn(&mut Settings);
        let cases: [(&str, Spoil); 8] = [
            ("contact_points", |settings| settings.contact_points.clear()),
            ("keyspace", |settings| settings.keyspace.clear()),
            ("keyspace", |settings| settings.keyspace = "a b".to_owned()),
            ("keyspace", |settings| settings.keyspace = "a".repeat(49)),
            ("local_datacenter", |settings| settings.local_datacenter.clear()),
            ("replication_factor", |settings| settings.replication_factor = 0),
            ("password_file", |settings| settings.username = Some("u".to_owned())),
            ("username", |settings| settings.password_file = Some("p".into())),
        ];
        sample().check().unwrap();
        for (expected, spoil) in cases {
            let mut settings = sample();
            spoil(&mut settings);
            match settings.check() {
                Err(CassandraError::Settings { key, .. }) => assert_eq!(key, expected),
                other => panic!("{expected}: {other:?}"),
            }
        }
    }

    #[test]
    fn the_password_is_the_file_without_its_line_end() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("password");
        let settings = Settings { username: Some("u".to_owned()), password_file: Some(path.clone()), ..sample() };
        assert!(matches!(settings.credentials(), Err(CassandraError::Unreadable { .. })));
        for (text, password) in [("a b\n", "a b"), ("a\r\n", "a"), ("a", "a"), ("a\n\n", "a\n"), (" a", " a")] {
            fs::write(&path, text).unwrap();
            assert_eq!(settings.credentials().unwrap().unwrap().password, password);
        }
    }
}
