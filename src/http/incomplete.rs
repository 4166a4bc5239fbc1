//! Which windows may lack events that were gone before they were read.

use std::ops::Range;

use dataflows::{announce::Announcement, gap::Gap, time::EventTime};
use serde::Serialize;
use utoipa::ToSchema;

/// Windows of a minute, from one up to another one (exclusive), that may lack events: records were gone from the log before
/// they were read.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, ToSchema)]
pub struct Incomplete {
    start: EventTime,
    end: EventTime,
}

/// Those of a range, ascending and apart.
pub fn within(latest: Option<&Announcement>, range: Range<EventTime>) -> Vec<Incomplete> {
    let gaps = latest.into_iter().flat_map(|latest| &latest.partitions).flat_map(|at| &at.gaps);
    let mut all: Vec<Incomplete> = gaps.filter_map(|gap| clipped(gap, &range)).collect();
    all.sort_unstable();
    all.dedup_by(|next, last| {
        let touch = next.start <= last.end;
        if touch {
            last.end = last.end.max(next.end);
        }
        touch
    });
    all
}

fn clipped(gap: &Gap, range: &Range<EventTime>) -> Option<Incomplete> {
    let (start, end) = gap.windows();
    let start = start.max(range.start);
    let end = end.unwrap_or(range.end).min(range.end);
    (start < end).then_some(Incomplete { start, end })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use dataflows::{announce::PartitionAt, ledger::Ledger, port::PartitionId, time::Minute};

    use super::*;

    fn announcement(gaps: [Vec<Gap>; 2]) -> Announcement {
        let at = |(n, gaps): (u32, Vec<Gap>)| PartitionAt {
            partition: PartitionId(n),
            next_offset: 9,
            clock: None,
            ended: false,
            ledger: Ledger::default(),
            gaps,
        };
        let partitions = (0..).zip(gaps).map(at).collect();
        Announcement { frontier: 0, watermark: 0, held_by: None, hot_from: Minute(0), partitions }
    }

    #[test]
    fn the_holes_of_all_partitions_are_told_as_minutes_that_are_apart() {
        let gap = |from, until| Gap { wanted: 0, first: 1, from, until };
        let latest = announcement([
            vec![gap(60_001, Some(119_999)), gap(600_000, Some(660_000))],
            vec![gap(120_000, Some(120_000)), gap(900_001, None)],
        ]);
        let told =
            |range| within(Some(&latest), range).into_iter().map(|span| (span.start, span.end)).collect::<Vec<_>>();
        assert_eq!(told(0..2_000_000), [(60_000, 180_000), (600_000, 720_000), (900_000, 2_000_000)]);
        assert_eq!(told(120_000..660_000), [(120_000, 180_000), (600_000, 660_000)]);
        assert_eq!(told(180_000..600_000), []);
        assert_eq!(within(None, 0..1), []);
    }
}
