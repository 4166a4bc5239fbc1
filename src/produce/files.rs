//! One file of lines a partition.

use std::{
    fs::{self, File},
    io::{BufWriter, ErrorKind, Write as _},
    path::Path,
};

use connectors::partition::partition_of;

use super::{Line, Target};
use crate::exit::{Exit, Failure};

/// Bytes buffered per file: few enough system calls, and 1024 files still fit.
const BUFFER_BYTES: usize = 256 << 10;

/// Writes `part-00000.jsonl`, `part-00001.jsonl`, …: a line goes to the partition of its key by Kafka's default
/// partitioner; those without a key take turns.
pub struct PartFiles {
    files: Vec<BufWriter<File>>,
    shown: String,
    turn: usize,
}

impl PartFiles {
    /// Creates the folder where it is missing, and all files. Files that are there already are left alone.
    pub fn create(dir: &Path, partitions: u32) -> Result<Self, Failure> {
        let shown = dir.display().to_string();
        let unwritable = |error: std::io::Error, path: &Path| {
            Failure::new(
                Exit::StateUnwritable,
                anyhow::Error::new(error).context(format!("creating {}", path.display())),
            )
        };
        fs::create_dir_all(dir).map_err(|error| unwritable(error, dir))?;
        let mut files = Vec::new();
        for partition in 0..partitions {
            let path = dir.join(format!("part-{partition:05}.jsonl"));
            let file = File::create_new(&path).map_err(|error| match error.kind() {
                ErrorKind::AlreadyExists => {
                    Failure::usage(format!("{} is there already; name another folder or remove it", path.display()))
                }
                _ => unwritable(error, &path),
            })?;
            files.push(BufWriter::with_capacity(BUFFER_BYTES, file));
        }
        Ok(Self { files, shown, turn: 0 })
    }

    fn unwritable(&self, error: std::io::Error) -> Failure {
        Failure::new(Exit::StateUnwritable, anyhow::Error::new(error).context(format!("writing to {}", self.shown)))
    }
}

impl Target for PartFiles {
    fn send(&mut self, line: Line<'_>) -> Result<(), Failure> {
        let partition = match line.key {
            Some(key) => partition_of(key, self.files.len() as u32) as usize,
            None => {
                self.turn = (self.turn + 1) % self.files.len();
                self.turn
            }
        };
        let file = &mut self.files[partition];
        file.write_all(line.record).and_then(|()| file.write_all(b"\n")).map_err(|error| self.unwritable(error))
    }

    fn finish(&mut self) -> Result<String, Failure> {
        let flushed = self.files.iter_mut().try_for_each(BufWriter::flush);
        flushed.map_err(|error| self.unwritable(error))?;
        Ok(format!("{} files in {}", self.files.len(), self.shown))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_without_a_key_take_turns_and_keys_stay_together() {
        let dir = tempfile::tempdir().unwrap();
        let mut files = PartFiles::create(dir.path(), 7).unwrap();
        for record in ["a", "b", "c", "d", "e", "f", "g"] {
            files.send(Line { key: None, record: record.as_bytes() }).unwrap();
        }
        // Kafka's own test vectors: murmur2("21") = -973932308, murmur2("foobar") = -790332482.
        for (key, record) in [("21", "x"), ("foobar", "y"), ("21", "z")] {
            files.send(Line { key: Some(key.as_bytes()), record: record.as_bytes() }).unwrap();
        }
        files.finish().unwrap();
        let read = |partition: i64| fs::read_to_string(dir.path().join(format!("part-{partition:05}.jsonl"))).unwrap();
        for partition in 0..7 {
            assert_eq!(read(partition).lines().filter(|line| "abcdefg".contains(line)).count(), 1, "{partition}");
        }
        let positive = |hash: i64| hash & 0x7fff_ffff;
        assert!(read(positive(-973_932_308) % 7).ends_with("x\nz\n"));
        assert!(read(positive(-790_332_482) % 7).ends_with("y\n"));
    }
}
