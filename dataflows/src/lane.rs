//! One partition as its worker reads it: decoding, the part of a verdict that needs only the partition's own log, and
//! the time at which each record travels.
//!
//! Invariant: everything given out so far travels at `time` or before, and what is taken from now on travels at `time`
//! or later; the account that closes a step holds exactly the records of the steps before the next.

use std::collections::VecDeque;

use crate::{
    clock::Clock,
    dedup,
    event::{Cause, Event, RECORD_BYTES_MAX, Reason},
    identity::IdKey,
    letter::{DeadLetter, LETTER_BYTES_MAX},
    parcel::{Account, Naming, Parcel, Row},
    port::{Decode, PartitionId, Record},
    rules::Rules,
    series::SeriesTable,
    time::{EventTime, Minute, floor_to},
};

/// Rows in a full parcel: 32 KiB, which stays in the first cache while it is filled.
const PARCEL_ROWS: usize = 1_024;

/// Names that a source keeps, at most; then its numbers start anew, so that its memory is bounded.
const NAMES_MAX: usize = 1 << 20;

/// Letters in a parcel, at most: each may hold a mebibyte.
const PARCEL_LETTERS: usize = 16;

/// The state of reading one partition.
pub struct Lane<D> {
    decode: D,
    rules: Rules,
    key: IdKey,
    partition: PartitionId,
    peers: usize,
    home: u32,
    clock: Clock,
    time: EventTime,
    step_ms: u64,
    names: SeriesTable,
    incarnation: u32,
    open: Vec<Parcel>,
    account: Account,
    closed: VecDeque<(EventTime, Parcel)>,
    over: bool,
}

/// What the end of an input means.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// A plain file: nothing will ever follow, everything is final.
    ForGood,
    /// A log read to where it ended at the start: it keeps its own finality.
    ForNow,
}

/// Where and how a lane starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LaneStart {
    /// Which partition.
    pub partition: PartitionId,
    /// Its next offset.
    pub next_offset: u64,
    /// Its clock there.
    pub clock: Clock,
    /// The frontier to resume from.
    pub time: EventTime,
}

impl<D: Decode> Lane<D> {
    /// A lane on worker `home` of `peers`.
    pub fn new(decode: D, rules: Rules, key: IdKey, start: LaneStart, home: usize, peers: usize) -> Self {
        let clock = start.clock;
        let account = Account {
            next_offset: start.next_offset,
            clock: clock.clone(),
            ended: false,
            read: 0,
            malformed: 0,
            oversize: 0,
            future: 0,
        };
        Self {
            decode,
            rules,
            key,
            partition: start.partition,
            peers,
            home: home as u32,
            clock,
            time: start.time,
            step_ms: rules.tick_ms,
            names: SeriesTable::default(),
            incarnation: 0,
            open: (0..peers).map(|to| Parcel::new(to as u32, start.partition, 0)).collect(),
            account,
            closed: VecDeque::new(),
            over: false,
        }
    }

    /// Which partition this is.
    pub fn partition(&self) -> PartitionId {
        self.partition
    }

    /// The clock's time.
    pub fn clock(&self) -> Option<EventTime> {
        self.clock.time()
    }

    /// The time that records travel at now.
    pub fn time(&self) -> EventTime {
        self.time
    }

    /// Whether records travel in coarse steps from now on: many are behind this one.
    pub fn set_coarse(&mut self, coarse: bool) {
        self.step_ms = if coarse { self.rules.coarse_ms } else { self.rules.tick_ms };
    }

    /// Takes one record.
    pub fn take(&mut self, record: Record<'_>) {
        self.account.read += 1;
        self.account.next_offset = record.offset + 1;
        if record.payload.len() > RECORD_BYTES_MAX {
            self.account.oversize += 1;
            return self.refuse(record, Reason::Oversize);
        }
        let decode = self.decode.clone();
        match decode.decode(record.payload) {
            Err(cause) => self.malformed(record, cause),
            Ok(event) if self.is_future(&record, event.event_time) => {
                self.account.future += 1;
                self.refuse(record, Reason::Future);
            }
            Ok(event) => self.place(record, &event),
        }
    }

    fn malformed(&mut self, record: Record<'_>, cause: Cause) {
        self.account.malformed += 1;
        self.refuse(record, Reason::Malformed(cause));
    }

