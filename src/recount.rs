//! Counts bounded history anew, with the same graph as `run`, at full speed: for `replay` and `audit`.

use std::{
    path::Path,
    rc::Rc,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    time::Duration,
};

use anyhow::Context as _;
use connectors::{
    embedded::log::{Log, LogError},
    files::FileInput,
    json::JsonEvents,
};
use dataflows::{
    announce::Announcement,
    functions::Functions,
    graph::{self, Job, Start},
    identity::IdKey,
    lane::{Ended, Format},
    port::{CountRow, PartitionId, SourceError},
    rules::{Quiet, Rules},
    ruling::Ruling,
    table::CountTable,
    time::{EventTime, Minute},
};

#[cfg(feature = "kafka")]
use crate::config::Settings;
use crate::{
    engine::{self, FirstError, Handout, Monotonic, SendReader, spread::Shares},
    exit::{Exit, Failure, OrExit as _},
    progress::Progress,
};

/// How often the progress is looked at.
const LOOK: Duration = Duration::from_millis(100);

/// What is read, opened, with how much there is of it.
pub struct Input {
    /// The log's own id; files have none.
    pub log: Option<u128>,
    pub readers: Vec<(u64, SendReader)>,
    shares: Shares,
    ended: Ended,
    total: u64,
    progress: Arc<AtomicU64>,
    unit: &'static str,
}

impl Input {
    /// Files, each a partition.
    pub fn files(pattern: &str) -> Result<Self, Failure> {
        let partitions = FileInput::open_glob(pattern).or_exit(Exit::Usage)?;
        let progress = Arc::new(AtomicU64::new(0));
        let total = partitions.iter().map(|partition| partition.size_bytes).sum();
        let (mut readers, mut shares, count) = (Vec::new(), Shares::default(), partitions.len());
        for partition in partitions {
            let size = partition.size_bytes;
            // A pipe, which has no size, can be read only once.
            if size != 0
                && let Ok(mut sample) = partition.clone().reader(Arc::default())
            {
                shares.sample(&mut sample, size, count);
            }
            let reader = partition.reader(Arc::clone(&progress)).map_err(engine::source_failure)?;
            readers.push((size, Box::new(reader) as SendReader));
        }
        Ok(Self { log: None, readers, shares, ended: Ended::ForGood, total, progress, unit: "bytes" })
    }

    /// The log as it is now, or up to these offsets; what is appended from here on is not read.
    pub fn log(dir: &Path, until: Option<&[u64]>) -> Result<Self, Failure> {
        let log = Log::open_read_only(dir).map_err(log_failure)?;
        let offsets: Vec<_> = log.first_offsets().into_iter().zip(log.end_offsets()).collect();
        let open = |partition, first, end| Ok(Box::new(log.reader_until(partition, first, end)?) as SendReader);
        let mut input = Self::up_to(log.id(), offsets, until, open)?;
        for (size, reader) in &input.readers {
            let (first, end) = (reader.next_offset(), reader.next_offset() + size);
            if let Ok(mut sample) = open(reader.partition(), first, end) {
                input.shares.sample(&mut *sample, *size, input.readers.len());
            }
        }
        Ok(input)
    }

    /// The topic as it is now, or up to these offsets, from its first records on; what is produced from here on is not read.
    #[cfg(feature = "kafka")]
    pub fn kafka(settings: &Settings, topic: &str, until: Option<&[u64]>) -> Result<Self, Failure> {
        use connectors::kafka::{Settings as Kafka, Topic};

        let kafka = Kafka { topic: topic.to_owned(), ..engine::kafka::settings_of(&settings.kafka) };
        let patience = Duration::from_millis(settings.cluster.patience_ms);
        let topic = Topic::open(&kafka, None, patience).map_err(engine::kafka::failure)?;
        let offsets = topic.offsets().map_err(engine::kafka::failure)?;
        Self::up_to(topic.id(), offsets, until, |partition, first, end| {
            Ok(Box::new(topic.reader_until(partition, first, end)?))
        })
    }

