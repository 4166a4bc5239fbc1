//! The log as its users see it, on real files; [`Faults`] lets single operations fail or wait.
#![allow(clippy::unwrap_used)]

use std::{
    collections::VecDeque,
    fs::{self, OpenOptions},
    ops::ControlFlow,
    os::unix::fs::{FileExt, PermissionsExt},
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
        mpsc::{self, Receiver, Sender},
    },
    time::Duration,
};

use dataflows::port::{PartitionReader, Reached};
use proptest::prelude::*;
use tempfile::TempDir;

use super::{disk::SegmentFile, *};

/// Longer than any answer takes: running out of it is a failure, not a wait.
const PATIENCE: Duration = Duration::from_secs(30);

const P0: PartitionId = PartitionId(0);
const P1: PartitionId = PartitionId(1);

type Answer = Result<Vec<(PartitionId, u64)>, AppendError>;

/// What comes of the next writes, syncs and creations; when the list is empty, they succeed.
#[derive(Clone, Default)]
struct Faults(Arc<Mutex<Plan>>);

#[derive(Default)]
struct Plan {
    /// `Some(n)`: n bytes are written, then the disk is full.
    writes: VecDeque<Option<usize>>,
    /// `Some`: the sync fails although the bytes are there.
    syncs: VecDeque<Option<()>>,
    creates: VecDeque<Option<()>>,
    /// The next sync says that it was reached, and waits.
    gate: Option<(Sender<()>, Receiver<()>)>,
}

impl Faults {
    /// Holds the next sync: wait on the receiver until it is reached, then send to let it go on.
    fn hold_sync(&self) -> (Receiver<()>, Sender<()>) {
        let (reached, is_reached) = mpsc::channel();
        let (let_go, is_let_go) = mpsc::channel();
        self.0.lock().unwrap().gate = Some((reached, is_let_go));
        (is_reached, let_go)
    }

    fn plan(&self, change: impl FnOnce(&mut Plan)) {
        change(&mut self.0.lock().unwrap());
    }
}

struct FaultyFile {
    faults: Faults,
    file: Box<dyn SegmentFile>,
    failed: bool,
}

impl SegmentFile for FaultyFile {
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        assert!(!self.failed, "a failed file is written again");
        let Some(kept) = self.faults.0.lock().unwrap().writes.pop_front().flatten() else {
            return self.file.write_all(bytes);
        };
        self.failed = true;
        self.file.write_all(&bytes[..kept.min(bytes.len())])?;
        Err(io::ErrorKind::StorageFull.into())
    }

    fn sync_data(&mut self) -> io::Result<()> {
        assert!(!self.failed, "a failed file is synced again");
        let gate = self.faults.0.lock().unwrap().gate.take();
        if let Some((reached, let_go)) = gate {
            reached.send(()).unwrap();
            let_go.recv_timeout(PATIENCE).unwrap();
        }
        self.failed = self.faults.0.lock().unwrap().syncs.pop_front().flatten().is_some();
        if self.failed { Err(io::Error::other("planned")) } else { self.file.sync_data() }
    }
}

