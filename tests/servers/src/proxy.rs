//! A TCP proxy that harms what passes through it, as networks do.
//!
//! Each connection has two threads, one a direction. They look at the harm again and again, so that it meets the connections
//! that are open as well as new ones, and ends for all when it is taken back.

use std::{
    io::{self, Read as _, Write as _},
    net::{Shutdown, TcpListener, TcpStream},
    ops::Range,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use socket2::SockRef;

/// How soon an idle connection meets another harm.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// So many bytes are passed on at once.
const PIECE_BYTES: usize = 64 << 10;

/// What is done to connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Harm {
    /// Nothing: all is passed on.
    None,
    /// What is on its way takes so long, in ms: from the client, and to it.
    Delay { requests_ms: Range<u64>, answers_ms: Range<u64> },
    /// A connection is reset after so many bytes of answers.
    Reset { after_bytes: Range<u64> },
    /// The server's side of a connection is shut: the client hears its end, and what it still sends goes nowhere.
    HalfClose,
    /// Nothing is passed on and nothing is closed; it is all passed on when this ends.
    Hold,
}

/// A server's address of its own. Where and when it harms is drawn from its seed.
pub struct Proxy {
    address: String,
    shared: Arc<Shared>,
}

struct Shared {
    upstream: Mutex<Option<String>>,
    /// Counted, so that a connection knows one from the next of the same kind.
    harm: Mutex<(u64, Harm)>,
    met: AtomicU64,
    is_gone: AtomicBool,
}

impl Proxy {
    /// One that knows no server yet: connections wait for it.
    #[track_caller]
    pub fn start(seed: u64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
        let address = listener.local_addr().expect("it is bound").to_string();
        let shared = Arc::new(Shared {
            upstream: Mutex::default(),
            harm: Mutex::new((0, Harm::None)),
            met: AtomicU64::new(0),
            is_gone: AtomicBool::new(false),
        });
        let of = Arc::clone(&shared);
        thread::spawn(move || {
            for (client, number) in listener.incoming().flatten().zip(0..) {
                if of.is_gone.load(Ordering::Relaxed) {
                    return;
                }
                let (of, dice) = (Arc::clone(&of), ChaCha8Rng::seed_from_u64(seed.wrapping_add(number)));
                // What breaks here breaks for the client as well, which is what it is to see.
                thread::spawn(move || connect(client, &of, &dice));
            }
        });
        Self { address, shared }
    }

    /// One before a server.
    #[track_caller]
    pub fn to(server: &str, seed: u64) -> Self {
        let proxy = Self::start(seed);
        proxy.pass_on_to(server);
        proxy
    }

    /// From now on, and for those who wait.
    pub fn pass_on_to(&self, server: &str) {
        *self.shared.upstream.lock().expect("nobody panics while holding it") = Some(server.to_owned());
    }

    /// Host and port.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// From now on, for open connections and new ones.
    pub fn set(&self, harm: Harm) {
        let mut now = self.shared.harm.lock().expect("nobody panics while holding it");
        *now = (now.0 + 1, harm);
    }

    /// How often something was delayed, reset, shut or held.
    pub fn met(&self) -> u64 {
        self.shared.met.load(Ordering::Relaxed)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.is_gone.store(true, Ordering::Relaxed);
        // Wakes the listener.
        let _ = TcpStream::connect(&self.address);
    }
}

impl Shared {
    fn harm(&self) -> (u64, Harm) {
        self.harm.lock().expect("nobody panics while holding it").clone()
    }

    fn note(&self) {
        self.met.fetch_add(1, Ordering::Relaxed);
    }

    fn upstream(&self) -> io::Result<TcpStream> {
        loop {
            if let Some(server) = &*self.upstream.lock().expect("nobody panics while holding it") {
                return TcpStream::connect(server);
            }
            if self.is_gone.load(Ordering::Relaxed) {
                return Err(io::ErrorKind::NotConnected.into());
            }
            thread::sleep(LOOK_EVERY);
        }
    }
}

