//! The page in a real browser, by Playwright: what it shows is what the API says, and everybody can use it.

#![allow(clippy::unwrap_used)]

mod live_support;

use std::{fs, path::Path};

use live_support::{
    Run, SOON, Server,
    client::{event, video_of_each},
    now_ms, wait_for,
};
use serde_json::json;

const MINUTE_MS: u64 = 60_000;

/// Of stream time. A curve over it has final and provisional minutes.
const MINUTES: u64 = 150;

/// A name that would be a script if anybody took it for markup.
const HOSTILE: &str = "<img src=x onerror=\"document.title='taken'\">/?&#ü";

/// Two and a half hours of four videos, one in each partition, and of one with a hostile name; with repeats, late and future
/// ones. Returns the videos.
fn feed(server: &Server) -> Vec<String> {
    let videos = video_of_each(4);
    let end = now_ms() / MINUTE_MS * MINUTE_MS;
    let begin = end - MINUTES * MINUTE_MS;
    let mut events = Vec::new();
    for minute in 0..MINUTES {
        let at = begin + minute * MINUTE_MS;
        for (place, video) in (0_u64..).zip(&videos) {
            let views = 3 + 4 * place + minute * (place + 1) / 20 + (minute * (7 + place)) % 5;
            events.extend((0..views).map(|n| event(&format!("v{minute}.{n}"), video, "view", at + n)));
            if (minute + place) % 3 == 0 {
                events.extend((0..=minute % 4).map(|n| event(&format!("l{minute}.{n}"), video, "like", at + n)));
            }
        }
        events.extend((minute % 30 == 0).then(|| event(&format!("h{minute}"), HOSTILE, "view", at)));
    }
    // Repeats, and what is refused.
    events.extend((0..3).map(|n| event(&format!("v{}.{n}", MINUTES - 1), &videos[0], "view", end - MINUTE_MS + n)));
    events.extend((0..2).map(|n| event(&format!("late{n}"), &videos[1], "view", begin)));
    events.push(event("future", &videos[2], "view", end + 60 * MINUTE_MS));
    for batch in events.chunks(10_000) {
        server.client.send(batch);
    }
    let mut ends = vec![0; 4];
    for line in &events {
        let video = serde_json::from_str::<serde_json::Value>(line).unwrap()["video_id"].as_str().unwrap().to_owned();
        ends[connectors::partition::partition_of(video.as_bytes(), 4) as usize] += 1;
    }
    server.client.wait_until_visible(&ends, SOON);
    videos
}

/// The first two videos are of one channel, whose name would be a script as well.
fn name(server: &Server, videos: &[String]) {
    let dimensions = json!([
        {"video_id": videos[0], "name": "A cat on a wall", "channel_id": "cats"},
        {"video_id": videos[1], "channel_id": "cats"},
        {"channel_id": "cats", "name": HOSTILE},
    ]);
    let answer = server.client.post("/v1/dimensions", "application/json", dimensions.to_string().as_bytes());
    answer.unwrap().expect(202);
    wait_for("the channel", SOON, || {
        let top = server.client.get("/v1/top?by=channel").unwrap().expect(200);
        (top["top"][0]["channel_name"] == HOSTILE).then_some(())
    });
}

#[test]
fn the_page_shows_what_the_api_says_and_everybody_can_use_it() {
    let folder = tempfile::tempdir().unwrap();
    let server = Run::new(&folder.path().join("data")).start();
    let videos = feed(&server);
    name(&server, &videos);

    let token_file = folder.path().join("token");
    fs::write(&token_file, "s3cret\n").unwrap();
    let guarded =
        Run::new(&folder.path().join("guarded")).env("TIDEMARK_HTTP__TOKEN_FILE", token_file.to_str().unwrap());
    let guarded = guarded.start();

    // Where somebody wants to see them.
    let pictures = std::env::var("TIDEMARK_TEST_PICTURES").unwrap_or_else(|_| folder.path().display().to_string());
    let stage = json!({
        "base": server.client.base, "videos": videos, "hostile": HOSTILE,
        "guarded": guarded.client.base, "token": "s3cret", "pictures": pictures,
    });
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/page/look.py");
    let said = servers::tool("python", [script.to_str().unwrap(), &stage.to_string()], "");
    println!("{said}");
    assert!(said.ends_with("all was looked at\n"), "{said}");
    guarded.stop().expect(0, &[]);
    server.stop().expect(0, &[]);
}
