//! Which faults come, to whom, and how long: drawn from the seed before anything runs, so that timing has no part in it.
//!
//! Kinds come in rounds: each once, shuffled. So none is long in coming, and a longer run with the same seed begins
//! like a shorter one.

use std::{fmt, time::Duration};

use rand::{RngExt as _, SeedableRng as _, seq::SliceRandom as _};
use rand_chacha::ChaCha8Rng;

/// How many processes, with how many workers each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    pub processes: u16,
    pub workers: u32,
}

const LAYOUTS: [Layout; 5] = [
    Layout { processes: 1, workers: 1 },
    Layout { processes: 1, workers: 4 },
    Layout { processes: 2, workers: 2 },
    Layout { processes: 3, workers: 1 },
    Layout { processes: 2, workers: 1 },
];

/// Something that happens to the processes at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blow {
    Kill { process: u16 },
    KillAll,
}

/// A server that the job needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Server {
    Kafka,
    Cassandra,
}

/// How a server is away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Away {
    /// Killed, and started again so much later.
    Killed,
    /// Stopped by a signal for so long.
    Frozen,
}

/// What a damaged part suffers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Harm {
    Flipped,
    Cut,
    Removed,
}

/// How the job ends before something else happens to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Terminated,
    SupervisorKilled,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    Strike(Blow),
    /// One process stops, and goes on: unless it was replaced meanwhile.
    Stop {
        process: u16,
        lasting: Duration,
    },
    StopAll {
        lasting: Duration,
    },
    KillSupervisor,
    /// One process stops, the others are killed, and it goes on when another start has long replaced all of them.
    Zombie {
        process: u16,
        lasting: Duration,
    },
    Layout(Layout),
    SecondSupervisor,
    Outage {
        server: Server,
        away: Away,
        lasting: Duration,
        meanwhile: Option<Blow>,
    },
    /// The newest checkpoints are damaged while the job is stopped: each in a part that no older one needs.
    Damage {
        end: End,
        newest: usize,
        harm: Harm,
        at: u32,
    },
    /// The checkpoints can't be written.
    Unwritable {
        lasting: Duration,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// Before the fault.
    pub pause: Duration,
    pub fault: Fault,
    /// Whether the next fault waits until the job has recovered.
    pub settled: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schedule {
    pub first: Layout,
    pub steps: Vec<Step>,
}

const KINDS: usize = 14;

impl Schedule {
    pub fn draw(seed: u64, count: usize) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let first = LAYOUTS[rng.random_range(0..LAYOUTS.len())];
        let (mut layout, mut steps, mut round) = (first, Vec::new(), Vec::new());
        while steps.len() < count {
            if round.is_empty() {
                round = (0..KINDS).collect();
                round.shuffle(&mut rng);
            }
            let fault = fault(&mut rng, round.pop().expect("it was filled"), layout);
            if let Fault::Layout(next) = fault {
                layout = next;
            }
            steps.push(Step { pause: between(&mut rng, 200, 4_000), fault, settled: rng.random_bool(0.75) });
        }
        Self { first, steps }
    }

    /// The same of faults alone that have such words in their description.
    pub fn draw_of(seed: u64, count: usize, words: &str) -> Self {
        // A kind comes once in each round.
        let Self { first, mut steps } = Self::draw(seed, count * KINDS);
        steps.retain(|step| step.fault.to_string().contains(words));
        steps.truncate(count);
        assert!(!steps.is_empty(), "no fault has {words:?} in its description");
        Self { first, steps }
    }
}

fn fault(rng: &mut ChaCha8Rng, kind: usize, layout: Layout) -> Fault {
    let process = rng.random_range(0..layout.processes);
    let lasting = between(rng, 1_000, 12_000);
    match kind {
        0 => Fault::Strike(Blow::Kill { process }),
        1 => Fault::Stop { process, lasting },
        2 => Fault::Strike(Blow::KillAll),
        // The first process would keep the folder's lock.
        3 if 1 < layout.processes => Fault::Zombie { process: rng.random_range(1..layout.processes), lasting },
        3 | 4 => Fault::StopAll { lasting },
        5 => Fault::KillSupervisor,
        6 => {
            let others: Vec<Layout> = LAYOUTS.into_iter().filter(|other| *other != layout).collect();
            Fault::Layout(others[rng.random_range(0..others.len())])
        }
        7 => Fault::SecondSupervisor,
        8 => outage(rng, layout, Server::Kafka, Away::Killed),
        9 => outage(rng, layout, Server::Kafka, Away::Frozen),
        10 => outage(rng, layout, Server::Cassandra, Away::Killed),
        11 => outage(rng, layout, Server::Cassandra, Away::Frozen),
        12 => Fault::Damage {
            end: if rng.random_bool(0.5) { End::Terminated } else { End::SupervisorKilled },
            newest: if rng.random_bool(0.3) { 2 } else { 1 },
            harm: [Harm::Flipped, Harm::Cut, Harm::Removed][rng.random_range(0..3)],
            at: rng.random(),
        },
        _ => Fault::Unwritable { lasting },
    }
}

fn outage(rng: &mut ChaCha8Rng, layout: Layout, server: Server, away: Away) -> Fault {
    let lasting = match away {
        // Its start takes long enough.
        Away::Killed => between(rng, 0, 3_000),
        Away::Frozen => between(rng, 1_000, 12_000),
    };
    let meanwhile = rng.random_bool(0.4).then(|| {
        if rng.random_bool(0.5) { Blow::KillAll } else { Blow::Kill { process: rng.random_range(0..layout.processes) } }
    });
    Fault::Outage { server, away, lasting, meanwhile }
}

fn between(rng: &mut ChaCha8Rng, least_ms: u64, most_ms: u64) -> Duration {
    Duration::from_millis(rng.random_range(least_ms..=most_ms))
}

impl fmt::Display for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} x {}", self.processes, self.workers)
    }
}

impl fmt::Display for Blow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Blow::Kill { process } => write!(f, "process {process} is killed"),
            Blow::KillAll => f.write_str("all processes are killed"),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Strike(blow) => blow.fmt(f),
            Fault::Stop { process, lasting } => write!(f, "process {process} stands still for {lasting:?}"),
            Fault::StopAll { lasting } => write!(f, "all processes stand still for {lasting:?}"),
            Fault::KillSupervisor => f.write_str("the supervisor is killed"),
            Fault::Zombie { process, lasting } => {
                write!(f, "process {process} stands still, is replaced, and goes on {lasting:?} later")
            }
            Fault::Layout(layout) => write!(f, "SIGTERM, and a start as {layout}"),
            Fault::SecondSupervisor => f.write_str("a second supervisor on the folder"),
            Fault::Outage { server, away, lasting, meanwhile } => {
                let how = if let Away::Killed = away { "killed" } else { "frozen" };
                write!(f, "{server:?} is {how} for {lasting:?}")?;
                meanwhile.map_or(Ok(()), |blow| write!(f, ", and meanwhile {blow}"))
            }
            Fault::Damage { end, newest, harm, .. } => {
                let end = if let End::Terminated = end { "SIGTERM" } else { "the supervisor is killed" };
                let harm = format!("{harm:?}").to_lowercase();
                write!(f, "{end}, and a part of the newest {newest} checkpoints is {harm}")
            }
            Fault::Unwritable { lasting } => write!(f, "checkpoints can't be written for {lasting:?}"),
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let then = if self.settled { "" } else { "; the next does not wait for the recovery" };
        write!(f, "after {:?}: {}{then}", self.pause, self.fault)
    }
}
