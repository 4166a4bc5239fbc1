//! The write timestamp of a version.
//!
//! ```text
//! bit 63     0: the timestamp is positive
//! bit 62     1: above every wall-clock microsecond for 146,000 years, so a stray edit can't win
//! bits 34-61 generation, 28 bits: a start every second for 8.5 years
//! bits 0-33  number, 34 bits: ten checkpoints a second for 54 years
//! ```
//!
//! So the order of timestamps is the order of versions: generation, then number. Cassandra keeps the cell of the greatest
//! timestamp, whatever the order of arrival; of equal timestamps the greater value, so one version must always say the
//! same of a row.

use dataflows::port::Version;

const MARK: u64 = 1 << 62;
const NUMBER_BITS: u32 = 34;
const GENERATION_BITS: u32 = 28;

/// The timestamp; `None` where generation or number are too great for their bits.
pub(super) fn timestamp(version: Version) -> Option<i64> {
    if version.generation >> GENERATION_BITS != 0 || version.number >> NUMBER_BITS != 0 {
        return None;
    }
    i64::try_from(MARK | version.generation << NUMBER_BITS | version.number).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn packed(generation: u64, number: u64) -> Option<i64> {
        timestamp(Version { generation, number })
    }

    #[test]
    fn the_bits_are_where_the_page_says() {
        assert_eq!(packed(0, 0), Some(1 << 62));
        assert_eq!(packed(0, 1), Some((1 << 62) + 1));
        assert_eq!(packed(1, 0), Some((1 << 62) + (1 << 34)));
        assert_eq!(packed((1 << 28) - 1, (1 << 34) - 1), Some(i64::MAX));
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        assert_eq!(packed(1 << 28, 0), None);
        assert_eq!(packed(0, 1 << 34), None);
        assert_eq!(packed(u64::MAX, u64::MAX), None);
    }

    proptest! {
        #[test]
        fn timestamps_are_ordered_as_versions_are(
            a in (0_u64..1 << 28, 0_u64..1 << 34),
            b in (0_u64..1 << 28, 0_u64..1 << 34),
        ) {
            prop_assert_eq!(packed(a.0, a.1).cmp(&packed(b.0, b.1)), a.cmp(&b));
        }
    }
}
