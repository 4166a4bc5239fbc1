//! A topic for each test, what fills it, and what reads it out.

use std::{
    collections::BTreeMap,
    ops::ControlFlow,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use connectors::kafka::{Settings, Topic};
use dataflows::port::{Header, PartitionId, PartitionReader, Passed, Reached, SourceError, Tail};
use rdkafka::{
    ClientConfig, ClientContext, Offset, TopicPartitionList,
    admin::{AdminClient, AdminOptions, NewPartitions, NewTopic, TopicReplication},
    client::DefaultClientContext,
    config::FromClientConfig,
    message::{Header as RdHeader, OwnedHeaders},
    producer::{BaseProducer, BaseRecord, DeliveryResult, Producer, ProducerContext},
};

pub const PATIENCE: Duration = Duration::from_secs(20);

/// Nothing that a test waits for takes this long.
pub const DEADLINE: Duration = Duration::from_secs(60);

pub fn brokers() -> String {
    std::env::var("TIDEMARK_TEST_KAFKA").expect("run scripts/test, which starts Kafka")
}

/// Polls until there is something.
pub fn until<T>(what: &str, mut poll: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = poll() {
            return found;
        }
        assert!(start.elapsed() < DEADLINE, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// A record as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Read {
    pub offset: u64,
    pub append_time: Option<u64>,
    pub key: Option<Vec<u8>>,
    pub headers: Vec<Header>,
    pub payload: Vec<u8>,
    pub tail: Tail,
}

/// One read, into a vector.
pub fn read_into(reader: &mut dyn PartitionReader, into: &mut Vec<Read>) -> Result<Reached, SourceError> {
    reader.read(&mut |record| {
        into.push(Read {
            offset: record.offset,
            append_time: record.append_time,
            key: record.key.map(<[u8]>::to_vec),
            headers: record.headers.map(|headers| headers.list()).unwrap_or_default(),
            payload: record.payload.to_vec(),
            tail: Tail::of(&record),
        });
        ControlFlow::Continue(())
    })
}

/// Reads to the end, for now or for good.
pub fn read_to(reader: &mut dyn PartitionReader, reached: Reached) -> Vec<Read> {
    let mut records = Vec::new();
    until("the end", || (read_into(reader, &mut records).unwrap() == reached).then_some(()));
    records
}

/// Reads to the present end: the records, and what was passed over.
pub fn read_passing(reader: &mut dyn PartitionReader) -> (Vec<Read>, Vec<Passed>) {
    let (mut records, mut passed) = (Vec::new(), Vec::new());
    until("the end", || match read_into(reader, &mut records).unwrap() {
        Reached::Passed(gone) => {
            passed.push(gone);
            None
        }
        reached => (reached == Reached::End).then_some(()),
    });
    (records, passed)
}

/// Reads until it fails.
pub fn read_to_error(reader: &mut dyn PartitionReader) -> SourceError {
    until("an error", || read_into(reader, &mut Vec::new()).err())
}

pub fn payloads(records: &[Read]) -> Vec<&str> {
    records.iter().map(|record| std::str::from_utf8(&record.payload).unwrap()).collect()
}

/// A topic with a name of its own, deleted with it.
pub struct Fresh {
    pub settings: Settings,
    /// A history of its own, too.
    pub history: u128,
}

impl Fresh {
    pub fn unmade() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("test-{}-{count}", since.as_nanos());
        let settings = Settings {
            brokers: vec![brokers()],
            dead_letter_topic: format!("{name}.dead-letters"),
            topic: name,
            properties: BTreeMap::new(),
            passing: Default::default(),
        };
        Self { settings, history: since.as_nanos() << 32 | u128::from(count) }
    }

    pub fn make(partitions: i32) -> Self {
        Self::make_with(partitions, &[("message.timestamp.type", "LogAppendTime")])
    }

    pub fn make_with(partitions: i32, properties: &[(&str, &str)]) -> Self {
        let fresh = Self::unmade();
        fresh.create(partitions, properties);
        fresh
    }

    pub fn name(&self) -> &str {
        &self.settings.topic
    }

    /// Makes the topic, again and again while one of that name is still being deleted.
    pub fn create(&self, partitions: i32, properties: &[(&str, &str)]) {
        self.create_named(self.name(), partitions, properties);
        // Made is not yet led.
        until("the topic's leaders", || Topic::open(&self.settings, None, PATIENCE).ok().map(drop));
    }

    pub fn create_named(&self, name: &str, partitions: i32, properties: &[(&str, &str)]) {
        let mut topic = NewTopic::new(name, partitions, TopicReplication::Fixed(1));
        for (key, value) in properties {
            topic = topic.set(key, value);
        }
        until("the topic to be made", || {
            let made = block_on(admin().create_topics([&topic], &options())).unwrap();
            made[0].as_ref().ok().map(drop)
        });
    }

    pub fn delete(&self) {
        let deleted = block_on(admin().delete_topics(&[self.name()], &options())).unwrap();
        assert!(deleted[0].is_ok(), "{deleted:?}");
    }

    pub fn grow(&self, partitions: usize) {
        let grown = NewPartitions::new(self.name(), partitions);
        let made = block_on(admin().create_partitions([&grown], &options())).unwrap();
        assert!(made[0].is_ok(), "{made:?}");
    }

    /// Removes what lies before an offset, as retention does.
    pub fn delete_before(&self, partition: i32, offset: i64) {
        let mut offsets = TopicPartitionList::new();
        offsets.add_partition_offset(self.name(), partition, Offset::Offset(offset)).unwrap();
        let deleted = block_on(admin().delete_records(&offsets, &options())).unwrap();
        assert!(deleted.elements().iter().all(|element| element.error().is_ok()), "{deleted:?}");
    }

    pub fn open(&self) -> Topic {
        Topic::open(&self.settings, None, PATIENCE).unwrap()
    }

    /// Produces records to partition 0, and waits until they are there.
    pub fn fill<'a>(&self, payloads: impl IntoIterator<Item = &'a str>) {
        let producer = producer(&[]);
        for payload in payloads {
            produce(&producer, New { payload: Some(payload.as_bytes()), ..New::to(self.name()) });
        }
        producer.flush(DEADLINE).unwrap();
        producer.context().assert_delivered();
    }
}

