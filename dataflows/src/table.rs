//! What a worker has counted when the input has ended, in the order of a table: series by name, each with its windows.
//!
//! Only names are compared, there being far fewer of them than cells; each cell is then put where it belongs.

use crate::{
    port::CountRow,
    rollup::Width,
    series::{Series, SeriesNo, SeriesTable},
    summaries::Summaries,
    time::{EventTime, Minute},
    window::Counts,
};

/// One window of a series: when, and how many events.
pub type Windowed = (Minute, u64);

/// The cells of one worker.
pub struct CountTable<'a> {
    names: &'a SeriesTable,
    summaries: &'a Summaries,
    /// The series in the order of their names, each with the end of its windows.
    series: Vec<(SeriesNo, usize)>,
    windows: Vec<Windowed>,
}

impl<'a> CountTable<'a> {
    /// Puts all cells in order.
    pub(crate) fn sorted(names: &'a SeriesTable, counts: &Counts, summaries: &'a Summaries) -> Self {
        let order = names.in_order();
        let mut places = vec![0; names.len()];
        for cell in counts.cells() {
            places[cell.series.0 as usize] += 1;
        }
        let mut all = 0;
        for number in &order {
            let begin = all;
            all += std::mem::replace(&mut places[number.0 as usize], begin);
        }
        let mut windows = vec![(Minute::default(), 0); all];
        // Oldest first, so each series' are.
        for cell in counts.cells() {
            let place = &mut places[cell.series.0 as usize];
            windows[*place] = (cell.minute, cell.count);
            *place += 1;
        }
        let series = order.into_iter().map(|number| (number, places[number.0 as usize])).collect();
        Self { names, summaries, series, windows }
    }

    /// The series that have cells, with these: oldest first.
    pub fn series(&self) -> impl Iterator<Item = (&'a Series, &[Windowed])> {
        self.numbered().map(|(number, windows)| (self.names.name(number), windows))
    }

    fn numbered(&self) -> impl Iterator<Item = (SeriesNo, &[Windowed])> {
        let mut begin = 0;
        self.series.iter().filter_map(move |(number, end)| {
            let windows = &self.windows[std::mem::replace(&mut begin, *end)..*end];
            (!windows.is_empty()).then_some((*number, windows))
        })
    }

    /// How many cells there are.
    pub fn len(&self) -> usize {
        self.windows.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.windows.is_empty()
    }

    /// All as rows at `as_of`, none of them marked final.
    pub fn rows(&self, as_of: EventTime) -> impl Iterator<Item = CountRow> {
        self.numbered().flat_map(move |(number, windows)| {
            let name = self.names.name(number);
            windows.iter().map(move |(minute, count)| CountRow {
                width: Width::Minute,
                video_id: name.video_id.to_string(),
                event_type: name.event_type.to_string(),
                window_start: minute.start(),
                count: *count,
                stats: self.summaries.get(number, *minute).cloned(),
                is_final: false,
                as_of,
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_come_by_name_and_windows_by_time_and_what_was_never_counted_not_at_all() {
        let (mut names, mut counts) = (SeriesTable::default(), Counts::new(false));
        let mut count = |video: &str, kind: &str, minutes: &[u32]| {
            let series = names.intern(video, kind).number;
            minutes.iter().for_each(|minute| counts.add(series, Minute(*minute)));
        };
        count("b", "view", &[7, 3, 7]);
        count("a video with a long name", "view", &[5]);
        count("named only", "view", &[]);
        count("a video with a long nama", "view", &[6]);
        count("a", "views", &[1]);
        count("a", "view", &[2]);
        let summaries = Summaries::default();
        let table = CountTable::sorted(&names, &counts, &summaries);
        let found: Vec<_> =
            table.series().map(|(name, windows)| (&*name.video_id, &*name.event_type, windows)).collect();
        let expected: [(&str, &str, &[Windowed]); 5] = [
            ("a", "view", &[(Minute(2), 1)]),
            ("a", "views", &[(Minute(1), 1)]),
            ("a video with a long nama", "view", &[(Minute(6), 1)]),
            ("a video with a long name", "view", &[(Minute(5), 1)]),
            ("b", "view", &[(Minute(3), 1), (Minute(7), 2)]),
        ];
        assert_eq!(found, expected);
        assert_eq!((table.len(), table.rows(9).count()), (6, 6));
    }
}
