//! How the processes connect: sockets of our own, opened with timeouts and proved before timely gets them.

use std::{
    io::{self, Read as _, Write as _},
    net::{TcpListener, TcpStream, ToSocketAddrs as _},
    sync::{Arc, mpsc},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, anyhow};
use hmac::Mac as _;

use super::{
    Key, Place, Pulse,
    handshake::{self, Hello, Proved, Purpose, Timed},
    pending::Pending,
};
use crate::{
    exit::{Exit, Failure, OrExit as _},
    live::plan::Plan,
    supervise,
};

/// For a whole handshake.
const HANDSHAKE: Duration = Duration::from_secs(5);

/// Between two tries to reach another process.
const RETRY: Duration = Duration::from_millis(100);

/// A longer plan is not read, bytes.
const PLAN_BYTES_MAX: u32 = 256 << 20;

/// Connected to every other process.
pub struct Links {
    /// By process; none to this one.
    pub data: Vec<Option<TcpStream>>,
    pub pulse: Pulse,
}

impl Links {
    /// Of a process alone.
    pub fn none() -> Self {
        Self { data: vec![None], pulse: Pulse::default() }
    }
}

/// A process's own address, bound.
pub struct Listener {
    listener: TcpListener,
    place: Place,
    key: Key,
    patience: Duration,
}