impl Drop for Fresh {
    fn drop(&mut self) {
        let topics = [self.name(), &self.settings.dead_letter_topic];
        block_on(admin().delete_topics(&topics, &options())).unwrap();
    }
}

/// Numbers as payloads.
pub fn numbered(range: std::ops::Range<u32>) -> Vec<String> {
    range.map(|number| format!("record {number}")).collect()
}

pub fn config() -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", brokers());
    config
}

fn admin() -> AdminClient<DefaultClientContext> {
    AdminClient::from_config(&config()).unwrap()
}

fn options() -> AdminOptions {
    AdminOptions::new().operation_timeout(Some(Duration::from_secs(30)))
}

pub fn block_on<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

/// Remembers what was not delivered.
#[derive(Default)]
pub struct Delivered {
    errors: Arc<Mutex<Vec<String>>>,
}

impl Delivered {
    pub fn assert_delivered(&self) {
        assert_eq!(*self.errors.lock().unwrap(), [""; 0]);
    }
}

impl ClientContext for Delivered {}

impl ProducerContext for Delivered {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if let Err((error, _)) = result {
            self.errors.lock().unwrap().push(error.to_string());
        }
    }
}

pub fn producer(properties: &[(&str, &str)]) -> BaseProducer<Delivered> {
    let mut config = config();
    config.set("queue.buffering.max.messages", "1000000");
    for (key, value) in properties {
        config.set(*key, *value);
    }
    config.create_with_context(Delivered::default()).unwrap()
}

/// A record to be produced.
#[derive(Clone)]
pub struct New<'a> {
    pub topic: &'a str,
    pub partition: i32,
    pub key: Option<&'a [u8]>,
    pub payload: Option<&'a [u8]>,
    pub headers: &'a [(&'a str, Option<&'a [u8]>)],
    pub timestamp: Option<i64>,
}

impl<'a> New<'a> {
    pub fn to(topic: &'a str) -> Self {
        Self { topic, partition: 0, key: None, payload: None, headers: &[], timestamp: None }
    }
}

pub fn produce(producer: &BaseProducer<Delivered>, new: New<'_>) {
    let mut record = BaseRecord::<[u8], [u8]>::to(new.topic).partition(new.partition);
    record.key = new.key;
    record.payload = new.payload;
    record.timestamp = new.timestamp;
    if !new.headers.is_empty() {
        let headers = OwnedHeaders::new();
        let with = |headers: OwnedHeaders, (key, value): &(&str, Option<&[u8]>)| {
            headers.insert(RdHeader { key, value: *value })
        };
        record.headers = Some(new.headers.iter().fold(headers, with));
    }
    producer.send(record).map_err(|(error, _)| error).unwrap();
    producer.poll(Duration::ZERO);
}

/// Produces `payloads` to partition 0 in one transaction of a producer whose transactions are set up.
pub fn transaction(producer: &BaseProducer<Delivered>, topic: &str, payloads: &[String], end: Ending) {
    producer.begin_transaction().unwrap();
    for payload in payloads {
        produce(producer, New { payload: Some(payload.as_bytes()), ..New::to(topic) });
    }
    producer.flush(DEADLINE).unwrap();
    producer.context().assert_delivered();
    match end {
        Ending::Commit => producer.commit_transaction(DEADLINE).unwrap(),
        Ending::Abort => producer.abort_transaction(DEADLINE).unwrap(),
        Ending::Open => {}
    }
}

#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    Commit,
    Abort,
    Open,
}

pub fn transactional(id: &str) -> BaseProducer<Delivered> {
    let producer = producer(&[("transactional.id", id)]);
    producer.init_transactions(DEADLINE).unwrap();
    producer
}

pub fn first(topic: &Topic) -> impl PartitionReader + use<> {
    topic.reader(PartitionId(0), 0, None).unwrap()
}
