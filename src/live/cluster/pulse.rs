//! Heartbeats between the first process and each other one: whoever dies, falls silent or fails ends all.
//!
//! A frame is its kind, 1 byte: 0 a beat, 1 a clean end, 2 a failure, with the exit code 1, length 2 and the reason.

use std::{
    io::{self, Read as _, Write as _},
    net::TcpStream,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use anyhow::anyhow;

use crate::exit::{Exit, Failure, end_at_once};

/// Between two beats.
const BEAT: Duration = Duration::from_secs(1);

/// A process that has not been heard for so long is taken for dead.
const SILENCE: Duration = Duration::from_secs(5);

const BEATS: u8 = 0;
const BYE: u8 = 1;
const FAILED: u8 = 2;

/// The links to those that this process beats for.
#[derive(Clone, Default)]
pub struct Pulse(Arc<Shared>);

#[derive(Default)]
struct Shared {
    links: Mutex<Vec<(usize, TcpStream)>>,
    /// This process is ending: the others may go as well.
    ending: AtomicBool,
}

impl Pulse {
    /// Beats on these links, each to the process of that number, and listens on them.
    pub fn start(links: Vec<(usize, TcpStream)>) -> io::Result<Self> {
        let pulse = Self::default();
        for (process, link) in &links {
            let (pulse, process, mut heard) = (pulse.clone(), *process, link.try_clone()?);
            heard.set_read_timeout(Some(SILENCE))?;
            link.set_write_timeout(Some(BEAT))?;
            let listen = move || {
                if let Err(failure) = listen(&mut heard, process)
                    && !pulse.0.ending.load(Ordering::Acquire)
                {
                    pulse.die(&failure);
                }
            };
            thread::Builder::new().name(format!("pulse-{process}")).spawn(listen)?;
        }
        *pulse.0.links.lock().expect("nobody panics while holding it") = links;
        let beating = pulse.clone();
        thread::Builder::new().name("pulse".to_owned()).spawn(move || {
            while !beating.0.ending.load(Ordering::Acquire) {
                beating.send(&[BEATS]);
                thread::sleep(BEAT);
            }
        })?;
        Ok(pulse)
    }

    /// A link that can't be written to is a process that will not be heard either.
    fn send(&self, frame: &[u8]) {
        for (_, link) in self.0.links.lock().expect("nobody panics while holding it").iter_mut() {
            let _ = link.write_all(frame);
        }
    }

    /// Lets the others know that this process ends well.
    pub fn bye(&self) {
        if !self.0.ending.swap(true, Ordering::AcqRel) {
            self.send(&[BYE]);
        }
    }

    /// Lets the others know that this process fails, and why.
    pub fn fail(&self, failure: &Failure) {
        if !self.0.ending.swap(true, Ordering::AcqRel) {
            self.send(&failed_frame(failure));
        }
    }

    /// Ends this process because of another one. What is not in a checkpoint is read again at the next start.
    fn die(&self, failure: &Failure) {
        self.fail(failure);
        tracing::error!("{:#}", failure.error);
        end_at_once(failure.code)
    }
}

fn failed_frame(failure: &Failure) -> Vec<u8> {
    let mut reason = format!("{:#}", failure.error);
    reason.truncate(reason.floor_char_boundary(usize::from(u16::MAX)));
    let mut frame = vec![FAILED, failure.code as u8];
    frame.extend((reason.len() as u16).to_le_bytes());
    frame.extend(reason.as_bytes());
    frame
}

/// Listens until the other side ends well.
fn listen(link: &mut TcpStream, process: usize) -> Result<(), Failure> {
    loop {
        match frame(link) {
            Ok(Frame::Beat) => {}
            Ok(Frame::Bye) => return Ok(()),
            Ok(Frame::Failed { code, reason }) => {
                // The reason of one that a third has ended says so already.
                return Err(Failure::new(code, anyhow!("process {process} has failed: {reason}")));
            }
            Err(error) => {
                let how = match error.kind() {
                    io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => format!("was silent for {SILENCE:?}"),
                    io::ErrorKind::UnexpectedEof => "is gone".to_owned(),
                    _ => format!("is gone: {error}"),
                };
                return Err(Failure::new(Exit::Failed, anyhow!("process {process} {how}")));
            }
        }
    }
}

enum Frame {
    Beat,
    Bye,
    Failed { code: Exit, reason: String },
}

fn frame(link: &mut TcpStream) -> io::Result<Frame> {
    let mut kind = [0];
    link.read_exact(&mut kind)?;
    match kind[0] {
        BEATS => Ok(Frame::Beat),
        BYE => Ok(Frame::Bye),
        FAILED => {
            let mut head = [0; 3];
            link.read_exact(&mut head)?;
            let mut reason = vec![0; usize::from(u16::from_le_bytes([head[1], head[2]]))];
            link.read_exact(&mut reason)?;
            Ok(Frame::Failed { code: Exit::of(head[0]), reason: String::from_utf8_lossy(&reason).into_owned() })
        }
        other => Err(io::Error::new(io::ErrorKind::InvalidData, format!("a frame of kind {other}"))),
    }
}
