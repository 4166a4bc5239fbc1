//! `GET /v1/videos/{video_id}/stats`, the same of a channel, and `POST /v1/stats`: choose a frontier, ask the index, roll minutes up.
//!
//! Every answer is true at one frontier and names it. `final` says that the same question can never be answered otherwise:
//! the watermark has reached the end of what was *asked* for. Where `end` is left out, that is the end of the year 9999.

use std::collections::BTreeSet;

use dataflows::{
    announce::Moment,
    functions::{Function, Value, stats::Stats as Functions},
    port::{Labels as _, PartitionId, VideoLabel},
    query::Cell,
    rollup::Width,
    time::{EventTime, floor_to},
};
use futures_util::stream::{self, StreamExt, TryStreamExt};
use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{ObjectBuilder, RefOr, Schema, Type, schema::SchemaType},
};
use warp::http::HeaderMap;

use super::{
    Response, State,
    body::{self, Encoding},
    cache,
    found::{self, Found},
    incomplete::{self, Incomplete},
    json,
    openapi::{MayBeBusy, MayRefuseBodies, MayRefuseQuestions},
    params::{self, Fields, Granularity, Subject, TIMES_END, Token, Wanted, When},
    problem::{Problem, quoted},
};
use crate::service::{AsOfError, Names};

/// Questions of one batch that are with the index at a time: enough to hide a round trip, few enough to leave it to others.
const ASKED_AT_ONCE: usize = 32;

/// Moment so many moments a request is tried, if the frontier leaps each time by more than the index retains.
const TRIES_MAX: u32 = 8;

/// One answer, as the contract spells it.
#[derive(Debug, PartialEq, Serialize, ToSchema)]
pub struct Stats {
    /// Where it is a video's answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) video_id: Option<String>,
    /// As it is known now, whatever the frontier; as are the next two.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) video_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) channel_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) channel_name: Option<String>,
    pub(super) event_type: String,
    pub(super) function: &'static str,
    pub(super) granularity: &'static str,
    pub(super) start: EventTime,
    pub(super) end: EventTime,
    pub(super) as_of: EventTime,
    pub(super) watermark: EventTime,
    #[serde(rename = "final")]
    pub(super) is_final: bool,
    pub(super) total: Number,
    /// How far values may be off, as a part of them, where the function is an estimate: 0 where all are exact.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) error: Option<f64>,
    pub(super) series: Vec<Point>,
    /// Of what was asked for, what may lack events: it is left out where that is nothing. It may shrink, once records behind
    /// the lost ones are read.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) incomplete: Vec<Incomplete>,
}

impl Stats {
    /// Whether it says what its subject is called, or whose it is.
    pub(super) fn is_labelled(&self) -> bool {
        self.video_name.is_some() || self.channel_id.is_some()
    }
}

/// What a function gives.
#[derive(Copy, Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Number {
    Whole(u64),
    Real(f64),
    /// JSON's null.
    Null,
}

impl PartialSchema for Number {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new().schema_type(SchemaType::from_iter([Type::Number, Type::Null])).into()
    }
}

impl ToSchema for Number {}

impl From<Value> for Number {
    fn from(value: Value) -> Self {
        match value {
            Value::Whole(number) => Self::Whole(number),
            Value::Real(number) => Self::Real(number),
            Value::None => Self::Null,
        }
    }
}

/// One window of a series.
#[derive(Copy, Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct Point {
    pub(super) start: EventTime,
    pub(super) value: Number,
    #[serde(rename = "final")]
    pub(super) is_final: bool,
}

