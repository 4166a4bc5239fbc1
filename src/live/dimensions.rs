//! What is known of videos and channels: where it is kept, and its way into the dataflow.
//!
//! The first process keeps it, below the data directory or in a compacted topic, and gives it to the dataflow, which tells all
//! processes. The others pass on what they are given, or produce it to the topic.

use std::sync::{Arc, Mutex};

use connectors::{
    dimension,
    embedded::dimensions::{DimensionStore, Error},
};
use dataflows::{control::Mailbox, dimensions::Change, port::PartitionId};

use super::{cluster::Place, forward::Forward};
use crate::{
    config::Settings,
    engine::one_line,
    exit::{Exit, Failure},
    service::{BoxFuture, Entry, EventCheck, Ingest, IngestError, Names},
};

/// Names and channels, as far as this process has to do with them.
#[derive(Clone)]
pub struct Dimensions {
    /// What was known before the start, until it is given to the dataflow; in the first process.
    pub known: Arc<Mutex<Vec<Change>>>,
    /// What comes.
    pub mailbox: Mailbox<Vec<Change>>,
    /// What answers are labelled with.
    pub names: Arc<Names>,
    /// The way in.
    pub door: Arc<dyn Ingest>,
    /// Reads on while it is there.
    #[cfg(feature = "kafka")]
    _following: Option<Arc<connectors::kafka::Following>>,
}

impl Dimensions {
    /// Opens what the settings name, and reads what is known.
    pub fn open(settings: &Settings, place: &Place) -> Result<Self, Failure> {
        #[cfg(feature = "kafka")]
        if let Some(topic) = settings
            .kafka
            .dimensions_topic
            .as_ref()
            .filter(|_| settings.source.kind == crate::config::SourceKind::Kafka)
        {
            return Self::in_topic(settings, place, topic);
        }
        if !place.leads() {
            return Ok(Self::of(Vec::new(), Arc::new(Forward::to_first(&settings.http, place, "/v1/dimensions")?)));
        }
        let store = DimensionStore::open(settings.data_dir.join("dimensions")).map_err(failure)?;
        let (known, mailbox) = (store.all().map_err(failure)?, Mailbox::default());
        let kept = Kept { store: Arc::new(Mutex::new(store)), mailbox: mailbox.clone() };
        Ok(Self { mailbox, ..Self::of(known, Arc::new(kept)) })
    }

    fn of(known: Vec<Change>, door: Arc<dyn Ingest>) -> Self {
        Self {
            known: Arc::new(Mutex::new(known)),
            mailbox: Mailbox::default(),
            names: Arc::default(),
            door,
            #[cfg(feature = "kafka")]
            _following: None,
        }
    }

    #[cfg(feature = "kafka")]
    fn in_topic(settings: &Settings, place: &Place, topic: &str) -> Result<Self, Failure> {
        use crate::{
            engine::kafka::{failure, settings_of},
            exit::OrExit as _,
        };

        let kafka = connectors::kafka::Settings { topic: topic.to_owned(), ..settings_of(&settings.kafka) };
        let door = super::kafka::producer(&kafka)?;
        if !place.leads() {
            return Ok(Self::of(Vec::new(), door));
        }
        let patience = std::time::Duration::from_millis(settings.cluster.patience_ms);
        let mut topic = connectors::kafka::Dimensions::open(&kafka, topic, patience).map_err(failure)?;
        let mut dimensions = Self::of(topic.read_to_end().or_exit(Exit::Unreachable)?, door);
        let mailbox = dimensions.mailbox.clone();
        let following = topic.follow(move |changes| mailbox.tell(changes)).or_exit(Exit::Internal)?;
        dimensions._following = Some(Arc::new(following));
        Ok(dimensions)
    }
}

fn failure(error: Error) -> Failure {
    Failure::new(Exit::StateUnwritable, error)
}

/// Judges what is said of a video or channel.
pub struct NameCheck;

impl EventCheck for NameCheck {
    fn check(&self, payload: &[u8]) -> Result<String, &'static str> {
        dimension::decode(payload).map(|change| dimension::key(&change)).map_err(|cause| cause.as_str())
    }
}

/// Keeps what it is given, then tells the dataflow: both in the one order, so that a restart knows the same.
struct Kept {
    store: Arc<Mutex<DimensionStore>>,
    mailbox: Mailbox<Vec<Change>>,
}

impl Ingest for Kept {
    fn append(&self, entries: Vec<Entry>) -> BoxFuture<Result<Vec<(PartitionId, u64)>, IngestError>> {
        let (store, mailbox) = (Arc::clone(&self.store), self.mailbox.clone());
        let work = move || {
            let failed = |error: &dyn std::fmt::Display| IngestError::Failed(error.to_string());
            let changes = entries.iter().map(|entry| dimension::decode(&entry.payload)).collect::<Result<Vec<_>, _>>();
            let changes = changes.map_err(|cause| failed(&cause.as_str()))?;
            let store = store.lock().expect("nobody panics while holding it");
            let payloads = entries.iter().map(|entry| entry.payload.as_slice());
            store.put(changes.iter().zip(payloads)).map_err(|error| failed(&one_line(&error)))?;
            mailbox.tell(changes);
            Ok(Vec::new())
        };
        Box::pin(async move {
            let done = tokio::task::spawn_blocking(work).await;
            done.unwrap_or_else(|_| Err(IngestError::Failed("this process is ending".to_owned())))
        })
    }
}
