//! A hostile stream at a steady rate, made while it is sent: only what is on its way is in memory.

use std::{
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use oracle::{Jumps, Spec, hostile_each};

use crate::live_support::traffic::{LENGTH_MS, PARTITIONS};

/// Records on their way from the generator to the producer.
const AHEAD: usize = 1_000;

/// The clock is asked once for so many records.
const STRIDE: u64 = 20;

/// One stream has its jumps and scenes once; a long run has several, one after the other in event time as well.
const STREAM_MINUTES: f64 = 10.0;

/// So many windows are compared cell by cell in a minute or two.
const RECORDS_MAX: f64 = 3_000_000.0;

/// Of what two slow cores read, count, write and compare beside Kafka and Cassandra.
const RATE: f64 = 2_000.0;

/// How much is sent.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    pub seed: u64,
    /// Records a second.
    pub rate: u64,
    pub streams: u64,
    /// Of each stream, beside the scenes.
    pub events: u64,
}

impl Load {
    pub fn of(seed: u64, minutes: f64, rate: Option<u64>) -> Self {
        let rate = rate.unwrap_or(RATE.min(RECORDS_MAX / (60.0 * minutes)) as u64).max(1);
        let streams = (minutes / STREAM_MINUTES).ceil().max(1.0);
        Self { seed, rate, streams: streams as u64, events: (rate as f64 * 60.0 * minutes / streams) as u64 }
    }

    /// The records with their partitions, each when it is due. What could not be sent for a while comes all at once.
    pub fn records(self) -> impl Iterator<Item = (i32, Vec<u8>)> + Send {
        let (made, records) = mpsc::sync_channel(AHEAD);
        thread::spawn(move || {
            for stream in 0..self.streams {
                let start_ms = Spec::default().start_ms + stream * LENGTH_MS;
                let spec = Spec {
                    events: self.events,
                    partitions: PARTITIONS as usize,
                    videos: 300,
                    start_ms,
                    jumps: Jumps::Some,
                    ..Spec::default()
                };
                hostile_each(self.seed + stream, &spec, |partition, line| {
                    // Nobody wants it any more where the test has failed.
                    let _ = made.send((partition as i32, line.to_vec()));
                });
            }
        });
        let begun = Instant::now();
        (0..).zip(records).map(move |(number, record): (u64, _)| {
            if number.is_multiple_of(STRIDE) {
                let due = Duration::from_micros(number * 1_000_000 / self.rate);
                thread::sleep(due.saturating_sub(begun.elapsed()));
            }
            record
        })
    }
}
