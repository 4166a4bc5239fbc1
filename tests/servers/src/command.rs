//! Runs `scripts/services`, with an end in any case.

use std::{
    ffi::OsStr,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
};

/// More than a server's start may take (`start_limit_s` in `scripts/services`), on a machine that is busy with other tests as well.
const LIMIT_S: &str = "240";

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

/// `scripts/services` with arguments.
pub(crate) fn services<const N: usize>(arguments: [&str; N]) -> Command {
    let mut command = Command::new("timeout");
    command.args(["--kill-after=10", LIMIT_S]).arg(root().join("scripts/services")).args(arguments);
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
