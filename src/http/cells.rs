//! `GET /v1/cells`: windows that have left memory, for the other processes of the job, which do not have the store.

use dataflows::rollup::Width;
use warp::http::{HeaderValue, header};

use super::{
    Response, State,
    openapi::MayRefuseQuestions,
    params::{self, Fields, Subject, Wanted},
    problem::{Problem, quoted},
};
use crate::service::ColdQuestion;

/// Answers with the windows of a range as the store has them.
#[utoipa::path(
    get,
    path = "/v1/cells",
    tag = "operation",
    description = "For the other processes of the job: windows that have left memory, in a format of one build.\n\n\
        `curl -sS 'http://127.0.0.1:7070/v1/cells?video_id=v1&start=0&end=60000' | wc -c`",
    params(
        ("video_id" = String, Query, min_length = 1, max_length = 128),
        ("event_type" = Option<String>, Query, pattern = "^[a-z][a-z0-9_.-]{0,63}$", description = "`view` where it is left out"),
        ("start" = Option<String>, Query, description = "The first moment wanted, RFC 3339 or epoch ms"),
        ("end" = Option<String>, Query, description = "The first moment not wanted any more"),
        ("width" = Option<String>, Query, pattern = "^(minute|hour|day)$", description = "Which windows will do instead of minutes"),
        ("functions" = Option<bool>, Query, description = "Whether with what functions are made of; true where it is left out")
    ),
    responses((status = 200, body = Vec<u8>, content_type = "application/octet-stream"), MayRefuseQuestions)
)]
pub async fn cells(state: &State, query: &str) -> Result<Response, Problem> {
    let mut given = params::given(query, &["video_id", "event_type", "start", "end", "width", "functions"])?;
    let width = width(given.remove("width"))?;
    let functions = functions(given.remove("functions"))?;
    let Wanted { subject, event_type, start, end, .. } = Wanted::check(Fields::take(&mut given))?;
    let (Subject::Video(video_id) | Subject::Channel(video_id)) = subject;
    let (first, until) = params::minutes(start, end);
    let starts = first.start()..until.start();
    let rows = state.queries.cold(ColdQuestion { video_id, event_type, starts, width, functions }).await;
    let rows = rows.map_err(|error| Problem::cold(&error, until.start()))?;
    let mut response = Response::new(connectors::cells::encode(&rows).into());
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    Ok(response)
}

fn width(given: Option<String>) -> Result<Width, Problem> {
    let Some(name) = given else { return Ok(Width::Minute) };
    Width::parse(&name)
        .ok_or_else(|| Problem::parameter("width", format!("width is minute, hour or day, not {}", quoted(&name))))
}

fn functions(given: Option<String>) -> Result<bool, Problem> {
    let Some(word) = given else { return Ok(true) };
    word.parse()
        .map_err(|_| Problem::parameter("functions", format!("functions is true or false, not {}", quoted(&word))))
}
