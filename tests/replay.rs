//! `tidemark replay`, through the binary, against the naive oracle: tables, ledgers, exit codes and what is left behind.

#![allow(clippy::unwrap_used)]

mod support;

use std::{
    fs::{self, File},
    io::Write as _,
    ops::{Add as _, ControlFlow},
    process::Command,
};

use connectors::embedded::store::Store;
use dataflows::port::{Claim, CountSink as _};
use flate2::{Compression, write::GzEncoder};
use oracle::{
    Counts, Jumps, Ledger, Record, Rules, Spec, Workload,
    compare::{compare, tsv},
    corpus::{Base, cases},
    lines::is_blank,
};
use rustix::process::Signal;
use support::{Ended, Folder, run, start, tidemark, until};

/// The lines of each partition.
type History = Vec<Vec<Vec<u8>>>;

fn replay(folder: &Folder, from: &str, out: &str, more: &[&str]) -> Ended {
    run(replay_command(folder, from, out, more))
}

fn replay_command(folder: &Folder, from: &str, out: &str, more: &[&str]) -> Command {
    let mut command = tidemark(["replay", "--from", &folder.at("files", from), "--out", out]);
    command.args(more);
    command
}

/// Replays into a table of the folder: the table, and what was printed.
#[track_caller]
fn table(folder: &Folder, from: &str, more: &[&str]) -> (Vec<u8>, Ended) {
    let ended = replay(folder, from, &folder.at("tsv", "table.tsv"), more).expect(0);
    let table = folder.read("table.tsv");
    fs::remove_file(folder.path().join("table.tsv")).unwrap();
    (table, ended)
}

fn text_of(lines: &[Vec<u8>]) -> Vec<u8> {
    lines.iter().flat_map(|line| line.iter().copied().chain(*b"\n")).collect()
}

/// One file for each partition, below `history/`.
fn write_history(folder: &Folder, history: &History) {
    for (partition, lines) in history.iter().enumerate() {
        folder.write(&format!("history/part-{partition:04}.jsonl"), text_of(lines));
    }
}

/// What the oracle says: the table's rows, and the ledgers.
fn expected(history: &History) -> (Counts, Vec<Ledger>) {
    let record = |line: &Vec<u8>| Record { append_time_ms: None, payload: line.clone() };
    let records: Vec<Vec<Record>> = history.iter().map(|lines| lines.iter().map(record).collect()).collect();
    let outcome = oracle::run(&Rules::default(), &records);
    (outcome.counts, outcome.ledger)
}

fn ledger_line(name: &str, ledger: &Ledger) -> String {
    let Ledger { read, counted, duplicate, late, future, malformed, oversize } = ledger;
    format!(
        "{name}: read {read} = counted {counted} + duplicate {duplicate} + late {late} + future {future} + malformed \
         {malformed} + oversize {oversize}"
    )
}

/// The ledgers as they are printed.
fn ledger_lines(ledgers: &[Ledger]) -> Vec<String> {
    let lines =
        ledgers.iter().zip(0..).map(|(ledger, partition)| ledger_line(&format!("partition {partition}"), ledger));
    let sum = ledgers.iter().copied().fold(Ledger::default(), Ledger::add);
    lines.chain([ledger_line("all", &sum)]).collect()
}

#[track_caller]
fn assert_ledgers(ended: &Ended, ledgers: &[Ledger]) {
    let mut printed: Vec<&str> = ended.stdout.lines().collect();
    printed.pop();
    assert_eq!(printed, ledger_lines(ledgers), "the ledgers are others\n{ended}");
}

#[track_caller]
fn assert_table(found: &[u8], counts: &Counts, ended: &Ended) {
    let expected = tsv(counts);
    if found != expected {
        panic!("{:?}\nthe table is another\n{ended}", compare(&expected, found));
    }
}

