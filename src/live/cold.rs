//! Windows that have left memory, read back: by minutes from where they went, and whole days as hours or as one from a small cache.
//!
//! What has left memory is final, so a day that has left as a whole never changes, and is merged once. Invariant: a day in the cache
//! is the merge of all of its minutes.

use std::{ops::Range, sync::Arc};

use connectors::cells;
use dataflows::{
    port::{BoxError, CountRow},
    rollup::Width,
    time::{EventTime, Minute, floor_to},
};
use quick_cache::{Weighter, sync::Cache};

use crate::service::Cold;

/// What all days in the cache may come to, bytes as they are put together for the way.
const CACHE_BYTES: u64 = 32 << 20;

/// A day of counts alone, with an event in each hour, about.
const USUAL_DAY_BYTES: u64 = 1 << 10;

const DAY_MS: u64 = 24 * 60 * 60_000;

/// Where windows go that leave memory.
pub trait Minutes: Send + Sync + 'static {
    /// The minutes of a video and event type that start within a range, ascending. Blocks.
    fn read(&self, video_id: &str, event_type: &str, starts: Range<EventTime>) -> Result<Vec<CountRow>, BoxError>;

    /// The beginnings of the days in a range that have any, ascending. Blocks.
    fn days(&self, video_id: &str, event_type: &str, starts: Range<EventTime>) -> Result<Vec<EventTime>, BoxError>;
}

/// A day of one video and event type.
type Key = (String, String, EventTime);

/// It, as hours and as one.
struct Day {
    hours: Vec<CountRow>,
    whole: Option<CountRow>,
    bytes: u64,
}

#[derive(Clone)]
struct Bytes;

impl Weighter<Key, Arc<Day>> for Bytes {
    fn weight(&self, (video_id, event_type, _): &Key, day: &Arc<Day>) -> u64 {
        (video_id.len() + event_type.len()) as u64 + day.bytes
    }
}

/// What has left memory, with whole days at hand that were asked for of late.
pub struct ColdDays<M> {
    minutes: M,
    days: Cache<Key, Arc<Day>, Bytes>,
}

impl<M: Minutes> ColdDays<M> {
    /// With an empty cache.
    pub fn new(minutes: M) -> Self {
        let days = Cache::with_weighter((CACHE_BYTES / USUAL_DAY_BYTES) as usize, CACHE_BYTES, Bytes);
        Self { minutes, days }
    }

    fn day(&self, video_id: &str, event_type: &str, start: EventTime) -> Result<Arc<Day>, BoxError> {
        let key = (video_id.to_owned(), event_type.to_owned(), start);
        self.days.get_or_insert_with(&key, || {
            let minutes = self.minutes.read(video_id, event_type, start..start + DAY_MS)?;
            Ok(Arc::new(Day::of(&minutes)))
        })
    }
}

impl<M: Minutes> Cold for ColdDays<M> {
    fn read(
        &self,
        video_id: &str,
        event_type: &str,
        starts: Range<EventTime>,
        width: Width,
    ) -> Result<Vec<CountRow>, BoxError> {
        let whole = starts.start.next_multiple_of(DAY_MS)..floor_to(starts.end, DAY_MS);
        if width == Width::Minute || whole.is_empty() {
            return self.minutes.read(video_id, event_type, starts);
        }
        let mut rows = self.minutes.read(video_id, event_type, starts.start..whole.start)?;
        for start in self.minutes.days(video_id, event_type, whole.clone())? {
            let day = self.day(video_id, event_type, start)?;
            rows.extend_from_slice(if width == Width::Hour { &day.hours } else { day.whole.as_slice() });
        }
        rows.extend(self.minutes.read(video_id, event_type, whole.end..starts.end)?);
        Ok(rows)
    }
}

impl Day {
    fn of(minutes: &[CountRow]) -> Self {
        let hours = rolled(minutes, Width::Hour);
        let whole = rolled(&hours, Width::Day).pop();
        let bytes = (cells::encode(&hours).len() + cells::encode(whole.as_slice()).len()) as u64;
        Self { hours, whole, bytes }
    }
}

