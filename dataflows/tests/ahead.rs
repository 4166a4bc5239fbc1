//! A partition whose clock has gone far ahead, and another one that is busy far behind it.

#![allow(clippy::disallowed_methods, reason = "a feed in real time, beside the job")]

mod harness;

use std::{sync::Arc, thread, time::Duration};

use dataflows::{graph::Start, port::PartitionId};
use harness::{Appended, Event, Live, Log, Setup, drafts::rules};

const NOON: u64 = 1_767_268_800_000;

/// So many, a millisecond apart in both times: longer than it takes to be drained is never between them.
const BUSY: usize = 3_000;

fn record(id: usize, at: u64) -> oracle::Record {
    let payload = format!("{{\"event_id\":\"e{id}\",\"video_id\":\"v0\",\"event_type\":\"view\",\"timestamp\":{at}}}");
    oracle::Record { payload: payload.into_bytes(), append_time_ms: None }
}

/// Its counts stood still until its clock was where the other one is: in torture for two minutes.
#[test]
fn regression_what_a_busy_partition_brings_is_visible_while_another_clock_is_far_ahead() {
    let busy = (0..=BUSY).map(|id| record(id, NOON + id as u64)).collect();
    let ahead = vec![record(10_000, NOON), record(10_001, NOON + 290_000)];
    let log: Log = Arc::new(vec![busy, ahead]);
    for workers in [1, 2] {
        let appended = Appended::none(&log);
        let start = Arc::new(Start::fresh([0, 1].map(PartitionId)));
        let setup = Setup { appended: appended.clone(), ..Setup::new(rules(), &log, workers, 17, start) };
        let live = Live::start(setup);
        appended.append(&log, 0, 1);
        appended.append(&log, 1, 2);
        let before = live.settle_at(&appended.ends());
        assert!(NOON + 290_000 < before.frontier, "all were drained");
        let feed = {
            let (log, appended) = (Arc::clone(&log), appended.clone());
            thread::spawn(move || {
                for _ in 0..BUSY {
                    appended.append(&log, 0, 1);
                    thread::sleep(Duration::from_millis(1));
                }
            })
        };
        let visible = loop {
            if let Event::Told(at) = live.next()
                && 1 < at.partitions[0].ledger.counted
            {
                break at.partitions[0].ledger.counted;
            }
        };
        let sent = appended.ends()[0];
        println!("{visible} are visible when {sent} are sent");
        assert!(sent < BUSY as u64, "{visible} visible only when {sent} were sent");
        feed.join().unwrap();
        live.settle(&log);
        live.crash();
    }
}
