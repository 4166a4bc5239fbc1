//! Names and channels over a real socket: what is taken, what answers are labelled with, and what is asked of channels.

#![allow(clippy::unwrap_used)]

use dataflows::dimensions::Change;
use serde_json::{Value, json};

use super::{
    Limits,
    testkit::Server,
    tests::{HOUR, assert_has, assert_problem, tell_history},
};

fn video(video_id: &str, name: Option<&str>, channel_id: Option<&str>) -> Change {
    let owned = |text: Option<&str>| text.map(str::to_owned);
    Change::Video { video_id: video_id.into(), name: owned(name), channel_id: owned(channel_id) }
}

fn channel(channel_id: &str, name: Option<&str>) -> Change {
    Change::Channel { channel_id: channel_id.into(), name: name.map(str::to_owned) }
}

#[test]
fn what_is_well_formed_is_taken_under_the_key_of_its_subject_and_the_rest_is_told() {
    Server::run(|server| async move {
        let items =
            r#"[{"video_id":"v","name":"A cat"}, {"video_id":"v","title":"A cat"}, {"channel_id":"c"}, {"name":"x"}]"#;
        let reply = server.post("/v1/dimensions", "content-type: application/json\r\n", items).await;
        assert_eq!(reply.status, 202, "{reply:?}");
        let refused = |index: u8, detail: &str| json!({"index": index, "reason": "malformed", "detail": detail});
        let expect = json!({"accepted": 2, "rejected": [refused(1, "type"), refused(3, "missing")]});
        assert_eq!(reply.json(), expect);
        let kept: Vec<_> = server.ingest.entries.lock().unwrap().iter().map(|entry| entry.key.clone()).collect();
        assert_eq!(kept, ["video:v", "channel:c"]);
        let lines =
            server.post("/v1/dimensions", "content-type: application/x-ndjson\r\n", "{\"channel_id\":\"d\"}\n").await;
        assert_eq!(lines.json(), json!({"accepted": 1, "rejected": []}));

        *server.ingest.fails_with.lock().unwrap() = Some(|| crate::service::IngestError::Failed("no disk".into()));
        let reply = server.post("/v1/dimensions", "", r#"{"video_id":"v"}"#).await;
        assert_problem(&reply, 503, &json!({}), "names that can't be kept");
        assert!(reply.body.contains("the store of names can't be written"), "{reply:?}");
    });
}

#[test]
fn answers_carry_the_names_that_are_known_now_and_none_where_none_is() {
    let cat = json!({"video_name": "A cat", "channel_id": "c", "channel_name": "Cats"});
    Server::run(|server| async move {
        tell_history(&server);
        let labels = ["video_name", "channel_id", "channel_name"];
        let none = |answer: &Value| labels.iter().all(|label| answer.get(label).is_none());
        let stats = "/v1/videos/v/stats?start=0&end=3600000";
        let plain = server.get(stats).await;
        assert!(none(&plain.json()) && none(&server.get("/v1/top").await.json()["top"][0]));
        assert!(plain.head.contains("immutable"), "{plain:?}");

        server.queries.names.apply(&[video("v", Some("A cat"), Some("c")), channel("c", Some("Cats"))]);
        let labelled = server.get(stats).await;
        assert_has(&labelled.json(), &cat, "stats");
        assert_has(&server.get("/v1/top").await.json()["top"][0], &cat, "top");
        let batch = server.post("/v1/stats", "", r#"[{"video_id":"v"},{"video_id":"w"}]"#).await.json();
        assert_has(&batch[0], &cat, "a batch");
        assert!(none(&batch[1]));
        // A name may change, so the final answer with one is asked about again.
        assert!(labelled.head.contains("cache-control: public, no-cache"), "{labelled:?}");
        let tag = labelled.head.lines().find_map(|line| line.strip_prefix("etag: w/")).unwrap().to_owned();
        let again = format!("GET {stats} HTTP/1.1\r\nhost: t\r\nconnection: close\r\nif-none-match: {tag}\r\n\r\n");
        assert_eq!(server.send(&again).await.status, 304);
        server.queries.names.apply(&[video("v", Some("The cat"), None)]);
        let renamed = server.send(&again).await;
        assert_eq!((renamed.status, &renamed.json()["video_name"]), (200, &json!("The cat")));
        assert!(renamed.json().get("channel_id").is_none());

        server.queries.names.apply(&[video("v", None, None), channel("c", None)]);
        assert!(none(&server.get(stats).await.json()));
        assert_eq!(server.queries.names.counts(), (0, 0));
    });
}

#[test]
fn a_channel_has_the_series_of_its_videos_and_a_place_among_channels() {
    Server::run(|server| async move {
        tell_history(&server);
        for (channel, video) in [("c/1", "v"), ("c/1", "a/b c%ü"), ("d", "a/b c%ü"), ("e", "nobody's")] {
            server.queries.join(channel, video);
        }
        server.queries.names.apply(&[channel("c/1", Some("Cats"))]);
        let hour = server.get("/v1/channels/c%2F1/stats?granularity=hour").await;
        let expect = json!({
            "channel_id": "c/1", "channel_name": "Cats", "as_of": 300, "watermark": HOUR, "total": 7, "final": false,
            "series": [{"start": 0, "value": 4 + 1, "final": true}, {"start": HOUR, "value": 2, "final": false}],
        });
        assert_eq!(hour.status, 200, "{hour:?}");
        assert_has(&hour.json(), &expect, "of both videos");
        assert!(hour.json().get("video_id").is_none());
        let before = server.get("/v1/channels/c%2F1/stats?as_of=100&function=sum&end=60000").await;
        assert_has(&before.json(), &json!({"function": "sum", "as_of": 100, "start": 0, "end": 60_000}), "as of");
        // Even final: who belongs to it may change.
        let fixed = server.get("/v1/channels/c%2F1/stats?start=0&end=60000").await;
        assert!(fixed.json()["final"] == true && fixed.head.contains("no-store"), "{fixed:?}");
        assert_has(&server.get("/v1/channels/x/stats").await.json(), &json!({"total": 0, "series": []}), "nobody's");

        let row = |channel: &str, value: u64| json!({"channel_id": channel, "value": value});
        let top = server.get("/v1/top?by=channel&k=2").await.json();
        let first = json!({"channel_id": "c/1", "channel_name": "Cats", "value": 7});
        assert_eq!(top["top"], json!([first, row("d", 1)]));

        // From store and index together it is the same, but for when it was.
        let targets = [
            "/v1/channels/c%2F1/stats?granularity=hour",
            "/v1/channels/c%2F1/stats?granularity=all&start=0&end=7200000",
            "/v1/channels/c%2F1/stats?function=mean&granularity=day",
            "/v1/channels/e/stats?start=0",
            "/v1/top?by=channel&start=0&end=7200000",
            "/v1/top?by=channel&start=0&end=60000",
            "/v1/top?start=60000&k=1&end=7200000",
            "/v1/top?start=3600000&end=7200000&order=rising",
            "/v1/top?start=7200000&end=9000000&order=rising",
        ];
        server.queries.announce_at(400, HOUR);
        let mut before = Vec::new();
        for target in targets {
            before.push(server.get(target).await.json());
        }
        server.queries.leave(60);
        server.queries.announce_at(500, HOUR);
        for (target, mut before) in targets.into_iter().zip(before) {
            before["as_of"] = json!(500);
            assert_eq!(server.get(target).await.json(), before, "{target}");
        }
        let open = server.get("/v1/top?by=channel").await.json();
        assert_eq!((&open["start"], &open["top"][0]["value"], &open["top"][1]), (&json!(0), &json!(8), &row("d", 1)));
    });
}

#[test]
fn what_cannot_be_asked_of_a_channel_is_refused_by_name() {
    Server::run(|server| async move {
        tell_history(&server);
        for (target, status, expect) in [
            ("/v1/channels/%00/stats", 400, json!({"parameter": "channel_id"})),
            ("/v1/channels/%ff/stats", 400, json!({"parameter": "channel_id"})),
            ("/v1/channels/c/stats?video_id=v", 400, json!({"parameter": "video_id"})),
            ("/v1/channels/c/stats?granularity=week", 400, json!({"parameter": "granularity"})),
            ("/v1/channels/c/stats?as_of=301", 400, json!({"parameter": "as_of", "frontier": 300})),
            ("/v1/channels/c/stats?as_of=99", 410, json!({"oldest": 100})),
        ] {
            assert_problem(&server.get(target).await, status, &expect, target);
        }
    });
    Server::run_with(Limits { scans: 0, ..Limits::default() }, None, |server| async move {
        tell_history(&server);
        for target in ["/v1/channels/c/stats", "/v1/top?by=channel"] {
            assert_problem(&server.get(target).await, 429, &json!({}), target);
        }
    });
}
