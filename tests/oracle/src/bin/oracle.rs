//! The oracle on the command line: makes inputs, counts them and compares tables.
//!
//! Exit codes: 0 done and the same, 1 failed or different, 2 usage.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufReader, BufWriter, Error, Write};
use std::ops::Add;
use std::path::Path;
use std::process::ExitCode;
use std::str::FromStr;

use oracle::compare::{compare, tsv};
use oracle::lines::each_line;
use oracle::{Judge, Ledger, Rules, Spec, Workload, hostile_each, well_behaved};

const USAGE: &str = "usage:
  oracle generate --hostile|--well --seed N --events N --partitions N --dir DIR [--videos N] [--span-ms N] [--start-ms N]
  oracle count --out FILE.tsv FILE...
  oracle compare EXPECTED.tsv ACTUAL.tsv";

enum Failure {
    Usage(String),
    Failed(String),
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (command, rest) =
        arguments.split_first().map_or(("", [].as_slice()), |(command, rest)| (command.as_str(), rest));
    let done = match command {
        "generate" => generate(rest),
        "count" => count(rest),
        "compare" => compare_files(rest),
        _ => Err(Failure::Usage(format!("no command {command:?}"))),
    };
    match done {
        Ok(code) => code,
        Err(Failure::Usage(message)) => {
            eprintln!("{message}\n{USAGE}");
            ExitCode::from(2)
        }
        Err(Failure::Failed(message)) => {
            eprintln!("{message}");
            ExitCode::FAILURE
        }
    }
}

/// Prints a line. Whoever closed the pipe has read enough, and the exit code still tells the result.
fn say(line: &str) {
    let _closed = writeln!(std::io::stdout(), "{line}");
}

/// Flags by name (`--hostile` and `--well` have no value), and everything else in order.
fn parse(arguments: &[String]) -> Result<(BTreeMap<&str, &str>, Vec<&str>), Failure> {
    let (mut flags, mut files) = (BTreeMap::new(), Vec::new());
    let mut arguments = arguments.iter().map(String::as_str);
    while let Some(argument) = arguments.next() {
        let Some(name) = argument.strip_prefix("--") else {
            files.push(argument);
            continue;
        };
        let value = match name {
            "hostile" | "well" => "",
            _ => arguments.next().ok_or_else(|| Failure::Usage(format!("--{name} needs a value")))?,
        };
        flags.insert(name, value);
    }
    Ok((flags, files))
}

/// Takes a flag's number out, or its default.
fn number<N: FromStr>(flags: &mut BTreeMap<&str, &str>, name: &str, default: N) -> Result<N, Failure> {
    let Some(text) = flags.remove(name) else {
        return Ok(default);
    };
    text.parse().map_err(|_| Failure::Usage(format!("--{name} {text} is not a number")))
}

fn nothing_else(flags: &BTreeMap<&str, &str>) -> Result<(), Failure> {
    flags.keys().next().map_or(Ok(()), |name| Err(Failure::Usage(format!("no flag --{name} here"))))
}

fn at(path: &Path) -> impl Fn(Error) -> Failure + '_ {
    move |error| Failure::Failed(format!("{}: {error}", path.display()))
}

fn generate(arguments: &[String]) -> Result<ExitCode, Failure> {
    let (mut flags, files) = parse(arguments)?;
    let (hostile, well) = (flags.remove("hostile").is_some(), flags.remove("well").is_some());
    if hostile == well || !files.is_empty() {
        return Err(Failure::Usage("either --hostile or --well, and no files".to_owned()));
    }
    let dir = flags.remove("dir").ok_or_else(|| Failure::Usage("--dir is needed".to_owned()))?;
    let seed = number(&mut flags, "seed", 1)?;
    let (spec, workload) = (Spec::default(), Workload::default());
    let events = number(&mut flags, "events", spec.events)?;
    let partitions = number(&mut flags, "partitions", spec.partitions)?;
    let start_ms = number(&mut flags, "start-ms", spec.start_ms)?;
    let videos = number(&mut flags, "videos", if hostile { spec.videos } else { workload.videos })?;
    let span_ms = number(&mut flags, "span-ms", if hostile { spec.span_ms } else { workload.span_ms })?;
    nothing_else(&flags)?;
    if partitions == 0 || videos == 0 {
        return Err(Failure::Usage("at least one partition and one video".to_owned()));
    }
    let mut parts = Parts::create(Path::new(dir), partitions)?;
    if hostile {
        let spec = Spec { events, partitions, videos, start_ms, span_ms, ..spec };
        hostile_each(seed, &spec, |partition, line| parts.write(partition, line));
    } else {
        let workload = Workload { events, partitions, videos, start_ms, span_ms, ..workload };
        well_behaved(seed, &workload).for_each(|(partition, line)| parts.write(partition, &line));
    }
    say(&format!("{} lines in {partitions} files below {dir}", parts.finish()?));
    Ok(ExitCode::SUCCESS)
}

