//! A seeded hostile stream: everything that producers have ever done wrong, together, and mostly well-formed events between it.
//!
//! Lines go to partitions by video, so all copies of an id stay in one partition. No partition begins with a wild stamp, since its first
//! event sets the clock; from then on anything may come. `scenes` are the planned ones, the rest is drawn.

mod draw;
mod render;
mod scenes;

use std::collections::VecDeque;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::judge::WINDOW_MS;
use crate::lines::is_blank;
use crate::partition::partition_of;
use render::Draft;

/// What [`hostile`] makes. Shares are of the lines drawn; they leave room for normal events.
#[derive(Clone, Debug, PartialEq)]
pub struct Spec {
    /// Lines drawn. The planned scenes and the lines of great size come on top: some 200 more.
    pub events: u64,
    pub partitions: usize,
    pub videos: usize,
    pub start_ms: u64,
    /// The event time that the lines are spread over, not counting the jumps.
    pub span_ms: u64,
    /// The share of the first video.
    pub hot_share: f64,
    pub malformed_share: f64,
    /// Verbatim repeats, up to an hour of event time later.
    pub repeat_share: f64,
    /// Ids used again under another time, type or video.
    pub reuse_share: f64,
    /// Lone stamps of the year 2099, of the epoch, or in seconds.
    pub wild_share: f64,
    /// Stamps at the edges of lateness and of windows.
    pub edge_share: f64,
    /// Good events of unusual form, from the corpus.
    pub odd_share: f64,
    /// Lines over the limit.
    pub oversize: u64,
    /// Lines of exactly the limit.
    pub full_size: u64,
    /// Jump by two hours in the middle, and let some partitions jump alone.
    pub jumps: Jumps,
    /// The settings that the edges are laid at.
    pub lateness_ms: u64,
    pub max_jump_ms: u64,
}

/// Whether event time ever leaps by more than the reach of the clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Jumps {
    Some,
    None,
}

impl Default for Spec {
    fn default() -> Self {
        Self {
            events: 100_000,
            partitions: 4,
            videos: 2_000,
            start_ms: 1_767_225_600_000,
            span_ms: 4 * 3_600_000,
            hot_share: 0.4,
            malformed_share: 0.02,
            repeat_share: 0.06,
            reuse_share: 0.03,
            wild_share: 0.005,
            edge_share: 0.03,
            odd_share: 0.01,
            oversize: 3,
            full_size: 1,
            jumps: Jumps::Some,
            lateness_ms: 600_000,
            max_jump_ms: 3_600_000,
        }
    }
}

/// The lines of each partition, without newlines; none is blank.
pub fn hostile(seed: u64, spec: &Spec) -> Vec<Vec<Vec<u8>>> {
    let mut partitions = vec![Vec::new(); spec.partitions];
    hostile_each(seed, spec, |partition, line| partitions[partition].push(line.to_vec()));
    partitions
}

/// The same lines one at a time, in the order in which they were sent.
pub fn hostile_each(seed: u64, spec: &Spec, sink: impl FnMut(usize, &[u8])) {
    let mut stream = Stream::new(seed, spec, sink);
    let at = |count: u64, index: u64| spec.events * (index + 1) / (count + 1);
    for index in 0..spec.events {
        stream.now_ms = stream.place_ms(index);
        for scene in (0..scenes::COUNT).filter(|scene| at(scenes::COUNT, *scene) == index) {
            stream.scene(scene);
        }
        for size in (0..spec.oversize).filter(|size| at(spec.oversize, *size) == index) {
            stream.oversize(size);
        }
        for _ in (0..spec.full_size).filter(|size| at(spec.full_size, *size) == index) {
            stream.full_size();
        }
        stream.draw();
    }
}

/// A line that may be repeated, or its ids used again.
struct Sent {
    sent_ms: u64,
    draft: Draft,
    line: Vec<u8>,
}

/// So many lines of an hour are kept for repeats, drawn evenly.
const KEPT_PER_HOUR: f64 = 20_000.0;

struct Stream<'a, F> {
    spec: &'a Spec,
    rng: ChaCha8Rng,
    sink: F,
    /// The place in the stream, before the offset of a partition.
    now_ms: u64,
    /// How far a partition has jumped alone.
    offset_ms: Vec<u64>,
    /// The greatest stamp of a partition that was meant to be sane; none before its first event.
    greatest_ms: Vec<Option<u64>>,
    /// By `sent_ms`, of the last hour.
    recent: VecDeque<Sent>,
    keep_share: f64,
    serial: u64,
    corpus: draw::Forms,
}

impl<'a, F: FnMut(usize, &[u8])> Stream<'a, F> {
    fn new(seed: u64, spec: &'a Spec, sink: F) -> Self {
        let per_hour = spec.events as f64 * 3_600_000.0 / spec.span_ms.max(1) as f64;
        Self {
            spec,
            rng: ChaCha8Rng::seed_from_u64(seed),
            sink,
            now_ms: spec.start_ms,
            offset_ms: vec![0; spec.partitions],
            greatest_ms: vec![None; spec.partitions],
            recent: VecDeque::new(),
            keep_share: (KEPT_PER_HOUR / per_hour).min(1.0),
            serial: 0,
            corpus: draw::Forms::new(),
        }
    }

    fn place_ms(&self, index: u64) -> u64 {
        let passed_ms = u128::from(self.spec.span_ms) * u128::from(index) / u128::from(self.spec.events);
        let jump_ms = if self.spec.jumps == Jumps::Some && self.spec.events <= index * 2 { 2 * 3_600_000 } else { 0 };
        self.spec.start_ms + jump_ms + u64::try_from(passed_ms).expect("less than the span")
    }

    fn partition(&self, video_id: &str) -> usize {
        partition_of(video_id, self.spec.partitions)
    }

    /// The place in the stream as a partition sees it.
    fn local_ms(&self, partition: usize) -> u64 {
        self.now_ms + self.offset_ms[partition]
    }

    fn emit(&mut self, partition: usize, line: &[u8]) {
        assert!(!line.contains(&b'\n') && !is_blank(line), "a line is one line");
        (self.sink)(partition, line);
    }

    /// Renders a well-formed event, sends it, and may keep it for repeats.
    ///
    /// A stamp somewhat ahead is not kept: repeated an hour later it would be within reach, and would truly move the clock.
    fn send(&mut self, draft: Draft) {
        let line = render::render(&mut self.rng, &draft);
        let partition = self.partition(&draft.video_id);
        self.emit(partition, &line);
        let local_ms = self.local_ms(partition);
        let is_somewhat_ahead =
            (local_ms + WINDOW_MS..draw::FAR_FUTURE_MS / 2 + local_ms / 2).contains(&draft.timestamp_ms);
        if !is_somewhat_ahead && self.rng.random_bool(self.keep_share) {
            self.recent.push_back(Sent { sent_ms: self.now_ms, draft, line });
        }
    }

    /// Sends an event whose stamp is meant to be sane.
    fn send_sane(&mut self, draft: Draft) {
        let greatest_ms = &mut self.greatest_ms[partition_of(&draft.video_id, self.spec.partitions)];
        *greatest_ms = (*greatest_ms).max(Some(draft.timestamp_ms));
        self.send(draft);
    }
}

#[cfg(test)]
mod tests;
