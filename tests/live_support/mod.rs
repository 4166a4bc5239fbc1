//! Runs the real binary as real processes: starts it, talks HTTP to it, kills it, and knows the truth about a data folder.
//!
//! Waiting is polling with a deadline; a process that is still there when its test fails shows its command and both streams.

// Each test binary uses its own share of this.
#![allow(dead_code, unreachable_pub)]

pub mod client;
pub mod cluster;
pub mod ranges;
pub mod stage;
pub mod tmpfs;
pub mod tops;
pub mod traffic;
pub mod truth;

use std::{
    io::{BufRead as _, BufReader, Read},
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU16, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use rustix::process::{Pid, Signal, kill_process};

use client::Client;

/// The binary under test.
pub const TIDEMARK: &str = env!("CARGO_BIN_EXE_tidemark");

/// For what takes well under a second: a start, an end, a count that becomes visible.
pub const SOON: Duration = Duration::from_secs(30);

/// By contract, SIGTERM ends the process within this.
pub const TERMINATED_WITHIN: Duration = Duration::from_secs(10);

/// Between two looks while polling.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// The wall clock, epoch ms.
pub fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("it is after 1970").as_millis() as u64
}

/// Polls until `look` finds something; panics with `what` when it takes too long.
#[track_caller]
pub fn wait_for<T>(what: &str, within: Duration, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + within;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "{what}: not within {within:?}");
        thread::sleep(LOOK_EVERY);
    }
}

/// A free port below those that the kernel gives to outgoing connections, so that none of these takes it meanwhile.
pub fn free_port() -> u16 {
    free_ports(1)
}

/// So many free ports in a row: the first of them.
pub fn free_ports(count: u16) -> u16 {
    const PORTS: std::ops::Range<u16> = 10_000..32_000;
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let first = (std::process::id() * 97 % u32::from(PORTS.end - PORTS.start)) as u16;
    loop {
        let step = NEXT.fetch_add(count, Ordering::Relaxed);
        let port = PORTS.start + (first.wrapping_add(step)) % (PORTS.end - PORTS.start - count);
        if (port..port + count).all(|port| TcpListener::bind(("127.0.0.1", port)).is_ok()) {
            return port;
        }
    }
}

/// Which processes of a job are started.
#[derive(Clone, Debug)]
pub enum Processes {
    /// `tidemark run`: one alone.
    Alone,
    /// `tidemark cluster`: so many, under a supervisor.
    Supervised(u16),
    /// `tidemark run --process`: this one of those in a file.
    Member(u16, PathBuf),
}

/// How to start a `tidemark run` or `tidemark cluster`.
#[derive(Clone, Debug)]
pub struct Run {
    pub program: PathBuf,
    pub data_dir: PathBuf,
    /// Of the first process; each has the one after that of the process before.
    pub port: u16,
    pub processes: Processes,
    /// Of each process.
    pub workers: u32,
    pub flags: Vec<String>,
    pub env: Vec<(String, String)>,
    /// A command that runs the binary, such as strace with its flags. It must become the binary, so that the pid is its.
    pub under: Vec<String>,
}

impl Run {
    pub fn new(data_dir: &Path) -> Self {
        Self {
            program: PathBuf::from(TIDEMARK),
            data_dir: data_dir.to_owned(),
            port: free_port(),
            processes: Processes::Alone,
            workers: 2,
            flags: Vec::new(),
            env: Vec::new(),
            under: Vec::new(),
        }
    }

    /// So many processes under a supervisor, on ports of their own.
    pub fn supervised(mut self, processes: u16) -> Self {
        self.port = free_ports(processes);
        self.processes = Processes::Supervised(processes);
        self
    }

    /// One process of those in a file.
    pub fn member(mut self, process: u16, hosts: &Path) -> Self {
        self.processes = Processes::Member(process, hosts.to_owned());
        self
    }

    pub fn workers(mut self, workers: u32) -> Self {
        self.workers = workers;
        self
    }

    pub fn flag(mut self, flag: &str) -> Self {
        self.flags.push(flag.to_owned());
        self
    }

    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// A checkpoint often enough that a test sees many.
    pub fn checkpoints_every(self, interval: &str) -> Self {
        self.env("TIDEMARK_CHECKPOINT__INTERVAL", interval)
    }

