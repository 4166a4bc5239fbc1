//! The prepared statements.

use chrono::{DateTime, Datelike as _};
use dataflows::{
    checkpoint::frame::Fields,
    functions::{Function, Value},
    port::{CountRow, Labels, Version, VideoLabel},
    rollup::Width,
    time::EventTime,
};
use scylla::{
    client::session::Session,
    errors::SerializationError,
    serialize::{
        row::{RowSerializationContext, SerializeRow},
        writers::RowWriter,
    },
    statement::{Consistency, Statement, prepared::PreparedStatement},
    value::{CqlDate, CqlTimestamp, MaybeUnset},
};

use super::{CassandraError, schema, version};

/// The key of the one claim row.
pub(super) const SCOPE: &str = "tidemark";

/// The number of 1970-01-01 in CQL's dates.
const EPOCH_DAY: u32 = 1 << 31;
pub(super) const DAY_MS: u64 = 86_400_000;

/// Rows of one page of a read.
const PAGE_ROWS: i32 = 5_000;

pub(super) struct Statements {
    /// By width.
    pub(super) upserts: [PreparedStatement; 3],
    pub(super) functions: PreparedStatement,
    pub(super) scan: PreparedStatement,
    pub(super) scan_functions: PreparedStatement,
    pub(super) scan_days: PreparedStatement,
    pub(super) scan_all: PreparedStatement,
    pub(super) scan_all_days: PreparedStatement,
    pub(super) claim: PreparedStatement,
    pub(super) claim_first: PreparedStatement,
    pub(super) claim_takeover: PreparedStatement,
    pub(super) claim_progress: PreparedStatement,
    pub(super) claim_mark: PreparedStatement,
    pub(super) claim_delete: PreparedStatement,
}

impl Statements {
    pub(super) async fn prepare(session: &Session, keyspace: &str) -> Result<Self, CassandraError> {
        let minute = format!("{keyspace}.{}", schema::MINUTE.name);
        let (day, functions) = (schema::DAY.name, format!("{keyspace}.{}", schema::FUNCTIONS.name));
        let claim = format!("{keyspace}.{}", schema::CLAIM.name);
        let one = async |text: String| prepare(session, Statement::new(text)).await;
        let columns = "video_id, event_type, window_start, count, final, as_of";
        Ok(Self {
            upserts: [
                one(upsert(keyspace, Width::Minute)).await?,
                one(upsert(keyspace, Width::Hour)).await?,
                one(upsert(keyspace, Width::Day)).await?,
            ],
            functions: one(format!(
                "INSERT INTO {functions} (video_id, event_type, day, window_start, functions) VALUES (?, ?, ?, ?, ?) \
                 USING TIMESTAMP ?"
            ))
            .await?,
            scan_functions: one(format!(
                "SELECT window_start, functions FROM {functions} WHERE video_id = ? AND event_type = ? AND day = ? \
                 AND window_start >= ? AND window_start < ?"
            ))
            .await?,
            scan_days: one(format!(
                "SELECT window_start FROM {keyspace}.{day} WHERE video_id = ? AND event_type = ? AND window_start >= ? \
                 AND window_start < ?"
            ))
            .await?,
            scan: one(format!(
                "SELECT {columns} FROM {minute} WHERE video_id = ? AND event_type = ? AND day = ? \
                 AND window_start >= ? AND window_start < ?"
            ))
            .await?,
            scan_all: one(format!(
                "SELECT {columns} FROM {minute} WHERE token(video_id, event_type, day) >= ? \
                 AND token(video_id, event_type, day) <= ?"
            ))
            .await?,
            // The filter goes through rows that are few: a thousandth of the minutes.
            scan_all_days: one(format!(
                "SELECT video_id, event_type, window_start, count FROM {keyspace}.{day} \
                 WHERE token(video_id, event_type) >= ? AND token(video_id, event_type) <= ? \
                 AND window_start >= ? AND window_start < ? ALLOW FILTERING"
            ))
            .await?,
            claim: {
                let text = format!("SELECT history, generation, frontier FROM {claim} WHERE scope = '{SCOPE}'");
                let mut statement = Statement::new(text);
                // A plain read could miss what a transaction under way is about to finish.
                statement.set_consistency(Consistency::LocalSerial);
                prepare(session, statement).await?
            },
            claim_first: one(format!(
                "INSERT INTO {claim} (scope, history, generation, frontier) VALUES ('{SCOPE}', ?, ?, ?) IF NOT EXISTS"
            ))
            .await?,
            // The last condition always holds: an answer has the columns that conditions name, and all are wanted.
            claim_takeover: one(format!(
                "UPDATE {claim} SET generation = ?, frontier = ? WHERE scope = '{SCOPE}' \
                 IF history = ? AND generation < ? AND frontier >= 0"
            ))
            .await?,
            claim_progress: one(format!(
                "UPDATE {claim} SET frontier = ? WHERE scope = '{SCOPE}' \
                 IF history = ? AND generation = ? AND frontier <= ?"
            ))
            .await?,
            claim_mark: one(format!("UPDATE {claim} SET history = ? WHERE scope = '{SCOPE}' IF EXISTS")).await?,
            claim_delete: one(format!("DELETE FROM {claim} WHERE scope = '{SCOPE}' IF history = ?")).await?,
        })
    }
}

