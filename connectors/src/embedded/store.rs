//! The count store of one machine: an LSM tree (fjall) that holds every window, hot or cold, in key order.
//!
//! All windows of a video and event type lie side by side in the order of time, so a range is one scan (`layout` has
//! the bytes). Rows are absolute and carry the version that wrote them; one of a greater version is not replaced.
//! Invariant: `newest` ≥ the version of every row. So rows under a version ≥ `newest`, which is all of them but for
//! repetitions, are written without a look at what they replace.

mod layout;

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io,
    ops::{ControlFlow, Range},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock},
};

use dataflows::{
    port::{Claim, ColdSeries, ColdSum, ColdWindow, CountRow, CountSink, SinkError, Version},
    rollup::Width,
    time::{EventTime, Minute},
};
use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode, Readable};

use super::checkpoints::file;

/// Rows in one atomic batch: at most 2.4 MB of keys and values (a row has up to 236 bytes), far below the 64 MiB that a
/// memtable takes, and well above what an fsync costs.
const BATCH_ROWS_MAX: usize = 10_000;

const CLAIM_KEY: &str = "claim";
const NEWEST_KEY: &str = "newest";

/// A [`CountSink`] in a directory. Clones are handles of the same store; it has one process at a time.
///
/// * A write is atomic up to 10,000 rows, and durable (fsync) when it is `Ok`.
/// * Reads see each batch whole or not at all. They may see one whose fsync is still to come.
/// * Of two rows of one window in one write the last counts.
/// * After a failed write the store is closed and read anew from its files at the next one, as a restart would; reads
///   between the two fail once that reopening has.
#[derive(Clone)]
pub struct Store {
    shared: Arc<Shared>,
}

struct Shared {
    dir: PathBuf,
    writer: Mutex<Writer>,
    /// `None` after a failed reopening.
    opened: RwLock<Option<Opened>>,
}

struct Writer {
    newest: Version,
    /// A write failed: what is in memory may be ahead of the files, and fjall takes no more writes.
    is_broken: bool,
}

struct Opened {
    database: Database,
    minutes: Keyspace,
    claim: Keyspace,
}

/// Why a store can't be opened or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Another process has it open.
    #[error("the store {} is in use by another process", dir.display())]
    Locked {
        /// Its directory.
        dir: PathBuf,
    },
    /// Its bytes are none that this version writes. Its rows can be had again by a replay of the log.
    #[error("the store {} is corrupt at {what}", dir.display())]
    Corrupt {
        /// Its directory.
        dir: PathBuf,
        /// The key at fault.
        what: String,
    },
    /// Its directory can't be created or read.
    #[error("the store {} can't be opened", dir.display())]
    Unusable {
        /// Its directory.
        dir: PathBuf,
        /// Why.
        #[source]
        cause: io::Error,
    },
    /// The storage engine failed.
    #[error("the store {} failed", dir.display())]
    Failed {
        /// Its directory.
        dir: PathBuf,
        /// Why.
        #[source]
        cause: fjall::Error,
    },
}

impl Store {
    /// Opens the store in `dir`, and creates it where it is missing: 0700, for this user alone.
    pub fn open(dir: impl AsRef<Path>) -> Result<Self, Error> {
        let dir = dir.as_ref().to_owned();
        let (opened, newest) = open(&dir)?;
        let writer = Mutex::new(Writer { newest, is_broken: false });
        Ok(Self { shared: Arc::new(Shared { dir, writer, opened: RwLock::new(Some(opened)) }) })
    }

    /// The windows of a series that start in the range, ascending.
    pub fn scan_cold(&self, series: ColdSeries<'_>, starts: Range<EventTime>) -> Result<Vec<ColdWindow>, Error> {
        let mut windows = Vec::new();
        self.visit(series, starts, |window| {
            windows.push(window);
            None
        })?;
        Ok(windows)
    }

