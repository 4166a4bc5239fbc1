//! A job of one worker, in this thread, that has counted a day: an event of each video in each of its minutes, with all functions.

use std::{cell::RefCell, ops::ControlFlow, rc::Rc, sync::Arc, time::Instant};

use connectors::json::JsonEvents;
use dataflows::{
    announce::Announcement,
    channels::ChannelDesk,
    dimensions::Dimensions,
    functions::{Functions, Kept},
    graph::{self, Job, Serve, Start},
    identity::IdKey,
    index::{IndexDesk, Questions},
    lane::{Ended, Format},
    port::{PartitionId, PartitionReader, Reached, Record, SourceError, Timer},
    query::{Answer, Question},
    rules::Rules,
    snapshot::Snapshots,
    time::{MINUTE_MS, Minute},
};
use timely::worker::Worker;

use crate::{inputs::FIRST, worker::worker};

pub const MINUTES: u32 = 1_440;
pub const VIDEOS: u32 = 300;

/// Records of one read.
const BATCH: u64 = 1_024;

/// How far back an answer may reach: as `index.as_of` is by default.
const RETAIN_MS: u64 = 900_000;

pub struct Day {
    worker: Worker,
    desk: Questions,
    answer: Rc<RefCell<Option<Answer>>>,
    pub snapshots: Snapshots,
    latest: Rc<RefCell<Option<Announcement>>>,
}

impl Day {
    pub fn counted() -> Self {
        let (desk, answer, snapshots, latest) = Default::default();
        let mut day = Self { worker: worker(), desk, answer, snapshots, latest };
        let job = day.job();
        graph::build(&mut day.worker, job);
        let all = u64::from(VIDEOS * MINUTES);
        while day.latest.borrow().as_ref().is_none_or(|latest| latest.partitions[0].ledger.counted < all) {
            day.worker.step();
        }
        let as_of = day.as_of();
        while day.snapshots.reached().is_none_or(|reached| reached < as_of) {
            day.worker.step();
        }
        day
    }

    /// The newest frontier.
    fn as_of(&self) -> u64 {
        self.latest.borrow().as_ref().map_or(0, |latest| latest.frontier)
    }

    /// All minutes of one video.
    pub fn question(&self, video: u32, functions: Kept) -> Question {
        Question {
            video_id: video_id(video),
            event_type: "view".to_owned(),
            first: FIRST,
            end: Minute(FIRST.0 + MINUTES),
            functions,
            as_of: self.as_of(),
        }
    }

    /// Asks at the desk, and lets the worker go on until there is an answer.
    pub fn ask(&mut self, question: Question) -> Answer {
        assert!(self.desk.ask(0, question), "the job goes on");
        loop {
            if let Some(answer) = self.answer.take() {
                return answer;
            }
            self.worker.step();
        }
    }

    fn job(&self) -> Job<JsonEvents> {
        let (latest, answer) = (Rc::clone(&self.latest), Rc::clone(&self.answer));
        Job {
            format: Format { decode: JsonEvents, functions: Functions::of_all(Kept::ALL) },
            rules: Rules { idle_after_ms: 0, ..Rules::default() },
            key: IdKey([1, 2]),
            start: Arc::new(Start::fresh([PARTITION])),
            readers: vec![Box::new(Events { next: 0 })],
            join: Box::new(|_| None),
            ended: Ended::ForNow,
            timer: Rc::new(SinceStart(Instant::now())),
            on_error: Box::new(|error| panic!("{error}")),
            on_quiet: None,
            tell: Box::new(move |announcement| drop(latest.replace(Some(announcement)))),
            take_cut: Box::new(drop),
            write_from: 0,
            rolls_up: false,
            cooling: None,
            unwritten_max: usize::MAX,
            take_all: None,
            serve: Some(Serve {
                retain_ms: RETAIN_MS,
                index: IndexDesk {
                    snapshots: self.snapshots.clone(),
                    published: Box::new(|| {}),
                    desk: Some(self.desk.clone()),
                    reply: Box::new(move |_, given| drop(answer.replace(Some(given)))),
                },
                top_desk: None,
                top_reply: Box::new(|_, _| {}),
                channels: ChannelDesk { desk: None, reply: Box::new(|_, _| {}) },
                dimensions: Dimensions { given: None, tell: None },
            }),
            processes: 1,
            mailbox: None,
            ear: None,
        }
    }
}

const PARTITION: PartitionId = PartitionId(0);

fn video_id(video: u32) -> String {
    format!("v{video:07}")
}

/// The log: minute after minute, in each of them all videos.
struct Events {
    next: u64,
}

impl PartitionReader for Events {
    fn partition(&self) -> PartitionId {
        PARTITION
    }

    fn next_offset(&self) -> u64 {
        self.next
    }

    fn read(&mut self, visit: &mut dyn FnMut(Record<'_>) -> ControlFlow<()>) -> Result<Reached, SourceError> {
        let end = u64::from(VIDEOS * MINUTES);
        for offset in self.next..end.min(self.next + BATCH) {
            let (minute, video) = (offset / u64::from(VIDEOS), (offset % u64::from(VIDEOS)) as u32);
            let line = format!(
                r#"{{"event_id":"{offset}","video_id":"{}","event_type":"view","timestamp":{},"user_id":"u{}","value":{}.5}}"#,
                video_id(video),
                FIRST.start() + minute * MINUTE_MS,
                offset % 1_000,
                offset % 300,
            );
            self.next = offset + 1;
            let record = Record { offset, append_time: None, key: None, headers: None, payload: line.as_bytes() };
            if visit(record).is_break() {
                break;
            }
        }
        Ok(if self.next < end { Reached::More } else { Reached::End })
    }
}

struct SinceStart(Instant);

impl Timer for SinceStart {
    fn monotonic_ms(&self) -> u64 {
        self.0.elapsed().as_millis() as u64
    }
}
