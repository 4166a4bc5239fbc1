//! How a command ends: the exit codes, and the error that `main` prints once.

use std::{fmt::Write as _, process::ExitCode};

use crate::logging;

/// The exit codes that scripts and supervisors may rely on.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// What was asked for is done.
    Done = 0,
    /// It failed in a way that has no code of its own.
    Failed = 1,
    /// The command line or the configuration is wrong.
    Usage = 2,
    /// The input log was replaced or truncated.
    InputReplaced = 65,
    /// No good checkpoint where one is needed.
    NoCheckpoint = 66,
    /// A dependency was unreachable for longer than its limit.
    Unreachable = 69,
    /// A fault of Tidemark itself.
    Internal = 70,
    /// State can't be written.
    StateUnwritable = 73,
    /// Another process owns the data folder.
    OtherOwner = 75,
}

impl Exit {
    const ALL: [Self; 9] = [
        Self::Done,
        Self::Failed,
        Self::Usage,
        Self::InputReplaced,
        Self::NoCheckpoint,
        Self::Unreachable,
        Self::Internal,
        Self::StateUnwritable,
        Self::OtherOwner,
    ];

    /// The code with this number; one that is none of ours is a failure like any other.
    pub fn of(number: u8) -> Self {
        Self::ALL.into_iter().find(|exit| *exit as u8 == number).unwrap_or(Exit::Failed)
    }

    /// What to do next, for the reader of the error.
    fn next_step(self) -> Option<&'static str> {
        Some(match self {
            Exit::Done | Exit::Failed => return None,
            Exit::Usage => "see `tidemark --help`; `tidemark config check` lists every fault of the configuration",
            Exit::InputReplaced => {
                "put the log back from a copy, or begin a new history in an empty data_dir; nothing was changed (see also \
                 --on-gap and --skip-batch, which go on without what is lost)"
            }
            Exit::NoCheckpoint => "see `tidemark checkpoint list`; `tidemark run --from-start` counts the log anew",
            Exit::Unreachable => "start it or mend the address, then run the same command again",
            Exit::Internal => "this is a fault of Tidemark: please report it with the lines above",
            Exit::StateUnwritable => {
                "make room or mend the rights, then start again: it goes on from its last checkpoint"
            }
            Exit::OtherOwner => "stop the other process, or give this one a data_dir and ports of its own",
        })
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        ExitCode::from(exit as u8)
    }
}

/// Ends the process at once, from a thread that can't return to `main`: what is not in a checkpoint is read again at the
/// next start, as after a kill.
#[expect(clippy::disallowed_methods, reason = "waiting for destructors would be waiting for a process that is gone")]
pub fn end_at_once(code: Exit) -> ! {
    std::process::exit(code as i32)
}

/// Why a command did not do what was asked.
#[derive(Debug)]
pub struct Failure {
    /// What the process exits with.
    pub code: Exit,
    /// The whole chain of causes.
    pub error: anyhow::Error,
}

impl Failure {
    /// Pairs an error with the code that it ends the process with.
    pub fn new(code: Exit, error: impl Into<anyhow::Error>) -> Self {
        Self { code, error: error.into() }
    }

    /// A wrong command line or configuration.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(Exit::Usage, anyhow::Error::msg(message.into()))
    }

    /// What `main` prints: the chain, outermost first, then what to do next. Ends with a line feed.
    pub fn report(&self) -> String {
        let mut text = format!("error: {}\n", self.error);
        for cause in self.error.chain().skip(1) {
            let _ = writeln!(text, "  because: {cause}");
        }
        if let Some(next_step) = self.code.next_step() {
            let _ = writeln!(text, "next: {next_step}");
        }
        logging::escape_lines(&text)
    }
}

/// An error without a code of its own is exit 1, so `?` works on anything with context.
impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::new(Exit::Failed, error)
    }
}

/// Gives the error of a result its exit code.
pub trait OrExit<T> {
    /// `Err(e)` ends the process with `code`.
    fn or_exit(self, code: Exit) -> Result<T, Failure>;
}

impl<T, E: Into<anyhow::Error>> OrExit<T> for Result<T, E> {
    fn or_exit(self, code: Exit) -> Result<T, Failure> {
        self.map_err(|error| Failure::new(code, error))
    }
}

#[cfg(test)]
mod tests {
    use anyhow::Context as _;

    use super::*;

    #[test]
    fn the_report_is_the_chain_and_what_to_do_next() {
        let error = Err::<(), _>(std::io::Error::other("disk full")).context("writing state/7").unwrap_err();
        assert_eq!(
            Failure::new(Exit::StateUnwritable, error).report(),
            "error: writing state/7\n  because: disk full\nnext: make room or mend the rights, then start again: it \
             goes on from its last checkpoint\n"
        );
        assert_eq!(Failure::from(anyhow::anyhow!("no")).report(), "error: no\n");
    }

    #[test]
    fn the_codes_are_those_of_the_contract() {
        assert_eq!(Exit::ALL.map(|exit| exit as u8), [0, 1, 2, 65, 66, 69, 70, 73, 75]);
        assert!(Exit::ALL.into_iter().all(|exit| Exit::of(exit as u8) == exit));
        assert_eq!(Exit::of(3), Exit::Failed);
    }

    #[test]
    fn a_name_in_an_error_cannot_steer_the_terminal() {
        let report = Failure::usage("no such file \u{1b}[2J\u{202e}\r").report();
        assert!(report.starts_with("error: no such file \\u{1b}[2J\\u{202e}\\r\n"), "{report}");
    }
}
