//! Questions about channels: counts joined with which video belongs to which channel, both at one frontier.
//!
//! A channel's videos live on several workers. Each sums those that it owns, and whoever asked adds the sums up before anything is left
//! out: of a top list, all channels travel.

use std::{
    collections::{BTreeMap, VecDeque},
    rc::Rc,
};

use differential_dataflow::{
    operators::arrange::TraceAgent,
    trace::{BatchCursor, Cursor, Navigable, TraceReader},
};
use serde::{Deserialize, Serialize};
use timely::{
    container::CapacityContainerBuilder,
    dataflow::{
        StreamVec,
        channels::pact::{Exchange, Pipeline},
        operators::{
            Concat,
            generic::operator::Operator,
            vec::{Broadcast, Map},
        },
    },
};

use crate::{
    control::Hub,
    desk::{Asked, Questions, Reply, ask},
    dimensions::{MemberSpine, Members},
    functions::{Kept, stats::Stats},
    index::{Book, Indexed, Measures},
    query::{Answer, Cell, Question},
    series::SeriesNames,
    time::{EventTime, Minute},
    top::{Order, TopAnswer, joined, rank},
};

/// Cells and videos that one activation looks at, since the other operators wait meanwhile.
const FUEL: usize = 50_000;

/// Asks about channels, true at one frontier.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChannelQuestion {
    /// Which event type.
    pub event_type: String,
    /// The first window wanted.
    pub first: Minute,
    /// The first window not wanted any more.
    pub end: Minute,
    /// An announced frontier: the answer holds the updates at times before it, of events and of dimensions.
    pub as_of: EventTime,
    /// What of them.
    pub wanted: Wanted,
}

/// What is wanted of channels.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Wanted {
    /// The windows of one, summed over its videos.
    Windows {
        /// Which channel.
        channel_id: String,
        /// Which functions beside the counts.
        functions: Kept,
    },
    /// Those with the most events.
    Top {
        /// By what they are ranked.
        order: Order,
        /// How many at the most.
        k: usize,
    },
    /// Which videos belong to one, or to each.
    Members {
        /// Which channel.
        channel_id: Option<String>,
    },
}

/// What was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChannelAnswer {
    /// A channel's windows.
    Windows(Answer),
    /// A list of channels.
    Top(TopAnswer),
    /// Who belongs to whom.
    Members(MembersAnswer),
}

/// Which videos belong to which channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MembersAnswer {
    /// Videos by channel, true at the `as_of` of the question.
    Members(BTreeMap<String, Vec<String>>),
    /// The history before `oldest` is merged: ask for that or later.
    Gone {
        /// The oldest frontier that can still be answered.
        oldest: EventTime,
    },
}

/// Where questions about channels are asked on this worker, and where the answers go.
pub struct ChannelDesk {
    /// Where they are asked.
    pub desk: Option<Questions<ChannelQuestion>>,
    /// Where the answers go.
    pub reply: Reply<ChannelAnswer>,
}

/// Answers questions about channels: the desk's worker asks all, each sums the videos that it owns, the asker adds up.
///
/// * exchange: a question to all workers, sums to the worker that asked
/// * state: the questions whose `as_of` not all traces have reached; walks under way; a hold on `retain_ms` of history; the sums
///   of questions that not all workers have answered
pub fn channels<'scope>(
    members: Members<'scope>,
    counts: Indexed<'scope, Measures>,
    functions: Option<Indexed<'scope, Stats>>,
    hub: &Hub,
    series: SeriesNames,
    retain_ms: u64,
    at: ChannelDesk,
) {
    let scope = counts.stream.scope();
    let peers = scope.peers();
    let ChannelDesk { desk, reply } = at;
    let asked = ask(scope, "AskChannels", hub, desk).broadcast();
    let mut stream = counts.stream.map(drop).concat(members.stream.map(drop));
    if let Some(functions) = &functions {
        stream = stream.concat(functions.stream.clone().map(drop));
    }
    let resumed = hub.with(|shared| shared.applied);
    let book = Book::new(counts.trace, series, retain_ms, resumed).with_functions(functions.map(|it| it.trace));
    let mut book = book.with_members(members.trace);
    let mut parked: Vec<Asked<ChannelQuestion>> = Vec::new();
    let mut walks: VecDeque<Walk> = VecDeque::new();
    let sums = asked.binary_frontier::<_, CapacityContainerBuilder<Vec<(usize, Part)>>, _, _, _, _>(
        stream,
        Pipeline,
        Pipeline,
        "Channels",
        move |capability, info| {
            let again = scope.activator_for(info.address);
            let mut capability = Some(capability);
            move |(questions, open), (batches, _), output| {
                questions.for_each(|_, asked| parked.append(asked));
                batches.for_each(|_, _| {});
                let (reached, mut fuel) = (book.advance(), FUEL);
                let is_ready =
                    |asked: &Asked<ChannelQuestion>| reached.is_none_or(|upper| asked.question.as_of <= upper);
                walks.extend(parked.extract_if(.., |asked| is_ready(asked)).map(|asked| Walk::new(asked, &book)));
                if let Some(capability) = &capability {
                    let mut session = output.session(capability);
                    while walks.front_mut().is_some_and(|walk| walk.go_on(&book, &mut fuel)) {
                        session.give_iterator(walks.pop_front().map(Walk::finish).into_iter());
                    }
                }
                if open.is_empty() {
                    // The job ends, and nobody waits for answers any more.
                    capability = None;
                    walks.clear();
                }
                if !walks.is_empty() {
                    again.activate();
                }
            }
        },
    );
    merge(sums, peers, reply);
}

