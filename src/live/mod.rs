//! One live process: the log, the workers, the keeper and the HTTP door, wired together.

mod door;
mod health;
mod keeper;
mod open;
mod shelf;

use std::{rc::Rc, sync::Arc, thread, time::Duration};

use anyhow::{Context as _, anyhow};
use connectors::{embedded::log::Log, json::JsonEvents};
use crossbeam_channel::Sender;
use dataflows::{
    control::{Mailbox, Message},
    graph::{self, Job, Serve, Start},
    index::Questions,
    lane::Ended,
    port::Version,
    rules::Rules,
    time::EventTime,
};
use prometheus_client::registry::Registry;
use sha2::{Digest as _, Sha256};
use timely::communication::WorkerGuards;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::oneshot,
};

use self::{
    door::{Door, JsonCheck},
    health::{Health, Heartbeats},
    keeper::{Keeper, KeeperFacts, Word},
    open::Opened,
    shelf::Shelf,
};
use crate::{
    config::{HttpSettings, Settings},
    engine::{self, FirstError, Handout, Monotonic, SendReader},
    exit::{Exit, Failure, OrExit as _},
    http,
    service::CheckpointFacts,
};

/// Runs until SIGTERM or SIGINT, or until something fails for good.
pub fn run(settings: &Settings, from_start: bool) -> Result<(), Failure> {
    let rules = engine::rules(&settings.time);
    let opened = open::open(settings, &rules, from_start)?;
    tell_resumed(&opened);
    let desk = Questions::default();
    let shelf = Arc::new(Shelf::new(desk.clone(), settings.index.as_of_ms));
    let beats = Heartbeats::start(settings.workers.get());
    let facts = Arc::new(KeeperFacts::default());
    if let Some(resumed) = opened.resumed {
        let frontier = opened.start.frontier;
        facts.set_last(CheckpointFacts { number: resumed.number, frontier, age_ms: 0, bytes: 0, duration_ms: 0 });
    }
    let state = http_state(settings, &opened, &shelf, &beats, &facts)?;
    let (mailbox, errors) = (Mailbox::default(), Arc::new(FirstError::default()));
    let (words, inbox) = crossbeam_channel::unbounded();
    let Opened { log, checkpoints, sink, letters, published, identity, start, resumed, write_from } = opened;
    let keeper = Keeper {
        inbox,
        mailbox: mailbox.clone(),
        checkpoints,
        sink,
        letters,
        published,
        identity: identity.clone(),
        rules,
        interval: Duration::from_millis(settings.checkpoint.interval_ms),
        keep: settings.checkpoint.keep.get(),
        acknowledged: resumed.unwrap_or(Version::default()),
        write_from,
        facts,
    };
    let crew = Crew {
        rules,
        key: identity.key,
        start: Arc::new(start),
        // Longer than what may be asked, so that no announced frontier is merged while it is asked for.
        retain_ms: settings.index.as_of_ms + rules.alignment_ms,
        write_from,
        desk,
        shelf: Arc::clone(&shelf),
        beats: Arc::clone(&beats),
        mailbox: mailbox.clone(),
        errors: Arc::clone(&errors),
        words,
    };
    let workers = crew.start(&log, settings.workers.get())?;
    beats.watch();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("starting the HTTP threads")
        .or_exit(Exit::Internal)?;
    let ended = runtime.block_on(serve(settings.http.listen, state, &mailbox, keeper, &errors));
    if ended.is_err() {
        // The workers would wait for what never comes; the next start goes on from the last checkpoint.
        errors.stop();
    }
    for joined in workers.join() {
        joined.map_err(|error| Failure::new(Exit::Internal, anyhow!(error)))?;
    }
    shelf.close();
    log.close();
    ended?;
    tracing::info!("stopped with a last checkpoint");
    Ok(())
}

