//! Hours and days: the merge of their minutes, so a parent is at every frontier what its children come to.
//!
//! Invariant: each window holds the sum of the counts, and the merge of the functions, of all minutes in it that were added.

use std::{collections::BTreeMap, hash::Hash};

use hashbrown::HashMap;

use crate::{
    functions::stats::Stats,
    port::CountRow,
    time::{EventTime, MINUTE_MS, Minute},
};

/// How wide a window is.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Width {
    /// What events are counted in.
    #[default]
    Minute,
    /// Of UTC.
    Hour,
    /// Of UTC.
    Day,
}

impl Width {
    /// Those that are merged of minutes.
    pub const ROLLED: [Self; 2] = [Self::Hour, Self::Day];

    /// What it is called.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Minute => "minute",
            Self::Hour => "hour",
            Self::Day => "day",
        }
    }

    /// The one of this name.
    pub fn parse(name: &str) -> Option<Self> {
        [Self::Minute, Self::Hour, Self::Day].into_iter().find(|width| width.as_str() == name)
    }

    /// In milliseconds.
    pub const fn ms(self) -> u64 {
        MINUTE_MS
            * match self {
                Self::Minute => 1,
                Self::Hour => 60,
                Self::Day => 24 * 60,
            }
    }

    /// The first millisecond of the window that holds a minute.
    pub fn start(self, minute: Minute) -> EventTime {
        minute.start() / self.ms() * self.ms()
    }

    /// The first millisecond after the window that begins at `start`.
    pub fn end(self, start: EventTime) -> EventTime {
        start.saturating_add(self.ms())
    }
}

/// An hour or day of one series.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rolled {
    /// How many events.
    pub count: u64,
    /// Their functions, if any are kept.
    pub stats: Option<Stats>,
    /// The last minute that has any.
    pub last: Minute,
}

impl Rolled {
    /// The row of this window, which begins at `start`, of a series by its video id and event type.
    pub fn row(
        &self,
        (video_id, event_type): (&str, &str),
        (width, start): (Width, EventTime),
        watermark: EventTime,
        frontier: EventTime,
    ) -> CountRow {
        CountRow {
            width,
            video_id: video_id.to_owned(),
            event_type: event_type.to_owned(),
            window_start: start,
            count: self.count,
            stats: self.stats.clone(),
            is_final: width.end(start) <= watermark,
            as_of: frontier,
        }
    }
}

type Windows<K> = BTreeMap<(Width, EventTime), HashMap<K, Rolled, foldhash::fast::FixedState>>;

/// The hours and days of several series.
pub struct Rollups<K> {
    windows: Windows<K>,
    /// What ends before or here was given as final.
    final_until: EventTime,
}

impl<K> Default for Rollups<K> {
    fn default() -> Self {
        Self { windows: BTreeMap::new(), final_until: 0 }
    }
}

impl<K: Hash + Eq + Clone> Rollups<K> {
    /// Adds events of a minute to its hour and day.
    pub fn add(&mut self, series: &K, minute: Minute, count: u64, stats: Option<&Stats>) {
        for width in Width::ROLLED {
            let window = self.windows.entry((width, width.start(minute))).or_default();
            let rolled = window.entry_ref(series).or_default();
            rolled.count += count;
            rolled.last = rolled.last.max(minute);
            if let Some(stats) = stats {
                rolled.stats.get_or_insert_default().merge(stats);
            }
        }
    }

    /// The hour or day of a series that holds a minute.
    pub fn get(&self, series: &K, width: Width, minute: Minute) -> Option<&Rolled> {
        self.windows.get(&(width, width.start(minute)))?.get(series)
    }

    /// All of them, with the beginnings of their windows.
    pub fn all(&self) -> impl Iterator<Item = (&K, Width, EventTime, &Rolled)> {
        self.windows
            .iter()
            .flat_map(|((width, start), window)| window.iter().map(|(series, rolled)| (series, *width, *start, rolled)))
    }

    /// Lets the windows go that end before or at `first`, which have been told as final.
    pub fn leave(&mut self, first: EventTime) {
        self.windows.retain(|(width, start), _| {
            let leaves = width.end(*start) <= first;
            assert!(!leaves || width.end(*start) <= self.final_until, "what may change stays");
            !leaves
        });
    }

    /// Goes on from a checkpoint whose watermark this was.
    pub fn resume(&mut self, watermark: EventTime) {
        self.final_until = watermark;
    }

    /// The last minutes of all hours and days that the watermark has made final since it was last told: these are to be written
    /// once more.
    pub fn finish(&mut self, watermark: EventTime) -> Vec<(K, Minute)> {
        let mut last = Vec::new();
        for width in Width::ROLLED {
            // By their beginnings: those whose ends lie behind what was told and not behind the watermark.
            let first = self.final_until.saturating_add(1).saturating_sub(width.ms());
            let Some(end) = watermark.checked_sub(width.ms()).map(|last| last.saturating_add(1)) else { continue };
            if first < end {
                let windows = self.windows.range((width, first)..(width, end));
                let lasts = windows.flat_map(|(_, window)| window);
                last.extend(lasts.map(|(series, rolled)| (series.clone(), rolled.last)));
            }
        }
        self.final_until = self.final_until.max(watermark);
        last
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: u64 = 3_600_000;

    #[test]
    fn an_hour_and_a_day_are_what_their_minutes_come_to() {
        let mut rollups = Rollups::default();
        for (series, minute, count) in [("a", 0, 2), ("a", 59, 3), ("a", 60, 5), ("b", 1_439, 1), ("a", 1_440, 7)] {
            rollups.add(&series, Minute(minute), count, None);
        }
        let of = |series: &'static str, width, minute| {
            rollups.get(&series, width, Minute(minute)).map(|rolled| (rolled.count, rolled.last.0))
        };
        assert_eq!((of("a", Width::Hour, 30), of("a", Width::Hour, 61)), (Some((5, 59)), Some((5, 60))));
        assert_eq!((of("a", Width::Day, 5), of("a", Width::Day, 2_000)), (Some((10, 60)), Some((7, 1_440))));
        assert_eq!((of("b", Width::Hour, 0), of("b", Width::Day, 0)), (None, Some((1, 1_439))));
        assert_eq!(rollups.all().count(), 3 + 1 + 2 + 1);
    }

    #[test]
    fn what_becomes_final_is_told_once_by_its_last_minute() {
        let mut rollups = Rollups::default();
        for minute in [3, 7, 60, 1_441] {
            rollups.add(&"a", Minute(minute), 1, None);
        }
        let mut finish = |watermark| rollups.finish(watermark).iter().map(|(_, last)| last.0).collect::<Vec<_>>();
        assert!(finish(HOUR - 1).is_empty());
        assert_eq!(finish(HOUR), [7]);
        assert!(finish(2 * HOUR - 1).is_empty());
        assert_eq!(finish(24 * HOUR), [60, 60], "its hour and the day");
        assert!(finish(24 * HOUR).is_empty());
        assert_eq!(finish(EventTime::MAX), [1_441, 1_441]);
        rollups.resume(HOUR);
        assert_eq!(rollups.finish(2 * HOUR).len(), 1, "what a checkpoint has is not told again");
        rollups.leave(2 * HOUR);
        let left: Vec<_> = rollups.all().map(|(_, width, start, _)| (width, start / HOUR)).collect();
        assert_eq!(left, [(Width::Hour, 24), (Width::Day, 0), (Width::Day, 24)], "what ends later stays");
    }
}
