//! Answers of a running process: what is visible when, at which frontier, and that an answer stays true.

#![allow(clippy::unwrap_used)]

mod live_support;

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use live_support::{
    Run, SOON, Server,
    client::{Client, event, percent, video_of_each},
    now_ms,
    truth::number,
    wait_for,
};
use serde_json::{Value, json};
use tempfile::TempDir;

const MINUTE_MS: u64 = 60_000;
const LATENESS_MS: u64 = 600_000;

/// By contract a count is visible within `idle_after` and a tick, 350 ms; the rest is for a busy machine.
const VISIBLE_WITHIN: Duration = Duration::from_secs(5);

/// A server with a log of its own, an hour of event time before now.
struct Stage {
    _folder: TempDir,
    run: Run,
    start_ms: u64,
}

impl Stage {
    fn new() -> (Self, Server) {
        let folder = tempfile::tempdir().unwrap();
        let run = Run::new(&folder.path().join("data"));
        let server = run.start();
        let start_ms = (now_ms() - 3_600_000).next_multiple_of(MINUTE_MS);
        (Self { _folder: folder, run, start_ms }, server)
    }
}

#[track_caller]
fn total(client: &Client, video_id: &str, query: &str) -> u64 {
    number(&client.stats(video_id, query).expect(200)["total"])
}

/// Polls without a token: what anybody sees.
#[track_caller]
fn wait_until_total(client: &Client, video_id: &str, wanted: u64) -> Duration {
    let since = Instant::now();
    wait_for(&format!("{wanted} events of {video_id} visible"), VISIBLE_WITHIN, || {
        let found = total(client, video_id, "");
        assert!(found <= wanted, "{found} of {wanted}");
        (found == wanted).then(|| since.elapsed())
    })
}

#[test]
fn a_client_reads_its_own_writes() {
    let (stage, server) = Stage::new();
    let videos = video_of_each(4);
    let mut waits = Vec::new();
    for round in 0..24 {
        let video = &videos[round % videos.len()];
        // Forth and back within the lateness, so that many of them do not move the clock.
        let at = stage.start_ms + [0, 30_000, 5_000, 299_999, 1][round % 5];
        let token = server.client.send(&[event(&format!("e{round}"), video, "view", at)]);
        let since = Instant::now();
        let answer = server.client.stats(video, &format!("after={}", percent(&token))).expect(200);
        waits.push(since.elapsed());
        assert_eq!(number(&answer["total"]), round as u64 / 4 + 1, "{token} {answer}");
    }
    waits.sort_unstable();
    println!("read your own write: median {:?}, longest {:?}", waits[waits.len() / 2], waits[waits.len() - 1]);
    assert!(waits[waits.len() - 1] < VISIBLE_WITHIN, "{waits:?}");

    // One write over all partitions, one token.
    let events: Vec<String> = videos.iter().map(|video| event("last", video, "view", stage.start_ms)).collect();
    let token = server.client.send(&events);
    assert_eq!(token.split(',').count(), 4, "{token}");
    for video in &videos {
        assert_eq!(total(&server.client, video, &format!("after={}", percent(&token))), 7);
    }
    let batch: Vec<Value> = videos.iter().map(|video| json!({"video_id": video, "after": token})).collect();
    let answers = server.client.post("/v1/stats", "application/json", json!(batch).to_string().as_bytes()).unwrap();
    assert_eq!(answers.expect(200).as_array().unwrap().iter().map(|a| number(&a["total"])).sum::<u64>(), 28);
    server.stop();
}

#[test]
fn a_token_of_what_is_not_written_yet_times_out_and_a_wrong_one_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let server = Run::new(&folder.path().join("data")).env("TIDEMARK_HTTP__LIMITS__AFTER_WAIT", "300ms").start();
    let token = server.client.send(&[event("e", "v", "view", now_ms())]);
    let (partition, next) = token.split_once(':').unwrap();
    let ahead = format!("{partition}:{}", next.parse::<u64>().unwrap() + 1);
    let waited = server.client.stats("v", &format!("after={ahead}")).expect(504);
    assert_eq!(waited["status"], 504);
    for wrong in ["9:1", "x", "0:x", "0"] {
        server.client.stats("v", &format!("after={wrong}")).expect(400);
    }
    server.stop();
}

