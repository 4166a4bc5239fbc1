//! Checkpoints in an object store: S3, or what talks like it.
//!
//! Names, claims and fencing are those of a folder ([`crate::embedded::checkpoints`]), below `s3://BUCKET/PREFIX/`:
//!
//! ```text
//! generation-GGGGGGGGGGGGGGGGGGGG                     a claim, empty; the greatest one is the owner
//! GGGGGGGGGGGGGGGGGGGG-NNNNNNNNNNNNNNNNNNNN.manifest  a commit
//! parts/NAME                                          a part
//! ```
//!
//! What an fsync and a hard link are there is here an answered PUT, and one with `If-None-Match: *`. The store must heed
//! that header (a claim tries it out), and a list must hold whatever was written before it was asked for, as S3's does.

mod bucket;
mod connect;

use std::future::Future;

use dataflows::port::{BoxError, CheckpointStore, StoreError, Version, WritePart};
use object_store::path::Path;
use tokio::runtime::{Builder, Runtime};

use self::bucket::Bucket;
use crate::checkpoint_names::{
    CLAIM_ATTEMPTS_MAX, PARTS, claim_name, fits_a_part, greatest_claim, manifest_name, manifest_of, next_generation,
    old_claims,
};

/// A [`CheckpointStore`] in a bucket.
///
/// * An error comes within 30 s of the last thing that the server said; large parts go in pieces, each with its own time.
/// * After a failed `commit` its manifest may be there: repeated, it is `Taken`, and the caller compares the bytes. No
///   exclusive write is repeated in here, since the answer to the repeat would be taken for that of another writer.
/// * `commit` may answer `Fenced` and leave its manifest, and `retain` answers `Fenced` where this handle's own claim is no
///   longer the greatest: as of a folder. A handle that claimed none (a tool's) is not fenced.
/// * A large part that failed may leave pieces that no list shows; a lifecycle rule of the bucket clears them.
#[derive(Debug)]
pub struct CheckpointObjects {
    bucket: Bucket,
    own_generation: Option<u64>,
    runtime: OwnRuntime,
}