/// On 1 to 4 workers, the table and the ledgers are the oracle's, byte for byte.
#[track_caller]
fn check(history: &History) -> Vec<Ledger> {
    let folder = Folder::new();
    write_history(&folder, history);
    let (counts, ledgers) = expected(history);
    for workers in ["1", "2", "3", "4"] {
        let (table, ended) = table(&folder, "history/*.jsonl", &["--workers", workers]);
        assert_table(&table, &counts, &ended);
        assert_ledgers(&ended, &ledgers);
    }
    ledgers
}

#[test]
fn a_hostile_history_counts_as_the_oracle_says_on_any_number_of_workers() {
    for seed in [1, 2, 3] {
        let ledgers = check(&oracle::hostile(seed, &Spec::default()));
        let sum = ledgers.into_iter().fold(Ledger::default(), Ledger::add);
        assert!(100_000 <= sum.read && 0 < sum.late && 0 < sum.duplicate && sum.oversize == 3, "{sum:?}");
    }
}

#[test]
fn a_hostile_history_without_jumps_counts_as_the_oracle_says() {
    check(&oracle::hostile(4, &Spec { events: 120_000, jumps: Jumps::None, ..Spec::default() }));
}

#[test]
fn more_partitions_than_workers_and_one_without_a_line_count_as_the_oracle_says() {
    let mut history = oracle::hostile(5, &Spec { events: 50_000, partitions: 9, ..Spec::default() });
    history.insert(3, Vec::new());
    check(&history);
}

#[test]
fn a_well_behaved_history_is_counted_whole() {
    let workload = Workload { events: 300_000, ..Workload::default() };
    let mut history = vec![Vec::new(); workload.partitions];
    oracle::well_behaved(6, &workload).for_each(|(partition, line)| history[partition].push(line));
    let sum = check(&history).into_iter().fold(Ledger::default(), Ledger::add);
    assert_eq!((sum.read, sum.counted + sum.duplicate), (300_000, 300_000));
}

/// A line, what it is about, and how it is to be judged when it is alone in its partition.
struct Case {
    name: String,
    line: Vec<u8>,
    verdict: Ledger,
}

const COUNTED: Ledger = Ledger { read: 1, counted: 1, duplicate: 0, late: 0, future: 0, malformed: 0, oversize: 0 };
const MALFORMED: Ledger = Ledger { counted: 0, malformed: 1, ..COUNTED };
const OVERSIZE: Ledger = Ledger { counted: 0, oversize: 1, ..COUNTED };

/// The corpus' cases that can be lines, each about ids of its own, and lines about the limit of size.
fn line_cases() -> Vec<Case> {
    let base = Base { event_id: "event-0000", video_id: "video-0000", timestamp_ms: 1_767_225_600_123 };
    let corpus = cases(base);
    let all = corpus.len();
    let mut lines: Vec<Case> = Vec::new();
    for (name, line, cause) in corpus.into_iter().filter(|(_, line, _)| !line.contains(&b'\n') && !is_blank(line)) {
        let line = about_case(lines.len(), line);
        lines.push(Case { name: name.to_owned(), line, verdict: if cause.is_some() { MALFORMED } else { COUNTED } });
    }
    println!("{} of {all} cases are left out: they are blank, or have a line feed within", all - lines.len());
    for (bytes, good, verdict) in [
        (oracle::judge::RECORD_BYTES_MAX, true, COUNTED),
        (oracle::judge::RECORD_BYTES_MAX, false, MALFORMED),
        (oracle::judge::RECORD_BYTES_MAX + 1, true, OVERSIZE),
        (oracle::judge::RECORD_BYTES_MAX + 1, false, OVERSIZE),
        (3 * oracle::judge::RECORD_BYTES_MAX, true, OVERSIZE),
    ] {
        let mut line = about_case(lines.len(), if good { base.good().into_bytes() } else { b"no JSON".to_vec() });
        line.resize(bytes, b' ');
        lines.push(Case { name: format!("{bytes} bytes"), line, verdict });
    }
    assert!(lines.len() < 10_000, "a case has four digits");
    lines
}

