//! Placeholder until the engine is wired in.

use crate::{
    cli::RunArgs,
    config::Settings,
    exit::{Exit, Failure},
};

/// Not wired yet.
pub fn run(_settings: Settings, _args: &RunArgs) -> Result<(), Failure> {
    Err(Failure::new(Exit::Failed, anyhow::anyhow!("not wired yet")))
}
