//! Who is let in, and that nobody reads the password: users and rights, TLS.

// The whole file is a test: its helpers may unwrap as well.
#![allow(clippy::unwrap_used)]

mod cassandra_support;

use std::{
    cell::RefCell,
    io::{self, Write},
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use cassandra_support::{
    Cql, Keyspace, PATIENCE, chain,
    proxy::{certificate, tls_proxy},
    row, settings_at, stored, until,
};
use connectors::cassandra::{CassandraError, Settings, Tables};
use dataflows::port::{Claim, CountSink, SinkError, Version};
use servers::Cassandra;

const VERSION: Version = Version { generation: 1, number: 1 };
const PASSWORD: &str = "canary-5Kq";

/// All that is logged, down to what is only of interest to those who write drivers.
#[derive(Clone, Default)]
struct Logged(Arc<Mutex<Vec<u8>>>);

impl Write for Logged {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn with_password(settings: Settings, username: &str, password: &str, dir: &Path) -> Settings {
    let path = dir.join(username);
    std::fs::write(&path, format!("{password}\n")).unwrap();
    Settings { username: Some(username.to_owned()), password_file: Some(path), ..settings }
}

/// One server and one log for all of it: logging is the whole process's.
#[test]
fn a_user_gets_what_it_may_have_and_the_password_is_told_to_nobody() {
    let logged = Logged::default();
    let writer = logged.clone();
    tracing_subscriber::fmt()
        .with_max_level(tracing_subscriber::filter::LevelFilter::TRACE)
        .with_writer(move || writer.clone())
        .init();
    let dir = tempfile::tempdir().unwrap();
    let told = RefCell::new(String::new());
    let server = Cassandra::start_with_password();
    let root = Cql::connect_as(server.address(), Some(("cassandra", "cassandra")));
    let settings = |keyspace: &str| settings_at(server.address(), keyspace);
    let refused = |settings: &Settings| {
        let error = Tables::open(settings, Duration::from_secs(5)).err().expect("this user can't open it");
        let text = chain(&error);
        *told.borrow_mut() += &format!("{error:?} {settings:?} {text}");
        (error, text)
    };

    root.run(&format!("CREATE ROLE reader WITH PASSWORD = '{PASSWORD}' AND LOGIN = true"));
    let reader = |keyspace: &str| with_password(settings(keyspace), "reader", PASSWORD, dir.path());
    let (error, text) = refused(&with_password(settings("k"), "nobody", PASSWORD, dir.path()));
    assert!(matches!(error, CassandraError::Refused { .. }), "{error:?}");
    assert!(text.contains("the login of \"nobody\""), "{text}");
    let (error, text) = refused(&settings("k"));
    assert!(matches!(error, CassandraError::Refused { .. }), "{error:?}");
    assert!(text.contains("a login without username"), "{text}");
    let (error, text) = refused(&reader("k"));
    assert!(matches!(error, CassandraError::Refused { .. }), "{error:?}");
    assert!(text.contains("CREATE KEYSPACE") && text.contains("reader"), "{text}");

    let owner = with_password(settings("k"), "cassandra", "cassandra", dir.path());
    let mut tables = Tables::open(&owner, PATIENCE).unwrap();
    tables.write(VERSION, &[row("v1", 0, 5)]).unwrap();
    root.run("GRANT SELECT ON KEYSPACE k TO reader");
    // Nodes remember rights for some seconds.
    let mut reading = Tables::open_existing(&reader("k"), PATIENCE).unwrap();
    until("the right to read is known", || reading.claim().is_ok());
    assert_eq!(stored(&reading), [row("v1", 0, 5)]);
    let answers = [
        (reading.write(VERSION, &[row("v1", 0, 5)]), "INSERT INTO"),
        (reading.set_claim(&Claim { history: 7, generation: 1, frontier: 0 }), "UPDATE"),
    ];
    for (answer, statement) in answers {
        let error = answer.expect_err("it may only read");
        let text = chain(&error);
        assert!(matches!(error, SinkError::Refused { .. }) && text.contains(statement), "{text}");
        *told.borrow_mut() += &format!("{error:?} {text}");
    }

    let (error, text) = refused(&reader("k"));
    assert!(matches!(error, CassandraError::Refused { .. }) && text.contains("DELETE FROM"), "{text}");

    let logged = String::from_utf8_lossy(&logged.0.lock().unwrap()).into_owned();
    assert!(logged.contains("scylla"), "the driver's log is part of it");
    let told = told.into_inner();
    assert!(!told.contains(PASSWORD), "{told}");
    let lines: Vec<&str> = logged.lines().filter(|line| line.contains(PASSWORD)).collect();
    // The statement that created the user is the test's own.
    assert!(lines.iter().all(|line| line.contains("CREATE ROLE")), "{lines:?}");
}

#[test]
fn tls_trusts_the_given_authority_and_the_right_name_and_nothing_else() {
    let keyspace = Keyspace::new("tls");
    let upstream = keyspace.settings().contact_points.remove(0);
    let [right, other] = ["127.0.0.1", "127.0.0.2"].map(|node| tls_proxy(&upstream, node));
    let open = |address: &str, authority: &str| {
        let ca_file = Some(certificate(authority));
        Tables::open(&Settings { tls: true, ca_file, ..settings_at(address, &keyspace.name) }, Duration::from_secs(5))
    };
    let mut tables = open(&right, "authority.pem").expect("the certificate is right");
    tables.write(VERSION, &[row("v1", 0, 5)]).unwrap();
    assert_eq!(stored(&tables), [row("v1", 0, 5)]);
    for (address, authority, expected) in
        [(&right, "stranger.pem", "UnknownIssuer"), (&other, "authority.pem", "not valid for name")]
    {
        let error = open(address, authority).err().expect("this certificate is wrong");
        let text = chain(&error);
        assert!(matches!(error, CassandraError::Untrusted { .. }) && text.contains(expected), "{text}");
    }
    // Plain words to one that speaks TLS, and the other way round.
    let settings = settings_at(&right, &keyspace.name);
    assert!(matches!(Tables::open(&settings, Duration::from_secs(1)), Err(CassandraError::Unreachable { .. })));
    assert!(matches!(open(&upstream, "authority.pem"), Err(CassandraError::Unreachable { .. })));
}
