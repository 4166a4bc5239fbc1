//! Windows that have left memory, read back: by minutes from where they went, and whole days as hours or as one from a small cache.
//!
//! What has left memory is final, so a day that has left as a whole never changes, and is merged once. Invariant: a day in the cache
//! is the merge of all of its minutes.

use std::{ops::Range, sync::Arc};

use connectors::cells;
use dataflows::{
    port::{BoxError, ColdSeries, ColdWindow},
    rollup::Width,
    time::{EventTime, Minute, floor_to},
};
use quick_cache::{Weighter, sync::Cache};

use crate::service::{Cold, ColdQuestion};

/// What all days in the cache may come to, bytes as they are put together for the way.
const CACHE_BYTES: u64 = 64 << 20;

/// A day of counts alone, with an event in each hour, about.
const USUAL_DAY_BYTES: u64 = 1 << 10;

/// Of more days it is asked first which of them there are.
const DAYS_AT_ONCE: u64 = 400;

const DAY_MS: u64 = Width::Day.ms();

/// Where windows go that leave memory.
pub trait Minutes: Send + Sync + 'static {
    /// The minutes of a series that start within a range, ascending. Blocks.
    fn read(&self, series: ColdSeries<'_>, starts: Range<EventTime>) -> Result<Vec<ColdWindow>, BoxError>;

    /// The beginnings of the days in a range that have any, ascending. Blocks.
    fn days(&self, series: ColdSeries<'_>, starts: Range<EventTime>) -> Result<Vec<EventTime>, BoxError>;
}

/// A day of one video and event type, with functions or without.
type Key = (String, String, bool, EventTime);

/// It, as hours and as one; both are empty where it has no event.
struct Day {
    hours: Vec<ColdWindow>,
    whole: Option<ColdWindow>,
    bytes: u64,
}

#[derive(Clone)]
struct Bytes;

impl Weighter<Key, Arc<Day>> for Bytes {
    fn weight(&self, (video_id, event_type, ..): &Key, day: &Arc<Day>) -> u64 {
        (video_id.len() + event_type.len()) as u64 + day.bytes
    }
}

/// What has left memory, with whole days at hand that were asked for of late.
pub struct ColdDays<M> {
    minutes: M,
    cache: Cache<Key, Arc<Day>, Bytes>,
}

impl<M: Minutes> ColdDays<M> {
    /// With an empty cache.
    pub fn new(minutes: M) -> Self {
        let cache = Cache::with_weighter((CACHE_BYTES / USUAL_DAY_BYTES) as usize, CACHE_BYTES, Bytes);
        Self { minutes, cache }
    }

    /// Whole days in their order; what is not at hand is read, as many of them at once as there are side by side.
    fn days(&self, series: ColdSeries<'_>, whole: Range<EventTime>) -> Result<Vec<Arc<Day>>, BoxError> {
        let starts: Vec<EventTime> = match (whole.end - whole.start) / DAY_MS {
            few if few <= DAYS_AT_ONCE => whole.step_by(DAY_MS as usize).collect(),
            _ => self.minutes.days(series, whole)?,
        };
        let key = |start| (series.video_id.to_owned(), series.event_type.to_owned(), series.functions, start);
        let found: Vec<_> = starts.iter().map(|start| (*start, self.cache.get(&key(*start)))).collect();
        let mut days = Vec::with_capacity(found.len());
        let is_beside = |one: &(EventTime, Option<_>), next: &(EventTime, Option<_>)| {
            one.1.is_some() == next.1.is_some() && (one.1.is_some() || one.0 + DAY_MS == next.0)
        };
        for run in found.chunk_by(is_beside) {
            if run[0].1.is_some() {
                days.extend(run.iter().filter_map(|(_, day)| day.clone()));
                continue;
            }
            let read = self.minutes.read(series, run[0].0..run[run.len() - 1].0 + DAY_MS)?;
            let mut rest = &read[..];
            for (start, _) in run {
                let (of_day, others) = rest.split_at(rest.partition_point(|window| window.start < start + DAY_MS));
                let day = Arc::new(Day::of(of_day));
                self.cache.insert(key(*start), Arc::clone(&day));
                days.push(day);
                rest = others;
            }
        }
        Ok(days)
    }
}

impl<M: Minutes> Cold for ColdDays<M> {
    fn read(&self, question: &ColdQuestion) -> Result<Vec<ColdWindow>, BoxError> {
        let (series, starts) = (question.series(), question.starts.clone());
        let whole = starts.start.next_multiple_of(DAY_MS)..floor_to(starts.end, DAY_MS);
        if question.width == Width::Minute || whole.is_empty() {
            return self.minutes.read(series, starts);
        }
        let mut windows = self.minutes.read(series, starts.start..whole.start)?;
        for day in self.days(series, whole.clone())? {
            let of_day = if question.width == Width::Hour { &day.hours } else { day.whole.as_slice() };
            windows.extend_from_slice(of_day);
        }
        windows.extend(self.minutes.read(series, whole.end..starts.end)?);
        Ok(windows)
    }
}

impl Day {
    fn of(minutes: &[ColdWindow]) -> Self {
        let hours = rolled(minutes, Width::Hour);
        let whole = rolled(&hours, Width::Day).pop();
        let bytes = (cells::encode(&hours).len() + cells::encode(whole.as_slice()).len()) as u64;
        Self { hours, whole, bytes }
    }
}

/// The windows of a width that ascending narrower ones come to.
fn rolled(windows: &[ColdWindow], width: Width) -> Vec<ColdWindow> {
    let start = |window: &ColdWindow| width.start(Minute::of(window.start));
    windows.chunk_by(|one, next| start(one) == start(next)).map(|some| merged(some, start(&some[0]))).collect()
}

fn merged(windows: &[ColdWindow], start: EventTime) -> ColdWindow {
    let mut all = ColdWindow { start, ..windows[0].clone() };
    for window in &windows[1..] {
        all.count += window.count;
        match (&mut all.stats, &window.stats) {
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

    /// Windows of one series, and what was read of them.
    #[derive(Default)]
    struct Rows {
        rows: Vec<ColdWindow>,
        /// From where to where.
        read: Mutex<Vec<(EventTime, EventTime)>>,
    }

    impl Minutes for Arc<Rows> {
        fn read(&self, _: ColdSeries<'_>, starts: Range<EventTime>) -> Result<Vec<ColdWindow>, BoxError> {
            if !starts.is_empty() {
                self.read.lock().unwrap().push((starts.start, starts.end));
            }
            Ok(self.rows.iter().filter(|row| starts.contains(&row.start)).cloned().collect())
        }

        fn days(&self, _: ColdSeries<'_>, starts: Range<EventTime>) -> Result<Vec<EventTime>, BoxError> {
            let mut days: Vec<_> = self.rows.iter().map(|row| floor_to(row.start, DAY_MS)).collect();
            days.dedup();
            days.retain(|day| starts.contains(day));
            Ok(days)
        }
    }

    fn row(start: EventTime, count: u64) -> ColdWindow {
        let mut stats = Stats::default();
        for event in 0..count {
            stats.add(Detail { kept: Kept::ALL, value: Some(0.1 * event as f64), user: Some(start + event) });
        }
        ColdWindow { start, count, stats: (!count.is_multiple_of(3)).then_some(stats) }
    }

    fn ask(cold: &ColdDays<Arc<Rows>>, starts: Range<EventTime>, width: Width) -> Vec<ColdWindow> {
        let (video_id, event_type) = ("v".to_owned(), "view".to_owned());
        cold.read(&ColdQuestion { video_id, event_type, starts, width, functions: true }).unwrap()
    }

    fn sums(rows: &[ColdWindow], width: Width) -> Vec<(EventTime, u64, Option<Stats>)> {
        rolled(rows, width).into_iter().map(|row| (row.start, row.count, row.stats)).collect()
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
                let expected: Vec<_> = rows.rows.iter().filter(|row| range.contains(&row.start)).cloned().collect();
                let found = ask(&cold, range.clone(), width);
                assert_eq!(sums(&found, width), sums(&expected, width), "{range:?} {width:?}");
                assert_eq!(sums(&found, Width::Day), sums(&expected, Width::Day), "{range:?} {width:?}");
            }
        }
        rows.read.lock().unwrap().clear();
        let days = ask(&cold, HOUR..5 * DAY_MS, Width::Day);
        assert_eq!(*rows.read.lock().unwrap(), [(HOUR, DAY_MS)], "the rest is at hand");
        assert_eq!(days.iter().filter(|row| row.start % DAY_MS == 0).count(), 3);
        ask(&cold, 3 * DAY_MS..1_000 * DAY_MS, Width::Day);
        ask(&cold, DAY_MS..8 * DAY_MS, Width::Day);
        let read = rows.read.lock().unwrap().clone();
        assert_eq!(
            read[1..],
            [(5 * DAY_MS, 8 * DAY_MS)],
            "days side by side at once, and only those that there may be"
        );
    }
}
