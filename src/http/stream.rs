//! `GET /v1/stream`: a series and then each change of it, as Server-Sent Events.
//!
//! An event's id is its frontier and the generation of the process that was told it, as another start may come to the same
//! frontier by another way. Whoever comes back with the id of this start is told what has changed since; anybody else gets the
//! whole state.
//!
//! A change is what differs from what was sent last, and is looked for only when the socket takes it: whoever reads slowly gets
//! fewer and larger ones.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
};

use dataflows::time::EventTime;
use futures_util::stream::{self, Stream, StreamExt};
use serde::Serialize;
use tokio::sync::{OwnedSemaphorePermit, watch};
use warp::{
    Reply,
    http::{HeaderMap, HeaderName, HeaderValue, header},
};

use super::{
    Response, State,
    openapi::MayRefuseQuestions,
    params::{self, Fields, Wanted, When},
    problem::{Problem, quoted},
    stats::{self, Missed, Number, Point, Stats},
};

/// What keeps a stream without news alive, and finds out whether anybody listens.
const HEARTBEAT: &str = ": \n\n";

/// Answers with a stream that ends when the client leaves, or with the process.
#[utoipa::path(
    get,
    path = "/v1/stream",
    tag = "questions",
    description = "A series as Server-Sent Events: `event: state` with the answer of `/v1/videos/{video_id}/stats`, then \
        `event: change` with `as_of`, `watermark`, `changed` windows, `total` and, of an estimate, `error`. An event's id is what `last-event-id` goes on \
        from.\n\n\
        `curl -sSN 'http://127.0.0.1:7070/v1/stream?video_id=v1&event_type=view'`",
    params(
        ("video_id" = String, Query, min_length = 1, max_length = 128),
        ("event_type" = Option<String>, Query, pattern = "^[a-z][a-z0-9_.-]{0,63}$", description = "`view` where it is left out"),
        ("function" = Option<String>, Query, description = "`count` where it is left out"),
        ("start" = Option<String>, Query, description = "The first moment wanted, RFC 3339 or epoch ms"),
        ("end" = Option<String>, Query, description = "The first moment not wanted any more"),
        ("granularity" = Option<String>, Query, pattern = "^(minute|hour|day|all)$", description = "`minute` where it is left out"),
        ("last_event_id" = Option<String>, Query, description = "As the header, for a client that can't set it"),
        ("last-event-id" = Option<String>, Header, description = "The id of the last event that came")
    ),
    responses((status = 200, body = String, content_type = "text/event-stream"), MayRefuseQuestions)
)]
pub async fn stream(state: &Arc<State>, headers: &HeaderMap, query: &str) -> Result<Response, Problem> {
    let known = ["video_id", "event_type", "function", "start", "end", "granularity", "last_event_id"];
    let mut given = params::given(query, &known)?;
    let last = last_event_id(headers, given.remove("last_event_id"))?;
    let wanted = Wanted::check(Fields::take(&mut given))?;
    let full = |_full| Problem::unavailable("there are as many streams as there may be; try again in a second");
    let room = Arc::clone(&state.streams).try_acquire_owned().map_err(full)?;
    let mut watcher = Watcher::new(state, wanted, room);
    let first = match last {
        Some(last) if watcher.resume(last).await? => watcher.look().await?,
        _ => Some(watcher.begin().await?),
    };
    let events = stream::iter(first).chain(stream::unfold(watcher, |mut watcher| async {
        let event = watcher.next().await?;
        Some((event, watcher))
    }));
    let mut response =
        warp::reply::stream(Alone(Mutex::new(Box::pin(events.map(Ok::<_, Infallible>))))).into_response();
    let sent = response.headers_mut();
    sent.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    sent.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    sent.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    // Or nginx collects events before it hands them on.
    sent.insert(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
    Ok(response)
}

/// What was sent last to a client that comes back.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
struct LastEvent {
    frontier: EventTime,
    /// Left out, as in an `as_of`, it is this start's.
    generation: Option<u64>,
}

impl LastEvent {
    fn parse(text: &str) -> Option<Self> {
        match text.split_once('-') {
            None => Some(Self { frontier: params::number(text)?, generation: None }),
            Some((frontier, generation)) => {
                Some(Self { frontier: params::number(frontier)?, generation: Some(params::number(generation)?) })
            }
        }
    }
}

fn last_event_id(headers: &HeaderMap, given: Option<String>) -> Result<Option<LastEvent>, Problem> {
    // The header is of the reconnection, and the parameter still in the address that the stream was opened with.
    let header = headers.get("last-event-id").map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
    let Some(text) = header.or(given) else { return Ok(None) };
    let wrong = || Problem::parameter("last_event_id", format!("{} is not the id of an event", quoted(&text)));
    LastEvent::parse(&text).map(Some).ok_or_else(wrong)
}

/// One client's series, and what the client knows of it.
struct Watcher {
    state: Arc<State>,
    wanted: Wanted,
    generation: u64,
    changes: watch::Receiver<EventTime>,
    ending: watch::Receiver<bool>,
    sent: Option<Stats>,
    _room: OwnedSemaphorePermit,
}

/// What has changed since the event before.
#[derive(Serialize)]
struct Change<'a> {
    as_of: EventTime,
    watermark: EventTime,
    changed: Vec<&'a Point>,
    total: Number,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<f64>,
}