    /// The beginnings of the days in the range that have any of a series' windows, ascending.
    pub fn scan_days(&self, series: ColdSeries<'_>, starts: Range<EventTime>) -> Result<Vec<EventTime>, Error> {
        let mut days = Vec::new();
        self.visit(ColdSeries { functions: false, ..series }, starts, |window| {
            let day = Width::Day.start(Minute::of(window.start));
            days.push(day);
            Some(Width::Day.end(day))
        })?;
        Ok(days)
    }

    /// What the windows of each video come to that are of the event type and start in the range, ascending by video. Of other rows
    /// one of each video is read.
    pub fn scan_sums(&self, event_type: &str, starts: Range<EventTime>) -> Result<Vec<ColdSum>, Error> {
        let mut sums = Vec::new();
        if starts.is_empty() {
            return Ok(sums);
        }
        self.read(|opened| {
            let snapshot = opened.database.snapshot();
            let read = |guard: fjall::Guard| guard.into_inner().map_err(|cause| self.failed(cause));
            let mut from = Vec::new();
            while let Some(next) = snapshot.range(&opened.minutes, from..).next() {
                let (key, _) = read(next)?;
                let video_id = layout::video_of(&key).ok_or_else(|| self.corrupt(&key))?;
                let bound = |start| layout::key(video_id, event_type, start);
                let (Some(first), Some(end)) = (bound(starts.start), bound(starts.end)) else { return Ok(()) };
                let mut sum: Option<ColdSum> = None;
                for guard in snapshot.range(&opened.minutes, first..end) {
                    let (key, value) = read(guard)?;
                    let ColdWindow { start, count, .. } =
                        layout::window(&key, &value, false).ok_or_else(|| self.corrupt(&key))?;
                    match &mut sum {
                        Some(sum) => sum.add(start, count),
                        None => sum = Some(ColdSum::of(video_id.to_owned(), start, count)),
                    }
                }
                sums.extend(sum);
                from = layout::behind(video_id);
            }
            Ok(())
        })?;
        Ok(sums)
    }

    /// Visits the windows of a series that start in the range, ascending; those before what `visit` gives are left out.
    fn visit(
        &self,
        series: ColdSeries<'_>,
        starts: Range<EventTime>,
        mut visit: impl FnMut(ColdWindow) -> Option<EventTime>,
    ) -> Result<(), Error> {
        let Some(prefix) = layout::prefix(series.video_id, series.event_type) else {
            return Ok(());
        };
        let bound = |start: EventTime| [&prefix[..], &start.to_be_bytes()].concat();
        self.read(|opened| {
            let snapshot = opened.database.snapshot();
            let mut from = Some(starts.start);
            while let Some(start) = from.take().filter(|start| *start < starts.end) {
                for guard in snapshot.range(&opened.minutes, bound(start)..bound(starts.end)) {
                    let (key, value) = guard.into_inner().map_err(|cause| self.failed(cause))?;
                    let window = layout::window(&key, &value, series.functions).ok_or_else(|| self.corrupt(&key))?;
                    from = visit(window);
                    if from.is_some() {
                        break;
                    }
                }
            }
            Ok(())
        })
    }

    /// Visits every row as of now, ascending by video, event type and window, until `visit` breaks.
    pub fn scan_all(&self, mut visit: impl FnMut(CountRow) -> ControlFlow<()>) -> Result<(), Error> {
        self.read(|opened| {
            for guard in opened.database.snapshot().iter(&opened.minutes) {
                if visit(self.row(guard)?).is_break() {
                    break;
                }
            }
            Ok(())
        })
    }

