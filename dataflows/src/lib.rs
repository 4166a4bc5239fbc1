//! Tidemark's dataflow: what is counted, in which order, and what is remembered of it.
//!
//! Nothing here does I/O, reads a clock or draws a random number: the outside implements [`port`]'s traits and
//! the root package wires both together. [`graph`] shows the whole job on one screen.
#![warn(missing_docs)]

pub mod announce;
pub mod board;
pub mod channels;
pub mod checkpoint;
pub mod clock;
pub mod control;
pub mod dedup;
pub mod desk;
pub mod dimensions;
pub mod event;
pub mod functions;
pub mod gap;
pub mod graph;
pub mod identity;
mod ids;
pub mod index;
pub mod lane;
mod lanes;
pub mod ledger;
pub mod letter;
pub mod onward;
pub mod pages;
pub mod parcel;
pub mod port;
mod prefetch;
pub mod query;
pub mod rollup;
pub mod rules;
pub mod ruling;
pub mod series;
mod shared;
mod sip;
pub mod snapshot;
pub mod source;
mod summaries;
pub mod table;
pub mod tally;
#[cfg(feature = "testkit")]
pub mod testkit;
pub mod time;
pub mod top;
pub mod totals;
pub mod window;
