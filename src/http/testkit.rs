//! In-memory twins of what the routes ask, and a client that sends bytes as they are.

#![allow(clippy::unwrap_used)]

use std::{
    collections::BTreeMap,
    future::Future,
    net::SocketAddr,
    ops::Range,
    sync::{Arc, Mutex},
};

use dataflows::{
    announce::{Announcement, Moment, PartitionAt},
    channels::{self, ChannelAnswer, ChannelQuestion, MembersAnswer},
    functions::{
        Functions, Kept,
        stats::{Detail, Stats},
    },
    ledger::Ledger,
    port::{ColdSum, ColdWindow, PartitionId},
    query::{Answer, Cell, Question},
    rollup::Width,
    time::{EventTime, Minute},
    top::{Order, Ranked, TopAnswer, TopQuestion},
};
use prometheus_client::registry::Registry;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::{oneshot, watch},
};

use super::{Asked, Limits, State, serve, server::BindError};
use crate::{
    live::NameCheck,
    service::{
        AsOfError, BoxFuture, CheckpointFacts, ColdQuestion, ColdRows, ColdSums, ColdSumsQuestion, Entry, EventCheck,
        Facts, Ingest, IngestError, Names, Queries, StatusSource,
    },
};

/// Answers from a list of events, each visible above its own time.
pub struct TwinQueries {
    counted: Mutex<Vec<Counted>>,
    announced: Mutex<Vec<Arc<Announcement>>>,
    merged_before: Mutex<EventTime>,
    /// Windows before it have left memory, by what is announced from then on.
    hot_from: Mutex<Minute>,
    /// The videos of channels, at every moment.
    members: Mutex<BTreeMap<String, Vec<String>>>,
    pub names: Arc<Names>,
    changes: watch::Sender<EventTime>,
}

/// One event: video id, event type, window, time of travel, and what it adds beside the count.
type Counted = (String, String, Minute, EventTime, Detail);

impl Default for TwinQueries {
    fn default() -> Self {
        Self {
            counted: Mutex::default(),
            announced: Mutex::default(),
            merged_before: Mutex::default(),
            hot_from: Mutex::default(),
            members: Mutex::default(),
            names: Arc::default(),
            changes: watch::Sender::new(0),
        }
    }
}

impl TwinQueries {
    /// One event, travelling at `time`.
    pub fn count(&self, video_id: &str, event_type: &str, minute: u32, time: EventTime) {
        self.count_with(video_id, event_type, minute, time, Detail { kept: Kept::ALL, value: None, user: None });
    }

    /// The same, with what it adds beside the count.
    pub fn count_with(&self, video_id: &str, event_type: &str, minute: u32, time: EventTime, detail: Detail) {
        self.counted.lock().unwrap().push((video_id.into(), event_type.into(), Minute(minute), time, detail));
    }

    /// What is counted of a video and event type by events that travelled before a time.
    fn windows(&self, video: &str, kind: &str, minutes: Range<u32>, before: EventTime) -> Vec<(Cell, Stats)> {
        let counted = self.counted.lock().unwrap();
        let mut windows: BTreeMap<u32, (u64, Stats)> = BTreeMap::new();
        for (.., minute, _, detail) in counted
            .iter()
            .filter(|(v, k, minute, time, _)| v == video && k == kind && minutes.contains(&minute.0) && *time < before)
        {
            let (count, stats) = windows.entry(minute.0).or_default();
            *count += 1;
            stats.add(*detail);
        }
        let window = |(minute, (count, stats))| (Cell { minute: Minute(minute), count }, stats);
        windows.into_iter().map(window).collect()
    }

    /// Puts a video into a channel.
    pub fn join(&self, channel_id: &str, video_id: &str) {
        self.members.lock().unwrap().entry(channel_id.into()).or_default().push(video_id.into());
    }

    /// Windows before this leave memory.
    pub fn leave(&self, before: u32) {
        *self.hot_from.lock().unwrap() = Minute(before);
    }

    /// Announces a frontier at which two partitions stand at offsets 10 and 20.
    pub fn announce_at(&self, frontier: EventTime, watermark: EventTime) {
        self.announce(frontier, watermark, [10, 20]);
    }

    /// Announces a frontier.
    pub fn announce(&self, frontier: EventTime, watermark: EventTime, next_offsets: [u64; 2]) {
        let partition = |(partition, next_offset)| PartitionAt {
            partition: PartitionId(partition),
            next_offset,
            clock: Some(watermark + 600_000),
            ended: false,
            ledger: Ledger { read: next_offset, counted: next_offset, ..Ledger::default() },
            gaps: Vec::new(),
        };
        let partitions = (0..).zip(next_offsets).map(partition).collect();
        let (held_by, hot_from) = (Some(PartitionId(1)), *self.hot_from.lock().unwrap());
        self.announce_whole(Announcement { frontier, watermark, held_by, hot_from, partitions });
    }

