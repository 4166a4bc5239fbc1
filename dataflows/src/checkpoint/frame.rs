//! Stored bytes: sections with lengths and checksums between a header and a trailer.
//!
//! All integers are little-endian, everything starts at a multiple of 8 bytes.
//!
//! | bytes | what |
//! |---|---|
//! | 8 | `TIDEMARK` |
//! | 4 | format version, [`VERSION`] |
//! | 4 | kind of file: 1 a part, 2 a manifest |
//! | | then, per section: |
//! | 4 | kind of section |
//! | 4 | key group, or 0 |
//! | 8 | length of the payload |
//! | 4 | CRC-32 (IEEE) of the 16 bytes before and of the payload |
//! | 4 | zero |
//! | n | payload, then zeros up to a multiple of 8 |
//! | | then the trailer: |
//! | 4 | 0 |
//! | 4 | number of sections |
//! | 8 | length of the file |
//! | 4 | CRC-32 of the 16 bytes before |
//! | 4 | zero |
//!
//! A reader skips no section that it doesn't know: an unknown kind is an error, since it may hold counts.

use std::io;

/// The version of the format that is written.
pub const VERSION: u32 = 2;

const MAGIC: &[u8; 8] = b"TIDEMARK";
const HEADER_BYTES: usize = 16;
const SECTION_BYTES: usize = 24;

/// What a file holds.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum FileKind {
    /// One worker's state.
    Part = 1,
    /// The commit of a checkpoint.
    Manifest = 2,
}

/// One section, its checksum verified.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Section<'a> {
    /// Which kind; 0 is the trailer's.
    pub kind: u32,
    /// Which key group, or 0.
    pub group: u32,
    /// Its bytes.
    pub payload: &'a [u8],
}

/// Why bytes are not what was written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The file ends too early, or goes on too long.
    #[error("{what} ends after {bytes} bytes, not where it should")]
    Length {
        /// What was being read.
        what: &'static str,
        /// How many bytes there are.
        bytes: usize,
    },
    /// Not a file of this kind.
    #[error("not a file of ours of this kind")]
    Magic,
    /// Written by another version.
    #[error("format version {found}, this build reads {VERSION}")]
    Version {
        /// The file's version.
        found: u32,
    },
    /// Bytes changed after they were written.
    #[error("the checksum of section {section} is wrong")]
    Checksum {
        /// Which section, counted from 0.
        section: usize,
    },
    /// The bytes are as written and make no sense.
    #[error("section {section} holds {what}")]
    Content {
        /// Which section, counted from 0.
        section: usize,
        /// What is wrong.
        what: &'static str,
    },
}

/// Writes a file, one section after the other, so that no more than one is in memory.
pub struct FrameWriter<W> {
    out: W,
    /// The section that is being made.
    section: Fields,
    sections: u32,
    written: u64,
}

impl<W: io::Write> FrameWriter<W> {
    /// Begins a file.
    pub fn new(kind: FileKind, out: W) -> io::Result<Self> {
        let mut section = Fields::default();
        section.0.extend(MAGIC);
        section.word(VERSION).word(kind as u32);
        let mut writer = Self { out, section, sections: 0, written: 0 };
        writer.write()?;
        Ok(writer)
    }

    /// Adds a section; `kind` is not 0.
    pub fn section(&mut self, kind: u32, group: u32, payload: impl FnOnce(&mut Fields)) -> io::Result<()> {
        assert!(kind != 0, "0 is the trailer's kind");
        self.section.0.resize(SECTION_BYTES, 0);
        payload(&mut self.section);
        let length = self.section.0.len() - SECTION_BYTES;
        self.head(kind, group, length as u64);
        self.section.0.resize(self.section.0.len().next_multiple_of(8), 0);
        self.sections += 1;
        self.write()
    }

    fn write(&mut self) -> io::Result<()> {
        self.out.write_all(&self.section.0)?;
        self.written += self.section.0.len() as u64;
        self.section.0.clear();
        Ok(())
    }

