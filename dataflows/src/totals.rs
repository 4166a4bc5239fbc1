//! Running totals: what each series comes to in the last hour, the hour before, today and yesterday, so that a top list of these
//! spans looks at sums and not at every window.
//!
//! They follow the index, batch by batch, some way behind, and a question takes them to its own frontier; what they
//! have gone past is for the windows to answer. Nothing is kept before the first question, nor when none has come for long.

use std::{
    collections::{BTreeMap, VecDeque},
    ops::Range,
};

use differential_dataflow::{
    operators::arrange::TraceAgent,
    trace::{Cursor, Navigable, Span as Batches, TraceReader},
};
use hashbrown::HashMap;
use timely::progress::Antichain;

use crate::{
    index::{Measures, Spine, compact},
    series::SeriesNo,
    snapshot::{Batch, BatchCursor},
    time::{EventTime, MINUTE_MS, Minute},
};

const HOUR: u32 = 60;
const DAY: u32 = 24 * HOUR;

/// How far they stay behind the index while nobody asks, ms: announced frontiers, which questions are about, come a little
/// after it.
const BEHIND_MS: u64 = 5_000;

/// How long after a question they are kept up, ms of stream time.
const AWAKE_MS: u64 = 60 * MINUTE_MS;

/// Events by series; none that come to nothing.
type Sums = HashMap<SeriesNo, i64, foldhash::fast::FixedState>;

/// A usual span of top lists.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Span {
    /// The sixty minutes that end with the one that stream time is in.
    Hour,
    /// The day, UTC, that stream time is in.
    Day,
}

impl Span {
    /// Its windows at a frontier.
    pub fn at(self, frontier: EventTime) -> Range<Minute> {
        let end = end_at(frontier);
        match self {
            Self::Hour => Minute(end.saturating_sub(HOUR))..Minute(end),
            Self::Day => Minute(day_of(end) * DAY)..Minute((day_of(end) + 1).saturating_mul(DAY)),
        }
    }
}

/// The minute after the one that stream time is in.
fn end_at(frontier: EventTime) -> u32 {
    u32::try_from(frontier.div_ceil(MINUTE_MS)).unwrap_or(u32::MAX)
}

/// The day of the last minute before `end`.
fn day_of(end: u32) -> u32 {
    end.saturating_sub(1) / DAY
}

/// What a series comes to in a span, and in the one before it.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) struct Total {
    pub(crate) series: SeriesNo,
    pub(crate) count: i64,
    pub(crate) before: i64,
}

/// The running totals of one worker.
///
/// Invariant: with `unread`, `sums` have all updates of the index at times below `taken`.
pub(crate) struct Totals {
    trace: TraceAgent<Spine<Measures>>,
    /// The frontier of the newest question; `None` while nothing is kept.
    asked: Option<EventTime>,
    taken: EventTime,
    unread: VecDeque<Unread>,
    sums: SpanSums,
}

impl Totals {
    /// Of the index that the trace reads.
    pub(crate) fn new(trace: TraceAgent<Spine<Measures>>) -> Self {
        Self { trace, asked: None, taken: 0, unread: VecDeque::new(), sums: SpanSums::default() }
    }

    /// Follows the index, which is complete up to `reached` and merges what is before `oldest`, as far as the fuel goes.
    pub(crate) fn follow(&mut self, reached: EventTime, oldest: EventTime, fuel: &mut usize) {
        if self.asked.is_some_and(|asked| asked.saturating_add(AWAKE_MS) < reached) {
            (self.asked, self.taken, self.sums) = (None, 0, SpanSums::default());
            self.unread.clear();
        }
        if self.asked.is_some() {
            self.take(reached.saturating_sub(BEHIND_MS));
        }
        // Batches on both sides of `taken` must stay apart.
        let apart = if self.asked.is_some() { self.taken } else { reached };
        compact(&mut self.trace, &Antichain::from_elem(apart), oldest);
        self.read(fuel);
    }

    /// Whether something waits for more fuel.
    pub(crate) fn is_behind(&self) -> bool {
        !self.unread.is_empty()
    }

