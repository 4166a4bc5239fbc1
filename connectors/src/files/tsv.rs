//! The table that `replay --out tsv:FILE` writes: `video TAB event type TAB window start in ms TAB count`, sorted
//! bytewise by the first three columns as text, no header.

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    ffi::OsString,
    fs::{self, File, OpenOptions},
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
};

use dataflows::time::EventTime;

/// How much is gathered for one write, bytes.
const BUFFER_BYTES: usize = 1024 * 1024;

/// Lines in order: what one worker adds to the table.
#[derive(Clone, Debug, Default)]
pub struct Lines {
    text: Vec<u8>,
    /// Where each series' lines end.
    ends: Vec<usize>,
    rows: u64,
}

impl Lines {
    /// Appends a series' windows (start and count), the oldest first; series come in the order of their names, each once.
    pub fn push(&mut self, video_id: &str, event_type: &str, windows: impl Iterator<Item = (EventTime, u64)>) {
        let begin = self.text.len();
        let (mut rows, mut digits) = (0, None);
        let mut is_textual = true;
        for (start, count) in windows {
            self.text.extend_from_slice(video_id.as_bytes());
            self.text.push(b'\t');
            self.text.extend_from_slice(event_type.as_bytes());
            self.text.push(b'\t');
            let at = self.text.len();
            push_decimal(&mut self.text, start);
            let length = self.text.len() - at;
            is_textual = is_textual && digits.replace(length).is_none_or(|before| before == length);
            self.text.push(b'\t');
            push_decimal(&mut self.text, count);
            self.text.push(b'\n');
            rows += 1;
        }
        if rows == 0 {
            return;
        }
        if !is_textual {
            self.sort_from(begin);
        }
        self.rows += rows;
        self.ends.push(self.text.len());
    }

    /// Sorts the lines from `begin` on: as text, 1000 comes before 999.
    ///
    /// Whole lines are compared: the TAB behind a column sorts before whatever a longer column has in its place, just as the
    /// end of a text sorts before a longer text.
    fn sort_from(&mut self, begin: usize) {
        let mut lines: Vec<Vec<u8>> =
            self.text[begin..].split_inclusive(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
        lines.sort_unstable();
        self.text.truncate(begin);
        self.text.extend(lines.into_iter().flatten());
    }

    /// How many lines there are.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    fn series(&self) -> impl Iterator<Item = &[u8]> {
        let mut begin = 0;
        self.ends.iter().map(move |end| &self.text[std::mem::replace(&mut begin, *end)..*end])
    }
}

/// Writes the table and says how many rows it has; each series is in one of `parts` alone. The file is there in full and
/// durable, or not at all: it takes its name only when finished. What is no regular file (a pipe, `/dev/stdout`) is written
/// to as it is.
pub fn write_tsv(path: &Path, parts: &[Lines]) -> io::Result<u64> {
    if path.metadata().is_ok_and(|metadata| !metadata.is_file()) {
        write(&OpenOptions::new().write(true).open(path)?, parts)?;
    } else {
        write_durably(path, parts)?;
    }
    Ok(parts.iter().map(Lines::rows).sum())
}

