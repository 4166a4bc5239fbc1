//! State as stored bytes: per key group the names, the remembered ids and the cells, then the letters.
//!
//! A part holds what changed of one worker's state since the checkpoint before, or what several parts come to. Several are
//! read in the order of the manifest: of two ids or cells that are the same one, the later is in force (see [`super::fold`]).
//!
//! Sections by kind: 1 names (count 4, then per name video id and event type, each length 4 and bytes), 2 ids as former builds wrote them
//! ([`super::rows::IdRow`]), 3 cells ([`super::rows::CellRow`], whose series is a name's place in the group's names),
//! 4 letters (see `put_letter`), 5 rulings (partition 4, what was ruled 4, offset 8 each), 6 functions of cells (a name's place 4,
//! minute 4 and [`Stats::encode`] each, of cells of this part), 7 ids (per page first minute 4, count 4, then of each how far its window is
//! behind that 2, then the ids, 16 each). Groups with nothing in them have no sections.

use std::{io, sync::Arc};

use crate::{
    dedup::{Remembered, RememberedId},
    event::{Cause, Reason},
    functions::stats::Stats,
    identity::{KEY_GROUPS, KeyGroup},
    letter::DeadLetter,
    pages::IdPages,
    port::PartitionId,
    ruling::{Ruled, Ruling},
    series::SeriesNo,
    time::Minute,
    window::CellState,
};

use super::{
    frame::{self, FieldReader, Fields, FileKind, FrameError, FrameWriter},
    rows::{self, CellRow, IdRow},
};

const NAMES: u32 = 1;
const ID_ROWS: u32 = 2;
const CELLS: u32 = 3;
const LETTERS: u32 = 4;
const RULINGS: u32 = 5;
const STATS: u32 = 6;
const ID_PAGES: u32 = 7;

/// So many functions ahead of the one that is written, its lists are fetched from memory; as many before that, what it has lists in.
const STATS_AHEAD: usize = 8;

/// What one key group holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupState {
    /// Its series, `(video id, event type)`.
    pub names: Vec<(Arc<str>, Arc<str>)>,
    /// Its remembered ids: the later of two with one identity is in force.
    pub ids: IdPages,
    /// Its cells; a series is a place among `names`.
    pub cells: Vec<CellState>,
    /// The functions of those cells that have any; a series is a place among `names`.
    pub stats: Vec<CellStats>,
}

impl GroupState {
    fn keep_from(&mut self, first: Minute) {
        self.cells.retain(|cell| first <= cell.minute);
        self.stats.retain(|(_, minute, _)| first <= *minute);
        let mut places = vec![None; self.names.len()];
        let mut names = Vec::new();
        for cell in &mut self.cells {
            let old = cell.series.0 as usize;
            let place = *places[old].get_or_insert_with(|| {
                names.push(std::mem::take(&mut self.names[old]));
                SeriesNo(names.len() as u32 - 1)
            });
            cell.series = place;
        }
        self.stats.retain_mut(|(series, ..)| {
            let place = places[series.0 as usize];
            *series = place.unwrap_or(*series);
            place.is_some()
        });
        self.names = names;
    }
}

/// The functions of one cell.
pub type CellStats = (SeriesNo, Minute, Stats);

/// The contents of a part, or what several come to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartState {
    /// By key group; a worker fills in those that it owns.
    pub groups: Vec<GroupState>,
    /// Dead letters that are not known to be published.
    pub letters: Vec<DeadLetter>,
    /// Verdicts that the logs alone do not give.
    pub rulings: Vec<Ruling>,
}

impl Default for PartState {
    fn default() -> Self {
        Self { groups: vec![GroupState::default(); KEY_GROUPS], letters: Vec::new(), rulings: Vec::new() }
    }
}

