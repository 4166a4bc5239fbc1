//! Reading counts back: a range of one video or the sums of all for queries, everything for audits.

use std::{
    collections::BTreeMap,
    ops::{ControlFlow, Range},
    sync::Arc,
    time::Duration,
};

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use dataflows::{
    checkpoint::frame::FieldReader,
    functions::stats::Stats,
    port::{ColdSeries, ColdSum, ColdWindow, CountRow},
    rollup::Width,
    time::EventTime,
};
use futures_util::{StreamExt, TryStreamExt, stream};
use scylla::{
    errors::ExecutionError,
    response::{PagingState, query_result::QueryResult},
    serialize::row::SerializeRow,
    statement::prepared::PreparedStatement,
    value::{CqlDate, CqlTimestamp},
};
use tokio::time::sleep;

use super::{
    CassandraError, Link, answer,
    statements::{DAY_MS, cql_day, cql_time},
};

/// Partitions that one range may ask for: a hundred years of days.
const DAYS_MAX: u64 = 36_525;
/// Partitions that are asked for at once.
const DAYS_AT_ONCE: usize = 16;
/// Attempts at one read.
const ATTEMPTS_MAX: usize = 3;
/// Before the second attempt, and at most.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));
/// Into how many ranges of tokens a read of everything is cut, so that none is long.
const SLICES: i128 = 32;

/// A row of the table; all but the key may be null where somebody else has written.
type Stored = (String, String, Option<CqlTimestamp>, Option<i64>, Option<bool>, Option<CqlTimestamp>);

/// A range of tokens, both ends included, and where in it the next page begins.
#[derive(Clone, Debug)]
pub(super) struct Place {
    slice: i128,
    page: PagingState,
}

impl Place {
    pub(super) fn start() -> Self {
        Self { slice: 0, page: PagingState::start() }
    }

    fn tokens(&self) -> (i64, i64) {
        let width = (1_i128 << 64) / SLICES;
        let first = i128::from(i64::MIN) + self.slice * width;
        let token = |value: i128| i64::try_from(value).expect("the slices are those of all tokens");
        (token(first), token(first + width - 1))
    }
}

/// The rows of the windows of one video and event type that start in the range, ascending.
pub(super) async fn range(
    link: Arc<Link>,
    video_id: String,
    event_type: String,
    starts: Range<EventTime>,
) -> Result<Vec<CountRow>, CassandraError> {
    let Some(last) = starts.end.checked_sub(1).filter(|last| starts.start <= *last) else {
        return Ok(Vec::new());
    };
    let days = starts.start / DAY_MS..last / DAY_MS + 1;
    let (Some(from), Some(until)) = (cql_time(starts.start), cql_time(starts.end)) else {
        return Err(too_wide(&link, &starts));
    };
    if DAYS_MAX < days.end - days.start {
        return Err(too_wide(&link, &starts));
    }
    let (video_id, event_type): (Arc<str>, Arc<str>) = (video_id.into(), event_type.into());
    let one = |day: u64| {
        let values = cql_day(day * DAY_MS)
            .map(|day| (Arc::clone(&video_id), Arc::clone(&event_type), day, from, until))
            .ok_or_else(|| too_wide(&link, &starts));
        one_day(Arc::clone(&link), values)
    };
    let found: Vec<Vec<CountRow>> = stream::iter(days).map(one).buffered(DAYS_AT_ONCE).try_collect().await?;
    Ok(found.into_iter().flatten().collect())
}

type Day = (Arc<str>, Arc<str>, CqlDate, CqlTimestamp, CqlTimestamp);

async fn one_day(link: Arc<Link>, values: Result<Day, CassandraError>) -> Result<Vec<CountRow>, CassandraError> {
    let statement = &link.statements.scan;
    stored(statement, read(&link, statement, &values?).await?)
}

async fn read(
    link: &Link,
    statement: &PreparedStatement,
    values: &impl SerializeRow,
) -> Result<QueryResult, CassandraError> {
    let mut retries = Retries::new();
    loop {
        match link.session.execute_unpaged(statement, values).await {
            Ok(result) => return Ok(result),
            Err(error) => retries.after(statement, error).await?,
        }
    }
}

/// Whose windows, for work on our threads.
#[derive(Clone)]
pub(super) struct Series {
    video_id: Arc<str>,
    event_type: Arc<str>,
    functions: bool,
}

impl From<ColdSeries<'_>> for Series {
    fn from(ColdSeries { video_id, event_type, functions }: ColdSeries<'_>) -> Self {
        Self { video_id: video_id.into(), event_type: event_type.into(), functions }
    }
}

