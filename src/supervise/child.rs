//! One process under supervision. Its log lines are passed on with its number; it ends when its supervisor does, which
//! it notices by the end of its standard input.

use std::{
    fmt,
    io::{self, Read as _, Write as _},
    os::unix::process::ExitStatusExt as _,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    thread,
};

use anyhow::Context as _;
use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{ChildStderr, ChildStdin, Command},
    task::JoinHandle,
};

use crate::{
    cli::{ClusterArgs, Global, LogFormat},
    exit::{Exit, Failure, OrExit as _, end_at_once},
};

/// Set in processes under supervision.
const SUPERVISED: &str = "TIDEMARK_SUPERVISED";

/// How a process has ended.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// Of itself.
    Code(i32),
    /// By a signal that was not ours.
    Signal(i32),
    /// We killed it.
    Killed,
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            End::Code(code) => write!(f, "has ended with exit code {code}"),
            End::Signal(signal) => write!(f, "was ended by signal {signal}"),
            End::Killed => f.write_str("did not end and was killed"),
        }
    }
}

/// A running process.
pub struct Child {
    child: tokio::process::Child,
    status: Option<ExitStatus>,
    killed: bool,
    passing: JoinHandle<()>,
    /// Open as long as this process lives: that is how the child knows.
    _lifeline: Option<ChildStdin>,
}

impl Child {
    /// Starts a process of those in the hosts file; one alone needs none.
    pub fn start(
        process: usize,
        hosts: &Path,
        global: &Global,
        args: &ClusterArgs,
        from_start: bool,
    ) -> Result<Self, Failure> {
        let mut command = Command::new(program()?);
        command.arg("run");
        if args.processes > 1 {
            command.arg("--process").arg(process.to_string()).arg("--hosts").arg(hosts);
        }
        if from_start {
            command.arg("--from-start");
        }
        pass_on(&mut command, global, args);
        // In a group of its own: Ctrl-C is for the supervisor, which then tells all.
        command.process_group(0).kill_on_drop(true);
        command.env(SUPERVISED, "1").stdin(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().with_context(|| format!("starting process {process}")).or_exit(Exit::Failed)?;
        let pid = child.id().unwrap_or_default();
        tracing::info!(process, pid, "started a process");
        let stderr = child.stderr.take().context("its standard error is ours").or_exit(Exit::Internal)?;
        let passing = tokio::spawn(pass_lines(process, stderr, global.log_format));
        // Waiting for the child would close it.
        let lifeline = child.stdin.take();
        Ok(Self { child, status: None, killed: false, passing, _lifeline: lifeline })
    }

    /// Ready when it has ended.
    pub async fn ended(&mut self) {
        if self.status.is_none() {
            // Its status can always be had: nobody else waits for it.
            self.status = self.child.wait().await.ok();
            // What it said last comes before what is said about it.
            let _ = (&mut self.passing).await;
        }
    }

    /// Sends a signal, unless it has ended.
    pub fn signal(&self, signal: Signal) {
        let pid = self.child.id().and_then(|pid| Pid::from_raw(pid.cast_signed()));
        if let Some(pid) = pid {
            // An error means that it has ended meanwhile.
            let _ = kill_process(pid, signal);
        }
    }

    /// Kills it, unless it has ended.
    pub async fn kill(&mut self) {
        if self.status.is_none() {
            self.killed = true;
            self.signal(Signal::KILL);
            self.ended().await;
        }
    }

    /// How it has ended.
    pub fn end(self) -> End {
        let status = self.status;
        match (self.killed, status.and_then(|status| status.code()), status.and_then(|status| status.signal())) {
            (true, ..) => End::Killed,
            (false, Some(code), _) => End::Code(code),
            (false, None, signal) => End::Signal(signal.unwrap_or(0)),
        }
    }
}

/// This program: the one that is installed now, and where there is none any more, the one that runs.
fn program() -> Result<PathBuf, Failure> {
    let program = std::env::current_exe().context("finding this program").or_exit(Exit::Failed)?;
    Ok(if program.exists() { program } else { PathBuf::from("/proc/self/exe") })
}

/// The flags of `cluster` that are those of `run`.
fn pass_on(command: &mut Command, global: &Global, args: &ClusterArgs) {
    command.arg("--workers").arg(args.workers.to_string());
    if let Some(config) = &global.config {
        command.arg("--config").arg(config);
    }
    if let LogFormat::Json = global.log_format {
        command.args(["--log-format", "json"]);
    }
    for _ in 0..global.verbose {
        command.arg("-v");
    }
    if let Some(data_dir) = &args.data_dir.data_dir {
        command.arg("--data-dir").arg(data_dir);
    }
    if let Some(listen) = &args.listen {
        command.arg("--listen").arg(listen);
    }
    if let Some(on_gap) = &args.passing.on_gap {
        command.arg("--on-gap").arg(on_gap);
    }
    for batch in &args.passing.skip_batch {
        command.arg("--skip-batch").arg(batch);
    }
}

/// Passes log lines on until the process closes its standard error.
async fn pass_lines(process: usize, stderr: ChildStderr, format: LogFormat) {
    let mut lines = BufReader::new(stderr);
    let mut line = Vec::new();
    while matches!(lines.read_until(b'\n', &mut line).await, Ok(read) if read > 0) {
        let passed = match (format, line.strip_prefix(b"{")) {
            (LogFormat::Json, Some(rest)) => [format!("{{\"process\":{process},").as_bytes(), rest].concat(),
            _ => [format!("[{process}] ").as_bytes(), &line].concat(),
        };
        // Where stderr is gone there is nobody left to tell.
        let _ = io::stderr().lock().write_all(&passed);
        line.clear();
    }
}

/// Whether this process has a supervisor.
pub fn is_supervised() -> bool {
    std::env::var_os(SUPERVISED).is_some()
}

/// Ends this process when its supervisor is gone, if it has one.
pub fn end_with_supervisor() {
    if !is_supervised() {
        return;
    }
    thread::spawn(|| {
        let mut nothing = [0];
        while matches!(io::stdin().read(&mut nothing), Ok(1)) {}
        tracing::error!("the supervisor is gone: ending");
        end_at_once(Exit::Failed)
    });
}
