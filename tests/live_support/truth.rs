//! What a data folder must come to: its log, read back record by record and judged by the oracle.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::ControlFlow,
    path::Path,
};

use connectors::embedded::{checkpoints::CheckpointDir, letters, log::Log, store::Store};
use dataflows::{
    checkpoint::{manifest::Manifest, plan},
    port::{CheckpointStore as _, CountRow, PartitionId, PartitionReader as _, Reached},
};
use oracle::{Counts, Ledger, Outcome, Record, Rules, Verdict, compare};
use serde_json::Value;

use super::{client::Client, tidemark};

/// Of an oversize record a letter keeps so much.
const LETTER_BYTES_MAX: usize = 65_536;

/// The log's own order, and what the oracle says of it.
pub struct Truth {
    rules: Rules,
    pub log: Vec<Vec<Record>>,
    pub outcome: Outcome,
}

impl Truth {
    /// Judges the log of a data folder as it is now.
    pub fn of(data_dir: &Path) -> Self {
        Self::under(Rules::default(), data_dir)
    }

    /// The same under other settings.
    pub fn under(rules: Rules, data_dir: &Path) -> Self {
        Self::judged(rules, read_log(data_dir))
    }

    /// Judges these records.
    pub fn judged(rules: Rules, log: Vec<Vec<Record>>) -> Self {
        let outcome = oracle::run(&rules, &log);
        assert!(outcome.ledger.iter().all(Ledger::balances), "the oracle balances");
        Self { rules, log, outcome }
    }

    /// Of a log that is not held: what the oracle came to, without the records.
    pub fn without_log(rules: Rules, outcome: Outcome) -> Self {
        assert!(outcome.ledger.iter().all(Ledger::balances), "the oracle balances");
        Self { rules, log: vec![Vec::new(); outcome.ledger.len()], outcome }
    }

    pub fn end_offsets(&self) -> Vec<u64> {
        self.log.iter().map(|records| records.len() as u64).collect()
    }

    /// As the contract has it for `quiet = "hold"`.
    pub fn watermark(&self) -> u64 {
        let least = self.outcome.clocks.iter().map(|clock| clock.unwrap_or(0)).min();
        least.expect("there is a partition").saturating_sub(self.rules.lateness_ms)
    }

    /// The status at the end of the log: offsets, clocks, the watermark and every account of every partition.
    #[track_caller]
    pub fn assert_status(&self, status: &Value) {
        self.assert_status_at(status, &self.end_offsets());
    }

    /// The same where the log has other offsets than its records have numbers.
    #[track_caller]
    pub fn assert_status_at(&self, status: &Value, end_offsets: &[u64]) {
        let partitions = status["partitions"].as_array().expect("there are partitions");
        assert_eq!(partitions.len(), self.log.len());
        for (index, at) in partitions.iter().enumerate() {
            assert_eq!(at["partition"].as_u64(), Some(index as u64));
            assert_eq!(at["next_offset"].as_u64(), Some(end_offsets[index]), "partition {index}");
            assert_eq!(at["clock"].as_u64(), self.outcome.clocks[index], "clock of partition {index}");
            assert_eq!(ledger_of(&at["ledger"]), self.outcome.ledger[index], "ledger of partition {index}");
            assert_eq!(at["ledger"]["balances"], Value::Bool(true));
        }
        assert_eq!(status["watermark"].as_u64(), Some(self.watermark()), "watermark");
    }

