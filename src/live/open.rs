//! What the first process does at a start: finds out whose the state is and where to resume, writes again what a crash
//! left, and plans the start for all processes.

use std::{collections::HashSet, sync::Arc, time::Duration};

use anyhow::{Context as _, anyhow};
use dataflows::{
    announce::{PartitionState, Partitions},
    checkpoint::{
        manifest::{Hot, Manifest, Meaning, PartInfo},
        part::PartState,
        plan::{self as checkpoints, Damage, Loaded, Resume},
    },
    clock::Clock,
    identity::IdKey,
    port::{CheckpointStore, Claim, CountRow, CountSink, LetterSink, PartitionId, StoreError, Version},
    rules::Rules,
    ruling::Ruling,
    time::EventTime,
};

use super::{
    cluster::Place,
    days::Days,
    input::{Input, Offsets},
    plan::{self, Identity, Plan},
    ports::{self, Rows},
    rows::{self, Which},
};
use crate::{
    config::{Settings, SourceKind},
    engine::{
        self,
        reach::Reach,
        spread::{self, Shares},
    },
    exit::{Exit, Failure, OrExit as _},
    recount::secret,
    service::Cold,
};

/// Everything that a process needs to take part.
pub struct Opened {
    /// The input.
    pub input: Arc<dyn Input>,
    /// Where checkpoints go.
    pub checkpoints: Box<dyn CheckpointStore>,
    /// Where this process's rows go, if anywhere.
    pub sink: Option<Box<dyn CountSink>>,
    /// Where it reads what has left memory.
    pub cold: Option<Arc<dyn Cold>>,
    /// At hand, of what is in memory and of what has left it.
    pub days: Arc<Days>,
    /// Where dead letters go: in the first process.
    pub letters: Option<Box<dyn LetterSink>>,
    /// What all processes do.
    pub plan: Plan,
    /// The state of the checkpoint that is resumed.
    pub state: PartState,
    /// Its parts.
    pub chain: Vec<PartInfo>,
    /// The newest checkpoint whose rows the sink has.
    pub acknowledged: Version,
}