    /// Each series with an event in these windows or in as many before, of all event types, at a frontier that the index has reached. `None`
    /// where that has to be asked of the windows.
    pub(crate) fn of(&mut self, asked: &Range<Minute>, as_of: EventTime, fuel: &mut usize) -> Option<Vec<Total>> {
        let span = [Span::Hour, Span::Day].into_iter().find(|span| span.at(as_of) == *asked)?;
        if self.asked.is_none() {
            // Whatever is there has to be read, and of that nothing can be told apart.
            self.sums.move_to(end_at(as_of));
            self.take(EventTime::MAX);
        }
        self.asked = self.asked.max(Some(as_of));
        self.take(as_of);
        self.read(fuel);
        if self.is_behind() || as_of < self.taken || !self.sums.move_to(end_at(as_of)) {
            return None;
        }
        let mut sums = self.sums.of(span);
        let width = asked.end.0 - asked.start.0;
        let before = Minute(asked.start.0.saturating_sub(width))..asked.start;
        self.each_after(|series, minute, time, count| {
            if time < as_of {
                let (now, then) = (asked.contains(&minute), before.contains(&minute));
                let (sum, sum_before) = sums.entry(series).or_default();
                *sum += if now { count } else { 0 };
                *sum_before += if then { count } else { 0 };
            }
        });
        Some(sums.into_iter().map(|(series, (count, before))| Total { series, count, before }).collect())
    }

    /// Takes the batches that end at or before `to`.
    fn take(&mut self, to: EventTime) {
        let Self { trace, taken, unread, .. } = self;
        trace.map_spans(|span| {
            if let Some(end) = span.upper().as_option().copied().filter(|end| (*taken + 1..=to).contains(end)) {
                unread.extend(Unread::new(span, *taken));
                *taken = end;
            }
        });
    }

    /// Reads what was taken, as far as the fuel goes.
    fn read(&mut self, fuel: &mut usize) {
        while let Some(next) = self.unread.front_mut()
            && next.read(fuel, |series, minute, _, count| self.sums.add(series, minute, count))
        {
            self.unread.pop_front();
        }
    }

    /// Each update that was not taken.
    fn each_after(&self, mut see: impl FnMut(SeriesNo, Minute, EventTime, i64)) {
        self.trace.map_spans(|span| {
            if span.upper().as_option().is_none_or(|end| self.taken < *end)
                && let Some(mut batch) = Unread::new(span, self.taken)
            {
                let mut enough = usize::MAX;
                batch.read(&mut enough, &mut see);
            }
        });
    }
}

/// A batch, and how far it has been read.
struct Unread {
    batch: Batch<Measures>,
    cursor: BatchCursor<Measures>,
    /// Updates before it are of no interest.
    from: EventTime,
}

impl Unread {
    fn new(span: &Batches<EventTime, Batch<Measures>>, from: EventTime) -> Option<Self> {
        let batch = span.inner.as_ref()?;
        Some(Self { cursor: batch.cursor(), batch: batch.clone(), from })
    }

    /// Reads on from series to series while there is fuel; `true` when it has been through all.
    fn read(&mut self, fuel: &mut usize, mut see: impl FnMut(SeriesNo, Minute, EventTime, i64)) -> bool {
        let Self { batch, cursor, from } = self;
        while let Some(series) = cursor.get_key(batch).copied() {
            if *fuel == 0 {
                return false;
            }
            while let Some(minute) = cursor.get_val(batch).copied() {
                cursor.map_times(batch, |time, measures| {
                    if *from <= *time {
                        see(series, minute, *time, measures.count);
                    }
                });
                *fuel = fuel.saturating_sub(1);
                cursor.step_val(batch);
            }
            cursor.step_key(batch);
        }
        true
    }
}

/// Sums of spans that end with one minute.
///
/// Invariant: `hour` and `hour_before` are the sums of `minutes` in the sixty before `end`, and the sixty before those. `minutes` and `days` have
/// what was added from there, and from yesterday, on.
#[derive(Default)]
struct SpanSums {
    /// The minute after the one that stream time is in.
    end: u32,
    minutes: BTreeMap<u32, Sums>,
    hour: Sums,
    hour_before: Sums,
    days: BTreeMap<u32, Sums>,
}

