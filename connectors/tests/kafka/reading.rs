//! What a reader sees.

use std::ops::ControlFlow;

use dataflows::port::{PartitionId, PartitionReader, Passed, Reached};

use crate::support::*;

#[test]
fn a_missing_topic_is_made_with_log_append_time_and_not_made_unasked() {
    let fresh = Fresh::unmade();
    let missing = connectors::kafka::Topic::open(&fresh.settings, None, PATIENCE);
    assert!(matches!(missing, Err(connectors::kafka::KafkaError::Missing { .. })));
    let topic = connectors::kafka::Topic::open(&fresh.settings, Some(3), PATIENCE).unwrap();
    assert_eq!((topic.partitions(), topic.offsets().unwrap()), (3, vec![(0, 0); 3]));
    assert_ne!(topic.id(), 0);
    assert_eq!(topic.id(), fresh.open().id());
    let producer = producer(&[]);
    produce(&producer, New { payload: Some(b"old"), timestamp: Some(1_000), ..New::to(fresh.name()) });
    rdkafka::producer::Producer::flush(&producer, DEADLINE).unwrap();
    let records = read_to(&mut first(&topic), Reached::End);
    assert!(records[0].append_time > Some(1_700_000_000_000), "{records:?}");
}

#[test]
fn records_come_in_order_with_all_that_they_carry() {
    let fresh = Fresh::make_with(1, &[("message.timestamp.type", "CreateTime")]);
    let producer = producer(&[]);
    let headers: [(&str, Option<&[u8]>); 3] = [("trace", Some(&[0xfe])), ("empty", None), ("trace", Some(b""))];
    let news = [
        New {
            key: Some(b"k"),
            payload: Some(b"one"),
            headers: &headers,
            timestamp: Some(1_767_225_600_000),
            ..New::to(fresh.name())
        },
        New { key: Some(b""), payload: Some(b""), timestamp: Some(5), ..New::to(fresh.name()) },
        New { timestamp: Some(6), ..New::to(fresh.name()) },
    ];
    for new in news {
        produce(&producer, new);
    }
    rdkafka::producer::Producer::flush(&producer, DEADLINE).unwrap();
    let mut reader = first(&fresh.open());
    assert!(reader.keeps_tail());
    let records = read_to(&mut reader, Reached::End);
    let offsets: Vec<u64> = records.iter().map(|record| record.offset).collect();
    assert_eq!(offsets, [0, 1, 2]);
    assert_eq!(payloads(&records), ["one", "", ""]);
    assert_eq!(records[0].key.as_deref(), Some(&b"k"[..]));
    assert_eq!((records[1].key.as_deref(), records[2].key.as_deref()), (Some(&b""[..]), None));
    let times: Vec<_> = records.iter().map(|record| record.append_time).collect();
    assert_eq!(times, [Some(1_767_225_600_000), Some(5), Some(6)]);
    let expected: Vec<_> =
        headers.iter().map(|(name, value)| ((*name).to_owned(), value.map(<[u8]>::to_vec))).collect();
    assert_eq!(records[0].headers, expected);
    assert_eq!(records[1].headers, []);
}

#[test]
fn behind_the_end_come_the_records_that_are_appended() {
    let fresh = Fresh::make(1);
    let topic = fresh.open();
    let mut reader = first(&topic);
    assert_eq!(read_to(&mut reader, Reached::End), []);
    for round in 0..3 {
        let records = numbered(round * 10..round * 10 + 10);
        fresh.fill(records.iter().map(String::as_str));
        let mut read = Vec::new();
        until("the records", || {
            read_into(&mut reader, &mut read).unwrap();
            (read.len() == 10).then_some(())
        });
        assert_eq!(payloads(&read), records);
        assert_eq!(read_to(&mut reader, Reached::End), []);
    }
    assert_eq!(reader.next_offset(), 30);
}

#[test]
fn a_broken_visit_holds_what_it_left() {
    let fresh = Fresh::make(1);
    let records = numbered(0..3_000);
    fresh.fill(records.iter().map(String::as_str));
    let mut reader = first(&fresh.open());
    let mut read = Vec::new();
    until("the end", || {
        let mut visited = 0;
        let reached = reader
            .read(&mut |record| {
                visited += 1;
                read.push(String::from_utf8(record.payload.to_vec()).unwrap());
                if visited == 7 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            })
            .unwrap();
        assert!(visited < 7 || reached == Reached::More, "{reached:?}");
        assert_eq!(reader.next_offset(), read.len() as u64);
        (reached == Reached::End).then_some(())
    });
    assert_eq!(read, records);
}

