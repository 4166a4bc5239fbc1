//! Reads one partition.
//!
//! A reader is in one of three states:
//!
//! ```text
//! Reading ──(topic gone or another, offset out of range, log truncated)──> Checking ──(it is)──> Failed
//!    ^                                                                        │
//!    └──────────────(all is well: assigned anew at the next offset)───────────┘
//! ```
//!
//! Where records are gone that may be passed over, the next offset is behind them: a check finds it, by [`super::pass`] for
//! a batch that can't be taken in.
//!
//! Invariant: every committed record before `next_offset`, from where it was opened, was visited once, or is in one
//! [`Passed`] that was told.

use std::{
    ops::ControlFlow,
    sync::{Arc, atomic::Ordering},
    thread,
    time::{Duration, Instant},
};

use crossbeam_channel::{Receiver, Sender, TryRecvError, bounded};
use dataflows::port::{PartitionId, PartitionReader, Passed, Reached, Record, SourceError, Tail};
use rdkafka::types::RDKafkaErrorCode;

use super::{
    check::{Failed, Wanted, assign, open_queue},
    context::warn_gently,
    error::{CORRUPT, FORBIDDEN, Fault, is_any},
    native::{BATCH, PartitionQueue},
    pass::batch_end,
    topic::{Seen, Shared},
};

/// Between two checks that nobody answers, and before one that follows another.
const CHECK_AGAIN: Duration = Duration::from_secs(1);

/// Log lines and errors taken from the client by an idle read.
const EVENTS: usize = 2;

/// A [`PartitionReader`] with a consumer of its own.
pub struct Reader {
    shared: Arc<Shared>,
    partition: PartitionId,
    queue: PartitionQueue,
    next_offset: u64,
    tail: Option<Tail>,
    /// Where it ends for good.
    end: Option<u64>,
    /// The client said that it is at its end, and nothing came since.
    at_end: bool,
    finished: bool,
    /// What the client said of an answer that it can't take in: of what is behind the records that it holds by then.
    unreadable: Option<String>,
    /// What was passed over, and is to be told.
    passed: Option<Passed>,
    state: State,
    checked: Instant,
}

enum State {
    Reading,
    Checking(Check),
    /// It stays so: nothing may be read behind an error.
    Failed(SourceError),
}

/// A check on a thread of its own, which ends when nobody waits for it any more. It finds the offset to go on at.
struct Check {
    outcome: Receiver<Result<u64, SourceError>>,
    _wanted: Sender<()>,
}

/// What an event in place of a record means.
enum Event {
    End,
    Passes,
    Doubtful,
    /// A batch with this base, which may be passed over.
    Unwanted(u64),
}

/// What a check is to find out.
#[derive(Copy, Clone)]
enum Question {
    /// Whether the log is still the one that was read.
    Identity,
    /// Where the batch with this base ends.
    BatchEnd(u64),
}

impl Reader {
    /// Of what is wanted, from the offset `first` on: what is before it is passed over.
    pub(super) fn new(shared: Arc<Shared>, from: Wanted, first: u64, end: Option<u64>) -> Result<Self, SourceError> {
        let Wanted { partition, next_offset, tail } = from;
        let queue = open_queue(&shared, partition, first).map_err(|fault| unreadable(partition, fault))?;
        let mut reader = Self {
            shared,
            partition,
            queue,
            next_offset,
            tail,
            end,
            at_end: false,
            finished: end.is_some_and(|end| end <= next_offset),
            unreadable: None,
            passed: None,
            state: State::Reading,
            checked: Instant::now(),
        };
        reader.go_on(first);
        Ok(reader)
    }

    /// Leaves what is before an offset behind.
    fn go_on(&mut self, first: u64) {
        if self.next_offset < first {
            let passed = Passed { wanted: self.next_offset, first };
            tracing::warn!(
                "{}: offsets {} to before {first} are lost and passed over, as told",
                self.name(),
                passed.wanted
            );
            (self.passed, self.next_offset) = (Some(passed), first);
        }
    }