/// Adds up what all workers say to a question, on the one that asked.
fn merge(sums: StreamVec<'_, EventTime, (usize, Part)>, peers: usize, mut reply: Reply<ChannelAnswer>) {
    let home = Exchange::new(|(from, _): &(usize, Part)| *from as u64);
    let mut merging: BTreeMap<u64, (usize, Part)> = BTreeMap::new();
    sums.sink(home, "ChannelReply", move |(input, _)| {
        input.for_each(|_, parts| {
            for (_, Part { ticket, wanted, sums }) in parts.drain(..) {
                let nothing = || (0, Part { ticket, wanted, sums: Sums::default() });
                let (heard, whole) = merging.entry(ticket).or_insert_with(nothing);
                whole.sums.add(sums);
                *heard += 1;
                if *heard == peers
                    && let Some((_, whole)) = merging.remove(&ticket)
                {
                    reply(ticket, whole.answer());
                }
            }
        });
    });
}

/// What one worker has to say to a question, and what all have together.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Part {
    ticket: u64,
    wanted: Wanted,
    sums: Sums,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Sums {
    /// Since some worker can't answer it any more.
    gone: Option<EventTime>,
    /// Of the one channel.
    windows: BTreeMap<Minute, (u64, Stats)>,
    /// Of each channel: in the range, and in the one before.
    channels: BTreeMap<String, (u64, u64)>,
    /// The first and the last window with an event.
    known: Option<(Minute, Minute)>,
    /// The videos of each channel.
    members: BTreeMap<String, Vec<String>>,
}

impl Sums {
    fn add(&mut self, other: Self) {
        self.gone = self.gone.max(other.gone);
        for (minute, (count, stats)) in other.windows {
            self.add_window(Cell { minute, count }, &stats);
        }
        for (channel, (count, before)) in other.channels {
            let sums = self.channels.entry(channel).or_default();
            (sums.0, sums.1) = (sums.0 + count, sums.1 + before);
        }
        for (channel, videos) in other.members {
            self.members.entry(channel).or_default().extend(videos);
        }
        self.known = joined(self.known, other.known);
    }

    fn add_window(&mut self, cell: Cell, stats: &Stats) {
        let (count, sum) = self.windows.entry(cell.minute).or_default();
        *count += cell.count;
        sum.merge(stats);
    }
}

impl Part {
    fn answer(self) -> ChannelAnswer {
        let Sums { gone, windows, channels, known, members } = self.sums;
        match self.wanted {
            Wanted::Windows { functions, .. } => ChannelAnswer::Windows(match gone {
                Some(oldest) => Answer::Gone { oldest },
                None => {
                    let cells = windows.into_iter().map(|(minute, (count, stats))| (Cell { minute, count }, stats));
                    if functions.any() {
                        Answer::Functions(cells.collect())
                    } else {
                        Answer::Cells(cells.map(|(cell, _)| cell).collect())
                    }
                }
            }),
            Wanted::Top { order, k } => ChannelAnswer::Top(match gone {
                Some(oldest) => TopAnswer::Gone { oldest },
                None => {
                    let sums = channels.into_iter().map(|(channel, (count, before))| (channel, count, before));
                    TopAnswer::Top { known, top: rank(order, k, sums) }
                }
            }),
            Wanted::Members { .. } => ChannelAnswer::Members(match gone {
                Some(oldest) => MembersAnswer::Gone { oldest },
                None => MembersAnswer::Members(members),
            }),
        }
    }
}

/// A question on its way through one worker's videos.
struct Walk {
    asked: Asked<ChannelQuestion>,
    sums: Sums,
    /// Batches of members whose channels are still to come.
    runs: Vec<Run>,
    /// A channel, and those of its videos that are still to come.
    channel: String,
    videos: std::vec::IntoIter<String>,
}

