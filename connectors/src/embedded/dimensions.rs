//! What is known of videos and channels, on one machine: an LSM tree (fjall) with the last record of each subject.

use std::{
    io,
    path::{Path, PathBuf},
};

use dataflows::dimensions::Change;
use fjall::{Database, Keyspace, KeyspaceCreateOptions, OwnedWriteBatch, PersistMode};

use super::checkpoints::file;
use crate::dimension;

/// The last record of each video and channel, in a directory. It has one process at a time.
///
/// A write is atomic, and durable (fsync) when it is `Ok`. After a failed one no other is taken: the next start reads what the
/// files hold.
pub struct DimensionStore {
    dir: PathBuf,
    database: Database,
    records: Keyspace,
}

/// Why it can't be opened, read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Its directory can't be created.
    #[error("the names in {} can't be opened", dir.display())]
    Unusable {
        /// Its directory.
        dir: PathBuf,
        /// Why.
        #[source]
        cause: io::Error,
    },
    /// A record is none that this version writes.
    #[error("the names in {} are corrupt at {key}", dir.display())]
    Corrupt {
        /// Its directory.
        dir: PathBuf,
        /// The record at fault.
        key: String,
    },
    /// The storage engine failed.
    #[error("the names in {} can't be read or written", dir.display())]
    Failed {
        /// Its directory.
        dir: PathBuf,
        /// Why.
        #[source]
        cause: fjall::Error,
    },
}

impl DimensionStore {
    /// Opens the directory, and creates it where it is missing: 0700, for this user alone.
    pub fn open(dir: impl AsRef<Path>) -> Result<Self, Error> {
        let dir = dir.as_ref().to_owned();
        file::create_dir(&dir).map_err(|cause| Error::Unusable { dir: dir.clone(), cause })?;
        let failed = |cause| Error::Failed { dir: dir.clone(), cause };
        let database = Database::builder(&dir).open().map_err(failed)?;
        let records = database.keyspace("records", KeyspaceCreateOptions::default).map_err(failed)?;
        Ok(Self { dir, database, records })
    }

    /// Everything that is known.
    pub fn all(&self) -> Result<Vec<Change>, Error> {
        let corrupt = |key: &[u8]| Error::Corrupt { dir: self.dir.clone(), key: key.escape_ascii().to_string() };
        let record = |guard: fjall::Guard| {
            let (key, payload) = guard.into_inner().map_err(|cause| self.failed(cause))?;
            dimension::decode(&payload).map_err(|_cause| corrupt(&key))
        };
        self.records.iter().map(record).collect()
    }

    /// Puts records in, each with what it says as [`dimension::decode`] takes it apart. Of two of one subject the later counts.
    pub fn put<'a>(&self, records: impl IntoIterator<Item = (&'a Change, &'a [u8])>) -> Result<(), Error> {
        let mut batch = OwnedWriteBatch::with_capacity(self.database.clone(), 0);
        // A key may be in a batch only once: both entries would have the same sequence number.
        let last: std::collections::BTreeMap<_, _> =
            records.into_iter().map(|(change, payload)| (dimension::key(change), (change, payload))).collect();
        for (key, (change, payload)) in last {
            match dimension::is_empty(change) {
                true => batch.remove(&self.records, key),
                false => batch.insert(&self.records, key, payload),
            }
        }
        batch.commit().map_err(|cause| self.failed(cause))?;
        self.database.persist(PersistMode::SyncAll).map_err(|cause| self.failed(cause))
    }

    fn failed(&self, cause: fjall::Error) -> Error {
        Error::Failed { dir: self.dir.clone(), cause }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_last_record_of_each_subject_is_there_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let put = |payloads: &[&str]| {
            let store = DimensionStore::open(dir.path().join("names")).unwrap();
            let changes: Vec<Change> = payloads.iter().map(|one| dimension::decode(one.as_bytes()).unwrap()).collect();
            store.put(changes.iter().zip(payloads.iter().map(|payload| payload.as_bytes()))).unwrap();
            changes
        };
        let all = || DimensionStore::open(dir.path().join("names")).unwrap().all().unwrap();
        assert_eq!(all(), []);
        put(&[r#"{"video_id":"v","name":"Old"}"#, r#"{"video_id":"w"}"#, r#"{"channel_id":"c","name":"C"}"#]);
        let last = put(&[r#"{"video_id":"v"}"#, r#"{"video_id":"v","name":"New","channel_id":"c"}"#]);
        let channel = Change::Channel { channel_id: "c".into(), name: Some("C".into()) };
        assert_eq!(all(), [channel, last[1].clone()]);
        put(&[r#"{"channel_id":"c"}"#]);
        assert_eq!(all(), [last[1].clone()]);
    }
}
