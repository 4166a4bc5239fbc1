//! A seeded stream of events like that of a video site: few videos get most views, clients are late, and some
//! send twice.
//!
//! Event `i` of `n` arrives at `start + span * i / n` and happened up to `disorder` before, so a stamp is never
//! further than `disorder` behind the greatest before it. A repeat is the same bytes up to a minute later. The
//! bytes follow from the [`Workload`] alone (and, through `powf` in the Zipf law, from the platform's libm).

use std::{cmp::Reverse, collections::BinaryHeap, io::Write as _};

use dataflows::time::EventTime;
use rand::{RngExt as _, SeedableRng as _, distr::Distribution as _};
use rand_chacha::ChaCha8Rng;
use rand_distr::Zipf;

use super::{Line, Source, args::Types};
use crate::exit::Failure;

/// A repeat follows its event within this much stream time, ms.
const REPEAT_WITHIN_MS: u64 = 60_000;

/// Repeats kept for later, so that memory is bounded however dense the stream is (5 MiB). Past it the next one due
/// comes early.
const WAITING_MAX: usize = 65_536;

/// Distinct users.
const USERS: u32 = 1_000_000;

/// Values are seconds watched: tenths up to ten minutes.
const VALUE_TENTHS_MAX: u32 = 6_000;

/// What to generate.
#[derive(Clone, Debug)]
pub struct Workload {
    /// Distinct events.
    pub events: u64,
    /// Distinct videos.
    pub videos: u32,
    /// Exponent of their popularity.
    pub zipf: f64,
    /// Share of the events that go to the first video, before popularity shares out the rest.
    pub hot: f64,
    /// Share of events that are repeated once.
    pub duplicates: f64,
    /// How far an event may lie behind the newest one before it.
    pub disorder_ms: u64,
    /// Decides everything that is random.
    pub seed: u64,
    /// The first event time.
    pub start: EventTime,
    /// From the first event time to the last.
    pub span_ms: u64,
    /// Event types and their weights.
    pub types: Types,
}

/// What an event's line is written from.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Draft {
    event_time: EventTime,
    event_id: u128,
    video: u32,
    kind: u32,
    user: u32,
    value_tenths: u32,
}

/// The stream. Memory: the repeats that wait, at most [`WAITING_MAX`].
pub struct Generator {
    workload: Workload,
    rng: ChaCha8Rng,
    popularity: Zipf<f64>,
    /// The sum of the weights up to and with each type, ascending.
    weights: Vec<u32>,
    drawn: u64,
    repeats: u64,
    /// Repeats by when they are due; the number keeps those due at once in the order of their events.
    waiting: BinaryHeap<Reverse<(EventTime, u64, Draft)>>,
    key: Vec<u8>,
    line: Vec<u8>,
}

impl Generator {
    pub fn new(workload: Workload) -> Result<Self, String> {
        let popularity = Zipf::new(f64::from(workload.videos), workload.zipf).map_err(|error| error.to_string())?;
        let weights = workload.types.weighted().iter().scan(0, |sum, (_, weight)| {
            *sum += weight;
            Some(*sum)
        });
        Ok(Self {
            rng: ChaCha8Rng::seed_from_u64(workload.seed),
            popularity,
            weights: weights.collect(),
            drawn: 0,
            repeats: 0,
            waiting: BinaryHeap::new(),
            key: Vec::new(),
            line: Vec::new(),
            workload,
        })
    }

    /// How many of the lines so far were repeats.
    pub fn repeats(&self) -> u64 {
        self.repeats
    }

    /// When event `number` arrives.
    fn arrival(&self, number: u64) -> EventTime {
        let Workload { start, span_ms, events, .. } = self.workload;
        start + (u128::from(span_ms) * u128::from(number) / u128::from(events.max(1))) as u64
    }

    /// The next record of the stream.
    fn next_draft(&mut self) -> Option<Draft> {
        let more = self.drawn < self.workload.events;
        let arrival = self.arrival(self.drawn.min(self.workload.events.saturating_sub(1)));
        if let Some(Reverse((due, ..))) = self.waiting.peek()
            && (!more || *due <= arrival || WAITING_MAX <= self.waiting.len())
        {
            self.repeats += 1;
            return self.waiting.pop().map(|Reverse((_, _, draft))| draft);
        }
        if !more {
            return None;
        }
        let draft = self.draw(arrival);
        if self.rng.random_bool(self.workload.duplicates) {
            let within_ms = REPEAT_WITHIN_MS.min(self.workload.span_ms).max(1);
            let due = arrival + self.rng.random_range(1..=within_ms);
            self.waiting.push(Reverse((due, self.drawn, draft)));
        }
        self.drawn += 1;
        Some(draft)
    }

    fn draw(&mut self, arrival: EventTime) -> Draft {
        // At the start there is no earlier time to be late from.
        let disorder_ms = self.workload.disorder_ms.min(arrival - self.workload.start);
        let weight = self.rng.random_range(0..*self.weights.last().expect("there is at least one type"));
        Draft {
            event_time: arrival - self.rng.random_range(0..=disorder_ms),
            event_id: as_uuid_v4(self.rng.random()),
            video: self.draw_video(),
            kind: self.weights.partition_point(|upper| *upper <= weight) as u32,
            user: self.rng.random_range(0..USERS),
            value_tenths: self.rng.random_range(0..=VALUE_TENTHS_MAX),
        }
    }