fn tell_resumed(opened: &Opened) {
    let ends = opened.log.end_offsets();
    let read = opened.start.partitions.0.values().map(|at| at.next_offset);
    let again: u64 = ends.iter().zip(read).map(|(end, read)| end.saturating_sub(read)).sum();
    let generation = opened.identity.generation;
    match opened.resumed {
        Some(version) => tracing::info!(
            generation,
            checkpoint = version.number,
            frontier = opened.start.frontier,
            records_to_read = again,
            "resumed from a checkpoint"
        ),
        None => tracing::info!(generation, records_to_read = again, "started from the first record"),
    }
}

fn http_state(
    settings: &Settings,
    opened: &Opened,
    shelf: &Arc<Shelf>,
    beats: &Arc<Heartbeats>,
    facts: &Arc<KeeperFacts>,
) -> Result<Arc<http::State>, Failure> {
    let door = Door::new(opened.log.appender(), opened.log.partitions());
    let health = Health {
        beats: Arc::clone(beats),
        keeper: Arc::clone(facts),
        shelf: Arc::clone(shelf),
        log: opened.log.view(),
        generation: opened.identity.generation,
    };
    let asked = http::Asked {
        queries: Arc::clone(shelf) as _,
        ingest: Arc::new(door),
        check: Arc::new(JsonCheck),
        status: Arc::new(health),
        token_sha256: token_sha256(&settings.http)?,
        limits: limits(&settings.http),
    };
    Ok(http::State::new(asked, Registry::default()))
}

fn token_sha256(settings: &HttpSettings) -> Result<Option<[u8; 32]>, Failure> {
    let Some(path) = &settings.token_file else { return Ok(None) };
    let token = std::fs::read(path)
        .with_context(|| format!("reading the token file {}", path.display()))
        .or_exit(Exit::Usage)?;
    let token = token.trim_ascii();
    if token.is_empty() {
        return Err(Failure::usage(format!("the token file {} is empty", path.display())));
    }
    Ok(Some(Sha256::digest(token).into()))
}

fn limits(settings: &HttpSettings) -> http::Limits {
    let limits = &settings.limits;
    http::Limits {
        connections: limits.connections.get(),
        connections_per_address: limits.connections_per_address.get(),
        head_bytes: limits.header_bytes.get(),
        head_timeout: Duration::from_millis(limits.header_read_ms),
        idle_timeout: Duration::from_millis(limits.idle_ms),
        body_timeout: Duration::from_millis(limits.body_read_ms),
        write_timeout: Duration::from_millis(limits.write_ms),
        body_bytes: limits.body_bytes.get(),
        inflated_bytes: limits.decompressed_bytes.get(),
        after_wait: Duration::from_millis(limits.after_wait_ms),
        ..http::Limits::default()
    }
}

/// What the workers share.
struct Crew {
    rules: Rules,
    key: dataflows::identity::IdKey,
    start: Arc<Start>,
    retain_ms: u64,
    write_from: EventTime,
    desk: Questions,
    shelf: Arc<Shelf>,
    beats: Arc<Heartbeats>,
    mailbox: Mailbox,
    errors: Arc<FirstError>,
    words: Sender<Word>,
}

impl Crew {
    /// Starts the workers, each with its partitions.
    fn start(self, log: &Log, workers: usize) -> Result<WorkerGuards<()>, Failure> {
        let mut readers = Vec::new();
        for (partition, at) in &self.start.partitions.0 {
            let reader = log.reader(*partition, at.next_offset).map_err(engine::source_failure)?;
            readers.push((0, Box::new(reader) as SendReader));
        }
        let handout = Handout::by_size(readers, workers);
        timely::execute(configured(workers), move |worker| {
            let index = worker.index();
            graph::build(worker, self.job(index, &handout));
            engine::drive(worker, &self.errors, || self.beats.beat(index));
        })
        .map_err(|error| Failure::new(Exit::Internal, anyhow!(error)))
    }

