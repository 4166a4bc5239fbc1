//! `tidemark replay`: recomputes the counts of bounded history, and writes them.

use std::{
    ops::Range,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::Context as _;
use connectors::{
    embedded::store::{self, Store},
    files::tsv::{self, Lines},
};
use dataflows::{
    announce::{Announcement, PartitionAt},
    checkpoint::{manifest::Meaning, plan::Loaded},
    functions::Functions,
    ledger::Ledger,
    port::{Claim, CountRow, CountSink, Version},
    ruling::Ruling,
    table::CountTable,
    time::{EventTime, MINUTE_MS},
};

use crate::{
    cli::{ReplayArgs, ReplayFrom, ReplayOut},
    commands,
    config::{CheckpointPlace, Settings},
    engine::{self, kept, reach::Reach},
    exit::{Exit, Failure, OrExit as _},
    recount::{self, Input},
};

/// Recomputes history and writes its counts.
pub fn run(settings: Settings, args: &ReplayArgs) -> Result<(), Failure> {
    let started = Instant::now();
    let input = open(&settings, &args.from)?;
    let rulings = rulings(&settings, &args.from, input.log)?;
    let (workers, rules) = (settings.workers.get(), engine::rules(&settings.time));
    let wanted = args.since.unwrap_or(0)..args.until.unwrap_or(u64::MAX);
    let (written, last) = match &args.out {
        ReplayOut::Tsv(path) => {
            let lines = move |table: CountTable<'_>, _| lines(&table, &wanted);
            // The table has counts alone.
            let (lines, last) = recount::count(workers, rules, &Functions::default(), input, rulings, lines)?;
            let written = tsv::write_tsv(path, &lines)
                .with_context(|| format!("writing {}", path.display()))
                .or_exit(Exit::StateUnwritable)?;
            (written, last)
        }
        ReplayOut::Store(dir) => {
            let (mut rows, last) = recount::rows(workers, rules, &settings.functions, input, rulings)?;
            rows.retain(|row| wanted.contains(&row.window_start));
            (write_store(dir, &rows, &last)?, last)
        }
        #[cfg(feature = "cassandra")]
        ReplayOut::Cassandra(keyspace) => {
            let (mut rows, last) = recount::rows(workers, rules, &settings.functions, input, rulings)?;
            // Before rows are left out: an hour holds all its minutes, or it is none.
            rows.extend(recount::rollups(&rows, &last));
            rows.retain(|row| wanted.contains(&row.window_start));
            (write_tables(&settings, keyspace, &rows, &last)?, last)
        }
    };
    commands::print(&summary(&last, written, started.elapsed()))
}

/// A worker's part of the text: each makes its own, at the same time.
fn lines(table: &CountTable<'_>, wanted: &Range<EventTime>) -> Lines {
    let mut lines = Lines::default();
    for (name, windows) in table.series() {
        let windows = windows.iter().map(|(minute, count)| (minute.start(), *count));
        lines.push(&name.video_id, &name.event_type, windows.filter(|(start, _)| wanted.contains(start)));
    }
    lines
}

#[cfg_attr(not(feature = "kafka"), expect(unused_variables, reason = "only servers have settings"))]
fn open(settings: &Settings, from: &ReplayFrom) -> Result<Input, Failure> {
    match from {
        ReplayFrom::Files(pattern) => Input::files(pattern),
        ReplayFrom::Log(dir) => Input::log(dir, None),
        #[cfg(feature = "kafka")]
        ReplayFrom::Kafka(topic) => Input::kafka(settings, topic, None),
    }
}

/// What was ruled of these records while they were counted live, by the checkpoints of that job: those beside the log, or
/// the configured ones, whichever are of this log and meaning.
fn rulings(settings: &Settings, from: &ReplayFrom, log: Option<u128>) -> Result<Vec<Ruling>, Failure> {
    let Some(log) = log else { return Ok(Vec::new()) };
    let meaning = Meaning::of(&engine::rules(&settings.time));
    let mut places = Vec::new();
    if let ReplayFrom::Log(dir) = from {
        places.push(CheckpointPlace::Folder(dir.parent().map_or_else(PathBuf::new, |dir| dir.join("checkpoints"))));
    }
    places.push(settings.checkpoint.place.clone());
    for place in places {
        let newest = kept::newest_good(&place)?;
        if let Some(loaded) =
            newest.filter(|Loaded { manifest, .. }| (manifest.log, manifest.meaning) == (log, meaning))
        {
            return Ok(loaded.state.rulings);
        }
    }
    Ok(Vec::new())
}

/// The failure of a store that can't be opened.
pub fn store_failure(error: store::Error) -> Failure {
    let code = match &error {
        store::Error::Locked { .. } => Exit::OtherOwner,
        _ => Exit::StateUnwritable,
    };
    Failure::new(code, error)
}

/// Writes into a store that holds nothing else.
fn write_store(dir: &Path, rows: &[CountRow], last: &Announcement) -> Result<u64, Failure> {
    let mut store = Store::open(dir).map_err(store_failure)?;
    let owned = format!("{} holds the rows of another history; name an empty folder", dir.display());
    write_rows(&mut store, Reach::Disk, owned, rows, last)
}

/// Writes into a keyspace that holds nothing else, creating what is missing.
#[cfg(feature = "cassandra")]
fn write_tables(settings: &Settings, keyspace: &str, rows: &[CountRow], last: &Announcement) -> Result<u64, Failure> {
    use connectors::cassandra::{Settings as Cassandra, Tables};

    let cassandra = Cassandra { keyspace: keyspace.to_owned(), ..engine::cassandra::settings_of(&settings.cassandra) };
    let patience = Duration::from_millis(settings.cluster.patience_ms);
    let mut tables = Tables::open(&cassandra, patience).map_err(engine::cassandra::failure)?;
    let owned = format!("keyspace {keyspace} holds the rows of another history; name another one");
    write_rows(&mut tables, Reach::Network, owned, rows, last)
}

/// Writes into a sink that nobody has claimed; `owned` says what to do where somebody has.
fn write_rows(
    sink: &mut dyn CountSink,
    reach: Reach,
    owned: String,
    rows: &[CountRow],
    last: &Announcement,
) -> Result<u64, Failure> {
    if sink.claim().map_err(|error| reach.failure(error))?.is_some() {
        return Err(Failure::new(Exit::OtherOwner, anyhow::anyhow!(owned)));
    }
    let history = u128::from(getrandom::u64().context("drawing random bytes")?);
    let version = Version { generation: 1, number: 1 };
    let frontier =
        last.partitions.iter().filter_map(|at| at.clock).max().map_or(0, |clock| clock / MINUTE_MS * MINUTE_MS);
    let claim = Claim { history, generation: 1, frontier };
    sink.set_claim(&claim).and_then(|()| sink.write(version, rows)).map_err(|error| reach.failure(error))?;
    Ok(rows.len() as u64)
}

fn summary(last: &Announcement, rows: u64, took: Duration) -> String {
    let mut text = String::new();
    let mut line = |name: String, ledger: Ledger| {
        let Ledger { read, counted, duplicate, late, future, malformed, oversize } = ledger;
        text += &format!(
            "{name}: read {read} = counted {counted} + duplicate {duplicate} + late {late} + future {future} + \
             malformed {malformed} + oversize {oversize}\n"
        );
    };
    for at in &last.partitions {
        line(format!("partition {}", at.partition.0), at.ledger);
    }
    let sum = last.ledger();
    line("all".to_owned(), sum);
    let lost: u64 = last.partitions.iter().map(PartitionAt::lost).sum();
    if lost != 0 {
        text += &format!("lost: {lost} offsets were passed over, as told\n");
    }
    let rate = sum.read as f64 / took.as_secs_f64();
    text + &format!("{rows} rows in {:.2} s, {rate:.0} records/s\n", took.as_secs_f64())
}