    /// Visits what is held; whether the visit broke.
    fn visit(&mut self, visit: &mut dyn FnMut(Record<'_>) -> ControlFlow<()>) -> Result<ControlFlow<()>, SourceError> {
        let mut last = None;
        let mut flow = ControlFlow::Continue(());
        let mut event = None;
        let mut left = self.queue.held();
        while let Some(message) = self.queue.take() {
            left -= 1;
            if let Some(fault) = message.event() {
                event = Some((fault, message.offset()));
                break;
            }
            let Some(offset) = message.offset().filter(|offset| self.next_offset <= *offset) else { continue };
            if self.end.is_some_and(|end| end <= offset) {
                self.finished = true;
                break;
            }
            let append_time = message.append_time();
            let record =
                Record { offset, append_time, key: message.key(), headers: Some(&message), payload: message.payload() };
            self.next_offset = offset + 1;
            self.at_end = false;
            flow = visit(record);
            // The tail is of the last record that is visited here; hashing each would cost as much as reading it.
            if flow.is_break() || left == 0 {
                last = Some(Tail::of(&record));
            }
            if flow.is_break() {
                break;
            }
        }
        self.tail = last.or(self.tail);
        if let Some((fault, offset)) = event {
            self.on_event(&fault, offset)?;
        }
        Ok(flow)
    }

    fn on_event(&mut self, fault: &Fault, offset: Option<u64>) -> Result<(), SourceError> {
        match self.meaning(fault, offset)? {
            Event::End => {
                // Control records and aborted ones at the end are behind us too.
                self.next_offset = self.next_offset.max(offset.unwrap_or(0));
                self.at_end = true;
            }
            Event::Passes => warn_gently(&format!("{}: {fault}", self.name())),
            Event::Doubtful => {
                warn_gently(&format!("{}: {fault}", self.name()));
                self.start_check(Question::Identity);
            }
            Event::Unwanted(base) => self.start_check(Question::BatchEnd(base)),
        }
        Ok(())
    }

    fn meaning(&self, fault: &Fault, offset: Option<u64>) -> Result<Event, SourceError> {
        use RDKafkaErrorCode as Code;
        if fault.is(Code::PartitionEOF) {
            Ok(Event::End)
        } else if is_any(fault.code, &CORRUPT) {
            let offset = offset.unwrap_or(self.next_offset);
            if self.shared.passing.batches.contains(&(self.partition, offset)) {
                return Ok(Event::Unwanted(offset));
            }
            Err(SourceError::Corrupt { partition: self.partition, offset, what: fault.text.clone() })
        } else if is_any(fault.code, &FORBIDDEN) {
            Err(unreadable(self.partition, fault.clone()))
        } else if fault.is_transient() {
            Ok(Event::Passes)
        } else {
            // Out of range, reset, truncated, unknown topic; and whatever else a broker may come to say.
            Ok(Event::Doubtful)
        }
    }

    fn name(&self) -> String {
        format!("topic {} partition {}", self.shared.name, self.partition.0)
    }

    fn start_check(&mut self, question: Question) {
        self.queue.discard();
        self.at_end = false;
        let wanted = Wanted { partition: self.partition, next_offset: self.next_offset, tail: self.tail };
        let (outcome_sender, outcome) = bounded(1);
        let (_wanted, unwanted) = bounded::<()>(0);
        let shared = Arc::clone(&self.shared);
        // Not again and again at once, whatever the brokers say.
        let pause = CHECK_AGAIN.saturating_sub(self.checked.elapsed());
        self.checked = Instant::now() + pause;
        let run = move || {
            thread::sleep(pause);
            while let Some(outcome) = check(&shared, &wanted, question, &unwanted) {
                if let Ok(outcome) = outcome {
                    // Nobody waits for it any more: then it does not matter.
                    let _ = outcome_sender.send(outcome);
                    return;
                }
            }
        };
        // Without a thread it is tried again by the next read: `outcome` is disconnected then.
        let _ = thread::Builder::new().name("kafka-check".into()).spawn(run);
        self.state = State::Checking(Check { outcome, _wanted });
    }

    /// Looks whether a check is over; whether there may be something to read.
    fn is_reading(&mut self) -> Result<bool, SourceError> {
        let check = match &self.state {
            State::Reading if self.shared.replaced.load(Ordering::Acquire) => {
                self.start_check(Question::Identity);
                return Ok(false);
            }
            State::Reading => return Ok(true),
            State::Failed(error) => return Err(repeated(self.partition, error)),
            State::Checking(check) => check,
        };
        match check.outcome.try_recv() {
            Ok(Ok(first)) => {
                self.go_on(first);
                assign(&self.queue, &self.shared, self.partition, self.next_offset)
                    .map_err(|fault| unreadable(self.partition, fault))?;
                self.state = State::Reading;
                Ok(true)
            }
            Ok(Err(error)) => Err(error),
            Err(TryRecvError::Empty) => Ok(false),
            Err(TryRecvError::Disconnected) => {
                self.start_check(Question::Identity);
                Ok(false)
            }
        }
    }

    /// Serves what the client has to say besides records.
    fn listen(&mut self) {
        for _ in 0..EVENTS {
            self.queue.consumer().poll(Duration::ZERO);
        }
        let context = rdkafka::consumer::Consumer::context(self.queue.consumer());
        self.unreadable = self.unreadable.take().or_else(|| context.take_unreadable());
    }

    /// Whether the end is proven: where there is a watch, by what the brokers told it within the last seconds.
    fn is_end(&self) -> bool {
        let seen = self.shared.seen.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let proves = |seen: &Seen| {
            let end = seen.offsets.get(self.partition.0 as usize).map(|(_, end)| *end);
            seen.reachable && seen.answered.elapsed() < seen.fresh_for && end.is_none_or(|end| end <= self.next_offset)
        };
        self.at_end && seen.as_ref().is_none_or(proves)
    }
}

impl PartitionReader for Reader {
    fn partition(&self) -> PartitionId {
        self.partition
    }