    fn job(&self, index: usize, handout: &Handout) -> Job<JsonEvents> {
        let first = index == 0;
        let (errors, shelf) = (Arc::clone(&self.errors), Arc::clone(&self.shelf));
        let (cuts, outcomes, quiet) = (self.words.clone(), self.words.clone(), self.words.clone());
        // An error means that the keeper has ended, and the process with it.
        let tell = |words: &Sender<Word>, word| drop(words.send(word));
        let replies = Arc::clone(&self.shelf);
        Job {
            decode: JsonEvents,
            rules: self.rules,
            key: self.key,
            start: Arc::clone(&self.start),
            readers: handout.take(index),
            ended: Ended::ForNow,
            timer: Rc::new(Monotonic::start()),
            on_error: Box::new(move |error| errors.set(error)),
            on_quiet: first.then(|| Box::new(move || tell(&quiet, Word::Quiet)) as Box<dyn FnOnce()>),
            tell: Box::new(move |announcement| {
                if first {
                    shelf.announce(announcement);
                }
            }),
            take_cut: Box::new(move |cut| tell(&cuts, Word::Cut(cut))),
            write_from: self.write_from,
            take_all: None,
            serve: Some(Serve {
                retain_ms: self.retain_ms,
                desk: first.then(|| self.desk.clone()),
                reply: Box::new(move |ticket, answer| replies.reply(ticket, answer)),
            }),
            mailbox: first.then(|| self.mailbox.clone()),
            outcome: Box::new(move |outcome| tell(&outcomes, Word::Outcome(outcome))),
        }
    }
}

/// Workers that merge their index while idle.
fn configured(workers: usize) -> timely::Config {
    let mut config = timely::Config::process(workers);
    let effort = differential_dataflow::Config::default().idle_merge_effort(Some(1_000));
    differential_dataflow::configure(&mut config.worker, &effort);
    config
}

/// Serves until a signal, then stops the job and waits for its last checkpoint.
async fn serve(
    listen: std::net::SocketAddr,
    state: Arc<http::State>,
    mailbox: &Mailbox,
    keeper: Keeper,
    errors: &Arc<FirstError>,
) -> Result<(), Failure> {
    let (close, closed) = oneshot::channel::<()>();
    let (address, served) = http::serve(listen, state, async move {
        // A dropped sender closes the door as well.
        let _ = closed.await;
    })
    .or_exit(Exit::Failed)?;
    let served = tokio::spawn(served);
    tracing::info!(%address, "serving HTTP");
    let (kept, mut ended) = oneshot::channel();
    thread::Builder::new()
        .name("keeper".to_owned())
        .spawn(move || {
            // An error means that the process is ending already.
            let _ = kept.send(keeper.run());
        })
        .context("starting the keeper")
        .or_exit(Exit::Internal)?;
    let mut terminate = signal(SignalKind::terminate()).context("listening for SIGTERM").or_exit(Exit::Internal)?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listening for SIGINT").or_exit(Exit::Internal)?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        ended = &mut ended => return keeper_ended(ended, errors),
        failure = failed(errors) => return Err(failure),
    }
    tracing::info!("stopping: taking a last checkpoint");
    // The door first: nothing is acknowledged any more that would only be read at the next start.
    let _ = close.send(());
    served
        .await
        .context("the HTTP threads ended")
        .or_exit(Exit::Internal)?
        .context("serving HTTP")
        .or_exit(Exit::Internal)?;
    mailbox.tell(Message::Stop);
    tokio::select! {
        ended = &mut ended => keeper_ended(ended, errors),
        failure = failed(errors) => Err(failure),
        _ = terminate.recv() => Err(Failure::new(Exit::Failed, anyhow!("stopped by a second signal, without a last checkpoint"))),
    }
}

fn keeper_ended(
    ended: Result<Result<(), Failure>, oneshot::error::RecvError>,
    errors: &FirstError,
) -> Result<(), Failure> {
    match (errors.failure(), ended) {
        (Some(failure), _) => Err(failure),
        (None, Ok(ended)) => ended,
        (None, Err(_)) => Err(Failure::new(Exit::Internal, anyhow!("the keeper ended without a word"))),
    }
}

/// Ready when an input has failed.
async fn failed(errors: &FirstError) -> Failure {
    let mut look = tokio::time::interval(Duration::from_millis(100));
    loop {
        look.tick().await;
        if let Some(failure) = errors.failure() {
            return failure;
        }
    }
}
