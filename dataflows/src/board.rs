//! How far each partition has got, as every worker knows it, and what follows: who may read on, and how far those with
//! nothing to read may step.
//!
//! What a worker knows of another's partitions is a little old. Clocks and paces only grow, so what is old is too low, and
//! both decisions err on the side of waiting; neither decides a verdict or a count.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    port::PartitionId,
    rules::Rules,
    time::{EventTime, floor_to},
};

/// Where one partition stands.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    /// Its clock.
    pub clock: Option<EventTime>,
    /// The time that it has been given up to: its records travel at this or later.
    pub pace: EventTime,
    /// The time at which its last record travels, if any was read.
    pub used: Option<EventTime>,
    /// Read to its end and quiet.
    pub drained: bool,
    /// Nothing will ever follow.
    pub ended: bool,
}

impl Standing {
    fn holds(&self) -> bool {
        !self.drained && !self.ended
    }
}

/// Every partition's standing.
#[derive(Clone, Debug, Default)]
pub struct Board {
    standings: BTreeMap<PartitionId, Standing>,
    /// The greatest time at which something other than a record travels.
    used: Option<EventTime>,
}

impl Board {
    /// A board of all partitions, each where it starts.
    pub fn new(standings: impl IntoIterator<Item = (PartitionId, Standing)>) -> Self {
        Self { standings: standings.into_iter().collect(), used: None }
    }

    /// Notes that something other than a record travels at a time.
    pub fn note_use(&mut self, time: EventTime) {
        self.used = self.used.max(Some(time));
    }

    /// Notes a standing; says whether it is news.
    pub fn set(&mut self, partition: PartitionId, standing: Standing) -> bool {
        self.standings.insert(partition, standing) != Some(standing)
    }

    /// How far a partition's clock may be for it to be read on: reading in step.
    ///
    /// A partition without a clock may always be read; while such a one is not drained, no other may. A drained one is
    /// as far as it has been given up to: until its worker has done that it holds the frontier, and what the others read
    /// waits in memory, where no bound on rows counts it yet.
    pub fn clock_limit(&self, rules: &Rules) -> EventTime {
        let so_far = |standing: &Standing| if standing.drained { Some(standing.pace) } else { standing.clock };
        match self.standings.values().filter(|standing| !standing.ended).map(so_far).min() {
            Some(None) => 0,
            Some(Some(slowest)) => slowest.saturating_add(rules.alignment_ms),
            None => EventTime::MAX,
        }
    }

    /// Whether all partitions are drained or ended.
    pub fn all_drained(&self) -> bool {
        !self.standings.values().any(Standing::holds)
    }

    /// The time that drained partitions may step to: the least pace of the others, or just past the greatest time in
    /// use when all are drained.
    pub fn drained_pace(&self, tick_ms: u64) -> EventTime {
        let holding = self.standings.values().filter(|standing| standing.holds());
        holding
            .map(|standing| standing.pace)
            .min()
            .unwrap_or_else(|| self.past_use(tick_ms).max(Some(self.greatest_pace())).unwrap_or(0))
    }

    /// Just past the greatest time in use.
    pub fn past_use(&self, tick_ms: u64) -> Option<EventTime> {
        // In coarse steps a clock may be ahead of the time its records travel at.
        let clocks =
            self.standings.values().filter_map(|standing| standing.clock).map(|clock| floor_to(clock, tick_ms));
        let used = self.standings.values().filter_map(|standing| standing.used);
        clocks.chain(used).chain(self.used).max().map(|time| time + tick_ms)
    }

    /// The greatest clock.
    pub fn greatest_clock(&self) -> Option<EventTime> {
        self.standings.values().filter_map(|standing| standing.clock).max()
    }

    /// Whether every partition has ended.
    pub fn all_ended(&self) -> bool {
        self.standings.values().all(|standing| standing.ended)
    }

    /// The greatest time that any partition has been given up to.
    pub fn greatest_pace(&self) -> EventTime {
        self.standings.values().map(|standing| standing.pace).max().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn board(standings: &[(Option<EventTime>, bool)]) -> Board {
        Board::new(standings.iter().enumerate().map(|(n, (clock, drained))| {
            let pace = clock.unwrap_or(0) / 100 * 100;
            let used = clock.map(|_| pace);
            (PartitionId(n as u32), Standing { clock: *clock, pace, used, drained: *drained, ended: false })
        }))
    }

    #[test]
    fn nobody_reads_far_ahead_of_the_slowest_undrained_clock() {
        let rules = Rules::default();
        let limit = |standings: &[_]| board(standings).clock_limit(&rules);
        assert_eq!(limit(&[(Some(1_000), false), (Some(5_000), false)]), 121_000);
        assert_eq!(limit(&[(None, false), (Some(5_000), false)]), 0, "one without a clock holds the others");
    }

    #[test]
    fn regression_nobody_reads_far_ahead_of_a_drained_partition_that_has_not_followed_yet() {
        // The others read on without a bound while the machine did not run its worker: many times what may wait for a
        // sink that is away.
        let rules = Rules::default();
        let mut board = board(&[(None, true), (Some(5_000_000), false), (Some(1_000), true)]);
        assert_eq!(board.clock_limit(&rules), 120_000);
        for n in [0, 2] {
            let pace = board.drained_pace(rules.tick_ms);
            board.set(PartitionId(n), Standing { pace, ..board.standings[&PartitionId(n)] });
        }
        assert_eq!(board.clock_limit(&rules), 5_120_000);
        assert_eq!(super::Board::new([]).clock_limit(&rules), EventTime::MAX);
    }

    #[test]
    fn the_drained_follow_the_others_and_step_just_past_the_greatest_when_all_are() {
        let pace = |standings: &[_]| board(standings).drained_pace(100);
        assert_eq!(pace(&[(Some(1_050), true), (Some(5_050), false), (Some(7_000), false)]), 5_000);
        assert_eq!(pace(&[(Some(1_050), true), (None, false)]), 0);
        assert_eq!(pace(&[(Some(1_050), true), (Some(5_050), true), (None, true)]), 5_100);
        assert_eq!(pace(&[(None, true)]), 0);
    }

    #[test]
    fn stepping_past_the_greatest_does_not_repeat_itself() {
        let mut all = board(&[(Some(1_050), true), (Some(5_050), true)]);
        for n in 0..2 {
            let pace = all.drained_pace(100);
            let before = all.standings[&PartitionId(n)];
            all.set(PartitionId(n), Standing { pace, ..before });
            assert_eq!(pace, 5_100);
        }
        assert_eq!(all.drained_pace(100), 5_100);
    }

    #[test]
    fn an_event_behind_a_drained_clock_still_becomes_visible() {
        // It travels at 5,100, the time given up to, and moves no clock: all must step past 5,100.
        let mut all = board(&[(Some(5_050), true)]);
        all.set(
            PartitionId(0),
            Standing { clock: Some(5_050), pace: 5_100, used: Some(5_100), drained: true, ended: false },
        );
        assert_eq!(all.drained_pace(100), 5_200);
    }
}
