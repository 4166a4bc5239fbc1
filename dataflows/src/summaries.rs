//! The functions of all cells that have any: what they come to so far, and what the index was not given of it yet.
//!
//! Invariant: a cell's functions are `cells` and `unsent` merged; each event goes into `unsent` alone, once, and from there into
//! both the index and `cells`.

use hashbrown::HashMap;

use crate::{
    functions::stats::{Detail, Stats},
    series::SeriesNo,
    time::Minute,
};

type Cells = HashMap<(SeriesNo, Minute), Stats, foldhash::fast::FixedState>;

/// The functions of a worker's cells.
#[derive(Default)]
pub struct Summaries {
    cells: Cells,
    unsent: Cells,
}

impl Summaries {
    /// Adds one counted event.
    pub fn add(&mut self, series: SeriesNo, minute: Minute, detail: Detail) {
        self.unsent.entry((series, minute)).or_default().add(detail);
    }

    /// Takes what the index was not given: one increment per cell.
    pub fn take_unsent(&mut self) -> impl Iterator<Item = (SeriesNo, Minute, Stats)> + '_ {
        let cells = &mut self.cells;
        self.unsent.drain().map(|((series, minute), increment)| {
            cells.entry((series, minute)).or_default().merge(&increment);
            (series, minute, increment)
        })
    }

    /// Puts back a cell of a checkpoint; the index is given it as one increment.
    pub fn restore(&mut self, series: SeriesNo, minute: Minute, stats: Stats) {
        self.unsent.insert((series, minute), stats);
    }

    /// Of one cell, all that was ever added, given that nothing is unsent.
    pub fn get(&self, series: SeriesNo, minute: Minute) -> Option<&Stats> {
        debug_assert!(self.unsent.is_empty(), "what is cut was given to the index before");
        self.cells.get(&(series, minute))
    }
}
