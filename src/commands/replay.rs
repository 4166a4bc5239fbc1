//! `tidemark replay`: recomputes the counts of bounded history, with the same graph as `run`, at full speed.

use std::{
    ops::Range,
    path::Path,
    rc::Rc,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    time::{Duration, Instant},
};

use anyhow::Context as _;
use connectors::{
    embedded::{
        log::{Log, LogError},
        store::{self, Store},
    },
    files::{
        FileInput,
        tsv::{self, Lines},
    },
    json::JsonEvents,
};
use dataflows::{
    announce::Announcement,
    graph::{self, Job, Start},
    identity::IdKey,
    lane::Ended,
    ledger::Ledger,
    port::{Claim, CountRow, CountSink, PartitionId, SourceError, Version},
    table::CountTable,
    time::{EventTime, MINUTE_MS, Minute},
};

use crate::{
    cli::{ReplayArgs, ReplayFrom, ReplayOut},
    commands,
    config::Settings,
    engine::{self, FirstError, Handout, Monotonic, SendReader, reach::Reach},
    exit::{Exit, Failure, OrExit as _},
    progress::Progress,
};

/// How often the progress is looked at.
const LOOK: Duration = Duration::from_millis(100);

/// Recomputes history and writes its counts.
pub fn run(settings: Settings, args: &ReplayArgs) -> Result<(), Failure> {
    let started = Instant::now();
    let input = Input::open(&settings, &args.from)?;
    let wanted = args.since.unwrap_or(0)..args.until.unwrap_or(u64::MAX);
    let (written, last) = match &args.out {
        ReplayOut::Tsv(path) => {
            let (lines, last) = count(&settings, input, move |table, _| lines(&table, &wanted))?;
            let written = tsv::write_tsv(path, &lines)
                .with_context(|| format!("writing {}", path.display()))
                .or_exit(Exit::StateUnwritable)?;
            (written, last)
        }
        ReplayOut::Store(dir) => {
            let (rows, last) = rows(&settings, input, wanted)?;
            (write_store(dir, &rows, &last)?, last)
        }
        #[cfg(feature = "cassandra")]
        ReplayOut::Cassandra(keyspace) => {
            let (rows, last) = rows(&settings, input, wanted)?;
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

/// All rows, each with its finality.
fn rows(settings: &Settings, input: Input, wanted: Range<EventTime>) -> Result<(Vec<CountRow>, Announcement), Failure> {
    let take = move |table: CountTable<'_>, as_of| -> Vec<CountRow> {
        table.rows(as_of).filter(|row| wanted.contains(&row.window_start)).collect()
    };
    let (rows, last) = count(settings, input, take)?;
    let finality = |row: CountRow| CountRow { is_final: last.is_final(Minute::of(row.window_start)), ..row };
    Ok((rows.into_iter().flatten().map(finality).collect(), last))
}

/// What is read, opened, with how much there is of it.
struct Input {
    readers: Vec<(u64, SendReader)>,
    ended: Ended,
    total: u64,
    progress: Arc<AtomicU64>,
    unit: &'static str,
}

impl Input {
    #[cfg_attr(not(feature = "kafka"), expect(unused_variables, reason = "only servers have settings"))]
    fn open(settings: &Settings, from: &ReplayFrom) -> Result<Self, Failure> {
        match from {
            ReplayFrom::Files(pattern) => Self::files(pattern),
            ReplayFrom::Log(dir) => Self::log(dir),
            #[cfg(feature = "kafka")]
            ReplayFrom::Kafka(topic) => Self::kafka(settings, topic),
        }
    }

    fn files(pattern: &str) -> Result<Self, Failure> {
        let partitions = FileInput::open_glob(pattern).or_exit(Exit::Usage)?;
        let progress = Arc::new(AtomicU64::new(0));
        let total = partitions.iter().map(|partition| partition.size_bytes).sum();
        let mut readers = Vec::new();
        for partition in partitions {
            let size = partition.size_bytes;
            let reader = partition.reader(Arc::clone(&progress)).map_err(engine::source_failure)?;
            readers.push((size, Box::new(reader) as SendReader));
        }
        Ok(Self { readers, ended: Ended::ForGood, total, progress, unit: "bytes" })
    }

    /// The log as it is now; what is appended from here on is not read.
    fn log(dir: &Path) -> Result<Self, Failure> {
        let log = Log::open_read_only(dir).map_err(log_failure)?;
        let offsets: Vec<_> = log.first_offsets().into_iter().zip(log.end_offsets()).collect();
        Self::up_to(&offsets, |partition, first, end| Ok(Box::new(log.reader_until(partition, first, end)?)))
    }

    /// The topic as it is now, from its first records on; what is produced from here on is not read.
    #[cfg(feature = "kafka")]
    fn kafka(settings: &Settings, topic: &str) -> Result<Self, Failure> {
        use connectors::kafka::{Settings as Kafka, Topic};

        let kafka = Kafka { topic: topic.to_owned(), ..engine::kafka::settings_of(&settings.kafka) };
        let patience = Duration::from_millis(settings.cluster.patience_ms);
        let topic = Topic::open(&kafka, None, patience).map_err(engine::kafka::failure)?;
        let offsets = topic.offsets().map_err(engine::kafka::failure)?;
        Self::up_to(&offsets, |partition, first, end| Ok(Box::new(topic.reader_until(partition, first, end)?)))
    }

    /// A log up to these ends.
    fn up_to(
        offsets: &[(u64, u64)],
        open: impl Fn(PartitionId, u64, u64) -> Result<SendReader, SourceError>,
    ) -> Result<Self, Failure> {
        let mut readers = Vec::new();
        for (partition, (first, end)) in (0..).map(PartitionId).zip(offsets) {
            eprintln!("partition {}: offsets {first} to {end}", partition.0);
            readers.push((end - first, open(partition, *first, *end).map_err(engine::source_failure)?));
        }
        let total = readers.iter().map(|(records, _)| records).sum();
        Ok(Self { readers, ended: Ended::ForNow, total, progress: Arc::default(), unit: "records" })
    }
}

/// The failure of a log that can't be opened.
pub fn log_failure(error: LogError) -> Failure {
    let code = match &error {
        LogError::Owned { .. } => Exit::OtherOwner,
        LogError::Partitions { .. } | LogError::Missing { .. } => Exit::Usage,
        LogError::Corrupt { .. } | LogError::Manifest { .. } => Exit::InputReplaced,
        _ => Exit::StateUnwritable,
    };
    Failure::new(code, error)
}

/// The failure of a store that can't be opened.
pub fn store_failure(error: store::Error) -> Failure {
    let code = match &error {
        store::Error::Locked { .. } => Exit::OtherOwner,
        _ => Exit::StateUnwritable,
    };
    Failure::new(code, error)
}

/// Runs the graph to the end of the input: what `take` makes of each worker's counts, and what is true at the end.
fn count<T: Send + 'static>(
    settings: &Settings,
    input: Input,
    take: impl Fn(CountTable<'_>, EventTime) -> T + Send + Sync + 'static,
) -> Result<(Vec<T>, Announcement), Failure> {
    let workers = settings.workers.get();
    let rules = engine::rules(&settings.time);
    let start = Arc::new(Start::fresh(input.readers.iter().map(|(_, reader)| reader.partition())));
    let handout = Handout::by_size(input.readers, workers);
    let (errors, key) = (Arc::new(FirstError::default()), secret()?);
    let (ends, collected) = mpsc::channel::<T>();
    let take = Arc::new(take);
    let last: Arc<Mutex<Option<Announcement>>> = Arc::default();
    let (failed, announced, ended) = (Arc::clone(&errors), Arc::clone(&last), input.ended);
    let read = (input.unit == "records").then(|| Arc::clone(&input.progress));
    let guards = timely::execute(timely::Config::process(workers), move |worker| {
        let (ends, take, failed) = (ends.clone(), Arc::clone(&take), Arc::clone(&failed));
        let (announced, read, first) = (Arc::clone(&announced), read.clone(), worker.index() == 0);
        let on_error = Arc::clone(&failed);
        let job = Job {
            decode: JsonEvents,
            rules,
            key,
            start: Arc::clone(&start),
            readers: handout.take(worker.index()),
            ended,
            timer: Rc::new(Monotonic::start()),
            on_error: Box::new(move |error| on_error.set(error)),
            on_quiet: None,
            tell: Box::new(move |announcement| {
                if first {
                    if let Some(read) = &read {
                        read.store(announcement.ledger().read, Ordering::Relaxed);
                    }
                    *announced.lock().expect("nobody panics while holding it") = Some(announcement);
                }
            }),
            join: Box::new(|_| None),
            take_cut: Box::new(|_| {}),
            write_from: 0,
            unwritten_max: usize::MAX,
            take_all: Some(Box::new(move |table, as_of| {
                // The receiver is only gone when the command has failed already.
                let _ = ends.send(take(table, as_of));
            })),
            serve: None,
            processes: 1,
            mailbox: None,
            ear: None,
        };
        graph::build(worker, job);
        engine::drive(worker, &failed, || {});
    })
    .map_err(|error| Failure::new(Exit::Internal, anyhow::anyhow!(error)))?;
    let watched = watch(&collected, workers, input.total, input.unit, &input.progress, &errors);
    for joined in guards.join() {
        joined.map_err(|error| Failure::new(Exit::Internal, anyhow::anyhow!(error)))?;
    }
    if let Some(failure) = errors.failure() {
        return Err(failure);
    }
    let last = last.lock().expect("the workers have ended").take().context("the end was not announced")?;
    Ok((watched, last))
}

/// Waits for every worker's end, showing how far they are.
fn watch<T>(
    ends: &mpsc::Receiver<T>,
    workers: usize,
    total: u64,
    unit: &'static str,
    progress: &AtomicU64,
    errors: &FirstError,
) -> Vec<T> {
    let mut shown = Progress::new(total, unit);
    let mut collected = Vec::new();
    while collected.len() < workers && !errors.is_met() {
        match ends.recv_timeout(LOOK) {
            Ok(end) => collected.push(end),
            Err(mpsc::RecvTimeoutError::Timeout) => shown.set(progress.load(Ordering::Relaxed)),
            Err(mpsc::RecvTimeoutError::Disconnected) => break,
        }
    }
    shown.finish();
    collected
}

/// The secret of one run: no count depends on it.
pub fn secret() -> Result<IdKey, Failure> {
    let draw = || getrandom::u64().context("drawing random bytes");
    Ok(IdKey([draw()?, draw()?]))
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
    let rate = sum.read as f64 / took.as_secs_f64();
    text + &format!("{rows} rows in {:.2} s, {rate:.0} records/s\n", took.as_secs_f64())
}
