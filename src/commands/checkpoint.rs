//! `tidemark checkpoint`: what is stored, looked at from outside.
//!
//! Nothing here claims, creates or removes anything, so all of it works beside a running `tidemark run`. That one drops
//! old checkpoints as it goes: one that is listed and then gone is told apart from one that is damaged.

use std::collections::BTreeMap;

use anyhow::anyhow;
use chrono::{DateTime, SecondsFormat};
use comfy_table::{CellAlignment, Table, presets};
use dataflows::{
    announce::PartitionState,
    checkpoint::{
        manifest::{Manifest, Meaning},
        part::PartState,
        plan::{self, Damage, Loaded},
    },
    clock::Clock,
    gap::Gap,
    ledger::Ledger,
    port::{CheckpointStore, PartitionId, StoreError, Version},
    rules::Rules,
    time::{EVENT_TIME_MAX, EventTime},
};

use crate::{
    cli::CheckpointCommand,
    commands::print,
    config::{CheckpointPlace, Settings},
    engine::{self, kept, reach::Reach},
    exit::{Exit, Failure},
};

/// How often the store is listed anew where all that was listed is gone. Each time a whole checkpoint was made meanwhile.
const TRIES: usize = 10;

/// A checkpoint store, as it is: nothing is claimed or created.
struct Looked<'a> {
    place: &'a CheckpointPlace,
    reach: Reach,
    store: Box<dyn CheckpointStore>,
}

impl<'a> Looked<'a> {
    /// Opens it; where it is a folder that is missing, ends with `code`.
    fn at(place: &'a CheckpointPlace, code: Exit) -> Result<Self, Failure> {
        let store = kept::look_at(place)?.ok_or_else(|| {
            Failure::new(
                code,
                anyhow!("there is no folder {place}: nothing has kept a checkpoint under this data_dir yet"),
            )
        })?;
        Ok(Self { place, reach: Reach::of_checkpoints(place), store })
    }

    fn versions(&mut self) -> Result<Vec<Version>, Failure> {
        self.store.manifests().map_err(|error| self.failure(error))
    }

    fn manifest(&mut self, version: Version) -> Result<Result<Manifest, Damage>, Failure> {
        let read = plan::read_manifest(&mut *self.store, version);
        self.reach.unless_away(read).map_err(|error| self.failure(error))
    }

    fn load(&mut self, version: Version) -> Result<Result<Loaded, Damage>, Failure> {
        let loaded = plan::load(&mut *self.store, version);
        self.reach.unless_away(loaded).map_err(|error| self.failure(error))
    }

    fn failure(&self, error: StoreError) -> Failure {
        match self.reach {
            Reach::Disk => Failure::new(Exit::Failed, error),
            Reach::Network => self.reach.failure(error),
        }
    }
}

/// Lists, shows or verifies.
pub fn run(settings: Settings, command: &CheckpointCommand) -> Result<(), Failure> {
    let place = &settings.checkpoint.place;
    match command {
        CheckpointCommand::List { .. } => list(place),
        CheckpointCommand::Show { frontier, .. } => show(place, *frontier),
        CheckpointCommand::Verify { frontier, .. } => verify(place, *frontier),
    }
}

fn list(place: &CheckpointPlace) -> Result<(), Failure> {
    let mut store = Looked::at(place, Exit::Failed)?;
    let mut table = new_table(["version", "frontier", "", "watermark", "read", "bytes", "parts", "acknowledged"]);
    let mut damaged = String::new();
    let manifests = manifests(&mut store)?;
    for (version, manifest) in &manifests {
        match manifest {
            Ok(manifest) => {
                table.add_row(row_of(manifest));
            }
            Err(damage) => {
                table.add_row([name(*version), "damaged".to_owned()]);
                damaged += &format!("{} is damaged: {}\n", name(*version), told(damage));
            }
        }
    }
    align_right(&mut table, [4, 5, 6]);
    if manifests.is_empty() {
        return print(&format!("no checkpoint in {place}\n"));
    }
    print(&format!("{}{damaged}", lines(&table)))
}

fn row_of(manifest: &Manifest) -> [String; 8] {
    [
        name(manifest.version),
        manifest.frontier.to_string(),
        utc(manifest.frontier),
        utc(manifest.watermark),
        ledger(manifest).read.to_string(),
        bytes(manifest).to_string(),
        manifest.parts.len().to_string(),
        acknowledged(manifest),
    ]
}

