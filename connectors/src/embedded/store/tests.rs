use std::{os::unix::fs::PermissionsExt, process::Command, thread};

use dataflows::{
    rollup::Width,
    testkit::{Faulty, Retrying, SplitMix64, sink_contract},
};

use super::*;

/// Opens a fresh store below `dir` at each call.
fn fresh(dir: &Path) -> impl FnMut() -> Store {
    let mut opened = 0;
    move || {
        opened += 1;
        Store::open(dir.join(opened.to_string())).unwrap()
    }
}

fn all(store: &Store) -> Vec<CountRow> {
    let mut rows = Vec::new();
    store
        .scan_all(|row| {
            rows.push(row);
            ControlFlow::Continue(())
        })
        .unwrap();
    rows
}

fn of_video(store: &Store, video_id: &str) -> Vec<CountRow> {
    all(store).into_iter().filter(|row| row.video_id == video_id).collect()
}

fn series<'a>(video_id: &'a str, event_type: &'a str) -> ColdSeries<'a> {
    ColdSeries { video_id, event_type, functions: true }
}

fn version(generation: u64, number: u64) -> Version {
    Version { generation, number }
}

fn row(video_id: &str, event_type: &str, window_start: u64, count: u64) -> CountRow {
    CountRow {
        video_id: video_id.to_owned(),
        event_type: event_type.to_owned(),
        window_start,
        count,
        width: Width::Minute,
        stats: None,
        is_final: count.is_multiple_of(2),
        as_of: window_start + 1,
    }
}

#[test]
fn it_keeps_the_contract_of_count_sinks() {
    let dir = tempfile::tempdir().unwrap();
    sink_contract::check(fresh(dir.path()), |store| all(store));
}

#[test]
fn behind_faults_and_retries_it_keeps_the_contract_of_count_sinks() {
    for seed in 0..2 {
        let dir = tempfile::tempdir().unwrap();
        let mut open = fresh(dir.path());
        sink_contract::check(|| Retrying::new(Faulty::new(open(), seed)), |store| all(store.inner().inner()));
    }
}

#[test]
fn reopened_it_has_rows_claim_and_versions() {
    let dir = tempfile::tempdir().unwrap();
    let claim = Claim { history: u128::MAX / 3, generation: 2, frontier: 77 };
    let mut store = Store::open(dir.path().join("a/store")).unwrap();
    store.write(version(2, 5), &[row("v1", "view", 0, 1), row("v2", "view", 0, 2)]).unwrap();
    store.set_claim(&claim).unwrap();
    drop(store);

    let mut store = Store::open(dir.path().join("a/store")).unwrap();
    assert_eq!(store.claim().unwrap(), Some(claim));
    store.write(version(2, 4), &[row("v1", "view", 0, 9), row("v3", "view", 0, 9)]).unwrap();
    assert_eq!(all(&store), [row("v1", "view", 0, 1), row("v2", "view", 0, 2), row("v3", "view", 0, 9)]);
    assert_eq!((store.len().unwrap(), store.is_empty().unwrap()), (3, false));
}

#[test]
fn a_scan_gives_one_video_type_and_time_range_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::open(dir.path()).unwrap();
    assert!(store.is_empty().unwrap());
    let mut rows = Vec::new();
    for video in ["a", "ab", "b", "a b"] {
        for event_type in ["view", "views", "like"] {
            for window_start in [0, 60_000, 120_000, 1_767_225_600_000] {
                rows.push(row(video, event_type, window_start, rows.len() as u64));
            }
        }
    }
    SplitMix64::new(5).shuffle(&mut rows);
    store.write(version(1, 1), &rows).unwrap();
    rows.sort();
    assert_eq!(all(&store), rows);

    // video, event type, range | windows
    let cases: [(&str, &str, Range<u64>, &[u64]); 9] = [
        ("a", "view", 0..u64::MAX, &[0, 60_000, 120_000, 1_767_225_600_000]),
        ("a", "view", 60_000..120_000, &[60_000]),
        ("a", "view", 1..60_001, &[60_000]),
        ("ab", "views", 0..60_000, &[0]),
        ("a", "view", 60_000..60_000, &[]),
        ("a", "view", Range { start: 120_000, end: 0 }, &[]),
        ("c", "view", 0..u64::MAX, &[]),
        ("a", "vie", 0..u64::MAX, &[]),
        ("a\0view", "", 0..u64::MAX, &[]),
    ];
    for (video, event_type, range, windows) in cases {
        let found = store.scan_cold(series(video, event_type), range.clone()).unwrap();
        let expected: Vec<ColdWindow> = rows
            .iter()
            .filter(|row| row.video_id == video && row.event_type == event_type && windows.contains(&row.window_start))
            .map(|row| ColdWindow { start: row.window_start, count: row.count, stats: row.stats.clone() })
            .collect();
        assert_eq!(expected.len(), windows.len());
        assert_eq!(found, expected, "{video:?} {event_type:?} {range:?}");
        // The same for all videos at once.
        let mut sums: Vec<ColdSum> = Vec::new();
        for row in rows.iter().filter(|row| row.event_type == event_type && range.contains(&row.window_start)) {
            match sums.last_mut().filter(|sum| sum.video_id == row.video_id) {
                Some(sum) => sum.add(row.window_start, row.count),
                None => sums.push(ColdSum::of(row.video_id.clone(), row.window_start, row.count)),
            }
        }
        assert_eq!(store.scan_sums(event_type, range.clone()).unwrap(), sums, "{event_type:?} {range:?}");
    }
}

#[test]
fn a_visit_that_breaks_is_the_last() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::open(dir.path()).unwrap();
    store.write(version(1, 1), &[row("a", "view", 0, 1), row("b", "view", 0, 1), row("c", "view", 0, 1)]).unwrap();
    let mut visits = 0;
    store
        .scan_all(|row| {
            visits += 1;
            if row.video_id == "b" { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })
        .unwrap();
    assert_eq!(visits, 2);
}

