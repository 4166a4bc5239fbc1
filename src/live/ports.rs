//! Opens what the settings name, behind the ports of `dataflows`.

use std::{ops::Range, sync::Arc};

use connectors::embedded::{checkpoints::CheckpointDir, letters::LetterDir, store::Store};
use dataflows::{
    port::{BoxError, CheckpointStore, ColdSeries, ColdSum, ColdWindow, CountSink, LetterSink},
    time::EventTime,
};

use super::{
    cluster::Place,
    cold::{ColdDays, Leftover},
    days::{Days, Minutes},
    embedded::EmbeddedLog,
    forward::{ColdOfFirst, Forward},
    input::Input,
};
use crate::{
    commands::replay::store_failure,
    config::{CheckpointPlace, Settings, SinkKind, SourceKind},
    engine::reach::Reach,
    exit::{Exit, Failure, OrExit as _},
    service::Cold,
};

/// Where checkpoints go. The same for all processes. No server is asked yet.
pub fn checkpoints(settings: &Settings) -> Result<Box<dyn CheckpointStore>, Failure> {
    Ok(match &settings.checkpoint.place {
        CheckpointPlace::Folder(dir) => Box::new(CheckpointDir::open(dir).or_exit(Exit::StateUnwritable)?),
        #[cfg(feature = "objects")]
        CheckpointPlace::Bucket { name, prefix } => Box::new(crate::engine::objects::open(name, prefix)?),
        #[cfg(not(feature = "objects"))]
        CheckpointPlace::Bucket { .. } => return Err(not_in_this_build("checkpoint.store = \"s3:…\"")),
    })
}

/// Where checkpoints are.
pub fn checkpoints_reach(settings: &Settings) -> Reach {
    Reach::of_checkpoints(&settings.checkpoint.place)
}

/// What is read and written to.
pub fn input(settings: &Settings, place: &Place) -> Result<Arc<dyn Input>, Failure> {
    Ok(match settings.source.kind {
        SourceKind::Log if place.leads() => {
            Arc::new(EmbeddedLog::open(&settings.data_dir.join("log"), settings.source.partitions.get())?)
        }
        SourceKind::Log => Arc::new(Forward::to_first(&settings.http, place, "/v1/events")?),
        #[cfg(feature = "kafka")]
        SourceKind::Kafka => Arc::new(super::kafka::Kafka::open(settings, place)?),
        #[cfg(not(feature = "kafka"))]
        SourceKind::Kafka => return Err(not_in_this_build("source.kind = \"kafka\"")),
    })
}

/// Where rows go from this process, and where what has left memory is read back.
#[derive(Default)]
pub struct Rows {
    pub sink: Option<Box<dyn CountSink>>,
    pub cold: Option<Arc<dyn Cold>>,
    /// At hand.
    pub days: Arc<Days>,
}

impl Minutes for Store {
    type Error = BoxError;

    fn read(&self, series: ColdSeries<'_>, starts: Range<EventTime>) -> Result<Vec<ColdWindow>, BoxError> {
        Ok(self.scan_cold(series, starts)?)
    }

    fn days(&self, series: ColdSeries<'_>, starts: Range<EventTime>) -> Result<Vec<EventTime>, BoxError> {
        Ok(self.scan_days(series, starts)?)
    }
}

impl Leftover for Store {
    fn sums(&self, event_type: &str, starts: Range<EventTime>) -> Result<Vec<ColdSum>, BoxError> {
        Ok(self.scan_sums(event_type, starts)?)
    }
}

/// Where rows go from this process.
pub fn rows(settings: &Settings, place: &Place) -> Result<Rows, Failure> {
    let days = Arc::<Days>::default();
    Ok(match settings.sink {
        SinkKind::Store if place.leads() => {
            let store = Store::open(settings.data_dir.join("store")).map_err(store_failure)?;
            let cold = ColdDays::new(store.clone(), Arc::clone(&days));
            Rows { sink: Some(Box::new(store)), cold: Some(Arc::new(cold)), days }
        }
        SinkKind::Store => Rows { sink: None, cold: Some(Arc::new(ColdOfFirst::new(&settings.http, place)?)), days },
        SinkKind::None => Rows::default(),
        #[cfg(feature = "cassandra")]
        SinkKind::Cassandra => {
            let tables = super::cassandra::open(settings, place)?;
            let cold = ColdDays::new(tables.clone(), Arc::clone(&days));
            Rows { sink: Some(Box::new(tables)), cold: Some(Arc::new(cold)), days }
        }
        #[cfg(not(feature = "cassandra"))]
        SinkKind::Cassandra => return Err(not_in_this_build("sink.kind = \"cassandra\"")),
    })
}

/// Where the rows' sink is.
pub fn sink_reach(settings: &Settings) -> Reach {
    match settings.sink {
        SinkKind::Store | SinkKind::None => Reach::Disk,
        SinkKind::Cassandra => Reach::Network,
    }
}

/// What people call the rows' sink.
pub fn sink_name(settings: &Settings) -> &'static str {
    match settings.sink {
        SinkKind::Store => "the store",
        SinkKind::None => "nobody",
        SinkKind::Cassandra => "Cassandra",
    }
}

/// Where the dead letters' sink is.
pub fn letters_reach(settings: &Settings) -> Reach {
    match settings.source.kind {
        SourceKind::Log => Reach::Disk,
        SourceKind::Kafka => Reach::Network,
    }
}

/// Whether the first process writes the rows of all.
pub fn one_writes_for_all(settings: &Settings) -> bool {
    settings.sink == SinkKind::Store
}

/// Where the dead letters of a history go, a new one or one that others may know of.
#[cfg_attr(not(feature = "kafka"), expect(unused_variables, reason = "a folder has one history"))]
pub fn letters(settings: &Settings, history: u128, is_new: bool) -> Result<Box<dyn LetterSink>, Failure> {
    Ok(match settings.source.kind {
        SourceKind::Log => {
            Box::new(LetterDir::open(settings.data_dir.join("dead-letters")).or_exit(Exit::StateUnwritable)?)
        }
        #[cfg(feature = "kafka")]
        SourceKind::Kafka => super::kafka::letters(settings, history, is_new)?,
        #[cfg(not(feature = "kafka"))]
        SourceKind::Kafka => return Err(not_in_this_build("source.kind = \"kafka\"")),
    })
}

#[cfg(not(all(feature = "kafka", feature = "cassandra", feature = "objects")))]
fn not_in_this_build(what: &str) -> Failure {
    Failure::new(Exit::Usage, anyhow::anyhow!("{what} is not in this build"))
}
