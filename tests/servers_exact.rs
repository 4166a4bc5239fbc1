//! A hostile stream through a real Kafka into a real Cassandra, while the processes, the broker and Cassandra are killed in
//! turn: in the end the tables, every process's index and ledgers, the dead letters and two replays equal the oracle, to the
//! last event; on every layout.
//!
//! `TIDEMARK_TEST_EVENTS` and `TIDEMARK_TEST_KILLS` (of each kind) ask for more than fits into CI.

#![allow(clippy::unwrap_used)]

mod live_support;
mod server_support;

use std::{
    sync::{Mutex, OnceLock},
    time::{Duration, Instant},
};

use live_support::{
    Server,
    cluster::signal,
    now_ms,
    traffic::{LENGTH_MS, PARTITIONS},
    wait_for,
};
use oracle::{Jumps, Spec, hostile};
use rand::{RngExt as _, SeedableRng as _, seq::SliceRandom as _};
use rand_chacha::ChaCha8Rng;
use rustix::process::Signal;
use server_support::{Place, feed, feed::Feed, outside, truth::KafkaTruth};
use servers::{Cassandra, Kafka};

const SEED: u64 = 20_260_404;

/// A start of Cassandra takes a while on a busy machine.
const WITHIN: Duration = Duration::from_secs(900);

#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum Kill {
    Process,
    Broker,
    Cassandra,
}

/// Servers of our own, one layout after the other.
fn servers() -> &'static Mutex<(Kafka, Cassandra)> {
    static SERVERS: OnceLock<Mutex<(Kafka, Cassandra)>> = OnceLock::new();
    SERVERS.get_or_init(|| Mutex::new((Kafka::start(), Cassandra::start())))
}

fn asked(variable: &str, default: u64) -> u64 {
    std::env::var(variable).map_or(default, |value| value.parse().expect("a number"))
}

#[test]
fn one_process_with_one_worker_comes_to_what_the_oracle_says() {
    check(1, 1);
}

#[test]
fn one_process_with_four_workers_comes_to_what_the_oracle_says() {
    check(1, 4);
}

#[test]
fn two_processes_with_two_workers_come_to_what_the_oracle_says() {
    check(2, 2);
}

#[test]
fn three_processes_with_one_worker_come_to_what_the_oracle_says() {
    check(3, 1);
}

fn check(processes: u16, workers: u32) {
    // Another layout may have failed while it had them.
    let mut servers = servers().lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let (kafka, cassandra) = &mut *servers;
    let seed = SEED + u64::from(processes) * 100 + u64::from(workers);
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let events = asked("TIDEMARK_TEST_EVENTS", 40_000);
    println!("seed {seed}, {processes} x {workers}, {events} events");
    let start_ms = now_ms() - LENGTH_MS;
    let spec =
        Spec { events, partitions: PARTITIONS as usize, videos: 300, start_ms, jumps: Jumps::Some, ..Spec::default() };
    let lines = hostile(seed, &spec);
    let total = feed::count(&lines);

    let folder = tempfile::tempdir().unwrap();
    let place = Place::on(kafka.address(), cassandra.address(), "exact");
    outside::create_topic(&place.kafka, &place.topic, PARTITIONS);
    let run = place.run(&folder.path().join("data")).supervised(processes).workers(workers);
    let mut server = run.start();
    let mut kills = [Kill::Process, Kill::Broker, Kill::Cassandra].repeat(asked("TIDEMARK_TEST_KILLS", 1) as usize);
    kills.shuffle(&mut rng);
    let feed = Feed::new(&place.kafka, &place.topic, WITHIN);
    feed.during(&lines, || {
        for (number, kill) in kills.iter().enumerate() {
            let stage = |half: usize| total * (2 * number + half) as u64 / (2 * (kills.len() as u64 + 1));
            let newest = server.client.checkpoint().unwrap_or(0);
            feed.allow(stage(1));
            server.client.wait_for_checkpoint_after(newest);
            feed.allow(stage(2));
            feed.wait_for(rng.random_range(stage(1)..stage(2) - (stage(2) - stage(1)) / 4));
            let at = Instant::now();
            match kill {
                Kill::Process => kill_a_process(&mut server, &mut rng),
                Kill::Broker => {
                    kafka.kill();
                    kafka.restart();
                }
                Kill::Cassandra => {
                    cassandra.kill();
                    cassandra.restart();
                }
            }
            let restarted = at.elapsed();
            let newest = server.client.checkpoint().unwrap_or(0);
            // All that was allowed before may be in that one already, and without news there is no other.
            feed.allow(stage(2) + (stage(2) - stage(1)) / 2);
            wait_for("a checkpoint after it", WITHIN, || server.client.checkpoint().filter(|number| newest < *number));
            println!("{kill:?}: restarted after {restarted:?}, a checkpoint after {:?}", at.elapsed());
            assert_eq!(
                server.starts().len(),
                1 + kills[..=number].iter().filter(|kill| **kill == Kill::Process).count()
            );
        }
    });
    tell_what_was_said(&server);

    let truth = KafkaTruth::of(&place);
    println!("{} records in the topic, {total} lines fed", truth.log.ends.iter().sum::<u64>());
    println!("ledgers: {:?}", truth.truth.outcome.ledger);
    let sum = truth.truth.outcome.ledger.iter().copied().reduce(|sum, ledger| sum + ledger).unwrap();
    let accounts = [sum.counted, sum.duplicate, sum.late, sum.future, sum.malformed, sum.oversize];
    assert!(accounts.iter().all(|account| 0 < *account), "the stream has something of everything");
    assert!(total <= sum.read, "everything that was acknowledged is in the topic");
    truth.assert_served(&server);
    server.stop();
    truth.assert_rows();
    truth.assert_letters();
    truth.assert_replays(folder.path(), &run.env);
}

fn kill_a_process(server: &mut Server, rng: &mut ChaCha8Rng) {
    let (pids, starts) = (server.pids(), server.starts().len());
    let process = rng.random_range(0..pids.len());
    signal(pids[process], Signal::KILL);
    println!("killed process {process}: {:?}", server.wait_for_start_after(starts));
}

/// What the job has said of the servers' absence.
fn tell_what_was_said(server: &Server) {
    for text in ["kafka answers again", "trying again", "rows again"] {
        let stderr = server.stderr();
        let mut said = stderr.lines().filter(|line| line.contains(text));
        println!("{} lines say {text:?}: {:?}", said.clone().count(), said.next_back());
    }
}
