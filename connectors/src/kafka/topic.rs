//! A topic: opened once, then read, checked and watched.

use std::{
    collections::BTreeMap,
    ops::Range,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use dataflows::port::{PartitionId, SourceError, Tail};
use rdkafka::{
    ClientContext,
    admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication},
    config::{ClientConfig, FromClientConfigAndContext},
    consumer::BaseConsumer,
    error::KafkaError as RdError,
    types::RDKafkaErrorCode,
};

use super::{
    ask::{ASK_LIMIT, Asker},
    check::{Failed, Wanted},
    context::Context,
    error::{Fault, KafkaError},
    native::{Described, Place},
    reader::Reader,
    settings::{Passing, Settings},
    wait::{block_on, patiently},
    watch::Watch,
};

const TIMESTAMPS: &str = "message.timestamp.type";
const LOG_APPEND_TIME: &str = "LogAppendTime";
const BYTES_MAX: &str = "max.message.bytes";

/// librdkafka's own `batch.size`.
pub const BATCH_BYTES: usize = 1_000_000;

/// A topic of a cluster. Cheap to clone.
#[derive(Clone)]
pub struct Topic {
    shared: Arc<Shared>,
}

/// What readers, watch and checks have in common.
pub struct Shared {
    pub name: String,
    pub id: u128,
    pub settings: Settings,
    /// What its readers pass over: nothing, unless it is the input.
    pub passing: Passing,
    pub partitions: AtomicU32,
    /// How long a check may wait for the brokers.
    patience: Duration,
    asker: Asker,
    /// What the watch saw last, while there is one.
    pub seen: Mutex<Option<Seen>>,
    /// The watch is sure that the topic is another one.
    pub replaced: AtomicBool,
}

/// What a watch saw.
#[derive(Clone, Debug)]
pub struct Seen {
    /// When the brokers last answered.
    pub answered: Instant,
    /// Whether their last answer was one.
    pub reachable: bool,
    /// For how long it proves an end.
    pub fresh_for: Duration,
    /// First and end offset of each partition.
    pub offsets: Vec<(u64, u64)>,
}

/// How a topic is made where it is missing.
pub(super) struct Creation<'a> {
    pub partitions: u32,
    pub properties: &'a [(&'a str, &'a str)],
}

impl Topic {
    /// Opens the input topic, and makes it, with as many partitions, where it is missing and `create_with` is given.
    /// Brokers that don't answer are asked again for as long as the patience lasts.
    pub fn open(settings: &Settings, create_with: Option<u32>, patience: Duration) -> Result<Self, KafkaError> {
        let properties = [(TIMESTAMPS, LOG_APPEND_TIME)];
        let create = create_with.map(|partitions| Creation { partitions, properties: &properties });
        let topic = Self::open_named(settings, &settings.topic, create, patience)?;
        topic.warn_of_properties();
        Ok(topic)
    }

    pub(super) fn open_named(
        settings: &Settings,
        name: &str,
        create: Option<Creation<'_>>,
        patience: Duration,
    ) -> Result<Self, KafkaError> {
        for key in settings.without_effect() {
            tracing::warn!(key, "this librdkafka property has no effect: what Tidemark means depends on it");
        }
        let asker = Asker::new(settings, name)?;
        let failed = |fault| failure(settings, name, patience, fault);
        let ask = || asker.describe(&|| false);
        let passes = |fault: &Fault| fault.is_transient();
        let found = match (patiently(patience, ask, passes), create) {
            (Err(fault), Some(create)) if fault.is_unknown_topic() => {
                make(settings, name, &create, patience)?;
                // Brokers learn of it one after the other.
                patiently(patience, ask, |fault| fault.is_transient() || fault.is_unknown_topic())
            }
            (found, _) => found,
        };
        let Described { id, partitions } = found.map_err(failed)?;
        let shared = Shared {
            name: name.to_owned(),
            id,
            settings: settings.clone(),
            passing: if name == settings.topic { settings.passing.clone() } else { Passing::default() },
            partitions: AtomicU32::new(partitions),
            patience,
            asker,
            seen: Mutex::new(None),
            replaced: AtomicBool::new(false),
        };
        let topic = Self { shared: Arc::new(shared) };
        // Each partition needs a leader to be of use.
        let asked = patiently(
            patience,
            || topic.shared.offsets(&|| false),
            |fault: &Fault| fault.is_transient() || fault.is_unknown_topic(),
        );
        asked.map_err(failed)?;
        Ok(topic)
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.shared.name
    }

    /// Drawn by the brokers when the topic was made: another id, another topic, whatever its offsets. 0 where they have none.
    pub fn id(&self) -> u128 {
        self.shared.id
    }

    /// How many partitions there are, as far as is known.
    pub fn partitions(&self) -> u32 {
        self.shared.partitions.load(Ordering::Acquire)
    }

