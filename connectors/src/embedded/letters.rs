//! Dead letters as files: `GGGGGGGGGGGGGGGGGGGG-NNNNNNNNNNNNNNNNNNNN.jsonl`, one for each version (generation and
//! number, 20 digits each) that had letters, one JSON object a line as the contract's section 6 has it.
//!
//! A file appears whole, durable and exclusively. So a version whose file is there was published, and is skipped; an
//! operator may move old files away, but not the newest, whose letters the next start may publish again.

use std::{
    collections::{BTreeMap, HashSet},
    fs::File,
    io::{self, BufRead, BufReader, Lines},
    path::{Path, PathBuf},
    vec,
};

use dataflows::{
    letter::DeadLetter,
    port::{LetterSink, PartitionId, SinkError, Version},
};

use super::checkpoints::file;
use crate::letter::{LOG_TOPIC, Letter};

const SUFFIX: &str = ".jsonl";

/// A [`LetterSink`] on a directory, made 0700, its files 0600.
#[derive(Clone, Debug)]
pub struct LetterDir {
    dir: PathBuf,
}

impl LetterDir {
    /// Opens the directory, creates it where it is missing, and clears away what unfinished writes left.
    pub fn open(dir: impl AsRef<Path>) -> Result<Self, SinkError> {
        let dir = dir.as_ref().to_owned();
        let prepare = || {
            file::create_dir(&dir)?;
            let names = file::names(&dir)?;
            names
                .iter()
                .filter(|name| name.starts_with(file::TEMP_PREFIX))
                .try_for_each(|name| file::remove(&dir.join(name)))
        };
        prepare().map_err(|cause| sink_error(&dir, cause))?;
        Ok(Self { dir })
    }
}

impl LetterSink for LetterDir {
    fn newest(&mut self) -> Result<Option<Version>, SinkError> {
        let names = file::names(&self.dir).map_err(|cause| sink_error(&self.dir, cause))?;
        Ok(names.iter().filter_map(|name| version_of(name)).max())
    }

    fn published(&mut self) -> Result<HashSet<(PartitionId, u64)>, SinkError> {
        let unreadable = |cause: LetterError| SinkError::Unanswered {
            sink: "dead letters".to_owned(),
            what: "a read of what is published".to_owned(),
            cause: Box::new(cause),
        };
        let letters = read(&self.dir, None, None).map_err(unreadable)?;
        letters.map(|letter| letter.map(|letter| letter.source.place()).map_err(unreadable)).collect()
    }

    fn publish(&mut self, version: Version, letters: &[DeadLetter]) -> Result<(), SinkError> {
        if letters.is_empty() {
            return Ok(());
        }
        let name = format!("{}{SUFFIX}", file::version_stem(version));
        let path = self.dir.join(&name);
        let publish = || {
            match file::create_exclusively(&self.dir, &name, &lines(letters)?) {
                // Its name may be there only since an attempt whose last fsync failed.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => file::sync_dir(&self.dir),
                done => done,
            }
        };
        publish().map_err(|cause| sink_error(&path, cause))
    }
}

fn version_of(name: &str) -> Option<Version> {
    name.strip_suffix(SUFFIX).and_then(file::parse_version_stem)
}

fn lines(letters: &[DeadLetter]) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    for letter in letters {
        serde_json::to_writer(&mut bytes, &Letter::new(LOG_TOPIC, letter))?;
        bytes.push(b'\n');
    }
    Ok(bytes)
}

fn sink_error(path: &Path, cause: io::Error) -> SinkError {
    let (sink, what) = ("dead letters".to_owned(), path.display().to_string());
    match cause.kind() {
        io::ErrorKind::PermissionDenied
        | io::ErrorKind::ReadOnlyFilesystem
        | io::ErrorKind::NotADirectory
        | io::ErrorKind::NotFound => SinkError::Refused { sink, what, cause: Box::new(cause) },
        _ => SinkError::Unanswered { sink, what, cause: Box::new(cause) },
    }
}

/// Why dead letters can't be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LetterError {
    /// The directory or a file can't be read.
    #[error("{} can't be read", path.display())]
    Unreadable {
        /// Which one.
        path: PathBuf,
        /// Why.
        #[source]
        cause: io::Error,
    },
    /// A line is no letter.
    #[error("line {line} of {} is no letter", path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// Which line, from 1.
        line: usize,
        /// Why.
        #[source]
        cause: serde_json::Error,
    },
}

/// The letters in a directory, by version and then as published: those of one reason, or all; `limit` of them at the most.
pub fn read(dir: impl AsRef<Path>, reason: Option<&str>, limit: Option<usize>) -> Result<Letters, LetterError> {
    let dir = dir.as_ref();
    let names = file::names(dir).map_err(|cause| LetterError::Unreadable { path: dir.to_owned(), cause })?;
    let published = names.iter().filter(|name| version_of(name).is_some());
    let files: Vec<PathBuf> = published.map(|name| dir.join(name)).collect();
    Ok(Letters {
        files: files.into_iter(),
        open: None,
        reason: reason.map(str::to_owned),
        left: limit.unwrap_or(usize::MAX),
    })
}

/// How many letters of each reason are in a directory.
pub fn count(dir: impl AsRef<Path>) -> Result<BTreeMap<String, u64>, LetterError> {
    let mut counts = BTreeMap::new();
    for letter in read(dir, None, None)? {
        *counts.entry(letter?.reason).or_default() += 1;
    }
    Ok(counts)
}

/// Reads letters one by one. After an error it goes on behind it.
#[derive(Debug)]
pub struct Letters {
    files: vec::IntoIter<PathBuf>,
    open: Option<OpenFile>,
    reason: Option<String>,
    left: usize,
}

#[derive(Debug)]
struct OpenFile {
    path: PathBuf,
    lines_read: usize,
    lines: Lines<BufReader<File>>,
}

impl Letters {
    /// The next letter of any reason.
    fn next_of_all(&mut self) -> Option<Result<Letter, LetterError>> {
        loop {
            let Some(open) = &mut self.open else {
                let path = self.files.next()?;
                match File::open(&path) {
                    Ok(file) => {
                        let lines = BufReader::new(file).lines();
                        self.open = Some(OpenFile { path, lines_read: 0, lines });
                        continue;
                    }
                    Err(cause) => return Some(Err(LetterError::Unreadable { path, cause })),
                }
            };
            open.lines_read += 1;
            match open.lines.next() {
                Some(Ok(line)) => {
                    let (path, line_number) = (&open.path, open.lines_read);
                    let letter = serde_json::from_str(&line);
                    return Some(letter.map_err(|cause| LetterError::Corrupt {
                        path: path.clone(),
                        line: line_number,
                        cause,
                    }));
                }
                Some(Err(cause)) => {
                    let path = open.path.clone();
                    self.open = None;
                    return Some(Err(LetterError::Unreadable { path, cause }));
                }
                None => self.open = None,
            }
        }
    }
}

impl Iterator for Letters {
    type Item = Result<Letter, LetterError>;

    fn next(&mut self) -> Option<Self::Item> {
        while 0 < self.left {
            match self.next_of_all()? {
                Ok(letter) if self.reason.as_ref().is_some_and(|reason| *reason != letter.reason) => {}
                Ok(letter) => {
                    self.left -= 1;
                    return Some(Ok(letter));
                }
                Err(error) => return Some(Err(error)),
            }
        }
        None
    }
}

#[cfg(test)]
mod tests;
