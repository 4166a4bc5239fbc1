//! Dead letters as a topic.

use std::collections::BTreeSet;

use connectors::kafka::{Letters, letters};
use dataflows::{
    event::{Cause, Reason},
    letter::DeadLetter,
    port::{LetterSink, PartitionId, SinkError, Version},
    testkit::letter_contract,
};
use rdkafka::{
    Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    message::{Headers as _, Message as _},
    producer::Producer,
};

use crate::support::*;

fn open(fresh: &Fresh) -> Letters {
    Letters::open(&fresh.settings, fresh.history, PATIENCE).unwrap()
}

fn version(generation: u64, number: u64) -> Version {
    Version { generation, number }
}

fn letter(offset: u64) -> DeadLetter {
    DeadLetter {
        partition: PartitionId(2),
        offset,
        reason: if offset.is_multiple_of(2) { Reason::Late } else { Reason::Malformed(Cause::Json) },
        append_time: Some(1),
        key: Some(b"key".to_vec()),
        headers: Vec::new(),
        payload: b"payload".to_vec(),
    }
}

/// The offsets of the letters that a reader of committed records sees, in order.
fn seen(fresh: &Fresh) -> Vec<u64> {
    let read = letters::read(&fresh.settings, None, None, PATIENCE).unwrap();
    read.map(|letter| letter.unwrap().source.offset).collect()
}

#[test]
fn the_contract_is_kept() {
    let fresh = std::cell::RefCell::new(Vec::new());
    letter_contract::check(
        || {
            let new = Fresh::unmade();
            let letters = open(&new);
            fresh.borrow_mut().push(new);
            letters
        },
        |_| {
            let fresh = fresh.borrow();
            let settings = &fresh.last().unwrap().settings;
            let read = letters::read(settings, None, None, PATIENCE).unwrap();
            read.map(|letter| letter.unwrap().source.place()).collect()
        },
    );
}

