//! `tidemark checkpoint` and `tidemark dead-letters` through the binary, on folders made with the same code as `run`'s.
// The whole file is a test: its helpers may unwrap as well.
#![allow(clippy::unwrap_used)]

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use connectors::embedded::{checkpoints::CheckpointDir, letters::LetterDir};
use dataflows::{
    announce::{PartitionState, Partitions},
    checkpoint::{
        manifest::{Hot, Manifest, Meaning, PartInfo},
        part::{GroupState, PartState},
    },
    clock::{Clock, Row},
    dedup::RememberedId,
    event::{Cause, Reason},
    identity::IdKey,
    ledger::Ledger,
    letter::DeadLetter,
    port::{CheckpointStore as _, LetterSink as _, PartitionId, Version},
    rules::Rules,
    series::SeriesNo,
    time::Minute,
    window::CellState,
};
use tempfile::TempDir;

/// 2026-01-01T00:00:00Z
const START: u64 = 1_767_225_600_000;

/// Half of the secret under which the fixture's ids are hashed: no command may print it in any form.
const SECRET: u64 = 0x1234_5678_9abc_def1;

fn tidemark(data_dir: &Path, line: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidemark"));
    command.args(line.split_whitespace()).arg("--data-dir").arg(data_dir);
    command.env_clear().current_dir(data_dir.parent().unwrap()).output().unwrap()
}

/// What a command prints and ends with.
#[track_caller]
fn ends(data_dir: &Path, line: &str, code: i32) -> (String, String) {
    let Output { status, stdout, stderr } = tidemark(data_dir, line);
    let (stdout, stderr) = (String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap());
    assert_eq!(status.code(), Some(code), "{line}\nstdout:\n{stdout}\nstderr:\n{stderr}");
    (stdout, stderr)
}

#[track_caller]
fn has(text: &str, words: &str) {
    let squeezed: Vec<String> =
        text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    assert!(squeezed.iter().any(|line| line.contains(words)), "{words:?} is not in\n{text}");
}

/// A data folder with checkpoints 1-1, 1-2, … a minute apart.
struct Fixture {
    dir: TempDir,
}

impl Fixture {
    fn new(checkpoints: u64) -> Self {
        let fixture = Self { dir: tempfile::tempdir().unwrap() };
        let mut store = CheckpointDir::open(fixture.checkpoints()).unwrap();
        store.claim_generation(0).unwrap();
        for number in 1..=checkpoints {
            fixture.write(number, ledger());
        }
        fixture
    }

    fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    fn checkpoints(&self) -> PathBuf {
        self.data().join("checkpoints")
    }

    fn part(&self, number: u64) -> PathBuf {
        self.checkpoints().join("parts").join(part_name(number))
    }

    fn manifest(&self, number: u64) -> PathBuf {
        self.checkpoints().join(format!("{:020}-{number:020}.manifest", 1))
    }

    /// Commits a checkpoint of two events of one video, whose first partition has this ledger.
    fn write(&self, number: u64, ledger: Ledger) {
        let mut store = CheckpointDir::open(self.checkpoints()).unwrap();
        let (part, version) = (part().encode(), Version { generation: 1, number });
        store.put_part(&part_name(number), &part).unwrap();
        let row = Row { event_ids: vec!["far".into()], least: START + 9_000_000 };
        let state = |clock, ledger: Ledger| PartitionState {
            next_offset: ledger.read + 100,
            tail: None,
            clock,
            ended: false,
            ledger,
            gaps: Vec::new(),
        };
        let partitions = [
            (PartitionId(0), state(Clock::restore(Some(START + 5), Some(row)), ledger)),
            (PartitionId(1), state(Clock::default(), Ledger::default())),
        ];
        let manifest = Manifest {
            version,
            history: 0xabc,
            log: 0xdef,
            key: IdKey([SECRET, SECRET]),
            frontier: frontier(number),
            watermark: START - 600_000,
            acknowledged: Version { generation: number.min(2) - 1, number: number - 1 },
            meaning: Meaning::of(&Rules::default()),
            partitions: Partitions(partitions.into()),
            hot: Hot::default(),
            parts: vec![PartInfo::of(part_name(number), number, &part)],
        };
        store.commit(version, &manifest.encode()).unwrap();
    }
}