    pub fn under(mut self, command: &[&str]) -> Self {
        self.under = command.iter().map(|&word| word.to_owned()).collect();
        self
    }

    fn spawn(&self) -> Process {
        let listen = format!("127.0.0.1:{}", self.port);
        let mut words: Vec<String> = self.under.clone();
        words.push(self.program.display().to_string());
        words.extend(match &self.processes {
            Processes::Alone => vec!["run".to_owned()],
            Processes::Supervised(processes) => {
                vec!["cluster".to_owned(), "--processes".to_owned(), processes.to_string()]
            }
            Processes::Member(process, hosts) => {
                let (process, hosts) = (process.to_string(), hosts.display().to_string());
                vec!["run".to_owned(), "--process".to_owned(), process, "--hosts".to_owned(), hosts]
            }
        });
        words.extend(["--workers".to_owned(), self.workers.to_string(), "--listen".to_owned(), listen]);
        words.extend(["--data-dir".to_owned(), self.data_dir.display().to_string()]);
        words.extend(self.flags.iter().cloned());
        Process::spawn(&words, &self.env)
    }

    /// Starts it and waits until it is ready.
    #[track_caller]
    pub fn start(&self) -> Server {
        let mut server = self.begin();
        server.wait_until_ready();
        server
    }

    /// Starts it; it may not become ready.
    pub fn begin(&self) -> Server {
        let ports = match self.processes {
            Processes::Alone => self.port..=self.port,
            Processes::Supervised(processes) => self.port..=self.port + processes - 1,
            Processes::Member(process, _) => self.port + process..=self.port + process,
        };
        let clients: Vec<Client> = ports.map(Client::new).collect();
        Server { process: self.spawn(), client: clients[0].clone(), clients }
    }

    /// Starts it, expecting it to end by itself.
    #[track_caller]
    pub fn start_and_end(&self) -> Ended {
        self.spawn().end(SOON)
    }
}

/// Runs any other command of the binary to its end.
#[track_caller]
pub fn tidemark(args: &[&str]) -> Ended {
    tidemark_with(args, &[])
}

/// The same in an environment.
#[track_caller]
pub fn tidemark_with(args: &[&str], env: &[(String, String)]) -> Ended {
    tidemark_within(args, env, Duration::from_secs(60))
}

/// The same for what may take longer.
#[track_caller]
pub fn tidemark_within(args: &[&str], env: &[(String, String)], within: Duration) -> Ended {
    let words: Vec<String> = std::iter::once(TIDEMARK).chain(args.iter().copied()).map(str::to_owned).collect();
    Process::spawn(&words, env).end(within)
}

/// What a process has in memory, KiB; 0 where there is none.
pub fn resident_kib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

/// How a process ended.
#[derive(Clone, Debug)]
pub struct Ended {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Ended {
    /// Checks the exit code and that stderr says each of these.
    #[track_caller]
    pub fn expect(&self, code: i32, says: &[&str]) {
        assert_eq!(self.code, Some(code), "{self}");
        for text in says {
            assert!(self.stderr.contains(text), "stderr does not say {text:?}\n{self}");
        }
    }
}

impl std::fmt::Display for Ended {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "exit {:?}\n--- stdout\n{}\n--- stderr\n{}", self.code, self.stdout, self.stderr)
    }
}

/// A running `tidemark run` or `tidemark cluster`.
pub struct Server {
    process: Process,
    /// Of the first process.
    pub client: Client,
    /// Of each process.
    pub clients: Vec<Client>,
}

impl Server {
    /// Waits until every process is ready.
    #[track_caller]
    pub fn wait_until_ready(&mut self) {
        let within = Instant::now() + SOON;
        while !self.is_ready() {
            assert!(self.process.exited().is_none(), "it ended instead of becoming ready");
            assert!(Instant::now() < within, "it is not ready within {SOON:?}");
            thread::sleep(LOOK_EVERY);
        }
    }

    /// Whether every process is.
    pub fn is_ready(&self) -> bool {
        self.clients.iter().all(Client::is_ready)
    }

    /// Waits for it to end by itself.
    #[track_caller]
    pub fn wait_for_end(mut self, within: Duration) -> Ended {
        self.process.end_within(within)
    }

    pub fn pid(&self) -> u32 {
        self.process.child.id()
    }