    /// A log up to its ends, or to offsets before them.
    fn up_to(
        log: u128,
        mut offsets: Vec<(u64, u64)>,
        until: Option<&[u64]>,
        open: impl Fn(PartitionId, u64, u64) -> Result<SendReader, SourceError>,
    ) -> Result<Self, Failure> {
        if let Some(until) = until {
            // A partition that was added since has nothing that is wanted.
            offsets.truncate(until.len());
            cut_at(&mut offsets, until)?;
        }
        let mut readers = Vec::new();
        for (partition, (first, end)) in (0..).map(PartitionId).zip(&offsets) {
            eprintln!("partition {}: offsets {first} to {end}", partition.0);
            readers.push((end - first, open(partition, *first, *end).map_err(engine::source_failure)?));
        }
        let total = readers.iter().map(|(records, _)| records).sum();
        Ok(Self {
            log: Some(log),
            readers,
            shares: Shares::default(),
            ended: Ended::ForNow,
            total,
            progress: Arc::default(),
            unit: "records",
        })
    }
}

/// Ends where a checkpoint did: the log must hold everything before.
fn cut_at(offsets: &mut [(u64, u64)], until: &[u64]) -> Result<(), Failure> {
    for (number, (first, end)) in offsets.iter_mut().enumerate() {
        let wanted = until[number];
        let lost = if *end < wanted { wanted - *end } else { *first };
        if lost != 0 {
            let error = anyhow::anyhow!(
                "partition {number}: the log holds offsets {first} to {end}, and 0 to {wanted} are wanted: {lost} records \
                 are lost"
            );
            return Err(Failure::new(Exit::InputReplaced, error));
        }
        *end = wanted;
    }
    Ok(())
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

/// All rows, each with its finality, and what is true at the end.
pub fn rows(
    workers: usize,
    rules: Rules,
    functions: &Functions,
    input: Input,
    rulings: Vec<Ruling>,
) -> Result<(Vec<CountRow>, Announcement), Failure> {
    let take = move |table: CountTable<'_>, as_of| -> Vec<CountRow> { table.rows(as_of).collect() };
    let (rows, last) = count(workers, rules, functions, input, rulings, take)?;
    let finality = |row: CountRow| CountRow { is_final: last.is_final(Minute::of(row.window_start)), ..row };
    Ok((rows.into_iter().flatten().map(finality).collect(), last))
}

/// The hours and days of such rows.
#[cfg(feature = "cassandra")]
pub fn rollups(rows: &[CountRow], last: &Announcement) -> Vec<CountRow> {
    use dataflows::rollup::Rollups;

    let mut rollups = Rollups::default();
    for row in rows {
        let series = (row.video_id.as_str(), row.event_type.as_str());
        rollups.add(&series, Minute::of(row.window_start), row.count, row.stats.as_ref());
    }
    let as_of = rows.first().map_or(0, |row| row.as_of);
    let all = rollups.all();
    all.map(|(series, width, start, rolled)| rolled.row(*series, (width, start), last.watermark, as_of)).collect()
}

/// Runs the graph to the end of the input: what `take` makes of each worker's counts, and what is true at the end. What was
/// ruled when the records were read before holds again; beyond that the logs alone decide.
pub fn count<T: Send + 'static>(
    workers: usize,
    rules: Rules,
    functions: &Functions,
    input: Input,
    rulings: Vec<Ruling>,
    take: impl Fn(CountTable<'_>, EventTime) -> T + Send + Sync + 'static,
) -> Result<(Vec<T>, Announcement), Failure> {
    let rules = Rules { quiet: Quiet::Hold, ..rules };
    let mut start = Start::fresh(input.readers.iter().map(|(_, reader)| reader.partition()));
    start.state.rulings = rulings;
    let start = Arc::new(start);
    let handout = Handout::by_size(input.readers, &input.shares, workers);
    let (errors, key) = (Arc::new(FirstError::default()), secret()?);
    let (ends, collected) = mpsc::channel::<T>();
    let take = Arc::new(take);
    let last: Arc<Mutex<Option<Announcement>>> = Arc::default();
    let (failed, announced, ended) = (Arc::clone(&errors), Arc::clone(&last), input.ended);
    let format = Format { decode: JsonEvents, functions: functions.clone() };
    let read = (input.unit == "records").then(|| Arc::clone(&input.progress));
    let guards = timely::execute(timely::Config::process(workers), move |worker| {
        let (ends, take, failed) = (ends.clone(), Arc::clone(&take), Arc::clone(&failed));
        let (announced, read, first) = (Arc::clone(&announced), read.clone(), worker.index() == 0);
        let on_error = Arc::clone(&failed);
        let job = Job {
            format: format.clone(),
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
            rolls_up: false,
            cooling: None,
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
