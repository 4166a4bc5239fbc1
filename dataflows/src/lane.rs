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
    functions::{Functions, stats::Detail},
    gap::{self, Gap},
    identity::{IdKey, Identifier, KEY_GROUPS, KeyGroup, user_hash},
    letter::{DeadLetter, LETTER_BYTES_MAX},
    parcel::{Account, Naming, Parcel, Row, RowDetail},
    port::{Decode, PartitionId, Passed, Record, Tail},
    rules::{Quiet, Rules},
    ruling::{Ruled, Rulings},
    series::{Interned, NameHash, SeriesNo, SeriesTable},
    time::{EventTime, Minute, floor_to},
};

/// Rows in a full parcel: 32 KiB, which stays in the first cache while it is filled.
const PARCEL_ROWS: usize = 1_024;

/// Names that a source keeps, at most; then its numbers start anew, so that its memory is bounded.
const NAMES_MAX: usize = 1 << 20;

/// Letters in a parcel, at most: each may hold a mebibyte.
const PARCEL_LETTERS: usize = 16;

/// Events that wait for their series' numbers, at most: what looking these up reads is fetched from memory meanwhile.
const PENDING_MAX: usize = 16;

/// Records at one time, about: then the time steps on by a tick, even where the clock does not. What travels at one time
/// waits for the frontier in memory, so this bounds it: in coarse steps over dense history, and where history is fed to a
/// partition that has been given up to a later time.
pub const STEP_RECORDS: u64 = 65_536;

/// The state of reading one partition.
pub struct Lane<D> {
    decode: D,
    rules: Rules,
    functions: Functions,
    identifier: Identifier,
    partition: PartitionId,
    peers: usize,
    home: u32,
    /// The owner of each key group.
    owners: Vec<u16>,
    clock: Clock,
    time: EventTime,
    step_ms: u64,
    /// Before the clock gets here, no record steps on.
    next_step: EventTime,
    in_step: u64,
    names: SeriesTable,
    pending: Vec<Pending>,
    /// Video id and event type of each.
    pending_names: String,
    /// The letters of those that are late.
    pending_late: VecDeque<DeadLetter>,
    incarnation: u32,
    open: Vec<Parcel>,
    account: Account,
    /// The hole that the next record is behind, or the end of it: what it continues is noted already.
    hole: Option<Gap>,
    keeps_tail: bool,
    rulings: Rulings,
    closed: VecDeque<(EventTime, Parcel)>,
    over: bool,
}

/// An event whose series' number is still to be looked up; its name waits beside it.
struct Pending {
    hash: NameHash,
    video_bytes: u8,
    type_bytes: u8,
    /// Its offset, where its verdict is to be kept.
    to_rule: Option<u64>,
    detail: Option<Detail>,
    row: Row,
}

/// What the end of an input means.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// A plain file: nothing will ever follow, everything is final.
    ForGood,
    /// A log read to where it ended at the start: it keeps its own finality.
    ForNow,
}

/// What records are, and what is kept of them.
#[derive(Clone, Debug, Default)]
pub struct Format<D> {
    /// Makes events of them.
    pub decode: D,
    /// What is kept of these beside the count.
    pub functions: Functions,
}

/// Where and how a lane starts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LaneStart {
    /// Which partition.
    pub partition: PartitionId,
    /// Its next offset.
    pub next_offset: u64,
    /// Its clock there.
    pub clock: Clock,
    /// The frontier to resume from.
    pub time: EventTime,
    /// The hole right before it, if there is one.
    pub hole: Option<Gap>,
    /// Whether accounts say what the last record was.
    pub keeps_tail: bool,
    /// What was ruled of its records when they were read before.
    pub rulings: Rulings,
}

