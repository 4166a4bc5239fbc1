//! The cluster's secret.

use std::{
    fmt,
    fs::{self, OpenOptions},
    io::{ErrorKind, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

use anyhow::Context as _;
use sha2::{Digest as _, Sha256};

use crate::{
    config::Settings,
    exit::{Exit, Failure, OrExit as _},
};

/// What processes prove to each other that they know.
#[derive(Clone)]
pub struct Key(pub(super) [u8; 32]);

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key")
    }
}

/// The secret in the configured file; or one in the data folder, made there by whoever comes first.
pub fn key(settings: &Settings) -> Result<Key, Failure> {
    let own = settings.data_dir.join("cluster.key");
    let path = match &settings.cluster.key_file {
        Some(path) => path,
        None => {
            create(&own).with_context(|| format!("writing {}", own.display())).or_exit(Exit::StateUnwritable)?;
            &own
        }
    };
    let secret = fs::read(path)
        .with_context(|| format!("reading the cluster's secret in {}", path.display()))
        .or_exit(Exit::Usage)?;
    let secret = secret.trim_ascii();
    if secret.len() < 16 {
        return Err(Failure::usage(format!("the secret in {} is shorter than 16 bytes", path.display())));
    }
    Ok(Key(Sha256::digest(secret).into()))
}

/// Whole from the first moment that it has its name.
fn create(path: &Path) -> std::io::Result<()> {
    let mut secret = [0_u8; 32];
    getrandom::fill(&mut secret).map_err(std::io::Error::other)?;
    let hex: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
    let temp = path.with_extension(format!("key.{}", std::process::id()));
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temp)?;
    file.write_all(hex.as_bytes())?;
    file.sync_all()?;
    let linked = fs::hard_link(&temp, path);
    fs::remove_file(&temp)?;
    match linked {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        done => done,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_one_makes_the_secret_and_the_others_find_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cluster.key");
        create(&path).unwrap();
        let first = fs::read(&path).unwrap();
        create(&path).unwrap();
        assert_eq!((fs::read(&path).unwrap(), first.len()), (first, 64));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing is left behind");
    }
}
