//! Names and channels of a running job: loaded from a file or over HTTP, followed by counts, and there after a crash.

#![allow(clippy::unwrap_used)]

mod live_support;

use std::fs;

use live_support::{
    Run, SOON,
    client::{Client, event},
    now_ms, tidemark, wait_for,
};
use serde_json::{Value, json};

/// The total of a channel's views, now or as it was.
fn total(client: &Client, channel: &str, query: &str) -> u64 {
    let path = format!("/v1/channels/{channel}/stats?granularity=all{query}");
    client.get(&path).unwrap().expect(200)["total"].as_u64().unwrap()
}

/// Waits until a channel has so many views; gives the frontier of an answer that says so.
#[track_caller]
fn wait_for_total(client: &Client, channel: &str, wanted: u64) -> u64 {
    wait_for("the channel's total", SOON, || {
        let answer = client.get(&format!("/v1/channels/{channel}/stats?granularity=all")).unwrap().expect(200);
        (answer["total"] == wanted).then(|| answer["as_of"].as_u64().unwrap())
    })
}

#[track_caller]
fn post(client: &Client, dimensions: &Value) {
    let answer = client.post("/v1/dimensions", "application/json", dimensions.to_string().as_bytes());
    assert_eq!(answer.unwrap().expect(202)["rejected"], json!([]));
}

fn views(video: &str, count: u32) -> Vec<String> {
    (0..count).map(|n| event(&format!("{video}-{n}"), video, "view", now_ms())).collect()
}

/// Runs `tidemark query` with more words.
fn query(client: &Client, words: &[&str]) -> String {
    let ended = tidemark(&[&["query", "--url", &client.base], words].concat());
    assert_eq!(ended.code, Some(0), "{ended:?}");
    ended.stdout
}

#[test]
fn a_video_that_moves_takes_its_counts_along_and_both_moments_can_be_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("dimensions.jsonl");
    let lines = [
        r#"{"video_id":"v1","name":"A cat","channel_id":"c1"}"#,
        r#"{"video_id":"v2","channel_id":"c1"}"#,
        r#"{"video_id":"v3","channel_id":"c2"}"#,
        r#"{"channel_id":"c1","name":"Cats"}"#,
    ];
    fs::write(&file, lines.join("\n")).unwrap();
    let run = Run::new(&folder.path().join("data")).workers(2);
    let server = run.start();
    let client = &server.client;
    let load = |file: &std::path::Path| {
        tidemark(&["dimensions", "load", file.to_str().unwrap(), "--url", &server.client.base])
    };
    let loaded = load(&file);
    assert_eq!((loaded.code, loaded.stdout.as_str()), (Some(0), "4 accepted, 0 rejected, 0 batches sent again\n"));
    client.send(&[views("v1", 3), views("v2", 4), views("v3", 5)].concat());
    let before = wait_for_total(client, "c1", 7);
    assert_eq!(total(client, "c2", ""), 5);
    let named = client.stats("v1", "").expect(200);
    assert_eq!((&named["video_name"], &named["channel_name"]), (&json!("A cat"), &json!("Cats")));
    let ranked = |query: &str| client.get(&format!("/v1/top?by=channel{query}")).unwrap().expect(200)["top"].clone();
    assert_eq!(
        ranked(""),
        json!([{"channel_id": "c1", "channel_name": "Cats", "value": 7}, {"channel_id": "c2", "value": 5}])
    );
    assert!(query(client, &["--channel", "c1", "--granularity", "all"]).starts_with("c1 (Cats), view: 7 from "));
    assert_eq!(query(client, &["--top", "1", "--by", "channel", "--csv"]), "channel_id,event_type,value\nc1,view,7\n");
    assert!(query(client, &["--top", "9"]).contains("v1 (A cat)"));

    post(client, &json!({"video_id": "v2", "channel_id": "c2"}));
    wait_for_total(client, "c2", 9);
    assert_eq!(total(client, "c1", ""), 3);
    let then = format!("&as_of={before}");
    assert_eq!((total(client, "c1", &then), total(client, "c2", &then)), (7, 5), "as it was before the move");
    assert_eq!(ranked(&then)[0]["value"], 7);

    fs::write(&file, "{\"video_id\":\"v3\"}\n{\"video_id\":\"v4\",\"colour\":\"red\"}\n").unwrap();
    load(&file).expect(1, &["1 lines were rejected", "type"]);
    wait_for_total(client, "c2", 4);

    // What was acknowledged is there after a crash, whatever the workers.
    server.kill();
    let server = run.workers(3).start();
    wait_for_total(&server.client, "c2", 4);
    wait_for_total(&server.client, "c1", 3);
    assert_eq!(server.client.stats("v1", "").expect(200)["video_name"], "A cat");
    server.stop();
}

#[test]
fn any_process_takes_names_and_all_answer_with_them() {
    let folder = tempfile::tempdir().unwrap();
    let run = Run::new(&folder.path().join("data")).supervised(2).workers(1);
    let mut server = run.start();
    post(
        &server.clients[1],
        &json!([{"video_id": "v1", "channel_id": "c1", "name": "A cat"}, {"video_id": "v2", "channel_id": "c1"}]),
    );
    server.clients[1].send(&[views("v1", 3), views("v2", 4)].concat());
    for client in &server.clients {
        wait_for_total(client, "c1", 7);
        assert_eq!(client.stats("v1", "").expect(200)["video_name"], "A cat");
    }
    let refused = server.clients[1].post("/v1/dimensions", "application/json", br#"{"video_id":""}"#).unwrap();
    assert_eq!(refused.expect(202)["rejected"][0]["detail"], "range");

    let starts = server.starts().len();
    rustix::process::kill_process(server.pids()[1], rustix::process::Signal::KILL).unwrap();
    server.wait_for_start_after(starts);
    for client in &server.clients {
        wait_for_total(client, "c1", 7);
        wait_for("the name", SOON, || (client.stats("v1", "").json["video_name"] == "A cat").then_some(()));
    }
    server.stop();
}
