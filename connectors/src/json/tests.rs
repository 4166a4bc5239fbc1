//! The table of verdicts (expected by hand), generated depth, and two properties: the parsers agree with each
//! other on every input, and with a slow decoder that shares no code with them.

use std::{
    borrow::Cow,
    time::{Duration, Instant},
};

use dataflows::{
    event::{Cause, Event},
    port::Decode,
    time::EVENT_TIME_MAX,
};
use proptest::prelude::*;

use super::{JsonEvents, general, speculate::speculate};

fn cause(payload: &[u8]) -> Option<Cause> {
    JsonEvents.decode(payload).err()
}

/// A good event with one more field, or with the same field again.
macro_rules! with {
    ($field:literal) => {
        concat!(r#"{"event_id":"a","video_id":"v","event_type":"view","timestamp":1,"#, $field, "}").as_bytes()
    };
}

/// A good event with this for its event id.
macro_rules! id {
    ($json:literal) => {
        concat!(r#"{"event_id":"#, $json, r#","video_id":"v","event_type":"view","timestamp":1}"#).as_bytes()
    };
}

/// A good event with this for its event type.
macro_rules! event_type {
    ($json:literal) => {
        concat!(r#"{"event_id":"a","video_id":"v","event_type":"#, $json, r#","timestamp":1}"#).as_bytes()
    };
}

/// A good event with this for its timestamp.
macro_rules! at {
    ($json:literal) => {
        concat!(r#"{"event_id":"a","video_id":"v","event_type":"view","timestamp":"#, $json, "}").as_bytes()
    };
}

const GOOD: Option<Cause> = None;
const UTF8: Option<Cause> = Some(Cause::Utf8);
const JSON: Option<Cause> = Some(Cause::Json);
const REPEATED: Option<Cause> = Some(Cause::RepeatedField);
const MISSING: Option<Cause> = Some(Cause::Missing);
const TYPE: Option<Cause> = Some(Cause::Type);
const RANGE: Option<Cause> = Some(Cause::Range);
const EMPTY: Option<Cause> = Some(Cause::Empty);

#[rustfmt::skip]
const ROWS: &[(&str, &[u8], Option<Cause>)] = &[
    // Framing.
    ("nothing", b"", EMPTY),
    ("blanks", b" \t\r\n", EMPTY),
    ("vertical tab is no JSON blank", b"\x0B", JSON),
    ("no-break space is no JSON blank", "\u{A0}".as_bytes(), JSON),
    ("blanks around and within", b" \r\n{ \"event_id\" : \"a\" ,\t\"video_id\":\"v\",\"event_type\":\"view\",\"timestamp\":1 }\r\n", GOOD),
    ("carriage return behind", b"{\"event_id\":\"a\",\"video_id\":\"v\",\"event_type\":\"view\",\"timestamp\":1}\r", GOOD),
    ("byte order mark", b"\xEF\xBB\xBF{\"event_id\":\"a\",\"video_id\":\"v\",\"event_type\":\"view\",\"timestamp\":1}", JSON),
    ("NUL behind", b"{\"event_id\":\"a\",\"video_id\":\"v\",\"event_type\":\"view\",\"timestamp\":1}\0", JSON),
    ("NUL only", b"\0", JSON),
    ("text behind", br#"{"event_id":"a","video_id":"v","event_type":"view","timestamp":1}x"#, JSON),
    ("a comma behind", br#"{"event_id":"a","video_id":"v","event_type":"view","timestamp":1},"#, JSON),
    ("a brace behind", br#"{"event_id":"a","video_id":"v","event_type":"view","timestamp":1}}"#, JSON),
    ("two objects", br#"{"event_id":"a","video_id":"v","event_type":"view","timestamp":1}{}"#, JSON),
    ("a good event behind text", br#"x{"event_id":"a","video_id":"v","event_type":"view","timestamp":1}"#, JSON),
    ("an array of an event", br#"[{"event_id":"a","video_id":"v","event_type":"view","timestamp":1}]"#, JSON),
    ("null", b"null", JSON),
    ("true", b"true", JSON),
    ("a number", b"1", JSON),
    ("a string", b"\"a\"", JSON),
    ("an array", b"[]", JSON),
    ("an empty object", b"{}", MISSING),
    // Syntax.
    ("an open object", br#"{"event_id":"a","video_id":"v","event_type":"view","timestamp":1"#, JSON),
    ("a brace only", b"{", JSON),
    ("an open string", br#"{"event_id":"a"#, JSON),
    ("a trailing comma", br#"{"event_id":"a","video_id":"v","event_type":"view","timestamp":1,}"#, JSON),
    ("a leading comma", br#"{,"event_id":"a","video_id":"v","event_type":"view","timestamp":1}"#, JSON),
    ("two commas", br#"{"event_id":"a",,"video_id":"v","event_type":"view","timestamp":1}"#, JSON),
    ("a missing comma", br#"{"event_id":"a" "video_id":"v","event_type":"view","timestamp":1}"#, JSON),
    ("a missing colon", br#"{"event_id" "a","video_id":"v","event_type":"view","timestamp":1}"#, JSON),
    ("a key without quotes", br#"{event_id:"a","video_id":"v","event_type":"view","timestamp":1}"#, JSON),
    ("single quotes", br#"{'event_id':'a','video_id':'v','event_type':'view','timestamp':1}"#, JSON),
    ("a number as a key", with!(r#"1:2"#), JSON),
    ("a comment", with!(r#"/* c */ "x":1"#), JSON),
    ("an unknown word", with!(r#""x":nul"#), JSON),
    ("a word in capitals", with!(r#""x":True"#), JSON),
    ("NaN", with!(r#""value":NaN"#), JSON),
    ("Infinity", with!(r#""value":Infinity"#), JSON),
    ("a raw newline in a string", with!("\"x\":\"a\nb\""), JSON),
    ("a raw tab in a key", with!("\"x\ty\":1"), JSON),
    ("an unknown escape", with!(r#""x":"\x41""#), JSON),
    ("a short escape", with!(r#""x":"\u12""#), JSON),
    ("an escape that is not hex", with!(r#""x":"\u12G4""#), JSON),
    ("an array closed by a brace", with!(r#""x":[1}"#), JSON),
    ("a trailing comma in an array", with!(r#""x":[1,]"#), JSON),
    ("a trailing comma in a nested object", with!(r#""x":{"y":1,}"#), JSON),
    ("a nested key without value", with!(r#""x":{"y"}"#), JSON),
    // UTF-8 and surrogates.
    ("a stray byte in an id", b"{\"event_id\":\"\xFF\",\"video_id\":\"v\",\"event_type\":\"view\",\"timestamp\":1}", UTF8),
    ("a cut sequence in an id", b"{\"event_id\":\"\xE2\x82\",\"video_id\":\"v\",\"event_type\":\"view\",\"timestamp\":1}", UTF8),
    ("an overlong slash", b"{\"event_id\":\"\xC0\xAF\",\"video_id\":\"v\",\"event_type\":\"view\",\"timestamp\":1}", UTF8),
    ("a surrogate as bytes", b"{\"event_id\":\"\xED\xA0\x80\",\"video_id\":\"v\",\"event_type\":\"view\",\"timestamp\":1}", UTF8),
    ("past the last code point", b"{\"event_id\":\"\xF4\x90\x80\x80\",\"video_id\":\"v\",\"event_type\":\"view\",\"timestamp\":1}", UTF8),
    ("a stray byte in an ignored value", b"{\"event_id\":\"a\",\"video_id\":\"v\",\"event_type\":\"view\",\"timestamp\":1,\"x\":\"\x80\"}", UTF8),
    ("a stray byte in an ignored key", b"{\"event_id\":\"a\",\"video_id\":\"v\",\"event_type\":\"view\",\"timestamp\":1,\"\x80\":1}", UTF8),
    ("a stray byte behind", b"{\"event_id\":\"a\",\"video_id\":\"v\",\"event_type\":\"view\",\"timestamp\":1}\x80", UTF8),
    ("a stray byte only", b"\x80", UTF8),
    ("a lone high surrogate in an id", id!(r#""\ud800""#), UTF8),
    ("a lone low surrogate in an id", id!(r#""\uDC00""#), UTF8),
    ("a high surrogate before a letter", id!(r#""\ud800x""#), UTF8),
    ("a high surrogate before another escape", id!(r#""\ud800\n""#), UTF8),
    ("a high surrogate before a plain unit", id!(r#""\ud800\u0041""#), UTF8),
    ("two high surrogates and a low one", id!(r#""\ud800\ud83d\ude00""#), UTF8),
    ("a pair and a low surrogate", id!(r#""\ud83d\ude00\ude00""#), UTF8),
    ("a surrogate pair the wrong way round", id!(r#""\ude00\ud83d""#), UTF8),
    ("a lone surrogate in an ignored value", with!(r#""x":"\ud800""#), UTF8),
    ("two high surrogates in an ignored value", with!(r#""x":"\ud800\ud800""#), UTF8),
    ("a lone surrogate in an ignored key", with!(r#""\ud800":1"#), UTF8),
    ("a lone surrogate in a nested value", with!(r#""x":[{"y":["\udfff"]}]"#), UTF8),
    ("a lone surrogate in a nested key", with!(r#""x":{"\udbff":1}"#), UTF8),
    ("a lone surrogate at a string's end before another string", with!(r#""x":["\ud83d","\ude00"]"#), UTF8),
    ("a lone surrogate in the event type", event_type!(r#""view\ud800""#), UTF8),
    ("a lone surrogate in the timestamp", at!(r#""\ud800""#), UTF8),
    ("a surrogate pair in an id", id!(r#""\ud83d\ude00""#), GOOD),
    ("a surrogate pair in capitals", id!(r#""\uD83D\uDE00""#), GOOD),
    ("the outermost pairs", id!(r#""\ud800\udc00\udbff\udfff""#), GOOD),
    ("the neighbours of surrogates", id!(r#""\ud7ff\ue000""#), GOOD),
    ("an escaped backslash before ud800", id!(r#""\\ud800""#), GOOD),
    ("brackets and quotes within strings", with!(r#""x]":"[{\"}\\""#), GOOD),
    ("a pair in an ignored key", with!(r#""\ud83d\ude00":1"#), GOOD),
    ("raw astral, bidi and zero width in an id", id!("\"\u{1F600}\u{202E}\u{200B}\""), GOOD),
    ("a non-character in an id", id!("\"\u{FFFF}\""), GOOD),
    // Repeated fields.
    ("an id twice", with!(r#""event_id":"a""#), REPEATED),
    ("a timestamp twice", with!(r#""timestamp":1"#), REPEATED),
    ("a field twice by an escaped key", with!(r#""event_\u0069d":"a""#), REPEATED),
    ("a value twice", with!(r#""value":1,"value":1"#), REPEATED),
    ("null, then a value", with!(r#""value":null,"value":1"#), REPEATED),
    ("null twice", with!(r#""user_id":null,"user_id":null"#), REPEATED),
    ("a required null, then a value", br#"{"event_id":null,"event_id":"a","video_id":"v","event_type":"view","timestamp":1}"#, REPEATED),
    ("an unknown field twice", with!(r#""x":1,"x":2"#), GOOD),
    ("a known name twice within an unknown field", with!(r#""x":{"event_id":1,"event_id":2}"#), GOOD),
    // Missing fields.
    ("no event id", br#"{"video_id":"v","event_type":"view","timestamp":1}"#, MISSING),
    ("no video id", br#"{"event_id":"a","event_type":"view","timestamp":1}"#, MISSING),
    ("no event type", br#"{"event_id":"a","video_id":"v","timestamp":1}"#, MISSING),
    ("no timestamp", br#"{"event_id":"a","video_id":"v","event_type":"view"}"#, MISSING),
    ("a null id", id!("null"), MISSING),
    ("a null event type", event_type!("null"), MISSING),
    ("a null timestamp", at!("null"), MISSING),
    ("a key in capitals", br#"{"Event_id":"a","video_id":"v","event_type":"view","timestamp":1}"#, MISSING),
    ("a key with a blank", br#"{"event_id ":"a","video_id":"v","event_type":"view","timestamp":1}"#, MISSING),
    ("missing goes before type", br#"{"event_id":1,"video_id":"v","event_type":"view"}"#, MISSING),
    ("a required key escaped", br#"{"\u0065vent_id":"a","video_id":"v","event_type":"view","timestamp":1}"#, GOOD),
    // Types.
    ("a number as an id", id!("1"), TYPE),
    ("true as an id", id!("true"), TYPE),
    ("an array as an id", id!(r#"["a"]"#), TYPE),
    ("an object as an id", id!(r#"{"a":1}"#), TYPE),
    ("a number as an event type", event_type!("1"), TYPE),
    ("a number as a user", with!(r#""user_id":17"#), TYPE),
    ("false as a user", with!(r#""user_id":false"#), TYPE),
    ("a string as a value", with!(r#""value":"1""#), TYPE),
    ("a bool as a value", with!(r#""value":true"#), TYPE),
    ("an array as a value", with!(r#""value":[1]"#), TYPE),
    ("an object as a value", with!(r#""value":{}"#), TYPE),
    ("a bool as a timestamp", at!("true"), TYPE),
    ("an array as a timestamp", at!("[1]"), TYPE),
    ("an object as a timestamp", at!("{}"), TYPE),
    ("a fraction in a timestamp", at!("1.0"), TYPE),
    ("an exponent in a timestamp", at!("1e3"), TYPE),
    ("an exponent in capitals", at!("1E3"), TYPE),
    ("a negative timestamp", at!("-1"), TYPE),
    ("minus zero as a timestamp", at!("-0"), TYPE),
    ("a plus sign", at!("+1"), JSON),
    ("a leading zero", at!("01"), JSON),
    ("hexadecimal", at!("0x1"), JSON),
    ("a fraction without digits", at!("1."), JSON),
    ("type goes before range", br#"{"event_id":"","video_id":1,"event_type":"view","timestamp":1}"#, TYPE),
    // Times.
    ("the epoch", at!("0"), GOOD),
    ("the last millisecond", at!("253402300799999"), GOOD),
    ("past the last millisecond", at!("253402300800000"), RANGE),
    ("microseconds", at!("1767225600123000"), RANGE),
    ("2^63", at!("9223372036854775808"), RANGE),
    ("2^64", at!("18446744073709551616"), RANGE),
    ("2^64 and a good timestamp", at!("18446744073709551617"), RANGE),
    ("forty digits", at!("1000000000000000000000000000000000000000"), RANGE),
    ("RFC 3339", at!(r#""2026-01-01T00:00:00Z""#), GOOD),
    ("RFC 3339 with an escape", at!(r#""2026-01-01T00:00:00\u005a""#), GOOD),
    ("RFC 3339 with a blank for its T", at!(r#""2026-01-01 00:00:00Z""#), RANGE),
    ("a leap second", at!(r#""2016-12-31T23:59:60Z""#), RANGE),
    ("before the epoch", at!(r#""1969-12-31T23:59:59.999Z""#), RANGE),
    ("past the year 9999 by its offset", at!(r#""9999-12-31T23:59:59-00:01""#), RANGE),
    ("digits in a string", at!(r#""1767225600123""#), RANGE),
    ("an empty string as a timestamp", at!(r#""""#), RANGE),
    // Ids and event types.
    ("an empty id", id!(r#""""#), RANGE),
    ("a blank id", id!(r#"" ""#), GOOD),
    ("128 bytes", id!(r#""01234567890123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789012345678901234567""#), GOOD),
    ("129 bytes", id!(r#""012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789012345678""#), RANGE),
    ("128 bytes by way of an escape", id!(r#""\u00301234567890123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789012345678901234567""#), GOOD),
    ("127 characters, 129 bytes", id!("\"\u{E9}\u{E9}01234567890123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789012345678901234\""), RANGE),
    ("an escaped NUL in an id", id!(r#""a\u0000""#), RANGE),
    ("an escaped newline in an id", id!(r#""a\nb""#), RANGE),
    ("U+001F in an id", id!(r#""\u001f""#), RANGE),
    ("a raw DEL in an id", id!("\"\u{7F}\""), RANGE),
    ("an escaped DEL in an id", id!(r#""\u007f""#), RANGE),
    ("a C1 control in an id", id!("\"\u{85}\""), GOOD),
    ("an escaped quote, slash and backslash in an id", id!(r#""\"\/\\""#), GOOD),
    ("an empty user", with!(r#""user_id":"""#), RANGE),
    ("a control character in a user", with!(r#""user_id":"\t""#), RANGE),
    ("a null user and value", with!(r#""user_id":null,"value":null"#), GOOD),
    ("an event type of every kind of character", event_type!(r#""a0_.-z9""#), GOOD),
    ("an escaped event type", event_type!(r#""\u0076iew""#), GOOD),
    ("an event type of one letter", event_type!(r#""a""#), GOOD),
    ("an event type of 64 bytes", event_type!(r#""a123456789012345678901234567890123456789012345678901234567890123""#), GOOD),
    ("an event type of 65 bytes", event_type!(r#""a1234567890123456789012345678901234567890123456789012345678901234""#), RANGE),
    ("an empty event type", event_type!(r#""""#), RANGE),
    ("an event type in capitals", event_type!(r#""View""#), RANGE),
    ("a capital within an event type", event_type!(r#""vieW""#), RANGE),
    ("an event type that begins with a digit", event_type!(r#""0view""#), RANGE),
    ("an event type that begins with a dot", event_type!(r#"".view""#), RANGE),
    ("a blank in an event type", event_type!(r#""vi ew""#), RANGE),
    ("an umlaut in an event type", event_type!("\"v\u{ED}ew\""), RANGE),
    // Values and unknown fields.
    ("zero", with!(r#""value":0"#), GOOD),
    ("minus zero", with!(r#""value":-0"#), GOOD),
    ("a fraction and an exponent", with!(r#""value":-12.5E+1"#), GOOD),
    ("the greatest double", with!(r#""value":1.7976931348623157e308"#), GOOD),
    ("past the greatest double", with!(r#""value":1e400"#), RANGE),
    ("far below it", with!(r#""value":-1e400"#), RANGE),
    ("an exponent past 64 bits", with!(r#""value":1e99999999999999999999"#), RANGE),
    ("too small for a double", with!(r#""value":1e-400"#), GOOD),
    ("forty digits as a value", with!(r#""value":1000000000000000000000000000000000000000"#), GOOD),
    ("a leading zero in a value", with!(r#""value":00"#), JSON),
    ("a value without integer part", with!(r#""value":.5"#), JSON),
    ("a value without fraction digits", with!(r#""value":1."#), JSON),
    ("a value without exponent digits", with!(r#""value":1e"#), JSON),
    ("a minus only", with!(r#""value":-"#), JSON),
    ("a plus sign in a value", with!(r#""value":+1"#), JSON),
    ("1e400 in an unknown field", with!(r#""x":1e400"#), GOOD),
    ("forty digits in an unknown field", with!(r#""x":[1000000000000000000000000000000000000000]"#), GOOD),
    ("a leading zero in an unknown field", with!(r#""x":01"#), JSON),
    ("anything in unknown fields", with!(r#""x":[null,true,{"y":"z"}],"":{}"#), GOOD),
];

#[test]
fn every_row_of_the_table_gets_its_verdict() {
    let wrong: Vec<_> = ROWS
        .iter()
        .filter(|(_, payload, expected)| cause(payload) != *expected)
        .map(|(name, payload, expected)| (name, expected, JsonEvents.decode(payload)))
        .collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn an_event_holds_what_its_record_says() {
    let event = |event_id: &'static str, event_time, user_id: Option<&'static str>, value| Event {
        event_id: Cow::Borrowed(event_id),
        video_id: Cow::Borrowed("v"),
        event_type: Cow::Borrowed("view"),
        event_time,
        user_id: user_id.map(Cow::Borrowed),
        value,
    };
    for (payload, expected) in [
        (with!(r#""user_id":"u17","value":12.5"#), event("a", 1, Some("u17"), Some(12.5))),
        (with!(r#""value":-12.5E+1,"user_id":null"#), event("a", 1, None, Some(-125.0))),
        (with!(r#""value":1e-400"#), event("a", 1, None, Some(0.0))),
        (with!(r#""value":2.2250738585072011e-308"#), event("a", 1, None, Some(f64::from_bits(0x000F_FFFF_FFFF_FFFF)))),
        (with!(r#""value":9007199254740993"#), event("a", 1, None, Some(9_007_199_254_740_992.0))),
        (id!(r#""\ud83d\ude00\/\u0061""#), event("\u{1F600}/a", 1, None, None)),
        (at!("253402300799999"), event("a", EVENT_TIME_MAX, None, None)),
        (at!(r#""2026-01-01T01:30:00.1239+01:30""#), event("a", 1_767_225_600_123, None, None)),
    ] {
        assert_eq!(JsonEvents.decode(payload), Ok(expected), "{}", String::from_utf8_lossy(payload));
    }
}

#[test]
fn an_ordinary_event_borrows_everything() {
    let text = r#"{"value":1, "user_id":"u", "timestamp":1, "event_type":"view", "video_id":"v", "event_id":"a"}"#;
    let event = general::parse(text).unwrap();
    for field in [&event.event_id, &event.video_id, &event.event_type, event.user_id.as_ref().unwrap()] {
        assert!(matches!(field, Cow::Borrowed(_)), "{field}");
    }
}

/// A good event with an unknown field `depth - 1` deep, so that the record is `depth` deep.
fn nested(depth: usize, open: &str, inner: &str, close: &str) -> Vec<u8> {
    let field = format!("{}{inner}{}", open.repeat(depth - 1), close.repeat(depth - 1));
    format!(r#"{{"x":{field},"event_id":"a","video_id":"v","event_type":"view","timestamp":1}}"#).into_bytes()
}

#[test]
fn nesting_is_fine_to_128_and_no_further() {
    for (open, close) in [("[", "]"), (r#"{"y":"#, "}"), (r#"[1,"[]}","#, "]")] {
        for (depth, expected) in
            [(2, None), (127, None), (128, None), (129, Some(Cause::Depth)), (1000, Some(Cause::Depth))]
        {
            // Brackets within strings do not count.
            assert_eq!(cause(&nested(depth, open, "1", close)), expected, "{depth} of {open}");
        }
    }
    // The deepest place does not come last, and is closed again.
    let mut twice = nested(129, "[", "1", "]");
    twice.splice(1..1, br#""z":[],"#.iter().copied());
    assert_eq!(cause(&twice), Some(Cause::Depth));
    // In a known field, and 200 brackets side by side.
    let deep = format!("{}{}", "[".repeat(128), "]".repeat(128));
    let known = format!(r#"{{"event_id":{deep},"video_id":"v","event_type":"view","timestamp":1}}"#);
    assert_eq!(cause(known.as_bytes()), Some(Cause::Depth));
    let wide = vec!["[]"; 200].join(",");
    assert_eq!(cause(&nested(2, "[", &wide, "]")), None);
}

#[test]
fn a_million_brackets_cost_no_stack_and_little_time() {
    const DEPTH: usize = 1_000_000;
    let started = Instant::now();
    assert_eq!(cause(&nested(DEPTH, "[", "", "]")), Some(Cause::Depth));
    assert_eq!(cause(&nested(DEPTH, r#"{"":"#, "1", "}")), Some(Cause::Depth));
    assert_eq!(cause(&"[".repeat(DEPTH).into_bytes()), Some(Cause::Json));
    assert_eq!(cause(&r#"{"":"#.repeat(DEPTH).into_bytes()), Some(Cause::Json));
    assert_eq!(cause(&nested(2, "[", &vec!["[]"; DEPTH].join(","), "]")), None);
    assert_eq!(cause(&nested(2, r#"[""#, &r"\ud83d\ude00\n".repeat(DEPTH), r#""]"#)), None);
    // Linear is some tens of milliseconds; quadratic would be hours.
    assert!(started.elapsed() < Duration::from_secs(20), "took {:?}", started.elapsed());
}

/// An event text, mostly of the usual layout, made of good and of odd parts.
fn event_text() -> impl Strategy<Value = String> {
    let string = prop_oneof![
        6 => "[a-z0-9-]{1,40}",
        1 => "[a-z]{126,130}",
        1 => "[ -~\u{80}-\u{10FFFF}\u{7F}]{0,12}",
        1 => r#"(\\(n|"|u0041|ud83d\\ude00|ud800)|[a-z]){0,5}"#,
    ];
    let timestamp = prop_oneof![
        4 => (0..=EVENT_TIME_MAX + 2).prop_map(|time| time.to_string()),
        1 => "-?[0-9]{0,20}(\\.[0-9])?",
        1 => r#""(19|20|99)[0-9]{2}-(02|12)-[0-3][0-9][Tt ][0-2][0-9]:[0-5][0-9]:[0-6][0-9](\.[0-9]{1,5})?(Z|[+-][0-2][0-9]:[0-6][0-9])""#,
        1 => Just("null".to_owned()),
    ];
    let number = prop_oneof![
        3 => any::<f64>().prop_map(|value| value.to_string()),
        3 => "-?[0-9]{1,3}(\\.[0-9]{0,18})?([eE][+-]?[0-9]{0,3})?",
        1 => "(null|true|NaN|inf|infinity|\\+1|\"1\"|\\[\\])",
    ];
    let user_id = proptest::option::of(string.clone().prop_map(|user_id| format!(r#","user_id":"{user_id}""#)));
    let value = proptest::option::of(number.prop_map(|number| format!(r#","value":{number}"#)));
    let event_type = prop_oneof![3 => "[a-z][a-z0-9_.-]{0,20}", 1 => "[a-z]{63,65}", 1 => "[A-z0-9]{0,3}"];
    (string.clone(), string, event_type, timestamp, user_id, value).prop_map(
        |(event_id, video_id, event_type, timestamp, user_id, value)| {
            let (user_id, value) = (user_id.unwrap_or_default(), value.unwrap_or_default());
            format!(
                r#"{{"event_id":"{event_id}","video_id":"{video_id}","event_type":"{event_type}","timestamp":{timestamp}{user_id}{value}}}"#
            )
        },
    )
}

/// Bytes that matter to a JSON parser, so that mutants stay near the grammar.
const TOKENS: [&str; 24] = [
    "{",
    "}",
    "[",
    "]",
    ":",
    ",",
    "\"",
    "\\",
    " ",
    "\n",
    "0",
    "9",
    "-",
    ".",
    "e",
    "null",
    "\\u0061",
    "\\ud800",
    "\u{7F}",
    "\u{E9}",
    "\t",
    "\"value\":1,",
    "{\"",
    ",\"x\":[]",
];

#[derive(Clone, Debug)]
enum Mutation {
    Insert(&'static str),
    Delete,
    Set(u8),
    Truncate,
    Copy { bytes: usize },
}

fn mutations() -> impl Strategy<Value = Vec<(prop::sample::Index, Mutation)>> {
    let mutation = prop_oneof![
        4 => prop::sample::select(&TOKENS[..]).prop_map(Mutation::Insert),
        2 => Just(Mutation::Delete),
        2 => any::<u8>().prop_map(Mutation::Set),
        1 => Just(Mutation::Truncate),
        1 => (1..40_usize).prop_map(|bytes| Mutation::Copy { bytes }),
    ];
    prop::collection::vec((any::<prop::sample::Index>(), mutation), 0..=4)
}

fn mutated(text: &str, mutations: &[(prop::sample::Index, Mutation)]) -> Vec<u8> {
    let mut bytes = text.as_bytes().to_vec();
    for (index, mutation) in mutations {
        if bytes.is_empty() {
            break;
        }
        let at = index.index(bytes.len());
        match mutation {
            Mutation::Insert(token) => drop(bytes.splice(at..at, token.bytes())),
            Mutation::Delete => drop(bytes.remove(at)),
            Mutation::Set(byte) => bytes[at] = *byte,
            Mutation::Truncate => bytes.truncate(at),
            Mutation::Copy { bytes: count } => {
                let copy = bytes[at..].iter().take(*count).copied().collect::<Vec<_>>();
                drop(bytes.splice(at..at, copy));
            }
        }
    }
    bytes
}

/// Decodes into an event with the bits of its value, since `-0 == 0`.
fn exact(event: &Event) -> (Event<'static>, Option<u64>) {
    let owned = |text: &Cow<str>| Cow::Owned(text.clone().into_owned());
    let copy = Event {
        event_id: owned(&event.event_id),
        video_id: owned(&event.video_id),
        event_type: owned(&event.event_type),
        event_time: event.event_time,
        user_id: event.user_id.as_ref().map(owned),
        value: event.value,
    };
    (copy, event.value.map(f64::to_bits))
}

/// The slow decoder: `serde_json::Value`s in a list, and the contract's table once more.
mod reference {
    use dataflows::event::Event;
    use serde::{
        Deserialize, Deserializer,
        de::{MapAccess, Visitor},
    };
    use serde_json::Value;

    struct Pairs(Vec<(String, Value)>);

    impl<'de> Deserialize<'de> for Pairs {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            struct PairsVisitor;
            impl<'de> Visitor<'de> for PairsVisitor {
                type Value = Pairs;
                fn expecting(&self, formatter: &mut std::fmt::Formatter) -> std::fmt::Result {
                    formatter.write_str("an object")
                }
                fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Pairs, A::Error> {
                    let mut pairs = Vec::new();
                    while let Some(pair) = map.next_entry()? {
                        pairs.push(pair);
                    }
                    Ok(Pairs(pairs))
                }
            }
            deserializer.deserialize_map(PairsVisitor)
        }
    }

    pub fn decode(payload: &[u8]) -> Option<Event<'static>> {
        let Pairs(pairs) = serde_json::from_slice(payload).ok()?;
        let take = |name: &str| -> Result<Value, ()> {
            let mut found = pairs.iter().filter(|(key, _)| key == name);
            let value = found.next().map_or(Value::Null, |(_, value)| value.clone());
            if found.next().is_none() { Ok(value) } else { Err(()) }
        };
        let id = |value: Value| match value {
            Value::String(id) if (1..=128).contains(&id.len()) && !id.contains(|c| c <= '\u{1F}' || c == '\u{7F}') => {
                Some(id)
            }
            _ => None,
        };
        let event_type = take("event_type").ok()?.as_str()?.to_owned();
        let mut letters = event_type.chars();
        let pattern = letters.next()?.is_ascii_lowercase()
            && letters.all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "_.-".contains(c))
            && event_type.len() <= 64;
        let event_time = match take("timestamp").ok()? {
            Value::Number(number) => number.as_u64()?,
            Value::String(text) => rfc3339(&text)?,
            _ => return None,
        };
        let user_id = match take("user_id").ok()? {
            Value::Null => None,
            value => Some(id(value)?.into()),
        };
        let value = match take("value").ok()? {
            Value::Null => None,
            Value::Number(number) => Some(number.as_f64()?),
            _ => return None,
        };
        (pattern && event_time <= 253_402_300_799_999).then_some(Event {
            event_id: id(take("event_id").ok()?)?.into(),
            video_id: id(take("video_id").ok()?)?.into(),
            event_type: event_type.into(),
            event_time,
            user_id,
            value,
        })
    }

    /// chrono's reading, less what it takes beyond the ABNF.
    fn rfc3339(text: &str) -> Option<u64> {
        let beyond = text.as_bytes().get(10) == Some(&b' ') || text.get(17..19) == Some("60") || !text.is_ascii();
        let instant = chrono::DateTime::parse_from_rfc3339(text).ok().filter(|_| !beyond)?;
        u64::try_from(instant.timestamp_millis()).ok()
    }
}

/// Whether the text has a number past the doubles: serde_json's values can't hold one, unknown fields may.
fn has_huge_number(text: &str) -> bool {
    serde_json::from_str::<serde_json::Value>(text).is_err_and(|error| error.to_string().contains("out of range"))
}

// More by `PROPTEST_CASES=1000000`.
proptest! {
    #![proptest_config(ProptestConfig::with_cases(ProptestConfig::default().cases.max(4000)))]

    #[test]
    fn the_fast_path_says_what_the_general_parser_says(text in event_text(), mutations in mutations()) {
        let payload = mutated(&text, &mutations);
        if let Ok(text) = std::str::from_utf8(&payload)
            && let Some(event) = speculate(text.as_bytes())
        {
            let expected = general::parse(text);
            prop_assert_eq!(expected.as_ref().map(exact), Ok(exact(&event)));
        }
    }

    #[test]
    fn the_verdict_is_that_of_a_slow_decoder(text in event_text(), mutations in mutations()) {
        let payload = mutated(&text, &mutations);
        if has_huge_number(&String::from_utf8_lossy(&payload)) {
            return Ok(());
        }
        let decoded = JsonEvents.decode(&payload);
        prop_assert_eq!(decoded.as_ref().ok().map(exact), reference::decode(&payload).as_ref().map(exact), "{:?}", decoded);
    }

    #[test]
    fn any_bytes_get_a_verdict(payload in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = JsonEvents.decode(&payload);
    }
}

#[test]
fn generated_events_reach_both_verdicts_and_both_parsers() {
    use proptest::{strategy::ValueTree, test_runner::TestRunner};
    let mut runner = TestRunner::deterministic();
    let (mut fast, mut good, mut malformed) = (0, 0, 0);
    for _ in 0..1000 {
        let tree = (event_text(), mutations()).new_tree(&mut runner).unwrap();
        let (text, mutations) = tree.current();
        let payload = mutated(&text, &mutations);
        match JsonEvents.decode(&payload) {
            Ok(_) if speculate(&payload).is_some() => fast += 1,
            Ok(_) => good += 1,
            Err(_) => malformed += 1,
        }
    }
    assert!(fast > 50 && good > 10 && malformed > 300, "{fast} fast, {good} general, {malformed} malformed");
}