    /// A video's rank, from 0.
    fn draw_video(&mut self) -> u32 {
        // Where none is hot nothing is drawn for it: the bytes of a seed stay what they were.
        if 0.0 < self.workload.hot && self.rng.random_bool(self.workload.hot) {
            return 0;
        }
        self.popularity.sample(&mut self.rng) as u32 - 1
    }

    /// The line of the contract's section 1: this order of fields, no blanks.
    fn write(&mut self, draft: Draft) -> std::io::Result<()> {
        let Draft { event_time, event_id, video, kind, user, value_tenths } = draft;
        let (kind, _) = &self.workload.types.weighted()[kind as usize];
        self.key.clear();
        write!(self.key, "v{video:07}")?;
        let line = &mut self.line;
        line.clear();
        line.extend_from_slice(b"{\"event_id\":\"");
        push_uuid(line, event_id);
        line.extend_from_slice(b"\",\"video_id\":\"");
        line.extend_from_slice(&self.key);
        line.extend_from_slice(b"\",\"event_type\":\"");
        line.extend_from_slice(kind.as_bytes());
        write!(line, "\",\"timestamp\":{event_time},\"user_id\":\"u{user}\",\"value\":")?;
        write!(line, "{}.{}}}", value_tenths / 10, value_tenths % 10)
    }
}

impl Source for Generator {
    fn next(&mut self) -> Result<Option<Line<'_>>, Failure> {
        let Some(draft) = self.next_draft() else { return Ok(None) };
        self.write(draft).expect("memory takes every write");
        Ok(Some(Line { key: Some(&self.key), record: &self.line }))
    }
}

/// Sets the version (4, random) and variant bits of RFC 9562.
fn as_uuid_v4(random: u128) -> u128 {
    random & !(0xf << 76) & !(0b11 << 62) | 4 << 76 | 0b10 << 62
}

