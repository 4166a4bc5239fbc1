//! The in-memory twin of the checkpoint stores.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use dataflows::port::{CheckpointStore, StoreError, Version, WritePart};

/// What a [`MemoryCheckpoints`] holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CheckpointState {
    /// The greatest generation that was claimed; 0 before the first claim.
    pub claimed: u64,
    /// The committed manifests.
    pub manifests: BTreeMap<Version, Vec<u8>>,
    /// The parts, by name.
    pub parts: BTreeMap<String, Vec<u8>>,
}

/// A checkpoint store in memory. Each clone remembers the generation that it claimed itself, as a process does.
#[derive(Clone, Debug, Default)]
pub struct MemoryCheckpoints {
    state: Arc<Mutex<CheckpointState>>,
    own_generation: Option<u64>,
}

impl MemoryCheckpoints {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    /// What it holds, locked until the guard goes; a test may damage it too.
    pub fn state(&self) -> MutexGuard<'_, CheckpointState> {
        // No step of this module leaves the maps half changed, so a panic elsewhere spoils nothing.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl CheckpointStore for MemoryCheckpoints {
    fn claim_generation(&mut self, above: u64) -> Result<u64, StoreError> {
        let generation = {
            let mut state = self.state();
            let committed = state.manifests.keys().next_back().map_or(0, |version| version.generation);
            state.claimed = state.claimed.max(committed).max(above) + 1;
            state.claimed
        };
        self.own_generation = Some(generation);
        Ok(generation)
    }

    fn write_part(&mut self, name: &str, write: &mut WritePart<'_>) -> Result<(), StoreError> {
        let mut bytes = Vec::new();
        write(&mut bytes).map_err(|cause| StoreError::Failed { name: name.to_owned(), cause: Box::new(cause) })?;
        self.state().parts.insert(name.to_owned(), bytes);
        Ok(())
    }

    fn commit(&mut self, version: Version, manifest: &[u8]) -> Result<(), StoreError> {
        let mut state = self.state();
        if version.generation < state.claimed {
            return Err(StoreError::Fenced { name: format!("{version:?}") });
        }
        if state.manifests.contains_key(&version) {
            return Err(StoreError::Taken { name: format!("{version:?}") });
        }
        state.manifests.insert(version, manifest.to_vec());
        Ok(())
    }

    fn manifests(&mut self) -> Result<Vec<Version>, StoreError> {
        Ok(self.state().manifests.keys().copied().collect())
    }

    fn manifest(&mut self, version: Version) -> Result<Vec<u8>, StoreError> {
        let found = self.state().manifests.get(&version).cloned();
        found.ok_or_else(|| StoreError::Missing { name: format!("{version:?}") })
    }

    fn part(&mut self, name: &str) -> Result<Vec<u8>, StoreError> {
        let found = self.state().parts.get(name).cloned();
        found.ok_or_else(|| StoreError::Missing { name: name.to_owned() })
    }

    fn retain(&mut self, versions: &[Version], parts: &[String]) -> Result<(), StoreError> {
        let mut state = self.state();
        if let Some(own) = self.own_generation
            && own < state.claimed
        {
            return Err(StoreError::Fenced { name: format!("generation {own}") });
        }
        state.manifests.retain(|version, _| versions.contains(version));
        state.parts.retain(|name, _| parts.contains(name));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use dataflows::testkit::{Faulty, Retrying, checkpoint_contract};

    use super::*;

    #[test]
    fn it_keeps_the_contract_of_checkpoint_stores() {
        checkpoint_contract::check(MemoryCheckpoints::new);
    }

    #[test]
    fn behind_faults_and_retries_it_keeps_the_contract_of_checkpoint_stores() {
        for seed in 0..20 {
            checkpoint_contract::check(|| Retrying::new(Faulty::new(MemoryCheckpoints::new(), seed)));
        }
    }

    #[test]
    fn handles_of_one_memory_keep_the_contract() {
        checkpoint_contract::check_shared(|| {
            let shared = MemoryCheckpoints::new();
            move || shared.clone()
        });
    }
}
