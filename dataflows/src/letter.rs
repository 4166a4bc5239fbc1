//! Dead letters: records that were read and not counted, with where they came from and why.

use serde::{Deserialize, Serialize};

use crate::{
    event::Reason,
    port::{Header, PartitionId},
    time::EventTime,
};

/// A refused record. It stays in the checkpoint until it is published, so that none is lost and none comes twice.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct DeadLetter {
    /// The partition that it was read from.
    pub partition: PartitionId,
    /// Its offset there.
    pub offset: u64,
    /// Why it was refused.
    pub reason: Reason,
    /// When the log received it, if the log says so.
    pub append_time: Option<EventTime>,
    /// The record's key, if it had one.
    pub key: Option<Vec<u8>>,
    /// The record's headers.
    pub headers: Vec<Header>,
    /// The record as read; an oversize one is cut to [`LETTER_BYTES_MAX`].
    pub payload: Vec<u8>,
}

/// How much of an oversize record a letter keeps, bytes: the log still has the whole of it at the letter's offset.
pub const LETTER_BYTES_MAX: usize = 65_536;
