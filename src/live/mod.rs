//! One live process, alone or of several: the log, the workers, the keeper and the HTTP door, wired together.

mod bottleneck;
#[cfg(feature = "cassandra")]
mod cassandra;
mod cluster;
mod cold;
mod crew;
mod days;
mod descriptors;
mod dimensions;
mod door;
mod embedded;
mod forward;
mod health;
mod hot;
mod input;
#[cfg(feature = "kafka")]
mod kafka;
pub mod keeper;
pub mod lock;
mod open;
mod plan;
pub mod ports;
mod rows;
mod shelf;

use std::{
    mem::ManuallyDrop,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, anyhow};
use dataflows::{
    control::{Mailbox, Message},
    rollup::Width,
    tally::Cooling,
};
use prometheus_client::registry::Registry;
use sha2::{Digest as _, Sha256};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::{Notify, oneshot},
};

use self::{
    cluster::{Links, Listener},
    crew::Crew,
    dimensions::Dimensions,
    door::{Door, JsonCheck, Refusals},
    health::{Health, Heartbeats},
    keeper::{Chain, Keeper, KeeperFacts, Lead},
    lock::DataLock,
    open::Opened,
    shelf::Shelf,
};
pub use self::{
    cluster::{Place, end_after_lost_link, is_lost_link},
    dimensions::NameCheck,
    open::next_start,
};
use crate::{
    config::{HttpSettings, Settings, SinkKind},
    engine::{self, FirstError},
    exit::{Exit, Failure, OrExit as _},
    http,
    service::CheckpointFacts,
    token,
};

/// By contract a stop takes 10 s at the most. What is not durable by then is as after a crash: read or written again.
const STOP_WITHIN: Duration = Duration::from_secs(8);

/// How a process has stopped that was told to.
enum Stopped {
    /// With a last checkpoint, all of its rows and letters acknowledged.
    Settled,
    /// Without, since a sink or a disk took too long.
    InTime,
}

/// Runs one process until SIGTERM or SIGINT to any of its job, or until something fails for good.
pub fn run(settings: &Settings, place: &Place, from_start: bool) -> Result<(), Failure> {
    lock::create(&settings.data_dir)?;
    let _lock = if place.leads() { Some(DataLock::take(&settings.data_dir)?) } else { None };
    let (opened, links) = come_together(settings, place, from_start)?;
    let pulse = links.pulse.clone();
    let ended = run_opened(settings, place, opened, links);
    match &ended {
        Ok(()) => pulse.bye(),
        Err(failure) => pulse.fail(failure),
    }
    ended
}

/// Opens everything, with the other processes if there are any.
fn come_together(settings: &Settings, place: &Place, from_start: bool) -> Result<(Opened, Links), Failure> {
    let rules = engine::rules(&settings.time);
    if place.processes() == 1 {
        return Ok((open::open(settings, &rules, place, from_start)?, Links::none()));
    }
    let patience = Duration::from_millis(settings.cluster.patience_ms);
    let listener = Listener::bind(place, cluster::key(settings)?, patience)?;
    if place.leads() {
        let opened = open::open(settings, &rules, place, from_start)?;
        let links = listener.lead(&opened.plan)?;
        return Ok((opened, links));
    }
    let (plan, links) = listener.follow()?;
    let opened = open::follow(settings, &rules, place, plan).inspect_err(|failure| links.pulse.fail(failure))?;
    Ok((opened, links))
}