    /// Puts the head of what is behind it into its place.
    fn head(&mut self, kind: u32, group: u32, length: u64) {
        let (head, payload) = self.section.0.split_at_mut(SECTION_BYTES);
        head[..4].copy_from_slice(&kind.to_le_bytes());
        head[4..8].copy_from_slice(&group.to_le_bytes());
        head[8..16].copy_from_slice(&length.to_le_bytes());
        let mut crc = crc32fast::Hasher::new();
        crc.update(&head[..16]);
        crc.update(payload);
        head[16..20].copy_from_slice(&crc.finalize().to_le_bytes());
    }

    /// Ends the file.
    pub fn finish(mut self) -> io::Result<W> {
        self.section.0.resize(SECTION_BYTES, 0);
        self.head(0, self.sections, self.written + SECTION_BYTES as u64);
        self.write()?;
        Ok(self.out)
    }
}

/// Verifies a whole file and gives its sections.
pub fn read(bytes: &[u8], kind: FileKind) -> Result<Vec<Section<'_>>, FrameError> {
    let short = |what| FrameError::Length { what, bytes: bytes.len() };
    let header = bytes.get(..HEADER_BYTES).ok_or(short("the header"))?;
    if &header[..8] != MAGIC || header[12..] != (kind as u32).to_le_bytes() {
        return Err(FrameError::Magic);
    }
    let found = word(header, 8);
    if found != VERSION {
        return Err(FrameError::Version { found });
    }
    let mut sections = Vec::new();
    let mut at = HEADER_BYTES;
    loop {
        let head = bytes.get(at..at + SECTION_BYTES).ok_or(short("a section"))?;
        let (kind, group, length) = (word(head, 0), word(head, 4), long(head, 8));
        at += SECTION_BYTES;
        let payload_bytes = if kind == 0 { 0 } else { usize::try_from(length).unwrap_or(usize::MAX) };
        let payload = at.checked_add(payload_bytes).and_then(|end| bytes.get(at..end)).ok_or(short("a section"))?;
        let mut crc = crc32fast::Hasher::new();
        crc.update(&head[..16]);
        crc.update(payload);
        if word(head, 16) != crc.finalize() || word(head, 20) != 0 {
            return Err(FrameError::Checksum { section: sections.len() });
        }
        if kind == 0 {
            let whole = group as usize == sections.len() && length == bytes.len() as u64 && at == bytes.len();
            return if whole { Ok(sections) } else { Err(short("the file")) };
        }
        let padded = payload_bytes.next_multiple_of(8);
        let padding = bytes.get(at + payload_bytes..at + padded).ok_or(short("a section"))?;
        if padding.iter().any(|byte| *byte != 0) {
            return Err(FrameError::Checksum { section: sections.len() });
        }
        sections.push(Section { kind, group, payload });
        at += padded;
    }
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn long(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

/// Writes plain values one after the other.
#[derive(Default)]
pub struct Fields(pub Vec<u8>);

impl Fields {
    /// Four bytes.
    pub fn word(&mut self, value: u32) -> &mut Self {
        self.0.extend(value.to_le_bytes());
        self
    }

    /// Eight bytes.
    pub fn long(&mut self, value: u64) -> &mut Self {
        self.0.extend(value.to_le_bytes());
        self
    }

    /// Two bytes each.
    pub fn shorts(&mut self, values: &[u16]) -> &mut Self {
        self.each(values, u16::to_le_bytes)
    }

    /// Eight bytes each.
    pub fn longs(&mut self, values: &[u64]) -> &mut Self {
        self.each(values, u64::to_le_bytes)
    }

    /// Room for all first, so that compilers make vectors of the rest.
    fn each<T: Copy, const BYTES: usize>(&mut self, values: &[T], bytes: impl Fn(T) -> [u8; BYTES]) -> &mut Self {
        let begin = self.0.len();
        self.0.resize(begin + values.len() * BYTES, 0);
        let places = self.0[begin..].as_chunks_mut().0;
        places.iter_mut().zip(values).for_each(|(place, value)| *place = bytes(*value));
        self
    }

    /// A flag and, if there is one, eight bytes more: 1 or 9 bytes.
    pub fn maybe(&mut self, value: Option<u64>) -> &mut Self {
        self.0.push(u8::from(value.is_some()));
        if let Some(value) = value {
            self.long(value);
        }
        self
    }

    /// A length in four bytes, then the bytes.
    pub fn bytes(&mut self, value: &[u8]) -> &mut Self {
        self.word(u32::try_from(value.len()).expect("a field is shorter than 4 GiB"));
        self.0.extend_from_slice(value);
        self
    }
}

/// Reads what [`Fields`] wrote. Every method gives `None` where the bytes end too early or make no sense.
pub struct FieldReader<'a>(pub &'a [u8]);

