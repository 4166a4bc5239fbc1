//! Placeholder until the engine is wired in.

use crate::{
    cli::CheckpointCommand,
    config::Settings,
    exit::{Exit, Failure},
};

/// Not wired yet.
pub fn run(_settings: Settings, _args: &CheckpointCommand) -> Result<(), Failure> {
    Err(Failure::new(Exit::Failed, anyhow::anyhow!("not wired yet")))
}
