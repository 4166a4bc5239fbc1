//! Answers that can never change may be kept: by browsers and proxies, for a year, under an `ETag`.
//!
//! Only where both ends were given and no moment: the same request then has the same answer for ever, but for the `as_of` and
//! the watermark that it happens to be told with. So the tag is a weak one, over all the rest. One with names in it is asked
//! about again: those may change.

use sha2::{Digest, Sha256};
use warp::http::{HeaderMap, HeaderValue, StatusCode, header};

use super::{
    Response, State, json,
    params::{Wanted, When},
    stats::Stats,
};

/// The answer as it is sent: `304` where the client has it.
pub fn respond(state: &State, headers: &HeaderMap, wanted: &Wanted, stats: &Stats) -> Response {
    let is_fixed = wanted.start.is_some() && wanted.end.is_some() && wanted.when == When::Latest;
    let tag = if is_fixed && stats.is_final { tag(stats) } else { None };
    let Some(tag) = tag else { return json(stats) };
    let mut response = if has(headers, &tag) {
        let mut unchanged = Response::default();
        *unchanged.status_mut() = StatusCode::NOT_MODIFIED;
        unchanged
    } else {
        json(stats)
    };
    // What is behind a token is for the one who has it.
    let control = match (&state.token_sha256, stats.is_labelled()) {
        (None, false) => "public, max-age=31536000, immutable",
        (Some(_), false) => "private, max-age=31536000, immutable",
        (None, true) => "public, no-cache",
        (Some(_), true) => "private, no-cache",
    };
    let sent = response.headers_mut();
    sent.insert(header::CACHE_CONTROL, HeaderValue::from_static(control));
    sent.insert(header::ETAG, tag);
    response
}

fn tag(stats: &Stats) -> Option<HeaderValue> {
    let mut value = serde_json::to_value(stats).ok()?;
    let members = value.as_object_mut()?;
    members.remove("as_of");
    members.remove("watermark");
    let digest = Sha256::digest(value.to_string());
    HeaderValue::from_str(&format!("W/\"{digest:x}\"")).ok()
}

/// Whether the client names the tag, or any.
fn has(headers: &HeaderMap, tag: &HeaderValue) -> bool {
    let opaque = |text: &[u8]| text.strip_prefix(b"W/").unwrap_or(text).to_vec();
    let wanted = opaque(tag.as_bytes());
    let values = headers.get_all(header::IF_NONE_MATCH).iter();
    values.flat_map(|value| value.as_bytes().split(|byte| *byte == b',')).any(|one| {
        let one = one.trim_ascii();
        one == b"*" || opaque(one) == wanted
    })
}