impl<D: Decode> Lane<D> {
    /// A lane on worker `home` of `peers`.
    pub fn new(format: Format<D>, rules: Rules, key: IdKey, start: LaneStart, home: usize, peers: usize) -> Self {
        let clock = start.clock;
        let account = Account {
            next_offset: start.next_offset,
            tail: None,
            clock: clock.clone(),
            ended: false,
            read: 0,
            malformed: 0,
            oversize: 0,
            future: 0,
            gaps: Vec::new(),
        };
        Self {
            decode: format.decode,
            rules,
            functions: format.functions,
            identifier: Identifier::new(key),
            partition: start.partition,
            peers,
            home: home as u32,
            owners: (0..KEY_GROUPS).map(|group| KeyGroup(group as u8).owner(peers) as u16).collect(),
            clock,
            time: start.time,
            step_ms: rules.tick_ms,
            next_step: 0,
            in_step: 0,
            names: SeriesTable::default(),
            pending: Vec::with_capacity(PENDING_MAX),
            pending_names: String::new(),
            pending_late: VecDeque::new(),
            incarnation: 0,
            open: (0..peers).map(|to| Parcel::new(to as u32, start.partition, 0)).collect(),
            account,
            hole: start.hole,
            keeps_tail: start.keeps_tail,
            rulings: start.rulings,
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

    /// Judges from now on as if the clock stood at `floor` until it has gone past it.
    pub fn set_floor(&mut self, floor: Option<EventTime>) {
        self.clock = std::mem::take(&mut self.clock).with_floor(floor);
    }

    /// Whether records travel in coarse steps from now on: many are behind this one.
    pub fn set_coarse(&mut self, coarse: bool) {
        let step_ms = if coarse { self.rules.coarse_ms } else { self.rules.tick_ms };
        if step_ms != self.step_ms {
            (self.step_ms, self.next_step) = (step_ms, 0);
        }
    }

    /// Takes one record.
    pub fn take(&mut self, record: Record<'_>) {
        self.account.read += 1;
        self.account.next_offset = record.offset + 1;
        self.in_step += 1;
        if record.payload.len() > RECORD_BYTES_MAX {
            self.account.oversize += 1;
            self.refuse(record, Reason::Oversize);
        } else {
            self.judge(record);
        }
        if self.keeps_tail {
            self.account.tail = Some(Tail::of(&record));
        }
    }

    fn judge(&mut self, record: Record<'_>) {
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
            headers: record.headers.map_or_else(Vec::new, |headers| headers.list()),
            payload: record.payload[..kept].to_vec(),
        }
    }

    fn place(&mut self, record: Record<'_>, event: &Event<'_>) {
        let ruled = self.rulings.at(record.offset);
        let late_by_clock = self.clock.is_late(event.event_time, self.rules.lateness_ms);
        let late =
            late_by_clock || self.is_behind(event.event_time) || ruled.is_some_and(|ruled| ruled != Ruled::Counted);
        let behind = late && self.clock.is_behind(event.event_time, self.rules.lateness_ms);
        let forgotten = self.forgotten();
        if STEP_RECORDS <= self.in_step {
            self.next_step = 0;
        }
        let before = self.clock.may_reach(event.event_time, self.next_step).then(|| self.clock.clone());
        if !late {
            self.clock.observe(&event.event_id, event.event_time, &self.rules);
        }
        if let Some(before) = before {
            self.step_on(record.offset, before);
        }
        let by_clock = dedup::first_remembered(self.clock.judging().unwrap_or(0), self.rules.remember_ms);
        let first_remembered = match ruled {
            Some(Ruled::Late | Ruled::Counted) => Minute(u32::MAX),
            Some(Ruled::Repeat) => by_clock,
            None => by_clock.max(forgotten),
        };
        let hash = NameHash::of(&event.video_id, &event.event_type);
        self.names.prefetch(hash);
        let detail = self.detail(event);
        let bytes = |text: &str| text.len() as u8;
        self.pending.push(Pending {
            hash,
            video_bytes: bytes(&event.video_id),
            type_bytes: bytes(&event.event_type),
            to_rule: (behind || by_clock < first_remembered).then_some(record.offset),
            detail,
            row: Row {
                id: self.identifier.identify(&event.video_id, &event.event_id),
                series: SeriesNo(0),
                minute: Minute::of(event.event_time),
                first_remembered,
                late,
            },
        });
        self.pending_names.push_str(&event.video_id);
        self.pending_names.push_str(&event.event_type);
        if late {
            let letter = self.letter(record, if behind { Reason::Behind } else { Reason::Late });
            self.pending_late.push_back(letter);
        }
        if self.pending.len() == PENDING_MAX {
            self.place_pending();
        }
    }

    #[inline]
    fn detail(&self, event: &Event<'_>) -> Option<Detail> {
        let kept = self.functions.kept(&event.event_type);
        kept.any().then(|| {
            let user = event.user_id.as_ref().filter(|_| kept.distinct);
            Detail { kept, value: event.value, user: user.map(|user| user_hash(user)) }
        })
    }

    /// Puts the events that wait for their series' numbers into the parcels of the workers that own their videos.
    fn place_pending(&mut self) {
        let (pending, names) = (std::mem::take(&mut self.pending), std::mem::take(&mut self.pending_names));
        let mut rest = names.as_str();
        for Pending { hash, video_bytes, type_bytes, to_rule, detail, row } in &pending {
            let (video_id, behind) = rest.split_at(usize::from(*video_bytes));
            let (event_type, behind) = behind.split_at(usize::from(*type_bytes));
            rest = behind;
            let Interned { number, group, is_new } = self.names.intern_hashed(*hash, video_id, event_type);
            let owner = usize::from(self.owners[usize::from(group.0)]);
            let parcel = &mut self.open[owner];
            if is_new {
                let (video_id, event_type) = (video_id.to_owned(), event_type.to_owned());
                parcel.names.push(Naming { number, video_id, event_type });
            }
            let place = parcel.rows.len() as u32;
            parcel.to_rule.extend(to_rule.map(|offset| (place, offset)));
            parcel.details.extend(detail.map(|detail| RowDetail::new(place, detail)));
            parcel.rows.push(Row { series: number, ..*row });
            if row.late {
                parcel.late.extend(self.pending_late.pop_front());
            }
            if parcel.rows.len() == PARCEL_ROWS || parcel.late.len() == PARCEL_LETTERS {
                self.close(owner);
            }
        }
        // Their memory serves the next ones.
        (self.pending, self.pending_names) = (pending, names);
        self.pending.clear();
        self.pending_names.clear();
    }

    /// Whether an event is behind the watermark. It is never greater than the time given up to, less the lateness; and
    /// what is not behind that counts in no window that is final by the time it travels at.
    fn is_behind(&self, event_time: EventTime) -> bool {
        self.rules.quiet == Quiet::Release && event_time.saturating_add(self.rules.lateness_ms) < self.time
    }

    /// The first window that is remembered, whatever the partition's clock says. An event that is not behind moves the
    /// clock to the watermark at the least, if it is within its reach.
    fn forgotten(&self) -> Minute {
        match self.rules.quiet {
            Quiet::Hold => Minute(0),
            Quiet::Release => dedup::first_remembered_at(self.time, &self.rules),
        }
    }

    /// Closes the present step before the record at `offset` (already in the account) if the clock, which stood at `before`,
    /// has moved the time.
    fn step_on(&mut self, offset: u64, before: Clock) {
        let step_ms = if self.in_step < STEP_RECORDS { self.step_ms } else { self.rules.tick_ms };
        // None only while all events of a partition that was added later are behind.
        let time = floor_to(self.clock.time().unwrap_or(0), step_ms);
        self.next_step = time + step_ms;
        if self.time < time {
            // The record belongs to the next step: it leaves this one's account.
            self.account.read -= 1;
            self.account.next_offset = offset;
            self.close_step(before, false);
            self.account.read += 1;
            self.account.next_offset = offset + 1;
            self.in_step = 1;
            self.time = time;
        }
    }

    /// Whether too much travels at this time for more to follow.
    pub fn is_step_full(&self) -> bool {
        STEP_RECORDS <= self.in_step
    }

    /// Leaves behind what is no record, such as the end of a transaction: the next record is not before `next_offset`. Says
    /// whether that is news.
    pub fn skip_to(&mut self, next_offset: u64) -> bool {
        let news = self.account.next_offset < next_offset;
        self.account.next_offset = self.account.next_offset.max(next_offset);
        news
    }

    /// Leaves records behind that are gone.
    pub fn pass_over(&mut self, passed: Passed) {
        let judging = self.clock.judging().unwrap_or(0);
        let open_from = match self.rules.quiet {
            Quiet::Hold => judging,
            Quiet::Release => judging.max(self.time),
        };
        let from = open_from.saturating_sub(self.rules.lateness_ms);
        let hole = Gap { wanted: passed.wanted, first: passed.first, from, until: None };
        self.account.next_offset = passed.first;
        gap::note(&mut self.account.gaps, hole);
        self.hole = Some(hole);
    }

    /// Whether the next record is behind a hole, and has to bound it.
    pub fn is_behind_hole(&self) -> bool {
        self.hole.is_some()
    }

    /// Bounds the hole by the record behind it: what is lost was appended before.
    pub fn bound_hole(&mut self, behind: &Record<'_>) {
        let Some(append) = behind.append_time else { return };
        if let Some(hole) = self.hole.take() {
            let until = Some(append.saturating_add(self.rules.max_future_ms));
            gap::note(&mut self.account.gaps, Gap { until, ..hole });
        }
    }

    /// Moves on to `time` without a record, if that is ahead.
    pub fn pass(&mut self, time: EventTime) {
        if self.time < time {
            self.close_step(self.clock.clone(), false);
            self.in_step = 0;
            self.time = time;
        }
    }

    /// Nothing will follow: closes the last step. `ended` where that holds for good, so that the partition holds no
    /// window open any more.
    pub fn end(&mut self, ended: Ended) {
        self.close_step(self.clock.clone(), ended == Ended::ForGood);
        self.over = true;
    }

    /// Whether [`Lane::end`] was called.
    pub fn has_ended(&self) -> bool {
        self.over
    }

    /// Closes the present step, at whose end the clock stood at `clock`.
    fn close_step(&mut self, clock: Clock, ended: bool) {
        self.place_pending();
        self.account.clock = clock;
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
        self.account.gaps.clear();
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Payloads are `video:type:id:time`.
    #[derive(Clone)]
    struct Plain;

    impl Decode for Plain {
        fn decode<'a>(&self, payload: &'a [u8]) -> Result<Event<'a>, Cause> {
            let text = std::str::from_utf8(payload).map_err(|_| Cause::Utf8)?;
            let mut fields = text.split(':');
            let mut field = || fields.next().ok_or(Cause::Missing);
            let (video_id, event_type, event_id) = (field()?.into(), field()?.into(), field()?.into());
            let event_time = field()?.parse().map_err(|_| Cause::Type)?;
            Ok(Event { event_id, video_id, event_type, event_time, user_id: None, value: None })
        }
    }

