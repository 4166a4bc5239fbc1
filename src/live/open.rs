//! Opening a data folder: whose it is, where to resume, and what a crash left to be written again.

use std::{collections::HashSet, fs, os::unix::fs::DirBuilderExt as _, path::Path};

use anyhow::{Context as _, anyhow};
use connectors::embedded::{
    checkpoints::CheckpointDir,
    letters::{self, LetterDir},
    log::Log,
    store::Store,
};
use dataflows::{
    checkpoint::{
        manifest::Meaning,
        plan::{self, Loaded, Resume},
    },
    graph::Start,
    identity::IdKey,
    port::{CheckpointStore as _, Claim, CountRow, CountSink as _, LetterSink as _, PartitionId, Version},
    rules::Rules,
    time::EventTime,
};

use crate::{
    commands::replay::{log_failure, secret},
    config::{Settings, SinkKind},
    engine,
    exit::{Exit, Failure, OrExit as _},
};

/// What stays the same over all starts of a history, and this start's generation.
#[derive(Clone, Debug)]
pub struct Identity {
    /// Which history.
    pub history: u128,
    /// Which log.
    pub log: u128,
    /// The secret under which ids are hashed.
    pub key: IdKey,
    /// What is counted.
    pub meaning: Meaning,
    /// Claimed at this start.
    pub generation: u64,
}

/// Everything that a run needs from its data folder.
pub struct Opened {
    /// The input.
    pub log: Log,
    /// Where checkpoints go.
    pub checkpoints: CheckpointDir,
    /// Where rows go, if anywhere.
    pub sink: Option<Store>,
    /// Where dead letters go.
    pub letters: LetterDir,
    /// Letters that are published already though their records are read again: partition and offset.
    pub published: HashSet<(u32, u64)>,
    /// Who we are.
    pub identity: Identity,
    /// Where the dataflow starts.
    pub start: Start,
    /// The checkpoint that is resumed.
    pub resumed: Option<Version>,
    /// The frontier of the rows that the sink holds from a newer checkpoint than the one resumed.
    pub write_from: EventTime,
}

/// Opens the folder, creating what is missing, and finds out where to start.
pub fn open(settings: &Settings, rules: &Rules, from_start: bool) -> Result<Opened, Failure> {
    let dir = &settings.data_dir;
    create(dir)?;
    let log =
        Log::open(&dir.join("log"), settings.source.partitions.get(), engine::wall_clock_ms).map_err(log_failure)?;
    let mut checkpoints = CheckpointDir::open(&settings.checkpoint.dir).or_exit(Exit::StateUnwritable)?;
    let mut sink = match settings.sink {
        SinkKind::Store => Some(Store::open(dir.join("store")).or_exit(Exit::StateUnwritable)?),
        SinkKind::None => None,
    };
    let mut letters = LetterDir::open(dir.join("dead-letters")).or_exit(Exit::StateUnwritable)?;
    let mut claim = match &mut sink {
        Some(sink) => sink.claim().or_exit(Exit::StateUnwritable)?,
        None => None,
    };
    let meaning = Meaning::of(rules);
    // Claim first, then look: no older process can commit behind our back. Rows and letters may be older than the
    // checkpoints, where these were lost; under a lesser generation ours would be taken for theirs.
    let published_last = letters.newest().or_exit(Exit::StateUnwritable)?.unwrap_or_default();
    let above = claim.as_ref().map_or(0, |claim| claim.generation).max(published_last.generation);
    let generation = checkpoints.claim_generation(above).or_exit(Exit::StateUnwritable)?;
    if let Some(sink) = sink.as_mut().filter(|_| from_start && claim.take().is_some()) {
        // What is counted anew may lack windows that it holds, if the log or the meaning of the counts has changed. A
        // crash from here on leaves either a checkpoint, whose rows are then all written, or none.
        sink.clear().or_exit(Exit::StateUnwritable)?;
    }
    let newest = checkpoints.manifests().or_exit(Exit::StateUnwritable)?.last().map_or(0, |newest| newest.number);
    let identity = |history, key| Identity { history, log: log.id(), key, meaning, generation };
    let found = find(&mut checkpoints, &meaning, claim.as_ref(), from_start)?;
    let (identity, start, resumed, write_from, published) = match found {
        None => {
            let history = claim.as_ref().map_or(fresh_history()?, |claim| claim.history);
            let partitions = (0..log.partitions()).map(PartitionId);
            let start = Start { number: newest, ..Start::fresh(partitions) };
            let write_from = claim.map_or(0, |claim| claim.frontier);
            let published = published(&dir.join("dead-letters"))?;
            (identity(history, secret()?), start, None, write_from, published)
        }
        Some(loaded) => {
            same_log(&log, &loaded)?;
            let Loaded { manifest, state } = loaded;
            let write_from = owned(claim.as_ref(), manifest.history, manifest.frontier)?;
            let mut start =
                Start { frontier: manifest.frontier, number: newest, partitions: manifest.partitions, state };
            letters.publish(manifest.version, &start.state.letters).or_exit(Exit::StateUnwritable)?;
            start.state.letters.clear();
            let fell_back = write_from != 0 || manifest.version.number != newest;
            if let Some(sink) = sink.as_mut().filter(|_| write_from == 0) {
                let version = Version { generation, number: manifest.version.number };
                // A store that nobody has claimed is a new one: it has none of the rows.
                let which = if claim.is_some() { Which::Unwritten } else { Which::All };
                rewrite(sink, version, &mut start, manifest.watermark, which)?;
            }
            let published = if fell_back { published(&dir.join("dead-letters"))? } else { HashSet::new() };
            (identity(manifest.history, manifest.key), start, Some(manifest.version), write_from, published)
        }
    };
    Ok(Opened { log, checkpoints, sink, letters, published, identity, start, resumed, write_from })
}

