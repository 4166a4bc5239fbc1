//! `tidemark dead-letters replay`: sends mended letters through again, as new records.
//!
//! An event keeps its id, so one that was counted meanwhile, or that is sent twice, is a duplicate. Late letters are not
//! sent: a repeat may hide among them, whose first copy is counted and forgotten. What is no event yet is not sent either.

use std::{
    fs::File,
    io::{self, BufRead, BufReader},
    path::Path,
};

use anyhow::{Context as _, anyhow};
use connectors::{json::JsonEvents, letter::Letter};
use dataflows::{event::RECORD_BYTES_MAX, port::Decode as _, time::EventTime};

use super::{Reading, Unread, read};
#[cfg(feature = "kafka")]
use crate::config::SourceKind;
use crate::{
    cli::{LetterReason, ResendArgs},
    commands::print,
    config::Settings,
    engine,
    exit::{Exit, Failure, OrExit as _},
    logging,
    produce::{self, Line, args::To},
};

/// Where late letters are mended.
const LATE: &str = "late letters are not sent again, since a repeat may hide among them: `tidemark replay` recomputes the \
                    counts of the whole log (with another time.lateness if that is wanted), `tidemark audit` checks them";

/// What is to be done with a letter.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Fate {
    /// It is an event now.
    Send { video_id: String, payload: Vec<u8> },
    /// Its reason forbids it.
    Late,
    /// Its event is still further ahead than the log would take.
    Future,
    /// Its payload is no event: why.
    Unmended(&'static str),
}

/// How many letters met which fate.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Tally {
    sent: u64,
    late: u64,
    future: u64,
    unmended: u64,
}

/// Sends the letters, or says what would be sent.
pub fn run(settings: &Settings, args: &ResendArgs) -> Result<(), Failure> {
    if args.reason == Some(LetterReason::Late) {
        return Err(Failure::usage(LATE));
    }
    if args.file.is_none() && args.reason.is_none() {
        return Err(Failure::usage(
            "name a FILE of mended letters, or with --reason which of the published ones to send",
        ));
    }
    let letters = match &args.file {
        Some(file) => lines(file)?,
        None => read(settings, args.reason, None)?,
    };
    let wanted = args.reason.map(|reason| reason.to_string());
    let mut target = match args.dry_run {
        true => None,
        false => {
            Some(produce::target(settings, &to(settings, args)?, &args.server, None, args.give_up_after_ms, None)?)
        }
    };
    let (mut tally, mut unread) = (Tally::default(), Unread::default());
    for letter in letters {
        let Some(letter) = unread.note(letter) else { continue };
        if wanted.as_ref().is_some_and(|wanted| *wanted != letter.reason) {
            continue;
        }
        let fate = fate(&letter, engine::wall_clock_ms(), settings.time.max_future_ms);
        tally.note(&letter, &fate);
        if let (Fate::Send { video_id, payload }, Some(target)) = (&fate, &mut target) {
            target.send(Line { key: Some(video_id.as_bytes()), record: payload })?;
        }
    }
    let outcome = target.map(|mut target| target.finish()).transpose()?;
    print(&tally.summary(outcome.as_deref()))?;
    unread.conclude(settings)?;
    tally.conclude()
}

/// A running process takes them at its door; the topic takes them anywhere.
fn to(settings: &Settings, args: &ResendArgs) -> Result<To, Failure> {
    match (&args.to, settings.source.kind) {
        (Some(To::Dir(dir)), _) => {
            let error = format!("--to {}: letters go to http, log or kafka", dir.display());
            Err(Failure::usage(error))
        }
        (Some(to), _) => Ok(to.clone()),
        #[cfg(feature = "kafka")]
        (None, SourceKind::Kafka) => Ok(To::Kafka),
        (None, _) => Ok(To::Http),
    }
}

