//! A seeded wrapper that makes a store or sink fail as real ones do.

use std::{
    collections::{HashSet, VecDeque},
    ops::ControlFlow,
};

use super::SplitMix64;
use crate::{
    letter::DeadLetter,
    port::{
        CheckpointStore, Claim, CountRow, CountSink, LetterSink, PartitionId, PartitionReader, Reached, Record,
        SinkError, SourceError, StoreError, Version, WritePart,
    },
};

/// How many of the last calls a failing test prints: enough to see what led up to it, and a bound for long runs.
const SCHEDULE_CALLS_MAX: usize = 1_000;

/// What a call meets.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It is done, and says so.
    None,
    /// It is done, and says that it failed: an answer got lost.
    DoneButFailed,
    /// Of a write of several rows only the first ones are done, and it says that it failed. Elsewhere like `Lost`.
    Torn,
    /// Nothing is done, and nobody answers.
    Lost,
    /// Nothing is done, and the answer is no.
    Refused,
}

/// The cause of every injected error.
#[derive(Debug, thiserror::Error)]
#[error("injected fault {0:?}")]
pub struct Injected(pub Fault);

/// A store, sink or partition that fails by a schedule drawn from its seed: half of the calls go through.
///
/// Reads of a store are never done and failed at once: they are answered or not. A partition gives less than there is
/// (`Torn`), all of it with no word of an end (`DoneButFailed`), or nothing for now (`Lost`); or it breaks off, for good
/// (`Refused`). When a test panics, the seed and the
/// schedule of the last calls are printed.
pub struct Faulty<S> {
    inner: S,
    seed: u64,
    dice: SplitMix64,
    calls: u64,
    schedule: VecDeque<(u64, &'static str, Fault)>,
}

impl<S> Faulty<S> {
    /// Wraps `inner` into the faults of `seed`.
    pub fn new(inner: S, seed: u64) -> Self {
        Self { inner, seed, dice: SplitMix64::new(seed), calls: 0, schedule: VecDeque::new() }
    }

    /// What is wrapped, without faults.
    pub fn inner(&mut self) -> &mut S {
        &mut self.inner
    }

    /// The last calls and what each met, oldest first.
    pub fn schedule(&self) -> impl Iterator<Item = &(u64, &'static str, Fault)> {
        self.schedule.iter()
    }

    fn draw(&mut self, call: &'static str) -> Fault {
        let fault = match self.dice.below(8) {
            0 => Fault::DoneButFailed,
            1 => Fault::Torn,
            2 => Fault::Lost,
            3 => Fault::Refused,
            _ => Fault::None,
        };
        if self.schedule.len() == SCHEDULE_CALLS_MAX {
            self.schedule.pop_front();
        }
        self.schedule.push_back((self.calls, call, fault));
        self.calls += 1;
        fault
    }

    fn through<T, E>(
        &mut self,
        call: &'static str,
        error: fn(Fault, &'static str) -> E,
        act: impl FnOnce(&mut S) -> Result<T, E>,
    ) -> Result<T, E> {
        match self.draw(call) {
            Fault::None => act(&mut self.inner),
            fault @ Fault::DoneButFailed => act(&mut self.inner).and(Err(error(fault, call))),
            fault @ (Fault::Torn | Fault::Lost | Fault::Refused) => Err(error(fault, call)),
        }
    }
}

impl<S> Drop for Faulty<S> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("faults of seed {}: {:?}", self.seed, self.schedule);
        }
    }
}

fn sink_error(fault: Fault, call: &'static str) -> SinkError {
    let (sink, what, cause) = ("faulty".to_owned(), call.to_owned(), Box::new(Injected(fault)));
    match fault {
        Fault::Refused => SinkError::Refused { sink, what, cause },
        _ => SinkError::Unanswered { sink, what, cause },
    }
}

fn store_error(fault: Fault, call: &'static str) -> StoreError {
    StoreError::Failed { name: call.to_owned(), cause: Box::new(Injected(fault)) }
}

impl<S: CountSink> CountSink for Faulty<S> {
    fn claim(&mut self) -> Result<Option<Claim>, SinkError> {
        self.through("claim", sink_error, S::claim)
    }

    fn set_claim(&mut self, claim: &Claim) -> Result<(), SinkError> {
        self.through("set_claim", sink_error, |inner| inner.set_claim(claim))
    }

    fn write(&mut self, version: Version, rows: &[CountRow]) -> Result<(), SinkError> {
        match self.draw("write") {
            Fault::None => self.inner.write(version, rows),
            fault @ Fault::DoneButFailed => self.inner.write(version, rows).and(Err(sink_error(fault, "write"))),
            fault @ Fault::Torn => {
                let done = self.dice.below(rows.len() as u64 + 1) as usize;
                self.inner.write(version, &rows[..done]).and(Err(sink_error(fault, "write")))
            }
            fault @ (Fault::Lost | Fault::Refused) => Err(sink_error(fault, "write")),
        }
    }

    fn clear(&mut self) -> Result<(), SinkError> {
        self.through("clear", sink_error, S::clear)
    }
}

impl<S: LetterSink> LetterSink for Faulty<S> {
    fn own(&mut self) -> Result<(), SinkError> {
        self.through("own", sink_error, S::own)
    }

    fn newest(&mut self) -> Result<Option<Version>, SinkError> {
        self.through("newest", sink_error, S::newest)
    }

    fn published(&mut self) -> Result<HashSet<(PartitionId, u64)>, SinkError> {
        self.through("published", sink_error, S::published)
    }

    fn publish(&mut self, version: Version, letters: &[DeadLetter]) -> Result<(), SinkError> {
        self.through("publish", sink_error, |inner| inner.publish(version, letters))
    }
}

