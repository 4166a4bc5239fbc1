//! The one thing that holds the flow back, in words.
//!
//! Several may be slow at once, each because of another. They are asked in an order in which each is a reason for those behind
//! it: who mends the first one named gets the most.

use std::time::Duration;

/// Rows that take less are just being written.
const SINK_WAITS_FOR: Duration = Duration::from_secs(1);

/// What the parts of a process say of themselves.
#[derive(Debug, Default)]
pub struct Flow {
    /// A worker that has not moved, and for how many ms.
    pub stalled: Option<(usize, u64)>,
    /// For how long the log has not answered.
    pub away: Option<Duration>,
    /// Why the last try to write state failed.
    pub trouble: Option<String>,
    /// Rows that the sink has been given and not taken yet.
    pub waiting: Option<WaitingRows>,
    /// As many changed windows wait for the sink as may: nobody reads.
    pub is_full: bool,
    /// Partitions that an unfinished transaction holds up.
    pub held_up: Vec<u32>,
    /// Events were refused a moment ago, since the log's queue was full.
    pub refuses: bool,
    /// Of each partition.
    pub behind: Vec<Behind>,
}

/// Rows on their way into the sink.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WaitingRows {
    pub sink: &'static str,
    pub rows: usize,
    pub lasting: Duration,
}

/// What of a partition is not visible yet.
#[derive(Clone, Debug)]
pub struct Behind {
    pub partition: u32,
    pub records: u64,
    pub has_clock: bool,
}

impl Flow {
    /// Names it.
    pub fn bottleneck(&self) -> String {
        self.of_a_part()
            .or_else(|| self.of_a_partition())
            .or_else(|| {
                self.refuses.then(|| "the door: it refuses events with 429, since the log's queue is full".to_owned())
            })
            .or_else(|| self.reading())
            .unwrap_or_else(|| "nothing: every record in the log is visible".to_owned())
    }

    fn of_a_part(&self) -> Option<String> {
        if let Some((worker, age_ms)) = self.stalled {
            return Some(stalled_text(worker, age_ms));
        }
        if let Some(away) = self.away {
            return Some(away_text(away));
        }
        let paused = if self.is_full { "; reading is paused" } else { "" };
        if let Some(WaitingRows { sink, rows, lasting }) = self.long_waiting() {
            let why = self.trouble.as_ref().map(|trouble| format!(" ({trouble})")).unwrap_or_default();
            return Some(format!("sink: {rows} rows wait for {sink} since {} s{why}{paused}", lasting.as_secs()));
        }
        if let Some(trouble) = &self.trouble {
            return Some(format!("{}{paused}", unwritten_text(trouble)));
        }
        self.is_full.then(|| "sink: as many rows wait for a checkpoint as may; reading is paused".to_owned())
    }

    fn long_waiting(&self) -> Option<&WaitingRows> {
        self.waiting.as_ref().filter(|waiting| SINK_WAITS_FOR <= waiting.lasting)
    }

    fn of_a_partition(&self) -> Option<String> {
        if let Some(partition) = self.held_up.first() {
            return Some(format!("partition {partition}: an unfinished transaction holds it up"));
        }
        // One alone is just being read.
        let waiting = self.behind.iter().filter(|behind| 0 < behind.records).count();
        let without_clock = self.behind.iter().find(|behind| !behind.has_clock && 0 < behind.records);
        without_clock.filter(|_| 1 < waiting).map(|Behind { partition, records, .. }| {
            format!("partition {partition}: it has no clock yet, {records} of its records are not visible, and it holds up the others")
        })
    }

    fn reading(&self) -> Option<String> {
        let most = self.behind.iter().max_by_key(|behind| (behind.records, behind.partition))?;
        (0 < most.records).then(|| {
            format!("reading: partition {} has {} records that are not visible yet", most.partition, most.records)
        })
    }
}

/// Of a worker, as it also makes the process unready.
pub fn stalled_text(worker: usize, age_ms: u64) -> String {
    format!("worker {worker} has not moved for {age_ms} ms")
}

/// The same of the log.
pub fn away_text(away: Duration) -> String {
    format!("the log has not answered for {} s", away.as_secs())
}

/// The same of checkpoints, rows and letters.
pub fn unwritten_text(trouble: &str) -> String {
    format!("state can't be written: {trouble}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waiting(seconds: u64) -> Option<WaitingRows> {
        Some(WaitingRows { sink: "Cassandra", rows: 7, lasting: Duration::from_secs(seconds) })
    }

    fn behind(of: &[(u64, bool)]) -> Vec<Behind> {
        (0..).zip(of).map(|(partition, &(records, has_clock))| Behind { partition, records, has_clock }).collect()
    }

    #[test]
    fn of_all_that_is_slow_the_first_reason_is_named_alone() {
        let mut flow = Flow {
            stalled: Some((1, 6_000)),
            away: Some(Duration::from_secs(12)),
            trouble: Some("no room".to_owned()),
            waiting: waiting(3),
            is_full: true,
            held_up: vec![2],
            refuses: true,
            behind: behind(&[(5, true), (9, true)]),
        };
        // what is named | and then mended
        type Row = (&'static str, fn(&mut Flow));
        let rows: [Row; 10] = [
            ("worker 1 has not moved for 6000 ms", |flow| flow.stalled = None),
            ("the log has not answered for 12 s", |flow| flow.away = None),
            ("sink: 7 rows wait for Cassandra since 3 s (no room); reading is paused", |flow| flow.waiting = None),
            ("state can't be written: no room; reading is paused", |flow| flow.is_full = false),
            ("state can't be written: no room", |flow| (flow.trouble, flow.is_full) = (None, true)),
            ("sink: as many rows wait for a checkpoint as may; reading is paused", |flow| flow.is_full = false),
            ("partition 2: an unfinished transaction holds it up", |flow| flow.held_up.clear()),
            ("the door: it refuses events with 429, since the log's queue is full", |flow| flow.refuses = false),
            ("reading: partition 1 has 9 records that are not visible yet", |flow| flow.behind = behind(&[(0, true)])),
            ("nothing: every record in the log is visible", |_| {}),
        ];
        for (named, mend) in rows {
            assert_eq!(flow.bottleneck(), named);
            mend(&mut flow);
        }
    }

    #[test]
    fn rows_that_are_just_being_written_are_no_bottleneck() {
        let written = |waiting| Flow { waiting, ..Flow::default() }.bottleneck();
        assert_eq!(written(waiting(0)), "nothing: every record in the log is visible");
        assert_eq!(written(waiting(1)), "sink: 7 rows wait for Cassandra since 1 s");
    }

    #[test]
    fn a_partition_without_a_clock_is_named_where_others_wait_for_it() {
        let named = |of| Flow { behind: behind(of), ..Flow::default() }.bottleneck();
        assert_eq!(named(&[(4, false), (0, true)]), "reading: partition 0 has 4 records that are not visible yet");
        assert_eq!(
            named(&[(9, true), (4, false)]),
            "partition 1: it has no clock yet, 4 of its records are not visible, and it holds up the others"
        );
        assert_eq!(named(&[(9, true), (0, false)]), "reading: partition 0 has 9 records that are not visible yet");
    }
}
