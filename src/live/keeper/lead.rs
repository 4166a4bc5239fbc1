//! What the first process does for all: it says when a checkpoint is due, commits it, and publishes what only one may.

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, anyhow};
use dataflows::{
    checkpoint::{
        coordinator::StoredPart,
        manifest::{Hot, Manifest, PartInfo},
        part::PartState,
        plan::{self, Damage},
    },
    control::{Message, Outcome},
    letter::DeadLetter,
    port::{Claim, LetterSink, StoreError, Version},
    rules::Rules,
};

use super::{
    Keeper, UnderWay, Word,
    merge::Chain,
    patience::{patiently, until_reached},
    whole_ms,
};
use crate::{
    engine::reach::Reach,
    exit::{Exit, Failure},
    live::{
        input::Input,
        plan::Identity,
        rows::{self, Which},
    },
    service::CheckpointFacts,
};

/// The state of leading.
pub struct Lead {
    pub identity: Identity,
    pub letters: Box<dyn LetterSink>,
    pub letters_reach: Reach,
    /// The parts of the newest checkpoint.
    pub chain: Chain,
    /// Between two checkpoints.
    pub interval: Duration,
    /// How many checkpoints are kept.
    pub keep: usize,
    /// The newest checkpoint whose rows are all acknowledged.
    pub acknowledged: Version,
    /// Whether only this process can write to the sink, so that it does so for all.
    pub writes_for_all: bool,
    /// Workers of this process: the first ones.
    pub workers: usize,
    /// What is read.
    pub input: Arc<dyn Input>,
}

/// A checkpoint that is committed and not settled.
struct Committed {
    manifest: Manifest,
    /// The new ones.
    parts: Vec<StoredPart>,
}

impl Lead {
    pub(super) fn run(mut self, mut keeper: Keeper) -> Result<(), Failure> {
        let letters = &mut self.letters;
        patiently(&keeper.facts, self.letters_reach, || letters.own())?;
        let mut kept = kept(&mut keeper)?;
        let (mut under_way, mut committed): (Option<UnderWay>, Option<Committed>) = (None, None);
        // Whether too much waits for the sink: it may have come to that since the cut of a checkpoint that is under way.
        let (mut quiet, mut is_full) = (false, false);
        let mut due = Instant::now() + self.interval;
        while let Ok(word) = keeper.hear(due) {
            let mut begin = false;
            match word {
                None => {
                    due = Instant::now() + self.interval;
                    begin = under_way.is_none();
                }
                Some(Word::Cut(cut)) => keeper.store(cut, under_way.get_or_insert_default())?,
                Some(Word::Quiet) => {
                    quiet = true;
                    begin = under_way.is_none();
                }
                Some(Word::Outcome(Outcome::Commit { number, parts })) => {
                    committed = Some(self.commit(&mut keeper, number, parts, under_way.get_or_insert_default())?);
                    keeper.mailbox.tell(Message::Committed { number });
                }
                Some(Word::Outcome(Outcome::Committed { number })) => {
                    let committed = committed.as_ref().context("what was committed is known")?;
                    self.publish(&mut keeper, committed, under_way.get_or_insert_default())?;
                    keeper.mailbox.tell(Message::Acknowledged { number, process: keeper.process });
                }
                Some(Word::Outcome(Outcome::Settled { .. })) => {
                    let committed = committed.take().context("what was committed is known")?;
                    self.settle(&mut keeper, committed, &mut kept)?;
                    under_way = None;
                    begin = quiet || is_full;
                }
                Some(Word::Outcome(Outcome::Unchanged)) if quiet => {
                    keeper.mailbox.tell(Message::End);
                    return Ok(());
                }
                Some(Word::Outcome(Outcome::Unchanged)) => under_way = None,
                Some(Word::Outcome(Outcome::Full)) => {
                    is_full = true;
                    begin = under_way.is_none();
                }
                Some(Word::Outcome(Outcome::Room)) => is_full = false,
                Some(Word::Outcome(Outcome::Stop)) => keeper.stopped.notify_one(),
                Some(Word::Outcome(Outcome::End)) => {}
            }
            if begin {
                under_way = Some(UnderWay::default());
                keeper.mailbox.tell(Message::Due);
            }
        }
        Ok(())
    }

