//! What Python's clients see and do.

use std::collections::BTreeMap;

use oracle::{Counts, Record};
use serde_json::Value;
use servers::{python, python_each};

use super::Place;

/// A topic to the last record.
#[derive(Clone, Debug, Default)]
pub struct Log {
    /// By partition, in order.
    pub records: Vec<Vec<Record>>,
    /// Where each record stands: where there were transactions, the numbers have gaps.
    pub offsets: Vec<Vec<u64>>,
    /// The last stable offset of each partition.
    pub ends: Vec<u64>,
    /// The records' keys.
    pub keys: Vec<Vec<Option<Vec<u8>>>>,
}

/// Reads what a `read_committed` consumer sees: a line for each record, after it one for each end.
const READ: &str = r#"
import sys, base64, time
from confluent_kafka import Consumer, IsolationLevel, KafkaError, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec
brokers, topic, settled = sys.argv[1:4]
consumer = Consumer({'bootstrap.servers': brokers, 'group.id': 'tests', 'enable.auto.commit': False,
    'isolation.level': 'read_committed', 'auto.offset.reset': 'earliest', 'enable.partition.eof': True, 'check.crcs': True})
partitions = sorted(consumer.list_topics(topic, timeout=30).topics[topic].partitions)
if settled == 'settled':
    # A transaction whose end is promised may still lack its last mark.
    admin, until = AdminClient({'bootstrap.servers': brokers}), time.monotonic() + 30
    def ends(isolation):
        asked = admin.list_offsets({TopicPartition(topic, p): OffsetSpec.latest() for p in partitions}, isolation_level=isolation)
        return [asked[p].result(30).offset for p in sorted(asked, key=lambda p: p.partition)]
    while ends(IsolationLevel.READ_COMMITTED) != ends(IsolationLevel.READ_UNCOMMITTED):
        assert time.monotonic() < until, 'a transaction is open'
        time.sleep(0.05)
consumer.assign([TopicPartition(topic, p, 0) for p in partitions])
b64 = lambda b: '-' if b is None else '=' + base64.b64encode(b).decode()
ended, until = {}, time.monotonic() + 120
while len(ended) < len(partitions):
    assert time.monotonic() < until, 'not read to the end'
    messages = consumer.consume(10000, 1.0)
    if messages:
        until = time.monotonic() + 120
    for m in messages:
        error = m.error()
        if error is None:
            print('R', m.partition(), m.offset(), m.timestamp()[1], b64(m.key()), b64(m.value()))
            ended.pop(m.partition(), None)
        elif error.code() == KafkaError._PARTITION_EOF:
            ended[m.partition()] = m.offset()
        elif error.fatal():
            raise Exception(error)
for p in partitions:
    print('E', p, ended[p])
"#;

/// Reads the topic to its end.
#[track_caller]
pub fn read_topic(kafka: &str, topic: &str) -> Log {
    read(kafka, topic, "as it is")
}

/// A record and where it stands.
#[derive(Clone, Debug)]
pub struct Stored {
    pub partition: usize,
    pub offset: u64,
    pub key: Option<Vec<u8>>,
    pub record: Record,
}

/// Hands over the topic to its end, record by record, those of a partition in its order. Gives the ends.
#[track_caller]
pub fn read_topic_each(kafka: &str, topic: &str, each: impl FnMut(Stored)) -> Vec<u64> {
    read_each(kafka, topic, "as it is", each)
}

#[track_caller]
fn read_each(kafka: &str, topic: &str, settled: &str, mut each: impl FnMut(Stored)) -> Vec<u64> {
    let mut ends = BTreeMap::new();
    python_each(READ, [kafka, topic, settled], |line| {
        let words: Vec<&str> = line.split(' ').collect();
        let number = |at: usize| words[at].parse::<u64>().unwrap_or_else(|_| panic!("{line:?}"));
        let (partition, offset) = (number(1) as usize, number(2));
        if words[0] == "E" {
            ends.insert(partition, offset);
            return;
        }
        let record = Record { append_time_ms: Some(number(3)), payload: bytes(words[5]).unwrap_or_default() };
        each(Stored { partition, offset, key: bytes(words[4]), record });
    });
    ends.into_values().collect()
}

#[track_caller]
fn read(kafka: &str, topic: &str, settled: &str) -> Log {
    let mut log = Log::default();
    let ends = read_each(kafka, topic, settled, |Stored { partition, offset, key, record }| {
        while log.records.len() <= partition {
            log.records.push(Vec::new());
            log.offsets.push(Vec::new());
            log.keys.push(Vec::new());
        }
        log.records[partition].push(record);
        log.offsets[partition].push(offset);
        log.keys[partition].push(key);
    });
    log.records.resize(ends.len(), Vec::new());
    log.offsets.resize(ends.len(), Vec::new());
    log.keys.resize(ends.len(), Vec::new());
    Log { ends, ..log }
}

fn bytes(word: &str) -> Option<Vec<u8>> {
    use base64::Engine as _;
    let encoded = word.strip_prefix('=')?;
    Some(base64::engine::general_purpose::STANDARD.decode(encoded).expect("Python encodes it right"))
}

