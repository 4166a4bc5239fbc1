//! From [`Config`] to [`Settings`]: every rule about values, all of them judged, none of them by I/O.

use std::{
    collections::BTreeMap,
    fmt,
    net::SocketAddr,
    num::{NonZeroU32, NonZeroUsize},
    ops::RangeInclusive,
    path::{Path, PathBuf},
};

use dataflows::{
    event::is_event_type,
    functions::{Function, Functions, Kept},
    port::PartitionId,
    rules::Quiet,
    time::MINUTE_MS,
};

use super::{
    text::{self, Config, Properties},
    units::{parse_duration_ms, parse_size},
};

/// The step of stream time that a replay or a catch-up takes, ms, where the alignment leaves room for two of them: reading in step
/// compares exact clocks. A window has a row of history per step, so that longer ones are less work for the index.
const COARSE_STEP_MS: u64 = 30_000;

/// An alignment that has no room for two of these is refused, ms.
const COARSE_STEP_MS_MIN: u64 = 10_000;

/// What a changed window that waits for the sink costs in memory, about.
const UNWRITTEN_BYTES: usize = 64;

/// A worker is a thread; more than this is a slip of the keyboard.
const WORKERS_MAX: u32 = 256;

const PARTITIONS_MAX: u32 = 1024;

/// A shorter interval would spend its time on fsync.
const INTERVAL_MS_MIN: u64 = 100;

/// Folder of the checkpoints under `data_dir`.
const CHECKPOINTS: &str = "checkpoints";

/// One thing wrong with a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The dotted key; the file where it can't be read at all.
    pub key: String,
    /// What is wrong, in words.
    pub problem: String,
    /// Where the value is from; `None` for a built-in default.
    pub origin: Option<String>,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.key, self.problem)?;
        match &self.origin {
            Some(origin) => write!(f, " ({origin})"),
            None => Ok(()),
        }
    }
}

/// A configuration that obeys every rule. Only [`Config::check`] makes one outside of tests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Holds `log/`, `store/`, `checkpoints/` and `dead-letters/`.
    pub data_dir: PathBuf,
    /// Worker threads.
    pub workers: NonZeroUsize,
    /// The input.
    pub source: SourceSettings,
    /// The topics, where the input is Kafka or a command names it.
    pub kafka: KafkaSettings,
    /// Where windows go as they change.
    pub sink: SinkKind,
    /// How many changed windows may wait for the sink before reading stops.
    pub unwritten_max: usize,
    /// The tables, where the sink is Cassandra or a command names it.
    pub cassandra: CassandraSettings,
    /// What is late, remembered, ahead.
    pub time: TimeSettings,
    /// What is kept beside the counts.
    pub functions: Functions,
    /// What stays in memory.
    pub index: IndexSettings,
    /// When and where state is kept.
    pub checkpoint: CheckpointSettings,
    /// How processes find each other.
    pub cluster: ClusterSettings,
    /// The door.
    pub http: HttpSettings,
}

/// The input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceSettings {
    /// Which one.
    pub kind: SourceKind,
    /// Partitions of a new log or topic, at most 1024.
    pub partitions: NonZeroU32,
}

/// Which input.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum SourceKind {
    /// The embedded log, under `data_dir`.
    Log,
    /// A Kafka topic.
    Kafka,
}

/// The topics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KafkaSettings {
    /// Where to start looking for the cluster, each `host:port`.
    pub brokers: Vec<String>,
    /// The topic with the events.
    pub topic: String,
    /// The topic for what can't be counted.
    pub dead_letter_topic: String,
    /// The compacted topic with names and channels, if they are in one.
    pub dimensions_topic: Option<String>,
    /// Any librdkafka key.
    pub properties: Properties,
    /// Whether what is gone before it was read is passed over.
    pub passes_gaps: bool,
    /// Batches that are passed over where they can't be read: the partition and the offset that the error names.
    pub skip_batches: Vec<(PartitionId, u64)>,
}

/// The tables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CassandraSettings {
    /// Nodes to ask first, each `host:port`.
    pub contact_points: Vec<String>,
    /// Created if missing.
    pub keyspace: String,
    /// The driver writes to this data centre only.
    pub local_datacenter: String,
    /// Copies of each row there.
    pub replication_factor: NonZeroU32,
    /// Who to log in as.
    pub username: Option<String>,
    /// File with the password in its first line.
    pub password_file: Option<PathBuf>,
    /// Whether connections are encrypted and the server's certificate checked.
    pub tls: bool,
    /// Certificates to trust, PEM.
    pub ca_file: Option<PathBuf>,
}

