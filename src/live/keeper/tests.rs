//! What the keeper does before what: it is told everything at once, and each port that it uses notes what it is asked to do.

use std::{collections::BTreeMap, sync::Mutex};

use connectors::memory::{MemoryCheckpoints, MemoryLetters, MemorySink};
use dataflows::{
    announce::{PartitionState, Partitions},
    checkpoint::{
        manifest::{Hot, Meaning, PartInfo},
        part::PartState,
        plan,
    },
    event::Reason,
    identity::IdKey,
    ledger::Ledger,
    letter::DeadLetter,
    port::{Claim, CountRow, LetterSink, SinkError, StoreError, WritePart},
    series::SeriesNo,
    time::Minute,
    window::CellState,
};
use tempfile::TempDir;

use super::*;
use crate::live::{embedded::EmbeddedLog, plan::Identity};

const GENERATION: u64 = 3;

/// One thing that was done, by the number of its checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    OwnLetters,
    Part(u64, usize),
    Manifest(u64),
    Claims(EventTime),
    Rows(u64),
    Letters(u64),
    DropOld,
    TellWritten(u64, usize),
    TellCommitted(u64),
    TellAcknowledged(u64),
    TellDue,
}

use Step::*;

/// All steps in their order; what is told counts as told before the next port is asked.
#[derive(Clone, Default)]
struct Journal {
    steps: Arc<Mutex<Vec<Step>>>,
    mailbox: Mailbox,
}

impl Journal {
    fn note(&self, step: Option<Step>) {
        let told = self.mailbox.take().into_iter().map(|message| match message {
            Message::Written { number, worker, .. } => TellWritten(number, worker),
            Message::Committed { number } => TellCommitted(number),
            Message::Acknowledged { number, .. } => TellAcknowledged(number),
            Message::Due => TellDue,
            other => panic!("{other:?}"),
        });
        self.steps.lock().unwrap().extend(told.chain(step));
    }

    fn steps(&self) -> Vec<Step> {
        self.note(None);
        self.steps.lock().unwrap().clone()
    }
}

/// A port that notes what it does.
struct Noted<S>(S, Journal);

impl CheckpointStore for Noted<MemoryCheckpoints> {
    fn claim_generation(&mut self, above: u64) -> Result<u64, StoreError> {
        self.0.claim_generation(above)
    }
    fn write_part(&mut self, name: &str, write: &mut WritePart<'_>) -> Result<(), StoreError> {
        let number = |from: usize, digits: usize| name[from..from + digits].parse().expect("a name has its digits");
        self.1.note(Some(Part(number(21, 20), number(43, 4) as usize)));
        self.0.write_part(name, write)
    }
    fn commit(&mut self, version: Version, manifest: &[u8]) -> Result<(), StoreError> {
        self.1.note(Some(Manifest(version.number)));
        self.0.commit(version, manifest)
    }
    fn manifests(&mut self) -> Result<Vec<Version>, StoreError> {
        self.0.manifests()
    }
    fn manifest(&mut self, version: Version) -> Result<Vec<u8>, StoreError> {
        self.0.manifest(version)
    }
    fn part(&mut self, name: &str) -> Result<Vec<u8>, StoreError> {
        self.0.part(name)
    }
    fn retain(&mut self, versions: &[Version], parts: &[String]) -> Result<(), StoreError> {
        self.1.note(Some(DropOld));
        self.0.retain(versions, parts)
    }
}

impl CountSink for Noted<MemorySink> {
    fn claim(&mut self) -> Result<Option<Claim>, SinkError> {
        self.0.claim()
    }
    fn set_claim(&mut self, claim: &Claim) -> Result<(), SinkError> {
        self.1.note(Some(Claims(claim.frontier)));
        self.0.set_claim(claim)
    }
    fn write(&mut self, version: Version, rows: &[CountRow]) -> Result<(), SinkError> {
        self.1.note(Some(Rows(version.number)));
        self.0.write(version, rows)
    }
    fn clear(&mut self) -> Result<(), SinkError> {
        self.0.clear()
    }
}