#[test]
fn one_read_visits_a_bounded_number_of_records() {
    let fresh = Fresh::make(1);
    let records = numbered(0..10_000);
    fresh.fill(records.iter().map(String::as_str));
    let mut reader = first(&fresh.open());
    let (mut read, mut most) = (Vec::new(), 0);
    until("the end", || {
        let before = read.len();
        let reached = read_into(&mut reader, &mut read).unwrap();
        most = most.max(read.len() - before);
        (reached == Reached::End).then_some(())
    });
    assert_eq!(payloads(&read), records);
    assert!(most <= 1_024, "{most}");
}

#[test]
fn a_bounded_reader_ends_at_its_end_also_where_no_record_lies() {
    // Offsets 0, 1: committed, 2: its marker, 3, 4: aborted, 5: its marker.
    let fresh = Fresh::make(1);
    let producer = transactional(fresh.name());
    transaction(&producer, fresh.name(), &numbered(0..2), Ending::Commit);
    transaction(&producer, fresh.name(), &numbered(2..4), Ending::Abort);
    let topic = fresh.open();
    assert_eq!(topic.offsets().unwrap(), [(0, 6)]);
    let read = |end| {
        let mut reader = topic.reader_until(PartitionId(0), 0, end).unwrap();
        let read = read_to(&mut reader, Reached::Finished);
        assert_eq!(read_to(&mut reader, Reached::Finished), []);
        read.len()
    };
    assert_eq!([0, 1, 2, 3, 4, 5, 6].map(read), [0, 1, 2, 2, 2, 2, 2]);
    // The same where the log goes on behind it.
    fresh.fill(["more"]);
    assert_eq!([0, 1, 2, 3, 4, 5, 6, 7].map(read), [0, 1, 2, 2, 2, 2, 2, 3]);
}

#[test]
fn of_transactions_only_the_committed_ones_are_seen_and_an_open_one_is_the_end() {
    let fresh = Fresh::make(1);
    let producer = transactional(fresh.name());
    let mut committed = Vec::new();
    for round in 0..400 {
        let records = numbered(round * 3..round * 3 + 3);
        let end = if round % 2 == 0 { Ending::Commit } else { Ending::Abort };
        transaction(&producer, fresh.name(), &records, end);
        if end == Ending::Commit {
            committed.extend(records);
        }
    }
    let open = transactional(&format!("{}-open", fresh.name()));
    transaction(&open, fresh.name(), &numbered(0..5), Ending::Open);
    fresh.fill(["behind"]);
    let topic = fresh.open();
    let mut reader = first(&topic);
    let read = read_to(&mut reader, Reached::End);
    assert_eq!(payloads(&read), committed);
    assert_eq!(reader.next_offset(), 1_600);
    assert_eq!(topic.offsets().unwrap(), [(0, 1_600)]);
    rdkafka::producer::Producer::commit_transaction(&open, DEADLINE).unwrap();
    let mut rest = Vec::new();
    until("the rest", || {
        read_into(&mut reader, &mut rest).unwrap();
        (rest.len() == 6).then_some(())
    });
    assert_eq!(rest[5].payload, b"behind");
}

#[test]
fn every_codec_is_read() {
    for codec in ["none", "gzip", "snappy", "lz4", "zstd"] {
        let fresh = Fresh::make(1);
        let producer = producer(&[("compression.type", codec), ("linger.ms", "50")]);
        let records = numbered(0..500);
        for payload in &records {
            produce(&producer, New { payload: Some(payload.as_bytes()), ..New::to(fresh.name()) });
        }
        rdkafka::producer::Producer::flush(&producer, DEADLINE).unwrap();
        rdkafka::producer::Producer::context(&producer).assert_delivered();
        let read = read_to(&mut first(&fresh.open()), Reached::End);
        assert_eq!(payloads(&read), records, "{codec}");
    }
}

