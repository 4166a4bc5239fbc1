//! The command line as types: what a command gets can only be what it can do.
//!
//! Everything here is pure: text in, values out. Flags that stand over a configuration key are not defaults but
//! [`Overrides`], the last layer of [`crate::config`].

use std::{fmt, path::PathBuf, str::FromStr};

use chrono::DateTime;
use clap::{
    Args, Parser, Subcommand, ValueEnum,
    builder::{PossibleValuesParser, TypedValueParser, styling::Styles},
};
use clap_complete::Shell;
use dataflows::{
    functions::Function,
    port::Version,
    time::{EVENT_TIME_MAX, EventTime},
};

use crate::{
    config::{Overrides, parse_duration_ms},
    plan::args::PlanArgs,
    produce::args::{ProduceArgs, To},
};

/// Where `run` serves unless told otherwise.
pub const DEFAULT_URL: &str = "http://127.0.0.1:7070";

/// Exact, replayable view counts.
#[derive(Debug, Parser)]
#[command(name = "tidemark", version, propagate_version = true, styles = Styles::plain())]
pub struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

/// Flags of every command.
#[derive(Clone, Debug, Args)]
pub struct Global {
    /// Configuration file (TOML); needs only the keys that differ from the built-in defaults
    #[arg(
        long,
        global = true,
        help_heading = "Global options",
        value_name = "FILE",
        env = "TIDEMARK_CONFIG",
        hide_env_values = true
    )]
    pub config: Option<PathBuf>,
    /// How logs are written to stderr
    #[arg(
        long,
        global = true,
        help_heading = "Global options",
        value_name = "FORMAT",
        default_value = "text",
        env = "TIDEMARK_LOG_FORMAT"
    )]
    pub log_format: LogFormat,
    /// Log more: -v debug, -vv everything (TIDEMARK_LOG overrides it)
    #[arg(short, long, global = true, help_heading = "Global options", action = clap::ArgAction::Count)]
    pub verbose: u8,
}

/// How logs are written.
#[derive(Copy, Clone, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    Text,
    Json,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Take events, count them, answer queries; SIGTERM ends it with a last checkpoint
    Run(RunArgs),
    /// Start and supervise several processes of one job on this machine; SIGTERM ends all with a last checkpoint
    Cluster(ClusterArgs),
    /// Generate load, or send the lines of a file
    Produce(ProduceArgs),
    /// Ask a running tidemark for the counts of a video, or for the videos with the most
    Query(QueryArgs),
    /// Recompute counts from history, bounded, at full speed
    Replay(ReplayArgs),
    /// Count the log anew up to a checkpoint and compare with what is served; exit 1 where that differs
    Audit(AuditArgs),
    /// Say what memory, disk and Cassandra a load will take, before there is one
    Plan(PlanArgs),
    /// Look at the stored checkpoints
    #[command(subcommand)]
    Checkpoint(CheckpointCommand),
    /// Look at the records that could not be counted
    #[command(subcommand)]
    DeadLetters(DeadLettersCommand),
    /// Names of videos and channels, and which channel a video belongs to
    #[command(subcommand)]
    Dimensions(DimensionsCommand),
    /// Look at the effective configuration
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Print a completion script for a shell
    Completions {
        /// Which shell
        shell: Shell,
    },
}

impl Command {
    /// The configuration keys that this command's flags set.
    pub fn overrides(&self) -> Overrides {
        match self {
            Command::Run(args) => Overrides {
                workers: args.workers,
                data_dir: args.data_dir.data_dir.clone(),
                listen: args.listen.clone(),
                ..args.passing.overrides()
            },
            Command::Cluster(args) => Overrides {
                workers: Some(args.workers),
                data_dir: args.data_dir.data_dir.clone(),
                listen: args.listen.clone(),
                ..args.passing.overrides()
            },
            Command::Replay(args) => Overrides { workers: args.workers, ..args.passing.overrides() },
            Command::Audit(args) => Overrides {
                workers: args.workers,
                data_dir: args.data_dir.data_dir.clone(),
                listen: args.listen.clone(),
                ..Overrides::default()
            },
            Command::Plan(args) => args.overrides(),
            Command::Checkpoint(CheckpointCommand::List { data_dir })
            | Command::Checkpoint(CheckpointCommand::Show { data_dir, .. })
            | Command::Checkpoint(CheckpointCommand::Verify { data_dir, .. })
            | Command::DeadLetters(DeadLettersCommand::List { data_dir, .. })
            | Command::DeadLetters(DeadLettersCommand::Count { data_dir })
            | Command::DeadLetters(DeadLettersCommand::Replay(ResendArgs { data_dir, .. })) => {
                Overrides { data_dir: data_dir.data_dir.clone(), ..Overrides::default() }
            }
            Command::Produce(_)
            | Command::Query(_)
            | Command::Dimensions(_)
            | Command::Config(_)
            | Command::Completions { .. } => Overrides::default(),
        }
    }
}

