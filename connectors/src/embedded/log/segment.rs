//! Reads the frames of one segment file in order, through one large buffer.

use std::{fs::File, io, os::unix::fs::FileExt, path::Path};

use super::frame::{self, Frame};

/// The read buffer, bytes: large enough that a read costs more than its system call.
const BUFFER_BYTES: usize = 1 << 20;

/// What lies at the present place of a segment.
pub enum Step<'a> {
    /// The frame with the expected offset.
    Frame(Frame<'a>),
    /// Nothing more.
    End,
    /// The beginning of a frame whose rest is not there.
    Short,
    /// Bytes that are no frame.
    Damaged,
    /// A good frame, with another offset than the expected one.
    Misplaced(u64),
}

impl Step<'_> {
    /// What is wrong here, in words.
    pub fn fault(&self) -> String {
        match self {
            Step::Frame(_) => "nothing".into(),
            Step::End => "the file ends before it".into(),
            Step::Short => "the file ends within it".into(),
            Step::Damaged => "its length or checksum is wrong".into(),
            Step::Misplaced(found) => format!("offset {found} stands in its place"),
        }
    }
}

/// A segment file, read from its beginning.
pub struct Segment {
    file: File,
    /// Bytes behind this are not looked at.
    limit: u64,
    /// Where in the file the buffer begins.
    position: u64,
    buffer: Vec<u8>,
    /// How much of the buffer holds bytes of the file, and how much of that was read.
    filled: usize,
    consumed: usize,
}

impl Segment {
    /// Opens a segment that may grow while it is read.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        Ok(Self { file, limit: u64::MAX, position: 0, buffer: Vec::new(), filled: 0, consumed: 0 })
    }

    /// Opens a segment as it is now: what is appended from here on is not looked at, so a frame
    /// that is just being written is short and never damaged.
    pub fn open_as_is(path: &Path) -> io::Result<Self> {
        let mut segment = Self::open(path)?;
        segment.limit = segment.file.metadata()?.len();
        Ok(segment)
    }

    /// Where in the file the next frame begins.
    pub fn place(&self) -> u64 {
        self.position + self.consumed as u64
    }

    /// Forgets what was read ahead: it may have been written since.
    pub fn discard(&mut self) {
        self.position = self.place();
        self.filled = 0;
        self.consumed = 0;
    }

    /// Reads the next frame and goes behind it, if it is there and has the expected offset.
    pub fn next(&mut self, offset: u64) -> io::Result<Step<'_>> {
        match self.fill(frame::LENGTH_BYTES)? {
            0 => return Ok(Step::End),
            available if available < frame::LENGTH_BYTES => return Ok(Step::Short),
            _ => {}
        }
        let Some(size) = frame::size(&self.buffer[self.consumed..self.filled]) else {
            return Ok(Step::Damaged);
        };
        if self.fill(size)? < size {
            return Ok(Step::Short);
        }
        let start = self.consumed;
        match frame::decode(&self.buffer[start..start + size]) {
            None => Ok(Step::Damaged),
            Some(frame) if frame.offset != offset => Ok(Step::Misplaced(frame.offset)),
            Some(frame) => {
                self.consumed += size;
                Ok(Step::Frame(frame))
            }
        }
    }

    /// The bytes from the present place to the limit. Only recovery asks, once.
    pub fn rest(&self) -> io::Result<Vec<u8>> {
        let bytes = self.limit.saturating_sub(self.place());
        let mut rest = vec![0; usize::try_from(bytes).expect("a segment fits into memory")];
        self.file.read_exact_at(&mut rest, self.place())?;
        Ok(rest)
    }

    /// Sees to it that `wanted` unread bytes are in the buffer, if the file has them; returns how many there are.
    fn fill(&mut self, wanted: usize) -> io::Result<usize> {
        if self.filled - self.consumed < wanted {
            self.buffer.copy_within(self.consumed..self.filled, 0);
            self.position += self.consumed as u64;
            self.filled -= self.consumed;
            self.consumed = 0;
            // Let go of what a huge record had needed.
            self.buffer.resize(wanted.max(BUFFER_BYTES), 0);
            self.buffer.shrink_to(BUFFER_BYTES.max(wanted));
            self.read_ahead(wanted)?;
        }
        Ok(self.filled - self.consumed)
    }

    fn read_ahead(&mut self, wanted: usize) -> io::Result<()> {
        while self.filled < wanted {
            let at = self.position + self.filled as u64;
            let room = (self.buffer.len() - self.filled) as u64;
            let room = room.min(self.limit.saturating_sub(at)) as usize;
            match self.file.read_at(&mut self.buffer[self.filled..self.filled + room], at) {
                Ok(0) => break,
                Ok(bytes) => self.filled += bytes,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}