    fn lane(time: EventTime) -> Lane<Plain> {
        lane_of(Rules::default(), LaneStart { time, ..LaneStart::default() })
    }

    fn lane_of(rules: Rules, start: LaneStart) -> Lane<Plain> {
        let format = Format { decode: Plain, functions: Functions::default() };
        Lane::new(format, rules, IdKey([1, 2]), start, 0, 1)
    }

    fn take(lane: &mut Lane<Plain>, offset: u64, append_time: Option<EventTime>, payload: &str) {
        lane.take(Record { offset, append_time, key: None, headers: None, payload: payload.as_bytes() });
    }

    /// An account: next offset, clock, records read.
    type Closing = (u64, Option<EventTime>, u64);

    /// Times, rows, letters and accounts of what is closed.
    fn closed(lane: &mut Lane<Plain>) -> Vec<(EventTime, usize, usize, Option<Closing>)> {
        let account = |account: Account| (account.next_offset, account.clock.time(), account.read);
        let of = |(time, parcel): (EventTime, Parcel)| {
            (time, parcel.rows.len(), parcel.refused.len(), parcel.account.map(account))
        };
        lane.drain().map(of).collect()
    }

    #[test]
    fn a_step_holds_the_records_before_the_next_and_the_clock_of_the_last_of_them() {
        let mut lane = lane(0);
        for (offset, payload) in ["a:view:1:1000", "a:view:2:1050", "nonsense", "a:view:3:1100"].iter().enumerate() {
            take(&mut lane, offset as u64, None, payload);
        }
        assert_eq!(closed(&mut lane), [(0, 0, 0, Some((0, None, 0))), (1_000, 2, 1, Some((3, Some(1_050), 3)))]);
        lane.end(Ended::ForNow);
        assert_eq!(closed(&mut lane), [(1_100, 1, 0, Some((4, Some(1_100), 1)))]);
    }

