//! One partition as writer and readers share it: which segments there are, and how far it is durable.
//!
//! Invariant: a segment holds the offsets from its base up to the next segment's base, the last one up to `end`.
//! What stands behind that in a file comes from a failed `fsync` and is nobody's. A base is listed before `end` goes
//! past it, so who loads `end` first and then looks at the bases finds each record below `end` in its segment.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{
        Mutex, MutexGuard,
        atomic::{AtomicU64, Ordering},
    },
};

use dataflows::port::PartitionId;

pub struct Partition {
    pub id: PartitionId,
    dir: PathBuf,
    /// Ascending.
    bases: Mutex<Vec<u64>>,
    /// The offset behind the last durable record.
    end: AtomicU64,
}

impl Partition {
    pub fn new(id: PartitionId, dir: PathBuf, bases: Vec<u64>, end: u64) -> Self {
        Self { id, dir, bases: Mutex::new(bases), end: AtomicU64::new(end) }
    }

    pub fn path(&self, base: u64) -> PathBuf {
        segment_path(&self.dir, base)
    }

    fn bases(&self) -> MutexGuard<'_, Vec<u64>> {
        self.bases.lock().expect("nobody panics while holding the bases")
    }

    /// The first offset that is there.
    pub fn first(&self) -> u64 {
        self.bases().first().copied().unwrap_or(0)
    }

    pub fn end(&self) -> u64 {
        self.end.load(Ordering::Acquire)
    }

    /// The records below `end` are durable.
    pub fn publish(&self, end: u64) {
        self.end.store(end, Ordering::Release);
    }

    /// A segment begins at the present end.
    pub fn add_segment(&self, base: u64) {
        let mut bases = self.bases();
        if bases.last() != Some(&base) {
            bases.push(base);
        }
    }

    /// The segments by their base, each with the base of the next.
    pub fn segments(&self) -> Vec<(u64, Option<u64>)> {
        let bases = self.bases();
        bases.iter().enumerate().map(|(index, base)| (*base, bases.get(index + 1).copied())).collect()
    }

    /// The segment that holds `offset`, and the base of the next one.
    pub fn segment_of(&self, offset: u64) -> Option<(u64, Option<u64>)> {
        let bases = self.bases();
        let behind = bases.partition_point(|base| *base <= offset);
        let base = bases.get(behind.checked_sub(1)?)?;
        Some((*base, bases.get(behind).copied()))
    }
}

/// Where partition `id` of the log in `dir` is.
pub fn folder(dir: &Path, id: PartitionId) -> PathBuf {
    dir.join(format!("partition-{}", id.0))
}

/// Twenty digits hold every offset, so names sort as their bases do.
pub fn segment_path(folder: &Path, base: u64) -> PathBuf {
    folder.join(format!("{base:020}.log"))
}

/// The bases of the segments in a partition's folder, ascending.
pub fn list_bases(folder: &Path) -> io::Result<Vec<u64>> {
    let mut bases = Vec::new();
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name();
        let base = name.to_str().and_then(|name| name.strip_suffix(".log")).filter(|digits| digits.len() == 20);
        bases.extend(base.and_then(|digits| digits.parse::<u64>().ok()));
    }
    bases.sort_unstable();
    Ok(bases)
}