impl<S: CheckpointStore> CheckpointStore for Faulty<S> {
    fn claim_generation(&mut self, above: u64) -> Result<u64, StoreError> {
        self.through("claim_generation", store_error, |inner| inner.claim_generation(above))
    }

    fn write_part(&mut self, name: &str, write: &mut WritePart<'_>) -> Result<(), StoreError> {
        self.through("write_part", store_error, |inner| inner.write_part(name, write))
    }

    fn commit(&mut self, version: Version, manifest: &[u8]) -> Result<(), StoreError> {
        self.through("commit", store_error, |inner| inner.commit(version, manifest))
    }

    fn manifests(&mut self) -> Result<Vec<Version>, StoreError> {
        self.through("manifests", store_error, S::manifests)
    }

    fn manifest(&mut self, version: Version) -> Result<Vec<u8>, StoreError> {
        self.through("manifest", store_error, |inner| inner.manifest(version))
    }

    fn part(&mut self, name: &str) -> Result<Vec<u8>, StoreError> {
        self.through("part", store_error, |inner| inner.part(name))
    }

    fn retain(&mut self, versions: &[Version], parts: &[String]) -> Result<(), StoreError> {
        self.through("retain", store_error, |inner| inner.retain(versions, parts))
    }
}

/// Of the records that a torn read gives, at the most.
const TORN_RECORDS_MAX: u64 = 8;

impl<R: PartitionReader> PartitionReader for Faulty<R> {
    fn partition(&self) -> PartitionId {
        self.inner.partition()
    }

    fn next_offset(&self) -> u64 {
        self.inner.next_offset()
    }

    fn keeps_tail(&self) -> bool {
        self.inner.keeps_tail()
    }

    fn read(&mut self, visit: &mut dyn FnMut(Record<'_>) -> ControlFlow<()>) -> Result<Reached, SourceError> {
        match self.draw("read") {
            Fault::None => self.inner.read(visit),
            Fault::DoneButFailed => self.inner.read(visit).map(|reached| match reached {
                Reached::End => Reached::Waiting,
                // Not for ever, since it is asked again.
                Reached::Finished => Reached::More,
                more => more,
            }),
            Fault::Torn => {
                let mut left = self.dice.below(TORN_RECORDS_MAX) + 1;
                self.inner.read(&mut |record| {
                    left -= 1;
                    let flow = visit(record);
                    if left == 0 { ControlFlow::Break(()) } else { flow }
                })
            }
            Fault::Lost => Ok(Reached::Waiting),
            fault @ Fault::Refused => {
                Err(SourceError::Unreadable { partition: self.partition(), cause: Box::new(Injected(fault)) })
            }
        }
    }
}

/// A partition that is slow, stingy and silent by turns, and never breaks off.
pub struct Unsteady<R>(pub Faulty<R>);

impl<R: PartitionReader> PartitionReader for Unsteady<R> {
    fn partition(&self) -> PartitionId {
        self.0.partition()
    }

    fn next_offset(&self) -> u64 {
        self.0.next_offset()
    }

    fn keeps_tail(&self) -> bool {
        self.0.keeps_tail()
    }

    fn read(&mut self, visit: &mut dyn FnMut(Record<'_>) -> ControlFlow<()>) -> Result<Reached, SourceError> {
        match self.0.read(visit) {
            Err(SourceError::Unreadable { cause, .. }) if cause.is::<Injected>() => Ok(Reached::Waiting),
            read => read,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rollup::Width;

    /// Counts what gets through.
    #[derive(Default)]
    struct Counting {
        rows: usize,
        writes: usize,
    }

    impl CountSink for Counting {
        fn claim(&mut self) -> Result<Option<Claim>, SinkError> {
            Ok(None)
        }
        fn set_claim(&mut self, _: &Claim) -> Result<(), SinkError> {
            Ok(())
        }
        fn write(&mut self, _: Version, rows: &[CountRow]) -> Result<(), SinkError> {
            self.writes += 1;
            self.rows += rows.len();
            Ok(())
        }
        fn clear(&mut self) -> Result<(), SinkError> {
            Ok(())
        }
    }

    fn write_often(seed: u64) -> (Faulty<Counting>, Vec<bool>) {
        let row = CountRow {
            video_id: "v".to_owned(),
            event_type: "view".to_owned(),
            window_start: 0,
            count: 1,
            width: Width::Minute,
            stats: None,
            is_final: false,
            as_of: 0,
        };
        let mut sink = Faulty::new(Counting::default(), seed);
        let answers = (0..500).map(|_| sink.write(Version::default(), &vec![row.clone(); 10]).is_ok()).collect();
        (sink, answers)
    }

    #[test]
    fn a_seed_names_its_schedule_and_each_fault_does_what_it_says() {
        let (mut sink, answers) = write_often(1);
        let met: Vec<Fault> = sink.schedule().map(|(_, _, fault)| *fault).collect();
        for (ok, fault) in answers.iter().zip(&met) {
            assert_eq!(*ok, *fault == Fault::None);
        }
        for fault in [Fault::None, Fault::DoneButFailed, Fault::Torn, Fault::Lost, Fault::Refused] {
            assert!(20 < met.iter().filter(|other| **other == fault).count(), "{fault:?} comes");
        }
        let reached = met.iter().filter(|fault| !matches!(fault, Fault::Lost | Fault::Refused)).count();
        let whole = met.iter().filter(|fault| matches!(fault, Fault::None | Fault::DoneButFailed)).count();
        assert_eq!(sink.inner().writes, reached);
        assert!(10 * whole < sink.inner().rows && sink.inner().rows < 10 * reached, "torn writes do a part");
        assert_eq!(write_often(1).1, answers);
        assert_ne!(write_often(2).1, answers);
    }
}
