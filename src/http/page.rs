//! The page at `/`: files that are compiled in, and served so that a browser takes nothing from anywhere else.
//!
//! The page itself holds no data, so it is open to all; its scripts ask the API as any client does, with the token if there is one.

use std::{io::Write as _, sync::OnceLock};

use flate2::{Compression, write::GzEncoder};
use sha2::{Digest, Sha256};
use warp::http::{HeaderMap, HeaderValue, StatusCode, header};

use super::{Response, openapi::NoSuchName, problem::Problem, respond};

/// Nothing from other hosts, nothing inline, and in nobody's frame.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
    connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// One file.
struct File {
    name: &'static str,
    content_type: &'static str,
    text: &'static str,
}

const fn script(name: &'static str, text: &'static str) -> File {
    File { name, content_type: "text/javascript; charset=utf-8", text }
}

const PAGE: usize = 0;

/// The page first, then what it loads.
static FILES: [File; 13] = [
    File { name: "", content_type: "text/html; charset=utf-8", text: include_str!("page/index.html") },
    File { name: "style.css", content_type: "text/css; charset=utf-8", text: include_str!("page/style.css") },
    File { name: "icon.svg", content_type: "image/svg+xml", text: include_str!("page/icon.svg") },
    script("chart.js", include_str!(concat!(env!("OUT_DIR"), "/chart.js"))),
    script("main.js", include_str!("page/main.js")),
    script("api.js", include_str!("page/api.js")),
    script("dom.js", include_str!("page/dom.js")),
    script("curve.js", include_str!("page/curve.js")),
    script("stream.js", include_str!("page/stream.js")),
    script("overview.js", include_str!("page/overview.js")),
    script("video.js", include_str!("page/video.js")),
    script("series.js", include_str!("page/series.js")),
    script("top.js", include_str!("page/top.js")),
];

/// What is made of a file once: its tag, and its bytes as they travel.
struct Ready {
    tag: HeaderValue,
    gzip: Option<Vec<u8>>,
}

/// The page itself.
#[utoipa::path(
    get,
    path = "/",
    tag = "page",
    security(()),
    description = "The page, for a browser.",
    responses((status = 200, body = String, content_type = "text/html"), (status = 304, description = "As it was"))
)]
pub fn page(headers: &HeaderMap) -> Result<Response, Problem> {
    Ok(serve(PAGE, headers))
}

/// What the page loads.
#[utoipa::path(
    get,
    path = "/assets/{name}",
    tag = "page",
    security(()),
    description = "What the page loads.",
    params(("name" = String, Path, min_length = 1, description = "A file's name")),
    responses(
        (status = 200, content((String = "text/javascript"), (String = "text/css"), (String = "image/svg+xml"))),
        (status = 304, description = "As it was"),
        NoSuchName
    )
)]
pub fn asset(name: &str, headers: &HeaderMap) -> Result<Response, Problem> {
    let place = FILES.iter().position(|file| !name.is_empty() && file.name == name).ok_or_else(Problem::not_found)?;
    Ok(serve(place, headers))
}

fn serve(place: usize, headers: &HeaderMap) -> Response {
    static READY: [OnceLock<Ready>; FILES.len()] = [const { OnceLock::new() }; FILES.len()];
    let file = &FILES[place];
    let Ready { tag, gzip } = READY[place].get_or_init(|| ready(file));
    let is_known = names(headers, &header::IF_NONE_MATCH, |known| known.as_bytes() == tag.as_bytes());
    let takes_gzip = names(headers, &header::ACCEPT_ENCODING, |coding| coding.split(';').next() == Some("gzip"));
    let mut response = if is_known {
        respond(StatusCode::NOT_MODIFIED, file.content_type, String::new())
    } else {
        respond(StatusCode::OK, file.content_type, String::new())
    };
    let response_headers = response.headers_mut();
    response_headers.insert(header::ETAG, tag.clone());
    // Another release has other files under the same names.
    response_headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response_headers.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
    response_headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(CONTENT_SECURITY_POLICY));
    response_headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    let body = match gzip {
        _ if is_known => Vec::new(),
        Some(gzip) if takes_gzip => {
            response_headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
            gzip.clone()
        }
        _ => file.text.as_bytes().to_vec(),
    };
    *response.body_mut() = body.into();
    response
}

