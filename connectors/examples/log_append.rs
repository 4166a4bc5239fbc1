//! How many records a second the embedded log takes by group commit.
//!
//! `cargo run --release -p connectors --example log_append -- DIR [THREADS] [RECORDS_PER_BATCH] [BATCHES_IN_FLIGHT]`

use std::{
    env,
    path::PathBuf,
    sync::mpsc,
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use connectors::embedded::log::{Appender, Log, NewRecord};

const PARTITIONS: u32 = 4;
const PAYLOAD_BYTES: usize = 150;
const RUN: Duration = Duration::from_secs(5);

fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is past 1970");
    u64::try_from(now.as_millis()).expect("milliseconds since 1970 fit 64 bits")
}

/// Appends until the time is over, waiting for the oldest answer when enough batches are in flight.
fn append_until(appender: &Appender, end: Instant, records: usize, in_flight: usize, first_partition: u32) -> u64 {
    let (answer, answers) = mpsc::channel();
    let (mut sent, mut answered) = (0_u64, 0_u64);
    while Instant::now() < end || answered < sent {
        if Instant::now() < end && sent - answered < in_flight as u64 {
            let partition = |index: usize| (first_partition + index as u32) % PARTITIONS;
            let record = |index| NewRecord {
                partition: partition(index),
                key: Some(b"v0012345".to_vec()),
                payload: vec![b'x'; PAYLOAD_BYTES],
            };
            let answer = answer.clone();
            let done = Box::new(move |result| answer.send(result).expect("the receiver waits for all answers"));
            appender.append((0..records).map(record).collect(), done).expect("the queue has room for these few");
            sent += 1;
        } else {
            answers.recv().expect("a sender is kept above").expect("the disk works");
            answered += 1;
        }
    }
    answered * records as u64
}

fn main() {
    let mut arguments = env::args().skip(1);
    let dir = PathBuf::from(arguments.next().expect("the first argument is a folder for the log"));
    let mut number = |default: usize| arguments.next().map_or(default, |text| text.parse().expect("a number"));
    let (threads, records, in_flight) = (number(8), number(100), number(4));
    let log = Log::open(&dir, PARTITIONS, now_ms).expect("the log can be opened");
    let start = Instant::now();
    let appended: u64 = thread::scope(|scope| {
        let run = |first_partition: usize| {
            let appender = log.appender();
            move || append_until(&appender, start + RUN, records, in_flight, first_partition as u32)
        };
        let threads: Vec<_> = (0..threads).map(|number| scope.spawn(run(number))).collect();
        threads.into_iter().map(|thread| thread.join().expect("an appender does not panic")).sum()
    });
    let seconds = start.elapsed().as_secs_f64();
    println!(
        "{threads} threads, batches of {records}, {in_flight} in flight each: {:.0} records/s",
        appended as f64 / seconds
    );
}
