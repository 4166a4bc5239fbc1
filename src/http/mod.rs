//! The HTTP face: warp filters that find the route, plain functions that answer, and JSON types of their own.
//!
//! It asks through [`Queries`], [`Ingest`], [`EventCheck`] and [`StatusSource`], and never sees a trace or a log.
//! Every route ends in `Result<Response, Problem>`, so every refusal is `application/problem+json`.

#[cfg(test)]
mod abuse_tests;
mod auth;
mod body;
mod cache;
mod cells;
#[cfg(test)]
mod channel_tests;
mod diff;
mod dimensions;
mod events;
mod found;
mod incomplete;
mod metrics;
mod openapi;
mod page;
mod params;
pub mod percent;
mod problem;
mod server;
mod stats;
mod status;
mod stream;
#[cfg(test)]
mod stream_tests;
#[cfg(test)]
pub mod testkit;
#[cfg(test)]
mod tests;
mod top;
#[cfg(test)]
mod top_tests;

use std::{convert::Infallible, sync::Arc, time::Duration};

use dataflows::functions::Functions;
use futures_util::TryStreamExt;
use prometheus_client::registry::Registry;
use serde::Serialize;
use tokio::sync::{Semaphore, watch};
use warp::{
    Buf, Filter, Rejection, Reply,
    http::{HeaderMap, HeaderValue, Method, StatusCode, header},
};

use self::{metrics::Metrics, problem::Problem};
pub use self::{params::Token, server::serve};
use crate::service::{EventCheck, Ingest, Names, Queries, StatusSource};

type Response = warp::reply::Response;

/// What clients may use of us. Each is a bound on memory, on file descriptors, or on how long they are held.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Connections at a time.
    pub connections: usize,
    /// Connections of one address at a time; loopback is exempt.
    pub connections_per_address: usize,
    /// A request's line and headers, bytes.
    pub head_bytes: usize,
    /// From the first byte of a request head to its last.
    pub head_timeout: Duration,
    /// Without a request.
    pub idle_timeout: Duration,
    /// From a request's head to the last byte of its body.
    pub body_timeout: Duration,
    /// While a client takes nothing of its answer.
    pub write_timeout: Duration,
    /// A body as it is sent, bytes.
    pub body_bytes: usize,
    /// A body when it is inflated, bytes.
    pub inflated_bytes: usize,
    /// All bodies being read and judged, bytes.
    pub bodies_bytes: usize,
    /// Compressed bodies being inflated and judged at a time, `inflated_bytes` each.
    pub inflating: usize,
    /// Events of one request.
    pub events_max: usize,
    /// Queries of one batch.
    pub queries_max: usize,
    /// Windows of one response: about 60 bytes each.
    pub windows_max: usize,
    /// Top lists being made at a time: each looks at all counts.
    pub scans: usize,
    /// Streams at a time: each asks the index at each announcement.
    pub streams: usize,
    /// Windows of one stream, which remembers what it has sent.
    pub stream_windows_max: usize,
    /// From a stream's last event to a sign of life.
    pub heartbeat: Duration,
    /// How long a query waits for the write that it names in `after`.
    pub after_wait: Duration,
    /// For requests in progress at the end.
    pub shutdown_wait: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 1024,
            connections_per_address: 64,
            head_bytes: 64 << 10,
            head_timeout: Duration::from_secs(5),
            idle_timeout: Duration::from_secs(60),
            body_timeout: Duration::from_secs(30),
            write_timeout: Duration::from_secs(30),
            body_bytes: 4 << 20,
            inflated_bytes: 16 << 20,
            bodies_bytes: 128 << 20,
            inflating: 4,
            events_max: 100_000,
            queries_max: 1000,
            windows_max: 100_000,
            scans: 16,
            streams: 256,
            stream_windows_max: 10_000,
            heartbeat: Duration::from_secs(15),
            after_wait: Duration::from_secs(10),
            shutdown_wait: Duration::from_secs(5),
        }
    }
}

/// Whom the routes ask. Fields are the caller's; [`State::new`] adds what only HTTP needs.
pub struct Asked {
    /// The index.
    pub queries: Arc<dyn Queries>,
    /// The log.
    pub ingest: Arc<dyn Ingest>,
    /// The record format.
    pub check: Arc<dyn EventCheck>,
    /// Where names and channels of videos go.
    pub dimensions: Arc<dyn Ingest>,
    /// What these are judged by.
    pub dimension_check: Arc<dyn EventCheck>,
    /// What is known of them.
    pub names: Arc<Names>,
    /// The process.
    pub status: Arc<dyn StatusSource>,
    /// What is kept beside the counts.
    pub functions: Functions,
    /// The SHA-256 of the bearer token, where one is needed.
    pub token_sha256: Option<[u8; 32]>,
    /// The bounds.
    pub limits: Limits,
}