impl SpanSums {
    fn add(&mut self, series: SeriesNo, minute: Minute, count: i64) {
        let (minute, day) = (minute.0, minute.0 / DAY);
        if self.yesterday() <= day {
            add(self.days.entry(day).or_default(), series, count);
        }
        if self.end <= minute.saturating_add(2 * HOUR) {
            add(self.minutes.entry(minute).or_default(), series, count);
        }
        match self.end.checked_sub(minute) {
            Some(1..=HOUR) => add(&mut self.hour, series, count),
            Some(age) if (HOUR + 1..=2 * HOUR).contains(&age) => add(&mut self.hour_before, series, count),
            _ => {}
        }
    }

    fn yesterday(&self) -> u32 {
        day_of(self.end).saturating_sub(1)
    }

    /// Lets all spans end with another minute; `false` where that is past.
    fn move_to(&mut self, end: u32) -> bool {
        if end < self.end {
            return false;
        }
        let reach = end.saturating_sub(2 * HOUR);
        if self.end < reach {
            // Nothing of what was in them stays.
            self.hour.clear();
            self.hour_before.clear();
            self.minutes = self.minutes.split_off(&reach);
            self.end = reach;
        }
        for minute in self.end..end {
            self.enter(minute);
        }
        self.end = end;
        self.days = self.days.split_off(&self.yesterday());
        true
    }

    /// The minute comes into the hour, one leaves it for the hour before, one leaves that.
    fn enter(&mut self, minute: u32) {
        for (series, count) in self.minutes.get(&minute).into_iter().flatten() {
            add(&mut self.hour, *series, *count);
        }
        let passing = minute.checked_sub(HOUR).and_then(|minute| self.minutes.get(&minute));
        for (series, count) in passing.into_iter().flatten() {
            add(&mut self.hour, *series, -count);
            add(&mut self.hour_before, *series, *count);
        }
        let leaving = minute.checked_sub(2 * HOUR).and_then(|minute| self.minutes.remove(&minute));
        for (series, count) in leaving.into_iter().flatten() {
            add(&mut self.hour_before, series, -count);
        }
    }

    /// A span's sums, and those of the one before.
    fn of(&self, span: Span) -> HashMap<SeriesNo, (i64, i64), foldhash::fast::FixedState> {
        let today = day_of(self.end);
        let (now, then) = match span {
            Span::Hour => (Some(&self.hour), Some(&self.hour_before)),
            Span::Day => (self.days.get(&today), today.checked_sub(1).and_then(|day| self.days.get(&day))),
        };
        let mut both: HashMap<SeriesNo, (i64, i64), foldhash::fast::FixedState> = HashMap::default();
        both.extend(now.into_iter().flatten().map(|(series, count)| (*series, (*count, 0))));
        for (series, count) in then.into_iter().flatten() {
            both.entry(*series).or_default().1 = *count;
        }
        both
    }
}

fn add(sums: &mut Sums, series: SeriesNo, count: i64) {
    let sum = sums.entry(series).or_default();
    *sum += count;
    if *sum == 0 {
        sums.remove(&series);
    }
}

#[cfg(test)]
mod tests {
    use timely::dataflow::{
        InputHandleVec, ProbeHandle,
        operators::{Probe, vec::Input},
    };

    use super::*;
    use crate::index::{Increment, index};

    const MANY: usize = 1_000_000;

    /// What a naive sum of these updates has to say: series with an event in the span or in the one before.
    fn naive(updates: &[Increment], asked: &Range<Minute>, as_of: EventTime) -> BTreeMap<u32, (i64, i64)> {
        let width = asked.end.0 - asked.start.0;
        let mut sums: BTreeMap<u32, (i64, i64)> = BTreeMap::new();
        for ((series, minute), _, measures) in updates.iter().filter(|(_, time, _)| *time < as_of) {
            let (now, then) = sums.entry(series.0).or_default();
            if asked.contains(minute) {
                *now += measures.count;
            } else if asked.start.0 <= minute.0 + width && minute.0 < asked.start.0 {
                *then += measures.count;
            }
        }
        sums.retain(|_, both| *both != (0, 0));
        sums
    }

    fn all(totals: Vec<Total>) -> BTreeMap<u32, (i64, i64)> {
        let of = totals.into_iter().map(|total| (total.series.0, (total.count, total.before)));
        of.filter(|(_, both)| *both != (0, 0)).collect()
    }

