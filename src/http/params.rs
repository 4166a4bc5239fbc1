//! From a query string or a JSON object to a checked request: names, times, granularities, tokens.
//!
//! A name that is unknown or given twice is refused, never ignored: a misspelt `strat=` must not answer for all time.

use std::{collections::BTreeMap, fmt};

use dataflows::{
    event::{ID_BYTES_MAX, is_event_type},
    functions::Function,
    port::PartitionId,
    rollup::Width,
    time::{EVENT_TIME_MAX, EventTime, MINUTE_MS, Minute, floor_to},
};
use serde::{Deserialize, Deserializer, de};
use utoipa::{
    IntoParams, ToSchema,
    openapi::{Object, ObjectBuilder, Type},
};

use super::{
    percent,
    problem::{Problem, quoted},
};

/// The first millisecond that no window holds: the end of the last one. A multiple of a day.
pub const TIMES_END: EventTime = EVENT_TIME_MAX + 1;

/// A time: epoch milliseconds, or RFC 3339.
#[derive(ToSchema)]
#[expect(dead_code, reason = "only its schema is used")]
#[serde(untagged)]
pub enum Time {
    Ms(u64),
    Text(String),
}

/// The parameters as text, as they came. A JSON object has these fields, as strings or whole numbers.
#[derive(Debug, Default, Deserialize, IntoParams, ToSchema)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
#[schema(as = Query)]
pub struct Fields {
    #[serde(deserialize_with = "text")]
    #[param(ignore)]
    #[schema(value_type = String, required, min_length = 1, max_length = 128)]
    pub video_id: Option<String>,
    /// `view` where it is left out.
    #[serde(deserialize_with = "text")]
    #[param(pattern = "^[a-z][a-z0-9_.-]{0,63}$")]
    #[schema(pattern = "^[a-z][a-z0-9_.-]{0,63}$")]
    pub event_type: Option<String>,
    /// `count` where it is left out.
    #[serde(deserialize_with = "text")]
    #[param(schema_with = functions)]
    #[schema(schema_with = functions)]
    pub function: Option<String>,
    /// The first moment wanted, RFC 3339 or epoch ms; widened to whole windows.
    #[serde(deserialize_with = "text")]
    #[param(value_type = Option<String>, example = "2026-01-01T00:00:00Z")]
    #[schema(value_type = Option<Time>)]
    pub start: Option<String>,
    /// The first moment not wanted any more; widened to whole windows.
    #[serde(deserialize_with = "text")]
    #[param(value_type = Option<String>, example = "2026-01-01T01:00:00Z")]
    #[schema(value_type = Option<Time>)]
    pub end: Option<String>,
    /// The width of a window; `minute` where it is left out.
    #[serde(deserialize_with = "text")]
    #[param(schema_with = granularities)]
    #[schema(schema_with = granularities)]
    pub granularity: Option<String>,
    /// The answer as it was at this frontier, or the nearest one before it.
    #[serde(deserialize_with = "text")]
    #[param(value_type = Option<String>)]
    #[schema(value_type = Option<Time>)]
    pub as_of: Option<String>,
    /// The token of a write: the answer waits until it includes that. Not together with `as_of`.
    #[serde(deserialize_with = "text")]
    pub after: Option<String>,
}

fn functions() -> Object {
    words(&Function::ALL.map(Function::as_str))
}

fn granularities() -> Object {
    words(&Granularity::ALL.map(Granularity::as_str))
}

/// The schema of one of these words.
fn words(words: &[&'static str]) -> Object {
    ObjectBuilder::new().schema_type(Type::String).enum_values(Some(words.iter().copied())).build()
}

impl Fields {
    /// Reads a query string. The video id is not one of its names: it comes in the path.
    pub fn from_query(query: &str) -> Result<Self, Problem> {
        let known = ["event_type", "function", "start", "end", "granularity", "as_of", "after"];
        Ok(Self::take(&mut given(query, &known)?))
    }

    /// Takes what is among the parameters given.
    pub fn take(given: &mut BTreeMap<&str, String>) -> Self {
        Self {
            video_id: given.remove("video_id"),
            event_type: given.remove("event_type"),
            function: given.remove("function"),
            start: given.remove("start"),
            end: given.remove("end"),
            granularity: given.remove("granularity"),
            as_of: given.remove("as_of"),
            after: given.remove("after"),
        }
    }
}

/// The parameters of a query string, each at most once, none but the `known` ones.
pub fn given<'a>(query: &'a str, known: &[&str]) -> Result<BTreeMap<&'a str, String>, Problem> {
    let mut given = BTreeMap::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        if !known.contains(&name) {
            let detail = format!("{} is not a parameter here; there are {}", quoted(name), known.join(", "));
            return Err(Problem::parameter(name, detail));
        }
        let value = percent::decode(value)
            .ok_or_else(|| Problem::parameter(name, format!("{name} is not percent-encoded UTF-8")))?;
        if given.insert(name, value).is_some() {
            return Err(Problem::parameter(name, format!("{name} is given twice")));
        }
    }
    Ok(given)
}

