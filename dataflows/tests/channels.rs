//! Channels against a naive join: videos that move at any time, any frontier, any number of workers, restarts.

mod harness;

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
    ops::Range,
    sync::Arc,
};

use dataflows::{
    announce::Announcement,
    channels::{ChannelAnswer, ChannelQuestion, Wanted},
    dimensions::Change,
    functions::{Functions, Kept},
    graph::Start,
    query::Answer,
    time::{EventTime, Minute},
    top::{Order, Ranked, TopAnswer},
};
use harness::{
    Appended, Event, Live, Log, Setup,
    drafts::{VIDEOS, draft, log, oracle_rules, rules},
    fresh,
    windows::check,
};
use oracle::functions::{Window, Windows};
use proptest::prelude::*;

/// A video that has no events is there as well.
fn change() -> impl Strategy<Value = Change> {
    let channel = |number: Option<u8>| number.map(|number| format!("c{number}"));
    prop_oneof![
        8 => (0..=VIDEOS, prop::option::of(0..3_u8)).prop_map(move |(video, number)| Change::Video {
            video_id: format!("v{video}"),
            name: None,
            channel_id: channel(number),
        }),
        1 => Just(Change::Channel { channel_id: "c1".to_owned(), name: Some("One".to_owned()) }),
    ]
}

#[derive(Clone, Debug)]
struct Draw {
    kind: &'static str,
    first: u32,
    length: u32,
    is_whole: bool,
    wanted: Wanted,
    /// Which announced frontier, the newest being 0.
    back: usize,
}

fn draw() -> impl Strategy<Value = Draw> {
    let functions = prop::sample::select(vec![Kept::NONE, Kept::ALL]);
    let windows = (0..4_u8, functions)
        .prop_map(|(channel, functions)| Wanted::Windows { channel_id: format!("c{channel}"), functions });
    let order = prop::sample::select(vec![Order::Count, Order::Rising]);
    let wanted = prop_oneof![windows, (order, 0..4_usize).prop_map(|(order, k)| Wanted::Top { order, k })];
    let kind = prop::sample::select(vec!["view", "like", "share"]);
    (kind, 160..190_u32, 0..12_u32, any::<bool>(), wanted, 0..20_usize)
        .prop_map(|(kind, first, length, is_whole, wanted, back)| Draw { kind, first, length, is_whole, wanted, back })
}

#[derive(Clone, Debug)]
enum Step {
    Append { partition: usize, records: usize },
    Tell(Vec<Change>),
    Ask(Draw),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0..4_usize, 1..60_usize).prop_map(|(partition, records)| Step::Append { partition, records }),
        prop::collection::vec(change(), 1..6).prop_map(Step::Tell),
        draw().prop_map(Step::Ask),
    ]
}

/// What has been heard of a job.
#[derive(Default)]
struct Seen {
    told: Vec<Announcement>,
    /// Each with the time that it travels at; before this start, at 0.
    heard: Vec<(EventTime, Change)>,
}

impl Seen {
    fn note(&mut self, event: Event) {
        match event {
            Event::Told(announcement) => self.told.push(announcement),
            Event::Heard(time, changes) => self.heard.extend(changes.into_iter().map(|change| (time, change))),
            _ => {}
        }
    }

    fn newest(&self) -> &Announcement {
        self.told.last().expect("the first one is told at the start")
    }

    /// The channel of each video that has one, at a frontier.
    fn channels(&self, as_of: EventTime) -> BTreeMap<&str, &str> {
        let mut channels = BTreeMap::new();
        for (_, change) in self.heard.iter().filter(|(time, _)| *time < as_of) {
            if let Change::Video { video_id, channel_id, .. } = change {
                match channel_id {
                    Some(channel_id) => channels.insert(video_id.as_str(), channel_id.as_str()),
                    None => channels.remove(video_id.as_str()),
                };
            }
        }
        channels
    }
}