impl Watcher {
    fn new(state: &Arc<State>, wanted: Wanted, room: OwnedSemaphorePermit) -> Self {
        let (changes, ending) = (state.queries.changes(), state.ending.subscribe());
        let generation = state.status.facts().generation;
        Self { state: Arc::clone(state), wanted, generation, changes, ending, sent: None, _room: room }
    }

    /// Takes up what was sent before; `false` if that is not known any more.
    async fn resume(&mut self, last: LastEvent) -> Result<bool, Problem> {
        let is_of_this_start = last.generation.is_none_or(|generation| generation == self.generation);
        let lowered = self.state.queries.lower(last.frontier).ok();
        let Some(at) = lowered.filter(|_| is_of_this_start) else { return Ok(false) };
        match stats::answer(&self.state, self.wanted.clone(), at).await {
            Ok(stats) => self.sent = Some(stats),
            Err(Missed::Merged { .. }) => return Ok(false),
            Err(Missed::Refused(problem)) => return Err(problem),
        }
        Ok(true)
    }

    /// The event of the whole state.
    async fn begin(&mut self) -> Result<String, Problem> {
        let stats = self.now().await?;
        let event = self.event("state", stats.as_of, &stats);
        self.sent = Some(stats);
        Ok(event)
    }

    /// The answer at the newest moment. What is announced from then on is news.
    async fn now(&mut self) -> Result<Stats, Problem> {
        self.changes.borrow_and_update();
        let windows_max = self.state.limits.stream_windows_max;
        stats::stats(&self.state, &self.wanted, &When::Latest, windows_max).await
    }

    /// Ready with the next event or heartbeat; `None` when the stream ends.
    async fn next(&mut self) -> Option<String> {
        let mut heartbeat = std::pin::pin!(tokio::time::sleep(self.state.limits.heartbeat));
        loop {
            tokio::select! {
                biased;
                _ending = self.ending.wait_for(|ending| *ending) => return None,
                changed = self.changes.changed() => changed.ok()?,
                () = &mut heartbeat => return Some(HEARTBEAT.to_owned()),
            }
            // After an error the client comes back, and is told.
            if let Some(event) = self.look().await.ok()? {
                return Some(event);
            }
        }
    }

