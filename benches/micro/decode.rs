//! From a line to an event.

use connectors::json::JsonEvents;
use dataflows::port::Decode as _;
use divan::{
    Bencher, black_box,
    counter::{BytesCount, ItemsCount},
};

use crate::inputs;

/// As many as fit into the second cache: what a reader has just read is there.
const LINES: usize = 2_048;

/// As `tidemark produce` writes them: verified and not parsed.
#[divan::bench]
fn own_order(bencher: Bencher) {
    let mut dice = inputs::dice(1);
    decode(bencher, (0..LINES).map(|_| inputs::fields(&mut dice)));
}

/// The general parser's.
#[divan::bench]
fn any_order(bencher: Bencher) {
    let mut dice = inputs::dice(1);
    decode(bencher, (0..LINES).map(|_| inputs::shuffled(&mut dice)));
}

fn decode(bencher: Bencher, events: impl Iterator<Item = [String; 6]>) {
    let lines: Vec<String> = events.map(|fields| format!("{{{}}}", fields.join(","))).collect();
    assert!(lines.iter().all(|line| JsonEvents.decode(line.as_bytes()).is_ok()), "each is an event");
    let bytes: usize = lines.iter().map(String::len).sum();
    bencher.counter(ItemsCount::new(lines.len())).counter(BytesCount::new(bytes)).bench_local(|| {
        for line in &lines {
            let event = JsonEvents.decode(black_box(line.as_bytes()));
            black_box(&event);
        }
    });
}
