//! Sixteen words looked at together: the one place for vector instructions.
#![allow(unsafe_code)]

/// A bit for each word that has the bits of `like` where `mask` has ones.
#[inline]
pub fn alike(words: &[u32; 16], like: u32, mask: u32) -> u32 {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{
            __m128i, _mm_and_si128, _mm_cmpeq_epi32, _mm_loadu_si128, _mm_movemask_epi8, _mm_packs_epi16,
            _mm_packs_epi32, _mm_set1_epi32,
        };
        let (fours, _) = words.as_chunks::<4>();
        // SAFETY: SSE2 is part of every x86-64; each load reads the four words that its pointer is to, at any alignment.
        unsafe {
            let (like, mask) = (_mm_set1_epi32((like & mask).cast_signed()), _mm_set1_epi32(mask.cast_signed()));
            let four = |at: usize| -> __m128i {
                _mm_cmpeq_epi32(_mm_and_si128(_mm_loadu_si128(fours[at].as_ptr().cast()), mask), like)
            };
            let all = _mm_packs_epi16(_mm_packs_epi32(four(0), four(1)), _mm_packs_epi32(four(2), four(3)));
            _mm_movemask_epi8(all).cast_unsigned()
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    alike_one_by_one(words, like, mask)
}

#[cfg(any(test, not(target_arch = "x86_64")))]
fn alike_one_by_one(words: &[u32; 16], like: u32, mask: u32) -> u32 {
    words.iter().rev().fold(0, |bits, word| bits << 1 | u32::from((word ^ like) & mask == 0))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn all_at_once_are_as_one_by_one(
            words in prop::array::uniform16(prop_oneof![0..4_u32, any::<u32>()]),
            like in prop_oneof![0..4_u32, any::<u32>()],
            shift in 0..32_u32,
        ) {
            let mask = u32::MAX << shift;
            prop_assert_eq!(alike(&words, like, mask), alike_one_by_one(&words, like, mask));
            prop_assert_eq!(alike(&words, words[9], mask) >> 9 & 1, 1);
        }
    }
}
