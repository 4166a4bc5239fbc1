//! Verdicts on events whose identities are new, or known; as the tally asks for them, a block's memory fetched before it is judged.

use std::cell::RefCell;

use dataflows::{
    dedup::{Remembered, RememberedId, Verdict},
    identity::{KEY_GROUPS, KeyGroup},
    time::Minute,
};
use divan::{Bencher, counter::ItemsCount};
use rand::{RngExt as _, seq::SliceRandom as _};

use crate::inputs::{self, FIRST, STEP_EVENTS};

/// Minutes that are remembered, with a step of events each: about a million ids, more than caches hold.
const MINUTES: u32 = 16;

/// Rows that are fetched together, as in the tally.
const BLOCK_ROWS: usize = 64;

type Id = (KeyGroup, RememberedId);

/// Each minute has a step of them, and one minute is forgotten for it, so the table stays as large as it is.
#[divan::bench(sample_size = 1)]
fn new_ids(bencher: Bencher) {
    let mut dice = inputs::dice(2);
    let (remembered, _) = remembered();
    let remembered = RefCell::new(remembered);
    let mut minute = Minute(FIRST.0 + MINUTES);
    let next = || {
        // As a checkpoint does, from time to time.
        take_changes(&mut remembered.borrow_mut());
        minute.0 += 1;
        inputs::ids(&mut dice, STEP_EVENTS, minute)
    };
    bencher.counter(ItemsCount::new(STEP_EVENTS)).with_inputs(next).bench_local_refs(|ids| {
        let mut remembered = remembered.borrow_mut();
        let first = Minute(ids[0].1.minute.0 - MINUTES);
        remembered.sweep(first);
        assert_eq!(judge(&mut remembered, ids, first), [ids.len(), 0]);
    });
}

/// From all over the table.
#[divan::bench(sample_size = 1)]
fn repeated_ids(bencher: Bencher) {
    let mut dice = inputs::dice(3);
    let (mut remembered, mut known) = remembered();
    known.shuffle(&mut dice);
    let next = || {
        let begin = dice.random_range(0..known.len() - STEP_EVENTS);
        known[begin..begin + STEP_EVENTS].to_vec()
    };
    bencher.counter(ItemsCount::new(STEP_EVENTS)).with_inputs(next).bench_local_refs(|ids| {
        assert_eq!(judge(&mut remembered, ids, FIRST), [0, ids.len()]);
    });
}

/// A table with all minutes full, and what is in it.
fn remembered() -> (Remembered, Vec<Id>) {
    let mut dice = inputs::dice(4);
    let mut remembered = Remembered::default();
    let step = |minute| inputs::ids(&mut dice, STEP_EVENTS, Minute(FIRST.0 + minute));
    let known: Vec<Id> = (0..MINUTES).flat_map(step).collect();
    judge(&mut remembered, &known, FIRST);
    take_changes(&mut remembered);
    (remembered, known)
}

fn take_changes(remembered: &mut Remembered) {
    (0..KEY_GROUPS).for_each(|group| drop(remembered.take_changes(KeyGroup(group as u8))));
}

/// How many are counted, and how many are duplicates.
fn judge(remembered: &mut Remembered, ids: &[Id], first: Minute) -> [usize; 2] {
    let mut verdicts = [0; 2];
    for block in ids.chunks(BLOCK_ROWS) {
        block.iter().for_each(|(group, known)| remembered.prefetch(*group, known.id));
        for (group, known) in block {
            let verdict = remembered.judge(*group, known.id, known.minute, first, false);
            verdicts[usize::from(verdict == Verdict::Duplicate)] += 1;
        }
    }
    verdicts
}
