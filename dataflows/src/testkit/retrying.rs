//! A caller that repeats what failed, as the ports ask it to.

use std::collections::HashSet;

use crate::{
    letter::DeadLetter,
    port::{
        CheckpointStore, Claim, CountRow, CountSink, LetterSink, PartitionId, SinkError, StoreError, Version, WritePart,
    },
};

/// Attempts at one call. Half of [`super::Faulty`]'s calls go through, so that many in a row don't fail by chance.
const ATTEMPTS_MAX: usize = 64;

/// Repeats each call until it is `Ok`, or an answer that is not a fault: taken, missing or fenced.
pub struct Retrying<S> {
    inner: S,
}

impl<S> Retrying<S> {
    /// Wraps `inner`.
    pub fn new(inner: S) -> Self {
        Self { inner }
    }

    /// What is wrapped.
    pub fn inner(&mut self) -> &mut S {
        &mut self.inner
    }

    fn repeat<T, E>(
        &mut self,
        mut call: impl FnMut(&mut S) -> Result<T, E>,
        passes: impl Fn(&E) -> bool,
    ) -> Result<T, E> {
        let mut last = call(&mut self.inner);
        for _ in 1..ATTEMPTS_MAX {
            match &last {
                Err(error) if passes(error) => last = call(&mut self.inner),
                _ => break,
            }
        }
        last
    }
}

fn unfenced(error: &SinkError) -> bool {
    !matches!(error, SinkError::Fenced { .. })
}

fn failed(error: &StoreError) -> bool {
    matches!(error, StoreError::Failed { .. })
}

impl<S: CountSink> CountSink for Retrying<S> {
    fn claim(&mut self) -> Result<Option<Claim>, SinkError> {
        self.repeat(S::claim, unfenced)
    }

    fn set_claim(&mut self, claim: &Claim) -> Result<(), SinkError> {
        self.repeat(|inner| inner.set_claim(claim), unfenced)
    }

    fn write(&mut self, version: Version, rows: &[CountRow]) -> Result<(), SinkError> {
        self.repeat(|inner| inner.write(version, rows), unfenced)
    }

    fn clear(&mut self) -> Result<(), SinkError> {
        self.repeat(S::clear, unfenced)
    }
}

impl<S: LetterSink> LetterSink for Retrying<S> {
    fn own(&mut self) -> Result<(), SinkError> {
        self.repeat(S::own, unfenced)
    }

    fn newest(&mut self) -> Result<Option<Version>, SinkError> {
        self.repeat(S::newest, unfenced)
    }

    fn published(&mut self) -> Result<HashSet<(PartitionId, u64)>, SinkError> {
        self.repeat(S::published, unfenced)
    }

    fn publish(&mut self, version: Version, letters: &[DeadLetter]) -> Result<(), SinkError> {
        self.repeat(|inner| inner.publish(version, letters), unfenced)
    }
}

impl<S: CheckpointStore> CheckpointStore for Retrying<S> {
    fn claim_generation(&mut self, above: u64) -> Result<u64, StoreError> {
        self.repeat(|inner| inner.claim_generation(above), failed)
    }

    fn write_part(&mut self, name: &str, write: &mut WritePart<'_>) -> Result<(), StoreError> {
        self.repeat(|inner| inner.write_part(name, write), failed)
    }

    /// A commit that failed may have been done: then the repetition finds the version taken by itself, and knows
    /// it by its bytes.
    fn commit(&mut self, version: Version, manifest: &[u8]) -> Result<(), StoreError> {
        let mut attempts = 0;
        let answer = self.repeat(
            |inner| {
                attempts += 1;
                inner.commit(version, manifest)
            },
            failed,
        );
        match answer {
            Err(StoreError::Taken { name }) if 1 < attempts => match self.manifest(version) {
                Ok(stored) if stored == manifest => Ok(()),
                _ => Err(StoreError::Taken { name }),
            },
            answer => answer,
        }
    }

    fn manifests(&mut self) -> Result<Vec<Version>, StoreError> {
        self.repeat(S::manifests, failed)
    }

    fn manifest(&mut self, version: Version) -> Result<Vec<u8>, StoreError> {
        self.repeat(|inner| inner.manifest(version), failed)
    }

    fn part(&mut self, name: &str) -> Result<Vec<u8>, StoreError> {
        self.repeat(|inner| inner.part(name), failed)
    }

    fn retain(&mut self, versions: &[Version], parts: &[String]) -> Result<(), StoreError> {
        self.repeat(|inner| inner.retain(versions, parts), failed)
    }
}