#[derive(Clone, Debug, Args)]
pub struct DataDir {
    /// Folder with log, store, checkpoints and dead letters [config: data_dir]
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
}

/// What of a topic is passed over where it would end the run.
#[derive(Clone, Debug, Default, Args)]
pub struct PassingArgs {
    /// When records are gone from the topic before they were read: stop with exit 65, or mark the windows that may lack them
    /// [config: kafka.on_gap]
    #[arg(long, value_name = "WHAT", value_parser = ["stop", "mark"])]
    pub on_gap: Option<String>,
    /// Pass over a batch that can't be read, like that: the partition and the offset that the error names; may be given
    /// more than once [config: kafka.skip_batches]
    #[arg(long, value_name = "P:O")]
    pub skip_batch: Vec<String>,
}

impl PassingArgs {
    fn overrides(&self) -> Overrides {
        Overrides { on_gap: self.on_gap.clone(), skip_batches: self.skip_batch.clone(), ..Overrides::default() }
    }
}

#[derive(Clone, Debug, Args)]
pub struct RunArgs {
    /// Worker threads [config: workers]
    #[arg(long, value_name = "N")]
    pub workers: Option<u32>,
    #[command(flatten)]
    pub data_dir: DataDir,
    /// Address and port to serve HTTP on [config: http.listen]
    #[arg(long, value_name = "ADDR")]
    pub listen: Option<String>,
    /// Ignore the checkpoints and count the log anew from its first record
    #[arg(long)]
    pub from_start: bool,
    #[command(flatten)]
    pub passing: PassingArgs,
    #[command(flatten)]
    pub member: Option<Member>,
}

#[derive(Clone, Debug, Args)]
pub struct ClusterArgs {
    /// Processes
    #[arg(long, value_name = "P", value_parser = clap::value_parser!(u16).range(1..=256).map(usize::from))]
    pub processes: usize,
    /// Worker threads in each process
    #[arg(long, value_name = "W", default_value_t = 1)]
    pub workers: u32,
    #[command(flatten)]
    pub data_dir: DataDir,
    /// Address and port on which process 0 serves HTTP, and process i on the port + i [config: http.listen]
    #[arg(long, value_name = "ADDR")]
    pub listen: Option<String>,
    /// Ignore the checkpoints and count the log anew from its first record
    #[arg(long)]
    pub from_start: bool,
    #[command(flatten)]
    pub passing: PassingArgs,
}

/// One process of several.
#[derive(Clone, Debug, Args)]
#[group(requires_all = ["process", "hosts"])]
pub struct Member {
    /// Which of the processes in the hosts file this is, from 0
    #[arg(long, value_name = "I", required = false)]
    pub process: usize,
    /// File with the processes of the job, one host:port a line: where they listen for each other
    #[arg(long, value_name = "FILE", required = false)]
    pub hosts: PathBuf,
}