#[test]
fn an_event_on_a_quiet_server_is_visible_soon_also_one_out_of_order() {
    let (stage, server) = Stage::new();
    let client = &server.client;
    let videos = video_of_each(4);
    let lonely = &*videos[0];
    let at = stage.start_ms + 30 * MINUTE_MS;
    client.send(&[event("first", lonely, "view", at)]);
    println!("the very first: {:?}", wait_until_total(client, lonely, 1));
    client.send(&[event("older", lonely, "view", at - 5 * MINUTE_MS)]);
    println!("five minutes older: {:?}", wait_until_total(client, lonely, 2));
    client.send(&[event("edge", lonely, "view", at - LATENESS_MS)]);
    println!("as old as may be: {:?}", wait_until_total(client, lonely, 3));
    // In another partition, far behind and far ahead of the others.
    for (n, video) in (1..).zip(&videos[1..]) {
        let at = at + n * 10 * MINUTE_MS - 25 * MINUTE_MS;
        client.send(&[event("alone", video, "view", at)]);
        wait_until_total(client, video, 1);
        client.send(&[event("again", video, "view", at - MINUTE_MS)]);
        wait_until_total(client, video, 2);
    }
    // A repeat and a late one are judged as soon, and change no count.
    let token = client.send(&[event("older", lonely, "view", at), event("old", lonely, "view", at - LATENESS_MS - 1)]);
    assert_eq!(total(client, lonely, &format!("after={}", percent(&token))), 3);
    let ledger = &client.status()["ledger"];
    assert_eq!((number(&ledger["duplicate"]), number(&ledger["late"])), (1, 1), "{ledger}");
    server.stop();
}

#[test]
fn an_answer_at_a_frontier_is_the_same_when_it_is_asked_for_again() {
    let (stage, server) = Stage::new();
    let videos = video_of_each(4);
    let stop = AtomicBool::new(false);
    let queries: Vec<(String, String)> = videos
        .iter()
        .flat_map(|video| ["", "granularity=hour", "granularity=all"].map(|query| (video.clone(), query.to_owned())))
        .collect();
    let answers: Vec<(usize, Value)> = thread::scope(|scope| {
        for (n, video) in videos.iter().enumerate() {
            let (client, stop) = (server.client.another(), &stop);
            scope.spawn(move || {
                let mut sent = 0;
                // 20 ms of event time each: in all well within what as_of may reach back.
                while !stop.load(Ordering::Relaxed) && sent < 10_000 {
                    let line = |k: u64| {
                        let disorder = (k * 7_919 + n as u64) % 90_000;
                        event(&format!("e{k}"), video, "view", stage.start_ms + 100_000 + k * 20 - disorder)
                    };
                    client.send(&(sent..sent + 10).map(line).collect::<Vec<_>>());
                    sent += 10;
                }
            });
        }
        server.client.wait_until_visible(&[1; 4], SOON);
        let mut answers = Vec::new();
        let deadline = Instant::now() + SOON;
        let mut frontiers = std::collections::BTreeSet::new();
        while frontiers.len() < 30 && Instant::now() < deadline {
            for (index, (video, query)) in queries.iter().enumerate() {
                let answer = server.client.stats(video, query).expect(200);
                frontiers.insert(number(&answer["as_of"]));
                answers.push((index, answer));
            }
        }
        stop.store(true, Ordering::Relaxed);
        println!("{} answers at {} frontiers", answers.len(), frontiers.len());
        assert!(30 <= frontiers.len(), "only {} frontiers while events came", frontiers.len());
        answers
    });
    let distinct: std::collections::BTreeSet<String> =
        answers.iter().map(|(_, answer)| answer["total"].to_string()).collect();
    assert!(20 < distinct.len(), "the counts grew while they were asked for: {distinct:?}");
    for (index, former) in &answers {
        let (video, query) = &queries[*index];
        let as_of = number(&former["as_of"]);
        let now = server.client.stats(video, &format!("{query}&as_of={as_of}")).expect(200);
        assert_eq!(&now, former, "{video} {query}");
    }
    // A batch at that frontier says the same.
    let (index, former) = &answers[answers.len() / 2];
    let (video, _) = &queries[*index];
    let granularity = &former["granularity"];
    let batch = json!([{"video_id": video, "granularity": granularity, "as_of": former["as_of"]}]);
    let again = server.client.post("/v1/stats", "application/json", batch.to_string().as_bytes()).unwrap().expect(200);
    assert_eq!(&again[0], former);
    // Between two announced frontiers, the earlier one answers.
    let frontiers: Vec<u64> = {
        let all: std::collections::BTreeSet<u64> = answers.iter().map(|(_, answer)| number(&answer["as_of"])).collect();
        all.into_iter().collect()
    };
    let between = frontiers[10] + 1;
    let lowered = number(&server.client.stats(&videos[0], &format!("as_of={between}")).expect(200)["as_of"]);
    assert!((frontiers[10]..=between).contains(&lowered), "{lowered} for {between}");
    server.stop();
}

