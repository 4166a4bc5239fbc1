use std::sync::Arc;

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

#[test]
fn it_keeps_the_contract_of_checkpoint_stores() {
    on_each(|fresh| checkpoint_contract::check(|| handle(&fresh())));
}

#[test]
fn handles_of_one_prefix_keep_the_contract() {
    on_each(|fresh| {
        checkpoint_contract::check_shared(|| {
            let objects = fresh();
            move || handle(&objects)
        });
    });
}

#[test]
fn behind_faults_and_retries_it_keeps_the_contract_of_checkpoint_stores() {
    for seed in 0..5 {
        on_each(|fresh| checkpoint_contract::check(|| Retrying::new(Faulty::new(handle(&fresh()), seed))));
    }
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
