//! Which checkpoint to resume: reads facts from the store, then decides in one pure function. Parts are written here as well, beside where they are read.

use crate::{
    port::{CheckpointStore, StoreError, Version},
    ruling::Ruling,
};

use super::{
    fold::Fold,
    frame::FrameError,
    manifest::{Manifest, Meaning, PartInfo, Summing},
    part::PartState,
};

/// A checkpoint, read whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loaded {
    /// Its manifest.
    pub manifest: Manifest,
    /// The state of all its parts.
    pub state: PartState,
}

/// What is wrong with a stored checkpoint.
#[derive(Debug, thiserror::Error)]
pub enum Damage {
    /// The store does not give it.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A file is not as it was written.
    #[error("{name}: {error}")]
    Frame {
        /// Which file.
        name: String,
        /// What is wrong.
        error: FrameError,
    },
    /// A part is whole, but not the one that the manifest names.
    #[error("{name} is not the part that the manifest names")]
    Mixed {
        /// Which part.
        name: String,
    },
    /// The ledger of a partition does not balance, or not with the cells.
    #[error("the ledger does not balance: {0}")]
    Ledger(String),
}

/// What to do at a start.
#[derive(Debug)]
pub enum Resume {
    /// No checkpoint was ever made: begin with the log.
    Fresh,
    /// Resume from this one. The newer ones that were skipped are damaged.
    From {
        /// The newest good one.
        loaded: Box<Loaded>,
        /// Newer ones, with what is wrong with each.
        skipped: Vec<(Version, Damage)>,
    },
    /// There are checkpoints, and none is good.
    NoneGood {
        /// All of them, with what is wrong with each.
        skipped: Vec<(Version, Damage)>,
    },
    /// The checkpoint counts something else than what is configured.
    Changed {
        /// Which setting.
        setting: &'static str,
        /// Its value in the checkpoint, ms.
        stored: u64,
        /// Its value in the configuration, ms.
        configured: u64,
    },
}

/// Finds the newest good checkpoint.
pub fn resume(store: &mut dyn CheckpointStore, meaning: &Meaning) -> Result<Resume, StoreError> {
    let versions = store.manifests()?;
    let mut candidates = Vec::new();
    for version in versions.into_iter().rev() {
        let candidate = load(store, version);
        let good = candidate.is_ok();
        candidates.push((version, candidate));
        if good {
            break;
        }
    }
    Ok(decide(candidates, meaning))
}

/// The decision alone: candidates newest first, up to the first good one.
fn decide(candidates: Vec<(Version, Result<Loaded, Damage>)>, meaning: &Meaning) -> Resume {
    let mut skipped = Vec::new();
    for (version, candidate) in candidates {
        match candidate {
            Err(damage) => skipped.push((version, damage)),
            Ok(loaded) => {
                return match loaded.manifest.meaning.difference(meaning) {
                    Some((setting, stored, configured)) => Resume::Changed { setting, stored, configured },
                    None => Resume::From { loaded: Box::new(loaded), skipped },
                };
            }
        }
    }
    if skipped.is_empty() { Resume::Fresh } else { Resume::NoneGood { skipped } }
}

/// Reads one checkpoint whole and verifies all of it.
pub fn load(store: &mut dyn CheckpointStore, version: Version) -> Result<Loaded, Damage> {
    let manifest = read_manifest(store, version)?;
    let mut fold = Fold::default();
    for part in &manifest.parts {
        fold.add(manifest.standing(part, read_part(store, part)?));
    }
    let mut state = fold.finish();
    state.keep_from(manifest.hot.from);
    balance(&manifest, &state)?;
    Ok(Loaded { manifest, state })
}

/// Writes one part, which changed up to the checkpoint `number`.
pub fn write_part(
    store: &mut dyn CheckpointStore,
    name: &str,
    number: u64,
    state: &PartState,
) -> Result<PartInfo, StoreError> {
    let mut written = None;
    store.write_part(name, &mut |out| {
        let mut summing = Summing::new(out);
        state.write(&mut summing)?;
        written = Some(summing.part(name.to_owned(), number));
        Ok(())
    })?;
    Ok(written.expect("a store writes what it is given"))
}

