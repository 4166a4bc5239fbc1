//! The index: an arrangement of counts by series and minute, and point-in-time answers from its trace.
//!
//! A count is a multiplicity: the increments of a cell sum up, and an answer at `as_of` is the sum of those at times
//! before it. History older than the retained span is merged; asking for it is refused, never answered with later data.

use std::{cell::RefCell, rc::Rc};

use differential_dataflow::{
    difference::{IsZero, Semigroup},
    operators::arrange::{Arranged, TraceAgent, arrangement::arrange_core},
    trace::{
        Cursor, Navigable, TraceReader,
        implementations::{ValBatcher, ValSpine},
    },
};
use serde::{Deserialize, Serialize};
use timely::{
    container::CapacityContainerBuilder,
    dataflow::{
        StreamVec,
        channels::pact::{Exchange, Pipeline},
        operators::generic::operator::Operator,
    },
    progress::Antichain,
};

use crate::{
    control::Hub,
    desk::{Asked, ask},
    identity::KeyGroup,
    query::{Answer, Cell, Question},
    series::{SeriesNo, SeriesTable},
    time::{EventTime, Minute},
};

pub use crate::desk::{Questions, Reply};

/// What is accumulated per cell. One function more is one field more here, and its merge below.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Measures {
    /// How many events; negative where a cell is taken out.
    pub count: i64,
}

impl Measures {
    /// So many events counted.
    pub fn counted(events: u32) -> Self {
        Self { count: i64::from(events) }
    }
}

impl IsZero for Measures {
    fn is_zero(&self) -> bool {
        self.count == 0
    }
}

impl Semigroup for Measures {
    fn plus_equals(&mut self, other: &Self) {
        self.count += other.count;
    }
}

/// One update of the index.
pub type Increment = ((SeriesNo, Minute), EventTime, Measures);

pub(crate) type Spine = ValSpine<SeriesNo, Minute, EventTime, Measures>;

/// Arranges the increments, which are where their series live already.
///
/// * input: increments at their times; exchange: none, `tally` counts each series on the worker that owns its video
/// * state: the trace
pub fn index<'scope>(increments: StreamVec<'scope, EventTime, Increment>) -> Arranged<'scope, TraceAgent<Spine>> {
    arrange_core::<_, _, ValBatcher<SeriesNo, Minute, EventTime, Measures>, Spine>(
        increments,
        Pipeline,
        "Index",
        ValBatcher::new,
    )
}

/// Answers questions from the trace: the desk's worker asks, the owner of the video answers, the answer goes back.
///
/// * exchange: a question by its video's key group, an answer to the worker that asked
/// * state: the questions whose `as_of` the index has not reached; a hold on `retain_ms` of history
pub fn answers<'scope>(
    arranged: Arranged<'scope, TraceAgent<Spine>>,
    hub: &Hub,
    series: Rc<RefCell<SeriesTable>>,
    retain_ms: u64,
    desk: Option<Questions>,
    mut reply: Reply,
) {
    let scope = arranged.stream.scope();
    let peers = scope.peers();
    let asked = ask(scope, "Ask", hub, desk);
    let Arranged { stream, trace } = arranged;
    let resumed = hub.with(|shared| shared.applied);
    let mut book = Book::new(trace, series, retain_ms, resumed);
    let mut parked: Vec<Asked> = Vec::new();
    let by_group = Exchange::new(move |asked: &Asked| KeyGroup::of(&asked.question.video_id).owner(peers) as u64);
    let answered = asked.binary_frontier::<_, CapacityContainerBuilder<Vec<(usize, u64, Answer)>>, _, _, _, _>(
        stream,
        by_group,
        Pipeline,
        "Answer",
        move |capability, _info| {
            let mut capability = Some(capability);
            move |(questions, open), (batches, _), output| {
                questions.for_each(|_, asked| parked.append(asked));
                batches.for_each(|_, _| {});
                let reached = book.advance();
                if let Some(capability) = &capability {
                    let mut session = output.session(capability);
                    parked.retain(|asked| {
                        let ready = reached.is_none_or(|upper| asked.question.as_of <= upper);
                        if ready {
                            session.give((asked.from, asked.ticket, book.answer(&asked.question)));
                        }
                        !ready
                    });
                }
                if open.is_empty() {
                    capability = None;
                }
            }
        },
    );
    let home = Exchange::new(|(from, _, _): &(usize, u64, Answer)| *from as u64);
    answered.sink(home, "Reply", move |(input, _)| {
        input.for_each(|_, answers| {
            for (_, ticket, answer) in answers.drain(..) {
                reply(ticket, answer);
            }
        });
    });
}

