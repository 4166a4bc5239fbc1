//! The parts that a checkpoint consists of, and their merging: each checkpoint adds one part per worker, so now and then
//! the older ones become one, on a thread of its own. Checkpoints go on meanwhile, and the first after it names the result.

use std::thread;

use anyhow::Context as _;
use crossbeam_channel::{Receiver, TryRecvError, bounded};
use dataflows::{
    checkpoint::{
        fold::Fold,
        manifest::{Manifest, PartInfo},
        plan,
    },
    port::{CheckpointStore, Version},
    rules::Rules,
    time::Minute,
};

use crate::exit::Failure;

/// So many parts are merged, however small the newer ones are: a start opens each.
pub const PARTS_MAX: usize = 256;

/// Fewer are not, however large the newer ones are.
pub const PARTS_MIN: usize = 16;

/// Opens the checkpoint store once more.
pub type OpenStore = Box<dyn Fn() -> Result<Box<dyn CheckpointStore>, Failure> + Send>;

/// The parts of the newest checkpoint, oldest first.
pub struct Chain {
    parts: Vec<PartInfo>,
    open: OpenStore,
    merging: Option<Merging>,
}

/// A merge under way.
struct Merging {
    /// How many parts it takes the place of: the first ones.
    of: usize,
    done: Receiver<anyhow::Result<PartInfo>>,
}

impl Chain {
    /// The parts of the checkpoint that is resumed.
    pub fn new(parts: Vec<PartInfo>, open: OpenStore) -> Self {
        Self { parts, open, merging: None }
    }

    /// The parts of the next checkpoint: what is merged by now, and these.
    pub fn and(&mut self, news: impl Iterator<Item = PartInfo>) -> Vec<PartInfo> {
        self.take_merged();
        self.parts.iter().cloned().chain(news).collect()
    }

    /// These are committed.
    pub fn set(&mut self, parts: &[PartInfo]) {
        parts.clone_into(&mut self.parts);
    }

    /// Whether a part is in the making, or made, that no manifest names.
    pub fn is_merging(&self) -> bool {
        self.merging.is_some()
    }

    /// Starts a merge where that pays: of the parts whose rows are written.
    pub fn merge_where_worthwhile(&mut self, newest: &Manifest, acknowledged: Version, rules: &Rules) {
        let of = worth_merging(&self.parts, acknowledged.number);
        if of == 0 || self.merging.is_some() {
            return;
        }
        let parts = self.parts[..of].to_vec();
        let name = format!("{:020}-{:020}.merged.part", newest.version.generation, newest.version.number);
        let first = newest.partitions.first_remembered(newest.frontier, rules);
        match self.spawn(parts, name, Kept { ids_from: first, windows_from: newest.hot.from }) {
            Ok(done) => self.merging = Some(Merging { of, done }),
            Err(error) => tracing::warn!(error = format!("{error:#}"), "no parts are merged now"),
        }
    }

    fn spawn(
        &self,
        parts: Vec<PartInfo>,
        name: String,
        kept: Kept,
    ) -> anyhow::Result<Receiver<anyhow::Result<PartInfo>>> {
        let mut store = (self.open)().map_err(|failure| failure.error)?;
        let (tell, done) = bounded(1);
        let merge = move || {
            // The receiver is only gone with the process.
            let _ = tell.send(merge(&mut *store, &parts, name, kept));
        };
        thread::Builder::new().name("merge".to_owned()).spawn(merge).context("starting a thread")?;
        Ok(done)
    }

    fn take_merged(&mut self) {
        let Some(merging) = &self.merging else { return };
        match merging.done.try_recv() {
            Err(TryRecvError::Empty) => return,
            Ok(Ok(merged)) => {
                tracing::debug!(name = merged.name, parts = merging.of, bytes = merged.bytes, "parts are merged");
                self.parts.splice(..merging.of, [merged]);
            }
            Ok(Err(error)) => tracing::error!(error = format!("{error:#}"), "parts can't be merged"),
            Err(TryRecvError::Disconnected) => tracing::error!("merging ended without a word"),
        }
        self.merging = None;
    }
}

/// How many of the first parts are worth merging: all that are acknowledged, once the newer ones together are as large as
/// the first, or there are very many.
fn worth_merging(parts: &[PartInfo], acknowledged: u64) -> usize {
    let done = parts.iter().take_while(|part| part.number <= acknowledged).count();
    let Some((base, newer)) = parts[..done].split_first() else { return 0 };
    let newer: u64 = newer.iter().map(|part| part.bytes).sum();
    let pays = PARTS_MAX <= done || (PARTS_MIN <= done && base.bytes <= newer);
    if pays { done } else { 0 }
}

/// What of the parts still stands.
#[derive(Copy, Clone, Debug)]
struct Kept {
    /// Ids of windows before this are forgotten.
    ids_from: Minute,
    /// Windows before this have left memory.
    windows_from: Minute,
}

/// Writes what these parts come to.
fn merge(store: &mut dyn CheckpointStore, parts: &[PartInfo], name: String, kept: Kept) -> anyhow::Result<PartInfo> {
    let mut fold = Fold::default();
    for part in parts {
        fold.add(plan::read_part(store, part).with_context(|| format!("reading {}", part.name))?);
    }
    let mut state = fold.finish();
    state.forget(kept.ids_from);
    state.keep_from(kept.windows_from);
    state.mark_written();
    state.letters.clear();
    let number = parts.last().map_or(0, |part| part.number);
    plan::write_part(store, &name, number, &state).with_context(|| format!("writing {name}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(sizes: &[usize]) -> Vec<PartInfo> {
        let part = |(number, size): (u64, &usize)| PartInfo::of(format!("p{number}"), number, &vec![0; *size]);
        (1..).zip(sizes).map(part).collect()
    }

    #[test]
    fn parts_are_merged_once_the_newer_ones_are_as_large_as_the_first_or_there_are_very_many() {
        let with = |base: usize, newer: usize| parts(&[&[base][..], &vec![1; newer]].concat());
        let rows = [
            (with(20, 19), 20, 0),
            (with(20, 20), 21, 21),
            (with(20, 20), 20, 0),
            (with(20, 25), 22, 22),
            (with(1, 14), 100, 0),
            (with(1, 15), 100, 16),
            (with(10_000, 254), 1_000, 0),
            (with(10_000, 255), 1_000, 256),
            (Vec::new(), 5, 0),
        ];
        for (number, (parts, acknowledged, merged)) in rows.into_iter().enumerate() {
            assert_eq!(worth_merging(&parts, acknowledged), merged, "row {number}");
        }
    }
}
