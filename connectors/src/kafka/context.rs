//! What librdkafka says of itself, brought into the log: at most one line a second, however many clients complain.

use std::{
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use rdkafka::{
    ClientContext, Statistics, config::RDKafkaLogLevel, consumer::ConsumerContext, error::KafkaError,
    types::RDKafkaErrorCode,
};

/// Between two lines of one kind.
const LINE_EVERY: Duration = Duration::from_secs(1);

/// Lets one line through in a while, and counts the others. One for the process: the log is one.
struct Gate {
    last: Mutex<Option<Instant>>,
    left_out: AtomicU64,
}

static GATE: Gate = Gate { last: Mutex::new(None), left_out: AtomicU64::new(0) };

impl Gate {
    /// How many lines were left out since the last one, if a line may be written now.
    fn pass(&self) -> Option<u64> {
        let mut last = self.last.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if last.is_some_and(|last| last.elapsed() < LINE_EVERY) {
            self.left_out.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        *last = Some(Instant::now());
        Some(self.left_out.swap(0, Ordering::Relaxed))
    }
}

/// Writes a warning about Kafka, unless one was written within the last second.
pub fn warn_gently(said: &str) {
    match GATE.pass() {
        Some(0) => tracing::warn!("kafka: {said}"),
        Some(left_out) => tracing::warn!(left_out, "kafka: {said}"),
        None => tracing::debug!("kafka: {said}"),
    }
}

/// Listens to one client.
#[derive(Debug, Default)]
pub struct Context {
    unreadable: Mutex<Option<String>>,
}

impl Context {
    /// What the client said of an answer that it can't take in at all, since this was last asked.
    pub fn take_unreadable(&self) -> Option<String> {
        self.unreadable.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).take()
    }
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        log(level, facility, line);
    }

    fn stats(&self, _: Statistics) {}

    fn error(&self, error: KafkaError, reason: &str) {
        // "Invalid response size … increase receive.message.max.bytes": the connection is closed, and the same answer comes again.
        if error.rdkafka_error_code() == Some(RDKafkaErrorCode::BadMessage) {
            *self.unreadable.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = Some(reason.to_owned());
        }
        warn_gently(reason);
    }
}

impl ConsumerContext for Context {}

/// A line of librdkafka's own log.
pub fn log(level: RDKafkaLogLevel, facility: &str, line: &str) {
    match level {
        RDKafkaLogLevel::Emerg
        | RDKafkaLogLevel::Alert
        | RDKafkaLogLevel::Critical
        | RDKafkaLogLevel::Error
        | RDKafkaLogLevel::Warning => warn_gently(line),
        RDKafkaLogLevel::Notice | RDKafkaLogLevel::Info | RDKafkaLogLevel::Debug => {
            tracing::debug!(facility, "kafka: {line}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_flood_one_line_passes() {
        let gate = Gate { last: Mutex::new(None), left_out: AtomicU64::new(0) };
        assert_eq!(gate.pass(), Some(0));
        assert_eq!((0..1_000).filter_map(|_| gate.pass()).count(), 0);
        *gate.last.lock().unwrap() = Instant::now().checked_sub(LINE_EVERY);
        assert_eq!(gate.pass(), Some(1_000));
    }
}