fn ledger() -> Ledger {
    Ledger { read: 5, counted: 2, duplicate: 1, late: 1, malformed: 1, ..Ledger::default() }
}

fn part_name(number: u64) -> String {
    format!("1-{number}.w0.part")
}

fn frontier(number: u64) -> u64 {
    START + number * 60_000
}

fn part() -> PartState {
    let mut part = PartState::default();
    let minute = Minute::of(START);
    part.groups[7] = GroupState {
        names: vec![("v1".into(), "view".into())],
        ids: [[1, 2], [3, 4]].into_iter().map(|id| RememberedId { id, minute }).collect(),
        cells: vec![CellState { series: SeriesNo(0), minute, count: 2, unwritten: true }],
        stats: Vec::new(),
    };
    part.letters = vec![letter(3, Reason::Late, b"{}"), letter(4, Reason::Malformed(Cause::Json), b"x")];
    part
}

fn letter(offset: u64, reason: Reason, payload: &[u8]) -> DeadLetter {
    let payload = payload.to_vec();
    DeadLetter {
        partition: PartitionId(0),
        offset,
        reason,
        append_time: Some(START),
        key: None,
        headers: Vec::new(),
        payload,
    }
}

/// Flips one bit.
fn damage(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(path, bytes).unwrap();
}

#[test]
fn checkpoints_are_listed_newest_first_with_what_is_in_them() {
    let fixture = Fixture::new(3);
    let (stdout, _) = ends(&fixture.data(), "checkpoint list", 0);
    let versions: Vec<_> = stdout.lines().filter_map(|line| line.split_whitespace().next()).collect();
    assert_eq!(versions, ["version", "1-3", "1-2", "1-1"], "{stdout}");
    let bytes = part().encode().len();
    let row = format!("1-2 {} 2026-01-01T00:02:00.000Z 2025-12-31T23:50:00.000Z 5 {bytes} 1 1-1", frontier(2));
    has(&stdout, &row);
    has(&stdout, &format!("1-1 {} 2026-01-01T00:01:00.000Z 2025-12-31T23:50:00.000Z 5 {bytes} 1 none", frontier(1)));
    damage(&fixture.manifest(2));
    let (stdout, _) = ends(&fixture.data(), "checkpoint list", 0);
    has(&stdout, "1-2 is damaged: manifest 1-2: the checksum of section");
    has(&stdout, "1-1 ");
}

#[test]
fn a_checkpoint_is_shown_whole_but_for_its_secret() {
    let fixture = Fixture::new(2);
    let (stdout, _) = ends(&fixture.data(), "checkpoint show", 0);
    for words in [
        "checkpoint 1-2",
        &format!("frontier {} (2026-01-01T00:02:00.000Z)", frontier(2)),
        "acknowledged 1-1",
        "history 00000000000000000000000000000abc",
        "meaning window 60000 ms, lateness 600000 ms, remember 600000 ms, max_future 300000 ms, max_jump 3600000 ms",
        "remembered ids 2",
        "series 1",
        "cells 1, 2 events in them",
        "letters 2, late 1, malformed 1",
        &format!("0 105 {} 1 ids beyond, least {} 5 2 1 1 0 1 0 yes", START + 5, START + 9_000_000),
        "1 100 none yet 0 0 0 0 0 0 0 yes",
        "all 5 2 1 1 0 1 0 yes",
        &format!(
            "1-2.w0.part {} {:032x}",
            part().encode().len(),
            PartInfo::of(String::new(), 0, &part().encode()).hash
        ),
    ] {
        has(&stdout, words);
    }
    for secret in [format!("{SECRET:x}"), format!("{SECRET}")] {
        assert!(!stdout.contains(&secret), "{stdout}");
    }
    let (stdout, _) = ends(&fixture.data(), &format!("checkpoint show {}", frontier(1)), 0);
    has(&stdout, "checkpoint 1-1");
    let (_, stderr) = ends(&fixture.data(), "checkpoint show 7", 66);
    assert!(stderr.contains("there is no checkpoint at frontier 7"), "{stderr}");
}

