//! Large files past the page cache: nobody reads a checkpoint while the job runs but who merges parts, so to copy all of it to pages of
//! the kernel first is work for nothing, on cores that count. What is small goes the usual way.

use std::{
    fs::File,
    io::{self, Seek as _, SeekFrom, Write},
};

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};

/// What is collected before it is written, bytes.
const BUFFER_BYTES: usize = 1 << 18;

/// Where memory and file must begin for a direct write, bytes: as much as any file system in use asks for.
const ALIGNED_BYTES: usize = 4096;

/// How a file is written.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum Way {
    /// Nothing was written yet.
    Untried,
    /// From the buffer to the disk.
    Direct,
    /// By way of the page cache.
    Cached,
}

/// Writes a new file in whole aligned buffers with `O_DIRECT` (open(2)) where the file system can do that. Not durable before
/// [`DirectWriter::finish`] and a sync.
pub(super) struct DirectWriter {
    file: File,
    /// Zeros up to an aligned address, then what is collected. It never grows, so it stays where it is.
    memory: Vec<u8>,
    start: usize,
    /// How many bytes are in the file.
    written: u64,
    way: Way,
}

impl DirectWriter {
    pub(super) fn new(file: File) -> Self {
        let mut memory: Vec<u8> = Vec::with_capacity(ALIGNED_BYTES + BUFFER_BYTES);
        let start = memory.as_ptr().align_offset(ALIGNED_BYTES);
        memory.resize(start, 0);
        Self { file, memory, start, written: 0, way: Way::Untried }
    }

    /// Writes what is left, and gives the file.
    pub(super) fn finish(mut self) -> io::Result<File> {
        if self.way == Way::Direct {
            // The end is not a whole number of blocks.
            set_direct(&self.file, false)?;
        }
        self.file.write_all(&self.memory[self.start..])?;
        Ok(self.file)
    }

    /// Writes a full buffer.
    fn write_buffer(&mut self) -> io::Result<()> {
        if self.way == Way::Untried {
            self.way = if set_direct(&self.file, true).is_ok() { Way::Direct } else { Way::Cached };
        }
        let buffer = &self.memory[self.start..];
        match self.file.write_all(buffer) {
            // A file system may say only now that it can't, or that it wants other bounds; some of the buffer may be written then.
            Err(error) if self.way == Way::Direct && error.kind() == io::ErrorKind::InvalidInput => {
                set_direct(&self.file, false)?;
                self.way = Way::Cached;
                self.file.seek(SeekFrom::Start(self.written))?;
                self.file.write_all(buffer)?;
            }
            done => done?,
        }
        self.written += buffer.len() as u64;
        self.memory.truncate(self.start);
        Ok(())
    }
}

impl Write for DirectWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = self.start + BUFFER_BYTES - self.memory.len();
        let taken = bytes.len().min(room);
        self.memory.extend_from_slice(&bytes[..taken]);
        if taken == room {
            self.write_buffer()?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn set_direct(file: &File, is_direct: bool) -> io::Result<()> {
    let mut flags = fcntl_getfl(file)?;
    flags.set(OFlags::DIRECT, is_direct);
    Ok(fcntl_setfl(file, flags)?)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// Writes so many bytes, so many at a time, and gives them with what is in the file then.
    fn written(bytes: usize, at_once: usize) -> (Vec<u8>, Vec<u8>, Way) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let given: Vec<u8> = (0..bytes).map(|at| (at % 251) as u8).collect();
        let mut writer = DirectWriter::new(File::create(&path).unwrap());
        given.chunks(at_once).for_each(|bytes| writer.write_all(bytes).unwrap());
        let way = writer.way;
        writer.finish().unwrap().sync_all().unwrap();
        (given, fs::read(path).unwrap(), way)
    }

    #[test]
    fn what_is_read_is_what_was_written_whatever_its_length_and_only_what_is_small_is_written_once() {
        for (bytes, is_small) in [
            (0, true),
            (1, true),
            (BUFFER_BYTES - 1, true),
            (BUFFER_BYTES, false),
            (BUFFER_BYTES + 1, false),
            (3 * BUFFER_BYTES + ALIGNED_BYTES, false),
            (3 * BUFFER_BYTES + 17, false),
        ] {
            for at_once in [1_000, BUFFER_BYTES, 2 * BUFFER_BYTES + 1] {
                let (given, found, way) = written(bytes, at_once);
                assert!(given == found, "{bytes} bytes, {at_once} at once: {} are there", found.len());
                assert_eq!(way == Way::Untried, is_small, "{bytes}");
            }
        }
    }
}
