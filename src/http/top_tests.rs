//! Top lists, differences and answers that may be kept, over a real socket.

#![allow(clippy::unwrap_used)]

use serde_json::json;

use super::{
    Limits,
    testkit::{Reply, Server},
    tests::{HOUR, assert_has, assert_problem, tell_history},
};

#[test]
fn a_top_list_has_the_greatest_first_and_says_at_which_frontier() {
    let row = |video: &str, value: u64| json!({"video_id": video, "value": value});
    let rising = |video: &str, value: u64, before: u64| json!({"video_id": video, "value": value, "before": before});
    // target | members of the answer
    let rows = [
        (
            "/v1/top",
            json!({
                "as_of": 300, "watermark": HOUR, "event_type": "view", "start": 0, "end": 62 * 60_000, "final": false,
                "order": "count", "top": [row("v", 6), row("a/b c%ü", 1)],
            }),
        ),
        ("/v1/top?k=1&by=video&order=count", json!({"top": [row("v", 6)]})),
        (
            "/v1/top?event_type=like",
            json!({"event_type": "like", "top": [row("v", 1)], "start": 420_000, "end": 480_000}),
        ),
        ("/v1/top?event_type=share", json!({"top": [], "start": 0, "end": 0, "final": false})),
        ("/v1/top?as_of=199", json!({"as_of": 100, "watermark": 60_000, "top": [row("v", 2), row("a/b c%ü", 1)]})),
        ("/v1/top?after=0:10,1:20&start=3599999", json!({"start": 59 * 60_000, "top": [row("v", 3)]})),
        (
            "/v1/top?start=1&end=59999",
            json!({"start": 0, "end": 60_000, "final": true, "top": [row("v", 2), row("a/b c%ü", 1)]}),
        ),
        ("/v1/top?start=0&end=3600001", json!({"end": HOUR + 60_000, "final": false})),
        (
            "/v1/top?start=60000&end=120000&order=rising",
            json!({"order": "rising", "final": true, "top": [rising("a/b c%ü", 0, 1), rising("v", 1, 2)]}),
        ),
        // Stream time is 300 ms after the epoch.
        (
            "/v1/top?span=hour",
            json!({"start": 0, "end": 60_000, "final": true, "top": [row("v", 2), row("a/b c%ü", 1)]}),
        ),
        ("/v1/top?span=day&k=1", json!({"start": 0, "end": 24 * HOUR, "final": false, "top": [row("v", 6)]})),
        (
            "/v1/top?span=hour&order=rising&as_of=100",
            json!({"start": 0, "end": 60_000, "top": [rising("a/b c%ü", 1, 0), rising("v", 1, 0)]}),
        ),
    ];
    Server::run(|server| async move {
        tell_history(&server);
        for (target, expect) in rows {
            let reply = server.get(target).await;
            assert_eq!(reply.status, 200, "{target}: {reply:?}");
            assert_has(&reply.json(), &expect, target);
        }
    });
}

