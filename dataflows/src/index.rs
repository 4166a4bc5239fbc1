//! The index: arrangements of counts and of functions by series and minute, and point-in-time answers from their traces ([`crate::snapshot`]).
//!
//! A count is a multiplicity: the increments of a cell sum up, and an answer at `as_of` is the sum of those at times
//! before it. Functions are differences as well, in an arrangement of their own: where none are kept there is
//! none. History older than the retained span is merged; asking for it is refused, never answered with later data.

use differential_dataflow::{
    difference::{IsZero, Semigroup},
    operators::arrange::{Arranged, TraceAgent, arrangement::arrange_core},
    trace::{TraceReader, implementations::ValBatcher},
};
use serde::{Deserialize, Serialize};
use timely::{
    container::CapacityContainerBuilder,
    dataflow::{
        StreamVec,
        channels::pact::{Exchange, Pipeline},
        operators::{Concat, generic::operator::Operator, vec::Map},
    },
    progress::Antichain,
};

use crate::{
    channels,
    control::Hub,
    desk::{Asked, ask},
    dimensions::MemberSpine,
    functions::stats::Stats,
    identity::KeyGroup,
    query::Answer,
    series::{SeriesNames, SeriesNo},
    shared::SharedSpine,
    snapshot::{Batch, Publisher, Snapshot, Snapshots},
    time::{EventTime, Minute},
};

pub use crate::desk::{Questions, Reply};

/// What is accumulated per cell.
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

    /// What takes so many events out.
    pub fn taken_out(events: u64) -> Self {
        Self { count: -i64::try_from(events).expect("a count of one minute is far below that") }
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

/// One update of the functions' index.
pub type StatsIncrement = ((SeriesNo, Minute), EventTime, Stats);

pub(crate) type Spine<R> = SharedSpine<SeriesNo, Minute, EventTime, R>;

/// An arrangement by series and minute.
pub type Indexed<'scope, R> = Arranged<'scope, TraceAgent<Spine<R>>>;

/// Arranges increments, which are where their series live already.
///
/// * input: increments at their times; exchange: none, `tally` counts each series on the worker that owns its video
/// * state: the trace
pub fn index<'scope, R: Semigroup + Ord + 'static>(
    increments: StreamVec<'scope, EventTime, ((SeriesNo, Minute), EventTime, R)>,
    name: &str,
) -> Indexed<'scope, R> {
    arrange_core::<_, _, ValBatcher<SeriesNo, Minute, EventTime, R>, Spine<R>>(
        increments,
        Pipeline,
        name,
        ValBatcher::new,
    )
}

/// Where questions about single videos are answered.
pub struct IndexDesk {
    /// What threads outside read of this worker's index.
    pub snapshots: Snapshots,
    /// Told, on the worker's thread, of each new one. Must not block.
    pub published: Box<dyn FnMut()>,
    /// Where is asked what workers of other processes own.
    pub desk: Option<Questions>,
    /// Where their answers go.
    pub reply: Reply,
}