    /// The first offset that each partition holds, and the end: the last stable offset.
    pub fn offsets(&self) -> Result<Vec<(u64, u64)>, KafkaError> {
        self.patiently(|| self.shared.offsets(&|| false))
    }

    /// The offset behind the last record of each partition, of unfinished transactions too.
    pub(super) fn high_offsets(&self) -> Result<Vec<u64>, KafkaError> {
        let all: Vec<u32> = (0..self.partitions()).collect();
        self.patiently(|| self.shared.offsets_of(&all, Place::High, &|| false))
    }

    /// Makes sure that the topic is the one that was opened: then everything read from it before this call is of that one.
    /// Without ids of the brokers this proves nothing, and passes.
    pub fn confirm(&self) -> Result<(), KafkaError> {
        let described = self.patiently(|| self.shared.describe(&|| false));
        match described {
            Ok(found) if found.id == self.shared.id => Ok(()),
            Ok(_) | Err(KafkaError::Missing { .. }) => Err(KafkaError::Replaced { topic: self.shared.name.clone() }),
            Err(error) => Err(error),
        }
    }

    /// Checks that a partition still holds what was read of it and what comes next; gives the offset to go on at, which is
    /// behind `next_offset` only where gaps are passed over.
    ///
    /// [`SourceError::Replaced`] counts as lost: what retention took from the next offset on; or what had been read and lies
    /// behind the end now; or, where the last record read is another one now, everything before the next offset, since how
    /// many of those are others can't be known. A last record that is gone proves nothing: compare [`Topic::id`].
    pub fn check(&self, partition: PartitionId, next_offset: u64, tail: Option<Tail>) -> Result<u64, SourceError> {
        let wanted = Wanted { partition, next_offset, tail };
        let passes = |failed: &Failed| matches!(failed, Failed::Unknown(fault) if fault.is_transient());
        patiently(self.shared.patience, || wanted.check(&self.shared), passes).map_err(|failed| match failed {
            Failed::Replaced(error) => error,
            Failed::Unknown(fault) => SourceError::Unreadable { partition, cause: Box::new(fault) },
        })
    }

    /// Checks a partition, then reads it from an offset on, and on as it grows. `tail` is the last record before.
    pub fn reader(&self, partition: PartitionId, next_offset: u64, tail: Option<Tail>) -> Result<Reader, SourceError> {
        let first = self.check(partition, next_offset, tail)?;
        Reader::new(Arc::clone(&self.shared), Wanted { partition, next_offset, tail }, first, None)
    }

    /// Reads a partition that was just added, from its first record on. Nobody is asked first: it may have no leader yet, which
    /// the reader waits for as for any that is away.
    pub fn reader_of_new(&self, partition: PartitionId) -> Result<Reader, SourceError> {
        Reader::new(Arc::clone(&self.shared), Wanted { partition, next_offset: 0, tail: None }, 0, None)
    }

    /// Reads a partition from an offset up to another one (exclusive), where it is finished.
    pub fn reader_until(&self, partition: PartitionId, first: u64, end: u64) -> Result<Reader, SourceError> {
        let wanted = Wanted { partition, next_offset: first, tail: None };
        let first = self.check(partition, first, None)?;
        Reader::new(Arc::clone(&self.shared), wanted, first, Some(end))
    }

    /// Starts to watch the topic. `on_new_partitions` is called, on the watch's thread, with the partitions that were added.
    pub fn watch(&self, every: Duration, on_new_partitions: Box<dyn FnMut(Range<u32>) + Send>) -> Watch {
        Watch::new(Arc::clone(&self.shared), every, on_new_partitions)
    }

    fn patiently<T>(&self, ask: impl FnMut() -> Result<T, Fault>) -> Result<T, KafkaError> {
        let Shared { settings, name, patience, .. } = &*self.shared;
        patiently(*patience, ask, Fault::is_transient).map_err(|fault| failure(settings, name, *patience, fault))
    }

    fn warn_of_properties(&self) {
        let topic = &self.shared.name;
        let properties = match properties_of(&self.shared.settings, topic) {
            Ok(properties) => properties,
            Err(error) => return tracing::debug!(topic, %error, "the topic's configuration can't be read"),
        };
        let timestamps = properties.get(TIMESTAMPS).map(String::as_str);
        if timestamps != Some(LOG_APPEND_TIME) {
            tracing::warn!(
                topic,
                timestamps,
                "{TIMESTAMPS} is not {LOG_APPEND_TIME}: producers' clocks decide which events are from the future"
            );
        }
        let bytes_max = bytes_max_of(&properties);
        if bytes_max.is_some_and(|bytes_max| bytes_max < BATCH_BYTES) {
            tracing::warn!(topic, bytes_max, "{BYTES_MAX} is small: set the librdkafka property batch.size as low");
        }
    }
}

