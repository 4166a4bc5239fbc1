//! SipHash-2-4 with 128 bits of output.
//!
//! Aumasson and Bernstein, *SipHash: a fast short-input PRF* (2012), and the 128-bit variant of their reference code. Own code
//! over whole words, since it is run for every event; the hasher of the `siphasher` crate, which takes pieces, is its test.

/// The longest text, bytes.
pub const TEXT_BYTES_MAX: usize = 263;

/// What a text lies in: whole words, and one more.
pub type Buffer = [u8; 272];

struct State([u64; 4]);

impl State {
    #[inline]
    fn round(&mut self) {
        let [mut v0, mut v1, mut v2, mut v3] = self.0;
        v0 = v0.wrapping_add(v1);
        v1 = v1.rotate_left(13) ^ v0;
        v0 = v0.rotate_left(32);
        v2 = v2.wrapping_add(v3);
        v3 = v3.rotate_left(16) ^ v2;
        v0 = v0.wrapping_add(v3);
        v3 = v3.rotate_left(21) ^ v0;
        v2 = v2.wrapping_add(v1);
        v1 = v1.rotate_left(17) ^ v2;
        v2 = v2.rotate_left(32);
        self.0 = [v0, v1, v2, v3];
    }

    #[inline]
    fn take(&mut self, word: u64) {
        self.0[3] ^= word;
        self.round();
        self.round();
        self.0[0] ^= word;
    }

    #[inline]
    fn give(&mut self) -> u64 {
        for _ in 0..4 {
            self.round();
        }
        self.0.iter().fold(0, |sum, word| sum ^ word)
    }
}

/// The hash of the first `length` bytes of `text`, at most [`TEXT_BYTES_MAX`]. Clears what is behind them.
#[inline]
pub fn sip128(key: [u64; 2], text: &mut Buffer, length: usize) -> [u64; 2] {
    text[length..length + 8].fill(0);
    let mut state = State([
        key[0] ^ 0x736f_6d65_7073_6575,
        key[1] ^ 0x646f_7261_6e64_6f6d ^ 0xee,
        key[0] ^ 0x6c79_6765_6e65_7261,
        key[1] ^ 0x7465_6462_7974_6573,
    ]);
    let (words, _) = text.as_chunks::<8>();
    let whole = length / 8;
    for word in &words[..whole] {
        state.take(u64::from_le_bytes(*word));
    }
    state.take(u64::from_le_bytes(words[whole]) | (length as u64) << 56);
    state.0[2] ^= 0xee;
    let first = state.give();
    state.0[1] ^= 0xdd;
    [first, state.give()]
}

#[cfg(test)]
mod tests {
    use std::hash::Hasher as _;

    use proptest::prelude::*;
    use siphasher::sip128::{Hasher128 as _, SipHasher24};

    use super::*;

    proptest! {
        #[test]
        fn it_is_the_hash_of_the_crate(key: [u64; 2], text in prop::collection::vec(any::<u8>(), 0..=TEXT_BYTES_MAX)) {
            let mut hasher = SipHasher24::new_with_keys(key[0], key[1]);
            hasher.write(&text);
            let hash = hasher.finish128();
            let mut buffer: Buffer = [0xFF; _];
            buffer[..text.len()].copy_from_slice(&text);
            prop_assert_eq!(sip128(key, &mut buffer, text.len()), [hash.h1, hash.h2]);
        }
    }
}
