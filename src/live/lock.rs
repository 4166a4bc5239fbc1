//! One job a data folder, and one supervisor: advisory locks, gone with their process.

use std::{
    fs::{DirBuilder, File, OpenOptions, TryLockError},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::Path,
};

use anyhow::{Context as _, anyhow};

use crate::exit::{Exit, Failure, OrExit as _};

/// Held as long as the process lives.
#[derive(Debug)]
pub struct DataLock(#[expect(dead_code, reason = "closing it gives the lock up")] File);

/// Creates the folder where it is missing: 0700, for this user alone.
pub fn create(dir: &Path) -> Result<(), Failure> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .with_context(|| format!("creating the data folder {}", dir.display()))
        .or_exit(Exit::StateUnwritable)
}

impl DataLock {
    /// Takes the folder, or says that another job has it.
    pub fn take(dir: &Path) -> Result<Self, Failure> {
        Self::take_file(dir, "lock")
    }

    /// The same for supervising the job of the folder. Its processes take the folder itself.
    pub fn take_supervisor(dir: &Path) -> Result<Self, Failure> {
        Self::take_file(dir, "supervisor.lock")
    }

    fn take_file(dir: &Path, name: &str) -> Result<Self, Failure> {
        let path = dir.join(name);
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&path)
            .with_context(|| format!("opening {}", path.display()))
            .or_exit(Exit::StateUnwritable)?;
        file.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => {
                Failure::new(Exit::OtherOwner, anyhow!("the data folder {} belongs to another process", dir.display()))
            }
            TryLockError::Error(error) => {
                Failure::new(Exit::StateUnwritable, anyhow!(error).context(format!("locking {}", path.display())))
            }
        })?;
        Ok(Self(file))
    }
}