/// The letters in a file, one JSON object a line, as `list` prints them; "-" is stdin.
fn lines(path: &Path) -> Result<Reading, Failure> {
    let name = path.display().to_string();
    let reader: Box<dyn BufRead> = match path == Path::new("-") {
        true => Box::new(BufReader::new(io::stdin())),
        false => {
            Box::new(BufReader::new(File::open(path).with_context(|| format!("opening {name}")).or_exit(Exit::Usage)?))
        }
    };
    let numbered = (1_u64..).zip(reader.lines());
    let letter = move |(number, line): (u64, io::Result<String>)| -> anyhow::Result<Letter> {
        let line = line.with_context(|| format!("reading {name}"))?;
        serde_json::from_str(&line).with_context(|| format!("{name}, line {number} is no letter"))
    };
    Ok(Box::new(numbered.map(letter)))
}

fn fate(letter: &Letter, now: EventTime, max_future_ms: u64) -> Fate {
    if letter.reason == "late" {
        return Fate::Late;
    }
    let Some(payload) = letter.payload_bytes() else { return Fate::Unmended("it has no payload") };
    if RECORD_BYTES_MAX < payload.len() {
        return Fate::Unmended("oversize");
    }
    let (video_id, event_time) = match JsonEvents.decode(&payload) {
        Ok(event) => (event.video_id.to_string(), event.event_time),
        Err(cause) => return Fate::Unmended(cause.as_str()),
    };
    if now.saturating_add(max_future_ms) < event_time { Fate::Future } else { Fate::Send { video_id, payload } }
}

impl Tally {
    fn note(&mut self, letter: &Letter, fate: &Fate) {
        let place = format!("{}, {}:{}", letter.source.topic, letter.source.partition, letter.source.offset);
        let place = logging::escape_line(&place);
        match fate {
            Fate::Send { .. } => self.sent += 1,
            Fate::Late => self.late += 1,
            Fate::Future => {
                self.future += 1;
                eprintln!("not sent, still too far ahead: {place}");
            }
            Fate::Unmended(why) => {
                self.unmended += 1;
                eprintln!("not sent, no event ({why}): {place}");
            }
        }
    }

    fn summary(&self, outcome: Option<&str>) -> String {
        let Self { sent, late, future, unmended } = self;
        let (verb, outcome) = match outcome {
            Some(outcome) => ("were sent again", format!("{outcome}\n")),
            None => ("would be sent again", String::new()),
        };
        format!("{sent} letters {verb}; not {late} late, {future} future, {unmended} that are no events\n{outcome}")
    }

    fn conclude(&self) -> Result<(), Failure> {
        if 0 < self.late {
            return Err(anyhow!("{} of the letters are late: {LATE}", self.late).into());
        }
        match self.future + self.unmended {
            0 => Ok(()),
            unsent => Err(anyhow!("{unsent} letters were not sent: mend their payloads, or wait").into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::tests::letter, *};

    const NOW: EventTime = 1_795_000_000_000;

    fn event(timestamp: u64) -> String {
        format!(r#"{{"event_id":"e","video_id":"v","event_type":"view","timestamp":{timestamp}}}"#)
    }

    #[test]
    fn an_event_is_sent_again_unless_it_was_late_or_is_still_ahead() {
        let fate = |reason, payload| fate(&letter(reason, payload), NOW, 300_000);
        let (good, ahead) = (event(NOW + 300_000), event(NOW + 300_001));
        let sent = Fate::Send { video_id: "v".into(), payload: good.clone().into_bytes() };
        assert_eq!(fate("malformed", Some(&good)), sent);
        assert_eq!(fate("future", Some(&good)), sent);
        assert_eq!(fate("future", Some(&ahead)), Fate::Future);
        assert_eq!(fate("late", Some(&good)), Fate::Late);
        assert_eq!(fate("malformed", Some("{")), Fate::Unmended("json"));
        assert_eq!(fate("malformed", None), Fate::Unmended("it has no payload"));
        let long = "x".repeat(RECORD_BYTES_MAX + 1);
        assert_eq!(fate("oversize", Some(&long)), Fate::Unmended("oversize"));
    }

    #[test]
    fn what_is_not_sent_is_no_success() {
        assert!(Tally { sent: 3, ..Tally::default() }.conclude().is_ok());
        let report = |tally: Tally| tally.conclude().unwrap_err().report();
        assert!(report(Tally { late: 1, ..Tally::default() }).contains("tidemark replay"));
        assert!(report(Tally { unmended: 1, future: 1, ..Tally::default() }).contains("2 letters were not sent"));
    }
}
