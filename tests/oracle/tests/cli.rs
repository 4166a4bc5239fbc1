//! The command line, from lines to tables to exit codes.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn oracle(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_oracle")).args(arguments).output().expect("the oracle starts")
}

/// An empty folder of this test's own.
fn folder(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _absent = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).expect("the target folder can be written");
    folder
}

fn text(path: &Path) -> &str {
    path.to_str().expect("the target folder has a plain name")
}

#[test]
fn generated_files_are_counted_and_compared() {
    for kind in ["--hostile", "--well"] {
        let folder = folder(&format!("cli{kind}"));
        let generated =
            oracle(&["generate", kind, "--seed", "5", "--events", "3000", "--partitions", "2", "--dir", text(&folder)]);
        assert!(generated.status.success(), "{generated:?}");
        let (first, second, table) = (folder.join("part-0.jsonl"), folder.join("part-1.jsonl"), folder.join("all.tsv"));
        let counted = oracle(&["count", "--out", text(&table), text(&first), text(&second)]);
        assert!(counted.status.success(), "{counted:?}");
        let printed = String::from_utf8(counted.stdout).expect("the ledger is text");
        assert_eq!(printed.lines().count(), 4, "{printed}");
        assert_eq!(oracle(&["compare", text(&table), text(&table)]).status.code(), Some(0));

        let half = folder.join("half.tsv");
        assert!(oracle(&["count", "--out", text(&half), text(&first)]).status.success());
        let compared = oracle(&["compare", text(&table), text(&half)]);
        assert_eq!(compared.status.code(), Some(1));
        let shown = String::from_utf8(compared.stdout).expect("the rows are text");
        assert_eq!(shown.lines().count(), 21, "{shown}");
    }
}

#[test]
fn a_small_file_is_counted_by_hand() {
    let folder = folder("cli-small");
    let (input, table) = (folder.join("part.jsonl"), folder.join("out.tsv"));
    let line = |id: u64, kind: &str, at: u64| {
        format!("{{\"event_id\":\"{id}\",\"video_id\":\"v\",\"event_type\":\"{kind}\",\"timestamp\":{at}}}\r\n")
    };
    let lines = [
        line(1, "view", 60_000),
        " \t\r\n".to_owned(),
        line(2, "view", 119_999),
        line(1, "like", 60_000),
        "?\n".to_owned(),
        line(3, "like", 1_200_000),
        line(4, "view", 599_999),
        line(5, "view", 600_000).trim_end().to_owned(),
    ];
    std::fs::write(&input, lines.concat()).expect("the folder can be written");
    let counted = oracle(&["count", "--out", text(&table), text(&input)]);
    let printed = String::from_utf8(counted.stdout).expect("the ledger is text");
    assert_eq!(printed.lines().nth(1), Some("0\t7\t4\t1\t1\t0\t1\t0\t1200000"));
    let rows = std::fs::read_to_string(&table).expect("the table was written");
    assert_eq!(rows, "v\tlike\t1200000\t1\nv\tview\t60000\t2\nv\tview\t600000\t1\n");
}

#[test]
fn usage_is_exit_2_and_a_missing_file_is_exit_1() {
    for arguments in [
        &[][..],
        &["guess"],
        &["generate", "--dir", "x"],
        &["generate", "--well", "--hostile", "--dir", "x"],
        &["generate", "--well", "--events", "many", "--dir", "x"],
        &["generate", "--well", "--depth", "3", "--dir", "x"],
        &["count", "x.jsonl"],
        &["compare", "x.tsv"],
    ] {
        assert_eq!(oracle(arguments).status.code(), Some(2), "{arguments:?}");
    }
    assert_eq!(oracle(&["compare", "/nowhere/a.tsv", "/nowhere/b.tsv"]).status.code(), Some(1));
}