/// All windows of the records below an announced frontier.
fn windows(log: &Log, at: &Announcement) -> Windows {
    let read = |partition: usize| at.partitions[partition].next_offset as usize;
    let below: Vec<Vec<oracle::Record>> =
        log.iter().enumerate().map(|(partition, records)| records[..read(partition)].to_vec()).collect();
    oracle::functions::windows(&oracle::run(&oracle_rules(), &below), &below)
}

/// The windows of one channel, by looking at all.
fn of_channel(
    windows: &Windows,
    videos: &BTreeMap<&str, &str>,
    channel: &str,
    kind: &str,
    range: &Range<u64>,
) -> BTreeMap<u64, Window> {
    let mut sums: BTreeMap<u64, Window> = BTreeMap::new();
    for ((video, of, start), window) in windows {
        if of == kind && videos.get(video.as_str()) == Some(&channel) && range.contains(start) {
            let sum = sums.entry(*start).or_default();
            *sum = std::mem::take(sum).and(window);
        }
    }
    sums
}

fn ask(live: &Live, seen: &mut Seen, log: &Log, draw: &Draw) {
    let at = seen.told[seen.told.len() - 1 - draw.back.min(seen.told.len() - 1)].clone();
    let (first, end) = if draw.is_whole { (0, u32::MAX) } else { (draw.first, draw.first + draw.length) };
    let (first, end) = (Minute(first), Minute(end));
    let (event_type, as_of, wanted) = (draw.kind.to_owned(), at.frontier, draw.wanted.clone());
    let answer = live.channels(ChannelQuestion { event_type, first, end, as_of, wanted }, |event| seen.note(event));
    let (windows, videos) = (windows(log, &at), seen.channels(at.frontier));
    let range = first.start()..end.start();
    match (answer, &draw.wanted) {
        // History that is no longer retained: the job may be far ahead of the newest frontier that was heard of here.
        (ChannelAnswer::Windows(Answer::Gone { oldest }) | ChannelAnswer::Top(TopAnswer::Gone { oldest }), _) => {
            assert!(as_of < oldest);
            while seen.newest().frontier < oldest {
                seen.note(live.next());
            }
        }
        (ChannelAnswer::Windows(answer), Wanted::Windows { channel_id, functions }) => {
            check_windows(answer, *functions, &of_channel(&windows, &videos, channel_id, draw.kind, &range));
        }
        (ChannelAnswer::Top(TopAnswer::Top { known, top }), Wanted::Top { order, k }) => {
            let ranked = ranked(&windows, &videos, draw, &range, *order);
            if *order == Order::Count {
                let starts: BTreeSet<_> = ranked.iter().flat_map(|(_, starts)| starts).collect();
                let minute = |start: &&u64| Minute::of(**start);
                assert_eq!(known, starts.first().map(minute).zip(starts.last().map(minute)));
            }
            let ranked: Vec<_> = ranked.into_iter().map(|(ranked, _)| ranked).take(*k).collect();
            assert_eq!(top, ranked, "{draw:?} at {} of {videos:?}", at.frontier);
        }
        other => panic!("{other:?}"),
    }
}

/// All channels with an event, the greatest first, each with the windows that it has events in.
fn ranked(
    windows: &Windows,
    videos: &BTreeMap<&str, &str>,
    draw: &Draw,
    range: &Range<u64>,
    order: Order,
) -> Vec<(Ranked, Vec<u64>)> {
    let before = match order {
        Order::Count => 0..0,
        Order::Rising => range.start.saturating_sub(range.end - range.start)..range.start,
    };
    let events = |windows: &BTreeMap<u64, Window>| windows.values().map(|window| window.events).sum();
    let channels: BTreeSet<&str> = videos.values().copied().collect();
    let of = |channel: &str| {
        let [now, then] = [range, &before].map(|range| of_channel(windows, videos, channel, draw.kind, range));
        let ranked = Ranked { id: channel.to_owned(), count: events(&now), before: events(&then) };
        (ranked, now.into_keys().collect())
    };
    let mut ranked: Vec<_> = channels.into_iter().map(of).collect();
    ranked.retain(|(ranked, _)| ranked.count + ranked.before != 0);
    ranked.sort_by_key(|(ranked, _)| Reverse(ranked.count as i64 - ranked.before as i64));
    ranked
}

