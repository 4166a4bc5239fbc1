//! Trying again, with the status saying so meanwhile.

use std::time::Duration;

use backon::{BlockingRetryable as _, ExponentialBuilder};

use super::KeeperFacts;
use crate::{
    engine::{
        self,
        reach::{Mendable, Reach},
    },
    exit::{Exit, Failure},
};

/// Between two tries: at first, and at most.
const RETRY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));

/// Tries until it works, trying again is of no use, or patience is over.
pub fn patiently<T, E: Mendable>(
    facts: &KeeperFacts,
    reach: Reach,
    attempt: impl FnMut() -> Result<T, E>,
) -> Result<T, Failure> {
    attempt
        .retry(backoff(reach))
        .when(|error| error.hopeless(reach).is_none())
        .notify(|error, wait| again(facts, engine::one_line(error), wait))
        .call()
        .inspect(|_| facts.set_trouble(None))
        .map_err(|error| reach.failure(error))
}

/// Asks another server until it answers, whatever that is.
pub fn until_reached(facts: &KeeperFacts, ask: impl FnMut() -> Result<(), Failure>) -> Result<(), Failure> {
    ask.retry(backoff(Reach::Network))
        .when(|failure| failure.code == Exit::Unreachable)
        .notify(|failure, wait| again(facts, format!("{:#}", failure.error), wait))
        .call()
        .inspect(|()| facts.set_trouble(None))
}

fn backoff(reach: Reach) -> ExponentialBuilder {
    ExponentialBuilder::default()
        .with_min_delay(RETRY.0)
        .with_max_delay(RETRY.1)
        .with_jitter()
        .without_max_times()
        .with_total_delay(reach.gives_up_after())
}

fn again(facts: &KeeperFacts, error: String, wait: Duration) {
    tracing::warn!(%error, ?wait, "no checkpoint, rows or letters for now: trying again");
    facts.set_trouble(Some(error));
}
