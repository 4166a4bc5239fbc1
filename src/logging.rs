//! Logs go to stderr, as text for people or JSON for machines, and cannot be forged by what users send.
//!
//! Fields may hold user text (ids, file names, answers of servers). JSON quotes it. In text, everything that could
//! end a line or steer a terminal is escaped where the record is written, so no call site can forget to.

use std::io::{self, Write};

use tracing_subscriber::{EnvFilter, fmt::MakeWriter};

use crate::cli::LogFormat;

/// Overrides the filter that `-v` sets, in `tracing_subscriber::EnvFilter`'s syntax.
const FILTER_VARIABLE: &str = "TIDEMARK_LOG";

/// Sends the records of all threads to stderr. Called once, first thing.
pub fn start(format: LogFormat, verbose: u8) {
    let builder = tracing_subscriber::fmt().with_env_filter(filter(verbose)).with_ansi(false);
    match format {
        LogFormat::Text => builder.with_writer(EscapingStderr).init(),
        LogFormat::Json => builder.json().flatten_event(true).with_writer(io::stderr).init(),
    }
}

fn filter(verbose: u8) -> EnvFilter {
    let ours = match verbose {
        0 => "warn,tidemark=info,connectors=info,dataflows=info",
        1 => "info,tidemark=debug,connectors=debug,dataflows=debug",
        _ => "debug,tidemark=trace,connectors=trace,dataflows=trace",
    };
    match std::env::var(FILTER_VARIABLE) {
        Ok(directives) if !directives.is_empty() => EnvFilter::builder().parse_lossy(directives),
        _ => EnvFilter::new(ours),
    }
}

/// Whether a character could end a line, steer a terminal or reorder what is read.
pub fn misleads(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{2028}' | '\u{2029}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Escapes all that misleads, except line feeds.
pub fn escape_lines(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        if misleads(character) && character != '\n' {
            escaped.extend(character.escape_default());
        } else {
            escaped.push(character);
        }
    }
    escaped
}

/// Escapes all that misleads: the result is one line.
pub fn escape_line(text: &str) -> String {
    escape_lines(text).replace('\n', "\\n")
}

/// Writes each record as exactly one line.
struct EscapingStderr;

impl<'a> MakeWriter<'a> for EscapingStderr {
    type Writer = OneLine<io::StderrLock<'a>>;

    fn make_writer(&'a self) -> Self::Writer {
        OneLine(io::stderr().lock())
    }
}

/// One `write` is one record: the subscriber formats it into a buffer first.
struct OneLine<W>(W);

impl<W: Write> Write for OneLine<W> {
    fn write(&mut self, record: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(record);
        let mut line = escape_line(text.strip_suffix('\n').unwrap_or(&text));
        line.push('\n');
        self.0.write_all(line.as_bytes())?;
        Ok(record.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn user_text_stays_on_its_line_and_cannot_steer_the_terminal() {
        let kept = Kept::default();
        let writer = kept.clone();
        let subscriber =
            tracing_subscriber::fmt().with_ansi(false).with_writer(move || OneLine(writer.clone())).finish();
        let hostile = "v1\n2026-01-01 INFO forged\u{1b}[31m\u{202e}\u{85}";
        tracing::subscriber::with_default(subscriber, || tracing::info!(video = hostile, "message {hostile}"));
        let bytes = kept.0.lock().unwrap().clone();
        let text = String::from_utf8(bytes).unwrap();
        assert_eq!(text.lines().count(), 1, "{text}");
        assert!(text.ends_with('\n') && text.contains("forged"), "{text}");
        assert!(!text.trim_end_matches('\n').chars().any(misleads), "{text:?}");
    }

    #[test]
    fn more_verbosity_lets_more_through() {
        let levels = [0, 1, 2].map(|verbose| filter(verbose).max_level_hint());
        assert!(levels.is_sorted() && levels[0] < levels[2], "{levels:?}");
    }
}
