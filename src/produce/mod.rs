//! `tidemark produce`: a seeded load generator, or the lines of a file, into files or a running Tidemark.
//!
//! [`generate`] and [`lines`] say what is sent, [`files`] and [`http`] take it; neither side knows the other.

pub mod args;
mod files;
mod generate;
mod http;
#[cfg(feature = "kafka")]
mod kafka;
mod lines;
mod log;
mod pace;

use std::{
    fmt::Write as _,
    path::Path,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::Context as _;
use dataflows::time::{EVENT_TIME_MAX, EventTime};

use self::{
    args::{ProduceArgs, To},
    files::PartFiles,
    generate::{Generator, Workload},
    http::HttpTarget,
    lines::FileLines,
    log::LogTarget,
    pace::Pace,
};
use crate::{cli::Server, commands::print, config::Settings, exit::Failure, progress::Progress};

/// Lines between two looks at the clock for the progress.
const PROGRESS_EVERY: u64 = 1024;

/// The span of event time where neither `--span` nor a live pace sets it.
const SPAN_MS: u64 = 3_600_000;

/// Where the event times of files begin: 2026-01-01T00:00:00Z, so that the same command gives the same bytes.
const FILES_START: EventTime = 1_767_225_600_000;

/// The seed of files, for the same reason.
const FILES_SEED: u64 = 1;

/// A line on its way, borrowed from its source until the next one.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Line<'a> {
    /// The video id, which decides the partition; a line that is no event has none.
    pub key: Option<&'a [u8]>,
    /// The record, without a line feed.
    pub record: &'a [u8],
}

/// Gives lines in stream order, in bounded memory.
pub trait Source {
    /// The next line; `None` at the end.
    fn next(&mut self) -> Result<Option<Line<'_>>, Failure>;
}