#[test]
fn large_records_are_read_whole() {
    let fresh = Fresh::make_with(1, &[("max.message.bytes", "12000000"), ("message.timestamp.type", "LogAppendTime")]);
    let producer = producer(&[("message.max.bytes", "11000000")]);
    let sizes = [(1 << 20) - 1, 1 << 20, (1 << 20) + 1, 5 << 20, 10 << 20, 1];
    for size in sizes {
        produce(&producer, New { payload: Some(&noise(size)), ..New::to(fresh.name()) });
    }
    rdkafka::producer::Producer::flush(&producer, DEADLINE).unwrap();
    let read = read_to(&mut first(&fresh.open()), Reached::End);
    let lengths: Vec<usize> = read.iter().map(|record| record.payload.len()).collect();
    assert_eq!(lengths, sizes);
    assert_eq!(read[3].payload, noise(5 << 20));
}

#[test]
fn a_record_that_the_client_cannot_take_in_is_named_and_never_waited_for() {
    let mut fresh = Fresh::make_with(1, &[("max.message.bytes", "2000000")]);
    let producer = producer(&[("message.max.bytes", "2000000")]);
    for size in [10, 10, 1 << 20, 10] {
        produce(&producer, New { payload: Some(&noise(size)), ..New::to(fresh.name()) });
        rdkafka::producer::Producer::flush(&producer, DEADLINE).unwrap();
    }
    for (key, value) in [
        ("fetch.message.max.bytes", "90000"),
        ("fetch.max.bytes", "90000"),
        ("message.max.bytes", "80000"),
        ("receive.message.max.bytes", "100000"),
    ] {
        fresh.settings.properties.insert(key.into(), value.into());
    }
    let mut reader = first(&fresh.open());
    let mut read = Vec::new();
    let error = until("an error", || read_into(&mut reader, &mut read).err());
    assert_eq!(read.len(), 2);
    let dataflows::port::SourceError::Corrupt { offset: 2, .. } = error else { panic!("{error:?}") };
}

#[test]
fn a_batch_that_inflates_beyond_the_limit_is_named_and_passed_over_as_told() {
    let mut fresh = Fresh::make(1);
    // Its records, the bytes of each, and how many records are behind it.
    for (length, bytes, behind) in [(1, 3_000_000, 2), (2, 3_000_000, 2), (300, 10_000, 1), (301, 10_000, 0)] {
        (fresh.settings.passing, fresh.settings.properties) = Default::default();
        let first = fresh.open().offsets().unwrap()[0].1;
        let base = first + 2;
        fresh.fill(["a", "b"]);
        produce_one_batch(fresh.name(), length, &vec![0; bytes]);
        fresh.fill(["c", "d"].into_iter().take(behind));
        for (key, value) in
            [("fetch.max.bytes", 1_000_000), ("message.max.bytes", 1_000_000), ("receive.message.max.bytes", 1_100_000)]
        {
            fresh.settings.properties.insert(key.into(), value.to_string());
        }
        let open = |fresh: &Fresh| fresh.open().reader(PartitionId(0), first, None).unwrap();
        let error = read_to_error(&mut open(&fresh));
        let dataflows::port::SourceError::Corrupt { offset, .. } = error else { panic!("{error:?}") };
        assert_eq!(offset, base);
        fresh.settings.passing.batches = vec![(PartitionId(0), base)];
        let (records, passed) = read_passing(&mut open(&fresh));
        assert_eq!(passed, [Passed { wanted: base, first: base + length }]);
        assert_eq!(payloads(&records), ["a", "b", "c", "d"][..2 + behind]);
    }
}

/// So many records of this payload, compressed together.
fn produce_one_batch(topic: &str, length: u64, payload: &[u8]) {
    let properties = [
        ("compression.type", "zstd"),
        ("linger.ms", "60000"),
        ("batch.size", "20000000"),
        ("message.max.bytes", "20000000"),
    ];
    let producer = producer(&properties);
    (0..length).for_each(|_| produce(&producer, New { payload: Some(payload), ..New::to(topic) }));
    rdkafka::producer::Producer::flush(&producer, DEADLINE).unwrap();
}

/// Bytes that no codec makes smaller.
fn noise(len: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    (0..len).map(|_| next()).collect()
}
