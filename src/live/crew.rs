//! The workers of one process: what each is given to do.

use std::{rc::Rc, sync::Arc, thread};

use anyhow::{Context as _, anyhow};
use connectors::json::JsonEvents;
use crossbeam_channel::Sender;
use dataflows::{
    channels::ChannelDesk,
    control::{Ear, Mailbox, Outcome},
    dimensions::{Change, Dimensions, TellChanges},
    functions::Functions,
    graph::{self, Job, Serve, Start},
    index::IndexDesk,
    lane::{Ended, Format},
    port::PartitionId,
    tally::Cooling,
};
use timely::{
    WorkerConfig,
    communication::{
        WorkerGuards,
        allocator::{AllocatorBuilder, ProcessBuilder, zero_copy::initialize::initialize_networking_from_sockets},
        initialize::Hooks,
    },
    worker::Worker,
};

use super::{
    cluster::{Links, Place},
    dimensions::Dimensions as Given,
    health::Heartbeats,
    input::Input,
    keeper::{KeeperFacts, Word},
    plan::Plan,
    shelf::Shelf,
};
use crate::{
    engine::{self, FirstError, Handout, Monotonic, SendReader},
    exit::{Exit, Failure, OrExit as _},
};

/// Partitions that are opened at the same time: each takes threads and connections.
const OPENED_AT_ONCE: usize = 16;

/// What the workers of a process share.
pub struct Crew {
    pub place: Place,
    pub plan: Arc<Plan>,
    pub start: Arc<Start>,
    pub retain_ms: u64,
    /// What is kept beside the counts.
    pub functions: Functions,
    /// Whether the sink wants hours and days.
    pub rolls_up: bool,
    /// When windows leave memory.
    pub cooling: Option<Cooling>,
    /// Of each worker.
    pub unwritten_max: usize,
    pub input: Arc<dyn Input>,
    pub shelf: Arc<Shelf>,
    pub beats: Arc<Heartbeats>,
    pub mailbox: Mailbox,
    pub errors: Arc<FirstError>,
    pub words: Sender<Word>,
    pub facts: Arc<KeeperFacts>,
    pub dimensions: Given,
}

impl Crew {
    /// Starts the workers, each with its partitions.
    pub fn start(self, links: Links) -> Result<WorkerGuards<()>, Failure> {
        let handout = Handout::new(self.readers()?);
        let (builders, network) = allocators(&self.place, links)?;
        timely::execute::execute_from(builders, network, worker_config(), move |worker| {
            let local = worker.index() - self.place.first_worker();
            graph::build(worker, self.job(worker, &handout));
            engine::drive(worker, &self.errors, || self.beats.beat(local));
        })
        .map_err(|error| Failure::new(Exit::Internal, anyhow!(error)))
    }

    /// This process's partitions, with the worker that reads each. Opened side by side: a broker is asked for each.
    fn readers(&self) -> Result<Vec<(usize, SendReader)>, Failure> {
        let ours = self.place.first_worker()..self.place.first_worker() + self.place.workers;
        let ours: Vec<_> = self.plan.owners.iter().filter(|(_, owner)| ours.contains(owner)).collect();
        let mut readers = Vec::new();
        for some in ours.chunks(OPENED_AT_ONCE) {
            let opened: Vec<_> = thread::scope(|scope| {
                let open = |(partition, owner): &(&PartitionId, &usize)| {
                    let (partition, owner, at) = (**partition, **owner, &self.start.partitions.0[*partition]);
                    scope.spawn(move || Ok((owner, self.input.reader(partition, at).map_err(engine::source_failure)?)))
                };
                let opening: Vec<_> = some.iter().map(open).collect();
                opening.into_iter().map(|opening| opening.join().expect("a panic aborts the process")).collect()
            });
            readers.extend(opened.into_iter().collect::<Result<Vec<_>, Failure>>()?);
        }
        Ok(readers)
    }