/// The canonical form: lower-case, 8-4-4-4-12.
fn push_uuid(line: &mut Vec<u8>, uuid: u128) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for (place, byte) in uuid.to_be_bytes().into_iter().enumerate() {
        if matches!(place, 4 | 6 | 8 | 10) {
            line.push(b'-');
        }
        line.push(DIGITS[usize::from(byte >> 4)]);
        line.push(DIGITS[usize::from(byte & 15)]);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use serde_json::Value;

    use super::*;

    fn workload(events: u64) -> Workload {
        Workload {
            events,
            videos: 1000,
            zipf: 1.1,
            hot: 0.0,
            duplicates: 0.05,
            disorder_ms: 20_000,
            seed: 7,
            start: 1_767_225_600_000,
            span_ms: 600_000,
            types: "view:80,like:15,share:5".parse().unwrap(),
        }
    }

    fn lines(workload: Workload) -> Vec<String> {
        let mut generator = Generator::new(workload).unwrap();
        let mut lines = Vec::new();
        while let Some(Line { key, record }) = generator.next().unwrap() {
            let line = String::from_utf8(record.to_vec()).unwrap();
            let key = String::from_utf8(key.unwrap().to_vec()).unwrap();
            assert!(line.contains(&format!("\"video_id\":\"{key}\"")), "{line}: {key}");
            lines.push(line);
        }
        lines
    }

    fn event_time(line: &str) -> u64 {
        serde_json::from_str::<Value>(line).unwrap()["timestamp"].as_u64().unwrap()
    }

    #[test]
    fn the_same_seed_gives_the_same_bytes_and_another_one_others() {
        assert_eq!(lines(workload(2000)), lines(workload(2000)));
        assert_ne!(lines(workload(2000)), lines(Workload { seed: 8, ..workload(2000) }));
    }

    #[test]
    fn the_bytes_of_a_seed_stay_the_same_from_release_to_release() {
        let first = r#"{"event_id":"093e3ae3-b44b-40b9-8524-95312b0159d3","video_id":"v0000000","event_type":"view","timestamp":1767225600000,"user_id":"u359364","value":145.2}"#;
        let second = r#"{"event_id":"3342c5af-74d0-4868-bd6e-d5dc7e482577","video_id":"v0000004","event_type":"like","timestamp":1767225892711,"user_id":"u897020","value":154.4}"#;
        assert_eq!(lines(Workload { duplicates: 1.0, ..workload(2) }), [first, first, second, second]);
    }

    #[test]
    fn lines_have_the_layout_of_the_contract() {
        for line in lines(workload(500)) {
            let event: Value = serde_json::from_str(&line).unwrap();
            let text = |field: &str| event[field].as_str().unwrap().to_owned();
            let id = text("event_id");
            assert!(id.len() == 36 && id.as_bytes()[14] == b'4' && b"89ab".contains(&id.as_bytes()[19]), "{id}");
            assert_eq!(id, id.to_lowercase());
            let value = event["value"].as_f64().unwrap();
            let expect = format!(
                "{{\"event_id\":\"{id}\",\"video_id\":\"{}\",\"event_type\":\"{}\",\"timestamp\":{},\"user_id\":\"{}\",\
                 \"value\":{value:.1}}}",
                text("video_id"),
                text("event_type"),
                event["timestamp"],
                text("user_id"),
            );
            assert_eq!(line, expect);
        }
    }

    #[test]
    fn repeats_are_verbatim_single_in_their_share_and_within_a_minute() {
        let workload = Workload { disorder_ms: 0, ..workload(40_000) };
        let mut seen = HashMap::new();
        let mut repeats = 0;
        let mut now = 0;
        for line in lines(workload) {
            let stamp = event_time(&line);
            match seen.insert(line.clone(), 1) {
                None => now = stamp,
                Some(copies) => {
                    assert_eq!(copies, 1, "a third copy of {line}");
                    seen.insert(line, 2);
                    repeats += 1;
                    assert!(now - stamp <= REPEAT_WITHIN_MS, "{} ms later", now - stamp);
                }
            }
        }
        assert_eq!(seen.len(), 40_000, "distinct events are distinct");
        // 5 % of 40,000 with a standard deviation of 44.
        assert!((1800..=2200).contains(&repeats), "{repeats}");
        let ids: std::collections::HashSet<&str> = seen.keys().map(|line| &line[13..49]).collect();
        assert_eq!(ids.len(), 40_000);
    }

    #[test]
    fn types_come_by_weight_and_videos_by_rank() {
        let mut types: HashMap<String, u64> = HashMap::new();
        let mut videos: HashMap<String, u64> = HashMap::new();
        for line in lines(Workload { duplicates: 0.0, ..workload(40_000) }) {
            let event: Value = serde_json::from_str(&line).unwrap();
            *types.entry(event["event_type"].as_str().unwrap().to_owned()).or_default() += 1;
            *videos.entry(event["video_id"].as_str().unwrap().to_owned()).or_default() += 1;
        }
        for (kind, expect) in [("view", 32_000), ("like", 6000), ("share", 2000)] {
            assert!(types[kind].abs_diff(expect) < 400, "{types:?}");
        }
        assert_eq!(types.len(), 3);
        // P(rank r) = r^-1.1 / H, H = 5.57 for 1000 videos: 17.9 % and 8.4 %.
        let share = |video: &str| videos[video] as f64 / 40_000.0;
        let h: f64 = (1..=1000).map(|rank| f64::from(rank).powf(-1.1)).sum();
        assert!((share("v0000000") - 1.0 / h).abs() < 0.01, "{}", share("v0000000"));
        assert!((share("v0000001") - 2f64.powf(-1.1) / h).abs() < 0.01, "{}", share("v0000001"));
        assert!(videos.keys().all(|video| video.as_str() <= "v0000999"));
    }

    #[test]
    fn a_hot_video_has_its_share_and_the_others_are_alike() {
        let mut videos: HashMap<String, u64> = HashMap::new();
        for line in lines(Workload { zipf: 0.0, hot: 0.5, videos: 10, duplicates: 0.0, ..workload(40_000) }) {
            let event: Value = serde_json::from_str(&line).unwrap();
            *videos.entry(event["video_id"].as_str().unwrap().to_owned()).or_default() += 1;
        }
        // Half, and of the other half a tenth as everybody.
        let hot = videos.remove("v0000000").unwrap();
        assert!(hot.abs_diff(22_000) < 500, "{hot}");
        assert!(videos.len() == 9 && videos.values().all(|events| events.abs_diff(2000) < 250), "{videos:?}");
    }

    #[test]
    fn no_event_is_further_behind_than_the_disorder_and_all_lie_in_the_span() {
        let workload = Workload { duplicates: 0.0, ..workload(20_000) };
        let (start, end) = (workload.start, workload.start + workload.span_ms);
        let (mut newest, mut furthest, mut oldest) = (0, 0, u64::MAX);
        for line in lines(workload) {
            let stamp = event_time(&line);
            newest = newest.max(stamp);
            oldest = oldest.min(stamp);
            furthest = furthest.max(newest - stamp);
        }
        assert!(furthest <= 20_000, "{furthest}");
        assert!(19_000 < furthest, "the disorder is used: {furthest}");
        assert!(oldest == start && newest < end && end - newest < 1000, "{oldest} {newest}");
    }

    #[test]
    fn repeats_that_wait_are_bounded_and_all_come() {
        let dense = Workload { duplicates: 1.0, span_ms: 60_000, ..workload(WAITING_MAX as u64 * 2) };
        let mut generator = Generator::new(dense).unwrap();
        let (mut lines, mut most) = (0u64, 0);
        while generator.next_draft().is_some() {
            lines += 1;
            most = most.max(generator.waiting.len());
        }
        assert_eq!(lines, WAITING_MAX as u64 * 4);
        assert!(WAITING_MAX / 2 < most && most <= WAITING_MAX, "{most}");
    }

    #[test]
    fn nothing_is_generated_from_nothing() {
        assert_eq!(lines(workload(0)), Vec::<String>::new());
    }
}