/// The letters of a dead letter topic.
#[track_caller]
pub fn letters(place: &Place) -> Vec<Value> {
    let mut letters = Vec::new();
    letters_each(place, |letter| letters.push(letter));
    letters
}

/// The same, one by one.
#[track_caller]
pub fn letters_each(place: &Place, mut each: impl FnMut(Value)) {
    read_each(&place.kafka, &place.dead_letters, "settled", |Stored { record, .. }| {
        each(serde_json::from_slice(&record.payload).expect("a letter is JSON"));
    });
}

/// A row of `stats_minute` that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    pub video_id: String,
    pub event_type: String,
    pub window_start: u64,
    pub count: u64,
    pub is_final: bool,
}

const ROWS: &str = r#"
import sys, json
from cassandra.cluster import Cluster
from cassandra.query import SimpleStatement
host, port = sys.argv[1].split(':')
# Its own limits, of seconds, are too tight for a busy machine.
session = Cluster([host], port=int(port), connect_timeout=60, control_connection_timeout=60).connect(sys.argv[2])
session.default_timeout = 120
for row in session.execute(SimpleStatement("SELECT video_id, event_type, day, blobAsBigint(timestampAsBlob(window_start)), "
        "count, final FROM stats_minute", fetch_size=5000)):
    video_id, event_type, day, start, count, final = row
    assert day.days_from_epoch == start // 86400000, row
    print(json.dumps([video_id, event_type, start, count, final]))
"#;

/// All rows of `stats_minute`.
#[track_caller]
pub fn rows(place: &Place) -> Vec<Row> {
    let mut rows = Vec::new();
    python_each(ROWS, [&place.cassandra, &place.keyspace], |line| {
        let (video_id, event_type, window_start, count, is_final) =
            serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}"));
        rows.push(Row { video_id, event_type, window_start, count, is_final });
    });
    rows
}

pub fn counts_of(rows: &[Row]) -> Counts {
    rows.iter().map(|row| ((row.video_id.clone(), row.event_type.clone(), row.window_start), row.count)).collect()
}

const ADMIN: &str = r#"
import sys, time
from confluent_kafka import TopicPartition, KafkaException, KafkaError
from confluent_kafka.admin import AdminClient, NewTopic, NewPartitions
brokers, what, topic, number = sys.argv[1:5]
admin = AdminClient({'bootstrap.servers': brokers})
def done(futures):
    for future in futures.values():
        future.result(timeout=30)
if what == 'create':
    config = dict(pair.split('=') for pair in sys.argv[5:])
    until = time.monotonic() + 60
    while True:
        try:
            done(admin.create_topics([NewTopic(topic, int(number), 1, config=config)]))
            break
        except KafkaException as error:
            # One of that name is still being deleted.
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS or until < time.monotonic():
                raise
            time.sleep(0.1)
elif what == 'delete':
    done(admin.delete_topics([topic], operation_timeout=30))
elif what == 'grow':
    done(admin.create_partitions([NewPartitions(topic, int(number))]))
elif what == 'delete-records':
    partition, before = number.split(':')
    done(admin.delete_records([TopicPartition(topic, int(partition), int(before))]))
"#;

/// Makes a topic as Tidemark does, and for records of up to 8 MiB.
#[track_caller]
pub fn create_topic(kafka: &str, topic: &str, partitions: u32) {
    let partitions = partitions.to_string();
    let settings = ["message.timestamp.type=LogAppendTime", "max.message.bytes=8388608"];
    python(ADMIN, [&[kafka, "create", topic, &partitions][..], &settings].concat());
}

#[track_caller]
pub fn delete_topic(kafka: &str, topic: &str) {
    python(ADMIN, [kafka, "delete", topic, "0"]);
}

#[track_caller]
pub fn grow_topic(kafka: &str, topic: &str, partitions: u32) {
    python(ADMIN, [kafka, "grow", topic, &partitions.to_string()]);
}

/// Deletes the records of a partition before an offset, as retention does.
#[track_caller]
pub fn delete_records(kafka: &str, topic: &str, partition: u32, before: u64) {
    python(ADMIN, [kafka, "delete-records", topic, &format!("{partition}:{before}")]);
}

const BOMB: &str = r#"
import sys
from confluent_kafka import Producer
kafka, topic, partition, records = sys.argv[1:]
failed = []
producer = Producer({'bootstrap.servers': kafka, 'compression.type': 'zstd', 'linger.ms': 60000, 'batch.size': 20000000,
                     'message.max.bytes': 20000000})
for _ in range(int(records)):
    producer.produce(topic, bytes(1000000), partition=int(partition), on_delivery=lambda error, _: error and failed.append(error))
producer.flush(60)
sys.exit(failed[0] if failed else 0)
"#;

/// Produces so many records of a megabyte of zeros each, in one small batch.
#[track_caller]
pub fn produce_bomb(kafka: &str, topic: &str, partition: u32, records: u32) {
    python(BOMB, [kafka, topic, &partition.to_string(), &records.to_string()]);
}
