//! One event as decoded from a record, and the verdicts that a record can get.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use crate::time::EventTime;

/// A record longer than this is refused unread, bytes.
pub const RECORD_BYTES_MAX: usize = 1_048_576;

/// The greatest length of an id (`event_id`, `video_id`, `user_id`), bytes of UTF-8.
pub const ID_BYTES_MAX: usize = 128;

/// The greatest length of an event type, bytes.
pub const EVENT_TYPE_BYTES_MAX: usize = 64;

/// Whether a text is an event type: `[a-z][a-z0-9_.-]{0,63}`
#[inline]
pub fn is_event_type(text: &str) -> bool {
    let is_letter = |byte: &u8| byte.is_ascii_lowercase();
    let may_follow = |byte: &u8| is_letter(byte) || byte.is_ascii_digit() || matches!(byte, b'_' | b'.' | b'-');
    match text.as_bytes() {
        [first, rest @ ..] => rest.len() < EVENT_TYPE_BYTES_MAX && is_letter(first) && rest.iter().all(may_follow),
        [] => false,
    }
}

/// A well-formed event. Its fields obey the contract's section 1; a [`crate::port::Decode`] sees to that.
#[derive(Clone, Debug, PartialEq)]
pub struct Event<'a> {
    /// 1–128 bytes, no control characters; a producer keeps it when it retries.
    pub event_id: Cow<'a, str>,
    /// The same.
    pub video_id: Cow<'a, str>,
    /// `[a-z][a-z0-9_.-]{0,63}`
    pub event_type: Cow<'a, str>,
    /// When it happened, at most [`crate::time::EVENT_TIME_MAX`].
    pub event_time: EventTime,
    /// Who did it, if said.
    pub user_id: Option<Cow<'a, str>>,
    /// A finite number, if said.
    pub value: Option<f64>,
}

/// Why a record is not an event: a closed list, fit for a metric's label.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Cause {
    /// Invalid UTF-8, or a lone surrogate in an escape.
    Utf8,
    /// Not one JSON object: syntax, another value, or text after it.
    Json,
    /// Nested deeper than 128.
    Depth,
    /// A known field was given twice.
    RepeatedField,
    /// A required field is absent or null.
    Missing,
    /// A field is of the wrong JSON type, or not an integer where one is due.
    Type,
    /// A field's value is out of its range: length, characters, time, pattern.
    Range,
    /// Nothing in it.
    Empty,
}

impl Cause {
    /// The word that letters, answers and metrics carry.
    pub fn as_str(self) -> &'static str {
        match self {
            Cause::Utf8 => "utf8",
            Cause::Json => "json",
            Cause::Depth => "depth",
            Cause::RepeatedField => "repeated_field",
            Cause::Missing => "missing",
            Cause::Type => "type",
            Cause::Range => "range",
            Cause::Empty => "empty",
        }
    }
}

/// Why a record became a dead letter.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Reason {
    /// More than [`RECORD_BYTES_MAX`] bytes.
    Oversize,
    /// Not an event.
    Malformed(Cause),
    /// Its timestamp lies more than `max_future` after its append time.
    Future,
    /// Its timestamp lies more than `lateness` before its partition's clock.
    Late,
    /// Late as well: its partition was added later, and its timestamp lies behind the watermark of that moment.
    Behind,
}

impl Reason {
    /// Every word that [`Reason::as_str`] can give.
    pub const WORDS: [&str; 4] = ["malformed", "late", "future", "oversize"];

    /// The reason's word.
    pub fn as_str(self) -> &'static str {
        match self {
            Reason::Oversize => "oversize",
            Reason::Malformed(_) => "malformed",
            Reason::Future => "future",
            Reason::Late | Reason::Behind => "late",
        }
    }

    /// One word more about it.
    pub fn detail(self) -> &'static str {
        match self {
            Reason::Oversize => "oversize",
            Reason::Malformed(cause) => cause.as_str(),
            Reason::Future => "max_future",
            Reason::Late => "lateness",
            Reason::Behind => "behind",
        }
    }
}
