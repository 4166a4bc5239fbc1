//! A log that was cut, or is another one than was read.

use std::time::Duration;

use dataflows::port::{PartitionId, PartitionReader, Passed, Reached, SourceError, Tail};

use crate::support::*;

/// Wanted, first, end, lost.
type Loss = (u64, u64, u64, u64);

fn loss(error: &SourceError) -> Loss {
    match error {
        SourceError::Replaced { partition: PartitionId(0), wanted, first, end, lost } => (*wanted, *first, *end, *lost),
        other => panic!("{other:?}"),
    }
}

/// A topic of ten records, read to its end: the tail.
fn ten() -> (Fresh, Tail) {
    let fresh = Fresh::make(1);
    fresh.fill(numbered(0..10).iter().map(String::as_str));
    let read = read_to(&mut first(&fresh.open()), Reached::End);
    (fresh, read[9].tail)
}

fn refill(fresh: &Fresh, count: u32) {
    fresh.delete();
    fresh.create(1, &[("message.timestamp.type", "LogAppendTime")]);
    fresh.fill(numbered(0..count).iter().map(String::as_str));
}

#[test]
fn what_is_still_there_passes_at_opening() {
    let (fresh, tail) = ten();
    let topic = fresh.open();
    assert!(topic.check(PartitionId(0), 10, Some(tail)).is_ok());
    fresh.fill(["more"]);
    let read = read_to(&mut topic.reader(PartitionId(0), 10, Some(tail)).unwrap(), Reached::End);
    assert_eq!(payloads(&read), ["more"]);
    topic.confirm().unwrap();
}

#[test]
fn what_retention_took_before_it_was_read_is_counted_at_opening() {
    let (fresh, tail) = ten();
    fresh.delete_before(0, 7);
    let topic = fresh.open();
    assert_eq!(topic.offsets().unwrap(), [(7, 10)]);
    assert_eq!(loss(&topic.check(PartitionId(0), 4, None).unwrap_err()), (4, 7, 10, 3));
    assert_eq!(loss(&topic.reader(PartitionId(0), 0, None).err().unwrap()), (0, 7, 10, 7));
    // The tail is gone, what comes next is not: the topic's id decides.
    let gone = Tail { offset: 6, ..tail };
    assert!(topic.check(PartitionId(0), 7, Some(gone)).is_ok());
    assert!(topic.check(PartitionId(0), 10, Some(tail)).is_ok());
    fresh.delete_before(0, 10);
    assert!(topic.check(PartitionId(0), 10, Some(tail)).is_ok());
}

#[test]
fn what_retention_takes_while_reading_is_counted() {
    // One record, so one batch, at a time, so that the reader is behind.
    let mut fresh = Fresh::make(1);
    numbered(0..10).iter().for_each(|record| fresh.fill([record.as_str()]));
    fresh.settings.properties.insert("fetch.message.max.bytes".into(), "1".into());
    fresh.settings.properties.insert("queued.min.messages".into(), "1".into());
    let topic = fresh.open();
    let mut reader = first(&topic);
    until("a record", || {
        reader.read(&mut |_| std::ops::ControlFlow::Break(())).unwrap();
        (0 < reader.next_offset()).then_some(())
    });
    fresh.delete_before(0, 9);
    let error = read_to_error(&mut reader);
    let (wanted, first, end, lost) = loss(&error);
    assert_eq!((first, end, lost), (9, 10, 9 - wanted));
}

#[test]
fn what_retention_took_is_passed_over_where_that_is_allowed_and_another_topic_is_not() {
    let (mut fresh, tail) = ten();
    fresh.settings.passing.gaps = true;
    fresh.delete_before(0, 7);
    let mut reader = fresh.open().reader(PartitionId(0), 4, None).unwrap();
    let (records, passed) = read_passing(&mut reader);
    assert_eq!(
        (payloads(&records), passed),
        (vec!["record 7", "record 8", "record 9"], vec![Passed { wanted: 4, first: 7 }])
    );
    fresh.delete_before(0, 10);
    let mut reader = fresh.open().reader(PartitionId(0), 7, None).unwrap();
    assert_eq!(read_passing(&mut reader), (vec![], vec![Passed { wanted: 7, first: 10 }]), "nothing is left");
    assert_eq!(reader.next_offset(), 10);
    refill(&fresh, 25);
    assert_eq!(loss(&fresh.open().check(PartitionId(0), 10, Some(tail)).unwrap_err()), (10, 0, 25, 10));
}