/// Gives the good event's ids the number of a case.
fn about_case(number: usize, mut line: Vec<u8>) -> Vec<u8> {
    for prefix in [&b"event-"[..], b"video-"] {
        let place = [prefix, b"0000"].concat();
        for at in 0..line.len().saturating_sub(place.len()) {
            if line[at..].starts_with(&place) {
                line[at + prefix.len()..at + place.len()].copy_from_slice(format!("{number:04}").as_bytes());
            }
        }
    }
    line
}

/// So many files are open at once: within what a process may have open anywhere.
const CASES_AT_ONCE: usize = 200;

#[test]
fn each_case_of_the_decode_corpus_is_judged_as_it_is_written_there() {
    let cases = line_cases();
    for cases in cases.chunks(CASES_AT_ONCE) {
        let folder = Folder::new();
        let history: History = cases.iter().map(|case| vec![case.line.clone()]).collect();
        write_history(&folder, &history);
        let (table, ended) = table(&folder, "history/*.jsonl", &["--workers", "2"]);
        let printed = ended.stdout.lines().zip(cases).enumerate();
        let wrong = printed.filter(|(partition, (line, case))| {
            **line != ledger_line(&format!("partition {partition}"), &case.verdict)
        });
        let wrong: Vec<String> = wrong.map(|(_, (line, case))| format!("{}: {line}", case.name)).collect();
        assert!(wrong.is_empty(), "{wrong:#?}\n{ended}");
        assert_table(&table, &expected(&history).0, &ended);
    }
}

#[test]
fn the_decode_corpus_in_one_file_counts_as_the_oracle_says() {
    let cases = line_cases();
    let malformed = cases.iter().filter(|case| case.verdict == MALFORMED).count() as u64;
    let ledgers = check(&vec![cases.into_iter().map(|case| case.line).collect()]);
    assert_eq!((ledgers[0].malformed, ledgers[0].oversize), (malformed, 3));
}

fn small_history() -> History {
    oracle::hostile(7, &Spec { events: 6_000, partitions: 3, ..Spec::default() })
}

#[test]
fn compressed_files_count_as_the_plain_ones() {
    let history = small_history();
    let folder = Folder::new();
    // Two members, as `cat one.gz two.gz` leaves them.
    let (one, other) = history[0].split_at(1_000);
    let member = |lines: &[Vec<u8>]| {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(&text_of(lines)).unwrap();
        encoder.finish().unwrap()
    };
    folder.write("history/a.jsonl.gz", [member(one), member(other)].concat());
    folder.write("history/b.jsonl.zst", zstd::encode_all(&*text_of(&history[1]), 1).unwrap());
    folder.write("history/c.jsonl", text_of(&history[2]));
    let (counts, ledgers) = expected(&history);
    for workers in ["1", "2"] {
        let (table, ended) = table(&folder, "history/*", &["--workers", workers]);
        assert_table(&table, &counts, &ended);
        assert_ledgers(&ended, &ledgers);
    }
}

fn good_line(event: usize) -> Vec<u8> {
    let (event_id, video_id) = (format!("e{event}"), format!("v{}", event % 3));
    let timestamp_ms = 1_767_225_600_000 + event as u64;
    Base { event_id: &event_id, video_id: &video_id, timestamp_ms }.good().into_bytes()
}

#[test]
fn the_files_are_partitions_in_the_order_of_their_names() {
    let folder = Folder::new();
    // So many lines in each: the ledger tells the files apart.
    for (name, lines) in [("a", 5), ("9", 2), ("B", 3), ("b/x", 6), ("10", 1), ("_", 4)] {
        let first = lines * 100;
        let lines: Vec<Vec<u8>> = (first..first + lines).map(good_line).collect();
        folder.write(&format!("history/{name}.jsonl"), text_of(&lines));
    }
    let counted = |lines| Ledger { read: lines, counted: lines, ..Ledger::default() };
    let (_, ended) = table(&folder, "history/*.jsonl", &["--workers", "2"]);
    assert_ledgers(&ended, &[1, 2, 3, 4, 5].map(counted));
    let (_, ended) = table(&folder, "history/**/*.jsonl", &[]);
    assert_ledgers(&ended, &[1, 2, 3, 4, 5, 6].map(counted));
}

