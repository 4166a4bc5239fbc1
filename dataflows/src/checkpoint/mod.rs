//! Checkpoints: one frontier's worth of everything.
//!
//! A checkpoint at frontier `f` holds the next offset, clock and ledger of every partition and the remembered ids, the
//! counts and the unpublished letters, each the fold of exactly the records that travel before `f`. Each worker stores what
//! changed since the checkpoint before as one part, by key group, so that any number of workers can resume it; the manifest,
//! which is the commit, names all parts that together are the state. Many parts are merged into one now and then.

pub mod coordinator;
pub mod fold;
pub mod frame;
pub mod manifest;
pub mod part;
pub mod plan;
pub mod rows;
