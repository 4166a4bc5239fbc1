//! Top lists and channels over any range of the likes that [`ranges::send`](super::ranges::send) sends, beside a look at every event.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
    ops::Range,
};

use proptest::{
    prelude::*,
    test_runner::{Config, TestRunner},
};
use serde_json::{Value, json};

use super::{
    SOON,
    client::Client,
    ranges::{BEGIN, MINUTE},
    truth::number,
    wait_for,
};

/// The video that an event by its number is a like of: a square, so that some have more than others, and some as many.
pub fn video(number: u64) -> String {
    format!("w{}", number * number % 11)
}

/// Three of the six videos.
const CHANNELS: [(&str, &[&str]); 2] = [("c0", &["w0", "w9"]), ("c1", &["w4"])];

/// Puts three videos into two channels.
pub fn load_channels(client: &Client) {
    let of = |(channel, videos): (&str, &[&str])| -> Vec<Value> {
        videos.iter().map(|video| json!({"video_id": video, "channel_id": channel})).collect()
    };
    let lines: Vec<Value> = CHANNELS.into_iter().flat_map(of).collect();
    client.post("/v1/dimensions", "application/json", json!(lines).to_string().as_bytes()).unwrap().expect(202);
}

#[derive(Clone, Debug)]
struct Draw {
    is_rising: bool,
    is_of_channels: bool,
    granularity: &'static str,
    k: usize,
    /// Minutes.
    start: Option<u64>,
    end: Option<u64>,
}

fn draw(minutes: u64, channels: bool) -> impl Strategy<Value = Draw> {
    let bound = || prop::option::weighted(0.8, 0..minutes + 100);
    let granularity = prop::sample::select(vec!["minute", "hour", "day", "all"]);
    let kind = (any::<bool>(), any::<bool>().prop_map(move |drawn| drawn && channels), 1..8_usize);
    (kind, granularity, bound(), bound()).prop_map(|((rises, is_of_channels, k), granularity, a, b)| {
        let (start, end) = match (a, b) {
            (Some(a), Some(b)) => (Some(a.min(b)), Some(a.max(b))),
            other => other,
        };
        let is_rising = rises && start.is_some() && end.is_some();
        Draw { is_rising, is_of_channels, granularity, k, start, end }
    })
}

fn channel(video: &str) -> Option<&'static str> {
    CHANNELS.into_iter().find(|(_, videos)| videos.contains(&video)).map(|(channel, _)| channel)
}

/// Asks for lists over ranges that begin and end anywhere around so many likes, and for what their channels have.
pub fn check_any_top(client: &Client, events: u64, every: u64, channels: bool) {
    if channels {
        let of =
            |channel: &str| client.get(&format!("/v1/channels/{channel}/stats?event_type=like")).unwrap().expect(200);
        let is_known = |(channel, _): &(&str, &[&str])| of(channel)["total"] != 0;
        wait_for("channels are known", SOON, || CHANNELS.iter().all(is_known).then_some(()));
    }
    let mut runner = TestRunner::new(Config { cases: 150, failure_persistence: None, ..Config::default() });
    let looked = runner.run(&draw(events * every, channels), |draw| {
        check_top(client, events, every, &draw)?;
        if channels { check_channel(client, events, every, &draw) } else { Ok(()) }
    });
    looked.unwrap_or_else(|error| panic!("{error}"));
}

fn check_top(client: &Client, events: u64, every: u64, draw: &Draw) -> Result<(), TestCaseError> {
    let (first, end) = (draw.start.unwrap_or(0), draw.end.unwrap_or(events * every));
    let count = |minutes: Range<u64>| {
        let mut counts: BTreeMap<String, u64> = BTreeMap::new();
        for number in (0..events).filter(|number| minutes.contains(&(number * every))) {
            let video = video(number);
            match draw.is_of_channels {
                true => channel(&video).into_iter().for_each(|id| *counts.entry(id.to_owned()).or_default() += 1),
                false => *counts.entry(video).or_default() += 1,
            }
        }
        counts
    };
    let (now, before) = (count(first..end), count(first.saturating_sub(end - first.min(end))..first));
    let of = |counts: &BTreeMap<String, u64>, id: &str| counts.get(id).copied().unwrap_or(0);
    let ids: BTreeSet<&String> = now.keys().chain(before.keys().filter(|_| draw.is_rising)).collect();
    let mut expect: Vec<(String, u64, Option<u64>)> =
        ids.into_iter().map(|id| (id.clone(), of(&now, id), draw.is_rising.then(|| of(&before, id)))).collect();
    // Stable, and they are in the order of their ids.
    expect.sort_by_key(|(_, now, before)| Reverse(now.cast_signed() - before.unwrap_or(0).cast_signed()));
    expect.truncate(draw.k);

    let (by, order) =
        (["video", "channel"][usize::from(draw.is_of_channels)], ["count", "rising"][usize::from(draw.is_rising)]);
    let query = format!("/v1/top?event_type=like&by={by}&order={order}&k={}{}", draw.k, bounds(draw));
    let answer = client.get(&query).unwrap().expect(200);
    let row = |row: &Value| {
        let id = row[format!("{by}_id")].as_str().unwrap().to_owned();
        (id, number(&row["value"]), row.get("before").map(number))
    };
    let found: Vec<_> = answer["top"].as_array().unwrap().iter().map(row).collect();
    prop_assert_eq!(found, expect, "{} {}", query, answer);
    Ok(())
}

fn check_channel(client: &Client, events: u64, every: u64, draw: &Draw) -> Result<(), TestCaseError> {
    let width = match draw.granularity {
        "hour" => 60,
        "day" => 24 * 60,
        _ => 1,
    };
    let within =
        draw.start.unwrap_or(0) / width * width..draw.end.map_or(events * every, |end| end.div_ceil(width) * width);
    let of_channel = |number: &u64| channel(&video(*number)) == Some("c0") && within.contains(&(number * every));
    let there: Vec<u64> = (0..events).filter(of_channel).collect();
    let sum: f64 = there.iter().map(|number| *number as f64 / 8.0).sum();
    let query = format!("/v1/channels/c0/stats?event_type=like&granularity={}{}", draw.granularity, bounds(draw));
    let counts = client.get(&query).unwrap().expect(200);
    prop_assert_eq!(number(&counts["total"]), there.len() as u64, "{}", counts);
    let sums = client.get(&format!("{query}&function=sum")).unwrap().expect(200);
    prop_assert_eq!(sums["total"].as_f64(), Some(sum), "{}", sums);
    Ok(())
}

fn bounds(draw: &Draw) -> String {
    let bound = |(name, bound): (&str, Option<u64>)| bound.map(|minute| format!("&{name}={}", BEGIN + minute * MINUTE));
    [("start", draw.start), ("end", draw.end)].into_iter().filter_map(bound).collect()
}
