//! What a job must come to: its topic, read by a plain client and judged by the oracle.

use std::{collections::BTreeMap, fs, path::Path};

use base64::Engine as _;
use oracle::{Record, Rules, Verdict, compare};
use serde_json::Value;

use super::{
    Place,
    outside::{self, Log},
};
use crate::live_support::{SOON, Server, tidemark_with, truth::Truth};

/// Of an oversize record a letter keeps so much.
const LETTER_BYTES_MAX: usize = 65_536;

/// A place, its topic, and what the oracle says of that.
pub struct KafkaTruth {
    place: Place,
    pub log: Log,
    pub truth: Truth,
}

impl KafkaTruth {
    /// Judges the topic as it is now.
    #[track_caller]
    pub fn of(place: &Place) -> Self {
        let log = outside::read_topic(&place.kafka, &place.topic);
        let truth = Truth::judged(Rules::default(), log.records.clone());
        Self { place: place.clone(), log, truth }
    }

    /// Every process has the status and the index that the oracle says.
    #[track_caller]
    pub fn assert_served(&self, server: &Server) {
        for client in &server.clients {
            let status = client.wait_until_visible(&self.log.ends, SOON);
            self.truth.assert_status_at(&status, &self.log.ends);
            self.truth.assert_index(client);
        }
    }

    /// The rows of a job that has ended.
    #[track_caller]
    pub fn assert_rows(&self) {
        self.assert_rows_in(&self.place);
    }

    /// The rows of another keyspace.
    #[track_caller]
    pub fn assert_rows_in(&self, place: &Place) {
        let rows = outside::rows(place);
        compare::assert_same(&compare::tsv(&self.truth.outcome.counts), &compare::tsv(&outside::counts_of(&rows)));
        let watermark = self.truth.watermark();
        let wrong = rows.iter().find(|row| row.is_final != (row.window_start + 60_000 <= watermark));
        assert_eq!(wrong, None, "final by the watermark {watermark}");
        println!("cassandra: {} rows", rows.len());
    }

    /// Every refused record is in the dead letters once, as it was, for the reason that the oracle gives.
    #[track_caller]
    pub fn assert_letters(&self) {
        let mut wanted = BTreeMap::new();
        for (partition, verdicts) in self.truth.outcome.verdicts.iter().enumerate() {
            for (at, verdict) in verdicts.iter().enumerate() {
                if !matches!(verdict, Verdict::Counted | Verdict::Duplicate) {
                    wanted.insert((partition as u64, self.log.offsets[partition][at]), (at, *verdict));
                }
            }
        }
        let mut by_reason: BTreeMap<String, u64> = BTreeMap::new();
        for letter in outside::letters(&self.place) {
            assert_eq!(letter["source"]["topic"], *self.place.topic, "{letter}");
            let number = |field: &str| letter["source"][field].as_u64().expect("a letter says where");
            let place = (number("partition"), number("offset"));
            let Some((at, verdict)) = wanted.remove(&place) else {
                panic!("{place:?} is not refused, or is there twice: {letter}");
            };
            self.assert_letter(&letter, place.0 as usize, at, verdict);
            *by_reason.entry(letter["reason"].as_str().expect("a word").to_owned()).or_default() += 1;
        }
        assert!(wanted.is_empty(), "{} letters are missing, the first: {:?}", wanted.len(), wanted.first_key_value());
        println!("dead letters: {by_reason:?}");
    }

    #[track_caller]
    fn assert_letter(&self, letter: &Value, partition: usize, at: usize, verdict: Verdict) {
        let reason = match verdict {
            Verdict::Counted | Verdict::Duplicate => unreachable!("they have no letter"),
            Verdict::Late => "late",
            Verdict::Future => "future",
            Verdict::Malformed(_) => "malformed",
            Verdict::Oversize => "oversize",
        };
        assert_eq!(letter["reason"], reason, "{letter}");
        let record = &self.log.records[partition][at];
        let kept = if verdict == Verdict::Oversize { LETTER_BYTES_MAX } else { record.payload.len() };
        assert_eq!(bytes(letter, "payload").as_deref(), Some(&record.payload[..kept]), "{letter}");
        assert_eq!(bytes(letter, "key"), self.log.keys[partition][at], "{letter}");
        assert_eq!(letter["received_at"].as_u64(), record.append_time_ms, "{letter}");
    }

    /// A replay of the topic, and one of the same records as files: which have no append times, so nothing is future.
    #[track_caller]
    pub fn assert_replays(&self, folder: &Path, server_env: &[(String, String)]) {
        let out = folder.join("replay.tsv");
        let to = format!("tsv:{}", out.display());
        let replay = |from: &str| {
            tidemark_with(&["replay", "--from", from, "--out", &to, "--workers", "2"], server_env).expect(0, &[]);
            fs::read(&out).expect("the replay has written its table")
        };
        let expected = compare::tsv(&self.truth.outcome.counts);
        compare::assert_same(&expected, &replay(&format!("kafka:{}", self.place.topic)));

        let files = folder.join("files");
        fs::create_dir(&files).expect("a folder of our own");
        for (partition, records) in self.log.records.iter().enumerate() {
            let lines: Vec<&[u8]> = records.iter().map(|record| record.payload.as_slice()).collect();
            fs::write(files.join(format!("{partition:03}.jsonl")), lines.join(&b'\n')).expect("a folder of our own");
        }
        let without_times = |record: &Record| Record { append_time_ms: None, ..record.clone() };
        let records: Vec<Vec<Record>> =
            self.log.records.iter().map(|records| records.iter().map(without_times).collect()).collect();
        let expected = compare::tsv(&oracle::run(&Rules::default(), &records).counts);
        compare::assert_same(&expected, &replay(&format!("files:{}/*.jsonl", files.display())));
        println!("replays: {} and {} bytes", compare::tsv(&self.truth.outcome.counts).len(), expected.len());
    }
}

/// A field that is text where it can be, and else encoded.
fn bytes(letter: &Value, field: &str) -> Option<Vec<u8>> {
    let encoded = letter[format!("{field}_base64")].as_str();
    match (letter[field].as_str(), encoded) {
        (Some(text), None) => Some(text.as_bytes().to_vec()),
        (None, Some(encoded)) => Some(base64::engine::general_purpose::STANDARD.decode(encoded).expect("it is base64")),
        _ => None,
    }
}
