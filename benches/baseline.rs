//! The baseline of McSherry's COST (HotOS 2015): the same table by a plain program on one thread.
//!
//! As fast as it honestly gets without being a system: blocks of a mebibyte, the same parser, one set of ids, one map of counts. It
//! dedups exactly, but knows no lateness, no memory that ends, no frontier, no checkpoint, no query and no second worker, so it serves for
//! well-behaved input alone. Its table is the one that `tidemark replay` writes.
//!
//! `baseline OUT FILE...`

use std::{
    env,
    error::Error,
    fs::File,
    hash::{BuildHasher, BuildHasherDefault, Hasher},
    io::Read as _,
    path::Path,
    time::Instant,
};

use connectors::{
    files::tsv::{self, Lines},
    json::JsonEvents,
};
use dataflows::{
    event::Event,
    identity::{EventKey, IdKey, Identifier},
    port::Decode as _,
    time::Minute,
};
use hashbrown::{HashMap, HashSet};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const BLOCK_BYTES: usize = 1 << 20;

/// An identity is a hash already.
#[derive(Default)]
struct AsItIs(u64);

impl Hasher for AsItIs {
    fn finish(&self) -> u64 {
        self.0
    }

    /// Of two words, as numbers of a list come.
    fn write(&mut self, bytes: &[u8]) {
        self.0 = bytes.first_chunk().map_or(0, |word| u64::from_ne_bytes(*word));
    }

    fn write_usize(&mut self, _length: usize) {}
}

struct Counting {
    identifier: Identifier,
    ids: HashSet<EventKey, BuildHasherDefault<AsItIs>>,
    /// Video id and event type, to a number.
    series: HashMap<(String, String), u32, foldhash::fast::FixedState>,
    counts: HashMap<(u32, Minute), u64, foldhash::fast::FixedState>,
    lines: u64,
}

impl Counting {
    fn line(&mut self, line: &[u8]) {
        let Ok(event) = JsonEvents.decode(line) else { return };
        self.lines += 1;
        if self.ids.insert(self.identifier.identify(&event.video_id, &event.event_id)) {
            let series = self.series(&event);
            *self.counts.entry((series, Minute::of(event.event_time))).or_default() += 1;
        }
    }

    fn series(&mut self, event: &Event<'_>) -> u32 {
        let (video_id, event_type) = (&*event.video_id, &*event.event_type);
        let next = self.series.len() as u32;
        let hash = self.series.hasher().hash_one((video_id, event_type));
        let found =
            self.series.raw_entry_mut().from_hash(hash, |(video, kind)| video == video_id && kind == event_type);
        *found.or_insert_with(|| ((video_id.to_owned(), event_type.to_owned()), next)).1
    }

    fn file(&mut self, path: &str) -> Result<(), Box<dyn Error>> {
        let mut file = File::open(path)?;
        let (mut block, mut kept) = (vec![0; BLOCK_BYTES], 0);
        loop {
            let read = file.read(&mut block[kept..])?;
            if read == 0 {
                break;
            }
            let filled = kept + read;
            let whole = memchr::memrchr(b'\n', &block[..filled]).map_or(0, |end| end + 1);
            let mut begin = 0;
            for end in memchr::memchr_iter(b'\n', &block[..whole]) {
                self.line(&block[begin..end]);
                begin = end + 1;
            }
            block.copy_within(whole..filled, 0);
            kept = filled - whole;
            if kept == block.len() {
                block.resize(2 * kept, 0);
            }
        }
        self.line(&block[..kept]);
        Ok(())
    }

    /// The table: series in the order of their names, each with its windows, oldest first.
    fn table(self) -> Lines {
        let mut series: Vec<_> = self.series.into_iter().collect();
        series.sort_unstable();
        let mut windows = vec![Vec::new(); series.len()];
        for ((number, minute), count) in self.counts {
            windows[number as usize].push((minute.start(), count));
        }
        let mut lines = Lines::default();
        for ((video_id, event_type), number) in series {
            let windows = &mut windows[number as usize];
            windows.sort_unstable();
            lines.push(&video_id, &event_type, windows.iter().copied());
        }
        lines
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let begun = Instant::now();
    let mut arguments = env::args().skip(1);
    let out = arguments.next().ok_or("baseline OUT FILE...")?;
    let mut counting = Counting {
        identifier: Identifier::new(IdKey([1, 2])),
        ids: HashSet::default(),
        series: HashMap::default(),
        counts: HashMap::default(),
        lines: 0,
    };
    for path in arguments {
        counting.file(&path)?;
    }
    let lines = counting.lines;
    let rows = tsv::write_tsv(Path::new(&out), &[counting.table()])?;
    eprintln!("{lines} events, {rows} rows in {:.2} s", begun.elapsed().as_secs_f64());
    Ok(())
}
