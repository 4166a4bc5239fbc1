//! How many different users: exactly as long as they are few, then by a sketch.
//!
//! The sketch is HyperLogLog (Flajolet et al. 2007) over 64-bit hashes with 2^14 registers, read by the estimator of Ertl, *New
//! cardinality estimation algorithms for HyperLogLog sketches* (arXiv 1702.01284, algorithm 6): it needs no tables of bias, and
//! depends on the registers alone, never on the order in which they came to be.
//!
//! Invariant: `Exact` if and only if at most [`EXACT_MAX`] hashes were seen, so equal sets are equal bytes, however they came
//! together.

use serde::{Deserialize, Serialize};

/// As many different users are counted exactly.
pub const EXACT_MAX: usize = 2_048;

/// The relative standard error of an estimate: `1.04 / sqrt(registers)`.
pub const STANDARD_ERROR: f64 = 0.008_125;

/// Hash bits that choose a register.
const INDEX_BITS: u32 = 14;
pub(super) const REGISTERS: usize = 1 << INDEX_BITS;

/// The greatest rank: all the other bits are zero.
const RANK_MAX: u8 = (64 - INDEX_BITS + 1) as u8;

/// A set of hashed users, or the sketch of one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Distinct {
    /// The hashes, ascending.
    Exact(Vec<u64>),
    /// The registers.
    Sketch(Box<[u8]>),
}

impl Default for Distinct {
    fn default() -> Self {
        Self::Exact(Vec::new())
    }
}

impl Distinct {
    /// Adds one hash.
    pub fn add(&mut self, hash: u64) {
        match self {
            Self::Exact(hashes) => {
                let Err(place) = hashes.binary_search(&hash) else { return };
                if hashes.is_empty() {
                    // Most windows have one user, and a vector would take four at once.
                    hashes.reserve_exact(1);
                }
                hashes.insert(place, hash);
                if EXACT_MAX < hashes.len() {
                    *self = Self::Sketch(registers(hashes));
                }
            }
            Self::Sketch(registers) => note(registers, hash),
        }
    }

    /// Adds all of another set.
    pub fn merge(&mut self, other: &Self) {
        match (&mut *self, other) {
            (Self::Exact(_), Self::Sketch(theirs)) => {
                let ours = std::mem::replace(self, Self::Sketch(theirs.clone()));
                self.merge(&ours);
            }
            (Self::Sketch(ours), Self::Sketch(theirs)) => {
                ours.iter_mut().zip(theirs).for_each(|(ours, theirs)| *ours = (*ours).max(*theirs));
            }
            (Self::Sketch(ours), Self::Exact(theirs)) => theirs.iter().for_each(|hash| note(ours, *hash)),
            (Self::Exact(ours), Self::Exact(theirs)) => {
                ours.extend_from_slice(theirs);
                ours.sort_unstable();
                ours.dedup();
                if EXACT_MAX < ours.len() {
                    *self = Self::Sketch(registers(ours));
                }
            }
        }
    }

    /// How many, and the relative standard error of that: 0 where it is exact.
    pub fn count(&self) -> (u64, f64) {
        match self {
            Self::Exact(hashes) => (hashes.len() as u64, 0.0),
            Self::Sketch(registers) => (estimate(registers).round() as u64, STANDARD_ERROR),
        }
    }

    /// Whether this is the canonical form of some set.
    pub(super) fn is_sound(&self) -> bool {
        match self {
            Self::Exact(hashes) => hashes.len() <= EXACT_MAX && hashes.is_sorted_by(|one, next| one < next),
            Self::Sketch(registers) => registers.len() == REGISTERS && registers.iter().all(|rank| *rank <= RANK_MAX),
        }
    }
}

fn registers(hashes: &[u64]) -> Box<[u8]> {
    let mut registers = vec![0; REGISTERS].into_boxed_slice();
    hashes.iter().for_each(|hash| note(&mut registers, *hash));
    registers
}

fn note(registers: &mut [u8], hash: u64) {
    let register = &mut registers[(hash >> (64 - INDEX_BITS)) as usize];
    // A one behind the last bit bounds the rank.
    let rest = hash << INDEX_BITS | 1 << (INDEX_BITS - 1);
    *register = (*register).max(rest.leading_zeros() as u8 + 1);
}

fn estimate(registers: &[u8]) -> f64 {
    let mut of_rank = [0_u32; RANK_MAX as usize + 1];
    registers.iter().for_each(|rank| of_rank[usize::from(*rank)] += 1);
    let all = REGISTERS as f64;
    let mut z = all * tau(1.0 - f64::from(of_rank[usize::from(RANK_MAX)]) / all);
    for registers in of_rank[1..usize::from(RANK_MAX)].iter().rev() {
        z = 0.5 * (z + f64::from(*registers));
    }
    z += all * sigma(f64::from(of_rank[0]) / all);
    all * all / (2.0 * std::f64::consts::LN_2 * z)
}

fn sigma(mut x: f64) -> f64 {
    if x == 1.0 {
        return f64::INFINITY;
    }
    let (mut power, mut sum) = (1.0, x);
    loop {
        x *= x;
        let before = sum;
        sum += x * power;
        power += power;
        if sum == before {
            return sum;
        }
    }
}

fn tau(mut x: f64) -> f64 {
    if x == 0.0 || x == 1.0 {
        return 0.0;
    }
    let (mut power, mut sum) = (1.0, 1.0 - x);
    loop {
        x = x.sqrt();
        let before = sum;
        power *= 0.5;
        sum -= (1.0 - x) * (1.0 - x) * power;
        if sum == before {
            return sum / 3.0;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Well-mixed numbers: SplitMix64 (Steele et al. 2014).
    fn mixed(number: u64) -> u64 {
        let mut z = number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn of(numbers: impl IntoIterator<Item = u64>) -> Distinct {
        let mut distinct = Distinct::default();
        numbers.into_iter().for_each(|number| distinct.add(mixed(number)));
        distinct
    }

    #[test]
    fn it_is_exact_up_to_its_limit_and_within_four_standard_errors_beyond() {
        for users in [0, 1, 2_048_u64] {
            assert_eq!(of((0..users).chain(0..users)).count(), (users, 0.0));
        }
        for users in [2_049_u64, 5_000, 40_000, 300_000] {
            let (estimate, error) = of(0..users).count();
            let off = (estimate as f64 - users as f64).abs() / users as f64;
            assert!(error == STANDARD_ERROR && off < 4.0 * error, "{users}: {estimate}");
        }
    }

    #[test]
    fn the_greatest_rank_is_that_of_a_hash_without_ones() {
        let mut registers = registers(&[0]);
        assert_eq!(registers[0], RANK_MAX);
        note(&mut registers, u64::MAX);
        assert_eq!(registers[REGISTERS - 1], 1);
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

        #[test]
        fn any_order_and_any_grouping_give_the_same_bytes(
            groups in prop::collection::vec((0_u64..3_000, 0_u64..3_000), 1..5),
        ) {
            let ranges: Vec<_> = groups.iter().map(|(from, length)| *from..from + length).collect();
            let whole = of(ranges.iter().cloned().flatten());
            let mut merged = Distinct::default();
            ranges.iter().rev().for_each(|range| merged.merge(&of(range.clone().rev())));
            prop_assert!(whole.is_sound());
            prop_assert_eq!(merged, whole);
        }
    }
}
