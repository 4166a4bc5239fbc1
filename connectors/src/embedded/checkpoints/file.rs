//! Files that are there whole and durable, or not there.
//!
//! The bytes go to a temporary file of a fresh name, which is fsynced before it gets its own name: by a hard link where
//! only one writer may win, by a rename where the bytes are the same whoever wins. Then the directory is
//! fsynced, so that the name is durable too. A file whose fsync failed is removed and never fsynced again, since the
//! kernel may have dropped its pages (Rebello et al., Can applications recover from fsync failures?, ATC 2020).

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use dataflows::port::{Version, WritePart};

use super::direct::DirectWriter;

/// How the names of temporary files begin. No name that a caller may give begins with a dot.
pub(crate) const TEMP_PREFIX: &str = ".tmp-";

/// `GENERATION-NUMBER`, 20 digits each, so that the order of names is that of versions.
pub(crate) fn version_stem(version: Version) -> String {
    format!("{:020}-{:020}", version.generation, version.number)
}

/// The version that a stem names, if it is one.
pub(crate) fn parse_version_stem(stem: &str) -> Option<Version> {
    let (generation, number) = stem.split_once('-')?;
    Some(Version { generation: parse_digits(generation)?, number: parse_digits(number)? })
}

/// A number of exactly 20 digits.
pub(crate) fn parse_digits(digits: &str) -> Option<u64> {
    let fits = digits.len() == 20 && digits.bytes().all(|byte| byte.is_ascii_digit());
    fits.then(|| digits.parse().ok()).flatten()
}

/// A temporary file, removed when it goes, if that can be done.
struct Temp {
    path: PathBuf,
}

impl Drop for Temp {
    fn drop(&mut self) {
        // Renamed or not removable: either way nothing depends on it, and `retain` clears leftovers.
        let _ = fs::remove_file(&self.path);
    }
}

fn write_temp(dir: &Path, write: &mut WritePart<'_>) -> io::Result<Temp> {
    let path = dir.join(format!("{TEMP_PREFIX}{:016x}", getrandom::u64()?));
    let mut file = DirectWriter::new(create_new(&path)?);
    let temp = Temp { path };
    write(&mut file)?;
    file.finish()?.sync_all()?;
    Ok(temp)
}

fn create_new(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}

/// Creates `dir/name` with these bytes. `AlreadyExists` if another writer was first. Needs a file system with hard links.
pub(crate) fn create_exclusively(dir: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    let temp = write_temp(dir, &mut |out| out.write_all(bytes))?;
    fs::hard_link(&temp.path, dir.join(name))?;
    drop(temp);
    sync_dir(dir)
}

/// Creates `dir/name` empty. `AlreadyExists` if another writer was first.
pub(crate) fn create_empty(dir: &Path, name: &str) -> io::Result<()> {
    create_new(&dir.join(name))?.sync_all()?;
    sync_dir(dir)
}

/// Creates or replaces `dir/name` with what is written.
pub(crate) fn replace(dir: &Path, name: &str, write: &mut WritePart<'_>) -> io::Result<()> {
    let temp = write_temp(dir, write)?;
    fs::rename(&temp.path, dir.join(name))?;
    sync_dir(dir)
}

/// Makes the names in a directory durable.
pub(crate) fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// Creates a directory, and those above it, for this user alone; one that is there stays as it is.
pub(crate) fn create_dir(dir: &Path) -> io::Result<()> {
    if dir.is_dir() {
        return Ok(());
    }
    let parent = match dir.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    create_dir(parent)?;
    match DirBuilder::new().mode(0o700).create(dir) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            if !dir.is_dir() {
                return Err(io::ErrorKind::NotADirectory.into());
            }
        }
        done => done?,
    }
    sync_dir(parent)
}

/// The names of the regular files in a directory, ascending. Names that aren't UTF-8 are none of ours.
pub(crate) fn names(dir: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_file()
            && let Ok(name) = entry.file_name().into_string()
        {
            names.push(name);
        }
    }
    names.sort_unstable();
    Ok(names)
}

/// Removes a file; one that is gone already is no error.
pub(crate) fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o7777
    }

    #[test]
    fn a_version_has_one_name_and_only_such_names_are_versions() {
        let version = Version { generation: u64::MAX, number: 7 };
        assert_eq!(version_stem(version), "18446744073709551615-00000000000000000007");
        assert_eq!(parse_version_stem(&version_stem(version)), Some(version));
        for other in
            ["1-7", "99999999999999999999-00000000000000000007", "+0000000000000000001-00000000000000000007", ""]
        {
            assert_eq!(parse_version_stem(other), None, "{other}");
        }
    }

    #[test]
    fn an_exclusive_file_is_whole_private_and_not_replaced() {
        let dir = tempfile::tempdir().unwrap();
        create_exclusively(dir.path(), "a", b"first").unwrap();
        let again = create_exclusively(dir.path(), "a", b"second").unwrap_err();
        assert_eq!(again.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read(dir.path().join("a")).unwrap(), b"first");
        assert_eq!(mode(&dir.path().join("a")), 0o600);
        assert_eq!(names(dir.path()).unwrap(), ["a"], "no temporary file stays");
    }

    #[test]
    fn a_replaced_file_has_the_new_bytes_and_no_temporary_file_stays() {
        let dir = tempfile::tempdir().unwrap();
        replace(dir.path(), "a", &mut |out| out.write_all(b"first")).unwrap();
        replace(dir.path(), "a", &mut |out| out.write_all(b"second")).unwrap();
        assert_eq!(fs::read(dir.path().join("a")).unwrap(), b"second");
        assert_eq!(mode(&dir.path().join("a")), 0o600);
        assert_eq!(names(dir.path()).unwrap(), ["a"]);
    }

    #[test]
    fn a_failed_rename_removes_its_temporary_file() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("a")).unwrap();
        replace(dir.path(), "a", &mut |out| out.write_all(b"bytes")).unwrap_err();
        assert_eq!(names(dir.path()).unwrap(), [""; 0]);
    }

    #[test]
    fn directories_are_made_for_this_user_alone_and_not_below_a_file() {
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("a/b/c");
        create_dir(&deep).unwrap();
        create_dir(&deep).unwrap();
        for made in ["a", "a/b", "a/b/c"] {
            assert_eq!(mode(&dir.path().join(made)), 0o700);
        }
        fs::write(dir.path().join("file"), b"").unwrap();
        create_dir(&dir.path().join("file/sub")).unwrap_err();
    }
}