    /// The event of what differs by now from what was sent, if anything does.
    async fn look(&mut self) -> Result<Option<String>, Problem> {
        let latest = self.state.queries.latest().map(|latest| latest.frontier);
        if latest <= self.sent.as_ref().map(|sent| sent.as_of) {
            self.changes.borrow_and_update();
            return Ok(None);
        }
        let Some(sent) = self.sent.take() else { return self.begin().await.map(Some) };
        let stats = self.now().await?;
        let event = match changed(&sent.series, &stats.series) {
            Some(changed) if changed.is_empty() => None,
            Some(changed) => {
                let Stats { as_of, watermark, total, error, .. } = stats;
                Some(self.event("change", as_of, &Change { as_of, watermark, changed, total, error }))
            }
            None => Some(self.event("state", stats.as_of, &stats)),
        };
        self.sent = Some(stats);
        Ok(event)
    }

    fn event(&self, name: &str, frontier: EventTime, data: &impl Serialize) -> String {
        let data = serde_json::to_string(data).expect("an answer has names of text alone");
        format!("event: {name}\nid: {frontier}-{}\ndata: {data}\n\n", self.generation)
    }
}

/// The windows that are new or differ; `None` if some are there no longer, as where one window of all has another start.
fn changed<'a>(before: &[Point], now: &'a [Point]) -> Option<Vec<&'a Point>> {
    let find = |points: &[Point], start| points.binary_search_by_key(&start, |point| point.start).ok();
    if before.iter().any(|point| find(now, point.start).is_none()) {
        return None;
    }
    let differs = |point: &&Point| find(before, point.start).is_none_or(|at| before[at] != **point);
    Some(now.iter().filter(differs).collect())
}

/// A stream that its one owner polls, and so need not be shared between threads, though a body must be fit for it.
struct Alone<S>(Mutex<Pin<Box<S>>>);

impl<S: Stream> Stream for Alone<S> {
    type Item = S::Item;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<S::Item>> {
        self.0.get_mut().unwrap_or_else(PoisonError::into_inner).as_mut().poll_next(cx)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::http::{
        Limits,
        testkit::{self, TwinIngest, TwinQueries, TwinStatus},
    };

    fn point(start: EventTime, value: u64) -> Point {
        Point { start, value: Number::Whole(value), is_final: false }
    }

    #[test]
    fn what_is_changed_is_what_is_new_or_another() {
        let (a, b, c) = (point(0, 1), point(60_000, 1), point(120_000, 1));
        let more = point(60_000, 2);
        assert_eq!(changed(&[a, b], &[a, b]), Some(vec![]));
        assert_eq!(changed(&[a, b], &[a, more, c]), Some(vec![&more, &c]));
        assert_eq!(changed(&[], &[a]), Some(vec![&a]));
        assert_eq!(changed(&[b], &[Point { is_final: true, ..b }]), Some(vec![&Point { is_final: true, ..b }]));
        assert_eq!(changed(&[b], &[a]), None, "one that was sent is not there any more");
    }

    #[tokio::test]
    async fn whoever_reads_slowly_gets_one_change_of_all_that_came() {
        let (queries, ingest, status) = <(Arc<TwinQueries>, Arc<TwinIngest>, Arc<TwinStatus>)>::default();
        let state = testkit::state(&queries, &ingest, &status, None, Limits::default());
        queries.announce_at(100, 0);
        let room = Arc::clone(&state.streams).try_acquire_owned().unwrap();
        let fields = Fields { video_id: Some("v".into()), ..Fields::default() };
        let mut watcher = Watcher::new(&state, Wanted::check(fields).unwrap(), room);
        watcher.begin().await.unwrap();
        for time in 100..200 {
            queries.count("v", "view", time as u32 % 2, time);
            queries.announce_at(time + 1, 0);
        }
        let event = watcher.next().await.unwrap();
        assert_eq!(
            event,
            "event: change\nid: 200-3\ndata: {\"as_of\":200,\"watermark\":0,\"changed\":[\
             {\"start\":0,\"value\":50,\"final\":false},{\"start\":60000,\"value\":50,\"final\":false}],\"total\":100}\n\n"
        );
    }
}