/// Answers for one video.
#[utoipa::path(
    get,
    path = "/v1/videos/{video_id}/stats",
    tag = "questions",
    description = "The series of one video and event type, true at the one frontier that `as_of` of the answer names.\n\n\
        `curl -sS 'http://127.0.0.1:7070/v1/videos/v1/stats?event_type=view&granularity=hour'`",
    params(
        ("video_id" = String, Path, min_length = 1, max_length = 128, description = "Percent-encoded; 1 to 128 bytes"),
        Fields
    ),
    responses((status = 200, body = Stats), (status = 304, description = "As the client has it"), MayRefuseQuestions)
)]
pub async fn video(state: &State, raw_id: &str, query: &str, headers: &HeaderMap) -> Result<Response, Problem> {
    let video_id = Some(params::id_of_path("video_id", raw_id)?);
    let wanted = Wanted::check(Fields { video_id, ..Fields::from_query(query)? })?;
    let stats = stats(state, &wanted, &wanted.when, state.limits.windows_max).await?;
    Ok(cache::respond(state, headers, &wanted, &stats))
}

/// Answers for one channel.
#[utoipa::path(
    get,
    path = "/v1/channels/{channel_id}/stats",
    tag = "questions",
    description = "The series of all videos that belong to a channel at the frontier, each with its whole history: one that moves \
        takes its counts along. See `POST /v1/dimensions`.\n\n\
        `curl -sS 'http://127.0.0.1:7070/v1/channels/c1/stats?event_type=view&granularity=hour'`",
    params(
        ("channel_id" = String, Path, min_length = 1, max_length = 128, description = "Percent-encoded; 1 to 128 bytes"),
        Fields
    ),
    responses((status = 200, body = Stats), MayRefuseQuestions, MayBeBusy)
)]
pub async fn channel(state: &State, raw_id: &str, query: &str) -> Result<Response, Problem> {
    let wanted = Wanted::of_channel(params::id_of_path("channel_id", raw_id)?, Fields::from_query(query)?)?;
    // Videos may still come to it and leave it, so its answers are never final for caches.
    Ok(json(&stats(state, &wanted, &wanted.when, state.limits.windows_max).await?))
}

/// One answer of at most so many windows, at a moment of the wanted kind.
pub(super) async fn stats(state: &State, wanted: &Wanted, when: &When, windows_max: usize) -> Result<Stats, Problem> {
    let mut moments = Moments::of(state, when);
    loop {
        let at = moments.next().await?;
        let mut room = windows_max;
        match answer(state, wanted.clone(), at).await.and_then(|stats| fit(stats, &mut room)) {
            Ok(stats) => return Ok(stats),
            Err(missed) => moments.missed(missed).await?,
        }
    }
}

/// Answers many requests at one frontier.
#[utoipa::path(
    post,
    path = "/v1/stats",
    tag = "questions",
    description = "Many questions, all answered at one frontier. The body is read as JSON whatever its content type says.\n\n\
        `curl -sS http://127.0.0.1:7070/v1/stats -d '[{\"video_id\":\"v1\"},{\"video_id\":\"v2\",\"granularity\":\"day\"}]'`",
    request_body = Vec<Fields>,
    responses((status = 200, body = Vec<Stats>), MayRefuseQuestions, MayRefuseBodies)
)]
pub async fn batch(state: &State, headers: &HeaderMap, chunks: body::Chunks) -> Result<Response, Problem> {
    if Encoding::of(headers)? != Encoding::Identity {
        return Err(Problem::unsupported("queries are not compressed"));
    }
    let body = body::read(state, headers, chunks).await?;
    let items = body::items(&body.bytes, state.limits.queries_max)?;
    let mut wanted = Vec::with_capacity(items.len());
    for (index, item) in items.into_iter().enumerate() {
        wanted.push(check(item).map_err(|problem| problem.with("index", index))?);
    }
    let when = common(&wanted)?;
    let mut moments = Moments::of(state, &when);
    loop {
        let at = moments.next().await?;
        let mut room = state.limits.windows_max;
        let answers: Result<Vec<Stats>, Missed> = stream::iter(wanted.clone())
            .map(|wanted| answer(state, wanted, at))
            .buffered(ASKED_AT_ONCE)
            .and_then(|stats| std::future::ready(fit(stats, &mut room)))
            .try_collect()
            .await;
        match answers {
            Ok(answers) => return Ok(json(&answers)),
            Err(missed) => moments.missed(missed).await?,
        }
    }
}