impl LetterSink for Noted<MemoryLetters> {
    fn own(&mut self) -> Result<(), SinkError> {
        self.1.note(Some(OwnLetters));
        self.0.own()
    }
    fn newest(&mut self) -> Result<Option<Version>, SinkError> {
        self.0.newest()
    }
    fn published(&mut self) -> Result<HashSet<(PartitionId, u64)>, SinkError> {
        LetterSink::published(&mut self.0)
    }
    fn publish(&mut self, version: Version, letters: &[DeadLetter]) -> Result<(), SinkError> {
        self.1.note(Some(Letters(version.number)));
        self.0.publish(version, letters)
    }
}

/// A worker's cut: one cell with one event, and one letter.
fn cut(number: u64, worker: usize, frontier: EventTime, workers: u64) -> WorkerCut {
    let mut part = PartState::default();
    let group = &mut part.groups[worker];
    group.names.push((format!("v{worker}").into(), "view".into()));
    group.cells.push(CellState { series: SeriesNo(0), minute: Minute(number as u32), count: 1, unwritten: true });
    part.letters.push(DeadLetter {
        partition: PartitionId(0),
        offset: number * workers + worker as u64,
        reason: Reason::Late,
        append_time: None,
        key: None,
        headers: Vec::new(),
        payload: Vec::new(),
    });
    let ledger = Ledger { read: 2 * workers, counted: workers, late: workers, ..Ledger::default() };
    let at = PartitionState { ledger, ..PartitionState::default() };
    let partitions = Partitions(BTreeMap::from([(PartitionId(0), at)]));
    WorkerCut {
        number,
        frontier,
        worker,
        rollups: Vec::new(),
        part,
        counted: 1,
        hot: Hot::default(),
        first: None,
        paused_ms: 0,
        partitions,
    }
}

/// What a keeper hears of one checkpoint that goes well, with the first process's share of it.
fn words_of(number: u64, workers: usize, frontier: EventTime) -> Vec<Word> {
    let cuts: Vec<WorkerCut> = (0..workers).map(|worker| cut(number, worker, frontier, workers as u64)).collect();
    let stored = |cut: &WorkerCut| StoredPart {
        info: PartInfo::of(
            format!("{GENERATION:020}-{number:020}.w{:04}.part", cut.worker),
            number,
            &cut.part.encode(),
        ),
        counted: cut.counted,
        left: cut.hot.left,
        first: cut.first,
        has_letters: true,
    };
    let parts = cuts.iter().map(stored).collect();
    let outcomes = [Outcome::Commit { number, parts }, Outcome::Committed { number }, Outcome::Settled { number }];
    cuts.into_iter().map(Word::Cut).chain(outcomes.map(Word::Outcome)).collect()
}

/// A keeper over stores in memory.
struct Scene {
    journal: Journal,
    checkpoints: MemoryCheckpoints,
    sink: MemorySink,
    published: HashSet<(PartitionId, u64)>,
    folder: TempDir,
}

impl Scene {
    fn new() -> Self {
        Self {
            journal: Journal::default(),
            checkpoints: MemoryCheckpoints::new(),
            sink: MemorySink::new(),
            published: HashSet::new(),
            folder: tempfile::tempdir().unwrap(),
        }
    }

    fn lead(&self, workers: usize) -> Lead {
        let again = self.checkpoints.clone();
        let rules = Rules::default();
        Lead {
            identity: Identity {
                history: 1,
                log: 2,
                key: IdKey([3, 4]),
                meaning: Meaning::of(&rules),
                generation: GENERATION,
            },
            letters: Box::new(Noted(MemoryLetters::new(), self.journal.clone())),
            letters_reach: Reach::Disk,
            chain: Chain::new(Vec::new(), Box::new(move || Ok(Box::new(again.clone())))),
            interval: Duration::from_secs(3_600),
            keep: 9,
            acknowledged: Version::default(),
            writes_for_all: true,
            workers,
            input: Arc::new(EmbeddedLog::open(&self.folder.path().join("log"), 1).unwrap()),
        }
    }

    fn manifest(&self, number: u64) -> dataflows::checkpoint::manifest::Manifest {
        plan::read_manifest(&mut self.checkpoints.clone(), Version { generation: GENERATION, number }).unwrap()
    }

