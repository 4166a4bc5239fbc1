//! Tidemark's dataflow: what is counted, in which order, and what is remembered of it.
//!
//! Nothing here does I/O, reads a clock or draws a random number: the outside implements [`port`]'s traits and
//! the root package wires both together. [`graph`] shows the whole job on one screen.
#![warn(missing_docs)]

pub mod announce;
pub mod event;
pub mod ledger;
pub mod letter;
pub mod port;
pub mod query;
#[cfg(feature = "testkit")]
pub mod testkit;
pub mod time;
