//! All arithmetic on time: event times, one-minute windows and steps of stream time.
//!
//! Event time and stream time are milliseconds since the Unix epoch, UTC. A window is named by its minute.

use serde::{Deserialize, Serialize};

/// Milliseconds since the Unix epoch. Also the timely time: stream time is measured on the same axis.
///
/// An alias and not a newtype, since a timely time would owe a dozen trait implementations.
pub type EventTime = u64;

/// The last millisecond of the year 9999: the greatest event time.
pub const EVENT_TIME_MAX: EventTime = 253_402_300_799_999;

/// The watermark of an input that has ended: every window is final.
pub const END_OF_TIME: EventTime = EventTime::MAX;

/// The width of a window, ms.
pub const MINUTE_MS: u64 = 60_000;

/// A tumbling one-minute window `[start, start + 60 s)`, by its number since the epoch.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Minute(pub u32);

impl Minute {
    /// After every window that there can be.
    pub const LAST: Self = Self(u32::MAX);

    /// The window that holds `event_time`, at most [`EVENT_TIME_MAX`].
    #[inline]
    pub fn of(event_time: EventTime) -> Self {
        debug_assert!(event_time <= EVENT_TIME_MAX, "event times end with the year 9999");
        Self((event_time / MINUTE_MS) as u32)
    }

    /// The first millisecond of the window.
    #[inline]
    pub fn start(self) -> EventTime {
        u64::from(self.0) * MINUTE_MS
    }

    /// The first millisecond after the window.
    #[inline]
    pub fn end(self) -> EventTime {
        (u64::from(self.0) + 1) * MINUTE_MS
    }

    /// Whether the window can change no more: the watermark has reached its end.
    #[inline]
    pub fn is_final(self, watermark: EventTime) -> bool {
        self.end() <= watermark
    }
}

/// The greatest multiple of `step_ms` at or before `time`.
#[inline]
pub fn floor_to(time: EventTime, step_ms: u64) -> EventTime {
    time - time % step_ms
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_holds_its_start_and_not_its_end() {
        assert_eq!(Minute::of(59_999), Minute(0));
        assert_eq!(Minute::of(60_000), Minute(1));
        assert_eq!((Minute(1).start(), Minute(1).end()), (60_000, 120_000));
        assert!(Minute(0).is_final(60_000) && !Minute(0).is_final(59_999));
    }

    #[test]
    fn the_last_year_fits_a_minute_number() {
        assert_eq!(u64::from(Minute::of(EVENT_TIME_MAX).0), EVENT_TIME_MAX / MINUTE_MS);
    }
}
