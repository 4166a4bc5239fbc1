//! What may happen between a client and its server.

use std::{
    io::{self, Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

/// What becomes of requests and their answers. Of each connection the first request is looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answers {
    /// All come.
    Come,
    /// The next connection whose request has this text in its head ends when the answer comes: the server has done what was
    /// asked for, and nobody hears of it. From then on all come.
    LostToNext(&'static str),
    /// These requests lose a header, of this name in small letters.
    WithoutHeader(&'static str),
}

/// A server's address of its own, which passes everything on.
pub struct Wire {
    address: String,
    answers: Arc<Mutex<Answers>>,
    is_gone: Arc<AtomicBool>,
}

impl Wire {
    /// A wire to a server.
    #[track_caller]
    pub fn to(server: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
        let address = listener.local_addr().expect("it is bound").to_string();
        let (answers, is_gone) = (Arc::new(Mutex::new(Answers::Come)), Arc::new(AtomicBool::new(false)));
        let (server, of, gone) = (server.to_owned(), Arc::clone(&answers), Arc::clone(&is_gone));
        thread::spawn(move || {
            for client in listener.incoming().flatten().take_while(|_| !gone.load(Ordering::Relaxed)) {
                let (server, of) = (server.clone(), Arc::clone(&of));
                // What breaks here breaks for the client as well, which is what it is to see.
                thread::spawn(move || pass_on(client, &server, &of));
            }
        });
        Self { address, answers, is_gone }
    }

    /// Host and port.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The environment of a client of the S3 behind it.
    pub fn s3_environment(&self) -> Vec<(String, String)> {
        crate::s3::environment(&self.address)
    }

    /// From now on, for new connections.
    pub fn set(&self, answers: Answers) {
        *self.answers.lock().expect("nobody panics while holding it") = answers;
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.is_gone.store(true, Ordering::Relaxed);
        // Wakes the listener.
        let _ = TcpStream::connect(&self.address);
    }
}

fn pass_on(mut client: TcpStream, server: &str, answers: &Mutex<Answers>) -> io::Result<()> {
    let mut begin = [0; 16_384];
    let length = client.read(&mut begin)?;
    let begin = &mut begin[..length];
    let is_lost = match &mut *answers.lock().expect("nobody panics while holding it") {
        Answers::WithoutHeader(name) => {
            rename(begin, name);
            false
        }
        answers => {
            let is_lost = matches!(answers, Answers::LostToNext(text) if place_of(begin, text).is_some());
            if is_lost {
                *answers = Answers::Come;
            }
            is_lost
        }
    };
    let mut server = TcpStream::connect(server)?;
    server.write_all(begin)?;
    let (mut from, mut to) = (client.try_clone()?, server.try_clone()?);
    let there = thread::spawn(move || {
        let copied = io::copy(&mut from, &mut to);
        let _ = to.shutdown(Shutdown::Write);
        copied
    });
    if is_lost {
        server.read_exact(&mut [0])?;
    } else {
        io::copy(&mut server, &mut client)?;
    }
    client.shutdown(Shutdown::Both)?;
    let _ = there.join();
    Ok(())
}

/// Gives a header another name of the same length.
fn rename(request: &mut [u8], name: &str) {
    if let Some(at) = place_of(request, name) {
        request[at..at + name.len()].fill(b'x');
    }
}

fn place_of(request: &[u8], text: &str) -> Option<usize> {
    request.windows(text.len()).position(|window| window.eq_ignore_ascii_case(text.as_bytes()))
}
