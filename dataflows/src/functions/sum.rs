//! Sums of doubles that are exact, whatever the order: an integer times a power of two.
//!
//! A finite double is `m × 2^e` with `|m| < 2^53`, so a sum of them is such a product as well, of a longer `m`. Integers add up
//! exactly and in any order; only what is read is rounded, once, to the nearest double (ties to even), as Python's `fsum` does.
//!
//! Invariant (canonical form, so that equal sums are equal bytes): `mantissa` is odd, or `mantissa` and `exponent` are zero;
//! it is `Small` where it fits.

use std::cmp::Ordering;

use num_bigint::{BigInt, Sign};
use serde::{Deserialize, Serialize};

/// The exponent of the least double, and so of every sum.
const EXPONENT_MIN: i32 = -1_074;

/// Fraction bits of a double.
const FRACTION_BITS: i32 = 52;

/// A double's bits, one to round by, and one for whether anything follows.
const HEAD_BITS: i32 = FRACTION_BITS + 3;

/// An exact sum. `Ord` is of representations, not of values.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ExactSum {
    mantissa: Mantissa,
    exponent: i32,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
enum Mantissa {
    /// In two halves, since a whole `i128` would have to be aligned to 16 bytes: high, low.
    Small(i64, u64),
    Big(Box<BigInt>),
}

impl Default for Mantissa {
    fn default() -> Self {
        Self::small(0)
    }
}

impl Mantissa {
    fn small(value: i128) -> Self {
        Self::Small((value >> 64) as i64, value as u64)
    }

    fn value(&self) -> Option<i128> {
        match self {
            Self::Small(high, low) => Some(i128::from(*high) << 64 | i128::from(*low)),
            Self::Big(_) => None,
        }
    }

    fn big(&self) -> BigInt {
        match self {
            Self::Small(..) => self.value().unwrap_or_default().into(),
            Self::Big(big) => (**big).clone(),
        }
    }
}

impl From<f64> for ExactSum {
    /// Of a finite number.
    fn from(value: f64) -> Self {
        assert!(value.is_finite(), "only finite numbers have a sum");
        let bits = value.to_bits();
        let biased = (bits >> FRACTION_BITS & 0x7ff) as i32;
        let fraction = (bits & ((1 << FRACTION_BITS) - 1)) as i128;
        let (magnitude, exponent) = match biased {
            0 => (fraction, EXPONENT_MIN),
            _ => (fraction | 1 << FRACTION_BITS, biased - 1 + EXPONENT_MIN),
        };
        Self::of_small(if value.is_sign_negative() { -magnitude } else { magnitude }, exponent)
    }
}

impl ExactSum {
    fn of_small(mantissa: i128, exponent: i32) -> Self {
        if mantissa == 0 {
            return Self::default();
        }
        let zeros = mantissa.trailing_zeros();
        Self { mantissa: Mantissa::small(mantissa >> zeros), exponent: exponent + zeros as i32 }
    }

    fn of_big(mantissa: BigInt, exponent: i32) -> Self {
        let Some(zeros) = mantissa.trailing_zeros() else { return Self::default() };
        let odd = mantissa >> zeros;
        let exponent = exponent + i32::try_from(zeros).expect("a sum has a few thousand bits");
        let mantissa = i128::try_from(&odd).map_or_else(|_| Mantissa::Big(Box::new(odd)), Mantissa::small);
        Self { mantissa, exponent }
    }

    /// Adds another sum.
    pub fn add(&mut self, other: &Self) {
        if other.is_zero() {
            return;
        }
        if self.is_zero() {
            other.clone_into(self);
            return;
        }
        let exponent = self.exponent.min(other.exponent);
        *self = match self.shifted(exponent).zip(other.shifted(exponent)).and_then(|(a, b)| a.checked_add(b)) {
            Some(sum) => Self::of_small(sum, exponent),
            None => Self::of_big(self.shifted_big(exponent) + other.shifted_big(exponent), exponent),
        };
    }

    fn is_zero(&self) -> bool {
        self.mantissa.value() == Some(0)
    }

    /// The mantissa for a smaller exponent, if that fits.
    fn shifted(&self, exponent: i32) -> Option<i128> {
        let (value, by) = (self.mantissa.value()?, self.exponent - exponent);
        let room = value.unsigned_abs().leading_zeros() as i32 - 1;
        (by < room).then(|| value << by)
    }

    fn shifted_big(&self, exponent: i32) -> BigInt {
        self.mantissa.big() << (self.exponent - exponent)
    }

