use std::{os::unix::fs::PermissionsExt, process::Command};

use dataflows::testkit::{Faulty, Retrying, checkpoint_contract};

use super::*;
use crate::checkpoint_names::claim_of;

/// Opens a fresh store below `dir` at each call.
fn fresh(dir: &Path) -> impl FnMut() -> CheckpointDir {
    let mut opened = 0;
    move || {
        opened += 1;
        CheckpointDir::open(dir.join(opened.to_string())).unwrap()
    }
}

fn version(generation: u64, number: u64) -> Version {
    Version { generation, number }
}

#[test]
fn it_keeps_the_contract_of_checkpoint_stores() {
    let dir = tempfile::tempdir().unwrap();
    checkpoint_contract::check(fresh(dir.path()));
}

#[test]
fn handles_of_one_folder_keep_the_contract() {
    let dir = tempfile::tempdir().unwrap();
    let mut opened = 0;
    checkpoint_contract::check_shared(|| {
        opened += 1;
        let fresh = dir.path().join(opened.to_string());
        move || CheckpointDir::open(&fresh).unwrap()
    });
}

#[test]
fn behind_faults_and_retries_it_keeps_the_contract_of_checkpoint_stores() {
    for seed in 0..5 {
        let dir = tempfile::tempdir().unwrap();
        let mut open = fresh(dir.path());
        checkpoint_contract::check(|| Retrying::new(Faulty::new(open(), seed)));
    }
}

#[test]
fn everything_in_it_is_private_to_its_user() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("checkpoints");
    let mut store = CheckpointDir::open(&root).unwrap();
    let generation = store.claim_generation(0).unwrap();
    store.put_part("p", b"").unwrap();
    store.commit(version(generation, 1), b"").unwrap();
    let mut modes = Vec::new();
    for path in [&root, &root.join("parts")] {
        modes.push(fs::metadata(path).unwrap().permissions().mode() & 0o777);
    }
    assert_eq!(modes, [0o700, 0o700]);
    for name in ["generation-00000000000000000001", &manifest_name(version(1, 1)), "parts/p"] {
        assert_eq!(fs::metadata(root.join(name)).unwrap().permissions().mode() & 0o777, 0o600, "{name}");
    }
}

#[test]
fn old_claims_go_but_never_the_greatest() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = CheckpointDir::open(dir.path()).unwrap();
    for _ in 0..10 {
        store.claim_generation(0).unwrap();
    }
    store.retain(&[], &[]).unwrap();
    let left: Vec<u64> = store.names().unwrap().iter().filter_map(|name| claim_of(name)).collect();
    assert_eq!(left, [7, 8, 9, 10]);
}

#[test]
fn a_truncated_temporary_file_is_ignored_and_retain_removes_it_but_no_foreign_file() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = CheckpointDir::open(dir.path()).unwrap();
    let generation = store.claim_generation(0).unwrap();
    store.put_part("a", b"part").unwrap();
    store.commit(version(generation, 1), b"manifest").unwrap();
    let temps = [dir.path().join(".tmp-0123456789abcdef"), dir.path().join("parts/.tmp-0123456789abcdef")];
    for temp in &temps {
        fs::write(temp, b"mani").unwrap();
    }
    let foreign = dir.path().join("README");
    fs::write(&foreign, b"").unwrap();

    let mut store = CheckpointDir::open(dir.path()).unwrap();
    assert_eq!(store.manifests().unwrap(), [version(generation, 1)]);
    store.retain(&[version(generation, 1)], &["a".to_owned()]).unwrap();
    for temp in &temps {
        assert!(!temp.exists(), "{}", temp.display());
    }
    assert!(foreign.exists());
    assert_eq!(store.manifest(version(generation, 1)).unwrap(), b"manifest");
    assert_eq!(store.part("a").unwrap(), b"part");
}

#[test]
fn a_part_has_no_name_that_leads_elsewhere() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = CheckpointDir::open(dir.path()).unwrap();
    let long = "a".repeat(201);
    for name in ["", ".", "..", "../a", "a/b", ".tmp-1", "a b", "é", "a\0", long.as_str()] {
        assert!(matches!(store.put_part(name, b""), Err(StoreError::Failed { .. })), "{name:?}");
        assert!(matches!(store.part(name), Err(StoreError::Failed { .. })), "{name:?}");
    }
}

