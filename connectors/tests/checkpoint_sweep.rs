//! Damage of every kind to stored checkpoints: nothing but what was written is ever taken for state.

#![allow(clippy::unwrap_used)]

use std::path::Path;

use connectors::{
    embedded::checkpoints::CheckpointDir,
    memory::checkpoints::{CheckpointState, MemoryCheckpoints},
};
use dataflows::{
    announce::{PartitionState, Partitions},
    checkpoint::{
        manifest::{Hot, Manifest, Meaning, PartInfo},
        part::PartState,
        plan::{self, Loaded},
    },
    ledger::Ledger,
    port::{CheckpointStore as _, PartitionId, Version},
    rules::Rules,
    series::SeriesNo,
    testkit::SplitMix64,
    time::Minute,
    window::CellState,
};

const SEED: u64 = 39;

/// Of the large checkpoint.
const SERIES: u32 = 2_000;
const HARMS: u64 = 600;

/// A whole checkpoint, as it must be read or not at all.
struct Checkpoint {
    version: Version,
    stored: CheckpointState,
    /// What it holds.
    good: Loaded,
}

impl Checkpoint {
    fn of(mut store: MemoryCheckpoints) -> Self {
        let version = store.manifests().unwrap().pop().unwrap();
        let good = plan::load(&mut store, version).unwrap();
        let stored = store.state().clone();
        Self { version, stored, good }
    }

    /// The manifest, and then the parts.
    fn files(&self) -> Vec<Option<String>> {
        std::iter::once(None).chain(self.stored.parts.keys().cloned().map(Some)).collect()
    }

    fn bytes(&self, file: Option<&str>) -> &[u8] {
        match file {
            None => &self.stored.manifests[&self.version],
            Some(name) => &self.stored.parts[name],
        }
    }

    /// Requires that the checkpoint is refused with these bytes for one of its files.
    #[track_caller]
    fn assert_refused(&self, file: Option<&str>, bytes: Vec<u8>, what: &str) {
        let mut store = MemoryCheckpoints::new();
        *store.state() = self.stored.clone();
        match file {
            None => store.state().manifests.insert(self.version, bytes),
            Some(name) => store.state().parts.insert(name.to_owned(), bytes),
        };
        let loaded = plan::load(&mut store, self.version);
        assert!(loaded.is_err(), "{what} of {file:?} is taken for state");
    }
}

/// What a real run has written: two checkpoints' increments.
fn small() -> Checkpoint {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/checkpoints/increments");
    let mut from = CheckpointDir::look_at(dir).unwrap();
    let mut to = MemoryCheckpoints::new();
    let version = from.manifests().unwrap().pop().unwrap();
    let manifest = plan::read_manifest(&mut from, version).unwrap();
    for part in &manifest.parts {
        to.put_part(&part.name, &from.part(&part.name).unwrap()).unwrap();
    }
    to.commit(version, &from.manifest(version).unwrap()).unwrap();
    Checkpoint::of(to)
}

/// A large one, of two parts.
fn large() -> Checkpoint {
    let mut dice = SplitMix64::new(SEED);
    let mut store = MemoryCheckpoints::new();
    let version = Version { generation: store.claim_generation(0).unwrap(), number: 1 };
    let (mut counted, mut parts) = (0, Vec::new());
    for worker in 0..2 {
        let mut part = PartState::default();
        // Groups of its own, so that their cells add up.
        let group = &mut part.groups[worker];
        for series in 0..SERIES {
            group.names.push((format!("video-{worker}-{series}").into(), "view".into()));
            for minute in 0..4 {
                let count = 1 + dice.below(1_000);
                counted += count;
                group.cells.push(CellState {
                    series: SeriesNo(series),
                    minute: Minute(minute),
                    count,
                    unwritten: false,
                });
            }
        }
        let (name, bytes) = (format!("{worker}.part"), part.encode());
        store.put_part(&name, &bytes).unwrap();
        parts.push(PartInfo::of(name, version.number, &bytes));
    }
    let ledger = Ledger { read: counted, counted, ..Ledger::default() };
    let partition = PartitionState { next_offset: counted, ledger, ..PartitionState::default() };
    let manifest = Manifest {
        version,
        partitions: Partitions([(PartitionId(0), partition)].into()),
        hot: Hot::default(),
        parts,
        meaning: Meaning::of(&Rules::default()),
        ..small().good.manifest
    };
    store.commit(version, &manifest.encode()).unwrap();
    Checkpoint::of(store)
}

#[test]
fn no_flipped_bit_and_no_cut_of_a_checkpoint_is_taken_for_state() {
    let small = small();
    for file in small.files() {
        let file = file.as_deref();
        let bytes = small.bytes(file);
        for place in 0..bytes.len() {
            let mut flipped = bytes.to_vec();
            flipped[place] ^= 1 << (place % 8);
            small.assert_refused(file, flipped, &format!("a flipped bit at {place}"));
        }
        for length in 0..bytes.len() {
            small.assert_refused(file, bytes[..length].to_vec(), &format!("a cut to {length}"));
        }
        small.assert_refused(file, [bytes, &[0]].concat(), "a byte more");
    }
}

#[test]
fn no_part_stands_for_another_and_none_may_be_missing() {
    let small = small();
    let names: Vec<&str> = small.stored.parts.keys().map(String::as_str).collect();
    for &name in &names {
        for &other in names.iter().filter(|other| **other != name) {
            small.assert_refused(Some(name), small.bytes(Some(other)).to_vec(), "another part");
        }
        let mut store = MemoryCheckpoints::new();
        *store.state() = small.stored.clone();
        store.state().parts.remove(name);
        assert!(plan::load(&mut store, small.version).is_err(), "{name} is missing");
    }
}

#[test]
fn no_harm_that_a_seed_draws_to_a_large_checkpoint_is_taken_for_state() {
    let large = large();
    let mut dice = SplitMix64::new(SEED);
    let files = large.files();
    for number in 0..HARMS {
        // Mostly the parts, which are large.
        let file = files[dice.below(8).min(files.len() as u64 - 1) as usize].as_deref();
        let mut bytes = large.bytes(file).to_vec();
        let place = dice.below(bytes.len() as u64) as usize;
        let what = match number % 4 {
            0 => {
                bytes[place] ^= 1 << dice.below(8);
                "a flipped bit"
            }
            1 => {
                bytes.truncate(place);
                "a cut"
            }
            kind => {
                // As a disk loses its blocks: 512 or 4096 bytes.
                let block = if kind == 2 { 512 } else { 4096 };
                let from = place / block * block;
                let until = bytes.len().min(from + block);
                bytes[from..until].fill(0);
                "a zeroed block"
            }
        };
        if bytes != large.bytes(file) {
            large.assert_refused(file, bytes, &format!("{what} at {place}, harm {number} of seed {SEED}"));
        }
    }
}