    /// How many rows there are. Reads all of them.
    pub fn len(&self) -> Result<usize, Error> {
        self.read(|opened| opened.minutes.len().map_err(|cause| self.failed(cause)))
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> Result<bool, Error> {
        self.read(|opened| opened.minutes.is_empty().map_err(|cause| self.failed(cause)))
    }

    fn row(&self, guard: fjall::Guard) -> Result<CountRow, Error> {
        let (key, value) = guard.into_inner().map_err(|cause| self.failed(cause))?;
        match layout::row(&key, &value) {
            Some((_, row)) => Ok(row),
            None => Err(self.corrupt(&key)),
        }
    }

    fn read<T>(&self, act: impl FnOnce(&Opened) -> Result<T, Error>) -> Result<T, Error> {
        let opened = self.shared.opened.read().unwrap_or_else(PoisonError::into_inner);
        match &*opened {
            Some(opened) => act(opened),
            None => Err(self.failed(fjall::Error::Poisoned)),
        }
    }

    /// Runs one write. After a failed one the files are read anew first.
    fn written(&self, act: impl FnOnce(&Opened, &mut Writer) -> Result<(), Error>) -> Result<(), Error> {
        let mut writer = self.writer();
        if writer.is_broken {
            self.reopen(&mut writer)?;
        }
        let done = self.read(|opened| act(opened, &mut writer));
        writer.is_broken = done.is_err();
        done
    }

    fn writer(&self) -> MutexGuard<'_, Writer> {
        self.shared.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn reopen(&self, writer: &mut Writer) -> Result<(), Error> {
        let mut opened = self.shared.opened.write().unwrap_or_else(PoisonError::into_inner);
        // The old handles hold the lock on the files.
        *opened = None;
        let (fresh, newest) = open(&self.shared.dir)?;
        *opened = Some(fresh);
        *writer = Writer { newest, is_broken: false };
        Ok(())
    }

    /// Moved away first: a crash leaves either all files or none.
    fn remove_files(&self) -> Result<(), Error> {
        let dir = &self.shared.dir;
        let old = dir.with_extension("old");
        *self.shared.opened.write().unwrap_or_else(PoisonError::into_inner) = None;
        let replace = || {
            if old.try_exists()? {
                std::fs::remove_dir_all(&old)?;
            }
            std::fs::rename(dir, &old)?;
            std::fs::remove_dir_all(&old)
        };
        replace().map_err(|cause| Error::Unusable { dir: dir.clone(), cause })
    }

    fn failed(&self, cause: fjall::Error) -> Error {
        Error::Failed { dir: self.shared.dir.clone(), cause }
    }

    fn corrupt(&self, key: &[u8]) -> Error {
        corrupt(&self.shared.dir, key)
    }

    fn write_batch(
        &self,
        opened: &Opened,
        writer: &mut Writer,
        version: Version,
        rows: BTreeMap<Vec<u8>, Vec<u8>>,
    ) -> Result<(), Error> {
        let mut batch = fjall::OwnedWriteBatch::with_capacity(opened.database.clone(), rows.len() + 1);
        for (key, value) in rows {
            if version < writer.newest && self.is_newer(opened, &key, version)? {
                continue;
            }
            batch.insert(&opened.minutes, key, value);
        }
        let newest = writer.newest.max(version);
        if newest != writer.newest {
            batch.insert(&opened.claim, NEWEST_KEY, layout::version_bytes(newest));
        }
        batch.commit().map_err(|cause| self.failed(cause))?;
        writer.newest = newest;
        Ok(())
    }

    /// Whether the stored row of this key is of a version greater than `version`.
    fn is_newer(&self, opened: &Opened, key: &[u8], version: Version) -> Result<bool, Error> {
        let Some(stored) = opened.minutes.get(key).map_err(|cause| self.failed(cause))? else {
            return Ok(false);
        };
        layout::version_of_value(&stored).map(|stored| version < stored).ok_or_else(|| self.corrupt(key))
    }

    fn unanswered(&self, what: String, cause: Error) -> SinkError {
        SinkError::Unanswered { sink: self.shared.dir.display().to_string(), what, cause: Box::new(cause) }
    }
}

impl CountSink for Store {
    fn claim(&mut self) -> Result<Option<Claim>, SinkError> {
        let claim = self.read(|opened| {
            let Some(bytes) = opened.claim.get(CLAIM_KEY).map_err(|cause| self.failed(cause))? else {
                return Ok(None);
            };
            layout::claim(&bytes).map(Some).ok_or_else(|| self.corrupt(CLAIM_KEY.as_bytes()))
        });
        claim.map_err(|cause| self.unanswered("a read of its claim".to_owned(), cause))
    }

