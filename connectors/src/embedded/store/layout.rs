//! The bytes of the count store. Numbers are big endian, so that the order of keys is the order of (video, event type,
//! window).
//!
//! ```text
//! keyspace "minutes"
//!   key    video id (1-128 bytes, none below 0x20) | 0x00 | event type (1-64 bytes) | 0x00 | window start ms (8)
//!   value  layout = 1 (1) | generation (8) | number (8) | count (8) | as_of ms (8) | final, 0 or 1 (1)      = 34 bytes
//!          layout = 2 (1) | the same | functions, by Stats::encode of dataflows
//! keyspace "claim"
//!   "claim"   layout = 1 (1) | history (16) | generation (8) | frontier ms (8)                              = 33 bytes
//!   "newest"  layout = 1 (1) | generation (8) | number (8), the greatest version that any row was written under = 17 bytes
//! ```
//!
//! Neither id holds a zero byte, so no key is the beginning of another's part. The window start is found from the end.

use dataflows::{
    checkpoint::frame::{FieldReader, Fields},
    event::{EVENT_TYPE_BYTES_MAX, ID_BYTES_MAX},
    functions::stats::Stats,
    port::{Claim, ColdWindow, CountRow, Version},
    rollup::Width,
    time::EventTime,
};

const LAYOUT: u8 = 1;
/// Of a row with functions.
const LAYOUT_FUNCTIONS: u8 = 2;

/// Of a row without functions.
const VALUE_BYTES: usize = 34;
pub(super) const CLAIM_BYTES: usize = 33;
pub(super) const VERSION_BYTES: usize = 17;

/// What the keys of all windows of a video and event type begin with; `None` where no row can be of these.
pub(super) fn prefix(video_id: &str, event_type: &str) -> Option<Vec<u8>> {
    if !fits(video_id, ID_BYTES_MAX) || !fits(event_type, EVENT_TYPE_BYTES_MAX) {
        return None;
    }
    let mut key = Vec::with_capacity(video_id.len() + event_type.len() + 10);
    key.extend_from_slice(video_id.as_bytes());
    key.push(0);
    key.extend_from_slice(event_type.as_bytes());
    key.push(0);
    Some(key)
}

fn fits(text: &str, bytes_max: usize) -> bool {
    (1..=bytes_max).contains(&text.len()) && !text.bytes().any(|byte| byte < 0x20)
}

/// The key of a window.
pub(super) fn key(video_id: &str, event_type: &str, window_start: EventTime) -> Option<Vec<u8>> {
    let mut key = prefix(video_id, event_type)?;
    key.extend_from_slice(&window_start.to_be_bytes());
    Some(key)
}

/// What is behind the keys of all windows of a video.
pub(super) fn behind(video_id: &str) -> Vec<u8> {
    // The least that no id has, behind the zero that ends one.
    [video_id.as_bytes(), &[1]].concat()
}

/// The video of a key; `None` if it is none.
pub(super) fn video_of(key: &[u8]) -> Option<&str> {
    let end = key.iter().position(|byte| *byte == 0)?;
    str::from_utf8(&key[..end]).ok().filter(|video_id| fits(video_id, ID_BYTES_MAX))
}

/// The value of a row.
pub(super) fn value(version: Version, row: &CountRow) -> Vec<u8> {
    let mut value = Fields(Vec::with_capacity(VALUE_BYTES));
    value.0.push(if row.stats.is_none() { LAYOUT } else { LAYOUT_FUNCTIONS });
    for number in [version.generation, version.number, row.count, row.as_of] {
        value.0.extend_from_slice(&number.to_be_bytes());
    }
    value.0.push(u8::from(row.is_final));
    if let Some(stats) = &row.stats {
        stats.encode(&mut value);
    }
    value.0
}

