//! What the tests of Cassandra share: its address, a keyspace of their own, and plain CQL.
#![allow(dead_code, reason = "each test program uses a part of it")]

pub mod proxy;

use std::{
    error::Error,
    future::Future,
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::{Duration, Instant},
};

use connectors::cassandra::{Settings, Tables};
use dataflows::{port::CountRow, rollup::Width};
use scylla::{
    client::{session::Session, session_builder::SessionBuilder},
    deserialize::row::DeserializeRow,
};

pub const PATIENCE: Duration = Duration::from_secs(30);

pub fn settings_at(address: &str, keyspace: &str) -> Settings {
    Settings {
        contact_points: vec![address.to_owned()],
        keyspace: keyspace.to_owned(),
        local_datacenter: "datacenter1".to_owned(),
        replication_factor: 1,
        username: None,
        password_file: None,
        tls: false,
        ca_file: None,
    }
}

/// A keyspace of one test, dropped with it.
pub struct Keyspace {
    pub name: String,
    pub cql: Cql,
    address: String,
}

impl Keyspace {
    pub fn new(test: &str) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("t_{test}_{}_{number}", std::process::id());
        let address = servers::shared_cassandra();
        Self { name, cql: Cql::connect(&address), address }
    }

    pub fn settings(&self) -> Settings {
        settings_at(&self.address, &self.name)
    }

    pub fn open(&self) -> Tables {
        Tables::open(&self.settings(), PATIENCE).expect("the tables can be opened")
    }
}

impl Drop for Keyspace {
    fn drop(&mut self) {
        self.cql.run(&format!("DROP KEYSPACE IF EXISTS {}", self.name));
    }
}

/// A session beside the one under test.
pub struct Cql {
    runtime: tokio::runtime::Runtime,
    session: Session,
}

impl Cql {
    pub fn connect(address: &str) -> Self {
        Self::connect_as(address, None)
    }

    pub fn connect_as(address: &str, user: Option<(&str, &str)>) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let mut builder = SessionBuilder::new().known_node(address);
        if let Some((name, password)) = user {
            builder = builder.user(name, password);
        }
        let session = runtime.block_on(builder.build()).expect("cassandra lets the test in");
        Self { runtime, session }
    }

    pub fn wait<T>(&self, work: impl Future<Output = T>) -> T {
        self.runtime.block_on(work)
    }

    pub fn run(&self, statement: &str) {
        self.wait(self.session.query_unpaged(statement, ())).unwrap_or_else(|error| panic!("{statement}: {error}"));
    }

    pub fn rows<R: for<'f> DeserializeRow<'f, 'f>>(&self, query: &str) -> Vec<R> {
        let result =
            self.wait(self.session.query_unpaged(query, ())).unwrap_or_else(|error| panic!("{query}: {error}"));
        result.into_rows_result().unwrap().rows().unwrap().map(Result::unwrap).collect()
    }
}

pub fn row(video_id: &str, window_start: u64, count: u64) -> CountRow {
    CountRow {
        video_id: video_id.to_owned(),
        event_type: "view".to_owned(),
        window_start,
        count,
        width: Width::Minute,
        stats: None,
        is_final: false,
        as_of: 1,
    }
}

/// Waits until something is so; a minute is more than any of it takes.
#[track_caller]
pub fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < Duration::from_secs(60), "not within a minute: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// An error with its causes.
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text += &format!(": {cause}");
        source = cause.source();
    }
    text
}

/// All rows, sorted.
pub fn stored(tables: &Tables) -> Vec<CountRow> {
    let mut rows = Vec::new();
    tables
        .scan_all(|row| {
            rows.push(row);
            std::ops::ControlFlow::Continue(())
        })
        .expect("all rows can be read");
    rows.sort();
    rows
}
