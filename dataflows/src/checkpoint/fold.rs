//! What several parts come to, read one after the other.

use std::sync::Arc;

use hashbrown::HashMap;

use crate::{
    functions::stats::Stats,
    letter::DeadLetter,
    pages::IdPages,
    ruling::Ruling,
    series::{SeriesNo, SeriesTable},
    time::Minute,
    window::CellState,
};

use super::part::{GroupState, PartState};

/// Parts, folded in the order in which they were made: the later of two cells that are the same one is in force. So it is
/// with ids, but all of them are kept: whoever remembers them finds the same ones anyway.
#[derive(Default)]
pub struct Fold {
    groups: Vec<GroupFold>,
    letters: Vec<DeadLetter>,
    rulings: Vec<Ruling>,
}

#[derive(Default)]
struct GroupFold {
    series: SeriesTable,
    ids: IdPages,
    cells: HashMap<(SeriesNo, Minute), CellState, foldhash::fast::FixedState>,
    stats: HashMap<(SeriesNo, Minute), Stats, foldhash::fast::FixedState>,
}

impl Fold {
    /// Adds the next part.
    pub fn add(&mut self, part: PartState) {
        self.letters.extend(part.letters);
        self.rulings.extend(part.rulings);
        self.groups.resize_with(part.groups.len(), GroupFold::default);
        for (fold, group) in self.groups.iter_mut().zip(part.groups) {
            fold.add(group);
        }
    }

    /// What they come to.
    pub fn finish(self) -> PartState {
        let mut state = PartState { letters: self.letters, rulings: self.rulings, ..PartState::default() };
        for (group, fold) in state.groups.iter_mut().zip(self.groups) {
            *group = fold.finish();
        }
        state
    }
}

impl GroupFold {
    fn add(&mut self, group: GroupState) {
        let places: Vec<SeriesNo> =
            group.names.iter().map(|(video, kind)| self.series.intern(video, kind).number).collect();
        self.ids.append(&group.ids);
        self.cells.reserve(group.cells.len());
        for cell in group.cells {
            let series = places[cell.series.0 as usize];
            self.cells.insert((series, cell.minute), CellState { series, ..cell });
        }
        for (place, minute, stats) in group.stats {
            self.stats.insert((places[place.0 as usize], minute), stats);
        }
    }

    fn finish(self) -> GroupState {
        let name = |number| {
            let name = self.series.name(SeriesNo(number));
            (Arc::clone(&name.video_id), Arc::clone(&name.event_type))
        };
        let names = (0..self.series.len() as u32).map(name).collect();
        let stats = self.stats.into_iter().map(|((series, minute), stats)| (series, minute, stats)).collect();
        GroupState { names, ids: self.ids, cells: self.cells.into_values().collect(), stats }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dedup::RememberedId;

    fn part(names: &[&str], cells: &[(u32, u32, u64, bool)], ids: &[(u64, u32)]) -> PartState {
        let mut state = PartState::default();
        state.groups[3] = GroupState {
            names: names.iter().map(|name| ((*name).into(), "view".into())).collect(),
            ids: ids.iter().map(|(id, minute)| RememberedId { id: [*id, 1], minute: Minute(*minute) }).collect(),
            cells: cells
                .iter()
                .map(|&(series, minute, count, unwritten)| CellState {
                    series: SeriesNo(series),
                    minute: Minute(minute),
                    count,
                    unwritten,
                })
                .collect(),
            stats: Vec::new(),
        };
        state
    }

    #[test]
    fn the_later_of_two_cells_or_ids_is_in_force_whatever_the_places_of_their_names() {
        let mut fold = Fold::default();
        let mut first = part(&["a", "b"], &[(0, 1, 5, true), (1, 1, 7, true), (1, 2, 1, true)], &[(1, 1), (2, 1)]);
        first.mark_written();
        fold.add(first);
        fold.add(part(&["c", "b"], &[(0, 1, 2, true), (1, 1, 9, true)], &[(1, 8), (3, 2)]));
        let mut state = fold.finish();
        let group = &state.groups[3];
        let named =
            |cell: &CellState| (&*group.names[cell.series.0 as usize].0, cell.minute.0, cell.count, cell.unwritten);
        let mut cells: Vec<_> = group.cells.iter().map(named).collect();
        cells.sort_unstable();
        assert_eq!(cells, [("a", 1, 5, false), ("b", 1, 9, true), ("b", 2, 1, false), ("c", 1, 2, true)]);
        assert_eq!((group.names.len(), state.counted()), (3, 17));
        state.forget(Minute(2));
        let mut ids: Vec<_> = state.groups[3].ids.iter().map(|known| (known.id[0], known.minute.0)).collect();
        ids.sort_unstable();
        assert_eq!(ids, [(1, 8), (3, 2)]);
    }
}
