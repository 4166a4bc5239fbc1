//! Random faults, drawn from a seed, against a job on servers of its own.

pub mod arena;
pub mod checkpoints;
pub mod load;
pub mod log;
pub mod schedule;
