//! What a Kafka topic gives at the most: its partitions read by some threads, each record parsed, and nothing else done with it.
//!
//! The same reader, settings and parser as Tidemark's, without exchange, ids, windows, index, frontier or checkpoint.
//!
//! `raw_kafka BROKERS TOPIC THREADS`

use std::{collections::BTreeMap, env, error::Error, hint::black_box, ops::ControlFlow, thread, time::Duration};

use connectors::{
    json::JsonEvents,
    kafka::{Reader, Settings, Topic},
};
use dataflows::port::{Decode as _, PartitionId, PartitionReader as _, Reached, Record};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Before a thread looks again that found nothing.
const PAUSE: Duration = Duration::from_micros(50);

/// Reads until all partitions are at their ends; gives how many records were events.
fn read(mut readers: Vec<Reader>) -> Result<u64, Box<dyn Error + Send + Sync>> {
    let mut events = 0;
    let mut visit = |record: Record<'_>| {
        events += u64::from(black_box(JsonEvents.decode(record.payload)).is_ok());
        ControlFlow::Continue(())
    };
    while !readers.is_empty() {
        let (mut open, mut is_idle) = (Vec::new(), true);
        for mut reader in readers {
            let reached = reader.read(&mut visit)?;
            is_idle &= reached != Reached::More;
            if reached != Reached::Finished {
                open.push(reader);
            }
        }
        readers = open;
        if is_idle {
            thread::sleep(PAUSE);
        }
    }
    Ok(events)
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [brokers, topic, threads] = arguments.as_slice() else { return Err("raw_kafka BROKERS TOPIC THREADS".into()) };
    let threads: usize = threads.parse()?;
    let settings = Settings {
        brokers: brokers.split(',').map(str::to_owned).collect(),
        topic: topic.clone(),
        dead_letter_topic: String::new(),
        properties: BTreeMap::new(),
        passing: Default::default(),
    };
    let topic = Topic::open(&settings, None, Duration::from_secs(10))?;
    let mut of_threads: Vec<Vec<Reader>> = (0..threads).map(|_| Vec::new()).collect();
    for (partition, (first, end)) in (0..).zip(topic.offsets()?) {
        of_threads[partition as usize % threads].push(topic.reader_until(PartitionId(partition), first, end)?);
    }
    let reading: Vec<_> = of_threads.into_iter().map(|readers| thread::spawn(|| read(readers))).collect();
    let mut events = 0;
    for thread in reading {
        events += thread.join().map_err(|_| "a thread panicked")?.map_err(|error| error.to_string())?;
    }
    println!("{events} events");
    Ok(())
}