#[test]
fn top_lists_and_differences_that_cannot_be_made_are_refused_by_name() {
    // target | status | members of the problem
    let rows = [
        ("/v1/top?k=0", 400, json!({"parameter": "k"})),
        ("/v1/top?k=1001", 400, json!({"parameter": "k"})),
        ("/v1/top?k=+5", 400, json!({"parameter": "k"})),
        ("/v1/top?k=", 400, json!({"parameter": "k"})),
        ("/v1/top?by=user", 400, json!({"parameter": "by"})),
        ("/v1/top?order=falling", 400, json!({"parameter": "order"})),
        ("/v1/top?order=rising", 400, json!({"parameter": "start"})),
        ("/v1/top?order=rising&start=0", 400, json!({"parameter": "end"})),
        ("/v1/top?granularity=hour", 400, json!({"parameter": "granularity"})),
        ("/v1/top?span=week", 400, json!({"parameter": "span"})),
        ("/v1/top?span=hour&start=0", 400, json!({"parameter": "span"})),
        ("/v1/top?span=day&end=0", 400, json!({"parameter": "span"})),
        ("/v1/top?event_type=View", 400, json!({"parameter": "event_type"})),
        ("/v1/top?start=5&start=6", 400, json!({"parameter": "start"})),
        ("/v1/top?start=60000&end=1", 400, json!({"parameter": "end"})),
        ("/v1/top?as_of=301", 400, json!({"parameter": "as_of", "frontier": 300})),
        ("/v1/top?as_of=99", 410, json!({"oldest": 100})),
        ("/v1/top?as_of=300&after=0:1", 400, json!({"parameter": "after"})),
        ("/v1/diff?from_as_of=100", 400, json!({"parameter": "video_id"})),
        ("/v1/diff?video_id=v", 400, json!({"parameter": "from_as_of"})),
        ("/v1/diff?video_id=v&from_as_of=x", 400, json!({"parameter": "from_as_of"})),
        ("/v1/diff?video_id=v&from_as_of=200&to_as_of=199", 400, json!({"parameter": "to_as_of"})),
        ("/v1/diff?video_id=v&from_as_of=301", 400, json!({"parameter": "from_as_of", "frontier": 300})),
        ("/v1/diff?video_id=v&from_as_of=100&to_as_of=301", 400, json!({"parameter": "to_as_of", "frontier": 300})),
        ("/v1/diff?video_id=v&from_as_of=99", 410, json!({"parameter": "from_as_of", "oldest": 100})),
        ("/v1/diff?video_id=v&from_as_of=100&as_of=300", 400, json!({"parameter": "as_of"})),
    ];
    Server::run(|server| async move {
        tell_history(&server);
        for (target, status, expect) in rows {
            assert_problem(&server.get(target).await, status, &expect, target);
        }
        server.queries.merge_before(200);
        for target in ["/v1/top?as_of=100", "/v1/diff?video_id=v&from_as_of=100"] {
            assert_problem(&server.get(target).await, 410, &json!({"oldest": 200}), target);
        }
    });
}

#[test]
fn one_top_list_too_many_is_told_to_come_back() {
    let limits = Limits { scans: 0, ..Limits::default() };
    Server::run_with(limits, None, |server| async move {
        tell_history(&server);
        let reply = server.get("/v1/top").await;
        assert_problem(&reply, 429, &json!({"type": "urn:tidemark:busy"}), "no room");
        assert!(reply.head.contains("retry-after: 1\r\n"), "{}", reply.head);
    });
}

#[test]
fn a_difference_has_the_windows_whose_values_are_others() {
    let change = |start: u64, from: u64, to: u64| json!({"start": start, "from": from, "to": to});
    let (later, last) = (change(60 * 60_000, 0, 1), change(61 * 60_000, 0, 1));
    // parameters | members of the answer
    let rows = [
        (
            "from_as_of=100",
            json!({
                "video_id": "v", "event_type": "view", "function": "count", "granularity": "minute",
                "from_as_of": 100, "to_as_of": 300, "from_total": 2, "to_total": 6,
                "changed": [change(0, 1, 2), change(59 * 60_000, 0, 1), later, last],
            }),
        ),
        ("from_as_of=100&to_as_of=299", json!({"to_as_of": 200, "to_total": 4, "changed": [change(0, 1, 2), later]})),
        ("from_as_of=100&end=60000", json!({"from_total": 1, "to_total": 2, "changed": [change(0, 1, 2)]})),
        ("from_as_of=100&granularity=all", json!({"changed": [change(0, 2, 6)], "start": 0, "end": 62 * 60_000})),
        ("from_as_of=100&granularity=hour", json!({"changed": [change(0, 2, 4), change(HOUR, 0, 2)]})),
        ("from_as_of=300", json!({"from_total": 6, "to_total": 6, "changed": []})),
        ("from_as_of=100&event_type=like", json!({"from_total": 1, "changed": []})),
    ];
    Server::run(|server| async move {
        tell_history(&server);
        for (parameters, expect) in rows {
            let reply = server.get(&format!("/v1/diff?video_id=v&{parameters}")).await;
            assert_eq!(reply.status, 200, "{parameters}: {reply:?}");
            assert_has(&reply.json(), &expect, parameters);
        }
    });
}