    fn next_offset(&self) -> u64 {
        self.next_offset
    }

    fn keeps_tail(&self) -> bool {
        true
    }

    fn read(&mut self, visit: &mut dyn FnMut(Record<'_>) -> ControlFlow<()>) -> Result<Reached, SourceError> {
        let partition = self.partition;
        self.read_on(visit).inspect_err(|error| self.state = State::Failed(repeated(partition, error)))
    }
}

impl Reader {
    fn read_on(&mut self, visit: &mut dyn FnMut(Record<'_>) -> ControlFlow<()>) -> Result<Reached, SourceError> {
        if self.finished {
            return Ok(Reached::Finished);
        }
        if !self.is_reading()? {
            return Ok(Reached::Waiting);
        }
        if let Some(passed) = self.passed.take() {
            return Ok(Reached::Passed(passed));
        }
        let told = self.unreadable.is_some();
        let held = self.queue.fill();
        if held == 0 && told {
            let what = self.unreadable.take().unwrap_or_default();
            return Err(SourceError::Corrupt { partition: self.partition, offset: self.next_offset, what });
        }
        if held < BATCH {
            self.listen();
        }
        let before = self.next_offset;
        let flow = self.visit(visit)?;
        self.finished |= self.end.is_some_and(|end| end <= self.next_offset);
        Ok(if self.finished {
            Reached::Finished
        } else if flow.is_break() || 0 < self.queue.held() {
            Reached::More
        } else if self.at_end {
            if self.is_end() { Reached::End } else { Reached::Waiting }
        } else if before < self.next_offset {
            Reached::More
        } else {
            Reached::Waiting
        })
    }
}

/// One try: `None` when nobody waits any more, an error when nobody answered.
fn check(
    shared: &Shared,
    wanted: &Wanted,
    question: Question,
    unwanted: &Receiver<()>,
) -> Option<Result<Result<u64, SourceError>, Fault>> {
    let is_unwanted = || unwanted.try_recv() == Err(TryRecvError::Disconnected);
    if is_unwanted() {
        return None;
    }
    let found = match question {
        Question::Identity => wanted.check_identity(shared, &is_unwanted),
        Question::BatchEnd(base) => batch_end(shared, wanted.partition, base, &is_unwanted).map_err(Failed::Unknown),
    };
    Some(match found {
        Ok(first) => Ok(Ok(first)),
        Err(Failed::Replaced(error)) => Ok(Err(error)),
        Err(Failed::Unknown(fault)) if is_any(fault.code, &FORBIDDEN) => Ok(Err(unreadable(wanted.partition, fault))),
        Err(Failed::Unknown(fault)) => {
            warn_gently(&format!("{} partition {}: {fault}", shared.name, wanted.partition.0));
            let _ = unwanted.recv_timeout(CHECK_AGAIN);
            Err(fault)
        }
    })
}

/// The same error once more.
fn repeated(partition: PartitionId, error: &SourceError) -> SourceError {
    match error {
        SourceError::Replaced { wanted, first, end, lost, .. } => {
            SourceError::Replaced { partition, wanted: *wanted, first: *first, end: *end, lost: *lost }
        }
        SourceError::Corrupt { offset, what, .. } => {
            SourceError::Corrupt { partition, offset: *offset, what: what.clone() }
        }
        SourceError::Unreadable { cause, .. } => SourceError::Unreadable { partition, cause: cause.to_string().into() },
        other => SourceError::Unreadable { partition, cause: other.to_string().into() },
    }
}

fn unreadable(partition: PartitionId, fault: Fault) -> SourceError {
    SourceError::Unreadable { partition, cause: Box::new(fault) }
}
