//! What the values of an event must obey: the table of the contract's section 1.

use chrono::NaiveDate;
pub(super) use dataflows::event::is_event_type;
use dataflows::{
    event::ID_BYTES_MAX,
    time::{EVENT_TIME_MAX, EventTime},
};

/// An `event_id`, `video_id` or `user_id`: 1–128 bytes, no U+0000–001F, no U+007F.
pub(super) fn is_id(text: &str) -> bool {
    (1..=ID_BYTES_MAX).contains(&text.len()) && !text.bytes().any(|byte| byte.is_ascii_control())
}

/// Epoch milliseconds from decimal digits, however many.
pub(super) fn epoch_ms(digits: &str) -> Option<EventTime> {
    // Digits that overflow 64 bits are far past the year 9999.
    digits.parse().ok().filter(|&event_time| event_time <= EVENT_TIME_MAX)
}

/// The double nearest to a JSON number, unless it overflows.
pub(super) fn finite(number: &str) -> Option<f64> {
    number.parse().ok().filter(|value: &f64| value.is_finite())
}

/// The instant of an RFC 3339 `date-time`, cut to milliseconds: exactly its ABNF (section 5.6), less second 60.
///
/// Own code, since chrono's parser also takes a space for the `T`, and leap seconds.
pub(super) fn rfc3339(text: &str) -> Option<EventTime> {
    let (year, rest) = number(text, 4)?;
    let (month, rest) = number(rest.strip_prefix('-')?, 2)?;
    let (day, rest) = number(rest.strip_prefix('-')?, 2)?;
    let (hour, rest) = number(rest.strip_prefix(['T', 't'])?, 2)?;
    let (minute, rest) = number(rest.strip_prefix(':')?, 2)?;
    let (second, rest) = number(rest.strip_prefix(':')?, 2)?;
    let (milli, rest) = match rest.strip_prefix('.') {
        Some(fraction) => milliseconds(fraction)?,
        None => (0, rest),
    };
    let local = NaiveDate::from_ymd_opt(i32::try_from(year).ok()?, month, day)?
        .and_hms_milli_opt(hour, minute, second, milli)?
        .and_utc()
        .timestamp_millis();
    let instant = local - offset_minutes(rest)? * 60_000;
    EventTime::try_from(instant).ok().filter(|&event_time| event_time <= EVENT_TIME_MAX)
}

/// `time-offset`, to the end of the text: how many minutes the local time is ahead of UTC.
fn offset_minutes(text: &str) -> Option<i64> {
    if matches!(text, "Z" | "z") {
        return Some(0);
    }
    let (sign, rest) = match text.strip_prefix('+') {
        Some(rest) => (1, rest),
        None => (-1, text.strip_prefix('-')?),
    };
    let (hours, rest) = number(rest, 2)?;
    let (minutes, rest) = number(rest.strip_prefix(':')?, 2)?;
    let valid = hours < 24 && minutes < 60 && rest.is_empty();
    valid.then_some(sign * i64::from(hours * 60 + minutes))
}

/// The digits behind a decimal point, at least one: the first three count, the others are cut off.
fn milliseconds(fraction: &str) -> Option<(u32, &str)> {
    let (digits, rest) = split_digits(fraction);
    if digits.is_empty() {
        return None;
    }
    let milli = digits.bytes().chain(*b"00").take(3).fold(0, |milli, digit| milli * 10 + u32::from(digit - b'0'));
    Some((milli, rest))
}

/// Exactly `width` digits, then whatever follows.
fn number(text: &str, width: usize) -> Option<(u32, &str)> {
    let (digits, rest) = text.split_at_checked(width)?;
    // Not `parse` alone: it takes a sign.
    let all_digits = digits.bytes().all(|byte| byte.is_ascii_digit());
    Some((digits.parse().ok().filter(|_| all_digits)?, rest))
}

/// Splits behind the leading decimal digits.
#[inline]
pub(super) fn split_digits(text: &str) -> (&str, &str) {
    let end = text.bytes().position(|byte| !byte.is_ascii_digit()).unwrap_or(text.len());
    text.split_at(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_rfc_3339_time_is_the_instant_in_milliseconds() {
        // Expected by `date -u -d TEXT +%s%3N`.
        for (text, expected) in [
            ("1970-01-01T00:00:00Z", 0),
            ("2026-01-01T00:00:00Z", 1_767_225_600_000),
            ("2026-01-01t00:00:00z", 1_767_225_600_000),
            ("2026-01-01T00:00:00.1Z", 1_767_225_600_100),
            ("2026-01-01T00:00:00.12Z", 1_767_225_600_120),
            ("2026-01-01T00:00:00.1239999999999999999999999Z", 1_767_225_600_123),
            ("2026-01-01T01:30:00+01:30", 1_767_225_600_000),
            ("2025-12-31T16:00:00-08:00", 1_767_225_600_000),
            ("2026-01-01T00:00:00-00:00", 1_767_225_600_000),
            ("2026-01-01T23:59:00+23:59", 1_767_225_600_000),
            ("1969-12-31T23:59:59-00:01", 59_000),
            ("2024-02-29T12:00:00Z", 1_709_208_000_000),
            ("2000-02-29T12:00:00Z", 951_825_600_000),
            ("9999-12-31T23:59:59.999Z", EVENT_TIME_MAX),
            ("9999-12-31T23:59:59.9999Z", EVENT_TIME_MAX),
        ] {
            assert_eq!(rfc3339(text), Some(expected), "{text}");
        }
    }

    #[test]
    fn what_the_abnf_does_not_allow_or_lies_out_of_range_is_no_time() {
        for text in [
            "",
            "2026-01-01",
            "2026-01-01T00:00:00",
            "2026-01-01 00:00:00Z",
            "2026-01-01_00:00:00Z",
            " 2026-01-01T00:00:00Z",
            "2026-01-01T00:00:00Z ",
            "2026-01-01T00:00:00 Z",
            "2026-01-01T00:00Z",
            "2026-01-01T000000Z",
            "20260101T00:00:00Z",
            "2026-1-01T00:00:00Z",
            "02026-01-01T00:00:00Z",
            "+2026-01-01T00:00:00Z",
            "2026-01-01T+1:00:00Z",
            "2026-01-01T00:00:00.Z",
            "2026-01-01T00:00:00,5Z",
            "2026-01-01T00:00:00.5",
            "2026-01-01T00:00:60Z",
            "2016-12-31T23:59:60Z",
            "2026-01-01T00:60:00Z",
            "2026-01-01T24:00:00Z",
            "2026-02-29T00:00:00Z",
            "1900-02-29T00:00:00Z",
            "2026-04-31T00:00:00Z",
            "2026-00-01T00:00:00Z",
            "2026-13-01T00:00:00Z",
            "2026-01-00T00:00:00Z",
            "2026-01-01T00:00:00+0100",
            "2026-01-01T00:00:00+01",
            "2026-01-01T00:00:00+1:00",
            "2026-01-01T00:00:00+24:00",
            "2026-01-01T00:00:00+00:60",
            "2026-01-01T00:00:00\u{2212}01:00",
            "2026-01-01T00:00:00UTC",
            "\u{0662}026-01-01T00:00:00Z",
            "1969-12-31T23:59:59.999Z",
            "1970-01-01T00:00:00+00:01",
            "0000-01-01T00:00:00Z",
            "9999-12-31T23:59:59-00:01",
        ] {
            assert_eq!(rfc3339(text), None, "{text}");
        }
    }
}
