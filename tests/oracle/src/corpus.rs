//! Payloads and their verdicts, written by hand: the decoder's table for the oracle and for every door of the product.
//!
//! A case is a good event with one thing changed, so that it has one cause where that is possible. `None` is an acceptable event.

use crate::Cause::{self, Depth, Empty, Json, Missing, Range, RepeatedField, Type, Utf8};

/// A name, the payload, and why it is malformed; `None` where it is a well-formed event.
pub type Case = (&'static str, Vec<u8>, Option<Cause>);

/// The good event that the cases change. The ids must need no escaping in JSON, and hold no `@`.
#[derive(Clone, Copy, Debug)]
pub struct Base<'a> {
    pub event_id: &'a str,
    pub video_id: &'a str,
    pub timestamp_ms: u64,
}

/// All cases about one fixed event.
pub fn decode_cases() -> Vec<Case> {
    cases(Base { event_id: "e1", video_id: "v1", timestamp_ms: 1_767_225_600_123 })
}

/// All cases about the given event.
pub fn cases(base: Base) -> Vec<Case> {
    let mut cases = Vec::new();
    framing(base, &mut cases);
    encoding(base, &mut cases);
    syntax(base, &mut cases);
    depth(base, &mut cases);
    numbers(base, &mut cases);
    strings(base, &mut cases);
    presence(base, &mut cases);
    types(base, &mut cases);
    ids(base, &mut cases);
    event_types(base, &mut cases);
    timestamps(base, &mut cases);
    date_times(base, &mut cases);
    values(base, &mut cases);
    cases
}

impl Base<'_> {
    /// The members of the good event: field and raw JSON.
    fn members(&self) -> Vec<(&'static str, String)> {
        vec![
            ("event_id", format!("\"{}\"", self.event_id)),
            ("video_id", format!("\"{}\"", self.video_id)),
            ("event_type", "\"view\"".to_owned()),
            ("timestamp", self.timestamp_ms.to_string()),
            ("user_id", "\"u17\"".to_owned()),
            ("value", "12.5".to_owned()),
        ]
    }

    pub fn good(&self) -> String {
        object(&self.members())
    }

    /// One known field has another raw value; an unknown one is appended.
    pub fn with(&self, field: &'static str, raw: &str) -> String {
        let mut members = self.members();
        match members.iter_mut().find(|(name, _)| *name == field) {
            Some((_, value)) => raw.clone_into(value),
            None => members.push((field, raw.to_owned())),
        }
        object(&members)
    }

    pub fn without(&self, field: &str) -> String {
        let mut members = self.members();
        members.retain(|(name, _)| *name != field);
        object(&members)
    }

    /// The good event with more members behind it.
    pub fn and(&self, raw_members: &str) -> String {
        let good = self.good();
        format!("{},{raw_members}}}", &good[..good.len() - 1])
    }
}