    /// The index, asked over HTTP for each video and type that was counted, and for some that were not.
    #[track_caller]
    pub fn assert_index(&self, client: &Client) {
        let mut wanted: BTreeSet<(&str, &str)> = BTreeSet::from([("never seen", "view")]);
        for (video, kind, _) in self.outcome.counts.keys() {
            wanted.extend([(video.as_str(), kind.as_str()), (video, "view"), (video, "like")]);
        }
        let wanted: Vec<(&str, &str)> = wanted.into_iter().collect();
        let share = wanted.len().div_ceil(4);
        let counts: Counts = std::thread::scope(|scope| {
            let asking: Vec<_> = wanted
                .chunks(share)
                .map(|wanted| {
                    let client = client.another();
                    scope.spawn(move || self.ask(&client, wanted))
                })
                .collect();
            asking.into_iter().flat_map(|asked| asked.join().expect("the queries are answered")).collect()
        });
        println!("index: {} rows of {} series", counts.len(), wanted.len());
        compare::assert_same(&compare::tsv(&self.outcome.counts), &compare::tsv(&counts));
    }

    fn ask(&self, client: &Client, wanted: &[(&str, &str)]) -> Counts {
        let mut counts = Counts::new();
        let watermark = self.watermark();
        for (video, kind) in wanted {
            let answer = client.stats(video, &format!("event_type={kind}&granularity=minute")).expect(200);
            let mut total = 0;
            for point in answer["series"].as_array().expect("there is a series") {
                let (start, value) = (number(&point["start"]), number(&point["value"]));
                total += value;
                assert_eq!(point["final"].as_bool(), Some(start + 60_000 <= watermark), "{video:?} {point}");
                let former = counts.insert(((*video).to_owned(), (*kind).to_owned(), start), value);
                assert_eq!(former, None, "{video:?} {kind} {start} is there twice");
            }
            assert_eq!(answer["total"].as_u64(), Some(total), "{answer}");
            assert_eq!(answer["watermark"].as_u64(), Some(watermark), "{answer}");
        }
        counts
    }

    /// The rows of the store, of a data folder that nobody runs on.
    #[track_caller]
    pub fn assert_store(&self, data_dir: &Path) {
        let rows = store_rows(&data_dir.join("store"));
        compare::assert_same(&compare::tsv(&self.outcome.counts), &compare::tsv(&counts_of(&rows)));
        let watermark = self.watermark();
        let wrong = rows.iter().find(|row| row.is_final != (row.window_start + 60_000 <= watermark));
        assert_eq!(wrong, None, "final by the watermark {watermark}");
        println!("store: {} rows", rows.len());
    }

    /// A replay of the log.
    #[track_caller]
    pub fn assert_replay(&self, data_dir: &Path, workers: u32) {
        let out = data_dir.with_extension("replay.tsv");
        let from = format!("log:{}", data_dir.join("log").display());
        let to = format!("tsv:{}", out.display());
        tidemark(&["replay", "--from", &from, "--out", &to, "--workers", &workers.to_string()]).expect(0, &[]);
        let table = std::fs::read(&out).expect("the replay has written its table");
        compare::assert_same(&compare::tsv(&self.outcome.counts), &table);
        println!("replay on {workers} workers: {} bytes", table.len());
        std::fs::remove_file(&out).expect("our own file");
    }

    /// Every refused record is in the dead letters once, as it was, with the reason that the oracle gives.
    #[track_caller]
    pub fn assert_letters(&self, data_dir: &Path) {
        let mut wanted = BTreeMap::new();
        for (partition, verdicts) in self.outcome.verdicts.iter().enumerate() {
            for (offset, verdict) in verdicts.iter().enumerate() {
                if let Some(reason) = reason_of(*verdict) {
                    wanted.insert((partition as u32, offset as u64), reason);
                }
            }
        }
        let mut by_reason: BTreeMap<String, u64> = BTreeMap::new();
        for letter in letters::read(data_dir.join("dead-letters"), None, None).expect("letters can be read") {
            let letter = letter.expect("a letter is one");
            let place = (letter.source.partition, letter.source.offset);
            let reason = wanted.remove(&place);
            assert_eq!(reason, Some(letter.reason.as_str()), "{place:?} is not refused, or is there twice");
            let record = &self.log[place.0 as usize][place.1 as usize];
            let kept = if letter.reason == "oversize" { LETTER_BYTES_MAX } else { record.payload.len() };
            assert_eq!(letter.payload_bytes().as_deref(), Some(&record.payload[..kept]), "{place:?}");
            assert_eq!(letter.received_at, record.append_time_ms, "{place:?}");
            *by_reason.entry(letter.reason).or_default() += 1;
        }
        assert!(wanted.is_empty(), "{} letters are missing, the first: {:?}", wanted.len(), wanted.first_key_value());
        println!("dead letters: {by_reason:?}");
    }