    /// Writes the manifest, and claims the sink: where rows of this frontier may be, a later start must know of it.
    fn commit(
        &mut self,
        keeper: &mut Keeper,
        number: u64,
        parts: Vec<StoredPart>,
        made: &UnderWay,
    ) -> Result<Committed, Failure> {
        // A log that was replaced while it was read must not be taken for the one before.
        until_reached(&keeper.facts, || self.input.confirm()).map_err(|failure| with_loss(failure, made))?;
        let manifest = self.manifest(&keeper.rules, keeper.version(number), &parts, made)?;
        write_manifest(keeper, &manifest)?;
        let (version, frontier) = (manifest.version, manifest.frontier);
        self.chain.set(&manifest.parts);
        let bytes = parts.iter().map(|part| part.info.bytes).sum();
        let duration_ms = made.since.map_or(0, |since| whole_ms(since.elapsed()));
        keeper.facts.set_last(CheckpointFacts { number, frontier, age_ms: 0, bytes, duration_ms });
        if let Some(sink) = keeper.sink.as_mut().filter(|_| keeper.write_from <= frontier) {
            let claim = Claim { history: self.identity.history, generation: version.generation, frontier };
            let rows = made.cuts.iter().flat_map(|cut| &cut.part.groups).map(|group| group.cells.len()).sum();
            keeper.facts.while_rows_wait(keeper.sink_name, rows, || {
                patiently(&keeper.facts, keeper.sink_reach, || sink.set_claim(&claim))
            })?;
        }
        tracing::debug!(number, frontier, bytes, "checkpoint committed");
        Ok(Committed { manifest, parts })
    }

    fn manifest(
        &mut self,
        rules: &Rules,
        version: Version,
        parts: &[StoredPart],
        made: &UnderWay,
    ) -> Result<Manifest, Failure> {
        let first = made.cuts.first().context("a checkpoint has at least one part")?;
        let mut counted = 0;
        for (partition, at) in &first.partitions.0 {
            counted += at.ledger.counted;
            if !at.ledger.balances() {
                let error = anyhow!("the ledger of partition {} does not balance: {:?}", partition.0, at.ledger);
                return Err(Failure::new(Exit::Internal, error));
            }
        }
        let cells: u64 = parts.iter().map(|part| part.counted).sum();
        if counted != cells {
            let error = anyhow!("the ledger counted {counted} events, but the windows hold {cells}");
            return Err(Failure::new(Exit::Internal, error));
        }
        Ok(Manifest {
            version,
            history: self.identity.history,
            log: self.identity.log,
            key: self.identity.key,
            frontier: first.frontier,
            watermark: first.partitions.watermark(first.frontier, rules),
            acknowledged: self.acknowledged,
            meaning: self.identity.meaning,
            partitions: first.partitions.clone(),
            hot: Hot { from: first.hot.from, left: parts.iter().map(|part| part.left).sum() },
            parts: self.chain.and(parts.iter().map(|part| part.info.clone())),
        })
    }

    /// Rows and letters of a committed checkpoint: of this process, and what no other process can write.
    fn publish(&mut self, keeper: &mut Keeper, committed: &Committed, made: &mut UnderWay) -> Result<(), Failure> {
        let Manifest { version, frontier, watermark, .. } = committed.manifest;
        keeper.write_rows(version.number, made)?;
        let mut news: Vec<DeadLetter> = made.cuts.drain(..).flat_map(|cut| cut.part.letters).collect();
        for part in committed.parts.iter().skip(self.workers) {
            if !self.writes_for_all && !part.has_letters {
                continue;
            }
            let state = read_back(keeper, &part.info)?;
            if self.writes_for_all {
                // A sink that one process writes for all wants no hours and days.
                let rows = rows::rows(&state, Which::Unwritten, watermark, frontier);
                keeper.write(version, &rows, frontier)?;
            }
            news.extend(state.letters);
        }
        news.sort_unstable_by_key(|letter| (letter.partition, letter.offset));
        let letters = &mut self.letters;
        patiently(&keeper.facts, self.letters_reach, || letters.publish(version, &news))
    }

    /// All is acknowledged: drops what is too old, and merges parts where there are many.
    fn settle(&mut self, keeper: &mut Keeper, committed: Committed, kept: &mut Kept) -> Result<(), Failure> {
        let manifest = committed.manifest;
        // What is held back for the sink is written by a later one.
        if keeper.write_from <= manifest.frontier {
            self.acknowledged = manifest.version;
        }
        kept.push_back((manifest.version, manifest.parts.iter().map(|part| part.name.clone()).collect()));
        drop_old(kept, self.keep);
        // What is being merged is no leftover, though no checkpoint names it.
        if !self.chain.is_merging() {
            let versions: Vec<Version> = kept.iter().map(|(version, _)| *version).collect();
            let names: Vec<String> = kept.iter().flat_map(|(_, names)| names.clone()).collect();
            let checkpoints = &mut keeper.checkpoints;
            patiently(&keeper.facts, keeper.checkpoints_reach, || checkpoints.retain(&versions, &names))?;
        }
        self.chain.merge_where_worthwhile(&manifest, self.acknowledged, &keeper.rules);
        Ok(())
    }
}

