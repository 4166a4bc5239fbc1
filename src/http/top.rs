//! `GET /v1/top`: the videos or channels with the greatest counts over a range, or those that have risen most.

use std::ops::Range;

use dataflows::{
    announce::Moment,
    port::{Labels as _, VideoLabel},
    time::{EventTime, MINUTE_MS},
    top::{Order, Ranked},
    totals::Span,
};
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    Response, State,
    found::{self, By, TopFound, TopWanted},
    incomplete::{self, Incomplete},
    json,
    openapi::{MayBeBusy, MayRefuseQuestions},
    params::{self, TIMES_END, When},
    problem::{Problem, quoted},
    stats::{Missed, Moments},
};
use crate::service::Names;

/// As long as a list may be.
const K_MAX: usize = 1000;

/// A checked request.
struct Wanted {
    by: By,
    event_type: String,
    order: Order,
    k: usize,
    range: Over,
    when: When,
}

/// Which windows.
enum Over {
    /// Between two moments, either of which may be open.
    Range(Option<EventTime>, Option<EventTime>),
    /// Those of a span that moves on with stream time.
    Span(Span),
}

impl Over {
    /// The first moment and the first one not wanted any more, at a frontier.
    fn at(&self, frontier: EventTime) -> (Option<EventTime>, Option<EventTime>) {
        match self {
            Self::Range(start, end) => (*start, *end),
            Self::Span(span) => {
                let windows = span.at(frontier);
                (Some(windows.start.start()), Some(windows.end.start()))
            }
        }
    }
}

/// One list, as the contract spells it.
#[derive(Serialize, ToSchema)]
struct Top<'a> {
    as_of: EventTime,
    watermark: EventTime,
    event_type: &'a str,
    start: EventTime,
    end: EventTime,
    #[serde(rename = "final")]
    is_final: bool,
    order: &'static str,
    top: Vec<Row>,
    /// Of the range, what may lack events, as with the counts of a video; with `order=rising` of the range before it too.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    incomplete: Vec<Incomplete>,
}

#[derive(Serialize, ToSchema)]
struct Row {
    /// Where videos are ranked.
    #[serde(skip_serializing_if = "Option::is_none")]
    video_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    video_name: Option<String>,
    /// The video's, as far as it is known, or the one that is ranked.
    #[serde(skip_serializing_if = "Option::is_none")]
    channel_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    channel_name: Option<String>,
    value: u64,
    /// The same over as long a range before; of `order=rising`.
    #[serde(skip_serializing_if = "Option::is_none")]
    before: Option<u64>,
}

/// Answers a top list.
#[utoipa::path(
    get,
    path = "/v1/top",
    tag = "questions",
    description = "The videos or channels with the greatest counts over a range, ties by id, or with `order=rising` those that gained most \
        against as long a range before.\n\n\
        `curl -sS 'http://127.0.0.1:7070/v1/top?event_type=view&k=10'`",
    params(
        ("event_type" = Option<String>, Query, pattern = "^[a-z][a-z0-9_.-]{0,63}$", description = "`view` where it is left out"),
        ("start" = Option<String>, Query, description = "The first moment wanted, RFC 3339 or epoch ms"),
        ("end" = Option<String>, Query, description = "The first moment not wanted any more"),
        (
            "span" = Option<String>, Query, pattern = "^(hour|day)$",
            description = "Instead of `start` and `end`: the 60 minutes that end with the one stream time is in, or that moment's day in UTC. \
                Answered from running totals"
        ),
        ("k" = Option<usize>, Query, minimum = 1, maximum = 1000, description = "How many; 10 where it is left out"),
        ("order" = Option<String>, Query, pattern = "^(count|rising)$", description = "`rising` needs `start` and `end`, or a `span`"),
        ("by" = Option<String>, Query, pattern = "^(video|channel)$", description = "What is ranked; `video` where it is left out"),
        ("as_of" = Option<String>, Query, description = "The list as it was at this frontier"),
        ("after" = Option<String>, Query, description = "The token of a write that the list is to include")
    ),
    responses((status = 200, body = Top<'_>), MayRefuseQuestions, MayBeBusy)
)]
pub async fn top(state: &State, query: &str) -> Result<Response, Problem> {
    let wanted = check(query)?;
    let mut moments = Moments::of(state, &wanted.when);
    loop {
        let at = moments.next().await?;
        match ask(state, &wanted, at).await {
            Ok(answered) => return Ok(answered),
            Err(missed) => moments.missed(missed).await?,
        }
    }
}