fn run_opened(settings: &Settings, place: &Place, opened: Opened, links: Links) -> Result<(), Failure> {
    let (days, cold) = (Arc::clone(&opened.days), opened.cold.clone());
    let shelf = Arc::new(Shelf::new(place, settings.index.as_of_ms, days, cold));
    let beats = Heartbeats::start(place.workers);
    let facts = Arc::new(KeeperFacts::default());
    if let Some(resumed) = opened.plan.resumed {
        let frontier = opened.plan.frontier;
        facts.set_last(CheckpointFacts { number: resumed.number, frontier, age_ms: 0, bytes: 0, duration_ms: 0 });
    }
    let dimensions = Dimensions::open(settings, place)?;
    let state = http_state(settings, &opened, &shelf, &beats, &facts, &dimensions)?;
    let (mailbox, errors, stopped) = (Mailbox::default(), Arc::new(FirstError::default()), Arc::new(Notify::new()));
    let (words, inbox) = crossbeam_channel::unbounded();
    let Opened { input, checkpoints, mut sink, letters, plan, state: counts, chain, acknowledged, .. } = opened;
    if let Some(sink) = &mut sink {
        sink.label_by(Arc::clone(&dimensions.names) as _);
    }
    let rolls_up = sink.as_ref().is_some_and(|sink| sink.wants_rollups());
    let again = settings.clone();
    let lead = letters.map(|letters| Lead {
        identity: plan.identity.clone(),
        letters,
        letters_reach: ports::letters_reach(settings),
        chain: Chain::new(chain, Box::new(move || ports::checkpoints(&again))),
        interval: Duration::from_millis(settings.checkpoint.interval_ms),
        keep: settings.checkpoint.keep.get(),
        acknowledged,
        writes_for_all: ports::one_writes_for_all(settings),
        workers: place.workers,
        input: Arc::clone(&input),
    });
    let keeper = Keeper {
        inbox,
        mailbox: mailbox.clone(),
        checkpoints,
        checkpoints_reach: ports::checkpoints_reach(settings),
        sink,
        sink_reach: ports::sink_reach(settings),
        sink_name: ports::sink_name(settings),
        process: place.process,
        generation: plan.identity.generation,
        published: plan.published.clone(),
        write_from: plan.write_from,
        lead,
        stopped: Arc::clone(&stopped),
        facts: Arc::clone(&facts),
        rules: plan.rules,
    };
    let crew = Crew {
        place: place.clone(),
        start: Arc::new(plan.start(counts)),
        // Longer than what may be asked, so that no announced frontier is merged while it is asked for.
        retain_ms: settings.index.as_of_ms + plan.rules.alignment_ms,
        functions: settings.functions.clone(),
        rolls_up,
        cooling: cooling(settings),
        unwritten_max: unwritten_max(settings, place),
        plan: Arc::new(plan),
        input: Arc::clone(&input),
        shelf: Arc::clone(&shelf),
        beats: Arc::clone(&beats),
        mailbox: mailbox.clone(),
        errors: Arc::clone(&errors),
        words,
        facts: Arc::clone(&facts),
        dimensions,
    };
    // Dropped, they would be joined: where this process fails, that waits for the other processes, which have yet to be told.
    let workers = ManuallyDrop::new(crew.start(links)?);
    beats.watch(&facts);
    let joined = mailbox.clone();
    // One process tells all workers, so only the first one needs to.
    input.watch(Box::new(move |partition| joined.tell(Message::Joined(partition))));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("starting the HTTP threads")
        .or_exit(Exit::Internal)?;
    let ending = Ending { mailbox, stopped, errors: Arc::clone(&errors) };
    let ended = runtime.block_on(serve(place.http(settings.http.listen), state, keeper, &ending));
    if ended.is_err() {
        // The workers would wait for what never comes; the next start goes on from the last checkpoint.
        errors.stop();
        if 1 < place.processes() {
            // Nor is anything waited for that was passed on to another process.
            runtime.shutdown_background();
            return ended.map(drop);
        }
    }
    for joined in ManuallyDrop::into_inner(workers).join() {
        joined.map_err(|error| Failure::new(Exit::Internal, anyhow!(error)))?;
    }
    shelf.close();
    input.close();
    match ended? {
        Stopped::Settled => tracing::info!("stopped with a last checkpoint"),
        Stopped::InTime => {
            tracing::warn!("stopped before all was written: the next start reads and writes again what is missing");
        }
    }
    Ok(())
}

/// When windows leave memory: where every process can read them back, with all that is kept of them. Where there are rows of hours
/// and days, these are made anew from the minutes of a checkpoint, so a day leaves as a whole.
fn cooling(settings: &Settings) -> Option<Cooling> {
    let step = match settings.sink {
        SinkKind::None => return None,
        SinkKind::Store => Width::Minute,
        SinkKind::Cassandra => Width::Day,
    };
    Some(Cooling { hot_ms: settings.index.hot_ms, step })
}

/// Changed windows that each worker may hold back for the sink.
fn unwritten_max(settings: &Settings, place: &Place) -> usize {
    match settings.sink {
        SinkKind::None => usize::MAX,
        _ => settings.unwritten_max.div_ceil(place.workers),
    }
}

