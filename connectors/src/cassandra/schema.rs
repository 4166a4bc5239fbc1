//! The tables, as the contract's section 5 has them: created where they are missing, and compared where they are there.

use std::collections::BTreeMap;

use scylla::client::session::Session;

use super::{CassandraError, Settings, answer::rows};

/// A table that Tidemark owns.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) name: &'static str,
    partition_key: &'static [(&'static str, &'static str)],
    clustering_key: &'static [(&'static str, &'static str)],
    regular: &'static [(&'static str, &'static str)],
    statics: &'static [(&'static str, &'static str)],
}

const START: &[(&str, &str)] = &[("window_start", "timestamp")];
const AGGREGATES: &[(&str, &str)] = &[
    ("count", "bigint"),
    ("sum", "double"),
    ("min", "double"),
    ("max", "double"),
    ("distinct_users", "bigint"),
    ("final", "boolean"),
    ("as_of", "timestamp"),
];
const NAMES: &[(&str, &str)] = &[("video_name", "text"), ("channel_id", "text"), ("channel_name", "text")];

pub(super) const MINUTE: Table = Table {
    name: "stats_minute",
    partition_key: &[("video_id", "text"), ("event_type", "text"), ("day", "date")],
    clustering_key: START,
    regular: AGGREGATES,
    statics: NAMES,
};
pub(super) const HOUR: Table = Table {
    name: "stats_hour",
    partition_key: &[("video_id", "text"), ("event_type", "text"), ("month", "date")],
    clustering_key: START,
    regular: AGGREGATES,
    statics: NAMES,
};
pub(super) const DAY: Table = Table {
    name: "stats_day",
    partition_key: &[("video_id", "text"), ("event_type", "text")],
    clustering_key: START,
    regular: AGGREGATES,
    statics: NAMES,
};
/// What the functions of final minutes are made of, beside the numbers that everybody can read: only of that can more be merged.
pub(super) const FUNCTIONS: Table = Table {
    name: "functions_minute",
    partition_key: MINUTE.partition_key,
    clustering_key: START,
    regular: &[("functions", "blob")],
    statics: &[],
};
pub(super) const CLAIM: Table = Table {
    name: "claim",
    partition_key: &[("scope", "text")],
    clustering_key: &[],
    regular: &[("history", "text"), ("generation", "bigint"), ("frontier", "timestamp")],
    statics: &[],
};

/// Those that hold windows.
pub(super) const WINDOWS: [&Table; 4] = [&MINUTE, &HOUR, &DAY, &FUNCTIONS];
const ALL: [&Table; 5] = [&MINUTE, &HOUR, &DAY, &FUNCTIONS, &CLAIM];

/// Whether this process may create what is missing.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) enum Missing {
    Create,
    Refuse,
}

/// A column as `system_schema.columns` has it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Column {
    kind: String,
    /// Within its key; -1 outside of keys.
    position: i32,
    cql_type: String,
    /// `asc`, `desc` or `none`.
    order: String,
}

type Columns = BTreeMap<String, Column>;

impl Table {
    /// The statement that creates it.
    fn ddl(&self, keyspace: &str) -> String {
        let columns = |list: &[(&str, &str)], suffix: &str| -> String {
            list.iter().map(|(name, cql_type)| format!("{name} {cql_type}{suffix}, ")).collect()
        };
        let names = |list: &[(&str, &str)]| list.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
        let clustering = self.clustering_key.iter().map(|(name, _)| format!(", {name}")).collect::<String>();
        format!(
            "CREATE TABLE IF NOT EXISTS {keyspace}.{} ({}{}{}{}PRIMARY KEY (({}){clustering}))",
            self.name,
            columns(self.partition_key, ""),
            columns(self.clustering_key, ""),
            columns(self.regular, ""),
            columns(self.statics, " static"),
            names(self.partition_key),
        )
    }

    fn columns(&self) -> Columns {
        let keyed = |kind: &'static str, order: &'static str, list: &'static [(&str, &str)]| {
            list.iter().zip(0..).map(move |((name, cql_type), position)| (*name, *cql_type, kind, position, order))
        };
        let unkeyed = |kind: &'static str, list: &'static [(&str, &str)]| {
            list.iter().map(move |(name, cql_type)| (*name, *cql_type, kind, -1, "none"))
        };
        keyed("partition_key", "none", self.partition_key)
            .chain(keyed("clustering", "asc", self.clustering_key))
            .chain(unkeyed("regular", self.regular))
            .chain(unkeyed("static", self.statics))
            .map(|(name, cql_type, kind, position, order)| {
                let column =
                    Column { kind: kind.to_owned(), position, cql_type: cql_type.to_owned(), order: order.to_owned() };
                (name.to_owned(), column)
            })
            .collect()
    }

    /// What makes `actual` another table. Columns outside of the keys that we know nothing of are let be: we never
    /// write them.
    fn difference(&self, actual: &Columns) -> Option<String> {
        let expected = self.columns();
        for (name, column) in &expected {
            match actual.get(name) {
                None => return Some(format!("column {name} is missing")),
                Some(other) if other != column => {
                    return Some(format!("column {name} is {}, not {}", other.words(), column.words()));
                }
                Some(_) => {}
            }
        }
        let key = actual.iter().find(|(name, column)| column.position != -1 && !expected.contains_key(*name));
        key.map(|(name, column)| format!("column {name} is {}, which the key does not have", column.words()))
    }
}