fn create(dir: &Path) -> Result<(), Failure> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .with_context(|| format!("creating the data folder {}", dir.display()))
        .or_exit(Exit::StateUnwritable)
}

fn fresh_history() -> Result<u128, Failure> {
    let IdKey([low, high]) = secret()?;
    Ok(u128::from(low) | u128::from(high) << 64)
}

/// The checkpoint to resume, or none where the log is to be counted from its first record.
fn find(
    checkpoints: &mut CheckpointDir,
    meaning: &Meaning,
    claim: Option<&Claim>,
    from_start: bool,
) -> Result<Option<Loaded>, Failure> {
    if from_start {
        tracing::warn!("counting the log anew from its first record, as told by --from-start");
        return Ok(None);
    }
    match plan::resume(checkpoints, meaning).or_exit(Exit::StateUnwritable)? {
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
fn same_log(log: &Log, loaded: &Loaded) -> Result<(), Failure> {
    let partitions = &loaded.manifest.partitions.0;
    if loaded.manifest.log != log.id() {
        let lost: u64 = partitions.values().map(|at| at.next_offset).sum();
        let error = anyhow!(
            "the log was replaced: the checkpoint was made from log {:032x} and this is {:032x}; the {lost} records \
             that it had read are lost",
            loaded.manifest.log,
            log.id()
        );
        return Err(Failure::new(Exit::InputReplaced, error));
    }
    for (partition, at) in partitions {
        log.reader(*partition, at.next_offset).map_err(engine::source_failure)?;
    }
    Ok(())
}

/// The sink is ours; gives the frontier of its rows where that is ahead of what is resumed.
fn owned(claim: Option<&Claim>, history: u128, frontier: EventTime) -> Result<EventTime, Failure> {
    match claim {
        Some(claim) if claim.history != history => {
            let error = anyhow!(
                "the store holds the rows of another history ({:032x}, not {history:032x}): name another data_dir, or \
                 move its store folder away and run with --from-start",
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

/// Which rows of a checkpoint are written at a start.
#[derive(Copy, Clone, PartialEq, Eq)]
enum Which {
    /// Those that changed after the last acknowledged checkpoint.
    Unwritten,
    All,
}

/// Writes the rows that the sink is not known to hold.
fn rewrite(
    sink: &mut Store,
    version: Version,
    start: &mut Start,
    watermark: EventTime,
    which: Which,
) -> Result<(), Failure> {
    let mut rows = Vec::new();
    for group in &mut start.state.groups {
        for cell in group.cells.iter_mut().filter(|cell| which == Which::All || cell.unwritten) {
            cell.unwritten = false;
            let (video_id, event_type) = group.names[cell.series.0 as usize].clone();
            rows.push(CountRow {
                video_id,
                event_type,
                window_start: cell.minute.start(),
                count: cell.count,
                is_final: cell.minute.is_final(watermark),
                as_of: start.frontier,
            });
        }
    }
    if !rows.is_empty() {
        tracing::info!(rows = rows.len(), "writing the rows again that the store may not hold");
        sink.write(version, &rows).or_exit(Exit::StateUnwritable)?;
    }
    Ok(())
}

/// Every letter that is published.
fn published(dir: &Path) -> Result<HashSet<(u32, u64)>, Failure> {
    let mut published = HashSet::new();
    for letter in letters::read(dir, None, None).or_exit(Exit::Failed)? {
        let letter = letter.or_exit(Exit::Failed)?;
        published.insert((letter.source.partition, letter.source.offset));
    }
    Ok(published)
}
