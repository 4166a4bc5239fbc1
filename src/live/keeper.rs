//! The keeper: a thread that makes checkpoints durable, and then their rows and letters.
//!
//! The order is the promise: parts durable, manifest (the commit), rows and letters, and only then the next checkpoint. The
//! workers never wait for it; while it can't write, they go on counting and the log is read again further back after a
//! crash.

use std::{
    collections::{HashSet, VecDeque},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, anyhow};
use backon::{BlockingRetryable as _, ExponentialBuilder};
use connectors::embedded::{checkpoints::CheckpointDir, letters::LetterDir, store::Store};
use crossbeam_channel::{Receiver, RecvTimeoutError};
use dataflows::{
    checkpoint::{
        manifest::{Manifest, PartInfo},
        plan,
    },
    control::{Mailbox, Message, Outcome},
    port::{CheckpointStore as _, Claim, CountSink as _, LetterSink as _, SinkError, StoreError, Version},
    rules::Rules,
    tally::WorkerCut,
    time::EventTime,
};

use super::open::Identity;
use crate::{
    engine,
    exit::{Exit, Failure},
    service::CheckpointFacts,
};

/// Between two tries to write: at first, and at most.
const RETRY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));

/// How long state may stay unwritable before the process gives up.
const GIVE_UP_AFTER: Duration = Duration::from_secs(600);

/// What the keeper hears from the workers.
pub enum Word {
    /// A worker's state.
    Cut(WorkerCut),
    /// From the coordinator.
    Outcome(Outcome),
    /// The job is stopping, and everything that was read has been announced.
    Quiet,
}

/// What the status shows of it.
#[derive(Default)]
pub struct KeeperFacts {
    last: Mutex<Option<(CheckpointFacts, Instant)>>,
    failed: AtomicU64,
    trouble: Mutex<Option<String>>,
}

impl KeeperFacts {
    /// The newest checkpoint, with its present age.
    pub fn last(&self) -> Option<CheckpointFacts> {
        let last = self.last.lock().expect("nobody panics while holding it");
        last.as_ref().map(|(facts, at)| CheckpointFacts { age_ms: at.elapsed().as_millis() as u64, ..facts.clone() })
    }

    /// How many tries to write have failed.
    pub fn failed(&self) -> u64 {
        self.failed.load(Ordering::Relaxed)
    }

    /// Why nothing can be written at the moment.
    pub fn trouble(&self) -> Option<String> {
        self.trouble.lock().expect("nobody panics while holding it").clone()
    }

    /// Notes the checkpoint that was resumed, or is now committed.
    pub fn set_last(&self, facts: CheckpointFacts) {
        *self.last.lock().expect("nobody panics while holding it") = Some((facts, Instant::now()));
    }

    fn set_trouble(&self, trouble: Option<String>) {
        if trouble.is_some() {
            self.failed.fetch_add(1, Ordering::Relaxed);
        }
        *self.trouble.lock().expect("nobody panics while holding it") = trouble;
    }
}

/// The keeper's state.
pub struct Keeper {
    pub inbox: Receiver<Word>,
    pub mailbox: Mailbox,
    pub checkpoints: CheckpointDir,
    pub sink: Option<Store>,
    pub letters: LetterDir,
    /// Letters that were published by a checkpoint that is not resumed.
    pub published: HashSet<(u32, u64)>,
    pub identity: Identity,
    pub rules: Rules,
    pub interval: Duration,
    /// How many checkpoints are kept.
    pub keep: usize,
    /// The newest checkpoint whose rows and letters are acknowledged.
    pub acknowledged: Version,
    /// The frontier from which on the sink is written.
    pub write_from: EventTime,
    pub facts: Arc<KeeperFacts>,
}

/// A checkpoint under way.
#[derive(Default)]
struct UnderWay {
    cuts: Vec<WorkerCut>,
    bytes: u64,
    since: Option<Instant>,
}

