use std::fs;

use dataflows::{
    event::{Cause, Reason},
    port::PartitionId,
    testkit::{Faulty, Retrying, letter_contract},
};

use super::*;

/// Opens a fresh sink below `dir` at each call.
fn fresh(dir: &Path) -> impl FnMut() -> LetterDir {
    let mut opened = 0;
    move || {
        opened += 1;
        LetterDir::open(dir.join(opened.to_string())).unwrap()
    }
}

fn places(sink: &LetterDir) -> Vec<(PartitionId, u64)> {
    let letters = read(&sink.dir, None, None).unwrap().map(Result::unwrap);
    letters.map(|letter| (PartitionId(letter.source.partition), letter.source.offset)).collect()
}

fn version(generation: u64, number: u64) -> Version {
    Version { generation, number }
}

fn letter(offset: u64, reason: Reason) -> DeadLetter {
    DeadLetter {
        partition: PartitionId(1),
        offset,
        reason,
        append_time: Some(1_767_225_600_000),
        key: Some(b"v1".to_vec()),
        headers: Vec::new(),
        payload: b"{}".to_vec(),
    }
}

#[test]
fn it_keeps_the_contract_of_letter_sinks() {
    let dir = tempfile::tempdir().unwrap();
    letter_contract::check(fresh(dir.path()), |sink| places(sink));
}

#[test]
fn behind_faults_and_retries_it_keeps_the_contract_of_letter_sinks() {
    for seed in 0..5 {
        let dir = tempfile::tempdir().unwrap();
        let mut open = fresh(dir.path());
        letter_contract::check(|| Retrying::new(Faulty::new(open(), seed)), |sink| places(sink.inner().inner()));
    }
}

#[test]
fn a_letter_is_the_line_that_the_contract_shows() {
    let dir = tempfile::tempdir().unwrap();
    let mut sink = LetterDir::open(dir.path()).unwrap();
    let text = DeadLetter { payload: "a\n\"é\u{0}".into(), ..letter(42, Reason::Malformed(Cause::Json)) };
    let bytes = DeadLetter {
        append_time: None,
        key: Some(vec![0xff]),
        payload: vec![0xff, 0xfe],
        ..letter(43, Reason::Oversize)
    };
    let keyless = DeadLetter { key: None, payload: Vec::new(), ..letter(u64::MAX, Reason::Late) };
    sink.publish(version(3, 12), &[text, bytes, keyless]).unwrap();
    let written = fs::read_to_string(dir.path().join("00000000000000000003-00000000000000000012.jsonl")).unwrap();
    assert_eq!(
        written.lines().collect::<Vec<_>>(),
        [
            r#"{"reason":"malformed","detail":"json","source":{"topic":"log","partition":1,"offset":42},"received_at":1767225600000,"key":"v1","headers":[],"payload":"a\n\"é\u0000"}"#,
            r#"{"reason":"oversize","detail":"oversize","source":{"topic":"log","partition":1,"offset":43},"received_at":null,"key":null,"key_base64":"/w==","headers":[],"payload_base64":"//4="}"#,
            r#"{"reason":"late","detail":"lateness","source":{"topic":"log","partition":1,"offset":18446744073709551615},"received_at":1767225600000,"key":null,"headers":[],"payload":""}"#,
        ]
    );
    assert!(written.ends_with('\n'));
    let payloads = read(dir.path(), None, None).unwrap().map(|letter| letter.unwrap().payload_bytes().unwrap());
    assert_eq!(payloads.collect::<Vec<_>>(), ["a\n\"é\u{0}".as_bytes(), &[0xff, 0xfe], b""]);
}