#[derive(Clone, Debug, Args)]
pub struct QueryArgs {
    /// Which video
    #[arg(value_name = "VIDEO", required_unless_present_any = ["top", "channel"], conflicts_with_all = ["top", "channel"])]
    pub video_id: Option<String>,
    /// Instead of a video, all those of a channel
    #[arg(long, value_name = "CHANNEL", conflicts_with = "top")]
    pub channel: Option<String>,
    /// Instead of a video's counts, the so many videos with the most events (1 to 1000)
    #[arg(long, value_name = "K", conflicts_with_all = ["function", "granularity"])]
    pub top: Option<u32>,
    /// What is ranked
    #[arg(long, requires = "top", conflicts_with_all = ["video_id", "channel"], default_value = "video")]
    pub by: TopBy,
    /// By what they are ranked: rising compares with as long a time right before, and needs --start and --end, or --span
    #[arg(long, value_name = "ORDER", requires = "top", conflicts_with_all = ["video_id", "channel"], default_value = "count")]
    pub order: TopOrder,
    /// Over the hour or the day (UTC) that stream time is in, instead of --start and --end
    #[arg(long, value_name = "SPAN", requires = "top", conflicts_with_all = ["video_id", "channel", "start", "end"])]
    pub span: Option<TopSpan>,
    /// Which events
    #[arg(long, value_name = "TYPE", default_value = "view")]
    pub event_type: String,
    /// What to compute over them
    #[arg(long, default_value = "count", value_parser = function_parser())]
    pub function: Function,
    /// First time wanted: epoch milliseconds or RFC 3339
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    pub start: Option<EventTime>,
    /// First time not wanted any more
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    pub end: Option<EventTime>,
    /// Width of a row
    #[arg(long, default_value = "minute")]
    pub granularity: Granularity,
    /// Answer as it was at this frontier, epoch milliseconds
    #[arg(long, value_name = "MS", conflicts_with = "after")]
    pub as_of: Option<EventTime>,
    /// Wait until the index includes this write (the token of a POST /v1/events)
    #[arg(long, value_name = "TOKEN")]
    pub after: Option<String>,
    /// Print the answer as it came
    #[arg(long, conflicts_with = "csv")]
    pub json: bool,
    /// Print rows as CSV
    #[arg(long)]
    pub csv: bool,
    #[command(flatten)]
    pub server: Server,
}

impl QueryArgs {
    /// How the answer is printed.
    pub fn print_as(&self) -> PrintAs {
        match (self.json, self.csv) {
            (true, _) => PrintAs::Json,
            (false, true) => PrintAs::Csv,
            (false, false) => PrintAs::Table,
        }
    }
}

/// How an answer is printed.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum PrintAs {
    Table,
    Json,
    Csv,
}

/// A tidemark to talk to over HTTP.
#[derive(Clone, Debug, Args)]
pub struct Server {
    /// Where tidemark serves
    #[arg(long, value_name = "URL", default_value = DEFAULT_URL, value_parser = parse_url)]
    pub url: String,
    /// File with the bearer token, where the server wants one
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
}

fn function_parser() -> impl TypedValueParser<Value = Function> {
    PossibleValuesParser::new(Function::ALL.map(Function::as_str))
        .map(|name| Function::parse(&name).expect("a possible value is a function"))
}

/// What a top list is made of.
#[derive(Copy, Clone, Debug, PartialEq, Eq, ValueEnum)]
pub enum TopBy {
    Video,
    Channel,
}

/// By what the videos of a top list are ranked.
#[derive(Copy, Clone, Debug, PartialEq, Eq, ValueEnum)]
pub enum TopOrder {
    Count,
    Rising,
}

/// A span that moves on with stream time.
#[derive(Copy, Clone, Debug, PartialEq, Eq, ValueEnum)]
pub enum TopSpan {
    Hour,
    Day,
}

/// How wide a row of an answer is.
#[derive(Copy, Clone, Debug, PartialEq, Eq, ValueEnum)]
pub enum Granularity {
    Minute,
    Hour,
    Day,
    All,
}

/// As the word that HTTP takes.
impl fmt::Display for TopBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            TopBy::Video => "video",
            TopBy::Channel => "channel",
        })
    }
}

/// As the word that HTTP takes.
impl fmt::Display for TopOrder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            TopOrder::Count => "count",
            TopOrder::Rising => "rising",
        })
    }
}

/// As the word that HTTP takes.
impl fmt::Display for TopSpan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            TopSpan::Hour => "hour",
            TopSpan::Day => "day",
        })
    }
}

/// As the word that HTTP takes.
impl fmt::Display for Granularity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Granularity::Minute => "minute",
            Granularity::Hour => "hour",
            Granularity::Day => "day",
            Granularity::All => "all",
        })
    }
}

#[derive(Clone, Debug, Args)]
pub struct ReplayArgs {
    /// History to read: files:GLOB (.jsonl, also .gz and .zst; each file is a partition), log:DIR or kafka:TOPIC
    #[arg(long, value_name = "FROM")]
    pub from: ReplayFrom,
    /// Where the counts go: tsv:FILE, store:DIR or cassandra:KEYSPACE
    #[arg(long, value_name = "OUT")]
    pub out: ReplayOut,
    /// Worker threads [config: workers]
    #[arg(long, value_name = "N")]
    pub workers: Option<u32>,
    /// First window wanted: epoch milliseconds or RFC 3339
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    pub since: Option<EventTime>,
    /// First window not wanted any more
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    pub until: Option<EventTime>,
    #[command(flatten)]
    pub passing: PassingArgs,
}

