//! Where a batch ends that the client can't take in.
//!
//! No client tells, and the brokers answer a fetch from inside a batch with the whole of it. But the client names the base of
//! what it can't take in: so an offset is inside as long as a fetch from there fails at the same base. The end is found by
//! steps that double and, from the first offset outside on, halve.

use dataflows::port::PartitionId;
use rdkafka::types::RDKafkaErrorCode;

use super::{
    check::look_at,
    error::{CORRUPT, Fault, is_any},
    native::Place,
    topic::Shared,
};

/// The offset behind the batch that begins at `base`.
pub fn batch_end(
    shared: &Shared,
    partition: PartitionId,
    base: u64,
    unwanted: &dyn Fn() -> bool,
) -> Result<u64, Fault> {
    let end = shared.offsets_of(&[partition.0], Place::High, unwanted)?[0];
    let (mut inside, mut outside, mut step) = (base, end, 1);
    while inside + 1 < outside {
        let at = (inside + step).min(inside + (outside - inside) / 2).max(inside + 1);
        if unwanted() {
            return Err(Fault::new(RDKafkaErrorCode::OperationTimedOut, "nobody waits for it any more"));
        }
        if is_inside(shared, partition, at, base)? {
            inside = at;
            step *= 2;
        } else {
            outside = at;
        }
    }
    Ok(outside)
}

/// Whether a fetch from an offset fails at `base`. With a consumer each: one that was assigned twice in a row was seen to get
/// nothing at all.
fn is_inside(shared: &Shared, partition: PartitionId, at: u64, base: u64) -> Result<bool, Fault> {
    look_at(shared, partition, at, |message| match message.event() {
        Some(event) if is_any(event.code, &CORRUPT) => Ok(Some(message.offset() == Some(base))),
        Some(event) if event.is_transient() => Ok(None),
        // A record, the end, or whatever else is wrong behind it.
        _ => Ok(Some(false)),
    })
}
