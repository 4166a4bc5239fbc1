//! A well-behaved workload, as a stream of lines: most of what a healthy producer sends, and nothing that is refused.

use std::collections::VecDeque;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::partition::partition_of;

/// What [`well_behaved`] makes. The defaults are the workload of the engine's published figures, but for the number of lines.
#[derive(Clone, Debug, PartialEq)]
pub struct Workload {
    /// Lines, repeats included.
    pub events: u64,
    pub partitions: usize,
    pub videos: usize,
    /// The exponent of the videos' popularity.
    pub zipf: f64,
    pub start_ms: u64,
    /// The event time that the lines are spread over, evenly.
    pub span_ms: u64,
    /// An event is at most this much older than its place in the stream.
    pub disorder_ms: u64,
    /// The share of lines that repeat an earlier one, byte for byte.
    pub repeat_share: f64,
    /// A repeat comes within so much event time.
    pub repeat_within_ms: u64,
}

impl Default for Workload {
    fn default() -> Self {
        Self {
            events: 100_000,
            partitions: 4,
            videos: 100_000,
            zipf: 1.1,
            start_ms: 1_767_225_600_000,
            span_ms: 3_600_000,
            disorder_ms: 20_000,
            repeat_share: 0.05,
            repeat_within_ms: 60_000,
        }
    }
}

/// The lines, each with its partition. The same seed and workload give the same lines.
pub fn well_behaved(seed: u64, workload: &Workload) -> WellBehaved {
    let weights = (1..=workload.videos).map(|rank| (rank as f64).powf(-workload.zipf));
    let cumulated = weights.scan(0.0, |sum, weight| {
        *sum += weight;
        Some(*sum)
    });
    WellBehaved {
        workload: workload.clone(),
        rng: ChaCha8Rng::seed_from_u64(seed),
        popularity: cumulated.collect(),
        recent: VecDeque::new(),
        next: 0,
    }
}

/// The iterator behind [`well_behaved`]; it keeps the lines that may still be repeated.
#[derive(Clone, Debug)]
pub struct WellBehaved {
    workload: Workload,
    rng: ChaCha8Rng,
    /// Cumulated weights of the videos, the most popular first.
    popularity: Vec<f64>,
    /// (place in the stream, partition, line) of the last `repeat_within_ms`.
    recent: VecDeque<(u64, usize, Vec<u8>)>,
    next: u64,
}

impl Iterator for WellBehaved {
    type Item = (usize, Vec<u8>);

    fn next(&mut self) -> Option<Self::Item> {
        if self.next == self.workload.events {
            return None;
        }
        let passed_ms = u128::from(self.workload.span_ms) * u128::from(self.next) / u128::from(self.workload.events);
        let now_ms = self.workload.start_ms + u64::try_from(passed_ms).expect("less than the span");
        self.next += 1;
        while self.recent.front().is_some_and(|(sent_ms, _, _)| sent_ms + self.workload.repeat_within_ms < now_ms) {
            self.recent.pop_front();
        }
        if !self.recent.is_empty() && self.rng.random_bool(self.workload.repeat_share) {
            let (_, partition, line) = &self.recent[self.rng.random_range(0..self.recent.len())];
            return Some((*partition, line.clone()));
        }
        let (partition, line) = self.fresh(now_ms);
        self.recent.push_back((now_ms, partition, line.clone()));
        Some((partition, line))
    }
}

impl WellBehaved {
    fn fresh(&mut self, now_ms: u64) -> (usize, Vec<u8>) {
        let timestamp_ms =
            now_ms.saturating_sub(self.rng.random_range(0..=self.workload.disorder_ms)).max(self.workload.start_ms);
        let all = self.popularity.last().copied().expect("there are videos");
        let drawn = self.rng.random_range(0.0..all);
        let video = self.popularity.partition_point(|cumulated| *cumulated <= drawn);
        let kind = match self.rng.random_range(0..100) {
            0..80 => "view",
            80..95 => "like",
            _ => "share",
        };
        let event_id = uuid(&mut self.rng);
        let user = self.rng.random_range(0..1_000_000);
        let value = f64::from(self.rng.random_range(0..10_000)) / 10.0;
        let line = format!(
            r#"{{"event_id":"{event_id}","video_id":"v{video:07}","event_type":"{kind}","timestamp":{timestamp_ms},"user_id":"u{user}","value":{value}}}"#
        );
        (partition_of(&format!("v{video:07}"), self.workload.partitions), line.into_bytes())
    }
}

/// A random id of the usual look.
pub(crate) fn uuid(rng: &mut ChaCha8Rng) -> String {
    let hex = format!("{:032x}", rng.random::<u128>());
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::ops::Add;

    use super::*;
    use crate::{Judge, Ledger, Rules};

    #[test]
    fn every_line_is_counted_or_a_duplicate_and_the_distinct_ones_are_counted() {
        let workload = Workload { events: 20_000, videos: 500, ..Workload::default() };
        let mut judge = Judge::new(Rules::default(), workload.partitions);
        let mut distinct = BTreeSet::new();
        for (partition, line) in well_behaved(7, &workload) {
            judge.judge(partition, None, &line);
            distinct.insert(line);
        }
        let total = judge.finish().ledger.into_iter().fold(Ledger::default(), Ledger::add);
        let counted = distinct.len() as u64;
        assert_eq!(total, Ledger { read: 20_000, counted, duplicate: 20_000 - counted, ..Ledger::default() });
        assert!((800..1_200).contains(&total.duplicate), "{total:?}");
    }

    #[test]
    fn the_same_seed_gives_the_same_lines_and_another_gives_others() {
        let workload = Workload { events: 1_000, ..Workload::default() };
        let lines = |seed| well_behaved(seed, &workload).collect::<Vec<_>>();
        assert_eq!(lines(1), lines(1));
        assert_ne!(lines(1), lines(2));
        assert_eq!(lines(1).len(), 1_000);
    }
}