fn function(name: &str) -> Result<Function, Problem> {
    Function::parse(name).ok_or_else(|| {
        let available = Function::ALL.map(Function::as_str);
        let detail = format!("function={} is not available; there are {}", quoted(name), available.join(", "));
        Problem::parameter("function", detail).with("available", available.to_vec())
    })
}

/// A string or a whole number, as text; null is absent.
fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    struct Text;
    impl de::Visitor<'_> for Text {
        type Value = Option<String>;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a string or a whole number")
        }
        fn visit_str<E: de::Error>(self, value: &str) -> Result<Self::Value, E> {
            Ok(Some(value.to_owned()))
        }
        fn visit_u64<E: de::Error>(self, value: u64) -> Result<Self::Value, E> {
            Ok(Some(value.to_string()))
        }
        fn visit_unit<E: de::Error>(self) -> Result<Self::Value, E> {
            Ok(None)
        }
    }
    deserializer.deserialize_any(Text)
}

/// The width of the windows of a series.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Granularity {
    Minute,
    Hour,
    Day,
    /// One window as wide as what was asked for.
    All,
}

impl Granularity {
    const ALL: [Self; 4] = [Self::Minute, Self::Hour, Self::Day, Self::All];

    pub fn as_str(self) -> &'static str {
        match self {
            Granularity::Minute => "minute",
            Granularity::Hour => "hour",
            Granularity::Day => "day",
            Granularity::All => "all",
        }
    }

    /// What `start` and `end` are widened to, ms.
    pub fn step_ms(self) -> u64 {
        match self {
            Granularity::Minute | Granularity::All => MINUTE_MS,
            Granularity::Hour => 60 * MINUTE_MS,
            Granularity::Day => 24 * 60 * MINUTE_MS,
        }
    }

    fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|granularity| granularity.as_str() == text)
    }
}

/// Whose events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// A video's.
    Video(String),
    /// Those of all videos of a channel.
    Channel(String),
}

/// One checked request for a series. The range is widened to whole windows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    pub subject: Subject,
    pub event_type: String,
    pub function: Function,
    pub granularity: Granularity,
    /// The first millisecond wanted; `None` from the beginning of all that is known.
    pub start: Option<EventTime>,
    /// The first millisecond not wanted any more; `None` to the end of all that is known.
    pub end: Option<EventTime>,
    pub when: When,
}

/// Which frontier is to answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum When {
    /// The newest one.
    Latest,
    /// The nearest one at or before this.
    AsOf(EventTime),
    /// The first one that includes these records, or a newer one.
    After(Token),
}

impl Wanted {
    pub fn check(mut fields: Fields) -> Result<Self, Problem> {
        let video_id = fields.video_id.take().ok_or_else(|| Problem::parameter("video_id", "video_id is missing"))?;
        Self::of(Subject::Video(id("video_id", video_id)?), fields)
    }

    /// Of a channel, whose id is not among the fields.
    pub fn of_channel(channel_id: String, fields: Fields) -> Result<Self, Problem> {
        Self::of(Subject::Channel(id("channel_id", channel_id)?), fields)
    }

    fn of(subject: Subject, fields: Fields) -> Result<Self, Problem> {
        let event_type = event_type(fields.event_type)?;
        let function = fields.function.map_or(Ok(Function::Count), |name| function(&name))?;
        let granularity = match fields.granularity.as_deref() {
            None => Granularity::Minute,
            Some(text) => Granularity::parse(text).ok_or_else(|| {
                let detail = format!("granularity is minute, hour, day or all, not {}", quoted(text));
                Problem::parameter("granularity", detail)
            })?,
        };
        let (start, end) = range(fields.start, fields.end, granularity.step_ms())?;
        let when = when(fields.as_of, fields.after)?;
        Ok(Self { subject, event_type, function, granularity, start, end, when })
    }

    /// The widest windows that answer it as well as minutes do. Where a bound is left out, the minutes tell.
    pub fn width(&self) -> Width {
        match self.granularity {
            Granularity::Minute => Width::Minute,
            Granularity::Hour => Width::Hour,
            Granularity::Day => Width::Day,
            Granularity::All if self.start.is_some() && self.end.is_some() => Width::Day,
            Granularity::All => Width::Minute,
        }
    }

