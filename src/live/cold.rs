//! What has left memory, read back from where it went.

use std::{ops::Range, sync::Arc};

use dataflows::{
    port::{BoxError, ColdSum, ColdWindow},
    time::EventTime,
};

use super::days::{Days, Minutes};
use crate::service::{Cold, ColdQuestion, ColdSumsQuestion};

/// Where windows go that leave memory.
pub trait Leftover: Minutes<Error = BoxError> + Send + Sync + 'static {
    /// What the minutes of each video come to that are of an event type and start within a range, ascending by video. Blocks.
    fn sums(&self, event_type: &str, starts: Range<EventTime>) -> Result<Vec<ColdSum>, BoxError>;
}

/// It, with whole days at hand that were asked for of late.
pub struct ColdDays<M> {
    minutes: M,
    days: Arc<Days>,
}

impl<M: Leftover> ColdDays<M> {
    /// With a cache that may be shared: a day is the same before it leaves and after.
    pub fn new(minutes: M, days: Arc<Days>) -> Self {
        Self { minutes, days }
    }
}

impl<M: Leftover> Cold for ColdDays<M> {
    fn read(&self, question: &ColdQuestion) -> Result<Vec<ColdWindow>, BoxError> {
        // What has left is final.
        let settled = EventTime::MAX;
        self.days.read(&self.minutes, question.series(), question.starts.clone(), question.width, settled)
    }

    fn sums(&self, question: &ColdSumsQuestion) -> Result<Vec<ColdSum>, BoxError> {
        self.minutes.sums(&question.event_type, question.starts.clone())
    }
}
