//! Views of a running job: top lists, streams, differences, and answers that may be kept.

#![allow(clippy::unwrap_used)]

mod live_support;

use std::{
    cmp::Reverse,
    collections::BTreeMap,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpStream,
};

use live_support::{
    Run, SOON, Server,
    client::{Client, event, percent, video_of_each},
    now_ms, tidemark,
    truth::number,
};
use serde_json::{Value, json};

const MINUTE_MS: u64 = 60_000;
const LATENESS_MS: u64 = 600_000;

/// An hour before now, so that nothing is of the future.
fn start_ms() -> u64 {
    (now_ms() - 3_600_000).next_multiple_of(MINUTE_MS)
}

/// Sends a GET with more headers, each with its line end.
fn request(client: &Client, target: &str, headers: &str) -> TcpStream {
    let mut stream = TcpStream::connect(client.base.strip_prefix("http://").unwrap()).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    write!(stream, "GET {target} HTTP/1.0\r\n{headers}\r\n").unwrap();
    stream
}

/// A stream of events that is read by hand.
struct Events(BufReader<TcpStream>);

impl Events {
    fn open(server: &Server, video: &str, headers: &str) -> Self {
        let stream = request(&server.client, &format!("/v1/stream?video_id={}", percent(video)), headers);
        let mut events = Self(BufReader::new(stream));
        let head = events.lines();
        assert!(head[0].starts_with("HTTP/1.0 200"), "{head:?}");
        events
    }

    /// Lines up to a blank one, or none at the end.
    fn lines(&mut self) -> Vec<String> {
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            let read = self.0.read_line(&mut line).expect("the stream goes on");
            let line = line.trim_end();
            match (read, line) {
                (0, _) => return lines,
                (_, "") if lines.is_empty() => {}
                (_, "") => return lines,
                (_, line) => lines.push(line.to_owned()),
            }
        }
    }

    /// Name, id and data of the next event.
    fn next(&mut self) -> (String, String, Value) {
        loop {
            let lines = self.lines();
            assert!(!lines.is_empty(), "the stream has ended");
            if lines[0] == ":" {
                continue;
            }
            let field = |n: usize, name: &str| {
                let text: &str =
                    lines.get(n).and_then(|line| line.strip_prefix(name)).expect("an event has three lines");
                text.to_owned()
            };
            let data = serde_json::from_str(&field(2, "data: ")).unwrap();
            return (field(0, "event: "), field(1, "id: "), data);
        }
    }

    /// Takes changes up to this total; gives the last id.
    fn until_total(&mut self, windows: &mut BTreeMap<u64, Value>, total: u64) -> String {
        loop {
            let (name, id, data) = self.next();
            assert_eq!(name, "change", "{data}");
            take(windows, &data["changed"]);
            assert!(number(&data["total"]) <= total, "{data}");
            if number(&data["total"]) == total {
                return id;
            }
        }
    }
}

/// What a client knows: each window as it was told last.
fn take(windows: &mut BTreeMap<u64, Value>, points: &Value) {
    for point in points.as_array().unwrap() {
        windows.insert(number(&point["start"]), point.clone());
    }
}

