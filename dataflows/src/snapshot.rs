//! The index as threads outside the workers see it: a question about a video of this process takes no worker's turn.
//!
//! A worker puts a new snapshot up whenever its index has gone on. A snapshot is immutable, and whole: it has all updates at times
//! before `reached`, so an answer at a frontier that it has reached is the very one that the worker would give.

use std::{
    ops::Deref,
    sync::{Arc, PoisonError, RwLock},
};

use differential_dataflow::{
    difference::Semigroup,
    trace::{Cursor, Navigable, TraceReader},
};

use crate::{
    functions::{Kept, stats::Stats},
    index::{Measures, Spine},
    query::{Answer, Cell, Question},
    series::{SeriesNames, SeriesNo},
    time::{EventTime, Minute},
};

/// A batch of the index.
pub(crate) type Batch<R> = <Spine<R> as TraceReader>::Batch;

/// What reads one.
pub(crate) type BatchCursor<R> = <<Batch<R> as Deref>::Target as Navigable>::Cursor;

/// The batches of one worker's index at one moment.
pub(crate) struct Snapshot {
    pub(crate) counts: Vec<Batch<Measures>>,
    /// Where any are kept.
    pub(crate) functions: Option<Vec<Batch<Stats>>>,
    /// The oldest frontier that can be answered.
    pub(crate) oldest: EventTime,
    /// Complete up to here; `None`: the index has ended.
    pub(crate) reached: Option<EventTime>,
}

/// The newest snapshot of one worker's index.
#[derive(Clone, Default)]
pub struct Snapshots {
    pub(crate) series: SeriesNames,
    newest: Arc<RwLock<Option<Arc<Snapshot>>>>,
}

impl Snapshots {
    fn newest(&self) -> Option<Arc<Snapshot>> {
        self.newest.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Up to which frontier questions are answered: none until the first snapshot, `EventTime::MAX` once the index has ended.
    pub fn reached(&self) -> Option<EventTime> {
        self.newest().map(|snapshot| snapshot.reached.unwrap_or(EventTime::MAX))
    }

    /// Answers a question about a video that this worker owns; `None` where its `as_of` has not been reached.
    pub fn answer(&self, question: &Question) -> Option<Answer> {
        let snapshot = self.newest()?;
        let is_reached = snapshot.reached.is_none_or(|reached| question.as_of <= reached);
        is_reached.then(|| snapshot.answer(&self.series, question))
    }
}

/// Puts snapshots up, on the worker whose they are.
pub(crate) struct Publisher {
    pub(crate) snapshots: Snapshots,
    /// Those that somebody may still read.
    retired: Vec<Arc<Snapshot>>,
}

impl Publisher {
    pub(crate) fn new(snapshots: Snapshots) -> Self {
        Self { snapshots, retired: Vec::new() }
    }

    /// Puts a newer one up. Batches that were merged are freed here, once nobody reads them any more, and never by a reader: a
    /// large one takes a hundred milliseconds.
    pub(crate) fn publish(&mut self, snapshot: Snapshot) {
        let mut newest = self.snapshots.newest.write().unwrap_or_else(PoisonError::into_inner);
        let older = newest.replace(Arc::new(snapshot));
        drop(newest);
        self.retired.extend(older);
        // Nobody can take one of these any more, so a count of one stays so.
        self.retired.retain(|snapshot| 1 < Arc::strong_count(snapshot));
    }
}

impl Snapshot {
    /// The cells of one question, true at its `as_of`, which the snapshot has reached.
    pub(crate) fn answer(&self, series: &SeriesNames, question: &Question) -> Answer {
        if question.as_of < self.oldest {
            return Answer::Gone { oldest: self.oldest };
        }
        // Later than the batches: what they name is named.
        let series = series.read().find(&question.video_id, &question.event_type);
        let cells = series.map_or_else(Vec::new, |series| cells(read(&self.counts, series, question)));
        if !question.functions.any() {
            return Answer::Cells(cells);
        }
        let found = series.zip(self.functions.as_ref());
        let stats = found.map_or_else(Vec::new, |(series, batches)| read(batches, series, question));
        Answer::Functions(beside(cells, stats, question.functions))
    }
}

/// What batches hold of a question's windows at its `as_of`, ascending.
///
/// One cursor per batch, never a merged one: `CursorList::seek_val` also seeks those that stand on other keys
/// (differential-dataflow issue 513).
fn read<R: Semigroup + Ord + 'static>(batches: &[Batch<R>], series: SeriesNo, question: &Question) -> Vec<(Minute, R)> {
    let mut found: Vec<(Minute, R)> = Vec::new();
    for batch in batches {
        let mut cursor = batch.cursor();
        cursor.seek_key(batch, &series);
        if cursor.get_key(batch) != Some(&series) {
            continue;
        }
        cursor.seek_val(batch, &question.first);
        while let Some(minute) = cursor.get_val(batch).copied().filter(|minute| *minute < question.end) {
            let mut of_batch: Option<R> = None;
            cursor.map_times(batch, |time, difference| {
                if *time < question.as_of {
                    match &mut of_batch {
                        Some(sum) => sum.plus_equals(difference),
                        None => of_batch = Some(difference.clone()),
                    }
                }
            });
            found.extend(of_batch.map(|sum| (minute, sum)));
            cursor.step_val(batch);
        }
    }
    // By window alone: the order of a merge does not matter.
    found.sort_by_key(|(minute, _)| *minute);
    found.dedup_by(|(next, difference), (minute, sum)| {
        let is_same = next == minute;
        if is_same {
            sum.plus_equals(difference);
        }
        is_same
    });
    found.retain(|(_, sum)| !sum.is_zero());
    found
}

fn cells(found: Vec<(Minute, Measures)>) -> Vec<Cell> {
    let cell = |(minute, Measures { count })| Cell {
        minute,
        count: u64::try_from(count).expect("more is never taken out than was counted"),
    };
    found.into_iter().map(cell).collect()
}

/// Each cell with its functions; none where there are none.
fn beside(cells: Vec<Cell>, stats: Vec<(Minute, Stats)>, wanted: Kept) -> Vec<(Cell, Stats)> {
    let mut stats = stats.into_iter().peekable();
    let with = |cell: Cell| {
        let found = stats.next_if(|(minute, _)| *minute == cell.minute);
        (cell, found.map_or_else(Stats::default, |(_, stats)| stats.only(wanted)))
    };
    cells.into_iter().map(with).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn empty(reached: EventTime) -> Snapshot {
        Snapshot { counts: Vec::new(), functions: None, oldest: 0, reached: Some(reached) }
    }

    #[test]
    fn what_a_reader_has_is_freed_by_the_worker_and_not_by_the_reader() {
        let mut publisher = Publisher::new(Snapshots::default());
        let snapshots = publisher.snapshots.clone();
        publisher.publish(empty(1));
        let read = snapshots.newest().unwrap();
        let watched = Arc::downgrade(&read);
        publisher.publish(empty(2));
        drop(read);
        assert_eq!((snapshots.reached(), watched.strong_count()), (Some(2), 1), "the publisher has it");
        publisher.publish(empty(3));
        assert_eq!((watched.strong_count(), publisher.retired.len()), (0, 0));
    }
}