    /// Lets a keeper hear these words and nothing more.
    fn keep(&self, lead: Option<Lead>, write_from: EventTime, words: Vec<Word>) {
        let (tell, inbox) = crossbeam_channel::unbounded();
        words.into_iter().for_each(|word| tell.send(word).unwrap());
        drop(tell);
        let keeper = Keeper {
            inbox,
            mailbox: self.journal.mailbox.clone(),
            checkpoints: Box::new(Noted(self.checkpoints.clone(), self.journal.clone())),
            checkpoints_reach: Reach::Disk,
            sink: Some(Box::new(Noted(self.sink.clone(), self.journal.clone()))),
            sink_reach: Reach::Disk,
            sink_name: "the store",
            process: 0,
            generation: GENERATION,
            published: self.published.clone(),
            write_from,
            lead,
            stopped: Arc::default(),
            facts: Arc::default(),
            rules: Rules::default(),
        };
        keeper.run().unwrap();
    }
}

#[test]
fn the_parts_go_before_the_manifest_and_that_before_its_rows_and_letters_and_these_before_the_next() {
    let scene = Scene::new();
    scene.keep(Some(scene.lead(2)), 0, words_of(5, 2, 500));
    assert_eq!(
        scene.journal.steps(),
        [
            OwnLetters,
            Part(5, 0),
            TellWritten(5, 0),
            Part(5, 1),
            TellWritten(5, 1),
            Manifest(5),
            Claims(500),
            TellCommitted(5),
            Rows(5),
            Rows(5),
            Letters(5),
            TellAcknowledged(5),
            DropOld,
        ]
    );
}

#[test]
fn regression_what_fills_up_while_a_checkpoint_is_under_way_has_the_next_one_begin_at_once() {
    // Nothing was read then until the interval was over: with one of an hour, for an hour.
    for (words, begins) in [(vec![Outcome::Full], true), (vec![Outcome::Full, Outcome::Room], false)] {
        let scene = Scene::new();
        let mut all = words_of(5, 1, 500);
        all.splice(1..1, words.into_iter().map(Word::Outcome));
        scene.keep(Some(scene.lead(1)), 0, all);
        assert_eq!(scene.journal.steps().ends_with(&[DropOld, TellDue]), begins);
    }
}

#[test]
fn another_process_than_the_first_writes_its_rows_when_it_hears_of_the_manifest() {
    let scene = Scene::new();
    scene.keep(None, 0, words_of(5, 1, 500));
    assert_eq!(scene.journal.steps(), [Part(5, 0), TellWritten(5, 0), Rows(5), TellAcknowledged(5)]);
}

#[test]
fn a_checkpoint_whose_rows_are_held_back_does_not_count_as_acknowledged() {
    let scene = Scene::new();
    let checkpoints = [(5, 300), (6, 499), (7, 500), (8, 700)].into_iter();
    let words = checkpoints.flat_map(|(number, frontier)| words_of(number, 1, frontier)).collect();
    scene.keep(Some(scene.lead(1)), 500, words);
    let written = scene.journal.steps().into_iter().filter(|step| matches!(step, Rows(_) | Claims(_)));
    assert_eq!(written.collect::<Vec<_>>(), [Claims(500), Rows(7), Claims(700), Rows(8)]);
    let acknowledged = [5, 6, 7, 8].map(|number| scene.manifest(number).acknowledged.number);
    assert_eq!(acknowledged, [0, 0, 0, 7]);
}

#[test]
fn a_manifest_names_the_parts_of_all_checkpoints_up_to_its_own() {
    let scene = Scene::new();
    let words = (5..8).flat_map(|number| words_of(number, 1, number * 100)).collect();
    scene.keep(Some(scene.lead(1)), 0, words);
    let parts: Vec<u64> = scene.manifest(7).parts.iter().map(|part| part.number).collect();
    assert_eq!(parts, [5, 6, 7]);
}

#[test]
fn a_letter_that_was_published_before_a_fallback_is_in_no_part() {
    let mut scene = Scene::new();
    scene.published = HashSet::from([(PartitionId(0), 10)]);
    scene.keep(Some(scene.lead(2)), 0, words_of(5, 2, 500));
    let parts = scene.checkpoints.state().parts.clone();
    let letters = parts.values().flat_map(|part| PartState::decode(part).unwrap().letters);
    assert_eq!(letters.map(|letter| letter.offset).collect::<Vec<_>>(), [11]);
}