#[test]
fn a_damaged_checkpoint_is_shown_as_far_as_it_can_be_read_and_named() {
    let fixture = Fixture::new(2);
    damage(&fixture.part(2));
    let (stdout, stderr) = ends(&fixture.data(), "checkpoint show", 1);
    has(&stdout, "checkpoint 1-2");
    assert!(!stdout.contains("remembered ids"), "{stdout}");
    assert!(stderr.contains("1-2.w0.part is not the part that the manifest names"), "{stderr}");
    damage(&fixture.manifest(2));
    let (_, stderr) = ends(&fixture.data(), "checkpoint show", 1);
    assert!(stderr.contains("1-2, the newest, is damaged"), "{stderr}");
    let (stdout, stderr) = ends(&fixture.data(), &format!("checkpoint show {}", frontier(1)), 0);
    has(&stdout, "checkpoint 1-1");
    assert!(stderr.contains("the frontier of a damaged checkpoint is not known"), "{stderr}");
}

#[test]
fn good_checkpoints_are_verified_to_the_last_byte() {
    let fixture = Fixture::new(2);
    let (stdout, _) = ends(&fixture.data(), "checkpoint verify", 0);
    assert_eq!(stdout.lines().count(), 2, "{stdout}");
    let balance =
        "read 5 = counted 2 + duplicate 1 + late 1 + future 0 + malformed 1 + oversize 0; counted = the sum of 1 cells";
    has(&stdout, &format!("1-2 good frontier {} (2026-01-01T00:02:00.000Z), 1 parts,", frontier(2)));
    has(&stdout, balance);
}

#[test]
fn a_flipped_bit_is_found_wherever_it_is_and_the_file_is_named() {
    for (file, named) in [
        ("part", "1-3 damaged 1-3.w0.part is not the part that the manifest names"),
        ("manifest", "1-3 damaged manifest 1-3: the checksum of section"),
    ] {
        let fixture = Fixture::new(3);
        damage(&if file == "part" { fixture.part(3) } else { fixture.manifest(3) });
        let (stdout, stderr) = ends(&fixture.data(), "checkpoint verify", 1);
        has(&stdout, named);
        has(&stdout, "1-2 good");
        has(&stdout, "1-1 good");
        assert!(stderr.contains("1 of 3 checkpoints in"), "{stderr}");
    }
}

#[test]
fn where_no_checkpoint_is_good_verify_ends_with_66() {
    let fixture = Fixture::new(2);
    fs::remove_file(fixture.part(1)).unwrap();
    damage(&fixture.part(2));
    let (stdout, stderr) = ends(&fixture.data(), "checkpoint verify", 66);
    assert!(stdout.contains("1-1.w0.part is missing"), "{stdout}");
    assert!(stderr.contains("none of the checkpoints in"), "{stderr}");
    assert!(stderr.contains("tidemark run --from-start"), "{stderr}");
}

#[test]
fn one_frontier_is_verified_alone() {
    let fixture = Fixture::new(2);
    damage(&fixture.part(2));
    let (stdout, _) = ends(&fixture.data(), &format!("checkpoint verify {}", frontier(1)), 0);
    assert_eq!(stdout.lines().count(), 1, "{stdout}");
    ends(&fixture.data(), &format!("checkpoint verify {}", frontier(2)), 66);
    ends(&fixture.data(), "checkpoint verify 7", 66);
}

#[test]
fn a_ledger_that_does_not_balance_is_damage() {
    for (ledger, named) in [
        (Ledger { late: 0, ..ledger() }, "the ledger does not balance: partition 0"),
        (Ledger { read: 6, counted: 3, ..ledger() }, "the ledger does not balance: 3 counted, 2 in the cells"),
    ] {
        let fixture = Fixture::new(0);
        fixture.write(1, ledger);
        let (stdout, _) = ends(&fixture.data(), "checkpoint verify", 66);
        has(&stdout, named);
    }
}