    fn set_claim(&mut self, claim: &Claim) -> Result<(), SinkError> {
        let is_other = |there: &Claim| claim.generation < there.generation || claim.history != there.history;
        if let Some(there) = self.claim()?.filter(is_other) {
            let what = format!("generation {} of history {:032x} has claimed it", there.generation, there.history);
            return Err(SinkError::Fenced { sink: self.shared.dir.display().to_string(), what });
        }
        let done = self.written(|opened, _| {
            opened.claim.insert(CLAIM_KEY, layout::claim_bytes(claim)).map_err(|cause| self.failed(cause))?;
            opened.database.persist(PersistMode::SyncAll).map_err(|cause| self.failed(cause))
        });
        done.map_err(|cause| self.unanswered(format!("the claim of generation {}", claim.generation), cause))
    }

    fn write(&mut self, version: Version, rows: &[CountRow]) -> Result<(), SinkError> {
        if rows.is_empty() {
            return Ok(());
        }
        if let Some(row) = rows.iter().find(|row| layout::prefix(&row.video_id, &row.event_type).is_none()) {
            return Err(SinkError::Refused {
                sink: self.shared.dir.display().to_string(),
                what: format!("a row of video {:?} and event type {:?}", row.video_id, row.event_type),
                cause: "names have a length and no control characters".into(),
            });
        }
        let done = self.written(|opened, writer| {
            for rows in rows.chunks(BATCH_ROWS_MAX) {
                // A key may be in a batch only once: both entries would have the same sequence number.
                let encoded = rows.iter().filter_map(|row| {
                    let key = layout::key(&row.video_id, &row.event_type, row.window_start)?;
                    Some((key, layout::value(version, row)))
                });
                self.write_batch(opened, writer, version, encoded.collect())?;
            }
            opened.database.persist(PersistMode::SyncAll).map_err(|cause| self.failed(cause))
        });
        done.map_err(|cause| self.unanswered(format!("{} rows", rows.len()), cause))
    }

    fn clear(&mut self) -> Result<(), SinkError> {
        let mut writer = self.writer();
        let done = self.remove_files().and_then(|()| self.reopen(&mut writer));
        writer.is_broken = done.is_err();
        drop(writer);
        done.map_err(|cause| self.unanswered("to be emptied".to_owned(), cause))
    }
}

fn open(dir: &Path) -> Result<(Opened, Version), Error> {
    let unusable = |cause| Error::Unusable { dir: dir.to_owned(), cause };
    let failed = |cause| match cause {
        fjall::Error::Locked => Error::Locked { dir: dir.to_owned() },
        cause => Error::Failed { dir: dir.to_owned(), cause },
    };
    file::create_dir(dir).map_err(unusable)?;
    clear_unfinished(dir).map_err(unusable)?;
    let database = Database::builder(dir).open().map_err(failed)?;
    let minutes = database.keyspace("minutes", KeyspaceCreateOptions::default).map_err(failed)?;
    let claim = database.keyspace("claim", KeyspaceCreateOptions::default).map_err(failed)?;
    let newest = match claim.get(NEWEST_KEY).map_err(failed)? {
        Some(bytes) => layout::version(&bytes).ok_or_else(|| corrupt(dir, NEWEST_KEY.as_bytes()))?,
        None => Version::default(),
    };
    Ok((Opened { database, minutes, claim }, newest))
}

/// Removes what a creation left that was killed before its last step, the file `version`. Nothing can have been written
/// by then, and fjall doesn't create over it.
fn clear_unfinished(dir: &Path) -> io::Result<()> {
    if dir.join("version").try_exists()? || !dir.join("lock").try_exists()? {
        return Ok(());
    }
    let lock = File::options().write(true).open(dir.join("lock"))?;
    if lock.try_lock().is_err() || dir.join("version").try_exists()? {
        // Another process is creating it now; opening will say so.
        return Ok(());
    }
    file::remove(&dir.join("0.jnl"))?;
    match fs::remove_dir_all(dir.join("keyspaces")) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

fn corrupt(dir: &Path, key: &[u8]) -> Error {
    Error::Corrupt { dir: dir.to_owned(), what: key.escape_ascii().to_string() }
}

#[cfg(test)]
mod tests;
