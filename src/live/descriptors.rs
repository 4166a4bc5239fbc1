//! Room for clients, and for what is behind them: connections must not take the file descriptors that the log, the state and
//! the servers need.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Of the descriptors that may be open, connections take so many at the most: one of two.
const SHARE: u64 = 2;

/// How many connections there may be, of as many as are wanted. Where the limit of descriptors may be raised for them, it is.
pub fn for_connections(wanted: usize) -> usize {
    let needed = SHARE * wanted as u64;
    let limit = raised(getrlimit(Resource::Nofile), needed);
    let room = usize::try_from(limit / SHARE).unwrap_or(usize::MAX);
    if room < wanted {
        tracing::warn!(
            wanted,
            room,
            descriptors = limit,
            "the limit of open files (ulimit -n) leaves room for fewer connections"
        );
    }
    wanted.min(room)
}

/// The limit, once it is raised as far as needed and allowed.
fn raised(now: Rlimit, needed: u64) -> u64 {
    let current = now.current.unwrap_or(u64::MAX);
    let wanted = needed.min(now.maximum.unwrap_or(u64::MAX));
    if wanted <= current {
        return current;
    }
    match setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), ..now }) {
        Ok(()) => wanted,
        Err(error) => {
            tracing::debug!(%error, "the limit of open files stays");
            current
        }
    }
}
