//! `GET /v1/cells`: windows that have left memory, or what they come to, for the other processes of the job, which do not have the store.

use dataflows::{rollup::Width, time::MINUTE_MS};
use warp::http::{HeaderValue, header};

use super::{
    Response, State,
    openapi::MayRefuseQuestions,
    params,
    problem::{Problem, quoted},
};
use crate::service::{ColdQuestion, ColdSumsQuestion};

/// Answers with the windows of a range as the store has them, or with the sums of all videos.
#[utoipa::path(
    get,
    path = "/v1/cells",
    tag = "operation",
    description = "For the other processes of the job: windows that have left memory, in a format of one build.\n\n\
        `curl -sS 'http://127.0.0.1:7070/v1/cells?video_id=v1&start=0&end=60000' | wc -c`",
    params(
        (
            "video_id" = Option<String>, Query, min_length = 1, max_length = 128,
            description = "Where it is left out: what the windows of each video come to"
        ),
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
    let video_id = given.remove("video_id").map(|id| params::id("video_id", id)).transpose()?;
    let event_type = params::event_type(given.remove("event_type"))?;
    let (start, end) = params::range(given.remove("start"), given.remove("end"), MINUTE_MS)?;
    let (first, until) = params::minutes(start, end);
    let starts = first.start()..until.start();
    let failed = |error| Problem::cold(&error, until.start());
    let bytes = match video_id {
        Some(video_id) => {
            let question = ColdQuestion { video_id, event_type, starts, width, functions };
            connectors::cells::encode(&state.queries.cold(question).await.map_err(failed)?)
        }
        None => {
            let question = ColdSumsQuestion { event_type, starts };
            connectors::cells::encode_sums(&state.queries.cold_sums(question).await.map_err(failed)?)
        }
    };
    let mut response = Response::new(bytes.into());
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
