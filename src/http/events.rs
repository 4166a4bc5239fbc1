//! `POST /v1/events`: judges each item at the door and appends the well-formed ones to the log.
//!
//! An item that is refused here never enters log, ledger or dead letters: its sender is still there and is told.
//! An item's bytes go into the log as they came. An array's items and a single object may hold line feeds, since records are
//! framed there; of an NDJSON line only the line end is taken off.

use std::sync::Arc;

use dataflows::event::{RECORD_BYTES_MAX, Reason};
use serde::Serialize;
use utoipa::ToSchema;
use warp::http::{HeaderMap, StatusCode, header};

use super::{
    Response, State,
    body::{self, Encoding},
    json_with,
    openapi::{MayRefuseBodies, MayRefuseWrites},
    params::{Time, Token},
    problem::Problem,
};
use crate::service::{Entry, EventCheck, Ingest, IngestError};

/// What became of a request's items.
#[derive(Debug, Serialize, ToSchema)]
struct Receipt<'a> {
    /// Durable in the log; counted a moment later.
    accepted: usize,
    rejected: &'a [Rejected],
    /// `partition:next_offset,…`, for `after` of a query that is to include these events.
    token: String,
}

/// One item that was not taken.
#[derive(Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Rejected {
    /// Its place in the request, from 0; blank lines have none.
    pub index: usize,
    pub reason: &'static str,
    pub detail: &'static str,
}

/// An event, as far as it is looked at; what else is in it is kept in the log.
#[derive(ToSchema)]
#[expect(dead_code, reason = "only its schema is used: events are judged as bytes, by the connectors' rules")]
#[schema(example = json!({
    "event_id": "e1", "video_id": "v1", "event_type": "view", "timestamp": 1767225600123_u64, "user_id": "u17", "value": 12.5
}))]
struct Event {
    /// A producer keeps it when it sends the event again.
    #[schema(min_length = 1, max_length = 128)]
    event_id: String,
    #[schema(min_length = 1, max_length = 128)]
    video_id: String,
    #[schema(pattern = "^[a-z][a-z0-9_.-]{0,63}$")]
    event_type: String,
    timestamp: Time,
    #[schema(min_length = 1, max_length = 128)]
    user_id: Option<String>,
    value: Option<f64>,
}

/// One event or many.
#[derive(ToSchema)]
#[expect(dead_code, reason = "only its schema is used")]
#[serde(untagged)]
enum Events {
    One(Event),
    Many(Vec<Event>),
}

/// How items lie in a body.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum Shape {
    /// One JSON value; an array's elements are the items.
    Json,
    /// One item a line.
    Lines,
    /// Not said: its first byte tells.
    Unsaid,
}

impl Shape {
    fn of(headers: &HeaderMap) -> Result<Self, Problem> {
        let Some(value) = headers.get(header::CONTENT_TYPE) else { return Ok(Shape::Unsaid) };
        let media_type = value.to_str().ok().and_then(|value| value.split(';').next()).map(str::trim);
        match media_type {
            Some(name) if name.eq_ignore_ascii_case("application/json") => Ok(Shape::Json),
            Some(name) if name.eq_ignore_ascii_case("application/x-ndjson") => Ok(Shape::Lines),
            // What `curl -d` says when it is told nothing.
            Some(name) if name.eq_ignore_ascii_case("application/x-www-form-urlencoded") => Ok(Shape::Unsaid),
            _ => Err(Problem::unsupported("events come as application/json or application/x-ndjson")),
        }
    }
}

/// A request's items after the door.
#[derive(Debug, Default, PartialEq, Eq)]
struct Judged {
    entries: Vec<Entry>,
    rejected: Vec<Rejected>,
}

