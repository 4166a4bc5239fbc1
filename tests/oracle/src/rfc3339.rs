//! RFC 3339 timestamps, strictly by the grammar of its section 5.6, as epoch milliseconds.
//!
//! ```text
//! date-time = 4DIGIT "-" 2DIGIT "-" 2DIGIT "T" 2DIGIT ":" 2DIGIT ":" 2DIGIT ["." 1*DIGIT] ("Z" / ("+" / "-") 2DIGIT ":" 2DIGIT)
//! ```
//! Letters may be of either case, digits are ASCII. Digits finer than a millisecond are cut off; second 60 is refused.

use crate::Cause;

/// The instant in milliseconds since the epoch, negative before it. `Type` is a text of another shape, `Range` a date or time that
/// does not exist.
pub fn epoch_ms(text: &str) -> Result<i64, Cause> {
    let mut rest = text.as_bytes();
    let year = digits(&mut rest, 4)?;
    one_of(&mut rest, b"-")?;
    let month = digits(&mut rest, 2)?;
    one_of(&mut rest, b"-")?;
    let day = digits(&mut rest, 2)?;
    one_of(&mut rest, b"Tt")?;
    let hour = digits(&mut rest, 2)?;
    one_of(&mut rest, b":")?;
    let minute = digits(&mut rest, 2)?;
    one_of(&mut rest, b":")?;
    let second = digits(&mut rest, 2)?;
    let milli = fraction(&mut rest)?;
    let offset_minutes = offset(&mut rest)?;
    if !rest.is_empty() {
        return Err(Cause::Type);
    }
    if !(1..=12).contains(&month) || day < 1 || days_in(year, month) < day || 23 < hour || 59 < minute || 59 < second {
        return Err(Cause::Range);
    }
    let minutes = (days_since_epoch(year, month, day) * 24 + hour) * 60 + minute - offset_minutes;
    Ok((minutes * 60 + second) * 1_000 + milli)
}

fn one_of(rest: &mut &[u8], wanted: &[u8]) -> Result<u8, Cause> {
    let (&first, after) = rest.split_first().ok_or(Cause::Type)?;
    if !wanted.contains(&first) {
        return Err(Cause::Type);
    }
    *rest = after;
    Ok(first)
}

fn digits(rest: &mut &[u8], count: usize) -> Result<i64, Cause> {
    let mut number = 0;
    for _ in 0..count {
        number = number * 10 + i64::from(one_of(rest, b"0123456789")? - b'0');
    }
    Ok(number)
}

fn fraction(rest: &mut &[u8]) -> Result<i64, Cause> {
    if rest.first() != Some(&b'.') {
        return Ok(0);
    }
    *rest = &rest[1..];
    let length = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    if length == 0 {
        return Err(Cause::Type);
    }
    let (read, after) = rest.split_at(length);
    *rest = after;
    Ok((0..3).fold(0, |milli, place| milli * 10 + read.get(place).map_or(0, |digit| i64::from(digit - b'0'))))
}

/// Minutes to the east of UTC.
fn offset(rest: &mut &[u8]) -> Result<i64, Cause> {
    let sign = match one_of(rest, b"Zz+-")? {
        b'+' => 1,
        b'-' => -1,
        _ => return Ok(0),
    };
    let hours = digits(rest, 2)?;
    one_of(rest, b":")?;
    let minutes = digits(rest, 2)?;
    if 23 < hours || 59 < minutes { Err(Cause::Range) } else { Ok(sign * (hours * 60 + minutes)) }
}

fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

fn days_in(year: i64, month: i64) -> i64 {
    match month {
        2 if is_leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days from 1970-01-01 in the Gregorian calendar, counted the long way for the months.
fn days_since_epoch(year: i64, month: i64, day: i64) -> i64 {
    let leap_days_before = |year: i64| (year + 3) / 4 - (year + 99) / 100 + (year + 399) / 400; // in the years 0..year
    let whole_years = (year - 1970) * 365 + leap_days_before(year) - leap_days_before(1970);
    let whole_months: i64 = (1..month).map(|month| days_in(year, month)).sum();
    whole_years + whole_months + day - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_instants() {
        for (text, expected) in [
            ("1970-01-01T00:00:00Z", Ok(0)),
            ("1970-01-01t00:00:00z", Ok(0)),
            ("2026-01-01T00:00:00.123Z", Ok(1_767_225_600_123)),
            ("2026-01-01T00:00:00.1Z", Ok(1_767_225_600_100)),
            ("2026-01-01T00:00:00.1239999999999Z", Ok(1_767_225_600_123)),
            ("2026-01-01T05:30:00+05:30", Ok(1_767_225_600_000)),
            ("2025-12-31T23:59:00-00:01", Ok(1_767_225_600_000)),
            ("9999-12-31T23:59:59.999Z", Ok(253_402_300_799_999)),
            ("1969-12-31T23:59:59.999Z", Ok(-1)),
            ("2000-02-29T00:00:00Z", Ok(951_782_400_000)),
            ("1900-02-29T00:00:00Z", Err(Cause::Range)),
            ("2026-01-01T00:00:60Z", Err(Cause::Range)),
            ("2026-01-01T00:00:00", Err(Cause::Type)),
            ("2026-01-01T00:00:00.Z", Err(Cause::Type)),
        ] {
            assert_eq!(epoch_ms(text), expected, "{text}");
        }
    }

    #[test]
    fn four_centuries_of_days_and_all_months_agree_with_chrono() {
        let month_starts = (0..=9999).flat_map(|year| (1..=12).map(move |month| (year, month, 1)));
        let days =
            (1801..2201).flat_map(|year| (1..=12).flat_map(move |month| (1..=31).map(move |day| (year, month, day))));
        for (year, month, day) in month_starts.chain(days) {
            let date = chrono::NaiveDate::from_ymd_opt(year, month, day);
            let expected =
                date.map(|date| date.and_hms_milli_opt(12, 34, 56, 789).unwrap().and_utc().timestamp_millis());
            let text = format!("{year:04}-{month:02}-{day:02}T12:34:56.789Z");
            assert_eq!(epoch_ms(&text).ok(), expected, "{text}");
        }
    }
}