/// One file for each partition. The first error is kept until the end, since the generators know of none.
struct Parts {
    files: Vec<BufWriter<File>>,
    lines: u64,
    outcome: Result<(), Error>,
}

impl Parts {
    fn create(dir: &Path, partitions: usize) -> Result<Self, Failure> {
        fs::create_dir_all(dir).map_err(at(dir))?;
        let width = (partitions - 1).to_string().len(); // names sort as the partitions do
        let create = |partition: usize| {
            let path = dir.join(format!("part-{partition:0width$}.jsonl"));
            File::create(&path).map(BufWriter::new).map_err(at(&path))
        };
        Ok(Self { files: (0..partitions).map(create).collect::<Result<_, _>>()?, lines: 0, outcome: Ok(()) })
    }

    fn write(&mut self, partition: usize, line: &[u8]) {
        if self.outcome.is_ok() {
            let file = &mut self.files[partition];
            self.outcome = file.write_all(line).and_then(|()| file.write_all(b"\n"));
            self.lines += 1;
        }
    }

    fn finish(mut self) -> Result<u64, Failure> {
        let flushed = self.outcome.and_then(|()| self.files.iter_mut().try_for_each(BufWriter::flush));
        flushed.map(|()| self.lines).map_err(|error| Failure::Failed(format!("writing the lines: {error}")))
    }
}

/// Every file is one partition, in the order given.
fn count(arguments: &[String]) -> Result<ExitCode, Failure> {
    let (mut flags, files) = parse(arguments)?;
    let out = flags.remove("out").ok_or_else(|| Failure::Usage("--out is needed".to_owned()))?;
    nothing_else(&flags)?;
    let mut judge = Judge::new(Rules::default(), files.len());
    for (partition, file) in files.iter().enumerate() {
        let path = Path::new(file);
        let reader = BufReader::with_capacity(1 << 20, File::open(path).map_err(at(path))?);
        let judge_line = |line: &[u8]| {
            judge.judge(partition, None, line);
        };
        each_line(reader, judge_line).map_err(at(path))?;
    }
    let outcome = judge.finish();
    fs::write(out, tsv(&outcome.counts)).map_err(at(Path::new(out)))?;
    say("partition\tread\tcounted\tduplicate\tlate\tfuture\tmalformed\toversize\tclock_ms");
    for (partition, (ledger, clock)) in outcome.ledger.iter().zip(&outcome.clocks).enumerate() {
        print_ledger(&partition.to_string(), ledger, *clock);
    }
    let total = outcome.ledger.into_iter().fold(Ledger::default(), Ledger::add);
    print_ledger("all", &total, None);
    Ok(ExitCode::SUCCESS)
}

fn print_ledger(name: &str, ledger: &Ledger, clock_ms: Option<u64>) {
    let Ledger { read, counted, duplicate, late, future, malformed, oversize } = ledger;
    let clock = clock_ms.map_or_else(|| "-".to_owned(), |clock_ms| clock_ms.to_string());
    say(&format!("{name}\t{read}\t{counted}\t{duplicate}\t{late}\t{future}\t{malformed}\t{oversize}\t{clock}"));
}

fn compare_files(arguments: &[String]) -> Result<ExitCode, Failure> {
    let [expected, actual] = arguments else {
        return Err(Failure::Usage("compare needs two tables".to_owned()));
    };
    let read = |file: &str| fs::read(file).map_err(at(Path::new(file)));
    let difference = compare(&read(expected)?, &read(actual)?).map_err(Failure::Failed)?;
    say(&format!("{} missing, {} extra, {} differ", difference.missing, difference.extra, difference.differ));
    difference.first.iter().for_each(|row| say(row));
    Ok(if difference.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