#[test]
fn reopened_it_skips_what_was_published_and_an_empty_list_leaves_no_file() {
    let dir = tempfile::tempdir().unwrap();
    let letters = [letter(1, Reason::Late), letter(2, Reason::Future)];
    LetterDir::open(dir.path()).unwrap().publish(version(1, 1), &letters).unwrap();
    let mut sink = LetterDir::open(dir.path()).unwrap();
    sink.publish(version(1, 1), &letters).unwrap();
    sink.publish(version(2, 2), &[]).unwrap();
    assert_eq!(places(&sink), [(PartitionId(1), 1), (PartitionId(1), 2)]);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn letters_are_read_by_version_and_counted_by_reason() {
    let dir = tempfile::tempdir().unwrap();
    let mut sink = LetterDir::open(dir.path()).unwrap();
    sink.publish(version(2, 10), &[letter(4, Reason::Late), letter(5, Reason::Oversize)]).unwrap();
    sink.publish(version(2, 9), &[letter(3, Reason::Late)]).unwrap();
    sink.publish(version(1, 11), &[letter(1, Reason::Future), letter(2, Reason::Late)]).unwrap();

    // reason, limit | offsets
    let cases: [(Option<&str>, Option<usize>, &[u64]); 6] = [
        (None, None, &[1, 2, 3, 4, 5]),
        (Some("late"), None, &[2, 3, 4]),
        (Some("late"), Some(2), &[2, 3]),
        (None, Some(0), &[]),
        (None, Some(9), &[1, 2, 3, 4, 5]),
        (Some("malformed"), None, &[]),
    ];
    for (reason, limit, expected) in cases {
        let letters = read(dir.path(), reason, limit).unwrap().map(Result::unwrap);
        assert_eq!(letters.map(|letter| letter.source.offset).collect::<Vec<_>>(), expected, "{reason:?} {limit:?}");
    }
    let counts = count(dir.path()).unwrap();
    assert_eq!(counts, [("future", 1), ("late", 3), ("oversize", 1)].map(|(word, n)| (word.to_owned(), n)).into());
}

#[test]
fn a_truncated_temporary_file_is_no_letter_and_goes_at_the_next_start() {
    let dir = tempfile::tempdir().unwrap();
    LetterDir::open(dir.path()).unwrap().publish(version(1, 1), &[letter(1, Reason::Late)]).unwrap();
    let temp = dir.path().join(".tmp-0123456789abcdef");
    fs::write(&temp, b"{\"reason\":").unwrap();
    assert_eq!(read(dir.path(), None, None).unwrap().count(), 1);
    LetterDir::open(dir.path()).unwrap();
    assert!(!temp.exists());
    assert_eq!(read(dir.path(), None, None).unwrap().count(), 1);
}

#[test]
fn a_line_that_is_no_letter_is_named_and_the_reader_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let mut sink = LetterDir::open(dir.path()).unwrap();
    sink.publish(version(1, 1), &[letter(1, Reason::Late), letter(2, Reason::Late)]).unwrap();
    sink.publish(version(1, 2), &[letter(3, Reason::Late)]).unwrap();
    let path = dir.path().join("00000000000000000001-00000000000000000001.jsonl");
    let written = fs::read_to_string(&path).unwrap();
    fs::write(&path, format!("{{}}\n{written}")).unwrap();

    let letters: Vec<_> = read(dir.path(), None, None).unwrap().collect();
    assert!(matches!(&letters[0], Err(LetterError::Corrupt { path: named, line: 1, .. }) if *named == path));
    assert_eq!(letters[1..].iter().filter(|letter| letter.is_ok()).count(), 3);
    assert!(count(dir.path()).is_err());
}

#[test]
fn a_folder_that_is_not_there_or_cannot_be_written_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    assert!(matches!(read(dir.path().join("none"), None, None), Err(LetterError::Unreadable { .. })));

    // Root may write into read-only folders, but nobody below a file.
    let file = dir.path().join("file");
    fs::write(&file, b"").unwrap();
    assert!(matches!(LetterDir::open(file.join("dead-letters")), Err(SinkError::Refused { .. })));

    let mut sink = LetterDir::open(dir.path().join("gone")).unwrap();
    fs::remove_dir(dir.path().join("gone")).unwrap();
    assert!(matches!(sink.publish(version(1, 1), &[letter(1, Reason::Late)]), Err(SinkError::Refused { .. })));
}

#[test]
fn the_newest_version_is_the_greatest_that_was_published() {
    let dir = tempfile::tempdir().unwrap();
    let mut sink = LetterDir::open(dir.path()).unwrap();
    assert_eq!(sink.newest().unwrap(), None);
    for (generation, number) in [(9, 80), (10, 7), (2, 100)] {
        sink.publish(version(generation, number), &[letter(number, Reason::Late)]).unwrap();
    }
    sink.publish(version(11, 1), &[]).unwrap();
    fs::write(dir.path().join("notes.jsonl"), "").unwrap();
    assert_eq!(sink.newest().unwrap(), Some(version(10, 7)));
}
