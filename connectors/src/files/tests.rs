//! Real files, plain and compressed, read through the port.

use std::{fs, io::Write};

use flate2::{Compression, write::GzEncoder};
use tempfile::TempDir;

use super::*;

/// A record as (offset, payload).
type Visited = (u64, Vec<u8>);

fn gz(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zst(bytes: &[u8]) -> Vec<u8> {
    // With a checksum, as the `zstd` command writes it.
    let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
    encoder.include_checksum(true).unwrap();
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// The only partition of a folder with this one file.
fn partition(folder: &TempDir, name: &str, bytes: &[u8]) -> FilePartition {
    let path = folder.path().join(name);
    fs::write(&path, bytes).unwrap();
    let mut partitions = FileInput::open_glob(path.to_str().unwrap()).unwrap();
    assert_eq!(partitions.len(), 1);
    partitions.remove(0)
}

fn reader(folder: &TempDir, name: &str, bytes: &[u8]) -> FileReader {
    partition(folder, name, bytes).reader(Arc::default()).unwrap()
}

/// Reads on to the end, or to the error.
fn read_all(reader: &mut FileReader) -> Result<Vec<Visited>, SourceError> {
    let mut visited = Vec::new();
    loop {
        let before = visited.len();
        let reached = reader.read(&mut |record| {
            assert_eq!((record.append_time, record.key), (None, None));
            visited.push((record.offset, record.payload.to_vec()));
            ControlFlow::Continue(())
        })?;
        assert!(visited.len() - before <= 1024, "{} records in one read", visited.len() - before);
        if reached == Reached::Finished {
            return Ok(visited);
        }
    }
}

/// What a file of this name and content gives.
fn visited(name: &str, bytes: &[u8]) -> Vec<Visited> {
    read_all(&mut reader(&tempfile::tempdir().unwrap(), name, bytes)).unwrap()
}

fn owned(expected: &[(u64, &str)]) -> Vec<Visited> {
    expected.iter().map(|(offset, payload)| (*offset, payload.as_bytes().to_vec())).collect()
}

#[test]
fn each_line_is_a_record_with_its_line_number() {
    for (text, expected) in [
        ("", &[][..]),
        ("\n", &[]),
        ("{}", &[(0, "{}")]),
        ("{}\n", &[(0, "{}")]),
        ("{}\n[]\n", &[(0, "{}"), (1, "[]")]),
        ("{}\r\n[]\r\n", &[(0, "{}\r"), (1, "[]\r")]),
        ("{}\n\n \t\r\n[]", &[(0, "{}"), (3, "[]")]),
        ("\n\n\n{}\n   ", &[(3, "{}")]),
        (" {} \n\x0B\n\u{A0}\n", &[(0, " {} "), (1, "\x0B"), (2, "\u{A0}")]),
        ("\0\n\0\0\na\0b", &[(0, "\0"), (1, "\0\0"), (2, "a\0b")]),
        ("a\rb\n", &[(0, "a\rb")]),
    ] {
        for (name, bytes) in [
            ("plain", text.as_bytes().to_vec()),
            ("a.jsonl", text.as_bytes().to_vec()),
            ("a.jsonl.gz", gz(text.as_bytes())),
            ("a.jsonl.zst", zst(text.as_bytes())),
        ] {
            assert_eq!(visited(name, &bytes), owned(expected), "{text:?} as {name}");
        }
    }
}

/// About 3 MB of lines of every length to 300 bytes, some of them blank: several blocks.
fn long_text() -> Vec<u8> {
    let mut text = Vec::new();
    for line in 0..20_000_usize {
        text.extend(std::iter::repeat_n(b'a' + (line % 26) as u8, line * 7 % 300));
        text.push(b'\n');
    }
    text
}

fn long_expected(text: &[u8]) -> Vec<Visited> {
    let lines = (0..).zip(text.split(|&byte| byte == b'\n'));
    lines.filter(|(_, line)| !line.is_empty()).map(|(offset, line)| (offset, line.to_vec())).collect()
}

#[test]
fn compressed_files_give_the_same_records_also_in_several_members() {
    let text = long_text();
    let expected = long_expected(&text);
    assert!(19_000 < expected.len() && expected.len() < 20_000);
    // The border of the members lies within a line.
    let (head, tail) = text.split_at(1_234_567);
    for (name, bytes) in [
        ("a.jsonl", text.clone()),
        ("a.jsonl.gz", gz(&text)),
        ("b.jsonl.gz", [gz(head), gz(b""), gz(tail)].concat()),
        ("a.jsonl.zst", zst(&text)),
        ("b.jsonl.zst", [zst(head), zst(b""), zst(tail)].concat()),
    ] {
        assert!(visited(name, &bytes) == expected, "{name}");
    }
}

#[test]
fn an_overlong_line_is_one_record_just_over_the_limit() {
    for (length, expected) in [
        (RECORD_BYTES_MAX - 1, RECORD_BYTES_MAX - 1),
        (RECORD_BYTES_MAX, RECORD_BYTES_MAX),
        (RECORD_BYTES_MAX + 1, RECORD_BYTES_MAX + 1),
        (RECORD_BYTES_MAX + 2, RECORD_BYTES_MAX + 1),
        (5 * 1024 * 1024, RECORD_BYTES_MAX + 1),
    ] {
        let long = "x".repeat(length);
        for (end, after) in [("\nlast", &[(2, "last")][..]), ("\n", &[]), ("", &[])] {
            for zipped in [false, true] {
                let text = format!("first\n{long}{end}");
                let (name, bytes) = if zipped { ("a.gz", gz(text.as_bytes())) } else { ("a", text.into_bytes()) };
                let visited = visited(name, &bytes);
                let lengths: Vec<_> = visited.iter().map(|(offset, payload)| (*offset, payload.len())).collect();
                assert_eq!(lengths[..2], [(0, 5), (1, expected)], "{length} {end:?}");
                assert!(visited[1].1.iter().all(|&byte| byte == b'x'));
                assert_eq!(visited[2..], owned(after), "{length} {end:?}");
            }
        }
    }
}

#[test]
fn a_blank_line_is_skipped_however_long_it_is() {
    let blank = " ".repeat(3 * 1024 * 1024);
    assert_eq!(visited("a", format!("{blank}\nx\n{blank}y\n").as_bytes())[0], (1, b"x".to_vec()));
    let visited = visited("a", format!("x\n{blank}y\n{blank}").as_bytes());
    assert_eq!(visited[1].1.len(), RECORD_BYTES_MAX + 1, "it is not blank because of its last byte");
    assert_eq!(visited.len(), 2);
}

#[test]
fn a_read_after_a_break_goes_on_behind_the_record() {
    let folder = tempfile::tempdir().unwrap();
    let text = long_text();
    let mut reader = reader(&folder, "a", &text);
    let mut visited = Vec::new();
    let mut breaks = 0;
    loop {
        let reached = reader
            .read(&mut |record| {
                visited.push((record.offset, record.payload.to_vec()));
                if record.offset % 100 < 3 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            })
            .unwrap();
        if reached == Reached::Finished {
            break;
        }
        let last: &Visited = visited.last().unwrap();
        assert!(last.0 < reader.next_offset());
        if last.0 % 100 < 3 {
            assert_eq!(reader.next_offset(), last.0 + 1);
            breaks += 1;
        }
    }
    assert!(visited == long_expected(&text));
    assert!(500 < breaks, "{breaks} breaks");
    assert_eq!(reader.next_offset(), 20_000);
}

#[test]
fn one_read_is_bounded_in_records_and_in_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let mut records = 0;
    let mut count = |_: Record<'_>| {
        records += 1;
        ControlFlow::Continue(())
    };
    let mut short = reader(&folder, "short", "x\n".repeat(1025).as_bytes());
    assert_eq!(short.read(&mut count).unwrap(), Reached::More);
    assert_eq!(short.next_offset(), 1024);
    assert_eq!(short.read(&mut count).unwrap(), Reached::Finished);
    assert_eq!((short.next_offset(), short.partition()), (1025, PartitionId(0)));
    assert_eq!(short.read(&mut count).unwrap(), Reached::Finished, "the end is for good");
    let mut blank = reader(&folder, "blank", "\n".repeat(5000).as_bytes());
    assert_eq!(blank.read(&mut count).unwrap(), Reached::More);
    assert_eq!(blank.next_offset(), 1024);
    let mut endless = reader(&folder, "endless", "x".repeat(10 * BLOCK_BYTES).as_bytes());
    assert_eq!(endless.read(&mut count).unwrap(), Reached::More);
    assert_eq!(endless.next_offset(), 0);
    assert_eq!(endless.read(&mut count).unwrap(), Reached::Finished);
    assert_eq!(records, 1026);
}

