//! What crosses the exchange: rows of fixed size by the thousand, with the names they use for the first time.

use serde::{Deserialize, Serialize};

use crate::{
    clock::Clock,
    functions::{Kept, stats::Detail},
    gap::{self, Gap},
    identity::EventKey,
    letter::DeadLetter,
    port::{PartitionId, Tail},
    series::SeriesNo,
    time::Minute,
};

/// One well-formed event that is not future, 32 bytes.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    /// Its identity.
    pub id: EventKey,
    /// Its series, by the source's numbers.
    pub series: SeriesNo,
    /// Its window.
    pub minute: Minute,
    /// The first window that its partition remembers, this event included.
    pub first_remembered: Minute,
    /// Whether its partition's clock calls it late.
    pub late: bool,
}

/// What an event adds beside its count, 24 bytes.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RowDetail {
    /// The value's bits; [`RowDetail::NO_VALUE`] where there is none.
    value: u64,
    /// The user's hash; 0 where there is none.
    user: u64,
    /// The row's place in its parcel.
    pub place: u32,
    kept: Kept,
}

impl RowDetail {
    /// Of no finite number.
    const NO_VALUE: u64 = u64::MAX;

    /// Of the row at `place`.
    pub fn new(place: u32, detail: Detail) -> Self {
        let Detail { kept, value, user } = detail;
        Self { value: value.map_or(Self::NO_VALUE, f64::to_bits), user: user.unwrap_or(0), place, kept }
    }

    /// What it adds.
    pub fn detail(&self) -> Detail {
        Detail {
            kept: self.kept,
            value: (self.value != Self::NO_VALUE).then(|| f64::from_bits(self.value)),
            user: (self.user != 0).then_some(self.user),
        }
    }
}

/// A series' number at a source, told to the worker that owns its video.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Naming {
    /// The source's number.
    pub number: SeriesNo,
    /// Which video.
    pub video_id: String,
    /// Which event type.
    pub event_type: String,
}

/// How far a partition has been read, and what was decided while reading: all before the time it travels at ends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// The offset behind the last record read.
    pub next_offset: u64,
    /// That record, where the log could be replaced behind our back.
    pub tail: Option<Tail>,
    /// The clock with all of them in.
    pub clock: Clock,
    /// Whether nothing will follow.
    pub ended: bool,
    /// Records read since the last account.
    pub read: u64,
    /// Of them, not events.
    pub malformed: u64,
    /// Of them, too long.
    pub oversize: u64,
    /// Of them, ahead of their append time.
    pub future: u64,
    /// What became known of holes since the last account.
    pub gaps: Vec<Gap>,
}

impl Account {
    /// This account with an earlier one of the same partition added.
    pub fn after(mut self, earlier: &Self) -> Self {
        self.read += earlier.read;
        self.malformed += earlier.malformed;
        self.oversize += earlier.oversize;
        self.future += earlier.future;
        let later = std::mem::replace(&mut self.gaps, earlier.gaps.clone());
        later.into_iter().for_each(|gap| gap::note(&mut self.gaps, gap));
        self
    }
}

/// Records of one partition for one worker, read in this order, all travelling at one time.
///
/// The names of a parcel come before its rows; a late row's letter is in `late`, in the order of such rows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parcel {
    /// The worker it goes to.
    pub to: u32,
    /// Where it was read.
    pub partition: PartitionId,
    /// Grows when the source's numbers start anew.
    pub incarnation: u32,
    /// Series used here for the first time on this way.
    pub names: Vec<Naming>,
    /// The events.
    pub rows: Vec<Row>,
    /// What functions take of rows, in their order: of those whose event types have any.
    pub details: Vec<RowDetail>,
    /// The letters of the late rows, should they not be duplicates.
    pub late: Vec<DeadLetter>,
    /// Rows whose verdicts the log alone does not give: their places here, ascending, and their offsets.
    pub to_rule: Vec<(u32, u64)>,
    /// The letters of records that were refused at the source.
    pub refused: Vec<DeadLetter>,
    /// The partition's account, in the parcel that ends a time step.
    pub account: Option<Account>,
}

impl Parcel {
    /// An empty parcel.
    pub fn new(to: u32, partition: PartitionId, incarnation: u32) -> Self {
        Self {
            to,
            partition,
            incarnation,
            names: Vec::new(),
            rows: Vec::new(),
            details: Vec::new(),
            late: Vec::new(),
            to_rule: Vec::new(),
            refused: Vec::new(),
            account: None,
        }
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty() && self.rows.is_empty() && self.refused.is_empty() && self.account.is_none()
    }
}
