//! What the parts of checkpoints come to on disk, where they come to most.
//!
//! A chain of parts begins with a merged one, and is merged once those behind it are as large together, or very many (`keeper/merge.rs`).
//! Until the checkpoints of the next chain are kept, the last one of the chain before stays. So just after a merge there are two whole
//! chains and the beginning of a third.

use crate::live::keeper::merge::{PARTS_MAX, PARTS_MIN};

/// Bytes of all parts, where a whole state has `whole`, and each of so many checkpoints adds `adds` in a part of each worker.
pub fn most(whole: f64, adds: f64, workers: f64, checkpoints: f64) -> f64 {
    if !merges(workers, checkpoints) {
        return adds * checkpoints;
    }
    let behind = whole.clamp(adds * PARTS_MIN as f64 / workers, adds * PARTS_MAX as f64 / workers);
    let chain = whole + behind;
    (2.0 * chain + whole + adds).min(whole + adds * checkpoints)
}

/// Whether so many checkpoints leave parts enough for a merge.
pub fn merges(workers: f64, checkpoints: f64) -> bool {
    PARTS_MIN as f64 <= workers * checkpoints
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn before_there_is_a_merge_there_is_what_was_added() {
        assert_eq!(most(100.0, 10.0, 2.0, 7.0), 70.0);
        assert!(!merges(2.0, 7.0) && merges(2.0, 8.0));
    }

    #[test]
    fn then_there_are_at_most_two_chains_and_a_merged_part() {
        assert_eq!(most(100.0, 1.0, 1.0, 1e9), 2.0 * 200.0 + 100.0 + 1.0);
        // Small parts are merged because they are many.
        assert_eq!(most(100.0, 0.1, 1.0, 1e9), 2.0 * 125.6 + 100.0 + 0.1);
        // Large ones not before there are enough.
        assert_eq!(most(100.0, 20.0, 1.0, 1e9), 2.0 * 420.0 + 100.0 + 20.0);
    }
}
