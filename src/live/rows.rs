//! Rows for the sink from the state of a checkpoint.

use std::collections::{HashMap, HashSet};

use dataflows::{
    checkpoint::part::{GroupState, PartState},
    port::CountRow,
    rollup::{Rollups, Width},
    series::SeriesNo,
    time::EventTime,
    window::CellState,
};

/// Which rows of a checkpoint are wanted.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Which {
    /// Those that the sink is not known to hold.
    Unwritten,
    /// Every one.
    All,
}

impl Which {
    fn wants(self, cell: &CellState) -> bool {
        self == Which::All || cell.unwritten
    }
}

/// The rows of a state's minutes at its frontier.
pub fn rows(state: &PartState, which: Which, watermark: EventTime, frontier: EventTime) -> Vec<CountRow> {
    let mut rows = Vec::new();
    for group in &state.groups {
        let stats: HashMap<_, _> =
            group.stats.iter().map(|(series, minute, stats)| ((*series, *minute), stats)).collect();
        for cell in group.cells.iter().filter(|cell| which.wants(cell)) {
            rows.push(CountRow {
                count: cell.count,
                stats: stats.get(&(cell.series, cell.minute)).map(|stats| (*stats).clone()),
                ..row(group, cell.series, Width::Minute, cell.minute.start(), watermark, frontier)
            });
        }
    }
    rows
}

/// The rows of the hours and days that such minutes are part of. Of a whole state: all minutes of theirs must be in it.
pub fn rollups(state: &PartState, which: Which, watermark: EventTime, frontier: EventTime) -> Vec<CountRow> {
    let mut rows = Vec::new();
    for group in &state.groups {
        let mut rollups = Rollups::default();
        for cell in &group.cells {
            rollups.add(&cell.series, cell.minute, cell.count, None);
        }
        for (series, minute, stats) in &group.stats {
            rollups.add(series, *minute, 0, Some(stats));
        }
        let windows = |cell: &CellState| Width::ROLLED.map(|width| (cell.series, width, width.start(cell.minute)));
        let wanted: HashSet<_> = group.cells.iter().filter(|cell| which.wants(cell)).flat_map(windows).collect();
        for (series, width, start, rolled) in
            rollups.all().filter(|(series, width, start, _)| wanted.contains(&(**series, *width, *start)))
        {
            rows.push(CountRow {
                count: rolled.count,
                stats: rolled.stats.clone(),
                ..row(group, *series, width, start, watermark, frontier)
            });
        }
    }
    rows
}

/// A row of nothing yet.
fn row(
    group: &GroupState,
    series: SeriesNo,
    width: Width,
    window_start: EventTime,
    watermark: EventTime,
    frontier: EventTime,
) -> CountRow {
    let (video_id, event_type) = group.names[series.0 as usize].clone();
    let is_final = width.end(window_start) <= watermark;
    CountRow { width, video_id, event_type, window_start, count: 0, stats: None, is_final, as_of: frontier }
}
