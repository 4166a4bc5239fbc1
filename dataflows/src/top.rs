//! Top lists: the videos with the greatest counts over a range, exact, at one frontier.
//!
//! A video lives on one worker, so the best of all are among the best of each: every worker scans its own counts and sends
//! so many, and whoever asked merges them. (What is on several workers, as a channel's videos are, would have to be
//! summed before anything is left out.)
//!
//! A scan takes its turns between the other operators, with so much fuel each. It holds the batches that it found when it
//! began, and batches never change: however long it takes, it is true at its frontier, and no history waits for it. Of the
//! usual spans it goes through running totals instead (`totals.rs`).

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap, VecDeque},
    ops::Range,
};

use differential_dataflow::{
    operators::arrange::Arranged,
    trace::{Cursor, Navigable, TraceReader},
};
use serde::{Deserialize, Serialize};
use timely::{
    container::CapacityContainerBuilder,
    dataflow::{
        channels::pact::{Exchange, Pipeline},
        operators::{generic::operator::Operator, vec::Broadcast},
    },
};

use crate::{
    control::Hub,
    desk::{Asked, Questions, Reply, ask},
    index::{Book, Indexed, Measures},
    series::{SeriesNames, SeriesNo, SeriesTable},
    snapshot::{Batch, BatchCursor},
    time::{EventTime, Minute},
    totals::{Total, Totals},
};

/// Cells and names that one activation looks at, since the other operators wait meanwhile. The cells of one series in one
/// batch are looked at in one go, as for any question.
const FUEL: usize = 50_000;

/// Asks for the videos with the most events of a type, true at one frontier.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopQuestion {
    /// Which event type.
    pub event_type: String,
    /// The first window wanted.
    pub first: Minute,
    /// The first window not wanted any more.
    pub end: Minute,
    /// By what they are ranked.
    pub order: Order,
    /// How many at the most.
    pub k: usize,
    /// An announced frontier: the answer holds the updates at times before it.
    pub as_of: EventTime,
}

/// By what videos are ranked, the greatest first; of equals, the one with the lesser id byte by byte.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Order {
    /// Their counts.
    Count,
    /// Their counts, less those of as many windows right before. Any video with an event in either is ranked.
    Rising,
}

impl Order {
    /// The first window that is looked at for a range.
    pub fn lowest(self, first: Minute, end: Minute) -> Minute {
        match self {
            Self::Count => first,
            Self::Rising => Minute(first.0.saturating_sub(end.0.saturating_sub(first.0))),
        }
    }
}

/// The first and the last of two spans together, either of which may be empty.
pub fn joined<T: Ord>(one: Option<(T, T)>, other: Option<(T, T)>) -> Option<(T, T)> {
    match (one, other) {
        (Some((first, last)), Some(other)) => Some((first.min(other.0), last.max(other.1))),
        (one, other) => one.or(other),
    }
}

/// Ranks what was summed elsewhere: ids, counts, and counts in the range before. One without an event is left out.
pub fn rank(order: Order, k: usize, sums: impl IntoIterator<Item = (String, u64, u64)>) -> Vec<Ranked> {
    let mut best = Best::new(order, k);
    for (id, count, before) in sums {
        best.offer(&id, count.cast_signed(), before.cast_signed());
    }
    best.finish()
}

impl TopQuestion {
    /// The first window that is looked at.
    pub fn lowest(&self) -> Minute {
        self.order.lowest(self.first, self.end)
    }

    fn windows(&self) -> Range<Minute> {
        self.first..self.end
    }
}

/// The list asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TopAnswer {
    /// True at the `as_of` of the question.
    Top {
        /// The first and the last window with an event, of those looked at; not of a usual span, whose windows are not looked at.
        known: Option<(Minute, Minute)>,
        /// The greatest first.
        top: Vec<Ranked>,
    },
    /// The history before `oldest` is merged: ask for that or later.
    Gone {
        /// The oldest frontier that can still be answered.
        oldest: EventTime,
    },
}

/// One of a list.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Ranked {
    /// Which video.
    pub id: String,
    /// How many events in the range.
    pub count: u64,
    /// How many in the range before, where that was asked for.
    pub before: u64,
}