impl Judged {
    fn judge(&mut self, payload: &[u8], check: &dyn EventCheck) {
        let verdict = if RECORD_BYTES_MAX < payload.len() {
            Err((Reason::Oversize.as_str(), Reason::Oversize.detail()))
        } else {
            check.check(payload).map_err(|detail| ("malformed", detail))
        };
        match verdict {
            Ok(key) => self.entries.push(Entry { key, payload: payload.to_vec() }),
            Err((reason, detail)) => {
                let index = self.entries.len() + self.rejected.len();
                self.rejected.push(Rejected { index, reason, detail });
            }
        }
    }
}

/// Takes what is well-formed, and answers when that is durable.
#[utoipa::path(
    post,
    path = "/v1/events",
    tag = "events",
    description = "One event, an array of events, or one a line; `content-encoding` may be `gzip` or `zstd`. 202 means that the \
        accepted ones are durable in the log. After 429, 503 or 507, or no answer, send the same bytes again: an event keeps its id, \
        so it counts once.\n\n\
        `curl -sS http://127.0.0.1:7070/v1/events -H 'content-type: application/json' -d \
        '[{\"event_id\":\"e1\",\"video_id\":\"v1\",\"event_type\":\"view\",\"timestamp\":1767225600123}]'`",
    request_body(content((Events = "application/json"), (String = "application/x-ndjson"))),
    responses((status = 202, body = Receipt), MayRefuseBodies, MayRefuseWrites)
)]
pub async fn post(state: &State, headers: &HeaderMap, chunks: body::Chunks) -> Result<Response, Problem> {
    let door = Door { check: &state.check, log: &*state.ingest, what: "the log" };
    let Taken { accepted, rejected, token } = take(state, &door, headers, chunks).await?;
    state.metrics.ingested(accepted, &rejected);
    Ok(json_with(StatusCode::ACCEPTED, &Receipt { accepted, rejected: &rejected, token: token.to_string() }))
}

/// Where items go that are well-formed by a check.
pub(super) struct Door<'a> {
    pub(super) check: &'a Arc<dyn EventCheck>,
    pub(super) log: &'a dyn Ingest,
    /// What clients call the log.
    pub(super) what: &'static str,
}

/// What became of a request's items, and where the durable ones are.
pub(super) struct Taken {
    pub(super) accepted: usize,
    pub(super) rejected: Vec<Rejected>,
    token: Token,
}

/// Reads and judges a request's items, and makes the well-formed ones durable.
pub(super) async fn take(
    state: &State,
    door: &Door<'_>,
    headers: &HeaderMap,
    chunks: body::Chunks,
) -> Result<Taken, Problem> {
    let shape = Shape::of(headers)?;
    let encoding = Encoding::of(headers)?;
    let body = body::read(state, headers, chunks).await?;
    let Judged { entries, rejected } = judge_aside(state, door.check, body, encoding, shape).await?;
    let accepted = entries.len();
    let token = if entries.is_empty() { Token::default() } else { append(door, entries).await? };
    Ok(Taken { accepted, rejected, token })
}

async fn append(door: &Door<'_>, entries: Vec<Entry>) -> Result<Token, Problem> {
    match door.log.append(entries).await {
        Ok(mut next_offsets) => {
            next_offsets.sort_unstable();
            Ok(Token(next_offsets))
        }
        Err(IngestError::Busy) => Err(Problem::busy(format!("the queue of {} is full", door.what))),
        Err(IngestError::NoRoom) => {
            tracing::warn!("items for {} were refused: the disk is full", door.what);
            let detail = format!("the disk of {} is full; nothing of this request is known to be durable", door.what);
            Err(Problem::no_room(detail))
        }
        Err(error @ IngestError::Failed(_)) => {
            tracing::warn!(%error, "items for {} were refused", door.what);
            let detail = format!("{} can't be written; nothing of this request is known to be durable", door.what);
            Err(Problem::unavailable(detail))
        }
    }
}

