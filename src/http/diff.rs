//! `GET /v1/diff`: what has changed in a series between two frontiers.

use std::collections::BTreeMap;

use dataflows::time::EventTime;
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    Response, State, json,
    openapi::MayRefuseQuestions,
    params::{self, Fields, Wanted, When},
    problem::Problem,
    stats::{self, Number, Point, Stats},
};

/// One answer.
#[derive(Serialize, ToSchema)]
struct Diff {
    #[serde(skip_serializing_if = "Option::is_none")]
    video_id: Option<String>,
    event_type: String,
    function: &'static str,
    granularity: &'static str,
    start: EventTime,
    end: EventTime,
    from_as_of: EventTime,
    to_as_of: EventTime,
    from_total: Number,
    to_total: Number,
    changed: Vec<Change>,
}

/// A window whose value is another one.
#[derive(Debug, PartialEq, Serialize, ToSchema)]
struct Change {
    start: EventTime,
    from: Number,
    to: Number,
}

/// Answers what changed.
#[utoipa::path(
    get,
    path = "/v1/diff",
    tag = "questions",
    description = "The windows of a series whose value at one frontier is another than at one before.\n\n\
        `curl -sS 'http://127.0.0.1:7070/v1/diff?video_id=v1&from_as_of=1767225600000'`",
    params(
        ("video_id" = String, Query, min_length = 1, max_length = 128),
        ("event_type" = Option<String>, Query, pattern = "^[a-z][a-z0-9_.-]{0,63}$", description = "`view` where it is left out"),
        ("function" = Option<String>, Query, description = "`count` where it is left out"),
        ("start" = Option<String>, Query, description = "The first moment wanted, RFC 3339 or epoch ms"),
        ("end" = Option<String>, Query, description = "The first moment not wanted any more"),
        ("granularity" = Option<String>, Query, pattern = "^(minute|hour|day|all)$", description = "`minute` where it is left out"),
        ("from_as_of" = String, Query, description = "The earlier frontier"),
        ("to_as_of" = Option<String>, Query, description = "The later one; the newest where it is left out")
    ),
    responses((status = 200, body = Diff), MayRefuseQuestions)
)]
pub async fn diff(state: &State, query: &str) -> Result<Response, Problem> {
    let known = ["video_id", "event_type", "function", "start", "end", "granularity", "from_as_of", "to_as_of"];
    let mut given = params::given(query, &known)?;
    let (from, to) = (given.remove("from_as_of"), given.remove("to_as_of"));
    let mut wanted = Wanted::check(Fields::take(&mut given))?;
    let from = from.ok_or_else(|| Problem::parameter("from_as_of", "from_as_of is missing"))?;
    let from = params::frontier("from_as_of", &from)?;
    let to = to.map(|to| params::frontier("to_as_of", &to)).transpose()?;
    if to.is_some_and(|to| to < from) {
        return Err(Problem::parameter("to_as_of", "to_as_of is before from_as_of"));
    }
    let (windows_max, to) = (state.limits.windows_max, to.map_or(When::Latest, When::AsOf));
    let named = |name: &'static str| move |problem: Problem| problem.with("parameter", name);
    let to = stats::stats(state, &wanted, &to, windows_max).await.map_err(named("to_as_of"))?;
    // What was known then is known now: in the same range, one window of all has the same start.
    (wanted.start, wanted.end) = (Some(to.start), Some(to.end));
    let from = stats::stats(state, &wanted, &When::AsOf(from), windows_max).await.map_err(named("from_as_of"))?;
    // What a window is that has no events.
    let nothing = wanted.function.of(0, &Default::default()).0.into();
    Ok(json(&compare(from, to, nothing)))
}

fn compare(from: Stats, to: Stats, nothing: Number) -> Diff {
    let mut values: BTreeMap<EventTime, (Number, Number)> = BTreeMap::new();
    for Point { start, value, .. } in from.series {
        values.entry(start).or_insert((nothing, nothing)).0 = value;
    }
    for Point { start, value, .. } in to.series {
        values.entry(start).or_insert((nothing, nothing)).1 = value;
    }
    let changed = values.into_iter().filter(|(_, (from, to))| from != to);
    Diff {
        video_id: to.video_id,
        event_type: to.event_type,
        function: to.function,
        granularity: to.granularity,
        start: to.start,
        end: to.end,
        from_as_of: from.as_of,
        to_as_of: to.as_of,
        from_total: from.total,
        to_total: to.total,
        changed: changed.map(|(start, (from, to))| Change { start, from, to }).collect(),
    }
}
