//! Finds the windows and sums that answers are made of: in the index what is in memory, and what has left it where it went. Both parts
//! are of one moment, and what has left is final, so there is no seam and nothing is counted twice.

use std::{
    collections::{BTreeMap, HashMap},
    ops::Range,
    sync::Arc,
};

use dataflows::{
    announce::Moment,
    channels::{self, ChannelAnswer, ChannelQuestion, MembersAnswer},
    functions::{Kept, stats::Stats as Functions},
    port::{ColdSum, ColdWindow},
    query::{Answer, Cell, Question},
    rollup::Width,
    time::{EventTime, Minute},
    top::{Order, Ranked, TopAnswer, TopQuestion, joined, rank},
};
use futures_util::stream::{self, StreamExt, TryStreamExt};

use super::{
    State,
    params::{Subject, Wanted},
    problem::Problem,
    stats::{Missed, ended},
};
use crate::service::{BoxFuture, ColdError, ColdQuestion, ColdRows, ColdSumsQuestion};

/// Videos of a channel that are read at a time of what has left memory.
const VIDEOS_AT_ONCE: usize = 16;

/// The windows of an answer, by their first minutes, with as many functions, or none where counts are wanted.
#[derive(Default)]
pub struct Found {
    pub cells: Vec<Cell>,
    pub functions: Vec<Functions>,
}

impl Extend<(Cell, Functions)> for Found {
    fn extend<I: IntoIterator<Item = (Cell, Functions)>>(&mut self, windows: I) {
        for (cell, functions) in windows {
            self.cells.push(cell);
            self.functions.push(functions);
        }
    }
}

impl Found {
    /// The end of the last minute that functions were not kept of all events of: a window is answered for only if they were.
    pub fn first_behind_partial(&self, needed: Kept) -> Option<EventTime> {
        let is_whole = |(cell, functions): (&Cell, &Functions)| functions.whole(cell.count).holds(needed);
        let last = self.cells.iter().zip(&self.functions).rposition(|window| !is_whole(window))?;
        Some(self.cells[last].minute.end())
    }

    /// Takes what the index says of a moment.
    fn take(&mut self, answer: Option<Answer>, at: Moment) -> Result<(), Missed> {
        match answer {
            Some(Answer::Cells(cells)) => self.cells.extend(cells),
            Some(Answer::Functions(cells)) => self.extend(cells),
            Some(Answer::Gone { oldest }) => return Err(Missed::Merged { at: at.frontier, oldest }),
            None => return Err(Missed::Refused(ended())),
        }
        Ok(())
    }

    /// Takes windows that have left memory, ascending and behind those that are there.
    fn take_cold(&mut self, windows: impl IntoIterator<Item = ColdWindow>, needed: Kept) {
        for ColdWindow { start, count, stats } in windows {
            self.cells.push(Cell { minute: Minute::of(start), count });
            if needed.any() {
                self.functions.push(stats.unwrap_or_default().only(needed));
            }
        }
    }
}

/// The windows of a subject at a moment, of the width where that saves some, or minutes.
pub async fn windows(state: &State, wanted: &Wanted, width: Width, at: Moment) -> Result<Found, Missed> {
    let (first, end) = wanted.minutes();
    // What has left is still in the index at an older frontier, and must not be counted twice.
    let (cold, hot) = parts(first..end, at);
    match &wanted.subject {
        Subject::Video(video_id) => of_video(state, wanted, video_id, (cold, hot), width, at).await,
        Subject::Channel(channel_id) => of_channel(state, wanted, channel_id, (cold, hot), width, at).await,
    }
}

/// The part of a range that has left memory at a moment, and the part that has not.
fn parts(range: Range<Minute>, at: Moment) -> (Range<Minute>, Range<Minute>) {
    (range.start..range.end.min(at.hot_from), range.start.max(at.hot_from)..range.end)
}

async fn of_video(
    state: &State,
    wanted: &Wanted,
    video_id: &str,
    (cold, hot): (Range<Minute>, Range<Minute>),
    width: Width,
    at: Moment,
) -> Result<Found, Missed> {
    let needed = wanted.function.needs();
    let mut found = Found::default();
    if !cold.is_empty() {
        let windows = read_cold(state, wanted, video_id, &cold, width).await;
        found.take_cold(windows.map_err(|error| not_read(&error, cold.end))?, needed);
    }
    let question = Question {
        video_id: video_id.to_owned(),
        event_type: wanted.event_type.clone(),
        first: hot.start,
        end: hot.end,
        functions: needed,
        as_of: at.frontier,
    };
    found.take(state.queries.ask(question, width, at.watermark).await, at)?;
    Ok(found)
}

