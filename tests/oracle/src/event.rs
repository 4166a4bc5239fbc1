//! The slow reference decoder: payload bytes to an event, or the cause why there is none (contract, section 1, the table of fields).

use crate::json::{self, Json};
use crate::{Cause, rfc3339};

/// The last millisecond of the year 9999.
pub const TIMESTAMP_MAX_MS: u64 = 253_402_300_799_999;

const KNOWN_FIELDS: [&str; 6] = ["event_id", "video_id", "event_type", "timestamp", "user_id", "value"];

/// A well-formed event.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    pub event_id: String,
    pub video_id: String,
    pub event_type: String,
    pub timestamp_ms: u64,
    pub user_id: Option<String>,
    pub value: Option<f64>,
}

/// Decodes one payload. Its length is the judge's business, not the decoder's.
pub fn decode(payload: &[u8]) -> Result<Event, Cause> {
    let text = std::str::from_utf8(payload).map_err(|_| Cause::Utf8)?;
    if text.bytes().all(|byte| matches!(byte, b' ' | b'\t' | b'\n' | b'\r')) {
        return Err(Cause::Empty);
    }
    let Json::Object(members) = json::parse(text)? else {
        return Err(Cause::Type);
    };
    for known in KNOWN_FIELDS {
        if 1 < members.iter().filter(|(key, _)| key == known).count() {
            return Err(Cause::RepeatedField);
        }
    }
    let field = |name: &str| members.iter().find(|(key, _)| key == name).map(|(_, value)| value);
    let required = |name: &str| field(name).ok_or(Cause::Missing);
    let optional = |name: &str| field(name).filter(|value| **value != Json::Null);
    // All that is required is looked for first, so that an absent field is named before a wrong one.
    let (event_id, video_id) = (required("event_id")?, required("video_id")?);
    let (event_type, timestamp) = (required("event_type")?, required("timestamp")?);
    Ok(Event {
        event_id: id(event_id)?,
        video_id: id(video_id)?,
        event_type: kind(event_type)?,
        timestamp_ms: timestamp_ms(timestamp)?,
        user_id: optional("user_id").map(id).transpose()?,
        value: optional("value").map(finite).transpose()?,
    })
}

fn string(value: &Json) -> Result<&str, Cause> {
    match value {
        Json::Text(text) => Ok(text),
        _ => Err(Cause::Type),
    }
}

fn id(value: &Json) -> Result<String, Cause> {
    let text = string(value)?;
    let is_control = |c: char| c <= '\u{1f}' || c == '\u{7f}';
    if (1..=128).contains(&text.len()) && !text.contains(is_control) { Ok(text.to_owned()) } else { Err(Cause::Range) }
}

/// `[a-z][a-z0-9_.-]{0,63}`
fn kind(value: &Json) -> Result<String, Cause> {
    let text = string(value)?;
    let starts_well = text.starts_with(|c: char| c.is_ascii_lowercase());
    let goes_on_well =
        text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '_' | '.' | '-'));
    if starts_well && goes_on_well && text.len() <= 64 { Ok(text.to_owned()) } else { Err(Cause::Range) }
}

fn timestamp_ms(value: &Json) -> Result<u64, Cause> {
    let ms = match value {
        Json::Number(token) if token.contains(['.', 'e', 'E']) => return Err(Cause::Type),
        // A sign ("-0" as well) or too many digits.
        Json::Number(token) => token.parse::<u64>().map_err(|_| Cause::Range)?,
        Json::Text(text) => u64::try_from(rfc3339::epoch_ms(text)?).map_err(|_| Cause::Range)?,
        _ => return Err(Cause::Type),
    };
    if ms <= TIMESTAMP_MAX_MS { Ok(ms) } else { Err(Cause::Range) }
}

fn finite(value: &Json) -> Result<f64, Cause> {
    let Json::Number(token) = value else {
        return Err(Cause::Type);
    };
    let number: f64 = token.parse().map_err(|_| Cause::Type)?;
    if number.is_finite() { Ok(number) } else { Err(Cause::Range) }
}