/// Opens everything, creating what is missing, and plans the start.
pub fn open(settings: &Settings, rules: &Rules, place: &Place, from_start: bool) -> Result<Opened, Failure> {
    let input = ports::input(settings, place)?;
    let mut store = ports::checkpoints(settings)?;
    let Rows { mut sink, cold, days } = ports::rows(settings, place)?;
    let (of_sink, of_letters) = (ports::sink_reach(settings), ports::letters_reach(settings));
    let (of_store, patience) = (ports::checkpoints_reach(settings), patience(settings));
    let mut claim = match &mut sink {
        Some(sink) => of_sink.at_start(patience, || sink.claim())?,
        None => None,
    };
    // Claim first, then look: no older process can commit behind our back. Rows and letters may be older than the
    // checkpoints, where these were lost; under a lesser generation ours would be taken for theirs.
    let above = claim.as_ref().map_or(0, |claim| claim.generation).max(newest_letters(settings)?.generation);
    let generation = of_store.at_start(patience, || store.claim_generation(above))?;
    if let Some(sink) = sink.as_mut().filter(|_| from_start && claim.take().is_some()) {
        // What is counted anew may lack windows that it holds, if the log or the meaning of the counts has changed. A
        // crash from here on leaves either a checkpoint, whose rows are then all written, or none.
        of_sink.at_start(patience, || sink.clear())?;
    }
    let manifests = of_store.at_start(patience, || store.manifests())?;
    let newest = manifests.last().map_or(0, |newest| newest.number);
    let (log, meaning, offsets) = (input.id(), Meaning::of(rules), input.offsets()?);
    let base = |history, key| Plan {
        identity: Identity { history, log, key, meaning, generation },
        resumed: None,
        frontier: 0,
        number: newest,
        partitions: Partitions::default(),
        hot: Hot::default(),
        owners: Default::default(),
        write_from: 0,
        published: HashSet::new(),
        rulings: Vec::new(),
        rules: *rules,
        workers: place.workers,
    };
    let resume = match from_start {
        true => None,
        false => Some(of_store.at_start(patience, || resume(&mut *store, &meaning, of_store))?),
    };
    let rulings = resume.as_ref().map_or_else(Vec::new, |resume| passed_over(&mut *store, resume));
    let found = find(resume, claim.as_ref())?;
    let (mut chain, mut acknowledged) = (Vec::new(), Version::default());
    let (mut plan, state, letters) = match found {
        None => {
            let history = claim.as_ref().map_or(fresh_history()?, |claim| claim.history);
            let mut letters = ports::letters(settings, history, claim.is_none())?;
            let published = of_letters.at_start(patience, || letters.published())?;
            let write_from = claim.map_or(0, |claim| claim.frontier);
            let partitions = all_partitions(Partitions::default(), &offsets, 0);
            (Plan { partitions, write_from, published, ..base(history, secret()?) }, PartState::default(), letters)
        }
        Some(Loaded { manifest, state }) => {
            same_log(&*input, &manifest)?;
            still_there(&manifest, sink.is_some() && claim.is_none(), cold.is_some())?;
            let write_from = owned(claim.as_ref(), manifest.history, manifest.frontier)?;
            // Below, all its rows are written, unless they are held back.
            acknowledged = if write_from == 0 { manifest.version } else { manifest.acknowledged };
            chain.clone_from(&manifest.parts);
            let mut letters = ports::letters(settings, manifest.history, false)?;
            of_letters.at_start(patience, || letters.publish(manifest.version, &state.letters))?;
            if let Some(sink) = sink.as_mut().filter(|_| write_from == 0) {
                // A store that nobody has claimed is a new one: it has none of the rows.
                let which = if claim.is_some() { Which::Unwritten } else { Which::All };
                let mut rows = rows::rows(&state, which, manifest.watermark, manifest.frontier);
                if sink.wants_rollups() {
                    rows.extend(rows::rollups(&state, which, manifest.watermark, manifest.frontier));
                }
                let claim = Claim { history: manifest.history, generation, frontier: manifest.frontier };
                rewrite(&mut **sink, (of_sink, patience), &claim, manifest.version.number, &rows)?;
            }
            let fell_back = write_from != 0 || manifest.version.number != newest;
            let published = match fell_back {
                true => of_letters.at_start(patience, || letters.published())?,
                false => HashSet::new(),
            };
            let plan = Plan {
                resumed: Some(manifest.version),
                frontier: manifest.frontier,
                write_from,
                hot: manifest.hot,
                published,
                rulings,
                ..base(manifest.history, manifest.key)
            };
            let mut known = manifest.partitions;
            if known.watermark(manifest.frontier, rules) < manifest.watermark {
                known.raise_floors(manifest.watermark, rules);
            }
            let partitions = all_partitions(known, &offsets, manifest.watermark);
            (Plan { partitions, ..plan }, plan::settled(state, write_from), letters)
        }
    };
    let readers = match settings.source.kind {
        // The embedded log belongs to this process.
        SourceKind::Log => place.workers,
        SourceKind::Kafka => place.workers * place.processes(),
    };
    let (shares, workers) = (Shares::of_state(&state), place.workers * place.processes());
    plan.owners = spread::owners(&to_read(&plan.partitions, &offsets), &shares, readers, workers);
    tell_resumed(&plan, &offsets);
    let letters = Some(letters);
    Ok(Opened { input, checkpoints: store, sink, cold, days, letters, plan, state, chain, acknowledged })
}

/// Windows that have left memory are in the store alone: no other sink, and no new store, has them.
fn still_there(manifest: &Manifest, is_new: bool, is_store: bool) -> Result<(), Failure> {
    if manifest.hot.left == 0 || (is_store && !is_new) {
        return Ok(());
    }
    let error = anyhow!(
        "{} events are in windows before {} that have left memory for the store (index.hot), and the store with them is \
         not there: give it back, or count the log anew with `tidemark run --from-start`",
        manifest.hot.left,
        manifest.hot.from.start()
    );
    Err(Failure::new(Exit::NoCheckpoint, error))
}