/// Merges the parts, series by series: their lines compare like their names, since neither id nor event type can hold a
/// control character, and TAB is one.
fn write(file: &File, parts: &[Lines]) -> io::Result<()> {
    let mut out = BufWriter::with_capacity(BUFFER_BYTES, file);
    let mut parts: Vec<_> = parts.iter().map(Lines::series).collect();
    let mut next = BinaryHeap::new();
    for (place, part) in parts.iter_mut().enumerate() {
        next.extend(part.next().map(|lines| Reverse((lines, place))));
    }
    while let Some(Reverse((lines, place))) = next.pop() {
        out.write_all(lines)?;
        next.extend(parts[place].next().map(|lines| Reverse((lines, place))));
    }
    out.flush()
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

fn write_durably(path: &Path, parts: &[Lines]) -> io::Result<()> {
    let name = path.file_name().ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "not a file name"))?;
    let folder = match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    let unfinished = unfinished_path(folder, name.to_owned())?;
    let written = (|| {
        let file = OpenOptions::new().write(true).create_new(true).open(&unfinished)?;
        write(&file, parts)?;
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
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    /// Video id, event type, window start, count.
    type Row<'a> = (&'a str, &'a str, u64, u64);

    /// The rows as workers would have them: each series on one, by name.
    fn parts(rows: &[Row<'_>]) -> Vec<Lines> {
        let mut series: BTreeMap<(&str, &str), Vec<(u64, u64)>> = BTreeMap::new();
        for (video_id, event_type, start, count) in rows {
            series.entry((video_id, event_type)).or_default().push((*start, *count));
        }
        let mut parts = vec![Lines::default(); 3];
        for ((video_id, event_type), mut windows) in series {
            windows.sort_unstable();
            parts[(video_id.len() + event_type.len()) % 3].push(video_id, event_type, windows.into_iter());
        }
        parts
    }

    fn written(rows: &[Row<'_>]) -> String {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out.tsv");
        fs::write(&path, "what was there before").unwrap();
        assert_eq!(write_tsv(&path, &parts(rows)).unwrap(), rows.len() as u64);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "only the table is left");
        fs::read_to_string(path).unwrap()
    }

    #[test]
    fn rows_are_sorted_by_their_columns_as_text() {
        let rows = [
            ("b", "view", 60_000, 1),
            ("a", "view", 1_767_225_600_000, u64::MAX),
            ("a", "view", 0, 10),
            ("a", "view", 999_960_000, 2),
            ("a", "view", 60_000, 3),
            ("a", "like", 120_000, 4),
            ("ab", "a", 0, 5),
            ("a ", "a", 0, 6),
            ("\u{E9}", "a", 0, 0),
            ("A", "view", 600_000, 8),
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
        assert_eq!(written(&rows), expected);
    }

    #[test]
    fn no_rows_are_an_empty_file() {
        assert_eq!(written(&[]), "");
        let mut none = Lines::default();
        none.push("a", "view", std::iter::empty());
        assert_eq!((none.rows(), none.series().count()), (0, 0));
    }

    #[test]
    fn a_table_that_cannot_be_written_leaves_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        assert!(write_tsv(&folder.path().join("absent/out.tsv"), &parts(&[("a", "view", 0, 1)])).is_err());
        assert!(write_tsv(folder.path(), &parts(&[("a", "view", 0, 1)])).is_err(), "a folder is no file");
        // Fails when the finished file is to take its name.
        assert!(write_tsv(&folder.path().join("out.tsv/"), &parts(&[("a", "view", 0, 1)])).is_err());
        assert!(write_tsv(Path::new("/"), &[]).is_err());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_device_is_written_to_and_not_replaced() {
        use std::os::unix::fs::FileTypeExt;
        write_tsv(Path::new("/dev/null"), &parts(&[("a", "view", 0, 1)])).unwrap();
        assert!(fs::metadata("/dev/null").unwrap().file_type().is_char_device());
        let full = write_tsv(Path::new("/dev/full"), &parts(&[("a", "view", 0, 1)]));
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
            rows in prop::collection::vec(("[ab \u{E9}]{1,3}( and more)?", "[a-c_]{1,2}", 0..300_u64), 0..60),
        ) {
            let lines = |rows: &[(String, String, u64)]| {
                let mut lines: Vec<_> = rows.iter().map(|(v, e, w)| format!("{v}\t{e}\t{w}\t1")).collect();
                lines.sort();
                lines
            };
            let expected = lines(&rows);
            let rows: Vec<Row<'_>> = rows.iter().map(|(v, e, w)| (v.as_str(), e.as_str(), *w, 1)).collect();
            let table = written(&rows);
            prop_assert_eq!(table.lines().collect::<Vec<_>>(), expected);
        }
    }

    fn numbers() -> impl Strategy<Value = u64> {
        prop_oneof![any::<u64>(), 0..2000_u64, (0..20_u32, 0..3_u64).prop_map(|(n, more)| 10_u64.pow(n) - 1 + more)]
    }
}