/// The row of a key and its value, and the version that wrote it; `None` if they are none.
pub(super) fn row(key: &[u8], value: &[u8]) -> Option<(Version, CountRow)> {
    let (names, window_start) = key.split_last_chunk::<8>()?;
    let names = names.strip_suffix(&[0])?;
    let split = names.iter().position(|byte| *byte == 0)?;
    let version = version_of_value(value)?;
    let row = CountRow {
        video_id: text(&names[..split], ID_BYTES_MAX)?,
        event_type: text(&names[split + 1..], EVENT_TYPE_BYTES_MAX)?,
        window_start: u64::from_be_bytes(*window_start),
        count: number(value, 17)?,
        width: Width::Minute,
        stats: stats(value)?,
        as_of: number(value, 25)?,
        is_final: match value[33] {
            0 => false,
            1 => true,
            _ => return None,
        },
    };
    Some((version, row))
}

/// What is read back of a row, with its functions or without; `None` if it is none.
pub(super) fn window(key: &[u8], value: &[u8], functions: bool) -> Option<ColdWindow> {
    version_of_value(value)?;
    let (_, start) = key.split_last_chunk::<8>()?;
    let stats = if functions { stats(value)? } else { None };
    Some(ColdWindow { start: u64::from_be_bytes(*start), count: number(value, 17)?, stats })
}

/// The version that a row's value was written under.
pub(super) fn version_of_value(value: &[u8]) -> Option<Version> {
    let is_row = match *value.first()? {
        LAYOUT => value.len() == VALUE_BYTES,
        LAYOUT_FUNCTIONS => VALUE_BYTES < value.len(),
        _ => false,
    };
    is_row.then_some(Version { generation: number(value, 1)?, number: number(value, 9)? })
}

/// The functions of a row's value, if it has any; `None` if they are none.
fn stats(value: &[u8]) -> Option<Option<Stats>> {
    let mut fields = FieldReader(&value[VALUE_BYTES..]);
    if fields.is_done() {
        return Some(None);
    }
    let stats = Stats::decode(&mut fields)?;
    fields.is_done().then_some(Some(stats))
}

pub(super) fn claim_bytes(claim: &Claim) -> [u8; CLAIM_BYTES] {
    let mut bytes = [0; CLAIM_BYTES];
    bytes[0] = LAYOUT;
    bytes[1..17].copy_from_slice(&claim.history.to_be_bytes());
    bytes[17..25].copy_from_slice(&claim.generation.to_be_bytes());
    bytes[25..33].copy_from_slice(&claim.frontier.to_be_bytes());
    bytes
}

pub(super) fn claim(bytes: &[u8]) -> Option<Claim> {
    if bytes.len() != CLAIM_BYTES || bytes[0] != LAYOUT {
        return None;
    }
    let history = u128::from(number(bytes, 1)?) << 64 | u128::from(number(bytes, 9)?);
    Some(Claim { history, generation: number(bytes, 17)?, frontier: number(bytes, 25)? })
}

pub(super) fn version_bytes(version: Version) -> [u8; VERSION_BYTES] {
    let mut bytes = [0; VERSION_BYTES];
    bytes[0] = LAYOUT;
    bytes[1..9].copy_from_slice(&version.generation.to_be_bytes());
    bytes[9..17].copy_from_slice(&version.number.to_be_bytes());
    bytes
}

pub(super) fn version(bytes: &[u8]) -> Option<Version> {
    if bytes.len() != VERSION_BYTES || bytes[0] != LAYOUT {
        return None;
    }
    Some(Version { generation: number(bytes, 1)?, number: number(bytes, 9)? })
}

fn number(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.first_chunk().map(|chunk| u64::from_be_bytes(*chunk))
}

