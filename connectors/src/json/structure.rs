//! The two rules that serde_json does not apply to what it skips: whole surrogate pairs, and the depth.

use dataflows::event::Cause;
use memchr::{memchr, memchr2, memchr2_iter};

/// The deepest nesting of objects and arrays, the event's own object included.
const DEPTH_MAX: usize = 128;

/// Checks every escape and bracket of `text`, which holds one object of valid syntax.
///
/// A loop and a counter, so that a million brackets cost neither stack nor more than linear time.
pub(super) fn check(text: &str) -> Result<(), Cause> {
    let bytes = text.as_bytes();
    let nested = memchr2_iter(b'{', b'[', bytes).nth(1).is_some();
    if !nested && memchr(b'\\', bytes).is_none() {
        return Ok(());
    }
    let (mut depth, mut deepest) = (0_usize, 0);
    let mut rest = bytes;
    while let [byte, behind @ ..] = rest {
        rest = match byte {
            b'"' => behind_string(behind)?,
            _ => behind,
        };
        match byte {
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth -= 1,
            _ => {}
        }
        deepest = deepest.max(depth);
    }
    if deepest <= DEPTH_MAX { Ok(()) } else { Err(Cause::Depth) }
}

/// What follows the closing quote of the string that `bytes` begins within.
fn behind_string(mut bytes: &[u8]) -> Result<&[u8], Cause> {
    while let Some(at) = memchr2(b'"', b'\\', bytes) {
        bytes = match &bytes[at..] {
            [b'"', rest @ ..] => return Ok(rest),
            escape => behind_escape(escape)?,
        };
    }
    Ok(&[])
}

/// What follows the escape (a surrogate pair is one) at the head of `bytes`.
fn behind_escape(bytes: &[u8]) -> Result<&[u8], Cause> {
    match split_unit(bytes) {
        None => Ok(bytes.get(2..).unwrap_or_default()),
        Some((0xD800..=0xDBFF, rest)) => match split_unit(rest) {
            Some((0xDC00..=0xDFFF, rest)) => Ok(rest),
            _ => Err(Cause::Utf8),
        },
        Some((0xDC00..=0xDFFF, _)) => Err(Cause::Utf8),
        Some((_, rest)) => Ok(rest),
    }
}

/// The UTF-16 unit of a `\uXXXX` at the head of `bytes`, and what follows it.
fn split_unit(bytes: &[u8]) -> Option<(u32, &[u8])> {
    let (digits, rest) = bytes.strip_prefix(b"\\u")?.split_at_checked(4)?;
    let unit = digits.iter().try_fold(0, |unit, &digit| Some(unit * 16 + char::from(digit).to_digit(16)?))?;
    Some((unit, rest))
}