impl Keeper {
    /// Keeps until the job is quiet and its last checkpoint is made, then tells the workers to end.
    pub fn run(mut self) -> Result<(), Failure> {
        let mut kept = self.kept()?;
        let mut under_way: Option<UnderWay> = None;
        let mut quiet = false;
        let mut due = Instant::now() + self.interval;
        loop {
            let mut begin = false;
            match self.inbox.recv_deadline(due) {
                Ok(Word::Cut(cut)) => self.store(cut, under_way.get_or_insert_default())?,
                Ok(Word::Outcome(Outcome::Commit { number, parts })) => {
                    let made = under_way.take().unwrap_or_default();
                    self.commit(number, parts, made, &mut kept)?;
                    self.mailbox.tell(Message::Settled { number });
                    begin = quiet;
                }
                Ok(Word::Outcome(Outcome::Unchanged)) if quiet => {
                    self.mailbox.tell(Message::End);
                    return Ok(());
                }
                Ok(Word::Outcome(Outcome::Unchanged)) => under_way = None,
                Ok(Word::Quiet) => {
                    quiet = true;
                    begin = under_way.is_none();
                }
                Err(RecvTimeoutError::Timeout) => {
                    due = Instant::now() + self.interval;
                    begin = under_way.is_none();
                }
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
            }
            if begin {
                under_way = Some(UnderWay::default());
                self.mailbox.tell(Message::Due);
            }
        }
    }

    /// The checkpoints that are there already, with their parts.
    fn kept(&mut self) -> Result<VecDeque<(Version, Vec<String>)>, Failure> {
        let versions = self.checkpoints.manifests().map_err(unwritable)?;
        let mut kept = VecDeque::new();
        for version in versions {
            // One that can't be read is of no use, but it is not ours to drop before newer ones are made.
            let parts = plan::read_manifest(&mut self.checkpoints, version).map(|manifest| manifest.parts);
            let names = parts.unwrap_or_default().into_iter().map(|part| part.name).collect();
            kept.push_back((version, names));
        }
        Ok(kept)
    }

    fn version(&self, number: u64) -> Version {
        Version { generation: self.identity.generation, number }
    }

    /// Writes a worker's part and tells the coordinator.
    fn store(&mut self, mut cut: WorkerCut, under_way: &mut UnderWay) -> Result<(), Failure> {
        // A start publishes what its checkpoint holds, so one must hold no letter that is published already.
        cut.part.letters.retain(|letter| !self.published.contains(&(letter.partition.0, letter.offset)));
        under_way.since.get_or_insert_with(Instant::now);
        let name = format!("{:020}-{:020}.w{:04}.part", self.identity.generation, cut.number, cut.worker);
        let bytes = cut.part.encode();
        under_way.bytes += bytes.len() as u64;
        let checkpoints = &mut self.checkpoints;
        patiently(&self.facts, || checkpoints.put_part(&name, &bytes))?;
        let part = PartInfo::of(name, &bytes);
        self.mailbox.tell(Message::Written { number: cut.number, worker: cut.worker, part });
        under_way.cuts.push(cut);
        Ok(())
    }

    /// Commits, then writes rows and letters, then drops what is too old.
    fn commit(
        &mut self,
        number: u64,
        parts: Vec<PartInfo>,
        made: UnderWay,
        kept: &mut VecDeque<(Version, Vec<String>)>,
    ) -> Result<(), Failure> {
        let manifest = self.manifest(number, parts, &made)?;
        self.write_manifest(&manifest)?;
        let (version, frontier) = (manifest.version, manifest.frontier);
        let took = made.since.map_or(Duration::ZERO, |since| since.elapsed());
        let facts =
            CheckpointFacts { number, frontier, age_ms: 0, bytes: made.bytes, duration_ms: took.as_millis() as u64 };
        self.facts.set_last(facts);
        self.publish(version, frontier, made)?;
        self.acknowledged = version;
        kept.push_back((version, manifest.parts.into_iter().map(|part| part.name).collect()));
        kept.drain(..kept.len().saturating_sub(self.keep));
        let versions: Vec<Version> = kept.iter().map(|(version, _)| *version).collect();
        let names: Vec<String> = kept.iter().flat_map(|(_, names)| names.clone()).collect();
        let checkpoints = &mut self.checkpoints;
        patiently(&self.facts, || checkpoints.retain(&versions, &names))?;
        tracing::debug!(
            number,
            frontier,
            bytes = self.facts.last().map_or(0, |last| last.bytes),
            "checkpoint committed"
        );
        Ok(())
    }

