//! A naive oracle for Tidemark's tests: a map and a loop, derived from the contract alone.
//!
//! It shares no code with the product, so that an error of one side is not repeated by the other. Slow is fine here; plain is not
//! negotiable. [`run`] judges whole partitions, [`corpus`] holds hand-written decoder verdicts, [`hostile()`] and [`well_behaved`]
//! make inputs, [`compare`] compares result tables.

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod cause;
pub mod clock;
pub mod compare;
pub mod corpus;
pub mod event;
pub mod functions;
pub mod hostile;
pub mod json;
pub mod judge;
pub mod lines;
pub mod partition;
pub mod rfc3339;
pub mod well;

pub use cause::Cause;
pub use event::{Event, decode};
pub use hostile::{Jumps, Spec, hostile, hostile_each};
pub use judge::{Counts, Judge, Ledger, Outcome, Record, Rules, Rulings, Verdict, run, run_ruled};
pub use partition::partition_of;
pub use well::{Workload, well_behaved};
