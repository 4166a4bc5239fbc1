//! Runs the whole graph in memory: partitions, crashes and restarts on other worker counts, questions.

// Each test binary uses its own share of this.
#![allow(dead_code)]

pub mod drafts;
pub mod windows;

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    ops::ControlFlow,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
        mpsc,
    },
    time::Duration,
};

use dataflows::{
    announce::Announcement,
    channels::{ChannelAnswer, ChannelDesk, ChannelQuestion},
    checkpoint::{
        coordinator::StoredPart,
        fold::Fold,
        manifest::{Hot, PartInfo},
        part::PartState,
    },
    control::{Ear, Mailbox, Message, Outcome},
    dimensions::{Change, Dimensions, TellChanges},
    event::{self, Cause},
    functions::{Functions, Kept, stats::Stats},
    graph::{self, Job, Serve, Start},
    identity::{IdKey, KeyGroup},
    index::{IndexDesk, Questions},
    lane::{Ended, Format},
    ledger::Ledger,
    port::{CountRow, Decode, PartitionId, PartitionReader, Reached, Record, SourceError, Timer},
    query::{Answer, Question},
    rules::Rules,
    snapshot::Snapshots,
    table::CountTable,
    tally::{Cooling, TakeAll, WorkerCut},
    testkit::{Faulty, Unsteady},
    time::{END_OF_TIME, EventTime, Minute},
    top::{TopAnswer, TopQuestion},
};
use timely::communication::WorkerGuards;

pub type Counts = BTreeMap<(String, String, EventTime), u64>;
pub type Log = Arc<Vec<Vec<oracle::Record>>>;

/// How many records of each partition have been appended by now.
#[derive(Clone, Debug)]
pub struct Appended(Arc<Vec<AtomicUsize>>);

impl Appended {
    /// All of them.
    pub fn all(log: &Log) -> Self {
        Self(Arc::new(log.iter().map(|records| AtomicUsize::new(records.len())).collect()))
    }

    /// None yet.
    pub fn none(log: &Log) -> Self {
        Self(Arc::new(log.iter().map(|_| AtomicUsize::new(0)).collect()))
    }

    /// Appends so many more to a partition, if it has them.
    pub fn append(&self, log: &Log, partition: usize, records: usize) {
        let end = self.0[partition].load(Ordering::SeqCst).saturating_add(records).min(log[partition].len());
        self.0[partition].store(end, Ordering::SeqCst);
    }

    /// The ends by now.
    pub fn ends(&self) -> Vec<u64> {
        self.0.iter().map(|end| end.load(Ordering::SeqCst) as u64).collect()
    }
}

/// A decoder for tests: no more than what the generated records need.
#[derive(Clone)]
pub struct PlainJson;

impl Decode for PlainJson {
    fn decode<'a>(&self, payload: &'a [u8]) -> Result<event::Event<'a>, Cause> {
        let value: serde_json::Value = serde_json::from_slice(payload).map_err(|_| Cause::Json)?;
        let text = |field: &str| value[field].as_str().map(|text| text.to_owned().into()).ok_or(Cause::Missing);
        Ok(event::Event {
            event_id: text("event_id")?,
            video_id: text("video_id")?,
            event_type: text("event_type")?,
            event_time: value["timestamp"].as_u64().ok_or(Cause::Type)?,
            user_id: value["user_id"].as_str().map(|user| user.to_owned().into()),
            value: value["value"].as_f64(),
        })
    }
}

struct MemoryReader {
    log: Log,
    appended: Appended,
    partition: usize,
    next: usize,
    batch: usize,
    at_end: Reached,
}

impl PartitionReader for MemoryReader {
    fn partition(&self) -> PartitionId {
        PartitionId(self.partition as u32)
    }

    fn next_offset(&self) -> u64 {
        self.next as u64
    }