/// Takes lines in stream order.
pub trait Target {
    /// Takes one. Need not be durable before [`Target::finish`].
    fn send(&mut self, line: Line<'_>) -> Result<(), Failure>;

    /// Sends on what is held back. Gives what there is to say about it in the summary.
    fn finish(&mut self) -> Result<String, Failure>;
}

/// What went through.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
struct Sent {
    lines: u64,
    bytes: u64,
}

/// Sends what the arguments ask for and prints a summary.
pub fn run(settings: &Settings, args: &ProduceArgs) -> Result<(), Failure> {
    args.check().map_err(Failure::usage)?;
    let mut target = target(settings, &args.to, &args.server, args.partitions, args.give_up_after_ms, args.rate)?;
    let mut pace = Pace::new(args.rate);
    let started = Instant::now();
    let (sent, what) = match &args.from {
        Some(path) => {
            let mut source = FileLines::open(path)?;
            let sent = pump(&mut source, target.as_mut(), &mut pace, Progress::new(None, "lines"))?;
            (sent, String::new())
        }
        None => {
            let workload = workload(args, now_ms()?)?;
            let events = workload.events;
            let seed = workload.seed;
            let mut source = Generator::new(workload).map_err(Failure::usage)?;
            let about = events + (events as f64 * args.duplicates) as u64;
            let sent = pump(&mut source, target.as_mut(), &mut pace, Progress::new(about, "lines"))?;
            (sent, format!(" ({events} events, {} repeats, seed {seed})", source.repeats()))
        }
    };
    let outcome = target.finish()?;
    print(&summary(sent, &what, started.elapsed(), &outcome))
}

/// Sends what is known of videos and channels; fails if any of it was rejected.
pub fn load_dimensions(file: &Path, server: &Server, give_up_after_ms: u64) -> Result<(), Failure> {
    let mut source = FileLines::open(file)?;
    let mut target = HttpTarget::new(server, "/v1/dimensions", give_up_after_ms, None)?;
    pump(&mut source, &mut target, &mut Pace::new(None), Progress::new(None, "lines"))?;
    let outcome = target.finish()?;
    print(&format!("{outcome}\n"))?;
    match target.rejected() {
        0 => Ok(()),
        rejected => Err(anyhow::anyhow!("{rejected} lines were rejected; the log says why, one line a batch").into()),
    }
}

/// Opens what lines go to, creating it with so many partitions where it is missing.
pub fn target(
    settings: &Settings,
    to: &To,
    server: &Server,
    partitions: Option<u32>,
    give_up_after_ms: u64,
    rate: Option<f64>,
) -> Result<Box<dyn Target>, Failure> {
    let of_source = settings.source.partitions.get();
    Ok(match to {
        To::Dir(dir) => Box::new(PartFiles::create(dir, partitions.unwrap_or(args::PARTITIONS))?),
        To::Http => Box::new(HttpTarget::new(server, "/v1/events", give_up_after_ms, rate)?),
        To::Log(dir) => {
            let dir = dir.clone().unwrap_or_else(|| settings.data_dir.join("log"));
            Box::new(LogTarget::open(&dir, partitions.unwrap_or(of_source))?)
        }
        #[cfg(feature = "kafka")]
        To::Kafka => Box::new(kafka::KafkaTarget::open(settings, partitions.unwrap_or(of_source), give_up_after_ms)?),
    })
}

fn pump(
    source: &mut dyn Source,
    target: &mut dyn Target,
    pace: &mut Pace,
    mut progress: Progress,
) -> Result<Sent, Failure> {
    let mut sent = Sent::default();
    while let Some(line) = source.next()? {
        pace.wait();
        target.send(line)?;
        sent.lines += 1;
        sent.bytes += line.record.len() as u64 + 1;
        if sent.lines.is_multiple_of(PROGRESS_EVERY) {
            progress.set(sent.lines);
        }
    }
    progress.finish();
    Ok(sent)
}

fn summary(sent: Sent, what: &str, elapsed: Duration, outcome: &str) -> String {
    let Sent { lines, bytes } = sent;
    let seconds = elapsed.as_secs_f64();
    let mut text = format!("{lines} lines{what}, {bytes} bytes in {seconds:.2} s");
    if 0.0 < seconds {
        let _ = write!(text, ", {:.0} lines/s", lines as f64 / seconds);
    }
    let _ = writeln!(text, "\n{outcome}");
    text
}

/// What to generate. Files get fixed defaults, so that one command gives one data set; a live system gets event
/// times that end about now and event ids that it has not seen before.
fn workload(args: &ProduceArgs, now: EventTime) -> Result<Workload, Failure> {
    let live = !matches!(args.to, To::Dir(_));
    // How long sending takes, where the pace is given.
    let sending_ms = args.rate.map_or(0, |rate| (args.events as f64 / rate * 1000.0) as u64);
    let span_ms = match args.span_ms {
        Some(span_ms) => span_ms,
        None if live && args.rate.is_some() => sending_ms,
        None => SPAN_MS,
    };
    let start = match args.start {
        Some(start) => start,
        // Never ahead of the clock while it is sent, whichever of the two is longer.
        None if live => now.saturating_sub(span_ms.saturating_sub(sending_ms)),
        None => FILES_START,
    };
    if EVENT_TIME_MAX < start.saturating_add(span_ms) {
        return Err(Failure::usage("--start and --span reach past the year 9999"));
    }
    let seed = match args.seed {
        Some(seed) => seed,
        None if live => getrandom::u64().context("drawing a seed")?,
        None => FILES_SEED,
    };
    Ok(Workload {
        events: args.events,
        videos: args.videos,
        zipf: args.zipf,
        hot: args.hot,
        duplicates: args.duplicates,
        disorder_ms: args.disorder_ms,
        seed,
        start,
        span_ms,
        types: args.types.clone(),
    })
}

fn now_ms() -> Result<EventTime, Failure> {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).context("the wall clock is before 1970")?;
    Ok(since_epoch.as_millis() as EventTime)
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::cli::{Cli, Command};

    const NOW: EventTime = 2_000_000_000_000;

    fn args(line: &str) -> ProduceArgs {
        let words = ["tidemark", "produce"].into_iter().chain(line.split_whitespace());
        match Cli::try_parse_from(words).unwrap().command {
            Command::Produce(args) => args,
            other => panic!("{other:?}"),
        }
    }

    fn settings() -> Settings {
        crate::config::Config::embedded().check().unwrap()
    }

    #[test]
    fn a_log_gets_all_lines_in_the_partition_of_their_video_and_a_second_run_goes_on() {
        let dir = tempfile::tempdir().unwrap();
        let to = dir.path().join("log");
        let args = args(&format!("--to log:{} --events 3000 --partitions 3 --seed 4 --duplicates 0", to.display()));
        run(&settings(), &args).unwrap();
        run(&settings(), &args).unwrap();
        let log = connectors::embedded::log::Log::open_read_only(&to).unwrap();
        assert_eq!(log.partitions(), 3);
        let mut records = 0;
        for (partition, end) in (0..).zip(log.end_offsets()) {
            let id = dataflows::port::PartitionId(partition);
            let mut reader = log.reader_until(id, 0, end).unwrap();
            while dataflows::port::PartitionReader::read(&mut reader, &mut |record| {
                records += 1;
                let key = record.key.unwrap();
                assert_eq!(connectors::partition::partition_of(key, 3), partition);
                std::ops::ControlFlow::Continue(())
            })
            .unwrap()
                != dataflows::port::Reached::Finished
            {}
        }
        assert_eq!(records, 6_000);
    }