#[test]
fn blank_lines_carriage_returns_and_a_last_line_without_an_end_change_nothing() {
    let lines: Vec<Vec<u8>> = (0..6).map(good_line).collect();
    let (counts, ledgers) = expected(&vec![lines.clone()]);
    let joined = |separator: &str| lines.join(separator.as_bytes());
    for (name, text) in [
        ("plain", text_of(&lines)),
        ("no last line feed", joined("\n")),
        ("CRLF", [joined("\r\n"), b"\r\n".to_vec()].concat()),
        ("CRLF without the last", joined("\r\n")),
        ("blank lines", [b"\n\r\n \t\n".to_vec(), joined("\n\n \r\n\t\n"), b"\n\n".to_vec()].concat()),
        ("blanks without a last line feed", [joined("\n"), b"\n \t\r".to_vec()].concat()),
    ] {
        let folder = Folder::new();
        folder.write("history/a.jsonl", text);
        let (table, ended) = table(&folder, "history/*.jsonl", &[]);
        println!("{name}");
        assert_table(&table, &counts, &ended);
        assert_ledgers(&ended, &ledgers);
    }
}

#[test]
fn files_without_an_event_leave_an_empty_table() {
    let folder = Folder::new();
    folder.write("history/a.jsonl", "");
    folder.write("history/b.jsonl", "\n \n");
    folder.write("history/c.jsonl", "no event\n");
    let (table, ended) = table(&folder, "history/*.jsonl", &["--workers", "2"]);
    assert_eq!(table, b"", "{ended}");
    assert_ledgers(&ended, &[Ledger::default(), Ledger::default(), MALFORMED]);
}

#[test]
fn since_and_until_give_the_rows_of_the_whole_replay() {
    const START_MS: u64 = 1_767_225_600_000; // 2026-01-01T00:00:00Z
    const MINUTE_MS: u64 = 60_000;
    let folder = Folder::new();
    let history = small_history();
    write_history(&folder, &history);
    let (counts, ledgers) = expected(&history);
    let (from, to) = (START_MS + 30 * MINUTE_MS, START_MS + 61 * MINUTE_MS);
    let (from_text, to_text) = (from.to_string(), to.to_string());
    let inside = (from + 1).to_string();
    let (all, none) = (u64::MAX, 0);
    for (bounds, since, until) in [
        (vec!["--since", &from_text, "--until", &to_text], from, to),
        (vec!["--since", "2026-01-01T00:30:00Z", "--until", "2026-01-01T02:01:00+01:00"], from, to),
        (vec!["--since", "2026-01-01T00:30:00.000Z"], from, all),
        (vec!["--until", &to_text], none, to),
        // A window that begins before is not wanted, though its end is.
        (vec!["--since", &inside], from + 1, all),
        (vec!["--until", &inside], none, from + 1),
        (vec!["--since", &from_text, "--until", &from_text], from, from),
    ] {
        let wanted = |(_, _, window): &(String, String, u64)| since <= *window && *window < until;
        let rows: Counts =
            counts.iter().filter(|(key, _)| wanted(key)).map(|(key, count)| (key.clone(), *count)).collect();
        assert!(rows.len() < counts.len() && (since == until || !rows.is_empty()), "the bounds cut something off");
        let (table, ended) = table(&folder, "history/*.jsonl", &[&bounds[..], &["--workers", "2"]].concat());
        assert_table(&table, &rows, &ended);
        assert_ledgers(&ended, &ledgers);
    }
}

#[test]
fn a_store_holds_the_rows_of_the_table() {
    let folder = Folder::new();
    let history = small_history();
    write_history(&folder, &history);
    let (counts, ledgers) = expected(&history);
    let ended = replay(&folder, "history/*.jsonl", &folder.at("store", "new/store"), &["--workers", "2"]).expect(0);
    assert_ledgers(&ended, &ledgers);
    let mut found = Counts::new();
    let store = Store::open(folder.path().join("new/store")).unwrap();
    let visit = |row: dataflows::port::CountRow| {
        assert!(row.is_final, "files have ended, so all is final: {row:?}");
        found.insert((row.video_id, row.event_type, row.window_start), row.count);
        ControlFlow::Continue(())
    };
    store.scan_all(visit).unwrap();
    assert_eq!(compare(&tsv(&counts), &tsv(&found)), Ok(oracle::compare::Difference::default()));
    assert_eq!(store.len().unwrap(), counts.len());
}