#[test]
fn a_missing_folder_is_said_and_not_made() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    for (line, code) in [("checkpoint list", 1), ("checkpoint show", 66), ("checkpoint verify", 66)] {
        let (stdout, stderr) = ends(&data, line, code);
        assert!(stdout.is_empty() && stderr.contains("there is no folder"), "{stdout}{stderr}");
        assert!(!data.exists(), "{line}");
    }
    // There, with nothing in it; not even the folder of the parts is made.
    fs::create_dir_all(data.join("checkpoints")).unwrap();
    for (line, code) in [("checkpoint list", 0), ("checkpoint show", 66), ("checkpoint verify", 66)] {
        ends(&data, line, code);
        assert_eq!(fs::read_dir(data.join("checkpoints")).unwrap().count(), 0, "{line}");
    }
}

#[test]
fn looking_changes_nothing_and_claims_nothing() {
    let fixture = Fixture::new(2);
    let names = || {
        let mut names: Vec<_> =
            fs::read_dir(fixture.checkpoints()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    let before = names();
    for line in ["checkpoint list", "checkpoint show", "checkpoint verify"] {
        ends(&fixture.data(), line, 0);
        assert_eq!(names(), before, "{line}");
    }
}

fn with_letters(check: impl FnOnce(&Path)) {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let mut letters = LetterDir::open(data.join("dead-letters")).unwrap();
    let first = [letter(3, Reason::Late, b"{}"), letter(4, Reason::Malformed(Cause::Json), b"\xff")];
    letters.publish(Version { generation: 1, number: 2 }, &first).unwrap();
    let second = [letter(9, Reason::Late, b"{\"a\":\"\\u009b\xc2\x9b\"}"), letter(10, Reason::Future, b"{}")];
    letters.publish(Version { generation: 1, number: 10 }, &second).unwrap();
    check(&data);
}

fn stored(data: &Path) -> String {
    let mut files: Vec<_> =
        fs::read_dir(data.join("dead-letters")).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files.iter().map(|file| fs::read_to_string(file).unwrap()).collect()
}

#[test]
fn letters_are_listed_as_they_are_stored() {
    with_letters(|data| {
        let (stdout, _) = ends(data, "dead-letters list", 0);
        assert_eq!(stdout, stored(data));
        let offsets = |line: &str| {
            let (stdout, _) = ends(data, line, 0);
            let offset =
                |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap()["source"]["offset"].as_u64();
            stdout.lines().filter_map(offset).collect::<Vec<_>>()
        };
        assert_eq!(offsets("dead-letters list --reason late"), [3, 9]);
        assert_eq!(offsets("dead-letters list --reason late --limit 1"), [3]);
        assert_eq!(offsets("dead-letters list --limit 3"), [3, 4, 9]);
        assert!(offsets("dead-letters list --limit 0").is_empty());
        assert!(offsets("dead-letters list --reason oversize").is_empty());
    });
}

#[test]
fn letters_are_counted_by_reason_in_the_contracts_order() {
    with_letters(|data| {
        let (stdout, _) = ends(data, "dead-letters count", 0);
        assert_eq!(stdout, "malformed  1\nlate       2\nfuture     1\noversize   0\ntotal      4\n");
    });
}

#[test]
fn where_no_letter_was_written_there_are_none() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    assert_eq!(ends(&data, "dead-letters list", 0).0, "");
    let (stdout, _) = ends(&data, "dead-letters count", 0);
    assert_eq!(stdout, "malformed  0\nlate       0\nfuture     0\noversize   0\ntotal      0\n");
    assert!(!data.exists());
}

#[test]
fn a_line_that_is_no_letter_is_told_of_and_the_others_are_read() {
    with_letters(|data| {
        let path = data.join("dead-letters").join(format!("{:020}-{:020}.jsonl", 1, 2));
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, text.replacen("{\"reason\"", "{\"reason", 1)).unwrap();
        let (stdout, stderr) = ends(data, "dead-letters list", 1);
        assert_eq!(stdout.lines().count(), 3, "{stdout}");
        assert!(stderr.contains("line 1 of") && stderr.contains("00000000000000000002.jsonl is no letter"), "{stderr}");
        let (stdout, _) = ends(data, "dead-letters count", 1);
        has(&stdout, "total 3");
    });
}
