//! What the workers of a job tell each other beside the data: where each partition stands, and how checkpoints go.
//!
//! A dataflow of its own, whose messages all travel at one time and reach every worker: a drained partition's capability
//! would pin the very frontier that it is to follow, so this can't ride on the frontier of the data.

use std::{
    cell::RefCell,
    collections::{BTreeSet, VecDeque},
    rc::Rc,
    sync::{Arc, Mutex},
};

use serde::{Deserialize, Serialize};
use timely::{
    container::CapacityContainerBuilder,
    dataflow::{
        channels::pact::{Exchange, Pipeline},
        operators::{
            generic::{operator::Operator, operator::source},
            vec::Map,
        },
    },
    scheduling::{Activator, SyncActivator},
    worker::Worker,
};

use crate::{
    announce::Partitions,
    board::{Board, Standing},
    checkpoint::coordinator::{Coordinator, Order, StoredPart},
    port::PartitionId,
    rules::Rules,
    time::{EventTime, Minute},
};

/// A message to all workers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Message {
    /// Where a partition stands.
    Standing(PartitionId, Standing),
    /// From outside: a checkpoint is due.
    Due,
    /// From the coordinator.
    Order(Order),
    /// A worker holds, at its frontier.
    Held {
        /// Of which checkpoint.
        number: u64,
        /// Which worker.
        worker: usize,
        /// Where it holds.
        frontier: EventTime,
    },
    /// From outside: a worker's part is durable.
    Written {
        /// Of which checkpoint.
        number: u64,
        /// Which worker's.
        worker: usize,
        /// Which part.
        part: StoredPart,
    },
    /// From outside: the manifest is durable, so rows may be written.
    Committed {
        /// Of which checkpoint.
        number: u64,
    },
    /// From outside: all that a process writes for a committed checkpoint is acknowledged.
    Acknowledged {
        /// Of which checkpoint.
        number: u64,
        /// Which process.
        process: usize,
    },
    /// A worker has as many unwritten cells as it may, or no longer: meanwhile nobody reads.
    Full {
        /// Which worker.
        worker: usize,
        /// Whether it has.
        is_full: bool,
    },
    /// From outside: the log has a partition more.
    Joined(PartitionId),
    /// Something other than a record travels at this time: time is to step past it, even where all is quiet.
    Used(EventTime),
    /// From outside: read no more, make everything that was read visible, take a last checkpoint.
    Stop,
    /// From outside: let go of everything and end.
    End,
}

/// Whether this worker may apply records, and up to where.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Gate {
    /// As far as the frontier goes.
    Open,
    /// No further than it has.
    Held,
    /// To this frontier, where the cut is due.
    CutAt {
        /// Of which checkpoint.
        number: u64,
        /// Where.
        frontier: EventTime,
        /// As in [`Order::Cut`].
        first: Minute,
    },
}

/// What holds at a frontier, beside the counts.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// The newest announced frontier.
    pub frontier: EventTime,
    /// What was announced to be final at it.
    pub watermark: EventTime,
    /// All partitions at it.
    pub partitions: Partitions,
    /// The first window that is in memory at it.
    pub hot_from: Minute,
}

/// A checkpoint, and where it was cut.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub struct Cut {
    /// Its number.
    pub number: u64,
    /// Its frontier.
    pub frontier: EventTime,
    /// What is final by it.
    pub watermark: EventTime,
}

/// What the operators of one worker share.
pub struct Shared {
    /// Where the partitions stand.
    pub board: Board,
    /// Whether records may be applied.
    pub gate: Gate,
    /// The frontier below which this worker has applied everything.
    pub applied: EventTime,
    /// The newest checkpoint that this worker was cut for.
    pub cut: Cut,
    /// The newest that is known to be committed.
    pub durable: Cut,
    /// Workers with as many unwritten cells as they may have.
    pub full: BTreeSet<usize>,
    /// Partitions that were added while running, in the order in which that was heard.
    pub joined: Vec<PartitionId>,
    /// Nothing is to be read any more.
    pub stopping: bool,
    /// Everything is to end.
    pub ending: bool,
    /// The first window that is in memory, behind the newest cut.
    pub hot_from: Minute,
    /// The facts at the newest announced frontier.
    pub facts: Facts,
    outbox: VecDeque<Message>,
    control: Option<Activator>,
    sleepers: Vec<Activator>,
    followers: Vec<Activator>,
}

impl Shared {
    /// Whether records may be read.
    pub fn may_read(&self) -> bool {
        !self.stopping && self.full.is_empty()
    }

    /// Whether nothing is read any more and all that was read has been announced.
    pub fn is_quiet(&self, rules: &Rules) -> bool {
        self.stopping && self.board.all_drained() && self.board.drained_pace(rules.tick_ms) <= self.facts.frontier
    }
}

