//! What a window costs in memory, by an allocator that counts: `memory_per_row [CELLS]`.
//!
//! Cells come as a live job gives them: a step of stream time has a hundred thousand, by series and minute. Then the same once more, all of
//! them at each of several frontiers that may still be asked for, as history within `index.as_of` is.

#![expect(clippy::print_stdout, reason = "it is what this is for")]

use std::{alloc::System, env};

use cap::Cap;
use dataflows::{
    functions::{
        Kept,
        stats::{Detail, Stats},
    },
    index::{Measures, index},
    series::SeriesNo,
    time::{EventTime, Minute},
    window::Counts,
};
use differential_dataflow::{difference::Semigroup, trace::TraceReader};
use timely::{
    WorkerConfig,
    dataflow::{
        InputHandleVec, ProbeHandle,
        operators::{Input as _, Probe as _},
    },
    progress::Antichain,
};

#[global_allocator]
static ALLOCATOR: Cap<System> = Cap::new(System, usize::MAX);

/// Minutes of each series.
const MINUTES: u32 = 1_000;
const CELLS_A_STEP: u32 = 100_000;
/// Frontiers of the history that is kept.
const HISTORY: u64 = 10;

fn cell(number: u32) -> (SeriesNo, Minute) {
    // Videos side by side, minute after minute.
    (SeriesNo(number / MINUTES), Minute(number % MINUTES))
}

/// Bytes that an index of so many cells holds, each updated at so many frontiers that may be asked for.
fn index_bytes<R: Semigroup + Ord + 'static>(
    cells: u32,
    history: u64,
    difference: impl Fn(u32) -> R + Send + Sync + 'static,
) -> usize {
    let mut config = WorkerConfig::default();
    let effort = differential_dataflow::Config::default().idle_merge_effort(Some(1_000));
    differential_dataflow::configure(&mut config, &effort);
    let config = timely::Config { communication: timely::CommunicationConfig::Thread, worker: config };
    let done = timely::execute(config, move |worker| {
        let before = ALLOCATOR.allocated();
        let mut input = InputHandleVec::<EventTime, ((SeriesNo, Minute), EventTime, R)>::new();
        let probe = ProbeHandle::new();
        let mut trace = worker.dataflow(|scope| {
            let arranged = index(scope.input_from(&mut input), "Index");
            arranged.stream.probe_with(&probe);
            arranged.trace
        });
        let mut time = 0;
        for _ in 0..history {
            for first in (0..cells).step_by(CELLS_A_STEP as usize) {
                (first..cells.min(first + CELLS_A_STEP))
                    .for_each(|number| input.send((cell(number), time, difference(number))));
                time += 1;
                input.advance_to(time);
                worker.step_while(|| probe.less_than(&time));
                let upper = Antichain::from_elem(time);
                // The last pass of all may be merged into one, where there is no history.
                let since = if history == 1 { time } else { 0 };
                trace.set_logical_compaction(Antichain::from_elem(since).borrow());
                trace.set_physical_compaction(upper.borrow());
            }
        }
        // Until it has nothing to merge any more.
        (0..100_000).for_each(|_| {
            worker.step();
        });
        let bytes = ALLOCATOR.allocated() - before;
        drop((input, trace));
        bytes
    });
    let bytes = done.map(|guards| guards.join().into_iter().map(Result::unwrap_or_default).sum());
    bytes.unwrap_or_default()
}

fn stats(number: u32) -> Stats {
    let mut stats = Stats::default();
    let (value, user) = (Some(f64::from(number % 300) / 4.0), Some(u64::from(number)));
    stats.add(Detail { kept: Kept::ALL, value, user });
    stats
}

fn main() {
    let cells: u32 = env::args().nth(1).and_then(|text| text.parse().ok()).unwrap_or(2_000_000);
    let per_cell = |bytes: usize| bytes as f64 / f64::from(cells);
    let before = ALLOCATOR.allocated();
    let mut counts = Counts::new(true);
    for number in 0..cells {
        let (series, minute) = cell(number);
        counts.add(series, minute);
    }
    counts.take_unsent().for_each(drop);
    counts.take_changed(true, drop);
    println!("state, counts: {:.1} bytes a window", per_cell(ALLOCATOR.allocated() - before));
    drop(counts);
    println!(
        "index, counts: {:.1} bytes a window",
        per_cell(index_bytes(cells, 1, |number| Measures::counted(1 + number % 5)))
    );
    let history = per_cell(index_bytes(cells / 10, HISTORY, |number| Measures::counted(1 + number % 5)));
    println!("index, counts, of {HISTORY} frontiers each: {:.1} bytes an update", history * 10.0 / HISTORY as f64);
    let functions = per_cell(index_bytes(cells / 10, 1, stats)) * 10.0;
    println!("index, all functions, of one event each: {functions:.1} bytes a window beside that");
}