/// Why there is no answer at a moment.
pub(super) enum Missed {
    /// The index has merged that moment: it holds none before `oldest`.
    Merged { at: EventTime, oldest: EventTime },
    /// Another moment would not help.
    Refused(Problem),
}

/// The moments that a request is tried at. One that was merged while we were asking, since the frontier leapt, is the
/// client's affair only if it named that moment; else a newer one is taken.
pub(super) struct Moments<'a> {
    state: &'a State,
    when: &'a When,
    tries_left: u32,
}

impl<'a> Moments<'a> {
    pub(super) fn of(state: &'a State, when: &'a When) -> Self {
        Self { state, when, tries_left: TRIES_MAX }
    }

    pub(super) async fn next(&self) -> Result<Moment, Problem> {
        choose(self.state, self.when).await
    }

    /// Ready when there is a newer moment that the index holds; fails if there is to be no other try.
    pub(super) async fn missed(&mut self, missed: Missed) -> Result<(), Problem> {
        let (at, oldest) = match missed {
            Missed::Refused(problem) => return Err(problem),
            Missed::Merged { at, oldest } => (at, oldest),
        };
        self.tries_left -= 1;
        if matches!(self.when, When::AsOf(_)) || self.tries_left == 0 {
            return Err(Problem::gone(at, oldest));
        }
        let wait = self.state.limits.after_wait;
        let newer = tokio::time::timeout(wait, newer(self.state, oldest)).await;
        newer.map_err(|_elapsed| Problem::gone(at, oldest))?
    }
}

/// Waits for an announcement at or behind `oldest`: the index may hear of a frontier before it is announced.
async fn newer(state: &State, oldest: EventTime) -> Result<(), Problem> {
    let mut changes = state.queries.changes();
    let is_there = |state: &State| state.queries.latest().is_some_and(|latest| oldest <= latest.frontier);
    loop {
        changes.borrow_and_update();
        if is_there(state) {
            return Ok(());
        }
        changes.changed().await.map_err(|_closed| ended())?;
    }
}

fn check(item: &RawValue) -> Result<Wanted, Problem> {
    let fields = serde_json::from_str(item.get())
        .map_err(|error| Problem::body(format!("not a query: {}", quoted(&error.to_string()))))?;
    Wanted::check(fields)
}

/// The one moment that a whole batch is answered at.
fn common(batch: &[Wanted]) -> Result<When, Problem> {
    let as_ofs: BTreeSet<_> =
        batch.iter().filter_map(|w| if let When::AsOf(t) = w.when { Some(t) } else { None }).collect();
    let tokens: Vec<_> =
        batch.iter().filter_map(|w| if let When::After(t) = &w.when { Some(t) } else { None }).collect();
    match (as_ofs.first(), as_ofs.len(), tokens.is_empty()) {
        (None, _, true) => Ok(When::Latest),
        (None, _, false) => Ok(When::After(Token(tokens.into_iter().flat_map(|token| token.0.clone()).collect()))),
        (Some(&as_of), 1, true) => Ok(When::AsOf(as_of)),
        (Some(_), 1, false) => Err(Problem::parameter("after", "after and as_of can't be given together")),
        _ => Err(Problem::parameter("as_of", "one batch is answered at one as_of; these differ")),
    }
}

pub(super) async fn choose(state: &State, when: &When) -> Result<Moment, Problem> {
    match when {
        When::AsOf(as_of) => match state.queries.lower(*as_of) {
            Ok(at) => Ok(at),
            Err(AsOfError::Ahead { frontier }) => Err(Problem::ahead(*as_of, frontier)),
            Err(AsOfError::Gone { oldest }) => Err(Problem::gone(*as_of, oldest)),
        },
        When::After(token) => {
            let wait = state.limits.after_wait;
            let included = tokio::time::timeout(wait, included(state, token)).await;
            included.map_err(|_elapsed| Problem::waited(wait.as_secs()))?
        }
        When::Latest => {
            let latest = state.queries.latest().ok_or_else(no_frontier)?;
            Ok(latest.moment())
        }
    }
}

