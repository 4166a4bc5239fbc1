//! The keeper: a thread in each process that makes its part of a checkpoint durable, and then writes its rows.
//!
//! The order is the promise: parts durable, manifest (the commit), rows and letters, and only then the next checkpoint. The
//! workers never wait for it; while it can't write, they go on counting until as much waits as may, and the log is read
//! again further back after a crash. The first process leads: it writes manifests, claims and letters for all.

mod facts;
mod lead;
pub mod merge;
mod patience;

use std::{
    collections::HashSet,
    sync::Arc,
    time::{Duration, Instant},
};

use crossbeam_channel::{Receiver, RecvTimeoutError};
use dataflows::{
    checkpoint::{coordinator::StoredPart, plan},
    control::{Mailbox, Message, Outcome},
    pages::IdPages,
    port::{CheckpointStore, CountRow, CountSink, PartitionId, Version},
    rules::Rules,
    tally::WorkerCut,
    time::EventTime,
};
use tokio::sync::Notify;

use self::patience::patiently;
pub use self::{facts::KeeperFacts, lead::Lead, merge::Chain};
use super::rows::{self, Which};
use crate::{engine::reach::Reach, exit::Failure};

/// What the keeper hears from the workers.
pub enum Word {
    /// A worker's state.
    Cut(WorkerCut),
    /// From the control dataflow.
    Outcome(Outcome),
    /// The job is stopping, and everything that was read has been announced.
    Quiet,
}

/// The keeper's state.
pub struct Keeper {
    pub inbox: Receiver<Word>,
    pub mailbox: Mailbox,
    pub checkpoints: Box<dyn CheckpointStore>,
    pub checkpoints_reach: Reach,
    /// What this process writes rows to.
    pub sink: Option<Box<dyn CountSink>>,
    pub sink_reach: Reach,
    /// What people call it.
    pub sink_name: &'static str,
    /// Which process this is.
    pub process: usize,
    /// The generation that parts and rows are written under.
    pub generation: u64,
    /// Letters that were published by a checkpoint that is not resumed.
    pub published: HashSet<(PartitionId, u64)>,
    /// The frontier from which on the sink is written.
    pub write_from: EventTime,
    /// What the first process does besides.
    pub lead: Option<Lead>,
    /// Told when another process has told the job to stop.
    pub stopped: Arc<Notify>,
    pub facts: Arc<KeeperFacts>,
    pub rules: Rules,
}

/// This process's share of a checkpoint under way.
#[derive(Default)]
struct UnderWay {
    cuts: Vec<WorkerCut>,
    since: Option<Instant>,
}

impl Keeper {
    /// Keeps until the job is quiet and its last checkpoint is made; the first process then tells all workers to end.
    pub fn run(mut self) -> Result<(), Failure> {
        match self.lead.take() {
            Some(lead) => lead.run(self),
            None => self.follow(),
        }
    }

    /// In all processes but the first.
    fn follow(mut self) -> Result<(), Failure> {
        let mut under_way = UnderWay::default();
        while let Ok(word) = self.inbox.recv() {
            match word {
                Word::Cut(cut) => self.store(cut, &mut under_way)?,
                Word::Outcome(Outcome::Committed { number }) => {
                    self.write_rows(number, &under_way)?;
                    under_way = UnderWay::default();
                    self.mailbox.tell(Message::Acknowledged { number, process: self.process });
                }
                Word::Outcome(Outcome::Stop) => self.stopped.notify_one(),
                Word::Outcome(Outcome::End) => return Ok(()),
                Word::Outcome(_) | Word::Quiet => {}
            }
        }
        Ok(())
    }

    fn version(&self, number: u64) -> Version {
        Version { generation: self.generation, number }
    }

    /// Writes a worker's part and tells the coordinator.
    fn store(&mut self, mut cut: WorkerCut, under_way: &mut UnderWay) -> Result<(), Failure> {
        // A start publishes what its checkpoint holds, so one must hold no letter that is published already.
        cut.part.letters.retain(|letter| !self.published.contains(&(letter.partition, letter.offset)));
        under_way.since.get_or_insert_with(Instant::now);
        let name = format!("{:020}-{:020}.w{:04}.part", self.generation, cut.number, cut.worker);
        let (number, worker, paused_ms) = (cut.number, cut.worker, cut.paused_ms);
        let (checkpoints, part) = (&mut *self.checkpoints, &cut.part);
        let info =
            patiently(&self.facts, self.checkpoints_reach, || plan::write_part(checkpoints, &name, number, part))?;
        tracing::debug!(number, worker, paused_ms, bytes = info.bytes, "a worker was cut");
        // Nobody asks for them any more, and they are most of what changed.
        cut.part.groups.iter_mut().for_each(|group| group.ids = IdPages::default());
        let part = StoredPart {
            info,
            counted: cut.counted,
            left: cut.hot.left,
            first: cut.first,
            has_letters: !cut.part.letters.is_empty(),
        };
        self.mailbox.tell(Message::Written { number: cut.number, worker: cut.worker, part });
        under_way.cuts.push(cut);
        Ok(())
    }

    /// Writes the rows of this process's workers, now that their checkpoint is committed.
    fn write_rows(&mut self, number: u64, under_way: &UnderWay) -> Result<(), Failure> {
        if self.sink.is_none() {
            return Ok(());
        }
        let version = self.version(number);
        under_way.cuts.iter().try_for_each(|cut| {
            let watermark = cut.partitions.watermark(cut.frontier, &self.rules);
            let mut rows = rows::rows(&cut.part, Which::Unwritten, watermark, cut.frontier);
            rows.extend_from_slice(&cut.rollups);
            self.write(version, &rows, cut.frontier)
        })
    }

    /// Writes rows of a frontier, unless the sink has newer ones.
    fn write(&mut self, version: Version, rows: &[CountRow], frontier: EventTime) -> Result<(), Failure> {
        let Some(sink) = self.sink.as_mut().filter(|_| self.write_from <= frontier) else { return Ok(()) };
        if rows.is_empty() {
            return Ok(());
        }
        self.facts.while_rows_wait(self.sink_name, rows.len(), || {
            patiently(&self.facts, self.sink_reach, || sink.write(version, rows))
        })
    }

    /// The next word, or `None` when it is time for a checkpoint; an error when nobody is left to speak.
    fn hear(&self, due: Instant) -> Result<Option<Word>, RecvTimeoutError> {
        match self.inbox.recv_deadline(due) {
            Ok(word) => Ok(Some(word)),
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(gone) => Err(gone),
        }
    }
}

/// Rounded down to whole milliseconds.
fn whole_ms(duration: Duration) -> u64 {
    duration.as_millis() as u64
}

#[cfg(test)]
mod tests;
