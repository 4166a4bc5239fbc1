//! What is seen from the side: growth, silence, and that a silent broker proves no end.

use std::{
    ops::Range,
    time::{Duration, Instant},
};

use connectors::kafka::{Settings, Topic};
use dataflows::port::{PartitionId, Reached};
use rdkafka::{mocking::MockCluster, producer::Producer};

use crate::support::*;

const OFTEN: Duration = Duration::from_millis(200);

#[test]
fn added_partitions_are_seen_and_can_be_read() {
    let fresh = Fresh::make(4);
    let topic = fresh.open();
    let (sender, receiver) = std::sync::mpsc::channel::<Range<u32>>();
    let watch = topic.watch(OFTEN, Box::new(move |added| sender.send(added).unwrap()));
    until("the offsets", || (watch.offsets().len() == 4).then_some(()));
    fresh.grow(6);
    assert_eq!(receiver.recv_timeout(DEADLINE).unwrap(), 4..6);
    assert_eq!(topic.partitions(), 6);
    let producer = producer(&[]);
    produce(&producer, New { partition: 5, payload: Some(b"new"), ..New::to(fresh.name()) });
    producer.flush(DEADLINE).unwrap();
    producer.context().assert_delivered();
    let read = read_to(&mut topic.reader(PartitionId(5), 0, None).unwrap(), Reached::End);
    assert_eq!(payloads(&read), ["new"]);
    until("the new end", || (watch.offsets().get(5) == Some(&(0, 1))).then_some(()));
    assert_eq!((watch.away_since(), watch.is_replaced()), (None, false));
}

#[test]
fn a_watch_ends_at_once_when_it_is_dropped() {
    let fresh = Fresh::make(1);
    let topic = fresh.open();
    let watch = topic.watch(Duration::from_secs(3_600), Box::new(|_| {}));
    until("the offsets", || (!watch.offsets().is_empty()).then_some(()));
    let start = Instant::now();
    drop(watch);
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
}

#[test]
fn while_the_broker_is_away_there_is_no_end_and_no_error() {
    let cluster = MockCluster::new(1).unwrap();
    let settings = Settings {
        brokers: vec![cluster.bootstrap_servers()],
        topic: "away".into(),
        dead_letter_topic: String::new(),
        properties: [("reconnect.backoff.max.ms".into(), "500".into())].into(),
        passing: Default::default(),
    };
    cluster.create_topic("away", 1, 1).unwrap();
    let topic = Topic::open(&settings, None, PATIENCE).unwrap();
    let watch = topic.watch(OFTEN, Box::new(|_| {}));
    let mut reader = first(&topic);
    assert_eq!(read_to(&mut reader, Reached::End), []);
    cluster.broker_down(1).unwrap();
    let since = until("the silence to be noticed", || watch.away_since());
    assert!(since.elapsed() < DEADLINE);
    for _ in 0..100 {
        assert_eq!(read_into(&mut reader, &mut Vec::new()).unwrap(), Reached::Waiting);
    }
    assert!(!watch.is_replaced());
    let start = Instant::now();
    drop(watch);
    assert!(start.elapsed() < Duration::from_secs(1), "a silent broker keeps no watch from ending");
    let watch = topic.watch(OFTEN, Box::new(|_| {}));
    cluster.broker_up(1).unwrap();
    until("an answer", || watch.away_since().is_none().then_some(()));
    assert_eq!(read_to(&mut reader, Reached::End), []);
}