/// Puts up snapshots of the index, and answers questions from elsewhere: the desk's worker asks, the owner of the video answers, the answer
/// goes back.
///
/// * exchange: a question by its video's key group, an answer to the worker that asked
/// * state: the questions whose `as_of` the index has not reached; a hold on `retain_ms` of history
pub fn answers<'scope>(
    counts: Indexed<'scope, Measures>,
    functions: Option<Indexed<'scope, Stats>>,
    hub: &Hub,
    retain_ms: u64,
    desk: IndexDesk,
) {
    let scope = counts.stream.scope();
    let peers = scope.peers();
    let IndexDesk { snapshots, mut published, desk, mut reply } = desk;
    let asked = ask(scope, "Ask", hub, desk);
    let mut stream = counts.stream.map(drop);
    if let Some(functions) = &functions {
        stream = stream.concat(functions.stream.clone().map(drop));
    }
    let resumed = hub.with(|shared| shared.applied);
    let functions = functions.map(|functions| functions.trace);
    let mut book = Book::new(counts.trace, snapshots.series.clone(), retain_ms, resumed).with_functions(functions);
    let mut publisher = Publisher::new(snapshots);
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
                publisher.publish(book.snapshot(reached));
                published();
                if let Some(capability) = &capability {
                    let mut session = output.session(capability);
                    parked.retain(|asked| {
                        let Some(answer) = publisher.snapshots.answer(&asked.question) else { return true };
                        session.give((asked.from, asked.ticket, answer));
                        false
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

/// The traces with what is needed to read them.
pub(crate) struct Book {
    pub(crate) counts: TraceAgent<Spine<Measures>>,
    functions: Option<TraceAgent<Spine<Stats>>>,
    members: Option<TraceAgent<MemberSpine>>,
    pub(crate) series: SeriesNames,
    retain_ms: u64,
    /// The oldest frontier that can be answered.
    pub(crate) oldest: EventTime,
}

impl Book {
    /// A reader of its own, which keeps history as long as `retain_ms` says, and none from before `resumed`.
    pub(crate) fn new(
        counts: TraceAgent<Spine<Measures>>,
        series: SeriesNames,
        retain_ms: u64,
        resumed: EventTime,
    ) -> Self {
        Self { counts, functions: None, members: None, series, retain_ms, oldest: resumed }
    }

    /// With the functions, where any are kept.
    pub(crate) fn with_functions(self, functions: Option<TraceAgent<Spine<Stats>>>) -> Self {
        Self { functions, ..self }
    }

    /// With the videos of channels.
    pub(crate) fn with_members(self, members: TraceAgent<MemberSpine>) -> Self {
        Self { members: Some(members), ..self }
    }

    /// Reads how far the index is complete, and lets history go that is no longer retained. `None`: it has ended.
    pub(crate) fn advance(&mut self) -> Option<EventTime> {
        let of_counts = upper(&mut self.counts);
        let of_functions = self.functions.as_mut().map(upper);
        let of_members = self.members.as_mut().map(upper);
        let uppers = [Some(&of_counts), of_functions.as_ref(), of_members.as_ref()].into_iter().flatten();
        let reached = uppers.filter_map(|upper| upper.as_option().copied()).min();
        if let Some(reached) = reached {
            self.oldest = self.oldest.max(reached.saturating_sub(self.retain_ms));
            compact(&mut self.counts, &of_counts, self.oldest);
            if let Some((functions, upper)) = self.functions.as_mut().zip(of_functions) {
                compact(functions, &upper, self.oldest);
            }
            if let Some((members, upper)) = self.members.as_mut().zip(of_members) {
                compact(members, &upper, self.oldest);
            }
        }
        reached
    }

    /// The batches of the videos of channels.
    pub(crate) fn members(&self) -> Vec<channels::Run> {
        self.members.as_ref().map_or_else(Vec::new, channels::runs)
    }

    /// The counts and the functions as they are now.
    pub(crate) fn snapshot(&self, reached: Option<EventTime>) -> Snapshot {
        let functions = self.functions.as_ref().map(batches);
        Snapshot { counts: batches(&self.counts), functions, oldest: self.oldest, reached }
    }
}

/// All batches of a trace that hold anything.
fn batches<R: Semigroup + Ord + 'static>(trace: &TraceAgent<Spine<R>>) -> Vec<Batch<R>> {
    let mut batches = Vec::new();
    trace.map_spans(|span| batches.extend(span.inner.clone()));
    batches
}

fn upper<T: TraceReader<Time = EventTime>>(trace: &mut T) -> Antichain<EventTime> {
    let mut upper = Antichain::new();
    trace.read_upper(&mut upper);
    upper
}

/// Lets all history before `oldest` be merged, and all batches before `upper`. An answer at `as_of` needs `since < as_of`.
pub(crate) fn compact(trace: &mut impl TraceReader<Time = EventTime>, upper: &Antichain<EventTime>, oldest: EventTime) {
    let since = Antichain::from_elem(oldest.saturating_sub(1));
    trace.set_logical_compaction(since.borrow());
    trace.set_physical_compaction(upper.borrow());
}