fn show(place: &CheckpointPlace, frontier: Option<EventTime>) -> Result<(), Failure> {
    let mut store = Looked::at(place, Exit::NoCheckpoint)?;
    let manifest = newest(&mut store, frontier)?;
    let loaded = store.load(manifest.version)?;
    match loaded {
        Ok(Loaded { manifest, mut state }) => {
            let rules = Rules { remember_ms: manifest.meaning.remember_ms, ..Rules::default() };
            state.forget(manifest.partitions.first_remembered(manifest.frontier, &rules));
            print(&described(&manifest, Some(&state)))
        }
        Err(damage) if is_gone(&mut store, manifest.version, &damage)? => {
            print(&described(&manifest, None))?;
            print("its parts are gone: a newer checkpoint took its place while it was read\n")
        }
        Err(damage) => {
            print(&described(&manifest, None))?;
            Err(anyhow!(damage).context(format!("{} is damaged", name(manifest.version))))?
        }
    }
}

/// The newest checkpoint at this frontier, or the newest of all.
fn newest(store: &mut Looked<'_>, frontier: Option<EventTime>) -> Result<Manifest, Failure> {
    for (version, manifest) in manifests(store)? {
        match (manifest, frontier) {
            (Ok(manifest), Some(frontier)) if manifest.frontier != frontier => {}
            (Ok(manifest), _) => return Ok(manifest),
            (Err(damage), Some(_)) => warn_of_unknown(version, &damage),
            (Err(damage), None) => {
                let context =
                    format!("{}, the newest, is damaged; `tidemark checkpoint verify` tells of all", name(version));
                Err(anyhow!(damage).context(context))?;
            }
        }
    }
    Err(none(store.place, frontier))
}

fn described(manifest: &Manifest, state: Option<&PartState>) -> String {
    let Manifest { version, history, log, frontier, watermark, .. } = manifest;
    let mut text = format!("checkpoint {}\n", name(*version));
    let mut line = |what: &str, value: String| text += &format!("  {what:<15} {value}\n");
    line("frontier", format!("{frontier} ({})", utc(*frontier)));
    line("watermark", format!("{watermark} ({})", utc(*watermark)));
    line("acknowledged", acknowledged(manifest));
    line("history", format!("{history:032x}"));
    line("log", format!("{log:032x}"));
    line("meaning", meaning(&manifest.meaning));
    if let Some(state) = state {
        let groups = &state.groups;
        let ids: usize = groups.iter().map(|group| group.ids.len()).sum();
        let series: usize = groups.iter().map(|group| group.names.len()).sum();
        let cells: usize = groups.iter().map(|group| group.cells.len()).sum();
        let counted = state.counted();
        line("remembered ids", ids.to_string());
        line("series", series.to_string());
        line("cells", format!("{cells}, {counted} events in them"));
        line("left memory", format!("{} events before {}", manifest.hot.left, utc(manifest.hot.from.start())));
        line("letters", letters(state));
    }
    text + "\n" + &lines(&partitions(manifest)) + &holes(manifest) + "\n" + &lines(&parts(manifest))
}

/// Dead letters that were not known to be published yet, by reason.
fn letters(state: &PartState) -> String {
    let mut by_reason: BTreeMap<&str, u64> = BTreeMap::new();
    for letter in &state.letters {
        *by_reason.entry(letter.reason.as_str()).or_default() += 1;
    }
    let reasons: String = by_reason.iter().map(|(reason, count)| format!(", {reason} {count}")).collect();
    format!("{}{reasons}", state.letters.len())
}

fn meaning(meaning: &Meaning) -> String {
    let Meaning { window_ms, lateness_ms, remember_ms, max_future_ms, max_jump_ms } = meaning;
    format!(
        "window {window_ms} ms, lateness {lateness_ms} ms, remember {remember_ms} ms, max_future {max_future_ms} ms, \
         max_jump {max_jump_ms} ms"
    )
}

fn partitions(manifest: &Manifest) -> Table {
    let heads =
        ["partition", "next offset", "clock", "", "read", "counted", "duplicate", "late", "future", "malformed"];
    let mut table = new_table(heads.into_iter().chain(["oversize", "balances"]));
    for (partition, at) in &manifest.partitions.0 {
        let clock = at.clock.time().map_or("none yet".to_owned(), |time| time.to_string());
        let place = [partition.0.to_string(), at.next_offset.to_string(), clock, beyond_reach(&at.clock)];
        table.add_row(place.into_iter().chain(accounts(at.ledger)));
    }
    let all = ["all", "", "", ""].map(str::to_owned);
    table.add_row(all.into_iter().chain(accounts(ledger(manifest))));
    align_right(&mut table, [1, 2, 4, 5, 6, 7, 8, 9, 10]);
    table
}