/// Whether one of a header's names, between its commas, is wanted.
fn names(headers: &HeaderMap, header: &header::HeaderName, is_wanted: impl Fn(&str) -> bool) -> bool {
    let texts = headers.get_all(header).iter().filter_map(|value| value.to_str().ok());
    texts.flat_map(|text| text.split(',')).any(|name| is_wanted(name.trim()))
}

fn ready(file: &File) -> Ready {
    let digest: String = Sha256::digest(file.text).iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    let tag = HeaderValue::from_str(&format!("\"{digest}\"")).expect("digits are good in a header");
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    let gzip = encoder.write_all(file.text.as_bytes()).and_then(|()| encoder.finish()).ok();
    Ready { tag, gzip }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::http::{Limits, testkit::Server};

    /// Between each `before` and the next quotation mark.
    fn quoted_after<'a>(text: &'a str, before: &'a str) -> impl Iterator<Item = &'a str> {
        text.split(before).skip(1).map(|rest| rest.split('"').next().unwrap())
    }

    #[test]
    fn everything_that_the_page_names_is_served_here() {
        Server::run(|server| async move {
            let mut named = 0;
            for file in &FILES {
                let of_page = quoted_after(file.text, "=\"/assets/");
                let of_script = quoted_after(file.text, " from \"./");
                let targets = of_page.chain(of_script).filter(|_| file.name != "chart.js");
                for name in targets {
                    let reply = server.get(&format!("/assets/{name}")).await;
                    assert_eq!(reply.status, 200, "{name} of {}", file.name);
                    named += 1;
                }
            }
            assert!(FILES.len() - 1 <= named, "each file but the page is named somewhere");
            let reply = server.get("/assets/nothing.js").await;
            assert_eq!(reply.status, 404, "{reply:?}");
        });
    }

    #[test]
    fn the_page_is_open_names_no_other_host_and_allows_none() {
        Server::run_with(Limits::default(), Some([7; 32]), |server| async move {
            let reply = server.get("/").await;
            assert_eq!(reply.status, 200);
            assert!(reply.head.contains("content-type: text/html; charset=utf-8\r\n"), "{}", reply.head);
            assert!(reply.head.contains("content-security-policy: default-src 'none'; script-src 'self';"));
            assert!(!reply.head.contains("unsafe"), "{}", reply.head);
            for file in FILES.iter().filter(|file| file.name != "chart.js") {
                let text = file.text.replace("http://www.w3.org/2000/svg", "");
                assert!(
                    !text.contains("http:") && !text.contains("https:") && !text.contains("=\"//"),
                    "{}",
                    file.name
                );
                assert!(!text.contains("innerHTML") && !text.contains(" style=") && !text.contains(" onclick="));
            }
        });
    }

    #[test]
    fn a_file_travels_compressed_where_that_is_taken_and_not_at_all_where_it_is_known() {
        let with = |name: header::HeaderName, value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(name, value.parse().unwrap());
            asset("chart.js", &headers).unwrap()
        };
        let plain = asset("chart.js", &HeaderMap::new()).unwrap();
        assert_eq!(plain.headers().get(header::CONTENT_ENCODING), None);
        let gzip = with(header::ACCEPT_ENCODING, "br, gzip;q=0.8");
        assert_eq!(gzip.headers()[header::CONTENT_ENCODING], "gzip");
        let tag = plain.headers()[header::ETAG].to_str().unwrap();
        assert_eq!(with(header::IF_NONE_MATCH, &format!("\"x\", {tag}")).status(), StatusCode::NOT_MODIFIED);
        assert_eq!(with(header::IF_NONE_MATCH, "\"x\"").status(), StatusCode::OK);
    }
}