/// The trace with what is needed to read it.
pub(crate) struct Book {
    pub(crate) trace: TraceAgent<Spine>,
    pub(crate) series: Rc<RefCell<SeriesTable>>,
    retain_ms: u64,
    /// The oldest frontier that can be answered.
    pub(crate) oldest: EventTime,
    upper: Antichain<EventTime>,
}

impl Book {
    /// A reader of its own, which keeps history as long as `retain_ms` says, and none from before `resumed`.
    pub(crate) fn new(
        trace: TraceAgent<Spine>,
        series: Rc<RefCell<SeriesTable>>,
        retain_ms: u64,
        resumed: EventTime,
    ) -> Self {
        Self { trace, series, retain_ms, oldest: resumed, upper: Antichain::new() }
    }

    /// Reads how far the index is complete, and lets history go that is no longer retained. `None`: it has ended.
    pub(crate) fn advance(&mut self) -> Option<EventTime> {
        self.trace.read_upper(&mut self.upper);
        let upper = self.upper.as_option().copied();
        if let Some(upper) = upper {
            self.oldest = self.oldest.max(upper.saturating_sub(self.retain_ms));
            // An answer at `as_of` needs `since < as_of`.
            let since = Antichain::from_elem(self.oldest.saturating_sub(1));
            self.trace.set_logical_compaction(since.borrow());
            self.trace.set_physical_compaction(self.upper.borrow());
        }
        upper
    }

    /// The cells of one question, true at its `as_of`, which the index has reached.
    fn answer(&mut self, question: &Question) -> Answer {
        if question.as_of < self.oldest {
            return Answer::Gone { oldest: self.oldest };
        }
        let Some(series) = self.series.borrow().find(&question.video_id, &question.event_type) else {
            return Answer::Cells(Vec::new());
        };
        // One cursor per batch, never a merged one: `CursorList::seek_val` also seeks those that stand on other keys
        // (differential-dataflow issue 513).
        let mut found: Vec<(Minute, i64)> = Vec::new();
        self.trace.map_spans(|span| {
            let Some(batch) = &span.inner else { return };
            let mut cursor = batch.cursor();
            cursor.seek_key(batch, &series);
            if cursor.get_key(batch) != Some(&series) {
                return;
            }
            cursor.seek_val(batch, &question.first);
            while let Some(minute) = cursor.get_val(batch).copied().filter(|minute| *minute < question.end) {
                let mut count = 0;
                cursor.map_times(batch, |time, measures| {
                    if *time < question.as_of {
                        count += measures.count;
                    }
                });
                found.push((minute, count));
                cursor.step_val(batch);
            }
        });
        found.sort_unstable_by_key(|(minute, _)| *minute);
        Answer::Cells(merge(&found))
    }
}

/// Sums the counts of each minute; leaves out what sums up to nothing.
fn merge(found: &[(Minute, i64)]) -> Vec<Cell> {
    let cells = found.chunk_by(|one, next| one.0 == next.0).map(|of_minute| {
        let count: i64 = of_minute.iter().map(|(_, count)| count).sum();
        Cell { minute: of_minute[0].0, count: u64::try_from(count).expect("more is never taken out than was counted") }
    });
    cells.filter(|cell| cell.count > 0).collect()
}