impl Disk for Faults {
    fn create(&self, path: &Path) -> io::Result<Box<dyn SegmentFile>> {
        if self.0.lock().unwrap().creates.pop_front().flatten().is_some() {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let file = FileSystem.create(path)?;
        Ok(Box::new(FaultyFile { faults: self.clone(), file, failed: false }))
    }

    fn append_to(&self, path: &Path) -> io::Result<Box<dyn SegmentFile>> {
        let file = FileSystem.append_to(path)?;
        Ok(Box::new(FaultyFile { faults: self.clone(), file, failed: false }))
    }
}

fn open(dir: &Path, partitions: u32) -> Result<Log, LogError> {
    Log::open(dir, partitions, || 1_000)
}

fn open_faulty(dir: &Path, partitions: u32, segment_bytes_max: u64) -> (Log, Faults) {
    let faults = Faults::default();
    let log = Log::open_with(dir, partitions, Box::new(|| 1_000), Box::new(faults.clone()), segment_bytes_max);
    (log.unwrap(), faults)
}

fn record(partition: PartitionId, payload: &str) -> NewRecord {
    NewRecord { partition: partition.0, key: None, payload: payload.as_bytes().to_vec() }
}

/// Appends without waiting; the answer comes through the receiver.
fn send(appender: &Appender, batch: Vec<NewRecord>) -> Receiver<Answer> {
    let (answer, receiver) = mpsc::channel();
    appender.append(batch, Box::new(move |result| answer.send(result).unwrap())).unwrap();
    receiver
}

fn append(log: &Log, batch: Vec<NewRecord>) -> Answer {
    send(&log.appender(), batch).recv_timeout(PATIENCE).unwrap()
}

/// Appends one record after the other.
fn append_each(log: &Log, partition: PartitionId, payloads: &[&str]) {
    for payload in payloads {
        append(log, vec![record(partition, payload)]).unwrap();
    }
}

/// One read: the payloads as text, checking that offsets ascend without gaps.
fn read(reader: &mut LogReader) -> Result<(Vec<String>, Reached), SourceError> {
    let mut seen = Vec::new();
    let mut next_offset = reader.next_offset();
    let reached = reader.read(&mut |record| {
        assert_eq!(record.offset, next_offset);
        next_offset += 1;
        seen.push(String::from_utf8(record.payload.to_vec()).unwrap());
        ControlFlow::Continue(())
    })?;
    assert_eq!(reader.next_offset(), next_offset);
    Ok((seen, reached))
}

/// The payloads from the first record to the end.
fn read_all(view: &LogView, partition: PartitionId) -> Vec<String> {
    let mut reader = view.reader(partition, view.first_offsets()[partition.0 as usize]).unwrap();
    let mut all = Vec::new();
    loop {
        let before = reader.next_offset();
        let (some, reached) = read(&mut reader).unwrap();
        all.extend(some);
        if reached == Reached::End {
            return all;
        }
        assert!(before < reader.next_offset(), "a read makes progress");
    }
}

fn segment(dir: &TempDir, partition: PartitionId, base: u64) -> PathBuf {
    partition::segment_path(&partition::folder(dir.path(), partition), base)
}

fn flip_bit(path: &Path, bit: u64) {
    let file = OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, bit / 8).unwrap();
    byte[0] ^= 1 << (bit % 8);
    file.write_all_at(&byte, bit / 8).unwrap();
}

/// The size of a frame of [`record`], bytes.
fn frame_bytes(payload: &str) -> u64 {
    (frame::HEADER_BYTES + payload.len()) as u64
}

struct EmbeddedSubject(Log);

impl crate::memory::log::contract::Subject for EmbeddedSubject {
    fn append(&self, key: Option<&[u8]>, payload: &[u8]) {
        let record = NewRecord { partition: 0, key: key.map(<[u8]>::to_vec), payload: payload.to_vec() };
        append(&self.0, vec![record]).unwrap();
    }

    fn reader(&self, from: u64) -> Result<Box<dyn PartitionReader>, SourceError> {
        Ok(Box::new(self.0.reader(P0, from)?))
    }

    fn last_reader(&self, from: u64) -> Box<dyn PartitionReader> {
        Box::new(self.0.reader_until(P0, from, self.0.end_offsets()[0]).unwrap())
    }
}

#[test]
fn it_keeps_the_contract_of_a_partition_reader_in_one_segment_and_in_many() {
    for segment_bytes_max in [SEGMENT_BYTES_MAX, 1_000] {
        let dir = TempDir::new().unwrap();
        let (log, _) = open_faulty(dir.path(), 1, segment_bytes_max);
        crate::memory::log::contract::check(&EmbeddedSubject(log));
    }
}

#[test]
fn done_gets_the_next_offset_of_each_partition_that_the_batch_touched() {
    let dir = TempDir::new().unwrap();
    let log = open(dir.path(), 3).unwrap();
    let answer = append(&log, vec![record(P1, "a"), record(P0, "b"), record(P1, "c")]);
    assert_eq!(answer.unwrap(), [(P0, 1), (P1, 2)]);
    assert_eq!(append(&log, vec![record(P1, "d")]).unwrap(), [(P1, 3)]);
    assert_eq!(append(&log, vec![]).unwrap(), []);
    assert_eq!(log.end_offsets(), [1, 3, 0]);
    assert_eq!(log.first_offsets(), [0, 0, 0]);
    assert_eq!(read_all(&log, P1), ["a", "c", "d"]);
}