/// Answers top lists from the trace: the desk's worker asks all, each scans what it has, the asker merges.
///
/// * exchange: a question to all workers, a list to the worker that asked
/// * state: the questions whose `as_of` the index has not reached; scans under way, with the batches they read; running totals of
///   the usual spans, once asked for; a hold on `retain_ms` of history; the lists of questions that not all workers have answered
pub fn top<'scope>(
    arranged: Indexed<'scope, Measures>,
    hub: &Hub,
    series: SeriesNames,
    retain_ms: u64,
    desk: Option<Questions<TopQuestion>>,
    mut reply: Reply<TopAnswer>,
) {
    let scope = arranged.stream.scope();
    let peers = scope.peers();
    let asked = ask(scope, "AskTop", hub, desk).broadcast();
    let Arranged { stream, trace } = arranged;
    let resumed = hub.with(|shared| shared.applied);
    let mut totals = Totals::new(trace.clone());
    let mut book = Book::new(trace, series, retain_ms, resumed);
    let mut parked: Vec<Asked<TopQuestion>> = Vec::new();
    let mut scans: VecDeque<Scan> = VecDeque::new();
    let lists = asked.binary_frontier::<_, CapacityContainerBuilder<Vec<(usize, List)>>, _, _, _, _>(
        stream,
        Pipeline,
        Pipeline,
        "Top",
        move |capability, info| {
            let again = scope.activator_for(info.address);
            let mut capability = Some(capability);
            move |(questions, open), (batches, _), output| {
                questions.for_each(|_, asked| parked.append(asked));
                batches.for_each(|_, _| {});
                let (reached, mut fuel) = (book.advance(), FUEL);
                if let Some(reached) = reached {
                    totals.follow(reached, book.oldest, &mut fuel);
                }
                let is_ready = |asked: &Asked<TopQuestion>| reached.is_none_or(|upper| asked.question.as_of <= upper);
                let ready = parked.extract_if(.., |asked| is_ready(asked));
                scans.extend(ready.map(|asked| Scan::new(asked, &book, &mut totals, &mut fuel)));
                if let Some(capability) = &capability {
                    let series = book.series.read();
                    let mut session = output.session(capability);
                    while scans.front_mut().is_some_and(|scan| scan.go_on(&series, &mut fuel)) {
                        session.give_iterator(scans.pop_front().map(Scan::finish).into_iter());
                    }
                }
                if open.is_empty() {
                    // The job ends, and nobody waits for answers any more.
                    capability = None;
                    scans.clear();
                }
                if !scans.is_empty() || totals.is_behind() {
                    again.activate();
                }
            }
        },
    );
    let home = Exchange::new(|(from, _): &(usize, List)| *from as u64);
    let mut merging: BTreeMap<u64, Merging> = BTreeMap::new();
    lists.sink(home, "TopReply", move |(input, _)| {
        input.for_each(|_, lists| {
            for (_, list) in lists.drain(..) {
                let ticket = list.ticket;
                let merged = merging.entry(ticket).or_insert_with(|| Merging::new(&list, peers));
                if merged.add(list)
                    && let Some(whole) = merging.remove(&ticket)
                {
                    reply(ticket, whole.finish());
                }
            }
        });
    });
}

/// What one worker has to say to a question.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct List {
    ticket: u64,
    order: Order,
    k: usize,
    answer: TopAnswer,
}

/// A question on its way through one worker's counts.
struct Scan {
    asked: Asked<TopQuestion>,
    /// Since it can't be answered any more.
    gone: Option<EventTime>,
    way: Way,
    best: Best,
    known: Option<(Minute, Minute)>,
}

/// What a scan goes through.
enum Way {
    /// All windows, batch by batch.
    Windows(Vec<Run>),
    /// The sums of a usual span.
    Totals(std::vec::IntoIter<Total>),
}

impl Scan {
    /// Of a question whose `as_of` the index has reached.
    fn new(asked: Asked<TopQuestion>, book: &Book, totals: &mut Totals, fuel: &mut usize) -> Self {
        let question = &asked.question;
        let gone = (question.as_of < book.oldest).then_some(book.oldest);
        let summed = gone.is_none().then(|| totals.of(&question.windows(), question.as_of, fuel)).flatten();
        let way = match summed {
            Some(totals) => Way::Totals(totals.into_iter()),
            None => {
                let mut runs = Vec::new();
                if gone.is_none() {
                    book.counts.map_spans(|span| runs.extend(span.inner.as_ref().map(Run::new)));
                }
                Way::Windows(runs)
            }
        };
        let best = Best::new(question.order, question.k);
        Self { asked, gone, way, best, known: None }
    }