impl Column {
    fn words(&self) -> String {
        let Self { kind, position, cql_type, order } = self;
        match (*position, order.as_str()) {
            (-1, _) => format!("{cql_type} ({kind})"),
            (position, "desc") => format!("{cql_type} ({kind} {position}, descending)"),
            (position, _) => format!("{cql_type} ({kind} {position})"),
        }
    }
}

fn keyspace_ddl(settings: &Settings) -> String {
    format!(
        "CREATE KEYSPACE IF NOT EXISTS {} WITH replication = {{'class': 'NetworkTopologyStrategy', '{}': {}}}",
        settings.quoted_keyspace(),
        settings.local_datacenter.replace('\'', "''"),
        settings.replication_factor
    )
}

/// Creates what is missing, if we may, and compares all of it with what we need.
pub(super) async fn ensure(session: &Session, settings: &Settings, missing: Missing) -> Result<(), CassandraError> {
    if replication(session, settings).await?.is_none() && missing == Missing::Create {
        execute(session, &keyspace_ddl(settings)).await?;
    }
    match replication(session, settings).await? {
        Some(replication) => check_replication(settings, &replication)?,
        None => return Err(absent(settings.quoted_keyspace(), "the keyspace", &keyspace_ddl(settings))),
    }
    let keyspace = settings.quoted_keyspace();
    let there = tables(session, settings).await?;
    // Earlier versions made no table of functions.
    let gone = ALL.iter().find(|table| !there.contains_key(table.name) && table.name != FUNCTIONS.name);
    if let Some(table) = gone
        && there.contains_key(CLAIM.name)
        && is_claimed(session, &keyspace).await?
    {
        return Err(dropped(table, &keyspace));
    }
    for table in ALL.iter().filter(|table| missing == Missing::Create && !there.contains_key(table.name)) {
        execute(session, &table.ddl(&keyspace)).await?;
    }
    let there = tables(session, settings).await?;
    for table in ALL {
        let name = format!("{keyspace}.{}", table.name);
        let Some(actual) = there.get(table.name) else {
            return Err(absent(name, "the table", &table.ddl(&keyspace)));
        };
        if let Some(difference) = table.difference(actual) {
            let what = format!("{difference}; wanted is {}", table.ddl(&keyspace));
            return Err(CassandraError::Schema { table: name, what });
        }
    }
    Ok(())
}

fn absent(name: String, what: &str, ddl: &str) -> CassandraError {
    CassandraError::Schema { table: name, what: format!("{what} is missing; {ddl}") }
}

/// Whether somebody has written rows here.
async fn is_claimed(session: &Session, keyspace: &str) -> Result<bool, CassandraError> {
    let claims = rows::<(String,)>(session, &format!("SELECT scope FROM {keyspace}.{}", CLAIM.name)).await?;
    Ok(!claims.is_empty())
}

/// Made anew it would lack the rows that its owner takes for written.
fn dropped(table: &Table, keyspace: &str) -> CassandraError {
    let claim = CLAIM.name;
    let what = format!(
        "it was dropped with its rows; after DROP TABLE {keyspace}.{claim} it is created, and all rows are written anew"
    );
    CassandraError::Schema { table: format!("{keyspace}.{}", table.name), what }
}

/// Whether a failed attempt at [`ensure`] may be waiting for another process that is creating the tables now.
pub(super) fn is_missing(error: &CassandraError) -> bool {
    matches!(error, CassandraError::Schema { what, .. } if what.starts_with("the "))
}

async fn execute(session: &Session, ddl: &str) -> Result<(), CassandraError> {
    match session.query_unpaged(ddl, ()).await {
        Ok(_) => Ok(()),
        Err(cause) => Err(CassandraError::of(ddl, cause)),
    }
}

/// A keyspace's replication: its class, and how many copies by data centre.
async fn replication(
    session: &Session,
    settings: &Settings,
) -> Result<Option<BTreeMap<String, String>>, CassandraError> {
    // The name holds letters, digits and _ only.
    let query =
        format!("SELECT replication FROM system_schema.keyspaces WHERE keyspace_name = '{}'", settings.keyspace);
    let found = rows::<(BTreeMap<String, String>,)>(session, &query).await?;
    Ok(found.into_iter().next().map(|(replication,)| replication))
}