    #[test]
    fn files_are_the_same_every_time_and_live_streams_end_about_now() {
        for (line, start, span_ms) in [
            ("--to d", FILES_START, SPAN_MS),
            ("--to d --start 5 --span 1m", 5, 60_000),
            ("--to http", NOW - SPAN_MS, SPAN_MS),
            // Paced: event time is the time of sending.
            ("--to http --events 1000 --rate 10", NOW, 100_000),
            ("--to http --events 1000 --rate 10 --span 1h", NOW + 100_000 - SPAN_MS, SPAN_MS),
            ("--to http --events 1000 --rate 10 --span 10s", NOW, 10_000),
            ("--to http --start 7", 7, SPAN_MS),
        ] {
            let workload = workload(&args(line), NOW).unwrap();
            assert_eq!((workload.start, workload.span_ms), (start, span_ms), "{line}");
        }
        assert_eq!(workload(&args("--to d"), NOW).unwrap().seed, FILES_SEED);
        let seeds = [(); 2].map(|()| workload(&args("--to http"), NOW).unwrap().seed);
        assert_ne!(seeds[0], seeds[1], "a second run must not repeat the first one's event ids");
        assert_eq!(workload(&args("--to http --seed 9"), NOW).unwrap().seed, 9);
        assert!(workload(&args("--to d --start 253402300799999 --span 1ms"), NOW).is_err());
    }

    #[test]
    fn a_folder_gets_all_lines_of_a_workload_in_the_partition_of_their_video() {
        let dir = tempfile::tempdir().unwrap();
        let to = dir.path().join("out");
        let args = args(&format!("--to {} --events 2000 --videos 50 --partitions 3", to.display()));
        run(&settings(), &args).unwrap();
        let mut generator = Generator::new(workload(&args, NOW).unwrap()).unwrap();
        let mut expect = vec![Vec::new(); 3];
        while let Some(Line { key, record }) = generator.next().unwrap() {
            let partition = connectors::partition::partition_of(key.unwrap(), 3) as usize;
            expect[partition].extend_from_slice(record);
            expect[partition].push(b'\n');
        }
        for (partition, expect) in expect.iter().enumerate() {
            assert!(!expect.is_empty());
            let found = std::fs::read(to.join(format!("part-0000{partition}.jsonl"))).unwrap();
            assert!(found == *expect, "partition {partition}");
        }
        assert_eq!(std::fs::read_dir(&to).unwrap().count(), 3);
        // A second data set is never mixed into the first.
        let failure = run(&settings(), &args).unwrap_err();
        assert!(failure.report().contains("part-00000.jsonl is there already"), "{}", failure.report());
    }

    #[test]
    fn the_lines_of_a_file_arrive_untouched() {
        let dir = tempfile::tempdir().unwrap();
        let from = dir.path().join("in.jsonl");
        let lines: [&[u8]; 6] = [
            b"{ \"video_id\" : \"a\" , \"x\":1}",
            b"not json",
            b"\xff\xfe",
            b"{\"video_id\":\"a\"}\r",
            b"  {\"video_id\":\"\\u0061\"}",
            b"last one without a line feed",
        ];
        std::fs::write(&from, lines.join(&b'\n')).unwrap();
        let to = dir.path().join("out");
        let args = args(&format!("--to {} --from {} --partitions 2", to.display(), from.display()));
        run(&settings(), &args).unwrap();
        let mut found: Vec<Vec<u8>> = Vec::new();
        for partition in 0..2 {
            let bytes = std::fs::read(to.join(format!("part-0000{partition}.jsonl"))).unwrap();
            found.extend(bytes.strip_suffix(b"\n").unwrap().split(|byte| *byte == b'\n').map(<[u8]>::to_vec));
        }
        found.sort();
        let mut expect: Vec<Vec<u8>> = lines.iter().map(|line| line.to_vec()).collect();
        expect.sort();
        assert_eq!(found, expect);
    }
}
