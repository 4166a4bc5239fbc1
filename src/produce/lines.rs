//! The lines of a file, as they are.

use std::{
    borrow::Cow,
    fs::File,
    io::{self, BufRead, BufReader, Read as _},
    path::Path,
};

use serde::Deserialize;

use super::{Line, Source};
use crate::exit::{Exit, Failure, OrExit as _};

/// A longer line ends the run: it is no record of anything, and memory stays bounded. Far above the longest good
/// record, so that oversize ones can be sent for testing.
const LINE_BYTES_MAX: u64 = 16 << 20;

/// Reads lines; blank ones are skipped, as a replay of the file skips them.
pub struct FileLines {
    reader: Box<dyn BufRead>,
    name: String,
    number: u64,
    line: Vec<u8>,
    key: Option<String>,
}

impl FileLines {
    /// Opens a file; "-" is stdin.
    pub fn open(path: &Path) -> Result<Self, Failure> {
        if path == Path::new("-") {
            return Ok(Self::new(Box::new(BufReader::new(io::stdin())), "stdin".to_owned()));
        }
        let name = path.display().to_string();
        let file = File::open(path)
            .map_err(|error| anyhow::Error::new(error).context(format!("opening {name}")))
            .or_exit(Exit::Usage)?;
        Ok(Self::new(Box::new(BufReader::with_capacity(1 << 18, file)), name))
    }

    fn new(reader: Box<dyn BufRead>, name: String) -> Self {
        Self { reader, name, number: 0, line: Vec::new(), key: None }
    }
}

impl Source for FileLines {
    fn next(&mut self) -> Result<Option<Line<'_>>, Failure> {
        loop {
            self.line.clear();
            self.number += 1;
            let read = (&mut self.reader).take(LINE_BYTES_MAX + 1).read_until(b'\n', &mut self.line);
            let read = read.map_err(|error| anyhow::Error::new(error).context(format!("reading {}", self.name)))?;
            if read == 0 {
                return Ok(None);
            }
            if self.line.last() == Some(&b'\n') {
                self.line.pop();
            }
            if LINE_BYTES_MAX < self.line.len() as u64 {
                let Self { name, number, .. } = self;
                return Err(anyhow::anyhow!("{name}: line {number} is longer than {LINE_BYTES_MAX} bytes").into());
            }
            if !self.line.iter().all(u8::is_ascii_whitespace) {
                self.key = video_id(&self.line);
                return Ok(Some(Line { key: self.key.as_ref().map(String::as_bytes), record: &self.line }));
            }
        }
    }
}

/// The video id of a line that is an object with one.
fn video_id(line: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Keyed<'a> {
        #[serde(borrow)]
        video_id: Cow<'a, str>,
    }
    serde_json::from_slice::<Keyed<'_>>(line).ok().map(|keyed| keyed.video_id.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &'static [u8]) -> Vec<(Option<String>, Vec<u8>)> {
        let mut lines = FileLines::new(Box::new(text), "test".to_owned());
        let mut found = Vec::new();
        while let Some(Line { key, record }) = lines.next().unwrap() {
            found.push((key.map(|key| String::from_utf8(key.to_vec()).unwrap()), record.to_vec()));
        }
        found
    }

    #[test]
    fn lines_keep_their_bytes_and_get_the_key_of_their_video() {
        let found =
            read(b"{\"video_id\":\"v\\u0031\",\"x\":{}}\r\n\n \t\n[1]\n{\"video_id\":3}\n\xff\n{\"video_id\":\"z\"}");
        let expect: [(Option<&str>, &[u8]); 5] = [
            (Some("v1"), b"{\"video_id\":\"v\\u0031\",\"x\":{}}\r"),
            (None, b"[1]"),
            (None, b"{\"video_id\":3}"),
            (None, b"\xff"),
            (Some("z"), b"{\"video_id\":\"z\"}"),
        ];
        let expect: Vec<_> = expect.iter().map(|(key, record)| (key.map(str::to_owned), record.to_vec())).collect();
        assert_eq!(found, expect);
    }

    #[test]
    fn a_line_without_an_end_is_refused_with_its_number() {
        let text = io::Cursor::new(b"{}\n").chain(io::repeat(b'x').take(LINE_BYTES_MAX + 1));
        let mut lines = FileLines::new(Box::new(BufReader::new(text)), "test".to_owned());
        assert!(lines.next().unwrap().is_some());
        assert!(lines.next().unwrap_err().report().contains("test: line 2 is longer"));
    }
}
