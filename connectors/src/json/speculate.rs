//! The layout that `tidemark produce` writes, verified instead of parsed.
//!
//! `{"event_id":"…","video_id":"…","event_type":"…","timestamp":123,"user_id":"…","value":1.5}`, the last two or
//! either of them left out; no blanks, no escapes, this order. Anything else, also anything malformed, is left to
//! the general parser: this one only ever says yes.
//!
//! All of it is to become one function, where the place in the text stays in a register. Left to itself the compiler makes calls of the
//! steps, with the place in memory.

use std::borrow::Cow;

use dataflows::{
    event::{Event, ID_BYTES_MAX},
    time::EVENT_TIME_MAX,
};

use super::{plain::Plain, rules, words};

/// The event, if the record has exactly that layout and obeys every rule.
#[inline(always)]
pub(super) fn speculate(record: &[u8]) -> Option<Event<'_>> {
    let mut rest = Rest { plain: &Plain::of(record)?, at: 0 };
    rest.literal(br#"{"event_id":""#)?;
    let event_id = rest.id()?;
    rest.literal(br#","video_id":""#)?;
    let video_id = rest.id()?;
    rest.literal(br#","event_type":""#)?;
    let event_type = rest.string().filter(|text| rules::is_event_type(text))?;
    rest.literal(br#","timestamp":"#)?;
    let event_time = rest.integer().filter(|time| *time <= EVENT_TIME_MAX)?;
    let user_id = match rest.literal(br#","user_id":""#) {
        Some(()) => Some(rest.id()?),
        None => None,
    };
    let value = match rest.literal(br#","value":"#) {
        Some(()) => Some(rest.last_number()?),
        None => None,
    };
    rest.literal(b"}").filter(|()| rest.at == record.len())?;
    Some(Event {
        event_id: Cow::Borrowed(event_id),
        video_id: Cow::Borrowed(video_id),
        event_type: Cow::Borrowed(event_type),
        event_time,
        user_id: user_id.map(Cow::Borrowed),
        value,
    })
}

/// Plain text from a place on.
struct Rest<'p, 'a> {
    plain: &'p Plain<'a>,
    at: usize,
}

impl<'a> Rest<'_, 'a> {
    #[inline(always)]
    fn bytes(&self) -> &'a [u8] {
        &self.plain.text.as_bytes()[self.at..]
    }

    /// Goes past what must come next.
    #[inline(always)]
    fn literal<const N: usize>(&mut self, literal: &[u8; N]) -> Option<()> {
        (self.bytes().first_chunk() == Some(literal)).then(|| self.at += N)
    }

    /// Goes past the rest of a string and its closing quote.
    #[inline(always)]
    fn string(&mut self) -> Option<&'a str> {
        let (begin, end) = (self.at, self.plain.quote(self.at)?);
        self.at = end + 1;
        Some(&self.plain.text[begin..end])
    }

    #[inline(always)]
    fn id(&mut self) -> Option<&'a str> {
        self.string().filter(|id| (1..=ID_BYTES_MAX).contains(&id.len()))
    }

    /// Goes past an integer of at most 15 digits, without zeros in front.
    #[inline(always)]
    fn integer(&mut self) -> Option<u64> {
        let is_zero = self.bytes().first() == Some(&b'0');
        let (number, digits) = words::decimal(self.bytes())?;
        self.at += digits;
        ((1..=15).contains(&digits) && (!is_zero || digits == 1)).then_some(number)
    }

    /// Goes past the number that ends before the last byte.
    #[inline(always)]
    fn last_number(&mut self) -> Option<f64> {
        let (begin, text) = (self.at, self.plain.text);
        self.short_number().filter(|_| self.at + 1 == text.len()).or_else(|| {
            self.at = text.len() - 1;
            let number = text.get(begin..self.at)?;
            if is_number(number) { rules::finite(number) } else { None }
        })
    }

    /// A number of at most 15 digits around a point. Both parts of the quotient are doubles, so it is the nearest one (Clinger,
    /// *How to read floating point numbers accurately*, 1990).
    #[inline(always)]
    fn short_number(&mut self) -> Option<f64> {
        let begin = self.at;
        let whole = self.integer()?;
        if self.literal(b".").is_none() {
            return Some(whole as f64);
        }
        let (fraction, digits) = words::decimal(self.bytes())?;
        self.at += digits;
        if digits == 0 || 16 < self.at - begin {
            return None;
        }
        let tens = words::TENS[digits];
        Some((whole * tens + fraction) as f64 / tens as f64)
    }
}

/// Whether `text` is a number by JSON's grammar, which is narrower than what `f64` parses.
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
    fn values_are_the_nearest_doubles() {
        let value = |number: &str| {
            let text =
                format!(r#"{{"event_id":"a","video_id":"v","event_type":"view","timestamp":1,"value":{number}}}"#);
            speculate(text.as_bytes()).map(|event| event.value.expect("it is said").to_bits())
        };
        for number in [
            "0",
            "1",
            "-1",
            "0.1",
            "227.6",
            "-0",
            "-0.0",
            "0.30000000000000004",
            "123456789012345",
            "1234567890123456",
            "99999999.9999999",
            "0.000000000000001",
            "0.0000000000000001",
            "1.5e3",
            "1e308",
            "2.5E-3",
            "9007199254740993",
        ] {
            assert_eq!(value(number), Some(number.parse::<f64>().unwrap().to_bits()), "{number}");
        }
        for wrong in ["", "01", "1.", ".5", "+1", "1e", "1e999", "--1", "1.2.3", "NaN", "0x1", "1 ", "00", "0.5a"] {
            assert_eq!(value(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn the_layouts_that_produce_writes_are_taken() {
        let head = r#"{"event_id":"6f1c","video_id":"v0012345","event_type":"view","timestamp":1767225600123"#;
        for tail in [r#"}"#, r#","user_id":"u17"}"#, r#","value":-12.5e1}"#, r#","user_id":"u17","value":0}"#] {
            assert!(speculate(format!("{head}{tail}").as_bytes()).is_some(), "{tail}");
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
            assert_eq!(speculate(text.as_bytes()), None, "{text}");
        }
    }
}