    /// Announces what the caller made.
    pub fn announce_whole(&self, announcement: Announcement) {
        let frontier = announcement.frontier;
        self.announced.lock().unwrap().push(Arc::new(announcement));
        self.changes.send_replace(frontier);
    }

    /// How many wait for a change.
    pub fn waiting(&self) -> usize {
        self.changes.receiver_count()
    }

    /// From now on, history before `oldest` is merged, and nobody said so in [`Queries::lower`] yet.
    pub fn merge_before(&self, oldest: EventTime) {
        *self.merged_before.lock().unwrap() = oldest;
    }
}

impl Queries for TwinQueries {
    fn latest(&self) -> Option<Arc<Announcement>> {
        self.announced.lock().unwrap().last().cloned()
    }

    fn lower(&self, as_of: EventTime) -> Result<Moment, AsOfError> {
        let announced = self.announced.lock().unwrap();
        let frontier = announced.last().map_or(0, |last| last.frontier);
        if frontier < as_of {
            return Err(AsOfError::Ahead { frontier });
        }
        let lowered = announced.iter().rev().find(|at| at.frontier <= as_of);
        lowered.map(|at| at.moment()).ok_or_else(|| AsOfError::Gone { oldest: announced[0].frontier })
    }

    fn ask(&self, question: Question, _: Width, _: EventTime) -> BoxFuture<Option<Answer>> {
        assert!(self.announced.lock().unwrap().iter().any(|at| at.frontier == question.as_of), "{question:?}");
        let oldest = *self.merged_before.lock().unwrap();
        if question.as_of < oldest {
            return Box::pin(std::future::ready(Some(Answer::Gone { oldest })));
        }
        let there = self.announced.lock().unwrap().iter().rfind(|at| at.frontier == question.as_of).unwrap().hot_from;
        let minutes = question.first.max(there).0..question.end.0.min(10_000);
        let cells = self.windows(&question.video_id, &question.event_type, minutes, question.as_of);
        let only = |(cell, stats): (Cell, Stats)| (cell, stats.only(question.functions));
        let answer = match question.functions {
            Kept::NONE => Answer::Cells(cells.into_iter().map(|(cell, _)| cell).collect()),
            _ => Answer::Functions(cells.into_iter().map(only).collect()),
        };
        Box::pin(std::future::ready(Some(answer)))
    }

    fn cold(&self, question: ColdQuestion) -> BoxFuture<ColdRows> {
        let ColdQuestion { video_id, event_type, starts, width, functions } = question;
        let minutes = Minute::of(starts.start).0..Minute::of(starts.end).0;
        assert!(minutes.end <= self.hot_from.lock().unwrap().0, "what is in memory is not read from elsewhere");
        let window = |(cell, stats): (Cell, Stats)| {
            let stats = functions.then_some(stats);
            ColdWindow { start: cell.minute.start(), count: cell.count, stats }
        };
        let windows = self.windows(&video_id, &event_type, minutes, EventTime::MAX);
        let mut rows: Vec<_> = windows.into_iter().map(window).collect();
        rows.dedup_by(|next, row| {
            let start = width.start(Minute::of(next.start));
            let is_merged =
                start == width.start(Minute::of(row.start)) && starts.start <= start && width.end(start) <= starts.end;
            if is_merged {
                row.count += next.count;
                row.stats.as_mut().zip(next.stats.as_ref()).into_iter().for_each(|(all, stats)| all.merge(stats));
            }
            is_merged
        });
        Box::pin(std::future::ready(Ok(rows)))
    }

    fn cold_sums(&self, ColdSumsQuestion { event_type, starts }: ColdSumsQuestion) -> BoxFuture<ColdSums> {
        assert!(starts.end <= self.hot_from.lock().unwrap().start(), "what is in memory is not read from elsewhere");
        let mut sums: BTreeMap<String, ColdSum> = BTreeMap::new();
        for (video_id, kind, minute, ..) in self.counted.lock().unwrap().iter() {
            if *kind == event_type && starts.contains(&minute.start()) {
                let new = || ColdSum::of(video_id.clone(), minute.start(), 0);
                sums.entry(video_id.clone()).or_insert_with(new).add(minute.start(), 1);
            }
        }
        Box::pin(std::future::ready(Ok(sums.into_values().collect())))
    }