    fn job(&self, worker: &Worker, handout: &Handout) -> Job<JsonEvents> {
        let index = worker.index();
        let first = index == self.place.first_worker();
        let (errors, shelf) = (Arc::clone(&self.errors), Arc::clone(&self.shelf));
        let (cuts, outcomes, quiet) = (self.words.clone(), self.words.clone(), self.words.clone());
        // An error means that the keeper has ended, and the process with it.
        let tell = |words: &Sender<Word>, word| drop(words.send(word));
        let (replies, tops, facts) = (Arc::clone(&self.shelf), Arc::clone(&self.shelf), Arc::clone(&self.facts));
        let (channels, published) = (Arc::clone(&self.shelf), Arc::clone(&self.shelf));
        let (plan, input) = (Arc::clone(&self.plan), Arc::clone(&self.input));
        Job {
            format: Format { decode: JsonEvents, functions: self.functions.clone() },
            rules: self.plan.rules,
            key: self.plan.identity.key,
            start: Arc::clone(&self.start),
            readers: handout.take(index),
            join: Box::new(move |partition| {
                (plan.owner_of_new(partition) == Some(index)).then(|| input.new_reader(partition))
            }),
            ended: Ended::ForNow,
            timer: Rc::new(Monotonic::start()),
            on_error: Box::new(move |error| errors.set(error)),
            on_quiet: (index == 0).then(|| Box::new(move || tell(&quiet, Word::Quiet)) as Box<dyn FnOnce()>),
            tell: Box::new(move |announcement| {
                if first {
                    shelf.announce(announcement);
                }
            }),
            take_cut: Box::new(move |cut| tell(&cuts, Word::Cut(cut))),
            write_from: self.plan.write_from,
            rolls_up: self.rolls_up,
            cooling: self.cooling,
            unwritten_max: self.unwritten_max,
            take_all: None,
            serve: Some(Serve {
                retain_ms: self.retain_ms,
                index: IndexDesk {
                    snapshots: self.shelf.snapshots(index - self.place.first_worker()),
                    published: Box::new(move || published.settle()),
                    desk: first.then(|| self.shelf.desk()),
                    reply: Box::new(move |ticket, answer| replies.reply(ticket, answer)),
                },
                top_desk: first.then(|| self.shelf.top_desk()),
                top_reply: Box::new(move |ticket, answer| tops.top_reply(ticket, answer)),
                channels: ChannelDesk {
                    desk: first.then(|| self.shelf.channel_desk()),
                    reply: Box::new(move |ticket, answer| channels.channel_reply(ticket, answer)),
                },
                dimensions: self.dimensions(index == 0, first),
            }),
            processes: self.place.processes(),
            mailbox: first.then(|| self.mailbox.clone()),
            ear: first.then(|| {
                Box::new(move |outcome: Outcome| {
                    // At once: the keeper may hear of it only when it has written what it is at.
                    facts.heed(&outcome);
                    tell(&outcomes, Word::Outcome(outcome));
                }) as Ear
            }),
        }
    }

    /// What is known of videos and channels goes in on one worker of all, and is told on one of each process.
    fn dimensions(&self, is_given: bool, is_told: bool) -> Dimensions {
        let names = Arc::clone(&self.dimensions.names);
        let tell = move |_time, changes: &[Change]| names.apply(changes);
        Dimensions {
            given: is_given.then(|| {
                let known = &mut *self.dimensions.known.lock().expect("nobody panics while holding it");
                (std::mem::take(known), self.dimensions.mailbox.clone())
            }),
            tell: is_told.then(|| Box::new(tell) as TellChanges),
        }
    }
}

/// What timely sends through: within the process, and over the links to the others.
fn allocators(place: &Place, links: Links) -> Result<(Vec<AllocatorBuilder>, Box<dyn std::any::Any + Send>), Failure> {
    if place.processes() == 1 {
        return timely::CommunicationConfig::Process(place.workers)
            .try_build()
            .map_err(|error| Failure::new(Exit::Internal, anyhow!(error)));
    }
    let hooks = Hooks::default();
    let within = ProcessBuilder::new_typed_vector(place.workers, hooks.refill.clone(), hooks.spill.clone());
    let (builders, network) =
        initialize_networking_from_sockets(within, links.data, place.process, place.workers, hooks)
            .context("handing the links to timely")
            .or_exit(Exit::Internal)?;
    Ok((builders.into_iter().map(AllocatorBuilder::Tcp).collect(), Box::new(network)))
}

/// Workers that merge their index while idle.
fn worker_config() -> WorkerConfig {
    let mut config = WorkerConfig::default();
    let effort = differential_dataflow::Config::default().idle_merge_effort(Some(1_000));
    differential_dataflow::configure(&mut config, &effort);
    config
}
