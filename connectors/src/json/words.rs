//! Decimal digits, eight bytes at a time as one word: its lowest byte is the first.

const ONES: u64 = 0x0101_0101_0101_0101;

/// The powers of ten up to that of the most digits that are taken together.
pub(super) const TENS: [u64; 17] = {
    let mut tens = [1; 17];
    let mut power = 1;
    while power < tens.len() {
        tens[power] = tens[power - 1] * 10;
        power += 1;
    }
    tens
};

/// The number that decimal digits stand for, and how many of them there are: 0 where none is, `None` if more than 16.
#[inline]
pub(super) fn decimal(bytes: &[u8]) -> Option<(u64, usize)> {
    let word = head(bytes);
    let digits = digits_in(word);
    if digits < 8 {
        return Some((number(word, digits), digits));
    }
    let next = head(&bytes[8..]);
    let more = digits_in(next);
    if more == 8 && bytes.get(16).is_some_and(u8::is_ascii_digit) {
        return None;
    }
    Some((number(word, 8) * TENS[more] + number(next, more), 8 + more))
}

/// The first eight bytes; zeros where there are none.
#[inline]
fn head(bytes: &[u8]) -> u64 {
    match bytes.first_chunk() {
        Some(chunk) => u64::from_le_bytes(*chunk),
        None => bytes.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte)),
    }
}

/// The byte that the lowest bit is in.
#[inline]
fn first_byte(bits: u64) -> usize {
    bits.trailing_zeros() as usize / 8
}

/// How many digits the word begins with.
#[inline]
fn digits_in(word: u64) -> usize {
    // A digit is 0x30 to 0x39: its upper half is 3, also with 6 more. A carry comes only from a byte that is none.
    let others = ((word ^ (ONES * 0x30)) | (word.wrapping_add(ONES * 0x06) ^ (ONES * 0x30))) & (ONES * 0xF0);
    first_byte(others)
}

/// The number that the first so many bytes stand for, all digits: pairs, fours, eights (Lemire, *Quickly parsing eight digits*, 2018).
#[inline]
fn number(word: u64, digits: usize) -> u64 {
    let Some(word) = (word & (ONES * 0x0F)).checked_shl(8 * (8 - digits as u32)) else { return 0 };
    let pairs = word.wrapping_mul(10).wrapping_add(word >> 8);
    const EVEN: u64 = 0x0000_00FF_0000_00FF;
    let upper = (pairs & EVEN).wrapping_mul(100 + (1_000_000 << 32));
    let lower = ((pairs >> 16) & EVEN).wrapping_mul(1 + (10_000 << 32));
    upper.wrapping_add(lower) >> 32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_a_number_up_to_the_first_that_is_none() {
        for digits in 0..=18 {
            let text: String = "9182736450918273645".chars().take(digits).collect();
            for end in 0..=u8::MAX {
                if end.is_ascii_digit() {
                    continue;
                }
                for behind in [&b""[..], b"1", b"12345678", b"xxxxxxxxxx"] {
                    let bytes = [text.as_bytes(), &[end], behind].concat();
                    let expected = (digits <= 16).then(|| (text.parse().unwrap_or(0), digits));
                    assert_eq!(decimal(&bytes), expected, "{text} and {end}");
                }
            }
            assert_eq!(decimal(text.as_bytes()), (digits <= 16).then(|| (text.parse().unwrap_or(0), digits)));
        }
    }
}
