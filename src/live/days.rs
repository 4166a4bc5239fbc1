//! Ranges of final windows from few cells: minutes from where they are, in memory or where they went, and whole days as hours or as one
//! from a small cache.
//!
//! A day that is final never changes, and no `as_of` that it is final at matters to it, so it is merged once. Invariant: a day in the
//! cache is final, and the merge of all of its minutes.

use std::{ops::Range, sync::Arc};

use connectors::cells;
use dataflows::{
    port::{ColdSeries, ColdWindow},
    rollup::Width,
    time::{EventTime, Minute, floor_to},
};
use quick_cache::{Weighter, sync::Cache};

/// What all days in the cache may come to, bytes as they are put together for the way.
const CACHE_BYTES: u64 = 64 << 20;

/// A day of counts alone, with an event in each hour, about.
const USUAL_DAY_BYTES: u64 = 1 << 10;

/// Of more days it is asked first which of them there are.
const DAYS_AT_ONCE: u64 = 400;

const DAY_MS: u64 = Width::Day.ms();

/// Where minutes are.
pub trait Minutes {
    /// Why they can't be read.
    type Error;

    /// The minutes of a series that start within a range, ascending. Blocks.
    fn read(&self, series: ColdSeries<'_>, starts: Range<EventTime>) -> Result<Vec<ColdWindow>, Self::Error>;

    /// The beginnings of the days in a range that have any, ascending. Blocks.
    fn days(&self, series: ColdSeries<'_>, starts: Range<EventTime>) -> Result<Vec<EventTime>, Self::Error>;
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

/// Days that were asked for of late.
pub struct Days(Cache<Key, Arc<Day>, Bytes>);

impl Default for Days {
    fn default() -> Self {
        Self(Cache::with_weighter((CACHE_BYTES / USUAL_DAY_BYTES) as usize, CACHE_BYTES, Bytes))
    }
}

impl Days {
    /// The windows of a series that start in the range, ascending; of the width where they are in whole days before `settled`, up to
    /// which all is final. Blocks.
    pub fn read<M: Minutes>(
        &self,
        minutes: &M,
        series: ColdSeries<'_>,
        starts: Range<EventTime>,
        width: Width,
        settled: EventTime,
    ) -> Result<Vec<ColdWindow>, M::Error> {
        let whole = starts.start.next_multiple_of(DAY_MS)..floor_to(starts.end.min(settled), DAY_MS);
        if width == Width::Minute || whole.is_empty() {
            return minutes.read(series, starts);
        }
        let mut windows = minutes.read(series, starts.start..whole.start)?;
        for day in self.whole(minutes, series, whole.clone())? {
            let of_day = if width == Width::Hour { &day.hours } else { day.whole.as_slice() };
            windows.extend_from_slice(of_day);
        }
        windows.extend(minutes.read(series, whole.end..starts.end)?);
        Ok(windows)
    }

    /// Whole days in their order; what is not at hand is read, as many of them at once as there are side by side.
    fn whole<M: Minutes>(
        &self,
        minutes: &M,
        series: ColdSeries<'_>,
        whole: Range<EventTime>,
    ) -> Result<Vec<Arc<Day>>, M::Error> {
        let starts: Vec<EventTime> = match (whole.end - whole.start) / DAY_MS {
            few if few <= DAYS_AT_ONCE => whole.step_by(DAY_MS as usize).collect(),
            _ => minutes.days(series, whole)?,
        };
        let key = |start| (series.video_id.to_owned(), series.event_type.to_owned(), series.functions, start);
        let found: Vec<_> = starts.iter().map(|start| (*start, self.0.get(&key(*start)))).collect();
        let mut days = Vec::with_capacity(found.len());
        let is_beside = |one: &(EventTime, Option<_>), next: &(EventTime, Option<_>)| {
            one.1.is_some() == next.1.is_some() && (one.1.is_some() || one.0 + DAY_MS == next.0)
        };
        for run in found.chunk_by(is_beside) {
            if run[0].1.is_some() {
                days.extend(run.iter().filter_map(|(_, day)| day.clone()));
                continue;
            }
            let read = minutes.read(series, run[0].0..run[run.len() - 1].0 + DAY_MS)?;
            let mut rest = &read[..];
            for (start, _) in run {
                let (of_day, others) = rest.split_at(rest.partition_point(|window| window.start < start + DAY_MS));
                let day = Arc::new(Day::of(of_day));
                self.0.insert(key(*start), Arc::clone(&day));
                days.push(day);
                rest = others;
            }
        }
        Ok(days)
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
    windows[1..].iter().for_each(|window| all.merge(window));
    all
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::{convert::Infallible, sync::Mutex};

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

    impl Minutes for Rows {
        type Error = Infallible;

        fn read(&self, _: ColdSeries<'_>, starts: Range<EventTime>) -> Result<Vec<ColdWindow>, Infallible> {
            if !starts.is_empty() {
                self.read.lock().unwrap().push((starts.start, starts.end));
            }
            Ok(self.rows.iter().filter(|row| starts.contains(&row.start)).cloned().collect())
        }

        fn days(&self, _: ColdSeries<'_>, starts: Range<EventTime>) -> Result<Vec<EventTime>, Infallible> {
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

    fn ask(days: &Days, rows: &Rows, starts: Range<EventTime>, width: Width, settled: EventTime) -> Vec<ColdWindow> {
        let series = ColdSeries { video_id: "v", event_type: "view", functions: true };
        let Ok(windows) = days.read(rows, series, starts, width, settled);
        windows
    }

    fn sums(rows: &[ColdWindow], width: Width) -> Vec<(EventTime, u64, Option<Stats>)> {
        rolled(rows, width).into_iter().map(|row| (row.start, row.count, row.stats)).collect()
    }

    #[test]
    fn whole_days_are_the_merge_of_their_minutes_and_are_read_once() {
        let starts =
            (0..5 * DAY_MS).step_by(7 * 3_600_000 + 120_000).filter(|start| floor_to(*start, DAY_MS) != 2 * DAY_MS);
        let rows = Rows { rows: starts.zip(1..).map(|(start, n)| row(start, n)).collect(), ..Rows::default() };
        let days = Days::default();
        let ask = |starts, width| ask(&days, &rows, starts, width, EventTime::MAX);
        for width in [Width::Minute, Width::Hour, Width::Day] {
            for range in [0..0, 0..5 * DAY_MS, HOUR..4 * DAY_MS + HOUR, DAY_MS..DAY_MS + HOUR, 3 * HOUR..DAY_MS - HOUR]
            {
                let expected: Vec<_> = rows.rows.iter().filter(|row| range.contains(&row.start)).cloned().collect();
                let found = ask(range.clone(), width);
                assert_eq!(sums(&found, width), sums(&expected, width), "{range:?} {width:?}");
                assert_eq!(sums(&found, Width::Day), sums(&expected, Width::Day), "{range:?} {width:?}");
            }
        }
        rows.read.lock().unwrap().clear();
        let whole = ask(HOUR..5 * DAY_MS, Width::Day);
        assert_eq!(*rows.read.lock().unwrap(), [(HOUR, DAY_MS)], "the rest is at hand");
        assert_eq!(whole.iter().filter(|row| row.start % DAY_MS == 0).count(), 3);
        ask(3 * DAY_MS..1_000 * DAY_MS, Width::Day);
        ask(DAY_MS..8 * DAY_MS, Width::Day);
        let read = rows.read.lock().unwrap().clone();
        assert_eq!(
            read[1..],
            [(5 * DAY_MS, 8 * DAY_MS)],
            "days side by side at once, and only those that there may be"
        );
    }

    #[test]
    fn a_day_that_may_still_change_is_read_each_time() {
        let mut rows = Rows { rows: vec![row(HOUR, 1), row(DAY_MS + HOUR, 2)], ..Rows::default() };
        let days = Days::default();
        for settled in [2 * DAY_MS - 1, 2 * DAY_MS, u64::MAX] {
            rows.rows[1].count += 1;
            let windows = ask(&days, &rows, 0..2 * DAY_MS, Width::Day, settled);
            let expected = if settled == u64::MAX { 4 } else { rows.rows[1].count };
            assert_eq!((windows[0].count, windows[1].count), (1, expected), "{settled}");
        }
    }
}