#[test]
fn a_folder_that_cannot_be_written_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    // Root may write into read-only folders, but nobody below a file.
    let file = dir.path().join("file");
    fs::write(&file, b"").unwrap();
    assert!(matches!(CheckpointDir::open(file.join("checkpoints")), Err(StoreError::Failed { .. })));

    let mut store = CheckpointDir::open(dir.path().join("gone")).unwrap();
    fs::remove_dir_all(dir.path().join("gone")).unwrap();
    assert!(matches!(store.claim_generation(0), Err(StoreError::Failed { .. })));
    assert!(matches!(store.put_part("a", b""), Err(StoreError::Failed { .. })));
    assert!(matches!(store.commit(version(1, 1), b""), Err(StoreError::Failed { .. })));
}

/// Names the folder for the test below when it runs as a child of itself.
const FULL_DIR: &str = "TIDEMARK_TEST_FULL_DIR";

/// The child's limit on the size of a file is 64 KiB and SIGXFSZ is ignored, so that writes beyond it fail midway like
/// those to a full disk do, with EFBIG for ENOSPC.
#[test]
fn a_full_disk_is_an_error_that_leaves_the_old_checkpoint_and_no_leftovers() {
    if let Ok(dir) = std::env::var(FULL_DIR) {
        return write_to_a_full_disk(Path::new(&dir));
    }
    let dir = tempfile::tempdir().unwrap();
    let mut store = CheckpointDir::open(dir.path()).unwrap();
    let generation = store.claim_generation(0).unwrap();
    store.put_part("1-1.w0.part", &[7; 200_000]).unwrap();
    store.commit(version(generation, 1), &[8; 200_000]).unwrap();

    let child = Command::new("bash")
        .args(["-c", r#"trap '' XFSZ; ulimit -f 64; exec "$0" --exact --nocapture "$1""#])
        .arg(std::env::current_exe().unwrap())
        .arg(format!(
            "{}::a_full_disk_is_an_error_that_leaves_the_old_checkpoint_and_no_leftovers",
            module_path!().split_once("::").unwrap().1
        ))
        .env(FULL_DIR, dir.path())
        .output()
        .unwrap();
    let stdout = String::from_utf8_lossy(&child.stdout);
    assert!(
        child.status.success() && stdout.contains("1 passed"),
        "{stdout}{}",
        String::from_utf8_lossy(&child.stderr)
    );

    let mut store = CheckpointDir::open(dir.path()).unwrap();
    assert_eq!(store.manifests().unwrap(), [version(generation, 1)]);
    assert!(store.manifest(version(generation, 1)).unwrap() == [8; 200_000]);
    assert!(store.part("1-1.w0.part").unwrap() == [7; 200_000]);
    assert_eq!(file::names(&dir.path().join("parts")).unwrap(), ["1-1.w0.part", "1-2.w0.part"]);
    assert_eq!(store.names().unwrap().len(), 2, "claim and manifest");
}

fn write_to_a_full_disk(dir: &Path) {
    let mut store = CheckpointDir::open(dir).unwrap();
    store.put_part("1-2.w0.part", &[9; 1_000]).unwrap();
    for _ in 0..3 {
        let part = store.put_part("1-2.w1.part", &[9; 200_000]);
        assert!(matches!(part, Err(StoreError::Failed { .. })), "{part:?}");
        let overwritten = store.put_part("1-1.w0.part", &[7; 200_000]);
        assert!(matches!(overwritten, Err(StoreError::Failed { .. })), "{overwritten:?}");
        let manifest = store.commit(version(1, 2), &[9; 200_000]);
        assert!(matches!(manifest, Err(StoreError::Failed { .. })), "{manifest:?}");
    }
    let missing = store.part("1-2.w1.part");
    assert!(matches!(missing, Err(StoreError::Missing { .. })), "{missing:?}");
    assert_eq!(store.manifests().unwrap(), [version(1, 1)]);
}

#[test]
fn a_commit_that_goes_well_while_another_process_claims_is_seen_by_it() {
    let start = std::sync::Barrier::new(2);
    for round in 0..100 {
        let dir = tempfile::tempdir().unwrap();
        let mut old = CheckpointDir::open(dir.path()).unwrap();
        let mut new = old.clone();
        let generation = old.claim_generation(0).unwrap();
        let (committed, seen) = std::thread::scope(|scope| {
            let claim = || {
                start.wait();
                new.claim_generation(0).unwrap();
                new.manifests().unwrap()
            };
            let claiming = scope.spawn(claim);
            start.wait();
            (old.commit(version(generation, 1), b"manifest"), claiming.join().unwrap())
        });
        assert!(committed.is_err() || seen == [version(generation, 1)], "round {round}");
    }
}