/// A line for each hole in a partition.
fn holes(manifest: &Manifest) -> String {
    let of = |(partition, at): (&PartitionId, &PartitionState)| {
        let hole = |gap: &Gap| {
            let until = gap.until.map_or("now".to_owned(), utc);
            format!(
                "partition {}: offsets {} to before {} were gone before they were read; windows from {} to {until} may \
                 lack events\n",
                partition.0,
                gap.wanted,
                gap.first,
                utc(gap.from)
            )
        };
        at.gaps.iter().map(hole).collect::<String>()
    };
    manifest.partitions.0.iter().map(of).collect()
}

/// The row of events beyond the clock's reach, where one is under way.
fn beyond_reach(clock: &Clock) -> String {
    clock.row().map_or(String::new(), |row| format!("{} ids beyond, least {}", row.event_ids.len(), row.least))
}

fn accounts(ledger: Ledger) -> impl Iterator<Item = String> {
    let Ledger { read, counted, duplicate, late, future, malformed, oversize } = ledger;
    let balances = if ledger.balances() { "yes" } else { "NO" };
    let accounts = [read, counted, duplicate, late, future, malformed, oversize].map(|records| records.to_string());
    accounts.into_iter().chain([balances.to_owned()])
}

fn parts(manifest: &Manifest) -> Table {
    let mut table = new_table(["part", "bytes", "xxh3-128"]);
    for part in &manifest.parts {
        table.add_row([part.name.clone(), part.bytes.to_string(), format!("{:032x}", part.hash)]);
    }
    align_right(&mut table, [1]);
    table
}

/// How many checkpoints came out how.
#[derive(Default)]
struct Tried {
    good: usize,
    damaged: usize,
    gone: usize,
}

fn verify(place: &CheckpointPlace, frontier: Option<EventTime>) -> Result<(), Failure> {
    let mut store = Looked::at(place, Exit::NoCheckpoint)?;
    let mut tried = Tried::default();
    for _ in 0..TRIES {
        tried = verify_once(&mut store, frontier)?;
        if !matches!(tried, Tried { good: 0, damaged: 0, gone: 1.. }) {
            break;
        }
    }
    concluded(&tried, place, frontier)
}

fn verify_once(store: &mut Looked<'_>, frontier: Option<EventTime>) -> Result<Tried, Failure> {
    let mut tried = Tried::default();
    for (version, manifest) in manifests(store)? {
        match (&manifest, frontier) {
            (Ok(manifest), Some(frontier)) if manifest.frontier != frontier => continue,
            (Err(damage), Some(_)) => {
                warn_of_unknown(version, damage);
                continue;
            }
            _ => {}
        }
        let loaded = match manifest {
            Ok(_) => store.load(version)?,
            Err(damage) => Err(damage),
        };
        let verdict = match loaded {
            Ok(loaded) => {
                tried.good += 1;
                format!("good     {}", balanced(&loaded))
            }
            Err(damage) if is_gone(store, version, &damage)? => {
                tried.gone += 1;
                "gone     newer ones took its place while it was read".to_owned()
            }
            Err(damage) => {
                tried.damaged += 1;
                format!("damaged  {}", told(&damage))
            }
        };
        print(&format!("{}  {verdict}\n", name(version)))?;
    }
    Ok(tried)
}

fn balanced(loaded: &Loaded) -> String {
    let manifest = &loaded.manifest;
    let cells: usize = loaded.state.groups.iter().map(|group| group.cells.len()).sum();
    let Ledger { read, counted, duplicate, late, future, malformed, oversize } = ledger(manifest);
    format!(
        "frontier {} ({}), {} parts, {} bytes; read {read} = counted {counted} + duplicate {duplicate} + late {late} + \
         future {future} + malformed {malformed} + oversize {oversize}; counted = the sum of {cells} cells",
        manifest.frontier,
        utc(manifest.frontier),
        manifest.parts.len(),
        bytes(manifest),
    )
}

fn concluded(tried: &Tried, place: &CheckpointPlace, frontier: Option<EventTime>) -> Result<(), Failure> {
    match tried {
        Tried { good: 0, damaged: 0, gone: 0 } => Err(none(place, frontier)),
        Tried { good: 0, damaged: 0, gone: 1.. } => {
            Err(anyhow!("the checkpoints in {place} went faster than they could be read; try again"))?
        }
        Tried { good: 0, damaged, .. } => {
            let error = anyhow!("none of the checkpoints in {place} is good: {damaged} damaged");
            Err(Failure::new(Exit::NoCheckpoint, error))
        }
        Tried { damaged: 0, .. } => Ok(()),
        Tried { good, damaged, .. } => {
            Err(anyhow!("{damaged} of {} checkpoints in {place} are damaged", good + damaged))?
        }
    }
}