#[test]
fn one_window_of_all_has_changed_even_where_its_first_event_came_later() {
    Server::run(|server| async move {
        server.queries.count("v", "view", 9, 50);
        server.queries.count("v", "view", 4, 150);
        server.queries.announce_at(100, 0);
        server.queries.announce_at(200, 0);
        let answer = server.get("/v1/diff?video_id=v&granularity=all&from_as_of=100").await.json();
        assert_eq!(answer["changed"], json!([{"start": 240_000, "from": 1, "to": 2}]));
    });
}

fn header<'a>(reply: &'a Reply, name: &str) -> Option<&'a str> {
    reply.head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
}

#[test]
fn an_answer_that_can_never_change_may_be_kept_and_any_other_may_not() {
    const KEPT: &str = "public, max-age=31536000, immutable";
    const FIXED: &str = "/v1/videos/v/stats?start=0&end=3600000";
    Server::run(|server| async move {
        tell_history(&server);
        let reply = server.get(FIXED).await;
        assert_eq!((reply.status, header(&reply, "cache-control")), (200, Some(KEPT)), "{}", reply.head);
        let tag = header(&reply, "etag").unwrap().to_owned();
        assert!(tag.starts_with("w/\""), "heads are read in lower case, {tag}");
        for (target, is_kept) in [
            (FIXED, true),
            ("/v1/videos/v/stats?start=0&end=3600001", false),
            ("/v1/videos/v/stats?end=3600000", false),
            ("/v1/videos/v/stats?start=0", false),
            ("/v1/videos/v/stats?start=0&end=3600000&as_of=300", false),
            ("/v1/videos/v/stats?start=0&end=3600000&after=0:1", false),
        ] {
            let reply = server.get(target).await;
            let (control, tag) = (header(&reply, "cache-control"), header(&reply, "etag"));
            assert_eq!((control == Some(KEPT), tag.is_some()), (is_kept, is_kept), "{target}: {}", reply.head);
            assert!(is_kept || control == Some("no-store"), "{target}: {}", reply.head);
        }
        // The tag is of what does not change: not of the frontier, but of every value and of the question.
        server.queries.announce_at(400, 2 * HOUR);
        assert_eq!(header(&server.get(FIXED).await, "etag"), Some(&*tag));
        for other in ["/v1/videos/v/stats?start=0&end=3540000", "/v1/videos/w/stats?start=0&end=3600000"] {
            assert_ne!(header(&server.get(other).await, "etag"), Some(&*tag), "{other}");
        }
        let ask = async |target: &str, named: &str| {
            server
                .send(format!(
                    "GET {target} HTTP/1.1\r\nhost: t\r\nconnection: close\r\nif-none-match: {named}\r\n\r\n"
                ))
                .await
        };
        let named = tag.replace("w/", "W/");
        for (named, status) in [
            (named.clone(), 304),
            (format!("\"x\", {named}"), 304),
            (named.trim_start_matches("W/").to_owned(), 304),
            ("*".to_owned(), 304),
            ("W/\"x\"".to_owned(), 200),
        ] {
            let reply = ask(FIXED, &named).await;
            assert_eq!((reply.status, reply.body.is_empty()), (status, status == 304), "{named}: {reply:?}");
            assert_eq!((header(&reply, "etag"), header(&reply, "cache-control")), (Some(&*tag), Some(KEPT)), "{named}");
        }
        assert_eq!(ask("/v1/videos/v/stats?start=0", "*").await.status, 200, "what changes is sent");
    });
}

#[test]
fn what_is_behind_a_token_is_kept_by_its_owner_alone() {
    use sha2::Digest;
    let token_sha256 = sha2::Sha256::digest(b"s3cret").into();
    Server::run_with(Limits::default(), Some(token_sha256), |server| async move {
        tell_history(&server);
        let request = "GET /v1/videos/v/stats?start=0&end=60000 HTTP/1.1\r\nhost: t\r\nconnection: close\r\n\
            authorization: Bearer s3cret\r\n\r\n";
        let reply = server.send(request).await;
        assert_eq!(header(&reply, "cache-control"), Some("private, max-age=31536000, immutable"), "{}", reply.head);
    });
}
