//! A Cassandra that dies, freezes, answers late or not at all: every row is right afterwards.

// The whole file is a test: its helpers may unwrap as well.
#![allow(clippy::unwrap_used)]

mod cassandra_support;

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use cassandra_support::{Cql, PATIENCE, proxy::Proxy, row, settings_at, stored, until};
use connectors::cassandra::Tables;
use dataflows::{
    port::{Claim, CountRow, CountSink, SinkError, Version},
    time::MINUTE_MS,
};
use servers::Cassandra;

/// What the doc of `Tables` promises, and some for a busy machine.
const WRITE_ENDS_WITHIN: Duration = Duration::from_secs(40 + 5);

/// The Cassandra of these tests, which lives while one of them runs or waits for it.
fn server() -> Arc<Mutex<Cassandra>> {
    static SERVER: Mutex<Weak<Mutex<Cassandra>>> = Mutex::new(Weak::new());
    let mut there = SERVER.lock().unwrap_or_else(PoisonError::into_inner);
    there.upgrade().unwrap_or_else(|| {
        let server = Arc::new(Mutex::new(Cassandra::start()));
        *there = Arc::downgrade(&server);
        server
    })
}

/// One test at a time.
fn alone(server: &Mutex<Cassandra>) -> MutexGuard<'_, Cassandra> {
    server.lock().unwrap_or_else(PoisonError::into_inner)
}

fn version(number: u64) -> Version {
    Version { generation: 1, number }
}

/// The rows of one write: 500 that each write changes, 1,500 new ones that are alone in their partitions, and 1,000 new
/// ones of which 100 are in a partition.
fn rows_of(number: u64) -> Vec<CountRow> {
    let changed = (0..500).map(|video| row(&format!("a{video}"), 0, number));
    let alone = (0..1_500).map(|video| row(&format!("b{number}-{video}"), 0, number));
    let together = (0..1_000).map(|at| row(&format!("c{number}-{}", at / 100), at % 100 * MINUTE_MS, number + at));
    changed.chain(alone).chain(together).collect()
}

fn expected(writes: impl Iterator<Item = u64>) -> Vec<CountRow> {
    let mut rows = BTreeMap::new();
    for number in writes {
        rows.extend(rows_of(number).into_iter().map(|row| ((row.video_id.clone(), row.window_start), row)));
    }
    let mut rows: Vec<_> = rows.into_values().collect();
    rows.sort();
    rows
}

/// Tells the threads of a test to end, also where it fails.
#[derive(Default)]
struct Stop {
    stopped: AtomicBool,
    failed: AtomicBool,
}

struct StopAtEnd<'a>(&'a Stop);

impl Drop for StopAtEnd<'_> {
    fn drop(&mut self) {
        self.0.failed.store(thread::panicking(), Ordering::SeqCst);
        self.0.stopped.store(true, Ordering::SeqCst);
    }
}

/// Writes as the keeper does: the whole again until it is taken.
fn write_until_taken(tables: &mut Tables, number: u64, stop: &Stop) {
    let rows = rows_of(number);
    let begun = Instant::now();
    loop {
        let attempt = Instant::now();
        match tables.write(version(number), &rows) {
            Ok(()) => return,
            Err(error @ SinkError::Unanswered { .. }) => {
                eprintln!("write {number}: {}", cassandra_support::chain(&error));
                assert!(attempt.elapsed() < WRITE_ENDS_WITHIN, "{:?}", attempt.elapsed());
                assert!(begun.elapsed() < Duration::from_secs(120), "write {number} is never taken");
                assert!(!stop.failed.load(Ordering::SeqCst), "the test has failed");
            }
            Err(other) => panic!("write {number}: {other:?}"),
        }
    }
}

#[test]
fn a_node_that_is_killed_and_one_that_freezes_lose_and_change_no_row() {
    let shared = server();
    let mut server = alone(&shared);
    let mut tables = Tables::open(&settings_at(server.address(), "killed"), PATIENCE).unwrap();
    let (watch, stop) = (tables.clone(), Stop::default());
    let (numbers, [high, fell, rose]) = thread::scope(|scope| {
        let stop = &stop;
        let stop_at_end = StopAtEnd(stop);
        let writer = scope.spawn(move || {
            let mut number = 0;
            while !stop.stopped.load(Ordering::SeqCst) {
                number += 1;
                write_until_taken(&mut tables, number, stop);
            }
            number
        });
        let rows = |rows: u64| until("rows are written", || rows < watch.stats().rows_acknowledged);
        rows(30_000);
        let before = watch.stats().retries;
        server.kill();
        until("the writer notices", || before < watch.stats().retries);
        server.restart();
        rows(watch.stats().rows_acknowledged + 30_000);

        let before = watch.stats();
        server.stop_signal();
        until("requests run out of time", || before.retries < watch.stats().retries);
        let fell = watch.stats().concurrency;
        server.continue_signal();
        until("the concurrency rises", || fell + 8 < watch.stats().concurrency);
        rows(watch.stats().rows_acknowledged + 30_000);
        drop(stop_at_end);
        (writer.join().unwrap(), [before.concurrency, fell, watch.stats().concurrency])
    });
    // Not by assert_eq, which would print all of them.
    assert!(stored(&watch) == expected(1..=numbers), "rows are missing, or other ones");
    assert!(fell < high && fell < rose, "{high}, {fell}, {rose}");
    let stats = watch.stats();
    println!("{numbers} writes of 3,000 rows, concurrency {high} -> {fell} -> {rose}: {stats:?}");
    assert!(stats.statements_sent <= 3 * numbers * 3_000, "{stats:?}");
}