    fn manifest(&self, number: u64, parts: Vec<PartInfo>, made: &UnderWay) -> Result<Manifest, Failure> {
        let first = made.cuts.first().context("a checkpoint has at least one part")?;
        let mut counted = 0;
        for (partition, at) in &first.partitions.0 {
            counted += at.ledger.counted;
            if !at.ledger.balances() {
                let error = anyhow!("the ledger of partition {} does not balance: {:?}", partition.0, at.ledger);
                return Err(Failure::new(Exit::Internal, error));
            }
        }
        let groups = made.cuts.iter().flat_map(|cut| &cut.part.groups);
        let cells: u64 = groups.flat_map(|group| &group.cells).map(|cell| cell.count).sum();
        if counted != cells {
            let error = anyhow!("the ledger counted {counted} events, but the windows hold {cells}");
            return Err(Failure::new(Exit::Internal, error));
        }
        Ok(Manifest {
            version: self.version(number),
            history: self.identity.history,
            log: self.identity.log,
            key: self.identity.key,
            frontier: first.frontier,
            watermark: first.partitions.watermark(&self.rules),
            acknowledged: self.acknowledged,
            meaning: self.identity.meaning,
            partitions: first.partitions.clone(),
            parts,
        })
    }

    fn write_manifest(&mut self, manifest: &Manifest) -> Result<(), Failure> {
        let bytes = manifest.encode();
        let (checkpoints, version) = (&mut self.checkpoints, manifest.version);
        let mut tried = false;
        patiently(&self.facts, || match checkpoints.commit(version, &bytes) {
            // A try that failed may have created it all the same: then it is ours, to the byte.
            Err(StoreError::Taken { .. })
                if tried && checkpoints.manifest(version).is_ok_and(|there| there == bytes) =>
            {
                Ok(())
            }
            done => {
                tried = true;
                done
            }
        })
    }

    /// Rows and letters of a committed checkpoint.
    fn publish(&mut self, version: Version, frontier: EventTime, made: UnderWay) -> Result<(), Failure> {
        let Self { sink, letters, identity, facts, .. } = self;
        if let Some(sink) = sink.as_mut().filter(|_| self.write_from <= frontier) {
            let claim = Claim { history: identity.history, generation: version.generation, frontier };
            // The claim first: where rows of this frontier may be, a later start must know of it.
            patiently(facts, || sink.set_claim(&claim))?;
            for cut in made.cuts.iter().filter(|cut| !cut.rows.is_empty()) {
                patiently(facts, || sink.write(version, &cut.rows))?;
            }
        }
        let mut news: Vec<_> = made.cuts.into_iter().flat_map(|cut| cut.part.letters).collect();
        news.sort_unstable_by_key(|letter| (letter.partition, letter.offset));
        patiently(facts, || letters.publish(version, &news))
    }
}

/// An error of a store or a sink, by whether trying again may help.
trait Mendable: std::error::Error + Send + Sync + 'static {
    fn is_taken(&self) -> bool;
}

impl Mendable for StoreError {
    fn is_taken(&self) -> bool {
        matches!(self, StoreError::Taken { .. })
    }
}

impl Mendable for SinkError {
    fn is_taken(&self) -> bool {
        matches!(self, SinkError::Fenced { .. })
    }
}

/// Tries until it works, another owner is there, or [`GIVE_UP_AFTER`] is over. The status says so meanwhile.
fn patiently<E: Mendable>(facts: &KeeperFacts, attempt: impl FnMut() -> Result<(), E>) -> Result<(), Failure> {
    let backoff = ExponentialBuilder::default()
        .with_min_delay(RETRY.0)
        .with_max_delay(RETRY.1)
        .with_jitter()
        .without_max_times()
        .with_total_delay(Some(GIVE_UP_AFTER));
    let done = attempt
        .retry(backoff)
        .when(|error| !error.is_taken())
        .notify(|error, wait| {
            let error = engine::one_line(error);
            tracing::warn!(%error, ?wait, "state can't be written: trying again");
            facts.set_trouble(Some(error));
        })
        .call();
    match done {
        Ok(()) => {
            facts.set_trouble(None);
            Ok(())
        }
        Err(error) if error.is_taken() => Err(Failure::new(Exit::OtherOwner, error)),
        Err(error) => Err(unwritable(error)),
    }
}

fn unwritable(error: impl std::error::Error + Send + Sync + 'static) -> Failure {
    Failure::new(Exit::StateUnwritable, error)
}
