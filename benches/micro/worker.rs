//! A worker in this thread. It merges its index while idle, as those of a live job do.

use std::time::Instant;

use timely::{
    WorkerConfig,
    communication::allocator::{Allocator, thread::Thread},
    worker::Worker,
};

pub fn worker() -> Worker {
    let mut config = WorkerConfig::default();
    let effort = differential_dataflow::Config::default().idle_merge_effort(Some(1_000));
    differential_dataflow::configure(&mut config, &effort);
    Worker::new(config, Allocator::Thread(Thread::default()), Some(Instant::now()))
}