/// What all requests share.
pub struct State {
    queries: Arc<dyn Queries>,
    ingest: Arc<dyn Ingest>,
    check: Arc<dyn EventCheck>,
    dimensions: Arc<dyn Ingest>,
    dimension_check: Arc<dyn EventCheck>,
    names: Arc<Names>,
    status: Arc<dyn StatusSource>,
    functions: Functions,
    token_sha256: Option<[u8; 32]>,
    limits: Limits,
    metrics: Metrics,
    registry: Registry,
    /// One permit for each byte of the bodies being read and judged.
    body_room: Semaphore,
    /// One permit for each body being inflated.
    inflating: Semaphore,
    /// One permit for each top list being made.
    scans: Arc<Semaphore>,
    /// One permit for each stream.
    streams: Arc<Semaphore>,
    /// Whether the server is shutting down, which ends the streams.
    ending: watch::Sender<bool>,
}

impl State {
    /// Adds HTTP's metrics to those that the registry has, and keeps it for `/metrics`.
    pub fn new(asked: Asked, mut registry: Registry) -> Arc<Self> {
        let Asked { queries, ingest, check, dimensions, dimension_check, names, .. } = asked;
        let Asked { status, functions, token_sha256, limits, .. } = asked;
        let metrics = Metrics::register(&mut registry);
        let body_room = Semaphore::new(limits.bodies_bytes);
        let inflating = Semaphore::new(limits.inflating);
        let (scans, streams) = (Arc::new(Semaphore::new(limits.scans)), Arc::new(Semaphore::new(limits.streams)));
        let ending = watch::Sender::new(false);
        Arc::new(Self {
            queries,
            ingest,
            check,
            dimensions,
            dimension_check,
            names,
            status,
            functions,
            token_sha256,
            limits,
            metrics,
            registry,
            body_room,
            inflating,
            scans,
            streams,
            ending,
        })
    }
}

/// One request behind its path.
struct Request {
    method: Method,
    headers: HeaderMap,
    query: String,
    chunks: body::Chunks,
}

/// Where a request goes.
enum Route {
    Events,
    Dimensions,
    VideoStats { raw_id: String },
    ChannelStats { raw_id: String },
    Stats,
    Top,
    Stream,
    Diff,
    Cells,
    Status,
    Healthz,
    Readyz,
    Metrics,
    OpenApi,
    Page,
    Asset { name: String },
}

impl Route {
    /// Its name in the metrics.
    fn name(&self) -> &'static str {
        match self {
            Route::Events => "events",
            Route::Dimensions => "dimensions",
            Route::VideoStats { .. } => "video_stats",
            Route::ChannelStats { .. } => "channel_stats",
            Route::Stats => "stats",
            Route::Top => "top",
            Route::Stream => "stream",
            Route::Diff => "diff",
            Route::Cells => "cells",
            Route::Status => "status",
            Route::Healthz => "healthz",
            Route::Readyz => "readyz",
            Route::Metrics => "metrics",
            Route::OpenApi => "openapi",
            Route::Page => "page",
            Route::Asset { .. } => "asset",
        }
    }

    /// Its methods, as the `Allow` header has them.
    fn allow(&self) -> &'static str {
        match self {
            Route::Events | Route::Dimensions | Route::Stats => "POST",
            // A stream has no end that a length could be told of.
            Route::Stream => "GET",
            _ => "GET, HEAD",
        }
    }

    fn is_open_to_all(&self) -> bool {
        matches!(self, Route::Healthz | Route::Readyz | Route::OpenApi | Route::Page | Route::Asset { .. })
    }
}

