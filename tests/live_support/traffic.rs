//! A hostile stream through the HTTP doors of a job: in the order of each partition, in every form that a request may have,
//! and again until it is acknowledged.

use std::{
    collections::VecDeque,
    io::Write as _,
    path::Path,
    sync::{
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use connectors::{
    embedded::log::{Log, NewRecord},
    partition::partition_of,
};
use flate2::{Compression, write::GzEncoder};
use oracle::{Jumps, Record, Spec, decode, hostile};
use rand::RngExt as _;
use rand_chacha::ChaCha8Rng;
use serde_json::json;

use super::{client::Client, now_ms};

/// Of a new log, by default.
pub const PARTITIONS: u32 = 4;

/// Lines of one request at the most. Small ones, so that a kill finds many on their way.
const BATCH_LINES_MAX: usize = 60;

/// A body must stay below 4 MiB; a greater line travels alone.
const BATCH_BYTES_MAX: usize = 1 << 20;

/// A body may inflate to ten times its size.
const RATIO_MAX: usize = 8;

/// The generator's span of four hours, its jump of two, five jumps of a partition, and the rows that go furthest.
pub const LENGTH_MS: u64 = 14 * 3_600_000;

/// What one request carries.
pub struct Batch {
    pub lines: Vec<Vec<u8>>,
    /// Which of them the door must take.
    good: Vec<bool>,
    content_type: &'static str,
    encoding: Option<&'static str>,
    body: Vec<u8>,
}

/// Lines that no door takes, with the partition that they are put into.
pub type Refused = VecDeque<(u32, Vec<u8>)>;

/// The hostile stream of so many events, in batches for each partition; and the lines that no door takes, with a partition
/// for each.
pub fn partitioned(rng: &mut ChaCha8Rng, seed: u64, events: u64) -> (Vec<Vec<Batch>>, Refused) {
    let start_ms = now_ms() - LENGTH_MS;
    let spec = Spec { events, partitions: 1, videos: 300, start_ms, jumps: Jumps::Some, ..Spec::default() };
    let mut streams: Vec<Vec<Vec<u8>>> = vec![Vec::new(); PARTITIONS as usize];
    let mut refused = VecDeque::new();
    let [lines] = hostile(seed, &spec).try_into().expect("one partition was asked for");
    for line in lines {
        let partition = match door_takes(&line).then(|| decode(&line).unwrap()) {
            Some(event) => partition_of(event.video_id.as_bytes(), PARTITIONS),
            None => {
                let partition = rng.random_range(0..PARTITIONS);
                refused.push_back((partition, line.clone()));
                partition
            }
        };
        streams[partition as usize].push(line);
    }
    (streams.into_iter().map(|lines| batches(rng, lines)).collect(), refused)
}

/// The lines of all batches.
pub fn lines_of(streams: &[Vec<Batch>]) -> u64 {
    streams.iter().flatten().map(|batch| batch.lines.len() as u64).sum()
}

fn door_takes(line: &[u8]) -> bool {
    line.len() <= oracle::judge::RECORD_BYTES_MAX && decode(line).is_ok()
}

fn batches(rng: &mut ChaCha8Rng, lines: Vec<Vec<u8>>) -> Vec<Batch> {
    let mut batches = Vec::new();
    let mut lines = VecDeque::from(lines);
    while !lines.is_empty() {
        let wanted = rng.random_range(1..=BATCH_LINES_MAX);
        let (mut taken, mut bytes) = (Vec::new(), 0);
        while taken.len() < wanted && bytes < BATCH_BYTES_MAX {
            let Some(line) = lines.pop_front_if(|line| taken.is_empty() || bytes + line.len() < BATCH_BYTES_MAX) else {
                break;
            };
            bytes += line.len();
            taken.push(line);
        }
        batches.push(batch(rng, taken));
    }
    batches
}

/// One of the forms that a request may have.
fn batch(rng: &mut ChaCha8Rng, lines: Vec<Vec<u8>>) -> Batch {
    let good: Vec<bool> = lines.iter().map(|line| door_takes(line)).collect();
    // A line that is no JSON spoils an array, but not the other lines.
    let is_array = rng.random_bool(0.3) && good.iter().all(|good| *good);
    let (content_type, body) = if is_array {
        let items = lines.join(&b", "[..]);
        ("application/json", [&b"["[..], &items[..], &b"]"[..]].concat())
    } else {
        ("application/x-ndjson", lines.join(&b'\n'))
    };
    let (encoding, body) = match rng.random_range(0..6) {
        0 => encoded("gzip", gzip(&body), body),
        1 => encoded("zstd", zstd::encode_all(&body[..], 1).unwrap(), body),
        _ => (None, body),
    };
    Batch { lines, good, content_type, encoding, body }
}

/// The small form, unless it is so small that the door takes it for a bomb.
fn encoded(name: &'static str, small: Vec<u8>, body: Vec<u8>) -> (Option<&'static str>, Vec<u8>) {
    if body.len() <= small.len() * RATIO_MAX { (Some(name), small) } else { (None, body) }
}

fn gzip(body: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(body).unwrap();
    encoder.finish().unwrap()
}

/// Where a batch was acknowledged: the offset behind its last record, if any of it was taken.
pub type Acknowledged = Vec<Option<u64>>;

/// The clients' side: how far they may go, and how far they are.
pub struct Traffic {
    /// One for each process: batches go to them in turn.
    clients: Vec<Client>,
    allowed: AtomicU64,
    sent: AtomicU64,
    gave_up: AtomicBool,
    within: Duration,
    deadline: Instant,
}

impl Traffic {
    /// Everything is to be delivered `within` this, whatever happens meanwhile.
    pub fn new(clients: &[Client], within: Duration) -> Self {
        Self {
            clients: clients.to_vec(),
            allowed: AtomicU64::new(0),
            sent: AtomicU64::new(0),
            gave_up: AtomicBool::new(false),
            within,
            deadline: Instant::now() + within,
        }
    }

    /// Delivers all streams at once, while `meanwhile` says how far they may go and does what it likes to the processes.
    pub fn during<T>(&self, streams: &[Vec<Batch>], meanwhile: impl FnOnce() -> T) -> (T, Vec<Acknowledged>) {
        thread::scope(|scope| {
            let _given_up = SetOnPanic(&self.gave_up);
            let sending: Vec<_> =
                (0..).zip(streams).map(|(first, stream)| scope.spawn(move || self.deliver(first, stream))).collect();
            let done = meanwhile();
            self.allow(u64::MAX);
            (done, sending.into_iter().map(|sent| sent.join().expect("a client does not panic")).collect())
        })
    }

    pub fn allow(&self, lines: u64) {
        self.allowed.store(lines, Ordering::SeqCst);
    }

    /// Waits until so many lines are acknowledged.
    #[track_caller]
    pub fn wait_for(&self, lines: u64) {
        while self.sent.load(Ordering::SeqCst) < lines {
            self.check_time();
            thread::sleep(Duration::from_micros(200));
        }
    }

    #[track_caller]
    fn check_time(&self) {
        assert!(!self.gave_up.load(Ordering::SeqCst), "somebody has given up");
        assert!(Instant::now() < self.deadline, "not delivered within {:?}", self.within);
    }

    /// Sends a partition's batches in order, each until it is acknowledged.
    fn deliver(&self, first: usize, batches: &[Batch]) -> Acknowledged {
        let clients: Vec<Client> = self.clients.iter().map(Client::another).collect();
        let mut turn = clients.iter().cycle().skip(first);
        let _given_up = SetOnPanic(&self.gave_up);
        let mut acknowledged = Vec::with_capacity(batches.len());
        for batch in batches {
            while self.allowed.load(Ordering::SeqCst) <= self.sent.load(Ordering::SeqCst) {
                self.check_time();
                thread::sleep(Duration::from_millis(1));
            }
            acknowledged.push(self.until_acknowledged(&mut turn, batch));
            self.sent.fetch_add(batch.lines.len() as u64, Ordering::SeqCst);
        }
        acknowledged
    }

    fn until_acknowledged<'a>(&self, turn: &mut impl Iterator<Item = &'a Client>, batch: &Batch) -> Option<u64> {
        loop {
            self.check_time();
            let client = turn.next().expect("it goes round");
            let answer = match batch.encoding {
                Some(encoding) => client.post_encoded("/v1/events", batch.content_type, encoding, &batch.body),
                None => client.post("/v1/events", batch.content_type, &batch.body),
            };
            match answer {
                Ok(answer) if answer.status == 202 => return receipt(&answer.json, batch),
                Ok(answer) => assert!([429, 503].contains(&answer.status), "{} {}", answer.status, answer.text),
                // It was killed: what became of the batch is open, so it is sent again.
                Err(_) => {}
            }
            thread::sleep(Duration::from_millis(2));
        }
    }
}

/// Whoever panics tells the others, so that nobody waits for a delivery that never ends.
struct SetOnPanic<'a>(&'a AtomicBool);

