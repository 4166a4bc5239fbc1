//! Cassandra as a live job's sink.

use std::time::Duration;

use connectors::cassandra::Tables;

use super::cluster::Place;
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