impl PartState {
    /// The stored bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.write(&mut bytes).expect("memory takes what is written to it");
        bytes
    }

    /// Writes them, a section at a time.
    pub fn write(&self, out: &mut dyn io::Write) -> io::Result<()> {
        let mut writer = FrameWriter::new(FileKind::Part, out)?;
        for (group, state) in self.groups.iter().enumerate() {
            write_group(&mut writer, group as u32, state)?;
        }
        if !self.letters.is_empty() {
            writer.section(LETTERS, 0, |fields| self.letters.iter().for_each(|letter| put_letter(fields, letter)))?;
        }
        if !self.rulings.is_empty() {
            writer.section(RULINGS, 0, |fields| {
                for Ruling { partition, offset, ruled } in &self.rulings {
                    let number = RULED.iter().position(|known| known == ruled).expect("every ruling is listed");
                    fields.word(partition.0).word(number as u32).long(*offset);
                }
            })?;
        }
        writer.finish().map(drop)
    }

    /// How many events the cells hold.
    pub fn counted(&self) -> u64 {
        self.groups.iter().flat_map(|group| &group.cells).map(|cell| cell.count).sum()
    }

    /// The rows of these cells are written.
    pub fn mark_written(&mut self) {
        self.groups.iter_mut().flat_map(|group| &mut group.cells).for_each(|cell| cell.unwritten = false);
    }

    /// Leaves out the windows before `first`, and names that no other window has.
    pub fn keep_from(&mut self, first: Minute) {
        if first != Minute(0) {
            self.groups.iter_mut().for_each(|group| group.keep_from(first));
        }
    }

    /// Forgets the ids of windows before `first`, and all but one of those with one identity.
    pub fn forget(&mut self, first: Minute) {
        let mut remembered = Remembered::default();
        for (number, state) in self.groups.iter_mut().enumerate() {
            remembered.restore(group(number), &std::mem::take(&mut state.ids));
        }
        remembered.sweep(first);
        for (number, state) in self.groups.iter_mut().enumerate() {
            state.ids = remembered.group(group(number)).collect();
        }
    }

    /// Reads the bytes of a part.
    pub fn decode(bytes: &[u8]) -> Result<Self, FrameError> {
        let mut state = Self::default();
        state.read(bytes)?;
        Ok(state)
    }

    fn read(&mut self, bytes: &[u8]) -> Result<(), FrameError> {
        for (number, section) in frame::read(bytes, FileKind::Part)?.into_iter().enumerate() {
            let bad = |what| FrameError::Content { section: number, what };
            let group = self.groups.get_mut(section.group as usize).ok_or(bad("a key group that does not exist"))?;
            match section.kind {
                NAMES => group.names = names(section.payload).ok_or(bad("names that end too early"))?,
                ID_ROWS => group.ids = id_rows(section.payload).ok_or(bad("half an id"))?,
                ID_PAGES => group.ids = id_pages(section.payload).ok_or(bad("half a page of ids"))?,
                CELLS => group.cells = cells(section.payload, group.names.len()).ok_or(bad("a cell without a name"))?,
                STATS => {
                    group.stats = stats(section.payload, group.names.len()).ok_or(bad("half a cell's functions"))?
                }
                LETTERS => self.letters.extend(letters(section.payload).ok_or(bad("half a letter"))?),
                RULINGS => self.rulings.extend(rulings(section.payload).ok_or(bad("half a ruling"))?),
                _ => return Err(bad("a kind of section that this build doesn't know")),
            }
        }
        Ok(())
    }
}

fn write_group<W: io::Write>(writer: &mut FrameWriter<W>, group: u32, state: &GroupState) -> io::Result<()> {
    if !state.names.is_empty() {
        writer.section(NAMES, group, |fields| {
            fields.word(state.names.len() as u32);
            for (video_id, event_type) in &state.names {
                fields.bytes(video_id.as_bytes()).bytes(event_type.as_bytes());
            }
        })?;
    }
    if !state.ids.is_empty() {
        writer.section(ID_PAGES, group, |fields| {
            for page in state.ids.pages() {
                fields.word(page.first().0).word(page.ids().len() as u32);
                fields.shorts(page.minutes()).longs(page.ids().as_flattened());
            }
        })?;
    }
    if !state.cells.is_empty() {
        let row = |cell: &CellState| CellRow {
            count: cell.count,
            series: cell.series.0,
            minute: cell.minute.0,
            unwritten: u32::from(cell.unwritten),
            zero: 0,
        };
        writer.section(CELLS, group, |fields| rows::encode(state.cells.iter().map(row), &mut fields.0))?;
    }
    if !state.stats.is_empty() {
        writer.section(STATS, group, |fields| {
            for (at, (series, minute, stats)) in state.stats.iter().enumerate() {
                let ahead = |by: usize| state.stats.get(at + by).map(|(.., stats)| stats);
                ahead(2 * STATS_AHEAD).into_iter().for_each(Stats::prefetch);
                ahead(STATS_AHEAD).into_iter().for_each(Stats::prefetch_lists);
                stats.encode(fields.word(series.0).word(minute.0));
            }
        })?;
    }
    Ok(())
}

