//! `POST /v1/dimensions`: what is known of videos and channels. An item says all of its subject, and replaces what was known.

use serde::Serialize;
use utoipa::ToSchema;
use warp::http::{HeaderMap, StatusCode};

use super::{
    Response, State, body,
    events::{Door, Rejected, take},
    json_with,
    openapi::{MayRefuseBodies, MayRefuseWrites},
    problem::Problem,
};

/// What became of a request's items.
#[derive(Serialize, ToSchema)]
struct Taken<'a> {
    /// Durable; in answers a moment later.
    accepted: usize,
    rejected: &'a [Rejected],
}

/// Of a video or, where there is no `video_id`, of a channel. What is left out or null is not known any more.
#[derive(ToSchema)]
#[expect(dead_code, reason = "only its schema is used: items are judged as bytes, by the connectors' rules")]
#[schema(example = json!({"video_id": "v1", "name": "A cat", "channel_id": "c1"}))]
struct Dimension {
    #[schema(min_length = 1, max_length = 128)]
    video_id: Option<String>,
    #[schema(min_length = 1, max_length = 256)]
    name: Option<String>,
    #[schema(min_length = 1, max_length = 128)]
    channel_id: Option<String>,
}

/// One or many.
#[derive(ToSchema)]
#[expect(dead_code, reason = "only its schema is used")]
#[serde(untagged)]
enum Dimensions {
    One(Dimension),
    Many(Vec<Dimension>),
}

/// Takes what is well-formed, and answers when that is durable.
#[utoipa::path(
    post,
    path = "/v1/dimensions",
    tag = "events",
    description = "Names of videos and channels, and which channel a video belongs to: one, an array, or one a line. Each replaces \
        what was known of its video or channel. A video that moves takes all its counts along, at one frontier.\n\n\
        `curl -sS http://127.0.0.1:7070/v1/dimensions -H 'content-type: application/json' -d \
        '[{\"video_id\":\"v1\",\"name\":\"A cat\",\"channel_id\":\"c1\"},{\"channel_id\":\"c1\",\"name\":\"Cats\"}]'`",
    request_body(content((Dimensions = "application/json"), (String = "application/x-ndjson"))),
    responses((status = 202, body = Taken), MayRefuseBodies, MayRefuseWrites)
)]
pub async fn post(state: &State, headers: &HeaderMap, chunks: body::Chunks) -> Result<Response, Problem> {
    let door = Door { check: &state.dimension_check, log: &*state.dimensions, what: "the store of names" };
    let taken = take(state, &door, headers, chunks).await?;
    Ok(json_with(StatusCode::ACCEPTED, &Taken { accepted: taken.accepted, rejected: &taken.rejected }))
}