fn none(place: &CheckpointPlace, frontier: Option<EventTime>) -> Failure {
    let which = frontier.map_or(String::new(), |frontier| format!(" at frontier {frontier}"));
    Failure::new(Exit::NoCheckpoint, anyhow!("there is no checkpoint{which} in {place}"))
}

/// A manifest that was tried to be read.
type Read = (Version, Result<Manifest, Damage>);

/// All manifests, newest first, without those that go while they are read. Where all went, there are newer ones.
fn manifests(store: &mut Looked<'_>) -> Result<Vec<Read>, Failure> {
    let mut manifests = Vec::new();
    for _ in 0..TRIES {
        let versions = store.versions()?;
        for version in versions.iter().rev() {
            let manifest = store.manifest(*version)?;
            let gone = match &manifest {
                Ok(_) => false,
                Err(damage) => is_gone(store, *version, damage)?,
            };
            if !gone {
                manifests.push((*version, manifest));
            }
        }
        if versions.is_empty() || !manifests.is_empty() {
            break;
        }
    }
    Ok(manifests)
}

/// Whether something is missing because the checkpoint is: a manifest goes before its parts do.
fn is_gone(store: &mut Looked<'_>, version: Version, damage: &Damage) -> Result<bool, Failure> {
    match damage {
        Damage::Store(StoreError::Missing { .. }) => Ok(!store.versions()?.contains(&version)),
        _ => Ok(false),
    }
}

/// A manifest that can't be read may be the one at the frontier that is asked for.
fn warn_of_unknown(version: Version, damage: &Damage) {
    tracing::warn!(version = name(version), damage = told(damage), "the frontier of a damaged checkpoint is not known");
}

/// An error with its causes, on one line.
fn told(damage: &Damage) -> String {
    engine::one_line(damage)
}

fn ledger(manifest: &Manifest) -> Ledger {
    let mut sum = Ledger::default();
    manifest.partitions.0.values().for_each(|at| sum += at.ledger);
    sum
}

fn bytes(manifest: &Manifest) -> u64 {
    manifest.parts.iter().map(|part| part.bytes).sum()
}

fn name(version: Version) -> String {
    format!("{}-{}", version.generation, version.number)
}

fn acknowledged(manifest: &Manifest) -> String {
    if manifest.acknowledged == Version::default() { "none".to_owned() } else { name(manifest.acknowledged) }
}

/// A time for people; what is past the year 9999 is no time of an event.
fn utc(time: EventTime) -> String {
    let known = i64::try_from(time).ok().filter(|_| time <= EVENT_TIME_MAX).and_then(DateTime::from_timestamp_millis);
    known.map_or("the end".to_owned(), |known| known.to_rfc3339_opts(SecondsFormat::Millis, true))
}

fn new_table(heads: impl IntoIterator<Item = &'static str>) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(heads.into_iter().collect::<Vec<_>>());
    table
}

fn align_right(table: &mut Table, columns: impl IntoIterator<Item = usize>) {
    for column in columns {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
}

/// The table's lines without the blanks at their ends.
fn lines(table: &Table) -> String {
    table.lines().map(|line| format!("{}\n", line.trim_end())).collect()
}

#[cfg(test)]
mod tests {
    use connectors::embedded::checkpoints::CheckpointDir;

    use super::*;

    #[test]
    fn times_are_shown_in_utc_and_the_end_of_time_is_none() {
        assert_eq!(utc(1_767_225_600_123), "2026-01-01T00:00:00.123Z");
        assert_eq!(utc(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(utc(u64::MAX), "the end");
    }

    #[test]
    fn a_checkpoint_that_went_while_it_was_read_is_not_damaged() {
        let dir = tempfile::tempdir().unwrap();
        CheckpointDir::open(dir.path()).unwrap();
        let place = CheckpointPlace::Folder(dir.path().to_owned());
        let mut looked = Looked::at(&place, Exit::Failed).unwrap();
        let version = Version { generation: 1, number: 1 };
        looked.store.commit(version, b"manifest").unwrap();
        let missing = Damage::Store(StoreError::Missing { name: "a.part".into() });
        assert!(!is_gone(&mut looked, version, &missing).unwrap(), "a part is missing, and the checkpoint is there");
        looked.store.retain(&[], &[]).unwrap();
        assert!(is_gone(&mut looked, version, &missing).unwrap());
        assert!(!is_gone(&mut looked, version, &Damage::Mixed { name: "a.part".into() }).unwrap());
    }

    #[test]
    fn an_error_is_told_with_its_causes() {
        let cause = std::io::Error::other("the disk is gone");
        let damage = Damage::Store(StoreError::Failed { name: "a.part".into(), cause: cause.into() });
        assert_eq!(told(&damage), "a.part can't be written or read: the disk is gone");
    }
}
