//! `tidemark audit`: counts the log anew up to the offsets of one checkpoint, and compares with what is served there.
//!
//! Right is what a replay under the checkpoint's own settings and rulings comes to. It is held against the checkpoint's
//! cells, from which the next start would go on, and against what is served: the rows of the store or of the tables, or,
//! while a process runs on the folder and its store is its own, that process's answers at the checkpoint's frontier.

mod copies;
mod mend;
mod served;

use std::collections::{BTreeMap, BTreeSet};

use anyhow::anyhow;
use dataflows::{
    checkpoint::{
        manifest::{Manifest, Meaning},
        plan::Loaded,
    },
    functions::stats::Stats,
    port::{CountRow, Version},
    rollup::{Rollups, Width},
    rules::Rules,
    time::{EventTime, Minute},
};

use crate::{
    cli::AuditArgs,
    commands::print,
    config::{Settings, SourceKind},
    engine::{self, kept},
    exit::{Exit, Failure},
    live::lock::{self, DataLock},
    logging,
    recount::{self, Input},
};

/// A window of a video and event type.
pub type Window = (String, String, EventTime);

/// Counts of windows; one that isn't there holds nothing.
pub type Counts = BTreeMap<Window, u64>;

/// What is beside the counts.
type Functions = BTreeMap<Window, Stats>;

/// Audits, and mends if that is wanted.
pub fn run(settings: Settings, args: &AuditArgs) -> Result<(), Failure> {
    let loaded = checkpoint(&settings, args.checkpoint)?;
    // Held to the end: no job begins meanwhile, and none has it where something is mended.
    lock::create(&settings.data_dir)?;
    let held = match DataLock::take(&settings.data_dir) {
        Err(failure) if failure.code == Exit::OtherOwner && !args.apply => None,
        taken => Some(taken?),
    };
    let manifest = &loaded.manifest;
    let until: Vec<u64> = manifest.partitions.0.values().map(|at| at.next_offset).collect();
    let rules = rules(&settings, &manifest.meaning);
    let input = open(&settings, manifest, &until)?;
    let workers = settings.workers.get();
    // Counts are compared; functions are for the rows that may be written.
    let kept = if args.apply { settings.functions.clone() } else { Default::default() };
    let (rows, _) = recount::rows(workers, rules, &kept, input, loaded.state.rulings.clone())?;
    let right: Counts = rows.iter().map(|row| (window(row), row.count)).collect();
    let functions: Functions = rows.into_iter().filter_map(|row| Some((window(&row), row.stats?))).collect();
    copies::tell(open(&settings, manifest, &until)?)?;

    let cells = cells(&loaded);
    // What has left memory is in what is served alone.
    let is_kept = |(_, _, start): &Window| manifest.hot.from.start() <= *start;
    let in_memory = right.iter().filter(|(window, _)| is_kept(window)).map(|(window, count)| (window.clone(), *count));
    let kept_wrong = differences(&cells, &in_memory.collect());
    let served = served::read(&settings, &loaded, &right, held.is_some())?;
    let served_wrong = served.as_ref().map_or_else(Vec::new, |served| differences(served, &right));
    print(&lines(kept_wrong.iter().chain(&served_wrong)))?;
    let checked = format!("checkpoint {}, frontier {}", name(manifest.version), manifest.frontier);
    eprintln!(
        "{checked}: {} windows are right; {} differ in the checkpoint, {} in what is served",
        right.len(),
        kept_wrong.len(),
        served_wrong.len()
    );
    if args.apply && !served_wrong.is_empty() {
        mend::write(&settings, manifest, &served_wrong, &Right { counts: &right, functions: &functions })?;
        eprintln!("{} rows are written anew", served_wrong.len());
    }
    conclude(kept_wrong.len(), if args.apply { 0 } else { served_wrong.len() })
}

fn conclude(kept: usize, served: usize) -> Result<(), Failure> {
    if 0 < kept {
        let error = anyhow!(
            "the checkpoint holds {kept} windows that are not right, and the next start would go on from it: start with \
             `tidemark run --from-start`, which counts the log anew"
        );
        return Err(Failure::new(Exit::Failed, error));
    }
    if 0 < served {
        let error = anyhow!("{served} rows differ; stop the job and run the same with --apply to write what is right");
        return Err(Failure::new(Exit::Failed, error));
    }
    Ok(())
}

/// The checkpoint with this name, or the newest good one.
fn checkpoint(settings: &Settings, wanted: Option<Version>) -> Result<Loaded, Failure> {
    let place = &settings.checkpoint.place;
    let loaded = match wanted {
        None => kept::newest_good(place)?,
        Some(version) => kept::one(place, version)?,
    };
    loaded.ok_or_else(|| {
        let which = wanted
            .map_or_else(|| "no good checkpoint".to_owned(), |version| format!("no checkpoint {}", name(version)));
        Failure::new(Exit::NoCheckpoint, anyhow!("there is {which} in {place}"))
    })
}

/// The settings of time that the checkpoint was made under.
fn rules(settings: &Settings, meaning: &Meaning) -> Rules {
    let Meaning { window_ms: _, lateness_ms, remember_ms, max_future_ms, max_jump_ms } = *meaning;
    Rules { lateness_ms, remember_ms, max_future_ms, max_jump_ms, ..engine::rules(&settings.time) }
}