/// What a replay reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReplayFrom {
    /// The files that a glob matches, each one a partition, in the order of names.
    Files(String),
    /// The embedded log in a folder.
    Log(PathBuf),
    /// A topic.
    #[cfg(feature = "kafka")]
    Kafka(String),
}

impl FromStr for ReplayFrom {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match scheme(text)? {
            ("files", glob) => Ok(ReplayFrom::Files(glob.to_owned())),
            ("log", dir) => Ok(ReplayFrom::Log(dir.into())),
            #[cfg(feature = "kafka")]
            ("kafka", topic) => Ok(ReplayFrom::Kafka(topic.to_owned())),
            (other, _) => Err(not_in_this_build(other, &["kafka", "archive"], "files:GLOB, log:DIR, kafka:TOPIC")),
        }
    }
}

/// Where a replay's counts go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReplayOut {
    /// A file of sorted, tab-separated rows.
    Tsv(PathBuf),
    /// The embedded store in a folder.
    Store(PathBuf),
    /// Tables in a keyspace.
    #[cfg(feature = "cassandra")]
    Cassandra(String),
}

impl FromStr for ReplayOut {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match scheme(text)? {
            ("tsv", file) => Ok(ReplayOut::Tsv(file.into())),
            ("store", dir) => Ok(ReplayOut::Store(dir.into())),
            #[cfg(feature = "cassandra")]
            ("cassandra", keyspace) => Ok(ReplayOut::Cassandra(keyspace.to_owned())),
            (other, _) => Err(not_in_this_build(other, &["cassandra"], "tsv:FILE, store:DIR, cassandra:KEYSPACE")),
        }
    }
}

/// Splits `scheme:rest`; neither is empty.
fn scheme(text: &str) -> Result<(&str, &str), String> {
    match text.split_once(':') {
        Some((_, "")) => Err(format!("nothing follows {text:?}")),
        Some((scheme, rest)) if !scheme.is_empty() => Ok((scheme, rest)),
        _ => Err("it begins with what it is and a colon, such as files:events/*.jsonl".to_owned()),
    }
}

fn not_in_this_build(scheme: &str, planned: &[&str], available: &str) -> String {
    let why = if planned.contains(&scheme) { "is not in this build" } else { "is unknown" };
    format!("{scheme}: {why}; available are {available}")
}

#[derive(Clone, Debug, Args)]
pub struct AuditArgs {
    /// Which checkpoint, as `checkpoint list` names it [default: the newest good one]
    #[arg(long, value_name = "GENERATION-NUMBER", value_parser = parse_version)]
    pub checkpoint: Option<Version>,
    /// Write what is right where rows differ; not while a job runs on the folder
    #[arg(long)]
    pub apply: bool,
    /// Where a process that runs on the folder serves [config: http.listen]
    #[arg(long, value_name = "ADDRESS")]
    pub listen: Option<String>,
    /// Worker threads [config: workers]
    #[arg(long, value_name = "N")]
    pub workers: Option<u32>,
    #[command(flatten)]
    pub data_dir: DataDir,
}

/// A checkpoint's name.
fn parse_version(text: &str) -> Result<Version, String> {
    let numbers =
        text.split_once('-').and_then(|(generation, number)| Some((generation.parse().ok()?, number.parse().ok()?)));
    let (generation, number) = numbers.ok_or("it is a generation, a hyphen and a number, such as 3-17")?;
    Ok(Version { generation, number })
}

#[derive(Debug, Subcommand)]
pub enum CheckpointCommand {
    /// All of them, newest first
    List {
        #[command(flatten)]
        data_dir: DataDir,
    },
    /// One of them: offsets, ledger, sizes, checksums
    Show {
        /// Which one; left out: the newest
        frontier: Option<EventTime>,
        #[command(flatten)]
        data_dir: DataDir,
    },
    /// Read them whole and check checksums and ledger; exit 66 where none is good
    Verify {
        /// Which one; left out: all
        frontier: Option<EventTime>,
        #[command(flatten)]
        data_dir: DataDir,
    },
}

#[derive(Debug, Subcommand)]
pub enum DimensionsCommand {
    /// Send the lines of a file to a running tidemark; exit 1 where one was rejected
    Load {
        /// One JSON object a line, {"video_id","name","channel_id"} or {"channel_id","name"}, each replacing what was known; "-" is stdin
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// Give up once the server has taken nothing for this long
        #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = parse_duration_ms)]
        give_up_after: u64,
        #[command(flatten)]
        server: Server,
    },
}