/// Reads one part.
pub fn read_part(store: &mut dyn CheckpointStore, part: &PartInfo) -> Result<PartState, Damage> {
    let bytes = store.part(&part.name)?;
    if !part.matches(&bytes) {
        return Err(Damage::Mixed { name: part.name.clone() });
    }
    PartState::decode(&bytes).map_err(|error| Damage::Frame { name: part.name.clone(), error })
}

/// What a damaged checkpoint still says was ruled, as far as its manifest and parts can be read: its verdicts may have been
/// told, though an older one is resumed.
pub fn readable_rulings(store: &mut dyn CheckpointStore, version: Version) -> Vec<Ruling> {
    let parts = read_manifest(store, version).map_or_else(|_| Vec::new(), |manifest| manifest.parts);
    parts.iter().filter_map(|part| read_part(store, part).ok()).flat_map(|part| part.rulings).collect()
}

/// Reads a manifest alone.
pub fn read_manifest(store: &mut dyn CheckpointStore, version: Version) -> Result<Manifest, Damage> {
    let name = || format!("manifest {}-{}", version.generation, version.number);
    let bytes = store.manifest(version)?;
    let manifest = Manifest::decode(&bytes).map_err(|error| Damage::Frame { name: name(), error })?;
    if manifest.version == version { Ok(manifest) } else { Err(Damage::Mixed { name: name() }) }
}

/// The ledger of each partition balances, and all counted events are in the cells, or have left memory.
pub fn balance(manifest: &Manifest, state: &PartState) -> Result<(), Damage> {
    let mut counted = 0;
    for (partition, at) in &manifest.partitions.0 {
        if !at.ledger.balances() {
            return Err(Damage::Ledger(format!("partition {}: {:?}", partition.0, at.ledger)));
        }
        counted += at.ledger.counted;
    }
    let (cells, left) = (state.counted(), manifest.hot.left);
    if counted == cells + left {
        Ok(())
    } else {
        Err(Damage::Ledger(format!("{counted} counted, {cells} in the cells, {left} in those that left memory")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{announce::Partitions, checkpoint::manifest::Hot, identity::IdKey, rules::Rules};

    fn loaded(number: u64) -> (Version, Result<Loaded, Damage>) {
        let version = Version { generation: 1, number };
        let manifest = Manifest {
            version,
            history: 1,
            log: 2,
            key: IdKey([0, 0]),
            frontier: number * 100,
            watermark: 0,
            acknowledged: Version::default(),
            meaning: Meaning::of(&Rules::default()),
            partitions: Partitions::default(),
            hot: Hot::default(),
            parts: Vec::new(),
        };
        (version, Ok(Loaded { manifest, state: PartState::default() }))
    }

    fn broken(number: u64) -> (Version, Result<Loaded, Damage>) {
        (Version { generation: 1, number }, Err(Damage::Mixed { name: "a.part".into() }))
    }

    #[test]
    fn the_newest_good_checkpoint_is_resumed() {
        let meaning = Meaning::of(&Rules::default());
        assert!(matches!(decide(vec![], &meaning), Resume::Fresh));
        match decide(vec![broken(9), broken(8), loaded(7)], &meaning) {
            Resume::From { loaded, skipped } => {
                assert_eq!((loaded.manifest.version.number, skipped.len()), (7, 2));
            }
            other => panic!("{other:?}"),
        }
        assert!(matches!(decide(vec![broken(9)], &meaning), Resume::NoneGood { skipped } if skipped.len() == 1));
    }

    #[test]
    fn a_changed_meaning_is_refused_by_name() {
        let meaning = Meaning::of(&Rules { max_jump_ms: 5, ..Rules::default() });
        let resume = decide(vec![loaded(7)], &meaning);
        assert!(matches!(resume, Resume::Changed { setting: "time.max_jump", stored: 3_600_000, configured: 5 }));
    }
}