/// A worker's handle on what its operators share.
#[derive(Clone)]
pub struct Hub(Rc<RefCell<Shared>>);

impl Hub {
    /// A hub for a job that starts with these facts.
    pub fn new(board: Board, facts: Facts) -> Self {
        Self(Rc::new(RefCell::new(Shared {
            board,
            gate: Gate::Open,
            applied: facts.frontier,
            cut: Cut::default(),
            durable: Cut { number: 0, frontier: facts.frontier, watermark: facts.watermark },
            hot_from: facts.hot_from,
            facts,
            full: BTreeSet::new(),
            joined: Vec::new(),
            stopping: false,
            ending: false,
            outbox: VecDeque::new(),
            control: None,
            sleepers: Vec::new(),
            followers: Vec::new(),
        })))
    }

    /// Looks at what is shared, or changes it. Not to be nested.
    pub fn with<R>(&self, look: impl FnOnce(&mut Shared) -> R) -> R {
        look(&mut self.0.borrow_mut())
    }

    /// Tells all workers, this one included.
    pub fn tell(&self, message: Message) {
        let mut shared = self.0.borrow_mut();
        shared.outbox.push_back(message);
        if let Some(control) = &shared.control {
            control.activate();
        }
    }

    /// Notes where a partition of this worker stands, and tells the others if it is news.
    pub fn stand(&self, partition: PartitionId, standing: Standing) {
        let news = self.with(|shared| shared.board.set(partition, standing));
        if news {
            self.tell(Message::Standing(partition, standing));
        }
    }

    /// Schedules this operator whenever a message changes what is shared.
    pub fn wake_on_change(&self, sleeper: Activator) {
        self.with(|shared| shared.sleepers.push(sleeper));
    }

    /// Schedules this operator at each announced frontier.
    pub fn wake_on_frontier(&self, follower: Activator) {
        self.with(|shared| shared.followers.push(follower));
    }

    /// Schedules all that follow the announced frontier.
    pub fn wake_followers(&self) {
        self.with(|shared| shared.followers.iter().for_each(Activator::activate));
    }

    /// Schedules all that asked for it.
    pub fn wake_all(&self) {
        self.with(|shared| shared.sleepers.iter().chain(&shared.control).for_each(Activator::activate));
    }
}

/// Lets threads outside the workers speak to a job.
pub struct Mailbox<M = Message>(Arc<Mutex<Post<M>>>);

struct Post<M> {
    messages: VecDeque<M>,
    activator: Option<SyncActivator>,
}

impl<M> Default for Mailbox<M> {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Post { messages: VecDeque::new(), activator: None })))
    }
}

impl<M> Clone for Mailbox<M> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<M> Mailbox<M> {
    /// Puts a message in.
    pub fn tell(&self, message: M) {
        let mut post = self.0.lock().expect("nobody panics while holding the mailbox");
        post.messages.push_back(message);
        if let Some(activator) = &post.activator {
            // An error means that the worker has ended: then there is nobody to tell.
            let _ = activator.activate();
        }
    }

    /// Takes what was told and nobody has heard yet.
    pub fn take(&self) -> VecDeque<M> {
        std::mem::take(&mut self.0.lock().expect("nobody panics while holding the mailbox").messages)
    }

    pub(crate) fn attach(&self, activator: SyncActivator) {
        self.0.lock().expect("nobody panics while holding the mailbox").activator = Some(activator);
    }
}

/// What a job tells the outside: the first two come from the coordinator, on worker 0; the others reach every ear.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// All parts of a checkpoint are durable: write the manifest, then say [`Message::Committed`].
    Commit {
        /// Of which checkpoint.
        number: u64,
        /// Its parts, by worker.
        parts: Vec<StoredPart>,
    },
    /// A checkpoint was due, and nothing had changed.
    Unchanged,
    /// A checkpoint is committed: write its rows and letters, then say [`Message::Acknowledged`].
    Committed {
        /// Of which checkpoint.
        number: u64,
    },
    /// Every process has acknowledged the checkpoint.
    Settled {
        /// Which one.
        number: u64,
    },
    /// Too much waits for the sink: a checkpoint would let it go. Nothing is read until there is room.
    Full,
    /// A checkpoint has taken it.
    Room,
    /// The job was told to stop.
    Stop,
    /// The job was told to end.
    End,
}

/// Told of outcomes. Must not block.
pub type Ear = Box<dyn FnMut(Outcome)>;

