//! The settings of time: which events count, and when their counts become visible.

use serde::{Deserialize, Serialize};

/// What a quiet partition does to the watermark.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Quiet {
    /// Holds it back: what is final follows from the logs alone.
    #[default]
    Hold,
    /// Does not: what is final follows the frontier, and an event behind it is late.
    Release,
}

/// The contract's `[time]` section in milliseconds, checked by whoever reads the configuration.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rules {
    /// How far behind its partition's clock an event may be.
    pub lateness_ms: u64,
    /// How long a counted event's window is remembered behind the clock; at least `lateness_ms`.
    pub remember_ms: u64,
    /// How far ahead of its append time an event may be.
    pub max_future_ms: u64,
    /// How far one event alone can move a clock.
    pub max_jump_ms: u64,
    /// The step of stream time; divides a minute.
    pub tick_ms: u64,
    /// The step while catching up and in replays; a multiple of `tick_ms` that divides a minute.
    pub coarse_ms: u64,
    /// How long a partition must be read to its end and quiet to count as drained.
    pub idle_after_ms: u64,
    /// How far ahead of the slowest undrained clock a partition is read; more than two coarse steps.
    pub alignment_ms: u64,
    /// What a quiet partition does to the watermark.
    pub quiet: Quiet,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            lateness_ms: 600_000,
            remember_ms: 600_000,
            max_future_ms: 300_000,
            max_jump_ms: 3_600_000,
            tick_ms: 100,
            coarse_ms: 10_000,
            idle_after_ms: 250,
            alignment_ms: 120_000,
            quiet: Quiet::Hold,
        }
    }
}