/// The log up to the checkpoint.
fn open(settings: &Settings, manifest: &Manifest, until: &[u64]) -> Result<Input, Failure> {
    let input = match settings.source.kind {
        SourceKind::Log => Input::log(&settings.data_dir.join("log"), Some(until))?,
        #[cfg(feature = "kafka")]
        SourceKind::Kafka => Input::kafka(settings, &settings.kafka.topic, Some(until))?,
        #[cfg(not(feature = "kafka"))]
        SourceKind::Kafka => return Err(Failure::usage("kafka is not in this build".to_owned())),
    };
    match input.log {
        Some(log) if log != manifest.log => {
            let error = anyhow!(
                "the log was replaced: the checkpoint was made from log {:032x} and this is {log:032x}",
                manifest.log
            );
            Err(Failure::new(Exit::InputReplaced, error))
        }
        _ => Ok(input),
    }
}

fn window(row: &CountRow) -> Window {
    (row.video_id.clone(), row.event_type.clone(), row.window_start)
}

fn cells(loaded: &Loaded) -> Counts {
    let groups = loaded.state.groups.iter();
    let of = groups.flat_map(|group| group.cells.iter().map(move |cell| (&group.names[cell.series.0 as usize], cell)));
    of.map(|((video, kind), cell)| ((video.to_string(), kind.to_string(), cell.minute.start()), cell.count)).collect()
}

/// What the log comes to.
struct Right<'a> {
    counts: &'a Counts,
    functions: &'a Functions,
}

impl Right<'_> {
    /// The hours and days that these windows are part of.
    fn rollups(&self, of: &[Difference], manifest: &Manifest) -> Vec<CountRow> {
        let mut rollups = Rollups::default();
        for (window @ (video_id, event_type, start), count) in self.counts {
            let series = (video_id.as_str(), event_type.as_str());
            rollups.add(&series, Minute::of(*start), *count, self.functions.get(window));
        }
        let parents = of.iter().flat_map(|Difference { window: (video_id, event_type, start), .. }| {
            let minute = Minute::of(*start);
            Width::ROLLED.map(|width| (width, video_id.as_str(), event_type.as_str(), width.start(minute)))
        });
        let row = |(width, video_id, event_type, start)| {
            let series = (video_id, event_type);
            let rolled = rollups.get(&series, width, Minute::of(start)).cloned().unwrap_or_default();
            rolled.row(series, (width, start), manifest.watermark, manifest.frontier)
        };
        parents.collect::<BTreeSet<_>>().into_iter().map(row).collect()
    }
}

/// A window whose count is not the right one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Difference {
    pub window: Window,
    pub found: u64,
    pub right: u64,
}

impl Difference {
    /// The row as it should be at a checkpoint.
    fn row(&self, manifest: &Manifest, right: &Right<'_>) -> CountRow {
        let (video_id, event_type, window_start) = self.window.clone();
        CountRow {
            video_id,
            event_type,
            window_start,
            count: self.right,
            width: Width::Minute,
            stats: right.functions.get(&self.window).cloned(),
            is_final: Minute::of(window_start).is_final(manifest.watermark),
            as_of: manifest.frontier,
        }
    }
}

/// Windows with other counts; what is missing is the same as nothing counted.
fn differences(found: &Counts, right: &Counts) -> Vec<Difference> {
    let windows: BTreeSet<&Window> = found.keys().chain(right.keys()).collect();
    let count = |counts: &Counts, window: &Window| counts.get(window).copied().unwrap_or(0);
    let both = windows.into_iter().map(|window| (window, count(found, window), count(right, window)));
    let different = both.filter(|(_, found, right)| found != right);
    different.map(|(window, found, right)| Difference { window: window.clone(), found, right }).collect()
}

/// One line each, what differs in two places once: video id, event type, window, served, right.
fn lines<'a>(differences: impl Iterator<Item = &'a Difference>) -> String {
    let sorted: BTreeSet<&Difference> = differences.collect();
    let line = |Difference { window: (video, kind, start), found, right }: &Difference| {
        format!("{}\t{kind}\t{start}\t{found}\t{right}\n", logging::escape_line(video))
    };
    sorted.into_iter().map(line).collect()
}

fn name(version: Version) -> String {
    format!("{}-{}", version.generation, version.number)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(rows: &[(&str, u64, u64)]) -> Counts {
        let row = |(video, start, count): &(&str, u64, u64)| (((*video).to_owned(), "view".to_owned(), *start), *count);
        rows.iter().map(row).collect()
    }

    #[test]
    fn every_window_with_another_count_is_a_line_and_what_is_missing_counts_as_nothing() {
        let right = counts(&[("a", 0, 5), ("a", 60_000, 1), ("b", 0, 2)]);
        let found = counts(&[("a", 0, 5), ("a", 60_000, 3), ("c", 0, 4), ("d", 0, 0)]);
        let wrong = differences(&found, &right);
        let twice = wrong.iter().chain(&wrong);
        assert_eq!(lines(twice), "a\tview\t60000\t3\t1\nb\tview\t0\t0\t2\nc\tview\t0\t4\t0\n");
        assert_eq!(differences(&right, &right), []);
    }

    #[test]
    fn a_difference_is_mended_by_the_row_at_the_checkpoint() {
        assert!(conclude(0, 0).is_ok());
        for (kept, served, says) in [(1, 0, "--from-start"), (0, 2, "2 rows differ"), (3, 3, "3 windows")] {
            let failure = conclude(kept, served).unwrap_err();
            assert_eq!(failure.code, Exit::Failed);
            assert!(failure.report().contains(says), "{}", failure.report());
        }
    }
}
