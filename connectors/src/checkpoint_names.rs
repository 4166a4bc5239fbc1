//! The names in a checkpoint store, alike in a folder and in a bucket.
//!
//! Numbers have 20 digits, so that the order of names is that of versions.

use dataflows::port::Version;

use crate::embedded::checkpoints::file;

/// How many claims outlive a `retain`: the greatest is needed, the others tell an operator of restarts.
pub(crate) const CLAIMS_KEPT: usize = 4;

/// Attempts at one claim. Each failed one means that another process claimed in the same instant.
pub(crate) const CLAIM_ATTEMPTS_MAX: usize = 1_000;

/// The folder of the parts.
pub(crate) const PARTS: &str = "parts";

/// The greatest length of a part's name, bytes: file systems take 255.
const PART_NAME_BYTES_MAX: usize = 200;

const CLAIM_PREFIX: &str = "generation-";
const MANIFEST_SUFFIX: &str = ".manifest";

pub(crate) fn manifest_name(version: Version) -> String {
    format!("{}{MANIFEST_SUFFIX}", file::version_stem(version))
}

pub(crate) fn manifest_of(name: &str) -> Option<Version> {
    file::parse_version_stem(name.strip_suffix(MANIFEST_SUFFIX)?)
}

pub(crate) fn claim_name(generation: u64) -> String {
    format!("{CLAIM_PREFIX}{generation:020}")
}

pub(crate) fn claim_of(name: &str) -> Option<u64> {
    file::parse_digits(name.strip_prefix(CLAIM_PREFIX)?)
}

/// The greatest generation that was claimed; 0 before the first.
pub(crate) fn greatest_claim(names: &[String]) -> u64 {
    names.iter().filter_map(|name| claim_of(name)).max().unwrap_or(0)
}

/// The generation to claim: beyond every one that a claim or a manifest proves, and beyond `above`.
pub(crate) fn next_generation(names: &[String], above: u64) -> u64 {
    let proven = names.iter().filter_map(|name| Some(manifest_of(name)?.generation)).max().unwrap_or(0);
    greatest_claim(names).max(proven).max(above).checked_add(1).expect("nobody starts 2^64 times")
}

/// Claims that are of no use any more. `names` ascend.
pub(crate) fn old_claims(names: &[String]) -> impl Iterator<Item = &String> {
    names.iter().filter(|name| claim_of(name).is_some()).rev().skip(CLAIMS_KEPT)
}

/// Whether a part may have this name: it leads nowhere else.
pub(crate) fn fits_a_part(name: &str) -> bool {
    (1..=PART_NAME_BYTES_MAX).contains(&name.len())
        && !name.starts_with('.')
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'.')
}
