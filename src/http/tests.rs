//! Every route over a real socket: a request, the status and what the answer says.

#![allow(clippy::unwrap_used)]

use std::{io::Write, time::Duration};

use dataflows::{
    announce::Announcement,
    functions::{Kept, quantiles::Quantiles, stats::Detail},
    time::{END_OF_TIME, Minute},
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::{
    Limits,
    testkit::{Reply, Server},
};
use crate::service::{Entry, IngestError};

pub const HOUR: u64 = 3_600_000;

const FUNCTIONS: [&str; 9] = ["count", "sum", "mean", "min", "max", "distinct", "p50", "p90", "p99"];

/// Fails unless `answer` has every member of `expect`, with its value.
pub fn assert_has(answer: &Value, expect: &Value, context: &str) {
    for (name, value) in expect.as_object().unwrap() {
        assert_eq!(answer.get(name), Some(value), "{name} of {answer} for {context}");
    }
}

pub fn assert_problem(reply: &Reply, status: u16, expect: &Value, context: &str) {
    assert_eq!(reply.status, status, "{context}: {reply:?}");
    assert!(reply.head.contains("content-type: application/problem+json\r\n"), "{context}: {}", reply.head);
    let problem = reply.json();
    assert_has(&problem, &json!({ "status": status }), context);
    assert_has(&problem, expect, context);
    for member in ["type", "title", "detail"] {
        assert!(problem[member].as_str().is_some_and(|text| !text.is_empty()), "{member} of {problem} for {context}");
    }
}

/// Looks again and again until it holds, which is a matter of milliseconds.
pub async fn until(what: &str, holds: impl AsyncFn() -> bool) {
    let looked = async {
        while !holds().await {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), looked)
        .await
        .unwrap_or_else(|_elapsed| panic!("20 s, and not: {what}"));
}

/// Two hours of views of `v`, announced at frontiers 100, 200 and 300; some of a name that needs encoding.
pub fn tell_history(server: &Server) {
    for (minute, time) in [(0, 50), (0, 150), (1, 50), (59, 250), (60, 150), (61, 299), (61, 300)] {
        server.queries.count("v", "view", minute, time);
    }
    server.queries.count("v", "like", 7, 50);
    server.queries.count("a/b c%ü", "view", 0, 50);
    server.queries.announce(100, 60_000, [1, 2]);
    server.queries.announce(200, 120_000, [3, 4]);
    server.queries.announce(300, HOUR, [10, 20]);
}

#[test]
fn stats_are_answered_at_a_frontier_in_windows_of_the_granularity() {
    // target | members of the answer
    let point = |start: u64, value: u64, is_final: bool| json!({"start": start, "value": value, "final": is_final});
    let rows = [
        (
            "/v1/videos/v/stats",
            json!({
                "video_id": "v", "event_type": "view", "function": "count", "granularity": "minute",
                "start": 0, "end": 62 * 60_000, "as_of": 300, "watermark": HOUR, "final": false, "total": 6,
                "series": [
                    point(0, 2, true), point(60_000, 1, true), point(59 * 60_000, 1, true),
                    point(HOUR, 1, false), point(61 * 60_000, 1, false),
                ],
            }),
        ),
        (
            "/v1/videos/v/stats?granularity=hour&function=count&event_type=view",
            json!({"start": 0, "end": 2 * HOUR, "total": 6, "series": [point(0, 4, true), point(HOUR, 2, false)]}),
        ),
        (
            "/v1/videos/v/stats?granularity=day",
            json!({"start": 0, "end": 24 * HOUR, "total": 6, "final": false, "series": [point(0, 6, false)]}),
        ),
        (
            "/v1/videos/v/stats?granularity=all&start=1&end=3600000",
            json!({"start": 0, "end": HOUR, "total": 4, "final": true, "series": [point(0, 4, true)]}),
        ),
        (
            "/v1/videos/v/stats?start=1970-01-01T00:00:59.999Z&end=1970-01-01T02:01:00.001%2B01:00",
            json!({"start": 0, "end": 62 * 60_000, "total": 6}),
        ),
        (
            "/v1/videos/v/stats?start=1970-01-01T02:00:00+02:00&end=60000",
            json!({"start": 0, "end": 60_000, "total": 2, "final": true}),
        ),
        (
            "/v1/videos/v/stats?granularity=hour&start=3600001",
            json!({"start": HOUR, "end": 2 * HOUR, "total": 2, "final": false, "series": [point(HOUR, 2, false)]}),
        ),
        (
            "/v1/videos/v/stats?as_of=299&granularity=all",
            json!({"as_of": 200, "watermark": 120_000, "total": 4, "series": [point(0, 4, false)]}),
        ),
        ("/v1/videos/v/stats?as_of=100", json!({"as_of": 100, "watermark": 60_000, "total": 2})),
        ("/v1/videos/v/stats?event_type=like", json!({"event_type": "like", "total": 1, "start": 7 * 60_000})),
        ("/v1/videos/a%2Fb%20c%25%C3%BC/stats", json!({"video_id": "a/b c%ü", "total": 1})),
        (
            "/v1/videos/nobody/stats?granularity=all",
            json!({"video_id": "nobody", "total": 0, "start": 0, "end": 0, "series": [], "final": false}),
        ),
        ("/v1/videos/v/stats?after=0:10,1:20", json!({"as_of": 300, "total": 6})),
        ("/v1/videos/v/stats?after=", json!({"as_of": 300})),
        ("/v1/videos/v/stats?&", json!({"as_of": 300})),
    ];
    Server::run(|server| async move {
        tell_history(&server);
        for (target, expect) in rows {
            let reply = server.get(target).await;
            assert_eq!(reply.status, 200, "{target}: {reply:?}");
            assert!(reply.head.contains("content-type: application/json\r\n"), "{}", reply.head);
            assert_has(&reply.json(), &expect, target);
        }
    });
}

#[test]
fn functions_are_answered_as_those_of_the_events_and_null_where_no_event_has_a_value() {
    // function | of both minutes, of the first and of the second | error
    let rows: [(&str, [Value; 3], Value); 9] = [
        ("count", [json!(4), json!(3), json!(1)], json!(null)),
        ("sum", [json!(0.6), json!(0.6), json!(0.0)], json!(null)),
        ("mean", [json!(0.3), json!(0.3), json!(null)], json!(null)),
        ("min", [json!(0.1), json!(0.1), json!(null)], json!(null)),
        ("max", [json!(0.5), json!(0.5), json!(null)], json!(null)),
        ("distinct", [json!(2), json!(2), json!(1)], json!(0.0)),
        ("p50", [json!(near(0.1)), json!(near(0.1)), json!(null)], json!(1.0 / 129.0)),
        ("p90", [json!(near(0.1)), json!(near(0.1)), json!(null)], json!(1.0 / 129.0)),
        ("p99", [json!(near(0.1)), json!(near(0.1)), json!(null)], json!(1.0 / 129.0)),
    ];
    Server::run(|server| async move {
        let detail = |value, user| Detail { kept: Kept::ALL, value, user };
        for (minute, value, user) in
            [(0, Some(0.1), Some(1)), (0, Some(0.5), Some(2)), (0, None, Some(1)), (1, None, Some(1))]
        {
            server.queries.count_with("v", "view", minute, 50, detail(value, user));
        }
        server.queries.announce(300, HOUR, [10, 20]);
        for (function, [total, first, second], error) in rows {
            let target = format!("/v1/videos/v/stats?function={function}");
            let answer = server.get(&target).await.json();
            let point = |start: u64, value: Value| json!({"start": start, "value": value, "final": true});
            assert_eq!(answer["function"], function);
            assert_eq!(answer["total"], total, "{answer}");
            assert_eq!(answer["series"], json!([point(0, first), point(60_000, second)]), "{answer}");
            assert_eq!(answer["error"], error, "{answer}");
            let hours = server.get(&format!("{target}&granularity=hour")).await.json();
            assert_eq!(hours["series"], json!([point(0, hours["total"].clone())]), "{hours}");
            let nobody = server.get(&format!("/v1/videos/nobody/stats?function={function}")).await.json();
            assert!(nobody["total"].is_null() || nobody["total"].as_f64() == Some(0.0), "{nobody}");
        }
    });
}

/// What stands for the values of a bin.
fn near(value: f64) -> f64 {
    let mut quantiles = Quantiles::default();
    quantiles.add(value);
    quantiles.at(50).unwrap()
}

#[test]
fn a_range_over_windows_that_have_left_memory_is_one_answer_without_a_seam() {
    Server::run(|server| async move {
        let detail = |value| Detail { kept: Kept::ALL, value: Some(value), user: Some(7) };
        for (minute, value) in [(0, 1.0), (1, 2.0), (1, 4.0), (2, 8.0), (60, 16.0)] {
            server.queries.count_with("v", "view", minute, 50, detail(value));
        }
        server.queries.announce(100, HOUR, [1, 2]);
        server.queries.leave(2);
        server.queries.announce(300, HOUR, [10, 20]);
        // target | total | windows
        let rows = [
            ("", json!(5), 4),
            ("?function=sum", json!(31.0), 4),
            ("?function=distinct&granularity=hour", json!(1), 2),
            ("?end=120000", json!(3), 2),
            ("?function=max&start=60000&end=180000", json!(8.0), 2),
            ("?start=120000", json!(2), 2),
            ("?as_of=100&granularity=all", json!(5), 1),
        ];
        for (parameters, total, windows) in rows {
            let answer = server.get(&format!("/v1/videos/v/stats{parameters}")).await.json();
            assert_eq!(
                (&answer["total"], answer["series"].as_array().map(Vec::len)),
                (&total, Some(windows)),
                "{answer}"
            );
        }
        let top = server.get("/v1/top").await.json();
        assert_has(&top, &json!({"start": 0, "end": 61 * 60_000, "top": [{"video_id": "v", "value": 5}]}), "top");
        let later = server.get("/v1/top?start=60000&end=180000").await.json();
        assert_eq!(later["top"][0]["value"], 3, "{later}");
    });
}

#[test]
fn windows_that_a_function_was_not_kept_of_are_not_answered_for_it() {
    Server::run(|server| async move {
        server.queries.count_with("v", "view", 0, 50, Detail { kept: Kept::NONE, value: Some(1.0), user: None });
        server.queries.count_with("v", "view", 0, 50, Detail { kept: Kept::ALL, value: Some(1.0), user: None });
        server.queries.count_with("v", "view", 2, 50, Detail { kept: Kept::ALL, value: Some(2.0), user: None });
        server.queries.announce(300, HOUR, [10, 20]);
        let refused = server.get("/v1/videos/v/stats?function=sum").await;
        assert_eq!(refused.status, 410, "{refused:?}");
        assert_has(&refused.json(), &json!({"type": "urn:tidemark:function-not-kept", "oldest_start": 60_000}), "sum");
        let later = server.get("/v1/videos/v/stats?function=sum&start=60000").await.json();
        assert_has(&later, &json!({"total": 2.0}), "sum");
        assert_eq!(server.get("/v1/videos/v/stats").await.json()["total"], 3);
    });
}

#[test]
fn what_cannot_be_answered_is_refused_by_name() {
    let id_of_129 = format!("/v1/videos/{}/stats", "x".repeat(129));
    let long = format!("/v1/videos/v/stats?granularity={}", "%1b".repeat(9000));
    // target | status | members of the problem
    let rows = [
        ("/v1/videos/v/stats?strat=5", 400, json!({"parameter": "strat"})),
        ("/v1/videos/v/stats?video_id=w", 400, json!({"parameter": "video_id"})),
        ("/v1/videos/v/stats?start=5&start=5", 400, json!({"parameter": "start", "detail": "start is given twice"})),
        ("/v1/videos/v/stats?function=median", 400, json!({"parameter": "function", "available": FUNCTIONS})),
        ("/v1/videos/v/stats?function=sum&event_type=like", 400, json!({"parameter": "function"})),
        ("/v1/videos/v/stats?granularity=week", 400, json!({"parameter": "granularity"})),
        ("/v1/videos/v/stats?event_type=View", 400, json!({"parameter": "event_type"})),
        ("/v1/videos/v/stats?event_type=", 400, json!({"parameter": "event_type"})),
        ("/v1/videos/v/stats?start=yesterday", 400, json!({"parameter": "start"})),
        ("/v1/videos/v/stats?end=253402300800001", 400, json!({"parameter": "end"})),
        ("/v1/videos/v/stats?end", 400, json!({"parameter": "end"})),
        ("/v1/videos/v/stats?start=%zz", 400, json!({"parameter": "start"})),
        ("/v1/videos/v/stats?start=60001&end=60000", 400, json!({"parameter": "end"})),
        ("/v1/videos/v/stats?as_of=301", 400, json!({"parameter": "as_of", "frontier": 300})),
        ("/v1/videos/v/stats?as_of=x", 400, json!({"parameter": "as_of"})),
        ("/v1/videos/v/stats?as_of=99", 410, json!({"oldest": 100, "type": "urn:tidemark:as-of-gone"})),
        ("/v1/videos/v/stats?after=0:1&as_of=300", 400, json!({"parameter": "after"})),
        ("/v1/videos/v/stats?after=0-1", 400, json!({"parameter": "after"})),
        ("/v1/videos/v/stats?after=2:0", 400, json!({"parameter": "after"})),
        ("/v1/videos/%00/stats", 400, json!({"parameter": "video_id"})),
        ("/v1/videos/%/stats", 400, json!({"parameter": "video_id"})),
        ("/v1/videos/%ff/stats", 400, json!({"parameter": "video_id"})),
        (&id_of_129, 400, json!({"parameter": "video_id"})),
        (&long, 400, json!({"parameter": "granularity"})),
        ("/nothing", 404, json!({"type": "urn:tidemark:not-found"})),
        ("/v1", 404, json!({})),
        ("/v1/tops", 404, json!({})),
        ("/v1/videos/v/stats/x", 404, json!({})),
        ("/v1/videos//stats", 404, json!({})),
        ("/v1/events", 405, json!({})),
        ("/v1/stats", 405, json!({})),
    ];
    Server::run(|server| async move {
        tell_history(&server);
        for (target, status, expect) in rows {
            let reply = server.get(target).await;
            assert_problem(&reply, status, &expect, target);
            assert!(reply.body.len() < 1024 && !reply.body.contains("\\u00"), "{}", reply.body);
        }
    });
}

#[test]
fn a_path_says_which_methods_it_takes() {
    Server::run(|server| async move {
        server.queries.announce_at(300, 0);
        for (method, target, status, allow) in [
            ("GET", "/v1/events", 405, "allow: post\r\n"),
            ("PUT", "/v1/events", 405, "allow: post\r\n"),
            ("GET", "/v1/stats", 405, "allow: post\r\n"),
            ("POST", "/v1/videos/v/stats", 405, "allow: get, head\r\n"),
            ("DELETE", "/v1/status", 405, "allow: get, head\r\n"),
            ("OPTIONS", "/healthz", 405, "allow: get, head\r\n"),
            ("DELETE", "/nowhere", 404, ""),
            ("HEAD", "/v1/videos/v/stats", 200, ""),
        ] {
            let request = format!("{method} {target} HTTP/1.1\r\nhost: t\r\nconnection: close\r\n\r\n");
            let reply = server.send(request).await;
            assert_eq!(reply.status, status, "{method} {target}");
            assert!(reply.head.contains(allow), "{method} {target}: {}", reply.head);
            assert_eq!(reply.body.is_empty(), method == "HEAD", "{method} {target}");
        }
    });
}

#[test]
fn before_the_first_frontier_queries_are_told_to_come_back() {
    Server::run(|server| async move {
        for reply in [server.get("/v1/videos/v/stats").await, server.post("/v1/stats", "", "[]").await] {
            assert_problem(&reply, 503, &json!({"type": "urn:tidemark:unavailable"}), "no frontier");
            assert!(reply.head.contains("retry-after: 1\r\n"), "{}", reply.head);
        }
    });
}

#[test]
fn history_that_was_merged_in_the_meantime_is_gone() {
    Server::run(|server| async move {
        tell_history(&server);
        server.queries.merge_before(200);
        let reply = server.get("/v1/videos/v/stats?as_of=100").await;
        assert_problem(&reply, 410, &json!({"oldest": 200}), "merged");
        assert_eq!(server.get("/v1/videos/v/stats?as_of=200").await.status, 200);
    });
}

/// The frontier had leapt from 0 by more than is retained, between the choice of a moment and the answer: a query that named
/// no moment was answered with 410.
#[test]
fn regression_a_query_that_names_no_moment_takes_a_newer_one_when_its_own_was_merged() {
    Server::run(|server| async move {
        tell_history(&server);
        server.queries.merge_before(5_000);
        // The index knows of the leap already; it is announced while the query waits.
        let announced = async {
            until("the query waits", async || server.queries.waiting() != 0).await;
            server.queries.announce_at(6_000, 0);
        };
        let (reply, ()) = tokio::join!(server.get("/v1/videos/v/stats"), announced);
        assert_eq!((reply.status, &reply.json()["as_of"]), (200, &json!(6_000)), "{}", reply.head);
        server.queries.merge_before(7_000);
        let announced = async {
            until("the batch waits", async || server.queries.waiting() != 0).await;
            server.queries.announce_at(8_000, 0);
        };
        let (reply, ()) =
            tokio::join!(server.post("/v1/stats", "", r#"[{"video_id":"v"},{"video_id":"w"}]"#), announced);
        assert_eq!((reply.status, &reply.json()[1]["as_of"]), (200, &json!(8_000)), "{}", reply.head);
    });
}

#[test]
fn an_answer_has_so_many_windows_and_no_more() {
    let limits = Limits { windows_max: 3, ..Limits::default() };
    Server::run_with(limits, None, |server| async move {
        for (video_id, minutes) in [("three", 0..3), ("four", 0..4)] {
            for minute in minutes {
                server.queries.count(video_id, "view", minute, 0);
            }
        }
        server.queries.announce_at(300, 0);
        assert_eq!(server.get("/v1/videos/three/stats").await.status, 200);
        assert_problem(&server.get("/v1/videos/four/stats").await, 400, &json!({"parameter": "granularity"}), "four");
        assert_eq!(server.get("/v1/videos/four/stats?granularity=hour").await.status, 200);
        let reply = server.post("/v1/stats", "", r#"[{"video_id":"three"},{"video_id":"three"}]"#).await;
        assert_problem(&reply, 400, &json!({"parameter": "granularity"}), "three and three");
    });
}

#[test]
fn an_ended_input_makes_everything_final_with_a_watermark_that_any_reader_can_hold() {
    Server::run(|server| async move {
        server.queries.count("v", "view", 5, 0);
        let (frontier, watermark) = (1000, END_OF_TIME);
        server.queries.announce_whole(Announcement {
            frontier,
            watermark,
            held_by: None,
            hot_from: Minute(0),
            partitions: vec![],
        });
        let answer = server.get("/v1/videos/v/stats").await.json();
        assert_has(&answer, &json!({"final": true, "watermark": 253_402_300_800_000_u64}), "stats");
        let status = server.get("/v1/status").await.json();
        assert_has(&status, &json!({"watermark": 253_402_300_800_000_u64}), "status");
        assert_eq!(status["watermark_held_by"]["words"], "nobody: all partitions have ended");
    });
}

#[test]
fn a_batch_is_answered_at_one_frontier() {
    Server::run(|server| async move {
        tell_history(&server);
        let body = r#"[
            {"video_id": "v", "granularity": "all", "start": 0, "end": "1970-01-01T01:00:00Z"},
            {"video_id": "a/b c%ü", "granularity": "all", "event_type": null},
            {"video_id": "v", "as_of": 250, "function": "count", "event_type": "like"},
            {"video_id": "v", "as_of": "250"}
        ]"#;
        let reply = server.post("/v1/stats", "content-type: application/json\r\n", body).await;
        assert_eq!(reply.status, 200, "{reply:?}");
        let answers = reply.json();
        let told: Vec<_> = answers.as_array().unwrap().iter().map(|a| (&a["as_of"], &a["total"], &a["end"])).collect();
        let (as_of, hour) = (json!(200), json!(HOUR));
        assert_eq!(
            told,
            [
                (&as_of, &json!(3), &hour),
                (&as_of, &json!(1), &json!(60_000)),
                (&as_of, &json!(1), &json!(480_000)),
                (&as_of, &json!(4), &json!(61 * 60_000)),
            ]
        );
        let latest =
            server.post("/v1/stats", "", r#"[{"video_id":"v","after":"0:10"},{"video_id":"v","after":"1:20"}]"#);
        assert_eq!(latest.await.json()[1]["as_of"], 300);
        assert_eq!(server.post("/v1/stats", "", "[]").await.json(), json!([]));
    });
}

#[test]
fn a_batch_with_a_fault_is_refused_whole() {
    let many = |n: usize| format!("[{}]", vec![r#"{"video_id":"v"}"#; n].join(","));
    // body | status | members of the problem
    let rows = [
        ("{}".to_owned(), 400, json!({"type": "urn:tidemark:bad-body"})),
        ("".to_owned(), 400, json!({})),
        ("[{}]".to_owned(), 400, json!({"parameter": "video_id", "index": 0})),
        (r#"[{"video_id":"v"},{"video_id":"v","strat":1}]"#.to_owned(), 400, json!({"index": 1})),
        (r#"[{"video_id":"v","video_id":"v"}]"#.to_owned(), 400, json!({"index": 0})),
        (r#"[{"video_id":"v","start":1.5}]"#.to_owned(), 400, json!({"index": 0})),
        (r#"[{"video_id":"v","function":"p98"}]"#.to_owned(), 400, json!({"index": 0, "available": FUNCTIONS})),
        (
            r#"[{"video_id":"v","as_of":100},{"video_id":"v","as_of":200}]"#.to_owned(),
            400,
            json!({"parameter": "as_of"}),
        ),
        (
            r#"[{"video_id":"v","as_of":100},{"video_id":"v","after":"0:1"}]"#.to_owned(),
            400,
            json!({"parameter": "after"}),
        ),
        (many(1001), 413, json!({"detail": "an array may have 1000 items"})),
    ];
    Server::run(|server| async move {
        tell_history(&server);
        for (body, status, expect) in rows {
            assert_problem(&server.post("/v1/stats", "", &body).await, status, &expect, &body);
        }
        assert_eq!(server.post("/v1/stats", "", many(1000)).await.status, 200);
        let gzipped = server.post("/v1/stats", "content-encoding: gzip\r\n", "[]").await;
        assert_problem(&gzipped, 415, &json!({}), "gzip");
    });
}

#[test]
fn a_query_waits_for_the_write_that_it_names_and_no_longer() {
    Server::run(|server| async move {
        server.queries.announce(100, 0, [10, 20]);
        server.queries.count("v", "view", 0, 150);
        let waiting = server.get("/v1/videos/v/stats?after=0:11,1:20");
        let told = async {
            // The request may come before or behind these: each announcement wakes it, and only the last one has its write.
            server.queries.announce(200, 0, [10, 21]);
            server.queries.announce(300, 0, [11, 21]);
        };
        let (reply, ()) = tokio::join!(waiting, told);
        assert_has(&reply.json(), &json!({"as_of": 300, "total": 1}), "after");
    });
}

#[test]
fn a_waiting_query_is_woken_by_the_announcement() {
    Server::run(|server| async move {
        server.queries.announce(100, 0, [10, 20]);
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        let request = "GET /v1/videos/v/stats?after=0:11 HTTP/1.1\r\nhost: t\r\nconnection: close\r\n\r\n";
        stream.write_all(request.as_bytes()).await.unwrap();
        // It waits once it holds a receiver of its own; only then is there something to wake.
        until("the request waits", async || 0 < server.queries.waiting()).await;
        server.queries.announce(200, 0, [11, 20]);
        let reply = Reply::read(&mut stream).await;
        assert_eq!((reply.status, &reply.json()["as_of"]), (200, &json!(200)));
    });
}

#[test]
fn a_query_gives_up_on_a_write_that_does_not_come() {
    let limits = Limits { after_wait: Duration::from_millis(20), ..Limits::default() };
    Server::run_with(limits, None, |server| async move {
        let nothing_announced = server.get("/v1/videos/v/stats?after=0:1").await;
        assert_problem(&nothing_announced, 504, &json!({"type": "urn:tidemark:not-included-yet"}), "none");
        server.queries.announce(100, 0, [10, 20]);
        let reply = server.get("/v1/videos/v/stats?after=0:10,1:21").await;
        assert_problem(&reply, 504, &json!({}), "one partition short");
        assert!(reply.head.contains("retry-after: 1\r\n"));
    });
}

fn gzip(text: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(text).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn events_are_taken_one_by_one_and_logged_as_they_came() {
    let two = b"{\"video_id\":\"a\"}\n{\"video_id\":\"b\"}\n";
    let json_type = "content-type: application/json; charset=utf-8\r\n";
    let lines_type = "content-type: application/x-ndjson\r\n";
    let rejected = |index: usize, detail: &str| json!({"index": index, "reason": "malformed", "detail": detail});
    // headers | body | the answer; each row adds to the log's 40 records
    type Row = (String, Vec<u8>, Value);
    let rows: Vec<Row> = vec![
        (
            json_type.into(),
            br#"{"video_id":"a", "n":1.0}"#.into(),
            json!({"accepted": 1, "rejected": [], "token": "1:41,3:7"}),
        ),
        (
            json_type.into(),
            br#"[{"video_id":"b"}, 7, {"video_id":1}]"#.into(),
            json!({"accepted": 1, "rejected": [rejected(1, "json"), rejected(2, "type")], "token": "1:42,3:7"}),
        ),
        (String::new(), two.into(), json!({"accepted": 2, "rejected": [], "token": "1:44,3:7"})),
        (
            lines_type.into(),
            b"nonsense\n\xff\n".into(),
            json!({"accepted": 0, "rejected": [rejected(0, "json"), rejected(1, "utf8")], "token": ""}),
        ),
        (json_type.into(), b"[]".into(), json!({"accepted": 0, "rejected": [], "token": ""})),
        (
            format!("{lines_type}content-encoding: gzip\r\n"),
            gzip(two),
            json!({"accepted": 2, "rejected": [], "token": "1:46,3:7"}),
        ),
        (
            format!("{lines_type}Content-Encoding: ZSTD\r\n"),
            zstd::encode_all(&two[..], 3).unwrap(),
            json!({"accepted": 2, "rejected": [], "token": "1:48,3:7"}),
        ),
        // What `curl -d` says when it is told nothing.
        (
            "content-type: application/x-www-form-urlencoded\r\n".into(),
            br#"{"video_id":"c"}"#.into(),
            json!({"accepted": 1, "rejected": [], "token": "1:49,3:7"}),
        ),
    ];
    Server::run(|server| async move {
        for (headers, body, expect) in rows {
            let reply = server.post("/v1/events", &headers, &body).await;
            assert_eq!(reply.status, 202, "{headers}: {reply:?}");
            assert_eq!(reply.json(), expect, "{headers}");
        }
        let entry = |key: &str, payload: &str| Entry { key: key.into(), payload: payload.into() };
        let entries = server.ingest.entries.lock().unwrap();
        assert_eq!(
            entries[..3],
            [
                entry("a", r#"{"video_id":"a", "n":1.0}"#),
                entry("b", r#"{"video_id":"b"}"#),
                entry("a", r#"{"video_id":"a"}"#)
            ]
        );
    });
}

#[test]
fn bodies_that_cannot_be_read_are_refused_and_nothing_of_them_is_logged() {
    let json_type = "content-type: application/json\r\n";
    let bomb = gzip(&vec![b' '; (16 << 20) + 1]);
    // headers | body | status
    let rows: Vec<(String, Vec<u8>, u16)> = vec![
        (json_type.into(), b"nonsense".into(), 400),
        (json_type.into(), b"".into(), 400),
        (json_type.into(), br#"[{"video_id":"a"},"#.into(), 400),
        (json_type.into(), b"{\"video_id\":\"a\"}\n{\"video_id\":\"b\"}".into(), 400),
        ("content-type: text/plain\r\n".into(), b"{\"video_id\":\"a\"}".into(), 415),
        ("content-encoding: br\r\n".into(), b"{\"video_id\":\"a\"}".into(), 415),
        ("content-encoding: gzip, gzip\r\n".into(), b"{\"video_id\":\"a\"}".into(), 415),
        ("content-encoding: gzip\r\ncontent-encoding: zstd\r\n".into(), b"{\"video_id\":\"a\"}".into(), 415),
        ("content-encoding: gzip\r\n".into(), b"{\"video_id\":\"a\"}".into(), 400),
        ("content-encoding: gzip\r\n".into(), bomb, 413),
    ];
    Server::run(|server| async move {
        for (headers, body, status) in rows {
            assert_problem(&server.post("/v1/events", &headers, &body).await, status, &json!({}), &headers);
        }
        assert_eq!(server.ingest.entries.lock().unwrap().len(), 0);
    });
}

#[test]
fn a_body_is_counted_while_it_streams_in() {
    let limits = Limits { body_bytes: 100, ..Limits::default() };
    Server::run_with(limits, None, |server| async move {
        let event = |len: usize| format!("{{\"video_id\":\"{}\"}}", "v".repeat(len - 15));
        assert_eq!(server.post("/v1/events", "", event(100)).await.status, 202);
        assert_problem(&server.post("/v1/events", "", event(101)).await, 413, &json!({}), "101 bytes");
        let chunked = |chunks: &[&str]| {
            let head = "POST /v1/events HTTP/1.1\r\nhost: t\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n";
            let chunks = chunks.iter().map(|chunk| format!("{:x}\r\n{chunk}\r\n", chunk.len())).collect::<String>();
            format!("{head}{chunks}0\r\n\r\n")
        };
        let whole = event(100);
        assert_eq!(server.send(chunked(&[&whole[..1], &whole[1..50], &whole[50..]])).await.status, 202);
        let reply = server.send(chunked(&[&whole, "\n"])).await;
        assert_problem(&reply, 413, &json!({}), "chunks of 101 bytes");
        // Whoever asks first is refused before the body is sent; this client never sends it.
        let head = "POST /v1/events HTTP/1.1\r\nhost: t\r\nexpect: 100-continue\r\ncontent-length: 101\r\n\r\n";
        assert_problem(&server.send(head).await, 413, &json!({}), "expect");
        assert_eq!(server.ingest.entries.lock().unwrap().len(), 2);
    });
}

#[test]
fn bodies_share_a_room_and_give_it_back() {
    let limits = Limits { bodies_bytes: 40, ..Limits::default() };
    Server::run_with(limits, None, |server| async move {
        let event = |len: usize| format!("{{\"video_id\":\"{}\"}}", "v".repeat(len - 15));
        // Of a body that is longer than the room, the rest does not fit, however often it is tried.
        let head = "POST /v1/events HTTP/1.1\r\nhost: t\r\nconnection: close\r\ncontent-length: 30\r\n\r\n";
        let start = format!("{head}{}", &event(30)[..25]);
        let holding = async {
            'held: loop {
                let mut held = TcpStream::connect(server.address).await.unwrap();
                held.write_all(start.as_bytes()).await.unwrap();
                loop {
                    // Until the server has read what is held, the other one still fits.
                    let reply = server.post("/v1/events", "", event(16)).await;
                    if reply.status == 429 {
                        assert_problem(&reply, 429, &json!({"type": "urn:tidemark:busy"}), "full");
                        assert!(reply.head.contains("retry-after: 1\r\n"));
                        return held;
                    }
                    assert_eq!(reply.status, 202);
                    // An earlier one that has not left yet may have taken the room: then the held one was refused.
                    let answered = tokio::time::timeout(Duration::from_millis(1), held.peek(&mut [0])).await;
                    if answered.is_ok() {
                        continue 'held;
                    }
                }
            }
        };
        let mut held = tokio::time::timeout(Duration::from_secs(20), holding).await.unwrap();
        held.write_all(&event(30).as_bytes()[25..]).await.unwrap();
        assert_eq!(Reply::read(&mut held).await.status, 202);
        assert_eq!(server.post("/v1/events", "", event(40)).await.status, 202, "the room is empty again");
    });
}

#[test]
fn a_log_that_does_not_take_events_is_never_a_success() {
    // error | status | kind | comes again after, s
    let rows: [(fn() -> IngestError, _, _, _); 3] = [
        (|| IngestError::Busy, 429, "urn:tidemark:busy", 1),
        (|| IngestError::Failed("no space\n".into()), 503, "urn:tidemark:unavailable", 1),
        (|| IngestError::NoRoom, 507, "urn:tidemark:no-room", 10),
    ];
    Server::run(|server| async move {
        for (error, status, kind, seconds) in rows {
            *server.ingest.fails_with.lock().unwrap() = Some(error);
            let reply = server.post("/v1/events", "", r#"{"video_id":"a"}"#).await;
            assert_problem(&reply, status, &json!({"type": kind}), kind);
            assert!(reply.head.contains(&format!("retry-after: {seconds}\r\n")), "{}", reply.head);
            let all_rejected = server.post("/v1/events", "", "{}").await;
            assert_eq!(all_rejected.status, 202, "the log is not needed for what is refused");
        }
        let metrics = server.get("/metrics").await.body;
        assert!(metrics.contains("tidemark_ingest_accepted_total 0\n"), "{metrics}");
    });
}

#[test]
fn clients_that_do_not_go_on_are_let_go() {
    let limits = Limits {
        head_timeout: Duration::from_millis(30),
        body_timeout: Duration::from_millis(30),
        idle_timeout: Duration::from_millis(500),
        ..Limits::default()
    };
    Server::run_with(limits, None, |server| async move {
        let body_missing = "POST /v1/events HTTP/1.1\r\nhost: t\r\ncontent-length: 10\r\n\r\n{";
        assert_problem(&server.send(body_missing).await, 408, &json!({}), "half a body");
        // Nothing is said to half a head and to silence: the connection just ends.
        for bytes in ["", "GET /healthz HT"] {
            let mut stream = TcpStream::connect(server.address).await.unwrap();
            stream.write_all(bytes.as_bytes()).await.unwrap();
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer).await.unwrap();
            assert_eq!(answer, b"", "{bytes:?}");
        }
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: t\r\n\r\n").await.unwrap();
        assert_eq!(Reply::read(&mut stream).await.body, "ok", "and then silence");
    });
}

#[test]
fn half_a_head_is_cut_off_long_before_an_idle_connection() {
    let head_timeout = Duration::from_millis(30);
    let limits = Limits { head_timeout, ..Limits::default() };
    Server::run_with(limits, None, |server| async move {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        // The second head of a connection counts from its own first byte.
        stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: t\r\n\r\n").await.unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\nok") {
            assert_ne!(stream.read_buf(&mut answer).await.unwrap(), 0, "the connection stays open");
        }
        let silence = tokio::time::timeout(10 * head_timeout, stream.read_buf(&mut answer)).await;
        assert!(silence.is_err(), "an idle connection outlives the time that a head has");
        stream.write_all(b"GET /healthz HT").await.unwrap();
        let ended = tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut Vec::new())).await;
        ended.expect("the idle timeout is 60 s").unwrap();
    });
}

#[test]
fn one_connection_too_many_is_told_so() {
    let limits = Limits { connections: 1, ..Limits::default() };
    Server::run_with(limits, None, |server| async move {
        let mut first = TcpStream::connect(server.address).await.unwrap();
        first.write_all(b"GET /healthz HTTP/1.1\r\nhost: t\r\n\r\n").await.unwrap();
        let mut answered = [0; 16];
        first.read_exact(&mut answered).await.unwrap();
        let mut second = TcpStream::connect(server.address).await.unwrap();
        assert_problem(&Reply::read(&mut second).await, 503, &json!({"type": "urn:tidemark:connections"}), "second");
    });
}

#[test]
fn heads_that_are_too_large_are_refused() {
    let limits = Limits { head_bytes: 8192, ..Limits::default() };
    Server::run_with(limits, None, |server| async move {
        let head = |headers: String| format!("GET /healthz HTTP/1.1\r\nhost: t\r\nconnection: close\r\n{headers}\r\n");
        assert_eq!(server.send(head("a: b\r\n".repeat(98))).await.status, 200);
        assert_eq!(server.send(head("a: b\r\n".repeat(99))).await.status, 431);
        assert_eq!(server.send(head(format!("a: {}\r\n", "b".repeat(8192)))).await.status, 431);
    });
}

#[test]
fn a_token_opens_all_but_the_health_checks_which_are_open() {
    use sha2::Digest;
    let token_sha256 = sha2::Sha256::digest(b"s3cret").into();
    Server::run_with(Limits::default(), Some(token_sha256), |server| async move {
        tell_history(&server);
        for target in [
            "/v1/videos/v/stats",
            "/v1/top",
            "/v1/diff?video_id=v&from_as_of=100",
            "/v1/status",
            "/metrics",
            "/v1/events",
            "/v1/stats",
        ] {
            let method = if matches!(target, "/v1/events" | "/v1/stats") { "POST" } else { "GET" };
            let request = |header: &str| {
                let headers = format!("host: t\r\nconnection: close\r\ncontent-length: 2\r\n{header}");
                format!("{method} {target} HTTP/1.1\r\n{headers}\r\n[]")
            };
            for wrong in ["", "authorization: Bearer s3cre\r\n", "authorization: Basic s3cret\r\n"] {
                let reply = server.send(request(wrong)).await;
                assert_problem(&reply, 401, &json!({"type": "urn:tidemark:unauthorized"}), target);
                assert!(reply.head.contains("www-authenticate: bearer\r\n"), "{}", reply.head);
            }
            let right = server.send(request("authorization: Bearer s3cret\r\n")).await;
            assert!([200, 202].contains(&right.status), "{target}: {right:?}");
        }
        for target in ["/healthz", "/readyz"] {
            assert_eq!(server.get(target).await.status, 200, "{target}");
        }
    });
}

#[test]
fn readiness_follows_the_first_frontier_and_what_is_degraded() {
    Server::run(|server| async move {
        assert_eq!(server.get("/healthz").await.body, "ok");
        let reply = server.get("/readyz").await;
        assert_problem(&reply, 503, &json!({"reasons": ["no frontier has been reached yet"]}), "no frontier");
        server.queries.announce_at(100, 0);
        assert_eq!(server.get("/readyz").await.status, 200);
        server.status.degraded.lock().unwrap().push("the broker does not answer".into());
        let reply = server.get("/readyz").await;
        assert_problem(&reply, 503, &json!({"reasons": ["the broker does not answer"]}), "degraded");
        assert_eq!(server.get("/healthz").await.status, 200, "alive all the same");
        assert_eq!(server.get("/v1/videos/v/stats").await.status, 200, "queries answer at the old frontier");
    });
}

#[test]
fn the_status_is_told_in_words_and_numbers() {
    Server::run(|server| async move {
        let before = server.get("/v1/status").await.json();
        let expect = json!({"frontier": null, "watermark": null, "lag_ms": null, "partitions": [], "ready": false});
        assert_has(&before, &expect, "before the first frontier");

        server.queries.announce(1_000_000, 400_000, [10, 20]);
        let status = server.get("/v1/status").await.json();
        let ledger = |n: u64, balances: bool| {
            json!({
                "read": n, "counted": n, "duplicate": 0, "late": 0, "future": 0, "malformed": 0, "oversize": 0, "lost": 0,
                "balances": balances,
            })
        };
        let expect = json!({
            "ready": true,
            "degraded": [],
            "bottleneck": "nothing: the input is drained",
            "uptime_ms": 5000,
            "generation": 3,
            "frontier": 1_000_000,
            "watermark": 400_000,
            "watermark_held_by":
                {"partition": 1, "clock": 1_000_000, "words": "partition 1 has the least clock, 1000000"},
            "ledger": ledger(30, true),
            "partitions": [
                {"partition": 0, "next_offset": 10, "clock": 1_000_000, "ended": false, "ledger": ledger(10, true)},
                {"partition": 1, "next_offset": 20, "clock": 1_000_000, "ended": false, "ledger": ledger(20, true)},
            ],
            "checkpoints": {
                "last": {"number": 12, "frontier": 900, "age_ms": 2500, "bytes": 4096, "duration_ms": 30},
                "failed": 1,
            },
            "workers": [{"worker": 0, "heartbeat_age_ms": 4}, {"worker": 1, "heartbeat_age_ms": 1500}],
        });
        assert_has(&status, &expect, "status");
        assert!(1_767_225_600_000 < status["lag_ms"].as_u64().unwrap(), "the wall clock is past 2026");
        assert!(status["summary"].as_str().unwrap().starts_with("ready: 30 events are counted"), "{status}");
    });
}

#[test]
fn two_imbalances_do_not_cancel_out() {
    Server::run(|server| async move {
        server.queries.announce(1_000_000, 400_000, [10, 20]);
        let mut whole = Announcement::clone(&*crate::service::Queries::latest(&*server.queries).unwrap());
        whole.partitions[0].ledger.read += 1;
        whole.partitions[1].ledger.read -= 1;
        server.queries.announce_whole(whole);
        let status = server.get("/v1/status").await.json();
        assert_eq!((&status["ledger"]["read"], &status["ledger"]["balances"]), (&json!(30), &json!(false)));
        let metrics = server.get("/metrics").await.body;
        assert!(metrics.contains("tidemark_ledger_balances 0\n"), "{metrics}");
    });
}

#[test]
fn metrics_show_requests_events_and_the_newest_frontier() {
    Server::run(|server| async move {
        server.queries.announce(1_767_225_600_500, 400_000, [10, 20]);
        server.post("/v1/events", "", r#"[{"video_id":"a"},{"video_id":"b"},{},1]"#).await;
        server.get("/v1/videos/v/stats").await;
        server.get("/v1/videos/v/stats?x=1").await;
        server.get("/v1/videos/w/stats").await;
        server.get("/nowhere/else").await;
        let reply = server.get("/metrics").await;
        assert!(reply.head.contains("content-type: text/plain; version=0.0.4"), "{}", reply.head);
        for line in [
            "tidemark_http_requests_total{route=\"video_stats\",status=\"200\"} 2",
            "tidemark_http_requests_total{route=\"video_stats\",status=\"400\"} 1",
            "tidemark_http_requests_total{route=\"events\",status=\"202\"} 1",
            "tidemark_http_requests_total{route=\"unknown\",status=\"404\"} 1",
            "tidemark_ingest_accepted_total 2",
            "tidemark_ingest_rejected_total{reason=\"malformed\",detail=\"missing\"} 1",
            "tidemark_ingest_rejected_total{reason=\"malformed\",detail=\"json\"} 1",
            "tidemark_frontier_seconds 1767225600.5",
            "tidemark_watermark_seconds 400.0",
            "tidemark_ledger_records{partition=\"1\",account=\"counted\"} 20",
            "tidemark_ledger_records{partition=\"0\",account=\"late\"} 0",
            "tidemark_ledger_balances 1",
            "tidemark_checkpoint_number 12",
            "tidemark_checkpoint_age_seconds 2.5",
            "tidemark_checkpoint_size_bytes 4096",
            "tidemark_checkpoints_failed 1",
            "tidemark_worker_heartbeat_age_seconds{worker=\"1\"} 1.5",
            "tidemark_ready 1",
        ] {
            assert!(reply.body.lines().any(|got| got == line), "{line} in\n{}", reply.body);
        }
    });
}

#[test]
fn a_request_in_progress_is_answered_before_the_server_ends() {
    Server::run(|mut server| async move {
        server.queries.announce(100, 0, [10, 20]);
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        stream.write_all(b"GET /v1/videos/v/stats?after=0:11 HTTP/1.1\r\nhost: t\r\n\r\n").await.unwrap();
        until("the request waits", async || 0 < server.queries.waiting()).await;
        server.stop.take().unwrap().send(()).unwrap();
        // The listener goes first: once nobody can connect, the shutdown has begun.
        until("nobody can connect", async || TcpStream::connect(server.address).await.is_err()).await;
        server.queries.announce(200, 0, [11, 20]);
        assert_eq!(Reply::read(&mut stream).await.status, 200);
        server.ended.await.unwrap().unwrap();
    });
}

#[test]
fn a_request_that_never_ends_does_not_hold_the_server() {
    let (shutdown_wait, after_wait) = (Duration::from_millis(20), Duration::from_secs(3600));
    let limits = Limits { shutdown_wait, after_wait, ..Limits::default() };
    Server::run_with(limits, None, |mut server| async move {
        server.queries.announce(100, 0, [10, 20]);
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        stream.write_all(b"GET /v1/videos/v/stats?after=0:11 HTTP/1.1\r\nhost: t\r\n\r\n").await.unwrap();
        until("the request waits", async || 0 < server.queries.waiting()).await;
        server.stop.take().unwrap().send(()).unwrap();
        let ended = tokio::time::timeout(Duration::from_secs(20), server.ended).await;
        ended.expect("the request waits for an hour").unwrap().unwrap();
    });
}

#[test]
fn an_address_in_use_is_an_error_that_names_it() {
    Server::run(|server| async move {
        let error = super::testkit::bind_again(server.address).unwrap_err();
        assert_eq!(error.to_string(), format!("can't listen at {}", server.address));
    });
}