async fn of_channel(
    state: &State,
    wanted: &Wanted,
    channel_id: &str,
    (cold, hot): (Range<Minute>, Range<Minute>),
    width: Width,
    at: Moment,
) -> Result<Found, Missed> {
    let functions = wanted.function.needs();
    let mut found = Found::default();
    if !cold.is_empty() {
        let videos = members(state, Some(channel_id.to_owned()), at).await?.remove(channel_id).unwrap_or_default();
        let reads: Vec<_> = videos.iter().map(|video_id| read_cold(state, wanted, video_id, &cold, width)).collect();
        // Ranges are cut alike for all videos, so windows with the same start are of the same width.
        let mut sums: BTreeMap<EventTime, ColdWindow> = BTreeMap::new();
        let read = async move {
            let mut rows = stream::iter(reads).buffer_unordered(VIDEOS_AT_ONCE);
            while let Some(windows) = rows.try_next().await? {
                for window in windows {
                    match sums.get_mut(&window.start) {
                        Some(sum) => sum.merge(&window),
                        None => drop(sums.insert(window.start, window)),
                    }
                }
            }
            Ok(sums)
        };
        let sums = scan(state, Box::pin(read)).await?.map_err(|error| not_read(&error, cold.end))?;
        found.take_cold(sums.into_values(), functions);
    }
    let of = channels::Wanted::Windows { channel_id: channel_id.to_owned(), functions };
    match ask_channels(state, &wanted.event_type, hot, at, of).await? {
        Some(ChannelAnswer::Windows(answer)) => found.take(Some(answer), at)?,
        _ => return Err(Missed::Refused(ended())),
    }
    Ok(found)
}

/// The windows of a video in a range that has left memory.
fn read_cold(
    state: &State,
    wanted: &Wanted,
    video_id: &str,
    range: &Range<Minute>,
    width: Width,
) -> BoxFuture<ColdRows> {
    state.queries.cold(ColdQuestion {
        video_id: video_id.to_owned(),
        event_type: wanted.event_type.clone(),
        starts: range.start.start()..range.end.start(),
        width,
        functions: wanted.function.needs().any(),
    })
}

fn not_read(error: &ColdError, end: Minute) -> Missed {
    Missed::Refused(Problem::cold(error, end.start()))
}

/// What is ranked.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum By {
    Video,
    Channel,
}

/// Which list is wanted, of what.
#[derive(Clone, Debug)]
pub struct TopWanted {
    pub by: By,
    pub event_type: String,
    pub order: Order,
    pub k: usize,
    pub range: Range<Minute>,
}

/// A top list, and the first and the last window with an event, of those looked at: days, of what has left memory.
pub struct TopFound {
    pub known: Option<(EventTime, EventTime)>,
    pub top: Vec<Ranked>,
}

/// Makes a top list at a moment.
pub async fn top(state: &State, wanted: TopWanted, at: Moment) -> Result<TopFound, Missed> {
    let lowest = wanted.order.lowest(wanted.range.start, wanted.range.end);
    if lowest < at.hot_from && !(lowest..wanted.range.end).is_empty() {
        return top_with_cold(state, wanted, lowest, at).await;
    }
    let (known, top) = top_of_index(state, wanted, at).await?;
    Ok(TopFound { known, top })
}

type Known = Option<(EventTime, EventTime)>;

/// Of what is in memory.
async fn top_of_index(state: &State, wanted: TopWanted, at: Moment) -> Result<(Known, Vec<Ranked>), Missed> {
    let TopWanted { by, event_type, order, k, range } = wanted;
    let answered = match by {
        By::Video => {
            let Range { start: first, end } = range;
            let question = TopQuestion { event_type, first, end, order, k, as_of: at.frontier };
            scan(state, state.queries.top(question)).await?
        }
        By::Channel => match ask_channels(state, &event_type, range, at, channels::Wanted::Top { order, k }).await? {
            Some(ChannelAnswer::Top(answer)) => Some(answer),
            _ => None,
        },
    };
    match answered {
        Some(TopAnswer::Top { known, top }) => Ok((known.map(|(first, last)| (first.start(), last.end())), top)),
        Some(TopAnswer::Gone { oldest }) => Err(Missed::Merged { at: at.frontier, oldest }),
        None => Err(Missed::Refused(ended())),
    }
}

