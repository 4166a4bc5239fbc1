//! What Tidemark runs on without servers: files in its data directory.

pub mod checkpoints;
pub mod dimensions;
pub mod letters;
pub mod log;
pub mod store;
