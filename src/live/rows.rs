//! Rows for the sink from the state of a checkpoint.

use std::collections::{HashMap, HashSet};

use dataflows::{
    checkpoint::part::PartState,
    port::CountRow,
    rollup::{Rollups, Width},
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
            let (video_id, event_type) = &group.names[cell.series.0 as usize];
            rows.push(CountRow {
                width: Width::Minute,
                video_id: video_id.to_string(),
                event_type: event_type.to_string(),
                window_start: cell.minute.start(),
                count: cell.count,
                stats: stats.get(&(cell.series, cell.minute)).map(|stats| (*stats).clone()),
                is_final: cell.minute.is_final(watermark),
                as_of: frontier,
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
        let all = rollups.all().filter(|(series, width, start, _)| wanted.contains(&(**series, *width, *start)));
        rows.extend(all.map(|(series, width, start, rolled)| {
            let (video_id, event_type) = &group.names[series.0 as usize];
            rolled.row((video_id, event_type), (width, start), watermark, frontier)
        }));
    }
    rows
}
