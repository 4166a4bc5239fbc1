//! Placeholder until the engine is wired in.

use crate::{
    cli::ReplayArgs,
    config::Settings,
    exit::{Exit, Failure},
};

/// Not wired yet.
pub fn run(_settings: Settings, _args: &ReplayArgs) -> Result<(), Failure> {
    Err(Failure::new(Exit::Failed, anyhow::anyhow!("not wired yet")))
}