/// The windows of a series that start in the range, ascending. Of many days only those are read that have any.
pub(super) async fn cold(
    link: Arc<Link>,
    series: Series,
    starts: Range<EventTime>,
) -> Result<Vec<ColdWindow>, CassandraError> {
    // The first one may begin within a day.
    let first = starts.start / DAY_MS * DAY_MS;
    let days = match starts.end.saturating_sub(first).div_ceil(DAY_MS) {
        few if few <= DAYS_AT_ONCE as u64 => (first..starts.end).step_by(DAY_MS as usize).collect(),
        _ => days(Arc::clone(&link), series.clone(), first..starts.end).await?,
    };
    let (from, until) = (cql_time_or_last(starts.start), cql_time_or_last(starts.end));
    let Series { video_id, event_type, functions } = series;
    let one = |day: EventTime| {
        let values = cql_day(day).map(|day| (Arc::clone(&video_id), Arc::clone(&event_type), day, from, until));
        cold_day(Arc::clone(&link), values.ok_or_else(|| too_wide(&link, &starts)), functions)
    };
    let found: Vec<Vec<ColdWindow>> = stream::iter(days).map(one).buffered(DAYS_AT_ONCE).try_collect().await?;
    Ok(found.into_iter().flatten().collect())
}

async fn cold_day(
    link: Arc<Link>,
    values: Result<Day, CassandraError>,
    functions: bool,
) -> Result<Vec<ColdWindow>, CassandraError> {
    let values = values?;
    let stats = async { if functions { stats_of(&link, &values).await } else { Ok(Vec::new()) } };
    let (rows, stats) = tokio::try_join!(one_day(Arc::clone(&link), Ok(values.clone())), stats)?;
    let mut stats = stats.into_iter().peekable();
    let window = |row: CountRow| {
        let CountRow { window_start: start, count, .. } = row;
        while stats.next_if(|(other, _)| *other < start).is_some() {}
        ColdWindow { start, count, stats: stats.next_if(|(other, _)| *other == start).map(|(_, stats)| stats) }
    };
    Ok(rows.into_iter().map(window).collect())
}

/// What the functions of a day's windows are made of, ascending.
async fn stats_of(link: &Link, values: &Day) -> Result<Vec<(EventTime, Stats)>, CassandraError> {
    let statement = &link.statements.scan_functions;
    let text = statement.get_statement();
    let stored = answer::typed::<(CqlTimestamp, Option<Vec<u8>>)>(text, read(link, statement, values).await?)?;
    // Null where somebody else has written.
    let stored = stored.into_iter().filter_map(|(start, bytes)| Some((u64::try_from(start.0).ok()?, bytes?)));
    let decode = |(start, bytes): (EventTime, Vec<u8>)| {
        let mut fields = FieldReader(&bytes);
        let stats = Stats::decode(&mut fields).filter(|_| fields.is_done());
        let none = || CassandraError::of_answer(text, format!("the {} bytes at {start} are no functions", bytes.len()));
        Ok((start, stats.ok_or_else(none)?))
    };
    stored.map(decode).collect()
}

/// The beginnings of the days that start in the range and have any window of the series.
pub(super) async fn days(
    link: Arc<Link>,
    series: Series,
    starts: Range<EventTime>,
) -> Result<Vec<EventTime>, CassandraError> {
    let statement = &link.statements.scan_days;
    let (from, until) = (cql_time_or_last(starts.start), cql_time_or_last(starts.end));
    let found = read(&link, statement, &(series.video_id, series.event_type, from, until)).await?;
    let starts = answer::typed::<(CqlTimestamp,)>(statement.get_statement(), found)?;
    Ok(starts.into_iter().filter_map(|(start,)| u64::try_from(start.0).ok()).collect())
}

/// A time as a CQL timestamp, or the last one that there is.
fn cql_time_or_last(time: EventTime) -> CqlTimestamp {
    cql_time(time).unwrap_or(CqlTimestamp(i64::MAX))
}

fn too_wide(link: &Link, starts: &Range<EventTime>) -> CassandraError {
    let text = link.statements.scan.get_statement();
    CassandraError::of_answer(text, format!("{} to {} ms is more than a hundred years", starts.start, starts.end))
}

/// One page of all rows, in the order of their tokens, and where the next one begins.
pub(super) async fn page(link: Arc<Link>, place: Place) -> Result<(Vec<CountRow>, Option<Place>), CassandraError> {
    let statement = &link.statements.scan_all;
    let (result, next) = read_page(&link, statement, &place.tokens(), place).await?;
    Ok((stored(statement, result)?, next))
}

/// One page of what a statement finds in a range of tokens, and where the next one begins.
async fn read_page(
    link: &Link,
    statement: &PreparedStatement,
    values: &impl SerializeRow,
    place: Place,
) -> Result<(QueryResult, Option<Place>), CassandraError> {
    let mut retries = Retries::new();
    let (result, next) = loop {
        match link.session.execute_single_page(statement, values, place.page.clone()).await {
            Ok(page) => break page,
            Err(error) => retries.after(statement, error).await?,
        }
    };
    let next = match next.into_paging_control_flow() {
        ControlFlow::Continue(page) => Some(Place { page, ..place }),
        ControlFlow::Break(()) => {
            Some(Place { slice: place.slice + 1, page: PagingState::start() }).filter(|next| next.slice < SLICES)
        }
    };
    Ok((result, next))
}

