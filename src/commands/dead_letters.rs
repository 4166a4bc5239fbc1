//! Placeholder until the engine is wired in.

use crate::{
    cli::DeadLettersCommand,
    config::Settings,
    exit::{Exit, Failure},
};

/// Not wired yet.
pub fn run(_settings: Settings, _args: &DeadLettersCommand) -> Result<(), Failure> {
    Err(Failure::new(Exit::Failed, anyhow::anyhow!("not wired yet")))
}
