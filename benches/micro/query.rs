//! Whole questions about a day of minutes of one video: what answers over HTTP are made of, and the way of a question whose video a worker
//! of another process owns.

use dataflows::{
    functions::{Function, Kept},
    query::Answer,
};
use divan::{Bencher, black_box, counter::ItemsCount};
use rand::RngExt as _;

use crate::{
    day::{Day, MINUTES, VIDEOS},
    inputs,
};

/// Beside the workers, as all of one process are: a quantile of each minute.
#[divan::bench]
fn quantiles(bencher: Bencher) {
    let (day, mut dice) = (Day::counted(), inputs::dice(9));
    let next = || day.question(dice.random_range(0..VIDEOS), Function::P99.needs());
    bencher.counter(ItemsCount::new(MINUTES)).with_inputs(next).bench_local_refs(|question| {
        let Some(Answer::Functions(cells)) = day.snapshots.answer(question) else { panic!("it is known") };
        assert_eq!(cells.len(), MINUTES as usize);
        for (cell, stats) in &cells {
            black_box(Function::P99.of(cell.count, stats));
        }
    });
}

/// Through the dataflow: to the owner's operator, and back.
#[divan::bench]
fn through_the_dataflow(bencher: Bencher) {
    let (mut day, mut dice) = (Day::counted(), inputs::dice(10));
    let question = |video| day.question(video, Kept::NONE);
    let questions: Vec<_> = (0..VIDEOS).map(question).collect();
    let next = || questions[dice.random_range(0..questions.len())].clone();
    bencher.counter(ItemsCount::new(MINUTES)).with_inputs(next).bench_local_values(|question| {
        let answer = day.ask(question);
        assert!(matches!(&answer, Answer::Cells(cells) if cells.len() == MINUTES as usize));
        answer
    });
}
