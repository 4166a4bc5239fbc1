//! Batches on their way to the writer: bounded, and taken all at once.

use std::{
    mem,
    sync::{Condvar, Mutex, MutexGuard},
};

use super::{Done, Full, NewRecord, frame};

/// How many bytes of records may wait or be written at a time. What a second of a fast disk takes; a request that
/// finds the queue full is told to come back.
pub const QUEUE_BYTES_MAX: usize = 64 << 20;

/// How many batches may wait or be written at a time: more than there are connections to wait on.
pub const QUEUE_BATCHES_MAX: usize = 16_384;

/// A batch and whom to tell.
pub struct Entry {
    pub batch: Vec<NewRecord>,
    pub done: Done,
}

/// Between appenders and the writer.
#[derive(Default)]
pub struct Queue {
    state: Mutex<State>,
    /// Signalled when there is something to take, or nothing will come.
    changed: Condvar,
}

#[derive(Default)]
struct State {
    waiting: Vec<Entry>,
    /// Of the batches that wait and of those that are being written.
    bytes: usize,
    batches: usize,
    closed: bool,
}

/// What the writer took; to be released when it is written.
pub struct Group {
    pub entries: Vec<Entry>,
    bytes: usize,
    batches: usize,
}

/// What became of a batch.
pub enum Pushed {
    Taken,
    Full(Full),
    Closed(Done),
}

impl Queue {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nobody panics while holding the queue")
    }

    /// Takes a batch if there is room. One that is greater than the whole queue needs an empty one.
    pub fn push(&self, batch: Vec<NewRecord>, done: Done) -> Pushed {
        let bytes = bytes_of(&batch);
        let mut state = self.state();
        if state.closed {
            return Pushed::Closed(done);
        }
        let fits = state.bytes + bytes <= QUEUE_BYTES_MAX && state.batches < QUEUE_BATCHES_MAX;
        if !fits && 0 < state.batches {
            return Pushed::Full(Full { batch, done });
        }
        state.bytes += bytes;
        state.batches += 1;
        state.waiting.push(Entry { batch, done });
        self.changed.notify_one();
        Pushed::Taken
    }

    /// Waits for batches and takes all; `None` once the queue is closed and empty.
    pub fn take(&self) -> Option<Group> {
        let idle = |state: &mut State| state.waiting.is_empty() && !state.closed;
        let mut state = self.changed.wait_while(self.state(), idle).expect("nobody panics while holding the queue");
        if state.waiting.is_empty() {
            return None;
        }
        let entries = mem::take(&mut state.waiting);
        let bytes = entries.iter().map(|entry| bytes_of(&entry.batch)).sum();
        Some(Group { bytes, batches: entries.len(), entries })
    }

    /// Makes the room of a group free again.
    pub fn release(&self, bytes: usize, batches: usize) {
        let mut state = self.state();
        state.bytes -= bytes;
        state.batches -= batches;
    }

    /// Refuses batches from now on; those that wait are still taken.
    pub fn close(&self) {
        self.state().closed = true;
        self.changed.notify_one();
    }
}

impl Group {
    /// How many bytes and batches it holds of the queue's room.
    pub fn room(&self) -> (usize, usize) {
        (self.bytes, self.batches)
    }
}

fn bytes_of(batch: &[NewRecord]) -> usize {
    let record_bytes =
        |record: &NewRecord| frame::HEADER_BYTES + record.key.as_ref().map_or(0, Vec::len) + record.payload.len();
    batch.iter().map(record_bytes).sum()
}
