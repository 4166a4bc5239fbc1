//! Checkpoints: one frontier's worth of everything.
//!
//! A checkpoint at frontier `f` holds the next offset, clock and ledger of every partition and the remembered ids, the
//! counts and the unpublished letters, each the fold of exactly the records that travel before `f`. It is stored as one
//! part per worker, by key group, so that any number of workers can resume it, and one manifest, which is the commit.

pub mod coordinator;
pub mod frame;
pub mod manifest;
pub mod part;
pub mod plan;
pub mod rows;
