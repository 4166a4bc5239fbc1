//! Errors as the client sees them: RFC 9457 `application/problem+json`.
//!
//! The text of a request may be quoted in a detail, but only through [`quoted`]: short, and without control characters.

use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;
use warp::http::{HeaderValue, StatusCode, header};

use super::Response;
use crate::service::ColdError;

/// The most of a client's text that an error repeats, bytes.
const QUOTED_BYTES_MAX: usize = 256;

/// One refusal: an HTTP status, a word for programs, a sentence for people. Boxed, since nearly every result can be one.
#[derive(Clone, Debug, PartialEq)]
pub struct Problem(Box<Parts>);

#[derive(Clone, Debug, PartialEq)]
struct Parts {
    status: StatusCode,
    /// The last part of the `type` URI.
    word: &'static str,
    title: &'static str,
    detail: String,
    /// Members beside the standard ones, such as `oldest`.
    members: Map<String, Value>,
    retry_after_s: Option<u32>,
    header: Option<(header::HeaderName, &'static str)>,
}

/// A refusal, by RFC 9457.
#[derive(Serialize, ToSchema)]
#[schema(as = Problem)]
pub struct Body {
    /// A word for programs, `urn:tidemark:WORD`.
    r#type: String,
    title: &'static str,
    status: u16,
    /// A sentence for people.
    detail: String,
    /// What more there is to say, such as `parameter` of 400 or `oldest` of 410.
    #[serde(flatten)]
    members: Map<String, Value>,
}

impl Problem {
    fn new(status: StatusCode, word: &'static str, title: &'static str, detail: impl Into<String>) -> Self {
        let detail = detail.into();
        Self(Box::new(Parts { status, word, title, detail, members: Map::new(), retry_after_s: None, header: None }))
    }

    /// 400: a parameter is unknown, repeated or has a value that can't be used. `parameter` may be the client's text.
    pub fn parameter(parameter: &str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad-parameter", "A parameter can't be used", detail)
            .with("parameter", quoted(parameter))
    }

    /// 400: the body is not what the route takes.
    pub fn body(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad-body", "The body can't be used", detail)
    }

    /// 400: the frontier asked for has not been reached.
    pub fn ahead(as_of: u64, frontier: u64) -> Self {
        let detail = format!("as_of={as_of} is ahead of the newest frontier {frontier}");
        Self::new(StatusCode::BAD_REQUEST, "as-of-ahead", "The frontier is not reached yet", detail)
            .with("parameter", "as_of")
            .with("frontier", frontier)
    }

    /// 401: no token, or not the right one.
    pub fn unauthorized() -> Self {
        let detail = "send the header authorization: Bearer TOKEN";
        Self::new(StatusCode::UNAUTHORIZED, "unauthorized", "A bearer token is needed", detail)
            .header(header::WWW_AUTHENTICATE, "Bearer")
    }

    /// 404: nothing lives at this path.
    pub fn not_found() -> Self {
        Self::new(StatusCode::NOT_FOUND, "not-found", "There is nothing here", "no such path")
    }

    /// 405: the path is right and the method is not.
    pub fn method_not_allowed(allow: &'static str) -> Self {
        let detail = format!("this path takes {allow}");
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed", "The method can't be used here", detail)
            .header(header::ALLOW, allow)
    }

    /// 408: the body did not come in time.
    pub fn body_timeout(seconds: u64) -> Self {
        let detail = format!("the body was not there within {seconds} s");
        Self::new(StatusCode::REQUEST_TIMEOUT, "body-timeout", "The body came too slowly", detail)
    }

    /// 410: merged, or before this start.
    pub fn gone(as_of: u64, oldest: u64) -> Self {
        let detail = format!("as_of={as_of} can't be answered any more; the oldest frontier that can is {oldest}");
        Self::new(StatusCode::GONE, "as-of-gone", "The frontier is not retained", detail).with("oldest", oldest)
    }