    #[test]
    fn an_event_behind_the_time_given_up_to_travels_at_that_time() {
        let mut lane = lane(0);
        take(&mut lane, 0, None, "a:view:1:1000");
        lane.pass(5_000);
        take(&mut lane, 1, None, "a:view:2:1001");
        lane.pass(5_100);
        let times: Vec<_> = closed(&mut lane).iter().map(|(time, rows, ..)| (*time, *rows)).collect();
        assert_eq!(times, [(0, 0), (1_000, 1), (5_000, 1)]);
    }

    #[test]
    fn future_is_judged_by_the_append_time_and_moves_no_clock() {
        let mut lane = lane(0);
        take(&mut lane, 0, Some(1_000), "a:view:1:301000");
        take(&mut lane, 1, Some(1_000), "a:view:2:301001");
        assert_eq!(lane.clock(), Some(301_000));
        lane.end(Ended::ForNow);
        assert_eq!(closed(&mut lane).last(), Some(&(301_000, 1, 1, Some((2, Some(301_000), 2)))));
    }

    #[test]
    fn a_hole_lies_between_what_was_open_and_what_may_have_been_appended_before_the_record_behind_it() {
        let behind = |offset| Record { offset, append_time: Some(2_000_000), key: None, headers: None, payload: b"" };
        // quiet | the bound below: by the clock, or by the time given up to
        for (quiet, from) in [(Quiet::Hold, 400_000), (Quiet::Release, 900_000)] {
            let rules = Rules { quiet, ..Rules::default() };
            let mut lane = lane_of(rules, LaneStart::default());
            take(&mut lane, 0, Some(1_000_000), "a:view:1:1000000");
            lane.pass(1_500_000);
            lane.pass_over(Passed { wanted: 1, first: 5 });
            lane.pass(1_600_000);
            let hole = Gap { wanted: 1, first: 5, from, until: None };
            // The next start goes on from there.
            let mut resumed = lane_of(rules, LaneStart { time: 1_600_000, hole: Some(hole), ..LaneStart::default() });
            lane.pass_over(Passed { wanted: 5, first: 7 });
            assert!(lane.is_behind_hole());
            for (lane, offset) in [(&mut lane, 7), (&mut resumed, 5)] {
                lane.bound_hole(&behind(offset));
                assert!(!lane.is_behind_hole());
                lane.end(Ended::ForNow);
            }
            let noted = |lane: &mut Lane<Plain>| {
                let accounts = lane.drain().filter_map(|(_, parcel)| parcel.account);
                let last = accounts.reduce(|earlier, later| later.after(&earlier)).unwrap();
                (last.next_offset, last.gaps)
            };
            assert_eq!(noted(&mut lane), (7, vec![Gap { first: 7, until: Some(2_300_000), ..hole }]));
            assert_eq!(noted(&mut resumed).1, [Gap { until: Some(2_300_000), ..hole }]);
        }
    }