impl<'a> FieldReader<'a> {
    fn take(&mut self, bytes: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(bytes)?;
        self.0 = rest;
        Some(head)
    }

    /// Four bytes.
    pub fn word(&mut self) -> Option<u32> {
        self.take(4).map(|bytes| word(bytes, 0))
    }

    /// Eight bytes.
    pub fn long(&mut self) -> Option<u64> {
        self.take(8).map(|bytes| long(bytes, 0))
    }

    /// So many times two bytes.
    pub fn shorts(&mut self, count: usize) -> Option<impl Iterator<Item = u16> + use<'a>> {
        self.take(count.checked_mul(2)?).map(|bytes| bytes.as_chunks().0.iter().map(|value| u16::from_le_bytes(*value)))
    }

    /// So many times eight bytes.
    pub fn longs(&mut self, count: usize) -> Option<impl Iterator<Item = u64> + use<'a>> {
        self.take(count.checked_mul(8)?).map(|bytes| bytes.as_chunks().0.iter().map(|value| u64::from_le_bytes(*value)))
    }

    /// A flag and, if it is 1, eight bytes more.
    pub fn maybe(&mut self) -> Option<Option<u64>> {
        match self.take(1)?[0] {
            0 => Some(None),
            1 => self.long().map(Some),
            _ => None,
        }
    }

    /// A length, then so many bytes.
    pub fn bytes(&mut self) -> Option<&'a [u8]> {
        let length = self.word()?;
        self.take(length as usize)
    }

    /// The same as text.
    pub fn text(&mut self) -> Option<&'a str> {
        std::str::from_utf8(self.bytes()?).ok()
    }

    /// Whether all is read.
    pub fn is_done(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file() -> Vec<u8> {
        let mut writer = FrameWriter::new(FileKind::Part, Vec::new()).unwrap();
        writer.section(1, 0, |fields| fields.0.extend(b"seven b")).unwrap();
        writer.section(2, 127, |_| {}).unwrap();
        writer.section(3, 5, |fields| fields.0.extend([9; 16])).unwrap();
        writer.finish().unwrap()
    }

    #[test]
    fn sections_come_back_as_they_were_written() {
        let bytes = file();
        let sections = read(&bytes, FileKind::Part).expect("it is whole");
        let seen: Vec<_> = sections.iter().map(|s| (s.kind, s.group, s.payload.len())).collect();
        assert_eq!(seen, [(1, 0, 7), (2, 127, 0), (3, 5, 16)]);
        assert_eq!(sections[0].payload, b"seven b");
    }

    #[test]
    fn no_flipped_bit_is_accepted() {
        let good = file();
        for at in 0..good.len() {
            for bit in 0..8 {
                let mut bad = good.clone();
                bad[at] ^= 1 << bit;
                assert!(read(&bad, FileKind::Part).is_err(), "bit {bit} of byte {at}");
            }
        }
    }

    #[test]
    fn no_cut_and_no_tail_is_accepted() {
        let good = file();
        for length in 0..good.len() {
            assert!(read(&good[..length], FileKind::Part).is_err(), "{length} bytes");
        }
        let mut long = good.clone();
        long.extend([0; 8]);
        assert!(read(&long, FileKind::Part).is_err());
    }

    #[test]
    fn a_file_of_another_kind_or_version_is_named() {
        assert_eq!(read(&file(), FileKind::Manifest), Err(FrameError::Magic));
        let mut newer = file();
        newer[8] = VERSION as u8 + 1;
        assert_eq!(read(&newer, FileKind::Part), Err(FrameError::Version { found: VERSION + 1 }));
    }
}
