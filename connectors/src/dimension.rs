//! What is known of a video or a channel, as JSON: `{"video_id","name","channel_id"}` or `{"channel_id","name"}`.
//!
//! Each says all of its subject: what it leaves out, or gives as null, is not known any more. In a compacted topic its key is
//! [`key`], so that the last one of each subject stays; a record without a payload forgets the subject of its key.

use dataflows::{
    dimensions::{Change, NAME_BYTES_MAX},
    event::{Cause, ID_BYTES_MAX},
};
use serde::Deserialize;

const VIDEO: &str = "video:";
const CHANNEL: &str = "channel:";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Fields {
    video_id: Option<String>,
    channel_id: Option<String>,
    name: Option<String>,
}

/// Takes one apart.
pub fn decode(payload: &[u8]) -> Result<Change, Cause> {
    let text = std::str::from_utf8(payload).map_err(|_| Cause::Utf8)?;
    let fields = serde_json::from_str(text).map_err(|error| match error.classify() {
        // Well-formed, but none of ours.
        serde_json::error::Category::Data => Cause::Type,
        _ => Cause::Json,
    })?;
    let Fields { video_id, channel_id, name } = fields;
    let ids = video_id.iter().chain(&channel_id).map(|id| (id, ID_BYTES_MAX));
    let in_range =
        |(text, most): (&String, usize)| (1..=most).contains(&text.len()) && !text.contains(char::is_control);
    if !ids.chain(name.iter().map(|name| (name, NAME_BYTES_MAX))).all(in_range) {
        return Err(Cause::Range);
    }
    match (video_id, channel_id) {
        (Some(video_id), channel_id) => Ok(Change::Video { video_id, name, channel_id }),
        (None, Some(channel_id)) => Ok(Change::Channel { channel_id, name }),
        (None, None) => Err(Cause::Missing),
    }
}

/// What it is about: the same for all that replace each other.
pub fn key(change: &Change) -> String {
    match change {
        Change::Video { video_id, .. } => format!("{VIDEO}{video_id}"),
        Change::Channel { channel_id, .. } => format!("{CHANNEL}{channel_id}"),
    }
}

/// That nothing is known of the subject of a key.
pub fn forget(key: &str) -> Option<Change> {
    let video =
        key.strip_prefix(VIDEO).map(|id| Change::Video { video_id: id.to_owned(), name: None, channel_id: None });
    video.or_else(|| key.strip_prefix(CHANNEL).map(|id| Change::Channel { channel_id: id.to_owned(), name: None }))
}

/// Whether it says nothing of its subject.
pub fn is_empty(change: &Change) -> bool {
    matches!(change, Change::Video { name: None, channel_id: None, .. } | Change::Channel { name: None, .. })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn video(name: Option<&str>, channel_id: Option<&str>) -> Change {
        let owned = |text: Option<&str>| text.map(str::to_owned);
        Change::Video { video_id: "v".into(), name: owned(name), channel_id: owned(channel_id) }
    }

    #[test]
    fn a_video_has_a_name_and_a_channel_and_a_channel_has_a_name() {
        let channel = |name: Option<&str>| Change::Channel { channel_id: "c".into(), name: name.map(str::to_owned) };
        for (payload, expect) in [
            (r#"{"video_id":"v","name":"A cat","channel_id":"c"}"#, Ok(video(Some("A cat"), Some("c")))),
            (r#" {"video_id":"v","name":null} "#, Ok(video(None, None))),
            (r#"{"channel_id":"c","name":"Čats"}"#, Ok(channel(Some("Čats")))),
            (r#"{"channel_id":"c"}"#, Ok(channel(None))),
            (r#"{"name":"A cat"}"#, Err(Cause::Missing)),
            (r#"{"video_id":"v","title":"A cat"}"#, Err(Cause::Type)),
            (r#"{"video_id":7}"#, Err(Cause::Type)),
            (r#"{"video_id":"v","video_id":"w"}"#, Err(Cause::Type)),
            ("[]", Err(Cause::Type)),
            (r#"{"video_id":"v""#, Err(Cause::Json)),
            ("", Err(Cause::Json)),
            (r#"{"video_id":""}"#, Err(Cause::Range)),
            (r#"{"video_id":"v","name":""}"#, Err(Cause::Range)),
            (r#"{"video_id":"v","name":"a\u0000"}"#, Err(Cause::Range)),
            (r#"{"video_id":"v","name":"a\u0085"}"#, Err(Cause::Range)),
        ] {
            assert_eq!(decode(payload.as_bytes()), expect, "{payload}");
        }
        assert_eq!(decode(b"{\"video_id\":\"\xff\"}"), Err(Cause::Utf8));
        let named = |bytes: usize| format!(r#"{{"video_id":"v","name":"{}"}}"#, "n".repeat(bytes));
        assert!(decode(named(NAME_BYTES_MAX).as_bytes()).is_ok());
        assert_eq!(decode(named(NAME_BYTES_MAX + 1).as_bytes()), Err(Cause::Range));
    }

    #[test]
    fn a_key_names_its_subject_and_forgets_it() {
        let video = video(Some("A cat"), Some("c"));
        let forgotten = forget(&key(&video)).unwrap();
        assert_eq!(key(&forgotten), key(&video));
        assert!(is_empty(&forgotten) && !is_empty(&video));
        // Ids of videos and of channels do not meet.
        let channel = forget("channel:v").unwrap();
        assert_ne!(key(&channel), key(&forgotten));
        assert_eq!(forget("v"), None);
    }
}
