//! Result tables as text, and what differs between two of them.
//!
//! A table has one row `video_id TAB event_type TAB window_start_ms TAB count` for each window with events, sorted bytewise by the first
//! three columns as text (`LC_ALL=C sort`), no header, every row ended by a newline. Ids hold no control characters, so neither a tab
//! nor a newline needs an escape.

use std::cmp::Ordering;
use std::iter::Peekable;

use crate::Counts;

/// So many differing rows are spelled out.
pub const FIRST_ROWS: usize = 20;

/// What a full outer join of two tables found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Difference {
    /// Rows of the expected table alone.
    pub missing: u64,
    /// Rows of the actual table alone.
    pub extra: u64,
    /// Rows of both whose counts differ.
    pub differ: u64,
    /// The first of all these, in the order of the tables.
    pub first: Vec<String>,
}

impl Difference {
    pub fn is_empty(&self) -> bool {
        self.missing + self.extra + self.differ == 0
    }

    fn note(&mut self, what: &str, key: &[u8], counts: &str) {
        if self.first.len() < FIRST_ROWS {
            self.first.push(format!("{what}: {} {counts}", String::from_utf8_lossy(key).escape_debug()));
        }
    }
}

/// Renders counts as a table.
pub fn tsv(counts: &Counts) -> Vec<u8> {
    let render = |((video, kind, start_ms), count): (&(String, String, u64), &u64)| {
        (format!("{video}\t{kind}\t{start_ms}"), format!("\t{count}\n"))
    };
    let mut rows: Vec<(String, String)> = counts.iter().map(render).collect();
    // A tab sorts before everything that a column may hold, so the joined text sorts as the columns do.
    rows.sort_unstable();
    rows.into_iter().flat_map(|(key, count)| (key + &count).into_bytes()).collect()
}

/// Reads a table's rows: the text of the first three columns, and the count. Refuses what is not sorted or not a table.
pub fn rows(table: &[u8]) -> Result<Vec<(&[u8], u64)>, String> {
    let mut rows: Vec<(&[u8], u64)> = Vec::new();
    let Some(body) = table.strip_suffix(b"\n") else {
        return if table.is_empty() { Ok(rows) } else { Err("the last row has no end".to_owned()) };
    };
    for (index, line) in body.split(|byte| *byte == b'\n').enumerate() {
        let row = row(line)
            .ok_or_else(|| format!("row {} is not one: {}", index + 1, String::from_utf8_lossy(line).escape_debug()))?;
        if rows.last().is_some_and(|(key, _)| row.0 <= *key) {
            return Err(format!(
                "row {} is not after the one before it: {}",
                index + 1,
                String::from_utf8_lossy(line).escape_debug()
            ));
        }
        rows.push(row);
    }
    Ok(rows)
}

fn row(line: &[u8]) -> Option<(&[u8], u64)> {
    let columns: Vec<&[u8]> = line.split(|byte| *byte == b'\t').collect();
    let [video, kind, start_ms, count] = columns.as_slice() else {
        return None;
    };
    plain_number(start_ms)?;
    let key_bytes = video.len() + kind.len() + start_ms.len() + 2;
    Some((&line[..key_bytes], plain_number(count)?))
}

/// A number in the one way that it is written: no sign, no leading zero.
fn plain_number(text: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(text).ok()?;
    let number: u64 = text.parse().ok()?;
    (number.to_string() == text).then_some(number)
}

/// Joins two tables row by row.
pub fn compare(expected: &[u8], actual: &[u8]) -> Result<Difference, String> {
    let mut expected = rows(expected).map_err(|fault| format!("the expected table: {fault}"))?.into_iter().peekable();
    let mut actual = rows(actual).map_err(|fault| format!("the actual table: {fault}"))?.into_iter().peekable();
    let mut difference = Difference::default();
    while let Some(order) = next_side(&mut expected, &mut actual) {
        let wanted = expected.next_if(|_| order.is_le());
        let found = actual.next_if(|_| order.is_ge());
        match (wanted, found) {
            (Some((key, wanted)), None) => {
                difference.missing += 1;
                difference.note("missing", key, &format!("count {wanted}"));
            }
            (None, Some((key, found))) => {
                difference.extra += 1;
                difference.note("extra", key, &format!("count {found}"));
            }
            (Some((key, wanted)), Some((_, found))) if wanted != found => {
                difference.differ += 1;
                difference.note("differs", key, &format!("expected {wanted}, found {found}"));
            }
            _ => {}
        }
    }
    Ok(difference)
}

