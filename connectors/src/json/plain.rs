//! Finds in one pass what ends strings, and whether there is anything that JSON or a rule could mean otherwise.
//!
//! Sixteen bytes at a time become a bit mask each, as in Langdale and Lemire, *Parsing gigabytes of JSON per second* (2019).
#![allow(unsafe_code)]

/// Bytes looked at together.
const CHUNK_BYTES: usize = 16;

/// The longest record that is looked at, bytes.
const BYTES_MAX: usize = 512;

/// A record that is text without a backslash or an ASCII control character.
pub(super) struct Plain<'a> {
    pub(super) text: &'a str,
    /// A bit a byte: where quotes are.
    quotes: [u64; BYTES_MAX / 64],
}

/// What a chunk has, a bit a byte.
#[derive(Debug, PartialEq, Eq)]
struct Masks {
    quotes: u16,
    /// Backslashes and control characters.
    specials: u16,
    not_ascii: u16,
}

impl<'a> Plain<'a> {
    /// Looks at all of a record.
    #[inline]
    pub(super) fn of(bytes: &'a [u8]) -> Option<Self> {
        if BYTES_MAX < bytes.len() {
            return None;
        }
        let (chunks, rest) = bytes.as_chunks::<CHUNK_BYTES>();
        let (mut quotes, mut specials, mut not_ascii) = ([0; BYTES_MAX / 64], 0, 0);
        let mut last = [b' '; CHUNK_BYTES];
        last[..rest.len()].copy_from_slice(rest);
        let mut note = |number: usize, chunk: &[u8; CHUNK_BYTES]| {
            let masks = masks(chunk);
            if let Some(word) = quotes.get_mut(number / 4) {
                *word |= u64::from(masks.quotes) << (number % 4 * CHUNK_BYTES);
            }
            specials |= masks.specials;
            not_ascii |= masks.not_ascii;
        };
        chunks.iter().enumerate().for_each(|(number, chunk)| note(number, chunk));
        note(chunks.len(), &last);
        let text = match (specials, not_ascii) {
            // SAFETY: all bytes were looked at, and none is 0x80 or greater.
            (0, 0) => unsafe { str::from_utf8_unchecked(bytes) },
            (0, _) => str::from_utf8(bytes).ok()?,
            _ => return None,
        };
        Some(Self { text, quotes })
    }

    /// Where the first quote at or behind a place is.
    #[inline]
    pub(super) fn quote(&self, at: usize) -> Option<usize> {
        let first = self.quotes.get(at / 64)? >> (at % 64);
        if first != 0 {
            return Some(at + first.trailing_zeros() as usize);
        }
        let behind = self.quotes.iter().enumerate().skip(at / 64 + 1).find(|(_, word)| **word != 0);
        behind.map(|(number, word)| number * 64 + word.trailing_zeros() as usize)
    }
}

#[cfg(target_arch = "x86_64")]
#[inline]
fn masks(chunk: &[u8; CHUNK_BYTES]) -> Masks {
    use std::arch::x86_64::{
        _mm_cmpeq_epi8, _mm_min_epu8, _mm_movemask_epi8, _mm_or_si128, _mm_set_epi64x, _mm_set1_epi8,
    };
    let number = u128::from_le_bytes(*chunk);
    // SAFETY: every x86-64 has these instructions, and none of them touches memory.
    unsafe {
        let bytes = _mm_set_epi64x((number >> 64) as i64, number as i64);
        let equal = |byte: u8| _mm_cmpeq_epi8(bytes, _mm_set1_epi8(byte as i8));
        let controls = _mm_cmpeq_epi8(_mm_min_epu8(bytes, _mm_set1_epi8(0x1F)), bytes);
        let specials = _mm_or_si128(controls, _mm_or_si128(equal(b'\\'), equal(0x7F)));
        Masks {
            quotes: _mm_movemask_epi8(equal(b'"')) as u16,
            specials: _mm_movemask_epi8(specials) as u16,
            not_ascii: _mm_movemask_epi8(bytes) as u16,
        }
    }
}

#[cfg(not(target_arch = "x86_64"))]
use portable as masks;

/// The same byte by byte.
#[cfg(any(test, not(target_arch = "x86_64")))]
fn portable(chunk: &[u8; CHUNK_BYTES]) -> Masks {
    let bits =
        |is: fn(u8) -> bool| chunk.iter().enumerate().fold(0, |bits, (at, byte)| bits | u16::from(is(*byte)) << at);
    Masks {
        quotes: bits(|byte| byte == b'"'),
        specials: bits(|byte| byte == b'\\' || byte.is_ascii_control()),
        not_ascii: bits(|byte| !byte.is_ascii()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_has_the_same_bits_in_every_place() {
        for neighbour in [b'a', b'"', b'\\', 0x1F, b' ', 0x7F, 0x80, 0xFF] {
            for at in 0..CHUNK_BYTES {
                for byte in 0..=u8::MAX {
                    let mut chunk = [neighbour; CHUNK_BYTES];
                    chunk[at] = byte;
                    assert_eq!(masks(&chunk), portable(&chunk), "{byte} at {at}");
                }
            }
        }
    }

    #[test]
    fn quotes_are_found_from_any_place_in_texts_of_any_length() {
        for length in 0..BYTES_MAX + 2 {
            let text: String = (0..length).map(|at| if at % 7 == 3 || at % 61 == 0 { '"' } else { 'a' }).collect();
            let plain = Plain::of(text.as_bytes());
            assert_eq!(plain.is_some(), length <= BYTES_MAX);
            let Some(plain) = plain else { continue };
            assert_eq!(plain.text, text);
            for at in 0..=length {
                assert_eq!(plain.quote(at), text[at..].find('"').map(|behind| at + behind), "{at} of {length}");
            }
        }
    }

    #[test]
    fn what_is_not_plain_text_is_found_wherever_it_is() {
        for length in 1..70 {
            for at in 0..length {
                for byte in [0, b'\n', 0x1F, b'\\', 0x7F, 0x80, 0xC3, 0xFF] {
                    let mut bytes = vec![b'a'; length];
                    bytes[at] = byte;
                    assert!(Plain::of(&bytes).is_none(), "{byte} at {at} of {length}");
                }
            }
        }
        let text = "beyond ASCII: \u{e9}\u{1f600}";
        assert_eq!(Plain::of(text.as_bytes()).map(|plain| plain.text), Some(text));
    }
}