/// What a process does that follows the plan of the first one.
pub fn follow(settings: &Settings, rules: &Rules, place: &Place, plan: Plan) -> Result<Opened, Failure> {
    if (plan.rules, plan.workers) != (*rules, place.workers) {
        let error = anyhow!("the first process has other workers or another [time]: give all the same configuration");
        return Err(Failure::new(Exit::Usage, error));
    }
    let mut store = ports::checkpoints(settings)?;
    let state = match plan.resumed {
        None => PartState::default(),
        Some(version) => {
            let of_store = ports::checkpoints_reach(settings);
            let load = || of_store.unless_away(checkpoints::load(&mut *store, version));
            let loaded = of_store
                .at_start(patience(settings), load)?
                .context("reading the checkpoint that the first process resumes: is checkpoint.store the same for all?")
                .or_exit(Exit::NoCheckpoint)?;
            plan::settled(loaded.state, plan.write_from)
        }
    };
    let (input, Rows { sink, cold, days }) = (ports::input(settings, place)?, ports::rows(settings, place)?);
    let (chain, acknowledged) = (Vec::new(), Version::default());
    Ok(Opened { input, checkpoints: store, sink, cold, days, letters: None, plan, state, chain, acknowledged })
}

/// Where a start would resume, in words: for whoever has to find out what it stumbles over.
pub fn next_start(settings: &Settings) -> String {
    let newest = || {
        let mut store = ports::checkpoints(settings).ok()?;
        let version = store.manifests().ok()?.pop()?;
        checkpoints::read_manifest(&mut *store, version).ok()
    };
    let Some(manifest) = newest() else { return "the first record".to_owned() };
    let offset = |(partition, at): (&PartitionId, &PartitionState)| format!("{}:{}", partition.0, at.next_offset);
    let offsets: Vec<String> = manifest.partitions.0.iter().map(offset).collect();
    format!(
        "checkpoint {} (the next records are, by partition and offset, {})",
        manifest.version.number,
        offsets.join(",")
    )
}

/// The newest letters of the embedded folder: its file names are versions, whatever the history.
fn newest_letters(settings: &Settings) -> Result<Version, Failure> {
    match settings.source.kind {
        SourceKind::Log => {
            let mut letters = ports::letters(settings, 0, false)?;
            let newest = ports::letters_reach(settings).at_start(patience(settings), || letters.newest())?;
            Ok(newest.unwrap_or_default())
        }
        SourceKind::Kafka => Ok(Version::default()),
    }
}

fn fresh_history() -> Result<u128, Failure> {
    let IdKey([low, high]) = secret()?;
    Ok(u128::from(low) | u128::from(high) << 64)
}

/// How long a server is waited for.
fn patience(settings: &Settings) -> Duration {
    Duration::from_millis(settings.cluster.patience_ms)
}

/// What the store says is to be done; an error while it does not say it of each checkpoint that counts.
fn resume(store: &mut dyn CheckpointStore, meaning: &Meaning, reach: Reach) -> Result<Resume, StoreError> {
    let decided = checkpoints::resume(store, meaning)?;
    let skip = |skipped: Vec<(Version, Damage)>| {
        let known =
            |(version, damage)| Ok((version, reach.unless_away::<()>(Err(damage))?.expect_err("it is damaged")));
        skipped.into_iter().map(known).collect::<Result<_, StoreError>>()
    };
    Ok(match decided {
        Resume::From { loaded, skipped } => Resume::From { loaded, skipped: skip(skipped)? },
        Resume::NoneGood { skipped } => Resume::NoneGood { skipped: skip(skipped)? },
        decided => decided,
    })
}

