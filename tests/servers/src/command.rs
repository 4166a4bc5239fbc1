//! Runs `scripts/services`, with an end in any case.

use std::{
    ffi::OsStr,
    io::{BufRead as _, BufReader, Read as _, Write},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
};

/// More than a server's start may take (`start_limit_s` in `scripts/services`), on a machine that is busy with other tests as well.
const LIMIT_S: &str = "240";

/// For what reads a server to its end: some millions of records.
const LONG_LIMIT_S: &str = "1800";

/// Runs `scripts/services TOOL ARGUMENTS`, e.g. `kafka-get-offsets` or `nodetool`, and returns what it prints to stdout.
#[track_caller]
pub fn tool<A: AsRef<OsStr>>(tool: &str, arguments: impl IntoIterator<Item = A>, stdin: &str) -> String {
    let mut command = services([tool]);
    command.args(arguments);
    run(command, stdin).unwrap_or_else(|fault| panic!("{fault}"))
}

/// Runs a script with the Python that has `confluent_kafka`, `cassandra` and `boto3`, and returns what it prints to stdout.
#[track_caller]
pub fn python<A: AsRef<OsStr>>(script: &str, arguments: impl IntoIterator<Item = A>) -> String {
    let mut command = services(["python", "-c", script]);
    command.args(arguments);
    run(command, "").unwrap_or_else(|fault| panic!("{fault}"))
}

/// The same for more than is to be held at once: each line of stdout is handed over as it comes.
#[track_caller]
pub fn python_each<A: AsRef<OsStr>>(script: &str, arguments: impl IntoIterator<Item = A>, each: impl FnMut(&str)) {
    let mut command = services_within(LONG_LIMIT_S, ["python", "-c", script]);
    command.args(arguments);
    run_each(command, each).unwrap_or_else(|fault| panic!("{fault}"));
}

/// `scripts/services` with arguments.
pub(crate) fn services<const N: usize>(arguments: [&str; N]) -> Command {
    services_within(LIMIT_S, arguments)
}

fn services_within<const N: usize>(limit_s: &str, arguments: [&str; N]) -> Command {
    let mut command = Command::new("timeout");
    command.args(["--kill-after=10", limit_s]).arg(root().join("scripts/services")).args(arguments);
    command
}

pub(crate) fn root() -> PathBuf {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    package.ancestors().nth(2).expect("this package is two folders deep").to_owned()
}

/// Runs a command to its end; a failure is told with everything that was said.
pub(crate) fn run(mut command: Command, stdin: &str) -> Result<String, String> {
    let shown = format!("{command:?}");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|error| format!("{shown} does not start: {error}"))?;
    let mut pipe = child.stdin.take().expect("it is piped");
    let input = stdin.to_owned();
    // Beside reading what it says, or each could wait for the other. Who does not read all of it has its reasons, and an exit code.
    let writer = thread::spawn(move || pipe.write_all(input.as_bytes()));
    let output = child.wait_with_output().map_err(|error| format!("{shown} can't be waited for: {error}"))?;
    let _ = writer.join().expect("writing does not panic");
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(stdout);
    }
    let stderr = String::from_utf8_lossy(&output.stderr);
    let limit = if output.status.code() == Some(124) { format!(", the limit of {LIMIT_S} s") } else { String::new() };
    Err(format!("{shown}\n{}{limit}\n--- stdout\n{stdout}--- stderr\n{stderr}---", output.status))
}

/// Runs a command to its end, line by line.
fn run_each(mut command: Command, mut each: impl FnMut(&str)) -> Result<(), String> {
    let shown = format!("{command:?}");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|error| format!("{shown} does not start: {error}"))?;
    let (stdout, mut stderr) = (child.stdout.take().expect("it is piped"), child.stderr.take().expect("it is piped"));
    let complaints = thread::spawn(move || {
        let mut text = Vec::new();
        // What can't be read is not told.
        let _ = stderr.read_to_end(&mut text);
        String::from_utf8_lossy(&text).into_owned()
    });
    let mut lines = BufReader::new(stdout);
    let mut line = String::new();
    while lines.read_line(&mut line).map_err(|error| format!("{shown} can't be read: {error}"))? > 0 {
        each(line.trim_end_matches('\n'));
        line.clear();
    }
    let status = child.wait().map_err(|error| format!("{shown} can't be waited for: {error}"))?;
    let stderr = complaints.join().expect("reading does not panic");
    if status.success() { Ok(()) } else { Err(format!("{shown}\n{status}\n--- stderr\n{stderr}---")) }
}
