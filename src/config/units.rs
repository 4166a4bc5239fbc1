//! Durations and sizes as text with units.

/// Ten years: far more than any key needs, far less than any sum of times could overflow at.
const DURATION_MS_MAX: u64 = 3650 * 24 * 3_600_000;

/// A duration such as "250ms", "10m" or "1h30m", in whole milliseconds.
pub fn parse_duration_ms(text: &str) -> Result<u64, String> {
    let duration = humantime::parse_duration(text)
        .map_err(|error| format!("{text:?} is not a duration such as \"250ms\", \"10m\" or \"1h30m\": {error}"))?;
    if !duration.subsec_nanos().is_multiple_of(1_000_000) {
        return Err(format!("{text:?} is finer than a millisecond"));
    }
    match u64::try_from(duration.as_millis()) {
        Ok(ms) if ms <= DURATION_MS_MAX => Ok(ms),
        _ => Err(format!("{text:?} is more than ten years")),
    }
}

/// A size such as "64KiB" or "4MiB", in bytes.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let unit_bytes = match unit.trim_start() {
        "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return Err(format!("{text:?} is not a size such as \"512B\", \"64KiB\" or \"4MiB\"")),
    };
    let number: u64 = number.parse().map_err(|_| format!("{text:?} does not begin with a whole number that fits"))?;
    number.checked_mul(unit_bytes).ok_or_else(|| format!("{text:?} is too great"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_whole_milliseconds() {
        for (text, expect) in [
            ("250ms", Some(250)),
            ("10m", Some(600_000)),
            ("1h30m", Some(5_400_000)),
            ("1h 30m", Some(5_400_000)),
            ("48h", Some(172_800_000)),
            ("0s", Some(0)),
            ("3650d", Some(DURATION_MS_MAX)),
            ("3651d", None),
            ("18446744073709551615s", None),
            ("1us", None),
            ("10", None),
            ("10 apples", None),
            ("-1s", None),
            ("", None),
        ] {
            assert_eq!(parse_duration_ms(text).ok(), expect, "{text}");
        }
    }

    #[test]
    fn sizes_have_binary_units() {
        for (text, expect) in [
            ("4MiB", Some(4_194_304)),
            ("64 KiB", Some(65_536)),
            ("7B", Some(7)),
            ("1GiB", Some(1 << 30)),
            ("4MB", None),
            ("4", None),
            ("MiB", None),
            ("-1B", None),
            ("18446744073709551615KiB", None),
            ("99999999999999999999B", None),
        ] {
            assert_eq!(parse_size(text).ok(), expect, "{text}");
        }
    }
}