#[test]
fn what_retention_takes_while_reading_is_passed_over_where_that_is_allowed() {
    let mut fresh = Fresh::make(1);
    numbered(0..10).iter().for_each(|record| fresh.fill([record.as_str()]));
    fresh.settings.passing.gaps = true;
    fresh.settings.properties.insert("fetch.message.max.bytes".into(), "1".into());
    fresh.settings.properties.insert("queued.min.messages".into(), "1".into());
    let mut reader = first(&fresh.open());
    until("a record", || {
        reader.read(&mut |_| std::ops::ControlFlow::Break(())).unwrap();
        (0 < reader.next_offset()).then_some(())
    });
    fresh.delete_before(0, 9);
    let (records, passed) = read_passing(&mut reader);
    let [Passed { wanted, first: 9 }] = passed[..] else { panic!("{passed:?}") };
    assert!(wanted < 9 && records.len() as u64 <= wanted, "{records:?}");
    assert_eq!(records.last().map(|record| record.offset), Some(9), "what is left is read");
}

#[test]
fn a_topic_made_anew_is_noticed_at_opening_whatever_its_length() {
    // records in the new topic | wanted, first, end, lost
    let cases: [(u32, Loss); 4] =
        [(0, (10, 0, 0, 10)), (4, (10, 0, 4, 6)), (10, (10, 0, 10, 10)), (25, (10, 0, 25, 10))];
    for (count, expected) in cases {
        let (fresh, tail) = ten();
        let before = fresh.open();
        refill(&fresh, count);
        let topic = fresh.open();
        assert_ne!(topic.id(), before.id());
        let error = topic.check(PartitionId(0), 10, Some(tail)).unwrap_err();
        assert_eq!(loss(&error), expected);
        assert!(topic.reader(PartitionId(0), 10, Some(tail)).is_err());
        let replaced = before.confirm();
        assert!(matches!(replaced, Err(connectors::kafka::KafkaError::Replaced { .. })), "{replaced:?}");
    }
}

#[test]
fn a_topic_made_anew_is_noticed_while_it_is_read_whatever_its_length() {
    let cases: [(u32, Loss); 4] =
        [(0, (10, 0, 0, 10)), (4, (10, 0, 4, 6)), (10, (10, 0, 10, 10)), (25, (10, 0, 25, 10))];
    for (count, (_, first_offset, end, _)) in cases {
        let (fresh, tail) = ten();
        let topic = fresh.open();
        let watch = topic.watch(Duration::from_millis(300), Box::new(|_| {}));
        let mut reader = topic.reader(PartitionId(0), 10, Some(tail)).unwrap();
        assert_eq!(read_to(&mut reader, Reached::End), []);
        refill(&fresh, count);
        let error = read_to_error(&mut reader);
        assert!(watch.is_replaced());
        // Some of the new topic's may have been read by then, which is why a checkpoint asks first.
        assert!(topic.confirm().is_err());
        let (wanted, first, now_end, lost) = loss(&error);
        assert!(wanted == 10 || 10 < count, "{error:?}");
        assert!(first == first_offset && now_end <= end && 0 < lost && lost <= wanted, "{error:?}");
        // It stays so.
        assert!(read_into(&mut reader, &mut Vec::new()).is_err());
    }
}

#[test]
fn a_shorter_topic_is_noticed_by_the_reader_alone() {
    let (fresh, tail) = ten();
    let topic = fresh.open();
    let mut reader = topic.reader(PartitionId(0), 10, Some(tail)).unwrap();
    assert_eq!(read_to(&mut reader, Reached::End), []);
    refill(&fresh, 4);
    let (wanted, first, end, lost) = loss(&read_to_error(&mut reader));
    assert_eq!((wanted, first), (10, 0));
    assert_eq!(lost, 10 - end);
}

#[test]
fn a_topic_that_is_gone_is_noticed_when_it_stays_so() {
    let (fresh, tail) = ten();
    let topic = fresh.open();
    let _watch = topic.watch(Duration::from_millis(300), Box::new(|_| {}));
    let mut reader = topic.reader(PartitionId(0), 10, Some(tail)).unwrap();
    assert_eq!(read_to(&mut reader, Reached::End), []);
    fresh.delete();
    assert_eq!(loss(&read_to_error(&mut reader)), (10, 0, 0, 10));
    fresh.create(1, &[]);
}