    /// The minutes to ask the index for.
    pub fn minutes(&self) -> (Minute, Minute) {
        minutes(self.start, self.end)
    }
}

/// The minutes of a range that was widened to whole ones.
pub fn minutes(start: Option<EventTime>, end: Option<EventTime>) -> (Minute, Minute) {
    let number = |time: EventTime| Minute((time.min(TIMES_END) / MINUTE_MS) as u32);
    (number(start.unwrap_or(0)), number(end.unwrap_or(TIMES_END)))
}

/// The event type asked for.
pub fn event_type(given: Option<String>) -> Result<String, Problem> {
    let event_type = given.unwrap_or_else(|| "view".to_owned());
    if !is_event_type(&event_type) {
        let detail = format!("event_type must match [a-z][a-z0-9_.-]{{0,63}}, not {}", quoted(&event_type));
        return Err(Problem::parameter("event_type", detail));
    }
    Ok(event_type)
}

/// A range of times, widened to whole windows of `step_ms`.
pub fn range(
    start: Option<String>,
    end: Option<String>,
    step_ms: u64,
) -> Result<(Option<EventTime>, Option<EventTime>), Problem> {
    let start = start.map(|text| range_time("start", &text)).transpose()?;
    let end = end.map(|text| range_time("end", &text)).transpose()?;
    if let (Some(start), Some(end)) = (start, end)
        && end < start
    {
        return Err(Problem::parameter("end", format!("end={end} is before start={start}")));
    }
    Ok((start.map(|time| floor_to(time, step_ms)), end.map(|time| ceil_to(time, step_ms))))
}

/// The moment asked for.
pub fn when(as_of: Option<String>, after: Option<String>) -> Result<When, Problem> {
    match (as_of, after) {
        (None, None) => Ok(When::Latest),
        (Some(text), None) => Ok(When::AsOf(frontier("as_of", &text)?)),
        (None, Some(text)) => Ok(When::After(Token::parse(&text)?)),
        (Some(_), Some(_)) => Err(Problem::parameter("after", "after and as_of can't be given together")),
    }
}

/// The frontier that a parameter names.
pub fn frontier(name: &str, text: &str) -> Result<EventTime, Problem> {
    time(text).ok_or_else(|| not_a_time(name, text))
}

/// An id that an event may have.
pub fn id(name: &str, text: String) -> Result<String, Problem> {
    if is_id(&text) {
        return Ok(text);
    }
    let detail = format!("{name} must have 1 to {ID_BYTES_MAX} bytes and no control characters");
    Err(Problem::parameter(name, detail))
}

/// The id in a path.
pub fn id_of_path(name: &str, raw: &str) -> Result<String, Problem> {
    percent::decode(raw).ok_or_else(|| Problem::parameter(name, format!("{name} is not percent-encoded UTF-8")))
}

fn is_id(text: &str) -> bool {
    (1..=ID_BYTES_MAX).contains(&text.len()) && !text.bytes().any(|byte| byte < 0x20 || byte == 0x7f)
}

fn range_time(name: &str, text: &str) -> Result<EventTime, Problem> {
    time(text).filter(|&time| time <= TIMES_END).ok_or_else(|| not_a_time(name, text))
}

fn not_a_time(name: &str, text: &str) -> Problem {
    let detail = format!(
        "{name} is a time between 1970 and 9999, as RFC 3339 (2026-01-01T00:00:00Z) or epoch milliseconds, not {}",
        quoted(text)
    );
    Problem::parameter(name, detail)
}

/// Epoch milliseconds or RFC 3339; finer than a millisecond is cut off, and there is no second 60.
fn time(text: &str) -> Option<EventTime> {
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return text.parse().ok();
    }
    let time = chrono::DateTime::parse_from_rfc3339(text).ok()?;
    let is_leap_second = 999 < time.timestamp_subsec_millis();
    if is_leap_second { None } else { time.timestamp_millis().try_into().ok() }
}

/// The least multiple of `step_ms` at or after `time`.
fn ceil_to(time: EventTime, step_ms: u64) -> EventTime {
    time.div_ceil(step_ms) * step_ms
}

/// What a write was told: which offset of each partition lies behind it. On the wire `partition:next_offset,…`, and nothing
/// at all where no item was taken.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Token(pub Vec<(PartitionId, u64)>);

impl Token {
    /// A token names no more partitions than this.
    const PARTITIONS_MAX: usize = 4096;

