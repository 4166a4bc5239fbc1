//! Quantiles of the values, by counts in bins whose widths are a fixed part of what they hold.
//!
//! In the manner of DDSketch (Masson, Rim and Lee, VLDB 2019) with its log-linear mapping: a bin is named by the sign, the exponent
//! and the first 6 fraction bits of a double, so it spans at most 1/64 of its lower end. Bins are never collapsed, as what that
//! gives depends on the order: there are at most as many as events.

use serde::{Deserialize, Serialize};

/// How far a quantile may be off, as a part of its true value: half a bin's width over its middle, 1/129.
pub const RELATIVE_ERROR: f64 = 1.0 / 129.0;

/// Bits of a double behind those that name its bin.
const SHIFT: u32 = 46;

/// The bin of positive zero: those of negative numbers are below it.
const ZERO: u32 = 1 << 17;

/// Bins of positive numbers that are no normal doubles (below 2.3e-308): they count as zero.
const SUBNORMAL: u32 = 1 << 6;

/// Bins with how many values are in each, ascending.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Quantiles(pub(super) Vec<(u32, u64)>);

impl Quantiles {
    /// Adds a finite value.
    pub fn add(&mut self, value: f64) {
        self.add_to(bin(value), 1);
    }

    fn add_to(&mut self, bin: u32, values: u64) {
        if self.0.is_empty() {
            // Most windows have one bin, and a vector would take four at once.
            self.0.reserve_exact(1);
        }
        match self.0.binary_search_by_key(&bin, |(bin, _)| *bin) {
            Ok(place) => self.0[place].1 += values,
            Err(place) => self.0.insert(place, (bin, values)),
        }
    }

    /// Adds all of another.
    pub fn merge(&mut self, other: &Self) {
        if self.0.is_empty() {
            other.0.clone_into(&mut self.0);
        } else {
            other.0.iter().for_each(|(bin, values)| self.add_to(*bin, *values));
        }
    }

    /// A value within [`RELATIVE_ERROR`] of the one that has `percent` of the others below it: of `n` ascending ones, that at place
    /// `floor(percent × (n − 1) / 100)`. `None` where there are none.
    pub fn at(&self, percent: u64) -> Option<f64> {
        let all: u64 = self.0.iter().map(|(_, values)| values).sum();
        let place = all.checked_sub(1)? as u128 * u128::from(percent) / 100;
        let mut below = 0;
        let bin = self.0.iter().find(|(_, values)| {
            below += u128::from(*values);
            place < below
        });
        bin.map(|(bin, _)| middle(*bin))
    }

    pub(super) fn is_sound(&self) -> bool {
        let ascending = self.0.is_sorted_by(|(one, _), (next, _)| one < next);
        ascending && self.0.iter().all(|(bin, values)| *bin < 2 * ZERO && 0 < *values)
    }
}

fn bin(value: f64) -> u32 {
    let magnitude = (value.abs().to_bits() >> SHIFT) as u32;
    match magnitude {
        ..SUBNORMAL => ZERO,
        _ if value.is_sign_negative() => ZERO - 1 - magnitude,
        _ => ZERO + magnitude,
    }
}

/// What is as far from both ends, as a part of them: their harmonic mean.
fn middle(bin: u32) -> f64 {
    let (magnitude, sign) = if bin < ZERO { (ZERO - 1 - bin, -1.0) } else { (bin - ZERO, 1.0) };
    if magnitude < SUBNORMAL {
        return 0.0;
    }
    let low = f64::from_bits(u64::from(magnitude) << SHIFT);
    // The bin above the last one of all would begin with infinity.
    let width = f64::from_bits(u64::from(magnitude & !63) << SHIFT) / 64.0;
    let high = low + width;
    let middle = low + width * (low / high) / (1.0 + low / high);
    sign * if high.is_finite() { middle } else { low + width / 2.0 }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(values: &[f64]) -> Quantiles {
        let mut quantiles = Quantiles::default();
        values.iter().for_each(|value| quantiles.add(*value));
        quantiles
    }

    #[test]
    fn zero_the_greatest_and_the_least_have_bins() {
        assert_eq!(of(&[]).at(50), None);
        assert_eq!(of(&[0.0, -0.0, f64::from_bits(1), -1e-310]).0, [(ZERO, 4)]);
        for value in [f64::MAX, f64::MIN, f64::MIN_POSITIVE, -f64::MIN_POSITIVE, 1.0, -1.0] {
            let quantile = of(&[value]).at(50).expect("there is a value");
            assert!(((quantile - value) / value).abs() <= RELATIVE_ERROR * (1.0 + 1e-9), "{value}: {quantile}");
        }
    }

    proptest! {
        #[test]
        fn a_quantile_is_within_its_error_of_the_true_one(
            values in prop::collection::vec(prop_oneof![-1e9..1e9, 0.0..10.0, any::<f64>()], 1..60),
            percent in 0_u64..=100,
        ) {
            let mut values: Vec<f64> = values.into_iter().filter(|value: &f64| value.is_normal()).collect();
            prop_assume!(!values.is_empty());
            let quantile = of(&values).at(percent).expect("there are values");
            values.sort_unstable_by(f64::total_cmp);
            let expected = values[(values.len() - 1) * percent as usize / 100];
            prop_assert!(((quantile - expected) / expected).abs() <= RELATIVE_ERROR * (1.0 + 1e-12), "{quantile} {expected}");
        }

        #[test]
        fn any_order_and_any_grouping_give_the_same_bytes(values in prop::collection::vec(-5.0..50.0, 0..60), cut in 0_usize..60) {
            let (left, right) = values.split_at(cut.min(values.len()));
            let mut merged = of(right);
            merged.merge(&of(left));
            prop_assert!(merged.is_sound());
            prop_assert_eq!(merged, of(&values));
        }
    }
}
