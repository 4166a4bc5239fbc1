//! `tidemark run`: takes events, counts them, answers queries.

use std::time::Duration;

use crate::{
    allocator,
    cli::RunArgs,
    config::Settings,
    exit::Failure,
    live::{self, Place},
    supervise,
};

/// Runs until it is told to stop.
pub fn run(settings: Settings, args: &RunArgs) -> Result<(), Failure> {
    if settings.functions.any() {
        let interval = Duration::from_millis(settings.checkpoint.interval_ms);
        allocator::keep_what_is_freed(allocator::until_the_next_checkpoint(interval));
    }
    supervise::end_with_supervisor();
    let workers = settings.workers.get();
    let place = match &args.member {
        None => Place::alone(workers),
        Some(member) => Place::among(member.process, workers, &member.hosts)?,
    };
    live::run(&settings, &place, args.from_start)
}
