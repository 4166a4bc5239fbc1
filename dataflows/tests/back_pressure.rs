//! A slow sink stops reading once as much waits for it as may; and never for rows that it would not be given anyway.

mod harness;

use std::{sync::Arc, time::Duration};

use dataflows::{graph::Start, port::PartitionId, rules::Rules};
use harness::{Live, Log, Setup};

const RECORDS: u64 = 200;

/// Cells that may wait. Some more are read before all have heard that so many do: less than as many again.
const UNWRITTEN_MAX: usize = 20;
const READ_MAX: u64 = 2 * UNWRITTEN_MAX as u64;

/// Nothing has come for so long: the job stands still.
const STILL: Duration = Duration::from_millis(300);

/// Every event in a window of its own, a minute after the one before.
fn log() -> Log {
    let record = |n: u64| {
        let timestamp = 10_000_000 + n * 60_000;
        let payload = format!(r#"{{"event_id":"e{n}","video_id":"v","event_type":"view","timestamp":{timestamp}}}"#);
        oracle::Record { append_time_ms: None, payload: payload.into_bytes() }
    };
    Arc::new(vec![(0..RECORDS).map(record).collect()])
}

fn setup(log: &Log) -> Setup {
    let rules = Rules { idle_after_ms: 20, ..Rules::default() };
    Setup::new(rules, log, 1, 1, Arc::new(Start::fresh([PartitionId(0)])))
}

/// Waits until the job stands still; says whether too much waits then, by what it has told last.
fn is_full_when_still(live: &Live) -> bool {
    while let Ok(event) = live.events.recv_timeout(STILL) {
        live.heed(&event);
    }
    live.is_full()
}

#[test]
fn with_as_much_unwritten_as_may_be_nothing_is_read_until_a_cut_takes_it() {
    let log = log();
    let live = Live::start(Setup { unwritten_max: UNWRITTEN_MAX, ..setup(&log) });
    assert!(is_full_when_still(&live), "a checkpoint is asked for");
    let (mut read, mut cuts) = (0, 0);
    while let Some((start, _)) = live.checkpoint() {
        let before = std::mem::replace(&mut read, start.partitions.0[&PartitionId(0)].ledger.read);
        assert!(read < before + READ_MAX, "{read} records are read after {cuts} cuts, {before} before the last");
        cuts += 1;
        is_full_when_still(&live);
    }
    assert!(!live.is_full(), "there is room where all is taken");
    assert!(read == RECORDS && RECORDS / READ_MAX <= cuts, "{cuts} cuts took {read} records");
    live.crash();
}

/// Behind a frontier that the sink has reached no cut takes rows, so waiting for one waited for ever.
#[test]
fn regression_what_the_sink_has_newer_rows_of_stops_nobody() {
    let log = log();
    let live = Live::start(Setup { unwritten_max: UNWRITTEN_MAX, write_from: u64::MAX, ..setup(&log) });
    assert_eq!(live.settle(&log).ledger().counted, RECORDS);
    live.crash();
}