    fn is_future(&self, record: &Record<'_>, event_time: EventTime) -> bool {
        record.append_time.is_some_and(|append| event_time > append.saturating_add(self.rules.max_future_ms))
    }

    fn refuse(&mut self, record: Record<'_>, reason: Reason) {
        let home = self.home as usize;
        let letter = self.letter(record, reason);
        self.open[home].refused.push(letter);
        if self.open[home].refused.len() == PARCEL_LETTERS {
            self.close(home);
        }
    }

    fn letter(&self, record: Record<'_>, reason: Reason) -> DeadLetter {
        let kept = match reason {
            Reason::Oversize => record.payload.len().min(LETTER_BYTES_MAX),
            _ => record.payload.len(),
        };
        DeadLetter {
            partition: self.partition,
            offset: record.offset,
            reason,
            append_time: record.append_time,
            key: record.key.map(<[u8]>::to_vec),
            payload: record.payload[..kept].to_vec(),
        }
    }

    fn place(&mut self, record: Record<'_>, event: &Event<'_>) {
        let late = self.clock.is_late(event.event_time, self.rules.lateness_ms);
        if !late {
            self.clock.observe(&event.event_id, event.event_time, &self.rules);
        }
        let clock = self.clock.time().expect("the first event sets the clock");
        self.advance_to(floor_to(clock, self.step_ms), record.offset);
        let (series, new) = self.names.intern(&event.video_id, &event.event_type);
        let owner = self.names.name(series).group.owner(self.peers);
        let late_letter = late.then(|| self.letter(record, Reason::Late));
        let parcel = &mut self.open[owner];
        if new {
            let (video_id, event_type) = (event.video_id.to_string(), event.event_type.to_string());
            parcel.names.push(Naming { number: series, video_id, event_type });
        }
        parcel.rows.push(Row {
            id: self.key.identify(&event.video_id, &event.event_id),
            series,
            minute: Minute::of(event.event_time),
            first_remembered: dedup::first_remembered(clock, self.rules.remember_ms),
            late,
        });
        parcel.late.extend(late_letter);
        if parcel.rows.len() == PARCEL_ROWS || parcel.late.len() == PARCEL_LETTERS {
            self.close(owner);
        }
    }

    /// Closes the present step before the record at `offset` (already in the account) if the time moves.
    fn advance_to(&mut self, time: EventTime, offset: u64) {
        if self.time < time {
            // The record belongs to the next step: it leaves this one's account, and its own clock with it.
            self.account.read -= 1;
            self.account.next_offset = offset;
            self.close_step(false);
            self.account.read += 1;
            self.account.next_offset = offset + 1;
            self.time = time;
        }
        self.account.clock.clone_from(&self.clock);
    }

    /// Moves on to `time` without a record, if that is ahead.
    pub fn pass(&mut self, time: EventTime) {
        if self.time < time {
            self.close_step(false);
            self.time = time;
        }
    }

    /// Nothing will follow: closes the last step. `ended` where that holds for good, so that the partition holds no
    /// window open any more.
    pub fn end(&mut self, ended: Ended) {
        self.close_step(ended == Ended::ForGood);
        self.over = true;
    }

    /// Whether [`Lane::end`] was called.
    pub fn has_ended(&self) -> bool {
        self.over
    }

    fn close_step(&mut self, ended: bool) {
        for to in 0..self.peers {
            if to != self.home as usize {
                self.close(to);
            }
        }
        self.account.ended = ended;
        self.open[self.home as usize].account = Some(self.account.clone());
        self.close(self.home as usize);
        self.account.read = 0;
        self.account.malformed = 0;
        self.account.oversize = 0;
        self.account.future = 0;
        if self.names.len() > NAMES_MAX {
            self.names.clear();
            self.incarnation += 1;
            for parcel in &mut self.open {
                parcel.incarnation = self.incarnation;
            }
        }
    }

    fn close(&mut self, to: usize) {
        if !self.open[to].is_empty() {
            let next = Parcel::new(to as u32, self.partition, self.incarnation);
            self.closed.push_back((self.time, std::mem::replace(&mut self.open[to], next)));
        }
    }

    /// The closed parcels with their times, in order.
    pub fn drain(&mut self) -> impl Iterator<Item = (EventTime, Parcel)> + '_ {
        self.closed.drain(..)
    }
}