fn check_replication(settings: &Settings, replication: &BTreeMap<String, String>) -> Result<(), CassandraError> {
    let is_by_datacenter = replication.get("class").is_some_and(|class| class.ends_with("NetworkTopologyStrategy"));
    let copies = replication.get(&settings.local_datacenter);
    if is_by_datacenter && copies.is_none_or(|copies| copies == "0") {
        return Err(CassandraError::Schema {
            table: settings.quoted_keyspace(),
            what: format!("it keeps no copy in the data centre {:?}", settings.local_datacenter),
        });
    }
    if is_by_datacenter && copies != Some(&settings.replication_factor.to_string()) {
        tracing::warn!(
            keyspace = settings.keyspace,
            copies = copies.map_or("", String::as_str),
            replication_factor = settings.replication_factor,
            "the keyspace keeps another number of copies than configured; it is left as it is"
        );
    }
    Ok(())
}

/// The tables of our keyspace with their columns.
async fn tables(session: &Session, settings: &Settings) -> Result<BTreeMap<String, Columns>, CassandraError> {
    let query = format!(
        "SELECT table_name, column_name, type, kind, position, clustering_order FROM system_schema.columns \
         WHERE keyspace_name = '{}'",
        settings.keyspace
    );
    let mut tables = BTreeMap::<String, Columns>::new();
    for (table, name, cql_type, kind, position, order) in
        rows::<(String, String, String, String, i32, String)>(session, &query).await?
    {
        tables.entry(table).or_default().insert(name, Column { kind, position, cql_type, order });
    }
    Ok(tables)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cassandra::settings::sample;

    #[test]
    fn the_statements_are_those_of_the_contract() {
        let rest = "count bigint, sum double, min double, max double, distinct_users bigint, final boolean, \
                    as_of timestamp, video_name text static, channel_id text static, channel_name text static";
        let expected = [
            (
                &MINUTE,
                format!(
                    "stats_minute (video_id text, event_type text, day date, window_start timestamp, {rest}, \
                     PRIMARY KEY ((video_id, event_type, day), window_start))"
                ),
            ),
            (
                &HOUR,
                format!(
                    "stats_hour (video_id text, event_type text, month date, window_start timestamp, {rest}, \
                     PRIMARY KEY ((video_id, event_type, month), window_start))"
                ),
            ),
            (
                &DAY,
                format!(
                    "stats_day (video_id text, event_type text, window_start timestamp, {rest}, \
                     PRIMARY KEY ((video_id, event_type), window_start))"
                ),
            ),
            (
                &CLAIM,
                "claim (scope text, history text, generation bigint, frontier timestamp, PRIMARY KEY ((scope)))"
                    .to_owned(),
            ),
        ];
        for (table, ddl) in expected {
            assert_eq!(table.ddl("k"), format!("CREATE TABLE IF NOT EXISTS k.{ddl}"));
        }
    }

    #[test]
    fn a_keyspace_is_created_in_the_local_datacenter() {
        let settings = Settings { local_datacenter: "it's".to_owned(), replication_factor: 3, ..sample() };
        assert_eq!(
            keyspace_ddl(&settings),
            "CREATE KEYSPACE IF NOT EXISTS \"tidemark\" WITH replication = \
             {'class': 'NetworkTopologyStrategy', 'it''s': 3}"
        );
    }

    #[test]
    fn the_first_difference_is_named() {
        let column = |cql_type: &str, kind: &str, position| Column {
            kind: kind.to_owned(),
            position,
            cql_type: cql_type.to_owned(),
            order: "none".to_owned(),
        };
        let change = |name: &str, column: Option<Column>| {
            let mut columns = MINUTE.columns();
            match column {
                Some(column) => columns.insert(name.to_owned(), column),
                None => columns.remove(name),
            };
            MINUTE.difference(&columns)
        };
        let cases = [
            ("note", Some(column("text", "regular", -1)), None),
            ("count", None, Some("column count is missing")),
            ("count", Some(column("int", "regular", -1)), Some("column count is int (regular), not bigint (regular)")),
            (
                "day",
                Some(column("date", "partition_key", 1)),
                Some("column day is date (partition_key 1), not date (partition_key 2)"),
            ),
            (
                "shard",
                Some(column("int", "partition_key", 3)),
                Some("column shard is int (partition_key 3), which the key does not have"),
            ),
            (
                "video_name",
                Some(column("text", "regular", -1)),
                Some("column video_name is text (regular), not text (static)"),
            ),
        ];
        for (name, column, expected) in cases {
            assert_eq!(change(name, column).as_deref(), expected);
        }
    }

    #[test]
    fn a_keyspace_without_copies_here_is_refused() {
        let of = |pairs: &[(&str, &str)]| {
            let replication = pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
            check_replication(&sample(), &replication)
        };
        let by_datacenter = ("class", "org.apache.cassandra.locator.NetworkTopologyStrategy");
        of(&[by_datacenter, ("datacenter1", "1")]).unwrap();
        of(&[by_datacenter, ("datacenter1", "3")]).unwrap();
        of(&[("class", "org.apache.cassandra.locator.SimpleStrategy"), ("replication_factor", "1")]).unwrap();
        assert!(of(&[by_datacenter, ("elsewhere", "1")]).is_err());
        assert!(of(&[by_datacenter, ("datacenter1", "0")]).is_err());
    }
}