    /// Goes on from series to series while there is fuel; `true` when it has been through all.
    fn go_on(&mut self, series: &SeriesTable, fuel: &mut usize) -> bool {
        let Self { asked: Asked { question, .. }, way, best, known, .. } = self;
        while 0 < *fuel {
            *fuel -= 1;
            let (next, sums) = match way {
                Way::Windows(runs) => {
                    let Some(next) = runs.iter().filter_map(Run::series).min() else { return true };
                    let is_asked = *series.name(next).event_type == *question.event_type;
                    let mut sums = Sums { known: *known, ..Sums::default() };
                    // One cursor per batch, never a merged one: see `index.rs`.
                    for run in runs.iter_mut().filter(|run| run.series() == Some(next)) {
                        if is_asked {
                            *fuel = fuel.saturating_sub(run.add(question, &mut sums));
                        }
                        run.cursor.step_key(&run.batch);
                    }
                    *known = sums.known;
                    (next, sums)
                }
                Way::Totals(totals) => {
                    let Some(Total { series, count, before }) = totals.next() else { return true };
                    let before = if question.order == Order::Rising { before } else { 0 };
                    (series, Sums { count, before, known: None })
                }
            };
            let name = series.name(next);
            if *name.event_type == *question.event_type {
                best.offer(&name.video_id, sums.count, sums.before);
            }
        }
        false
    }

    /// To whom, and what.
    fn finish(self) -> (usize, List) {
        let Asked { from, ticket, question } = self.asked;
        let answer = match self.gone {
            Some(oldest) => TopAnswer::Gone { oldest },
            None => TopAnswer::Top { known: self.known, top: self.best.finish() },
        };
        (from, List { ticket, order: question.order, k: question.k, answer })
    }
}

/// What a scan knows of one series.
#[derive(Default)]
struct Sums {
    count: i64,
    before: i64,
    known: Option<(Minute, Minute)>,
}

/// One batch, and how far it has been read.
struct Run {
    batch: Batch<Measures>,
    cursor: BatchCursor<Measures>,
}

impl Run {
    fn new(batch: &Batch<Measures>) -> Self {
        Self { cursor: batch.cursor(), batch: batch.clone() }
    }

    /// The series that it stands on.
    fn series(&self) -> Option<SeriesNo> {
        self.cursor.get_key(&self.batch).copied()
    }

    /// Adds the cells of the series that it stands on; gives how many there were.
    fn add(&mut self, question: &TopQuestion, sums: &mut Sums) -> usize {
        let Self { batch, cursor } = self;
        let mut cells = 0;
        cursor.seek_val(batch, &question.lowest());
        while let Some(minute) = cursor.get_val(batch).copied().filter(|minute| *minute < question.end) {
            let mut count = 0;
            cursor.map_times(batch, |time, measures| {
                if *time < question.as_of {
                    count += measures.count;
                }
            });
            if minute < question.first {
                sums.before += count;
            } else {
                sums.count += count;
            }
            if count != 0 {
                let (first, last) = sums.known.unwrap_or((minute, minute));
                sums.known = Some((first.min(minute), last.max(minute)));
            }
            cells += 1;
            cursor.step_val(batch);
        }
        cells
    }
}

/// The best so far, the least of them at hand.
struct Best {
    order: Order,
    k: usize,
    heap: BinaryHeap<Reverse<Place>>,
}

/// Greater by score, then by the lesser id.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    score: i64,
    id: Reverse<String>,
    count: u64,
    before: u64,
}

impl Best {
    fn new(order: Order, k: usize) -> Self {
        Self { order, k, heap: BinaryHeap::new() }
    }

