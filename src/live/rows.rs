//! Rows for the sink from the state of a checkpoint.

use std::collections::HashMap;

use dataflows::{checkpoint::part::PartState, port::CountRow, time::EventTime};

/// Which rows of a checkpoint are wanted.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Which {
    /// Those that the sink is not known to hold.
    Unwritten,
    /// Every one.
    All,
}

/// The rows of a state at its frontier.
pub fn rows(state: &PartState, which: Which, watermark: EventTime, frontier: EventTime) -> Vec<CountRow> {
    let mut rows = Vec::new();
    for group in &state.groups {
        let stats: HashMap<_, _> =
            group.stats.iter().map(|(series, minute, stats)| ((*series, *minute), stats)).collect();
        for cell in group.cells.iter().filter(|cell| which == Which::All || cell.unwritten) {
            let (video_id, event_type) = group.names[cell.series.0 as usize].clone();
            rows.push(CountRow {
                video_id,
                event_type,
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