#[test]
fn an_unfinished_last_record_is_cut_at_every_length_and_nothing_before_it() {
    let dir = TempDir::new().unwrap();
    let log = open(dir.path(), 1).unwrap();
    append_each(&log, P0, &["first", "second", "third"]);
    log.close();
    let path = segment(&dir, P0, 0);
    let bytes = fs::read(&path).unwrap();
    let good_bytes = (frame_bytes("first") + frame_bytes("second")) as usize;
    for end in good_bytes..=bytes.len() {
        fs::write(&path, &bytes[..end]).unwrap();
        let log = open(dir.path(), 1).unwrap();
        let whole = end == bytes.len();
        let kept: &[&str] = if whole { &["first", "second", "third"] } else { &["first", "second"] };
        assert_eq!(read_all(&log, P0), kept, "cut at byte {end}");
        let kept_bytes = if whole { end } else { good_bytes };
        assert_eq!(fs::metadata(&path).unwrap().len(), kept_bytes as u64, "cut at byte {end}");
        append_each(&log, P0, &["next"]);
        assert_eq!(read_all(&log, P0), [kept, &["next"]].concat(), "cut at byte {end}");
    }
}

#[test]
fn a_flipped_bit_in_the_last_record_cuts_it_and_in_one_before_it_is_corrupt() {
    let dir = TempDir::new().unwrap();
    let log = open(dir.path(), 1).unwrap();
    append_each(&log, P0, &["first", "second", "third"]);
    log.close();
    let path = segment(&dir, P0, 0);
    let bytes = fs::read(&path).unwrap();
    let second_at = 8 * frame_bytes("first");
    let third_at = second_at + 8 * frame_bytes("second");
    for bit in second_at..8 * bytes.len() as u64 {
        fs::write(&path, &bytes).unwrap();
        flip_bit(&path, bit);
        let opened = open(dir.path(), 1);
        if third_at <= bit {
            assert_eq!(read_all(&opened.unwrap(), P0), ["first", "second"], "bit {bit}");
        } else {
            let offset = match opened.err() {
                Some(LogError::Corrupt { partition: P0, offset, .. }) => offset,
                other => panic!("bit {bit}: {other:?}"),
            };
            assert_eq!(offset, 1, "bit {bit}");
        }
    }
}

#[test]
fn zeros_behind_the_last_record_are_cut() {
    let dir = TempDir::new().unwrap();
    let log = open(dir.path(), 1).unwrap();
    append_each(&log, P0, &["first"]);
    log.close();
    let path = segment(&dir, P0, 0);
    let bytes = [fs::read(&path).unwrap(), vec![0; 5_000]].concat();
    fs::write(&path, bytes).unwrap();
    assert_eq!(read_all(&open(dir.path(), 1).unwrap(), P0), ["first"]);
    assert_eq!(fs::metadata(&path).unwrap().len(), frame_bytes("first"));
}

#[test]
fn damage_in_an_earlier_segment_is_corrupt_for_its_reader_and_for_verify() {
    let dir = TempDir::new().unwrap();
    let (log, _) = open_faulty(dir.path(), 1, 1);
    append_each(&log, P0, &["first", "second", "third"]);
    log.verify().unwrap();
    log.close();
    flip_bit(&segment(&dir, P0, 1), 8 * frame_bytes("second") - 1);
    let log = open(dir.path(), 1).unwrap();
    assert!(matches!(log.verify(), Err(LogError::Corrupt { partition: P0, offset: 1, .. })));
    let mut reader = log.reader(P0, 0).unwrap();
    assert!(matches!(read(&mut reader), Err(SourceError::Corrupt { partition: P0, offset: 1, .. })));
    assert_eq!(read(&mut log.reader(P0, 2).unwrap()).unwrap(), (vec!["third".into()], Reached::End));
}

#[test]
fn a_missing_segment_is_corrupt_in_the_middle_and_a_later_start_at_the_front() {
    let dir = TempDir::new().unwrap();
    let (log, _) = open_faulty(dir.path(), 1, 1);
    append_each(&log, P0, &["first", "second", "third", "fourth"]);
    log.close();
    fs::remove_file(segment(&dir, P0, 0)).unwrap();
    fs::remove_file(segment(&dir, P0, 2)).unwrap();
    let log = open(dir.path(), 1).unwrap();
    assert_eq!(log.first_offsets(), [1]);
    match log.reader(P0, 0).err() {
        Some(SourceError::Replaced { partition: P0, wanted: 0, first: 1, end: 4, lost: 1 }) => {}
        other => panic!("{other:?}"),
    }
    let mut reader = log.reader(P0, 1).unwrap();
    assert!(matches!(read(&mut reader), Err(SourceError::Corrupt { offset: 2, .. })));
}