impl Shared {
    /// A consumer that may be assigned a partition.
    pub fn consumer(&self) -> Result<BaseConsumer<Context>, Fault> {
        let config = self.settings.reader(self.partitions.load(Ordering::Acquire));
        Ok(BaseConsumer::from_config_and_context(&config, Context::default())?)
    }

    pub fn describe(&self, unwanted: &dyn Fn() -> bool) -> Result<Described, Fault> {
        self.asker.describe(unwanted)
    }

    pub fn offsets_of(&self, partitions: &[u32], place: Place, unwanted: &dyn Fn() -> bool) -> Result<Vec<u64>, Fault> {
        self.asker.offsets_of(partitions, place, unwanted)
    }

    /// First and end offset of each partition.
    pub fn offsets(&self, unwanted: &dyn Fn() -> bool) -> Result<Vec<(u64, u64)>, Fault> {
        let all: Vec<u32> = (0..self.partitions.load(Ordering::Acquire)).collect();
        let first = self.offsets_of(&all, Place::First, unwanted)?;
        let end = self.offsets_of(&all, Place::Stable, unwanted)?;
        Ok(first.into_iter().zip(end).collect())
    }
}

/// Makes a client, or says which property is at fault.
pub fn client<X: ClientContext, T: FromClientConfigAndContext<X>>(
    config: &ClientConfig,
    context: X,
) -> Result<T, KafkaError> {
    T::from_config_and_context(config, context).map_err(|error| match error {
        RdError::ClientConfig(_, _, key, _) => KafkaError::Property { key },
        error => KafkaError::Failed { what: "making a client".to_owned(), cause: Box::new(error) },
    })
}

/// A fault as the caller of a topic's functions sees it.
pub fn failure(settings: &Settings, topic: &str, waited: Duration, fault: Fault) -> KafkaError {
    if fault.is_unknown_topic() {
        KafkaError::Missing { topic: topic.to_owned() }
    } else if fault.is_transient() {
        KafkaError::Unreachable { brokers: settings.brokers.join(", "), waited, cause: Box::new(fault) }
    } else {
        KafkaError::Failed { what: format!("asking about topic {topic:?}"), cause: Box::new(fault) }
    }
}

fn make(settings: &Settings, name: &str, create: &Creation<'_>, patience: Duration) -> Result<(), KafkaError> {
    let admin: AdminClient<Context> = client(&settings.asker(), Context::default())?;
    let options = AdminOptions::new().request_timeout(Some(ASK_LIMIT)).operation_timeout(Some(ASK_LIMIT));
    let partitions = i32::try_from(create.partitions).unwrap_or(i32::MAX);
    let create_once = || {
        // -1: as many copies as the cluster makes by default.
        let mut topic = NewTopic::new(name, partitions, TopicReplication::Fixed(-1));
        for (key, value) in create.properties {
            topic = topic.set(key, value);
        }
        let made = block_on(admin.create_topics([&topic], &options)).map_err(Fault::from)?;
        made.into_iter().try_for_each(|one| match one {
            // Another process was quicker.
            Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => Ok(()),
            Err((_, code)) => Err(Fault::new(code, code.to_string())),
        })
    };
    patiently(patience, create_once, Fault::is_transient).map_err(|fault| match fault.is_transient() {
        true => failure(settings, name, patience, fault),
        false => KafkaError::Failed { what: format!("making topic {name:?}"), cause: Box::new(fault) },
    })?;
    let properties: BTreeMap<_, _> = create.properties.iter().copied().collect();
    tracing::info!(topic = name, create.partitions, ?properties, "topic made");
    Ok(())
}

/// A topic's properties, as far as this client may see them.
pub fn properties_of(settings: &Settings, name: &str) -> Result<BTreeMap<String, String>, KafkaError> {
    let failed = |fault| failure(settings, name, ASK_LIMIT, fault);
    let admin: AdminClient<Context> = client(&settings.asker(), Context::default())?;
    let options = AdminOptions::new().request_timeout(Some(ASK_LIMIT));
    let described = block_on(admin.describe_configs(&[ResourceSpecifier::Topic(name)], &options));
    // A client takes a tenth of a second to end, for which a start need not wait.
    thread::spawn(move || drop(admin));
    let described = described.map_err(|error| failed(error.into()))?.pop();
    let config = described.transpose().map_err(|code| failed(Fault::new(code, code.to_string())))?;
    let entries = config.into_iter().flat_map(|config| config.entries);
    Ok(entries.filter_map(|entry| entry.value.map(|value| (entry.name, value))).collect())
}

/// The largest batch of records that a topic with these properties takes, bytes.
pub fn bytes_max_of(properties: &BTreeMap<String, String>) -> Option<usize> {
    properties.get(BYTES_MAX)?.parse().ok()
}