fn check_windows(answer: Answer, functions: Kept, expected: &BTreeMap<u64, Window>) {
    let right: Vec<_> = expected.iter().map(|(start, window)| (*start, window.events)).collect();
    let found: Vec<_> = match &answer {
        Answer::Cells(cells) => cells.iter().map(|cell| (cell.minute.start(), cell.count)).collect(),
        Answer::Functions(cells) => cells.iter().map(|(cell, _)| (cell.minute.start(), cell.count)).collect(),
        Answer::Gone { .. } => panic!("{answer:?}"),
    };
    assert_eq!(found, right);
    if let Answer::Functions(cells) = answer {
        cells.iter().zip(expected.values()).for_each(|((cell, stats), window)| check(cell.count, stats, window));
    } else {
        assert_eq!(functions, Kept::NONE);
    }
}

/// Takes the steps of one start, then lets the whole log in and waits until everything is visible.
fn live_through(log: &Log, setup: Setup, steps: &[Step], seen: &mut Seen) -> Live {
    let (appended, mut changes) = (setup.appended.clone(), setup.known.len());
    let live = Live::start(setup);
    while seen.told.is_empty() || seen.heard.len() < changes {
        seen.note(live.next());
    }
    for step in steps {
        match step {
            Step::Append { partition, records } => appended.append(log, partition % log.len(), *records),
            Step::Tell(told) => {
                changes += told.len();
                live.dimensions.tell(told.clone());
            }
            Step::Ask(draw) => ask(&live, seen, log, draw),
        }
    }
    (0..log.len()).for_each(|partition| appended.append(log, partition, usize::MAX));
    let is_whole = |at: &Announcement| at.partitions.iter().map(|at| at.next_offset).eq(appended.ends());
    let is_heard = |seen: &Seen| {
        let newest = seen.newest().frontier;
        seen.heard.len() == changes && seen.heard.iter().all(|(time, _)| *time < newest)
    };
    while !is_whole(seen.newest()) || !is_heard(seen) {
        seen.note(live.next());
    }
    live
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, max_shrink_iters: 200, ..ProptestConfig::default() })]

    #[test]
    fn channels_equal_a_naive_join_at_any_frontier_on_any_workers_and_after_any_restart(
        drafts in prop::collection::vec(draft(), 1..200),
        partitions in 1..=4_usize,
        batch in 1..40_usize,
        known in prop::collection::vec(change(), 0..8),
        incarnations in prop::collection::vec((1..=4_usize, prop::collection::vec(step(), 0..12)), 1..4),
        last in prop::collection::vec(draw(), 1..8),
    ) {
        let log = log(&drafts, partitions);
        let appended = Appended::none(&log);
        let mut start: Arc<Start> = fresh(partitions);
        let mut known: Vec<Change> = known;
        let count = incarnations.len();
        for (n, (workers, steps)) in incarnations.into_iter().enumerate() {
            let setup = Setup {
                appended: appended.clone(),
                functions: Functions::of_all(Kept::ALL),
                known: std::mem::take(&mut known),
                ..Setup::new(rules(), &log, workers, batch, Arc::clone(&start))
            };
            let mut seen = Seen::default();
            let live = live_through(&log, setup, &steps, &mut seen);
            if n + 1 == count {
                last.iter().for_each(|draw| ask(&live, &mut seen, &log, draw));
            } else if let Some((at, _)) = live.checkpoint() {
                start = Arc::new(at);
            }
            known.extend(seen.heard.iter().map(|(_, change)| change.clone()));
            live.crash();
        }
    }
}
