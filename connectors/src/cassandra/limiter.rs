//! How many requests are in flight: halved when the cluster struggles, and one more after each round that went well.
//!
//! All requests that were under way when the cluster faltered tend to fail together, so they count as one failure: a
//! request carries the era in which it was sent, a failure of the present era halves the limit and begins the next one,
//! and those of older eras change nothing. (As TCP does: one halving per window of data, RFC 5681.)

/// A round trip at 1 ms with these in flight is 64,000 requests a second, about what one node takes.
const START: usize = 64;
/// More gains nothing on one node (measured: 64 takes 48 k, 256 takes 60-90 k, 1024 takes 64 k rows/s).
const MAX: usize = 256;

/// Invariant: 1 ≤ limit ≤ [`MAX`].
#[derive(Debug)]
pub(super) struct Limiter {
    limit: usize,
    /// Since the limit last changed.
    successes: usize,
    era: Era,
}

/// Between two halvings.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) struct Era(u64);

impl Limiter {
    pub(super) fn new() -> Self {
        Self { limit: START, successes: 0, era: Era(0) }
    }

    pub(super) fn limit(&self) -> usize {
        self.limit
    }

    pub(super) fn era(&self) -> Era {
        self.era
    }

    pub(super) fn succeeded(&mut self) {
        self.successes += 1;
        if self.limit <= self.successes {
            self.successes = 0;
            self.limit = (self.limit + 1).min(MAX);
        }
    }

    pub(super) fn failed(&mut self, sent_in: Era) {
        if sent_in == self.era {
            self.era = Era(self.era.0 + 1);
            self.successes = 0;
            self.limit = (self.limit / 2).max(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_round_of_successes_adds_one_up_to_the_greatest() {
        let mut limiter = Limiter::new();
        (0..START - 1).for_each(|_| limiter.succeeded());
        assert_eq!(limiter.limit(), START);
        limiter.succeeded();
        assert_eq!(limiter.limit(), START + 1);
        (0..MAX * MAX).for_each(|_| limiter.succeeded());
        assert_eq!(limiter.limit(), MAX);
    }

    #[test]
    fn failures_of_one_era_halve_once_and_never_below_one() {
        let mut limiter = Limiter::new();
        let era = limiter.era();
        (0..START).for_each(|_| limiter.failed(era));
        assert_eq!(limiter.limit(), START / 2);
        for _ in 0..20 {
            limiter.failed(limiter.era());
        }
        assert_eq!(limiter.limit(), 1);
        limiter.succeeded();
        assert_eq!(limiter.limit(), 2);
    }

    #[test]
    fn a_halving_begins_the_count_of_successes_anew() {
        let mut limiter = Limiter::new();
        (0..START - 1).for_each(|_| limiter.succeeded());
        limiter.failed(limiter.era());
        (0..START / 2 - 1).for_each(|_| limiter.succeeded());
        assert_eq!(limiter.limit(), START / 2);
    }
}
