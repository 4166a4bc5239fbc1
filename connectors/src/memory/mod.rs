//! In-memory twins of the connectors, for tests: each handle is cheap to clone and all clones share one store, so that
//! a test can look inside and hand the same store to the next incarnation.

pub mod checkpoints;
pub mod letters;
pub mod log;
pub mod store;

pub use checkpoints::MemoryCheckpoints;
pub use letters::MemoryLetters;
pub use store::MemorySink;