    /// Takes a video if it is among them. One without an event is not.
    fn offer(&mut self, id: &str, count: i64, before: i64) {
        if count == 0 && before == 0 {
            return;
        }
        let score = match self.order {
            Order::Count => count,
            Order::Rising => count - before,
        };
        if self.k <= self.heap.len() {
            let is_better = self
                .heap
                .peek()
                .is_some_and(|Reverse(least)| (least.score, Reverse(least.id.0.as_str())) < (score, Reverse(id)));
            if !is_better {
                return;
            }
            self.heap.pop();
        }
        let sum = |sum| u64::try_from(sum).expect("more is never taken out than was counted");
        let (id, count, before) = (Reverse(id.to_owned()), sum(count), sum(before));
        self.heap.push(Reverse(Place { score, id, count, before }));
    }

    /// The greatest first.
    fn finish(self) -> Vec<Ranked> {
        let ranked = self.heap.into_sorted_vec().into_iter();
        ranked.map(|Reverse(Place { id, count, before, .. })| Ranked { id: id.0, count, before }).collect()
    }
}

/// The lists of all workers coming together.
struct Merging {
    missing: usize,
    gone: Option<EventTime>,
    best: Best,
    known: Option<(Minute, Minute)>,
}

impl Merging {
    fn new(list: &List, peers: usize) -> Self {
        Self { missing: peers, gone: None, best: Best::new(list.order, list.k), known: None }
    }

    /// Adds a worker's list; `true` when it was the last.
    fn add(&mut self, list: List) -> bool {
        match list.answer {
            TopAnswer::Gone { oldest } => self.gone = self.gone.max(Some(oldest)),
            TopAnswer::Top { known, top } => {
                for Ranked { id, count, before } in top {
                    self.best.offer(&id, count.cast_signed(), before.cast_signed());
                }
                self.known = joined(self.known, known);
            }
        }
        self.missing -= 1;
        self.missing == 0
    }

    fn finish(self) -> TopAnswer {
        match self.gone {
            Some(oldest) => TopAnswer::Gone { oldest },
            None => TopAnswer::Top { known: self.known, top: self.best.finish() },
        }
    }
}

#[cfg(test)]
mod tests {
    use timely::dataflow::{
        InputHandleVec, ProbeHandle,
        operators::{Probe, vec::Input},
    };

    use super::*;
    use crate::index::{Increment, Measures, index};

    const TYPES: [&str; 2] = ["view", "like"];

    /// What a naive count of these increments has to say.
    fn naive(increments: &[Increment], question: &TopQuestion, series: &SeriesTable) -> Vec<Ranked> {
        let mut sums: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
        for ((number, minute), time, measures) in increments {
            let name = series.name(*number);
            if *name.event_type == *question.event_type && *time < question.as_of && *minute < question.end {
                let (count, before) = sums.entry(&name.video_id).or_default();
                match *minute {
                    minute if question.first <= minute => *count += measures.count.cast_unsigned(),
                    minute if question.lowest() <= minute => *before += measures.count.cast_unsigned(),
                    _ => {}
                }
            }
        }
        let with_events = sums.into_iter().filter(|(_, sums)| *sums != (0, 0));
        let mut all: Vec<_> =
            with_events.map(|(id, (count, before))| Ranked { id: id.into(), count, before }).collect();
        // Stable, and they are in the order of their ids.
        all.sort_by_key(|ranked| match question.order {
            Order::Count => Reverse(ranked.count.cast_signed()),
            Order::Rising => Reverse(ranked.count.cast_signed() - ranked.before.cast_signed()),
        });
        all.truncate(question.k);
        all
    }