    fn top(&self, question: TopQuestion) -> BoxFuture<Option<TopAnswer>> {
        assert!(self.announced.lock().unwrap().iter().any(|at| at.frontier == question.as_of), "{question:?}");
        let oldest = *self.merged_before.lock().unwrap();
        if question.as_of < oldest {
            return Box::pin(std::future::ready(Some(TopAnswer::Gone { oldest })));
        }
        let lowest = question.first.0.saturating_sub(question.end.0.saturating_sub(question.first.0));
        let mut sums: BTreeMap<String, (u64, u64)> = BTreeMap::new();
        let mut minutes: Vec<Minute> = Vec::new();
        for (video_id, event_type, minute, time, _) in self.counted.lock().unwrap().iter() {
            if *event_type == question.event_type && *time < question.as_of && *minute < question.end {
                if question.first <= *minute {
                    sums.entry(video_id.clone()).or_default().0 += 1;
                    minutes.push(*minute);
                } else if question.order == Order::Rising && lowest <= minute.0 {
                    sums.entry(video_id.clone()).or_default().1 += 1;
                }
            }
        }
        let mut top: Vec<_> = sums.into_iter().map(|(id, (count, before))| Ranked { id, count, before }).collect();
        // Stable: of equals the lesser id stays first.
        top.sort_by_key(|ranked| ranked.before as i64 - ranked.count as i64);
        top.truncate(question.k);
        let known = minutes.iter().min().copied().zip(minutes.iter().max().copied());
        Box::pin(std::future::ready(Some(TopAnswer::Top { known, top })))
    }

    fn channels(&self, question: ChannelQuestion) -> BoxFuture<Option<ChannelAnswer>> {
        assert!(self.announced.lock().unwrap().iter().any(|at| at.frontier == question.as_of), "{question:?}");
        let members = self.members.lock().unwrap();
        let minutes = question.first.0..question.end.0.min(10_000);
        let windows = |video: &String| self.windows(video, &question.event_type, minutes.clone(), question.as_of);
        let answer = match &question.wanted {
            channels::Wanted::Windows { channel_id, functions } => {
                let mut sums: BTreeMap<Minute, (u64, Stats)> = BTreeMap::new();
                for (cell, stats) in members.get(channel_id).into_iter().flatten().flat_map(windows) {
                    let (count, sum) = sums.entry(cell.minute).or_default();
                    *count += cell.count;
                    sum.merge(&stats);
                }
                let cells = sums.into_iter().map(|(minute, (count, stats))| (Cell { minute, count }, stats));
                ChannelAnswer::Windows(match functions.any() {
                    true => Answer::Functions(cells.collect()),
                    false => Answer::Cells(cells.map(|(cell, _)| cell).collect()),
                })
            }
            channels::Wanted::Top { k, .. } => {
                let sum = |videos: &Vec<String>| videos.iter().flat_map(windows).map(|(cell, _)| cell.count).sum();
                let row =
                    |(id, videos): (&String, &Vec<String>)| Ranked { id: id.clone(), count: sum(videos), before: 0 };
                let mut top: Vec<_> = members.iter().map(row).collect();
                top.retain(|ranked| ranked.count != 0);
                top.sort_by_key(|ranked| std::cmp::Reverse(ranked.count));
                top.truncate(*k);
                ChannelAnswer::Top(TopAnswer::Top { known: None, top })
            }
            channels::Wanted::Members { channel_id } => {
                let is_asked = |channel: &String| channel_id.as_ref().is_none_or(|asked| asked == channel);
                let asked = members.iter().filter(|(channel, _)| is_asked(channel));
                let all = asked.map(|(channel, videos)| (channel.clone(), videos.clone())).collect();
                ChannelAnswer::Members(MembersAnswer::Members(all))
            }
        };
        Box::pin(std::future::ready(Some(answer)))
    }

    fn changes(&self) -> watch::Receiver<EventTime> {
        self.changes.subscribe()
    }
}

/// A log that keeps everything in partition 1 and has been written to before, or says no.
#[derive(Default)]
pub struct TwinIngest {
    pub entries: Mutex<Vec<Entry>>,
    pub fails_with: Mutex<Option<fn() -> IngestError>>,
}

impl Ingest for TwinIngest {
    fn append(&self, entries: Vec<Entry>) -> BoxFuture<Result<Vec<(PartitionId, u64)>, IngestError>> {
        let appended = match *self.fails_with.lock().unwrap() {
            Some(error) => Err(error()),
            None => {
                let mut kept = self.entries.lock().unwrap();
                kept.extend(entries);
                Ok(vec![(PartitionId(3), 7), (PartitionId(1), 40 + kept.len() as u64)])
            }
        };
        Box::pin(std::future::ready(appended))
    }
}

/// An event is any object whose `video_id` is a string.
pub struct TwinCheck;

impl EventCheck for TwinCheck {
    fn check(&self, payload: &[u8]) -> Result<String, &'static str> {
        let text = std::str::from_utf8(payload).map_err(|_| "utf8")?;
        let value: serde_json::Value = serde_json::from_str(text).map_err(|_| "json")?;
        let object = value.as_object().ok_or("json")?;
        object.get("video_id").ok_or("missing")?.as_str().map(str::to_owned).ok_or("type")
    }
}

