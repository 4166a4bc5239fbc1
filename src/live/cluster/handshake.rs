//! The mutual handshake on a link: both sides prove that they know the cluster's secret before a byte of data passes.
//!
//! ```text
//! caller -> callee   hello, 73 bytes: "TIDEMARK" 8, version 2, from 2, to 2, processes 2, purpose 1, generation 8,
//!                    history 16, nonce 32 (integers little-endian)
//! callee -> caller   nonce 32, HMAC-SHA256(secret, "callee" hello nonce) 32
//! caller -> callee   HMAC-SHA256(secret, "caller" hello nonce) 32
//! ```
//!
//! All lengths are fixed, so there is none that a stranger could choose. Who sends something else, or nothing in time,
//! is dropped without an answer.

use std::{
    io::{self, Read, Write},
    net::TcpStream,
    time::{Duration, Instant},
};

use hmac::{Hmac, Mac as _};
use sha2::Sha256;

use super::Key;

const MAGIC: &[u8; 8] = b"TIDEMARK";
const VERSION: u16 = 1;
const HELLO_BYTES: usize = 73;
const NONCE_BYTES: usize = 32;

/// What a link is for.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Purpose {
    /// Heartbeats, and the plan before them.
    Pulse = 0,
    /// The dataflow's data.
    Data = 1,
}

/// Who calls whom, and for what.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    pub from: u16,
    pub to: u16,
    pub processes: u16,
    pub purpose: Purpose,
    /// 0 before the caller has been given the plan.
    pub generation: u64,
    /// 0 before the caller has been given the plan.
    pub history: u128,
}

impl Hello {
    fn encode(&self, nonce: &[u8; NONCE_BYTES]) -> [u8; HELLO_BYTES] {
        let mut bytes = Vec::with_capacity(HELLO_BYTES);
        bytes.extend(MAGIC);
        for word in [VERSION, self.from, self.to, self.processes] {
            bytes.extend(word.to_le_bytes());
        }
        bytes.push(self.purpose as u8);
        bytes.extend(self.generation.to_le_bytes());
        bytes.extend(self.history.to_le_bytes());
        bytes.extend(nonce);
        bytes.try_into().expect("the lengths add up")
    }

    fn decode(bytes: &[u8; HELLO_BYTES]) -> Option<Self> {
        let word = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        if &bytes[..8] != MAGIC || word(8) != VERSION {
            return None;
        }
        let purpose = match bytes[16] {
            0 => Purpose::Pulse,
            1 => Purpose::Data,
            _ => return None,
        };
        Some(Self {
            from: word(10),
            to: word(12),
            processes: word(14),
            purpose,
            generation: u64::from_le_bytes(bytes[17..25].try_into().ok()?),
            history: u128::from_le_bytes(bytes[25..41].try_into().ok()?),
        })
    }
}

/// A link on which both sides have proved themselves.
pub struct Proved {
    pub hello: Hello,
    /// Hello and nonce: what later proofs on this link are bound to.
    pub transcript: Vec<u8>,
}

/// The proof that `side` knows the secret, bound to a transcript.
pub fn proof(key: &Key, side: &[u8], transcript: &[u8]) -> Hmac<Sha256> {
    let mut mac = Hmac::<Sha256>::new_from_slice(&key.0).expect("a key of any length will do");
    mac.update(side);
    mac.update(transcript);
    mac
}

/// Calls.
pub fn call(stream: &mut (impl Read + Write), key: &Key, hello: Hello) -> io::Result<Proved> {
    let sent = hello.encode(&nonce()?);
    stream.write_all(&sent)?;
    let mut answer = [0; NONCE_BYTES + 32];
    stream.read_exact(&mut answer)?;
    let transcript = [&sent[..], &answer[..NONCE_BYTES]].concat();
    verify(proof(key, b"callee", &transcript), &answer[NONCE_BYTES..])?;
    stream.write_all(&proof(key, b"caller", &transcript).finalize().into_bytes())?;
    Ok(Proved { hello, transcript })
}

