//! Waiting without a runtime: for a future, and for what passes by itself.

use std::{
    pin::pin,
    sync::Arc,
    task::{Context, Poll, Wake, Waker},
    thread::{self, Thread},
    time::{Duration, Instant},
};

use backon::{BlockingRetryable, ExponentialBuilder};

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Runs a future on this thread.
pub fn block_on<F: Future>(future: F) -> F::Output {
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut context = Context::from_waker(&waker);
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut context) {
            Poll::Ready(output) => return output,
            Poll::Pending => thread::park(),
        }
    }
}

/// Tries, with longer and longer pauses, until it succeeds, fails for good or the patience is over.
pub fn patiently<T, E>(
    patience: Duration,
    attempt: impl FnMut() -> Result<T, E>,
    passes: impl Fn(&E) -> bool,
) -> Result<T, E> {
    let start = Instant::now();
    let pauses = ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(100))
        .with_max_delay(Duration::from_secs(2))
        .with_jitter()
        .without_max_times();
    attempt.retry(pauses).when(|error| passes(error) && start.elapsed() < patience).call()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_future_that_another_thread_completes_is_waited_for() {
        let (sender, receiver) = tokio::sync::oneshot::channel();
        let other = thread::spawn(move || sender.send(7));
        assert_eq!(block_on(receiver), Ok(7));
        other.join().unwrap().unwrap();
    }

    #[test]
    fn what_does_not_pass_is_tried_once() {
        let mut tries = 0;
        let fails = || {
            tries += 1;
            Err::<(), _>("for good")
        };
        assert_eq!(patiently(Duration::from_secs(60), fails, |_| false), Err("for good"));
        assert_eq!(tries, 1);
    }
}
