//! The manifest: the commit of a checkpoint. What it names is complete and durable before it is created.
//!
//! Sections by kind: 1 the head, 2 a partition each, 4 a part each; the fields of each in the order of the structs below.
//! Behind its partition 6 says of each hole in it (partition 4, zero 4, wanted 8, first 8, from 8, until 1 + 8).
//! Where windows have left memory 5 says which, and how many events they hold (minute 4, zero 4, events 8). Instead of 4 there may be 3,
//! as before parts were increments: the same without a number, and all of this checkpoint.

use std::io;

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::Xxh3;

use crate::{
    announce::{PartitionState, Partitions},
    clock::{Clock, Row},
    gap::Gap,
    identity::IdKey,
    ledger::Ledger,
    port::{PartitionId, Tail, Version},
    rules::Rules,
    time::{EventTime, Minute},
};

use super::{
    frame::{self, FieldReader, Fields, FileKind, FrameError, FrameWriter},
    part::PartState,
};

const HEAD: u32 = 1;
const PARTITION: u32 = 2;
const WHOLE_PART: u32 = 3;
const PART: u32 = 4;
const HOT: u32 = 5;
const GAP: u32 = 6;

/// What has left memory: it is in the sink alone.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Hot {
    /// The first window that is in memory.
    pub from: Minute,
    /// How many events the windows before it hold.
    pub left: u64,
}

/// What the counts mean: a checkpoint can only be resumed under the same.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Meaning {
    /// The width of a window, ms.
    pub window_ms: u64,
    /// As in [`Rules`].
    pub lateness_ms: u64,
    /// As in [`Rules`].
    pub remember_ms: u64,
    /// As in [`Rules`].
    pub max_future_ms: u64,
    /// As in [`Rules`].
    pub max_jump_ms: u64,
}

impl Meaning {
    /// The meaning under these rules.
    pub fn of(rules: &Rules) -> Self {
        Self {
            window_ms: crate::time::MINUTE_MS,
            lateness_ms: rules.lateness_ms,
            remember_ms: rules.remember_ms,
            max_future_ms: rules.max_future_ms,
            max_jump_ms: rules.max_jump_ms,
        }
    }

    /// The first setting that differs: its name, the value here and there.
    pub fn difference(&self, other: &Self) -> Option<(&'static str, u64, u64)> {
        [
            ("window", self.window_ms, other.window_ms),
            ("time.lateness", self.lateness_ms, other.lateness_ms),
            ("time.remember", self.remember_ms, other.remember_ms),
            ("time.max_future", self.max_future_ms, other.max_future_ms),
            ("time.max_jump", self.max_jump_ms, other.max_jump_ms),
        ]
        .into_iter()
        .find(|(_, here, there)| here != there)
    }
}

/// A stored part: enough to tell whether it is the one that was written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartInfo {
    /// Its name in the store.
    pub name: String,
    /// Of which checkpoint: the last one whose state it holds something of.
    pub number: u64,
    /// Its length.
    pub bytes: u64,
    /// XXH3-128 of its bytes.
    pub hash: u128,
}

impl PartInfo {
    /// Describes a part.
    pub fn of(name: String, number: u64, bytes: &[u8]) -> Self {
        Self { name, number, bytes: bytes.len() as u64, hash: xxhash_rust::xxh3::xxh3_128(bytes) }
    }

    /// Whether these are its bytes.
    pub fn matches(&self, bytes: &[u8]) -> bool {
        self.bytes == bytes.len() as u64 && self.hash == xxhash_rust::xxh3::xxh3_128(bytes)
    }
}

/// Passes the bytes of a part on, and says afterwards which part they are.
pub struct Summing<'a> {
    out: &'a mut dyn io::Write,
    bytes: u64,
    hash: Xxh3,
}

impl<'a> Summing<'a> {
    /// Nothing is passed on yet.
    pub fn new(out: &'a mut dyn io::Write) -> Self {
        Self { out, bytes: 0, hash: Xxh3::new() }
    }

