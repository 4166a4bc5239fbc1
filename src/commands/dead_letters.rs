//! `tidemark dead-letters`: the records that could not be counted, from the files or the topic that `run` publishes to.

mod resend;

use std::{
    collections::BTreeMap,
    io::{self, ErrorKind, IsTerminal as _, Write as _},
};

use anyhow::{Context as _, anyhow};
use connectors::{
    embedded::letters::{self, LetterError},
    letter::Letter,
};
use dataflows::event::Reason;

use crate::{
    cli::{DeadLettersCommand, LetterReason},
    commands::print,
    config::{Settings, SourceKind},
    exit::Failure,
    logging,
};

/// Folder of the letters under `data_dir`.
const FOLDER: &str = "dead-letters";

/// Lists, counts or sends again.
pub fn run(settings: Settings, command: &DeadLettersCommand) -> Result<(), Failure> {
    match command {
        DeadLettersCommand::List { reason, limit, .. } => list(&settings, *reason, *limit),
        DeadLettersCommand::Count { .. } => count(&settings),
        DeadLettersCommand::Replay(args) => resend::run(&settings, args),
    }
}

/// Prints letters as they are stored. What is none is told of, and passed over.
fn list(settings: &Settings, reason: Option<LetterReason>, limit: Option<u64>) -> Result<(), Failure> {
    let limit = limit.map(|limit| usize::try_from(limit).unwrap_or(usize::MAX));
    let mut stdout = io::stdout().lock();
    let for_people = stdout.is_terminal();
    let mut unread = Unread::default();
    for letter in read(settings, reason, limit)? {
        let Some(letter) = unread.note(letter) else { continue };
        match writeln!(stdout, "{}", line(&letter, for_people)?) {
            Err(error) if error.kind() == ErrorKind::BrokenPipe => return Ok(()),
            done => done.context("writing to stdout")?,
        }
    }
    unread.conclude(settings)
}

/// The letter's JSON. On a terminal what could steer it is escaped, which within JSON's strings changes no value.
fn line(letter: &Letter, for_people: bool) -> Result<String, Failure> {
    let json = serde_json::to_string(letter).context("writing a letter as JSON")?;
    if !for_people {
        return Ok(json);
    }
    let escape = |character: char| match logging::misleads(character) {
        true => character.encode_utf16(&mut [0; 2]).iter().map(|unit| format!("\\u{unit:04x}")).collect(),
        false => character.to_string(),
    };
    Ok(json.chars().map(escape).collect())
}

fn count(settings: &Settings) -> Result<(), Failure> {
    let mut counts: BTreeMap<String, u64> = Reason::WORDS.into_iter().map(|word| (word.to_owned(), 0)).collect();
    let mut unread = Unread::default();
    for letter in read(settings, None, None)? {
        if let Some(letter) = unread.note(letter) {
            *counts.entry(letter.reason).or_default() += 1;
        }
    }
    let total: u64 = counts.values().sum();
    // The contract's words in their order; then any that a newer release may have written.
    let known = Reason::WORDS.into_iter().filter_map(|word| counts.remove_entry(word)).collect::<Vec<_>>();
    let all = known.into_iter().chain(counts).chain([("total".to_owned(), total)]);
    print(&all.map(|(reason, count)| format!("{:<10} {count}\n", logging::escape_line(&reason))).collect::<String>())?;
    unread.conclude(settings)
}

/// Letters, or why there is none in their place.
type Reading = Box<dyn Iterator<Item = anyhow::Result<Letter>>>;

/// The letters, from where `run` publishes them to.
fn read(settings: &Settings, reason: Option<LetterReason>, limit: Option<usize>) -> Result<Reading, Failure> {
    let reason = reason.map(|reason| reason.to_string());
    match settings.source.kind {
        SourceKind::Log => read_files(settings, reason, limit),
        #[cfg(feature = "kafka")]
        SourceKind::Kafka => read_topic(settings, reason, limit),
        #[cfg(not(feature = "kafka"))]
        SourceKind::Kafka => Err(Failure::usage("kafka is not in this build".to_owned())),
    }
}

/// The folder is made at the first start: where it is missing there is no letter.
fn read_files(settings: &Settings, reason: Option<String>, limit: Option<usize>) -> Result<Reading, Failure> {
    match letters::read(settings.data_dir.join(FOLDER), reason.as_deref(), limit) {
        Err(LetterError::Unreadable { cause, .. }) if cause.kind() == ErrorKind::NotFound => {
            Ok(Box::new(std::iter::empty()))
        }
        letters => Ok(Box::new(letters.map_err(|error| anyhow!(error))?.map(|letter| letter.map_err(Into::into)))),
    }
}

#[cfg(feature = "kafka")]
fn read_topic(settings: &Settings, reason: Option<String>, limit: Option<usize>) -> Result<Reading, Failure> {
    use connectors::kafka::read_letters;

    let kafka = crate::engine::kafka::settings_of(&settings.kafka);
    let patience = std::time::Duration::from_millis(settings.cluster.patience_ms);
    let letters = read_letters(&kafka, reason.as_deref(), limit, patience).map_err(|error| anyhow!(error))?;
    Ok(Box::new(letters.map(|letter| letter.map_err(Into::into))))
}

fn place(settings: &Settings) -> String {
    match settings.source.kind {
        SourceKind::Log => settings.data_dir.join(FOLDER).display().to_string(),
        SourceKind::Kafka => format!("topic {}", settings.kafka.dead_letter_topic),
    }
}

/// Lines and files that gave no letter.
#[derive(Default)]
struct Unread(u64);

impl Unread {
    fn note(&mut self, letter: anyhow::Result<Letter>) -> Option<Letter> {
        letter
            .map_err(|error| {
                self.0 += 1;
                tracing::warn!("{error:#}");
            })
            .ok()
    }

    fn conclude(self, settings: &Settings) -> Result<(), Failure> {
        match self.0 {
            0 => Ok(()),
            unread => Err(anyhow!("{unread} letters in {} can't be read; the others were", place(settings)))?,
        }
    }
}

#[cfg(test)]
mod tests {
    use connectors::letter::Source;

    use super::*;

    pub(super) fn letter(reason: &str, payload: Option<&str>) -> Letter {
        Letter {
            reason: reason.into(),
            detail: "json".into(),
            source: Source { topic: "log".into(), partition: 1, offset: 2 },
            received_at: None,
            key: None,
            key_base64: None,
            headers: Vec::new(),
            payload: payload.map(str::to_owned),
            payload_base64: None,
        }
    }

    #[test]
    fn a_letter_cannot_steer_the_terminal_and_keeps_its_value() {
        let letter = letter("malformed", Some("\u{1b}[2J \u{9b}2J \u{202e}\u{1F600}\u{7f}"));
        let shown = line(&letter, true).unwrap();
        assert!(shown.chars().all(|character| !logging::misleads(character)), "{shown}");
        assert_eq!(serde_json::from_str::<Letter>(&shown).unwrap(), letter);
        assert_eq!(line(&letter, false).unwrap(), serde_json::to_string(&letter).unwrap());
    }
}