fn upsert(keyspace: &str, width: Width) -> String {
    let (table, date) = match width {
        Width::Minute => (schema::MINUTE.name, Some("day")),
        Width::Hour => (schema::HOUR.name, Some("month")),
        Width::Day => (schema::DAY.name, None),
    };
    let (column, mark) = date.map_or_else(Default::default, |column| (format!("{column}, "), "?, "));
    format!(
        "INSERT INTO {keyspace}.{table} (video_id, event_type, {column}window_start, count, sum, min, max, distinct_users, \
     final, as_of, video_name, channel_id, channel_name) VALUES (?, ?, {mark}?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) USING TIMESTAMP ?"
    )
}

async fn prepare(session: &Session, statement: Statement) -> Result<PreparedStatement, CassandraError> {
    let text = statement.contents.clone();
    let mut prepared = session.prepare(statement).await.map_err(|cause| CassandraError::of_prepare(&text, cause))?;
    prepared.set_page_size(PAGE_ROWS);
    Ok(prepared)
}

/// A time as a CQL timestamp; `None` beyond the range of those.
pub(super) fn cql_time(time: EventTime) -> Option<CqlTimestamp> {
    i64::try_from(time).ok().map(CqlTimestamp)
}

/// The first day of a time's month, UTC, as a CQL date.
fn cql_month(time: EventTime) -> Option<CqlDate> {
    let day = DateTime::from_timestamp_millis(i64::try_from(time).ok()?)?.day0();
    cql_day(time)?.0.checked_sub(day).map(CqlDate)
}

/// The UTC day of a time as a CQL date.
pub(super) fn cql_day(time: EventTime) -> Option<CqlDate> {
    u32::try_from(time / DAY_MS).ok()?.checked_add(EPOCH_DAY).map(CqlDate)
}

/// A row with the values that the upsert binds.
#[derive(Debug, PartialEq)]
pub(super) struct Upsert {
    width: Width,
    video_id: String,
    event_type: String,
    /// The day of a minute, the month of an hour.
    date: Option<CqlDate>,
    window_start: CqlTimestamp,
    count: i64,
    /// Sum, least, greatest.
    values: [Option<f64>; 3],
    distinct_users: Option<i64>,
    is_final: bool,
    as_of: CqlTimestamp,
    /// What a final minute's functions are made of, as they are stored.
    functions: Option<Vec<u8>>,
    /// Of the whole partition, where something is known of the video.
    label: Option<VideoLabel>,
    timestamp: i64,
}

impl Upsert {
    /// `None` where a number does not fit its column.
    pub(super) fn new(version: Version, row: &CountRow, labels: Option<&dyn Labels>) -> Option<Self> {
        Some(Self {
            width: row.width,
            video_id: row.video_id.clone(),
            event_type: row.event_type.clone(),
            date: match row.width {
                Width::Minute => Some(cql_day(row.window_start)?),
                Width::Hour => Some(cql_month(row.window_start)?),
                Width::Day => None,
            },
            window_start: cql_time(row.window_start)?,
            count: i64::try_from(row.count).ok()?,
            values: values_of(row),
            distinct_users: users_of(row),
            is_final: row.is_final,
            as_of: cql_time(row.as_of)?,
            functions: functions_of(row),
            label: labels.and_then(|labels| labels.video(&row.video_id)),
            timestamp: version::timestamp(version)?,
        })
    }

    /// What it takes to write it.
    pub(super) fn bound(&self) -> impl Iterator<Item = Bound<'_>> {
        let functions = self.functions.as_deref().map(|functions| Bound::Functions(self, functions));
        [Bound::Row(self)].into_iter().chain(functions)
    }

    /// Whether both rows are in one partition.
    pub(super) fn is_beside(&self, other: &Self) -> bool {
        let partition = |upsert: &Self| (upsert.width, upsert.date);
        partition(self) == partition(other)
            && (&self.video_id, &self.event_type) == (&other.video_id, &other.event_type)
    }
}

/// One statement of an upsert.
pub(super) enum Bound<'a> {
    Row(&'a Upsert),
    Functions(&'a Upsert, &'a [u8]),
}

impl Bound<'_> {
    pub(super) fn statement<'a>(&self, statements: &'a Statements) -> &'a PreparedStatement {
        match self {
            Self::Row(upsert) => &statements.upserts[upsert.width as usize],
            Self::Functions(..) => &statements.functions,
        }
    }
}

