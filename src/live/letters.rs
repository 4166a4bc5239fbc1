//! The sink of dead letters: a server may take long to hand it over, and no letter is published before the first checkpoint.

use std::{mem, thread};

use anyhow::{Context as _, anyhow};
use dataflows::port::LetterSink;

use crate::exit::{Exit, Failure, OrExit as _};

type Sink = Box<dyn LetterSink>;

/// A sink that is open, or is being opened on a thread of its own.
pub struct Letters(State);

enum State {
    Open(Sink),
    Opening(thread::JoinHandle<Result<Sink, Failure>>),
    Failed,
}

impl From<Sink> for Letters {
    fn from(sink: Sink) -> Self {
        Self(State::Open(sink))
    }
}

impl Letters {
    /// Opens it beside all else.
    pub fn opening(open: impl FnOnce() -> Result<Sink, Failure> + Send + 'static) -> Result<Self, Failure> {
        let thread = thread::Builder::new().name("letters".to_owned()).spawn(open);
        Ok(Self(State::Opening(thread.context("starting a thread").or_exit(Exit::Internal)?)))
    }

    /// The sink, once it is open. What was wrong with it is told once.
    pub fn sink(&mut self) -> Result<&mut dyn LetterSink, Failure> {
        if let State::Opening(_) = &self.0
            && let State::Opening(thread) = mem::replace(&mut self.0, State::Failed)
        {
            let opened = thread.join().map_err(|_| Failure::new(Exit::Internal, anyhow!("opening it panicked")));
            self.0 = State::Open(opened??);
        }
        match &mut self.0 {
            State::Open(sink) => Ok(&mut **sink),
            _ => Err(Failure::new(Exit::Internal, anyhow!("there are no dead letters, as was told"))),
        }
    }
}