#[test]
fn a_record_is_the_letter_and_says_whose_it_is() {
    let fresh = Fresh::make(1);
    open(&fresh).publish(version(3, 41), &[letter(5)]).unwrap();
    let mut config = config();
    config.set("group.id", "any").set("auto.offset.reset", "earliest").set("enable.auto.commit", "false");
    let consumer: BaseConsumer = config.create().unwrap();
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(&fresh.settings.dead_letter_topic, 0, Offset::Beginning).unwrap();
    consumer.assign(&list).unwrap();
    let message = until("the letter", || consumer.poll(std::time::Duration::from_millis(50))).unwrap();
    assert_eq!(message.key(), Some(format!("{}-2-5", fresh.name()).as_bytes()));
    let headers: Vec<(String, String)> = message
        .headers()
        .unwrap()
        .iter()
        .map(|header| (header.key.to_owned(), String::from_utf8(header.value.unwrap().to_vec()).unwrap()))
        .collect();
    let (history, id) = (format!("{:032x}", fresh.history), format!("{:032x}", fresh.open().id()));
    let expected = [
        ("tidemark-history", history.as_str()),
        ("tidemark-generation", "3"),
        ("tidemark-number", "41"),
        ("tidemark-topic-id", id.as_str()),
    ];
    assert_eq!(headers, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
    let value: serde_json::Value = serde_json::from_slice(message.payload().unwrap()).unwrap();
    assert_eq!(value["reason"], "malformed");
    assert_eq!(value["source"]["topic"], fresh.name());
    assert_eq!(value["payload"], "payload");
}

#[test]
fn what_was_published_is_known_after_a_restart() {
    let fresh = Fresh::make(1);
    let mut first = open(&fresh);
    first.publish(version(1, 1), &[letter(1), letter(2)]).unwrap();
    first.publish(version(1, 2), &[letter(3)]).unwrap();
    drop(first);
    let mut second = open(&fresh);
    assert_eq!(second.newest().unwrap(), Some(version(1, 2)));
    let places: BTreeSet<_> = second.published().unwrap().into_iter().collect();
    assert_eq!(places, [1, 2, 3].map(|offset| (PartitionId(2), offset)).into());
    drop(second);
    // Another history has letters of its own, and what a record's place is it shares.
    let mut other = Letters::open(&fresh.settings, fresh.history + 1, PATIENCE).unwrap();
    assert_eq!(other.newest().unwrap(), None);
    assert_eq!(other.published().unwrap().len(), 3);
    other.publish(version(9, 9), &[letter(4)]).unwrap();
    let mut third = open(&fresh);
    assert_eq!(third.newest().unwrap(), Some(version(1, 2)));
    third.publish(version(1, 2), &[letter(3)]).unwrap();
    third.publish(version(3, 3), &[letter(5)]).unwrap();
    assert_eq!(third.newest().unwrap(), Some(version(3, 3)));
    assert_eq!(seen(&fresh), [1, 2, 3, 4, 5]);
}

#[test]
fn a_new_history_knows_what_others_have_published_before_it_has_an_owner_who_is_the_last_to_own_it() {
    let fresh = Fresh::make(1);
    open(&fresh).publish(version(1, 1), &[letter(1)]).unwrap();
    let history = fresh.history + 1;
    let mut new = Letters::open_new(&fresh.settings, history, PATIENCE).unwrap();
    assert_eq!(new.published().unwrap(), [(PartitionId(2), 1)].into());
    new.own().unwrap();
    new.publish(version(2, 1), &[letter(2)]).unwrap();
    assert_eq!(new.newest().unwrap(), Some(version(2, 1)));
    // Who goes on with it is the owner from there on.
    let mut next = Letters::open(&fresh.settings, history, PATIENCE).unwrap();
    let fenced = new.publish(version(2, 2), &[letter(3)]);
    assert!(matches!(fenced, Err(SinkError::Fenced { .. })), "{fenced:?}");
    assert!(matches!(new.own(), Err(SinkError::Fenced { .. })), "it never takes it back");
    next.publish(version(3, 2), &[letter(3)]).unwrap();
    assert_eq!(seen(&fresh), [1, 2, 3]);
}

#[test]
fn the_newest_version_is_found_behind_many_letters_of_others_and_in_any_partition() {
    let fresh = Fresh::make(1);
    fresh.create_named(&fresh.settings.dead_letter_topic, 3, &[]);
    let mut first = open(&fresh);
    first.publish(version(1, 1), &(0..50).map(letter).collect::<Vec<_>>()).unwrap();
    first.publish(version(1, 2), &[letter(50)]).unwrap();
    drop(first);
    let mut other = Letters::open(&fresh.settings, fresh.history + 1, PATIENCE).unwrap();
    other.publish(version(7, 7), &(0..9_000).map(letter).collect::<Vec<_>>()).unwrap();
    drop(other);
    assert_eq!(open(&fresh).newest().unwrap(), Some(version(1, 2)));
    assert_eq!(Letters::open(&fresh.settings, fresh.history + 2, PATIENCE).unwrap().newest().unwrap(), None);
}

#[test]
fn letters_behind_an_unfinished_transaction_of_somebody_else_are_waited_for() {
    let fresh = Fresh::make(1);
    drop(open(&fresh));
    let other = transactional(&format!("{}-other", fresh.name()));
    transaction(&other, &fresh.settings.dead_letter_topic, &numbered(0..1), Ending::Open);
    let mut first = open(&fresh);
    let finish = std::thread::spawn(move || {
        std::thread::sleep(std::time::Duration::from_secs(2));
        other.abort_transaction(DEADLINE).unwrap();
    });
    assert_eq!(first.newest().unwrap(), None);
    finish.join().unwrap();
    first.publish(version(1, 1), &[letter(1)]).unwrap();
    let other = transactional(&format!("{}-other", fresh.name()));
    transaction(&other, &fresh.settings.dead_letter_topic, &numbered(0..1), Ending::Open);
    first.publish(version(1, 2), &[letter(2)]).unwrap();
    assert_eq!(seen(&fresh), [1]);
    let mut second = open(&fresh);
    let finish = std::thread::spawn(move || {
        std::thread::sleep(std::time::Duration::from_secs(2));
        other.abort_transaction(DEADLINE).unwrap();
    });
    assert_eq!(second.newest().unwrap(), Some(version(1, 2)));
    finish.join().unwrap();
    assert_eq!(seen(&fresh), [1, 2]);
}

#[test]
fn letters_of_a_topic_that_was_made_anew_do_not_stand_for_its_records() {
    let fresh = Fresh::make(1);
    open(&fresh).publish(version(1, 1), &[letter(1)]).unwrap();
    fresh.delete();
    fresh.create(1, &[]);
    assert_eq!(open(&fresh).published().unwrap().len(), 0);
}

#[test]
fn a_zombie_is_told_and_publishes_nothing() {
    let fresh = Fresh::make(1);
    let mut zombie = open(&fresh);
    zombie.publish(version(1, 1), &[letter(1)]).unwrap();
    let mut owner = open(&fresh);
    for _ in 0..2 {
        let fenced = zombie.publish(version(1, 2), &[letter(2)]);
        assert!(matches!(fenced, Err(SinkError::Fenced { .. })), "{fenced:?}");
    }
    owner.publish(version(2, 2), &[letter(3)]).unwrap();
    let fenced = zombie.publish(version(1, 3), &[letter(4)]);
    assert!(matches!(fenced, Err(SinkError::Fenced { .. })), "{fenced:?}");
    owner.publish(version(2, 3), &[letter(5)]).unwrap();
    assert_eq!(seen(&fresh), [1, 3, 5]);
}

#[test]
fn what_an_owner_had_begun_when_it_died_is_published_once() {
    let fresh = Fresh::make(1);
    drop(open(&fresh));
    // As the sink does it, up to the end that never comes.
    let id = format!("tidemark-{:032x}", fresh.history);
    let dying = transactional(&id);
    dying.begin_transaction().unwrap();
    let json = serde_json::to_vec(&connectors::letter::Letter::new(fresh.name(), &letter(1))).unwrap();
    produce(&dying, New { payload: Some(&json), ..New::to(&fresh.settings.dead_letter_topic) });
    dying.flush(DEADLINE).unwrap();
    dying.context().assert_delivered();
    let mut next = open(&fresh);
    assert_eq!(next.newest().unwrap(), None);
    next.publish(version(2, 1), &[letter(1)]).unwrap();
    assert!(dying.commit_transaction(DEADLINE).is_err());
    drop(dying);
    assert_eq!(seen(&fresh), [1]);
}

#[test]
fn a_letter_that_the_topic_does_not_take_is_named_and_none_of_its_checkpoint_is_there() {
    let mut fresh = Fresh::make_with(1, &[("max.message.bytes", "20000")]);
    std::mem::swap(&mut fresh.settings.topic, &mut fresh.settings.dead_letter_topic);
    let mut letters = open(&fresh);
    let noise: Vec<u8> = (0..20_000_u32).flat_map(|number| number.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    let large = DeadLetter { payload: noise, ..letter(7) };
    let refused = letters.publish(version(1, 1), &[letter(1), large, letter(8)]);
    let Err(SinkError::Refused { what, .. }) = refused else { panic!("{refused:?}") };
    assert_eq!(what, "the letter of partition 2 offset 7");
    assert_eq!(seen(&fresh), [0; 0]);
    // Behind a refused record librdkafka 2.12 counts on as if it had been taken, is told so, and is right the next time.
    until("the others", || {
        let published = letters.publish(version(1, 1), &[letter(1), letter(8)]);
        let unanswered = matches!(published, Err(SinkError::Unanswered { .. }));
        (!unanswered).then(|| published.unwrap())
    });
    assert_eq!(seen(&fresh), [1, 8]);
}

#[test]
fn letters_are_read_by_reason_counted_and_not_stopped_by_what_is_none() {
    let fresh = Fresh::make(1);
    let mut sink = open(&fresh);
    sink.publish(version(1, 1), &(0..10).map(letter).collect::<Vec<_>>()).unwrap();
    let producer = producer(&[]);
    produce(&producer, New { payload: Some(b"none"), ..New::to(&fresh.settings.dead_letter_topic) });
    producer.flush(DEADLINE).unwrap();
    sink.publish(version(1, 2), &(10..2_000).map(letter).collect::<Vec<_>>()).unwrap();
    let read = |reason, limit| -> Vec<u64> {
        let read = letters::read(&fresh.settings, reason, limit, PATIENCE).unwrap();
        read.filter_map(|letter| letter.ok().map(|letter| letter.source.offset)).collect()
    };
    assert_eq!(read(Some("late"), Some(3)), [0, 2, 4]);
    assert_eq!(read(None, None), (0..2_000).collect::<Vec<_>>());
    let errors = letters::read(&fresh.settings, None, None, PATIENCE).unwrap().filter(Result::is_err).count();
    assert_eq!(errors, 1);
    assert_eq!(sink.published().unwrap().len(), 2_000);
    let none = letters::count(&fresh.settings, PATIENCE);
    assert!(matches!(none, Err(letters::ReadError::NoLetter { .. })), "{none:?}");
}