    #[test]
    fn regression_the_end_of_a_transaction_is_behind_us() {
        // Retention that takes it later was told as the loss of a record that nobody had read.
        let mut lane = lane(0);
        take(&mut lane, 0, None, "a:view:1:1000");
        assert!(!lane.skip_to(1));
        assert!(lane.skip_to(2));
        assert!(!lane.skip_to(2));
        lane.pass(5_000);
        assert_eq!(closed(&mut lane).last(), Some(&(1_000, 1, 0, Some((2, Some(1_000), 1)))));
        take(&mut lane, 2, None, "a:view:2:1001");
        lane.end(Ended::ForNow);
        assert_eq!(closed(&mut lane), [(5_000, 1, 0, Some((3, Some(1_001), 1)))]);
    }

    #[test]
    fn regression_what_travels_at_one_time_is_bounded() {
        // History fed to a partition that had been given up to a later time travelled at that one time to its end.
        let mut lane = lane(10_000_000);
        for offset in 0..STEP_RECORDS {
            assert!(!lane.is_step_full());
            take(&mut lane, offset, None, "a:view:1:1000");
        }
        assert!(lane.is_step_full());
        lane.pass(lane.time() + 100);
        assert!(!lane.is_step_full());
        // In coarse steps a crowded one is left as soon as the clock allows.
        let mut lane = self::lane(0);
        lane.set_coarse(true);
        for offset in 0..STEP_RECORDS {
            take(&mut lane, offset, None, "a:view:1:10000");
        }
        take(&mut lane, STEP_RECORDS, None, "a:view:2:10250");
        assert_eq!(lane.time(), 10_200);
    }
}
