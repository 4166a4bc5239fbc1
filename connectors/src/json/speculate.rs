//! The layout that `tidemark produce` writes, verified instead of parsed.
//!
//! `{"event_id":"…","video_id":"…","event_type":"…","timestamp":123,"user_id":"…","value":1.5}`, the last two or
//! either of them left out; no blanks, no escapes, this order. Anything else, also anything malformed, is left to
//! the general parser: this one only ever says yes.

use std::borrow::Cow;

use dataflows::{
    event::{Event, ID_BYTES_MAX},
    time::{EVENT_TIME_MAX, EventTime},
};

use super::rules;

/// The event, if `text` has exactly that layout and obeys every rule.
#[inline]
pub(super) fn speculate(text: &str) -> Option<Event<'_>> {
    let (event_id, rest) = id(text.strip_prefix(r#"{"event_id":""#)?)?;
    let (video_id, rest) = id(rest.strip_prefix(r#","video_id":""#)?)?;
    let (event_type, rest) = plain_string(rest.strip_prefix(r#","event_type":""#)?)?;
    let (event_time, rest) = epoch_ms(rest.strip_prefix(r#","timestamp":"#)?)?;
    let (user_id, rest) = match rest.strip_prefix(r#","user_id":""#) {
        Some(rest) => id(rest).map(|(user_id, rest)| (Some(user_id), rest))?,
        None => (None, rest),
    };
    let rest = rest.strip_suffix('}')?;
    let value = match rest.strip_prefix(r#","value":"#) {
        Some(number) if is_number(number) => Some(rules::finite(number)?),
        Some(_) => return None,
        None if rest.is_empty() => None,
        None => return None,
    };
    rules::is_event_type(event_type).then_some(Event {
        event_id: Cow::Borrowed(event_id),
        video_id: Cow::Borrowed(video_id),
        event_type: Cow::Borrowed(event_type),
        event_time,
        user_id: user_id.map(Cow::Borrowed),
        value,
    })
}

/// An id and what follows its closing quote.
#[inline]
fn id(text: &str) -> Option<(&str, &str)> {
    plain_string(text).filter(|(id, _)| (1..=ID_BYTES_MAX).contains(&id.len()))
}

/// The rest of a string that has neither escapes nor control characters, and what follows its closing quote.
///
/// Eight bytes at a time (Mycroft's zero-byte test: a borrow can only disturb the bytes above the first hit).
#[inline]
fn plain_string(text: &str) -> Option<(&str, &str)> {
    let mut end = 0;
    let mut bytes = text.as_bytes();
    while let Some((chunk, behind)) = bytes.split_first_chunk() {
        let special = special_bytes(u64::from_le_bytes(*chunk));
        if special != 0 {
            end += special.trailing_zeros() as usize / 8;
            return split_at_quote(text, end);
        }
        end += chunk.len();
        bytes = behind;
    }
    end += bytes.iter().position(|&byte| is_special(byte))?;
    split_at_quote(text, end)
}

/// Splits around the quote at `end`, if that is what stands there.
#[inline]
fn split_at_quote(text: &str, end: usize) -> Option<(&str, &str)> {
    let (string, rest) = text.split_at_checked(end)?;
    Some((string, rest.strip_prefix('"')?))
}

fn is_special(byte: u8) -> bool {
    matches!(byte, 0..=0x1F | b'"' | b'\\' | 0x7F)
}

/// A word whose lowest set bit is the top bit of the first of the eight bytes that is special.
#[inline]
fn special_bytes(word: u64) -> u64 {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const TOPS: u64 = ONES << 7;
    let below = |word: u64, bound: u64| word.wrapping_sub(ONES * bound) & !word;
    let equal = |byte: u8| below(word ^ (ONES * u64::from(byte)), 1);
    (below(word, 0x20) | equal(b'"') | equal(b'\\') | equal(0x7F)) & TOPS
}

/// An integer without leading zeros, at most the end of the year 9999, and what follows it.
#[inline]
fn epoch_ms(text: &str) -> Option<(EventTime, &str)> {
    let (digits, rest) = rules::split_digits(text);
    // The greatest event time has 15 digits: no overflow up to there.
    if !(1..=15).contains(&digits.len()) || (digits.starts_with('0') && digits != "0") {
        return None;
    }
    let event_time = rules::decimal(digits);
    (event_time <= EVENT_TIME_MAX).then_some((event_time, rest))
}

/// Whether `text` is a number by JSON's grammar, which is narrower than what `f64` parses.
#[inline]
fn is_number(text: &str) -> bool {
    let (integer, rest) = rules::split_digits(text.strip_prefix('-').unwrap_or(text));
    if integer.is_empty() || (integer.starts_with('0') && integer != "0") {
        return false;
    }
    let rest = match rest.strip_prefix('.').map(rules::split_digits) {
        Some(("", _)) => return false,
        Some((_, rest)) => rest,
        None => rest,
    };
    match rest.strip_prefix(['e', 'E']) {
        Some(exponent) => {
            let (digits, rest) = rules::split_digits(exponent.strip_prefix(['+', '-']).unwrap_or(exponent));
            !digits.is_empty() && rest.is_empty()
        }
        None => rest.is_empty(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_special_byte_is_found_among_any_neighbours() {
        for special in 0..=u8::MAX {
            for neighbour in [b'a', b'!', b'#', b'[', b']', b' ', 0x7E, 0x80, 0xA2, 0xDC, 0xFF, special] {
                for at in 0..8 {
                    let mut chunk = [neighbour; 8];
                    chunk[at] = special;
                    let found = special_bytes(u64::from_le_bytes(chunk));
                    let found = (found != 0).then_some(found.trailing_zeros() as usize / 8);
                    let expected = chunk.iter().position(|&byte| is_special(byte));
                    assert_eq!(found, expected, "{chunk:?}");
                }
            }
        }
    }

    #[test]
    fn the_layouts_that_produce_writes_are_taken() {
        let head = r#"{"event_id":"6f1c","video_id":"v0012345","event_type":"view","timestamp":1767225600123"#;
        for tail in [r#"}"#, r#","user_id":"u17"}"#, r#","value":-12.5e1}"#, r#","user_id":"u17","value":0}"#] {
            assert!(speculate(&format!("{head}{tail}")).is_some(), "{tail}");
        }
    }

    #[test]
    fn other_layouts_are_left_to_the_general_parser() {
        for text in [
            r#""#,
            r#"{}"#,
            r#" {"event_id":"a","video_id":"v","event_type":"view","timestamp":1}"#,
            r#"{"event_id":"a","video_id":"v","event_type":"view","timestamp":1} "#,
            r#"{"event_id": "a","video_id":"v","event_type":"view","timestamp":1}"#,
            r#"{"video_id":"v","event_id":"a","event_type":"view","timestamp":1}"#,
            r#"{"event_id":"\u0061","video_id":"v","event_type":"view","timestamp":1}"#,
            r#"{"event_id":"a","video_id":"v","event_type":"view","timestamp":1,"value":1,"user_id":"u"}"#,
            r#"{"event_id":"a","video_id":"v","event_type":"view","timestamp":1,"more":1}"#,
            r#"{"event_id":"a","video_id":"v","event_type":"view","timestamp":1,"value":null}"#,
        ] {
            assert_eq!(speculate(text), None, "{text}");
        }
    }
}