    #[test]
    fn a_scan_is_true_at_its_frontier_however_long_it_takes_and_whatever_is_merged_meanwhile() {
        timely::execute_directly(|worker| {
            let series = SeriesNames::default();
            for n in 0..20 {
                series.write().intern(&format!("v{}", n * 7 % 10), TYPES[n / 10]);
            }
            let (mut input, probe) = (InputHandleVec::<EventTime, Increment>::new(), ProbeHandle::new());
            let trace = worker.dataflow(|scope| {
                let Arranged { stream, trace } = index(scope.input_from(&mut input), "Index");
                stream.probe_with(&probe);
                trace
            });
            let (mut totals, mut fuel) = (Totals::new(trace.clone()), FUEL);
            let mut book = Book::new(trace, series.clone(), 10, 0);
            let mut sent: Vec<Increment> = Vec::new();
            let mut scans: Vec<(Scan, Vec<Ranked>)> = Vec::new();
            let mut finished = 0;
            for time in 0..200_u64 {
                for n in 0..5 {
                    let number = SeriesNo(((time * 13 + n * 5) % 20) as u32);
                    let minute = Minute(((time / 3 + n * n) % 40) as u32);
                    sent.push(((number, minute), time, Measures::counted(1 + (n as u32 % 2))));
                    input.send(sent[sent.len() - 1]);
                }
                input.advance_to(time + 1);
                worker.step_while(|| probe.less_than(&(time + 1)));
                assert_eq!(book.advance(), Some(time + 1));
                let order = [Order::Count, Order::Rising][time as usize % 2];
                let (event_type, k) = (TYPES[time as usize / 2 % 2].to_owned(), time as usize % 7);
                let (first, end) = (Minute(10 + time as u32 % 5), Minute(25));
                let question = TopQuestion { event_type, first, end, order, k, as_of: time.saturating_sub(5).max(1) };
                let expected = naive(&sent, &question, &series.read());
                let asked = Asked { from: 0, ticket: time, question };
                scans.push((Scan::new(asked, &book, &mut totals, &mut fuel), expected));
                // Each has a cell's worth of fuel, and takes some twenty rounds.
                for (mut scan, expected) in std::mem::take(&mut scans) {
                    if scan.go_on(&series.read(), &mut 1) {
                        finished += 1;
                        let TopAnswer::Top { top, .. } = scan.finish().1.answer else { panic!("it began in time") };
                        assert_eq!(top, expected);
                    } else {
                        scans.push((scan, expected));
                    }
                }
            }
            assert!(100 < finished, "{finished}");
            let late = TopQuestion { as_of: 150, ..scans[0].0.asked.question.clone() };
            let late = Scan::new(Asked { from: 0, ticket: 0, question: late }, &book, &mut totals, &mut fuel);
            assert_eq!(late.finish().1.answer, TopAnswer::Gone { oldest: 190 });
        });
    }

    fn best(order: Order, k: usize, offers: &[(&str, i64, i64)]) -> Vec<(String, u64, u64)> {
        let mut best = Best::new(order, k);
        for &(id, count, before) in offers {
            best.offer(id, count, before);
        }
        best.finish().into_iter().map(|ranked| (ranked.id, ranked.count, ranked.before)).collect()
    }

    #[test]
    fn the_greatest_are_kept_and_of_equals_the_lesser_id() {
        let offers = [("c", 2, 0), ("ab", 2, 0), ("d", 0, 0), ("b", 5, 0), ("a", 2, 0), ("e", 1, 0)];
        let of = |rows: &[(&str, u64)]| rows.iter().map(|&(id, count)| (id.to_owned(), count, 0)).collect::<Vec<_>>();
        assert_eq!(best(Order::Count, 3, &offers), of(&[("b", 5), ("a", 2), ("ab", 2)]));
        assert_eq!(best(Order::Count, 9, &offers), of(&[("b", 5), ("a", 2), ("ab", 2), ("c", 2), ("e", 1)]));
        assert_eq!(best(Order::Count, 0, &offers), of(&[]));
    }

    #[test]
    fn what_falls_is_ranked_behind_what_rises() {
        let offers = [("falls", 1, 9), ("gone", 0, 3), ("stays", 4, 4), ("rises", 3, 1)];
        let ids: Vec<_> = best(Order::Rising, 4, &offers).into_iter().map(|(id, ..)| id).collect();
        assert_eq!(ids, ["rises", "stays", "gone", "falls"]);
    }

    #[test]
    fn the_answer_of_all_workers_is_gone_where_one_has_merged_that_moment() {
        let list = |answer| List { ticket: 1, order: Order::Count, k: 2, answer };
        let top = list(TopAnswer::Top { known: None, top: Vec::new() });
        let mut merging = Merging::new(&top, 3);
        assert!(!merging.add(list(TopAnswer::Gone { oldest: 7 })) && !merging.add(top));
        assert!(merging.add(list(TopAnswer::Gone { oldest: 5 })));
        assert_eq!(merging.finish(), TopAnswer::Gone { oldest: 7 });
    }
}