fn no_frontier() -> Problem {
    Problem::unavailable(
        "no frontier has been reached yet: the first one comes when every partition is read or drained",
    )
}

/// Waits for an announcement whose cut lies at or behind every offset of the token.
async fn included(state: &State, token: &Token) -> Result<Moment, Problem> {
    let mut changes = state.queries.changes();
    loop {
        // Seen before it is looked at: an announcement in between wakes us again.
        changes.borrow_and_update();
        if let Some(latest) = state.queries.latest() {
            let next_offset_of = |partition: PartitionId| {
                latest.partitions.iter().find(|at| at.partition == partition).map(|at| at.next_offset)
            };
            let mut is_included = true;
            for &(partition, wanted) in &token.0 {
                let reached = next_offset_of(partition).ok_or_else(|| {
                    Problem::parameter("after", format!("after names partition {}, which isn't there", partition.0))
                })?;
                is_included &= wanted <= reached;
            }
            if is_included {
                return Ok(latest.moment());
            }
        }
        changes.changed().await.map_err(|_closed| ended())?;
    }
}

pub(super) fn ended() -> Problem {
    Problem::unavailable("the dataflow has ended")
}

/// Answers from the index, and for windows that have left memory from where they are.
pub(super) async fn answer(state: &State, wanted: Wanted, at: Moment) -> Result<Stats, Missed> {
    let needed = wanted.function.needs();
    if !state.functions.kept(&wanted.event_type).holds(needed) {
        return Err(Missed::Refused(not_kept(&wanted)));
    }
    let found = found::windows(state, &wanted, wanted.width(), at).await?;
    let found = match found.first_behind_partial(needed) {
        None => found,
        // Which minute it is, only minutes tell.
        Some(_) => found::windows(state, &wanted, Width::Minute, at).await?,
    };
    if let Some(first) = found.first_behind_partial(needed) {
        return Err(Missed::Refused(Problem::not_kept(wanted.function.as_str(), first)));
    }
    let range = wanted.start.unwrap_or(0)..wanted.end.unwrap_or(TIMES_END);
    let incomplete = incomplete::within(state.queries.latest().as_deref(), range);
    Ok(Stats { incomplete, ..describe(wanted, at, &found, &state.names) })
}

fn not_kept(wanted: &Wanted) -> Problem {
    let (function, event_type) = (wanted.function.as_str(), quoted(&wanted.event_type));
    Problem::parameter("function", format!("{function} is not kept of {event_type} (functions in the configuration)"))
}

/// Takes an answer's windows from what one response may hold.
fn fit(stats: Stats, room: &mut usize) -> Result<Stats, Missed> {
    *room = room.checked_sub(stats.series.len()).ok_or_else(|| {
        Missed::Refused(Problem::parameter(
            "granularity",
            "the answer has too many windows: ask for a shorter range or a coarser granularity",
        ))
    })?;
    Ok(stats)
}

