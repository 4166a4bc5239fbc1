//! Which worker reads which partition.
//!
//! A worker reads and decodes the records of its partitions, and remembers and counts those of its key groups, which costs about as
//! much. Groups have their owners (`group mod workers`); so whoever owns a hot video reads less.

use std::{collections::BTreeMap, ops::ControlFlow};

use connectors::json::JsonEvents;
use dataflows::{
    checkpoint::part::{PartState, group},
    identity::{KEY_GROUPS, KeyGroup},
    port::{Decode as _, PartitionId, PartitionReader, Reached},
};

/// Records that are looked at of all partitions, and of one at the least: many even out by themselves.
const SAMPLE_RECORDS: usize = 16_384;
const PARTITION_RECORDS_MIN: usize = 64;

/// How records spread over the key groups, as far as is known.
#[derive(Clone, Debug, Default)]
pub struct Shares(BTreeMap<KeyGroup, u64>);

impl Shares {
    /// As the first records of a reader do, of one of so many partitions, and of this size, in any unit. What can't be read is left
    /// out: who reads it in earnest tells.
    pub fn sample(&mut self, reader: &mut dyn PartitionReader, size: u64, partitions: usize) {
        let wanted = (SAMPLE_RECORDS / partitions).max(PARTITION_RECORDS_MIN);
        let (mut seen, mut groups) = (0, Vec::new());
        while seen < wanted {
            let reached = reader.read(&mut |record| {
                groups.extend(JsonEvents.decode(record.payload).ok().map(|event| KeyGroup::of(&event.video_id)));
                seen += 1;
                if seen < wanted { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            });
            if !matches!(reached, Ok(Reached::More)) {
                break;
            }
        }
        // Each stands for as many of the partition.
        let weight = size / (groups.len() as u64).max(1);
        for group in groups {
            *self.0.entry(group).or_default() += weight;
        }
    }

    /// As those do that a checkpoint has counted.
    pub fn of_state(state: &PartState) -> Self {
        let counted = |number: usize| state.groups[number].cells.iter().map(|cell| cell.count).sum();
        Self((0..KEY_GROUPS).map(|number| (group(number), counted(number))).collect())
    }

    /// Of so much, what each of so many workers counts. Nothing where nothing is known: then all are alike.
    fn by_worker(&self, size: u64, workers: usize) -> Vec<u64> {
        let known: u64 = self.0.values().sum();
        let mut by_worker = vec![0_u128; workers];
        for (group, weight) in &self.0 {
            by_worker[group.owner(workers)] += u128::from(*weight);
        }
        by_worker.iter().map(|weight| (weight * u128::from(size) / u128::from(known.max(1))) as u64).collect()
    }
}

/// Which of `readers` workers reads which partition, by their sizes: the largest first, each to the worker with the least so far. The
/// first `readers` of `workers` read, all count.
pub fn owners(
    sizes: &[(PartitionId, u64)],
    shares: &Shares,
    readers: usize,
    workers: usize,
) -> BTreeMap<PartitionId, usize> {
    let mut loads = shares.by_worker(sizes.iter().map(|(_, size)| size).sum(), workers);
    loads.truncate(readers);
    let mut sizes = sizes.to_vec();
    sizes.sort_by_key(|(_, size)| std::cmp::Reverse(*size));
    let mut owners = BTreeMap::new();
    for (partition, size) in sizes {
        let least = (0..readers).min_by_key(|worker| loads[*worker]).expect("there is a worker");
        // One more each, so that empty partitions spread as well.
        loads[least] += size + 1;
        owners.insert(partition, least);
    }
    owners
}

#[cfg(test)]
mod tests {
    use connectors::memory::log::MemoryPartition;
    use dataflows::{series::SeriesNo, time::Minute, window::CellState};

    use super::*;

    const SIZES: [u64; 4] = [1_940, 4_040, 1_900, 2_630];

    fn spread(sizes: [u64; 4], shares: &Shares, readers: usize, workers: usize) -> Vec<usize> {
        let sizes: Vec<_> = (0..).map(PartitionId).zip(sizes).collect();
        owners(&sizes, shares, readers, workers).into_values().collect()
    }

    #[test]
    fn partitions_are_spread_by_size_where_nothing_is_known() {
        assert_eq!(spread(SIZES, &Shares::default(), 2, 2), [1, 0, 0, 1]);
        assert_eq!(spread([0; 4], &Shares::default(), 2, 2), [0, 1, 0, 1]);
    }

    #[test]
    fn who_owns_a_hot_video_reads_less() {
        let mut state = PartState::default();
        for (number, group) in state.groups.iter_mut().enumerate() {
            let count = if number == 4 { 5_000 } else { 40 };
            group.cells = vec![CellState { series: SeriesNo(0), minute: Minute(1), count, unwritten: false }];
        }
        // Half of all is of group 4: worker 0 of two counts three quarters.
        assert_eq!(spread([1_270, 6_190, 1_270, 1_270], &Shares::of_state(&state), 2, 2), [0, 1, 1, 0]);
        // Worker 4 of five owns it, and the first process has two of them.
        assert_eq!(spread([1_270, 6_190, 1_270, 1_270], &Shares::of_state(&state), 2, 5), [1, 0, 1, 1]);
    }

    #[test]
    fn a_sample_stands_for_its_partition() {
        let log = MemoryPartition::new(PartitionId(0));
        let append = |video: &str, number: usize| {
            let payload = format!(
                r#"{{"event_id":"{number}","video_id":"{video}","event_type":"view","timestamp":1767225600000}}"#
            );
            log.append(None, None, payload.as_bytes());
        };
        for number in 0..100 {
            append(if number % 4 == 0 { "hot" } else { "cold" }, number);
        }
        log.append(None, None, b"nonsense");
        let mut shares = Shares::default();
        shares.sample(&mut log.reader(0).unwrap(), 1_000, 1);
        assert_eq!(shares.0, [("hot", 250), ("cold", 750)].map(|(video, of)| (KeyGroup::of(video), of)).into());
    }
}
