//! The object store that checkpoints are in.

use connectors::objects::CheckpointObjects;

use crate::exit::{Exit, Failure, OrExit as _};

/// A handle of a bucket, by what the environment says of who asks and where.
pub fn open(bucket: &str, prefix: &str) -> Result<CheckpointObjects, Failure> {
    // What is no text is none of those that are looked for.
    let variables =
        std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    CheckpointObjects::open(bucket, prefix, variables).or_exit(Exit::Usage)
}