/// One connection through the proxy. Its sockets are closed when both directions are through with it.
struct Pair {
    client: TcpStream,
    server: TcpStream,
    is_reset: AtomicBool,
}

impl Pair {
    /// Both sides get a reset instead of an end.
    fn reset(&self) {
        for stream in [&self.client, &self.server] {
            // One that is gone already needs none.
            let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
        }
        self.is_reset.store(true, Ordering::Release);
    }
}

#[derive(Copy, Clone, PartialEq, Eq)]
enum Direction {
    Requests,
    Answers,
}

fn connect(client: TcpStream, shared: &Arc<Shared>, dice: &ChaCha8Rng) -> io::Result<()> {
    let server = shared.upstream()?;
    for stream in [&client, &server] {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(LOOK_EVERY))?;
    }
    let pair = Arc::new(Pair { client, server, is_reset: AtomicBool::new(false) });
    for direction in [Direction::Requests, Direction::Answers] {
        let (pair, shared, dice) = (Arc::clone(&pair), Arc::clone(shared), dice.clone());
        let way = Way { direction, pair, shared, dice, harm: 0, left: None };
        thread::spawn(move || way.run());
    }
    Ok(())
}

/// One direction of a connection.
struct Way {
    direction: Direction,
    pair: Arc<Pair>,
    shared: Arc<Shared>,
    dice: ChaCha8Rng,
    /// The one that `left` is of.
    harm: u64,
    /// Bytes until the connection is reset.
    left: Option<u64>,
}

impl Way {
    fn run(mut self) -> io::Result<()> {
        let pair = Arc::clone(&self.pair);
        let (mut from, mut to) = match self.direction {
            Direction::Requests => (&pair.client, &pair.server),
            Direction::Answers => (&pair.server, &pair.client),
        };
        let mut piece = vec![0; PIECE_BYTES];
        loop {
            if pair.is_reset.load(Ordering::Acquire) || self.shared.is_gone.load(Ordering::Relaxed) {
                return Ok(());
            }
            if self.shared.harm().1 == Harm::HalfClose && self.direction == Direction::Answers {
                self.shared.note();
                return to.shutdown(Shutdown::Write);
            }
            let length = match from.read(&mut piece) {
                Ok(0) => return to.shutdown(Shutdown::Write),
                Ok(length) => length,
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => continue,
                Err(error) => return Err(error),
            };
            if let Some(passed) = self.meet(&piece[..length]) {
                to.write_all(passed)?;
            }
        }
    }

    /// What is left of a piece, after as long as it is kept.
    fn meet<'a>(&mut self, piece: &'a [u8]) -> Option<&'a [u8]> {
        let mut is_held = false;
        loop {
            let (number, harm) = self.shared.harm();
            if self.harm != number {
                (self.harm, self.left) = (number, None);
            }
            match harm {
                Harm::None => return Some(piece),
                Harm::Delay { requests_ms, answers_ms } => {
                    let range = if self.direction == Direction::Requests { requests_ms } else { answers_ms };
                    self.shared.note();
                    thread::sleep(Duration::from_millis(self.dice.random_range(range)));
                    return Some(piece);
                }
                Harm::Reset { after_bytes } if self.direction == Direction::Answers => {
                    let left = *self.left.get_or_insert_with(|| self.dice.random_range(after_bytes));
                    if left <= piece.len() as u64 {
                        self.shared.note();
                        self.pair.reset();
                        return None;
                    }
                    self.left = Some(left - piece.len() as u64);
                    return Some(piece);
                }
                Harm::Reset { .. } => return Some(piece),
                // The answers' side is shut, or will be in a moment.
                Harm::HalfClose => return (self.direction == Direction::Answers).then_some(piece),
                Harm::Hold => {
                    if !is_held {
                        self.shared.note();
                    }
                    is_held = true;
                    if self.shared.is_gone.load(Ordering::Relaxed) {
                        return None;
                    }
                    thread::sleep(LOOK_EVERY);
                }
            }
        }
    }
}