impl Walk {
    /// Of a question whose `as_of` all traces have reached.
    fn new(asked: Asked<ChannelQuestion>, book: &Book) -> Self {
        let mut runs = book.members();
        let (mut channel, mut videos) = (String::new(), Vec::new());
        let one = match &asked.question.wanted {
            Wanted::Windows { channel_id, .. } => Some(channel_id),
            Wanted::Members { channel_id } => channel_id.as_ref(),
            Wanted::Top { .. } => None,
        };
        if let Some(channel_id) = one {
            runs.iter_mut().for_each(|run| run.cursor.seek_key(&run.batch, channel_id));
            videos = take(&mut runs, channel_id, asked.question.as_of);
            channel.clone_from(channel_id);
            runs.clear();
        }
        Self { asked, sums: Sums::default(), runs, channel, videos: videos.into_iter() }
    }

    /// Goes on from video to video while there is fuel; `true` when it has been through all, or it is too late.
    fn go_on(&mut self, book: &Book, fuel: &mut usize) -> bool {
        if self.asked.question.as_of < book.oldest {
            self.sums.gone = Some(book.oldest);
            return true;
        }
        let snapshot = book.snapshot(Some(self.asked.question.as_of));
        while 0 < *fuel {
            let Some(video) = self.next_video() else { return true };
            *fuel -= 1;
            if matches!(self.asked.question.wanted, Wanted::Members { .. }) {
                self.sums.members.entry(self.channel.clone()).or_default().push(video);
                continue;
            }
            let question = self.about(video);
            match snapshot.answer(&book.series, &question) {
                Answer::Gone { oldest } => self.sums.gone = Some(oldest),
                Answer::Cells(cells) => {
                    *fuel = fuel.saturating_sub(cells.len());
                    cells.into_iter().for_each(|cell| self.add(cell, &Stats::default()));
                }
                Answer::Functions(cells) => {
                    *fuel = fuel.saturating_sub(cells.len());
                    cells.into_iter().for_each(|(cell, stats)| self.add(cell, &stats));
                }
            }
        }
        false
    }

    fn next_video(&mut self) -> Option<String> {
        loop {
            if let Some(video) = self.videos.next() {
                return Some(video);
            }
            let next = self.runs.iter().filter_map(|run| run.cursor.get_key(&run.batch)).min()?.clone();
            self.videos = take(&mut self.runs, &next, self.asked.question.as_of).into_iter();
            self.channel = next;
        }
    }

    fn about(&self, video_id: String) -> Question {
        let ChannelQuestion { event_type, first, end, as_of, wanted } = &self.asked.question;
        let (first, functions) = match wanted {
            Wanted::Windows { functions, .. } => (*first, *functions),
            Wanted::Top { order, .. } => (order.lowest(*first, *end), Kept::NONE),
            Wanted::Members { .. } => (*first, Kept::NONE),
        };
        Question { video_id, event_type: event_type.clone(), first, end: *end, functions, as_of: *as_of }
    }

    fn add(&mut self, cell: Cell, stats: &Stats) {
        let first = self.asked.question.first;
        let known = self.sums.known.get_or_insert((cell.minute, cell.minute));
        *known = (known.0.min(cell.minute), known.1.max(cell.minute));
        match self.asked.question.wanted {
            Wanted::Windows { .. } => self.sums.add_window(cell, stats),
            Wanted::Top { .. } => {
                let (now, before) = self.sums.channels.entry(self.channel.clone()).or_default();
                *(if first <= cell.minute { now } else { before }) += cell.count;
            }
            Wanted::Members { .. } => {}
        }
    }

    /// To whom, and what.
    fn finish(self) -> (usize, Part) {
        let Asked { from, ticket, question } = self.asked;
        (from, Part { ticket, wanted: question.wanted, sums: self.sums })
    }
}

/// One batch of members, and how far it has been read.
pub(crate) struct Run {
    batch: <MemberSpine as TraceReader>::Batch,
    cursor: BatchCursor<MemberSpine>,
}

/// Every batch of a trace, from its first channel on.
pub(crate) fn runs(trace: &TraceAgent<MemberSpine>) -> Vec<Run> {
    let mut runs = Vec::new();
    trace.map_spans(|span| {
        runs.extend(span.inner.as_ref().map(|batch| Run { cursor: batch.cursor(), batch: Rc::clone(batch) }));
    });
    runs
}

/// The videos of a channel at a frontier; all that stand on it go on to the next one.
fn take(runs: &mut [Run], channel: &str, as_of: EventTime) -> Vec<String> {
    let mut members: BTreeMap<String, isize> = BTreeMap::new();
    for Run { batch, cursor } in runs {
        if cursor.get_key(batch).is_none_or(|key| key != channel) {
            continue;
        }
        while let Some(video) = cursor.get_val(batch) {
            let mut sum = 0;
            cursor.map_times(batch, |time, difference| {
                if *time < as_of {
                    sum += difference;
                }
            });
            if sum != 0 {
                *members.entry(video.clone()).or_default() += sum;
            }
            cursor.step_val(batch);
        }
        cursor.step_key(batch);
    }
    members.into_iter().filter(|(_, sum)| 0 < *sum).map(|(video, _)| video).collect()
}
