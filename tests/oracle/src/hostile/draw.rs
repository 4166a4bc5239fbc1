//! What is drawn at random, line by line.

use rand::RngExt;

use super::Stream;
use super::render::{self, Draft};
use crate::corpus::{self, Base, Case};
use crate::judge::{RECORD_BYTES_MAX, WINDOW_MS};
use crate::lines::is_blank;
use crate::well::uuid;

/// The year 2099.
pub(super) const FAR_FUTURE_MS: u64 = 4_070_908_800_000;

/// Video ids next to the hot one: twins, look-alikes and what other formats trip over.
const UNUSUAL_VIDEOS: [&str; 18] = [
    "caf\u{e9}",
    "cafe\u{301}",
    "v0000000 ",
    "V0000000",
    "ѵ0000000",
    "🎬",
    "水",
    "a\u{202e}b",
    "\u{200b}",
    "\u{feff}v0000000",
    "'; DROP TABLE stats_minute; --",
    "=1+1",
    "a,b;\"c\"",
    "back\\slash",
    "../../v",
    "a?b=c&d=%00#e",
    "v0000000\u{85}",
    "vvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvv",
];

const PLACE_OF_EVENT_ID: &str = "$event$";
const PLACE_OF_VIDEO_ID: &str = "$video$";
const PLACE_OF_TIMESTAMP: u64 = 1_234_567_890_987;

/// The lines of the corpus, with places for the ids and the stamp of an event.
pub(super) struct Forms {
    malformed: Vec<Vec<u8>>,
    odd: Vec<Vec<u8>>,
}

#[derive(Clone, Copy)]
enum Form {
    Malformed,
    Odd,
}

impl Forms {
    pub(super) fn new() -> Self {
        let base = Base { event_id: PLACE_OF_EVENT_ID, video_id: PLACE_OF_VIDEO_ID, timestamp_ms: PLACE_OF_TIMESTAMP };
        let is_line = |line: &[u8]| !line.contains(&b'\n') && !is_blank(line);
        let lines = corpus::cases(base).into_iter().filter(|(_, line, _)| is_line(line));
        let (malformed, odd): (Vec<_>, Vec<_>) = lines.partition(|(_, _, cause)| cause.is_some());
        let line = |(_, line, _): Case| line;
        Self { malformed: malformed.into_iter().map(line).collect(), odd: odd.into_iter().map(line).collect() }
    }
}

/// The line with every occurrence of a text replaced.
fn replaced(line: &[u8], from: &str, to: &str) -> Vec<u8> {
    let mut result = Vec::with_capacity(line.len() + to.len());
    let mut rest = line;
    while let Some(at) = rest.windows(from.len()).position(|window| window == from.as_bytes()) {
        result.extend_from_slice(&rest[..at]);
        result.extend_from_slice(to.as_bytes());
        rest = &rest[at + from.len()..];
    }
    result.extend_from_slice(rest);
    result
}

