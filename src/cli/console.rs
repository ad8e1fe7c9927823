//! Input and output of a command: the standard streams, or buffers in tests.

use std::io::{self, BufRead, Write};
use std::path::Path;

use super::sanitize::escaped;
use crate::backend::DataDir;
use crate::backend::embedded::Store;
use crate::exit::Exit;

/// The streams of a command.
pub(super) struct Console<'a> {
    pub input: &'a mut dyn BufRead,
    /// Results, for people and scripts.
    pub out: &'a mut dyn Write,
    /// Messages for people only.
    pub messages: &'a mut dyn Write,
}

/// Runs a command on the database in a data directory and the standard streams. Creates neither
/// directory nor database: the path may be mistyped, or the database of a running server may be
/// missing, and an empty replacement would invalidate all tokens.
pub(super) fn with_store(
    data: &Path,
    command: impl FnOnce(&Store, &mut Console<'_>) -> Result<(), Exit>,
) -> Result<(), Exit> {
    let database = DataDir::existing(data)?.database();
    let store = open_store(&database)?;
    let mut console = Console {
        input: &mut io::stdin().lock(),
        out: &mut io::stdout().lock(),
        messages: &mut io::stderr().lock(),
    };
    command(&store, &mut console).map_err(|exit| exit.in_database(&database))
}

/// Opens a database that must exist. Errors name its file.
pub(super) fn open_store(database: &Path) -> Result<Store, Exit> {
    Store::open_existing(database).map_err(|error| Exit::from(error).in_database(database))
}

/// Creates the data directory and an empty database, if they do not exist.
pub(super) fn create(data: &Path) -> Result<(), Exit> {
    let database = DataDir::open(data)?.database();
    let created = Store::open(&database);
    created.map_err(|error| Exit::from(error).in_database(&database))?;
    Ok(())
}

impl Console<'_> {
    /// Prints rows in aligned columns. The first row is the heading. If there is no other row,
    /// prints the message `none` instead. Names come from other people, so characters that control
    /// a terminal or are invisible are escaped.
    pub(super) fn table(&mut self, rows: &[Vec<String>], none: &str) -> Result<(), Exit> {
        if rows.len() < 2 {
            writeln!(self.messages, "{none}")?;
            return Ok(());
        }
        let rows: Vec<Vec<String>> = rows
            .iter()
            .map(|row| row.iter().map(|cell| escaped(cell)).collect())
            .collect();
        let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
        let widths: Vec<usize> = (0..columns)
            .map(|column| {
                let cells = rows.iter().filter_map(|row| row.get(column));
                cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
            })
            .collect();
        for row in &rows {
            let cells = row.iter().zip(&widths);
            let line: Vec<String> = cells
                .map(|(cell, &width)| format!("{cell:width$}"))
                .collect();
            writeln!(self.out, "{}", line.join("  ").trim_end())?;
        }
        Ok(())
    }

    /// Prints the fields of one object, one line each, with names padded to `width`. Values are
    /// escaped as in a table.
    pub(super) fn fields(&mut self, fields: &[(&str, String)], width: usize) -> Result<(), Exit> {
        for (name, value) in fields {
            writeln!(self.out, "{name:width$}  {}", escaped(value))?;
        }
        Ok(())
    }
}

/// Runs a command in a test. Returns its result, its output, and its messages.
#[cfg(test)]
pub(super) fn captured(
    input: &str,
    command: impl FnOnce(&mut Console<'_>) -> Result<(), Exit>,
) -> (Result<(), Exit>, String, String) {
    let (mut out, mut messages) = (Vec::new(), Vec::new());
    let result = command(&mut Console {
        input: &mut input.as_bytes(),
        out: &mut out,
        messages: &mut messages,
    });
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (result, text(out), text(messages))
}

/// A command line without the name of the command, and its expected output or exit code.
#[cfg(test)]
pub(super) type Case<'a> = (&'a [&'a str], Result<&'a str, u8>);

/// Runs command lines in order, and asserts the standard output or the exit code of each.
#[cfg(test)]
pub(super) fn assert_cases(
    cases: &[Case<'_>],
    run: impl Fn(&[&str], &mut Console<'_>) -> Result<(), Exit>,
) {
    for (line, expected) in cases {
        let (result, out, _) = captured("", |console| run(line, console));
        let got = result.map(|()| out.as_str()).map_err(|exit| exit.code);
        assert_eq!(got, *expected, "{line:?}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_empty_table_prints_a_message() {
        let rows =
            [["A", "B"], ["é", "b"], ["long", "b"]].map(|row| row.map(String::from).to_vec());
        let (_, out, _) = captured("", |console| console.table(&rows, "none"));
        assert_eq!(out, "A     B\né     b\nlong  b\n");
        let (_, out, messages) = captured("", |console| console.table(&rows[..1], "none"));
        assert_eq!((&*out, &*messages), ("", "none\n"));
    }

    #[test]
    fn names_in_tables_and_fields_are_escaped() {
        let rows =
            [["NAME", "B"], ["a\u{202e}b\u{1b}", "b"]].map(|row| row.map(String::from).to_vec());
        let (_, out, _) = captured("", |console| console.table(&rows, "none"));
        assert_eq!(out, "NAME              B\na\\u{202e}b\\u{1b}  b\n");
        let fields = [("name", "a\nb\u{9b}".to_owned())];
        let (_, out, _) = captured("", |console| console.fields(&fields, 5));
        assert_eq!(out, "name   a\\u{a}b\\u{9b}\n");
    }
}
