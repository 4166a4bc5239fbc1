//! The whole job on one screen: which operators there are, in order, named.

use std::{rc::Rc, sync::Arc};

use timely::worker::Worker;

use crate::{
    announce::{self, Partitions, Tell},
    board::{Board, Standing},
    channels::{self, ChannelDesk},
    checkpoint::{coordinator::Coordinator, manifest::Hot, part::PartState},
    control::{self, Ear, Facts, Hub, Mailbox},
    dimensions::{self, Dimensions},
    identity::IdKey,
    index::{self, IndexDesk, Questions, Reply},
    lane::{Ended, Format, Lane, LaneStart},
    port::{Decode, PartitionId, PartitionReader, SourceError, Timer},
    rules::Rules,
    ruling::Rulings,
    series::SeriesNames,
    source::{self, Join, Reading},
    tally::{self, Cooling, Keeps, TakeAll, TakeCut, Tallied, Tally, TallyJob},
    time::EventTime,
    top::{self, TopAnswer, TopQuestion},
};

/// Where a job starts: nowhere, or at a checkpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Start {
    /// The frontier.
    pub frontier: EventTime,
    /// The number of the checkpoint.
    pub number: u64,
    /// Offsets, clocks and ledgers, of every partition that there is.
    pub partitions: Partitions,
    /// What has left memory.
    pub hot: Hot,
    /// Ids and cells below the frontier, by key group.
    pub state: PartState,
}

impl Start {
    /// A start from the beginning of these partitions.
    pub fn fresh(partitions: impl IntoIterator<Item = PartitionId>) -> Self {
        let all = partitions.into_iter().map(|partition| (partition, Default::default()));
        Self { partitions: Partitions(all.collect()), ..Self::default() }
    }
}

/// What one worker is given to do.
pub struct Job<D> {
    /// The record format, and what is kept of events.
    pub format: Format<D>,
    /// The settings of time.
    pub rules: Rules,
    /// The secret under which ids are hashed.
    pub key: IdKey,
    /// Where to start: the same for all workers.
    pub start: Arc<Start>,
    /// This worker's partitions, opened where `start` says. Every partition is read by one worker.
    pub readers: Vec<Box<dyn PartitionReader>>,
    /// Opens a partition that was added while running, on the worker that is to read it: one that reads others already.
    pub join: Join,
    /// What the end of an input means.
    pub ended: Ended,
    /// Time as the outside tells it.
    pub timer: Rc<dyn Timer>,
    /// Told why a partition can't be read.
    pub on_error: Box<dyn FnMut(SourceError)>,
    /// Told once when the job was told to stop and all that was read has been announced; on worker 0.
    pub on_quiet: Option<Box<dyn FnOnce()>>,
    /// Told of each frontier.
    pub tell: Tell,
    /// Where this worker's cuts go.
    pub take_cut: TakeCut,
    /// The frontier before which the sink is not written: it has rows of it already.
    pub write_from: EventTime,
    /// Whether the sink wants hours and days.
    pub rolls_up: bool,
    /// When windows leave memory for the sink; never, where nobody reads them back.
    pub cooling: Option<Cooling>,
    /// Cells that this worker may hold back for the sink; then all workers stop reading until a cut takes them.
    pub unwritten_max: usize,
    /// Where all cells go once the input has ended; for replays.
    pub take_all: Option<TakeAll>,
    /// The index and its questions; replays have none.
    pub serve: Option<Serve>,
    /// How many processes acknowledge a checkpoint.
    pub processes: usize,
    /// The outside's way to speak to the job: on one worker of each process, or nowhere.
    pub mailbox: Option<Mailbox>,
    /// The outside's ear: beside the mailbox.
    pub ear: Option<Ear>,
}

/// What it takes to answer questions.
pub struct Serve {
    /// How far back an answer may reach, ms of stream time.
    pub retain_ms: u64,
    /// Where questions about videos are answered.
    pub index: IndexDesk,
    /// Where top lists are asked for on this worker.
    pub top_desk: Option<Questions<TopQuestion>>,
    /// Where they go.
    pub top_reply: Reply<TopAnswer>,
    /// Where channels are asked about on this worker, and where the answers go.
    pub channels: ChannelDesk,
    /// What is known of videos and channels.
    pub dimensions: Dimensions,
}