#[test]
fn a_good_record_in_the_wrong_place_is_corrupt_and_never_cut() {
    let dir = TempDir::new().unwrap();
    let log = open(dir.path(), 1).unwrap();
    append_each(&log, P0, &["first"]);
    log.close();
    fs::rename(segment(&dir, P0, 0), segment(&dir, P0, 5)).unwrap();
    assert!(matches!(open(dir.path(), 1), Err(LogError::Corrupt { partition: P0, offset: 5, .. })));
    assert_eq!(fs::metadata(segment(&dir, P0, 5)).unwrap().len(), frame_bytes("first"));
}

#[test]
fn a_reader_sees_a_record_only_after_its_sync() {
    let dir = TempDir::new().unwrap();
    let (log, faults) = open_faulty(dir.path(), 1, SEGMENT_BYTES_MAX);
    append_each(&log, P0, &["durable"]);
    let (is_reached, let_go) = faults.hold_sync();
    let answer = send(&log.appender(), vec![record(P0, "written")]);
    is_reached.recv_timeout(PATIENCE).unwrap();

    // The bytes are in the file, and even read ahead.
    assert_eq!(fs::metadata(segment(&dir, P0, 0)).unwrap().len(), frame_bytes("durable") + frame_bytes("written"));
    let mut reader = log.reader(P0, 0).unwrap();
    // What is read ahead now is not yet what it will be, as in the middle of a write.
    let unfinished_bit = 8 * frame_bytes("durable") + 50;
    flip_bit(&segment(&dir, P0, 0), unfinished_bit);
    assert_eq!(read(&mut reader).unwrap(), (vec!["durable".into()], Reached::End));
    flip_bit(&segment(&dir, P0, 0), unfinished_bit);
    assert_eq!(log.end_offsets(), [1]);
    assert!(log.reader(P0, 2).is_err());
    assert!(answer.try_recv().is_err(), "no answer before the sync");

    let_go.send(()).unwrap();
    assert_eq!(answer.recv_timeout(PATIENCE).unwrap().unwrap(), [(P0, 2)]);
    assert_eq!(read(&mut reader).unwrap(), (vec!["written".into()], Reached::End));
}

#[test]
fn a_failed_sync_fails_its_whole_group_and_the_log_goes_on_in_a_new_segment() {
    let dir = TempDir::new().unwrap();
    let (log, faults) = open_faulty(dir.path(), 1, SEGMENT_BYTES_MAX);
    let appender = log.appender();
    let (is_reached, let_go) = faults.hold_sync();
    let first = send(&appender, vec![record(P0, "first")]);
    is_reached.recv_timeout(PATIENCE).unwrap();
    // These two wait for the writer together, so they are one group, whose sync fails.
    faults.plan(|plan| plan.syncs = [None, Some(())].into());
    let lost = [send(&appender, vec![record(P0, "lost")]), send(&appender, vec![record(P0, "lost too")])];
    let_go.send(()).unwrap();
    assert_eq!(first.recv_timeout(PATIENCE).unwrap().unwrap(), [(P0, 1)]);
    for answer in lost {
        assert!(matches!(answer.recv_timeout(PATIENCE).unwrap(), Err(AppendError::Failed { partition: P0, .. })));
    }
    // The file does hold them: a failed sync says nothing about what is in it.
    assert!(frame_bytes("first") < fs::metadata(segment(&dir, P0, 0)).unwrap().len());
    assert_eq!(log.end_offsets(), [1]);

    assert_eq!(append(&log, vec![record(P0, "second")]).unwrap(), [(P0, 2)]);
    assert!(segment(&dir, P0, 1).exists());
    assert_eq!(read_all(&log, P0), ["first", "second"]);
    log.close();
    let log = open(dir.path(), 1).unwrap();
    log.verify().unwrap();
    assert_eq!(read_all(&log, P0), ["first", "second"]);
}

#[test]
fn a_restart_right_after_a_failed_sync_does_not_find_what_was_refused() {
    let dir = TempDir::new().unwrap();
    let (log, faults) = open_faulty(dir.path(), 1, SEGMENT_BYTES_MAX);
    append_each(&log, P0, &["first"]);
    faults.plan(|plan| plan.syncs = [Some(())].into());
    append(&log, vec![record(P0, "lost")]).unwrap_err();
    log.close();
    assert_eq!(read_all(&open(dir.path(), 1).unwrap(), P0), ["first"]);
}