impl<F: FnMut(usize, &[u8])> Stream<'_, F> {
    pub(super) fn draw(&mut self) {
        let spec = self.spec;
        let mut dice = self.rng.random::<f64>();
        let mut falls_to = |share: f64| {
            dice -= share;
            dice < 0.0
        };
        if falls_to(spec.malformed_share) {
            self.malformed();
        } else if falls_to(spec.repeat_share) {
            self.repeat();
        } else if falls_to(spec.reuse_share) {
            self.reuse();
        } else if falls_to(spec.wild_share) {
            self.wild();
        } else if falls_to(spec.edge_share) {
            self.edge();
        } else if falls_to(spec.odd_share) {
            self.odd();
        } else {
            self.normal();
        }
    }

    pub(super) fn video(&mut self) -> String {
        if self.rng.random_bool(self.spec.hot_share) {
            return "v0000000".to_owned();
        }
        // The logarithm of the rank is uniform: close to Zipf's law.
        let rank = (self.spec.videos as f64).powf(self.rng.random::<f64>()) as usize;
        UNUSUAL_VIDEOS.get(rank - 1).map_or_else(|| format!("v{rank:07}"), |video| (*video).to_owned())
    }

    /// A new event of a video, stamped with the place in the stream.
    pub(super) fn draft_of(&mut self, video_id: String) -> Draft {
        self.serial += 1;
        let event_id = match self.rng.random_range(0..20) {
            0 => uuid(&mut self.rng).to_uppercase(),
            1 => format!("e{}", self.serial),
            2 => format!("{:0>128}", self.serial),
            3 => format!("é{}\u{1f3ac}\"\\", self.serial),
            _ => uuid(&mut self.rng),
        };
        let event_type = match self.rng.random_range(0..100) {
            0..78 => "view",
            78..92 => "like",
            92..97 => "share",
            97..99 => "a0_.-",
            _ => "view.hd",
        };
        let user = self.rng.random_range(0..5_000);
        Draft {
            event_id,
            event_type,
            timestamp_ms: self.local_ms(self.partition(&video_id)),
            video_id,
            user_id: self.rng.random_bool(0.7).then(|| format!("u{user}")),
            value: self.rng.random_bool(0.5).then(|| f64::from(self.rng.random_range(-100..10_000)) / 8.0),
        }
    }

    pub(super) fn draft(&mut self) -> Draft {
        let video_id = self.video();
        self.draft_of(video_id)
    }

    fn disorder_ms(&mut self) -> u64 {
        let lateness_ms = self.spec.lateness_ms;
        let most_ms = match self.rng.random_range(0..100) {
            0..70 => 5_000,
            70..90 => 60_000,
            90..98 => lateness_ms,
            _ => 3 * lateness_ms,
        };
        self.rng.random_range(0..=most_ms)
    }

    fn normal(&mut self) {
        let mut draft = self.draft();
        draft.timestamp_ms = draft.timestamp_ms.saturating_sub(self.disorder_ms());
        self.send_sane(draft);
    }

    /// The partition has a clock already, or gets one now.
    fn ensure_started(&mut self, draft: &Draft) {
        if self.greatest_ms[self.partition(&draft.video_id)].is_none() {
            let first = self.draft_of(draft.video_id.clone());
            self.send_sane(first);
        }
    }

    fn malformed(&mut self) {
        let draft = self.draft();
        let partition = self.partition(&draft.video_id);
        let line = self.malformed_line(&draft);
        self.emit(partition, &line);
        if self.rng.random_bool(0.3) {
            self.send_sane(draft); // the good copy of a bad first one
        }
    }

    /// A malformed form of the event: from the corpus, or cut short.
    pub(super) fn malformed_line(&mut self, draft: &Draft) -> Vec<u8> {
        if self.rng.random_bool(0.3) {
            let mut line = render::render(&mut self.rng, draft);
            let brace = line.iter().rposition(|byte| *byte == b'}').expect("an object ends");
            let start = line.iter().position(|byte| *byte == b'{').expect("an object starts");
            line.truncate(self.rng.random_range(start + 1..=brace));
            return line;
        }
        self.corpus_line(draft, Form::Malformed)
    }

    fn corpus_line(&mut self, draft: &Draft, form: Form) -> Vec<u8> {
        let forms = match form {
            Form::Malformed => &self.corpus.malformed,
            Form::Odd => &self.corpus.odd,
        };
        let line = forms[self.rng.random_range(0..forms.len())].clone();
        // The placeholders stand inside JSON strings; what needs an escape there is replaced.
        let plain = |id: &str| id.replace(['"', '\\'], "_");
        let line = replaced(&line, PLACE_OF_EVENT_ID, &plain(&draft.event_id));
        let line = replaced(&line, PLACE_OF_VIDEO_ID, &plain(&draft.video_id));
        replaced(&line, &PLACE_OF_TIMESTAMP.to_string(), &draft.timestamp_ms.to_string())
    }

    /// A good event of unusual form; it goes where its video belongs, which some forms change.
    fn odd(&mut self) {
        let draft = self.draft();
        let line = self.corpus_line(&draft, Form::Odd);
        let event = crate::decode(&line).expect("the corpus says so");
        let own = Draft { video_id: event.video_id, ..draft };
        self.ensure_started(&own);
        self.emit(self.partition(&own.video_id), &line);
    }

    /// The index of a kept line: half of them young, a quarter about as old as what is being forgotten, the others of the last hour.
    fn pick_recent(&mut self) -> Option<usize> {
        let now_ms = self.now_ms;
        let outdated = self.recent.partition_point(|sent| sent.sent_ms + 3_600_000 < now_ms);
        self.recent.drain(..outdated);
        let forgotten_ms = self.spec.lateness_ms + WINDOW_MS;
        let (oldest_ms, youngest_ms) = match self.rng.random_range(0..4) {
            0 | 1 => (WINDOW_MS, 0),
            2 => (forgotten_ms + WINDOW_MS, forgotten_ms - 2 * WINDOW_MS),
            _ => (3_600_000, 0),
        };
        let from = self.recent.partition_point(|sent| sent.sent_ms + oldest_ms < now_ms);
        let to = self.recent.partition_point(|sent| sent.sent_ms + youngest_ms <= now_ms);
        (from < to).then(|| self.rng.random_range(from..to))
    }

    fn repeat(&mut self) {
        let Some(index) = self.pick_recent() else {
            return self.normal();
        };
        let sent = &self.recent[index];
        let (partition, line) = (self.partition(&sent.draft.video_id), sent.line.clone());
        self.emit(partition, &line);
    }

    /// An id once more, but not the same event.
    fn reuse(&mut self) {
        let Some(index) = self.pick_recent() else {
            return self.normal();
        };
        let former = self.recent[index].draft.clone();
        let fresh = self.draft_of(former.video_id.clone());
        let draft = match self.rng.random_range(0..7) {
            0 => Draft { event_id: former.event_id, ..self.draft() }, // in another video
            1 => Draft { event_type: "like", ..former },
            2 => Draft { event_id: former.event_id.to_uppercase(), ..former },
            3 if former.event_id.len() < 128 => Draft { event_id: former.event_id.clone() + " ", ..former },
            4 => Draft { timestamp_ms: former.timestamp_ms.saturating_sub(self.disorder_ms()), ..former },
            5 => former, // the same event, written in another way
            _ => Draft { event_id: former.event_id, ..fresh },
        };
        self.ensure_started(&draft);
        self.send(draft);
    }

    fn wild(&mut self) {
        let draft = self.draft();
        self.ensure_started(&draft);
        let beyond_ms = self.rng.random_range(0..1_000_000);
        let timestamp_ms = match self.rng.random_range(0..6) {
            0 => FAR_FUTURE_MS + beyond_ms,
            1 => draft.timestamp_ms / 1_000, // seconds
            2 => 0,
            3 => 253_402_300_799_999,
            4 => draft.timestamp_ms + self.spec.max_jump_ms + 2 * WINDOW_MS, // just beyond reach
            _ => draft.timestamp_ms.saturating_sub(24 * 3_600_000),
        };
        self.send(Draft { timestamp_ms, ..draft });
    }

    fn edge(&mut self) {
        let draft = self.draft();
        self.ensure_started(&draft);
        let greatest_ms = self.greatest_ms[self.partition(&draft.video_id)].expect("the partition has started");
        let late_ms = greatest_ms.saturating_sub(self.spec.lateness_ms).max(1);
        let window_ms = greatest_ms - greatest_ms % WINDOW_MS;
        let edges = [late_ms - 1, late_ms, late_ms + 1, window_ms.max(1) - 1, window_ms, window_ms + WINDOW_MS - 1];
        let timestamp_ms = edges[self.rng.random_range(0..edges.len())];
        self.send_sane(Draft { timestamp_ms, ..draft });
    }

    pub(super) fn oversize(&mut self, index: u64) {
        let bytes = [RECORD_BYTES_MAX + 1, RECORD_BYTES_MAX + 1_000, 2 * RECORD_BYTES_MAX][(index % 3) as usize];
        let draft = self.draft();
        self.padded(&draft, bytes);
        self.send_sane(draft); // the good copy of a refused first one
    }

    pub(super) fn full_size(&mut self) {
        let draft = self.draft();
        self.ensure_started(&draft);
        self.padded(&draft, RECORD_BYTES_MAX);
    }

    /// Sends a good event that is made longer by a member of no meaning.
    fn padded(&mut self, draft: &Draft, bytes: usize) {
        let mut line = render::render(&mut self.rng, draft);
        let brace = line.iter().rposition(|byte| *byte == b'}').expect("an object ends");
        line.truncate(brace);
        line.extend_from_slice(b",\"padding\":\"");
        line.resize(bytes - 2, b'x');
        line.extend_from_slice(b"\"}");
        self.emit(self.partition(&draft.video_id), &line);
    }
}