impl Drop for SetOnPanic<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.store(true, Ordering::SeqCst);
        }
    }
}

/// Checks a receipt: the good lines are taken, the others are named. Gives the offset behind the batch.
fn receipt(receipt: &serde_json::Value, batch: &Batch) -> Option<u64> {
    let taken = batch.good.iter().filter(|good| **good).count();
    assert_eq!(receipt["accepted"], json!(taken), "{receipt}");
    let rejected: Vec<usize> = (0..batch.lines.len()).filter(|index| !batch.good[*index]).collect();
    let named = receipt["rejected"].as_array().unwrap();
    assert_eq!(named.iter().map(|item| item["index"].clone()).collect::<Vec<_>>(), rejected, "{receipt}");
    for item in named {
        let line = &batch.lines[item["index"].as_u64().unwrap() as usize];
        let reason = if oracle::judge::RECORD_BYTES_MAX < line.len() { "oversize" } else { "malformed" };
        assert_eq!(item["reason"], reason, "{item} {}", String::from_utf8_lossy(line));
    }
    let token = receipt["token"].as_str().unwrap();
    if taken == 0 {
        assert_eq!(token, "");
        return None;
    }
    let (_, next_offset) = token.split_once(':').expect("a batch of one partition has a token of one");
    Some(next_offset.parse().unwrap())
}

