//! Checkpoints in a directory.
//!
//! ```text
//! generation-GGGGGGGGGGGGGGGGGGGG                     a claim, empty; the greatest one is the owner
//! GGGGGGGGGGGGGGGGGGGG-NNNNNNNNNNNNNNNNNNNN.manifest  a commit: generation and number, 20 digits each
//! parts/NAME                                          a part, under the name that its writer gave it
//! .tmp-RRRRRRRRRRRRRRRR, parts/.tmp-…                 an unfinished write
//! ```
//!
//! Directories are made 0700, files 0600. The file system must have hard links, exclusive creation and fsync of
//! directories, as local ones on Linux do.
//!
//! Fencing: an owner claims before it lists the manifests, and a commit looks at the claims before and after it links
//! its manifest. So a commit that is `Ok` is seen by every later owner, and a zombie learns that it is one.

mod direct;
pub(crate) mod file;

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use dataflows::port::{CheckpointStore, StoreError, Version, WritePart};

use crate::checkpoint_names::{
    CLAIM_ATTEMPTS_MAX, PARTS, claim_name, fits_a_part, greatest_claim, manifest_name, manifest_of, next_generation,
    old_claims,
};

/// A [`CheckpointStore`] on a directory.
///
/// * After a failed `commit` its manifest may be there: repeated, it would be `Taken`. A writer goes on with the next number.
/// * `commit` may answer `Fenced` and leave its manifest: the generation was lost in the same instant. That checkpoint is
///   complete, and every manifest of the new owner is greater.
/// * `retain` answers `Fenced` where this handle's own claim is no longer the greatest. It drops what was there when it was
///   called, so no part of a coming checkpoint may be in the making by then.
/// * Each handle remembers the generation that it claimed; one that claimed none (a tool's) is not fenced.
#[derive(Clone, Debug)]
pub struct CheckpointDir {
    root: PathBuf,
    parts: PathBuf,
    own_generation: Option<u64>,
}

impl CheckpointDir {
    /// Opens the directory, and creates it where it is missing.
    pub fn open(dir: impl AsRef<Path>) -> Result<Self, StoreError> {
        let root = dir.as_ref().to_owned();
        let parts = root.join(PARTS);
        file::create_dir(&parts).map_err(|cause| failed(&parts, cause))?;
        Ok(Self { root, parts, own_generation: None })
    }

    /// The directory as it is, to be read also while another process writes it: nothing is created.
    pub fn look_at(dir: impl AsRef<Path>) -> Result<Self, StoreError> {
        let root = dir.as_ref().to_owned();
        match fs::metadata(&root) {
            Ok(found) if found.is_dir() => Ok(Self { parts: root.join(PARTS), root, own_generation: None }),
            Ok(_) => Err(failed(&root, io::ErrorKind::NotADirectory.into())),
            Err(cause) => Err(missing_or_failed(&root, cause)),
        }
    }

    fn names(&self) -> Result<Vec<String>, StoreError> {
        file::names(&self.root).map_err(|cause| failed(&self.root, cause))
    }

    /// Whether no greater generation is claimed; `name` is what was to be changed.
    fn assert_owner(&self, generation: u64, name: impl Fn() -> String) -> Result<(), StoreError> {
        let is_fenced = generation < greatest_claim(&self.names()?);
        if is_fenced { Err(StoreError::Fenced { name: name() }) } else { Ok(()) }
    }

    fn part_path(&self, name: &str) -> Result<PathBuf, StoreError> {
        let path = self.parts.join(name);
        if fits_a_part(name) { Ok(path) } else { Err(failed(&path, io::ErrorKind::InvalidFilename.into())) }
    }

    fn manifest_path(&self, version: Version) -> PathBuf {
        self.root.join(manifest_name(version))
    }

    fn remove_all(&self, paths: impl Iterator<Item = PathBuf>) -> Result<(), StoreError> {
        for path in paths {
            file::remove(&path).map_err(|cause| failed(&path, cause))?;
        }
        Ok(())
    }
}

impl CheckpointStore for CheckpointDir {
    fn claim_generation(&mut self, above: u64) -> Result<u64, StoreError> {
        for _ in 0..CLAIM_ATTEMPTS_MAX {
            let generation = next_generation(&self.names()?, above);
            let name = claim_name(generation);
            match file::create_empty(&self.root, &name) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                done => done.map_err(|cause| failed(&self.root.join(name), cause))?,
            }
            self.own_generation = Some(generation);
            return Ok(generation);
        }
        let cause = io::Error::other(format!("{CLAIM_ATTEMPTS_MAX} claims in a row were lost to other processes"));
        Err(failed(&self.root, cause))
    }

    fn write_part(&mut self, name: &str, write: &mut WritePart<'_>) -> Result<(), StoreError> {
        let path = self.part_path(name)?;
        file::replace(&self.parts, name, write).map_err(|cause| failed(&path, cause))
    }

    fn commit(&mut self, version: Version, manifest: &[u8]) -> Result<(), StoreError> {
        let path = self.manifest_path(version);
        let name = || path.display().to_string();
        self.assert_owner(version.generation, name)?;
        file::create_exclusively(&self.root, &manifest_name(version), manifest).map_err(|cause| {
            if cause.kind() == io::ErrorKind::AlreadyExists {
                StoreError::Taken { name: name() }
            } else {
                failed(&path, cause)
            }
        })?;
        self.assert_owner(version.generation, name)
    }

    fn manifests(&mut self) -> Result<Vec<Version>, StoreError> {
        // Twenty digits each: the order of names is that of versions.
        Ok(self.names()?.iter().filter_map(|name| manifest_of(name)).collect())
    }

    fn manifest(&mut self, version: Version) -> Result<Vec<u8>, StoreError> {
        read(&self.manifest_path(version))
    }

    fn part(&mut self, name: &str) -> Result<Vec<u8>, StoreError> {
        read(&self.part_path(name)?)
    }

    fn retain(&mut self, versions: &[Version], parts: &[String]) -> Result<(), StoreError> {
        // Listed before the fence is looked at: whatever a newer owner writes is not in these lists.
        let names = self.names()?;
        let part_names = file::names(&self.parts).map_err(|cause| failed(&self.parts, cause))?;
        if let Some(own) = self.own_generation {
            self.assert_owner(own, || self.root.display().to_string())?;
        }

        // No manifest may be left, not even after a power failure, whose parts are gone.
        let dropped = names.iter().filter(|name| manifest_of(name).is_some_and(|version| !versions.contains(&version)));
        self.remove_all(dropped.map(|name| self.root.join(name)))?;
        file::sync_dir(&self.root).map_err(|cause| failed(&self.root, cause))?;

        let dropped = part_names.iter().filter(|name| !parts.contains(name));
        self.remove_all(dropped.map(|name| self.parts.join(name)))?;
        let temps = names.iter().filter(|name| name.starts_with(file::TEMP_PREFIX));
        self.remove_all(temps.map(|name| self.root.join(name)))?;
        self.remove_all(old_claims(&names).map(|name| self.root.join(name)))
    }
}

fn read(path: &Path) -> Result<Vec<u8>, StoreError> {
    fs::read(path).map_err(|cause| missing_or_failed(path, cause))
}

fn missing_or_failed(path: &Path, cause: io::Error) -> StoreError {
    match cause.kind() {
        io::ErrorKind::NotFound => StoreError::Missing { name: path.display().to_string() },
        _ => failed(path, cause),
    }
}

fn failed(path: &Path, cause: io::Error) -> StoreError {
    StoreError::Failed { name: path.display().to_string(), cause: Box::new(cause) }
}

#[cfg(test)]
mod tests;
