//! Tidemark: exact, replayable view counts.
//!
//! Parses the command line and calls one function per command. This package is the only place that knows every
//! other part.

use std::{
    io::{self, Write as _},
    process::ExitCode,
};

use clap::Parser as _;
use rustix::process::{Resource, Rlimit, setrlimit};

use crate::{
    cli::{Cli, Command, DimensionsCommand},
    exit::{Exit, Failure},
};

mod allocator;
mod cli;
mod commands;
mod config;
mod engine;
mod exit;
mod http;
mod live;
mod logging;
mod plan;
mod produce;
mod progress;
mod recount;
mod service;
mod supervise;
mod token;

fn main() -> ExitCode {
    allocator::keep_what_is_freed(allocator::FOR_A_WHILE);
    abort_on_panic();
    forbid_core_dumps();
    let cli = Cli::try_parse().unwrap_or_else(|error| error.exit());
    logging::start(cli.global.log_format, cli.global.verbose);
    match dispatch(&cli) {
        Ok(()) => Exit::Done.into(),
        Err(failure) => {
            // Where stderr is gone there is nobody left to tell.
            let _ = io::stderr().lock().write_all(failure.report().as_bytes());
            failure.code.into()
        }
    }
}

fn dispatch(cli: &Cli) -> Result<(), Failure> {
    let settings = || config::settings(&cli.global, &cli.command.overrides());
    match &cli.command {
        Command::Run(args) => commands::run::run(settings()?, args),
        Command::Cluster(args) => supervise::run(&settings()?, &cli.global, args),
        Command::Produce(args) => produce::run(&settings()?, args),
        Command::Query(args) => commands::query::run(args),
        Command::Replay(args) => commands::replay::run(settings()?, args),
        Command::Audit(args) => commands::audit::run(settings()?, args),
        Command::Plan(args) => commands::plan::run(&settings()?, args),
        Command::Checkpoint(command) => commands::checkpoint::run(settings()?, command),
        Command::DeadLetters(command) => commands::dead_letters::run(settings()?, command),
        Command::Dimensions(DimensionsCommand::Load { file, give_up_after, server }) => {
            produce::load_dimensions(file, server, *give_up_after)
        }
        Command::Config(command) => commands::config::run(&cli.global, command),
        Command::Completions { shell } => commands::completions::run(*shell),
    }
}

/// A panic in any thread ends the process: a lone dead worker would leave the others waiting for ever, and the next
/// start goes on from the last checkpoint.
fn abort_on_panic() {
    let print = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if live::is_lost_link(panic) {
            live::end_after_lost_link();
        }
        print(panic);
        let _ = io::stderr().lock().write_all(
            b"tidemark: this is a fault of Tidemark, please report it with the lines above; the process ends now and \
              can be started again\n",
        );
        std::process::abort();
    }));
}

/// A core would hold tokens and users' data.
fn forbid_core_dumps() {
    if let Err(error) = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) }) {
        let _ = writeln!(io::stderr(), "warning: core dumps can't be turned off: {error}");
    }
}