#[test]
fn a_reader_that_read_ahead_of_a_failed_sync_sees_what_took_its_place() {
    let dir = TempDir::new().unwrap();
    let (log, faults) = open_faulty(dir.path(), 1, SEGMENT_BYTES_MAX);
    append_each(&log, P0, &["first"]);
    let (is_reached, let_go) = faults.hold_sync();
    faults.plan(|plan| plan.syncs = [Some(())].into());
    let lost = send(&log.appender(), vec![record(P0, "lost")]);
    is_reached.recv_timeout(PATIENCE).unwrap();
    let mut reader = log.reader(P0, 0).unwrap();
    assert_eq!(read(&mut reader).unwrap(), (vec!["first".into()], Reached::End));
    let_go.send(()).unwrap();
    lost.recv_timeout(PATIENCE).unwrap().unwrap_err();
    append_each(&log, P0, &["second"]);
    assert_eq!(read(&mut reader).unwrap(), (vec!["second".into()], Reached::End));
}

#[test]
fn a_full_disk_fails_appends_until_there_is_room_again() {
    let dir = TempDir::new().unwrap();
    let (log, faults) = open_faulty(dir.path(), 1, SEGMENT_BYTES_MAX);
    // The very first segment fails, so its successor has the same name; then no successor can be made, twice.
    faults.plan(|plan| {
        plan.writes = [Some(10)].into();
        plan.creates = [None, Some(()), Some(())].into();
    });
    for _ in 0..2 {
        match append(&log, vec![record(P0, "lost")]) {
            Err(AppendError::Failed { partition: P0, cause }) => assert_eq!(cause.kind(), io::ErrorKind::StorageFull),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(append(&log, vec![record(P0, "first")]).unwrap(), [(P0, 1)]);
    assert_eq!(fs::metadata(segment(&dir, P0, 0)).unwrap().len(), frame_bytes("first"), "a new file of that name");
    // A write that fails in the middle of a segment.
    faults.plan(|plan| plan.writes = [Some(usize::MAX)].into());
    append(&log, vec![record(P0, "lost")]).unwrap_err();
    append_each(&log, P0, &["second"]);
    assert_eq!(read_all(&log, P0), ["first", "second"]);
    assert_eq!(log.view.partitions[0].segments(), [(0, Some(1)), (1, None)], "each name is listed once");
    log.close();
    assert_eq!(read_all(&open(dir.path(), 1).unwrap(), P0), ["first", "second"]);
}

#[test]
fn a_segment_that_cant_be_followed_yet_is_still_good() {
    let dir = TempDir::new().unwrap();
    let (log, faults) = open_faulty(dir.path(), 1, 1);
    append_each(&log, P0, &["first"]);
    faults.plan(|plan| plan.creates = [Some(())].into());
    append(&log, vec![record(P0, "lost")]).unwrap_err();
    append_each(&log, P0, &["second"]);
    assert_eq!(read_all(&log, P0), ["first", "second"]);
}

#[test]
fn a_batch_that_fails_in_one_partition_is_refused_and_stays_in_the_other() {
    let dir = TempDir::new().unwrap();
    let (log, faults) = open_faulty(dir.path(), 2, SEGMENT_BYTES_MAX);
    faults.plan(|plan| plan.syncs = [Some(())].into());
    let answer = append(&log, vec![record(P0, "a"), record(P1, "b")]);
    assert!(matches!(answer, Err(AppendError::Failed { partition: P0, .. })));
    assert_eq!(log.end_offsets(), [0, 1]);
    assert_eq!(append(&log, vec![record(P0, "a"), record(P1, "b")]).unwrap(), [(P0, 1), (P1, 2)]);
    log.close();
    let log = open(dir.path(), 2).unwrap();
    assert_eq!((read_all(&log, P0), read_all(&log, P1)), (vec!["a".into()], vec!["b".into(), "b".into()]));
}

#[test]
fn append_time_never_goes_back_when_the_clock_does() {
    let dir = TempDir::new().unwrap();
    let clock = Arc::new(AtomicU64::new(5_000));
    let reopen = |disk: Faults| {
        let clock = Arc::clone(&clock);
        let now_ms = Box::new(move || clock.load(Ordering::SeqCst));
        Log::open_with(dir.path(), 2, now_ms, Box::new(disk), SEGMENT_BYTES_MAX).unwrap()
    };
    let append_at = |log: &Log, partition, now_ms| {
        clock.store(now_ms, Ordering::SeqCst);
        append(log, vec![record(partition, "x")])
    };
    let log = reopen(Faults::default());
    append_at(&log, P0, 5_000).unwrap();
    append_at(&log, P1, 4_000).unwrap();
    log.close();
    let faults = Faults::default();
    let log = reopen(faults.clone());
    append_at(&log, P1, 3_000).unwrap();
    append_at(&log, P0, 7_000).unwrap();
    // A failure leaves an empty last segment behind, so the segment before it has the last append time.
    faults.plan(|plan| plan.syncs = [Some(())].into());
    append_at(&log, P0, 6_000).unwrap_err();
    log.close();
    assert_eq!(fs::metadata(segment(&dir, P0, 2)).unwrap().len(), 0);
    let log = reopen(Faults::default());
    append_at(&log, P1, 1_000).unwrap();
    append_at(&log, P1, 8_000).unwrap();

    let append_times = |partition| {
        let mut times = Vec::new();
        let visit = &mut |record: dataflows::port::Record<'_>| {
            times.push(record.append_time.unwrap());
            ControlFlow::Continue(())
        };
        log.reader(partition, 0).unwrap().read(visit).unwrap();
        times
    };
    assert_eq!(append_times(P0), [5_000, 7_000]);
    assert_eq!(append_times(P1), [5_000, 5_000, 7_000, 8_000]);
}

#[test]
fn concurrent_appenders_get_their_own_offsets_and_keep_their_order() {
    const THREADS: usize = 8;
    const BATCHES: usize = 200;
    let dir = TempDir::new().unwrap();
    let (log, _) = open_faulty(dir.path(), 2, 10_000);
    let ends: Vec<Vec<u64>> = thread::scope(|scope| {
        let run = |number: usize| {
            let appender = log.appender();
            move || -> Vec<u64> {
                let partition = PartitionId(number as u32 % 2);
                let batch = |index| vec![record(partition, &format!("{number} {index}")); 2];
                let answers: Vec<_> = (0..BATCHES).map(|index| send(&appender, batch(index))).collect();
                answers.iter().map(|answer| answer.recv_timeout(PATIENCE).unwrap().unwrap()[0].1).collect()
            }
        };
        let threads: Vec<_> = (0..THREADS).map(|number| scope.spawn(run(number))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    for partition in [P0, P1] {
        let rows = read_all(&log, partition);
        assert_eq!(rows.len(), THREADS * BATCHES);
        for (number, ends) in ends.iter().enumerate().filter(|(number, _)| *number as u32 % 2 == partition.0) {
            assert!(ends.is_sorted());
            for (index, end) in ends.iter().enumerate() {
                let expected = format!("{number} {index}");
                assert_eq!(rows[*end as usize - 2..*end as usize], [expected.clone(), expected]);
            }
        }
    }
}

#[test]
fn closing_writes_what_waits_and_refuses_what_comes_later() {
    let dir = TempDir::new().unwrap();
    let (log, faults) = open_faulty(dir.path(), 1, SEGMENT_BYTES_MAX);
    let appender = log.appender();
    let view = log.view();
    let (is_reached, let_go) = faults.hold_sync();
    let writing = send(&appender, vec![record(P0, "writing")]);
    is_reached.recv_timeout(PATIENCE).unwrap();
    let waiting = send(&appender, vec![record(P0, "waiting")]);
    let_go.send(()).unwrap();
    log.close();
    writing.try_recv().unwrap().unwrap();
    waiting.try_recv().unwrap().unwrap();
    assert!(matches!(send(&appender, vec![record(P0, "late")]).try_recv().unwrap(), Err(AppendError::Closed)));
    assert_eq!(read_all(&view, P0), ["writing", "waiting"]);
}

#[test]
fn a_full_queue_gives_the_batch_back_and_has_room_again_when_it_is_written() {
    let dir = TempDir::new().unwrap();
    let (log, faults) = open_faulty(dir.path(), 1, SEGMENT_BYTES_MAX);
    let appender = log.appender();
    let (is_reached, let_go) = faults.hold_sync();
    let mut answers = vec![send(&appender, vec![record(P0, "first")])];
    is_reached.recv_timeout(PATIENCE).unwrap();
    answers.extend((1..QUEUE_BATCHES_MAX).map(|_| send(&appender, vec![])));
    let batch = vec![record(P0, "one too many")];
    let full = appender.append(batch.clone(), Box::new(|_| panic!("not called"))).unwrap_err();
    assert_eq!(full.batch, batch);
    let_go.send(()).unwrap();
    for answer in answers {
        answer.recv_timeout(PATIENCE).unwrap().unwrap();
    }
    append(&log, full.batch).unwrap();

    // The bytes bound it as well; a batch greater than the whole queue needs an empty one.
    let huge = || vec![NewRecord { partition: 0, key: None, payload: vec![0; QUEUE_BYTES_MAX / 3] }; 3];
    let (is_reached, let_go) = faults.hold_sync();
    let first = send(&appender, huge());
    is_reached.recv_timeout(PATIENCE).unwrap();
    appender.append(vec![record(P0, "waits")], Box::new(|_| {})).unwrap_err();
    let_go.send(()).unwrap();
    first.recv_timeout(PATIENCE).unwrap().unwrap();
    append_each(&log, P0, &["last"]);
}

#[test]
fn a_record_that_cant_be_written_is_refused_alone() {
    let dir = TempDir::new().unwrap();
    let log = open(dir.path(), 2).unwrap();
    let too_large = NewRecord { partition: 0, key: Some(vec![0]), payload: vec![0; RECORD_BYTES_MAX] };
    let elsewhere = record(PartitionId(2), "x");
    assert!(matches!(append(&log, vec![record(P0, "x"), too_large]), Err(AppendError::TooLarge { .. })));
    let answer = append(&log, vec![record(P0, "x"), elsewhere]);
    assert!(matches!(answer, Err(AppendError::NoSuchPartition { wanted: 2, partitions: 2 })));
    append(&log, vec![record(P0, "y")]).unwrap();
    assert_eq!(read_all(&log, P0), ["y"]);
    assert!(matches!(log.reader(PartitionId(2), 0), Err(SourceError::Unreadable { .. })));
}

#[test]
fn a_read_is_bounded_in_records_and_in_bytes_and_takes_the_greatest_record() {
    let dir = TempDir::new().unwrap();
    let log = open(dir.path(), 2).unwrap();
    append(&log, vec![record(P0, "x"); READ_RECORDS_MAX + 1]).unwrap();
    let mut reader = log.reader(P0, 0).unwrap();
    let (seen, reached) = read(&mut reader).unwrap();
    assert_eq!((seen.len(), reached), (READ_RECORDS_MAX, Reached::More));
    assert_eq!(read(&mut reader).unwrap(), (vec!["x".into()], Reached::End));

    let half = "h".repeat(READ_BYTES_MAX / 2);
    let greatest = "g".repeat(RECORD_BYTES_MAX);
    append_each(&log, P1, &[&half, &half, &half, &greatest, "last"]);
    log.close();
    let log = open(dir.path(), 2).unwrap();
    let mut reader = log.reader(P1, 0).unwrap();
    assert!(read(&mut reader).unwrap() == (vec![half.clone(), half.clone()], Reached::More));
    assert!(read(&mut reader).unwrap() == (vec![half.clone(), greatest], Reached::More));
    assert_eq!(read(&mut reader).unwrap(), (vec!["last".into()], Reached::End));
}

#[test]
fn a_reader_until_an_end_finishes_there_whatever_follows() {
    let dir = TempDir::new().unwrap();
    let log = open(dir.path(), 1).unwrap();
    append_each(&log, P0, &["first", "second"]);
    let mut reader = log.reader_until(P0, 0, 2).unwrap();
    append_each(&log, P0, &["third"]);
    assert_eq!(read(&mut reader).unwrap(), (vec!["first".into(), "second".into()], Reached::Finished));
    assert_eq!(read(&mut log.reader_until(P0, 3, 3).unwrap()).unwrap(), (vec![], Reached::Finished));
    match log.reader_until(P0, 1, 5).err() {
        Some(SourceError::Replaced { wanted: 5, first: 0, end: 3, lost: 2, .. }) => {}
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_log_is_what_it_was_made_as_and_belongs_to_one_process() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("data/log");
    let log = open(&path, 2).unwrap();
    append_each(&log, P1, &["x"]);
    assert!(matches!(open(&path, 2), Err(LogError::Owned { .. })));
    let id = log.id();
    log.close();
    let error = open(&path, 3).err().unwrap();
    assert!(matches!(error, LogError::Partitions { wanted: 3, held: 2, .. }));
    assert!(error.to_string().contains("has 2 partitions, not 3"), "{error}");
    assert_eq!(open(&path, 2).unwrap().id(), id);
    assert_ne!(open(&dir.path().join("other"), 2).unwrap().id(), id);

    let mode = |name: &str| fs::metadata(path.join(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!(["", "partition-1"].map(mode), [0o700; 2]);
    assert_eq!(["log.json", "lock", "partition-1/00000000000000000000.log"].map(mode), [0o600; 3]);

    let manifest = path.join("log.json");
    fs::write(&manifest, br#"{"format":2,"id":"0","partitions":2}"#).unwrap();
    assert!(matches!(open(&path, 2), Err(LogError::Manifest { .. })));
    fs::remove_file(&manifest).unwrap();
    assert!(matches!(open(&path, 2), Err(LogError::Manifest { .. })), "records without a manifest");
    assert!(matches!(Log::open_read_only(&path), Err(LogError::Missing { .. })));
}

#[test]
fn a_read_only_log_changes_nothing_while_another_appends() {
    let dir = TempDir::new().unwrap();
    let log = open(dir.path(), 1).unwrap();
    append_each(&log, P0, &["first", "second"]);
    let view = Log::open_read_only(dir.path()).unwrap();
    append_each(&log, P0, &["third"]);
    assert_eq!((view.id(), view.end_offsets()), (log.id(), vec![2]));
    assert_eq!(read_all(&view, P0), ["first", "second"]);
    log.close();

    let path = segment(&dir, P0, 0);
    let torn = [fs::read(&path).unwrap(), b"torn".to_vec()].concat();
    fs::write(&path, &torn).unwrap();
    let names = || {
        let entries = fs::read_dir(dir.path()).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    let before = names();
    let view = Log::open_read_only(dir.path()).unwrap();
    assert_eq!(read_all(&view, P0), ["first", "second", "third"]);
    assert_eq!(fs::read(&path).unwrap(), torn);
    assert_eq!(names(), before);
}

/// What happens to a log, one after the other.
#[derive(Clone, Debug)]
enum Act {
    Append { partition: u32, records: Vec<(Option<Vec<u8>>, Vec<u8>)> },
    FailSync { partition: u32 },
    FailWrite { partition: u32, kept: usize },
    Reopen,
}

fn act() -> impl Strategy<Value = Act> {
    let bytes = || prop::collection::vec(any::<u8>(), 0..60);
    let record = (prop::option::of(bytes()), bytes());
    let records = prop::collection::vec(record, 1..6);
    prop_oneof![
        6 => (0..3_u32, records).prop_map(|(partition, records)| Act::Append { partition, records }),
        1 => (0..3_u32).prop_map(|partition| Act::FailSync { partition }),
        1 => (0..3_u32, 0..200_usize).prop_map(|(partition, kept)| Act::FailWrite { partition, kept }),
        1 => Just(Act::Reopen),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_log_holds_what_was_acknowledged_and_nothing_else(
        acts in prop::collection::vec(act(), 1..30),
        segment_bytes_max in 1..1_000_u64,
    ) {
        let dir = TempDir::new().unwrap();
        let mut acknowledged = vec![Vec::new(); 3];
        let mut open = Some(open_faulty(dir.path(), 3, segment_bytes_max));
        for act in acts.into_iter().chain([Act::Reopen]) {
            let (log, faults) = open.as_ref().unwrap();
            match act {
                Act::Append { partition, records } => {
                    let new = |(key, payload): &(Option<Vec<u8>>, Vec<u8>)| {
                        NewRecord { partition, key: key.clone(), payload: payload.clone() }
                    };
                    let answer = append(log, records.iter().map(new).collect()).unwrap();
                    acknowledged[partition as usize].extend(records);
                    prop_assert_eq!(answer, [(PartitionId(partition), acknowledged[partition as usize].len() as u64)]);
                }
                Act::FailSync { partition } => {
                    faults.plan(|plan| plan.syncs = [Some(())].into());
                    append(log, vec![record(PartitionId(partition), "lost"); 2]).unwrap_err();
                }
                Act::FailWrite { partition, kept } => {
                    faults.plan(|plan| plan.writes = [Some(kept)].into());
                    append(log, vec![record(PartitionId(partition), "lost"); 2]).unwrap_err();
                }
                Act::Reopen => {
                    drop(open.take());
                    open = Some(open_faulty(dir.path(), 3, segment_bytes_max));
                }
            }
            let (log, _) = open.as_ref().unwrap();
            for (partition, expected) in (0..).map(PartitionId).zip(&acknowledged) {
                let mut seen = Vec::new();
                let reached = log.reader(partition, 0).unwrap().read(&mut |record| {
                    seen.push((record.key.map(<[u8]>::to_vec), record.payload.to_vec()));
                    ControlFlow::Continue(())
                });
                prop_assert_eq!(reached.unwrap(), Reached::End);
                prop_assert_eq!(&seen, expected);
            }
        }
        open.unwrap().0.verify().unwrap();
    }
}
