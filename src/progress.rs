//! Progress of long work on stderr: a bar on a terminal, plain lines elsewhere.

use std::{
    io::{self, IsTerminal as _, Write as _},
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressStyle};

/// Between two plain lines: a log of an hour's work stays readable.
const LINE_EVERY: Duration = Duration::from_secs(2);

/// Shows how far the work is. `set` is cheap enough to be called every thousand items or so.
#[derive(Debug)]
pub struct Progress {
    total: Option<u64>,
    unit: &'static str,
    done: u64,
    started: Instant,
    shown: Shown,
}

#[derive(Debug)]
enum Shown {
    Bar(ProgressBar),
    Lines { last: Instant },
}

impl Progress {
    /// Begins at nothing done. `total` may be a number or, where it is not known, `None`.
    pub fn new(total: impl Into<Option<u64>>, unit: &'static str) -> Self {
        let total = total.into();
        let started = Instant::now();
        let shown =
            if io::stderr().is_terminal() { Shown::Bar(bar(total, unit)) } else { Shown::Lines { last: started } };
        Self { total, unit, done: 0, started, shown }
    }

    /// `done` items are done in all.
    pub fn set(&mut self, done: u64) {
        self.done = done;
        match &mut self.shown {
            Shown::Bar(bar) => bar.set_position(done),
            Shown::Lines { last } => {
                let now = Instant::now();
                if LINE_EVERY <= now - *last {
                    *last = now;
                    let line = line(done, self.total, self.unit, now - self.started);
                    // Where stderr is gone there is nobody to tell.
                    let _ = writeln!(io::stderr(), "{line}");
                }
            }
        }
    }

    /// Takes the bar away, so that the summary stands alone.
    pub fn finish(self) {
        if let Shown::Bar(bar) = self.shown {
            bar.finish_and_clear();
        }
    }
}

fn bar(total: Option<u64>, unit: &str) -> ProgressBar {
    let (bar, template) = match total {
        Some(total) => (
            ProgressBar::new(total),
            format!("{{wide_bar}} {{human_pos}}/{{human_len}} {unit}, {{per_sec}}, {{eta}} left"),
        ),
        None => (ProgressBar::no_length(), format!("{{spinner}} {{human_pos}} {unit}, {{per_sec}}")),
    };
    match ProgressStyle::with_template(&template) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

fn line(done: u64, total: Option<u64>, unit: &str, elapsed: Duration) -> String {
    let per_second = (done as f64 / elapsed.as_secs_f64().max(0.001)) as u64;
    match total {
        Some(total) if 0 < total => {
            let percent = u128::from(done) * 100 / u128::from(total);
            format!("{done} of {total} {unit} ({percent} %), {per_second}/s")
        }
        _ => format!("{done} {unit}, {per_second}/s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_how_far_and_how_fast() {
        let elapsed = Duration::from_secs(4);
        assert_eq!(line(500, Some(2000), "lines", elapsed), "500 of 2000 lines (25 %), 125/s");
        assert_eq!(line(500, None, "lines", elapsed), "500 lines, 125/s");
        assert_eq!(line(0, Some(0), "lines", Duration::ZERO), "0 lines, 0/s");
    }

    #[test]
    fn the_bars_templates_are_valid() {
        for (total, unit) in [(Some(3), "records"), (None, "lines")] {
            let template = bar(total, unit);
            template.set_position(1);
            assert_eq!((template.position(), template.length()), (1, total));
        }
    }
}
