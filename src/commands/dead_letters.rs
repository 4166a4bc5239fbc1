//! `tidemark dead-letters`: the records that could not be counted, from the files that `run` publishes.

use std::{
    collections::BTreeMap,
    io::{self, ErrorKind, IsTerminal as _, Write as _},
    path::Path,
};

use anyhow::{Context as _, anyhow};
use connectors::{
    embedded::letters::{self, LetterError, Letters},
    letter::Letter,
};
use dataflows::event::Reason;

use crate::{
    cli::{DeadLettersCommand, LetterReason},
    commands::print,
    config::Settings,
    exit::Failure,
    logging,
};

/// Folder of the letters under `data_dir`.
const FOLDER: &str = "dead-letters";

/// Lists or counts.
pub fn run(settings: Settings, command: &DeadLettersCommand) -> Result<(), Failure> {
    let dir = settings.data_dir.join(FOLDER);
    match command {
        DeadLettersCommand::List { reason, limit, .. } => list(&dir, *reason, *limit),
        DeadLettersCommand::Count { .. } => count(&dir),
    }
}

/// Prints letters as they are stored. What is none is told of, and passed over.
fn list(dir: &Path, reason: Option<LetterReason>, limit: Option<u64>) -> Result<(), Failure> {
    let limit = limit.map(|limit| usize::try_from(limit).unwrap_or(usize::MAX));
    let mut stdout = io::stdout().lock();
    let for_people = stdout.is_terminal();
    let mut unread = Unread::default();
    for letter in read(dir, reason.map(|reason| reason.to_string()), limit)?.into_iter().flatten() {
        let Some(letter) = unread.note(letter) else { continue };
        match writeln!(stdout, "{}", line(&letter, for_people)?) {
            Err(error) if error.kind() == ErrorKind::BrokenPipe => return Ok(()),
            done => done.context("writing to stdout")?,
        }
    }
    unread.conclude(dir)
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

fn count(dir: &Path) -> Result<(), Failure> {
    let mut counts: BTreeMap<String, u64> = Reason::WORDS.into_iter().map(|word| (word.to_owned(), 0)).collect();
    let mut unread = Unread::default();
    for letter in read(dir, None, None)?.into_iter().flatten() {
        if let Some(letter) = unread.note(letter) {
            *counts.entry(letter.reason).or_default() += 1;
        }
    }
    let total: u64 = counts.values().sum();
    // The contract's words in their order; then any that a newer release may have written.
    let known = Reason::WORDS.into_iter().filter_map(|word| counts.remove_entry(word)).collect::<Vec<_>>();
    let all = known.into_iter().chain(counts).chain([("total".to_owned(), total)]);
    print(&all.map(|(reason, count)| format!("{:<10} {count}\n", logging::escape_line(&reason))).collect::<String>())?;
    unread.conclude(dir)
}

/// The letters; `None` where the folder is missing, since it is made at the first start.
fn read(dir: &Path, reason: Option<String>, limit: Option<usize>) -> Result<Option<Letters>, Failure> {
    match letters::read(dir, reason.as_deref(), limit) {
        Err(LetterError::Unreadable { cause, .. }) if cause.kind() == ErrorKind::NotFound => Ok(None),
        letters => Ok(Some(letters.map_err(|error| anyhow!(error))?)),
    }
}

/// Lines and files that gave no letter.
#[derive(Default)]
struct Unread(u64);

impl Unread {
    fn note(&mut self, letter: Result<Letter, LetterError>) -> Option<Letter> {
        letter
            .map_err(|error| {
                self.0 += 1;
                tracing::warn!("{:#}", anyhow!(error));
            })
            .ok()
    }

    fn conclude(self, dir: &Path) -> Result<(), Failure> {
        match self.0 {
            0 => Ok(()),
            unread => Err(anyhow!("{unread} lines or files in {} can't be read; the others were", dir.display()))?,
        }
    }
}

#[cfg(test)]
mod tests {
    use connectors::letter::Source;

    use super::*;

    #[test]
    fn a_letter_cannot_steer_the_terminal_and_keeps_its_value() {
        let letter = Letter {
            reason: "malformed".into(),
            detail: "json".into(),
            source: Source { topic: "log".into(), partition: 1, offset: 2 },
            received_at: None,
            key: None,
            key_base64: None,
            headers: Vec::new(),
            payload: Some("\u{1b}[2J \u{9b}2J \u{202e}\u{1F600}\u{7f}".into()),
            payload_base64: None,
        };
        let shown = line(&letter, true).unwrap();
        assert!(shown.chars().all(|character| !logging::misleads(character)), "{shown}");
        assert_eq!(serde_json::from_str::<Letter>(&shown).unwrap(), letter);
        assert_eq!(line(&letter, false).unwrap(), serde_json::to_string(&letter).unwrap());
    }
}
