//! The in-memory twin of the count stores.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use dataflows::{
    port::{Claim, CountRow, CountSink, SinkError, Version},
    time::EventTime,
};

/// What a [`MemorySink`] holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SinkState {
    /// Who owns the table.
    pub claim: Option<Claim>,
    /// By (video, event type, window start): the row and the version that wrote it.
    pub rows: BTreeMap<(String, String, EventTime), (Version, CountRow)>,
}

/// A count store in memory.
#[derive(Clone, Debug, Default)]
pub struct MemorySink {
    state: Arc<Mutex<SinkState>>,
}

impl MemorySink {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    /// What it holds, locked until the guard goes.
    pub fn state(&self) -> MutexGuard<'_, SinkState> {
        // No step of this module leaves the maps half changed, so a panic elsewhere spoils nothing.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All rows, ascending by video, event type and window.
    pub fn rows(&self) -> Vec<CountRow> {
        self.state().rows.values().map(|(_, row)| row.clone()).collect()
    }
}

impl CountSink for MemorySink {
    fn claim(&mut self) -> Result<Option<Claim>, SinkError> {
        Ok(self.state().claim.clone())
    }

    fn set_claim(&mut self, claim: &Claim) -> Result<(), SinkError> {
        let mut state = self.state();
        let is_other = |there: &&Claim| claim.generation < there.generation || claim.history != there.history;
        if let Some(there) = state.claim.as_ref().filter(is_other) {
            let what = format!("generation {} of history {:032x} has claimed it", there.generation, there.history);
            return Err(SinkError::Fenced { sink: "memory".to_owned(), what });
        }
        state.claim = Some(claim.clone());
        Ok(())
    }

    fn clear(&mut self) -> Result<(), SinkError> {
        *self.state() = SinkState::default();
        Ok(())
    }

    fn write(&mut self, version: Version, rows: &[CountRow]) -> Result<(), SinkError> {
        let mut state = self.state();
        for row in rows {
            let key = (row.video_id.clone(), row.event_type.clone(), row.window_start);
            if state.rows.get(&key).is_none_or(|(stored, _)| *stored <= version) {
                state.rows.insert(key, (version, row.clone()));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use dataflows::testkit::{Faulty, Retrying, sink_contract};

    use super::*;

    #[test]
    fn it_keeps_the_contract_of_count_sinks() {
        sink_contract::check(MemorySink::new, |sink| sink.rows());
    }

    #[test]
    fn behind_faults_and_retries_it_keeps_the_contract_of_count_sinks() {
        for seed in 0..20 {
            sink_contract::check(
                || Retrying::new(Faulty::new(MemorySink::new(), seed)),
                |sink| sink.inner().inner().rows(),
            );
        }
    }

    /// Adds up what it is given, as no sink may.
    #[derive(Default)]
    struct Adding(MemorySink);

    impl CountSink for Adding {
        fn claim(&mut self) -> Result<Option<Claim>, SinkError> {
            self.0.claim()
        }
        fn set_claim(&mut self, claim: &Claim) -> Result<(), SinkError> {
            self.0.set_claim(claim)
        }
        fn write(&mut self, version: Version, rows: &[CountRow]) -> Result<(), SinkError> {
            let mut sums = rows.to_vec();
            for row in &mut sums {
                let key = (row.video_id.clone(), row.event_type.clone(), row.window_start);
                row.count += self.0.state().rows.get(&key).map_or(0, |(_, stored)| stored.count);
            }
            self.0.write(version, &sums)
        }
        fn clear(&mut self) -> Result<(), SinkError> {
            self.0.clear()
        }
    }

    #[test]
    #[should_panic(expected = "after [(1, 1, 5), (1, 1, 5)]")]
    fn a_sink_that_adds_up_fails_the_contract() {
        sink_contract::check(Adding::default, |sink| sink.0.rows());
    }

    #[test]
    fn a_clone_is_another_handle_of_the_same_store() {
        let mut sink = MemorySink::new();
        let inside = sink.clone();
        let claim = Claim { history: 1, generation: 2, frontier: 3 };
        sink.set_claim(&claim).unwrap();
        assert_eq!(inside.state().claim, Some(claim));
    }
}
