//! Tidemark's outside: files, the embedded log and store, wire formats, in-memory twins.

pub mod partition;
