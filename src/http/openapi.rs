//! `GET /openapi.json`: OpenAPI 3.1. Each path stands at its handler and each schema at its type; here they are put together,
//! with the refusals that handlers share.

use std::collections::BTreeMap;

use utoipa::{
    IntoResponses, OpenApi,
    openapi::{
        Content, HeaderBuilder, ObjectBuilder, Ref, RefOr, Response as Described, ResponseBuilder, SecurityRequirement,
        Type,
        path::{Operation, PathItem},
        security::{HttpAuthScheme, HttpBuilder, SecurityScheme},
    },
};

use super::{
    Response, State, cells, diff, dimensions, events, json, metrics, page, problem, stats, status, stream, top,
};

/// The name of the security scheme.
const BEARER: &str = "bearer";

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Tidemark",
        description = "Exact, replayable counts of events per video, event type and minute. Every answer is true at one frontier, \
            and names it as `as_of`. Times are epoch milliseconds. Refusals are `application/problem+json` (RFC 9457)."
    ),
    paths(
        events::post,
        dimensions::post,
        stats::video,
        stats::channel,
        stats::batch,
        top::top,
        stream::stream,
        diff::diff,
        cells::cells,
        status::status,
        status::healthz,
        status::readyz,
        metrics::scrape,
        document,
        page::page,
        page::asset
    ),
    components(schemas(problem::Body)),
    tags(
        (name = "events", description = "Events on their way into the log"),
        (name = "questions", description = "What was counted"),
        (name = "operation", description = "How the process does"),
        (name = "page", description = "The same for people"),
    )
)]
struct Api;

/// This document.
#[utoipa::path(
    get,
    path = "/openapi.json",
    tag = "operation",
    security(()),
    description = "This document.\n\n`curl -sS http://127.0.0.1:7070/openapi.json`",
    responses((status = 200, body = serde_json::Value, content_type = "application/json"))
)]
pub fn document(state: &State) -> Response {
    json(&api(state.token_sha256.is_some()))
}

fn api(needs_token: bool) -> utoipa::openapi::OpenApi {
    let mut api = Api::openapi();
    for operation in api.paths.paths.values_mut().flat_map(operations) {
        refuse(operation, 405);
        let is_open = operation.security.is_some();
        if needs_token && !is_open {
            refuse(operation, 401);
        }
        if !needs_token {
            operation.security = None;
        }
    }
    if needs_token {
        api.security = Some(vec![SecurityRequirement::new(BEARER, [] as [&str; 0])]);
        let scheme = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).description(Some("What http.token_file holds."));
        let components = api.components.get_or_insert_default();
        components.add_security_scheme(BEARER, SecurityScheme::Http(scheme.build()));
    }
    api
}

fn operations(item: &mut PathItem) -> impl Iterator<Item = &mut Operation> {
    [&mut item.get, &mut item.post].into_iter().filter_map(Option::as_mut)
}

fn refuse(operation: &mut Operation, status: u16) {
    operation.responses.responses.insert(status.to_string(), refusal(status).into());
}