/// Builds the job on a worker.
///
/// ```text
/// Sources --parcels, to the owner of the video--> Tally --increments--> Index, IndexFunctions --> Answer <-- Ask
///                                                   |                     |--> Top <-- AskTop
/// Dimensions --changes, to all--> Members --moves--> IndexMembers ----------\--> Channels <-- AskChannels
///                                                   \--news, to all--> Announce      \--> Reply, TopReply, ChannelReply
/// Say --messages, to all--> Hear       (a dataflow of its own: standings, checkpoints)
/// ```
pub fn build<D: Decode>(worker: &mut Worker, job: Job<D>) {
    let (index, peers) = (worker.index(), worker.peers());
    let start = &job.start;
    let watermark = start.partitions.watermark(start.frontier, &job.rules);
    let partitions = start.partitions.clone();
    let facts = Facts { frontier: start.frontier, watermark, partitions, hot_from: start.hot.from };
    let hub = Hub::new(board(start), facts);
    let coordinator = Coordinator::new(peers, job.processes, start.number, start.frontier);
    control::control(worker, &hub, job.mailbox, (index == 0).then_some(coordinator), job.ear);

    let series = job.serve.as_ref().map_or_else(SeriesNames::default, |serve| serve.index.snapshots.series.clone());
    // What a replay counts is taken whole, at its end.
    let is_cut = job.take_all.is_none();
    let mut state = Tally::new(series.clone(), Keeps { changes: is_cut, rollups: is_cut && job.rolls_up });
    state.restore(start, watermark, index, peers);
    // Also where none are kept any more: a checkpoint's are there.
    let has_functions = job.format.functions.any() || start.state.groups.iter().any(|group| !group.stats.is_empty());
    let (format, rules, key) = (job.format, job.rules, job.key);
    let make = move |start| Lane::new(format.clone(), rules, key, start, index, peers);
    let lanes = job.readers.into_iter().map(|reader| {
        let lane = make(lane_start(start, &*reader));
        (reader, lane)
    });
    let lanes = lanes.collect();
    let tally_job = TallyJob {
        rules: job.rules,
        feeds_index: job.serve.is_some(),
        write_from: job.write_from,
        cooling: job.cooling,
        unwritten_max: job.unwritten_max,
        take_cut: job.take_cut,
        timer: Rc::clone(&job.timer),
        take_all: job.take_all,
    };
    let reading = Reading {
        rules: job.rules,
        join: job.join,
        lane: Box::new(make),
        ended: job.ended,
        timer: job.timer,
        on_error: job.on_error,
        on_quiet: job.on_quiet,
    };

    worker.dataflow_named::<EventTime, _, _>("Tidemark", |scope| {
        let parcels = source::sources(scope, &hub, lanes, reading);
        let Tallied { counts, functions, news } = tally::tally(parcels, &hub, state, tally_job);
        announce::announce(news, &hub, job.rules, job.tell);
        if let Some(serve) = job.serve {
            let counts = index::index(counts, "Index");
            let functions = has_functions.then(|| index::index(functions, "IndexFunctions"));
            top::top(counts.clone(), &hub, series.clone(), serve.retain_ms, serve.top_desk, serve.top_reply);
            let (retain_ms, members) = (serve.retain_ms, dimensions::members(scope, &hub, serve.dimensions));
            let of_channels = (counts.clone(), functions.clone(), series);
            channels::channels(members, of_channels.0, of_channels.1, &hub, of_channels.2, retain_ms, serve.channels);
            index::answers(counts, functions, &hub, serve.retain_ms, serve.index);
        }
    });
}

fn board(start: &Start) -> Board {
    Board::new(start.partitions.0.iter().map(|(partition, state)| {
        let clock = state.clock.time();
        let pace = clock.unwrap_or(0).max(start.frontier);
        (*partition, Standing { clock, pace, used: None, drained: false, ended: false })
    }))
}

fn lane_start(start: &Start, reader: &dyn PartitionReader) -> LaneStart {
    let partition = reader.partition();
    let state = start.partitions.0.get(&partition).cloned().unwrap_or_default();
    LaneStart {
        partition,
        next_offset: state.next_offset,
        clock: state.clock,
        hole: state.gaps.last().copied().filter(|gap| gap.until.is_none()),
        time: start.frontier,
        keeps_tail: reader.keeps_tail(),
        rulings: Rulings::of(&start.state.rulings, partition, state.next_offset),
    }
}