/// Inflates and judges on a thread that may take its time, only so many at once where that takes memory.
async fn judge_aside(
    state: &State,
    check: &Arc<dyn EventCheck>,
    body: body::Body<'_>,
    encoding: Encoding,
    shape: Shape,
) -> Result<Judged, Problem> {
    let _turn = match encoding {
        Encoding::Identity => None,
        Encoding::Gzip | Encoding::Zstd => state.inflating.acquire().await.ok(),
    };
    let body::Body { bytes, held: _held } = body;
    let check = Arc::clone(check);
    let (inflated_bytes, events_max) = (state.limits.inflated_bytes, state.limits.events_max);
    let work = move || match encoding {
        Encoding::Identity => judge(&bytes, shape, &*check, events_max),
        Encoding::Gzip | Encoding::Zstd => {
            judge(&body::inflate(&bytes, encoding, inflated_bytes)?, shape, &*check, events_max)
        }
    };
    let judged = tokio::task::spawn_blocking(work).await;
    judged.map_err(|_panicked| Problem::internal("judging the events failed"))?
}

fn judge(body: &[u8], shape: Shape, check: &dyn EventCheck, events_max: usize) -> Result<Judged, Problem> {
    let value = body.trim_ascii();
    let is_array = value.first() == Some(&b'[');
    let is_object = value.first() == Some(&b'{');
    match shape {
        Shape::Lines => lines(body, check, events_max),
        Shape::Json | Shape::Unsaid if is_array => array(value, check, events_max),
        Shape::Json => single(value, check),
        Shape::Unsaid if is_object && body::is_json(value) => single(value, check),
        Shape::Unsaid if is_object => lines(body, check, events_max),
        Shape::Unsaid => Err(not_json()),
    }
}

fn not_json() -> Problem {
    Problem::body(
        "the body is not JSON: send one item, an array of items, or a line for each with application/x-ndjson",
    )
}

fn array(body: &[u8], check: &dyn EventCheck, events_max: usize) -> Result<Judged, Problem> {
    let mut judged = Judged::default();
    for item in body::items(body, events_max)? {
        judged.judge(item.get().as_bytes(), check);
    }
    Ok(judged)
}

/// One item. What is amiss within an object is the item's verdict, as at every other door; what is no JSON is no item.
fn single(body: &[u8], check: &dyn EventCheck) -> Result<Judged, Problem> {
    let mut judged = Judged::default();
    judged.judge(body, check);
    let blamed = judged.rejected.first().map(|rejected| rejected.detail);
    let looks_like_an_item = body.first() == Some(&b'{') && blamed != Some("json");
    if looks_like_an_item || body::is_json(body) { Ok(judged) } else { Err(not_json()) }
}

