//! What one process decides at a start and all processes of a job do: where it starts, who reads what, under whose name.

use std::collections::{BTreeMap, HashSet};

use dataflows::{
    announce::Partitions,
    checkpoint::{
        manifest::{Hot, Meaning},
        part::PartState,
    },
    graph::Start,
    identity::IdKey,
    port::{PartitionId, Version},
    rules::Rules,
    ruling::Ruling,
    time::EventTime,
};
use serde::{Deserialize, Serialize};

/// What stays the same over all starts of a history, and this start's generation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Which history.
    pub history: u128,
    /// Which log.
    pub log: u128,
    /// The secret under which ids are hashed.
    pub key: IdKey,
    /// What is counted.
    pub meaning: Meaning,
    /// Claimed at this start.
    pub generation: u64,
}

/// One start of a job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// Who we are.
    pub identity: Identity,
    /// The checkpoint that is resumed.
    pub resumed: Option<Version>,
    /// The frontier to start from.
    pub frontier: EventTime,
    /// The number of the newest checkpoint.
    pub number: u64,
    /// Every partition, where it starts.
    pub partitions: Partitions,
    /// What has left memory.
    pub hot: Hot,
    /// Which worker of the whole job reads which partition.
    pub owners: BTreeMap<PartitionId, usize>,
    /// The frontier of the rows that the sink holds from a newer checkpoint than the one resumed.
    pub write_from: EventTime,
    /// Letters that are published already though their records are read again: partition and offset.
    pub published: HashSet<(PartitionId, u64)>,
    /// What newer checkpoints ruled that are damaged.
    pub rulings: Vec<Ruling>,
    /// The rules; every process has the same configuration.
    pub rules: Rules,
    /// Workers in each process.
    pub workers: usize,
}

impl Plan {
    /// The start of the dataflow with this state.
    pub fn start(&self, mut state: PartState) -> Start {
        state.rulings.extend(&self.rulings);
        let (frontier, number, hot) = (self.frontier, self.number, self.hot);
        Start { frontier, number, partitions: self.partitions.clone(), hot, state }
    }

    /// Which worker reads a partition that is added while running: one that reads others already.
    pub fn owner_of_new(&self, partition: PartitionId) -> Option<usize> {
        let known = u32::try_from(self.owners.len()).ok().filter(|known| *known != 0)?;
        self.owners.values().nth((partition.0 % known) as usize).copied()
    }
}

/// The state of a resumed checkpoint once its letters are published and, unless rows are held back, all its rows
/// are written.
pub fn settled(mut state: PartState, write_from: EventTime) -> PartState {
    state.letters.clear();
    if write_from == 0 {
        state.mark_written();
    }
    state
}
