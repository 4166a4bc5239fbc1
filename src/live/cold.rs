//! What has left memory, read back from where it went.

use std::{ops::Range, sync::Arc};

use dataflows::{
    port::{BoxError, ColdSum, ColdWindow},
    rollup::Width,
    time::{EventTime, floor_to},
};
use quick_cache::{Weighter, sync::Cache};

use super::days::{Days, Minutes};
use crate::service::{Cold, ColdQuestion, ColdSumsQuestion};

/// Where windows go that leave memory.
pub trait Leftover: Minutes<Error = BoxError> + Send + Sync + 'static {
    /// What the minutes of each video come to that are of an event type and start within a range, ascending by video. Blocks.
    fn sums(&self, event_type: &str, starts: Range<EventTime>) -> Result<Vec<ColdSum>, BoxError>;
}

/// What the sums in the cache may come to, bytes.
const CACHE_BYTES: u64 = 64 << 20;

/// A sum with an id of usual length.
const ABOUT_SUM_BYTES: u64 = 80;

/// An event type, and from where to where.
type Span = (String, EventTime, EventTime);

#[derive(Clone)]
struct Bytes;

impl Weighter<Span, Arc<Vec<ColdSum>>> for Bytes {
    fn weight(&self, _: &Span, sums: &Arc<Vec<ColdSum>>) -> u64 {
        (1 + sums.len() as u64) * ABOUT_SUM_BYTES
    }
}

/// It, with whole days at hand that were asked for of late.
pub struct ColdDays<M> {
    minutes: M,
    days: Arc<Days>,
    /// Of all videos, over several whole days: all of them are read for that.
    sums: Cache<Span, Arc<Vec<ColdSum>>, Bytes>,
}

impl<M: Leftover> ColdDays<M> {
    /// With a cache that may be shared: a day is the same before it leaves and after.
    pub fn new(minutes: M, days: Arc<Days>) -> Self {
        Self { minutes, days, sums: Cache::with_weighter(64, CACHE_BYTES, Bytes) }
    }
}

impl<M: Leftover> Cold for ColdDays<M> {
    fn read(&self, question: &ColdQuestion) -> Result<Vec<ColdWindow>, BoxError> {
        // What has left is final.
        let settled = EventTime::MAX;
        self.days.read(&self.minutes, question.series(), question.starts.clone(), question.width, settled)
    }

    fn sums(&self, question: &ColdSumsQuestion) -> Result<Vec<ColdSum>, BoxError> {
        let ColdSumsQuestion { event_type, starts } = question;
        let whole = starts.start.next_multiple_of(DAY_MS)..floor_to(starts.end, DAY_MS);
        if whole.is_empty() {
            return self.minutes.sums(event_type, starts.clone());
        }
        let span = (event_type.clone(), whole.start, whole.end);
        let of_days =
            self.sums.get_or_insert_with(&span, || self.minutes.sums(event_type, whole.clone()).map(Arc::new))?;
        let mut sums = self.minutes.sums(event_type, starts.start..whole.start)?;
        sums.extend_from_slice(&of_days);
        sums.extend(self.minutes.sums(event_type, whole.end..starts.end)?);
        sums.sort_by(|one, other| one.video_id.cmp(&other.video_id));
        sums.dedup_by(|next, sum| {
            let is_same = next.video_id == sum.video_id;
            if is_same {
                sum.merge(next);
            }
            is_same
        });
        Ok(sums)
    }
}

const DAY_MS: u64 = Width::Day.ms();

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::{collections::BTreeMap, sync::Mutex};

    use dataflows::port::ColdSeries;

    use super::*;

    /// Windows of several videos, and what was read of them.
    #[derive(Default)]
    struct Rows {
        rows: Vec<(&'static str, EventTime, u64)>,
        read: Mutex<Vec<Range<EventTime>>>,
    }

    impl Minutes for Arc<Rows> {
        type Error = BoxError;

        fn read(&self, _: ColdSeries<'_>, _: Range<EventTime>) -> Result<Vec<ColdWindow>, BoxError> {
            Err("nobody asks for windows".into())
        }

        fn days(&self, _: ColdSeries<'_>, _: Range<EventTime>) -> Result<Vec<EventTime>, BoxError> {
            Err("nobody asks for days".into())
        }
    }

    impl Leftover for Arc<Rows> {
        fn sums(&self, _: &str, starts: Range<EventTime>) -> Result<Vec<ColdSum>, BoxError> {
            let mut sums: BTreeMap<&str, ColdSum> = BTreeMap::new();
            for (video, start, count) in self.rows.iter().filter(|(_, start, _)| starts.contains(start)) {
                let new = || ColdSum::of((*video).to_owned(), *start, 0);
                sums.entry(video).or_insert_with(new).add(*start, *count);
            }
            self.read.lock().unwrap().push(starts);
            Ok(sums.into_values().collect())
        }
    }

    #[test]
    fn sums_are_those_of_all_windows_and_whole_days_are_read_once() {
        let minute = 60_000;
        let starts = (0..4 * DAY_MS).step_by(5 * 60 * 60_000);
        let rows: Vec<_> =
            starts.zip(["b", "a", "c"].into_iter().cycle()).map(|(at, video)| (video, at, at / minute + 1)).collect();
        let rows = Arc::new(Rows { rows, ..Rows::default() });
        let cold = ColdDays::new(Arc::clone(&rows), Arc::default());
        let ask =
            |starts: Range<EventTime>| cold.sums(&ColdSumsQuestion { event_type: "view".to_owned(), starts }).unwrap();
        for range in [0..0, minute..DAY_MS - minute, minute..3 * DAY_MS + minute, 0..4 * DAY_MS, DAY_MS..DAY_MS] {
            assert_eq!(ask(range.clone()), rows.sums("view", range.clone()).unwrap(), "{range:?}");
        }
        rows.read.lock().unwrap().clear();
        ask(minute..3 * DAY_MS + minute);
        assert_eq!(
            *rows.read.lock().unwrap(),
            [minute..DAY_MS, 3 * DAY_MS..3 * DAY_MS + minute],
            "the rest is at hand"
        );
    }
}
