//! The claim row: whose rows these are, and how far they have got. The only place of lightweight transactions.
//!
//! Each statement takes effect only on the row that it was meant for, so that one that is late (its answer got lost, its
//! coordinator stood still) can do no harm:
//!
//! | meant to | takes effect if |
//! |---|---|
//! | claim first | there is no row |
//! | take over | the history is ours and the generation there is less than ours |
//! | note progress | history and generation are ours, and the frontier there is not greater than ours |
//! | mark as being emptied | there is a row |
//! | delete | it is marked |
//!
//! So a claim of another history is never overwritten, a lesser generation never wins, and a frontier of one generation
//! never goes back. Each may be repeated: what has been done already lets the repetition through as it is, or as progress.
//!
//! While the tables are being emptied the claim says [`NO_HISTORY`], which no history is called. Whoever finds it finds
//! rows of a history that is not its own, and is told to begin from the start, which empties them again.

use dataflows::port::{Claim, SinkError};
use scylla::{
    client::session::Session,
    serialize::row::SerializeRow,
    statement::prepared::PreparedStatement,
    value::{CqlTimestamp, CqlValue},
};

use super::{
    CassandraError,
    answer::Named,
    schema,
    statements::{Statements, cql_time},
};

/// The history of a claim whose rows are being removed.
const NO_HISTORY: u128 = 0;

/// How often the row may change under our hands: each time another owner has made a step of its own.
const ROUNDS_MAX: usize = 8;

/// What a transaction found.
enum Outcome {
    Applied,
    /// Not applied, since this was there.
    Found(Option<Claim>),
}

/// What to do about a claim that is there.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    First,
    TakeOver,
    Progress,
    /// It belongs to another owner.
    Fenced(String),
    /// It is ours and further on.
    Back(String),
}

fn step(claim: &Claim, there: Option<&Claim>) -> Step {
    let Some(there) = there else {
        return Step::First;
    };
    if there.history != claim.history {
        return Step::Fenced(format!("it holds the rows of history {:032x}", there.history));
    }
    if claim.generation < there.generation {
        return Step::Fenced(format!("generation {} has claimed it", there.generation));
    }
    if there.generation < claim.generation {
        return Step::TakeOver;
    }
    if there.frontier <= claim.frontier {
        return Step::Progress;
    }
    Step::Back(format!("the same generation has got to {} already", there.frontier))
}

/// Reads the claim and, as a serial read does, finishes a transaction that is under way.
pub(super) async fn read(session: &Session, statements: &Statements) -> Result<Option<Claim>, CassandraError> {
    let statement = &statements.claim;
    let text = statement.get_statement();
    let result = session.execute_unpaged(statement, ()).await.map_err(|cause| CassandraError::of(text, cause))?;
    Named::first(text, result)?.map(|row| claim_of(&row)).transpose()
}

/// Sets the claim, or says why it may not be set.
pub(super) async fn set(
    session: &Session,
    statements: &Statements,
    sink: &str,
    claim: &Claim,
) -> Result<(), SinkError> {
    let what = || format!("the claim of generation {} at {}", claim.generation, claim.frontier);
    let refused = |why: &str| SinkError::Refused { sink: sink.to_owned(), what: what(), cause: why.to_owned().into() };
    let (Ok(generation), Some(frontier)) = (i64::try_from(claim.generation), cql_time(claim.frontier)) else {
        return Err(refused("its numbers are too great"));
    };
    if claim.history == NO_HISTORY {
        return Err(refused("no history has the number 0"));
    }
    let history = text_of(claim.history);
    let history = history.as_str();
    let attempt = async |step: &Step| match step {
        Step::First => transact(session, &statements.claim_first, (history, generation, frontier)).await,
        Step::TakeOver => {
            transact(session, &statements.claim_takeover, (generation, frontier, history, generation)).await
        }
        _ => transact(session, &statements.claim_progress, (frontier, history, generation, frontier)).await,
    };
    // Mostly it is progress, and then one transaction is enough.
    let mut next = Step::Progress;
    for _ in 0..ROUNDS_MAX {
        let there = match attempt(&next).await {
            Ok(Outcome::Applied) => return Ok(()),
            Ok(Outcome::Found(there)) => there,
            Err(error) => return Err(error.of_sink(sink, what())),
        };
        next = match step(claim, there.as_ref()) {
            Step::Fenced(what) => return Err(SinkError::Fenced { sink: sink.to_owned(), what }),
            Step::Back(why) => return Err(refused(&why)),
            next => next,
        };
    }
    let cause = format!("it changed {ROUNDS_MAX} times meanwhile").into();
    Err(SinkError::Unanswered { sink: sink.to_owned(), what: what(), cause })
}