    /// The part that was passed on.
    pub fn part(&self, name: String, number: u64) -> PartInfo {
        PartInfo { name, number, bytes: self.bytes, hash: self.hash.digest128() }
    }
}

impl io::Write for Summing<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.out.write(bytes)?;
        self.hash.update(&bytes[..written]);
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// One checkpoint: a frontier with the offsets, clocks and ledger at it, and where the state below it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// Its name.
    pub version: Version,
    /// Which history this is: drawn at its first start.
    pub history: u128,
    /// The log that was read: its own id.
    pub log: u128,
    /// The secret under which ids are hashed.
    pub key: IdKey,
    /// The frontier.
    pub frontier: EventTime,
    /// The watermark at the frontier.
    pub watermark: EventTime,
    /// The newest checkpoint whose rows are all acknowledged, as known when this one was written. The letters of all
    /// before this one are published.
    pub acknowledged: Version,
    /// What the counts mean.
    pub meaning: Meaning,
    /// Offsets, clocks and ledgers.
    pub partitions: Partitions,
    /// What is not in the parts any more.
    pub hot: Hot,
    /// The parts, in the order in which they were made: together they are the state.
    pub parts: Vec<PartInfo>,
}

impl Manifest {
    /// Of what one of its parts holds, what still stands: a part that is acknowledged has no row to be written, and only the
    /// newest have letters that may not be published.
    pub fn standing(&self, part: &PartInfo, mut state: PartState) -> PartState {
        if part.number <= self.acknowledged.number {
            state.mark_written();
        }
        if part.number != self.version.number {
            state.letters.clear();
        }
        state
    }

    /// The stored bytes.
    pub fn encode(&self) -> Vec<u8> {
        self.write(Vec::new()).expect("memory takes what is written to it")
    }

    fn write<W: io::Write>(&self, out: W) -> io::Result<W> {
        let mut writer = FrameWriter::new(FileKind::Manifest, out)?;
        writer.section(HEAD, 0, |fields| self.put_head(fields))?;
        for (partition, state) in &self.partitions.0 {
            writer.section(PARTITION, 0, |fields| put_partition(fields, *partition, state))?;
            for gap in &state.gaps {
                writer.section(GAP, 0, |fields| put_gap(fields, *partition, gap))?;
            }
        }
        if self.hot != Hot::default() {
            writer.section(HOT, 0, |fields| {
                fields.word(self.hot.from.0).word(0).long(self.hot.left);
            })?;
        }
        for part in &self.parts {
            writer.section(PART, 0, |fields| {
                put_wide(fields.bytes(part.name.as_bytes()).long(part.number).long(part.bytes), part.hash);
            })?;
        }
        writer.finish()
    }

    fn put_head(&self, fields: &mut Fields) {
        fields.long(self.version.generation).long(self.version.number);
        put_wide(fields, self.history);
        put_wide(fields, self.log);
        fields.long(self.key.0[0]).long(self.key.0[1]).long(self.frontier).long(self.watermark);
        fields.long(self.acknowledged.generation).long(self.acknowledged.number);
        let Meaning { window_ms, lateness_ms, remember_ms, max_future_ms, max_jump_ms } = self.meaning;
        fields.long(window_ms).long(lateness_ms).long(remember_ms).long(max_future_ms).long(max_jump_ms);
    }

