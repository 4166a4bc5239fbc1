//! What happens when, for whoever reads it, on standard output.

use std::{fmt::Display, time::Instant};

/// Prints lines with the seconds since it was made.
#[derive(Clone, Copy, Debug)]
pub struct Log(Instant);

impl Log {
    pub fn begin() -> Self {
        Self(Instant::now())
    }

    pub fn say(&self, what: impl Display) {
        println!("[{:7.1} s] {what}", self.0.elapsed().as_secs_f64());
    }

    pub fn minutes(&self) -> f64 {
        self.0.elapsed().as_secs_f64() / 60.0
    }
}