/// How processes find each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterSettings {
    /// File with the secret that processes prove to each other; `None` for one of our own under `data_dir`.
    pub key_file: Option<PathBuf>,
    /// How long processes, Kafka and Cassandra are waited for at a start.
    pub patience_ms: u64,
}

/// Where windows go as they change.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum SinkKind {
    /// The embedded store, under `data_dir`.
    Store,
    /// Tables in Cassandra.
    Cassandra,
    /// Nowhere.
    None,
}

/// Times that decide what counts and when it is seen. All are stream time except `idle_after_ms`.
///
/// * `tick` divides a minute; `lateness` and `remember` are multiples of it
/// * `lateness <= remember`
/// * `2 * coarsest_step() < alignment`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TimeSettings {
    /// How far behind its partition's clock an event may be and still count.
    pub lateness_ms: u64,
    /// How long a counted event is remembered.
    pub remember_ms: u64,
    /// Wall-clock time after which a partition with nothing to read is drained.
    pub idle_after_ms: u64,
    /// How far ahead of its append time an event may be.
    pub max_future_ms: u64,
    /// How far ahead of its partition's clock an event may be and still move it at once.
    pub max_jump_ms: u64,
    /// The step in which counts become visible.
    pub tick_ms: u64,
    /// How far a partition may be read ahead of the slowest.
    pub alignment_ms: u64,
    /// What a quiet partition does to finality.
    pub quiet: Quiet,
}

impl TimeSettings {
    /// The step while catching up and in replays, in whole ticks.
    pub fn coarsest_step_ms(&self) -> u64 {
        let fits = (self.alignment_ms - 1) / 2 / self.tick_ms * self.tick_ms;
        COARSE_STEP_MS.next_multiple_of(self.tick_ms).min(fits)
    }
}

/// What stays in memory. `lateness + as_of + 1 min <= hot`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IndexSettings {
    /// How long minute windows stay in memory, stream time.
    pub hot_ms: u64,
    /// How far back `as_of` reaches, stream time.
    pub as_of_ms: u64,
}

/// When and where state is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckpointSettings {
    /// Between two checkpoints, at least 100 ms.
    pub interval_ms: u64,
    /// How many are kept.
    pub keep: NonZeroUsize,
    /// Where.
    pub place: CheckpointPlace,
}

/// Where checkpoints are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CheckpointPlace {
    /// A folder.
    Folder(PathBuf),
    /// A bucket of S3, or of what talks like it. Who asks, and where, is in the environment (`AWS_…`) and never here.
    Bucket {
        /// The bucket.
        name: String,
        /// What all keys begin with, without slashes around; may be empty.
        prefix: String,
    },
}

impl fmt::Display for CheckpointPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Folder(dir) => write!(f, "{}", dir.display()),
            Self::Bucket { name, prefix } if prefix.is_empty() => write!(f, "s3://{name}"),
            Self::Bucket { name, prefix } => write!(f, "s3://{name}/{prefix}"),
        }
    }
}

/// The door.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpSettings {
    /// A loopback address, or there is a token file.
    pub listen: SocketAddr,
    /// File with the bearer token that every request must carry.
    pub token_file: Option<PathBuf>,
    /// What a client may cost.
    pub limits: HttpLimits,
}

/// What a client may cost. None is zero.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpLimits {
    /// From the connection's start to the end of its headers.
    pub header_read_ms: u64,
    /// From the end of the headers to the end of the body.
    pub body_read_ms: u64,
    /// How long a connection may stay open without a request.
    pub idle_ms: u64,
    /// For the client to take an answer.
    pub write_ms: u64,
    /// How long `?after=` waits.
    pub after_wait_ms: u64,
    /// All headers of a request together.
    pub header_bytes: NonZeroUsize,
    /// A body as it is sent.
    pub body_bytes: NonZeroUsize,
    /// A compressed body unpacked.
    pub decompressed_bytes: NonZeroUsize,
    /// Open connections in all.
    pub connections: NonZeroUsize,
    /// Open connections from one address.
    pub connections_per_address: NonZeroUsize,
}

impl Config {
    /// Judges every rule. No I/O: whether a folder can be written shows when it is.
    pub fn check(&self) -> Result<Settings, Vec<Fault>> {
        let mut judge = Judge::default();
        if self.data_dir.is_empty() {
            judge.fault("data_dir", "it is empty");
        }
        let data_dir = PathBuf::from(&self.data_dir);
        let settings = Settings {
            workers: judge.whole("workers", self.workers, 1..=WORKERS_MAX),
            source: judge.source(&self.source),
            kafka: judge.kafka(&self.kafka),
            sink: judge.sink(&self.sink),
            unwritten_max: judge.buffer(&self.sink),
            cassandra: judge.cassandra(&self.cassandra),
            time: judge.time(&self.time),
            functions: judge.functions(&self.functions),
            index: judge.index(&self.index, &self.time),
            checkpoint: judge.checkpoint(&self.checkpoint, &data_dir),
            cluster: judge.cluster(&self.cluster),
            http: judge.http(&self.http),
            data_dir,
        };
        if judge.faults.is_empty() { Ok(settings) } else { Err(judge.faults) }
    }
}