    /// Reads the bytes of a manifest.
    pub fn decode(bytes: &[u8]) -> Result<Self, FrameError> {
        let sections = frame::read(bytes, FileKind::Manifest)?;
        let bad = |section, what| FrameError::Content { section, what };
        let (head, rest) = sections.split_first().ok_or(bad(0, "nothing"))?;
        let mut manifest = match head.kind {
            HEAD => take_head(head.payload).ok_or(bad(0, "half a head"))?,
            _ => return Err(bad(0, "no head")),
        };
        for (number, section) in rest.iter().enumerate() {
            match section.kind {
                PARTITION => {
                    let (partition, state) =
                        take_partition(section.payload).ok_or(bad(number + 1, "half a partition"))?;
                    manifest.partitions.0.insert(partition, state);
                }
                GAP => {
                    let (partition, gap) = take_gap(section.payload).ok_or(bad(number + 1, "half a hole"))?;
                    let state = manifest.partitions.0.get_mut(&partition);
                    state.ok_or(bad(number + 1, "a hole in no partition"))?.gaps.push(gap);
                }
                HOT => {
                    manifest.hot = take_hot(section.payload).ok_or(bad(number + 1, "half a word of what has left"))?
                }
                PART | WHOLE_PART => {
                    let whole = (section.kind == WHOLE_PART).then_some(manifest.version.number);
                    manifest.parts.push(take_part(section.payload, whole).ok_or(bad(number + 1, "half a part"))?);
                }
                _ => return Err(bad(number + 1, "a kind of section that this build doesn't know")),
            }
        }
        Ok(manifest)
    }
}

fn put_wide(fields: &mut Fields, value: u128) {
    fields.long(value as u64).long((value >> 64) as u64);
}

fn take_wide(fields: &mut FieldReader<'_>) -> Option<u128> {
    Some(u128::from(fields.long()?) | u128::from(fields.long()?) << 64)
}

fn take_version(fields: &mut FieldReader<'_>) -> Option<Version> {
    Some(Version { generation: fields.long()?, number: fields.long()? })
}

fn take_head(payload: &[u8]) -> Option<Manifest> {
    let mut fields = FieldReader(payload);
    let fields = &mut fields;
    let manifest = Manifest {
        version: take_version(fields)?,
        history: take_wide(fields)?,
        log: take_wide(fields)?,
        key: IdKey([fields.long()?, fields.long()?]),
        frontier: fields.long()?,
        watermark: fields.long()?,
        acknowledged: take_version(fields)?,
        meaning: Meaning {
            window_ms: fields.long()?,
            lateness_ms: fields.long()?,
            remember_ms: fields.long()?,
            max_future_ms: fields.long()?,
            max_jump_ms: fields.long()?,
        },
        partitions: Partitions::default(),
        hot: Hot::default(),
        parts: Vec::new(),
    };
    fields.is_done().then_some(manifest)
}

fn take_hot(payload: &[u8]) -> Option<Hot> {
    let mut fields = FieldReader(payload);
    let (from, zero, left) = (Minute(fields.word()?), fields.word()?, fields.long()?);
    (zero == 0 && fields.is_done()).then_some(Hot { from, left })
}

fn put_partition(fields: &mut Fields, partition: PartitionId, state: &PartitionState) {
    fields.word(partition.0).long(state.next_offset).maybe(state.clock.time());
    fields.maybe(state.clock.row().map(|row| row.least));
    let ids = state.clock.row().map_or(&[][..], |row| &row.event_ids);
    fields.word(ids.len() as u32);
    for id in ids {
        fields.bytes(id.as_bytes());
    }
    fields.maybe(state.clock.floor()).maybe(state.tail.map(|tail| tail.offset));
    fields.long(state.tail.map_or(0, |tail| tail.hash));
    let Ledger { read, counted, duplicate, late, future, malformed, oversize } = state.ledger;
    fields.word(u32::from(state.ended)).long(read).long(counted).long(duplicate).long(late);
    fields.long(future).long(malformed).long(oversize);
}

