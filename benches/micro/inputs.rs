//! Seeded inputs, the same in every run: events as `tidemark produce` writes them, and what becomes of them further in.

use dataflows::{
    dedup::RememberedId,
    functions::{
        Kept,
        stats::{Detail, Stats},
    },
    identity::{KEY_GROUPS, KeyGroup},
    series::SeriesNo,
    time::Minute,
};
use rand::{RngExt as _, SeedableRng as _, distr::Distribution as _, seq::SliceRandom as _};
use rand_chacha::ChaCha8Rng;
use rand_distr::Zipf;

/// The window that inputs begin with: midnight of 2026-01-01.
pub const FIRST: Minute = Minute(29_453_760);

/// Events of one step, about as many as travel at one time.
pub const STEP_EVENTS: usize = 65_536;

const VIDEOS: f64 = 20_000.0;
const TYPES: [&str; 4] = ["view", "like", "share", "comment"];
const USERS: u32 = 1_000_000;

pub fn dice(seed: u64) -> ChaCha8Rng {
    ChaCha8Rng::seed_from_u64(seed)
}

/// A video's number: some have most of the events.
fn video(dice: &mut ChaCha8Rng) -> u32 {
    Zipf::new(VIDEOS, 1.1).expect("a skew above one has a sum").sample(dice) as u32 - 1
}

/// One event, as the fields of its line in the producer's own order.
pub fn fields(dice: &mut ChaCha8Rng) -> [String; 6] {
    let id: u128 = dice.random();
    let [a, b, c, d, e] = [96, 80, 64, 48, 0].map(|shift| id >> shift);
    let id = format!("{a:08x}-{:04x}-{:04x}-{:04x}-{:012x}", b & 0xFFFF, c & 0xFFFF, d & 0xFFFF, e & 0xFFFF_FFFF_FFFF);
    let tenths = dice.random_range(0..=3_000);
    [
        format!(r#""event_id":"{id}""#),
        format!(r#""video_id":"v{:07}""#, video(dice)),
        format!(r#""event_type":"{}""#, TYPES[dice.random_range(0..TYPES.len())]),
        format!(r#""timestamp":{}"#, FIRST.start() + dice.random_range(0..3_600_000)),
        format!(r#""user_id":"u{}""#, dice.random_range(0..USERS)),
        format!(r#""value":{}.{}"#, tenths / 10, tenths % 10),
    ]
}

/// The same fields in any order.
pub fn shuffled(dice: &mut ChaCha8Rng) -> [String; 6] {
    let mut fields = fields(dice);
    fields.shuffle(dice);
    fields
}

/// Identities of one window that nobody has seen yet, each with its group.
pub fn ids(dice: &mut ChaCha8Rng, count: usize, minute: Minute) -> Vec<(KeyGroup, RememberedId)> {
    let id = |dice: &mut ChaCha8Rng| {
        let group = KeyGroup(dice.random_range(0..KEY_GROUPS) as u8);
        (group, RememberedId { id: [dice.random(), dice.random()], minute })
    };
    (0..count).map(|_| id(dice)).collect()
}

/// The series of so many events.
pub fn series(dice: &mut ChaCha8Rng, count: usize) -> Vec<SeriesNo> {
    let one = |dice: &mut ChaCha8Rng| SeriesNo(video(dice) * TYPES.len() as u32 + dice.random_range(0..4));
    (0..count).map(|_| one(dice)).collect()
}

/// All functions of so many events of one window.
pub fn stats(dice: &mut ChaCha8Rng, events: u64) -> Stats {
    let mut stats = Stats::default();
    for _ in 0..events {
        let value = Some(f64::from(dice.random_range(0..3_000)) / 10.0);
        stats.add(Detail { kept: Kept::ALL, value, user: Some(dice.random_range(1..u64::MAX)) });
    }
    stats
}
