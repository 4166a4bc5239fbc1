//! `log.json`: what a log is, written once.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::{LogError, disk};

const NAME: &str = "log.json";
const FORMAT: u32 = 1;

/// The log's identity. Public format: fields are added, never changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// Drawn at random when the log is made: a log in the same place is not the same log.
    pub id: u128,
    pub partitions: u32,
}

#[derive(Serialize, Deserialize)]
struct Stored {
    format: u32,
    /// 32 hexadecimal digits: a JSON number would lose the low ones.
    id: String,
    partitions: u32,
}

impl Manifest {
    pub fn path(dir: &Path) -> PathBuf {
        dir.join(NAME)
    }

    /// A new log's.
    pub fn draw(partitions: u32) -> io::Result<Self> {
        let mut id = [0; 16];
        getrandom::fill(&mut id).map_err(io::Error::other)?;
        Ok(Self { id: u128::from_le_bytes(id), partitions })
    }

    /// Durable when `Ok`.
    pub fn write(self, dir: &Path) -> Result<(), LogError> {
        let path = Self::path(dir);
        let stored = Stored { format: FORMAT, id: format!("{:032x}", self.id), partitions: self.partitions };
        let text = serde_json::to_vec(&stored).expect("numbers and a string are JSON");
        disk::create_durably(&path, &text).map_err(LogError::io(&path))?;
        Ok(())
    }

    /// `None` where there is none.
    pub fn read(dir: &Path) -> Result<Option<Self>, LogError> {
        let path = Self::path(dir);
        let text = match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            read => read.map_err(LogError::io(&path))?,
        };
        let bad = |what: String| LogError::Manifest { path: path.clone(), what };
        let stored: Stored = serde_json::from_slice(&text).map_err(|error| bad(error.to_string()))?;
        if stored.format != FORMAT {
            return Err(bad(format!("format {} is unknown, {FORMAT} is known", stored.format)));
        }
        if stored.partitions == 0 {
            return Err(bad("it has no partitions".into()));
        }
        let id = u128::from_str_radix(&stored.id, 16).map_err(|error| bad(format!("id: {error}")))?;
        Ok(Some(Self { id, partitions: stored.partitions }))
    }
}
