//! Rows out of answers.

use scylla::{
    client::session::Session,
    deserialize::row::DeserializeRow,
    response::query_result::{QueryResult, QueryRowsResult},
    value::{CqlValue, Row},
};

use super::CassandraError;

/// The rows that a plain query gives.
pub(super) async fn rows<R>(session: &Session, query: &str) -> Result<Vec<R>, CassandraError>
where
    R: for<'frame> DeserializeRow<'frame, 'frame>,
{
    let result = session.query_unpaged(query, ()).await.map_err(|cause| CassandraError::of(query, cause))?;
    typed(query, result)
}

/// The rows of a result.
pub(super) fn typed<R>(statement: &str, result: QueryResult) -> Result<Vec<R>, CassandraError>
where
    R: for<'frame> DeserializeRow<'frame, 'frame>,
{
    let result = rows_of(statement, result)?;
    let rows = result.rows::<R>().map_err(|cause| CassandraError::of_answer(statement, cause))?;
    rows.map(|row| row.map_err(|cause| CassandraError::of_answer(statement, cause))).collect()
}

/// The first row of a result, whose columns may be there or not.
pub(super) struct Named {
    values: Vec<(String, Option<CqlValue>)>,
}

impl Named {
    pub(super) fn first(statement: &str, result: QueryResult) -> Result<Option<Self>, CassandraError> {
        let result = rows_of(statement, result)?;
        let names: Vec<String> = result.column_specs().iter().map(|spec| spec.name().to_owned()).collect();
        let row = result.maybe_first_row::<Row>().map_err(|cause| CassandraError::of_answer(statement, cause))?;
        Ok(row.map(|row| Self { values: names.into_iter().zip(row.columns).collect() }))
    }

    /// `None` where it is null or no column at all.
    pub(super) fn get(&self, name: &str) -> Option<&CqlValue> {
        self.values.iter().find(|(other, _)| other == name).and_then(|(_, value)| value.as_ref())
    }
}

fn rows_of(statement: &str, result: QueryResult) -> Result<QueryRowsResult, CassandraError> {
    result.into_rows_result().map_err(|cause| CassandraError::of_answer(statement, cause))
}