#[test]
fn a_batch_of_queries_has_one_frontier() {
    let (stage, server) = Stage::new();
    let videos = video_of_each(4);
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        for video in &videos {
            let (client, stop) = (server.client.another(), &stop);
            scope.spawn(move || {
                let mut sent = 0;
                while !stop.load(Ordering::Relaxed) && sent < 5_000 {
                    client.send(&[event(&format!("e{sent}"), video, "view", stage.start_ms + sent * 100)]);
                    sent += 1;
                }
            });
        }
        let granularity = |n: usize| if n % 8 < 4 { "minute" } else { "all" };
        let batch: Vec<Value> =
            (0..40).map(|n| json!({"video_id": videos[n % 4], "granularity": granularity(n)})).collect();
        let batch = json!(batch).to_string();
        server.client.wait_until_visible(&[1; 4], SOON);
        let mut seen = std::collections::BTreeSet::new();
        let deadline = Instant::now() + SOON;
        while seen.len() < 10 {
            assert!(Instant::now() < deadline, "the frontier does not move: {seen:?}");
            let answers = server.client.post("/v1/stats", "application/json", batch.as_bytes()).unwrap().expect(200);
            let answers = answers.as_array().unwrap();
            assert_eq!(answers.len(), 40);
            for (n, answer) in answers.iter().enumerate() {
                assert_eq!((&answer["as_of"], &answer["watermark"]), (&answers[0]["as_of"], &answers[0]["watermark"]));
                assert_eq!(answer["video_id"], json!(videos[n % 4]));
                // The same video at the same frontier has the same count, however it is asked for.
                assert_eq!(answer["total"], answers[n % 4]["total"], "{answer}");
            }
            seen.insert(number(&answers[0]["as_of"]));
        }
        stop.store(true, Ordering::Relaxed);
    });
    server.stop();
}

#[test]
fn a_frontier_ahead_is_400_and_one_that_is_gone_is_410_with_the_oldest() {
    let (stage, server) = Stage::new();
    let client = &server.client;
    let gone = |client: &Client, as_of: u64| -> u64 {
        let problem = client.stats("v", &format!("as_of={as_of}")).expect(410);
        assert_eq!(problem["status"], 410);
        let oldest = number(&problem["oldest"]);
        assert!(as_of < oldest, "{problem}");
        // What it names can be had.
        assert_eq!(number(&client.stats("v", &format!("as_of={oldest}")).expect(200)["as_of"]), oldest);
        oldest
    };
    let token = client.send(&[event("a", "v", "view", stage.start_ms)]);
    let first = client.stats("v", &format!("after={}", percent(&token))).expect(200);
    let first_frontier = number(&first["as_of"]);
    assert!(stage.start_ms < first_frontier);
    let ahead = client.stats("v", &format!("as_of={}", first_frontier + 3_600_000)).expect(400);
    assert!(first_frontier <= number(&ahead["frontier"]), "{ahead}");
    client.stats("v", "as_of=18446744073709551615").expect(400);
    client.stats("v", "as_of=-1").expect(400);

    // 15 minutes of stream time are retained.
    let token = client.send(&[event("b", "v", "view", stage.start_ms + 14 * MINUTE_MS)]);
    assert_eq!(total(client, "v", &format!("after={}", percent(&token))), 2);
    assert_eq!(client.stats("v", &format!("as_of={first_frontier}")).expect(200), first, "still the same");
    let token = client.send(&[event("c", "v", "view", stage.start_ms + 40 * MINUTE_MS)]);
    assert_eq!(total(client, "v", &format!("after={}", percent(&token))), 3);
    assert!(first_frontier < gone(client, first_frontier));
    let problem = client.stats("v", "as_of=0").expect(410);
    assert_eq!(number(&problem["oldest"]), gone(client, first_frontier));

    // What lies before this start can't be asked for after it.
    let token = client.send(&[event("d", "v", "view", stage.start_ms + 41 * MINUTE_MS)]);
    let newest = client.stats("v", &format!("after={}", percent(&token))).expect(200);
    server.stop();
    let server = stage.run.start();
    let client = &server.client;
    let resumed = server.logged("resumed from a checkpoint", "frontier").unwrap();
    assert!(number(&newest["as_of"]) <= resumed);
    assert_eq!(gone(client, resumed - 1), resumed);
    assert_eq!(gone(client, stage.start_ms + 40 * MINUTE_MS), resumed);
    assert_eq!(total(client, "v", &format!("as_of={resumed}")), 4);
    server.stop();
}

