//! How fast a topic is read, and produced to: `kafka_read BROKERS [PARTITIONS [RECORDS [THREADS]]]`.
//!
//! Fills a topic named after its size once, with records of 150 bytes, then reads all of it, each partition by a reader of
//! its own, the partitions spread over the threads. Counts what it reads, so that a lost or doubled record fails it.

use std::{
    collections::BTreeMap,
    ops::ControlFlow,
    thread,
    time::{Duration, Instant},
};

use connectors::kafka::{Producer, ProducerLimits, Settings, Topic};
use dataflows::port::{PartitionId, PartitionReader, Reached};

const PATIENCE: Duration = Duration::from_secs(20);
const BATCH: u64 = 1_000;

type AnyError = Box<dyn std::error::Error + Send + Sync>;

fn main() -> Result<(), AnyError> {
    let mut args = std::env::args().skip(1);
    let brokers = args.next().ok_or("kafka_read BROKERS [PARTITIONS [RECORDS [THREADS]]]")?;
    let mut number = |default: u64| args.next().map_or(Ok(default), |text| text.parse());
    let (partitions, records, threads) = (number(4)?, number(2_000_000)?, number(1)?);
    let name = format!("kafka-read-{partitions}-{records}");
    let settings = Settings {
        brokers: vec![brokers],
        dead_letter_topic: format!("{name}.dead-letters"),
        topic: name,
        properties: BTreeMap::new(),
        passing: Default::default(),
    };
    let topic = Topic::open(&settings, Some(u32::try_from(partitions)?), PATIENCE)?;
    if topic.offsets()?.iter().all(|(_, end)| *end == 0) {
        fill(&settings, records)?;
    }
    let ends = topic.offsets()?;
    let opened = Instant::now();
    let readers: Result<Vec<_>, _> = (0..topic.partitions())
        .map(|partition| topic.reader_until(PartitionId(partition), 0, ends[partition as usize].1))
        .collect();
    let mut shares: Vec<Vec<_>> = (0..threads).map(|_| Vec::new()).collect();
    for (index, reader) in readers?.into_iter().enumerate() {
        shares[index % threads as usize].push(reader);
    }
    println!("opened in {:?}", opened.elapsed());
    let start = Instant::now();
    let read: Result<Vec<_>, _> = thread::scope(|scope| {
        let running: Vec<_> = shares.into_iter().map(|share| scope.spawn(|| read(share))).collect();
        running.into_iter().map(|thread| thread.join().expect("readers do not panic")).collect()
    });
    let (count, bytes) =
        read?.into_iter().fold((0, 0), |(count, bytes), (more, more_bytes)| (count + more, bytes + more_bytes));
    let elapsed = start.elapsed();
    assert_eq!(count, ends.iter().map(|(_, end)| end).sum::<u64>(), "each record is read once");
    let rate = count as f64 / elapsed.as_secs_f64();
    println!(
        "{threads} threads, {partitions} partitions: {count} records, {bytes} bytes, {elapsed:?}, {rate:.0} records/s"
    );
    Ok(())
}

fn fill(settings: &Settings, records: u64) -> Result<(), AnyError> {
    let producer = Producer::open(settings, ProducerLimits::default())?;
    let mut feed = producer.feed();
    let start = Instant::now();
    for first in (0..records).step_by(usize::try_from(BATCH)?) {
        let batch: Vec<_> = (first..(first + BATCH).min(records)).map(record).collect();
        feed.put(&batch)?;
    }
    feed.finish()?;
    println!("produced {:.0} records/s", records as f64 / start.elapsed().as_secs_f64());
    Ok(())
}

fn record(number: u64) -> (Vec<u8>, Vec<u8>) {
    let video = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) % 100_000;
    let payload = format!(
        r#"{{"event_id":"{number:032x}","video_id":"v{video:07}","event_type":"view","timestamp":{},"user_id":"u{:08}","value":12.5}}"#,
        1_767_225_600_000 + number / 10,
        number % 99_999_999
    );
    (format!("v{video:07}").into_bytes(), payload.into_bytes())
}

/// Reads all of these in turns, as a worker does.
fn read<R: PartitionReader>(mut readers: Vec<R>) -> Result<(u64, u64), AnyError> {
    let (mut count, mut bytes) = (0, 0);
    while !readers.is_empty() {
        let mut more = false;
        let mut failure = None;
        readers.retain_mut(|reader| {
            let reached = reader.read(&mut |record| {
                count += 1;
                bytes += record.payload.len() as u64;
                ControlFlow::Continue(())
            });
            more |= matches!(reached, Ok(Reached::More | Reached::Finished));
            failure = reached.as_ref().err().map(ToString::to_string).or(failure.take());
            !matches!(reached, Ok(Reached::Finished) | Err(_))
        });
        if let Some(failure) = failure {
            return Err(failure.into());
        }
        if !more {
            thread::sleep(Duration::from_micros(500));
        }
    }
    Ok((count, bytes))
}
