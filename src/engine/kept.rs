//! Checkpoints looked at from outside: nothing is claimed, created or removed, so this works beside a running process.

use connectors::embedded::checkpoints::CheckpointDir;
use dataflows::{
    checkpoint::plan::{self, Loaded},
    port::{CheckpointStore, StoreError, Version},
};

use crate::{
    config::CheckpointPlace,
    engine::reach::Reach,
    exit::{Exit, Failure},
};

/// Opens a checkpoint store; `None` where it is a folder that is missing.
pub fn look_at(place: &CheckpointPlace) -> Result<Option<Box<dyn CheckpointStore>>, Failure> {
    match place {
        CheckpointPlace::Folder(dir) => match CheckpointDir::look_at(dir) {
            Ok(store) => Ok(Some(Box::new(store))),
            Err(StoreError::Missing { .. }) => Ok(None),
            Err(error) => Err(Failure::new(Exit::Failed, error)),
        },
        #[cfg(feature = "objects")]
        CheckpointPlace::Bucket { name, prefix } => Ok(Some(Box::new(super::objects::open(name, prefix)?))),
        #[cfg(not(feature = "objects"))]
        CheckpointPlace::Bucket { .. } => unreachable!("no settings of this build name one"),
    }
}

/// One checkpoint, if it is there; damage is an error.
pub fn one(place: &CheckpointPlace, version: Version) -> Result<Option<Loaded>, Failure> {
    let reach = Reach::of_checkpoints(place);
    let Some(mut store) = look_at(place)? else { return Ok(None) };
    if !store.manifests().map_err(|error| reach.failure(error))?.contains(&version) {
        return Ok(None);
    }
    let loaded = reach.unless_away(plan::load(&mut *store, version)).map_err(|error| reach.failure(error))?;
    loaded.map(Some).map_err(|damage| Failure::new(Exit::NoCheckpoint, damage))
}

/// The newest checkpoint that is good to the last byte. One that is dropped meanwhile is passed over.
pub fn newest_good(place: &CheckpointPlace) -> Result<Option<Loaded>, Failure> {
    let reach = Reach::of_checkpoints(place);
    let Some(mut store) = look_at(place)? else { return Ok(None) };
    for version in store.manifests().map_err(|error| reach.failure(error))?.into_iter().rev() {
        let loaded = plan::load(&mut *store, version);
        if let Ok(loaded) = reach.unless_away(loaded).map_err(|error| reach.failure(error))? {
            return Ok(Some(loaded));
        }
    }
    Ok(None)
}