#[test]
fn a_window_is_final_once_the_watermark_has_reached_its_end_and_never_changes_then() {
    let (stage, server) = Stage::new();
    let client = &server.client;
    let videos = video_of_each(4);
    let (start, target) = (stage.start_ms, &videos[0]);
    let window_final = |query: &str| -> (u64, bool, u64) {
        let answer = client.stats(target, query).expect(200);
        let point = answer["series"].as_array().unwrap().iter().find(|point| number(&point["start"]) == start).unwrap();
        let watermark = number(&answer["watermark"]);
        assert_eq!(point["final"].as_bool(), Some(start + MINUTE_MS <= watermark), "{answer}");
        (number(&point["value"]), point["final"].as_bool().unwrap(), watermark)
    };
    let mut serial = 0;
    let mut send_at = |videos: &[String], at: u64| -> String {
        serial += 1;
        let events: Vec<String> = videos.iter().map(|video| event(&format!("e{serial}"), video, "view", at)).collect();
        format!("after={}", percent(&client.send(&events)))
    };
    let after = send_at(&videos[..1], start + 1_000);
    assert_eq!(window_final(&after), (1, false, 0), "no watermark before each partition has a clock");
    // Three of four partitions run ahead: the quiet one holds finality back, but not the counts.
    let end = start + MINUTE_MS + LATENESS_MS;
    let after = send_at(&videos[..3], end);
    assert_eq!(window_final(&after), (1, false, 0));
    let after = send_at(&videos[3..], end - 1);
    assert_eq!(window_final(&after), (1, false, start + MINUTE_MS - 1), "one millisecond short");
    assert_eq!(client.status()["watermark_held_by"]["partition"], 3);
    // The target's own partition is ahead, so by its clock the window is closed to newcomers already.
    let after = send_at(&videos[3..], end);
    assert_eq!(window_final(&after), (1, true, start + MINUTE_MS));
    let late = send_at(&videos[..1], start + MINUTE_MS - 1);
    assert_eq!(window_final(&late), (1, true, start + MINUTE_MS), "a late event does not touch it");
    assert_eq!(number(&client.status()["ledger"]["late"]), 1);
    let after = send_at(&videos[..1], start + MINUTE_MS);
    assert_eq!(total(client, target, &format!("{after}&end={}", start + MINUTE_MS)), 1);
    // `final` of a whole answer: nothing within the range can change.
    let whole = |range: &str| client.stats(target, range).expect(200)["final"].as_bool().unwrap();
    assert!(whole(&format!("start={start}&end={}", start + MINUTE_MS)));
    assert!(!whole(&format!("start={start}&end={}", start + 2 * MINUTE_MS)));
    assert!(!whole(""));

    // A restart changes none of it.
    let before = client.stats(target, "").expect(200);
    server.stop();
    let server = stage.run.start();
    let answer = server.client.stats(target, "").expect(200);
    assert_eq!((&answer["series"], &answer["watermark"]), (&before["series"], &before["watermark"]));
    server.stop();
}

#[test]
fn a_video_that_nobody_has_heard_of_has_zeros() {
    let (stage, server) = Stage::new();
    let client = &server.client;
    let token = client.send(&[event("a", "known", "view", stage.start_ms)]);
    for (video, query) in
        [("unknown", String::new()), ("known", "event_type=like".to_owned()), ("unknown", "granularity=all".to_owned())]
    {
        let answer = client.stats(video, &format!("{query}&after={}", percent(&token))).expect(200);
        assert_eq!((&answer["total"], &answer["series"]), (&json!(0), &json!([])), "{answer}");
        assert_eq!((&answer["video_id"], &answer["function"]), (&json!(video), &json!("count")));
    }
    let (start, end) = (stage.start_ms + 1, stage.start_ms + 2);
    let answer = client.stats("unknown", &format!("start={start}&end={end}")).expect(200);
    assert_eq!((number(&answer["start"]), number(&answer["end"])), (stage.start_ms, stage.start_ms + MINUTE_MS));
    for wrong in ["granularity=week", "event_type=View", "function=mode", "start=5&end=4", "strat=0", "start=x"] {
        client.stats("known", wrong).expect(400);
    }
    server.stop();
}