#[test]
fn progress_ends_at_the_size_of_the_file_as_it_lies_there() {
    let folder = tempfile::tempdir().unwrap();
    let text = long_text();
    let progress = Arc::new(AtomicU64::new(0));
    let mut total = 0;
    for (name, bytes) in [("a", text.clone()), ("a.gz", gz(&text)), ("a.zst", zst(&text))] {
        let partition = partition(&folder, name, &bytes);
        assert_eq!(partition.size_bytes, bytes.len() as u64);
        total += partition.size_bytes;
        read_all(&mut partition.reader(progress.clone()).unwrap()).unwrap();
        assert_eq!(progress.load(Ordering::Relaxed), total, "{name}");
    }
}

/// Reads what must fail, and gives how many records came before.
fn fails(name: &str, bytes: &[u8]) -> usize {
    let folder = tempfile::tempdir().unwrap();
    let mut reader = reader(&folder, name, bytes);
    let mut records = 0;
    let error = loop {
        match reader.read(&mut |_| {
            records += 1;
            ControlFlow::Continue(())
        }) {
            Ok(Reached::Finished) => panic!("{name} of {} bytes was read to its end", bytes.len()),
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    let SourceError::Unreadable { partition: PartitionId(0), cause } = error else { panic!("{error}") };
    assert!(cause.to_string().contains(folder.path().join(name).to_str().unwrap()), "{cause}");
    assert!(cause.source().is_some_and(|cause| cause.is::<io::Error>()));
    records
}

#[test]
fn a_damaged_archive_is_an_error_that_names_the_file() {
    let text = long_text();
    for (name, whole) in [("a.gz", gz(&text)), ("a.zst", zst(&text))] {
        let cut = |bytes: usize| &whole[..whole.len() - bytes];
        assert!(0 < fails(name, cut(whole.len() / 10)), "{name}: what came before the cut is good");
        fails(name, cut(1));
        fails(name, cut(whole.len() - 5));
        fails(name, &[&whole[..], b"trailing text"].concat());
        fails(name, &text);
        let mut flipped = whole.clone();
        flipped[whole.len() / 2] ^= 0x10;
        fails(name, &flipped);
    }
}

#[test]
fn a_file_that_is_gone_is_an_error_that_names_it() {
    let folder = tempfile::tempdir().unwrap();
    let partition = partition(&folder, "gone.jsonl", b"{}");
    fs::remove_file(&partition.path).unwrap();
    let error = partition.reader(Arc::default()).err().unwrap();
    let SourceError::Unreadable { cause, .. } = error else { panic!("{error}") };
    assert!(cause.to_string().contains("gone.jsonl"), "{cause}");
}

#[test]
fn files_are_numbered_in_the_order_of_their_bytes() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["b.jsonl", "B.jsonl", "a10.jsonl", "a9.jsonl.gz", "a-1.jsonl", "\u{E9}.jsonl", ".hidden.jsonl"] {
        fs::write(folder.path().join(name), "xyz").unwrap();
    }
    fs::create_dir(folder.path().join("c.jsonl")).unwrap();
    let partitions = FileInput::open_glob(folder.path().join("*.jsonl*").to_str().unwrap()).unwrap();
    let names: Vec<_> = partitions
        .iter()
        .map(|file| (file.partition.0, file.path.file_name().and_then(|name| name.to_str()).unwrap(), file.size_bytes))
        .collect();
    let expected = ["B.jsonl", "a-1.jsonl", "a10.jsonl", "a9.jsonl.gz", "b.jsonl", "\u{E9}.jsonl"];
    assert_eq!(names, (0..).zip(expected).map(|(number, name)| (number, name, 3)).collect::<Vec<_>>());
}

#[test]
fn the_order_is_that_of_whole_paths_also_across_folders() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["a", "a-b"] {
        fs::create_dir(folder.path().join(name)).unwrap();
        fs::write(folder.path().join(name).join("x.jsonl"), "").unwrap();
    }
    let partitions = FileInput::open_glob(folder.path().join("*/*.jsonl").to_str().unwrap()).unwrap();
    let paths: Vec<_> = partitions.iter().map(|file| file.path.strip_prefix(folder.path()).unwrap()).collect();
    assert_eq!(paths, [Path::new("a-b/x.jsonl"), Path::new("a/x.jsonl")]);
}

#[test]
fn a_pattern_without_a_file_or_that_is_none_is_an_error_that_names_it() {
    let folder = tempfile::tempdir().unwrap();
    let pattern = folder.path().join("*.absent");
    let error = FileInput::open_glob(pattern.to_str().unwrap()).unwrap_err();
    assert!(matches!(&error, FilesError::NoMatch { .. }) && error.to_string().contains("*.absent"), "{error}");
    let error = FileInput::open_glob("data/[").unwrap_err();
    assert!(matches!(&error, FilesError::BadPattern { .. }) && error.to_string().contains("data/["), "{error}");
}

#[test]
fn partitions_and_readers_can_move_to_their_worker() {
    fn is_send<T: Send>() {}
    is_send::<FilePartition>();
    is_send::<FileReader>();
}
