//! The table that `replay --out tsv:FILE` writes: `video TAB event type TAB window start in ms TAB count`, sorted
//! bytewise by the first three columns as text, no header.

use std::{
    ffi::OsString,
    fs::{self, File, OpenOptions},
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
};

use dataflows::port::CountRow;

/// How much is gathered for one write, bytes.
const BUFFER_BYTES: usize = 1024 * 1024;

/// How long a line usually is at the most, bytes; only a first guess of how much text there will be.
const LINE_BYTES_GUESSED: usize = 40;

/// Writes the table and says how many rows it has. The file is there in full and durable, or not at all: it takes its
/// name only when finished. What is no regular file (a pipe, `/dev/stdout`) is written to as it is.
pub fn write_tsv(path: &Path, rows: Vec<CountRow>) -> io::Result<u64> {
    let table = Table::sorted(rows);
    if path.metadata().is_ok_and(|metadata| !metadata.is_file()) {
        table.write(&OpenOptions::new().write(true).open(path)?)?;
    } else {
        write_durably(path, &table)?;
    }
    Ok(table.lines.len() as u64)
}

/// The lines in order, over one text that has them as they came.
///
/// Whole lines are compared: neither id nor event type can hold a control character, so the TAB behind a column sorts
/// before whatever a longer column has in its place, just as the end of a text sorts before a longer text.
struct Table {
    text: Vec<u8>,
    lines: Vec<Line>,
}

/// Where a line lies in the text.
struct Line {
    /// Its first 16 bytes as a number that sorts like them: most comparisons end here, without a look at the text.
    head: u128,
    start: usize,
    end: usize,
}

impl Table {
    fn sorted(rows: Vec<CountRow>) -> Self {
        let mut text = Vec::with_capacity(rows.len() * LINE_BYTES_GUESSED);
        let mut lines = Vec::with_capacity(rows.len());
        for row in rows {
            let start = text.len();
            push_line(&mut text, &row);
            lines.push(Line { head: head(&text[start..]), start, end: text.len() });
        }
        lines.sort_unstable_by(|one, other| {
            one.head.cmp(&other.head).then_with(|| text[one.start..one.end].cmp(&text[other.start..other.end]))
        });
        Self { text, lines }
    }

    fn write(&self, file: &File) -> io::Result<()> {
        let mut out = BufWriter::with_capacity(BUFFER_BYTES, file);
        for line in &self.lines {
            out.write_all(&self.text[line.start..line.end])?;
        }
        out.flush()
    }
}

fn push_line(text: &mut Vec<u8>, CountRow { video_id, event_type, window_start, count, .. }: &CountRow) {
    text.extend_from_slice(video_id.as_bytes());
    text.push(b'\t');
    text.extend_from_slice(event_type.as_bytes());
    text.push(b'\t');
    push_decimal(text, *window_start);
    text.push(b'\t');
    push_decimal(text, *count);
    text.push(b'\n');
}

/// Decimal digits without the machinery of `fmt`.
fn push_decimal(text: &mut Vec<u8>, mut number: u64) {
    // 2^64 has 20 digits.
    let mut digits = [0; 20];
    let mut start = digits.len();
    loop {
        start -= 1;
        digits[start] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            return text.extend_from_slice(&digits[start..]);
        }
    }
}

fn head(line: &[u8]) -> u128 {
    let mut head = [0; 16];
    let shared = line.len().min(head.len());
    head[..shared].copy_from_slice(&line[..shared]);
    u128::from_be_bytes(head)
}

fn write_durably(path: &Path, table: &Table) -> io::Result<()> {
    let name = path.file_name().ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "not a file name"))?;
    let folder = match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    let unfinished = unfinished_path(folder, name.to_owned())?;
    let written = (|| {
        let file = OpenOptions::new().write(true).create_new(true).open(&unfinished)?;
        table.write(&file)?;
        file.sync_all()?;
        fs::rename(&unfinished, path)?;
        File::open(folder)?.sync_all()
    })();
    if written.is_err() {
        // The first error is the one to report; a leftover harms nobody.
        let _ = fs::remove_file(&unfinished);
    }
    written
}

