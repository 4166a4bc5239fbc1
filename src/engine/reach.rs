//! Where a sink or a store is, which decides what its errors mean: how long to try, and what to end with.

use std::time::{Duration, Instant};

use backon::{BlockingRetryable as _, ExponentialBuilder};
use dataflows::{
    checkpoint::plan::Damage,
    port::{SinkError, StoreError},
};

use crate::{
    config::CheckpointPlace,
    engine,
    exit::{Exit, Failure},
};

/// How long a disk may stay unwritable before the process gives up.
const DISK_GIVES_UP_AFTER: Duration = Duration::from_secs(600);

/// Between two tries at a start: at first, and at most.
const START_RETRY: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(2));

/// Where it is.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Reach {
    /// On a disk of ours. What it refuses (no room, no rights) may be mended meanwhile; where it is not, the process gives up.
    Disk,
    /// Another server. It is waited for as long as it takes; what it refuses it would refuse again.
    Network,
}

impl Reach {
    /// Where checkpoints are.
    pub fn of_checkpoints(place: &CheckpointPlace) -> Self {
        match place {
            CheckpointPlace::Folder(_) => Reach::Disk,
            CheckpointPlace::Bucket { .. } => Reach::Network,
        }
    }

    /// Does something at a start. A server may be on its way up, or down again: it is tried for so long, and one try more. A disk is
    /// tried once.
    pub fn at_start<T, E: Mendable>(
        self,
        patience: Duration,
        attempt: impl FnMut() -> Result<T, E>,
    ) -> Result<T, Failure> {
        let deadline = Instant::now() + patience;
        let backoff = ExponentialBuilder::default()
            .with_min_delay(START_RETRY.0)
            .with_max_delay(START_RETRY.1)
            .without_max_times();
        attempt
            .retry(backoff)
            .when(|error| self == Reach::Network && error.hopeless(self).is_none() && Instant::now() < deadline)
            .notify(|error, wait| {
                tracing::warn!(
                    error = engine::one_line(error),
                    ?wait,
                    "a server does not do for now what a start needs: trying again"
                );
            })
            .call()
            .map_err(|error| self.failure(error))
    }

    /// Tells a damaged checkpoint from one that a server does not give at the moment: of that one nothing is known.
    pub fn unless_away<T>(self, read: Result<T, Damage>) -> Result<Result<T, Damage>, StoreError> {
        match (self, read) {
            (Reach::Network, Err(Damage::Store(error @ StoreError::Failed { .. }))) => Err(error),
            (_, read) => Ok(read),
        }
    }

    /// How long to try; `None` for as long as it takes.
    pub fn gives_up_after(self) -> Option<Duration> {
        match self {
            Reach::Disk => Some(DISK_GIVES_UP_AFTER),
            Reach::Network => None,
        }
    }

    /// What the process ends with because of an error from there.
    pub fn failure<E: Mendable>(self, error: E) -> Failure {
        let given_up = match self {
            Reach::Disk => Exit::StateUnwritable,
            Reach::Network => Exit::Unreachable,
        };
        Failure::new(error.hopeless(self).unwrap_or(given_up), error)
    }
}

/// An error of a store or a sink, by whether trying again may help.
pub trait Mendable: std::error::Error + Send + Sync + 'static {
    /// What the process ends with at once, if it may not.
    fn hopeless(&self, reach: Reach) -> Option<Exit>;
}

impl Mendable for StoreError {
    fn hopeless(&self, _: Reach) -> Option<Exit> {
        matches!(self, StoreError::Taken { .. } | StoreError::Fenced { .. }).then_some(Exit::OtherOwner)
    }
}

impl Mendable for SinkError {
    fn hopeless(&self, reach: Reach) -> Option<Exit> {
        match (self, reach) {
            (SinkError::Fenced { .. }, _) => Some(Exit::OtherOwner),
            (SinkError::Refused { .. }, Reach::Network) => Some(Exit::Unreachable),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn at_a_start_a_server_is_waited_for_and_a_disk_is_not() {
        let failed = || StoreError::Failed { name: "s".to_owned(), cause: "away".into() };
        let taken = || StoreError::Taken { name: "s".to_owned() };
        let missing = || StoreError::Missing { name: "s".to_owned() };
        let after = |reach: Reach, patience_ms, tries: u32, error: &dyn Fn() -> StoreError| {
            let mut tried = 0;
            let done = reach.at_start(Duration::from_millis(patience_ms), || {
                tried += 1;
                if tried < tries { Err(error()) } else { Ok(()) }
            });
            (tried, done.map_err(|failure| failure.code))
        };
        assert_eq!(after(Reach::Network, 60_000, 3, &failed), (3, Ok(())));
        assert_eq!(after(Reach::Network, 0, 3, &failed), (1, Err(Exit::Unreachable)));
        assert_eq!(after(Reach::Network, 60_000, 3, &taken), (1, Err(Exit::OtherOwner)));
        assert_eq!(after(Reach::Disk, 60_000, 3, &failed), (1, Err(Exit::StateUnwritable)));

        let read = |reach: Reach, error| reach.unless_away::<()>(Err(Damage::Store(error)));
        assert!(read(Reach::Network, failed()).is_err(), "nothing is known of it");
        assert!(matches!(read(Reach::Network, missing()), Ok(Err(_))), "it is damaged");
        assert!(matches!(read(Reach::Disk, failed()), Ok(Err(_))), "a disk that can't read it won't later");
    }

    /// An unwritable store or letter folder ended the process at once with 69, and a full disk was retried for ever.
    #[test]
    fn regression_a_disk_is_tried_for_ten_minutes_whatever_it_says_and_then_ends_with_73() {
        let (sink, what) = ("s".to_owned(), "w".to_owned());
        let refused = || SinkError::Refused { sink: sink.clone(), what: what.clone(), cause: "no".into() };
        let unanswered = || SinkError::Unanswered { sink: sink.clone(), what: what.clone(), cause: "?".into() };
        let fenced = || SinkError::Fenced { sink: sink.clone(), what: what.clone() };
        // error | on a disk: at once, in the end | of a server: at once, in the end
        type Row<'a> = (&'a dyn Fn() -> SinkError, [(Option<Exit>, Exit); 2]);
        let rows: [Row<'_>; 3] = [
            (&refused, [(None, Exit::StateUnwritable), (Some(Exit::Unreachable), Exit::Unreachable)]),
            (&unanswered, [(None, Exit::StateUnwritable), (None, Exit::Unreachable)]),
            (&fenced, [(Some(Exit::OtherOwner), Exit::OtherOwner), (Some(Exit::OtherOwner), Exit::OtherOwner)]),
        ];
        for (make, expected) in rows {
            let met = [Reach::Disk, Reach::Network].map(|reach| (make().hopeless(reach), reach.failure(make()).code));
            assert_eq!(met, expected, "{}", make());
        }
        assert_eq!(Reach::Disk.gives_up_after(), Some(Duration::from_secs(600)));
        assert_eq!(Reach::Network.gives_up_after(), None);
    }
}
