//! Planned scenes about the jump rule. Each is a row of lines in one partition, with nothing between them.

use rand::RngExt;

use super::draw::FAR_FUTURE_MS;
use super::render::Draft;
use super::{Jumps, Stream};

pub(super) const COUNT: u64 = 10;

impl<F: FnMut(usize, &[u8])> Stream<'_, F> {
    pub(super) fn scene(&mut self, scene: u64) {
        let video_id = self.video();
        self.within_reach(&video_id);
        match scene {
            0 => self.far_row(&video_id, 1),
            1 => self.far_row(&video_id, 15),
            2 => self.moved(&video_id, |stream, video_id, at_ms| stream.row(video_id, 16, at_ms)),
            3 => self.moved(&video_id, |stream, video_id, at_ms| stream.row(video_id, 17, at_ms)),
            4 => self.sixteen_events_of_fifteen_ids(&video_id),
            5 => {
                self.far_row(&video_id, 15);
                self.within_reach(&video_id);
                self.far_row(&video_id, 15);
            }
            6 => self.moved(&video_id, Self::interleaved_with_the_refused),
            7 => self.moved(&video_id, |stream, video_id, at_ms| {
                // The least comes last, and the others are out of its reach.
                stream.row(video_id, 15, at_ms + 3 * stream.spec.max_jump_ms);
                stream.row(video_id, 1, at_ms);
            }),
            8 => {
                // A stamp far ahead, sent once and then repeated word for word, confirms nothing.
                let wild = self.draft_of(video_id.clone());
                for _ in 0..20 {
                    self.send(Draft { timestamp_ms: FAR_FUTURE_MS, ..wild.clone() });
                }
            }
            _ => self.moved(&video_id, |stream, video_id, at_ms| {
                stream.row(video_id, 15, at_ms);
                stream.late_by_a_day(video_id);
                stream.row(video_id, 1, at_ms);
            }),
        }
        self.within_reach(&video_id);
    }

    /// An event at the partition's place in the stream: it ends a row, and sets a clock where there is none.
    fn within_reach(&mut self, video_id: &str) {
        let draft = self.draft_of(video_id.to_owned());
        self.send_sane(draft);
    }

    /// Distinct ids from the given time on, within half a minute.
    fn row(&mut self, video_id: &str, count: usize, from_ms: u64) {
        for _ in 0..count {
            let draft = self.draft_of(video_id.to_owned());
            let timestamp_ms = from_ms + self.rng.random_range(0..30_000);
            self.send(Draft { timestamp_ms, ..draft });
        }
    }

    fn far_row(&mut self, video_id: &str, count: usize) {
        self.row(video_id, count, FAR_FUTURE_MS);
    }

    /// Plays a scene that moves the clock just beyond its reach, and lets the partition go on from there.
    fn moved(&mut self, video_id: &str, play: impl FnOnce(&mut Self, &str, u64)) {
        if self.spec.jumps == Jumps::None {
            return;
        }
        let partition = self.partition(video_id);
        let ahead_ms = self.spec.max_jump_ms + 60_000;
        let at_ms = self.local_ms(partition) + ahead_ms;
        play(self, video_id, at_ms);
        self.offset_ms[partition] += ahead_ms;
    }

    fn sixteen_events_of_fifteen_ids(&mut self, video_id: &str) {
        let first = self.draft_of(video_id.to_owned());
        self.send(Draft { timestamp_ms: FAR_FUTURE_MS, ..first.clone() });
        self.far_row(video_id, 14);
        self.send(Draft { timestamp_ms: FAR_FUTURE_MS - 60_000, ..first });
    }

    /// What is malformed or late neither ends the row nor confirms it.
    fn interleaved_with_the_refused(&mut self, video_id: &str, at_ms: u64) {
        let partition = self.partition(video_id);
        for _ in 0..16 {
            let draft = self.draft_of(video_id.to_owned());
            let bad = self.malformed_line(&draft);
            self.emit(partition, &bad);
            self.late_by_a_day(video_id);
            self.row(video_id, 1, at_ms);
        }
    }

    /// An event so old that it is late to any clock of the stream.
    fn late_by_a_day(&mut self, video_id: &str) {
        let draft = self.draft_of(video_id.to_owned());
        let timestamp_ms = draft.timestamp_ms.saturating_sub(24 * 3_600_000);
        self.send(Draft { timestamp_ms, ..draft });
    }
}
