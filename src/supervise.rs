//! Starts the processes of a job on this machine, and all of them again when one ends that should not: timely has no
//! partial recovery, and the job goes on from its last checkpoint.

mod child;
mod hosts;
mod restart;

use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow};
use rustix::process::Signal;
use tokio::signal::unix::{SignalKind, signal};

pub use self::child::{end_with_supervisor, is_supervised};
use self::{
    child::{Child, End},
    restart::{Restarts, Verdict},
};
use crate::{
    cli::{ClusterArgs, Global},
    config::Settings,
    exit::{Exit, Failure, OrExit as _},
    live::{
        self,
        lock::{self, DataLock},
    },
};

/// How long the others have to notice that one is gone; then they are killed, as only that ends a stopped one.
const NOTICE: Duration = Duration::from_secs(3);

/// How long a stop may take: by contract 10 s in each process.
const STOP: Duration = Duration::from_secs(15);

/// Supervises until it is told to stop, or until starting again is of no use.
pub fn run(settings: &Settings, global: &Global, args: &ClusterArgs) -> Result<(), Failure> {
    lock::create(&settings.data_dir)?;
    // A second one would draw other ports into the hosts file under the processes of the first.
    let _lock = DataLock::take_supervisor(&settings.data_dir)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("starting the supervisor")
        .or_exit(Exit::Internal)?;
    runtime.block_on(supervise(settings, global, args))
}

async fn supervise(settings: &Settings, global: &Global, args: &ClusterArgs) -> Result<(), Failure> {
    let mut terminate = signal(SignalKind::terminate()).context("listening for SIGTERM").or_exit(Exit::Internal)?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listening for SIGINT").or_exit(Exit::Internal)?;
    let mut restarts = Restarts::default();
    let mut from_start = args.from_start;
    loop {
        let started = Instant::now();
        let mut group = Group::start(settings, global, args, from_start)?;
        // What is counted anew once is not to be counted anew after each crash.
        from_start = false;
        let told = tokio::select! {
            () = group.first_end() => false,
            _ = terminate.recv() => true,
            _ = interrupt.recv() => true,
        };
        if told {
            tracing::info!("stopping all processes");
            group.signal(Signal::TERM);
        }
        group.wait(if told { STOP } else { NOTICE }).await;
        group.kill().await;
        let ends = group.ends();
        match restarts.judge(&ends, started.elapsed(), || live::next_start(settings)) {
            Verdict::Done => return Ok(()),
            Verdict::Final(failure) => return Err(failure),
            Verdict::Again { reason, .. } if told => {
                return Err(Failure::new(Exit::Failed, anyhow!("{reason} while stopping")));
            }
            Verdict::Again { reason, wait } => {
                tracing::warn!(?wait, "{reason}: starting all processes again");
                tokio::select! {
                    () = tokio::time::sleep(wait) => {}
                    _ = terminate.recv() => return Ok(()),
                    _ = interrupt.recv() => return Ok(()),
                }
            }
        }
    }
}

/// The processes of one start.
struct Group(Vec<Child>);

impl Group {
    fn start(settings: &Settings, global: &Global, args: &ClusterArgs, from_start: bool) -> Result<Self, Failure> {
        let hosts = hosts::write(&settings.data_dir, args.processes)?;
        let start = |process| Child::start(process, &hosts, global, args, from_start);
        (0..args.processes).map(start).collect::<Result<_, _>>().map(Self)
    }

    /// Ready when any of them has ended.
    async fn first_end(&mut self) {
        let ends = self.0.iter_mut().map(|child| Box::pin(child.ended()));
        futures_util::future::select_all(ends).await;
    }

    /// Waits until all have ended, so long.
    async fn wait(&mut self, limit: Duration) {
        let all = futures_util::future::join_all(self.0.iter_mut().map(Child::ended));
        // Who has not ended by then is killed.
        let _ = tokio::time::timeout(limit, all).await;
    }

    fn signal(&self, signal: Signal) {
        self.0.iter().for_each(|child| child.signal(signal));
    }

    async fn kill(&mut self) {
        for child in &mut self.0 {
            child.kill().await;
        }
    }

    fn ends(self) -> Vec<End> {
        self.0.into_iter().map(Child::end).collect()
    }
}
