//! What a job must come to: its topic, read by a plain client and judged by the oracle.

use std::{collections::BTreeMap, fs, path::Path, time::Duration};

use base64::Engine as _;
use oracle::{Judge, Record, Rules, Verdict, compare};
use serde_json::Value;

use super::{
    Place,
    outside::{self, Log, Stored},
};
use crate::live_support::{SOON, Server, client::Client, tidemark_within, truth::Truth};

/// Of an oversize record a letter keeps so much.
const LETTER_BYTES_MAX: usize = 65_536;

/// Of what the other tests feed.
const REPLAYED_WITHIN: Duration = Duration::from_secs(60);

/// A place, its topic, and what the oracle says of that.
pub struct KafkaTruth {
    place: Place,
    /// Of a streamed truth the ends alone.
    pub log: Log,
    pub truth: Truth,
    /// What must be in the dead letters, by partition and offset.
    refused: BTreeMap<(u64, u64), Refused>,
}

/// A record that is not counted, as its letter has it.
#[derive(Debug)]
struct Refused {
    verdict: Verdict,
    key: Option<Vec<u8>>,
    append_time_ms: Option<u64>,
    payload: Vec<u8>,
}

/// What the letter of a record must have, if it is to have one.
fn refused(verdict: Verdict, key: Option<&[u8]>, record: &Record) -> Option<Refused> {
    let kept = match verdict {
        Verdict::Counted | Verdict::Duplicate => return None,
        Verdict::Oversize => LETTER_BYTES_MAX,
        _ => record.payload.len(),
    };
    let (key, payload) = (key.map(<[u8]>::to_vec), record.payload[..kept].to_vec());
    Some(Refused { verdict, key, append_time_ms: record.append_time_ms, payload })
}

impl KafkaTruth {
    /// Judges the topic as it is now.
    #[track_caller]
    pub fn of(place: &Place) -> Self {
        let log = outside::read_topic(&place.kafka, &place.topic);
        let truth = Truth::judged(Rules::default(), log.records.clone());
        let mut wanted = BTreeMap::new();
        for (partition, verdicts) in truth.outcome.verdicts.iter().enumerate() {
            for (at, verdict) in verdicts.iter().enumerate() {
                let key = log.keys[partition][at].as_deref();
                let refused = refused(*verdict, key, &log.records[partition][at]);
                wanted.extend(refused.map(|refused| ((partition as u64, log.offsets[partition][at]), refused)));
            }
        }
        Self { place: place.clone(), log, truth, refused: wanted }
    }

    /// The same for a topic that is not to be held in memory: of its records only the refused are kept.
    #[track_caller]
    pub fn streamed(place: &Place, partitions: u32) -> Self {
        let mut judge = Judge::new(Rules::default(), partitions as usize);
        let mut wanted = BTreeMap::new();
        let each = |Stored { partition, offset, key, record }| {
            let verdict = judge.judge(partition, record.append_time_ms, &record.payload);
            let refused = refused(verdict, key.as_deref(), &record);
            wanted.extend(refused.map(|refused| ((partition as u64, offset), refused)));
        };
        let ends = outside::read_topic_each(&place.kafka, &place.topic, each);
        let truth = Truth::without_log(Rules::default(), judge.finish());
        Self { place: place.clone(), log: Log { ends, ..Log::default() }, truth, refused: wanted }
    }

    /// Every process has the status and the index that the oracle says.
    #[track_caller]
    pub fn assert_served(&self, server: &Server) {
        for client in &server.clients {
            self.assert_status(client, SOON);
            self.truth.assert_index(client);
        }
    }

    /// One process has the offsets, clocks and ledgers, as soon as everything is visible.
    #[track_caller]
    pub fn assert_status(&self, client: &Client, within: Duration) {
        let status = client.wait_until_visible(&self.log.ends, within);
        self.truth.assert_status_at(&status, &self.log.ends);
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
        let mut missing: BTreeMap<(u64, u64), &Refused> =
            self.refused.iter().map(|(place, refused)| (*place, refused)).collect();
        let mut by_reason: BTreeMap<String, u64> = BTreeMap::new();
        let mut wrong = Vec::new();
        outside::letters_each(&self.place, |letter| {
            let number = |field: &str| letter["source"][field].as_u64().expect("a letter says where");
            let place = (number("partition"), number("offset"));
            let fault = match missing.remove(&place) {
                _ if letter["source"]["topic"] != *self.place.topic => Some("is of another topic".to_owned()),
                None => Some("is not refused, or is there twice".to_owned()),
                Some(refused) => refused.differs(&letter),
            };
            wrong.extend(fault.map(|fault| format!("{place:?} {fault}: {letter}")));
            *by_reason.entry(letter["reason"].as_str().expect("a word").to_owned()).or_default() += 1;
        });
        wrong.extend(missing.iter().map(|(place, refused)| format!("{place:?} is missing: {:?}", refused.verdict)));
        let first = &wrong[..wrong.len().min(compare::FIRST_ROWS)];
        assert!(wrong.is_empty(), "{} letters are wrong or missing:\n{}", wrong.len(), first.join("\n"));
        println!("dead letters: {by_reason:?}");
    }

    /// A replay of the topic.
    #[track_caller]
    pub fn assert_replay(&self, folder: &Path, server_env: &[(String, String)], within: Duration) {
        let expected = compare::tsv(&self.truth.outcome.counts);
        let table = replay(&format!("kafka:{}", self.place.topic), folder, server_env, within);
        compare::assert_same(&expected, &table);
        println!("replay: {} bytes", table.len());
    }

    /// A replay of the topic, and one of the same records as files: which have no append times, so nothing is future.
    #[track_caller]
    pub fn assert_replays(&self, folder: &Path, server_env: &[(String, String)]) {
        self.assert_replay(folder, server_env, REPLAYED_WITHIN);

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
        let from = format!("files:{}/*.jsonl", files.display());
        compare::assert_same(&expected, &replay(&from, folder, server_env, REPLAYED_WITHIN));
        println!("replay of files: {} bytes", expected.len());
    }
}

/// The table of a replay.
#[track_caller]
fn replay(from: &str, folder: &Path, server_env: &[(String, String)], within: Duration) -> Vec<u8> {
    let out = folder.join("replay.tsv");
    let to = format!("tsv:{}", out.display());
    tidemark_within(&["replay", "--from", from, "--out", &to, "--workers", "2"], server_env, within).expect(0, &[]);
    fs::read(&out).expect("the replay has written its table")
}

impl Refused {
    /// Which field of its letter is not as it must be.
    fn differs(&self, letter: &Value) -> Option<String> {
        let reason = match self.verdict {
            Verdict::Counted | Verdict::Duplicate => unreachable!("they have no letter"),
            Verdict::Late => "late",
            Verdict::Future => "future",
            Verdict::Malformed(_) => "malformed",
            Verdict::Oversize => "oversize",
        };
        let fields = [
            ("reason", letter["reason"] == reason),
            ("payload", bytes(letter, "payload").as_ref() == Some(&self.payload)),
            ("key", bytes(letter, "key") == self.key),
            ("received_at", letter["received_at"].as_u64() == self.append_time_ms),
        ];
        let wrong = fields.into_iter().find(|(_, is_right)| !is_right);
        wrong.map(|(field, _)| format!("has another {field} than {self:?}"))
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
