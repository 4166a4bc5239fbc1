//! Counts of one-minute windows.

use std::cell::RefCell;

use dataflows::{time::Minute, window::Counts};
use divan::{Bencher, black_box, counter::ItemsCount};

use crate::inputs::{self, FIRST, STEP_EVENTS};

/// Windows that stay in memory.
const MINUTES: u32 = 16;

/// A step of events into the next window, and what the index is given of them.
#[divan::bench(sample_size = 1)]
fn count(bencher: Bencher) {
    let mut dice = inputs::dice(5);
    let counts = RefCell::new(Counts::new(true));
    let mut minute = FIRST;
    let next = || {
        minute.0 += 1;
        let mut counts = counts.borrow_mut();
        // As with a checkpoint whose rows were written: what is old leaves.
        counts.finish(Minute(minute.0 - MINUTES).start());
        counts.take_changed(true, |cell| _ = black_box(cell));
        drop(counts.leave(Minute(minute.0 - MINUTES)));
        (minute, inputs::series(&mut dice, STEP_EVENTS))
    };
    bencher.counter(ItemsCount::new(STEP_EVENTS)).with_inputs(next).bench_local_refs(|(minute, events)| {
        let mut counts = counts.borrow_mut();
        events.iter().for_each(|series| counts.add(*series, *minute));
        counts.take_unsent().for_each(|increment| _ = black_box(increment));
    });
}
