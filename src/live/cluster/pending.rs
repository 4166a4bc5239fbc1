//! Calls whose handshake is under way. Each costs a thread, so there are only so many; a new one takes the place of the
//! oldest, so that strangers who say nothing can't keep a member out.

use std::{
    collections::VecDeque,
    io,
    net::{Shutdown, TcpStream},
    sync::Mutex,
};

/// At most.
const PENDING_MAX: usize = 16;

/// Those that are under way, oldest first.
#[derive(Default)]
pub struct Pending(Mutex<Calls>);

#[derive(Default)]
struct Calls {
    next: u64,
    streams: VecDeque<(u64, TcpStream)>,
}

impl Pending {
    /// Takes a call in, and gives the number that it leaves by.
    pub fn enter(&self, stream: &TcpStream) -> io::Result<u64> {
        let stream = stream.try_clone()?;
        let mut calls = self.0.lock().expect("nobody panics while holding it");
        let number = calls.next;
        calls.next += 1;
        calls.streams.push_back((number, stream));
        if PENDING_MAX < calls.streams.len()
            && let Some((_, oldest)) = calls.streams.pop_front()
        {
            // An error means that it has gone away by itself.
            let _ = oldest.shutdown(Shutdown::Both);
        }
        Ok(number)
    }

    /// Lets a call go whose handshake is over; an error where it had to make room.
    pub fn leave(&self, number: u64) -> io::Result<()> {
        let mut calls = self.0.lock().expect("nobody panics while holding it");
        let at = calls.streams.iter().position(|(pending, _)| *pending == number);
        at.and_then(|at| calls.streams.remove(at)).map(drop).ok_or_else(|| io::Error::other("it made room for others"))
    }
}

#[cfg(test)]
mod tests {
    use std::{io::Read as _, net::TcpListener};

    use super::*;

    #[test]
    fn a_new_call_takes_the_place_of_the_oldest() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let pending = Pending::default();
        let mut calls: Vec<(u64, TcpStream, TcpStream)> = Vec::new();
        for _ in 0..=PENDING_MAX {
            let caller = TcpStream::connect(address).unwrap();
            let stream = listener.accept().unwrap().0;
            calls.push((pending.enter(&stream).unwrap(), stream, caller));
        }
        let (oldest, _stream, mut caller) = calls.remove(0);
        assert_eq!(caller.read(&mut [0]).unwrap(), 0, "it is told");
        assert!(pending.leave(oldest).is_err());
        for (number, ..) in calls {
            assert!(pending.leave(number).is_ok());
            assert!(pending.leave(number).is_err(), "it has left");
        }
    }
}