/// Says that the rows are being removed. Nothing to do where nobody has claimed them.
pub(super) async fn mark(session: &Session, statements: &Statements) -> Result<(), CassandraError> {
    answer(session, &statements.claim_mark, (text_of(NO_HISTORY),)).await.map(|_| ())
}

/// Removes a claim that is marked.
pub(super) async fn delete(session: &Session, statements: &Statements) -> Result<(), CassandraError> {
    answer(session, &statements.claim_delete, (text_of(NO_HISTORY),)).await.map(|_| ())
}

/// Runs a transaction that never takes effect: it fails where we may not write, or where nobody could agree.
pub(super) async fn may_write(session: &Session, statements: &Statements) -> Result<(), CassandraError> {
    answer(session, &statements.claim_delete, ("the history that no claim has",)).await.map(|_| ())
}

/// What a transaction answers: whether it was applied, and where it was not, the columns that its condition names.
async fn answer(
    session: &Session,
    statement: &PreparedStatement,
    values: impl SerializeRow,
) -> Result<Named, CassandraError> {
    let text = statement.get_statement();
    let result = session.execute_unpaged(statement, values).await.map_err(|cause| CassandraError::of(text, cause))?;
    Named::first(text, result)?.ok_or_else(|| CassandraError::of_answer(text, "a transaction without an answer"))
}

/// Runs a transaction whose condition names all columns of the claim.
async fn transact(
    session: &Session,
    statement: &PreparedStatement,
    values: impl SerializeRow,
) -> Result<Outcome, CassandraError> {
    let text = statement.get_statement();
    let row = answer(session, statement, values).await?;
    match row.get("[applied]") {
        Some(CqlValue::Boolean(true)) => Ok(Outcome::Applied),
        // Only where there is no row are all its columns null: each claim is written whole.
        Some(CqlValue::Boolean(false)) if row.get("history").is_none() => Ok(Outcome::Found(None)),
        Some(CqlValue::Boolean(false)) => Ok(Outcome::Found(Some(claim_of(&row)?))),
        _ => Err(CassandraError::of_answer(text, "a transaction that does not say whether it was applied")),
    }
}

fn text_of(history: u128) -> String {
    format!("{history:032x}")
}

fn claim_of(row: &Named) -> Result<Claim, CassandraError> {
    let claim = (|| {
        let CqlValue::Text(history) = row.get("history")? else { return None };
        let CqlValue::BigInt(generation) = row.get("generation")? else { return None };
        let CqlValue::Timestamp(CqlTimestamp(frontier)) = row.get("frontier")? else { return None };
        Some(Claim {
            history: u128::from_str_radix(history, 16).ok()?,
            generation: u64::try_from(*generation).ok()?,
            frontier: u64::try_from(*frontier).ok()?,
        })
    })();
    claim.ok_or_else(|| CassandraError::Schema {
        table: schema::CLAIM.name.to_owned(),
        what: "its row is none that Tidemark writes".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_gives_way_only_to_its_own_history_and_never_goes_back() {
        let claim = |history, generation, frontier| Claim { history, generation, frontier };
        let fenced = |step: &Step| matches!(step, Step::Fenced(_));
        let ours = claim(7, 3, 50);
        assert_eq!(step(&ours, None), Step::First);
        assert_eq!(step(&ours, Some(&claim(7, 2, 60))), Step::TakeOver);
        assert_eq!(step(&ours, Some(&claim(7, 3, 50))), Step::Progress);
        assert_eq!(step(&ours, Some(&claim(7, 3, 49))), Step::Progress);
        assert!(matches!(step(&ours, Some(&claim(7, 3, 51))), Step::Back(_)));
        assert!(fenced(&step(&ours, Some(&claim(7, 4, 0)))));
        for generation in [2, 3, 4] {
            assert!(fenced(&step(&ours, Some(&claim(8, generation, 0)))), "generation {generation}");
        }
        assert!(fenced(&step(&ours, Some(&claim(NO_HISTORY, 1, 0)))));
    }
}
