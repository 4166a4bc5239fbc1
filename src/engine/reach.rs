//! Where a sink or a store is, which decides what its errors mean: how long to try, and what to end with.

use std::time::Duration;

use dataflows::port::{SinkError, StoreError};

use crate::exit::{Exit, Failure};

/// How long a disk may stay unwritable before the process gives up.
const DISK_GIVES_UP_AFTER: Duration = Duration::from_secs(600);

/// Where it is.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Reach {
    /// On a disk of ours. What it refuses (no room, no rights) may be mended meanwhile; where it is not, the process gives up.
    Disk,
    /// Another server. It is waited for as long as it takes; what it refuses it would refuse again.
    Network,
}

impl Reach {
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
        matches!(self, StoreError::Taken { .. }).then_some(Exit::OtherOwner)
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