fn text(bytes: &[u8], bytes_max: usize) -> Option<String> {
    let text = std::str::from_utf8(bytes).ok()?;
    fits(text, bytes_max).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use dataflows::functions::{Kept, stats::Detail};
    use proptest::prelude::*;

    use super::*;

    fn sample() -> (Version, CountRow) {
        let row = CountRow {
            video_id: "v1".to_owned(),
            event_type: "view".to_owned(),
            window_start: 0x0102_0304_0506_0708,
            count: 3,
            width: Width::Minute,
            stats: None,
            is_final: true,
            as_of: 4,
        };
        (Version { generation: 1, number: 2 }, row)
    }

    #[test]
    fn the_bytes_are_those_of_layout_1() {
        let (version, row) = sample();
        assert_eq!(key("v1", "view", row.window_start).unwrap(), b"v1\0view\0\x01\x02\x03\x04\x05\x06\x07\x08");
        let mut expected = vec![1];
        for number in [1_u64, 2, 3, 4] {
            expected.extend_from_slice(&number.to_be_bytes());
        }
        expected.push(1);
        assert_eq!(value(version, &row).as_slice(), expected);

        let claim_of = Claim { history: 5 << 64 | 6, generation: 7, frontier: 8 };
        let mut expected = vec![1];
        for number in [5_u64, 6, 7, 8] {
            expected.extend_from_slice(&number.to_be_bytes());
        }
        assert_eq!(claim_bytes(&claim_of).as_slice(), expected);
        assert_eq!(claim(&expected), Some(claim_of));
        assert_eq!(super::version(&version_bytes(version)), Some(version));
    }

    #[test]
    fn what_is_cut_longer_or_of_another_layout_is_no_row() {
        let (version, expected) = sample();
        let (key, value) = (key("v1", "view", expected.window_start).unwrap(), value(version, &expected));
        assert_eq!(row(&key, &value), Some((version, expected)));
        for length in 0..key.len() {
            assert_eq!(row(&key[..length], &value), None, "a key of {length} bytes");
        }
        for length in 0..value.len() {
            assert_eq!(row(&key, &value[..length]), None, "a value of {length} bytes");
        }
        assert_eq!(row(&key, &[&value[..], &[0]].concat()), None);
        for (at, byte) in [(0, 0), (0, 2), (0, 3), (33, 2)] {
            let mut other = value.clone();
            other[at] = byte;
            assert_eq!(row(&key, &other), None, "byte {at} is {byte}");
        }
    }

    #[test]
    fn functions_are_behind_the_row_and_nothing_is_behind_them() {
        let (version, mut expected) = sample();
        let mut stats = Stats::default();
        stats.add(Detail { kept: Kept::ALL, value: Some(1.5), user: Some(7) });
        expected.stats = Some(stats);
        let (key, value) = (key("v1", "view", expected.window_start).unwrap(), value(version, &expected));
        assert_eq!(row(&key, &value), Some((version, expected)));
        for length in 0..value.len() {
            assert_eq!(row(&key, &value[..length]), None, "a value of {length} bytes");
        }
        assert_eq!(row(&key, &[&value[..], &[0]].concat()), None);
    }

    #[test]
    fn names_that_no_event_can_have_have_no_key() {
        let long = "a".repeat(129);
        for (video_id, event_type) in
            [("", "view"), ("v", ""), ("a\0b", "view"), ("v", "a\0"), (&long, "view"), ("v", &long[..65])]
        {
            assert_eq!(key(video_id, event_type, 0), None, "{video_id:?} {event_type:?}");
        }
        assert!(key(&long[..128], &long[..64], u64::MAX).is_some());
    }

    proptest! {
        #[test]
        fn keys_are_ordered_as_what_they_name_and_read_back(
            a in ("[ -~é\u{10ffff}]{1,5}", "[a-z][a-z0-9_.-]{0,3}", any::<u64>()),
            b in ("[ -~é\u{10ffff}]{1,5}", "[a-z][a-z0-9_.-]{0,3}", any::<u64>()),
        ) {
            let key_of = |(video, event_type, start): &(String, String, u64)| key(video, event_type, *start).unwrap();
            prop_assert_eq!(key_of(&a).cmp(&key_of(&b)), a.cmp(&b));
            let (version, mut expected) = sample();
            (expected.video_id, expected.event_type, expected.window_start) = a.clone();
            prop_assert_eq!(row(&key_of(&a), &value(version, &expected)), Some((version, expected)));
        }
    }
}