/// Tells what it was told.
#[derive(Default)]
pub struct TwinStatus {
    pub degraded: Mutex<Vec<String>>,
}

impl StatusSource for TwinStatus {
    fn facts(&self) -> Facts {
        Facts {
            uptime_ms: 5000,
            generation: 3,
            last_checkpoint: Some(CheckpointFacts {
                number: 12,
                frontier: 900,
                age_ms: 2500,
                bytes: 4096,
                duration_ms: 30,
            }),
            checkpoints_failed: 1,
            heartbeat_ages_ms: vec![4, 1500],
            degraded: self.degraded.lock().unwrap().clone(),
            bottleneck: "nothing: the input is drained".into(),
        }
    }
}

/// A server on a port of its own, and its twins.
pub struct Server {
    pub address: SocketAddr,
    pub queries: Arc<TwinQueries>,
    pub ingest: Arc<TwinIngest>,
    pub status: Arc<TwinStatus>,
    pub stop: Option<oneshot::Sender<()>>,
    /// Resolves when the server has ended.
    pub ended: tokio::task::JoinHandle<std::io::Result<()>>,
}

impl Server {
    /// Runs `test` against a server with the usual limits.
    pub fn run<F: Future<Output = ()>>(test: impl FnOnce(Self) -> F) {
        Self::run_with(Limits::default(), None, test);
    }

    /// Runs `test` against a server of its own.
    pub fn run_with<F: Future<Output = ()>>(
        limits: Limits,
        token_sha256: Option<[u8; 32]>,
        test: impl FnOnce(Self) -> F,
    ) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(async move {
            let (queries, ingest, status) = <(Arc<TwinQueries>, Arc<TwinIngest>, Arc<TwinStatus>)>::default();
            let (stop, stopped) = oneshot::channel();
            let state = state(&queries, &ingest, &status, token_sha256, limits);
            let shutdown = async {
                // A test that keeps only the address drops the rest, and its server goes on.
                if stopped.await.is_err() {
                    std::future::pending().await
                }
            };
            let (address, serving) = serve("127.0.0.1:0".parse().unwrap(), state, shutdown).unwrap();
            let ended = tokio::spawn(serving);
            test(Self { address, queries, ingest, status, stop: Some(stop), ended }).await;
        });
    }

    /// Sends a request and reads the answer to its end.
    pub async fn send(&self, request: impl AsRef<[u8]>) -> Reply {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(request.as_ref()).await.unwrap();
        Reply::read(&mut stream).await
    }

    /// Sends a GET.
    pub async fn get(&self, target: &str) -> Reply {
        self.send(format!("GET {target} HTTP/1.1\r\nhost: t\r\nconnection: close\r\n\r\n")).await
    }

    /// Sends a POST with more headers, each with its line end.
    pub async fn post(&self, target: &str, headers: &str, body: impl AsRef<[u8]>) -> Reply {
        let body = body.as_ref();
        let len = body.len();
        let head =
            format!("POST {target} HTTP/1.1\r\nhost: t\r\nconnection: close\r\ncontent-length: {len}\r\n{headers}\r\n");
        self.send([head.as_bytes(), body].concat()).await
    }
}

/// What the routes of a server with these twins share.
pub fn state(
    queries: &Arc<TwinQueries>,
    ingest: &Arc<TwinIngest>,
    status: &Arc<TwinStatus>,
    token_sha256: Option<[u8; 32]>,
    limits: Limits,
) -> Arc<State> {
    let asked = Asked {
        queries: queries.clone(),
        ingest: ingest.clone(),
        check: Arc::new(TwinCheck),
        dimensions: ingest.clone(),
        dimension_check: Arc::new(NameCheck),
        names: Arc::clone(&queries.names),
        status: status.clone(),
        functions: Functions { others: Kept::ALL, by_type: [("like".to_owned(), Kept::NONE)].into() },
        token_sha256,
        limits,
    };
    State::new(asked, Registry::default())
}

/// Listens where somebody listens already.
pub fn bind_again(address: SocketAddr) -> Result<(), BindError> {
    let (queries, ingest, status) = Default::default();
    let state = state(&queries, &ingest, &status, None, Limits::default());
    serve(address, state, std::future::pending()).map(|_served| ())
}

/// An answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Reply {
    pub status: u16,
    /// Status line and headers.
    pub head: String,
    pub body: String,
}

impl Reply {
    /// Reads until the server closes the connection.
    pub async fn read(stream: &mut TcpStream) -> Self {
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).await.unwrap();
        Self::parse(&bytes)
    }

    /// Takes one answer apart.
    pub fn parse(bytes: &[u8]) -> Self {
        let text = String::from_utf8(bytes.to_vec()).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("not an answer: {text:?}"));
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
        Self { status, head: head.to_ascii_lowercase(), body: body.to_owned() }
    }

    /// The body as JSON.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}