    pub fn stderr(&self) -> String {
        self.process.stderr.text()
    }

    /// What a line of stderr with this text says of a field, such as `frontier=5`.
    #[track_caller]
    pub fn logged(&self, line_with: &str, field: &str) -> Option<u64> {
        let stderr = self.stderr();
        let line = stderr.lines().find(|line| line.contains(line_with))?;
        let (_, behind) = line.split_once(&format!("{field}="))?;
        let digits: String = behind.chars().take_while(char::is_ascii_digit).collect();
        digits.parse().ok()
    }

    pub fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }

    pub fn is_running(&mut self) -> bool {
        self.process.exited().is_none()
    }

    /// Kills it so that it can't do anything about it.
    pub fn kill(mut self) -> Ended {
        self.process.child.kill().expect("our own child can be killed");
        self.process.reap()
    }

    /// Asks it to end.
    #[track_caller]
    pub fn terminate(mut self) -> Ended {
        self.process.signal(Signal::TERM);
        self.process.end_within(TERMINATED_WITHIN)
    }

    /// Asks it to end, and expects a last checkpoint and exit 0 in time.
    #[track_caller]
    pub fn stop(self) -> Ended {
        let ended = self.terminate();
        ended.expect(0, &[]);
        ended
    }
}

/// A child with both its streams kept.
struct Process {
    words: Vec<String>,
    child: Child,
    stdout: Kept,
    stderr: Kept,
    status: Option<ExitStatus>,
}

impl Process {
    fn spawn(words: &[String], env: &[(String, String)]) -> Self {
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("TIDEMARK_")) {
            command.env_remove(name);
        }
        command.envs(env.iter().map(|(name, value)| (name, value)));
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{words:?} can't be started: {error}"));
        let stdout = Kept::of(child.stdout.take().expect("it is piped"));
        let stderr = Kept::of(child.stderr.take().expect("it is piped"));
        Self { words: words.to_vec(), child, stdout, stderr, status: None }
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, signal).expect("our own child takes signals");
    }

    fn exited(&mut self) -> Option<ExitStatus> {
        if self.status.is_none() {
            self.status = self.child.try_wait().expect("our own child can be waited for");
        }
        self.status
    }

    #[track_caller]
    fn end(mut self, within: Duration) -> Ended {
        self.end_within(within)
    }

    #[track_caller]
    fn end_within(&mut self, within: Duration) -> Ended {
        let deadline = Instant::now() + within;
        while self.exited().is_none() {
            assert!(Instant::now() < deadline, "it has not ended within {within:?}");
            thread::sleep(LOOK_EVERY);
        }
        self.reap()
    }

    fn reap(&mut self) -> Ended {
        let status = match self.status {
            Some(status) => status,
            None => self.child.wait().expect("our own child can be waited for"),
        };
        self.status = Some(status);
        Ended { code: status.code(), stdout: self.stdout.whole(), stderr: self.stderr.whole() }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.status.is_none() {
            // It may have ended this very moment.
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        if thread::panicking() {
            let (stdout, stderr) = (self.stdout.whole(), self.stderr.whole());
            eprintln!("--- command {:?}\n--- stdout\n{stdout}\n--- stderr\n{stderr}\n---", self.words);
        }
    }
}

/// A stream that is read all along, so that the process never waits for us.
struct Kept {
    text: Arc<Mutex<String>>,
    reading: Option<JoinHandle<()>>,
}

impl Kept {
    fn of(stream: impl Read + Send + 'static) -> Self {
        let text: Arc<Mutex<String>> = Arc::default();
        let into = Arc::clone(&text);
        let reading = thread::spawn(move || {
            let mut lines = BufReader::new(stream);
            let mut line = Vec::new();
            while matches!(lines.read_until(b'\n', &mut line), Ok(1..)) {
                into.lock().expect("nobody panics while holding it").push_str(&String::from_utf8_lossy(&line));
                line.clear();
            }
        });
        Self { text, reading: Some(reading) }
    }

    fn text(&self) -> String {
        self.text.lock().expect("nobody panics while holding it").clone()
    }

    /// The text when the process has ended: all of it.
    fn whole(&mut self) -> String {
        if let Some(reading) = self.reading.take() {
            reading.join().expect("reading does not panic");
        }
        self.text()
    }
}
