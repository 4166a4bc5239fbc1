//! The index: what a step adds to it, and a day of minutes of one video read from it.

use dataflows::{
    functions::Kept,
    index::{Measures, index},
    query::Answer,
    time::{EventTime, Minute},
};
use differential_dataflow::trace::TraceReader as _;
use divan::{Bencher, counter::ItemsCount};
use rand::RngExt as _;
use timely::{
    dataflow::{
        InputHandleVec, ProbeHandle,
        operators::{Input as _, Probe as _},
    },
    progress::Antichain,
};

use crate::{
    day::{Day, MINUTES, VIDEOS},
    inputs::{self, FIRST},
    worker::worker,
};

/// Windows that change in a step.
const INCREMENTS: usize = 8_192;

/// Steps of a minute of stream time, which is as long as history is kept.
const STEPS: u64 = 6;

/// Until they are arranged, what older batches have to be merged with them included.
#[divan::bench(sample_size = 1)]
fn insert(bencher: Bencher) {
    let mut dice = inputs::dice(7);
    let mut worker = worker();
    let mut input = InputHandleVec::new();
    let probe = ProbeHandle::new();
    let mut trace = worker.dataflow::<EventTime, _, _>(|scope| {
        let arranged = index(scope.input_from(&mut input), "Index");
        arranged.stream.probe_with(&probe);
        arranged.trace
    });
    let mut step = 0;
    let next = || {
        step += 1;
        let series = inputs::series(&mut dice, INCREMENTS);
        let minute = Minute(FIRST.0 + (step / STEPS) as u32);
        (step, series.into_iter().map(|series| ((series, minute), step - 1, Measures::counted(1))).collect::<Vec<_>>())
    };
    bencher.counter(ItemsCount::new(INCREMENTS)).with_inputs(next).bench_local_refs(|(step, increments)| {
        input.send_batch(increments);
        input.advance_to(*step);
        worker.step_while(|| probe.less_than(step));
        trace.set_logical_compaction(Antichain::from_elem(step.saturating_sub(STEPS)).borrow());
        trace.set_physical_compaction(Antichain::from_elem(*step).borrow());
    });
}

/// The counts of one video.
#[divan::bench]
fn day_of_minutes(bencher: Bencher) {
    let (day, mut dice) = (Day::counted(), inputs::dice(8));
    let next = || day.question(dice.random_range(0..VIDEOS), Kept::NONE);
    bencher.counter(ItemsCount::new(MINUTES)).with_inputs(next).bench_local_refs(|question| {
        let answer = day.snapshots.answer(question);
        assert!(matches!(&answer, Some(Answer::Cells(cells)) if cells.len() == MINUTES as usize));
        answer
    });
}