    /// The nearest double, ties to even; `None` where it is beyond the greatest.
    pub fn rounded(&self) -> Option<f64> {
        let (sign, magnitude) = self.mantissa.big().into_parts();
        // No sum has a finer unit than the least double: all that is to be rounded is what is longer than a double's bits.
        let bits = magnitude.bits() as i32;
        let dropped = (bits - HEAD_BITS).max(0);
        let has_more = magnitude.trailing_zeros().is_some_and(|zeros| (zeros as i32) < dropped);
        let head = u64::try_from(magnitude >> dropped).expect("55 bits are left") | u64::from(has_more);
        let too_fine = (bits - dropped - FRACTION_BITS - 1).max(0);
        let (whole, rest) = (head >> too_fine, head & ((1 << too_fine) - 1));
        let up = match (rest << 1).cmp(&(1 << too_fine)) {
            Ordering::Less => false,
            Ordering::Equal => whole & 1 == 1,
            Ordering::Greater => true,
        };
        let value = scale((whole + u64::from(up)) as f64, self.exponent + dropped + too_fine);
        let value = if sign == Sign::Minus { -value } else { value };
        value.is_finite().then_some(value)
    }

    /// The exponent, and the mantissa as little-endian two's complement of as few bytes as it takes.
    pub fn to_parts(&self) -> (i32, Vec<u8>) {
        (self.exponent, self.mantissa.big().to_signed_bytes_le())
    }

    /// The sum of such parts; `None` if they are of none.
    pub fn of_parts(exponent: i32, mantissa: &[u8]) -> Option<Self> {
        let sum = Self::of_big(BigInt::from_signed_bytes_le(mantissa), exponent);
        ((EXPONENT_MIN..=1_100).contains(&exponent)
            && mantissa.len() < 512
            && sum.to_parts() == (exponent, mantissa.to_vec()))
            .then_some(sum)
    }
}

/// `whole × 2^exponent` where that is a double or beyond all of them.
fn scale(whole: f64, exponent: i32) -> f64 {
    let power = |exponent: i32| f64::from_bits(((exponent + 1_023) as u64) << FRACTION_BITS);
    // The power of two may be out of range where the product is not. In two steps both are exact: nothing is to be rounded.
    let first = exponent.clamp(-1_000, 1_000);
    whole * power(first) * power((exponent - first).clamp(-1_000, 1_000))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sum(values: &[f64]) -> ExactSum {
        let mut sum = ExactSum::default();
        values.iter().for_each(|value| sum.add(&ExactSum::from(*value)));
        sum
    }

    #[test]
    fn a_sum_is_rounded_once_and_keeps_what_cancels() {
        let tiny = f64::from_bits(1);
        // values | what Python's math.fsum says
        let rows: [(&[f64], f64); 11] = [
            (&[], 0.0),
            (&[0.1; 10], 1.0),
            (&[1e100, 1.0, -1e100], 1.0),
            (&[1e16, 1.0, 1.0], 1.000_000_000_000_000_2e16),
            (&[1e16, 1.0], 1e16),
            (&[9_007_199_254_740_992.0, 1.0, 1e-300], 9_007_199_254_740_994.0),
            (&[tiny, tiny], f64::from_bits(2)),
            (&[f64::MAX, 1.0, -f64::MAX, tiny], 1.0),
            (&[f64::MIN_POSITIVE, -tiny], f64::from_bits(0x000f_ffff_ffff_ffff)),
            (&[-2.5, 0.0, -0.0], -2.5),
            (&[f64::MAX, f64::MAX, -f64::MAX], f64::MAX),
        ];
        for (values, expected) in rows {
            assert_eq!(sum(values).rounded().map(f64::to_bits), Some(expected.to_bits()), "{values:?}");
        }
        assert_eq!(sum(&[f64::MAX, f64::MAX]).rounded(), None, "beyond the greatest double");
    }

    fn doubles() -> impl Strategy<Value = f64> {
        prop_oneof![
            any::<f64>().prop_filter("finite", |value| value.is_finite()),
            -1e6..1e6,
            (-1000_i32..1000).prop_map(f64::from),
            (0_u64..50).prop_map(f64::from_bits),
        ]
    }

    proptest! {
        #[test]
        fn any_order_and_any_grouping_give_the_same_bytes(values in prop::collection::vec(doubles(), 0..12), cut in 0_usize..12) {
            let whole = sum(&values);
            let mut reversed = values.clone();
            reversed.reverse();
            prop_assert_eq!(sum(&reversed).to_parts(), whole.to_parts());
            let (left, right) = values.split_at(cut.min(values.len()));
            let mut merged = sum(right);
            merged.add(&sum(left));
            prop_assert_eq!(&merged, &whole);
            let (exponent, mantissa) = whole.to_parts();
            prop_assert_eq!(ExactSum::of_parts(exponent, &mantissa), Some(whole));
        }

        #[test]
        fn one_double_and_the_sum_of_two_are_as_the_machine_rounds_them(a in doubles(), b in doubles()) {
            prop_assert_eq!(sum(&[a]).rounded(), Some(a));
            let by_machine = a + b;
            prop_assert_eq!(sum(&[a, b]).rounded(), by_machine.is_finite().then_some(by_machine));
        }
    }
}
