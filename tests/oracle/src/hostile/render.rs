//! An event as JSON, in the many ways that mean the same.

use chrono::{DateTime, FixedOffset};
use rand::RngExt;
use rand_chacha::ChaCha8Rng;

/// An event before it is written down.
#[derive(Clone, Debug)]
pub(super) struct Draft {
    pub event_id: String,
    pub video_id: String,
    pub event_type: &'static str,
    pub timestamp_ms: u64,
    pub user_id: Option<String>,
    pub value: Option<f64>,
}

/// Members of no meaning, some of them named almost like known ones.
const EXTRA: [(&str, &str); 10] = [
    ("session", "\"s\\u0031\\n\""),
    ("Event_ID", "7"),
    ("timestamp_ms", "-1"),
    ("", "[]"),
    ("meta", r#"{"event_id":"x","event_id":"y","a":[1,[2,[3,{}]]]}"#),
    ("big", "1e400"),
    ("long", "123456789012345678901234567890"),
    ("ünï", "\"🎬\\ud83c\\udfac\""),
    ("flag", "true"),
    ("nothing", "null"),
];

pub(super) fn render(rng: &mut ChaCha8Rng, draft: &Draft) -> Vec<u8> {
    let mut members = vec![
        ("event_id", text(rng, &draft.event_id)),
        ("video_id", text(rng, &draft.video_id)),
        ("event_type", text(rng, draft.event_type)),
        ("timestamp", timestamp(rng, draft.timestamp_ms)),
    ];
    match &draft.user_id {
        Some(user_id) => members.push(("user_id", text(rng, user_id))),
        None if rng.random_bool(0.2) => members.push(("user_id", "null".to_owned())),
        None => {}
    }
    match draft.value {
        Some(value) => members.push(("value", number(rng, value))),
        None if rng.random_bool(0.2) => members.push(("value", "null".to_owned())),
        None => {}
    }
    if rng.random_bool(0.1) {
        let (name, raw) = EXTRA[rng.random_range(0..EXTRA.len())];
        members.push((name, raw.to_owned()));
    }
    if rng.random_bool(0.2) {
        for last in (1..members.len()).rev() {
            members.swap(last, rng.random_range(0..=last)); // Fisher and Yates
        }
    }
    let space = if rng.random_bool(0.05) { ["\t", "  ", "\r"][rng.random_range(0..3)] } else { "" };
    let member = |(name, raw): &(&str, String)| format!("{space}\"{name}\"{space}:{space}{raw}{space}");
    let body: Vec<String> = members.iter().map(member).collect();
    let line = format!("{space}{{{}}}{space}", body.join(","));
    if rng.random_bool(0.02) { line.replacen("event_id", r"\u0065vent_id", 1) } else { line }.into_bytes()
}

/// A string, mostly as it is, sometimes in escapes.
fn text(rng: &mut ChaCha8Rng, text: &str) -> String {
    let escape_all = rng.random_bool(0.03);
    let mut raw = String::from("\"");
    for c in text.chars() {
        if escape_all {
            let units = c.encode_utf16(&mut [0; 2]).iter().map(|unit| format!("\\u{unit:04x}")).collect::<String>();
            raw.push_str(&units);
        } else {
            if matches!(c, '"' | '\\') {
                raw.push('\\');
            }
            raw.push(c);
        }
    }
    raw + "\""
}

fn number(rng: &mut ChaCha8Rng, value: f64) -> String {
    match rng.random_range(0..10) {
        0 => format!("{value:e}"),
        1 => format!("{value:.3}"),
        _ => value.to_string(),
    }
}

fn timestamp(rng: &mut ChaCha8Rng, timestamp_ms: u64) -> String {
    if rng.random_bool(0.8) { timestamp_ms.to_string() } else { format!("\"{}\"", date_time(rng, timestamp_ms)) }
}

/// The stamp in RFC 3339, with any offset and any number of digits that are cut off again.
fn date_time(rng: &mut ChaCha8Rng, timestamp_ms: u64) -> String {
    let instant =
        i64::try_from(timestamp_ms).ok().and_then(DateTime::from_timestamp_millis).expect("before the year 10000");
    let far_from_the_ends = (86_400_000..253_402_214_400_000).contains(&timestamp_ms);
    let minutes = if far_from_the_ends { rng.random_range(-1_439..=1_439) } else { 0 };
    let zone = FixedOffset::east_opt(minutes * 60).expect("less than a day");
    let local = instant.with_timezone(&zone);
    let fraction = match rng.random_range(0..3) {
        0 if timestamp_ms.is_multiple_of(1_000) => String::new(),
        1 => format!(".{:03}{}", timestamp_ms % 1_000, rng.random_range(0..1_000_000)),
        _ => format!(".{:03}", timestamp_ms % 1_000),
    };
    let offset = if minutes == 0 { "Z".to_owned() } else { local.format("%:z").to_string() };
    let text = format!("{}{fraction}{offset}", local.format("%Y-%m-%dT%H:%M:%S"));
    if rng.random_bool(0.1) { text.to_lowercase() } else { text }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;
    use crate::decode;

    #[test]
    fn every_form_means_the_event_that_was_written() {
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        for round in 0..20_000 {
            let draft = Draft {
                event_id: format!("e\"\\{round}"),
                video_id: "cafe\u{301}🎬".to_owned(),
                event_type: "view",
                timestamp_ms: [rng.random_range(0..253_402_300_800_000), 0, 253_402_300_799_999][round % 3],
                user_id: rng.random_bool(0.5).then(|| "u".to_owned()),
                value: rng.random_bool(0.5).then_some(12.5),
            };
            let line = render(&mut rng, &draft);
            let event = decode(&line).unwrap_or_else(|cause| panic!("{cause:?}: {}", String::from_utf8_lossy(&line)));
            assert_eq!((event.event_id, event.video_id), (draft.event_id, draft.video_id));
            assert_eq!((event.timestamp_ms, event.event_type.as_str()), (draft.timestamp_ms, "view"));
            assert_eq!((event.user_id, event.value), (draft.user_id, draft.value));
        }
    }
}
