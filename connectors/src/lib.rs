//! Tidemark's outside: what implements the ports of `dataflows`, one module per system.

#[cfg(feature = "cassandra")]
pub mod cassandra;
pub mod cells;
mod checkpoint_names;
pub mod dimension;
pub mod embedded;
pub mod files;
pub mod json;
#[cfg(feature = "kafka")]
pub mod kafka;
pub mod letter;
pub mod memory;
#[cfg(feature = "objects")]
pub mod objects;
pub mod partition;