#[derive(Debug, Subcommand)]
pub enum DeadLettersCommand {
    /// Print them, one JSON object a line
    List {
        /// Only these
        #[arg(long)]
        reason: Option<LetterReason>,
        /// No more than this many
        #[arg(long, value_name = "N")]
        limit: Option<u64>,
        #[command(flatten)]
        data_dir: DataDir,
    },
    /// How many there are, by reason
    Count {
        #[command(flatten)]
        data_dir: DataDir,
    },
    /// Send mended ones through again, as new records; what is no event yet, and what was late, is not sent
    Replay(ResendArgs),
}

#[derive(Clone, Debug, Args)]
pub struct ResendArgs {
    /// Letters to send, one JSON object a line as `list` prints them ("-": stdin) [default: those that are published]
    #[arg(value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// Only these
    #[arg(long)]
    pub reason: Option<LetterReason>,
    /// Where they go: "http": a running tidemark, "log": the log of one that isn't running, or "kafka"
    /// [default: kafka if the source is, otherwise http]
    #[arg(long, value_name = "http|log|kafka")]
    pub to: Option<To>,
    #[command(flatten)]
    pub server: Server,
    /// Give up (exit 69) when nothing was taken for this long
    #[arg(long = "give-up-after", value_name = "DURATION", default_value = "60s", value_parser = parse_duration_ms)]
    pub give_up_after_ms: u64,
    /// Say how many would be sent, and send none
    #[arg(long)]
    pub dry_run: bool,
    #[command(flatten)]
    pub data_dir: DataDir,
}

/// Why a record was not counted.
#[derive(Copy, Clone, Debug, PartialEq, Eq, ValueEnum)]
pub enum LetterReason {
    Malformed,
    Late,
    Future,
    Oversize,
}

/// As the word that the letter carries.
impl fmt::Display for LetterReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            LetterReason::Malformed => "malformed",
            LetterReason::Late => "late",
            LetterReason::Future => "future",
            LetterReason::Oversize => "oversize",
        })
    }
}

#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Print "ok", or every fault and exit 2
    Check,
    /// Print the effective configuration, with where each value is from, secrets masked
    Show,
}

/// A time: epoch milliseconds, or RFC 3339 cut off at the millisecond.
pub fn parse_time(text: &str) -> Result<EventTime, String> {
    let time = if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        text.parse::<EventTime>().map_err(|_| "it is past the year 9999".to_owned())?
    } else {
        let parsed = DateTime::parse_from_rfc3339(text)
            .map_err(|_| "a time is epoch milliseconds or RFC 3339, such as 2026-01-01T00:00:00Z".to_owned())?;
        if 1_000_000_000 <= parsed.timestamp_subsec_nanos() {
            return Err("there is no second 60 here".to_owned());
        }
        EventTime::try_from(parsed.timestamp_millis()).map_err(|_| "it is before 1970".to_owned())?
    };
    if EVENT_TIME_MAX < time {
        return Err("it is past the year 9999".to_owned());
    }
    Ok(time)
}