    fn read(&mut self, visit: &mut dyn FnMut(Record<'_>) -> ControlFlow<()>) -> Result<Reached, SourceError> {
        let records = &self.log[self.partition];
        let records = &records[..self.appended.0[self.partition].load(Ordering::SeqCst)];
        for _ in 0..self.batch {
            let Some(record) = records.get(self.next) else { return Ok(self.at_end) };
            let offset = self.next as u64;
            self.next += 1;
            let flow = visit(Record {
                offset,
                append_time: record.append_time_ms,
                key: None,
                headers: None,
                payload: &record.payload,
            });
            if flow.is_break() {
                return Ok(Reached::More);
            }
        }
        Ok(if self.next < records.len() { Reached::More } else { self.at_end })
    }
}

/// A millisecond passes whenever somebody looks.
struct LookTimer {
    looks: Cell<u64>,
    is_present: bool,
}

impl Timer for LookTimer {
    fn monotonic_ms(&self) -> u64 {
        self.looks.set(self.looks.get() + 1);
        self.looks.get()
    }

    fn is_wall_clock_within(&self, _: EventTime, _: u64) -> bool {
        self.is_present
    }
}

pub enum Event {
    Told(Announcement),
    Cut(WorkerCut),
    /// A worker's counts at the end of the input.
    End(Vec<CountRow>),
    Outcome(Outcome),
    Answer(u64, Answer),
    Top(TopAnswer),
    Channel(ChannelAnswer),
    /// Changes of dimensions, with the time that they travel at.
    Heard(EventTime, Vec<Change>),
    /// A partition can't be read on: this incarnation is over.
    BrokeOff,
}

/// One incarnation of a live job.
pub struct Live {
    pub events: mpsc::Receiver<Event>,
    pub mailbox: Mailbox,
    pub desk: Questions,
    snapshots: Vec<Snapshots>,
    pub top_desk: Questions<TopQuestion>,
    pub channel_desk: Questions<ChannelQuestion>,
    pub dimensions: Mailbox<Vec<Change>>,
    crash: Arc<AtomicBool>,
    guards: Option<WorkerGuards<()>>,
    workers: usize,
    rules: Rules,
    /// As of the last checkpoint.
    state: RefCell<PartState>,
    /// By what was told last.
    is_full: Cell<bool>,
    /// The newest announcement.
    latest: RefCell<Option<Announcement>>,
}

pub struct Setup {
    pub rules: Rules,
    pub log: Log,
    pub appended: Appended,
    /// Whether the events are of the present by the wall clock.
    pub is_present: bool,
    pub workers: usize,
    pub batch: usize,
    pub start: Arc<Start>,
    /// The frontier of the rows that the sink has.
    pub write_from: EventTime,
    /// Cells that a worker may hold back for the sink.
    pub unwritten_max: usize,
    /// What reading is like.
    pub reading: Reading,
    /// What is kept beside the counts.
    pub functions: Functions,
    /// Whether the sink wants hours and days.
    pub rolls_up: bool,
    /// When windows leave memory.
    pub cooling: Option<Cooling>,
    /// What is known of videos and channels at the start.
    pub known: Vec<Change>,
}

/// What the partitions are like to read.
#[derive(Copy, Clone, Debug)]
pub enum Reading {
    /// They give what there is.
    Steady,
    /// By this seed less than there is, or nothing.
    Unsteady(u64),
    /// The same, and in the end each breaks off.
    BreaksOff(u64),
}

impl Setup {
    /// With a sink that has no rows and takes any number.
    pub fn new(rules: Rules, log: &Log, workers: usize, batch: usize, start: Arc<Start>) -> Self {
        Self {
            rules,
            log: Arc::clone(log),
            appended: Appended::all(log),
            is_present: false,
            workers,
            batch,
            start,
            write_from: 0,
            unwritten_max: usize::MAX,
            reading: Reading::Steady,
            functions: Functions::default(),
            rolls_up: false,
            cooling: None,
            known: Vec::new(),
        }
    }
}

fn job(setup: &Setup, index: usize, at_end: Reached, send: &mpsc::Sender<Event>) -> Job<PlainJson> {
    let (log, appended, batch) = (Arc::clone(&setup.log), setup.appended.clone(), setup.batch);
    let reading = setup.reading;
    let open = move |partition: usize, next: usize| -> Box<dyn PartitionReader> {
        let (log, appended) = (Arc::clone(&log), appended.clone());
        let reader = MemoryReader { log, appended, partition, next, batch, at_end };
        let of = |seed: u64| seed.wrapping_add(partition as u64);
        match reading {
            Reading::Steady => Box::new(reader),
            Reading::Unsteady(seed) => Box::new(Unsteady(Faulty::new(reader, of(seed)))),
            Reading::BreaksOff(seed) => Box::new(Faulty::new(reader, of(seed))),
        }
    };
    let known = setup.start.partitions.0.iter().map(|(partition, at)| (partition.0 as usize, at.next_offset as usize));
    let ours = known.filter(|(partition, _)| partition % setup.workers == index);
    let readers: Vec<_> = ours.map(|(partition, next)| open(partition, next)).collect();
    let sender = || send.clone();
    let (cuts, all, outcomes, told, failed) = (sender(), sender(), sender(), sender(), sender());
    Job {
        format: Format { decode: PlainJson, functions: setup.functions.clone() },
        rules: setup.rules,
        key: IdKey([7, 8]),
        start: Arc::clone(&setup.start),
        readers,
        join: Box::new(move |partition| (index == 0).then(|| Ok(open(partition.0 as usize, 0)))),
        ended: Ended::ForGood,
        timer: Rc::new(LookTimer { looks: Cell::new(0), is_present: setup.is_present }),
        on_error: Box::new(move |error| match reading {
            Reading::BreaksOff(_) => drop(failed.send(Event::BrokeOff)),
            Reading::Steady | Reading::Unsteady(_) => panic!("{error}"),
        }),
        on_quiet: None,
        write_from: setup.write_from,
        rolls_up: setup.rolls_up,
        cooling: setup.cooling,
        unwritten_max: setup.unwritten_max,
        tell: Box::new(move |announcement| {
            if index == 0 {
                let _ = told.send(Event::Told(announcement));
            }
        }),
        take_cut: Box::new(move |cut| drop(cuts.send(Event::Cut(cut)))),
        take_all: (at_end == Reached::Finished).then(|| {
            Box::new(move |table: CountTable<'_>, as_of| drop(all.send(Event::End(table.rows(as_of).collect()))))
                as TakeAll
        }),
        serve: None,
        processes: 1,
        mailbox: None,
        ear: (index == 0).then(|| Box::new(move |outcome| drop(outcomes.send(Event::Outcome(outcome)))) as Ear),
    }
}

/// Replays bounded input; gives all counts and the ledgers.
pub fn replay(setup: Setup) -> (Counts, Vec<Ledger>) {
    let (rows, ledgers) = replay_rows(setup);
    let mut counts = Counts::new();
    for row in rows {
        let before = counts.insert((row.video_id, row.event_type, row.window_start), row.count);
        assert_eq!(before, None, "a cell lives on one worker");
    }
    (counts, ledgers)
}

/// Replays bounded input; gives all rows and the ledgers.
pub fn replay_rows(setup: Setup) -> (Vec<CountRow>, Vec<Ledger>) {
    let (send, events) = mpsc::channel();
    let workers = setup.workers;
    let config = timely::Config::process(workers);
    let guards = timely::execute(config, move |worker| {
        let job = job(&setup, worker.index(), Reached::Finished, &send);
        graph::build(worker, job);
    })
    .expect("workers start");
    for joined in guards.join() {
        joined.expect("no worker panics");
    }
    let mut all = Vec::new();
    let mut last = None;
    let mut ends = 0;
    for event in events {
        match event {
            Event::Told(announcement) => last = Some(announcement),
            Event::End(rows) => {
                ends += 1;
                all.extend(rows);
            }
            _ => {}
        }
    }
    assert_eq!(ends, workers, "every worker gives what it has");
    let last = last.expect("the end is announced");
    assert_eq!((last.frontier, last.watermark), (END_OF_TIME, END_OF_TIME), "everything is final");
    (all, last.partitions.into_iter().map(|at| at.ledger).collect())
}

impl Live {
    pub fn start(setup: Setup) -> Self {
        let (send, events) = mpsc::channel();
        let (mailbox, desk, crash) = (Mailbox::default(), Questions::default(), Arc::new(AtomicBool::new(false)));
        let (top_desk, channel_desk, dimensions) = (Questions::default(), Questions::default(), Mailbox::default());
        let (for_top, for_channels, for_dimensions) = (top_desk.clone(), channel_desk.clone(), dimensions.clone());
        let (workers, rules, state) = (setup.workers, setup.rules, RefCell::new(setup.start.state.clone()));
        let (for_job, for_desk, to_crash) = (mailbox.clone(), desk.clone(), Arc::clone(&crash));
        let snapshots: Vec<_> = (0..workers).map(|_| Snapshots::default()).collect();
        let for_index = snapshots.clone();
        let guards = timely::execute(timely::Config::process(workers), move |worker| {
            let first = worker.index() == 0;
            let mut job = job(&setup, worker.index(), Reached::End, &send);
            let (answers, tops, channels, heard) = (send.clone(), send.clone(), send.clone(), send.clone());
            job.mailbox = first.then(|| for_job.clone());
            job.serve = Some(Serve {
                retain_ms: 900_000,
                index: IndexDesk {
                    snapshots: for_index[worker.index()].clone(),
                    published: Box::new(|| {}),
                    desk: first.then(|| for_desk.clone()),
                    reply: Box::new(move |ticket, answer| drop(answers.send(Event::Answer(ticket, answer)))),
                },
                top_desk: first.then(|| for_top.clone()),
                top_reply: Box::new(move |_, top| drop(tops.send(Event::Top(top)))),
                channels: ChannelDesk {
                    desk: first.then(|| for_channels.clone()),
                    reply: Box::new(move |_, answer| drop(channels.send(Event::Channel(answer)))),
                },
                dimensions: Dimensions {
                    given: first.then(|| (setup.known.clone(), for_dimensions.clone())),
                    tell: first.then(|| {
                        Box::new(move |time, changes: &[Change]| drop(heard.send(Event::Heard(time, changes.to_vec()))))
                            as TellChanges
                    }),
                },
            });
            graph::build(worker, job);
            while worker.has_dataflows() && !to_crash.load(Ordering::Relaxed) {
                worker.step_or_park(Some(Duration::from_millis(1)));
            }
            for dataflow in worker.installed_dataflows() {
                worker.drop_dataflow(dataflow);
            }
        })
        .expect("workers start");
        let (is_full, latest) = (Cell::new(false), RefCell::default());
        let guards = Some(guards);
        Self {
            events,
            mailbox,
            desk,
            snapshots,
            top_desk,
            channel_desk,
            dimensions,
            crash,
            guards,
            workers,
            rules,
            state,
            is_full,
            latest,
        }
    }

    pub fn next(&self) -> Event {
        let event = self.events.recv_timeout(Duration::from_secs(60)).expect("some operator holds a capability");
        self.heed(&event);
        event
    }

    /// Whether too much waits for the sink.
    pub fn is_full(&self) -> bool {
        self.is_full.get()
    }

    /// The newest announcement that was looked at, if any was.
    pub fn latest(&self) -> Option<Announcement> {
        self.latest.borrow().clone()
    }

    /// Notes what an event says; the watermark never goes back.
    pub fn heed(&self, event: &Event) {
        match event {
            Event::Outcome(Outcome::Full) => self.is_full.set(true),
            Event::Outcome(Outcome::Room) => self.is_full.set(false),
            Event::Told(announcement) => {
                let before = self.latest.replace(Some(announcement.clone()));
                let watermark = before.map_or(0, |before| before.watermark);
                assert!(
                    watermark <= announcement.watermark,
                    "the watermark went back from {watermark}: {announcement:?}"
                );
            }
            _ => {}
        }
    }

    /// Takes a checkpoint; `None` where nothing had changed.
    pub fn checkpoint(&self) -> Option<(Start, Vec<WorkerCut>)> {
        self.mailbox.tell(Message::Due);
        let mut cuts = Vec::new();
        loop {
            match self.next() {
                Event::Cut(cut) => {
                    let part = StoredPart {
                        info: PartInfo::of(format!("w{}", cut.worker), cut.number, &cut.part.encode()),
                        counted: cut.counted,
                        left: cut.hot.left,
                        first: cut.first,
                        has_letters: !cut.part.letters.is_empty(),
                    };
                    self.mailbox.tell(Message::Written { number: cut.number, worker: cut.worker, part });
                    cuts.push(cut);
                }
                Event::Outcome(Outcome::Unchanged) => return None,
                Event::Outcome(Outcome::Commit { number, parts }) => {
                    assert_eq!((parts.len(), cuts.len()), (self.workers, self.workers));
                    self.mailbox.tell(Message::Committed { number });
                }
                Event::Outcome(Outcome::Committed { number }) => {
                    self.mailbox.tell(Message::Acknowledged { number, process: 0 });
                }
                Event::Outcome(Outcome::Settled { number }) => {
                    return Some((self.resume_from(number, &cuts), cuts));
                }
                // What it has is as good as ever, and the frontier stays.
                Event::BrokeOff => {}
                Event::Outcome(_) | Event::Told(_) | Event::End(_) => {}
                Event::Answer(..) | Event::Top(_) | Event::Channel(_) | Event::Heard(..) => {}
            }
        }
    }

    fn resume_from(&self, number: u64, cuts: &[WorkerCut]) -> Start {
        let mut fold = Fold::default();
        fold.add(self.state.borrow().clone());
        for cut in cuts {
            assert_eq!(cut.partitions, cuts[0].partitions, "all workers know the same at a frontier");
            fold.add(PartState::decode(&cut.part.encode()).expect("it was just written"));
        }
        let mut state = fold.finish();
        let (frontier, partitions) = (cuts[0].frontier, cuts[0].partitions.clone());
        if number.is_multiple_of(2) {
            state.forget(partitions.first_remembered(frontier, &self.rules));
        }
        let hot = Hot { from: cuts[0].hot.from, left: cuts.iter().map(|cut| cut.hot.left).sum() };
        assert!(cuts.iter().all(|cut| cut.hot.from == hot.from), "all workers let the same windows go");
        state.keep_from(hot.from);
        let counted: u64 = partitions.0.values().map(|at| at.ledger.counted).sum();
        let there = state.counted() + hot.left;
        assert_eq!(counted, there, "the counted events are the sum over all windows, at every frontier");
        assert_eq!(counted, cuts.iter().map(|cut| cut.counted).sum::<u64>());
        assert!(partitions.0.values().all(|at| at.ledger.balances()), "{partitions:?}");
        // What the sink was given: the next checkpoint is an increment upon this one.
        state.mark_written();
        self.state.replace(PartState { letters: Vec::new(), ..state.clone() });
        Start { frontier, number, partitions, hot, state }
    }

    /// Waits until everything in the log is visible; gives the announcement.
    pub fn settle(&self, log: &Log) -> Announcement {
        self.settle_at(&Appended::all(log).ends())
    }

    /// Waits until everything before these offsets, and nothing behind them, is visible.
    pub fn settle_at(&self, ends: &[u64]) -> Announcement {
        loop {
            if let Event::Told(announcement) = self.next()
                && announcement.partitions.iter().map(|at| at.next_offset).eq(ends.iter().copied())
            {
                return announcement;
            }
        }
    }

    /// All counts of the videos that drafts are of, as it answers them.
    pub fn answered(&self, as_of: EventTime) -> Counts {
        let mut counts = Counts::new();
        for video in (0..drafts::VIDEOS).map(|video| format!("v{video}")) {
            for kind in ["view", "like"] {
                for (minute, count) in self.ask(&video, kind, as_of) {
                    counts.insert((video.clone(), kind.to_owned(), minute.start()), count);
                }
            }
        }
        counts
    }

    pub fn ask(&self, video: &str, kind: &str, as_of: EventTime) -> Vec<(Minute, u64)> {
        match self.answer(video, kind, Kept::NONE, as_of) {
            Answer::Cells(cells) => cells.iter().map(|cell| (cell.minute, cell.count)).collect(),
            other => panic!("{other:?}"),
        }
    }

    /// All functions of the videos that drafts are of, with the counts.
    pub fn functions(&self, as_of: EventTime) -> BTreeMap<(String, String, EventTime), (u64, Stats)> {
        let mut functions = BTreeMap::new();
        for video in (0..drafts::VIDEOS).map(|video| format!("v{video}")) {
            for kind in ["view", "like"] {
                let Answer::Functions(cells) = self.answer(&video, kind, Kept::ALL, as_of) else {
                    panic!("functions were asked for")
                };
                for (cell, stats) in cells {
                    functions.insert((video.clone(), kind.to_owned(), cell.minute.start()), (cell.count, stats));
                }
            }
        }
        functions
    }

    /// What the dataflow answers, which a snapshot read from outside says as well.
    fn answer(&self, video: &str, kind: &str, functions: Kept, as_of: EventTime) -> Answer {
        let (first, end) = (Minute(0), Minute(u32::MAX));
        let question = Question { video_id: video.into(), event_type: kind.into(), first, end, functions, as_of };
        let snapshots = &self.snapshots[KeyGroup::of(video).owner(self.workers)];
        // At once, when the index may not have reached it, and once it has.
        let early = snapshots.answer(&question);
        assert!(self.desk.ask(1, question.clone()));
        loop {
            match self.next() {
                Event::Answer(1, answer) => {
                    // It may have been merged since.
                    if !matches!(answer, Answer::Gone { .. }) {
                        assert_eq!(early.as_ref().unwrap_or(&answer), &answer);
                        let outside = snapshots.answer(&question);
                        assert!(matches!(outside, Some(Answer::Gone { .. })) || outside.as_ref() == Some(&answer));
                    }
                    return answer;
                }
                Event::Answer(other, _) => panic!("nobody asked {other}"),
                _ => {}
            }
        }
    }

    pub fn top(&self, question: TopQuestion) -> TopAnswer {
        assert!(self.top_desk.ask(1, question));
        loop {
            if let Event::Top(top) = self.next() {
                return top;
            }
        }
    }

    /// Asks about channels; whatever else happens meanwhile goes to `note`.
    pub fn channels(&self, question: ChannelQuestion, mut note: impl FnMut(Event)) -> ChannelAnswer {
        assert!(self.channel_desk.ask(1, question));
        loop {
            match self.next() {
                Event::Channel(answer) => return answer,
                other => note(other),
            }
        }
    }

    /// Ends at once, as a crash would: nothing is flushed or finished.
    pub fn crash(mut self) {
        for joined in self.end() {
            joined.expect("no worker panics");
        }
    }

    fn end(&mut self) -> Vec<Result<(), String>> {
        self.crash.store(true, Ordering::Relaxed);
        self.guards.take().map(WorkerGuards::join).into_iter().flatten().collect()
    }
}

/// So that a test that fails ends.
impl Drop for Live {
    fn drop(&mut self) {
        self.end();
    }
}

/// A start from the first record.
pub fn fresh(partitions: usize) -> Arc<Start> {
    Arc::new(Start::fresh((0..partitions as u32).map(PartitionId)))
}

/// Where a job goes on that took so many checkpoints, as far as something had changed, and crashed.
pub fn crashed_after(live: Live, checkpoints: usize, mut start: Arc<Start>) -> Arc<Start> {
    for _ in 0..checkpoints {
        if let Some((at, _)) = live.checkpoint() {
            start = Arc::new(at);
        }
    }
    live.crash();
    start
}
