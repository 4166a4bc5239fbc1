//! A part of a checkpoint: what one worker's state is in bytes, and back.

use dataflows::{
    checkpoint::part::{GroupState, PartState},
    identity::KEY_GROUPS,
    pages::IdPages,
    series::SeriesNo,
    time::Minute,
    window::CellState,
};
use divan::{
    Bencher,
    counter::{BytesCount, ItemsCount},
};
use rand::RngExt as _;

use crate::inputs::{self, FIRST};

/// Of each key group.
const IDS: usize = 4_096;
const NAMES: u32 = 64;
const MINUTES: u32 = 8;

/// Events of a window, of which its functions are made.
const EVENTS: u64 = 8;

#[divan::bench]
fn encode(bencher: Bencher) {
    let part = part();
    let bytes = part.encode().len();
    bencher.counter(ItemsCount::new(items(&part))).counter(BytesCount::new(bytes)).bench_local(|| part.encode());
}

#[divan::bench]
fn decode(bencher: Bencher) {
    let part = part();
    let bytes = part.encode();
    assert_eq!(PartState::decode(&bytes).ok().as_ref(), Some(&part), "it comes back as it was");
    bencher
        .counter(ItemsCount::new(items(&part)))
        .counter(BytesCount::new(bytes.len()))
        .bench_local(|| PartState::decode(&bytes));
}

/// How many ids and windows there are.
fn items(part: &PartState) -> usize {
    part.groups.iter().map(|group| group.ids.len() + group.cells.len()).sum()
}

fn part() -> PartState {
    let mut dice = inputs::dice(6);
    let mut group = |number| {
        let ids = inputs::ids(&mut dice, IDS, FIRST).into_iter();
        let ids: IdPages = ids.map(|(_, known)| known).collect();
        let names = (0..NAMES).map(|name| (format!("v{:07}", number * NAMES + name).into(), "view".into())).collect();
        let windows =
            (0..NAMES).flat_map(|name| (0..MINUTES).map(move |minute| (SeriesNo(name), Minute(FIRST.0 + minute))));
        let cell = |(series, minute)| CellState { series, minute, count: EVENTS, unwritten: dice.random() };
        let cells: Vec<CellState> = windows.map(cell).collect();
        let stats = cells.iter().map(|cell| (cell.series, cell.minute, inputs::stats(&mut dice, EVENTS))).collect();
        GroupState { names, ids, cells, stats }
    };
    PartState { groups: (0..KEY_GROUPS as u32).map(&mut group).collect(), ..PartState::default() }
}