#[test]
fn the_store_of_another_history_is_left_as_it_is() {
    let folder = Folder::new();
    folder.write("history/a.jsonl", text_of(&[good_line(1)]));
    let claim = Claim { history: 7, generation: 3, frontier: 60_000 };
    let open = || Store::open(folder.path().join("store")).unwrap();
    open().set_claim(&claim).unwrap();
    replay(&folder, "history/*.jsonl", &folder.at("store", "store"), &[]).expect(75).complains("another history");
    assert_eq!(open().claim().unwrap(), Some(claim));
    assert!(open().is_empty().unwrap(), "no row was written");
}

#[test]
fn a_store_that_is_in_use_is_refused() {
    let folder = Folder::new();
    folder.write("history/a.jsonl", text_of(&[good_line(1)]));
    let _in_use = Store::open(folder.path().join("store")).unwrap();
    let ended = replay(&folder, "history/*.jsonl", &folder.at("store", "store"), &[]);
    ended.expect(75).complains("in use by another process");
}

#[test]
fn a_pattern_that_matches_nothing_is_a_wrong_command() {
    let folder = Folder::new();
    folder.write("history/a.json", "");
    let ended = replay(&folder, "history/*.jsonl", &folder.at("tsv", "table.tsv"), &[]);
    ended.expect(2).complains("history/*.jsonl");
    assert!(!folder.has("table.tsv"));
}

#[test]
fn a_wrong_command_line_is_exit_2_and_says_what_is_wrong() {
    let folder = Folder::new();
    folder.write("history/a.jsonl", text_of(&[good_line(1)]));
    let (from, out) = (folder.at("files", "history/*.jsonl"), folder.at("tsv", "table.tsv"));
    for (arguments, complaint) in [
        (vec!["--from", "folder:x", "--out", &out], "folder"),
        (vec!["--from", "history/*.jsonl", "--out", &out], "colon"),
        (vec!["--from", &from, "--out", "csv:table.csv"], "csv"),
        (vec!["--from", &from, "--out", "tsv:"], "tsv:"),
        (vec!["--from", &from], "--out"),
        (vec!["--out", &out], "--from"),
        (vec!["--from", "files:***", "--out", &out], "***"),
        (vec!["--from", &from, "--out", &out, "--workers", "0"], "workers"),
        (vec!["--from", &from, "--out", &out, "--since", "yesterday"], "yesterday"),
        (vec!["--from", &from, "--out", &out, "--until", "2026-13-01T00:00:00Z"], "2026-13-01"),
    ] {
        run(tidemark([&["replay"], &arguments[..]].concat())).expect(2).complains(complaint);
        assert!(!folder.has("table.tsv"), "{arguments:?}");
    }
}

#[test]
fn a_table_that_cannot_be_written_is_exit_73_and_names_it() {
    let folder = Folder::new();
    folder.write("history/a.jsonl", text_of(&[good_line(1)]));
    for out in ["absent/table.tsv", "history/a.jsonl/table.tsv", "history"] {
        let ended = replay(&folder, "history/*.jsonl", &folder.at("tsv", out), &[]);
        ended.expect(73).complains(out);
    }
    run(replay_command(&folder, "history/*.jsonl", "tsv:/dev/full", &[])).expect(73).complains("/dev/full");
    let ended = replay(&folder, "history/*.jsonl", &folder.at("store", "history/a.jsonl/store"), &[]);
    ended.expect(73).complains("history/a.jsonl/store");
    assert_eq!(fs::read_dir(folder.path().join("history")).unwrap().count(), 1, "nothing is left behind");
}

