//! Writes what is right into the sink, under a version that wins.
//!
//! The caller holds the folder's lock, so no job of it runs; a generation is claimed as at a start, so that its rows win
//! against all before, and the next start's against them.

use anyhow::anyhow;
use dataflows::{
    checkpoint::manifest::Manifest,
    port::{Claim, Version},
};

use super::{Difference, Right};
use crate::{
    config::Settings,
    exit::{Exit, Failure},
    live::{Place, ports},
};

/// Writes the rows of these differences as they should be at the checkpoint.
pub fn write(settings: &Settings, manifest: &Manifest, wrong: &[Difference], right: &Right<'_>) -> Result<(), Failure> {
    let place = Place::alone(settings.workers.get());
    let reach = ports::sink_reach(settings);
    let Some(mut sink) = ports::sink(settings, &place)? else { return Ok(()) };
    let claim = sink.claim().map_err(|error| reach.failure(error))?;
    let Some(claim) = claim.filter(|claim| claim.history == manifest.history) else {
        let error = anyhow!("the store holds the rows of another history than the checkpoint: nothing is written");
        return Err(Failure::new(Exit::OtherOwner, error));
    };
    if manifest.frontier < claim.frontier {
        let error = anyhow!(
            "the store has rows up to frontier {}, and this checkpoint ends at {}: audit the newest one; nothing is written",
            claim.frontier,
            manifest.frontier
        );
        return Err(Failure::new(Exit::Failed, error));
    }
    let mut checkpoints = ports::checkpoints(settings)?;
    let generation = checkpoints
        .claim_generation(claim.generation)
        .map_err(|error| ports::checkpoints_reach(settings).failure(error))?;
    let mut rows: Vec<_> = wrong.iter().map(|difference| difference.row(manifest, right)).collect();
    if sink.wants_rollups() {
        rows.extend(right.rollups(wrong, manifest));
    }
    let claim = Claim { history: manifest.history, generation, frontier: manifest.frontier };
    let version = Version { generation, number: manifest.version.number };
    sink.set_claim(&claim).and_then(|()| sink.write(version, &rows)).map_err(|error| reach.failure(error))
}
