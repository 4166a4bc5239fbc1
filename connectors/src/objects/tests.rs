use std::{collections::BTreeSet, sync::Arc, thread};

use dataflows::testkit::{Faulty, Retrying, checkpoint_contract};
use object_store::{ObjectStore, ObjectStoreExt as _, local::LocalFileSystem, memory::InMemory};
use tempfile::TempDir;

use super::*;
use crate::checkpoint_names::claim_of;

/// A handle of objects that are elsewhere as well.
fn handle(objects: &Arc<dyn ObjectStore>) -> CheckpointObjects {
    let (patient, once) = (Arc::clone(objects), Arc::clone(objects));
    let root = Path::parse("jobs/views").unwrap();
    CheckpointObjects::on(Bucket { patient, once, root, shown: "s3://bucket/jobs/views".to_owned() }).unwrap()
}

fn in_memory() -> Arc<dyn ObjectStore> {
    Arc::new(InMemory::new())
}

fn on_disk(dir: &TempDir) -> Arc<dyn ObjectStore> {
    let fresh = dir.path().join(format!("{:x}", getrandom::u64().unwrap()));
    std::fs::create_dir_all(fresh.join("jobs/views/parts")).unwrap();
    Arc::new(LocalFileSystem::new_with_prefix(fresh).unwrap())
}

/// Does the same on each kind of store.
fn on_each(test: impl Fn(&dyn Fn() -> Arc<dyn ObjectStore>)) {
    let dir = tempfile::tempdir().unwrap();
    test(&in_memory);
    test(&|| on_disk(&dir));
}

fn version(generation: u64, number: u64) -> Version {
    Version { generation, number }
}

#[test]
fn it_keeps_the_contract_of_checkpoint_stores() {
    on_each(|fresh| checkpoint_contract::check(|| handle(&fresh())));
}

#[test]
fn behind_faults_and_retries_it_keeps_the_contract_of_checkpoint_stores() {
    for seed in 0..5 {
        on_each(|fresh| checkpoint_contract::check(|| Retrying::new(Faulty::new(handle(&fresh()), seed))));
    }
}

#[test]
fn reopened_it_has_everything_and_goes_on_with_the_next_generation() {
    on_each(|fresh| {
        let objects = fresh();
        let mut store = handle(&objects);
        let first = store.claim_generation(0).unwrap();
        store.put_part("1-1.w0.part", b"part").unwrap();
        store.commit(version(first, 1), b"manifest").unwrap();
        drop(store);
        let mut store = handle(&objects);
        assert_eq!(store.manifests().unwrap(), [version(first, 1)]);
        assert_eq!(store.manifest(version(first, 1)).unwrap(), b"manifest");
        assert_eq!(store.part("1-1.w0.part").unwrap(), b"part");
        assert_eq!(store.claim_generation(0).unwrap(), first + 1);
    });
}

#[test]
fn a_part_of_many_pieces_comes_back_whole() {
    on_each(|fresh| {
        let mut store = handle(&fresh());
        for bytes in [bucket::PIECE_BYTES, bucket::PIECE_BYTES + 1, 5 * bucket::PIECE_BYTES + 7] {
            let part: Vec<u8> = (0..bytes).map(|index| (index % 251) as u8).collect();
            store.put_part("large", &part).unwrap();
            store.put_part("large", &part).unwrap();
            assert!(store.part("large").unwrap() == part, "{bytes} bytes");
        }
    });
}

#[test]
fn processes_that_claim_at_once_get_different_generations() {
    on_each(|fresh| {
        let objects = fresh();
        let claim = || {
            let mut store = handle(&objects);
            (0..10).map(|_| store.claim_generation(0).unwrap()).collect::<Vec<_>>()
        };
        let claimed: Vec<u64> = thread::scope(|scope| {
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(claim)).collect();
            threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
        });
        assert_eq!(claimed.iter().copied().collect::<BTreeSet<_>>(), (1..=80).collect());
    });
}

#[test]
fn of_writers_that_commit_one_version_at_once_one_wins_and_its_bytes_stay() {
    on_each(|fresh| {
        let objects = fresh();
        for round in 0..10 {
            let commit = |writer: u8| (writer, handle(&objects).commit(version(1, round), &[writer; 1_000]));
            let winners: Vec<u8> = thread::scope(|scope| {
                let threads: Vec<_> = (0..8).map(|writer| scope.spawn(move || commit(writer))).collect();
                let done = threads.into_iter().map(|thread| thread.join().unwrap());
                done.filter_map(|(writer, done)| match done {
                    Ok(()) => Some(writer),
                    Err(StoreError::Taken { .. }) => None,
                    Err(error) => panic!("{error}"),
                })
                .collect()
            });
            assert_eq!(winners.len(), 1, "round {round}");
            assert_eq!(handle(&objects).manifest(version(1, round)).unwrap(), [winners[0]; 1_000]);
        }
    });
}

