//! Checkpoints in a real S3 (moto's server), and what goes wrong on the way there.

#![allow(clippy::unwrap_used)]

use std::{
    error::Error as _,
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::{Duration, Instant},
};

use connectors::objects::CheckpointObjects;
use dataflows::{
    port::{CheckpointStore as _, StoreError, Version},
    testkit::{Faulty, Retrying, checkpoint_contract},
};
use servers::{Answers, S3, Wire};

/// By its documentation.
const ERROR_WITHIN: Duration = Duration::from_secs(30);

fn open(server: &S3, prefix: &str) -> CheckpointObjects {
    CheckpointObjects::open(S3::BUCKET, prefix, server.environment()).unwrap()
}

/// A handle of an empty prefix at each call.
fn fresh(server: &S3) -> impl FnMut() -> CheckpointObjects {
    static OPENED: AtomicU32 = AtomicU32::new(0);
    move || open(server, &format!("fresh/{}", OPENED.fetch_add(1, Ordering::Relaxed)))
}

fn version(generation: u64, number: u64) -> Version {
    Version { generation, number }
}

/// All keys of the bucket, by another client.
fn keys(server: &S3) -> Vec<String> {
    let asks = "
import boto3, sys
client = boto3.client('s3', endpoint_url='http://' + sys.argv[1], aws_access_key_id='k', aws_secret_access_key='s',
                      region_name='us-east-1')
for object in client.list_objects_v2(Bucket=sys.argv[2]).get('Contents', []):
    print(object['Key'], object['Size'])
";
    servers::python(asks, [server.address(), S3::BUCKET]).lines().map(str::to_owned).collect()
}

#[test]
fn it_keeps_the_contract_of_checkpoint_stores() {
    let server = S3::start();
    checkpoint_contract::check(fresh(&server));
    let mut open = fresh(&server);
    for seed in 0..2 {
        checkpoint_contract::check(|| Retrying::new(Faulty::new(open(), seed)));
    }
}

#[test]
fn the_objects_have_the_documented_names_and_parts_of_many_pieces_come_back_whole() {
    let server = S3::start();
    let mut store = open(&server, "jobs/views");
    let generation = store.claim_generation(0).unwrap();
    let large: Vec<u8> = (0..12_000_001).map(|index| (index % 251) as u8).collect();
    store.put_part("1-1.w0.part", &large).unwrap();
    store.commit(version(generation, 1), b"manifest").unwrap();
    assert!(store.part("1-1.w0.part").unwrap() == large);
    let documented = [
        "jobs/views/00000000000000000001-00000000000000000001.manifest 8",
        "jobs/views/generation-00000000000000000001 0",
        "jobs/views/parts/1-1.w0.part 12000001",
    ];
    assert_eq!(keys(&server), documented);
    store.retain(&[], &[]).unwrap();
    assert_eq!(keys(&server), [documented[1]]);
}

#[test]
fn handles_of_one_prefix_keep_the_contract() {
    let server = S3::start();
    let server = &server;
    let mut opened = 0;
    checkpoint_contract::check_shared(|| {
        opened += 1;
        let prefix = format!("shared/{opened}");
        move || open(server, &prefix)
    });
}

/// The crate's own retry would be told that the manifest is another's, and a healthy owner would end as a zombie.
#[test]
fn a_commit_whose_answer_is_lost_fails_and_repeated_finds_its_own_bytes() {
    let server = S3::start();
    let wire = Wire::to(server.address());
    let mut store = CheckpointObjects::open(S3::BUCKET, "lost", wire.s3_environment()).unwrap();
    let generation = store.claim_generation(0).unwrap();

    wire.set(Answers::LostToNext("PUT "));
    let lost = store.commit(version(generation, 1), b"ours");
    assert!(matches!(lost, Err(StoreError::Failed { .. })), "{lost:?}");
    let again = store.commit(version(generation, 1), b"ours");
    assert!(matches!(again, Err(StoreError::Taken { .. })), "{again:?}");
    assert_eq!(store.manifest(version(generation, 1)).unwrap(), b"ours");
    store.commit(version(generation, 2), b"on it goes").unwrap();

    // Of a lost claim nobody is the owner; the next one is beyond it.
    wire.set(Answers::LostToNext("PUT "));
    let claim = store.claim_generation(0);
    assert!(matches!(claim, Err(StoreError::Failed { .. })), "{claim:?}");
    assert_eq!(store.claim_generation(0).unwrap(), generation + 2);

    // What may be done twice is done again at once, and nobody hears of it.
    for method in ["PUT ", "GET "] {
        let mut other = CheckpointObjects::open(S3::BUCKET, "lost", wire.s3_environment()).unwrap();
        wire.set(Answers::LostToNext(method));
        other.put_part("part", b"part").unwrap();
        assert_eq!(other.part("part").unwrap(), b"part");
    }
}

