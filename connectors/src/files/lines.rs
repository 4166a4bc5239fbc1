//! Lines out of blocks: each is borrowed from the buffer, and moved only where a block ends within it.
//!
//! Invariant: `start <= scanned <= end <= buffer.len()`; `buffer[start..end]` is read and not yet handed out,
//! `buffer[start..scanned]` has no newline. While `overlong` is set, `start..end` is the kept head of a line whose
//! rest is being dropped, so that memory stays within a line's limit and two blocks.

use std::io::{self, ErrorKind, Read};

use memchr::memchr;

/// Splits what `input` gives into lines.
pub(super) struct Lines<R> {
    input: R,
    block_bytes: usize,
    line_bytes_max: usize,
    buffer: Vec<u8>,
    start: usize,
    scanned: usize,
    end: usize,
    overlong: Option<Overlong>,
    at_end: bool,
}

/// A line that is longer than the limit.
struct Overlong {
    /// How much of it is kept.
    kept_bytes: usize,
    /// Whether all of it so far is blank, what was dropped included.
    is_blank: bool,
}

/// A line without its newline.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Line<'a> {
    /// Its bytes, of an overlong one the first `line_bytes_max + 1`.
    pub bytes: &'a [u8],
    /// Whether there is nothing in it but spaces, tabs and carriage returns.
    pub is_blank: bool,
}

/// What can be had without reading.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next<'a> {
    /// The next line.
    Line(Line<'a>),
    /// A block must be read first.
    Fill,
    /// There is nothing more.
    Finished,
}

impl<R: Read> Lines<R> {
    pub fn new(input: R, block_bytes: usize, line_bytes_max: usize) -> Self {
        assert!(0 < block_bytes, "a block has bytes");
        let buffer = vec![0; 2 * block_bytes];
        Self { input, block_bytes, line_bytes_max, buffer, start: 0, scanned: 0, end: 0, overlong: None, at_end: false }
    }

    /// The next line, if it is in the buffer.
    #[inline]
    pub fn next_buffered(&mut self) -> Next<'_> {
        let newline = memchr(b'\n', &self.buffer[self.scanned..self.end]).map(|at| self.scanned + at);
        if let Some(overlong) = &mut self.overlong {
            let dropped_to = newline.unwrap_or(self.end);
            overlong.is_blank = overlong.is_blank && is_blank(&self.buffer[self.scanned..dropped_to]);
        }
        match newline {
            Some(newline) => Next::Line(self.take(newline, newline + 1)),
            None if !self.at_end => Next::Fill,
            None if self.start == self.end => Next::Finished,
            None => Next::Line(self.take(self.end, self.end)),
        }
    }

    /// Hands out the line that ends at `line_end`; the next one begins at `next_start`.
    fn take(&mut self, line_end: usize, next_start: usize) -> Line<'_> {
        let start = self.start;
        (self.start, self.scanned) = (next_start, next_start);
        let whole = start..line_end;
        if let Some(Overlong { kept_bytes, is_blank }) = self.overlong.take() {
            return Line { bytes: &self.buffer[start..start + kept_bytes], is_blank };
        }
        let is_blank = is_blank(&self.buffer[whole.clone()]);
        let kept_bytes = whole.len().min(self.line_bytes_max + 1);
        Line { bytes: &self.buffer[start..start + kept_bytes], is_blank }
    }

    /// Reads one block behind the line that has only begun. Only for when [`Next::Fill`] says so.
    pub fn fill(&mut self) -> io::Result<()> {
        self.drop_overlong();
        self.buffer.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.scanned = self.end;
        self.start = 0;
        if self.buffer.len() < self.end + self.block_bytes {
            self.buffer.resize(self.end + self.block_bytes, 0);
        }
        let block = &mut self.buffer[self.end..self.end + self.block_bytes];
        let bytes = loop {
            match self.input.read(block) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                read => break read?,
            }
        };
        self.end += bytes;
        self.at_end = bytes == 0;
        Ok(())
    }

    /// Keeps no more of a begun line than shows that it is too long.
    fn drop_overlong(&mut self) {
        let kept_bytes = self.line_bytes_max + 1;
        let begun = &self.buffer[self.start..self.end];
        if begun.len() < kept_bytes {
            return;
        }
        self.overlong.get_or_insert_with(|| Overlong { kept_bytes, is_blank: is_blank(begun) });
        self.end = self.start + kept_bytes;
    }
}