fn lines(body: &[u8], check: &dyn EventCheck, events_max: usize) -> Result<Judged, Problem> {
    let mut judged = Judged::default();
    let lines = body.split(|&byte| byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    for (count, line) in lines.filter(|line| !line.trim_ascii().is_empty()).enumerate() {
        if count == events_max {
            return Err(Problem::too_large(format!("a request may have {events_max} lines")));
        }
        judged.judge(line, check);
    }
    Ok(judged)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::http::testkit::TwinCheck;

    type Verdict = (usize, &'static str, &'static str);

    fn judged(shape: Shape, body: &[u8]) -> Result<(Vec<String>, Vec<Verdict>), Problem> {
        let judged = judge(body, shape, &TwinCheck, 4)?;
        let payloads = judged.entries.into_iter().map(|entry| String::from_utf8(entry.payload).unwrap()).collect();
        let rejected = judged.rejected.into_iter().map(|r| (r.index, r.reason, r.detail)).collect();
        Ok((payloads, rejected))
    }

    #[test]
    fn items_keep_their_bytes_and_their_place() {
        use Shape::{Json, Lines, Unsaid};
        let pretty = "{\n  \"video_id\": \"a\"\n}";
        let array = format!("[{pretty} , 7,{{\"video_id\":\"b\"}}]");
        // shape | body | payloads | rejected
        type Row<'a> = (Shape, &'a str, &'a [&'a str], &'a [(usize, &'a str, &'a str)]);
        let rows: [Row; 12] = [
            (Json, pretty, &[pretty], &[]),
            (Unsaid, pretty, &[pretty], &[]),
            (Json, &array, &[pretty, "{\"video_id\":\"b\"}"], &[(1, "malformed", "json")]),
            (Unsaid, &array, &[pretty, "{\"video_id\":\"b\"}"], &[(1, "malformed", "json")]),
            (Json, "[]", &[], &[]),
            (Json, "7", &[], &[(0, "malformed", "json")]),
            (Json, "{}", &[], &[(0, "malformed", "missing")]),
            (Lines, "", &[], &[]),
            (
                Lines,
                "{\"video_id\":\"a\"}\r\n\n \r\n{\n{\"video_id\": \"b\"}",
                &["{\"video_id\":\"a\"}", "{\"video_id\": \"b\"}"],
                &[(1, "malformed", "json")],
            ),
            (Lines, "[{\"video_id\":\"a\"}]", &[], &[(0, "malformed", "json")]),
            (Unsaid, "\n{\"video_id\":\"a\"}\n{}\n", &["{\"video_id\":\"a\"}"], &[(1, "malformed", "missing")]),
            (Unsaid, "{\"video_id\":\"a\"}", &["{\"video_id\":\"a\"}"], &[]),
        ];
        for (shape, body, payloads, rejected) in rows {
            let (got_payloads, got_rejected) = judged(shape, body.as_bytes()).unwrap();
            assert_eq!(got_payloads, payloads, "{shape:?} {body:?}");
            assert_eq!(got_rejected, rejected, "{shape:?} {body:?}");
        }
    }

    #[test]
    fn a_body_that_is_not_json_is_refused_whole() {
        use Shape::{Json, Unsaid};
        for (shape, body) in [
            (Json, &b""[..]),
            (Json, b"hello"),
            (Json, b"{\"video_id\":\"a\"} {\"video_id\":\"b\"}"),
            (Json, b"[{\"video_id\":\"a\"}"),
            (Json, b"[\"\xff\"]"),
            (Json, b"\xff"),
            (Unsaid, b""),
            (Unsaid, b"hello"),
            (Unsaid, b"[1] [2]"),
        ] {
            assert!(judged(shape, body).is_err(), "{shape:?} {:?}", String::from_utf8_lossy(body));
        }
        let not_utf8 = judged(Json, b"{\"video_id\":\"\xff\"}");
        assert_eq!(
            not_utf8,
            Ok((vec![], vec![(0, "malformed", "utf8")])),
            "an object is an item, with the verdict of one"
        );
    }

    #[test]
    fn a_request_has_so_many_items_and_no_more() {
        assert!(judged(Shape::Lines, b"1\n2\n\n3\n4\n\n").is_ok());
        assert!(judged(Shape::Lines, b"1\n2\n\n3\n4\n5").is_err());
        assert!(judged(Shape::Json, b"[1,2,3,4]").is_ok());
        assert!(judged(Shape::Json, b"[1,2,3,4,5]").is_err());
    }

    #[test]
    fn an_item_longer_than_a_record_may_be_is_oversize() {
        let event = |len: usize| format!("{{\"video_id\":\"{}\"}}", "v".repeat(len - 15));
        assert_eq!(event(RECORD_BYTES_MAX).len(), RECORD_BYTES_MAX);
        for (len, rejected) in [(RECORD_BYTES_MAX, vec![]), (RECORD_BYTES_MAX + 1, vec![(0, "oversize", "oversize")])] {
            for shape in [Shape::Json, Shape::Lines, Shape::Unsaid] {
                assert_eq!(judged(shape, event(len).as_bytes()).unwrap().1, rejected, "{shape:?} {len}");
            }
        }
    }
}