fn names(payload: &[u8]) -> Option<Vec<(Arc<str>, Arc<str>)>> {
    let mut fields = FieldReader(payload);
    let count = fields.word()?;
    let mut names = Vec::new();
    for _ in 0..count {
        names.push((fields.text()?.into(), fields.text()?.into()));
    }
    fields.is_done().then_some(names)
}

fn id_pages(payload: &[u8]) -> Option<IdPages> {
    let mut fields = FieldReader(payload);
    let mut ids = IdPages::default();
    while !fields.is_done() {
        let (first, count) = (fields.word()?, fields.word()? as usize);
        let minutes = fields.shorts(count)?;
        let mut halves = fields.longs(count.checked_mul(2)?)?;
        for behind in minutes {
            let minute = Minute(first.checked_add(u32::from(behind))?);
            ids.push(RememberedId { id: [halves.next()?, halves.next()?], minute });
        }
    }
    Some(ids)
}

fn id_rows(payload: &[u8]) -> Option<IdPages> {
    let rows = rows::decode::<IdRow>(payload)?;
    Some(rows.into_iter().map(|row| RememberedId { id: row.id, minute: Minute(row.minute) }).collect())
}

fn cells(payload: &[u8], names: usize) -> Option<Vec<CellState>> {
    let rows = rows::decode::<CellRow>(payload)?;
    let cell = |row: CellRow| {
        ((row.series as usize) < names && row.unwritten < 2).then_some(CellState {
            series: SeriesNo(row.series),
            minute: Minute(row.minute),
            count: row.count,
            unwritten: row.unwritten == 1,
        })
    };
    rows.into_iter().map(cell).collect()
}

fn stats(payload: &[u8], names: usize) -> Option<Vec<CellStats>> {
    let mut fields = FieldReader(payload);
    let mut stats = Vec::new();
    while !fields.is_done() {
        let (series, minute) = (fields.word()?, fields.word()?);
        stats.push((SeriesNo(series), Minute(minute), Stats::decode(&mut fields)?));
    }
    stats.iter().all(|(series, ..)| (series.0 as usize) < names).then_some(stats)
}

/// A letter: partition 4, offset 8, reason 4, cause 4, append time 1 or 9, has a key 1 or 9 (its length), key and
/// payload each length 4 and bytes, number of headers 4, and per header its name, has a value 1 or 9 (its length), value.
fn put_letter(fields: &mut Fields, letter: &DeadLetter) {
    let (reason, cause) = match letter.reason {
        Reason::Oversize => (0, 0),
        Reason::Malformed(cause) => {
            (1, CAUSES.iter().position(|known| *known == cause).expect("every cause is listed"))
        }
        Reason::Future => (2, 0),
        Reason::Late => (3, 0),
        Reason::Behind => (4, 0),
    };
    let key = letter.key.as_deref();
    fields.word(letter.partition.0).long(letter.offset).word(reason).word(cause as u32).maybe(letter.append_time);
    put_maybe_bytes(fields, key);
    fields.bytes(&letter.payload).word(letter.headers.len() as u32);
    for (name, value) in &letter.headers {
        put_maybe_bytes(fields.bytes(name.as_bytes()), value.as_deref());
    }
}

fn put_maybe_bytes(fields: &mut Fields, bytes: Option<&[u8]>) {
    fields.maybe(bytes.map(|bytes| bytes.len() as u64)).bytes(bytes.unwrap_or_default());
}

fn take_maybe_bytes(fields: &mut FieldReader<'_>) -> Option<Option<Vec<u8>>> {
    let is_there = fields.maybe()?.is_some();
    let bytes = fields.bytes()?;
    Some(is_there.then(|| bytes.to_vec()))
}

/// The causes by their stored numbers: only ever added to.
const CAUSES: [Cause; 8] = [
    Cause::Utf8,
    Cause::Json,
    Cause::Depth,
    Cause::RepeatedField,
    Cause::Missing,
    Cause::Type,
    Cause::Range,
    Cause::Empty,
];

/// What is ruled by its stored numbers: only ever added to.
const RULED: [Ruled; 3] = [Ruled::Late, Ruled::Repeat, Ruled::Counted];

fn rulings(payload: &[u8]) -> Option<Vec<Ruling>> {
    let mut fields = FieldReader(payload);
    let mut rulings = Vec::new();
    while !fields.is_done() {
        let (partition, ruled) = (PartitionId(fields.word()?), *RULED.get(fields.word()? as usize)?);
        rulings.push(Ruling { partition, offset: fields.long()?, ruled });
    }
    Some(rulings)
}