/// Puts lines into the log of a folder that nobody runs on. Gives how many.
pub fn append(data_dir: &Path, lines: impl Iterator<Item = (u32, Vec<u8>)>) -> u64 {
    let log = Log::open(&data_dir.join("log"), PARTITIONS, now_ms).expect("the killed process has let go of the log");
    let batch: Vec<NewRecord> = lines.map(|(partition, payload)| NewRecord { partition, key: None, payload }).collect();
    let count = batch.len() as u64;
    let (done, told) = mpsc::channel();
    log.appender().append(batch, Box::new(move |result| done.send(result).unwrap())).expect("the queue has room");
    told.recv().unwrap().expect("the disk works");
    count
}

/// What was acknowledged stands in the log, in full and in place.
#[track_caller]
pub fn assert_acknowledged_is_in(log: &[Vec<Record>], streams: &[Vec<Batch>], acknowledged: &[Acknowledged]) {
    let mut records = 0;
    for (partition, (batches, ends)) in streams.iter().zip(acknowledged).enumerate() {
        assert_eq!(batches.len(), ends.len(), "every batch was acknowledged");
        for (batch, end) in batches.iter().zip(ends) {
            let lines = batch.lines.iter().zip(&batch.good);
            let good: Vec<&[u8]> = lines.filter(|(_, good)| **good).map(|(line, _)| line.trim_ascii()).collect();
            let Some(end) = end.map(|end| end as usize) else {
                assert!(good.is_empty());
                continue;
            };
            let stored: Vec<&[u8]> =
                log[partition][end - good.len()..end].iter().map(|record| record.payload.trim_ascii()).collect();
            assert!(stored == good, "partition {partition}: not the batch that ends at {end}");
            records += good.len();
        }
    }
    let all: usize = log.iter().map(Vec::len).sum();
    println!("log: {all} records, {records} of them acknowledged over HTTP");
}
