//! A hostile stream through the door of a process that is killed again and again: in the end the index, the store, a replay
//! and the dead letters agree with the oracle, to the last event.
//!
//! The clients send in the order of their partition, and send again what was not acknowledged. The log's own order and append
//! times are the truth that the oracle judges; that they hold what was acknowledged is checked on its own.

#![allow(clippy::unwrap_used)]

mod live_support;

use std::{
    thread,
    time::{Duration, Instant},
};

use live_support::{
    Run,
    traffic::{Traffic, append, assert_acknowledged_is_in, lines_of, partitioned},
    truth::{Truth, behind, end_offsets, manifests},
};
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

const SEED: u64 = 20_260_101;
const EVENTS: u64 = 72_000;
const KILLS: usize = 7;

/// For the whole stream with all its kills.
const DELIVERED_WITHIN: Duration = Duration::from_secs(120);

#[test]
fn after_seven_kills_index_store_replay_and_letters_equal_the_oracle() {
    let folder = tempfile::tempdir().unwrap();
    let data_dir = folder.path().join("data");
    let mut rng = ChaCha8Rng::seed_from_u64(SEED);
    println!("seed {SEED}");
    let (streams, mut refused) = partitioned(&mut rng, SEED, EVENTS);
    let lines = lines_of(&streams);
    println!(
        "{lines} lines in {} batches, {} of them not for the door",
        streams.iter().map(Vec::len).sum::<usize>(),
        refused.len()
    );

    let mut run = Run::new(&data_dir).workers(rng.random_range(1..=4)).checkpoints_every("300ms");
    let server = run.start();
    let traffic = Traffic::new(&server.clients, DELIVERED_WITHIN);
    let (mut counted_kills, mut checkpoint) = (0, 0);
    let (server, acknowledged) = traffic.during(&streams, || {
        let mut server = server;
        for kill in 0..KILLS {
            // Half of the stage until there is a checkpoint of this start; then the other half, and somewhere in it the kill.
            let stage = |half: u64| lines * (2 * kill as u64 + half) / (2 * (KILLS as u64 + 1));
            traffic.allow(stage(1));
            let newest = server.client.wait_for_checkpoint_after(checkpoint);
            let at = rng.random_range(stage(1)..stage(2) - (stage(2) - stage(1)) / 4);
            traffic.allow(stage(2));
            traffic.wait_for(at);
            thread::sleep(Duration::from_micros(rng.random_range(0..20_000)));
            server.kill();

            let (ends, newest_manifest) = (end_offsets(&data_dir), manifests(&data_dir).pop().unwrap());
            let again: u64 = behind(&newest_manifest, &ends).iter().sum();
            assert!(newest <= newest_manifest.version.number);
            let share = refused.len() / (KILLS - kill);
            let appended = append(&data_dir, refused.drain(..share));
            let workers = 1 + (run.workers + rng.random_range(0..3)) % 4;
            assert_ne!(workers, run.workers);
            run = run.workers(workers);
            let started = Instant::now();
            server = run.start();
            checkpoint = server.logged("resumed from a checkpoint", "checkpoint").expect("it says where it resumed");
            assert_eq!(checkpoint, newest_manifest.version.number);
            assert_eq!(server.logged("resumed from a checkpoint", "frontier"), Some(newest_manifest.frontier));
            assert_eq!(server.logged("resumed from a checkpoint", "records_to_read"), Some(again + appended));
            println!(
                "kill {}: checkpoint {checkpoint} at frontier {} resumed on {workers} workers, {again} records read again \
                 and {appended} new ones, ready in {:?}",
                kill + 1,
                newest_manifest.frontier,
                started.elapsed()
            );
            counted_kills += usize::from(0 < checkpoint && 0 < again);
        }
        server
    });
    assert!(6 <= counted_kills, "only {counted_kills} kills had a checkpoint and something to read again");

    let truth = Truth::of(&data_dir);
    assert_acknowledged_is_in(&truth.log, &streams, &acknowledged);
    let status = server.client.wait_until_visible(&truth.end_offsets(), live_support::SOON);
    truth.assert_status(&status);
    println!("ledgers: {:#?}", truth.outcome.ledger);
    let sum = truth.outcome.ledger.iter().copied().reduce(|sum, ledger| sum + ledger).unwrap();
    assert!(
        [sum.counted, sum.duplicate, sum.late, sum.future, sum.malformed, sum.oversize]
            .iter()
            .all(|account| 0 < *account),
        "the stream has something of everything"
    );
    truth.assert_index(&server.client);
    server.stop();
    truth.assert_stopped(&data_dir);
    truth.assert_replay(&data_dir, 3);
}
