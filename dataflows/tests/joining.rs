//! A partition that is added while the job runs: it joins without moving time back, and what is final stays so.

mod harness;

use std::{collections::BTreeMap, sync::Arc};

use dataflows::{
    announce::{Announcement, Partitions},
    control::Message,
    event::Reason,
    graph::Start,
    port::PartitionId,
    rules::Rules,
};
use harness::{Event, Live, Log, Setup};

const MINUTE: u64 = 60_000;

/// Where the partitions that were there all along stand when the new one joins.
const NOON: u64 = 720 * MINUTE;

fn rules() -> Rules {
    Rules { lateness_ms: 10 * MINUTE, remember_ms: 10 * MINUTE, idle_after_ms: 20, ..Rules::default() }
}

fn record(video: &str, id: &str, timestamp: u64) -> oracle::Record {
    let payload = format!(r#"{{"event_id":"{id}","video_id":"{video}","event_type":"view","timestamp":{timestamp}}}"#);
    oracle::Record { append_time_ms: None, payload: payload.into_bytes() }
}

/// Two partitions whose least clock is noon, and one to be added.
fn log(added: &[(&str, u64)]) -> Log {
    let added = added.iter().map(|(id, timestamp)| record("new", id, *timestamp)).collect();
    Arc::new(vec![vec![record("a", "1", NOON)], vec![record("b", "1", NOON + MINUTE)], added])
}

fn start(log: &Log, start: Start, workers: usize) -> Live {
    Live::start(Setup::new(rules(), log, workers, 7, Arc::new(start)))
}

/// Waits until all partitions of the log are read and visible; the watermark must not go back on the way.
fn settle(live: &Live, log: &Log, watermark: &mut u64) -> Announcement {
    loop {
        let Event::Told(announcement) = live.next() else { continue };
        assert!(*watermark <= announcement.watermark, "the watermark went back to {}", announcement.watermark);
        *watermark = announcement.watermark;
        let read = |at: &dataflows::announce::PartitionAt| at.next_offset == log[at.partition.0 as usize].len() as u64;
        if announcement.partitions.len() == log.len() && announcement.partitions.iter().all(read) {
            return announcement;
        }
    }
}

fn known(partitions: &Partitions, partition: u32) -> BTreeMap<&'static str, u64> {
    let at = &partitions.0[&PartitionId(partition)];
    BTreeMap::from([("counted", at.ledger.counted), ("duplicate", at.ledger.duplicate), ("late", at.ledger.late)])
}

#[test]
fn a_partition_joins_a_quiet_job_and_only_what_is_behind_the_watermark_of_that_moment_is_late() {
    let floor = NOON - 10 * MINUTE;
    let log = log(&[("1", floor - 1), ("2", floor), ("3", floor + MINUTE), ("2", floor), ("4", NOON + 2 * MINUTE)]);
    for workers in [1, 2] {
        let live = start(&log, Start::fresh([0, 1].map(PartitionId)), workers);
        // Everything is read and quiet: only then the new one joins.
        let two = Arc::new(log[..2].to_vec());
        let mut watermark = 0;
        settle(&live, &two, &mut watermark);
        assert_eq!(watermark, floor);
        live.mailbox.tell(Message::Joined(PartitionId(2)));
        live.mailbox.tell(Message::Joined(PartitionId(2)));
        settle(&live, &log, &mut watermark);
        let (resumed, cuts) = live.checkpoint().expect("it has changed");
        let counts = BTreeMap::from([("counted", 3), ("duplicate", 1), ("late", 1)]);
        assert_eq!(known(&resumed.partitions, 2), counts, "{workers} workers");
        let letters: Vec<_> = cuts.iter().flat_map(|cut| &cut.part.letters).map(|letter| letter.reason).collect();
        assert_eq!(letters, [Reason::Behind]);
        live.crash();
    }
}

#[test]
fn what_was_behind_stays_behind_after_a_restart() {
    let floor = NOON - 10 * MINUTE;
    let log = log(&[("1", NOON - 9 * MINUTE), ("2", floor - 1)]);
    let first = Arc::new(vec![log[0].clone(), log[1].clone(), log[2][..1].to_vec()]);
    let live = start(&first, Start::fresh([0, 1].map(PartitionId)), 1);
    let mut watermark = 0;
    settle(&live, &Arc::new(log[..2].to_vec()), &mut watermark);
    live.mailbox.tell(Message::Joined(PartitionId(2)));
    settle(&live, &first, &mut watermark);
    let (resumed, _) = live.checkpoint().expect("it has changed");
    live.crash();
    let live = start(&log, resumed, 2);
    let at = settle(&live, &log, &mut watermark);
    assert_eq!((at.partitions[2].ledger.counted, at.partitions[2].ledger.late), (1, 1));
    live.crash();
}
