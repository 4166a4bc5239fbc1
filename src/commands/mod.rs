//! One function per command.

use std::io::{self, ErrorKind, Write as _};

use anyhow::Context as _;

use crate::exit::Failure;

pub mod audit;
pub mod checkpoint;
pub mod completions;
pub mod config;
pub mod dead_letters;
pub mod plan;
pub mod query;
pub mod replay;
pub mod run;

/// Writes a command's result. A reader that has seen enough (`| head`) is no failure.
pub fn print(text: &str) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error).context("writing to stdout")?,
        _ => Ok(()),
    }
}