    /// Totals beside what feeds their index, minutes before stream time or after. Gives what the steps have added up.
    fn run<T: Default + Send + 'static>(
        step: impl Fn(u64, &mut Totals, &[Increment], EventTime, &mut T) + Send + Sync + 'static,
    ) -> T {
        timely::execute_directly(move |worker| {
            let mut added = T::default();
            let (mut input, probe) = (InputHandleVec::<EventTime, Increment>::new(), ProbeHandle::new());
            let trace = worker.dataflow(|scope| {
                let arranged = index(scope.input_from(&mut input), "Index");
                arranged.stream.probe_with(&probe);
                arranged.trace
            });
            let mut totals = Totals::new(trace);
            let (mut sent, mut time): (Vec<Increment>, EventTime) = (Vec::new(), 86_400_000 - 7_200_000);
            for n in 0..400_u64 {
                for draw in [n * 7, n * 11 + 3, n * 13 + 5] {
                    let minute = Minute((time / MINUTE_MS + draw % 5).saturating_sub(draw * draw % 180) as u32);
                    // What leaves memory is taken out.
                    let count = if draw % 17 == 0 { -1 } else { 1 + draw as i64 % 3 };
                    sent.push(((SeriesNo(draw as u32 % 9), minute), time, Measures { count }));
                    input.send(sent[sent.len() - 1]);
                }
                // Mostly small steps, and now and then hours and days at once.
                time += [900, 47_000, 61_000, 2_500][n as usize % 4]
                    + [0, 11_000_000, 90_000_000][(n % 100 / 98 + n % 200 / 199) as usize];
                input.advance_to(time);
                worker.step_while(|| probe.less_than(&time));
                step(n, &mut totals, &sent, time, &mut added);
            }
            added
        })
    }

    #[test]
    fn totals_are_what_the_windows_come_to_at_any_frontier_that_they_have_not_gone_past() {
        let answered: [u32; 2] = run(|n, totals, sent, reached, answered: &mut [u32; 2]| {
            totals.follow(reached, reached.saturating_sub(100_000), &mut MANY.clone());
            if n % 3 != 0 {
                return;
            }
            for (which, span) in [Span::Hour, Span::Day].into_iter().enumerate() {
                // Between batches as well as at their ends.
                let as_of = reached - n % 5 * 700;
                let asked = span.at(as_of);
                if let Some(found) = totals.of(&asked, as_of, &mut MANY.clone()) {
                    answered[which] += 1;
                    assert_eq!(all(found), naive(sent, &asked, as_of), "{span:?} at {as_of}");
                }
            }
        });
        assert!(answered.iter().all(|times| 100 < *times), "{answered:?} of 134");
    }

    #[test]
    fn what_they_have_gone_past_is_left_to_the_windows_and_so_is_any_other_span() {
        run(|n, totals, _, reached, (): &mut ()| {
            let mut ask = |asked: Range<Minute>, as_of| totals.of(&asked, as_of, &mut MANY.clone()).is_some();
            if n == 300 {
                assert!(!ask(Span::Hour.at(reached - 1), reached - 1), "all was read, and more than was asked for");
                assert!(ask(Span::Hour.at(reached), reached));
                assert!(!ask(Span::Hour.at(reached - 1), reached - 1));
                assert!(!ask(Span::Hour.at(reached - 120_000), reached));
            }
        });
    }

    #[test]
    fn little_fuel_is_enough_in_time_and_nobody_is_answered_before() {
        let (missed, answered) = run(|_, totals, sent, reached, (missed, answered): &mut (u32, u32)| {
            totals.follow(reached, reached.saturating_sub(100_000), &mut 4);
            let asked = Span::Day.at(reached);
            match totals.of(&asked, reached, &mut 3) {
                Some(found) => {
                    *answered += 1;
                    assert_eq!(all(found), naive(sent, &asked, reached));
                }
                None => *missed += 1,
            }
        });
        assert!(0 < missed && 100 < answered, "{missed} {answered}");
    }

    #[test]
    fn nothing_is_kept_once_nobody_has_asked_for_long() {
        run(|n, totals, _, reached, (): &mut ()| {
            totals.follow(reached, reached.saturating_sub(100_000), &mut MANY.clone());
            if n < 10 {
                totals.of(&Span::Hour.at(reached), reached, &mut MANY.clone());
                assert!(totals.asked.is_some());
            }
            let holds = !totals.sums.minutes.is_empty() || !totals.sums.days.is_empty();
            assert_eq!(holds, totals.asked.is_some());
            assert!(n < 390 || !holds);
        });
    }
}