impl Listener {
    /// Binds the address that the hosts file gives to this process.
    pub fn bind(place: &Place, key: Key, patience: Duration) -> Result<Self, Failure> {
        let address = &place.hosts[place.process];
        let listener = TcpListener::bind(address).with_context(|| format!("listening on {address}"));
        let listener = listener.map_err(|error| {
            let in_use =
                error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::AddrInUse);
            // A supervisor draws another address for the next start.
            let is_final = in_use && !supervise::is_supervised();
            Failure::new(if is_final { Exit::OtherOwner } else { Exit::Failed }, error)
        })?;
        Ok(Self { listener, place: place.clone(), key, patience })
    }

    /// In the first process: gives the plan to all others and connects to them.
    pub fn lead(self, plan: &Plan) -> Result<Links, Failure> {
        let json = Arc::new(serde_json::to_vec(plan).context("writing the plan down").or_exit(Exit::Internal)?);
        let wanted = Wanted { generation: plan.identity.generation, history: plan.identity.history };
        let deadline = Instant::now() + self.patience;
        let key = self.key.clone();
        let calls = self.accept(wanted, move |proved, stream| match proved.hello.purpose {
            Purpose::Pulse => send_plan(&key, &proved, stream, &json),
            Purpose::Data => Ok(()),
        })?;
        let mut links = Gathered::new(self.place.processes());
        let others = 1..self.place.processes();
        links.gather(&calls, deadline, |links| missing(&links.pulses, others.clone()))?;
        links.gather(&calls, deadline, |links| missing(&links.data, others.clone()))?;
        links.finish()
    }

    /// In all others: gets the plan from the first and connects to all.
    pub fn follow(self) -> Result<(Plan, Links), Failure> {
        let deadline = Instant::now() + self.patience;
        let mut links = Gathered::new(self.place.processes());
        let (plan, pulse) = self.until(deadline, 0, || {
            let (proved, stream) = self.call(0, Purpose::Pulse, Wanted::default())?;
            Ok((receive_plan(&self.key, &proved, &stream)?, stream))
        })?;
        links.pulses[0] = Some(pulse);
        let wanted = Wanted { generation: plan.identity.generation, history: plan.identity.history };
        let calls = self.accept(wanted, |_, _| Ok(()))?;
        for process in 0..self.place.process {
            let (_, stream) = self.until(deadline, process, || self.call(process, Purpose::Data, wanted))?;
            links.data[process] = Some(stream);
        }
        let later = self.place.process + 1..self.place.processes();
        links.gather(&calls, deadline, |links| missing(&links.data, later.clone()))?;
        Ok((plan, links.finish()?))
    }

    fn call(&self, to: usize, purpose: Purpose, wanted: Wanted) -> io::Result<(Proved, TcpStream)> {
        let addresses = self.place.hosts[to].to_socket_addrs()?;
        let mut last = io::Error::new(io::ErrorKind::NotFound, "it has no address");
        for address in addresses {
            match TcpStream::connect_timeout(&address, HANDSHAKE) {
                Ok(stream) => {
                    let hello = Hello {
                        from: self.place.process as u16,
                        to: to as u16,
                        processes: self.place.processes() as u16,
                        purpose,
                        generation: wanted.generation,
                        history: wanted.history,
                    };
                    let proved = handshake::call(&mut Timed::new(&stream, HANDSHAKE), &self.key, hello)?;
                    return Ok((proved, stream));
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// Tries again until the deadline.
    fn until<T>(
        &self,
        deadline: Instant,
        process: usize,
        mut attempt: impl FnMut() -> io::Result<T>,
    ) -> Result<T, Failure> {
        let mut refused = None;
        loop {
            match attempt() {
                Ok(done) => return Ok(done),
                Err(error) if deadline <= Instant::now() => {
                    let host = &self.place.hosts[process];
                    // What it has said itself tells more than that it is gone since.
                    let error = anyhow!(refused.unwrap_or(error))
                        .context(format!("process {process} at {host} was not reached within {:?}", self.patience));
                    return Err(Failure::new(Exit::Unreachable, error));
                }
                Err(error) => {
                    tracing::debug!(process, %error, "not reached yet");
                    if error.kind() == io::ErrorKind::PermissionDenied {
                        refused = Some(error);
                    }
                    thread::sleep(RETRY);
                }
            }
        }
    }

    /// Answers calls from now on. Once nobody takes them any more, who connects is dropped at once: a stranger in the
    /// middle of a run costs nothing, and a second process on this address can't start.
    fn accept(
        &self,
        wanted: Wanted,
        welcome: impl Fn(Proved, &TcpStream) -> io::Result<()> + Send + Sync + 'static,
    ) -> Result<mpsc::Receiver<Call>, Failure> {
        let listener = self.listener.try_clone().context("listening").or_exit(Exit::Internal)?;
        let (calls, taken) = mpsc::channel();
        let (place, key, welcome, pending) =
            (self.place.clone(), self.key.clone(), Arc::new(welcome), Arc::new(Pending::default()));
        let accept = move || {
            for stream in listener.incoming().flatten() {
                let calls = calls.clone();
                let Ok(caller) = pending.enter(&stream) else { continue };
                let (place, key) = (place.clone(), key.clone());
                let (welcome, pending) = (Arc::clone(&welcome), Arc::clone(&pending));
                thread::spawn(move || {
                    let answered = answer(&stream, &key, &place, wanted);
                    let answered = pending.leave(caller).and(answered).and_then(|proved| {
                        let (from, purpose) = (proved.hello.from, proved.hello.purpose);
                        welcome(proved, &stream).map(|()| (from, purpose))
                    });
                    match answered {
                        // An error means that all are there.
                        Ok((from, purpose)) => drop(calls.send(Call { from: usize::from(from), purpose, stream })),
                        Err(error) => tracing::warn!(%error, "a call from somebody else was dropped"),
                    }
                });
            }
        };
        thread::Builder::new().name("accept".to_owned()).spawn(accept).context("listening").or_exit(Exit::Internal)?;
        Ok(taken)
    }
}

/// Which start callers must belong to; nothing is known of it before the plan.
#[derive(Copy, Clone, Debug, Default)]
struct Wanted {
    generation: u64,
    history: u128,
}

/// A call that was answered.
struct Call {
    from: usize,
    purpose: Purpose,
    stream: TcpStream,
}

fn answer(stream: &TcpStream, key: &Key, place: &Place, wanted: Wanted) -> io::Result<Proved> {
    handshake::answer(&mut Timed::new(stream, HANDSHAKE), key, |hello| {
        let (from, to) = (usize::from(hello.from), usize::from(hello.to));
        let is_ours =
            to == place.process && usize::from(hello.processes) == place.processes() && from < place.processes();
        let is_due = match hello.purpose {
            Purpose::Pulse => place.leads(),
            Purpose::Data => (hello.generation, hello.history) == (wanted.generation, wanted.history),
        };
        is_ours && is_due && place.process < from
    })
}

/// The plan: length 4, JSON, HMAC-SHA256(secret, "plan" transcript JSON) 32.
fn send_plan(key: &Key, proved: &Proved, stream: &TcpStream, json: &[u8]) -> io::Result<()> {
    let mut stream = Timed::new(stream, HANDSHAKE);
    let mac = handshake::proof(key, b"plan", &[&proved.transcript[..], json].concat());
    stream.write_all(&(json.len() as u32).to_le_bytes())?;
    stream.write_all(json)?;
    stream.write_all(&mac.finalize().into_bytes())
}

fn receive_plan(key: &Key, proved: &Proved, stream: &TcpStream) -> io::Result<Plan> {
    let mut stream = Timed::new(stream, HANDSHAKE);
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    let length = u32::from_le_bytes(length);
    if PLAN_BYTES_MAX < length {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("a plan of {length} bytes")));
    }
    let mut json = vec![0; length as usize];
    stream.read_exact(&mut json)?;
    let mut mac = [0; 32];
    stream.read_exact(&mut mac)?;
    handshake::verify(handshake::proof(key, b"plan", &[&proved.transcript[..], &json].concat()), &mac)?;
    Ok(serde_json::from_slice(&json)?)
}

/// The links so far.
struct Gathered {
    data: Vec<Option<TcpStream>>,
    pulses: Vec<Option<TcpStream>>,
}

impl Gathered {
    fn new(processes: usize) -> Self {
        let none = || (0..processes).map(|_| None).collect();
        Self { data: none(), pulses: none() }
    }

    /// Takes calls until nobody is missing.
    fn gather(
        &mut self,
        calls: &mpsc::Receiver<Call>,
        deadline: Instant,
        missing: impl Fn(&Self) -> Option<usize>,
    ) -> Result<(), Failure> {
        while let Some(process) = missing(self) {
            let left = deadline.saturating_duration_since(Instant::now());
            let call = calls.recv_timeout(left).map_err(|_| {
                Failure::new(
                    Exit::Unreachable,
                    anyhow!("process {process} did not call within the patience of a start"),
                )
            })?;
            let place = match call.purpose {
                Purpose::Pulse => &mut self.pulses[call.from],
                Purpose::Data => &mut self.data[call.from],
            };
            // Who calls again has given up the call before.
            *place = Some(call.stream);
        }
        Ok(())
    }

    fn finish(self) -> Result<Links, Failure> {
        for stream in self.data.iter().chain(&self.pulses).flatten() {
            let settled = stream.set_nodelay(true).and_then(|()| stream.set_read_timeout(None));
            settled
                .and_then(|()| stream.set_write_timeout(None))
                .context("setting up a link")
                .or_exit(Exit::Internal)?;
        }
        let pulses = self.pulses.into_iter().enumerate().filter_map(|(process, link)| Some((process, link?))).collect();
        let pulse = Pulse::start(pulses).context("starting the heartbeats").or_exit(Exit::Internal)?;
        Ok(Links { data: self.data, pulse })
    }
}

/// The first of these processes that there is no link to.
fn missing(links: &[Option<TcpStream>], mut processes: std::ops::Range<usize>) -> Option<usize> {
    processes.find(|process| links[*process].is_none())
}