/// A name in the same folder that no one else uses.
fn unfinished_path(folder: &Path, mut name: OsString) -> io::Result<PathBuf> {
    name.push(format!(".{:016x}.unfinished", getrandom::u64()?));
    Ok(folder.join(name))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn row(video_id: &str, event_type: &str, window_start: u64, count: u64) -> CountRow {
        let (video_id, event_type) = (video_id.to_owned(), event_type.to_owned());
        CountRow { video_id, event_type, window_start, count, is_final: true, as_of: 7 }
    }

    fn written(rows: Vec<CountRow>) -> String {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out.tsv");
        fs::write(&path, "what was there before").unwrap();
        let expected = rows.len() as u64;
        assert_eq!(write_tsv(&path, rows).unwrap(), expected);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "only the table is left");
        fs::read_to_string(path).unwrap()
    }

    #[test]
    fn rows_are_sorted_by_their_columns_as_text() {
        let rows = vec![
            row("b", "view", 60_000, 1),
            row("a", "view", 1_767_225_600_000, u64::MAX),
            row("a", "view", 0, 10),
            row("a", "view", 999_960_000, 2),
            row("a", "view", 60_000, 3),
            row("a", "like", 120_000, 4),
            row("ab", "a", 0, 5),
            row("a ", "a", 0, 6),
            row("\u{E9}", "a", 0, 0),
            row("A", "view", 600_000, 8),
        ];
        let expected = "A\tview\t600000\t8\n\
                        a\tlike\t120000\t4\n\
                        a\tview\t0\t10\n\
                        a\tview\t1767225600000\t18446744073709551615\n\
                        a\tview\t60000\t3\n\
                        a\tview\t999960000\t2\n\
                        a \ta\t0\t6\n\
                        ab\ta\t0\t5\n\
                        b\tview\t60000\t1\n\
                        \u{E9}\ta\t0\t0\n";
        assert_eq!(written(rows), expected);
    }

    #[test]
    fn no_rows_are_an_empty_file() {
        assert_eq!(written(Vec::new()), "");
    }

    #[test]
    fn a_table_that_cannot_be_written_leaves_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        assert!(write_tsv(&folder.path().join("absent/out.tsv"), vec![row("a", "view", 0, 1)]).is_err());
        assert!(write_tsv(folder.path(), vec![row("a", "view", 0, 1)]).is_err(), "a folder is no file");
        // Fails when the finished file is to take its name.
        assert!(write_tsv(&folder.path().join("out.tsv/"), vec![row("a", "view", 0, 1)]).is_err());
        assert!(write_tsv(Path::new("/"), Vec::new()).is_err());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_device_is_written_to_and_not_replaced() {
        use std::os::unix::fs::FileTypeExt;
        write_tsv(Path::new("/dev/null"), vec![row("a", "view", 0, 1)]).unwrap();
        assert!(fs::metadata("/dev/null").unwrap().file_type().is_char_device());
        let full = write_tsv(Path::new("/dev/full"), vec![row("a", "view", 0, 1)]);
        assert_eq!(full.unwrap_err().kind(), io::ErrorKind::StorageFull);
    }

    proptest! {
        #[test]
        fn a_number_is_written_as_std_formats_it(number in numbers()) {
            let mut text = Vec::new();
            push_decimal(&mut text, number);
            prop_assert_eq!(text, number.to_string().into_bytes());
        }

        #[test]
        fn the_order_is_that_of_the_lines(
            rows in prop::collection::vec(("[ab \u{E9}]{1,3}(prefix longer than the head)?", "[a-c_]{1,2}", 0..300_u64), 0..60),
        ) {
            let lines = |rows: &[(String, String, u64)]| {
                let mut lines: Vec<_> = rows.iter().map(|(v, e, w)| format!("{v}\t{e}\t{w}\t1")).collect();
                lines.sort();
                lines
            };
            let expected = lines(&rows);
            let table = written(rows.iter().map(|(v, e, w)| row(v, e, *w, 1)).collect());
            prop_assert_eq!(table.lines().collect::<Vec<_>>(), expected);
        }
    }

    fn numbers() -> impl Strategy<Value = u64> {
        prop_oneof![any::<u64>(), 0..2000_u64, (0..20_u32, 0..3_u64).prop_map(|(n, more)| 10_u64.pow(n) - 1 + more)]
    }
}