#[test]
fn a_write_to_a_frozen_node_ends_in_the_time_that_is_stated() {
    let shared = server();
    let mut server = alone(&shared);
    let mut tables = Tables::open(&settings_at(server.address(), "frozen"), PATIENCE).unwrap();
    write_until_taken(&mut tables, 1, &Stop::default());
    server.stop_signal();
    let begun = Instant::now();
    let answer = tables.write(version(2), &rows_of(2));
    let took = begun.elapsed();
    let claim = tables.set_claim(&Claim { history: 7, generation: 1, frontier: 1 });
    let both = begun.elapsed();
    server.continue_signal();
    assert!(matches!(answer, Err(SinkError::Unanswered { .. })), "{answer:?}");
    assert!(matches!(claim, Err(SinkError::Unanswered { .. })), "{claim:?}");
    assert!(took < WRITE_ENDS_WITHIN && both < took + Duration::from_secs(15), "{took:?}, {both:?}");
    assert!(tables.stats().concurrency < 64, "{:?}", tables.stats());
    write_until_taken(&mut tables, 2, &Stop::default());
    assert!(stored(&tables) == expected(1..=2), "rows are missing, or other ones");
}

#[test]
fn a_write_that_a_living_node_never_acknowledges_ends_in_the_time_that_is_stated() {
    let shared = server();
    let server = alone(&shared);
    let proxy = Proxy::start(server.address());
    let mut tables = Tables::open(&settings_at(&proxy.address, "silent"), PATIENCE).unwrap();
    proxy.meddling.late_percent.store(100, Ordering::SeqCst);
    let begun = Instant::now();
    let answer = tables.write(version(1), &rows_of(1));
    let took = begun.elapsed();
    assert!(matches!(answer, Err(SinkError::Unanswered { .. })), "{answer:?}");
    assert!(took < WRITE_ENDS_WITHIN, "{took:?}");
    assert!(tables.stats().concurrency < 64, "{:?}", tables.stats());
    proxy.meddling.late_percent.store(0, Ordering::SeqCst);
    write_until_taken(&mut tables, 1, &Stop::default());
    assert!(stored(&tables) == expected(1..=1), "rows are missing, or other ones");
}

#[test]
fn acknowledgements_that_come_too_late_change_no_row() {
    let shared = server();
    let server = alone(&shared);
    let proxy = Proxy::start(server.address());
    let mut tables = Tables::open(&settings_at(&proxy.address, "late"), PATIENCE).unwrap();
    proxy.meddling.late_ms.store(11_000, Ordering::SeqCst);
    proxy.meddling.late_percent.store(20, Ordering::SeqCst);
    let rows: Vec<CountRow> = (0..300).map(|video| row(&format!("v{video}"), 0, video)).collect();
    tables.write(version(1), &rows).expect("each is acknowledged in time at one of its attempts");
    assert!(30 < proxy.meddling.met.load(Ordering::SeqCst));
    let stats = tables.stats();
    println!("{} came late: {stats:?}", proxy.meddling.met.load(Ordering::SeqCst));
    let mut rows = rows;
    rows.sort();
    assert_eq!(stored(&tables), rows);
    assert!(30 < stats.retries && stats.statements_sent <= 3 * 300, "{stats:?}");
}

#[test]
fn a_claim_whose_answer_got_lost_comes_right_when_it_is_repeated() {
    let shared = server();
    let server = alone(&shared);
    let proxy = Proxy::start(server.address());
    let mut tables = Tables::open(&settings_at(&proxy.address, "lost"), PATIENCE).unwrap();
    let mut other = Tables::open_existing(&settings_at(server.address(), "lost"), PATIENCE).unwrap();
    let claim = |generation, frontier| Claim { history: 7, generation, frontier };
    // The answers that are let through, of the transactions of one call; the next one gets lost.
    let lost = |tables: &mut Tables, claim: &Claim| {
        proxy.meddling.lose_rows.store(1, Ordering::SeqCst);
        let answer = tables.set_claim(claim);
        assert!(matches!(answer, Err(SinkError::Unanswered { .. })), "{answer:?}");
        assert_eq!(proxy.meddling.lose_rows.load(Ordering::SeqCst), 0);
    };
    for claim in [claim(1, 1), claim(1, 2), claim(2, 2), claim(2, 3)] {
        lost(&mut tables, &claim);
        tables.set_claim(&claim).unwrap();
        assert_eq!(other.claim().unwrap(), Some(claim));
    }
    // It was done, and another has taken over before it was repeated.
    lost(&mut tables, &claim(2, 4));
    other.set_claim(&claim(3, 4)).unwrap();
    let answer = tables.set_claim(&claim(2, 4));
    assert!(matches!(answer, Err(SinkError::Fenced { .. })), "{answer:?}");

    proxy.meddling.lose_rows.store(1, Ordering::SeqCst);
    let answer = tables.clear();
    assert!(matches!(answer, Err(SinkError::Unanswered { .. })), "{answer:?}");
    tables.clear().unwrap();
    assert_eq!(other.claim().unwrap(), None);
    tables.set_claim(&Claim { history: 8, generation: 4, frontier: 0 }).unwrap();
    Cql::connect(server.address()).run("DROP KEYSPACE lost");
}