fn object(members: &[(&'static str, String)]) -> String {
    let members: Vec<String> = members.iter().map(|(name, raw)| format!("\"{name}\":{raw}")).collect();
    format!("{{{}}}", members.join(","))
}

/// Puts raw bytes in the place of `@` in a text.
fn splice(text: &str, bytes: &[u8]) -> Vec<u8> {
    let (before, after) = text.split_once('@').expect("the text has a place for the bytes");
    [before.as_bytes(), bytes, after.as_bytes()].concat()
}

fn framing(base: Base, cases: &mut Vec<Case>) {
    let good = base.good();
    let mut add = |name, payload: String, cause| cases.push((name, payload.into_bytes(), cause));
    add("the good event", good.clone(), None);
    add("space around", format!(" \t {good} \t "), None);
    add("carriage return behind", format!("{good}\r"), None);
    add("newlines around", format!("\r\n{good}\r\n"), None);
    add("newlines inside", good.replace(',', ",\n").replace(':', " :\r\n"), None);
    add("no bytes", String::new(), Some(Empty));
    add("only spaces", "   ".to_owned(), Some(Empty));
    add("only white space", " \t\r\n".to_owned(), Some(Empty));
    add("byte order mark", format!("\u{feff}{good}"), Some(Json));
    add("byte order mark behind", format!("{good}\u{feff}"), Some(Json));
    add("no-break space before", format!("\u{a0}{good}"), Some(Json));
    add("form feed behind", format!("{good}\u{c}"), Some(Json));
    add("vertical tab before", format!("\u{b}{good}"), Some(Json));
    add("NUL behind", format!("{good}\0"), Some(Json));
    add("NUL before", format!("\0{good}"), Some(Json));
    add("two objects", format!("{good}{good}"), Some(Json));
    add("two objects apart", format!("{good} {good}"), Some(Json));
    add("text behind", format!("{good} x"), Some(Json));
    add("comma behind", format!("{good},"), Some(Json));
    add("brace behind", format!("{good}}}"), Some(Json));
    add("brace before", format!("{{{good}"), Some(Json));
    add("comment behind", format!("{good}//x"), Some(Json));
    add("comment inside", good.replacen(',', ",/*x*/", 1), Some(Json));
    add("record separator before", format!("\u{1e}{good}"), Some(Json));
    add("in an array", format!("[{good}]"), Some(Type));
    add("in a string", format!("\"{}\"", good.replace('"', "\\\"")), Some(Type));
    add("empty object", "{}".to_owned(), Some(Missing));
    add("empty array", "[]".to_owned(), Some(Type));
    add("null alone", "null".to_owned(), Some(Type));
    add("true alone", "true".to_owned(), Some(Type));
    add("a number alone", "17".to_owned(), Some(Type));
    add("a string alone", "\"e1\"".to_owned(), Some(Type));
    add("plain text", "hello".to_owned(), Some(Json));
    add("a CSV row", "e1,v1,view,1767225600123".to_owned(), Some(Json));
    add("base64", "eyJldmVudF9pZCI6ImUxIn0=".to_owned(), Some(Json));
}

fn encoding(base: Base, cases: &mut Vec<Case>) {
    let unknown = base.with("note", "\"@\"");
    let mut add = |name, text: &str, bytes: &[u8], cause| cases.push((name, splice(text, bytes), cause));
    add("two-byte character", &unknown, "é".as_bytes(), None);
    add("three-byte character", &unknown, "水".as_bytes(), None);
    add("four-byte character", &unknown, "🎬".as_bytes(), None);
    add("the last code point", &unknown, &[0xf4, 0x8f, 0xbf, 0xbf], None);
    add("a noncharacter", &unknown, "\u{ffff}".as_bytes(), None);
    add("the replacement character", &unknown, "\u{fffd}".as_bytes(), None);
    add("lone continuation byte", &unknown, &[0x80], Some(Utf8));
    add("Latin-1", &unknown, &[0xe9], Some(Utf8));
    add("overlong slash", &unknown, &[0xc0, 0xaf], Some(Utf8));
    add("overlong NUL", &unknown, &[0xc0, 0x80], Some(Utf8));
    add("overlong in three bytes", &unknown, &[0xe0, 0x80, 0xaf], Some(Utf8));
    add("overlong in four bytes", &unknown, &[0xf0, 0x80, 0x80, 0xaf], Some(Utf8));
    add("surrogate as bytes", &unknown, &[0xed, 0xa0, 0x80], Some(Utf8));
    add("surrogate pair as bytes", &unknown, &[0xed, 0xa0, 0xbc, 0xed, 0xbe, 0xac], Some(Utf8));
    add("beyond the last code point", &unknown, &[0xf4, 0x90, 0x80, 0x80], Some(Utf8));
    add("five-byte form", &unknown, &[0xf8, 0x88, 0x80, 0x80, 0x80], Some(Utf8));
    add("byte FE", &unknown, &[0xfe], Some(Utf8));
    add("byte FF", &unknown, &[0xff], Some(Utf8));
    add("cut two-byte character", &unknown, &[0xc3], Some(Utf8));
    add("cut three-byte character", &unknown, &[0xe6, 0xb0], Some(Utf8));
    add("cut four-byte character", &unknown, &[0xf0, 0x9f, 0x8e], Some(Utf8));
    add("bad byte in event_id", &base.with("event_id", "\"a@b\""), &[0xff], Some(Utf8));
    add("bad byte in video_id", &base.with("video_id", "\"a@b\""), &[0xff], Some(Utf8));
    add("bad byte in event_type", &base.with("event_type", "\"view@\""), &[0xff], Some(Utf8));
    add("bad byte in timestamp", &base.with("timestamp", "\"2026-01-01T00:00:00@Z\""), &[0xff], Some(Utf8));
    add("bad byte in user_id", &base.with("user_id", "\"u@\""), &[0xff], Some(Utf8));
    add("bad byte in a key", &base.and("\"k@\":1"), &[0xff], Some(Utf8));
    add("bad byte in a nested key", &base.and("\"k\":[{\"x@\":1}]"), &[0xff], Some(Utf8));
    add("bad byte between tokens", &base.and("@\"k\":1"), &[0xff], Some(Utf8));
    let utf16 = base.good().encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<u8>>();
    cases.push(("UTF-16", [&[0xff, 0xfe], utf16.as_slice()].concat(), Some(Utf8)));
    cases.push(("gzip", vec![0x1f, 0x8b, 0x08, 0x00, 0x01, 0x02], Some(Utf8)));
}

fn syntax(base: Base, cases: &mut Vec<Case>) {
    let good = base.good();
    let mut add = |name, payload: String, cause| cases.push((name, payload.into_bytes(), cause));
    add("cut before the last brace", good[..good.len() - 1].to_owned(), Some(Json));
    add("cut in a number", good[..good.len() - 3].to_owned(), Some(Json));
    add("cut in half", good[..good.len() / 2].to_owned(), Some(Json));
    add("the first brace alone", "{".to_owned(), Some(Json));
    add("cut in a key", "{\"event_".to_owned(), Some(Json));
    add("cut behind a key", "{\"event_id\"".to_owned(), Some(Json));
    add("cut behind a colon", "{\"event_id\":".to_owned(), Some(Json));
    add("cut in an escape", "{\"event_id\":\"\\".to_owned(), Some(Json));
    add("cut in a code", "{\"event_id\":\"\\u00".to_owned(), Some(Json));
    add("no first brace", good[1..].to_owned(), Some(Json));
    add("no colon", good.replacen(':', "", 1), Some(Json));
    add("two colons", good.replacen(':', "::", 1), Some(Json));
    add("equals for a colon", good.replacen(':', "=", 1), Some(Json));
    add("no comma", good.replacen(',', "", 1), Some(Json));
    add("two commas", good.replacen(',', ",,", 1), Some(Json));
    add("semicolon for a comma", good.replacen(',', ";", 1), Some(Json));
    add("comma before the last brace", good.replace('}', ",}"), Some(Json));
    add("comma behind the first brace", good.replacen('{', "{,", 1), Some(Json));
    add("single quotes", good.replace('"', "'"), Some(Json));
    add("bare keys", good.replacen("\"event_id\"", "event_id", 1), Some(Json));
    add("a number as a key", base.and("1:2"), Some(Json));
    add("a bracket for the last brace", good.replace('}', "]"), Some(Json));
    add("a member without a value", base.and("\"x\":"), Some(Json));
    add("a key without a colon", base.and("\"x\""), Some(Json));
    add("a word of no meaning", base.and("\"x\":nil"), Some(Json));
    add("a cut word", base.and("\"x\":tru"), Some(Json));
    add("a word too long", base.and("\"x\":nulll"), Some(Json));
    add("a capital word", base.and("\"x\":True"), Some(Json));
    add("undefined", base.and("\"x\":undefined"), Some(Json));
    add("unclosed array", base.and("\"x\":[1"), Some(Json));
    add("comma before a bracket", base.and("\"x\":[1,]"), Some(Json));
    add("comma behind a bracket", base.and("\"x\":[,1]"), Some(Json));
    add("no comma in an array", base.and("\"x\":[1 2]"), Some(Json));
    add("crossed brackets", base.and("\"x\":[{]}"), Some(Json));
    add("bad text in an unknown object", base.and("\"x\":{\"a\":1,}"), Some(Json));
    add("unknown fields of every kind", base.and(r#""x":[1,"a",null,true,false,{"b":[]}],"y":{},"":0"#), None);
    add("an unknown field twice", base.and(r#""x":1,"x":2"#), None);
    add("a known name twice, but nested", base.and(r#""x":{"event_id":1,"event_id":2}"#), None);
    add("known names nested", base.and(r#""x":{"event_id":"z","timestamp":-1,"value":"?"}"#), None);
    add("__proto__", base.and(r#""__proto__":{"event_id":"z"}"#), None);
}

fn depth(base: Base, cases: &mut Vec<Case>) {
    // The event's own object is one of the 128.
    let arrays = |count: usize| base.with("x", &format!("{}{}", "[".repeat(count), "]".repeat(count)));
    let objects = |count: usize| base.with("x", &format!("{}1{}", "{\"x\":".repeat(count), "}".repeat(count)));
    let mut add = |name, payload: String, cause| cases.push((name, payload.into_bytes(), cause));
    add("depth 32", arrays(31), None);
    add("depth 127 of arrays", arrays(126), None);
    add("depth 128 of arrays", arrays(127), None);
    add("depth 129 of arrays", arrays(128), Some(Depth));
    add("depth 130 of arrays", arrays(129), Some(Depth));
    add("depth 128 of objects", objects(127), None);
    add("depth 129 of objects", objects(128), Some(Depth));
    add("depth 128 mixed", base.with("x", &format!("{}[]{}", "[{\"x\":".repeat(63), "}]".repeat(63))), None);
    add("depth 129 mixed", base.with("x", &format!("{}[{{}}]{}", "[{\"x\":".repeat(63), "}]".repeat(63))), Some(Depth));
    add("depth 10,000", arrays(10_000), Some(Depth));
    add("depth 5,000, unclosed", base.and(&format!("\"x\":{}", "[".repeat(5_000))), Some(Depth));
    add(
        "depth 129 in a known field",
        base.with("user_id", &format!("{}{}", "[".repeat(128), "]".repeat(128))),
        Some(Depth),
    );
    add("depth 129 of nothing but arrays", format!("{}{}", "[".repeat(129), "]".repeat(129)), Some(Depth));
    add("brackets in a string", base.with("x", &format!("\"{}\"", "[{".repeat(500))), None);
    add("many containers side by side", base.with("x", &format!("[{}[]]", "[[]],{\"x\":{}},".repeat(500))), None);
}

/// The grammar of numbers, in an unknown field: whatever it allows is ignored.
fn numbers(base: Base, cases: &mut Vec<Case>) {
    let mut add = |name, raw: &str, cause| cases.push((name, base.with("x", raw).into_bytes(), cause));
    add("ignored: minus zero", "-0", None);
    add("ignored: a fraction", "-0.0125", None);
    add("ignored: exponents", "[1e1,1E1,1e+1,1e-1,1.5E-07,0e0]", None);
    add("ignored: 1e400", "1e400", None);
    add("ignored: -1e99999", "-1e99999", None);
    add("ignored: 400 digits", &"9".repeat(400), None);
    add("ignored: a leading zero", "01", Some(Json));
    add("ignored: minus and a leading zero", "-01", Some(Json));
    add("ignored: two zeros", "00", Some(Json));
    add("ignored: a plus", "+1", Some(Json));
    add("ignored: a minus alone", "-", Some(Json));
    add("ignored: two minuses", "--1", Some(Json));
    add("ignored: no digit before the point", ".5", Some(Json));
    add("ignored: no digit behind the point", "1.", Some(Json));
    add("ignored: two points", "1.2.3", Some(Json));
    add("ignored: no exponent", "1e", Some(Json));
    add("ignored: a signed nothing", "1e+", Some(Json));
    add("ignored: a fractional exponent", "1e1.5", Some(Json));
    add("ignored: hexadecimal", "0x10", Some(Json));
    add("ignored: NaN", "NaN", Some(Json));
    add("ignored: Infinity", "Infinity", Some(Json));
    add("ignored: -Infinity", "-Infinity", Some(Json));
    add("ignored: underscores", "1_000", Some(Json));
    add("ignored: wide digits", "１２", Some(Json));
    add("ignored: a suffix", "1f", Some(Json));
}

/// Strings, in an unknown field, in keys and in known fields.
fn strings(base: Base, cases: &mut Vec<Case>) {
    let mut add = |name, payload: String, cause| cases.push((name, payload.into_bytes(), cause));
    let ignored = |raw: &str| base.with("x", &format!("\"{raw}\""));
    add("every short escape", ignored(r#"\"\\\/\b\f\n\r\t"#), None);
    add("escaped NUL, ignored", ignored(r"\u0000"), None);
    add("escapes of either case", ignored(r"\u00e9\u00E9"), None);
    add("escaped surrogate pair", ignored(r"\ud83c\udfac"), None);
    add("escaped surrogate pair, capitals", ignored(r"\uD83C\uDFAC"), None);
    add("raw DEL, ignored", ignored("\u{7f}"), None);
    add("line separator, raw", ignored("\u{2028}"), None);
    add("unknown escape", ignored(r"\x41"), Some(Json));
    add("escaped single quote", ignored(r"\'"), Some(Json));
    add("capital U escape", ignored(r"\U0041"), Some(Json));
    add("three hex digits", ignored(r"\u041"), Some(Json));
    add("no hex digits", ignored(r"\u"), Some(Json));
    add("a letter among hex digits", ignored(r"\u00g0"), Some(Json));
    add("a sign among hex digits", ignored(r"\u+041"), Some(Json));
    add("braced escape", ignored(r"\u{41}"), Some(Json));
    add("a backslash before the end", ignored(r"a\"), Some(Json));
    add("raw tab", ignored("a\tb"), Some(Json));
    add("raw newline", ignored("a\nb"), Some(Json));
    add("raw NUL", ignored("a\0b"), Some(Json));
    add("raw escape character", ignored("\u{1b}[31m"), Some(Json));
    add("raw unit separator", ignored("a\u{1f}b"), Some(Json));
    add("lone first surrogate", ignored(r"\ud800"), Some(Utf8));
    add("lone second surrogate", ignored(r"\udc00"), Some(Utf8));
    add("surrogates the wrong way round", ignored(r"\udfac\ud83c"), Some(Utf8));
    add("two first surrogates", ignored(r"\ud800\ud800"), Some(Utf8));
    add("a first surrogate and a letter", ignored(r"\ud800a"), Some(Utf8));
    add("a first surrogate and an escape", ignored(r"\ud800\n"), Some(Utf8));
    add("a first surrogate and a plain code", ignored(r"\ud800\u0041"), Some(Utf8));
    add("a first surrogate and a raw character", ignored("\\ud83c🎬"), Some(Utf8));
    add("a pair and a lone one", ignored(r"\ud83c\udfac\udfac"), Some(Utf8));
    add("lone surrogate in a key", base.and(r#""\ud800":1"#), Some(Utf8));
    add("lone surrogate in a nested key", base.and(r#""x":[{"a\udc00":1}]"#), Some(Utf8));
    add("lone surrogate in a nested value", base.and(r#""x":[["\uDBFF"]]"#), Some(Utf8));
    add("lone surrogate in event_id", base.with("event_id", r#""a\ud800""#), Some(Utf8));
    add("lone surrogate in video_id", base.with("video_id", r#""\udc00a""#), Some(Utf8));
    add("lone surrogate in user_id", base.with("user_id", r#""\ud800""#), Some(Utf8));
    add("an escaped backslash before u", ignored(r"\\ud800"), None);
    add("escaped key", base.good().replacen("event_id", r"\u0065vent\u005fid", 1), None);
    add("escaped event type", base.with("event_type", r#""\u0076iew""#), None);
    add("escaped timestamp", base.with("timestamp", r#""2026-01-01T00:00:00\u005A""#), None);
    add("a long ignored string", ignored(&"x".repeat(20_000)), None);
}

fn presence(base: Base, cases: &mut Vec<Case>) {
    let mut add = |name, payload: String, cause| cases.push((name, payload.into_bytes(), cause));
    add("no event_id", base.without("event_id"), Some(Missing));
    add("no video_id", base.without("video_id"), Some(Missing));
    add("no event_type", base.without("event_type"), Some(Missing));
    add("no timestamp", base.without("timestamp"), Some(Missing));
    add("no user_id", base.without("user_id"), None);
    add("no value", base.without("value"), None);
    add("null user_id", base.with("user_id", "null"), None);
    add("null value", base.with("value", "null"), None);
    add("event_id in another case", base.good().replacen("event_id", "Event_ID", 1), Some(Missing));
    add("event_id in camel case", base.good().replacen("event_id", "eventId", 1), Some(Missing));
    add("event_id with a space", base.good().replacen("event_id", "event_id ", 1), Some(Missing));
    add("event_id with a Cyrillic letter", base.good().replacen("event_id", "еvent_id", 1), Some(Missing));
    add("another case beside it", base.and(r#""EVENT_ID":7,"Timestamp":"x""#), None);
    add("event_id twice", base.and(&format!("\"event_id\":\"{}\"", base.event_id)), Some(RepeatedField));
    add("video_id twice", base.and(&format!("\"video_id\":\"{}\"", base.video_id)), Some(RepeatedField));
    add("event_type twice", base.and(r#""event_type":"view""#), Some(RepeatedField));
    add("timestamp twice", base.and(&format!("\"timestamp\":{}", base.timestamp_ms)), Some(RepeatedField));
    add("user_id twice", base.and(r#""user_id":"u18""#), Some(RepeatedField));
    add("value twice", base.and(r#""value":1"#), Some(RepeatedField));
    add("value and null", base.and(r#""value":null"#), Some(RepeatedField));
    let nulls = base.without("user_id").replace('}', r#","user_id":null,"user_id":null}"#);
    add("user_id null twice", nulls, Some(RepeatedField));
    add("event_id twice, once escaped", base.and(r#""event\u005Fid":"z""#), Some(RepeatedField));
    add("value three times", base.and(r#""value":1,"value":2"#), Some(RepeatedField));
}

fn types(base: Base, cases: &mut Vec<Case>) {
    let mut add = |name, field, raw: &str, cause| cases.push((name, base.with(field, raw).into_bytes(), cause));
    add("event_id null", "event_id", "null", Some(Type));
    add("event_id a number", "event_id", "17", Some(Type));
    add("event_id a boolean", "event_id", "true", Some(Type));
    add("event_id an array", "event_id", "[\"e1\"]", Some(Type));
    add("event_id an object", "event_id", "{\"id\":\"e1\"}", Some(Type));
    add("video_id null", "video_id", "null", Some(Type));
    add("video_id a number", "video_id", "17", Some(Type));
    add("video_id a boolean", "video_id", "false", Some(Type));
    add("video_id an array", "video_id", "[]", Some(Type));
    add("video_id an object", "video_id", "{}", Some(Type));
    add("event_type null", "event_type", "null", Some(Type));
    add("event_type a number", "event_type", "0", Some(Type));
    add("event_type a boolean", "event_type", "true", Some(Type));
    add("event_type an array", "event_type", "[\"view\"]", Some(Type));
    add("event_type an object", "event_type", "{}", Some(Type));
    add("timestamp null", "timestamp", "null", Some(Type));
    add("timestamp a boolean", "timestamp", "true", Some(Type));
    add("timestamp an array", "timestamp", "[1767225600123]", Some(Type));
    add("timestamp an object", "timestamp", "{\"$date\":1767225600123}", Some(Type));
    add("user_id a number", "user_id", "17", Some(Type));
    add("user_id a boolean", "user_id", "false", Some(Type));
    add("user_id an array", "user_id", "[]", Some(Type));
    add("user_id an object", "user_id", "{}", Some(Type));
    add("value a string", "value", "\"12.5\"", Some(Type));
    add("value an empty string", "value", "\"\"", Some(Type));
    add("value a boolean", "value", "true", Some(Type));
    add("value an array", "value", "[1]", Some(Type));
    add("value an object", "value", "{}", Some(Type));
}

fn ids(base: Base, cases: &mut Vec<Case>) {
    let mut add = |name, field, text: &str, cause| {
        cases.push((name, base.with(field, &format!("\"{text}\"")).into_bytes(), cause));
    };
    add("event_id empty", "event_id", "", Some(Range));
    add("video_id empty", "video_id", "", Some(Range));
    add("user_id empty", "user_id", "", Some(Range));
    add("event_id of one byte", "event_id", "a", None);
    add("event_id a space", "event_id", " ", None);
    add("event_id of 128 bytes", "event_id", &"a".repeat(128), None);
    add("event_id of 129 bytes", "event_id", &"a".repeat(129), Some(Range));
    add("video_id of 128 bytes", "video_id", &"a".repeat(128), None);
    add("video_id of 129 bytes", "video_id", &"a".repeat(129), Some(Range));
    add("user_id of 128 bytes", "user_id", &"a".repeat(128), None);
    add("user_id of 129 bytes", "user_id", &"a".repeat(129), Some(Range));
    add("event_id of 128 bytes, two each", "event_id", &"é".repeat(64), None);
    add("event_id of 129 bytes, two each", "event_id", &("é".repeat(64) + "a"), Some(Range));
    add("event_id of 128 bytes, four each", "event_id", &"🎬".repeat(32), None);
    add("event_id of 33 characters in 132 bytes", "event_id", &"🎬".repeat(33), Some(Range));
    add("event_id of 128 escapes", "event_id", &r"\u0061".repeat(128), None);
    add("event_id of 129 escapes", "event_id", &r"\u0061".repeat(129), Some(Range));
    add("event_id of 32 escaped pairs", "event_id", &r"\ud83c\udfac".repeat(32), None);
    add("event_id of 33 escaped pairs", "event_id", &r"\ud83c\udfac".repeat(33), Some(Range));
    add("event_id of 64 KiB", "event_id", &"a".repeat(65_536), Some(Range));
    add("NUL in event_id", "event_id", r"a\u0000", Some(Range));
    add("newline in event_id", "event_id", r"a\nb", Some(Range));
    add("tab in video_id", "video_id", r"a\tb", Some(Range));
    add("carriage return in user_id", "user_id", r"\r", Some(Range));
    add("backspace in event_id", "event_id", r"a\b", Some(Range));
    add("U+001B in event_id", "event_id", r"\u001b[31m", Some(Range));
    add("U+001F in video_id", "video_id", r"a\u001f", Some(Range));
    add("U+0020 in video_id", "video_id", r"a\u0020", None);
    add("U+007E in video_id", "video_id", r"\u007e", None);
    add("U+007F in video_id", "video_id", r"a\u007f", Some(Range));
    add("raw U+007F in event_id", "event_id", "a\u{7f}", Some(Range));
    add("U+0080 in video_id", "video_id", r"a\u0080", None);
    add("U+0085 in event_id", "event_id", "a\u{85}", None);
    add("quotes and backslashes in video_id", "video_id", r#"\"\\\/"#, None);
    add("CQL in video_id", "video_id", "'; DROP TABLE stats_minute; --", None);
    add("a formula in video_id", "video_id", "=cmd|' /C calc'!A0", None);
    add("a path in video_id", "video_id", "../../etc/passwd", None);
    add("a query in video_id", "video_id", "a?b=c&d=%00#e", None);
    add("composed letter in video_id", "video_id", "caf\u{e9}", None);
    add("decomposed letter in video_id", "video_id", "cafe\u{301}", None);
    add("right-to-left override in video_id", "video_id", "a\u{202e}b", None);
    add("zero-width space in video_id", "video_id", "\u{200b}", None);
    add("byte order mark in video_id", "video_id", "\u{feff}a", None);
}

fn event_types(base: Base, cases: &mut Vec<Case>) {
    let mut add = |name, text: &str, cause| {
        cases.push((name, base.with("event_type", &format!("\"{text}\"")).into_bytes(), cause));
    };
    add("type of one letter", "z", None);
    add("type with every sign", "a0_.-", None);
    add("type of 64 bytes", &"a".repeat(64), None);
    add("type of 65 bytes", &"a".repeat(65), Some(Range));
    add("type empty", "", Some(Range));
    add("type with a capital first", "View", Some(Range));
    add("type with a capital", "viewHd", Some(Range));
    add("type with a digit first", "1view", Some(Range));
    add("type with a line first", "_view", Some(Range));
    add("type with a point first", ".view", Some(Range));
    add("type with a dash first", "-view", Some(Range));
    add("type with a space", "view hd", Some(Range));
    add("type with a space behind", "view ", Some(Range));
    add("type with a newline behind", r"view\n", Some(Range));
    add("type with a slash", "view/hd", Some(Range));
    add("type with a colon", "view:hd", Some(Range));
    add("type with an accent", "vié", Some(Range));
    add("type with a Cyrillic letter", "viеw", Some(Range));
    add("type with an Arabic digit", "view٣", Some(Range));
    add("type a star", "*", Some(Range));
}

/// Timestamps as numbers.
fn timestamps(base: Base, cases: &mut Vec<Case>) {
    let mut add = |name, raw: &str, cause| cases.push((name, base.with("timestamp", raw).into_bytes(), cause));
    add("time 0", "0", None);
    add("time 1", "1", None);
    add("time in seconds", "1767225600", None);
    add("the last time", "253402300799999", None);
    add("one beyond the last time", "253402300800000", Some(Range));
    add("time in microseconds", "1767225600123000", Some(Range));
    add("time 2^53 + 1", "9007199254740993", Some(Range));
    add("time 2^63", "9223372036854775808", Some(Range));
    add("time 2^64 - 1", "18446744073709551615", Some(Range));
    add("time 2^64", "18446744073709551616", Some(Range));
    add("time 2^64 + a good time", "18446745840935151739", Some(Range));
    add("time of 40 digits", &"1".repeat(40), Some(Range));
    add("time minus zero", "-0", Some(Range));
    add("time minus one", "-1", Some(Range));
    add("time with a fraction", "1767225600123.5", Some(Type));
    add("time with a fraction of zero", "1767225600123.0", Some(Type));
    add("time with an exponent", "1767225600e3", Some(Type));
    add("time with a capital exponent", "1E12", Some(Type));
    add("time 0e0", "0e0", Some(Type));
    add("time 0.0", "0.0", Some(Type));
    add("time with a leading zero", "01767225600123", Some(Json));
    add("time with a plus", "+1767225600123", Some(Json));
    add("time hexadecimal", "0x19b7735b47b", Some(Json));
    add("time with a cut exponent", "1767225600e", Some(Json));
    add("time NaN", "NaN", Some(Json));
}

/// Timestamps as RFC 3339 strings.
fn date_times(base: Base, cases: &mut Vec<Case>) {
    let mut add = |name, text: &str, cause| {
        cases.push((name, base.with("timestamp", &format!("\"{text}\"")).into_bytes(), cause));
    };
    add("date-time in UTC", "2026-01-01T00:00:00Z", None);
    add("date-time with milliseconds", "2026-01-01T00:00:00.123Z", None);
    add("date-time with one digit", "2026-01-01T00:00:00.1Z", None);
    add("date-time with nanoseconds", "2026-01-01T00:00:00.123456789Z", None);
    add("date-time with 40 digits", "2026-01-01T00:00:00.1234567890123456789012345678901234567890Z", None);
    add("date-time in lower case", "2026-01-01t00:00:00z", None);
    add("date-time east", "2026-01-01T05:45:00+05:45", None);
    add("date-time west", "2025-12-31T16:00:00-08:00", None);
    add("date-time at +00:00", "2026-01-01T00:00:00+00:00", None);
    add("date-time at -00:00", "2026-01-01T00:00:00-00:00", None);
    add("date-time at +23:59", "2026-01-01T23:59:00+23:59", None);
    add("date-time on a leap day", "2024-02-29T12:00:00Z", None);
    add("date-time on the leap day of 2000", "2000-02-29T12:00:00Z", None);
    add("the first date-time", "1970-01-01T00:00:00Z", None);
    add("the first date-time, west", "1969-12-31T23:59:00-00:01", None);
    add("the last date-time", "9999-12-31T23:59:59.999Z", None);
    add("the last date-time, with more digits", "9999-12-31T23:59:59.999999Z", None);
    add("the last date-time, east", "9999-12-31T23:59:59.999+00:00", None);
    add("date-time on the next day, west", "2026-01-01T23:59:59-12:00", None);
    add("date-time before the epoch", "1969-12-31T23:59:59.999Z", Some(Range));
    add("date-time before the epoch by less than a millisecond", "1969-12-31T23:59:59.9999Z", Some(Range));
    add("date-time before the epoch, east", "1970-01-01T00:00:00+00:01", Some(Range));
    add("date-time in the year 0", "0000-01-01T00:00:00Z", Some(Range));
    add("date-time beyond the year 9999", "9999-12-31T23:59:59.999-00:01", Some(Range));
    add("date-time in the year 10000", "10000-01-01T00:00:00Z", Some(Type));
    add("second 60", "2016-12-31T23:59:60Z", Some(Range));
    add("second 61", "2026-01-01T00:00:61Z", Some(Range));
    add("minute 60", "2026-01-01T00:60:00Z", Some(Range));
    add("hour 24", "2026-01-01T24:00:00Z", Some(Range));
    add("month 0", "2026-00-01T00:00:00Z", Some(Range));
    add("month 13", "2026-13-01T00:00:00Z", Some(Range));
    add("day 0", "2026-01-00T00:00:00Z", Some(Range));
    add("day 32", "2026-01-32T00:00:00Z", Some(Range));
    add("31 April", "2026-04-31T00:00:00Z", Some(Range));
    add("29 February in a common year", "2026-02-29T00:00:00Z", Some(Range));
    add("29 February 2100", "2100-02-29T00:00:00Z", Some(Range));
    add("30 February", "2024-02-30T00:00:00Z", Some(Range));
    add("offset hour 24", "2026-01-01T00:00:00+24:00", Some(Range));
    add("offset minute 60", "2026-01-01T00:00:00+00:60", Some(Range));
    add("date-time without an offset", "2026-01-01T00:00:00", Some(Type));
    add("date-time without a colon in the offset", "2026-01-01T00:00:00+0000", Some(Type));
    add("date-time with an offset of hours", "2026-01-01T00:00:00+00", Some(Type));
    add("date-time with an offset to the second", "2026-01-01T00:00:00+00:00:00", Some(Type));
    add("date-time with a Unicode minus", "2026-01-01T00:00:00\u{2212}08:00", Some(Type));
    add("date-time with a space", "2026-01-01 00:00:00Z", Some(Type));
    add("date-time without seconds", "2026-01-01T00:00Z", Some(Type));
    add("a date", "2026-01-01", Some(Type));
    add("date-time without signs", "20260101T000000Z", Some(Type));
    add("date-time of short parts", "2026-1-1T0:0:0Z", Some(Type));
    add("date-time by the week", "2026-W01-4T00:00:00Z", Some(Type));
    add("date-time by the day of the year", "2026-001T00:00:00Z", Some(Type));
    add("date-time with a point and no digit", "2026-01-01T00:00:00.Z", Some(Type));
    add("date-time with a comma", "2026-01-01T00:00:00,5Z", Some(Type));
    add("date-time with a zone name", "2026-01-01T00:00:00Z[UTC]", Some(Type));
    add("date-time with UTC", "2026-01-01T00:00:00UTC", Some(Type));
    add("date-time with a space before", " 2026-01-01T00:00:00Z", Some(Type));
    add("date-time with a space behind", "2026-01-01T00:00:00Z ", Some(Type));
    add("date-time with a newline behind", r"2026-01-01T00:00:00Z\n", Some(Type));
    add("date-time with a sign", "+2026-01-01T00:00:00Z", Some(Type));
    add("date-time with a negative year", "-2026-01-01T00:00:00Z", Some(Type));
    add("date-time with wide digits", "２０２６-01-01T00:00:00Z", Some(Type));
    add("date-time of RFC 2822", "Thu, 01 Jan 2026 00:00:00 +0000", Some(Type));
    add("milliseconds in a string", "1767225600123", Some(Type));
    add("an empty time", "", Some(Type));
    add("no time at all", "yesterday", Some(Type));
}

fn values(base: Base, cases: &mut Vec<Case>) {
    let mut add = |name, raw: &str, cause| cases.push((name, base.with("value", raw).into_bytes(), cause));
    add("value 0", "0", None);
    add("value -0", "-0", None);
    add("value -0.0", "-0.0", None);
    add("value negative", "-17.25", None);
    add("value with an exponent", "1.5e-3", None);
    add("value 1E+2", "1E+2", None);
    add("value 2^53 + 1", "9007199254740993", None);
    add("value 2^64", "18446744073709551616", None);
    add("value of 300 digits", &"9".repeat(300), None);
    add("value of many decimals", &format!("0.{}", "3".repeat(400)), None);
    add("the greatest value", "1.7976931348623157e308", None);
    add("the least value", "-1.7976931348623157e308", None);
    add("the greatest value, rounded down", "1.7976931348623158e308", None);
    add("value rounded up to infinity", "1.7976931348623159e308", Some(Range));
    add("a subnormal value", "5e-324", None);
    add("value rounded to zero", "1e-400", None);
    add("value 0e400", "0e400", None);
    add("value 1e400", "1e400", Some(Range));
    add("value -1e400", "-1e400", Some(Range));
    add("value 1e309", "1e309", Some(Range));
    add("value of 400 digits", &"9".repeat(400), Some(Range));
    add("value NaN", "NaN", Some(Json));
    add("value Infinity", "Infinity", Some(Json));
    add("value with a leading zero", "012.5", Some(Json));
    add("value with a plus", "+1", Some(Json));
    add("value without a digit behind the point", "1.", Some(Json));
    add("value without a digit before the point", ".5", Some(Json));
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::decode;

    #[test]
    fn the_reference_decoder_gives_every_case_its_verdict() {
        for (name, payload, cause) in decode_cases() {
            let shown = String::from_utf8_lossy(&payload[..payload.len().min(300)]).into_owned();
            assert_eq!(decode(&payload).err(), cause, "{name}: {shown}");
        }
    }

    #[test]
    fn cases_are_many_and_named_apart() {
        let cases = decode_cases();
        let names: BTreeSet<&str> = cases.iter().map(|(name, _, _)| *name).collect();
        let causes: BTreeSet<Option<Cause>> = cases.iter().map(|(_, _, cause)| *cause).collect();
        assert_eq!(names.len(), cases.len());
        assert_eq!(causes.len(), 9);
        assert!(350 < cases.len(), "{} cases", cases.len());
    }

    #[test]
    fn every_prefix_of_a_good_event_is_malformed() {
        let good = Base { event_id: "e1", video_id: "é", timestamp_ms: 0 }.good();
        for length in 0..good.len() {
            assert!(decode(&good.as_bytes()[..length]).is_err(), "{length}");
        }
        assert!(decode(good.as_bytes()).is_ok());
    }

    #[test]
    fn fields_are_read_as_they_are_meant() {
        let event = decode(
            br#"{"value":1.5e1,"user_id":"\ud83c\udfac","timestamp":"2026-01-01T01:00:00.1239+01:00","event_type":"view","video_id":"caf\u00e9","event_id":"a\/b","x":1}"#,
        )
        .unwrap();
        assert_eq!((event.event_id.as_str(), event.video_id.as_str()), ("a/b", "café"));
        assert_eq!((event.event_type.as_str(), event.timestamp_ms), ("view", 1_767_225_600_123));
        assert_eq!((event.user_id.as_deref(), event.value), (Some("🎬"), Some(15.0)));
    }
}