    /// Everything that there is to say of a stopped data folder.
    #[track_caller]
    pub fn assert_stopped(&self, data_dir: &Path) {
        self.assert_store(data_dir);
        self.assert_letters(data_dir);
        self.assert_replay(data_dir, 2);
    }
}

fn reason_of(verdict: Verdict) -> Option<&'static str> {
    match verdict {
        Verdict::Counted | Verdict::Duplicate => None,
        Verdict::Late => Some("late"),
        Verdict::Future => Some("future"),
        Verdict::Malformed(_) => Some("malformed"),
        Verdict::Oversize => Some("oversize"),
    }
}

/// A ledger as the status shows it.
#[track_caller]
pub fn ledger_of(accounts: &Value) -> Ledger {
    Ledger {
        read: number(&accounts["read"]),
        counted: number(&accounts["counted"]),
        duplicate: number(&accounts["duplicate"]),
        late: number(&accounts["late"]),
        future: number(&accounts["future"]),
        malformed: number(&accounts["malformed"]),
        oversize: number(&accounts["oversize"]),
    }
}

#[track_caller]
pub fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("{value} is no number"))
}

/// All durable records, by partition.
pub fn read_log(data_dir: &Path) -> Vec<Vec<Record>> {
    let log = Log::open_read_only(&data_dir.join("log")).expect("there is a log");
    let read = |partition| {
        let mut records = Vec::new();
        let mut reader = log.reader(PartitionId(partition), 0).expect("it is there from its first record");
        loop {
            let reached = reader.read(&mut |record| {
                records.push(Record { append_time_ms: record.append_time, payload: record.payload.to_vec() });
                ControlFlow::Continue(())
            });
            if reached.expect("the log can be read") == Reached::End {
                return records;
            }
        }
    };
    (0..log.partitions()).map(read).collect()
}

/// The offset behind the last record of each partition.
pub fn end_offsets(data_dir: &Path) -> Vec<u64> {
    Log::open_read_only(&data_dir.join("log")).expect("there is a log").end_offsets()
}

pub fn store_rows(dir: &Path) -> Vec<CountRow> {
    let store = Store::open(dir).expect("nobody else has it");
    let mut rows = Vec::new();
    let scanned = store.scan_all(|row| {
        rows.push(row);
        ControlFlow::Continue(())
    });
    scanned.expect("the store can be read");
    rows
}

pub fn counts_of(rows: &[CountRow]) -> Counts {
    rows.iter().map(|row| ((row.video_id.clone(), row.event_type.clone(), row.window_start), row.count)).collect()
}

/// The committed manifests that can be read, oldest first.
pub fn manifests(data_dir: &Path) -> Vec<Manifest> {
    let mut checkpoints = CheckpointDir::open(data_dir.join("checkpoints")).expect("there are checkpoints");
    let versions = checkpoints.manifests().expect("the folder can be listed");
    versions.into_iter().filter_map(|version| plan::read_manifest(&mut checkpoints, version).ok()).collect()
}

/// How many records lie behind a checkpoint, by partition.
pub fn behind(manifest: &Manifest, end_offsets: &[u64]) -> Vec<u64> {
    let next = |partition| manifest.partitions.0.get(&PartitionId(partition)).map_or(0, |at| at.next_offset);
    let each = (0..).zip(end_offsets).map(|(partition, end)| {
        let read = next(partition);
        end.checked_sub(read).unwrap_or_else(|| panic!("partition {partition} is read to {read} of {end}"))
    });
    each.collect()
}
