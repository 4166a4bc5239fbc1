//! Placeholder until the engine is wired in.

use crate::{
    cli::QueryArgs,
    exit::{Exit, Failure},
};

/// Not wired yet.
pub fn run(_args: &QueryArgs) -> Result<(), Failure> {
    Err(Failure::new(Exit::Failed, anyhow::anyhow!("not wired yet")))
}