fn routes(state: Arc<State>) -> impl Filter<Extract = (Response,), Error = Infallible> + Clone + Send + Sync + 'static {
    let events = warp::path!("v1" / "events").map(|| Route::Events);
    let dimensions = warp::path!("v1" / "dimensions").map(|| Route::Dimensions);
    let video_stats = warp::path!("v1" / "videos" / String / "stats").map(|raw_id| Route::VideoStats { raw_id });
    let channel_stats = warp::path!("v1" / "channels" / String / "stats").map(|raw_id| Route::ChannelStats { raw_id });
    let stats = warp::path!("v1" / "stats").map(|| Route::Stats);
    let top = warp::path!("v1" / "top").map(|| Route::Top);
    let stream = warp::path!("v1" / "stream").map(|| Route::Stream);
    let diff = warp::path!("v1" / "diff").map(|| Route::Diff);
    let cells = warp::path!("v1" / "cells").map(|| Route::Cells);
    let status = warp::path!("v1" / "status").map(|| Route::Status);
    let healthz = warp::path!("healthz").map(|| Route::Healthz);
    let readyz = warp::path!("readyz").map(|| Route::Readyz);
    let metrics = warp::path!("metrics").map(|| Route::Metrics);
    let openapi = warp::path!("openapi.json").map(|| Route::OpenApi);
    let page = warp::path::end().map(|| Route::Page);
    let asset = warp::path!("assets" / String).map(|name| Route::Asset { name });
    // Boxed in between: the type of one long chain is too deep for the compiler.
    let written = events.or(dimensions).unify().boxed();
    let of_one = video_stats.or(channel_stats).unify().boxed();
    let asked = of_one.or(stats).unify().or(top).unify().or(stream).unify().or(diff).unify().boxed();
    let operated =
        status.or(cells).unify().or(healthz).unify().or(readyz).unify().or(metrics).unify().or(openapi).unify().boxed();
    let shown = page.or(asset).unify().boxed();
    let route = written.or(asked).unify().or(operated).unify().or(shown).unify();

    let answering = state.clone();
    let answered = route.and(request()).then(move |route: Route, request: Request| {
        let state = answering.clone();
        async move {
            let name = route.name();
            let response = answer(&state, route, request).await.unwrap_or_else(Problem::into_response);
            state.metrics.answered(name, response.status());
            response
        }
    });
    answered
        .recover(move |_no_route: Rejection| {
            let response = Problem::not_found().into_response();
            state.metrics.answered("unknown", response.status());
            std::future::ready(Ok::<_, Infallible>(response))
        })
        .map(Reply::into_response)
}

fn request() -> impl Filter<Extract = (Request,), Error = Rejection> + Clone + Send + Sync + 'static {
    // A request without a query has none to extract, which is no reason to refuse it.
    let query = warp::query::raw().or(warp::any().map(String::new)).unify();
    warp::method().and(warp::header::headers_cloned()).and(query).and(warp::body::stream()).map(
        |method, headers, query, chunks| {
            let chunks: body::Chunks = Box::pin(TryStreamExt::map_ok(chunks, copy));
            Request { method, headers, query, chunks }
        },
    )
}

/// The chunk's bytes; no copy, since hyper's chunks are `Bytes` already.
fn copy(mut chunk: impl Buf) -> warp::hyper::body::Bytes {
    chunk.copy_to_bytes(chunk.remaining())
}

async fn answer(state: &Arc<State>, route: Route, request: Request) -> Result<Response, Problem> {
    let Request { method, headers, query, chunks } = request;
    if !route.allow().split(", ").any(|allowed| allowed == method.as_str()) {
        return Err(Problem::method_not_allowed(route.allow()));
    }
    if !route.is_open_to_all() {
        auth::check(&headers, state.token_sha256.as_ref())?;
    }
    match route {
        Route::Events => events::post(state, &headers, chunks).await,
        Route::Dimensions => dimensions::post(state, &headers, chunks).await,
        Route::VideoStats { raw_id } => stats::video(state, &raw_id, &query, &headers).await,
        Route::ChannelStats { raw_id } => stats::channel(state, &raw_id, &query).await,
        Route::Stats => stats::batch(state, &headers, chunks).await,
        Route::Top => top::top(state, &query).await,
        Route::Stream => stream::stream(state, &headers, &query).await,
        Route::Diff => diff::diff(state, &query).await,
        Route::Cells => cells::cells(state, &query).await,
        Route::Status => Ok(status::status(state)),
        Route::Healthz => Ok(status::healthz()),
        Route::Readyz => status::readyz(state),
        Route::Metrics => metrics::scrape(state),
        Route::OpenApi => Ok(openapi::document(state)),
        Route::Page => page::page(&headers),
        Route::Asset { name } => page::asset(&name, &headers),
    }
}

fn json(value: &impl Serialize) -> Response {
    json_with(StatusCode::OK, value)
}

fn json_with(status: StatusCode, value: &impl Serialize) -> Response {
    match serde_json::to_string(value) {
        Ok(text) => respond(status, "application/json", text),
        Err(_unserialisable) => Problem::internal("the answer can't be written as JSON").into_response(),
    }
}

fn respond(status: StatusCode, content_type: &'static str, body: String) -> Response {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    // Answers are true at a frontier that moves on.
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}