fn describe(wanted: Wanted, at: Moment, found: &Found, names: &Names) -> Stats {
    let Found { cells, functions } = found;
    let known = cells.first().zip(cells.last());
    let step = wanted.granularity.step_ms();
    let first_start = known.map(|(first, _)| floor_to(first.minute.start(), step));
    let last_end = known.map(|(_, last)| floor_to(last.minute.start(), step) + step);
    // Of an end that was left out, the windows tell; where there are none, the range is empty.
    let start = wanted.start.or(first_start).or(wanted.end).unwrap_or(0);
    let end = wanted.end.or(last_end).unwrap_or(start);
    let is_final = wanted.end.unwrap_or(TIMES_END) <= at.watermark;
    let mut off = 0.0_f64;
    let mut value = |cells: &[Cell], functions: &[Functions]| {
        let (value, error) = merged(wanted.function, cells, functions);
        off = off.max(error);
        Number::from(value)
    };
    let total = value(cells, functions);
    let series = match wanted.granularity {
        Granularity::All if cells.is_empty() => Vec::new(),
        Granularity::All => vec![Point { start, value: total, is_final }],
        Granularity::Minute | Granularity::Hour | Granularity::Day => {
            roll_up(cells, functions, step, at.watermark, &mut value)
        }
    };
    let is_estimate = matches!(wanted.function, Function::Distinct | Function::P50 | Function::P90 | Function::P99);
    let (video_id, VideoLabel { name, channel_id, channel_name }) = match wanted.subject {
        Subject::Video(video_id) => {
            let label = names.video(&video_id).unwrap_or_default();
            (Some(video_id), label)
        }
        Subject::Channel(channel_id) => {
            let channel_name = names.channel(&channel_id);
            (None, VideoLabel { name: None, channel_id: Some(channel_id), channel_name })
        }
    };
    Stats {
        video_id,
        video_name: name,
        channel_id,
        channel_name,
        event_type: wanted.event_type,
        function: wanted.function.as_str(),
        granularity: wanted.granularity.as_str(),
        start,
        end,
        as_of: at.frontier,
        // The end of the year 9999 says as much as the end of time, and every JSON reader can hold it.
        watermark: at.watermark.min(TIMES_END),
        is_final,
        total,
        error: is_estimate.then_some(off),
        series,
        incomplete: Vec::new(),
    }
}

/// What a function gives for several windows as one.
fn merged(function: Function, cells: &[Cell], functions: &[Functions]) -> (Value, f64) {
    let count = cells.iter().map(|cell| cell.count).sum();
    match functions {
        [one] => function.of(count, one),
        many => {
            let mut all = Functions::default();
            many.iter().for_each(|one| all.merge(one));
            function.of(count, &all)
        }
    }
}