/// Refusals that a handler names among its `responses`.
macro_rules! refusals {
    ($($(#[$doc:meta])* $name:ident: $($status:literal)*;)*) => {$(
        $(#[$doc])*
        pub struct $name;

        impl IntoResponses for $name {
            fn responses() -> BTreeMap<String, RefOr<Described>> {
                [$($status),*].into_iter().map(|status: u16| (status.to_string(), refusal(status).into())).collect()
            }
        }
    )*};
}

refusals! {
    /// Where a body is read.
    MayRefuseBodies: 400 408 413 415 429;
    /// Where the log is written.
    MayRefuseWrites: 500 503 507;
    /// Where the index is asked.
    MayRefuseQuestions: 400 410 503 504;
    /// Where only so many are served at a time.
    MayBeBusy: 429;
    /// Where readiness is told.
    MayBeUnready: 503;
    /// Where a name may be unknown.
    NoSuchName: 404;
    /// Where nothing but a fault of ours can come between.
    MayBreak: 500;
}

fn refusal(status: u16) -> Described {
    let words = match status {
        400 => "A parameter or the body can't be used; `parameter` names the one",
        401 => "The bearer token is missing or wrong",
        404 => "There is nothing of that name",
        405 => "This path takes other methods, which `allow` names",
        408 => "The body did not come in time",
        410 => "The frontier is not retained any more; `oldest` is the oldest that is",
        413 => "Too much at once",
        415 => "A content type or encoding that is not read here",
        429 => "Busy: send the same bytes again",
        503 => "Not now: try again",
        504 => "The index did not include the write in time; the write itself is durable",
        507 => "The disk is full: somebody has to make room, then send the same bytes again",
        _ => "A fault of Tidemark",
    };
    let content = Content::new(Some(Ref::from_schema_name("Problem")));
    let response = ResponseBuilder::new().description(words).content("application/problem+json", content);
    match status {
        429 | 503 | 504 | 507 => {
            let seconds = ObjectBuilder::new().schema_type(Type::Integer);
            let header = HeaderBuilder::new().schema(seconds).description(Some("Seconds to wait"));
            response.header("retry-after", header.build()).build()
        }
        _ => response.build(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;

    use super::*;
    use crate::http::{Limits, Route, testkit::Server};

    /// One of each.
    fn routes() -> Vec<Route> {
        let text = String::new;
        vec![
            Route::Events,
            Route::Dimensions,
            Route::ChannelStats { raw_id: text() },
            Route::VideoStats { raw_id: text() },
            Route::Stats,
            Route::Top,
            Route::Stream,
            Route::Diff,
            Route::Cells,
            Route::Status,
            Route::Healthz,
            Route::Readyz,
            Route::Metrics,
            Route::OpenApi,
            Route::Page,
            Route::Asset { name: text() },
        ]
    }

    fn path(route: &Route) -> &'static str {
        match route {
            Route::Events => "/v1/events",
            Route::Dimensions => "/v1/dimensions",
            Route::VideoStats { .. } => "/v1/videos/{video_id}/stats",
            Route::ChannelStats { .. } => "/v1/channels/{channel_id}/stats",
            Route::Stats => "/v1/stats",
            Route::Top => "/v1/top",
            Route::Stream => "/v1/stream",
            Route::Diff => "/v1/diff",
            Route::Cells => "/v1/cells",
            Route::Status => "/v1/status",
            Route::Healthz => "/healthz",
            Route::Readyz => "/readyz",
            Route::Metrics => "/metrics",
            Route::OpenApi => "/openapi.json",
            Route::Page => "/",
            Route::Asset { .. } => "/assets/{name}",
        }
    }

    /// Of the document on the wire: path, method in lower case, operation.
    fn documented(needs_token: bool) -> Vec<(String, String, Value)> {
        let api = serde_json::to_value(api(needs_token)).unwrap();
        let of_path = |(path, item): (&String, &Value)| {
            let item = item.as_object().unwrap().clone();
            let path = path.clone();
            item.into_iter().map(move |(method, operation)| (path.clone(), method, operation))
        };
        api["paths"].as_object().unwrap().iter().flat_map(of_path).collect()
    }

    fn target(path: &str) -> String {
        path.replace("{video_id}", "v").replace("{channel_id}", "c").replace("{name}", "style.css")
    }

    #[test]
    fn every_route_is_in_the_document_with_its_methods() {
        // The variants as they stand in the source, so that none is missing above.
        let source = include_str!("mod.rs");
        let (_, from_enum) = source.split_once("enum Route {\n").unwrap();
        let variants = from_enum.split_once("\n}\n").unwrap().0.lines().count();
        assert_eq!(routes().len(), variants, "each variant stands on a line of its own");

        let documented: BTreeSet<_> = documented(false).into_iter().map(|(path, method, _)| (path, method)).collect();
        let methods = |route: &Route| route.allow().split(", ").filter(|method| *method != "HEAD").collect::<Vec<_>>();
        let routed = routes()
            .iter()
            .flat_map(|route| {
                let methods = methods(route).into_iter().map(str::to_lowercase);
                methods.map(|method| (path(route).to_owned(), method)).collect::<Vec<_>>()
            })
            .collect();
        assert_eq!(documented, routed);
    }

    #[test]
    fn every_path_of_the_document_is_answered_with_the_methods_that_it_says() {
        Server::run(|server| async move {
            for (path, method, _) in documented(false) {
                let request = format!("PATCH {} HTTP/1.1\r\nhost: t\r\nconnection: close\r\n\r\n", target(&path));
                let reply = server.send(request).await;
                assert_eq!(reply.status, 405, "{path}: {reply:?}");
                let allow = reply.head.lines().find_map(|line| line.strip_prefix("allow: ")).unwrap();
                assert!(allow.split(", ").any(|allowed| allowed == method), "{path}: {allow}");
            }
        });
    }

    #[test]
    fn a_route_with_parameters_refuses_all_that_the_document_does_not_have() {
        Server::run(|server| async move {
            let mut with_parameters = 0;
            for (path, method, operation) in documented(false) {
                let Some(parameters) = operation["parameters"].as_array().filter(|_| method == "get") else { continue };
                let of_query: BTreeSet<_> = parameters
                    .iter()
                    .filter(|parameter| parameter["in"] == "query")
                    .map(|parameter| parameter["name"].as_str().unwrap().to_owned())
                    .collect();
                if of_query.is_empty() {
                    continue;
                }
                let reply = server.get(&format!("{}?strat=1", target(&path))).await;
                assert_eq!(reply.status, 400, "{path}: {reply:?}");
                let problem = reply.json();
                let (_, names) = problem["detail"].as_str().unwrap().split_once("there are ").unwrap();
                assert_eq!(names.split(", ").map(str::to_owned).collect::<BTreeSet<_>>(), of_query, "{path}");
                with_parameters += 1;
            }
            assert!(0 < with_parameters, "there is a route with parameters");
        });
    }

    #[test]
    fn the_document_asks_for_a_token_exactly_where_the_routes_do() {
        let plain = serde_json::to_value(api(false)).unwrap();
        assert!(plain.get("security").is_none() && plain["components"].get("securitySchemes").is_none());
        Server::run_with(Limits::default(), Some([7; 32]), |server| async move {
            let served = server.get("/openapi.json").await.json();
            assert_eq!(served["openapi"], "3.1.0");
            assert_eq!(served["components"]["securitySchemes"]["bearer"]["scheme"], "bearer");
            for (path, method, operation) in documented(true) {
                let target = target(&path);
                let reply =
                    if method == "get" { server.get(&target).await } else { server.post(&target, "", "").await };
                let says_401 = operation["responses"].get("401").is_some();
                assert_eq!(reply.status == 401, says_401, "{path}: {reply:?}");
                assert_eq!(operation.get("security").is_none(), says_401, "{path}");
            }
        });
    }
}
