//! Tumbling one-minute counts: the absolute count of every window, and what changed since it was last asked.
//!
//! Invariants: `count` is the number of events counted in the cell so far; `unsent` the part of it that the index has
//! not been given; a cell is `changed` while no cut has its present count and finality, and `held` while a cut has it, but
//! not for the sink.

use hashbrown::HashMap;

use crate::{
    series::SeriesNo,
    time::{EventTime, MINUTE_MS, Minute},
};

/// One cell: a series in a window. Sixteen bytes with its key: there are as many as windows in memory.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
struct Cell {
    /// Four billion events of one series in a minute are out of reach: overflow is checked.
    count: u32,
    unsent: u32,
    changed: bool,
    held: bool,
}

/// A cell's state as checkpoints and sinks see it.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct CellState {
    /// Which series.
    pub series: SeriesNo,
    /// Which window.
    pub minute: Minute,
    /// How many events.
    pub count: u64,
    /// Whether the sink may not hold this yet.
    pub unwritten: bool,
}

type Window = HashMap<SeriesNo, Cell, foldhash::fast::FixedState>;

/// Windows, oldest first. The one that was last asked for is found at once: most events come in the order of their windows.
#[derive(Default)]
struct Windows {
    all: Vec<(Minute, Window)>,
    last: usize,
}

impl Windows {
    #[inline]
    fn place(&self, minute: Minute) -> Result<usize, usize> {
        match self.all.get(self.last) {
            Some((last, _)) if *last == minute => Ok(self.last),
            _ => self.all.binary_search_by_key(&minute, |(minute, _)| *minute),
        }
    }

    /// A window, empty if it is new.
    #[inline]
    fn at(&mut self, minute: Minute) -> &mut Window {
        self.last = self.place(minute).unwrap_or_else(|place| self.insert(place, minute));
        &mut self.all[self.last].1
    }

    #[cold]
    fn insert(&mut self, place: usize, minute: Minute) -> usize {
        // As large as its predecessor, so that it need not grow again and again.
        let before = place.checked_sub(1).map(|before| &self.all[before]);
        let cells = before.filter(|(before, _)| before.0 + 1 == minute.0).map_or(0, |(_, window)| window.len());
        self.all.insert(place, (minute, Window::with_capacity_and_hasher(cells, Default::default())));
        place
    }

    fn cell(&mut self, series: SeriesNo, minute: Minute) -> Option<&mut Cell> {
        let place = self.place(minute).ok()?;
        self.all[place].1.get_mut(&series)
    }

    /// Of each window, whether so many of its cells are among these that to read all of them is less than to look these up: what is read in
    /// the order of the memory is there before it is needed.
    fn with_many_of(&self, cells: &[(SeriesNo, Minute)]) -> Vec<bool> {
        let mut these = vec![0; self.all.len()];
        for cells in cells.chunk_by(|(_, one), (_, next)| one == next) {
            these[self.place(cells[0].1).expect("these cells exist")] += cells.len();
        }
        self.all.iter().zip(these).map(|((_, window), these)| window.len() < 4 * these).collect()
    }

    /// Those from `from` on and before `until`.
    fn range_mut(&mut self, from: Minute, until: Minute) -> &mut [(Minute, Window)] {
        let begin = self.all.partition_point(|(minute, _)| *minute < from);
        let end = self.all.partition_point(|(minute, _)| *minute < until);
        &mut self.all[begin..end]
    }
}

/// The counts of all windows, oldest first.
pub struct Counts {
    windows: Windows,
    /// Whether anybody will take what changed.
    notes_changes: bool,
    /// Cells with something unsent, in the order of their first event.
    unsent: Vec<(SeriesNo, Minute)>,
    /// Cells that changed since the last cut.
    changed: Vec<(SeriesNo, Minute)>,
    /// Cells that are held back for the sink.
    held: Vec<(SeriesNo, Minute)>,
    /// Windows before this one have been marked final.
    final_before: Minute,
    total: u64,
    /// Of the total, what is in windows that have left.
    left: u64,
}

