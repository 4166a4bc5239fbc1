//! `tidemark run`: takes events, counts them, answers queries.

use crate::{cli::RunArgs, config::Settings, exit::Failure, live};

/// Runs until it is told to stop.
pub fn run(settings: Settings, args: &RunArgs) -> Result<(), Failure> {
    live::run(&settings, args.from_start)
}