#[test]
fn a_zombie_commits_nothing_and_drops_nothing_and_a_tool_is_not_fenced() {
    on_each(|fresh| {
        let objects = fresh();
        let mut zombie = handle(&objects);
        let old = zombie.claim_generation(0).unwrap();
        let mut owner = handle(&objects);
        let new = owner.claim_generation(0).unwrap();
        owner.put_part("2-1.w0.part", b"part").unwrap();
        owner.commit(version(new, 1), b"manifest").unwrap();

        assert!(matches!(zombie.commit(version(old, 1), b"zombie"), Err(StoreError::Taken { .. })));
        assert!(matches!(zombie.retain(&[], &[]), Err(StoreError::Taken { .. })));
        assert_eq!(owner.manifests().unwrap(), [version(new, 1)]);
        assert_eq!(owner.part("2-1.w0.part").unwrap(), b"part");

        handle(&objects).retain(&[], &[]).unwrap();
        assert_eq!(owner.manifests().unwrap(), []);
    });
}

#[test]
fn old_claims_go_but_never_the_greatest_and_nothing_that_is_not_ours() {
    on_each(|fresh| {
        let objects = fresh();
        let mut store = handle(&objects);
        for foreign in ["jobs/views/README", "jobs/views/sub/x.manifest", "jobs/views2", "jobs/other/parts/p"] {
            store.runtime.wait(objects.put(&foreign.into(), "foreign".into())).unwrap();
        }
        for _ in 0..10 {
            store.claim_generation(0).unwrap();
        }
        store.retain(&[], &[]).unwrap();
        let left: Vec<u64> = store.names().unwrap().iter().filter_map(|name| claim_of(name)).collect();
        assert_eq!(left, [7, 8, 9, 10]);
        for foreign in ["jobs/views/README", "jobs/views/sub/x.manifest", "jobs/views2", "jobs/other/parts/p"] {
            store.runtime.wait(objects.head(&foreign.into())).unwrap();
        }
    });
}

#[test]
fn a_part_has_no_name_that_leads_elsewhere() {
    let mut store = handle(&in_memory());
    let long = "a".repeat(201);
    for name in ["", ".", "..", "../a", "a/b", ".tmp-1", "a b", "é", "a\0", "%2e", long.as_str()] {
        assert!(matches!(store.put_part(name, b""), Err(StoreError::Failed { .. })), "{name:?}");
        assert!(matches!(store.part(name), Err(StoreError::Failed { .. })), "{name:?}");
    }
}

#[test]
fn settings_are_judged_without_a_server_and_no_secret_is_shown() {
    let variables = |more: &[(&str, &str)]| {
        let all = [("AWS_ACCESS_KEY_ID", "public"), ("AWS_SECRET_ACCESS_KEY", "hidden"), ("AWS_UNKNOWN", "x")];
        all.iter().chain(more).map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect::<Vec<_>>()
    };
    let open = |more: &[(&str, &str)]| CheckpointObjects::open("bucket", "a/b", variables(more));
    assert!(!format!("{:?}", open(&[]).unwrap()).contains("hidden"));
    open(&[("AWS_ENDPOINT_URL", "https://127.0.0.1:1")]).unwrap();
    open(&[("AWS_ENDPOINT_URL", "http://127.0.0.1:1"), ("AWS_ALLOW_HTTP", "true")]).unwrap();
    // Ours are the times, whatever is set.
    open(&[("AWS_TIMEOUT", "1 year")]).unwrap();
    for (more, says) in [
        (&[("AWS_ENDPOINT_URL", "http://127.0.0.1:1")], "AWS_ALLOW_HTTP"),
        (&[("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:1")], "AWS_ALLOW_HTTP"),
    ] {
        let refused = open(more).unwrap_err();
        assert!(std::error::Error::source(&refused).unwrap().to_string().contains(says), "{refused:?}");
    }
    let only_half = [("AWS_ACCESS_KEY_ID".to_owned(), "public".to_owned())];
    assert!(matches!(CheckpointObjects::open("bucket", "", only_half), Err(StoreError::Failed { .. })));
    assert!(matches!(CheckpointObjects::open("bucket", "a//b", []), Err(StoreError::Failed { .. })));
}