impl Counts {
    /// Nothing is counted yet. `notes_changes` where cuts will ask for them.
    pub fn new(notes_changes: bool) -> Self {
        Self {
            windows: Windows::default(),
            notes_changes,
            unsent: Vec::new(),
            changed: Vec::new(),
            held: Vec::new(),
            final_before: Minute(0),
            total: 0,
            left: 0,
        }
    }

    /// Counts one event.
    #[inline]
    pub fn add(&mut self, series: SeriesNo, minute: Minute) {
        assert!(minute >= self.final_before, "a final window never changes");
        let cell = self.windows.at(minute).entry(series).or_default();
        cell.count += 1;
        self.total += 1;
        if cell.unsent == 0 {
            self.unsent.push((series, minute));
        }
        cell.unsent += 1;
        if self.notes_changes && !cell.changed {
            cell.changed = true;
            self.changed.push((series, minute));
        }
    }

    /// Takes what the index has not been given: increments, one per cell.
    pub fn take_unsent(&mut self) -> impl Iterator<Item = (SeriesNo, Minute, u32)> + '_ {
        let windows = &mut self.windows;
        self.unsent.drain(..).map(move |(series, minute)| {
            let cell = windows.cell(series, minute).expect("unsent cells exist");
            (series, minute, std::mem::take(&mut cell.unsent))
        })
    }

    /// Marks the windows whose end the watermark has reached: all their cells must be written as final.
    pub fn finish(&mut self, watermark: EventTime) {
        let open = Minute((watermark / MINUTE_MS).try_into().unwrap_or(u32::MAX));
        if open <= self.final_before {
            return;
        }
        for (minute, window) in self.windows.range_mut(self.final_before, open) {
            for (series, cell) in window.iter_mut().filter(|(_, cell)| !cell.changed && !cell.held) {
                cell.changed = true;
                self.changed.push((*series, *minute));
            }
        }
        self.final_before = open;
    }

    /// Has cells written once more, with what they are part of.
    pub fn write_again(&mut self, cells: impl IntoIterator<Item = (SeriesNo, Minute)>) {
        for (series, minute) in cells {
            let cell = self.windows.cell(series, minute).expect("what is rolled up is a cell");
            if !cell.changed && !cell.held {
                cell.changed = true;
                self.changed.push((series, minute));
            }
        }
    }

    /// The series of what [`Counts::take_changed`] will give, some perhaps once too often.
    pub fn changed_series(&self, writes: bool) -> impl Iterator<Item = SeriesNo> {
        let held = self.held.iter().filter(move |_| writes);
        self.changed.iter().chain(held).map(|(series, _)| *series)
    }

    /// Takes the cells that changed since the last call, with their present state; where the sink is written (`writes`) also
    /// those that are held back for it. Otherwise they are held back from here on. All count as unwritten: whoever takes
    /// them sees to it.
    pub fn take_changed(&mut self, writes: bool, mut take: impl FnMut(CellState)) {
        let mut places = std::mem::take(&mut self.changed);
        if writes {
            places.append(&mut self.held);
        }
        let is_read_whole = self.windows.with_many_of(&places);
        let held = &mut self.held;
        let mut take_cell = |series, minute, cell: &mut Cell| {
            let is_taken = std::mem::take(&mut cell.changed) || (writes && cell.held);
            if !is_taken {
                return;
            }
            take(CellState { series, minute, count: u64::from(cell.count), unwritten: true });
            if !writes && !cell.held {
                held.push((series, minute));
            }
            cell.held = !writes;
        };
        for ((minute, window), _) in self.windows.all.iter_mut().zip(&is_read_whole).filter(|(_, is_whole)| **is_whole)
        {
            window.iter_mut().for_each(|(series, cell)| take_cell(*series, *minute, cell));
        }
        for (series, minute) in places {
            let place = self.windows.place(minute).expect("changed cells exist");
            if !is_read_whole[place] {
                let cell = self.windows.all[place].1.get_mut(&series).expect("changed cells exist");
                take_cell(series, minute, cell);
            }
        }
    }

    /// How many cells wait for the sink, about.
    pub fn unwritten_len(&self) -> usize {
        self.changed.len() + self.held.len()
    }

    /// Lets the windows before `first` go, which have been written as final: their cells with their counts.
    pub fn leave(&mut self, first: Minute) -> Vec<(SeriesNo, Minute, u64)> {
        let end = self.windows.all.partition_point(|(minute, _)| *minute < first);
        let mut cells = Vec::new();
        for (minute, window) in self.windows.all.drain(..end) {
            assert!(minute < self.final_before, "what may change stays");
            for (series, cell) in window {
                assert!(!cell.changed && !cell.held && cell.unsent == 0, "what is not written or sent stays");
                self.left += u64::from(cell.count);
                cells.push((series, minute, u64::from(cell.count)));
            }
        }
        self.windows.last = 0;
        cells
    }

    /// So many events are in windows that have left before.
    pub fn resume_left(&mut self, events: u64) {
        self.left += events;
        self.total += events;
    }

    /// The first window that is here.
    pub fn first(&self) -> Option<Minute> {
        self.windows.all.first().map(|(minute, _)| *minute)
    }

    /// Of all events, those in windows that have left.
    pub fn left(&self) -> u64 {
        self.left
    }

    /// Goes on from a checkpoint whose watermark this was: what it made final is written as such.
    pub fn resume(&mut self, watermark: EventTime) {
        self.final_before = Minute((watermark / MINUTE_MS).try_into().unwrap_or(u32::MAX));
    }

    /// Puts back a cell of a checkpoint; the index is given it as one increment.
    pub fn restore(&mut self, cell: CellState) {
        let count = u32::try_from(cell.count).expect("four billion events of one series in a minute are out of reach");
        self.windows
            .at(cell.minute)
            .insert(cell.series, Cell { count, unsent: count, changed: false, held: cell.unwritten });
        self.unsent.push((cell.series, cell.minute));
        self.total += cell.count;
        if cell.unwritten {
            self.held.push((cell.series, cell.minute));
        }
    }

    /// Every cell, by window, in no order within one.
    pub fn cells(&self) -> impl Iterator<Item = CellState> + '_ {
        self.windows.all.iter().flat_map(|(minute, window)| {
            window.iter().map(|(series, cell)| CellState {
                series: *series,
                minute: *minute,
                count: u64::from(cell.count),
                unwritten: cell.changed || cell.held,
            })
        })
    }

    /// The sum of all cells, also of those that have left.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// How many cells there are.
    pub fn len(&self) -> usize {
        self.windows.all.iter().map(|(_, window)| window.len()).sum()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.windows.all.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: SeriesNo = SeriesNo(0);
    const B: SeriesNo = SeriesNo(1);

    fn written(counts: &mut Counts) -> Vec<(u32, u32, u64)> {
        taken(counts, true)
    }

    fn taken(counts: &mut Counts, writes: bool) -> Vec<(u32, u32, u64)> {
        let mut rows = Vec::new();
        counts.take_changed(writes, |cell| rows.push((cell.series.0, cell.minute.0, cell.count)));
        rows.sort_unstable();
        rows
    }

    #[test]
    fn the_index_is_given_each_increment_once() {
        let mut counts = Counts::new(true);
        counts.add(A, Minute(1));
        counts.add(A, Minute(1));
        counts.add(B, Minute(2));
        assert_eq!(counts.take_unsent().collect::<Vec<_>>(), [(A, Minute(1), 2), (B, Minute(2), 1)]);
        counts.add(A, Minute(1));
        assert_eq!(counts.take_unsent().collect::<Vec<_>>(), [(A, Minute(1), 1)]);
    }

    #[test]
    fn a_changed_cell_is_written_once_with_its_absolute_count() {
        let mut counts = Counts::new(true);
        counts.add(A, Minute(1));
        counts.add(A, Minute(1));
        assert_eq!(written(&mut counts), [(0, 1, 2)]);
        assert_eq!(written(&mut counts), []);
        counts.add(A, Minute(1));
        assert_eq!(written(&mut counts), [(0, 1, 3)]);
    }

    #[test]
    fn what_changed_is_taken_once_whether_few_cells_of_a_window_or_many() {
        let mut counts = Counts::new(true);
        for series in 0..100 {
            counts.add(SeriesNo(series), Minute(1));
            counts.add(SeriesNo(series), Minute(2));
        }
        assert_eq!(written(&mut counts).len(), 200);
        let few = [3, 97].map(|series| (series, 1, 2));
        let many = (10..60).map(|series| (series, 2, 2));
        let mut again: Vec<_> = few.into_iter().chain(many).collect();
        again.iter().for_each(|(series, minute, _)| counts.add(SeriesNo(*series), Minute(*minute)));
        again.sort_unstable();
        assert_eq!(taken(&mut counts, false), again);
        counts.add(SeriesNo(5), Minute(1));
        again.insert(1, (5, 1, 2));
        assert_eq!(written(&mut counts), again, "with what was held back");
        assert_eq!((written(&mut counts), counts.unwritten_len()), (vec![], 0));
    }

    #[test]
    fn a_window_is_written_again_when_it_becomes_final_and_not_before() {
        let mut counts = Counts::new(true);
        counts.add(A, Minute(1));
        counts.add(B, Minute(2));
        written(&mut counts);
        counts.finish(119_999);
        assert_eq!(written(&mut counts), []);
        counts.finish(120_000);
        assert_eq!(written(&mut counts), [(0, 1, 1)]);
        counts.finish(180_000);
        assert_eq!(written(&mut counts), [(1, 2, 1)]);
    }

    #[test]
    fn what_the_sink_is_not_given_is_held_back_for_it_and_is_no_change_any_more() {
        let mut counts = Counts::new(true);
        counts.add(A, Minute(1));
        assert_eq!(taken(&mut counts, false), [(0, 1, 1)]);
        assert_eq!((taken(&mut counts, false), counts.unwritten_len()), (vec![], 1));
        counts.finish(120_000);
        assert_eq!(taken(&mut counts, false), [], "that it is final is told when it is written");
        counts.add(B, Minute(2));
        counts.add(B, Minute(2));
        assert_eq!(taken(&mut counts, false), [(1, 2, 2)]);
        counts.add(B, Minute(2));
        assert_eq!(written(&mut counts), [(0, 1, 1), (1, 2, 3)], "each once");
        assert_eq!((written(&mut counts), counts.unwritten_len()), (vec![], 0));
    }

    #[test]
    fn windows_that_leave_are_given_once_and_stay_in_the_total() {
        let mut counts = Counts::new(true);
        for (series, minute) in [(A, 1), (A, 1), (B, 1), (A, 2), (A, 3)] {
            counts.add(series, Minute(minute));
        }
        counts.finish(180_000);
        written(&mut counts);
        counts.take_unsent().for_each(drop);
        let mut left = counts.leave(Minute(2));
        left.sort_unstable();
        assert_eq!(left, [(A, Minute(1), 2), (B, Minute(1), 1)]);
        assert_eq!((counts.leave(Minute(2)), counts.total(), counts.left(), counts.len()), (vec![], 5, 3, 2));
        counts.add(A, Minute(3));
        assert_eq!(written(&mut counts), [(0, 3, 2)]);
    }

    #[test]
    #[should_panic(expected = "what is not written or sent stays")]
    fn a_window_that_is_not_written_does_not_leave() {
        let mut counts = Counts::new(true);
        counts.add(A, Minute(1));
        counts.finish(120_000);
        counts.leave(Minute(2));
    }

    #[test]
    #[should_panic(expected = "a final window never changes")]
    fn a_final_window_never_changes() {
        let mut counts = Counts::new(true);
        counts.add(A, Minute(1));
        counts.finish(120_000);
        counts.add(A, Minute(1));
    }
}
