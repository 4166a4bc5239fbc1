//! The in-memory twin of the dead-letter sinks.

use std::{
    collections::{BTreeMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use dataflows::{
    letter::DeadLetter,
    port::{LetterSink, PartitionId, SinkError, Version},
};

/// Dead letters in memory.
#[derive(Clone, Debug, Default)]
pub struct MemoryLetters {
    published: Arc<Mutex<BTreeMap<Version, Vec<DeadLetter>>>>,
}

impl MemoryLetters {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    /// What was published under each version, locked until the guard goes.
    pub fn published(&self) -> MutexGuard<'_, BTreeMap<Version, Vec<DeadLetter>>> {
        // One insert is all that changes the map, so a panic elsewhere spoils nothing.
        self.published.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All letters, by version and then as published.
    pub fn letters(&self) -> Vec<DeadLetter> {
        self.published().values().flatten().cloned().collect()
    }
}

impl LetterSink for MemoryLetters {
    fn newest(&mut self) -> Result<Option<Version>, SinkError> {
        Ok(MemoryLetters::published(self).keys().next_back().copied())
    }

    fn published(&mut self) -> Result<HashSet<(PartitionId, u64)>, SinkError> {
        Ok(self.letters().iter().map(|letter| (letter.partition, letter.offset)).collect())
    }

    fn publish(&mut self, version: Version, letters: &[DeadLetter]) -> Result<(), SinkError> {
        if !letters.is_empty() {
            MemoryLetters::published(self).entry(version).or_insert_with(|| letters.to_vec());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use dataflows::testkit::{Faulty, Retrying, letter_contract};

    use super::*;

    fn places(sink: &MemoryLetters) -> Vec<(PartitionId, u64)> {
        sink.letters().iter().map(|letter| (letter.partition, letter.offset)).collect()
    }

    #[test]
    fn it_keeps_the_contract_of_letter_sinks() {
        letter_contract::check(MemoryLetters::new, |sink| places(sink));
    }

    #[test]
    fn behind_faults_and_retries_it_keeps_the_contract_of_letter_sinks() {
        for seed in 0..20 {
            letter_contract::check(
                || Retrying::new(Faulty::new(MemoryLetters::new(), seed)),
                |sink| places(sink.inner().inner()),
            );
        }
    }
}
