//! The processes under a supervisor, by what it logs of them: who they are, and what they went on from.

use std::path::Path;

use rustix::process::{Pid, Signal, kill_process, test_kill_process};

use super::{SOON, Server, wait_for};

/// What the first process says of a start.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Resumed {
    pub generation: u64,
    /// None where it was counted from the first record.
    pub checkpoint: Option<u64>,
    pub records_to_read: u64,
}

impl Server {
    /// The processes of the newest start, in their order.
    pub fn pids(&self) -> Vec<Pid> {
        let mut pids: Vec<(u64, Pid)> = Vec::new();
        for line in self.stderr().lines().filter(|line| line.contains("started a process")) {
            let process = field(line, "process").expect("it is numbered");
            let pid = field(line, "pid").and_then(|pid| Pid::from_raw(pid as i32)).expect("it has an id");
            if process == 0 {
                pids.clear();
            }
            pids.push((process, pid));
        }
        pids.into_iter().map(|(_, pid)| pid).collect()
    }

    /// All starts so far.
    pub fn starts(&self) -> Vec<Resumed> {
        let stderr = self.stderr();
        let of = |line: &str| {
            let is_one = line.contains("resumed from a checkpoint") || line.contains("started from the first record");
            is_one.then(|| Resumed {
                generation: field(line, "generation").expect("a start has a generation"),
                checkpoint: field(line, "checkpoint"),
                records_to_read: field(line, "records_to_read").expect("a start says what it will read"),
            })
        };
        stderr.lines().filter_map(of).collect()
    }

    /// Waits until there were more starts than `so_far` and every process is ready.
    #[track_caller]
    pub fn wait_for_start_after(&mut self, so_far: usize) -> Resumed {
        let start = wait_for("another start", SOON, || {
            assert!(self.is_running(), "the supervisor has ended");
            self.starts().get(so_far).copied()
        });
        self.wait_until_ready();
        start
    }
}

/// What a log line says of a field, such as `pid=7`.
fn field(line: &str, name: &str) -> Option<u64> {
    let (_, behind) = line.split_once(&format!(" {name}="))?;
    let digits: String = behind.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}

/// Sends a signal to a process that may have ended this very moment.
pub fn signal(pid: Pid, signal: Signal) {
    let _ = kill_process(pid, signal);
}

/// Whether a process is there, and not just waiting to be reaped.
pub fn is_alive(pid: Pid) -> bool {
    let stat = std::fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("stat")).unwrap_or_default();
    let state = stat.rsplit_once(") ").and_then(|(_, behind)| behind.chars().next());
    test_kill_process(pid).is_ok() && !matches!(state, None | Some('Z' | 'X'))
}