/// Sums up what is in memory and what has left it, of all, and ranks the sums.
async fn top_with_cold(state: &State, wanted: TopWanted, lowest: Minute, at: Moment) -> Result<TopFound, Missed> {
    let TopWanted { by, event_type, order, k, range } = wanted;
    let mut known: Known = None;
    let mut sums: HashMap<String, (u64, u64)> = HashMap::new();
    for (range, is_before) in [(lowest..range.start, true), (range, false)] {
        let mut add = |id: String, count: u64| {
            let (now, before) = sums.entry(id).or_default();
            *(if is_before { before } else { now }) += count;
        };
        let (cold, hot) = parts(range, at);
        if !hot.is_empty() {
            let all = TopWanted { by, event_type: event_type.clone(), order: Order::Count, k: usize::MAX, range: hot };
            let (of_hot, ranked) = top_of_index(state, all, at).await?;
            ranked.into_iter().for_each(|Ranked { id, count, .. }| add(id, count));
            known = joined(known, of_hot);
        }
        if !cold.is_empty() {
            let (of_cold, cold) = cold_sums(state, by, &event_type, cold, at).await?;
            cold.into_iter().for_each(|(id, count)| add(id, count));
            known = joined(known, of_cold);
        }
    }
    let sums = sums.into_iter().map(|(id, (count, before))| (id, count, before));
    Ok(TopFound { known, top: rank(order, k, sums) })
}

/// What videos or channels have in a range that has left memory, and the days that it is of.
async fn cold_sums(
    state: &State,
    by: By,
    event_type: &str,
    range: Range<Minute>,
    at: Moment,
) -> Result<(Known, Vec<(String, u64)>), Missed> {
    let question =
        ColdSumsQuestion { event_type: event_type.to_owned(), starts: range.start.start()..range.end.start() };
    let read = scan(state, state.queries.cold_sums(question)).await?;
    let sums = read.map_err(|error| not_read(&error, range.end))?;
    let days = |sum: &ColdSum| {
        let day = |start: EventTime| Width::Day.start(Minute::of(start));
        (day(sum.first), Width::Day.end(day(sum.last)).min(at.hot_from.start()))
    };
    match by {
        By::Video => {
            let known = sums.iter().map(days).map(Some).fold(None, joined);
            Ok((known, sums.into_iter().map(|sum| (sum.video_id, sum.count)).collect()))
        }
        By::Channel => {
            let sums: HashMap<&str, &ColdSum> = sums.iter().map(|sum| (sum.video_id.as_str(), sum)).collect();
            let (mut known, mut of_channels) = (None, Vec::new());
            for (channel_id, videos) in members(state, None, at).await? {
                let there: Vec<&ColdSum> =
                    videos.iter().filter_map(|video| sums.get(video.as_str()).copied()).collect();
                known = there.iter().map(|sum| Some(days(sum))).fold(known, joined);
                of_channels.push((channel_id, there.iter().map(|sum| sum.count).sum()));
            }
            Ok((known, of_channels))
        }
    }
}

/// The videos of a channel at a moment, or those of each.
async fn members(
    state: &State,
    channel_id: Option<String>,
    at: Moment,
) -> Result<BTreeMap<String, Vec<String>>, Missed> {
    let none = Minute(0)..Minute(0);
    match ask_channels(state, "", none, at, channels::Wanted::Members { channel_id }).await? {
        Some(ChannelAnswer::Members(MembersAnswer::Members(members))) => Ok(members),
        Some(ChannelAnswer::Members(MembersAnswer::Gone { oldest })) => Err(Missed::Merged { at: at.frontier, oldest }),
        _ => Err(Missed::Refused(ended())),
    }
}

async fn ask_channels(
    state: &State,
    event_type: &str,
    range: Range<Minute>,
    at: Moment,
    wanted: channels::Wanted,
) -> Result<Option<ChannelAnswer>, Missed> {
    let Range { start: first, end } = range;
    let question = ChannelQuestion { event_type: event_type.to_owned(), first, end, as_of: at.frontier, wanted };
    scan(state, state.queries.channels(question)).await
}

/// Waits for what looks at the counts of many videos. Only so many are made at a time.
async fn scan<A: Send + 'static>(state: &State, asked: BoxFuture<A>) -> Result<A, Missed> {
    let busy = |_full| Missed::Refused(Problem::busy("many such lists are being made; try again in a second"));
    let room = Arc::clone(&state.scans).try_acquire_owned().map_err(busy)?;
    // A scan goes on where its client has gone, so it is that which gives its room back.
    let answered = tokio::spawn(async move {
        let answer = asked.await;
        drop(room);
        answer
    });
    answered.await.map_err(|_panicked| Missed::Refused(ended()))
}