impl SerializeRow for Bound<'_> {
    fn serialize(
        &self,
        context: &RowSerializationContext<'_>,
        writer: &mut RowWriter<'_>,
    ) -> Result<(), SerializationError> {
        match self {
            Self::Row(upsert) => upsert.serialize(context, writer),
            Self::Functions(upsert, functions) => {
                let Upsert { video_id, event_type, date, window_start, timestamp, .. } = upsert;
                (video_id, event_type, date, window_start, functions, timestamp).serialize(context, writer)
            }
        }
    }

    fn is_empty(&self) -> bool {
        false
    }
}

/// Its values in the order of its statement. Unset leaves no tombstone where there is nothing.
impl SerializeRow for Upsert {
    fn serialize(
        &self,
        context: &RowSerializationContext<'_>,
        writer: &mut RowWriter<'_>,
    ) -> Result<(), SerializationError> {
        let (video, kind, start, end) = (&self.video_id, &self.event_type, self.window_start, self.is_final);
        let [sum, least, greatest] = self.values.map(MaybeUnset::from_option);
        let users = MaybeUnset::from_option(self.distinct_users);
        let (count, as_of, timestamp) = (self.count, self.as_of, self.timestamp);
        // Null, where the video is known: what it was called before is wrong by now.
        let said = |of: fn(&VideoLabel) -> &Option<String>| MaybeUnset::from_option(self.label.as_ref().map(of));
        let (name, channel) = (said(|label| &label.name), said(|label| &label.channel_id));
        let owner = said(|label| &label.channel_name);
        match self.date {
            Some(date) => {
                let row = (
                    video, kind, date, start, count, sum, least, greatest, users, end, as_of, name, channel, owner,
                    timestamp,
                );
                row.serialize(context, writer)
            }
            None => {
                let row = (
                    video, kind, start, count, sum, least, greatest, users, end, as_of, name, channel, owner, timestamp,
                );
                row.serialize(context, writer)
            }
        }
    }

    fn is_empty(&self) -> bool {
        false
    }
}

/// Sum, least and greatest, where all events of the window have told of their values.
fn values_of(row: &CountRow) -> [Option<f64>; 3] {
    [Function::Sum, Function::Min, Function::Max].map(|function| match function_of(function, row)? {
        Value::Real(value) => Some(value),
        Value::Whole(_) | Value::None => None,
    })
}

/// Of a minute that can change no more.
fn functions_of(row: &CountRow) -> Option<Vec<u8>> {
    let stats = row.stats.as_ref().filter(|_| row.is_final && row.width == Width::Minute)?;
    let mut fields = Fields::default();
    stats.encode(&mut fields);
    Some(fields.0)
}

fn users_of(row: &CountRow) -> Option<i64> {
    match function_of(Function::Distinct, row)? {
        Value::Whole(users) => i64::try_from(users).ok(),
        Value::Real(_) | Value::None => None,
    }
}

fn function_of(function: Function, row: &CountRow) -> Option<Value> {
    let stats = row.stats.as_ref().filter(|stats| stats.whole(row.count).holds(function.needs()))?;
    Some(function.of(row.count, stats).0)
}

#[cfg(test)]
mod tests {
    use dataflows::time::EVENT_TIME_MAX;

    use super::*;

    #[test]
    fn a_day_ends_with_its_last_millisecond() {
        assert_eq!(cql_day(0), Some(CqlDate(1 << 31)));
        assert_eq!(cql_day(DAY_MS - 1), Some(CqlDate(1 << 31)));
        assert_eq!(cql_day(DAY_MS), Some(CqlDate((1 << 31) + 1)));
        assert_eq!(cql_day(EVENT_TIME_MAX), Some(CqlDate((1 << 31) + 2_932_896)));
        assert_eq!(cql_day(u64::MAX), None);
    }

    #[test]
    fn numbers_beyond_their_columns_make_no_upsert() {
        let row = CountRow {
            video_id: "v".to_owned(),
            event_type: "view".to_owned(),
            window_start: 0,
            count: i64::MAX as u64,
            width: Width::Minute,
            stats: None,
            is_final: false,
            as_of: i64::MAX as u64,
        };
        let version = Version { generation: 1, number: 1 };
        assert!(Upsert::new(version, &row, None).is_some());
        assert_eq!(Upsert::new(version, &CountRow { count: 1 << 63, ..row.clone() }, None), None);
        assert_eq!(Upsert::new(version, &CountRow { as_of: 1 << 63, ..row.clone() }, None), None);
        assert_eq!(Upsert::new(version, &CountRow { window_start: u64::MAX, ..row.clone() }, None), None);
        assert_eq!(Upsert::new(Version { generation: 1 << 28, number: 1 }, &row, None), None);
    }
}