#[test]
fn a_server_that_does_not_heed_the_condition_is_refused_at_the_claim() {
    let server = S3::start();
    let wire = Wire::to(server.address());
    wire.set(Answers::WithoutHeader("if-none-match"));
    let mut store = CheckpointObjects::open(S3::BUCKET, "", wire.s3_environment()).unwrap();
    let refused = store.claim_generation(0).unwrap_err();
    assert!(refused.source().unwrap().to_string().contains("If-None-Match"), "{refused:?}");
}

#[test]
fn a_server_that_is_killed_midway_is_an_error_and_afterwards_all_goes_on() {
    let mut server = S3::start();
    let mut store = open(&server, "killed");
    let generation = store.claim_generation(0).unwrap();
    store.commit(version(generation, 1), b"before").unwrap();
    let part = vec![7; 60_000_000];
    let failed = thread::scope(|scope| {
        let writing = scope.spawn(|| store.put_part("large", &part));
        thread::sleep(Duration::from_millis(300));
        server.kill();
        let killed = Instant::now();
        let failed = writing.join().unwrap();
        println!("the part failed {:?} after the end of the server", killed.elapsed());
        assert!(killed.elapsed() < ERROR_WITHIN);
        failed
    });
    assert!(matches!(failed, Err(StoreError::Failed { .. })), "{failed:?}");
    for failed in [store.put_part("small", b"part"), store.commit(version(generation, 2), b""), store.retain(&[], &[])]
    {
        let failed = failed.unwrap_err();
        assert!(failed.source().unwrap().to_string().contains("refused"), "{failed:?}");
    }
    let part = store.part("large");
    assert!(matches!(part, Err(StoreError::Failed { .. })), "away is not missing: {part:?}");

    server.restart();
    assert_eq!(store.manifests().unwrap(), [version(generation, 1)]);
    let missing = store.part("large");
    assert!(matches!(missing, Err(StoreError::Missing { .. })), "what was not finished is not there: {missing:?}");
    store.put_part("large", &[8; 6_000_000]).unwrap();
    store.commit(version(generation, 2), b"after").unwrap();
    assert_eq!(store.part("large").unwrap().len(), 6_000_000);
}

#[test]
fn a_frozen_server_is_an_error_in_time_and_goes_on_when_it_thaws() {
    let server = S3::start();
    let mut store = open(&server, "frozen");
    let generation = store.claim_generation(0).unwrap();
    server.stop_signal();
    let asked = Instant::now();
    let failed = store.commit(version(generation, 1), b"manifest");
    println!("the commit failed after {:?}", asked.elapsed());
    assert!(matches!(failed, Err(StoreError::Failed { .. })), "{failed:?}");
    assert!(asked.elapsed() < ERROR_WITHIN);
    server.continue_signal();
    store.commit(version(generation, 1), b"manifest").unwrap();
}

#[test]
fn a_bucket_that_is_not_there_is_an_error_and_not_an_empty_store() {
    let server = S3::start();
    let mut store = CheckpointObjects::open("no-such-bucket", "", server.environment()).unwrap();
    for failed in [store.manifests().map(drop), store.claim_generation(0).map(drop), store.put_part("p", b"")] {
        assert!(matches!(failed, Err(StoreError::Failed { .. })), "{failed:?}");
    }
}
