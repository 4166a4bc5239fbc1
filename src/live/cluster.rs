//! Several processes of one job: who is who, and how they come together.
//!
//! The first process plans the start. Each other one connects to it, proves the cluster's secret and is given the plan; then
//! all connect to each other for the dataflow's data. A process that dies, falls silent or fails ends all of them:
//! timely has no partial recovery, so the job starts again from its last checkpoint.

mod handshake;
mod hosts;
mod key;
mod links;
mod lost;
mod pending;
mod pulse;

use std::{net::SocketAddr, path::Path};

pub use self::{
    key::{Key, key},
    links::{Links, Listener},
    lost::{end_after_lost_link, is_lost_link},
    pulse::Pulse,
};
use crate::exit::Failure;

/// Which process of which this is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// From 0.
    pub process: usize,
    /// Worker threads in each process.
    pub workers: usize,
    /// Where each process listens for the others, `host:port`; empty for a process alone.
    hosts: Vec<String>,
}

impl Place {
    /// The only process.
    pub fn alone(workers: usize) -> Self {
        Self { process: 0, workers, hosts: Vec::new() }
    }

    /// One of the processes that a file names.
    pub fn among(process: usize, workers: usize, hosts: &Path) -> Result<Self, Failure> {
        Ok(Self { process, workers, hosts: hosts::read(hosts, process)? })
    }

    /// Whether this is the first process.
    pub fn leads(&self) -> bool {
        self.process == 0
    }

    /// How many there are.
    pub fn processes(&self) -> usize {
        self.hosts.len().max(1)
    }

    /// The first of this process's workers.
    pub fn first_worker(&self) -> usize {
        self.process * self.workers
    }

    /// Where the first process serves HTTP, when this one was told to serve on `listen`.
    pub fn first_http(&self, listen: SocketAddr) -> String {
        let host = self.hosts.first().and_then(|first| first.rsplit_once(':')).map(|(host, _)| host);
        host.map_or_else(|| listen.to_string(), |host| format!("{host}:{}", listen.port()))
    }

    /// Where this process serves HTTP: the first on `listen`, the next on the port after it.
    pub fn http(&self, listen: SocketAddr) -> SocketAddr {
        let port = match listen.port() {
            0 => 0,
            port => port.saturating_add(u16::try_from(self.process).unwrap_or(u16::MAX)),
        };
        SocketAddr::new(listen.ip(), port)
    }
}
