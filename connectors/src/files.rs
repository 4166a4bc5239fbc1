//! History as files: each file of a glob is one partition, each line a record; and the table a replay leaves behind.

mod lines;
pub mod tsv;

use std::{
    fs::File,
    io::{self, BufReader, Read},
    ops::ControlFlow,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use dataflows::{
    event::RECORD_BYTES_MAX,
    port::{PartitionId, PartitionReader, Reached, Record, SourceError},
};
use flate2::bufread::MultiGzDecoder;
use glob::MatchOptions;

use self::lines::{Lines, Next};

/// How much is read from a file at once, bytes: large enough that the calls do not show, small enough for the cache.
const BLOCK_BYTES: usize = 512 * 1024;

/// How many lines one read looks at, blank ones included.
const READ_LINES_MAX: usize = 1024;

/// How many blocks one read takes in, so that neither blank nor endless lines hold a worker for long.
const READ_BLOCKS_MAX: usize = 8;

const AS_IN_A_SHELL: MatchOptions =
    MatchOptions { case_sensitive: true, require_literal_separator: true, require_literal_leading_dot: true };

/// Files as an input.
#[derive(Copy, Clone, Debug)]
pub struct FileInput;

impl FileInput {
    /// The files that `pattern` matches, in the order of their paths, byte by byte: each is one partition.
    ///
    /// Folders are passed over, and hidden files unless the pattern has the dot. No match is an error, since an empty history is hardly what was meant.
    pub fn open_glob(pattern: &str) -> Result<Vec<FilePartition>, FilesError> {
        let bad_pattern = |cause| FilesError::BadPattern { pattern: pattern.to_owned(), cause };
        let mut files = Vec::new();
        for path in glob::glob_with(pattern, AS_IN_A_SHELL).map_err(bad_pattern)? {
            let path = path.map_err(|error| {
                let path = error.path().to_owned();
                FilesError::Unreadable { path, cause: error.into() }
            })?;
            match path.metadata() {
                Ok(metadata) if metadata.is_dir() => {}
                Ok(metadata) => files.push((path, metadata.len())),
                Err(cause) => return Err(FilesError::Unreadable { path, cause }),
            }
        }
        if files.is_empty() {
            return Err(FilesError::NoMatch { pattern: pattern.to_owned() });
        }
        files.sort_by(|(one, _), (other, _)| {
            one.as_os_str().as_encoded_bytes().cmp(other.as_os_str().as_encoded_bytes())
        });
        let partitions = (0..).map(PartitionId).zip(files);
        Ok(partitions.map(|(partition, (path, size_bytes))| FilePartition { partition, path, size_bytes }).collect())
    }
}

/// Why a pattern does not give an input.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FilesError {
    /// It is not a glob.
    #[error("{pattern:?} is not a file pattern")]
    BadPattern {
        /// The pattern.
        pattern: String,
        /// What is wrong with it.
        #[source]
        cause: glob::PatternError,
    },
    /// No file has such a name.
    #[error("no file matches {pattern:?}")]
    NoMatch {
        /// The pattern.
        pattern: String,
    },
    /// A folder or file can't be looked at.
    #[error("{} can't be read", path.display())]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        cause: io::Error,
    },
}

/// A file that can't be read, or not decompressed: the cause within [`SourceError::Unreadable`].
#[derive(Debug, thiserror::Error)]
#[error("{} can't be read from line {next_offset} on", path.display())]
struct FileFault {
    path: PathBuf,
    next_offset: u64,
    #[source]
    cause: io::Error,
}

/// One file of the input, not yet opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilePartition {
    /// Its number in the order of paths.
    pub partition: PartitionId,
    /// Where it is. `.gz` and `.zst` are decompressed, any other name is plain text.
    pub path: PathBuf,
    /// How long it is, as it lies there.
    pub size_bytes: u64,
}

impl FilePartition {
    /// Opens it. `progress` grows by the bytes consumed of the file as it lies there; several files may share it.
    pub fn reader(self, progress: Arc<AtomicU64>) -> Result<FileReader, SourceError> {
        let Self { partition, path, .. } = self;
        match open(&path, progress) {
            Ok(input) => {
                let lines = Lines::new(input, BLOCK_BYTES, RECORD_BYTES_MAX);
                Ok(FileReader { partition, path, lines, next_offset: 0 })
            }
            Err(cause) => Err(unreadable(partition, path, 0, cause)),
        }
    }
}

fn open(path: &Path, progress: Arc<AtomicU64>) -> io::Result<Box<dyn Read + Send>> {
    let input = Metered { input: File::open(path)?, progress };
    Ok(match path.extension() {
        Some(extension) if extension == "gz" => {
            Box::new(MultiGzDecoder::new(BufReader::with_capacity(BLOCK_BYTES, input)))
        }
        Some(extension) if extension == "zst" => {
            Box::new(zstd::stream::read::Decoder::with_buffer(BufReader::with_capacity(BLOCK_BYTES, input))?)
        }
        _ => Box::new(input),
    })
}

fn unreadable(partition: PartitionId, path: PathBuf, next_offset: u64, cause: io::Error) -> SourceError {
    SourceError::Unreadable { partition, cause: Box::new(FileFault { path, next_offset, cause }) }
}

/// Counts what passes through.
struct Metered<R> {
    input: R,
    progress: Arc<AtomicU64>,
}

impl<R: Read> Read for Metered<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let bytes = self.input.read(into)?;
        // A figure for people, ordered with nothing.
        self.progress.fetch_add(bytes as u64, Ordering::Relaxed);
        Ok(bytes)
    }
}

/// Reads one file line by line.
///
/// * offset: the line's number from 0, blank lines included, though these are not visited. No append time, no key
/// * payload: the line without its `\n`; a `\r` stays, being blank in JSON. Of a line over [`RECORD_BYTES_MAX`] only
///   the first `RECORD_BYTES_MAX + 1` bytes: enough to be judged oversize
pub struct FileReader {
    partition: PartitionId,
    path: PathBuf,
    lines: Lines<Box<dyn Read + Send>>,
    next_offset: u64,
}

impl PartitionReader for FileReader {
    fn partition(&self) -> PartitionId {
        self.partition
    }

    fn next_offset(&self) -> u64 {
        self.next_offset
    }

    fn read(&mut self, visit: &mut dyn FnMut(Record<'_>) -> ControlFlow<()>) -> Result<Reached, SourceError> {
        let (mut lines, mut blocks) = (0, 0);
        while lines < READ_LINES_MAX && blocks < READ_BLOCKS_MAX {
            let line = match self.lines.next_buffered() {
                Next::Line(line) => line,
                Next::Finished => return Ok(Reached::Finished),
                Next::Fill => {
                    let path = || self.path.clone();
                    self.lines.fill().map_err(|cause| unreadable(self.partition, path(), self.next_offset, cause))?;
                    blocks += 1;
                    continue;
                }
            };
            lines += 1;
            let offset = self.next_offset;
            self.next_offset += 1;
            if line.is_blank {
                continue;
            }
            if visit(Record { offset, append_time: None, key: None, headers: None, payload: line.bytes }).is_break() {
                break;
            }
        }
        Ok(Reached::More)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
