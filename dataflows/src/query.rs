//! Questions to the index and their answers, as the outside sees them.

use serde::{Deserialize, Serialize};

use crate::{
    functions::{Kept, stats::Stats},
    time::{EventTime, Minute},
};

/// Asks for the windows of one video and event type, true at one frontier.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Question {
    /// Which video.
    pub video_id: String,
    /// Which event type.
    pub event_type: String,
    /// The first window wanted.
    pub first: Minute,
    /// The first window not wanted any more.
    pub end: Minute,
    /// Which functions are wanted beside the counts.
    pub functions: Kept,
    /// An announced frontier: the answer holds the updates at times before it.
    pub as_of: EventTime,
}

/// The non-empty windows asked for, ascending.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// True at the `as_of` of the question.
    Cells(Vec<Cell>),
    /// The same, with the functions that were asked for, as far as they are kept.
    Functions(Vec<(Cell, Stats)>),
    /// The history before `oldest` is merged: ask for that or later.
    Gone {
        /// The oldest frontier that can still be answered.
        oldest: EventTime,
    },
}

/// One window's count.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cell {
    /// Which window.
    pub minute: Minute,
    /// How many events.
    pub count: u64,
}