/// What the newer checkpoints ruled that are not resumed.
fn passed_over(store: &mut dyn CheckpointStore, resume: &Resume) -> Vec<Ruling> {
    match resume {
        Resume::From { skipped, .. } => {
            skipped.iter().flat_map(|(version, _)| checkpoints::readable_rulings(store, *version)).collect()
        }
        _ => Vec::new(),
    }
}

/// The checkpoint to resume, or none where the log is to be counted from its first record.
fn find(resume: Option<Resume>, claim: Option<&Claim>) -> Result<Option<Loaded>, Failure> {
    let Some(resume) = resume else {
        tracing::warn!("counting the log anew from its first record, as told by --from-start");
        return Ok(None);
    };
    match resume {
        Resume::Fresh if claim.is_some() => {
            let error = anyhow!("the store holds rows, but there is no checkpoint that they belong to");
            Err(Failure::new(Exit::NoCheckpoint, error))
        }
        Resume::Fresh => Ok(None),
        Resume::From { loaded, skipped } => {
            for (version, damage) in &skipped {
                let error = anyhow!("{damage}");
                tracing::warn!(
                    generation = version.generation, number = version.number, %error,
                    "a checkpoint is damaged: falling back to an older one"
                );
            }
            Ok(Some(*loaded))
        }
        Resume::NoneGood { skipped } => {
            let damages: Vec<String> =
                skipped.iter().map(|(version, damage)| format!("{}: {damage}", version.number)).collect();
            let error = anyhow!("no checkpoint is good: {}", damages.join("; "));
            Err(Failure::new(Exit::NoCheckpoint, error))
        }
        Resume::Changed { setting, stored, configured } => {
            let error = anyhow!(
                "{setting} is {configured} ms, but the checkpoint was made with {stored} ms: what it counted means \
                 something else; set it back, or begin a new history in an empty data_dir"
            );
            Err(Failure::new(Exit::NoCheckpoint, error))
        }
    }
}

/// The log is the one that the checkpoint was made from, and still holds what comes next.
fn same_log(input: &dyn Input, manifest: &Manifest) -> Result<(), Failure> {
    let partitions = &manifest.partitions.0;
    if manifest.log != input.id() {
        let lost: u64 = partitions.values().map(|at| at.next_offset).sum();
        let error = anyhow!(
            "the log was replaced: the checkpoint was made from log {:032x} and this is {:032x}; the {lost} records \
             that it had read are lost",
            manifest.log,
            input.id()
        );
        return Err(Failure::new(Exit::InputReplaced, error));
    }
    for (partition, at) in partitions {
        input.check(*partition, at).map_err(engine::source_failure)?;
    }
    Ok(())
}

/// The partitions of a checkpoint, and those that were added since: these begin at their first record, and what is final
/// by now stays so.
fn all_partitions(mut known: Partitions, offsets: &[Offsets], watermark: EventTime) -> Partitions {
    let is_fresh = known.0.is_empty();
    let floor = known.least_clock();
    for (partition, (first, _)) in (0..).map(PartitionId).zip(offsets) {
        known.0.entry(partition).or_insert_with(|| {
            if !is_fresh {
                tracing::info!(partition = partition.0, watermark, "a partition was added since the checkpoint");
            }
            PartitionState {
                next_offset: *first,
                clock: Clock::default().with_floor(floor),
                ..PartitionState::default()
            }
        });
    }
    known
}

/// How much there is to read, by partition.
fn to_read(partitions: &Partitions, offsets: &[Offsets]) -> Vec<(PartitionId, u64)> {
    let of = |(partition, at): (&PartitionId, &PartitionState)| {
        let end = offsets.get(partition.0 as usize).map_or(0, |(_, end)| *end);
        (*partition, end.saturating_sub(at.next_offset))
    };
    partitions.0.iter().map(of).collect()
}

