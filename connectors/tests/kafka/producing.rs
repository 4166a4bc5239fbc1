//! Producing events.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use connectors::{
    kafka::{ProduceError, Producer, ProducerLimits, Settings},
    partition::partition_of,
};
use dataflows::port::{PartitionId, Reached};

use crate::support::*;

type Batch = Vec<(Vec<u8>, Vec<u8>)>;

fn batch(numbers: std::ops::Range<u32>) -> Batch {
    numbers.map(|number| (format!("v{number:07}").into_bytes(), format!("record {number}").into_bytes())).collect()
}

/// Where nobody listens.
fn nowhere() -> Settings {
    let settings = Fresh::unmade().settings.clone();
    Settings { brokers: vec!["127.0.0.1:1".into()], ..settings }
}

#[test]
fn what_is_acknowledged_is_there_and_lies_where_the_hash_says() {
    let fresh = Fresh::make(5);
    let producer = Producer::open(&fresh.settings, ProducerLimits::default()).unwrap();
    let mut sent = batch(0..2_000);
    sent.push((Vec::new(), b"empty key".to_vec()));
    let (first, second) = sent.split_at(1_200);
    let (first, second) = (producer.send(first.to_vec()), producer.send(second.to_vec()));
    let mut places: BTreeMap<PartitionId, u64> = block_on(first).unwrap().into_iter().collect();
    places.extend(block_on(second).unwrap());
    let topic = fresh.open();
    let mut found = 0;
    for (partition, next_offset) in &places {
        let mut reader = topic.reader_until(*partition, 0, *next_offset).unwrap();
        for record in read_to(&mut reader, Reached::Finished) {
            assert_eq!(partition_of(record.key.as_ref().unwrap(), 5), partition.0);
            found += 1;
        }
        assert_eq!(topic.offsets().unwrap()[partition.0 as usize], (0, *next_offset));
    }
    assert_eq!((places.len(), found), (5, sent.len()));
}

#[test]
fn an_empty_batch_is_acknowledged() {
    let producer = Producer::open(&nowhere(), ProducerLimits::default()).unwrap();
    assert_eq!(block_on(producer.send(Vec::new())), Ok(Vec::new()));
}

#[test]
fn a_batch_that_has_no_room_is_refused_whole() {
    let limits = ProducerLimits { queued_bytes: 10_000, timeout: Duration::from_secs(2) };
    let producer = Producer::open(&nowhere(), limits).unwrap();
    let waiting = producer.send(batch(0..40));
    assert_eq!(block_on(producer.send(batch(0..40))), Err(ProduceError::Busy));
    // Nobody takes it, so nothing may be claimed; then there is room again.
    let Err(ProduceError::Failed(_)) = block_on(waiting) else { panic!("nobody is there") };
    let Err(ProduceError::Failed(_)) = block_on(producer.send(batch(0..40))) else { panic!("nobody is there") };
}

#[test]
fn a_record_that_the_topic_does_not_take_is_named_and_the_others_are_there() {
    let fresh = Fresh::make_with(1, &[("max.message.bytes", "10000")]);
    let producer = Producer::open(&fresh.settings, ProducerLimits::default()).unwrap();
    let large: Vec<u8> = (0..50_000_u32).flat_map(|number| number.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    let error = block_on(producer.send(vec![(b"k".to_vec(), large)])).unwrap_err();
    assert_eq!(error, ProduceError::TooLarge { bytes: 200_001 });
    assert_eq!(block_on(producer.send(batch(0..1))), Ok(vec![(PartitionId(0), 1)]));
}

#[test]
fn a_feed_waits_for_room_and_says_where_all_of_it_went() {
    let fresh = Fresh::make(3);
    let limits = ProducerLimits { queued_bytes: 20_000, ..ProducerLimits::default() };
    let producer = Producer::open(&fresh.settings, limits).unwrap();
    let mut feed = producer.feed();
    for start in 0..200 {
        feed.put(&batch(start * 50..start * 50 + 50)).unwrap();
    }
    let places = feed.finish().unwrap();
    assert_eq!(places.iter().map(|(_, next_offset)| next_offset).sum::<u64>(), 10_000);
    let ends: Vec<u64> = fresh.open().offsets().unwrap().into_iter().map(|(_, end)| end).collect();
    assert_eq!(places.iter().map(|(_, next_offset)| *next_offset).collect::<Vec<_>>(), ends);
}

#[test]
fn a_feed_to_nowhere_fails() {
    let limits = ProducerLimits { queued_bytes: 10_000, timeout: Duration::from_secs(1) };
    let producer = Producer::open(&nowhere(), limits).unwrap();
    let mut feed = producer.feed();
    let start = Instant::now();
    let failed = (0..100).find_map(|_| feed.put(&batch(0..40)).err());
    assert!(matches!(failed.or(feed.finish().err()), Some(ProduceError::Failed(_))));
    assert!(start.elapsed() < DEADLINE);
}