fn letters(payload: &[u8]) -> Option<Vec<DeadLetter>> {
    let mut fields = FieldReader(payload);
    let mut letters = Vec::new();
    while !fields.is_done() {
        let (partition, offset) = (PartitionId(fields.word()?), fields.long()?);
        let (reason, cause) = (fields.word()?, *CAUSES.get(fields.word()? as usize)?);
        let reason = match reason {
            0 => Reason::Oversize,
            1 => Reason::Malformed(cause),
            2 => Reason::Future,
            3 => Reason::Late,
            4 => Reason::Behind,
            _ => return None,
        };
        let append_time = fields.maybe()?;
        let key = take_maybe_bytes(&mut fields)?;
        let payload = fields.bytes()?.to_vec();
        let mut headers = Vec::new();
        for _ in 0..fields.word()? {
            headers.push((fields.text()?.to_owned(), take_maybe_bytes(&mut fields)?));
        }
        letters.push(DeadLetter { partition, offset, reason, append_time, key, headers, payload });
    }
    Some(letters)
}

/// The key group of a section's number.
pub fn group(number: usize) -> KeyGroup {
    KeyGroup(u8::try_from(number).expect("there are 128 key groups"))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::functions::{Kept, stats::Detail};

    fn some_stats() -> Stats {
        let mut stats = Stats::default();
        stats.add(Detail { kept: Kept::ALL, value: Some(12.5), user: Some(7) });
        stats
    }

    pub(crate) fn sample() -> PartState {
        let mut state = PartState::default();
        state.groups[3] = GroupState {
            names: vec![("v\u{1F600}".into(), "view".into()), ("v2".into(), "like".into())],
            ids: [RememberedId { id: [u64::MAX, 7], minute: Minute(9) }].into_iter().collect(),
            cells: vec![
                CellState { series: SeriesNo(1), minute: Minute(9), count: u64::MAX, unwritten: true },
                CellState { series: SeriesNo(0), minute: Minute(10), count: 1, unwritten: false },
            ],
            stats: vec![(SeriesNo(0), Minute(10), some_stats()), (SeriesNo(1), Minute(9), Stats::default())],
        };
        state.groups[127].ids = [RememberedId { id: [1, 2], minute: Minute(0) }].into_iter().collect();
        let letter = |reason, key, append_time| DeadLetter {
            partition: PartitionId(2),
            offset: 1 << 40,
            reason,
            append_time,
            key,
            headers: vec![("a".to_owned(), Some(vec![0xff])), ("b".to_owned(), None)],
            payload: vec![0, 255, 10],
        };
        state.letters = vec![
            letter(Reason::Malformed(Cause::Empty), None, None),
            letter(Reason::Late, Some(vec![]), Some(5)),
            letter(Reason::Behind, None, Some(6)),
            letter(Reason::Oversize, Some(vec![1]), Some(0)),
            letter(Reason::Future, None, Some(u64::MAX)),
        ];
        let ruling = |offset, ruled| Ruling { partition: PartitionId(2), offset, ruled };
        state.rulings = vec![ruling(0, Ruled::Late), ruling(1 << 40, Ruled::Repeat), ruling(u64::MAX, Ruled::Counted)];
        state
    }

    #[test]
    fn a_part_comes_back_as_it_was_written() {
        assert_eq!(PartState::decode(&sample().encode()), Ok(sample()));
    }

    #[test]
    fn windows_that_leave_take_the_names_that_no_other_window_has() {
        let mut state = sample();
        state.keep_from(Minute(0));
        assert_eq!(state, sample());
        state.keep_from(Minute(10));
        let group = &state.groups[3];
        assert_eq!(group.names, [("v\u{1F600}".into(), "view".into())]);
        assert_eq!(group.cells.iter().map(|cell| (cell.series.0, cell.minute.0)).collect::<Vec<_>>(), [(0, 10)]);
        assert_eq!(group.stats, [(SeriesNo(0), Minute(10), some_stats())]);
        assert_eq!(group.ids, sample().groups[3].ids, "ids have a memory of their own");
    }

    #[test]
    fn a_cell_without_a_name_is_refused() {
        let mut state = sample();
        state.groups[3].cells[0].series = SeriesNo(2);
        let error = PartState::decode(&state.encode()).expect_err("its series does not exist");
        assert!(matches!(error, FrameError::Content { what: "a cell without a name", .. }), "{error}");
    }
}