/// An `http://` address, without the slash at its end.
fn parse_url(text: &str) -> Result<String, String> {
    match text.strip_prefix("http://") {
        Some(host) if !host.trim_end_matches('/').is_empty() => Ok(text.trim_end_matches('/').to_owned()),
        Some(_) => Err("it names no host".to_owned()),
        None if text.starts_with("https://") => {
            Err("https is not in this build; put a proxy that speaks it in between".to_owned())
        }
        None => Err(format!("it begins with http://, such as {DEFAULT_URL}")),
    }
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, error::ErrorKind};

    use super::*;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(std::iter::once("tidemark").chain(line.split_whitespace()))
    }

    #[test]
    fn the_definition_holds_together() {
        Cli::command().debug_assert();
    }

    #[test]
    fn what_is_in_this_release_parses() {
        for line in [
            "run",
            "run --workers 2 --data-dir d --listen 127.0.0.1:1 --from-start --on-gap=mark",
            "run --process 1 --hosts f",
            "cluster --processes 3 --workers 2 --data-dir d --listen 127.0.0.1:1 --from-start --skip-batch 0:1 --skip-batch 1:7",
            "produce --to d --events 10",
            "query v1",
            "query v1 --event-type like --function count --start 0 --end 2026-01-01T00:00:00Z --granularity all",
            "query v1 --as-of 5 --json",
            "query v1 --after 0:1,1:2 --csv --url http://h:1/",
            "query --channel c1 --granularity day",
            "query --top 3 --by channel",
            "dimensions load f --url http://h:1/",
            "replay --from files:a/*.jsonl --out tsv:o --workers 2 --since 1 --until 2",
            "replay --from log:d --out store:s",
            #[cfg(all(feature = "kafka", feature = "cassandra"))]
            "replay --from kafka:t --out cassandra:k",
            "plan --rate 20k/s --videos 1M --lateness 1h --functions count --json",
            "checkpoint list",
            "checkpoint show 7 --data-dir d",
            "checkpoint verify",
            "dead-letters list --reason late --limit 3",
            "dead-letters count",
            "config check --config f -vv --log-format json",
            "config show",
            "completions bash",
        ] {
            if let Err(error) = parse(line) {
                panic!("{line}: {error}");
            }
        }
    }

    #[test]
    fn what_is_not_is_refused_as_usage_and_says_what_there_is() {
        for (line, says) in [
            ("replay --from archive:u --out tsv:o", "archive: is not in this build"),
            ("replay --from ftp:u --out tsv:o", "ftp: is unknown; available are files:GLOB"),
            ("replay --from files: --out tsv:o", "nothing follows"),
            ("replay --from events --out tsv:o", "begins with what it is"),
            ("query v --json --csv", "cannot be used with"),
            ("query v --channel c", "cannot be used with"),
            ("query --channel c --by channel", "cannot be used with"),
            ("query v --order rising", "cannot be used with"),
            ("query", "<VIDEO>"),
            ("query v --as-of 1 --after 0:1", "cannot be used with"),
            ("query v --function median", "possible values: count, sum, mean"),
            ("query v --url https://h", "https is not in this build"),
            ("query v --url h:7070", "begins with http://"),
            ("query v --start yesterday", "epoch milliseconds or RFC 3339"),
            ("plan", "--rate"),
            ("plan --rate 0", "from 0.001 to 1000M a second"),
            ("plan --rate 1 --videos 0", "from 1 to 4 billion videos"),
            ("plan --rate 1 --history 0s", "more than nothing"),
            ("plan --rate 1 --event-bytes 0", "0 is not in"),
            ("cluster", "--processes"),
            ("cluster --processes 0", "0 is not in 1..=256"),
            ("run --on-gap=skip", "possible values: stop, mark"),
            ("run --process 1", "--hosts"),
            ("run --hosts f", "--process"),
        ] {
            let error = parse(line).expect_err(line);
            assert!(error.to_string().contains(says), "{line}: {error}");
            assert_eq!(error.exit_code(), 2, "{line}");
        }
        assert_eq!(parse("--version").unwrap_err().kind(), ErrorKind::DisplayVersion);
    }

    #[test]
    fn times_are_milliseconds_or_rfc_3339() {
        for (text, expect) in [
            ("0", Some(0)),
            ("1767225600123", Some(1_767_225_600_123)),
            ("2026-01-01T00:00:00Z", Some(1_767_225_600_000)),
            ("2026-01-01T01:00:00.1239+01:00", Some(1_767_225_600_123)),
            ("9999-12-31T23:59:59.999Z", Some(EVENT_TIME_MAX)),
            ("253402300800000", None),
            ("99999999999999999999", None),
            ("1969-12-31T23:59:59Z", None),
            ("2016-12-31T23:59:60Z", None),
            ("2026-01-01", None),
            ("-1", None),
            ("+1", None),
            ("1.5", None),
            ("", None),
        ] {
            assert_eq!(parse_time(text).ok(), expect, "{text}");
        }
    }

    #[test]
    fn flags_become_overrides_of_keys() {
        let cli = parse("run --workers 3 --data-dir d --listen 127.0.0.1:9").unwrap();
        let expect = Overrides {
            workers: Some(3),
            data_dir: Some("d".into()),
            listen: Some("127.0.0.1:9".to_owned()),
            ..Overrides::default()
        };
        assert_eq!(cli.command.overrides(), expect);
        let passing = parse("run --on-gap mark --skip-batch 0:7 --skip-batch 1:8").unwrap().command.overrides();
        assert_eq!((passing.on_gap.as_deref(), passing.skip_batches), (Some("mark"), vec!["0:7".into(), "1:8".into()]));
        assert_eq!(parse("run").unwrap().command.overrides(), Overrides::default());
        let data_dir = parse("dead-letters count --data-dir e").unwrap().command.overrides().data_dir;
        assert_eq!(data_dir, Some("e".into()));
    }
}