/// The sink is ours; gives the frontier of its rows where that is ahead of what is resumed.
fn owned(claim: Option<&Claim>, history: u128, frontier: EventTime) -> Result<EventTime, Failure> {
    match claim {
        Some(claim) if claim.history != history => {
            let error = anyhow!(
                "the store holds the rows of another history ({:032x}, not {history:032x}): name another data_dir, or \
                 move its store folder away and run with --from-start; for Cassandra name another keyspace",
                claim.history
            );
            Err(Failure::new(Exit::OtherOwner, error))
        }
        Some(claim) if frontier < claim.frontier => {
            tracing::warn!(
                rows = claim.frontier,
                resumed = frontier,
                "the store is ahead: it is written again from there"
            );
            Ok(claim.frontier)
        }
        _ => Ok(0),
    }
}

/// Writes the rows that the sink is not known to hold, however often it takes within the patience.
fn rewrite(
    sink: &mut dyn CountSink,
    (reach, patience): (Reach, Duration),
    claim: &Claim,
    number: u64,
    rows: &[CountRow],
) -> Result<(), Failure> {
    if rows.is_empty() {
        return Ok(());
    }
    tracing::info!(rows = rows.len(), "writing the rows again that the store may not hold");
    let version = Version { generation: claim.generation, number };
    reach.at_start(patience, || {
        sink.set_claim(claim)?;
        sink.write(version, rows)
    })
}

fn tell_resumed(plan: &Plan, offsets: &[Offsets]) {
    let again: u64 = to_read(&plan.partitions, offsets).iter().map(|(_, records)| records).sum();
    let generation = plan.identity.generation;
    match plan.resumed {
        Some(version) => tracing::info!(
            generation,
            checkpoint = version.number,
            frontier = plan.frontier,
            records_to_read = again,
            "resumed from a checkpoint"
        ),
        None => tracing::info!(generation, records_to_read = again, "started from the first record"),
    }
}

#[cfg(test)]
mod tests {
    use connectors::memory::MemorySink;
    use dataflows::{port::SinkError, rollup::Width};

    use super::*;

    /// Whose server is away for so many calls.
    struct Away(u32, MemorySink);

    impl Away {
        fn call(&mut self) -> Result<&mut MemorySink, SinkError> {
            let (sink, what) = ("away".to_owned(), "a call".to_owned());
            match self.0.checked_sub(1) {
                Some(left) => {
                    self.0 = left;
                    Err(SinkError::Unanswered { sink, what, cause: "connection refused".into() })
                }
                None => Ok(&mut self.1),
            }
        }
    }

    impl CountSink for Away {
        fn claim(&mut self) -> Result<Option<Claim>, SinkError> {
            self.call()?.claim()
        }

        fn set_claim(&mut self, claim: &Claim) -> Result<(), SinkError> {
            self.call()?.set_claim(claim)
        }

        fn write(&mut self, version: Version, rows: &[CountRow]) -> Result<(), SinkError> {
            self.call()?.write(version, rows)
        }

        fn clear(&mut self) -> Result<(), SinkError> {
            self.call()?.clear()
        }
    }

    /// Cassandra was killed between the connection and the first write of a start, which ended with 69 and was not repeated (torture,
    /// seed 20261128).
    #[test]
    fn regression_a_sink_that_goes_away_in_the_midst_of_a_start_is_waited_for() {
        let row = CountRow {
            width: Width::Minute,
            video_id: "v".to_owned(),
            event_type: "view".to_owned(),
            window_start: 0,
            count: 1,
            stats: None,
            is_final: false,
            as_of: 1,
        };
        let claim = Claim { history: 1, generation: 2, frontier: 3 };
        let mut sink = Away(2, MemorySink::new());
        let patience = |ms| (Reach::Network, Duration::from_millis(ms));
        let ended = rewrite(&mut sink, patience(0), &claim, 4, std::slice::from_ref(&row)).unwrap_err();
        assert_eq!(ended.code, Exit::Unreachable, "without patience");
        rewrite(&mut sink, patience(60_000), &claim, 4, std::slice::from_ref(&row)).unwrap();
        assert_eq!(sink.1.rows(), [row]);
        assert_eq!(sink.1.claim().unwrap(), Some(claim));
    }
}