/// Merges ascending minutes into ascending windows of `step_ms`.
fn roll_up(
    cells: &[Cell],
    functions: &[Functions],
    step_ms: u64,
    watermark: EventTime,
    value: &mut impl FnMut(&[Cell], &[Functions]) -> Number,
) -> Vec<Point> {
    let start_of = |cell: &Cell| floor_to(cell.minute.start(), step_ms);
    let mut begin = 0;
    let windows = cells.chunk_by(|one, next| start_of(one) == start_of(next));
    let point = |cells: &[Cell]| {
        let functions = functions.get(begin..begin + cells.len()).unwrap_or_default();
        begin += cells.len();
        let start = start_of(&cells[0]);
        Point { start, value: value(cells, functions), is_final: start + step_ms <= watermark }
    };
    windows.map(point).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::BTreeMap;

    use dataflows::time::Minute;
    use proptest::prelude::*;

    use super::*;

    fn wanted(granularity: Granularity, start: Option<u64>, end: Option<u64>) -> Wanted {
        let function = Function::Count;
        Wanted {
            subject: Subject::Video("v".into()),
            event_type: "view".into(),
            function,
            granularity,
            start,
            end,
            when: When::Latest,
        }
    }

    #[test]
    fn a_range_without_an_end_is_echoed_as_its_windows_and_final_only_when_nothing_can_follow() {
        const HOUR: u64 = 3_600_000;
        let cells = [Cell { minute: Minute(61), count: 2 }, Cell { minute: Minute(179), count: 3 }];
        // granularity | start, end | cells | watermark | used start, used end, final
        let rows: [(_, _, _, &[Cell], _, _); 9] = [
            (Granularity::Minute, None, None, &cells, u64::MAX, (61 * 60_000, 180 * 60_000, true)),
            (Granularity::Hour, None, None, &cells, TIMES_END, (HOUR, 3 * HOUR, true)),
            (Granularity::Hour, None, None, &cells, TIMES_END - 1, (HOUR, 3 * HOUR, false)),
            (Granularity::All, None, Some(4 * HOUR), &cells, 4 * HOUR, (61 * 60_000, 4 * HOUR, true)),
            (Granularity::All, Some(0), None, &cells, 4 * HOUR, (0, 180 * 60_000, false)),
            (Granularity::Minute, None, None, &[], 4 * HOUR, (0, 0, false)),
            (Granularity::Minute, Some(HOUR), None, &[], 4 * HOUR, (HOUR, HOUR, false)),
            (Granularity::Minute, None, Some(HOUR), &[], HOUR, (HOUR, HOUR, true)),
            (Granularity::Minute, Some(0), Some(HOUR), &[], HOUR - 1, (0, HOUR, false)),
        ];
        for (granularity, start, end, cells, watermark, expect) in rows {
            let found = Found { cells: cells.to_vec(), functions: Vec::new() };
            let at = Moment { watermark, ..Moment::default() };
            let stats = describe(wanted(granularity, start, end), at, &found, &Names::default());
            assert_eq!(
                (stats.start, stats.end, stats.is_final),
                expect,
                "{granularity:?} {start:?} {end:?} {watermark}"
            );
        }
    }

    fn granularities() -> impl Strategy<Value = Granularity> {
        prop::sample::select(vec![Granularity::Minute, Granularity::Hour, Granularity::Day, Granularity::All])
    }

    proptest! {
        // A case looks at thousands of windows, so that shrinking one has a bound.
        #![proptest_config(ProptestConfig { max_shrink_iters: 200, ..ProptestConfig::default() })]

        #[test]
        fn a_series_equals_a_naive_count_of_its_events(
            events in prop::collection::vec(0u64..4 * 86_400_000, 0..60),
            granularity in granularities(),
            range in (0u64..4 * 86_400_000, 0u64..4 * 86_400_000),
            watermark in 0u64..5 * 86_400_000,
        ) {
            let (start, end) = (range.0.min(range.1), range.0.max(range.1));
            let query = format!("granularity={}&start={start}&end={end}", granularity.as_str());
            let fields = Fields { video_id: Some("v".into()), ..Fields::from_query(&query).unwrap() };
            let wanted = Wanted::check(fields).unwrap();
            let (first, behind) = wanted.minutes();
            let mut minutes = BTreeMap::new();
            for minute in events.iter().map(|&event| Minute::of(event)).filter(|m| (first..behind).contains(m)) {
                *minutes.entry(minute).or_insert(0) += 1;
            }
            let cells: Vec<_> = minutes.into_iter().map(|(minute, count)| Cell { minute, count }).collect();
            let at = Moment { frontier: 9, watermark, ..Moment::default() };
            let stats = describe(wanted, at, &Found { cells, functions: Vec::new() }, &Names::default());

            // The oracle walks over every window there can be and looks at every event.
            let width = match granularity {
                Granularity::Minute => 60_000,
                Granularity::Hour => 3_600_000,
                Granularity::Day => 86_400_000,
                Granularity::All => stats.end - stats.start,
            };
            prop_assert!(stats.start <= start && end <= stats.end);
            let (mut naive, mut total) = (Vec::new(), 0);
            let mut window = stats.start;
            while window < stats.end {
                let value = events.iter().filter(|&&event| window <= event && event < window + width).count() as u64;
                if 0 < value {
                    total += value;
                    let value = Number::Whole(value);
                    naive.push(Point { start: window, value, is_final: window + width <= watermark });
                }
                window += width;
            }
            prop_assert_eq!(stats.total, Number::Whole(total));
            prop_assert_eq!(&stats.series, &naive);
            prop_assert_eq!(stats.is_final, stats.end <= watermark);
        }
    }
}
