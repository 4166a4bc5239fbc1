//! Trying again: how long, and what is not worth another try.

use std::time::Duration;

use backon::{BlockingRetryable as _, ExponentialBuilder};
use dataflows::port::{SinkError, StoreError};

use super::KeeperFacts;
use crate::{
    engine,
    exit::{Exit, Failure},
};

/// Between two tries: at first, and at most.
const RETRY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));

/// How long state may stay unwritable before the process gives up.
const STATE_GIVE_UP_AFTER: Duration = Duration::from_secs(600);

/// How long to try: `None` for as long as it takes.
pub type Patience = Option<Duration>;

/// For checkpoints: without them nothing is safe.
pub fn state_patience() -> Patience {
    Some(STATE_GIVE_UP_AFTER)
}

/// For rows and letters: the input waits meanwhile, and nothing is lost.
pub fn sink_patience() -> Patience {
    None
}

/// An error of a store or a sink, by whether trying again may help.
pub trait Mendable: std::error::Error + Send + Sync + 'static {
    /// What the process ends with at once, if it may not.
    fn hopeless(&self) -> Option<Exit>;
}

impl Mendable for StoreError {
    fn hopeless(&self) -> Option<Exit> {
        matches!(self, StoreError::Taken { .. }).then_some(Exit::OtherOwner)
    }
}

impl Mendable for SinkError {
    fn hopeless(&self) -> Option<Exit> {
        match self {
            SinkError::Fenced { .. } => Some(Exit::OtherOwner),
            SinkError::Refused { .. } => Some(Exit::Unreachable),
            _ => None,
        }
    }
}

/// Tries until it works, trying again is of no use, or patience is over. The status says so meanwhile.
pub fn patiently<E: Mendable>(
    facts: &KeeperFacts,
    patience: Patience,
    attempt: impl FnMut() -> Result<(), E>,
) -> Result<(), Failure> {
    let backoff = ExponentialBuilder::default()
        .with_min_delay(RETRY.0)
        .with_max_delay(RETRY.1)
        .with_jitter()
        .without_max_times()
        .with_total_delay(patience);
    let done = attempt
        .retry(backoff)
        .when(|error| error.hopeless().is_none())
        .notify(|error, wait| {
            let error = engine::one_line(error);
            tracing::warn!(%error, ?wait, "can't be written: trying again");
            facts.set_trouble(Some(error));
        })
        .call();
    match done {
        Ok(()) => {
            facts.set_trouble(None);
            Ok(())
        }
        Err(error) => Err(Failure::new(error.hopeless().unwrap_or(Exit::StateUnwritable), error)),
    }
}