/// Of a log that was replaced, what was read of it is lost.
fn with_loss(failure: Failure, made: &UnderWay) -> Failure {
    if failure.code != Exit::InputReplaced {
        return failure;
    }
    let lost: u64 = made.cuts.first().map_or(0, |cut| cut.partitions.0.values().map(|at| at.next_offset).sum());
    Failure {
        error: failure.error.context(format!("the {lost} records that were read of the log are lost")),
        ..failure
    }
}

/// The checkpoints that are there, with their parts, oldest first.
type Kept = VecDeque<(Version, Vec<String>)>;

/// Keeps the newest `keep`, and of those before the newest one that does not begin with the same part: a part that goes bad is
/// shared by all that name it.
fn drop_old(kept: &mut Kept, keep: usize) {
    let begins = |(_, names): &(Version, Vec<String>)| names.first().cloned();
    let newest = kept.back().and_then(begins);
    let old = kept.len().saturating_sub(keep);
    let other =
        kept.iter().take(old).rposition(|checkpoint| begins(checkpoint).is_some_and(|first| Some(first) != newest));
    let other = other.map(|place| kept[place].clone());
    kept.drain(..old);
    if let Some(other) = other {
        kept.push_front(other);
    }
}

fn kept(keeper: &mut Keeper) -> Result<Kept, Failure> {
    let (checkpoints, reach) = (&mut *keeper.checkpoints, keeper.checkpoints_reach);
    let mut kept = VecDeque::new();
    patiently(&keeper.facts, reach, || -> Result<(), StoreError> {
        kept.clear();
        for version in checkpoints.manifests()? {
            // One that can't be read is of no use, but it is not ours to drop before newer ones are made.
            let parts = reach.unless_away(plan::read_manifest(checkpoints, version))?.map(|manifest| manifest.parts);
            let names = parts.unwrap_or_default().into_iter().map(|part| part.name).collect();
            kept.push_back((version, names));
        }
        Ok(())
    })?;
    Ok(kept)
}

fn write_manifest(keeper: &mut Keeper, manifest: &Manifest) -> Result<(), Failure> {
    let bytes = manifest.encode();
    let (checkpoints, version) = (&mut keeper.checkpoints, manifest.version);
    let mut tried = false;
    patiently(&keeper.facts, keeper.checkpoints_reach, || match checkpoints.commit(version, &bytes) {
        // A try that failed may have created it all the same: then it is ours, to the byte.
        Err(taken @ StoreError::Taken { .. }) if tried => match checkpoints.manifest(version) {
            Ok(there) if there == bytes => Ok(()),
            Err(unknown @ StoreError::Failed { .. }) => Err(unknown),
            _ => Err(taken),
        },
        done => {
            tried = true;
            done
        }
    })
}

/// A part that another process wrote.
fn read_back(keeper: &mut Keeper, part: &PartInfo) -> Result<PartState, Failure> {
    let mut state = PartState::default();
    let checkpoints = &mut keeper.checkpoints;
    patiently(&keeper.facts, keeper.checkpoints_reach, || -> Result<(), StoreError> {
        let damaged = |cause| StoreError::Failed { name: part.name.clone(), cause };
        state = plan::read_part(&mut **checkpoints, part).map_err(|damage| match damage {
            Damage::Store(error) => error,
            Damage::Frame { error, .. } => damaged(Box::new(error)),
            Damage::Mixed { .. } | Damage::Ledger(_) => {
                damaged("it is not the part that was written: is the checkpoint store the same for all?".into())
            }
        })?;
        Ok(())
    })?;
    Ok(state)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn besides_the_newest_the_last_one_that_begins_with_another_part_is_kept() {
        let of = |checkpoints: &[(u64, &str)]| -> Kept {
            let version = |number| Version { generation: 1, number };
            let names =
                |first: &str| if first.is_empty() { Vec::new() } else { vec![first.to_owned(), "later".to_owned()] };
            checkpoints.iter().map(|(number, first)| (version(*number), names(first))).collect()
        };
        // number and first part of each | numbers that stay
        type Row<'a> = (&'a [(u64, &'a str)], &'a [u64]);
        let rows: [Row<'_>; 6] = [
            (&[], &[]),
            (&[(1, "a"), (2, "a"), (3, "a")], &[2, 3]),
            (&[(1, "a"), (2, "a"), (3, "b"), (4, "b")], &[2, 3, 4]),
            (&[(2, "a"), (3, "b"), (4, "b"), (5, "b")], &[2, 4, 5]),
            (&[(2, "a"), (4, "b"), (5, "b"), (6, "c")], &[4, 5, 6]),
            (&[(1, ""), (4, "b"), (5, "b")], &[4, 5]),
        ];
        for (before, after) in rows {
            let mut kept = of(before);
            drop_old(&mut kept, 2);
            assert_eq!(kept.iter().map(|(version, _)| version.number).collect::<Vec<_>>(), after, "{before:?}");
        }
    }
}