/// Collects faults. What is at fault gets a stand-in value, which no settings are ever made of.
#[derive(Default)]
struct Judge {
    faults: Vec<Fault>,
}

impl Judge {
    fn fault(&mut self, key: &str, problem: impl Into<String>) {
        self.faults.push(Fault { key: key.to_owned(), problem: problem.into(), origin: None });
    }

    fn duration(&mut self, key: &str, text: &str, least_ms: u64) -> u64 {
        match parse_duration_ms(text) {
            Ok(ms) if least_ms <= ms => return ms,
            Ok(_) => self.fault(key, format!("{text:?} is less than {least_ms}ms")),
            Err(problem) => self.fault(key, problem),
        }
        least_ms
    }

    /// A whole number within bounds that are not below 1, in whichever type holds it without zero.
    fn whole<N: TryFrom<NonZeroU32>>(&mut self, key: &str, number: i64, bounds: RangeInclusive<u32>) -> N {
        let fitting = u32::try_from(number).ok().filter(|number| bounds.contains(number));
        if fitting.is_none() {
            self.fault(key, format!("{number} is not within {} to {}", bounds.start(), bounds.end()));
        }
        widened(fitting.and_then(NonZeroU32::new).unwrap_or(NonZeroU32::MIN))
    }

    /// A size from 1 byte to `most`.
    fn size<N: TryFrom<NonZeroU32>>(&mut self, key: &str, text: &str, most: u32) -> N {
        let fitting = match parse_size(text) {
            Ok(bytes) => {
                let fitting = u32::try_from(bytes).ok().filter(|bytes| *bytes <= most).and_then(NonZeroU32::new);
                if fitting.is_none() {
                    self.fault(key, format!("{bytes} bytes are not within 1 to {most}"));
                }
                fitting
            }
            Err(problem) => {
                self.fault(key, problem);
                None
            }
        };
        widened(fitting.unwrap_or(NonZeroU32::MIN))
    }

    fn source(&mut self, source: &text::Source) -> SourceSettings {
        let kind = match source.kind.as_str() {
            "kafka" => SourceKind::Kafka,
            "log" => SourceKind::Log,
            other => {
                self.fault("source.kind", format!("{other:?} is no kind of source; \"log\" and \"kafka\" are"));
                SourceKind::Log
            }
        };
        if kind == SourceKind::Kafka && !cfg!(feature = "kafka") {
            self.fault("source.kind", "\"kafka\" is not in this build; \"log\" is");
        }
        SourceSettings { kind, partitions: self.whole("source.partitions", source.partitions, 1..=PARTITIONS_MAX) }
    }

    fn sink(&mut self, sink: &text::Sink) -> SinkKind {
        match sink.kind.as_str() {
            "store" => return SinkKind::Store,
            "none" => {}
            "cassandra" if cfg!(feature = "cassandra") => return SinkKind::Cassandra,
            "cassandra" => self.fault("sink.kind", "\"cassandra\" is not in this build; \"store\" and \"none\" are"),
            other => {
                let problem = format!("{other:?} is no kind of sink; \"store\", \"cassandra\" and \"none\" are");
                self.fault("sink.kind", problem);
            }
        }
        SinkKind::None
    }

    fn buffer(&mut self, sink: &text::Sink) -> usize {
        let bytes: NonZeroUsize = self.size("sink.buffer", &sink.buffer, 1 << 30);
        bytes.get().div_ceil(UNWRITTEN_BYTES)
    }

    fn kafka(&mut self, kafka: &text::Kafka) -> KafkaSettings {
        self.not_empty("kafka.brokers", kafka.brokers.is_empty());
        self.not_empty("kafka.topic", kafka.topic.is_empty());
        self.not_empty("kafka.dead_letter_topic", kafka.dead_letter_topic.is_empty());
        if kafka.topic == kafka.dead_letter_topic {
            self.fault("kafka.dead_letter_topic", "it is kafka.topic: what can't be counted would be read again");
        }
        if [&kafka.topic, &kafka.dead_letter_topic].contains(&&kafka.dimensions_topic) {
            self.fault("kafka.dimensions_topic", "it is another topic than those of events and dead letters");
        }
        KafkaSettings {
            brokers: kafka.brokers.clone(),
            topic: kafka.topic.clone(),
            dead_letter_topic: kafka.dead_letter_topic.clone(),
            dimensions_topic: Some(kafka.dimensions_topic.clone()).filter(|topic| !topic.is_empty()),
            properties: kafka.properties.clone(),
            passes_gaps: self.passes_gaps(&kafka.on_gap),
            skip_batches: kafka.skip_batches.iter().filter_map(|text| self.batch(text)).collect(),
        }
    }

