//! Helpers for tests of this crate and of those that implement its ports: one contract suite per port, and faults.
//!
//! A suite takes closures, so that it does no I/O itself: one that opens a fresh, empty store, and one that looks
//! into it where the port can't. Memory, embedded and Cassandra pass them plain, and behind
//! `Retrying(Faulty(..))`, which is a caller that repeats what failed, as the ports ask it to.

pub mod checkpoint_contract;
mod faulty;
pub mod letter_contract;
mod retrying;
pub mod sink_contract;
mod split_mix;

pub use faulty::{Fault, Faulty, Injected, Unsteady};
pub use retrying::Retrying;
pub use split_mix::SplitMix64;
