//! Keeps to a number of lines a second.

use std::{
    thread,
    time::{Duration, Instant},
};

/// Sleeps are not worth it for less: the system would not wake us in time.
const SLEEP_LEAST: Duration = Duration::from_millis(1);

/// Line `n` is due `n / rate` seconds after the first. Time lost is made up for, so the mean holds.
#[derive(Debug)]
pub struct Pace {
    rate: Option<f64>,
    started: Option<Instant>,
    lines: u64,
}

impl Pace {
    /// `rate` lines a second, or as fast as it goes.
    pub fn new(rate: Option<f64>) -> Self {
        Self { rate, started: None, lines: 0 }
    }

    /// Returns when the next line is due.
    pub fn wait(&mut self) {
        if self.rate.is_some() {
            let now = Instant::now();
            let started = *self.started.get_or_insert(now);
            let early = self.due().saturating_sub(now - started);
            if SLEEP_LEAST <= early {
                thread::sleep(early);
            }
        }
        self.lines += 1;
    }

    /// When the next line is due, from the first one on.
    fn due(&self) -> Duration {
        self.rate.map_or(Duration::ZERO, |rate| Duration::from_secs_f64(self.lines as f64 / rate))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_due_evenly_and_not_before() {
        let mut pace = Pace::new(Some(1000.0));
        let started = Instant::now();
        for _ in 0..51 {
            pace.wait();
        }
        assert_eq!(pace.due(), Duration::from_millis(51));
        // The 51st was due after 50 ms; less than a sleep's worth may be missing.
        assert!(Duration::from_millis(49) <= started.elapsed());
        let mut free = Pace::new(None);
        free.wait();
        assert_eq!(free.due(), Duration::ZERO);
    }
}
