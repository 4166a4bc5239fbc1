//! What a partition holds when it is opened: its end, its last append time, and whether its tail is torn.
//!
//! Looking is pure; only [`cut`] changes a file. The last segment is checked whole. Segments before it were complete and
//! durable when it began; they are checked as they are read, or all at once by [`verify`].

use std::{fs::OpenOptions, path::Path};

use dataflows::port::PartitionId;

use super::{
    LogError, frame,
    partition::{Partition, segment_path},
    segment::{Segment, Step},
};

/// What the segments of a partition hold.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// The offset behind the last good record.
    pub end: u64,
    /// The greatest append time seen.
    pub append_ms: u64,
    /// The last segment, if there is one.
    pub last: Option<LastSegment>,
}

/// The segment that is written on.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct LastSegment {
    pub base: u64,
    /// How many of its bytes are good frames, and how many torn ones follow.
    pub good_bytes: u64,
    pub torn_bytes: u64,
}

/// Looks at the segments of one partition, without changing anything.
pub fn look(id: PartitionId, folder: &Path, bases: &[u64]) -> Result<Found, LogError> {
    let Some((base, before)) = bases.split_last() else {
        return Ok(Found::default());
    };
    let mut found = scan_last(id, &segment_path(folder, *base), *base)?;
    // A fresh segment holds no append time yet: the one before it does, and is not empty.
    if let (true, Some(previous)) = (found.end == *base, before.last()) {
        let path = segment_path(folder, *previous);
        found.append_ms = scan_until(id, &path, *previous, *base)?;
    }
    Ok(found)
}

/// Reads the last segment up to its end or the torn frame there.
fn scan_last(id: PartitionId, path: &Path, base: u64) -> Result<Found, LogError> {
    let mut segment = Segment::open_as_is(path).map_err(LogError::io(path))?;
    let mut found = Found { end: base, ..Found::default() };
    let fault = loop {
        match segment.next(found.end).map_err(LogError::io(path))? {
            Step::Frame(frame) => {
                found.append_ms = found.append_ms.max(frame.append_ms);
                found.end += 1;
            }
            Step::End => break None,
            // A good frame was written whole, so its wrong place is no torn write.
            step @ Step::Misplaced(_) => return Err(corrupt(id, path, found.end, step.fault())),
            step => break Some(step.fault()),
        }
    };
    let mut torn_bytes = 0;
    if let Some(fault) = fault {
        let rest = segment.rest().map_err(LogError::io(path))?;
        if frame::any_behind(&rest, found.end) {
            return Err(corrupt(id, path, found.end, format!("{fault}, and good records follow")));
        }
        torn_bytes = rest.len() as u64;
    }
    found.last = Some(LastSegment { base, good_bytes: segment.place(), torn_bytes });
    Ok(found)
}

/// Reads a segment up to the next one's base, where it ends; returns its greatest append time.
fn scan_until(id: PartitionId, path: &Path, base: u64, next_base: u64) -> Result<u64, LogError> {
    let mut segment = Segment::open_as_is(path).map_err(LogError::io(path))?;
    let mut append_ms = 0;
    for offset in base..next_base {
        match segment.next(offset).map_err(LogError::io(path))? {
            Step::Frame(frame) => append_ms = append_ms.max(frame.append_ms),
            step => return Err(corrupt(id, path, offset, step.fault())),
        }
    }
    Ok(append_ms)
}

/// Checks every record of the segments before the last.
pub fn verify(partition: &Partition) -> Result<(), LogError> {
    for (base, next_base) in partition.segments() {
        if let Some(next_base) = next_base {
            scan_until(partition.id, &partition.path(base), base, next_base)?;
        }
    }
    Ok(())
}

/// Cuts a torn tail off and makes what stays durable: a process that was killed may have written it and never synced.
pub fn cut(id: PartitionId, path: &Path, last: LastSegment) -> Result<(), LogError> {
    let file = OpenOptions::new().write(true).open(path).map_err(LogError::io(path))?;
    if 0 < last.torn_bytes {
        tracing::warn!(
            partition = id.0, segment = %path.display(), bytes = last.torn_bytes,
            "the log ends with an unfinished record, which nobody was told about: it is cut off",
        );
        file.set_len(last.good_bytes).map_err(LogError::io(path))?;
    }
    file.sync_all().map_err(LogError::io(path))
}

fn corrupt(partition: PartitionId, path: &Path, offset: u64, what: String) -> LogError {
    LogError::Corrupt { partition, offset, path: path.to_owned(), what }
}