/// The windows of a width that ascending narrower ones of one series come to.
fn rolled(rows: &[CountRow], width: Width) -> Vec<CountRow> {
    let start = |row: &CountRow| width.start(Minute::of(row.window_start));
    rows.chunk_by(|one, next| start(one) == start(next)).map(|rows| merged(rows, width, start(&rows[0]))).collect()
}

fn merged(rows: &[CountRow], width: Width, window_start: EventTime) -> CountRow {
    let mut all = CountRow { width, window_start, ..rows[0].clone() };
    for row in &rows[1..] {
        all.count += row.count;
        all.is_final &= row.is_final;
        all.as_of = all.as_of.max(row.as_of);
        match (&mut all.stats, &row.stats) {
            (Some(all), Some(stats)) => all.merge(stats),
            (None, Some(stats)) => all.stats = Some(stats.clone()),
            (_, None) => {}
        }
    }
    all
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::Mutex;

    use dataflows::functions::{
        Kept,
        stats::{Detail, Stats},
    };

    use super::*;

    const HOUR: u64 = 3_600_000;

    /// Rows of one series, and what was read of them.
    #[derive(Default)]
    struct Rows {
        rows: Vec<CountRow>,
        read: Mutex<Vec<Range<EventTime>>>,
    }

    impl Minutes for Arc<Rows> {
        fn read(&self, _: &str, _: &str, starts: Range<EventTime>) -> Result<Vec<CountRow>, BoxError> {
            if !starts.is_empty() {
                self.read.lock().unwrap().push(starts.clone());
            }
            Ok(self.rows.iter().filter(|row| starts.contains(&row.window_start)).cloned().collect())
        }

        fn days(&self, _: &str, _: &str, starts: Range<EventTime>) -> Result<Vec<EventTime>, BoxError> {
            let mut days: Vec<_> = self.rows.iter().map(|row| floor_to(row.window_start, DAY_MS)).collect();
            days.dedup();
            days.retain(|day| starts.contains(day));
            Ok(days)
        }
    }

    fn row(window_start: EventTime, count: u64) -> CountRow {
        let mut stats = Stats::default();
        for event in 0..count {
            stats.add(Detail { kept: Kept::ALL, value: Some(0.1 * event as f64), user: Some(window_start + event) });
        }
        CountRow {
            width: Width::Minute,
            video_id: "v".into(),
            event_type: "view".into(),
            window_start,
            count,
            stats: (count % 3 != 0).then_some(stats),
            is_final: true,
            as_of: window_start + 1,
        }
    }

    fn sums(rows: &[CountRow], width: Width) -> Vec<(EventTime, u64, Option<Stats>)> {
        rolled(rows, width).into_iter().map(|row| (row.window_start, row.count, row.stats)).collect()
    }

    #[test]
    fn whole_days_are_the_merge_of_their_minutes_and_are_read_once() {
        let starts =
            (0..5 * DAY_MS).step_by(7 * 3_600_000 + 120_000).filter(|start| floor_to(*start, DAY_MS) != 2 * DAY_MS);
        let rows =
            Arc::new(Rows { rows: starts.zip(1..).map(|(start, n)| row(start, n)).collect(), ..Rows::default() });
        let cold = ColdDays::new(Arc::clone(&rows));
        for width in [Width::Minute, Width::Hour, Width::Day] {
            for range in [0..0, 0..5 * DAY_MS, HOUR..4 * DAY_MS + HOUR, DAY_MS..DAY_MS + HOUR, 3 * HOUR..DAY_MS - HOUR]
            {
                let expected: Vec<_> =
                    rows.rows.iter().filter(|row| range.contains(&row.window_start)).cloned().collect();
                let found = cold.read("v", "view", range.clone(), width).unwrap();
                assert_eq!(sums(&found, width), sums(&expected, width), "{range:?} {width:?}");
                assert_eq!(sums(&found, Width::Day), sums(&expected, Width::Day), "{range:?} {width:?}");
            }
        }
        rows.read.lock().unwrap().clear();
        let days = cold.read("v", "view", HOUR..5 * DAY_MS, Width::Day).unwrap();
        assert_eq!(*rows.read.lock().unwrap(), [HOUR..DAY_MS], "the rest is at hand");
        assert_eq!(days.iter().filter(|row| row.width == Width::Day).count(), 3);
    }
}
