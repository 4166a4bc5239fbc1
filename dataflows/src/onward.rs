//! How stream time goes on while there is nothing to read, where quiet partitions hold nobody back.
//!
//! While all partitions are drained, their pace goes on with the monotonic time elapsed, from where they stood when the last
//! one was; but only if the greatest clock was within the lateness of the wall clock by then. So the newest windows become
//! final without another event, and history that is fed in pieces is not behind its own beginning.
//!
//! Where time stands still after all, it makes one step when a checkpoint has made more windows final than were announced.

use crate::{
    board::Board,
    control::{Cut, Facts},
    port::Timer,
    rules::{Quiet, Rules},
    time::{EventTime, MINUTE_MS},
};

/// The pace of drained partitions, as one worker sees it.
#[derive(Debug, Default)]
pub struct Onward {
    anchor: Option<Anchor>,
}

/// Where all partitions were drained.
#[derive(Debug)]
struct Anchor {
    /// Just past the greatest time in use: another record moves it.
    past: EventTime,
    /// The greatest pace.
    pace: EventTime,
    since_ms: u64,
    is_present: bool,
}

impl Onward {
    /// The time that drained partitions may step to.
    pub fn pace(&mut self, board: &Board, at: (&Facts, Cut), rules: &Rules, timer: &dyn Timer) -> EventTime {
        let pace = board.drained_pace(rules.tick_ms);
        if rules.quiet == Quiet::Hold || !board.all_drained() {
            self.anchor = None;
            return pace;
        }
        let now_ms = timer.monotonic_ms();
        let past = board.past_use(rules.tick_ms).unwrap_or(0);
        if self.anchor.as_ref().is_none_or(|anchor| anchor.past != past) {
            let clock = board.greatest_clock();
            let is_present = clock.is_some_and(|clock| timer.is_wall_clock_within(clock, rules.lateness_ms));
            let pace = pace.saturating_sub(rules.tick_ms);
            self.anchor = Some(Anchor { past, pace, since_ms: now_ms, is_present });
        }
        let anchor = self.anchor.as_ref().expect("it was just set");
        let onward = if anchor.is_present {
            anchor.pace.saturating_add(now_ms.saturating_sub(anchor.since_ms))
        } else {
            one_step(at, board, rules.tick_ms)
        };
        pace.max(onward)
    }
}

/// A step past the frontier, if a checkpoint is at it and windows are final by now that were not announced as such.
fn one_step((facts, durable): (&Facts, Cut), board: &Board, tick_ms: u64) -> EventTime {
    let is_behind = durable.frontier == facts.frontier
        && board.greatest_pace() == facts.frontier
        && facts.watermark / MINUTE_MS < durable.watermark / MINUTE_MS;
    if is_behind { facts.frontier + tick_ms } else { 0 }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::{board::Standing, port::PartitionId};

    struct Hands {
        monotonic: Cell<u64>,
        wall: u64,
    }

    impl Timer for Hands {
        fn monotonic_ms(&self) -> u64 {
            self.monotonic.get()
        }

        fn is_wall_clock_within(&self, time: EventTime, within_ms: u64) -> bool {
            self.wall.abs_diff(time) <= within_ms
        }
    }

    const CLOCK: EventTime = 1_000_000;

    fn standing(clock: Option<EventTime>, drained: bool) -> Standing {
        let pace = clock.unwrap_or(0);
        Standing { clock, pace, used: clock, drained, ended: false }
    }

    /// The pace at each of these moments, with one quiet partition, one that never had an event, and this wall clock.
    fn paces(quiet: Quiet, wall: u64, moments: &[u64]) -> Vec<EventTime> {
        let rules = Rules { quiet, ..Rules::default() };
        let board = [standing(Some(CLOCK), true), standing(None, true)];
        let board = Board::new((0..).map(PartitionId).zip(board));
        let (timer, mut onward) = (Hands { monotonic: Cell::new(0), wall }, Onward::default());
        let pace = |now: &u64| {
            timer.monotonic.set(*now);
            onward.pace(&board, (&Facts::default(), Cut::default()), &rules, &timer)
        };
        moments.iter().map(pace).collect()
    }

    #[test]
    fn the_drained_go_on_with_the_time_elapsed() {
        assert_eq!(
            paces(Quiet::Release, CLOCK + 600_000, &[5_000, 5_100, 5_250, 65_000]),
            [CLOCK + 100, CLOCK + 100, CLOCK + 250, CLOCK + 60_000]
        );
    }

    #[test]
    fn they_stand_still_in_history_or_where_quiet_partitions_hold() {
        assert_eq!(paces(Quiet::Release, CLOCK + 600_001, &[0, 60_000]), [CLOCK + 100; 2]);
        assert_eq!(paces(Quiet::Hold, CLOCK, &[0, 60_000]), [CLOCK + 100; 2]);
    }

    #[test]
    fn a_record_or_one_that_is_read_again_begins_anew() {
        let rules = Rules { quiet: Quiet::Release, ..Rules::default() };
        let mut board = Board::new([(PartitionId(0), standing(Some(CLOCK), true))]);
        let (timer, mut onward) = (Hands { monotonic: Cell::new(0), wall: CLOCK }, Onward::default());
        let mut pace = |board: &Board, now| {
            timer.monotonic.set(now);
            onward.pace(board, (&Facts::default(), Cut::default()), &rules, &timer)
        };
        assert_eq!((pace(&board, 0), pace(&board, 1_000)), (CLOCK + 100, CLOCK + 1_000));
        board.set(PartitionId(0), standing(Some(CLOCK + 700), false));
        assert_eq!(pace(&board, 1_000), CLOCK + 700, "it is held by the one that is read");
        board.set(PartitionId(0), standing(Some(CLOCK + 700), true));
        assert_eq!((pace(&board, 9_000), pace(&board, 9_500)), (CLOCK + 800, CLOCK + 1_200));
    }

    #[test]
    fn one_step_shows_what_the_last_checkpoint_made_final() {
        let rules = Rules { quiet: Quiet::Release, ..Rules::default() };
        let at = Standing { pace: CLOCK + 100, ..standing(Some(CLOCK), true) };
        let board = Board::new([(PartitionId(0), at), (PartitionId(1), Standing { clock: None, ..at })]);
        let timer = Hands { monotonic: Cell::new(0), wall: 0 };
        let pace = |announced, durable| {
            let facts = Facts { frontier: CLOCK + 100, watermark: announced, ..Facts::default() };
            let durable = Cut { number: 1, frontier: durable, watermark: CLOCK - 600_000 };
            Onward::default().pace(&board, (&facts, durable), &rules, &timer)
        };
        assert_eq!(pace(0, CLOCK + 100), CLOCK + 200);
        assert_eq!(pace(CLOCK - 600_001, CLOCK + 100), CLOCK + 100, "the same windows are final");
        assert_eq!(pace(0, CLOCK), CLOCK + 100, "no checkpoint is at the frontier");
    }
}