    pub fn parse(text: &str) -> Result<Self, Problem> {
        let mut token = Self::default();
        for part in text.split(',').filter(|_| !text.is_empty()) {
            let parsed = part.split_once(':').and_then(|(p, next)| Some((PartitionId(number(p)?), number(next)?)));
            match parsed {
                Some((partition, next_offset))
                    if token.0.len() < Self::PARTITIONS_MAX && token.0.iter().all(|(p, _)| *p != partition) =>
                {
                    token.0.push((partition, next_offset));
                }
                _ => {
                    let detail =
                        format!("after is the token of a write, partition:next_offset,…, not {}", quoted(text));
                    return Err(Problem::parameter("after", detail));
                }
            }
        }
        Ok(token)
    }
}

/// Digits only: Rust's own parser would take a `+`.
pub fn number<T: std::str::FromStr>(text: &str) -> Option<T> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, (partition, next_offset)) in self.0.iter().enumerate() {
            let comma = if i == 0 { "" } else { "," };
            write!(f, "{comma}{}:{next_offset}", partition.0)?;
        }
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const HOUR: u64 = 3_600_000;

    #[test]
    fn times_are_epoch_milliseconds_or_rfc_3339() {
        for (text, expect) in [
            ("0", Some(0)),
            ("1767225600123", Some(1_767_225_600_123)),
            ("18446744073709551615", Some(u64::MAX)),
            ("18446744073709551616", None),
            ("2026-01-01T00:00:00Z", Some(1_767_225_600_000)),
            ("2026-01-01T02:00:00.1239+02:00", Some(1_767_225_600_123)),
            ("1969-12-31T23:59:59.999Z", None),
            ("2016-12-31T23:59:60Z", None),
            ("2026-01-01", None),
            ("1.5", None),
            ("1e3", None),
            ("-1", None),
            ("+1", None),
            (" 1", None),
            ("", None),
        ] {
            assert_eq!(time(text), expect, "{text:?}");
        }
    }

    #[test]
    fn a_range_is_widened_outward_to_whole_windows() {
        // granularity | start, end | used start, used end
        let rows = [
            ("minute", 60_000, 120_000, 60_000, 120_000),
            ("minute", 59_999, 120_001, 0, 180_000),
            ("minute", 1, 1, 0, 60_000),
            ("minute", 60_000, 60_000, 60_000, 60_000),
            ("hour", HOUR - 1, HOUR + 1, 0, 2 * HOUR),
            ("hour", HOUR, 2 * HOUR, HOUR, 2 * HOUR),
            ("day", 1, 24 * HOUR, 0, 24 * HOUR),
            ("day", 24 * HOUR, 24 * HOUR + 1, 24 * HOUR, 48 * HOUR),
            ("day", TIMES_END - 1, TIMES_END, TIMES_END - 24 * HOUR, TIMES_END),
            ("all", 60_001, 60_002, 60_000, 120_000),
        ];
        for (granularity, start, end, used_start, used_end) in rows {
            let query = format!("granularity={granularity}&start={start}&end={end}");
            let fields = Fields { video_id: Some("v".into()), ..Fields::from_query(&query).unwrap() };
            let wanted = Wanted::check(fields).unwrap();
            assert_eq!((wanted.start, wanted.end), (Some(used_start), Some(used_end)), "{query}");
            assert_eq!(wanted.minutes(), (minute(used_start), minute(used_end)), "{query}");
        }
        fn minute(time: u64) -> Minute {
            Minute(u32::try_from(time / 60_000).unwrap())
        }
    }

    #[test]
    fn left_out_ends_ask_for_every_window_there_can_be() {
        let wanted = Wanted::check(Fields { video_id: Some("v".into()), ..Fields::default() }).unwrap();
        let (first, end) = wanted.minutes();
        assert_eq!((first, end), (Minute(0), Minute(Minute::of(EVENT_TIME_MAX).0 + 1)));
        assert_eq!((wanted.event_type.as_str(), wanted.granularity), ("view", Granularity::Minute));
    }

    #[test]
    fn tokens_are_parsed_strictly() {
        let token = |parts: &[(u32, u64)]| Some(Token(parts.iter().map(|&(p, o)| (PartitionId(p), o)).collect()));
        for (text, expect) in [
            ("", token(&[])),
            ("0:5", token(&[(0, 5)])),
            ("3:0,1:18446744073709551615", token(&[(3, 0), (1, u64::MAX)])),
            ("0:5,", None),
            (",", None),
            ("0", None),
            ("0:", None),
            (":5", None),
            ("0:+5", None),
            ("0:-5", None),
            ("0:5,0:6", None),
            ("0:5 ", None),
            ("4294967296:1", None),
            ("0:18446744073709551616", None),
        ] {
            assert_eq!(Token::parse(text).ok(), expect, "{text:?}");
            if let Some(token) = expect {
                assert_eq!(token.to_string(), text);
            }
        }
    }
}