#[test]
fn any_process_has_the_top_list_of_all_events_that_were_sent() {
    let folder = tempfile::tempdir().unwrap();
    let server = Run::new(&folder.path().join("data")).supervised(2).workers(2).start();
    let start = start_ms();
    let mut events = Vec::new();
    let mut counts: BTreeMap<String, [u64; 2]> = BTreeMap::new();
    for n in 0..60_u64 {
        // Many have the same count, and the second minute is another order than the first.
        let video = format!("video {n:02}");
        for (minute, count) in [n * 7 % 10, n * 11 % 6].into_iter().enumerate() {
            for serial in 0..count {
                let at = start + minute as u64 * MINUTE_MS + serial;
                events.push(event(&format!("{minute}-{serial}"), &video, "view", at));
            }
            counts.entry(video.clone()).or_default()[minute] = count;
        }
    }
    let after = percent(&server.client.send(&events));
    let expected = |score: &dyn Fn(&[u64; 2]) -> i64, k: usize| -> Vec<String> {
        let mut all: Vec<_> = counts.iter().filter(|(_, counts)| **counts != [0, 0]).collect();
        all.sort_by_key(|(video, counts)| (Reverse(score(counts)), video.as_str()));
        all.into_iter().take(k).map(|(video, _)| video.clone()).collect()
    };
    let of = |answer: &Value| -> Vec<String> {
        answer["top"].as_array().unwrap().iter().map(|row| row["video_id"].as_str().unwrap().to_owned()).collect()
    };
    let sum = |counts: &[u64; 2]| (counts[0] + counts[1]) as i64;
    let second = |counts: &[u64; 2]| counts[1] as i64 - counts[0] as i64;
    let rising = format!("order=rising&start={}&end={}", start + MINUTE_MS, start + 2 * MINUTE_MS);
    let mut answers = Vec::new();
    for client in &server.clients {
        let top = |parameters: &str| client.get(&format!("/v1/top?{parameters}")).unwrap().expect(200);
        let answer = top(&format!("k=25&after={after}"));
        assert_eq!(of(&answer), expected(&sum, 25), "{answer}");
        assert_eq!((number(&answer["start"]), number(&answer["end"])), (start, start + 2 * MINUTE_MS), "{answer}");
        let whole = top(&format!("k=1000&as_of={}", answer["as_of"]));
        assert_eq!(of(&whole), expected(&sum, 1000), "{whole}");
        let values: u64 = whole["top"].as_array().unwrap().iter().map(|row| number(&row["value"])).sum();
        assert_eq!(values, events.len() as u64);
        assert_eq!(of(&top(&format!("k=7&{rising}"))), expected(&second, 7));
        answers.push((whole["top"].clone(), answer["top"].clone()));
    }
    assert_eq!(answers[0], answers[1]);

    let list = tidemark(&["query", "--top", "3", "--csv", "--url", &server.client.base]);
    list.expect(0, &[]);
    let rows: Vec<String> =
        expected(&sum, 3).iter().map(|video| format!("{video},view,{}", sum(&counts[video]))).collect();
    assert_eq!(list.stdout, format!("video_id,event_type,value\n{}\n", rows.join("\n")));
    server.stop();
}

#[test]
fn a_stream_tells_every_change_and_is_taken_up_where_it_was_left() {
    let folder = tempfile::tempdir().unwrap();
    let run = Run::new(&folder.path().join("data"));
    let server = run.start();
    let (start, videos) = (start_ms(), video_of_each(4));
    let video = &videos[0];
    let mut serial = 0;
    let mut send = |server: &Server, video: &str, at: u64| {
        serial += 1;
        let token = server.client.send(&[event(&format!("e{serial}"), video, "view", at)]);
        server.client.stats(video, &format!("after={}", percent(&token))).expect(200)
    };
    let told = |windows: &BTreeMap<u64, Value>| json!(windows.values().collect::<Vec<_>>());
    send(&server, video, start);
    let mut events = Events::open(&server, video, "");
    let (name, _, state) = events.next();
    assert_eq!((name.as_str(), &state["total"]), ("state", &json!(1)), "{state}");
    let mut windows = BTreeMap::new();
    take(&mut windows, &state["series"]);
    let mut last = String::new();
    for n in 1..10 {
        let answer = send(&server, video, start + n * 20_000);
        last = events.until_total(&mut windows, n + 1);
        assert_eq!(told(&windows), answer["series"]);
    }
    // Away, and back.
    drop(events);
    let answer = send(&server, video, start + 3 * MINUTE_MS);
    let mut events = Events::open(&server, video, &format!("last-event-id: {last}\r\n"));
    events.until_total(&mut windows, 11);
    assert_eq!(told(&windows), answer["series"], "what came meanwhile");
    // Windows become final when all partitions are ahead: the stream says so, though nothing is counted.
    for other in &videos[1..] {
        send(&server, other, start + 2 * MINUTE_MS + LATENESS_MS);
    }
    send(&server, video, start + 2 * MINUTE_MS + LATENESS_MS);
    let last = loop {
        let (name, id, change) = events.next();
        assert_eq!(name, "change");
        take(&mut windows, &change["changed"]);
        if windows.values().filter(|point| point["final"] == true).count() == 2 {
            break id;
        }
    };
    let now = server.client.stats(video, "").expect(200);
    assert_eq!(
        now["series"].as_array().unwrap()[..2],
        [&windows[&start], &windows[&(start + MINUTE_MS)]].map(Value::clone)
    );

    // The end of the process is the end of the stream, and does not wait for it.
    server.stop();
    while !events.lines().is_empty() {}
    // Another start may come to that frontier by another way.
    let server = run.start();
    let (name, _, state) = Events::open(&server, video, &format!("last-event-id: {last}\r\n")).next();
    assert_eq!((name.as_str(), &state["total"]), ("state", &json!(12)), "{state}");
    server.stop();
}