/// Which table has the lesser next key; none when both are at their end.
fn next_side<'a, I: Iterator<Item = (&'a [u8], u64)>>(
    left: &mut Peekable<I>,
    right: &mut Peekable<I>,
) -> Option<Ordering> {
    match (left.peek(), right.peek()) {
        (Some((left, _)), Some((right, _))) => Some(left.cmp(right)),
        (Some(_), None) => Some(Ordering::Less),
        (None, Some(_)) => Some(Ordering::Greater),
        (None, None) => None,
    }
}

/// Panics with the numbers and the first rows unless both tables are the same to the last byte.
#[track_caller]
pub fn assert_same(expected: &[u8], actual: &[u8]) {
    let difference = compare(expected, actual).unwrap_or_else(|fault| panic!("{fault}"));
    let Difference { missing, extra, differ, first } = &difference;
    assert!(difference.is_empty(), "{missing} rows missing, {extra} extra, {differ} differ\n{}", first.join("\n"));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(video: &str, kind: &str, start_ms: u64) -> (String, String, u64) {
        (video.to_owned(), kind.to_owned(), start_ms)
    }

    #[test]
    fn a_table_is_sorted_by_its_columns_as_text() {
        let counts = Counts::from([
            (key("v", "view", 60_000), 1),
            (key("v", "view", 120_000), 2),
            (key("v", "view.hd", 0), 6),
            (key("v!", "view", 0), 3),
            (key("v", "like", 600_000), 4),
            (key("é", "view", 0), 5),
        ]);
        let expected = "v\tlike\t600000\t4\nv\tview\t120000\t2\nv\tview\t60000\t1\nv\tview.hd\t0\t6\nv!\tview\t0\t3\né\tview\t0\t5\n";
        assert_eq!(String::from_utf8(tsv(&counts)).unwrap(), expected);
        assert_eq!(rows(expected.as_bytes()).unwrap().len(), 6);
        assert!(tsv(&Counts::new()).is_empty());
    }

    #[test]
    fn the_join_is_outer_on_both_sides() {
        let expected = b"a\tview\t0\t1\nb\tview\t0\t1\nc\tview\t0\t1\nz\tview\t0\t7\n";
        let actual = b"b\tview\t0\t1\nc\tview\t0\t2\nd\tview\t0\t1\ne\tview\t0\t1\n";
        let difference = compare(expected, actual).unwrap();
        assert_eq!((difference.missing, difference.extra, difference.differ), (2, 2, 1));
        assert_eq!(difference.first[0], r"missing: a\tview\t0 count 1");
        assert_eq!(difference.first[1], r"differs: c\tview\t0 expected 1, found 2");
        assert_eq!(difference.first.len(), 5);
        assert!(compare(expected, expected).unwrap().is_empty());
        assert!(compare(b"", b"").unwrap().is_empty());
        assert_eq!(compare(b"", actual).unwrap().extra, 4);
    }

    #[test]
    fn only_the_first_rows_are_spelled_out() {
        let table: String = (10..99).map(|video| format!("{video}\tview\t0\t1\n")).collect();
        let difference = compare(table.as_bytes(), b"").unwrap();
        assert_eq!((difference.missing, difference.first.len()), (89, FIRST_ROWS));
    }

    #[test]
    fn what_is_not_a_sorted_table_is_refused() {
        for (case, table) in [
            ("no end", "a\tview\t0\t1"),
            ("three columns", "a\tview\t0\n"),
            ("five columns", "a\tview\t0\t1\t1\n"),
            ("not a count", "a\tview\t0\tx\n"),
            ("a padded count", "a\tview\t0\t01\n"),
            ("a signed window", "a\tview\t+0\t1\n"),
            ("an empty row", "\n"),
            ("a repeated row", "a\tview\t0\t1\na\tview\t0\t1\n"),
            ("not in order", "b\tview\t0\t1\na\tview\t0\t1\n"),
            ("in order of numbers", "a\tview\t60000\t1\na\tview\t120000\t1\n"),
        ] {
            assert!(rows(table.as_bytes()).is_err(), "{case}");
        }
    }

    #[test]
    #[should_panic(expected = "1 rows missing, 0 extra, 0 differ")]
    fn different_tables_panic() {
        assert_same(b"a\tview\t0\t1\n", b"");
    }
}
