//! One video with an event every so many minutes, and questions about any range of it, beside a look at every event.

use std::collections::{BTreeMap, BTreeSet};

use proptest::{
    prelude::*,
    test_runner::{Config, TestRunner},
};
use serde_json::{Value, json};

use super::{SOON, client::Client, tops, truth::number, wait_for};

pub const MINUTE: u64 = 60_000;
/// The first minute of a day.
pub const BEGIN: u64 = 1_767_225_600_000;

/// Sends two events by each number, worth it, every so many minutes: a view of the one video, and a like of one of some others
/// ([`tops`]). Waits until they are counted.
pub fn send(client: &Client, numbers: std::ops::Range<u64>, every: u64) {
    let event = |number: u64, video_id: &str, event_type: &str| {
        json!({"event_id": format!("{event_type}{number}"), "video_id": video_id, "event_type": event_type,
               "timestamp": BEGIN + number * every * MINUTE, "user_id": format!("u{}", number % 7),
               "value": number as f64 / 8.0})
        .to_string()
    };
    let both = |number: u64| [event(number, "v", "view"), event(number, &tops::video(number), "like")];
    let token = client.send(&numbers.flat_map(both).collect::<Vec<_>>());
    client.stats("v", &format!("after={token}")).expect(200);
}

/// Sends event after event from `next` on until the windows before that of `beyond` have left; gives the first that was not sent.
pub fn let_leave(client: &Client, mut next: u64, every: u64, beyond: u64) -> u64 {
    wait_for("windows leave memory", SOON, || {
        let before = client.checkpoint().unwrap_or(0);
        send(client, next..next + 1, every);
        next += 1;
        client.wait_for_checkpoint_after(before);
        (BEGIN + beyond * every * MINUTE <= hot_start(client)).then_some(())
    });
    next
}

/// From where on windows are in memory.
pub fn hot_start(client: &Client) -> u64 {
    number(&client.status()["hot_from"])
}

#[derive(Clone, Debug)]
struct Draw {
    granularity: &'static str,
    function: &'static str,
    /// Minutes.
    start: Option<u64>,
    end: Option<u64>,
    is_batch: bool,
}

fn draw(minutes: u64) -> impl Strategy<Value = Draw> {
    let granularity = prop::sample::select(vec!["minute", "hour", "day", "all"]);
    let function = prop::sample::select(vec!["count", "sum", "max", "distinct"]);
    let bound = || prop::option::weighted(0.8, 0..minutes + 100);
    (granularity, function, bound(), bound(), any::<bool>()).prop_map(|(granularity, function, a, b, is_batch)| {
        let (start, end) = match (a, b) {
            (Some(a), Some(b)) => (Some(a.min(b)), Some(a.max(b))),
            other => other,
        };
        Draw { granularity, function, start, end, is_batch }
    })
}

/// A function of some events.
fn naive(function: &str, numbers: &BTreeSet<u64>) -> f64 {
    let values = numbers.iter().map(|number| *number as f64 / 8.0);
    match function {
        "count" => numbers.len() as f64,
        "sum" => values.sum(),
        "max" => values.fold(f64::MIN, f64::max),
        _ => numbers.iter().map(|number| number % 7).collect::<BTreeSet<_>>().len() as f64,
    }
}

/// Asks for ranges that begin and end anywhere around so many events.
pub fn check_any_range(client: &Client, events: u64, every: u64) {
    let minutes = events * every;
    let mut runner = TestRunner::new(Config { cases: 300, failure_persistence: None, ..Config::default() });
    let looked = runner.run(&draw(minutes), |draw| {
        let Draw { granularity, function, start, end, is_batch } = &draw;
        let time = |minute: &u64| BEGIN + minute * MINUTE;
        let mut question = json!({"video_id": "v", "granularity": granularity, "function": function});
        let mut query = format!("granularity={granularity}&function={function}");
        for (name, bound) in [("start", start), ("end", end)] {
            if let Some(bound) = bound {
                question[name] = json!(time(bound));
                query += &format!("&{name}={}", time(bound));
            }
        }
        let answer = match is_batch {
            false => client.stats("v", &query).expect(200),
            true => {
                let body = json!([question, question]).to_string();
                let both = client.post("/v1/stats", "application/json", body.as_bytes()).unwrap().expect(200);
                prop_assert_eq!(&both[0], &both[1]);
                both[0].clone()
            }
        };
        let width = match *granularity {
            "hour" => 60,
            "day" => 24 * 60,
            _ => 1,
        };
        // The first minute begins a day, so windows can be counted from there.
        let within = start.unwrap_or(0) / width * width..end.map_or(minutes, |end| end.div_ceil(width) * width);
        let there: BTreeSet<u64> = (0..events).filter(|number| within.contains(&(number * every))).collect();
        let mut windows: BTreeMap<u64, BTreeSet<u64>> = BTreeMap::new();
        for number in &there {
            let first = if *granularity == "all" { start.unwrap_or(0) } else { number * every / width * width };
            windows.entry(time(&first)).or_default().insert(*number);
        }
        let expect: Vec<_> = windows.iter().map(|(start, of)| (*start, naive(function, of))).collect();
        let point = |point: &Value| (number(&point["start"]), point["value"].as_f64().unwrap());
        let found: Vec<_> = answer["series"].as_array().unwrap().iter().map(point).collect();
        prop_assert_eq!(found, expect, "{}", &answer);
        if !there.is_empty() {
            prop_assert_eq!(answer["total"].as_f64(), Some(naive(function, &there)));
        }
        Ok(())
    });
    looked.unwrap_or_else(|error| panic!("{error}"));
}