fn take_partition(payload: &[u8]) -> Option<(PartitionId, PartitionState)> {
    let mut fields = FieldReader(payload);
    let (partition, next_offset) = (PartitionId(fields.word()?), fields.long()?);
    let (time, least) = (fields.maybe()?, fields.maybe()?);
    let mut event_ids = Vec::new();
    for _ in 0..fields.word()? {
        event_ids.push(fields.text()?.to_owned());
    }
    let clock = Clock::restore(time, least.map(|least| Row { event_ids, least })).with_floor(fields.maybe()?);
    let (offset, hash) = (fields.maybe()?, fields.long()?);
    let tail = offset.map(|offset| Tail { offset, hash });
    let ended = fields.word()? == 1;
    let ledger = Ledger {
        read: fields.long()?,
        counted: fields.long()?,
        duplicate: fields.long()?,
        late: fields.long()?,
        future: fields.long()?,
        malformed: fields.long()?,
        oversize: fields.long()?,
    };
    fields
        .is_done()
        .then_some((partition, PartitionState { next_offset, tail, clock, ended, ledger, gaps: Vec::new() }))
}

fn put_gap(fields: &mut Fields, partition: PartitionId, gap: &Gap) {
    fields.word(partition.0).word(0).long(gap.wanted).long(gap.first).long(gap.from).maybe(gap.until);
}

fn take_gap(payload: &[u8]) -> Option<(PartitionId, Gap)> {
    let mut fields = FieldReader(payload);
    let (partition, zero) = (PartitionId(fields.word()?), fields.word()?);
    let gap = Gap { wanted: fields.long()?, first: fields.long()?, from: fields.long()?, until: fields.maybe()? };
    (zero == 0 && gap.wanted <= gap.first && fields.is_done()).then_some((partition, gap))
}

fn take_part(payload: &[u8], number: Option<u64>) -> Option<PartInfo> {
    let mut fields = FieldReader(payload);
    let name = fields.text()?.to_owned();
    let number = number.map_or_else(|| fields.long(), Some)?;
    let part = PartInfo { name, number, bytes: fields.long()?, hash: take_wide(&mut fields)? };
    fields.is_done().then_some(part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_comes_back_as_it_was_written() {
        let row = Row { event_ids: vec!["a".into(), "\u{e9}".into()], least: 9 };
        let state = |clock| PartitionState {
            next_offset: 17,
            tail: Some(Tail { offset: 16, hash: u64::MAX }),
            clock,
            ended: false,
            ledger: Ledger { read: 3, counted: 1, late: 2, ..Ledger::default() },
            gaps: vec![
                Gap { wanted: 3, first: 9, from: 1, until: Some(8) },
                Gap { wanted: 11, first: 17, from: 2, until: None },
            ],
        };
        let manifest = Manifest {
            version: Version { generation: 3, number: 99 },
            history: u128::MAX - 1,
            log: 1 << 100,
            key: IdKey([1, 2]),
            frontier: 600,
            watermark: 0,
            acknowledged: Version { generation: 2, number: 98 },
            meaning: Meaning::of(&Rules::default()),
            partitions: Partitions(
                [
                    (PartitionId(0), state(Clock::restore(Some(5), Some(row)).with_floor(Some(4)))),
                    (PartitionId(4), state(Clock::default())),
                ]
                .into(),
            ),
            hot: Hot { from: Minute(7), left: u64::MAX },
            parts: vec![PartInfo::of("a.part".into(), 98, b"bytes"), PartInfo::of("b.part".into(), 99, b"")],
        };
        assert_eq!(Manifest::decode(&manifest.encode()), Ok(manifest));
    }

    #[test]
    fn a_part_that_is_not_the_one_written_is_told_apart() {
        let part = PartInfo::of("a.part".into(), 1, b"bytes");
        assert!(part.matches(b"bytes") && !part.matches(b"byteS") && !part.matches(b"bytes "));
    }

    #[test]
    fn the_first_changed_setting_is_named() {
        let meaning = Meaning::of(&Rules::default());
        assert_eq!(meaning.difference(&meaning), None);
        let other = Meaning::of(&Rules { lateness_ms: 1_000, ..Rules::default() });
        assert_eq!(meaning.difference(&other), Some(("time.lateness", 600_000, 1_000)));
    }
}