#[inline]
fn is_blank(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| matches!(byte, b' ' | b'\t' | b'\r'))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Gives what it holds in pieces of these lengths, in turn.
    struct Pieces<'a> {
        rest: &'a [u8],
        lengths: Vec<usize>,
        reads: usize,
    }

    impl Read for Pieces<'_> {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            let length = self.lengths[self.reads % self.lengths.len()].min(self.rest.len()).min(into.len());
            self.reads += 1;
            if self.reads.is_multiple_of(3) {
                return Err(ErrorKind::Interrupted.into());
            }
            let (piece, rest) = self.rest.split_at(length);
            into[..length].copy_from_slice(piece);
            self.rest = rest;
            Ok(length)
        }
    }

    /// All lines as (kept bytes, blank), and the longest that the buffer became.
    fn lines(text: &[u8], lengths: &[usize], block: usize, line_max: usize) -> (Vec<(Vec<u8>, bool)>, usize) {
        let mut lines = Lines::new(Pieces { rest: text, lengths: lengths.to_vec(), reads: 0 }, block, line_max);
        let mut found = Vec::new();
        loop {
            match lines.next_buffered() {
                Next::Line(line) => found.push((line.bytes.to_vec(), line.is_blank)),
                Next::Fill => lines.fill().unwrap(),
                Next::Finished => return (found, lines.buffer.len()),
            }
        }
    }

    /// The same by splitting the whole text.
    fn expected(text: &[u8], line_max: usize) -> Vec<(Vec<u8>, bool)> {
        let mut lines: Vec<_> = text.split(|&byte| byte == b'\n').collect();
        if lines.last().is_some_and(|last| last.is_empty()) {
            lines.pop();
        }
        let kept = |line: &[u8]| line[..line.len().min(line_max + 1)].to_vec();
        lines.iter().map(|line| (kept(line), line.iter().all(|byte| b" \t\r".contains(byte)))).collect()
    }

    #[test]
    fn every_border_of_a_small_text_gives_the_same_lines() {
        for text in [
            &b""[..],
            b"\n",
            b"\n\n",
            b"a",
            b"a\n",
            b"a\r\nbc\r\n",
            b" \t\r\n a\n",
            b"\0\n\0\0",
            b"abcd\nabcde\nabcdef\nabcdefghijklm\nx",
            b"abcdefghijklm",
            b"             \nx\n",
            b"      x      \nx\n",
            b"            x\nx\n",
        ] {
            for line_max in [0, 1, 4, 5, 6, 100] {
                for block in 1..=text.len() + 2 {
                    for length in 1..=block {
                        let (found, _) = lines(text, &[length], block, line_max);
                        let text = String::from_utf8_lossy(text);
                        assert_eq!(found, expected(text.as_bytes(), line_max), "{text:?} {line_max} {block} {length}");
                    }
                }
            }
        }
    }

    #[test]
    fn an_endless_line_does_not_grow_the_buffer() {
        let mut text = vec![b'x'; 100_000];
        text.extend(b"\nnext\n");
        let (found, buffer_bytes) = lines(&text, &[usize::MAX], 16, 100);
        assert_eq!(found, [(vec![b'x'; 101], false), (b"next".to_vec(), false)]);
        assert!(buffer_bytes <= 101 + 2 * 16, "{buffer_bytes} bytes");
    }

    proptest! {
        #[test]
        fn blocks_of_any_size_give_the_same_lines(
            text in prop::collection::vec(prop::sample::select(&b"\n\n\n\r \t\0ab{"[..]), 0..300),
            lengths in prop::collection::vec(1..40_usize, 1..5),
            block in 1..50_usize,
            line_max in 0..30_usize,
        ) {
            let (found, buffer_bytes) = lines(&text, &lengths, block, line_max);
            prop_assert_eq!(found, expected(&text, line_max));
            prop_assert!(buffer_bytes <= line_max + 2 * block);
        }
    }
}