    fn passes_gaps(&mut self, on_gap: &str) -> bool {
        match on_gap {
            "mark" => return true,
            "stop" => {}
            other => self.fault("kafka.on_gap", format!("{other:?} is not known; \"stop\" and \"mark\" are")),
        }
        false
    }

    fn batch(&mut self, text: &str) -> Option<(PartitionId, u64)> {
        let place = text.split_once(':').and_then(|(p, o)| Some((PartitionId(p.parse().ok()?), o.parse().ok()?)));
        if place.is_none() {
            self.fault("kafka.skip_batches", format!("{text:?} is not P:O, a partition and an offset"));
        }
        place
    }

    fn cassandra(&mut self, cassandra: &text::Cassandra) -> CassandraSettings {
        self.not_empty("cassandra.contact_points", cassandra.contact_points.is_empty());
        let fits = |character: char| character.is_ascii_alphanumeric() || character == '_';
        if cassandra.keyspace.is_empty() || 48 < cassandra.keyspace.len() || !cassandra.keyspace.chars().all(fits) {
            let problem = format!("{:?} is not 1 to 48 letters, digits and underscores", cassandra.keyspace);
            self.fault("cassandra.keyspace", problem);
        }
        if cassandra.username.is_some() != cassandra.password_file.is_some() {
            self.fault("cassandra.username", "it and cassandra.password_file come together");
        }
        CassandraSettings {
            contact_points: cassandra.contact_points.clone(),
            keyspace: cassandra.keyspace.clone(),
            local_datacenter: cassandra.local_datacenter.clone(),
            replication_factor: self.whole("cassandra.replication_factor", cassandra.replication_factor, 1..=100),
            username: cassandra.username.clone(),
            password_file: cassandra.password_file.as_deref().map(PathBuf::from),
            tls: cassandra.tls,
            ca_file: cassandra.ca_file.as_deref().map(PathBuf::from),
        }
    }

    fn cluster(&mut self, cluster: &text::Cluster) -> ClusterSettings {
        self.not_empty("cluster.key_file", cluster.key_file.as_deref() == Some(""));
        ClusterSettings {
            key_file: cluster.key_file.as_deref().map(PathBuf::from),
            patience_ms: self.duration("cluster.patience", &cluster.patience, 1),
        }
    }

    fn not_empty(&mut self, key: &str, is_empty: bool) {
        if is_empty {
            self.fault(key, "it is empty");
        }
    }

    fn time(&mut self, time: &text::Time) -> TimeSettings {
        let tick_ms = self.duration("time.tick", &time.tick, 1);
        if !MINUTE_MS.is_multiple_of(tick_ms) {
            self.fault("time.tick", format!("{:?} does not divide a minute", time.tick));
        }
        let lateness_ms = self.duration("time.lateness", &time.lateness, 0);
        self.whole_ticks("time.lateness", &time.lateness, lateness_ms, tick_ms);
        let remember_ms = match &time.remember {
            None => lateness_ms,
            Some(remember) => {
                let remember_ms = self.duration("time.remember", remember, 0);
                self.whole_ticks("time.remember", remember, remember_ms, tick_ms);
                if self.good(&["time.remember", "time.lateness"]) && remember_ms < lateness_ms {
                    let problem = format!(
                        "{remember:?} is less than time.lateness ({:?}): a repeat could count twice; leave it out to \
                         remember as long",
                        time.lateness
                    );
                    self.fault("time.remember", problem);
                }
                remember_ms
            }
        };
        let alignment_ms = self.duration("time.alignment", &time.alignment, 1);
        let step_ms = COARSE_STEP_MS_MIN.next_multiple_of(tick_ms);
        if self.good(&["time.alignment", "time.tick"]) && alignment_ms <= 2 * step_ms {
            let problem = format!(
                "{:?} has no room for two steps of {step_ms}ms, in which much is caught up with",
                time.alignment
            );
            self.fault("time.alignment", problem);
        }
        let quiet = match time.quiet.as_str() {
            "hold" => Quiet::Hold,
            "release" => Quiet::Release,
            other => {
                self.fault("time.quiet", format!("{other:?} is neither \"hold\" nor \"release\""));
                Quiet::Hold
            }
        };
        TimeSettings {
            lateness_ms,
            remember_ms,
            idle_after_ms: self.duration("time.idle_after", &time.idle_after, 1),
            max_future_ms: self.duration("time.max_future", &time.max_future, 0),
            max_jump_ms: self.duration("time.max_jump", &time.max_jump, 1),
            tick_ms,
            alignment_ms,
            quiet,
        }
    }