#[test]
fn a_damaged_file_is_exit_1_names_it_and_leaves_no_table() {
    let lines: Vec<Vec<u8>> = (0..5_000).map(good_line).collect();
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(&text_of(&lines)).unwrap();
    let gz = encoder.finish().unwrap();
    let zst = zstd::encode_all(&*text_of(&lines), 1).unwrap();
    let mut flipped = gz.clone();
    // The checksum of the plain text.
    flipped[gz.len() - 8] ^= 1;
    for (name, bytes) in [
        ("cut.jsonl.gz", &gz[..gz.len() / 2]),
        ("cut-at-its-end.jsonl.gz", &gz[..gz.len() - 1]),
        ("flipped.jsonl.gz", &flipped),
        ("cut.jsonl.zst", &zst[..zst.len() / 2]),
        ("plain.jsonl.gz", &lines[0]),
        ("plain.jsonl.zst", &lines[0]),
    ] {
        for workers in ["1", "3"] {
            let folder = Folder::new();
            folder.write(&format!("history/{name}"), bytes);
            folder.write("history/good-1.jsonl", text_of(&lines));
            folder.write("history/good-2.jsonl", text_of(&lines));
            let out = folder.at("tsv", "table.tsv");
            replay(&folder, "history/*", &out, &["--workers", workers]).expect(1).complains(name);
            assert!(!folder.has("table.tsv"), "{name}");
        }
    }
}

/// The names that the out file's folder has beside the history.
fn names(folder: &Folder) -> Vec<String> {
    let entries = fs::read_dir(folder.path()).unwrap();
    let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.retain(|name| name != "history");
    names.sort();
    names
}

#[test]
fn a_replay_that_is_killed_while_it_reads_leaves_the_table_that_was_there() {
    for signal in [Signal::TERM, Signal::KILL] {
        let folder = Folder::new();
        folder.write("history/a.jsonl", text_of(&[good_line(1)]));
        folder.write("table.tsv", "an older table\n");
        // A pipe holds it in the middle: more of it is always to come.
        let pipe = folder.path().join("history/b.jsonl");
        assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        let running = start(replay_command(&folder, "history/*.jsonl", &folder.at("tsv", "table.tsv"), &[]));
        // Opens when the reader has opened it; more is written than a pipe holds, so some of it has been read.
        let mut writer = File::options().write(true).open(&pipe).unwrap();
        for event in 0..2_000 {
            writer.write_all(&text_of(&[good_line(event)])).unwrap();
        }
        running.signal(signal);
        let ended = running.end();
        assert!(!ended.status.success(), "{ended}");
        assert_eq!(names(&folder), ["table.tsv"], "{ended}");
        assert_eq!(folder.read("table.tsv"), b"an older table\n", "{ended}");
    }
}

#[test]
fn a_replay_that_is_killed_while_it_writes_leaves_the_old_table_or_the_new_one() {
    let folder = Folder::new();
    let workload = Workload { events: 200_000, partitions: 1, ..Workload::default() };
    let history = vec![oracle::well_behaved(8, &workload).map(|(_, line)| line).collect()];
    write_history(&folder, &history);
    let new = tsv(&expected(&history).0);
    let mut interrupted = 0;
    for signal in [Signal::TERM, Signal::KILL] {
        for _ in 0..3 {
            folder.write("table.tsv", "an older table\n");
            let running = start(replay_command(&folder, "history/*.jsonl", &folder.at("tsv", "table.tsv"), &[]));
            // A table in the making has a name of its own; one that were written in place would be seen as well.
            let begun = || names(&folder) != ["table.tsv"] || folder.read("table.tsv") != b"an older table\n";
            until("the table", begun);
            running.signal(signal);
            let ended = running.end();
            let table = folder.read("table.tsv");
            let is_old = table == b"an older table\n";
            assert!(is_old || table == new, "a table of {} bytes\n{ended}", table.len());
            interrupted += u32::from(is_old);
            for name in names(&folder).iter().filter(|name| *name != "table.tsv") {
                fs::remove_file(folder.path().join(name)).unwrap();
            }
        }
    }
    println!("{interrupted} of 6 were killed before the new table had its name");
}