fn check(query: &str) -> Result<Wanted, Problem> {
    let mut given =
        params::given(query, &["event_type", "start", "end", "span", "k", "order", "by", "as_of", "after"])?;
    let by = match given.remove("by").as_deref() {
        None | Some("video") => By::Video,
        Some("channel") => By::Channel,
        Some(other) => return Err(Problem::parameter("by", format!("by is video or channel, not {}", quoted(other)))),
    };
    let order = match given.remove("order").as_deref() {
        None | Some("count") => Order::Count,
        Some("rising") => Order::Rising,
        Some(other) => {
            let detail = format!("order is count or rising, not {}", quoted(other));
            return Err(Problem::parameter("order", detail));
        }
    };
    let k = given.remove("k").unwrap_or_else(|| "10".to_owned());
    let k = params::number(&k)
        .filter(|k| (1..=K_MAX).contains(k))
        .ok_or_else(|| Problem::parameter("k", format!("k is a number from 1 to {K_MAX}, not {}", quoted(&k))))?;
    let event_type = params::event_type(given.remove("event_type"))?;
    let range = over(given.remove("span"), given.remove("start"), given.remove("end"), order)?;
    let when = params::when(given.remove("as_of"), given.remove("after"))?;
    Ok(Wanted { by, event_type, order, k, range, when })
}

fn over(span: Option<String>, start: Option<String>, end: Option<String>, order: Order) -> Result<Over, Problem> {
    if span.is_some() && (start.is_some() || end.is_some()) {
        return Err(Problem::parameter("span", "span stands instead of start and end"));
    }
    match span.as_deref() {
        Some("hour") => return Ok(Over::Span(Span::Hour)),
        Some("day") => return Ok(Over::Span(Span::Day)),
        Some(other) => return Err(Problem::parameter("span", format!("span is hour or day, not {}", quoted(other)))),
        None => {}
    }
    let (start, end) = params::range(start, end, MINUTE_MS)?;
    if order == Order::Rising {
        for (name, time) in [("start", start), ("end", end)] {
            time.ok_or_else(|| Problem::parameter(name, "order=rising needs start and end, or a span"))?;
        }
    }
    Ok(Over::Range(start, end))
}

async fn ask(state: &State, wanted: &Wanted, at: Moment) -> Result<Response, Missed> {
    let (start, end) = wanted.range.at(at.frontier);
    let (first, until) = params::minutes(start, end);
    let &Wanted { by, ref event_type, order, k, .. } = wanted;
    let list = TopWanted { by, event_type: event_type.clone(), order, k, range: first..until };
    let TopFound { known, top } = found::top(state, list, at).await?;
    let incomplete = incomplete::within(state.queries.latest().as_deref(), looked_at(order, (start, end)));
    let list = describe(wanted, (start, end), at, known, rows(wanted, top, &state.names));
    Ok(json(&Top { incomplete, ..list }))
}

/// All that the list is made of.
fn looked_at(order: Order, (start, end): (Option<EventTime>, Option<EventTime>)) -> Range<EventTime> {
    let (start, end) = (start.unwrap_or(0), end.unwrap_or(TIMES_END));
    match order {
        Order::Count => start..end,
        Order::Rising => start.saturating_sub(end - start)..end,
    }
}

fn rows(wanted: &Wanted, top: Vec<Ranked>, names: &Names) -> Vec<Row> {
    let row = |Ranked { id, count, before }| {
        let (video_id, VideoLabel { name, channel_id, channel_name }) = match wanted.by {
            By::Video => {
                let label = names.video(&id).unwrap_or_default();
                (Some(id), label)
            }
            By::Channel => {
                let channel_name = names.channel(&id);
                (None, VideoLabel { name: None, channel_id: Some(id), channel_name })
            }
        };
        let before = (wanted.order == Order::Rising).then_some(before);
        Row { video_id, video_name: name, channel_id, channel_name, value: count, before }
    };
    top.into_iter().map(row).collect()
}

/// `known` is where there are events, for an end that was left out.
fn describe(
    wanted: &Wanted,
    (start, end): (Option<EventTime>, Option<EventTime>),
    at: Moment,
    known: Option<(EventTime, EventTime)>,
    top: Vec<Row>,
) -> Top<'_> {
    let start = start.or(known.map(|(start, _)| start)).or(end).unwrap_or(0);
    Top {
        as_of: at.frontier,
        watermark: at.watermark.min(TIMES_END),
        event_type: &wanted.event_type,
        start,
        end: end.or(known.map(|(_, end)| end)).unwrap_or(start),
        is_final: end.unwrap_or(TIMES_END) <= at.watermark,
        order: if wanted.order == Order::Rising { "rising" } else { "count" },
        top,
        incomplete: Vec::new(),
    }
}
