//! Any JSON: serde_json finds the six fields as raw text, then each rule is applied to what was found.
//!
//! Raw, because the causes have an order (syntax of the whole record first, a field's range last), and because an
//! unknown field may hold any number that the grammar allows, such as `1e400`.

use std::{borrow::Cow, fmt};

use dataflows::{
    event::{Cause, Event},
    time::EventTime,
};
use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, MapAccess, Visitor},
};
use serde_json::value::RawValue;

use super::{rules, structure};

/// Decodes a record, or says what is wrong with it: of several causes, the first in the order of the checks below.
pub(super) fn parse(text: &str) -> Result<Event<'_>, Cause> {
    if text.bytes().all(|byte| matches!(byte, b' ' | b'\t' | b'\n' | b'\r')) {
        return Err(Cause::Empty);
    }
    let fields: Fields = serde_json::from_str(text).map_err(|_| Cause::Json)?;
    structure::check(text)?;
    fields.event()
}

/// The known fields' values as they stand in the text.
#[derive(Default)]
struct Fields<'a> {
    event_id: Option<&'a str>,
    video_id: Option<&'a str>,
    event_type: Option<&'a str>,
    timestamp: Option<&'a str>,
    user_id: Option<&'a str>,
    value: Option<&'a str>,
    repeated: bool,
}

impl<'a> Fields<'a> {
    /// Where the value of a key belongs, if the key is known.
    fn slot(&mut self, key: &str) -> Option<&mut Option<&'a str>> {
        match key {
            "event_id" => Some(&mut self.event_id),
            "video_id" => Some(&mut self.video_id),
            "event_type" => Some(&mut self.event_type),
            "timestamp" => Some(&mut self.timestamp),
            "user_id" => Some(&mut self.user_id),
            "value" => Some(&mut self.value),
            _ => None,
        }
    }

    /// The event, once the record is known to be one object without lone surrogates.
    fn event(self) -> Result<Event<'a>, Cause> {
        if self.repeated {
            return Err(Cause::RepeatedField);
        }
        let event_id = present(self.event_id).ok_or(Cause::Missing)?;
        let video_id = present(self.video_id).ok_or(Cause::Missing)?;
        let event_type = present(self.event_type).ok_or(Cause::Missing)?;
        let timestamp = present(self.timestamp).ok_or(Cause::Missing)?;

        let event_id = string(event_id)?;
        let video_id = string(video_id)?;
        let event_type = string(event_type)?;
        let timestamp = Timestamp::of(timestamp)?;
        let user_id = present(self.user_id).map(string).transpose()?;
        let value = present(self.value).map(number).transpose()?;

        let ids = [Some(&event_id), Some(&video_id), user_id.as_ref()];
        if !ids.into_iter().flatten().all(|id| rules::is_id(id)) || !rules::is_event_type(&event_type) {
            return Err(Cause::Range);
        }
        let event_time = timestamp.event_time().ok_or(Cause::Range)?;
        let value = value.map(|number| rules::finite(number).ok_or(Cause::Range)).transpose()?;
        Ok(Event { event_id, video_id, event_type, event_time, user_id, value })
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Fields<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(FieldsVisitor)
    }
}

struct FieldsVisitor;

impl<'de> Visitor<'de> for FieldsVisitor {
    type Value = Fields<'de>;

    fn expecting(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.write_str("an event object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut fields = Fields::default();
        // Keys are read raw too: a lone surrogate in one is a fault of its own, not one of syntax.
        while let Some(key) = map.next_key::<&RawValue>()? {
            let key = unescape(key.get()).unwrap_or_default();
            let Some(slot) = fields.slot(&key) else {
                map.next_value::<IgnoredAny>()?;
                continue;
            };
            let earlier = slot.replace(map.next_value::<&RawValue>()?.get());
            fields.repeated |= earlier.is_some();
        }
        Ok(fields)
    }
}

/// A value that is not `null`.
fn present(raw: Option<&str>) -> Option<&str> {
    raw.filter(|&raw| raw != "null")
}

fn string(raw: &str) -> Result<Cow<'_, str>, Cause> {
    if !raw.starts_with('"') {
        return Err(Cause::Type);
    }
    unescape(raw).ok_or(Cause::Utf8)
}

fn number(raw: &str) -> Result<&str, Cause> {
    if raw.starts_with(|first: char| first == '-' || first.is_ascii_digit()) { Ok(raw) } else { Err(Cause::Type) }
}

/// What a string literal of valid syntax stands for, or `None` where that has a lone surrogate.
fn unescape(literal: &str) -> Option<Cow<'_, str>> {
    let inner = literal.strip_prefix('"')?.strip_suffix('"')?;
    if memchr::memchr(b'\\', inner.as_bytes()).is_none() {
        return Some(Cow::Borrowed(inner));
    }
    serde_json::from_str(literal).ok().map(Cow::Owned)
}

/// The two spellings of an event time.
enum Timestamp<'a> {
    Digits(&'a str),
    Rfc3339(Cow<'a, str>),
}

impl<'a> Timestamp<'a> {
    fn of(raw: &'a str) -> Result<Self, Cause> {
        if raw.bytes().all(|byte| byte.is_ascii_digit()) {
            Ok(Self::Digits(raw))
        } else {
            string(raw).map(Self::Rfc3339)
        }
    }

    fn event_time(&self) -> Option<EventTime> {
        match self {
            Self::Digits(digits) => rules::epoch_ms(digits),
            Self::Rfc3339(text) => rules::rfc3339(text),
        }
    }
}