/// Answers a call that `expected` likes.
pub fn answer(
    stream: &mut (impl Read + Write),
    key: &Key,
    expected: impl FnOnce(&Hello) -> bool,
) -> io::Result<Proved> {
    let mut sent = [0; HELLO_BYTES];
    stream.read_exact(&mut sent)?;
    let hello = Hello::decode(&sent).filter(expected).ok_or_else(|| refused("not a call that was expected"))?;
    let nonce = nonce()?;
    let transcript = [&sent[..], &nonce[..]].concat();
    stream.write_all(&nonce)?;
    stream.write_all(&proof(key, b"callee", &transcript).finalize().into_bytes())?;
    let mut proved = [0; 32];
    stream.read_exact(&mut proved)?;
    verify(proof(key, b"caller", &transcript), &proved)?;
    Ok(Proved { hello, transcript })
}

/// In constant time.
pub fn verify(mac: Hmac<Sha256>, proved: &[u8]) -> io::Result<()> {
    mac.verify_slice(proved).map_err(|_| refused("the secrets differ"))
}

fn refused(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::PermissionDenied, why.to_owned())
}

fn nonce() -> io::Result<[u8; NONCE_BYTES]> {
    let mut nonce = [0; NONCE_BYTES];
    getrandom::fill(&mut nonce).map_err(io::Error::other)?;
    Ok(nonce)
}

/// A stream on which everything must be done by a deadline, however slowly the other side drips.
pub struct Timed<'a> {
    stream: &'a TcpStream,
    deadline: Instant,
}

impl<'a> Timed<'a> {
    /// From now on, `within` this.
    pub fn new(stream: &'a TcpStream, within: Duration) -> Self {
        Self { stream, deadline: Instant::now() + within }
    }

    fn left(&self) -> io::Result<Option<Duration>> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(Some(left)) }
    }
}

impl Read for Timed<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.stream.set_read_timeout(self.left()?)?;
        self.stream.read(buffer)
    }
}

impl Write for Timed<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stream.set_write_timeout(self.left()?)?;
        self.stream.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::{net::TcpListener, thread};

    use super::*;

    const HELLO: Hello =
        Hello { from: 1, to: 0, processes: 2, purpose: Purpose::Data, generation: 3, history: u128::MAX - 9 };

    /// What both sides come to, when the caller has this key.
    fn shake(callers: Key, expected: fn(&Hello) -> bool) -> (io::Result<Proved>, io::Result<Proved>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let caller = thread::spawn(move || {
            let stream = TcpStream::connect(address).unwrap();
            call(&mut Timed::new(&stream, Duration::from_secs(10)), &callers, HELLO)
        });
        let stream = listener.accept().unwrap().0;
        let answered = answer(&mut Timed::new(&stream, Duration::from_secs(10)), &Key([7; 32]), expected);
        drop(stream);
        (caller.join().unwrap(), answered)
    }

    #[test]
    fn both_sides_prove_the_secret() {
        let (called, answered) = shake(Key([7; 32]), |hello| *hello == HELLO);
        let (called, answered) = (called.unwrap(), answered.unwrap());
        assert_eq!((answered.hello, called.transcript), (HELLO, answered.transcript));
    }

    #[test]
    fn another_secret_or_an_unexpected_call_is_refused_on_both_sides() {
        let (called, answered) = shake(Key([8; 32]), |_| true);
        assert!(called.is_err() && answered.is_err());
        let (called, answered) = shake(Key([7; 32]), |hello| hello.generation == 4);
        assert!(called.is_err() && answered.is_err());
    }

    #[test]
    fn a_stranger_is_dropped_by_the_deadline_whatever_it_sends() {
        for bytes in [&b""[..], b"GET / HTTP/1.1\r\n\r\n", &[1, 0, 0, 0, 0, 0, 0, 0], &[0xff; 4096]] {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let mut stranger = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            stranger.write_all(bytes).unwrap();
            let stream = listener.accept().unwrap().0;
            let within = Duration::from_millis(50);
            assert!(answer(&mut Timed::new(&stream, within), &Key([7; 32]), |_| true).is_err(), "{bytes:?}");
        }
    }
}