#[test]
fn what_changed_between_two_frontiers_and_what_can_change_no_more() {
    let folder = tempfile::tempdir().unwrap();
    let server = Run::new(&folder.path().join("data")).start();
    let (start, videos) = (start_ms(), video_of_each(4));
    let client = &server.client;
    let send = |id: &str, video: &String, at: u64| {
        let token = client.send(&[event(id, video, "view", at)]);
        client.stats(video, &format!("after={}", percent(&token))).expect(200)
    };
    let from = number(&send("a", &videos[0], start)["as_of"]);
    send("b", &videos[0], start);
    let to = number(&send("c", &videos[0], start + MINUTE_MS)["as_of"]);
    send("d", &videos[0], start + MINUTE_MS);
    let diff = |to: &str| {
        let video = percent(&videos[0]);
        client.get(&format!("/v1/diff?video_id={video}&from_as_of={from}{to}")).unwrap().expect(200)
    };
    let change = |start: u64, from: u64, to: u64| json!({"start": start, "from": from, "to": to});
    let answer = diff(&format!("&to_as_of={to}"));
    assert_eq!(answer["changed"], json!([change(start, 1, 2), change(start + MINUTE_MS, 0, 1)]), "{answer}");
    assert_eq!((number(&answer["from_total"]), number(&answer["to_total"])), (1, 3));
    assert_eq!(diff("")["changed"], json!([change(start, 1, 2), change(start + MINUTE_MS, 0, 2)]));

    let target = format!("/v1/videos/{}/stats?start={start}&end={}", percent(&videos[0]), start + MINUTE_MS);
    let get = |headers: &str| {
        let mut text = String::new();
        request(client, &target, headers).read_to_string(&mut text).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        (head.to_ascii_lowercase(), body.to_owned())
    };
    let (head, _) = get("");
    assert!(head.contains("cache-control: no-store") && !head.contains("etag"), "it may change: {head}");
    for (n, video) in videos.iter().enumerate() {
        send(&format!("ahead {n}"), video, start + MINUTE_MS + LATENESS_MS);
    }
    let (head, body) = get("");
    assert!(head.contains("cache-control: public, max-age=31536000, immutable"), "{head}");
    assert_eq!(serde_json::from_str::<Value>(&body).unwrap()["total"], 2);
    let tag = head.lines().find_map(|line| line.strip_prefix("etag: w/")).unwrap().to_owned();
    let (head, body) = get(&format!("if-none-match: W/{tag}\r\n"));
    assert!(head.starts_with("http/1.0 304") && body.is_empty(), "{head} {body}");
    server.stop();
}