    /// 410 or 503: windows before `oldest` have left memory, and can't be read.
    pub fn cold(error: &ColdError, oldest: u64) -> Self {
        match error {
            ColdError::Elsewhere => {
                let detail = format!("windows before {oldest} are not held where this process can read them");
                Self::new(StatusCode::GONE, "range-gone", "The range is not held here", detail)
                    .with("oldest_start", oldest)
            }
            ColdError::Failed(_) => Self::unavailable("windows that have left memory can't be read now"),
        }
    }

    /// 410: windows before `oldest` were counted without the function.
    pub fn not_kept(function: &str, oldest: u64) -> Self {
        let detail = format!("{function} was not kept of all events of this range; from {oldest} on it was");
        Self::new(StatusCode::GONE, "function-not-kept", "The function was not kept", detail)
            .with("oldest_start", oldest)
    }

    /// 413: too much at once.
    pub fn too_large(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", "The request is too large", detail)
    }

    /// 415: a content type or encoding that is not read here.
    pub fn unsupported(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported", "The content can't be read", detail)
    }

    /// 429: try again in a second.
    pub fn busy(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::TOO_MANY_REQUESTS, "busy", "Too much at once", detail).retry_after(1)
    }

    /// 500: our fault.
    pub fn internal(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "Something is broken here", detail)
    }

    /// 503: nothing wrong with the request; try again.
    pub fn unavailable(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", "Not available now", detail).retry_after(1)
    }

    /// 507: somebody has to make room; then the same again.
    pub fn no_room(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::INSUFFICIENT_STORAGE, "no-room", "The disk is full", detail).retry_after(10)
    }

    /// 504: the index did not get there in time. The write itself is safe.
    pub fn waited(seconds: u64) -> Self {
        let detail = format!("the index did not include the write within {seconds} s; the write itself is durable");
        Self::new(StatusCode::GATEWAY_TIMEOUT, "not-included-yet", "The index is behind", detail).retry_after(1)
    }

    /// Adds a member beside the standard ones.
    pub fn with(mut self, name: &'static str, value: impl Into<Value>) -> Self {
        self.0.members.insert(name.into(), value.into());
        self
    }

    fn retry_after(mut self, seconds: u32) -> Self {
        self.0.retry_after_s = Some(seconds);
        self
    }

    fn header(mut self, name: header::HeaderName, value: &'static str) -> Self {
        self.0.header = Some((name, value));
        self
    }

    /// The answer on the wire.
    pub fn into_response(self) -> Response {
        let Parts { status, word, title, detail, members, retry_after_s, header } = *self.0;
        let body = Body { r#type: format!("urn:tidemark:{word}"), title, status: status.as_u16(), detail, members };
        let text = serde_json::to_string(&body).expect("strings and numbers can be written");
        let mut response = super::respond(status, "application/problem+json", text);
        let headers = response.headers_mut();
        if let Some(seconds) = retry_after_s {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if let Some((name, value)) = header {
            headers.insert(name, HeaderValue::from_static(value));
        }
        response
    }
}

/// A client's text as an error may repeat it: at most 256 bytes, control characters replaced.
pub fn quoted(text: &str) -> String {
    let mut short = String::new();
    for c in text.chars() {
        let c = if c.is_control() { char::REPLACEMENT_CHARACTER } else { c };
        if QUOTED_BYTES_MAX < short.len() + c.len_utf8() {
            break;
        }
        short.push(c);
    }
    short
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn quoted_text_is_short_and_has_no_control_characters() {
        assert_eq!(quoted("plain ü"), "plain ü");
        assert_eq!(quoted("a\u{1b}[31m\r\n\u{85}"), "a\u{fffd}[31m\u{fffd}\u{fffd}\u{fffd}");
        assert_eq!(quoted(&"x".repeat(10_000)).len(), 256);
        assert_eq!(quoted(&"ü".repeat(10_000)), "ü".repeat(128));
        assert_eq!(quoted(&"\0".repeat(10_000)).len(), 255, "the replacement is wider than what it replaces");
    }
}