#[test]
fn of_two_rows_of_one_window_in_one_write_the_last_counts() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::open(dir.path()).unwrap();
    store.write(version(1, 1), &[row("a", "view", 0, 1), row("b", "view", 0, 1), row("a", "view", 0, 2)]).unwrap();
    assert_eq!(all(&store), [row("a", "view", 0, 2), row("b", "view", 0, 1)]);
    drop(store);
    assert_eq!(all(&Store::open(dir.path()).unwrap()), [row("a", "view", 0, 2), row("b", "view", 0, 1)]);
}

#[test]
fn a_row_whose_names_are_none_is_refused_and_nothing_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::open(dir.path()).unwrap();
    let rows = [row("a", "view", 0, 1), row("a\0b", "view", 0, 1)];
    assert!(matches!(store.write(version(1, 1), &rows), Err(SinkError::Refused { .. })));
    assert!(store.is_empty().unwrap());
}

#[test]
fn a_reader_never_sees_a_part_of_a_batch() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let mut writing = store.clone();
    thread::scope(|scope| {
        let writer = scope.spawn(move || {
            for number in 1..=200 {
                let rows: Vec<CountRow> = (0..100).map(|minute| row("a", "view", minute * 60_000, number)).collect();
                writing.write(version(1, number), &rows).unwrap();
            }
        });
        let mut seen = std::collections::BTreeSet::new();
        while !writer.is_finished() {
            let windows = store.scan_cold(series("a", "view"), 0..u64::MAX).unwrap();
            let counts: Vec<u64> = windows.iter().map(|window| window.count).collect();
            assert!(counts.is_empty() || counts == [counts[0]; 100], "{counts:?}");
            seen.extend(counts);
        }
        assert!(1 < seen.len(), "the reader ran beside the writer");
    });
}

#[test]
fn it_has_one_process_at_a_time_and_private_files() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let store = Store::open(&path).unwrap();
    assert!(matches!(Store::open(&path), Err(Error::Locked { .. })));
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
    drop(store);
    Store::open(&path).unwrap();
}

#[test]
fn a_creation_that_was_killed_is_begun_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    drop(Store::open(&path).unwrap());
    fs::remove_file(path.join("version")).unwrap();
    let mut store = Store::open(&path).unwrap();
    store.write(version(1, 1), &[row("a", "view", 0, 1)]).unwrap();
    drop(store);
    assert_eq!(all(&Store::open(&path).unwrap()), [row("a", "view", 0, 1)]);
}

#[test]
fn foreign_bytes_are_an_error_and_no_row() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    store.read(|opened| opened.minutes.insert("a\0view\0", "").map_err(|cause| store.failed(cause))).unwrap();
    assert!(matches!(store.scan_all(|_| ControlFlow::Continue(())), Err(Error::Corrupt { .. })));
    store.read(|opened| opened.claim.insert(CLAIM_KEY, "").map_err(|cause| store.failed(cause))).unwrap();
    assert!(matches!(store.clone().claim(), Err(SinkError::Unanswered { .. })));
    store.read(|opened| opened.claim.insert(NEWEST_KEY, "").map_err(|cause| store.failed(cause))).unwrap();
    drop(store);
    assert!(matches!(Store::open(dir.path()), Err(Error::Corrupt { .. })));
}

#[test]
fn a_folder_that_cannot_be_written_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    // Root may write into read-only folders, but nobody below a file.
    let file = dir.path().join("file");
    fs::write(&file, b"").unwrap();
    assert!(matches!(Store::open(file.join("store")), Err(Error::Unusable { .. })));
}

/// Names the folder for the test below when it runs as a child of itself.
const FULL_DIR: &str = "TIDEMARK_TEST_FULL_DIR";

/// The child's limit on the size of a file is 256 KiB and SIGXFSZ is ignored, so that writes beyond it fail midway like
/// those to a full disk do, with EFBIG for ENOSPC. The limit is soft, and the child lifts it: the disk has space again.
#[test]
fn a_full_disk_is_an_error_and_with_space_again_the_same_store_goes_on() {
    if let Ok(dir) = std::env::var(FULL_DIR) {
        return fill_the_disk(Path::new(&dir));
    }
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::open(dir.path()).unwrap();
    store.write(version(1, 1), &[row("old", "view", 0, 1)]).unwrap();
    drop(store);

    let child = Command::new("bash")
        .args(["-c", r#"trap '' XFSZ; ulimit -S -f 256; exec "$0" --exact --nocapture "$1""#])
        .arg(std::env::current_exe().unwrap())
        .arg(format!(
            "{}::a_full_disk_is_an_error_and_with_space_again_the_same_store_goes_on",
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

    let store = Store::open(dir.path()).unwrap();
    assert_eq!(of_video(&store, "old"), [row("old", "view", 0, 1)]);
    assert_eq!(store.len().unwrap(), 5_001);
}

fn fill_the_disk(dir: &Path) {
    let mut store = Store::open(dir).unwrap();
    let rows: Vec<CountRow> = (0..5_000).map(|minute| row("new", "view", minute * 60_000, minute)).collect();
    for _ in 0..3 {
        let full = store.write(version(1, 2), &rows);
        assert!(matches!(full, Err(SinkError::Unanswered { .. })), "{full:?}");
    }
    let limit = Command::new("prlimit").arg(format!("--pid={}", std::process::id())).arg("--fsize=unlimited").status();
    assert!(limit.unwrap().success(), "prlimit of util-linux lifts the limit");
    store.write(version(1, 2), &rows).unwrap();
    assert_eq!(of_video(&store, "new"), rows);
}