    fn whole_ticks(&mut self, key: &str, text: &str, ms: u64, tick_ms: u64) {
        if self.good(&[key, "time.tick"]) && !ms.is_multiple_of(tick_ms) {
            self.fault(key, format!("{text:?} is not a multiple of time.tick ({tick_ms}ms)"));
        }
    }

    fn functions(&mut self, functions: &text::Functions) -> Functions {
        let others = self.kept("functions.default", functions.default.iter().map(String::as_str));
        let mut by_type = BTreeMap::new();
        for (event_type, names) in &functions.by_type {
            if !is_event_type(event_type) {
                let problem = format!("{event_type:?} is no event type, such as \"view\"");
                self.fault("functions.by_type", problem);
            }
            let names = names.split(',').map(str::trim).filter(|name| !name.is_empty());
            by_type.insert(event_type.clone(), self.kept("functions.by_type", names));
        }
        Functions { others, by_type }
    }

    fn kept<'a>(&mut self, key: &str, names: impl Iterator<Item = &'a str>) -> Kept {
        names.fold(Kept::NONE, |kept, name| match Function::parse(name) {
            Some(function) => kept.or(function.needs()),
            None => {
                let known = Function::ALL.map(Function::as_str).join(", ");
                self.fault(key, format!("{name:?} is no function; there are {known}"));
                kept
            }
        })
    }

    fn index(&mut self, index: &text::Index, time: &text::Time) -> IndexSettings {
        let hot_ms = self.duration("index.hot", &index.hot, 1);
        let as_of_ms = self.duration("index.as_of", &index.as_of, 0);
        if let Ok(lateness_ms) = parse_duration_ms(&time.lateness)
            && self.good(&["index.hot", "index.as_of"])
            && hot_ms < lateness_ms + as_of_ms + MINUTE_MS
        {
            let problem = format!(
                "{:?} is less than time.lateness ({:?}) + index.as_of ({:?}) + 1m: windows would leave memory while \
                 they can still change or be asked for",
                index.hot, time.lateness, index.as_of
            );
            self.fault("index.hot", problem);
        }
        IndexSettings { hot_ms, as_of_ms }
    }

    fn checkpoint(&mut self, checkpoint: &text::Checkpoint, data_dir: &Path) -> CheckpointSettings {
        let place = checkpoint.store.as_deref().map_or_else(
            || Ok(CheckpointPlace::Folder(data_dir.join(CHECKPOINTS))),
            |store| checkpoint_place(store, data_dir),
        );
        let place = place.unwrap_or_else(|problem| {
            self.fault("checkpoint.store", problem);
            CheckpointPlace::Folder(PathBuf::new())
        });
        CheckpointSettings {
            interval_ms: self.duration("checkpoint.interval", &checkpoint.interval, INTERVAL_MS_MIN),
            keep: self.whole("checkpoint.keep", checkpoint.keep, 1..=1_000_000),
            place,
        }
    }

    fn http(&mut self, http: &text::Http) -> HttpSettings {
        let token_file = http.token_file.as_deref().map(PathBuf::from);
        self.not_empty("http.token_file", http.token_file.as_deref() == Some(""));
        let listen = match http.listen.parse::<SocketAddr>() {
            Ok(listen) => {
                if !listen.ip().to_canonical().is_loopback() && token_file.is_none() {
                    let problem = format!("other machines can reach {listen}, so http.token_file is needed");
                    self.fault("http.listen", problem);
                }
                listen
            }
            Err(_) => {
                let problem = format!(
                    "{:?} is not an address and port such as \"127.0.0.1:7070\" or \"[::1]:7070\"",
                    http.listen
                );
                self.fault("http.listen", problem);
                SocketAddr::from(([127, 0, 0, 1], 0))
            }
        };
        HttpSettings { listen, token_file, limits: self.limits(&http.limits) }
    }

    fn limits(&mut self, limits: &text::Limits) -> HttpLimits {
        const NUMBER_MAX: u32 = 1_000_000;
        // Bodies are held in memory whole.
        const BODY_BYTES_MAX: u32 = 1 << 30;
        HttpLimits {
            header_read_ms: self.duration("http.limits.header_read", &limits.header_read, 1),
            body_read_ms: self.duration("http.limits.body_read", &limits.body_read, 1),
            idle_ms: self.duration("http.limits.idle", &limits.idle, 1),
            write_ms: self.duration("http.limits.write", &limits.write, 1),
            after_wait_ms: self.duration("http.limits.after_wait", &limits.after_wait, 1),
            header_bytes: self.size("http.limits.header_bytes", &limits.header_bytes, 1 << 24),
            body_bytes: self.size("http.limits.body_bytes", &limits.body_bytes, BODY_BYTES_MAX),
            decompressed_bytes: self.size("http.limits.decompressed_bytes", &limits.decompressed_bytes, BODY_BYTES_MAX),
            connections: self.whole("http.limits.connections", limits.connections, 1..=NUMBER_MAX),
            connections_per_address: self.whole(
                "http.limits.connections_per_address",
                limits.connections_per_address,
                1..=NUMBER_MAX,
            ),
        }
    }

    /// Whether none of the keys is at fault so far, so that a rule about them says something new.
    fn good(&self, keys: &[&str]) -> bool {
        self.faults.iter().all(|fault| !keys.contains(&fault.key.as_str()))
    }
}

