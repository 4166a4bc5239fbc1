//! Produces to a topic by a plain client: each partition's lines in order, and each until it is acknowledged.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use oracle::decode;
use rdkafka::{
    ClientConfig, ClientContext,
    error::{KafkaError, RDKafkaErrorCode},
    message::DeliveryResult,
    producer::{BaseRecord, Producer as _, ProducerContext, ThreadedProducer},
};

/// The lines of each partition.
pub type Lines = Vec<Vec<Vec<u8>>>;

/// How far the producer may go, and how far it is.
pub struct Feed {
    producer: ThreadedProducer<Acknowledged>,
    topic: String,
    allowed: AtomicU64,
    gave_up: AtomicBool,
    over: AtomicBool,
    within: Duration,
    deadline: Instant,
}

/// Counts what the brokers have acknowledged.
#[derive(Clone, Default)]
struct Acknowledged {
    sent: Arc<AtomicU64>,
    failed: Arc<AtomicU64>,
}

impl ClientContext for Acknowledged {
    fn log(&self, _level: rdkafka::config::RDKafkaLogLevel, _facility: &str, _message: &str) {}
}

impl ProducerContext for Acknowledged {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        let counter = if result.is_ok() { &self.sent } else { &self.failed };
        counter.fetch_add(1, Ordering::SeqCst);
    }
}

impl Feed {
    /// An idempotent producer that never gives a record up.
    pub fn new(kafka: &str, topic: &str, within: Duration) -> Self {
        let mut config = ClientConfig::new();
        for (key, value) in [
            ("bootstrap.servers", kafka),
            ("enable.idempotence", "true"),
            ("message.max.bytes", "8388608"),
            ("linger.ms", "2"),
            ("delivery.timeout.ms", "900000"),
            ("reconnect.backoff.max.ms", "500"),
        ] {
            config.set(key, value);
        }
        let producer = config.create_with_context(Acknowledged::default()).expect("the settings are right");
        Self {
            producer,
            topic: topic.to_owned(),
            allowed: AtomicU64::new(0),
            gave_up: AtomicBool::new(false),
            over: AtomicBool::new(false),
            within,
            deadline: Instant::now() + within,
        }
    }

    /// Feeds all lines, while `meanwhile` says how far it may go and does what it likes to everybody else.
    pub fn during<T>(&self, lines: &Lines, meanwhile: impl FnOnce() -> T) -> T {
        self.during_each(in_turn(lines), meanwhile)
    }

    /// The same for lines that come one by one, each with its partition.
    pub fn during_each<L: AsRef<[u8]>, T>(
        &self,
        lines: impl Iterator<Item = (i32, L)> + Send,
        meanwhile: impl FnOnce() -> T,
    ) -> T {
        thread::scope(|scope| {
            let feeding = scope.spawn(|| {
                // Also where it panics, so that nobody waits for it.
                let _over = SetOnDrop(&self.over);
                self.feed(lines)
            });
            let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(meanwhile));
            self.gave_up.store(done.is_err(), Ordering::SeqCst);
            self.allow(u64::MAX);
            let fed = feeding.join();
            let done = done.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            self.wait_for(fed.expect("feeding does not panic"));
            done
        })
    }

    pub fn allow(&self, lines: u64) {
        self.allowed.store(lines, Ordering::SeqCst);
    }

    /// Whether all lines are handed to the producer.
    pub fn is_over(&self) -> bool {
        self.over.load(Ordering::SeqCst)
    }

    /// How many are acknowledged.
    pub fn sent(&self) -> u64 {
        self.producer.context().sent.load(Ordering::SeqCst)
    }

    /// Waits until so many are acknowledged.
    #[track_caller]
    pub fn wait_for(&self, lines: u64) {
        while self.sent() < lines {
            assert_eq!(self.producer.context().failed.load(Ordering::SeqCst), 0, "a record was given up");
            assert!(Instant::now() < self.deadline, "{} of {lines} sent within {:?}", self.sent(), self.within);
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// Gives how many it has handed over.
    fn feed<L: AsRef<[u8]>>(&self, lines: impl Iterator<Item = (i32, L)>) -> u64 {
        let mut fed = 0;
        for (number, (partition, line)) in (0..).zip(lines) {
            while self.allowed.load(Ordering::SeqCst) <= number {
                thread::sleep(Duration::from_millis(1));
            }
            if self.gave_up.load(Ordering::SeqCst) {
                break;
            }
            self.send(partition, key_of(line.as_ref(), number).as_deref(), line.as_ref());
            fed += 1;
        }
        fed
    }

    fn send(&self, partition: i32, key: Option<&[u8]>, line: &[u8]) {
        let mut record = BaseRecord::<[u8], [u8]>::to(&self.topic).partition(partition).payload(line);
        record.key = key;
        while let Err((error, again)) = self.producer.send(record) {
            let full = KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull);
            assert_eq!(error, full, "a record can't be sent");
            if self.gave_up.load(Ordering::SeqCst) {
                return;
            }
            thread::sleep(Duration::from_millis(1));
            record = again;
        }
    }
}

struct SetOnDrop<'a>(&'a AtomicBool);

impl Drop for SetOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// The partitions in turn, so that none runs ahead of the others by much.
fn in_turn(lines: &Lines) -> impl Iterator<Item = (i32, &[u8])> + Send {
    let mut left: Vec<(i32, VecDeque<&[u8]>)> =
        (0..).zip(lines).map(|(partition, lines)| (partition, lines.iter().map(Vec::as_slice).collect())).collect();
    let total = count(lines);
    (0..total).map(move |_| {
        let behind = |(partition, rest): &&mut (i32, VecDeque<&[u8]>)| {
            rest.len() as u64 * total / (lines[*partition as usize].len() as u64).max(1)
        };
        let (partition, rest) = left.iter_mut().max_by_key(behind).expect("there are partitions");
        (*partition, rest.pop_front().expect("the fullest has one"))
    })
}

/// The video of an event; of what is none, anything that a key may be.
fn key_of(line: &[u8], number: u64) -> Option<Vec<u8>> {
    match (decode(line), number % 4) {
        (Ok(event), _) => Some(event.video_id.into_bytes()),
        (Err(_), 0) => None,
        (Err(_), 1) => Some(Vec::new()),
        (Err(_), 2) => Some(b"\xff\x00odd".to_vec()),
        (Err(_), _) => Some(format!("v{number}").into_bytes()),
    }
}

/// All lines.
pub fn count(lines: &Lines) -> u64 {
    lines.iter().map(|lines| lines.len() as u64).sum()
}
