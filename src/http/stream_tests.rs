//! Streams over a real socket: what is sent when, and how one is taken up again.

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::{
    Limits,
    testkit::{Reply, Server},
    tests::{assert_has, assert_problem, tell_history, until},
};

/// A client of one stream.
struct Events {
    stream: TcpStream,
    text: Vec<u8>,
}

/// One event, or a comment where it has no name.
#[derive(Debug, PartialEq)]
struct Event {
    name: String,
    id: String,
    data: Value,
}

impl Events {
    /// Asks for a stream of `v`, with more headers, each with its line end; reads the head.
    async fn open(server: &Server, parameters: &str, headers: &str) -> Self {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        // To such a client an answer of unknown length is sent as it is, and ends with the connection.
        let request = format!("GET /v1/stream?video_id=v&{parameters} HTTP/1.0\r\n{headers}\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut events = Self { stream, text: Vec::new() };
        let head = events.until_blank("\r\n\r\n").await.expect("the head comes at once").to_ascii_lowercase();
        assert!(head.starts_with("http/1.0 200 ok\r\n"), "{head}");
        for line in ["content-type: text/event-stream", "cache-control: no-store", "x-content-type-options: nosniff"] {
            assert!(head.contains(line), "{line} in {head}");
        }
        events
    }

    async fn until_blank(&mut self, blank: &str) -> Option<String> {
        loop {
            if let Some(end) = self.text.windows(blank.len()).position(|window| window == blank.as_bytes()) {
                let rest = self.text.split_off(end + blank.len());
                let mut part = std::mem::replace(&mut self.text, rest);
                part.truncate(end);
                return Some(String::from_utf8(part).unwrap());
            }
            let read = tokio::time::timeout(Duration::from_secs(20), self.stream.read_buf(&mut self.text)).await;
            if read.expect("an event within 20 s").unwrap() == 0 {
                assert_eq!(self.text, b"", "a stream ends behind an event");
                return None;
            }
        }
    }

    /// The next event or comment; `None` at the end.
    async fn next_or_comment(&mut self) -> Option<Event> {
        let text = self.until_blank("\n\n").await?;
        let mut event = Event { name: String::new(), id: String::new(), data: Value::Null };
        for line in text.lines() {
            match line.split_once(": ").unwrap() {
                ("event", name) => event.name = name.into(),
                ("id", id) => event.id = id.into(),
                ("data", data) => event.data = serde_json::from_str(data).unwrap(),
                (field, text) => assert_eq!((field, text), ("", ""), "{line:?}"),
            }
        }
        Some(event)
    }

    async fn next(&mut self) -> Event {
        self.next_or_comment().await.expect("the stream goes on")
    }
}

fn point(start: u64, value: u64, is_final: bool) -> Value {
    json!({"start": start, "value": value, "final": is_final})
}

#[test]
fn a_stream_is_the_state_and_then_what_changes() {
    Server::run(|server| async move {
        server.queries.count("v", "view", 0, 50);
        server.queries.announce_at(100, 0);
        let mut events = Events::open(&server, "", "").await;
        let state = events.next().await;
        assert_eq!((state.name.as_str(), state.id.as_str()), ("state", "100-3"));
        assert_eq!(state.data, server.get("/v1/videos/v/stats").await.json());

        server.queries.count("v", "view", 2, 150);
        server.queries.count("w", "view", 2, 150);
        server.queries.announce_at(200, 0);
        let event = |as_of: u64, data: Value| Event { name: "change".into(), id: format!("{as_of}-3"), data };
        let changed = json!({"as_of": 200, "watermark": 0, "changed": [point(120_000, 1, false)], "total": 2});
        assert_eq!(events.next().await, event(200, changed));
        // A window is final, and another one that has no event yet.
        server.queries.announce_at(300, 120_000);
        let changed = json!({"as_of": 300, "watermark": 120_000, "changed": [point(0, 1, true)], "total": 2});
        assert_eq!(events.next().await, event(300, changed));
        // Nothing of it has changed at 400.
        server.queries.count("v", "like", 2, 350);
        server.queries.announce_at(400, 120_000);
        server.queries.count("v", "view", 2, 450);
        server.queries.announce_at(500, 180_000);
        let changed = json!({"as_of": 500, "watermark": 180_000, "changed": [point(120_000, 2, true)], "total": 3});
        assert_eq!(events.next().await, event(500, changed));
    });
}

#[test]
fn a_stream_has_the_granularity_and_range_that_were_asked_for() {
    Server::run(|server| async move {
        tell_history(&server);
        let parameters = "granularity=hour&start=3600000&function=count&event_type=view";
        let mut events = Events::open(&server, parameters, "").await;
        assert_has(&events.next().await.data, &json!({"total": 2, "series": [point(3_600_000, 2, false)]}), "state");
        // One before the range, and one that was in the history but not below its frontier.
        server.queries.count("v", "view", 0, 350);
        server.queries.announce_at(400, 0);
        let change = events.next().await;
        assert_has(&change.data, &json!({"changed": [point(3_600_000, 3, false)], "total": 3}), "change");
        server.queries.count("v", "view", 61, 450);
        server.queries.announce_at(500, 0);
        assert_has(&events.next().await.data, &json!({"changed": [point(3_600_000, 4, false)], "total": 4}), "change");
    });
}

#[test]
fn whoever_comes_back_is_told_what_has_changed_since() {
    Server::run(|server| async move {
        tell_history(&server);
        let since_100 = json!([
            point(0, 2, true),
            point(60_000, 1, true),
            point(59 * 60_000, 1, true),
            point(60 * 60_000, 1, false),
            point(61 * 60_000, 1, false),
        ]);
        for (parameters, headers) in [
            ("", "last-event-id: 100-3\r\n"),
            ("", "last-event-id: 100\r\n"),
            ("last_event_id=100-3", ""),
            ("last_event_id=9", "last-event-id: 100-3\r\n"),
        ] {
            let event = Events::open(&server, parameters, headers).await.next().await;
            assert_eq!((event.name.as_str(), event.id.as_str()), ("change", "300-3"), "{parameters} {headers}");
            assert_has(&event.data, &json!({"changed": since_100, "total": 6, "as_of": 300}), headers);
        }
        // Another start's, too old, ahead.
        for id in ["100-2", "99-3", "301-3"] {
            let event = Events::open(&server, "", &format!("last-event-id: {id}\r\n")).await.next().await;
            assert_eq!((event.name.as_str(), event.id.as_str()), ("state", "300-3"), "{id}");
        }
        // Nothing is new for whoever has heard everything.
        let mut events = Events::open(&server, "", "last-event-id: 300-3\r\n").await;
        server.queries.count("v", "view", 70, 350);
        server.queries.announce_at(400, 3_600_000);
        let event = events.next().await;
        assert_eq!((event.name.as_str(), event.id.as_str()), ("change", "400-3"));
        assert_has(
            &event.data,
            &json!({"changed": [point(61 * 60_000, 2, false), point(70 * 60_000, 1, false)]}),
            "news",
        );
        server.queries.merge_before(300);
        let event = Events::open(&server, "", "last-event-id: 200-3\r\n").await.next().await;
        assert_eq!(event.name, "state", "that history is merged");
    });
}

#[test]
fn a_stream_that_cannot_be_is_refused_before_it_begins() {
    let limits = Limits { stream_windows_max: 4, ..Limits::default() };
    Server::run_with(limits, None, |server| async move {
        let none = server.get("/v1/stream?video_id=v").await;
        assert_problem(&none, 503, &json!({"type": "urn:tidemark:unavailable"}), "no frontier");
        tell_history(&server);
        for (parameters, parameter) in [
            ("", "video_id"),
            ("video_id=v", "granularity"),
            // Two windows then, five by now.
            ("video_id=v&last_event_id=100-3", "granularity"),
            ("video_id=v&as_of=300", "as_of"),
            ("video_id=v&function=mode", "function"),
            ("video_id=v&last_event_id=x", "last_event_id"),
            ("video_id=v&last_event_id=1-", "last_event_id"),
            ("video_id=v&last_event_id=", "last_event_id"),
        ] {
            let reply = server.get(&format!("/v1/stream?{parameters}")).await;
            assert_problem(&reply, 400, &json!({ "parameter": parameter }), parameters);
        }
        let head = server.send("HEAD /v1/stream?video_id=v HTTP/1.1\r\nhost: t\r\nconnection: close\r\n\r\n").await;
        assert_eq!(head.status, 405);
    });
}

#[test]
fn a_stream_without_news_gives_signs_of_life() {
    let limits = Limits { heartbeat: Duration::from_millis(10), ..Limits::default() };
    Server::run_with(limits, None, |server| async move {
        tell_history(&server);
        let mut events = Events::open(&server, "", "").await;
        assert_eq!(events.next().await.name, "state");
        for _ in 0..3 {
            assert_eq!(events.next().await, Event { name: String::new(), id: String::new(), data: Value::Null });
        }
    });
}

#[test]
fn one_stream_too_many_is_told_to_come_back_and_has_room_when_another_has_left() {
    let limits = Limits { streams: 1, ..Limits::default() };
    Server::run_with(limits, None, |server| async move {
        tell_history(&server);
        let mut events = Events::open(&server, "", "").await;
        events.next().await;
        let reply = server.get("/v1/stream?video_id=v").await;
        assert_problem(&reply, 503, &json!({"type": "urn:tidemark:unavailable"}), "a second one");
        assert!(reply.head.contains("retry-after: 1\r\n"), "{}", reply.head);
        drop(events);
        until("there is room", async || {
            let mut stream = TcpStream::connect(server.address).await.unwrap();
            stream.write_all(b"GET /v1/stream?video_id=v HTTP/1.0\r\n\r\n").await.unwrap();
            let mut status = [0; 12];
            stream.read_exact(&mut status).await.unwrap();
            status == *b"HTTP/1.0 200"
        })
        .await;
    });
}

#[test]
fn streams_end_with_the_server() {
    let limits = Limits { shutdown_wait: Duration::from_secs(3600), ..Limits::default() };
    Server::run_with(limits, None, |mut server| async move {
        tell_history(&server);
        let mut events = Events::open(&server, "", "").await;
        events.next().await;
        server.stop.take().unwrap().send(()).unwrap();
        assert_eq!(events.next_or_comment().await, None);
        let ended = tokio::time::timeout(Duration::from_secs(20), server.ended).await;
        ended.expect("nothing is waited for").unwrap().unwrap();
    });
}

#[test]
fn a_stream_over_http_1_1_comes_in_chunks() {
    Server::run(|mut server| async move {
        tell_history(&server);
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        stream.write_all(b"GET /v1/stream?video_id=v HTTP/1.1\r\nhost: t\r\n\r\n").await.unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"\n\n\r\n") {
            assert_ne!(stream.read_buf(&mut answer).await.unwrap(), 0, "it stays open");
        }
        server.stop.take().unwrap().send(()).unwrap();
        stream.read_to_end(&mut answer).await.unwrap();
        let reply = Reply::parse(&answer);
        assert!(reply.head.contains("transfer-encoding: chunked"), "{}", reply.head);
        assert!(reply.body.ends_with("\r\n0\r\n\r\n"), "it ends well: {}", reply.body);
    });
}