impl CheckpointObjects {
    /// A handle of `s3://bucket/prefix`; the prefix may be empty. Nothing is asked of the server yet, so an error is one of
    /// the settings.
    ///
    /// `variables` are environment variables: of those that are named `AWS_…` the usual ones say who asks, and where.
    pub fn open(
        bucket: &str,
        prefix: &str,
        variables: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, StoreError> {
        let shown = format!("s3://{bucket}/{prefix}");
        let failed = |cause| StoreError::Failed { name: shown.clone(), cause };
        let root = Path::parse(prefix).map_err(|cause| failed(cause.into()))?;
        let (patient, once) = connect::s3(bucket, variables).map_err(failed)?;
        Self::on(Bucket { patient, once, root, shown: shown.trim_end_matches('/').to_owned() })
    }

    fn on(bucket: Bucket) -> Result<Self, StoreError> {
        let runtime = Builder::new_current_thread().enable_all().build();
        let runtime = runtime
            .map_err(|cause| StoreError::Failed { name: bucket.shown.clone(), cause: Box::new(cause) })
            .map(|runtime| OwnRuntime(Some(runtime)))?;
        Ok(Self { bucket, own_generation: None, runtime })
    }

    /// Does something with the bucket and waits for it; `name` is what an error is about.
    fn wait<'a, T, F>(&'a self, name: &str, act: impl FnOnce(&'a Bucket) -> F) -> Result<T, StoreError>
    where
        F: Future<Output = object_store::Result<T>>,
    {
        self.runtime.wait(act(&self.bucket)).map_err(|error| self.failed(name, bucket::told(error)))
    }

    fn failed(&self, name: &str, cause: BoxError) -> StoreError {
        StoreError::Failed { name: self.bucket.shown(name), cause }
    }

    fn names(&self) -> Result<Vec<String>, StoreError> {
        self.wait("", |bucket| bucket.names(""))
    }

    /// Whether no greater generation is claimed; `name` is what was to be changed.
    fn assert_owner(&self, generation: u64, name: &str) -> Result<(), StoreError> {
        let is_fenced = generation < greatest_claim(&self.names()?);
        if is_fenced { Err(StoreError::Fenced { name: self.bucket.shown(name) }) } else { Ok(()) }
    }

    /// Creates an object, unless it is there: whether it did.
    fn create(&self, name: &str, bytes: &[u8]) -> Result<bool, StoreError> {
        self.wait(name, |bucket| bucket.create(name, bytes))
    }

    fn read(&self, name: &str) -> Result<Vec<u8>, StoreError> {
        let found = self.wait(name, |bucket| bucket.read(name))?;
        found.ok_or_else(|| StoreError::Missing { name: self.bucket.shown(name) })
    }

    fn remove(&self, names: Vec<String>) -> Result<(), StoreError> {
        self.wait("", |bucket| bucket.remove(names))
    }

    fn part_name(&self, name: &str) -> Result<String, StoreError> {
        let path = format!("{PARTS}/{name}");
        if fits_a_part(name) { Ok(path) } else { Err(self.failed(&path, "that is no name of a part".into())) }
    }

    /// Where the header is not heeded, two owners would overwrite each other's manifests. Seen by a second claim like ours.
    fn assert_exclusive(&self, claim: &str) -> Result<(), StoreError> {
        match self.create(claim, b"")? {
            false => Ok(()),
            true => {
                Err(self.failed(claim, "it was created twice: this server does not heed `If-None-Match: *`".into()))
            }
        }
    }
}

impl CheckpointStore for CheckpointObjects {
    fn claim_generation(&mut self, above: u64) -> Result<u64, StoreError> {
        for _ in 0..CLAIM_ATTEMPTS_MAX {
            let generation = next_generation(&self.names()?, above);
            let name = claim_name(generation);
            if self.create(&name, b"")? {
                self.assert_exclusive(&name)?;
                self.own_generation = Some(generation);
                return Ok(generation);
            }
        }
        let cause = format!("{CLAIM_ATTEMPTS_MAX} claims in a row were lost to other processes");
        Err(self.failed("", cause.into()))
    }

    fn write_part(&mut self, name: &str, write: &mut WritePart<'_>) -> Result<(), StoreError> {
        let name = self.part_name(name)?;
        // A piece of an upload may have to be sent again, so all of them stay at hand.
        let mut bytes = Vec::new();
        write(&mut bytes).map_err(|cause| self.failed(&name, Box::new(cause)))?;
        self.wait(&name, |bucket| bucket.write(&name, &bytes))
    }

    fn commit(&mut self, version: Version, manifest: &[u8]) -> Result<(), StoreError> {
        let name = manifest_name(version);
        self.assert_owner(version.generation, &name)?;
        if !self.create(&name, manifest)? {
            return Err(StoreError::Taken { name: self.bucket.shown(&name) });
        }
        self.assert_owner(version.generation, &name)
    }

    fn manifests(&mut self) -> Result<Vec<Version>, StoreError> {
        Ok(self.names()?.iter().filter_map(|name| manifest_of(name)).collect())
    }

    fn manifest(&mut self, version: Version) -> Result<Vec<u8>, StoreError> {
        self.read(&manifest_name(version))
    }

    fn part(&mut self, name: &str) -> Result<Vec<u8>, StoreError> {
        self.read(&self.part_name(name)?)
    }

    fn retain(&mut self, versions: &[Version], parts: &[String]) -> Result<(), StoreError> {
        // Listed before the fence is looked at: whatever a newer owner writes is not in these lists.
        let names = self.names()?;
        let part_names = self.wait(PARTS, |bucket| bucket.names(PARTS))?;
        if let Some(own) = self.own_generation {
            self.assert_owner(own, "")?;
        }
        // No manifest may be left whose parts are gone.
        let dropped = |name: &&String| manifest_of(name).is_some_and(|version| !versions.contains(&version));
        self.remove(names.iter().filter(dropped).cloned().collect())?;
        let dropped = part_names.iter().filter(|name| !parts.contains(name));
        self.remove(dropped.map(|name| format!("{PARTS}/{name}")).collect())?;
        self.remove(old_claims(&names).cloned().collect())
    }
}

/// The runtime of one handle: the crate is async, and the port's callers are threads of their own.
#[derive(Debug)]
struct OwnRuntime(Option<Runtime>);

impl OwnRuntime {
    fn wait<T>(&self, future: impl Future<Output = T>) -> T {
        self.0.as_ref().expect("it goes with its owner").block_on(future)
    }
}

impl Drop for OwnRuntime {
    fn drop(&mut self) {
        // Otherwise whoever drops a handle would wait for names that are still being looked up.
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

#[cfg(test)]
mod tests;