/// Builds the control dataflow: with the coordinator on worker 0; with mailbox and ear on one worker of each process.
pub fn control(
    worker: &mut Worker,
    hub: &Hub,
    mailbox: Option<Mailbox>,
    mut coordinator: Option<Coordinator>,
    mut ear: Option<Ear>,
) {
    let (index, peers) = (worker.index(), worker.peers());
    let hub = hub.clone();
    worker.dataflow_named::<u64, _, _>("Control", |scope| {
        let sender = hub.clone();
        let said = source::<_, CapacityContainerBuilder<Vec<Message>>, _, _>(scope, "Say", move |capability, info| {
            sender.with(|shared| shared.control = Some(scope.activator_for(info.address.clone())));
            if let Some(mailbox) = &mailbox {
                mailbox.attach(scope.worker().sync_activator_for(info.address.to_vec()));
                // What was said before there was anybody to listen.
                scope.activator_for(info.address.clone()).activate();
            }
            let mut capability = Some(capability);
            move |output| {
                let mut messages = sender.with(|shared| std::mem::take(&mut shared.outbox));
                messages.extend(mailbox.iter().flat_map(Mailbox::take));
                if let Some(capability) = &capability {
                    output.session(capability).give_iterator(messages.into_iter());
                }
                if sender.with(|shared| shared.ending || shared.board.all_ended()) {
                    capability = None;
                }
            }
        });
        let to_all = said.flat_map(move |message| (0..peers as u64).map(move |to| (to, message.clone())));
        let arrived = Exchange::new(|(to, _): &(u64, Message)| *to);
        let heard = to_all.unary::<CapacityContainerBuilder<Vec<Message>>, _, _, _>(arrived, "Hear", move |_, _| {
            move |input, _output| {
                let mut heard = false;
                input.for_each(|_, messages| {
                    for (_, message) in messages.drain(..) {
                        heard = true;
                        hear(&hub, index, message, coordinator.as_mut(), &mut |outcome| {
                            ear.iter_mut().for_each(|tell| tell(outcome.clone()));
                        });
                    }
                });
                if heard {
                    hub.wake_all();
                }
            }
        });
        heard.sink(Pipeline, "Heard", |_| {});
    });
}

fn hear(
    hub: &Hub,
    worker: usize,
    message: Message,
    coordinator: Option<&mut Coordinator>,
    tell: &mut dyn FnMut(Outcome),
) {
    match message {
        Message::Standing(partition, standing) => {
            hub.with(|shared| shared.board.set(partition, standing));
        }
        Message::Full { worker, is_full } => {
            hub.with(|shared| if is_full { shared.full.insert(worker) } else { shared.full.remove(&worker) });
            let any = hub.with(|shared| !shared.full.is_empty());
            match (is_full, any) {
                (true, _) => tell(Outcome::Full),
                (false, true) => {}
                (false, false) => tell(Outcome::Room),
            }
        }
        Message::Joined(partition) => hub.with(|shared| shared.joined.push(partition)),
        Message::Used(time) => hub.with(|shared| shared.board.note_use(time)),
        Message::Committed { number } => {
            hub.with(|shared| {
                if shared.cut.number == number {
                    shared.durable = shared.cut;
                }
            });
            tell(Outcome::Committed { number });
        }
        Message::Stop => {
            hub.with(|shared| shared.stopping = true);
            tell(Outcome::Stop);
        }
        Message::End => {
            hub.with(|shared| shared.ending = true);
            tell(Outcome::End);
        }
        Message::Order(order) => obey(hub, worker, order),
        about_checkpoints => {
            if let Some(coordinator) = coordinator {
                coordinate(hub, coordinator, tell, about_checkpoints);
            }
        }
    }
}

fn obey(hub: &Hub, worker: usize, order: Order) {
    match order {
        Order::Hold { number } => {
            let frontier = hub.with(|shared| {
                shared.gate = Gate::Held;
                shared.applied
            });
            hub.tell(Message::Held { number, worker, frontier });
        }
        Order::Cut { number, frontier, first } => {
            hub.with(|shared| shared.gate = Gate::CutAt { number, frontier, first });
        }
        Order::Release => hub.with(|shared| shared.gate = Gate::Open),
    }
}

fn coordinate(hub: &Hub, coordinator: &mut Coordinator, tell: &mut dyn FnMut(Outcome), message: Message) {
    let order = match message {
        Message::Due => coordinator.due(),
        Message::Held { number, worker, frontier } => coordinator.held(number, worker, frontier),
        Message::Written { number, worker, part } => {
            if let Some(parts) = coordinator.written(number, worker, part) {
                tell(Outcome::Commit { number, parts });
            }
            None
        }
        Message::Acknowledged { number, process } => {
            if coordinator.acknowledged(number, process) {
                tell(Outcome::Settled { number });
            }
            None
        }
        _ => None,
    };
    if let Some(order) = order {
        if order == Order::Release {
            tell(Outcome::Unchanged);
        }
        hub.tell(Message::Order(order));
    }
}