/// The place that a URL names, or what is wrong with it. What may hold a password by mistake is not repeated.
fn checkpoint_place(store: &str, data_dir: &Path) -> Result<CheckpointPlace, String> {
    const KNOWN: &str = "\"file:FOLDER\" and \"s3://BUCKET/PREFIX\" are";
    match store.split_once(':') {
        Some(("file", dir)) if !dir.is_empty() => Ok(CheckpointPlace::Folder(data_dir.join(dir))),
        Some(("s3", _)) if !cfg!(feature = "objects") => {
            Err("\"s3\" is not in this build; \"file:FOLDER\" is".to_owned())
        }
        Some(("s3", rest)) => bucket(rest),
        Some(("memory", _)) => Err(format!("what is kept in memory is gone when it is needed; {KNOWN} kept")),
        Some((scheme @ ("gs" | "az" | "azure" | "abfs" | "abfss" | "http" | "https"), _)) => {
            Err(format!("{scheme:?} is no kind of store that this build knows; {KNOWN}"))
        }
        _ => Err(format!("{store:?} is no store; {KNOWN}")),
    }
}

/// `//BUCKET/PREFIX`, by the rules of S3 for buckets and by what needs no quoting anywhere for keys.
fn bucket(rest: &str) -> Result<CheckpointPlace, String> {
    let rest = rest.strip_prefix("//").unwrap_or_default();
    let (name, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    let prefix = prefix.strip_suffix('/').unwrap_or(prefix);
    let in_name = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".-".contains(&byte);
    if !(3..=63).contains(&name.len()) || !name.bytes().all(in_name) {
        return Err(
            "its bucket is not 3 to 63 small letters, digits, dots and dashes, as in \"s3://BUCKET/PREFIX\"; keys and \
                    addresses come from the environment (AWS_ACCESS_KEY_ID, AWS_ENDPOINT_URL, …)"
                .to_owned(),
        );
    }
    let in_prefix = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.=".contains(&byte);
    let is_segment = |segment: &str| segment.bytes().all(in_prefix) && !["", ".", ".."].contains(&segment);
    if !prefix.is_empty() && !prefix.split('/').all(is_segment) {
        return Err("its prefix is not letters, digits and -_.= between single slashes".to_owned());
    }
    Ok(CheckpointPlace::Bucket { name: name.to_owned(), prefix: prefix.to_owned() })
}

fn widened<N: TryFrom<NonZeroU32>>(number: NonZeroU32) -> N {
    N::try_from(number).ok().expect("32 bits fit into every type here")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The built-in defaults with some lines of TOML laid over.
    fn check(lines: &str) -> Result<Settings, Vec<Fault>> {
        let layers = super::super::Layers { file: Some(("t.toml".into(), lines.to_owned())), ..Default::default() };
        super::super::Effective::of(&layers).settings()
    }

    /// The keys at fault, each once for each fault.
    fn keys(lines: &str) -> Vec<String> {
        check(lines).err().unwrap_or_default().into_iter().map(|fault| fault.key).collect()
    }

    #[test]
    fn the_defaults_are_those_of_the_contract() {
        let settings = Config::embedded().check().unwrap();
        assert_eq!(settings.data_dir, Path::new("tidemark-data"));
        assert_eq!(settings.source.partitions.get(), 4);
        assert_eq!(settings.sink, SinkKind::Store);
        let time = TimeSettings {
            lateness_ms: 600_000,
            remember_ms: 600_000,
            idle_after_ms: 250,
            max_future_ms: 300_000,
            max_jump_ms: 3_600_000,
            tick_ms: 100,
            alignment_ms: 120_000,
            quiet: Quiet::Hold,
        };
        assert_eq!(settings.time, time);
        assert_eq!(settings.functions, Functions::of_all(Kept::ALL));
        assert_eq!(settings.index, IndexSettings { hot_ms: 172_800_000, as_of_ms: 900_000 });
        assert_eq!((settings.checkpoint.interval_ms, settings.checkpoint.keep.get()), (5000, 3));
        assert_eq!(settings.checkpoint.place, CheckpointPlace::Folder("tidemark-data/checkpoints".into()));
        assert_eq!(settings.http.listen, SocketAddr::from(([127, 0, 0, 1], 7070)));
        assert_eq!(settings.http.token_file, None);
        assert_eq!(settings.http.limits.body_bytes.get(), 4 << 20);
    }

    #[test]
    fn functions_are_kept_in_groups_by_event_type() {
        let lines =
            "[functions]\ndefault = [\"count\", \"mean\"]\nby_type = { like = \"distinct, p50\", share = \"\" }";
        let functions = check(lines).unwrap().functions;
        let kept = ["view", "like", "share"].map(|event_type| functions.kept(event_type));
        let likes = Kept { values: false, ..Kept::ALL };
        assert_eq!(kept, [Kept { values: true, ..Kept::NONE }, likes, Kept::NONE]);
    }

    #[test]
    fn each_rule_is_a_fault_of_its_key() {
        for (lines, key) in [
            ("data_dir = \"\"", "data_dir"),
            ("workers = 0", "workers"),
            ("workers = 257", "workers"),
            ("functions.default = [\"median\"]", "functions.default"),
            ("functions.by_type = { like = \"sum, median\" }", "functions.by_type"),
            ("functions.by_type = { View = \"sum\" }", "functions.by_type"),
            ("source.partitions = 0", "source.partitions"),
            ("source.partitions = -1", "source.partitions"),
            ("source.partitions = 1025", "source.partitions"),
            ("source.kind = \"pulsar\"", "source.kind"),
            ("sink.buffer = \"0B\"", "sink.buffer"),
            ("sink.kind = \"Store\"", "sink.kind"),
            ("time.tick = \"70ms\"\ntime.lateness = \"70s\"", "time.tick"),
            ("time.tick = \"0ms\"", "time.tick"),
            ("time.tick = \"2m\"\ntime.lateness = \"2m\"\ntime.alignment = \"10m\"", "time.tick"),
            ("time.lateness = \"1050ms\"", "time.lateness"),
            ("time.lateness = \"1\"", "time.lateness"),
            ("time.remember = \"599s\"", "time.remember"),
            ("time.remember = \"600050ms\"", "time.remember"),
            ("time.alignment = \"20s\"", "time.alignment"),
            ("time.tick = \"1m\"", "time.alignment"),
            ("time.max_jump = \"0s\"", "time.max_jump"),
            ("time.idle_after = \"0s\"", "time.idle_after"),
            ("time.quiet = \"loud\"", "time.quiet"),
            ("index.hot = \"1559999ms\"", "index.hot"),
            ("checkpoint.interval = \"99ms\"", "checkpoint.interval"),
            ("checkpoint.keep = 0", "checkpoint.keep"),
            ("checkpoint.store = \"file:\"", "checkpoint.store"),
            ("checkpoint.store = \"folder\"", "checkpoint.store"),
            ("checkpoint.store = \"s3:bucket\"", "checkpoint.store"),
            ("checkpoint.store = \"s3://\"", "checkpoint.store"),
            ("checkpoint.store = \"s3:///prefix\"", "checkpoint.store"),
            ("checkpoint.store = \"s3://Bucket\"", "checkpoint.store"),
            ("checkpoint.store = \"s3://key:secret@bucket\"", "checkpoint.store"),
            ("checkpoint.store = \"s3://bucket//a\"", "checkpoint.store"),
            ("checkpoint.store = \"s3://bucket/a/../b\"", "checkpoint.store"),
            ("checkpoint.store = \"s3://bucket/a b\"", "checkpoint.store"),
            ("checkpoint.store = \"memory:\"", "checkpoint.store"),
            ("checkpoint.store = \"gs://bucket\"", "checkpoint.store"),
            ("checkpoint.store = \"az://container\"", "checkpoint.store"),
            ("http.listen = \"localhost\"", "http.listen"),
            ("http.listen = \"0.0.0.0:7070\"", "http.listen"),
            ("http.listen = \"[::]:7070\"", "http.listen"),
            ("http.token_file = \"\"", "http.token_file"),
            ("http.limits.body_bytes = \"0B\"", "http.limits.body_bytes"),
            ("http.limits.body_bytes = \"2GiB\"", "http.limits.body_bytes"),
            ("http.limits.connections = 0", "http.limits.connections"),
            ("cassandra.replication_factor = 0", "cassandra.replication_factor"),
            ("kafka.brokers = []", "kafka.brokers"),
            ("kafka.topic = \"video-events.dead-letters\"", "kafka.dead_letter_topic"),
            ("kafka.on_gap = \"skip\"", "kafka.on_gap"),
            ("kafka.skip_batches = [\"0:1\", \"0\"]", "kafka.skip_batches"),
            ("kafka.dimensions_topic = \"video-events\"", "kafka.dimensions_topic"),
            ("cassandra.keyspace = \"a-b\"", "cassandra.keyspace"),
            ("cassandra.username = \"u\"", "cassandra.username"),
            ("cluster.key_file = \"\"", "cluster.key_file"),
            ("cluster.patience = \"0s\"", "cluster.patience"),
        ] {
            assert_eq!(keys(lines), [key], "{lines}: {:#?}", check(lines));
        }
    }

    #[test]
    fn the_coarsest_step_leaves_room_for_two_of_them() {
        // alignment, tick | step, all ms
        for (alignment_ms, tick_ms, step_ms) in
            [(120_000, 100, 30_000), (60_000, 100, 29_900), (20_001, 100, 10_000), (120_001, 60_000, 60_000)]
        {
            let time = TimeSettings { alignment_ms, tick_ms, ..Config::embedded().check().unwrap().time };
            assert_eq!(time.coarsest_step_ms(), step_ms, "{alignment_ms}, {tick_ms}");
        }
    }

    #[test]
    fn the_edges_of_each_rule_are_good() {
        for lines in [
            "workers = 256",
            "source.partitions = 1024",
            "source.partitions = 1",
            "sink.kind = \"none\"",
            "time.tick = \"1m\"\ntime.alignment = \"120001ms\"",
            "time.remember = \"10m\"",
            "time.alignment = \"20001ms\"",
            "time.lateness = \"0s\"",
            "index.hot = \"26m\"",
            "checkpoint.interval = \"100ms\"\ncheckpoint.keep = 1",
            "http.listen = \"[::1]:1\"",
            "http.listen = \"[::ffff:127.0.0.1]:1\"",
            "http.listen = \"0.0.0.0:7070\"\nhttp.token_file = \"t\"",
        ] {
            assert_eq!(keys(lines), Vec::<String>::new(), "{lines}: {:#?}", check(lines));
        }
    }

    #[test]
    fn all_faults_come_at_once_and_none_follows_from_another() {
        let lines = "workers = 0\n[time]\ntick = \"x\"\nlateness = \"y\"\nalignment = \"1s\"\n[index]\nhot = \"1s\"\n";
        assert_eq!(keys(lines), ["workers", "time.tick", "time.lateness"]);
        let lines = "workers = 0\n[time]\nalignment = \"1s\"\n[index]\nhot = \"1s\"\n[checkpoint]\nkeep = 0\n";
        assert_eq!(keys(lines), ["workers", "time.alignment", "index.hot", "checkpoint.keep"]);
    }

    #[test]
    fn remember_left_out_is_lateness() {
        assert_eq!(check("time.lateness = \"20m\"").unwrap().time.remember_ms, 1_200_000);
    }

    #[test]
    fn checkpoints_are_under_the_data_folder_unless_said_otherwise() {
        for (lines, dir) in [
            ("data_dir = \"d\"", "d/checkpoints"),
            ("data_dir = \"d\"\ncheckpoint.store = \"file:c/x\"", "d/c/x"),
            ("data_dir = \"d\"\ncheckpoint.store = \"file:/c\"", "/c"),
        ] {
            assert_eq!(check(lines).unwrap().checkpoint.place, CheckpointPlace::Folder(dir.into()), "{lines}");
        }
    }

    #[cfg(feature = "objects")]
    #[test]
    fn a_bucket_is_named_by_its_url_and_no_secret_in_one_is_repeated() {
        for (url, name, prefix, shown) in [
            ("s3://views", "views", "", "s3://views"),
            ("s3://views/", "views", "", "s3://views"),
            ("s3://my.views-1/a/b_c=d", "my.views-1", "a/b_c=d", "s3://my.views-1/a/b_c=d"),
            ("s3://views/a/", "views", "a", "s3://views/a"),
        ] {
            let place = check(&format!("checkpoint.store = {url:?}")).unwrap().checkpoint.place;
            assert_eq!(place, CheckpointPlace::Bucket { name: name.to_owned(), prefix: prefix.to_owned() });
            assert_eq!(place.to_string(), shown);
        }
        let faults = check("checkpoint.store = \"s3://key:secret@bucket/a\"").unwrap_err();
        assert!(!faults[0].to_string().contains("secret"), "{faults:?}");
    }
}