fn http_state(
    settings: &Settings,
    opened: &Opened,
    shelf: &Arc<Shelf>,
    beats: &Arc<Heartbeats>,
    facts: &Arc<KeeperFacts>,
    dimensions: &Dimensions,
) -> Result<Arc<http::State>, Failure> {
    let refusals = Refusals::default();
    let health = Health {
        beats: Arc::clone(beats),
        keeper: Arc::clone(facts),
        shelf: Arc::clone(shelf),
        input: Arc::clone(&opened.input),
        refusals: refusals.clone(),
        generation: opened.plan.identity.generation,
    };
    let token = settings.http.token_file.as_deref().map(token::read).transpose()?;
    let asked = http::Asked {
        queries: Arc::clone(shelf) as _,
        ingest: Arc::new(Door { log: opened.input.door(), refusals }),
        check: Arc::new(JsonCheck),
        dimensions: Arc::clone(&dimensions.door),
        dimension_check: Arc::new(NameCheck),
        names: Arc::clone(&dimensions.names),
        status: Arc::new(health),
        functions: settings.functions.clone(),
        token_sha256: token.map(|token| Sha256::digest(token).into()),
        limits: limits(&settings.http),
    };
    Ok(http::State::new(asked, Registry::default()))
}

fn limits(settings: &HttpSettings) -> http::Limits {
    let limits = &settings.limits;
    http::Limits {
        connections: descriptors::for_connections(limits.connections.get()),
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

/// What it takes to end a process.
struct Ending {
    mailbox: Mailbox,
    /// Another process was told to stop.
    stopped: Arc<Notify>,
    errors: Arc<FirstError>,
}

/// Serves until a signal, here or in another process; then stops the job and waits for its last checkpoint.
async fn serve(
    listen: std::net::SocketAddr,
    state: Arc<http::State>,
    keeper: Keeper,
    ending: &Ending,
) -> Result<Stopped, Failure> {
    let mut terminate = signal(SignalKind::terminate()).context("listening for SIGTERM").or_exit(Exit::Internal)?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listening for SIGINT").or_exit(Exit::Internal)?;
    let (close, closed) = oneshot::channel::<()>();
    let (address, served) = http::serve(listen, state, async move {
        // A dropped sender closes the door as well.
        let _ = closed.await;
    })
    .map_err(|error| Failure::new(if error.is_in_use() { Exit::OtherOwner } else { Exit::Failed }, error))?;
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
    let signalled = tokio::select! {
        _ = terminate.recv() => true,
        _ = interrupt.recv() => true,
        () = ending.stopped.notified() => false,
        ended = &mut ended => return keeper_ended(ended, &ending.errors),
        failure = failed(&ending.errors) => return Err(failure),
    };
    let deadline = Instant::now() + STOP_WITHIN;
    tracing::info!("stopping: taking a last checkpoint");
    // The door first: nothing is acknowledged any more that would only be read at the next start.
    let _ = close.send(());
    served
        .await
        .context("the HTTP threads ended")
        .or_exit(Exit::Internal)?
        .context("serving HTTP")
        .or_exit(Exit::Internal)?;
    ending.mailbox.tell(Message::Stop);
    // Where another process was told first, the signal that this one is sent as well is not a second one.
    let second_signal = async {
        if !signalled {
            terminate.recv().await;
        }
        terminate.recv().await
    };
    tokio::select! {
        ended = &mut ended => keeper_ended(ended, &ending.errors),
        failure = failed(&ending.errors) => Err(failure),
        () = tokio::time::sleep_until(deadline.into()) => {
            ending.mailbox.tell(Message::End);
            Ok(Stopped::InTime)
        }
        _ = second_signal => Err(Failure::new(Exit::Failed, anyhow!("stopped by a second signal, without a last checkpoint"))),
    }
}

fn keeper_ended(
    ended: Result<Result<(), Failure>, oneshot::error::RecvError>,
    errors: &FirstError,
) -> Result<Stopped, Failure> {
    match (errors.failure(), ended) {
        (Some(failure), _) => Err(failure),
        (None, Ok(ended)) => ended.map(|()| Stopped::Settled),
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
