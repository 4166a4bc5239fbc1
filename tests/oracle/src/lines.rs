//! The lines of a plain file, one at a time.

use std::io::{BufRead, Error};

/// Calls `each` with every line that is not blank, without its newline. A last line needs none.
///
/// Blank is a line of nothing but spaces, tabs and carriage returns. A carriage return before the newline stays part of the line: it is
/// white space to JSON, and it is a byte of the record.
pub fn each_line(mut reader: impl BufRead, mut each: impl FnMut(&[u8])) -> Result<(), Error> {
    let mut line = Vec::new();
    while 0 < reader.read_until(b'\n', &mut line)? {
        let text = line.strip_suffix(b"\n").unwrap_or(&line);
        if !is_blank(text) {
            each(text);
        }
        line.clear();
    }
    Ok(())
}

/// Whether the reader of plain files skips this line.
pub fn is_blank(line: &[u8]) -> bool {
    line.iter().all(|byte| matches!(byte, b' ' | b'\t' | b'\r'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blank_lines_are_skipped_and_the_last_newline_is_optional() {
        for (text, expected) in [
            ("", vec![]),
            ("\n", vec![]),
            ("a\nb\n", vec!["a", "b"]),
            ("a\nb", vec!["a", "b"]),
            ("a\r\n\r\n \t\r\n\n b \n", vec!["a\r", " b "]),
            ("a\rb\n\u{b}\n", vec!["a\rb", "\u{b}"]),
        ] {
            let mut lines = Vec::new();
            each_line(text.as_bytes(), |line| lines.push(String::from_utf8(line.to_vec()).unwrap())).unwrap();
            assert_eq!(lines, expected, "{text:?}");
        }
    }
}