/// A row of the table of days.
type StoredDay = (String, String, CqlTimestamp, Option<i64>);

/// What the windows of each video come to that are of the event type and start in the range, ascending by video. By days, where they
/// are in it as a whole.
pub(super) async fn sums(
    link: Arc<Link>,
    event_type: Arc<str>,
    starts: Range<EventTime>,
) -> Result<Vec<ColdSum>, CassandraError> {
    let mut sums: BTreeMap<String, ColdSum> = BTreeMap::new();
    let mut add = |video_id: &str, start: EventTime, count: u64| match sums.get_mut(video_id) {
        Some(sum) => sum.add(start, count),
        None => drop(sums.insert(video_id.to_owned(), ColdSum::of(video_id.to_owned(), start, count))),
    };
    let mut in_part: Vec<(Arc<str>, EventTime)> = Vec::new();
    let statement = &link.statements.scan_all_days;
    let (from, until) = (cql_time_or_last(starts.start / DAY_MS * DAY_MS), cql_time_or_last(starts.end));
    let mut place = Some(Place::start()).filter(|_| !starts.is_empty());
    while let Some(at) = place.take() {
        let (first, last) = at.tokens();
        let (result, next) = read_page(&link, statement, &(first, last, from, until), at).await?;
        place = next;
        for (video_id, kind, day, count) in answer::typed::<StoredDay>(statement.get_statement(), result)? {
            // Null where somebody else has written.
            let (Ok(day), Some(Ok(count))) = (u64::try_from(day.0), count.map(u64::try_from)) else { continue };
            if *kind != *event_type {
                continue;
            }
            if starts.start <= day && day + DAY_MS <= starts.end {
                add(&video_id, day, count);
            } else {
                in_part.push((video_id.into(), day));
            }
        }
    }
    let (from, until) = (cql_time_or_last(starts.start), cql_time_or_last(starts.end));
    let one = |(video_id, day): (Arc<str>, EventTime)| {
        let values = cql_day(day).map(|day| (video_id, Arc::clone(&event_type), day, from, until));
        one_day(Arc::clone(&link), values.ok_or_else(|| too_wide(&link, &starts)))
    };
    let mut days = stream::iter(in_part).map(one).buffer_unordered(DAYS_AT_ONCE);
    while let Some(rows) = days.try_next().await? {
        rows.iter().for_each(|row| add(&row.video_id, row.window_start, row.count));
    }
    drop(days);
    Ok(sums.into_values().collect())
}

/// The waits between the attempts at one read.
struct Retries(ExponentialBackoff);

impl Retries {
    fn new() -> Self {
        let waits = ExponentialBuilder::default()
            .with_min_delay(BACKOFF.0)
            .with_max_delay(BACKOFF.1)
            .with_max_times(ATTEMPTS_MAX - 1)
            .with_jitter();
        Self(waits.build())
    }

    /// Waits before the next attempt, if there is one and it may be answered otherwise.
    async fn after(&mut self, statement: &PreparedStatement, error: ExecutionError) -> Result<(), CassandraError> {
        match self.0.next() {
            Some(wait) if !super::error::comes_again(&error) => {
                sleep(wait).await;
                Ok(())
            }
            _ => Err(CassandraError::of(statement.get_statement(), error)),
        }
    }
}

/// The counts among the rows. One without a count is none of ours: we write all columns of a row or none of them.
fn stored(statement: &PreparedStatement, result: QueryResult) -> Result<Vec<CountRow>, CassandraError> {
    let text = statement.get_statement();
    let rows = answer::typed::<Stored>(text, result)?;
    Ok(rows.into_iter().filter_map(count_row).collect())
}

fn count_row((video_id, event_type, window_start, count, is_final, as_of): Stored) -> Option<CountRow> {
    Some(CountRow {
        video_id,
        event_type,
        window_start: u64::try_from(window_start?.0).ok()?,
        count: u64::try_from(count?).ok()?,
        width: Width::Minute,
        // This table has their numbers alone, for others to read.
        stats: None,
        is_final: is_final?,
        as_of: u64::try_from(as_of?.0).ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slices_hold_every_token_once() {
        let slices: Vec<_> = (0..SLICES).map(|slice| Place { slice, ..Place::start() }.tokens()).collect();
        assert_eq!(slices.first().unwrap().0, i64::MIN);
        assert_eq!(slices.last().unwrap().1, i64::MAX);
        assert!(slices.windows(2).all(|pair| pair[0].1 + 1 == pair[1].0));
    }
}
