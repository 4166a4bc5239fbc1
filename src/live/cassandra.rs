//! Cassandra as a live job's sink.

use std::{ops::Range, time::Duration};

use connectors::cassandra::Tables;
use dataflows::{
    port::{BoxError, ColdSeries, ColdSum, ColdWindow},
    time::EventTime,
};

use super::{cluster::Place, cold::Leftover, days::Minutes};
use crate::{
    config::Settings,
    engine::cassandra::{failure, settings_of},
    exit::Failure,
};

/// Connects; the first process creates what is missing.
pub fn open(settings: &Settings, place: &Place) -> Result<Tables, Failure> {
    let cassandra = settings_of(&settings.cassandra);
    let patience = Duration::from_millis(settings.cluster.patience_ms);
    let open = if place.leads() { Tables::open } else { Tables::open_existing };
    open(&cassandra, patience).map_err(failure)
}

impl Minutes for Tables {
    type Error = BoxError;

    fn read(&self, series: ColdSeries<'_>, starts: Range<EventTime>) -> Result<Vec<ColdWindow>, BoxError> {
        Ok(self.scan_cold(series, starts)?)
    }

    fn days(&self, series: ColdSeries<'_>, starts: Range<EventTime>) -> Result<Vec<EventTime>, BoxError> {
        Ok(self.scan_days(series, starts)?)
    }
}

impl Leftover for Tables {
    fn sums(&self, event_type: &str, starts: Range<EventTime>) -> Result<Vec<ColdSum>, BoxError> {
        Ok(self.scan_sums(event_type, starts)?)
    }
}
