//! Which rows travel together: at most 100 of one partition (348 k rows/s were measured with 100, 269 k with 200); rows
//! that are alone in their partition travel alone, since a batch over several partitions gains nothing.

use std::{mem, ops::Range};

use dataflows::{
    port::{CountRow, Labels, Version},
    rollup::Width,
};

use super::statements::Upsert;

const ROWS_MAX: usize = 100;

/// The rows of one write in the order of their keys, each key once, and what is sent as one request.
#[derive(Debug)]
pub(super) struct Requests {
    pub(super) rows: Vec<Upsert>,
    pub(super) ranges: Vec<Range<usize>>,
}

impl Requests {
    /// Of several rows of one window the last stays, as if they had been written one after the other. Gives the row
    /// that can't be stored instead, if there is one.
    pub(super) fn plan<'a>(
        version: Version,
        rows: &'a [CountRow],
        labels: Option<&dyn Labels>,
    ) -> Result<Self, &'a CountRow> {
        fn key(row: &CountRow) -> (Width, &str, &str, u64) {
            (row.width, &row.video_id, &row.event_type, row.window_start)
        }
        let mut sorted: Vec<&'a CountRow> = rows.iter().collect();
        sorted.sort_by(|a, b| key(a).cmp(&key(b)));
        sorted.dedup_by(|later, kept| {
            let is_same = key(later) == key(kept);
            if is_same {
                mem::swap(later, kept);
            }
            is_same
        });
        let upsert = |row| Upsert::new(version, row, labels).ok_or(row);
        let rows = sorted.into_iter().map(upsert).collect::<Result<Vec<_>, _>>()?;
        let mut ranges = Vec::new();
        let mut start = 0;
        for partition in rows.chunk_by(Upsert::is_beside) {
            let end = start + partition.len();
            ranges.extend((start..end).step_by(ROWS_MAX).map(|first| first..end.min(first + ROWS_MAX)));
            start = end;
        }
        Ok(Self { rows, ranges })
    }
}

#[cfg(test)]
mod tests {
    use dataflows::time::MINUTE_MS;

    use super::*;
    use crate::cassandra::statements::DAY_MS;

    const VERSION: Version = Version { generation: 1, number: 1 };

    fn row(video_id: &str, window_start: u64, count: u64) -> CountRow {
        CountRow {
            video_id: video_id.to_owned(),
            event_type: "view".to_owned(),
            window_start,
            count,
            width: Width::Minute,
            stats: None,
            is_final: false,
            as_of: 1,
        }
    }

    #[test]
    fn a_request_has_up_to_100_rows_of_one_video_and_day() {
        let mut rows = vec![row("b", 0, 1), row("a", DAY_MS, 1), row("c", 0, 1)];
        rows.extend((0..201).map(|minute| row("a", minute * MINUTE_MS, 1)));
        let requests = Requests::plan(VERSION, &rows, None).unwrap();
        assert_eq!(requests.ranges, [0..100, 100..200, 200..201, 201..202, 202..203, 203..204]);
        assert_eq!(requests.rows.len(), 204);
        let is_one_partition =
            |range: &Range<usize>| requests.rows[range.clone()].windows(2).all(|pair| pair[0].is_beside(&pair[1]));
        assert!(requests.ranges.iter().all(is_one_partition));
    }

    #[test]
    fn of_two_rows_of_one_window_the_last_is_sent() {
        let rows = [row("a", 0, 3), row("b", 0, 1), row("a", 0, 9), row("a", 0, 2)];
        let requests = Requests::plan(VERSION, &rows, None).unwrap();
        assert_eq!(requests.rows, [&rows[3], &rows[1]].map(|row| Upsert::new(VERSION, row, None).unwrap()));
    }

    #[test]
    fn a_row_that_fits_no_column_is_given_back() {
        let rows = [row("a", 0, 3), row("b", 0, u64::MAX)];
        assert_eq!(Requests::plan(VERSION, &rows, None).unwrap_err(), &rows[1]);
        assert!(Requests::plan(VERSION, &[], None).unwrap().ranges.is_empty());
    }
}
