//! Runs the binary. What was not as expected is shown whole: the command, how it ended and both streams.

// Each test file is a crate of its own, and none needs all of this.
#![allow(dead_code)]

use std::{
    ffi::OsStr,
    io::Read,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Condvar, Mutex},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// Whatever is waited for comes within this, on a machine that is busy with other tests as well.
pub const LIMIT: Duration = Duration::from_secs(180);

/// The binary with arguments, and none of the environment's settings.
pub fn tidemark<A: AsRef<OsStr>>(arguments: impl IntoIterator<Item = A>) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidemark"));
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(b"TIDEMARK_")) {
        command.env_remove(name);
    }
    command.args(arguments);
    command
}

/// Runs a command to its end.
#[track_caller]
pub fn run(command: Command) -> Ended {
    start(command).end()
}

/// Starts a command, and listens to it. It is killed when the test is through with it.
#[track_caller]
pub fn start(mut command: Command) -> Running {
    let shown = format!("{command:?}");
    let spawned = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = spawned.unwrap_or_else(|error| panic!("{shown} does not start: {error}"));
    let stdout = Heard::listen(child.stdout.take().expect("it is piped"));
    let stderr = Heard::listen(child.stderr.take().expect("it is piped"));
    Running { child, shown, stdout, stderr }
}

/// A process that may still run.
pub struct Running {
    child: Child,
    shown: String,
    pub stdout: Arc<Heard>,
    pub stderr: Arc<Heard>,
}

impl Running {
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    #[track_caller]
    pub fn signal(&self, signal: Signal) {
        let id = Pid::from_raw(self.child.id().cast_signed()).expect("a process id is not zero");
        if let Err(error) = kill_process(id, signal) {
            panic!("{signal:?} can't be sent: {error}\n{}", self.so_far());
        }
    }

    /// Waits until a stream has said a text.
    #[track_caller]
    pub fn says(&self, stream: &Heard, text: &str) {
        assert!(stream.wait_for(|said, _| said.contains(text)), "it never said {text:?}\n{}", self.so_far());
    }

    /// Waits for the end of both streams and of the process.
    #[track_caller]
    pub fn end(mut self) -> Ended {
        let ended = self.stdout.wait_for(|_, ended| ended) && self.stderr.wait_for(|_, ended| ended);
        assert!(ended, "it did not end within {LIMIT:?}\n{}", self.so_far());
        let status = self.child.wait().expect("nobody else waits for it");
        let command = std::mem::take(&mut self.shown);
        Ended { command, status, stdout: self.stdout.text(), stderr: self.stderr.text() }
    }

    fn so_far(&self) -> String {
        shown(&self.shown, "running", &self.stdout.text(), &self.stderr.text())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Either does nothing to a process that was waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a stream has said so far.
#[derive(Default)]
pub struct Heard {
    said: Mutex<Said>,
    more: Condvar,
}

#[derive(Default)]
struct Said {
    bytes: Vec<u8>,
    ended: bool,
}

impl Heard {
    fn listen(mut stream: impl Read + Send + 'static) -> Arc<Self> {
        let heard = Arc::new(Self::default());
        let listener = Arc::clone(&heard);
        thread::spawn(move || {
            let mut block = [0; 8192];
            loop {
                let read = stream.read(&mut block).unwrap_or(0);
                let mut said = listener.said.lock().expect("nobody panics while holding it");
                said.bytes.extend_from_slice(&block[..read]);
                said.ended = read == 0;
                listener.more.notify_all();
                if said.ended {
                    return;
                }
            }
        });
        heard
    }

    pub fn text(&self) -> String {
        let said = self.said.lock().expect("nobody panics while holding it");
        String::from_utf8_lossy(&said.bytes).into_owned()
    }

    /// Waits until the text so far, or its having ended, is enough; `false` if that never comes.
    fn wait_for(&self, enough: impl Fn(&str, bool) -> bool) -> bool {
        let is_enough = |said: &Said| enough(&String::from_utf8_lossy(&said.bytes), said.ended);
        let said = self.said.lock().expect("nobody panics while holding it");
        let waiting = |said: &mut Said| !said.ended && !is_enough(said);
        let (said, _) = self.more.wait_timeout_while(said, LIMIT, waiting).expect("nobody panics while holding it");
        is_enough(&said)
    }
}

/// A process that has ended.
pub struct Ended {
    command: String,
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
}

impl Ended {
    /// Requires an exit code.
    #[track_caller]
    pub fn expect(self, code: i32) -> Self {
        assert_eq!(self.status.code(), Some(code), "the exit code is another\n{self}");
        self
    }

    /// Requires a text in the errors.
    #[track_caller]
    pub fn complains(self, text: &str) -> Self {
        assert!(self.stderr.contains(text), "the errors don't say {text:?}\n{self}");
        self
    }
}

impl std::fmt::Display for Ended {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str(&shown(&self.command, &self.status.to_string(), &self.stdout, &self.stderr))
    }
}

fn shown(command: &str, state: &str, stdout: &str, stderr: &str) -> String {
    format!("command: {command}\nstate: {state}\n--- stdout\n{stdout}--- stderr\n{stderr}---")
}

/// Waits for what no stream tells, looking again and again; there is nothing else to wait on.
#[track_caller]
pub fn until(what: &str, mut done: impl FnMut() -> bool) {
    let started = Instant::now();
    while !done() {
        assert!(started.elapsed() < LIMIT, "{what} did not come within {LIMIT:?}");
        thread::yield_now();
    }
}

/// A folder that goes away with the test.
pub struct Folder(TempDir);

impl Folder {
    pub fn new() -> Self {
        Self(tempfile::tempdir().expect("the temporary folder can be written"))
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// Writes a file, with its folders.
    #[track_caller]
    pub fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path().join(name);
        std::fs::create_dir_all(path.parent().expect("it is in the folder")).expect("folders can be made");
        std::fs::write(&path, bytes).unwrap_or_else(|error| panic!("writing {name}: {error}"));
        path
    }

    #[track_caller]
    pub fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.path().join(name)).unwrap_or_else(|error| panic!("reading {name}: {error}"))
    }

    pub fn has(&self, name: &str) -> bool {
        self.path().join(name).exists()
    }

    /// An argument that begins with a scheme: `files:…/NAME`.
    pub fn at(&self, scheme: &str, name: &str) -> String {
        format!("{scheme}:{}/{name}", self.path().display())
    }
}
