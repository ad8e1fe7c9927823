//! Parser of the configuration file; keeps the line number of each value.

use std::path::Path;

use toml::de::{DeTable, DeValue};

use super::suggest::nearest;
use super::table::{SECTIONS, find, unknown};
use super::value::Value;
use super::values::{Layer, Provenance};

/// Parses the text of a file into a layer. Each error is added to `errors` with its file and line.
/// The line itself is not included: it may contain a password.
pub(super) fn read(path: &Path, text: &str, layer: &mut Layer, errors: &mut Vec<String>) {
    let mut reader = Reader {
        path,
        text,
        layer,
        errors: Vec::new(),
    };
    match DeTable::parse(text) {
        Ok(table) => reader.document(table.get_ref()),
        Err(error) => {
            reader.layer.mark_unreadable();
            let at = error.span().map_or(0, |span| span.start);
            let message = error.message().lines().collect::<Vec<_>>().join(", ");
            reader.error(at, message);
        }
    }
    let mut found = reader.errors;
    found.sort();
    let path = path.display();
    let lines = found.into_iter();
    errors.extend(lines.map(|(line, error)| format!("{path}: line {line}: {error}")));
}

struct Reader<'a> {
    path: &'a Path,
    text: &'a str,
    layer: &'a mut Layer,
    errors: Vec<(usize, String)>,
}

impl Reader<'_> {
    fn document(&mut self, table: &DeTable<'_>) {
        for (key, value) in table {
            let (name, at) = (key.get_ref(), key.span().start);
            let is_section = SECTIONS.iter().any(|(section, _)| section == name);
            match value.get_ref() {
                DeValue::Table(section) if is_section => {
                    for (key, value) in section {
                        let name = format!("{name}.{}", key.get_ref());
                        self.setting(&name, key.span().start, value.get_ref());
                    }
                }
                DeValue::Table(_) => self.error(at, unknown_section(name)),
                _ if is_section => {
                    self.error(at, format!("{name} is a section; write it as [{name}]"))
                }
                value => self.setting(name, at, value),
            }
        }
    }

    fn setting(&mut self, name: &str, at: usize, value: &DeValue<'_>) {
        let Some((setting, is_file)) = find(name) else {
            return self.error(at, unknown(name));
        };
        let provenance = Provenance::Line(self.path.to_owned(), self.line(at));
        // A value of an unsupported TOML type matches no kind. The placeholder list produces the
        // same error as any other value of the wrong kind.
        let value = Value::of(value).unwrap_or(Value::List(vec![String::new()]));
        if let Err(message) = self.layer.put(setting, is_file, Ok(value), provenance) {
            self.error(at, message);
        }
    }

    fn error(&mut self, at: usize, message: String) {
        let line = self.line(at);
        self.errors.push((line, message));
    }

    fn line(&self, at: usize) -> usize {
        let before = self.text.as_bytes().get(..at).unwrap_or_default();
        1 + before.iter().filter(|&&byte| byte == b'\n').count()
    }
}

fn unknown_section(name: &str) -> String {
    let sections = SECTIONS.iter().map(|(section, _)| (*section).to_owned());
    match nearest(name, sections.filter(|section| !section.is_empty())) {
        Some(suggestion) => format!("unknown section [{name}]; did you mean [{suggestion}]?"),
        None => format!("unknown section [{name}]"),
    }
}
