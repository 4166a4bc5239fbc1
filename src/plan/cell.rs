//! What is known of one window beside its count, in memory and in a checkpoint, by how many events are expected in it.
//!
//! Users and values are spread as `tidemark produce` spreads them: a million users, seconds from 0 to 600. Other values take other bins, but
//! never more than [`BINS`] for each power of two that they span.

use dataflows::functions::{Kept, distinct::EXACT_MAX};

use super::{load::any, measured};

/// Different users.
const USERS: f64 = 1e6;

/// Bytes of a sketch, in place of the list of users.
const SKETCH_BYTES: f64 = 16_384.0;

/// Bins of one power of two (`functions/quantiles.rs`).
const BINS: f64 = 64.0;

/// Values are tenths below this.
const VALUES_END: f64 = 600.0;

/// What a window is expected to list.
#[derive(Copy, Clone, Debug, PartialEq)]
struct Lists {
    /// Eight bytes each.
    users: f64,
    /// Values fall into so many bins.
    bins: f64,
}

impl Lists {
    fn of(events: f64, kept: Kept) -> Self {
        let users = USERS * any(events / USERS);
        let users = if users <= EXACT_MAX as f64 { users } else { SKETCH_BYTES / 8.0 };
        Self { users: if kept.distinct { users } else { 0.0 }, bins: if kept.quantiles { bins(events) } else { 0.0 } }
    }
}

/// How many bins are expected to hold any of so many values: of each power of two half as many are in half as wide bins.
fn bins(events: f64) -> f64 {
    let octave = |power: i32| {
        let (from, to) = (2_f64.powi(power), 2_f64.powi(power + 1).min(VALUES_END));
        // Below 6.4 there are fewer tenths than bins.
        let width = (from / BINS).max(0.1);
        (to - from) / width * any(events * width / VALUES_END)
    };
    (0..10).map(octave).sum::<f64>() + 10.0 * any(events / VALUES_END / 10.0)
}

/// How likely it is that a window has one event, and that is all that is kept of it.
fn just_one(events: f64, kept: Kept) -> f64 {
    if kept == Kept::ALL { events * (-events).exp() } else { 0.0 }
}

/// How likely it is that there is more to keep than that `one`, and what it lists.
fn of_more(events: f64, kept: Kept, one: f64) -> (f64, Lists) {
    let Lists { users, bins } = Lists::of(events, kept);
    (any(events) - one, Lists { users: users - one, bins: bins - one })
}

/// Bytes in a checkpoint of the functions of one window with so many events, given that there are any: all that
/// `Stats::encode` writes, with the series and the minute before it.
pub fn stored_bytes(events: f64, kept: Kept) -> f64 {
    if !kept.any() {
        return 0.0;
    }
    let one = just_one(events, kept);
    let (there, Lists { users, bins }) = of_more(events, kept, one);
    let group = |is_kept: bool, bytes: f64| if is_kept { bytes * there } else { 0.0 };
    measured::STORED_ONE_BYTES * one
        + 12.0 * there
        + group(kept.values, measured::STORED_VALUES_BYTES)
        + group(kept.distinct, 12.0)
        + group(kept.quantiles, 12.0)
        + 8.0 * users
        + 12.0 * bins
}

/// Bytes in memory of the same, beside the map: its place in the index, what is of one size, and lists that grow by doubling.
pub fn heap_bytes(events: f64, kept: Kept) -> f64 {
    if !kept.any() {
        return 0.0;
    }
    let (there, Lists { users, bins }) = of_more(events, kept, just_one(events, kept));
    // The first entry has exactly the room that it needs.
    let doubled = |entries: f64| entries + (entries - there).max(0.0) * (measured::LIST_SLACK - 1.0);
    let lists = 8.0 * if kept.distinct { doubled(users) } else { 0.0 }
        + 16.0 * if kept.quantiles { doubled(bins) } else { 0.0 };
    measured::STATS_PLACE_BYTES * any(events) + measured::STATS_BYTES * there + lists
}

#[cfg(test)]
mod tests {
    use dataflows::{
        checkpoint::frame::Fields,
        functions::stats::{Detail, Stats},
    };

    use super::*;

    /// The bytes of windows with exactly so many events each, users and values as `produce` draws them.
    fn encoded(events: u64, windows: u64) -> f64 {
        let mut draw = 7_u64;
        let mut next = move |below: u64| {
            draw = draw.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (draw >> 33) % below
        };
        let mut bytes = 0;
        for _ in 0..windows {
            let mut stats = Stats::default();
            for _ in 0..events {
                let (user, value) = (next(1_000_000), next(6_001) as f64 / 10.0);
                stats.add(Detail { kept: Kept::ALL, value: Some(value), user: Some(user) });
            }
            let mut fields = Fields::default();
            stats.encode(&mut fields);
            bytes += 8 + fields.0.len();
        }
        bytes as f64 / windows as f64
    }

    #[test]
    fn the_bytes_of_a_window_are_those_of_the_format() {
        // With this many expected there are as many, about.
        for (events, windows) in [(20, 200), (200, 20), (1_500, 5), (10_000, 1)] {
            let (expect, counted) = (stored_bytes(events as f64, Kept::ALL), encoded(events, windows));
            assert!((expect / counted - 1.0).abs() < 0.03, "{events} events: {expect} and {counted}");
        }
    }

    #[test]
    fn what_is_not_kept_takes_nothing_and_more_events_never_less() {
        assert_eq!((stored_bytes(5.0, Kept::NONE), heap_bytes(5.0, Kept::NONE)), (0.0, 0.0));
        let mut before = 0.0;
        for events in [0.001, 0.1, 1.0, 10.0, 1_000.0, 100_000.0] {
            let bytes = heap_bytes(events, Kept::ALL);
            assert!(before < bytes, "{events}: {bytes}");
            before = bytes;
        }
        let values = Kept { values: true, ..Kept::NONE };
        assert!(stored_bytes(10.0, values) < stored_bytes(10.0, Kept::ALL) / 2.0);
    }
}
