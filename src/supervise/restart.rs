//! Whether to start again, and when: a pure decision.

use std::time::Duration;

use anyhow::anyhow;

use super::child::End;
use crate::exit::{Exit, Failure};

/// Between two starts: at first, and at most: so that a kill, whichever it is in a row, is over within 10 s.
const WAIT: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));

/// What ends a process from outside: also the kernel, where memory is short.
const SIGKILL: i32 = 9;

/// A job that ran for so long is taken for healthy: the next wait is the first one again.
const HEALTHY: Duration = Duration::from_secs(60);

/// What to do when all processes have ended.
#[derive(Debug)]
pub enum Verdict {
    /// All ended well.
    Done,
    /// Starting again would end the same way.
    Final(Failure),
    /// Start all again.
    Again {
        /// Which process ended first of itself, and how.
        reason: String,
        /// Before that, wait.
        wait: Duration,
    },
}

/// After so many crashes in a row at the same place it would crash there again.
const CRASHES_MAX: u32 = 5;

/// The starts so far.
#[derive(Debug, Default)]
pub struct Restarts {
    in_a_row: u32,
    /// Crashes in a row, and where the starts after them resume.
    crashes: u32,
    place: String,
}

impl Restarts {
    /// Judges the ends of all processes of a start that lasted `ran`. `place` says where the next start would resume.
    pub fn judge(&mut self, ends: &[End], ran: Duration, place: impl FnOnce() -> String) -> Verdict {
        if ends.iter().all(|end| *end == End::Code(0)) {
            return Verdict::Done;
        }
        for (process, end) in ends.iter().enumerate() {
            if let End::Code(code) = end
                && let code = Exit::of(u8::try_from(*code).unwrap_or(1))
                && is_final(code)
            {
                let error = anyhow!("process {process} has ended with exit code {}: see its last lines", code as u8);
                return Verdict::Final(Failure::new(code, error));
            }
        }
        let cause = cause(ends);
        if HEALTHY <= ran {
            self.in_a_row = 0;
        }
        if let Some(failure) = self.crash_loop(cause, place()) {
            return Verdict::Final(failure);
        }
        let wait = WAIT.0.saturating_mul(1 << self.in_a_row.min(10)).min(WAIT.1);
        self.in_a_row += 1;
        Verdict::Again { reason: told(cause), wait }
    }

    /// A job that crashes again and again before it gets any further. What is killed from outside has not crashed.
    fn crash_loop(&mut self, (process, end): (usize, &End), place: String) -> Option<Failure> {
        let is_kill = matches!(end, End::Killed | End::Signal(SIGKILL));
        if is_kill || place != self.place {
            self.crashes = 0;
        }
        self.place = place;
        self.crashes += u32::from(!is_kill);
        (CRASHES_MAX <= self.crashes).then(|| {
            let (times, place) = (self.crashes, &self.place);
            let error =
                anyhow!("{}, {times} times in a row without getting any further than {place}", told((process, end)));
            Failure::new(Exit::Internal, error)
        })
    }
}

/// What a person must mend first.
fn is_final(code: Exit) -> bool {
    match code {
        Exit::Usage
        | Exit::InputReplaced
        | Exit::NoCheckpoint
        | Exit::Unreachable
        | Exit::StateUnwritable
        | Exit::OtherOwner => true,
        Exit::Done | Exit::Failed | Exit::Internal => false,
    }
}

/// The likeliest cause first: one that lost another ends with 1.
fn cause(ends: &[End]) -> (usize, &End) {
    let likely = |end: &End| match end {
        End::Signal(_) => 0,
        End::Code(0) => 4,
        End::Code(1) => 3,
        End::Code(_) => 1,
        End::Killed => 2,
    };
    ends.iter().enumerate().min_by_key(|(_, end)| likely(end)).expect("there is a process")
}

fn told((process, end): (usize, &End)) -> String {
    format!("process {process} {end}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_person_must_mend_ends_it_and_all_else_starts_again() {
        let judge = |ends: &[End]| match Restarts::default().judge(ends, Duration::ZERO, String::new) {
            Verdict::Done => "done".to_owned(),
            Verdict::Final(failure) => format!("final {}", failure.code as u8),
            Verdict::Again { reason, .. } => reason,
        };
        assert_eq!(judge(&[End::Code(0), End::Code(0)]), "done");
        assert_eq!(judge(&[End::Code(1), End::Code(65)]), "final 65");
        assert_eq!(judge(&[End::Code(1), End::Signal(9)]), "process 1 was ended by signal 9");
        assert_eq!(judge(&[End::Code(70), End::Killed]), "process 0 has ended with exit code 70");
        assert_eq!(judge(&[End::Code(1), End::Killed]), "process 1 did not end and was killed");
    }

    #[test]
    fn the_wait_doubles_up_to_a_limit_and_begins_anew_after_a_healthy_run() {
        let mut restarts = Restarts::default();
        let mut wait = |ran| match restarts.judge(&[End::Signal(9)], ran, String::new) {
            Verdict::Again { wait, .. } => wait.as_millis(),
            other => panic!("{other:?}"),
        };
        let waits: Vec<_> = (0..8).map(|_| wait(Duration::from_secs(1))).collect();
        assert_eq!(waits, [200, 400, 800, 1_600, 3_200, 5_000, 5_000, 5_000]);
        assert_eq!(wait(HEALTHY), 200);
    }

    #[test]
    fn five_crashes_in_a_row_at_the_same_place_are_enough() {
        let mut restarts = Restarts::default();
        let mut judge = |end, place: &str| match restarts.judge(&[end], HEALTHY, || place.to_owned()) {
            Verdict::Again { .. } => None,
            Verdict::Final(failure) => Some(format!("{} {}", failure.code as u8, failure.error)),
            Verdict::Done => panic!("it has crashed"),
        };
        let abort = End::Signal(6);
        let ends = [
            (abort, "a"),
            (abort, "a"),
            (abort, "a"),
            (abort, "a"),
            (abort, "b"),
            (End::Signal(9), "b"),
            (End::Killed, "b"),
        ];
        for (end, place) in ends.into_iter().chain([(End::Code(1), "b"); 4]) {
            assert_eq!(judge(end, place), None, "{end} {place}");
        }
        let told = "70 process 0 was ended by signal 6, 5 times in a row without getting any further than b";
        assert_eq!(judge(abort, "b").as_deref(), Some(told));
    }
}
