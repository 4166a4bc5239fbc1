//! The checkpoints of a folder, by what `tidemark checkpoint` says of them; and what can happen to them.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use super::schedule::Harm;
use crate::live_support::tidemark;

/// A checkpoint that is there.
#[derive(Clone, Debug)]
struct Checkpoint {
    number: u64,
    parts: Vec<String>,
}

/// The newest so many of a folder that nobody runs on, newest first; none where two can't be told apart by their frontiers.
#[track_caller]
fn newest(data_dir: &Path, count: usize) -> Vec<Checkpoint> {
    let listed = said(data_dir, &["list"]);
    let frontiers: Vec<(u64, &str)> = listed.lines().filter_map(version_and_frontier).take(count).collect();
    let mut distinct: Vec<&str> = frontiers.iter().map(|(_, frontier)| *frontier).collect();
    distinct.sort_unstable();
    distinct.dedup();
    if distinct.len() < frontiers.len() {
        return Vec::new();
    }
    let parts = |frontier: &str| {
        let shown = said(data_dir, &["show", frontier]);
        let names = shown.lines().filter_map(|line| line.split_whitespace().next());
        names.filter(|word| word.ends_with(".part")).map(str::to_owned).collect()
    };
    frontiers.into_iter().map(|(number, frontier)| Checkpoint { number, parts: parts(frontier) }).collect()
}

/// Of a line such as `7-123  1767225600000  2026-…`; a damaged one has no frontier.
fn version_and_frontier(line: &str) -> Option<(u64, &str)> {
    let mut words = line.split_whitespace();
    let (_, number) = words.next()?.split_once('-')?;
    let (number, frontier) = (number.parse().ok()?, words.next()?);
    frontier.bytes().all(|byte| byte.is_ascii_digit()).then_some((number, frontier))
}

#[track_caller]
fn said(data_dir: &Path, words: &[&str]) -> String {
    let data_dir = data_dir.display().to_string();
    let ended = tidemark(&[&["checkpoint"], words, &["--data-dir", &data_dir]].concat());
    ended.expect(0, &[]);
    ended.stdout
}

/// Damages each of the newest so many in a part that the one before them does not name. Gives that one, the newest that is
/// left good, or why nothing was damaged.
pub fn damage(data_dir: &Path, count: usize, harm: Harm, at: u32) -> Result<u64, &'static str> {
    let newest = newest(data_dir, count + 1);
    let Some((bad, [left])) = newest.split_at_checked(count) else {
        return Err("there are too few");
    };
    let own = |checkpoint: &Checkpoint| -> Option<PathBuf> {
        let own: Vec<&String> = checkpoint.parts.iter().filter(|part| !left.parts.contains(part)).collect();
        let name = own.get(at as usize % own.len().max(1))?;
        Some(data_dir.join("checkpoints").join("parts").join(name))
    };
    let Some(mut parts) = bad.iter().map(own).collect::<Option<Vec<_>>>() else {
        return Err("the newest has no part of its own");
    };
    parts.sort_unstable();
    parts.dedup();
    for part in parts {
        inflict(harm, &part, at as usize);
    }
    Ok(left.number)
}

fn inflict(harm: Harm, part: &Path, at: usize) {
    let mut bytes = fs::read(part).expect("it is listed");
    let at = at % bytes.len();
    match harm {
        Harm::Removed => return fs::remove_file(part).expect("it is ours"),
        Harm::Flipped => bytes[at] ^= 1 << (at % 8),
        Harm::Cut => bytes.truncate(at),
    }
    fs::write(part, bytes).expect("it is ours");
}

/// Folders that nothing can be created in or removed from, until it is dropped.
pub struct Unwritable(Vec<PathBuf>);

impl Unwritable {
    /// None where this file system has no way to refuse root.
    pub fn make(checkpoints: &Path) -> Option<Self> {
        let folders = Self(vec![checkpoints.to_owned(), checkpoints.join("parts")]);
        folders.0.iter().all(|folder| refuse(folder, true)).then_some(folders)
    }
}

impl Drop for Unwritable {
    fn drop(&mut self) {
        for folder in &self.0 {
            refuse(folder, false);
        }
    }
}

/// By its mode, which root does not heed; so for root by the attribute of ext4 and others.
fn refuse(folder: &Path, refused: bool) -> bool {
    if rustix::process::geteuid().is_root() {
        let done = Command::new("chattr").arg(if refused { "+i" } else { "-i" }).arg(folder).output();
        return done.is_ok_and(|output| output.status.success());
    }
    let mode = fs::Permissions::from_mode(if refused { 0o500 } else { 0o700 });
    fs::set_permissions(folder, mode).is_ok()
}
