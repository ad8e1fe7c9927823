//! Parser of the configuration file; keeps the line number of each value.

use std::path::Path;

use toml::de::{DeTable, DeValue};

use super::near::nearest;
use super::table::{SECTIONS, find, unknown};
use super::value::Value;
use super::values::{Layer, Whence};

/// Parses the text of a file into a layer. Each error is added to `errors` with its file and line.
/// The line itself is not included: it may contain a password.
pub(super) fn read(path: &Path, text: &str, layer: &mut Layer, errors: &mut Vec<String>) {
    let mut reader = Reader {
        path,
        text,
        layer,
        faults: Vec::new(),
    };
    match DeTable::parse(text) {
        Ok(table) => reader.document(table.get_ref()),
        Err(error) => {
            reader.layer.is_unreadable();
            let at = error.span().map_or(0, |span| span.start);
            let said = error.message().lines().collect::<Vec<_>>().join(", ");
            reader.fault(at, said);
        }
    }
    let mut faults = reader.faults;
    faults.sort();
    let path = path.display();
    let told = faults.into_iter();
    errors.extend(told.map(|(line, what)| format!("{path}: line {line}: {what}")));
}

struct Reader<'a> {
    path: &'a Path,
    text: &'a str,
    layer: &'a mut Layer,
    faults: Vec<(usize, String)>,
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
                DeValue::Table(_) => self.fault(at, unknown_section(name)),
                _ if is_section => self.fault(at, format!("{name} is a section: [{name}]")),
                value => self.setting(name, at, value),
            }
        }
    }

    fn setting(&mut self, name: &str, at: usize, value: &DeValue<'_>) {
        let Some((setting, is_file)) = find(name) else {
            return self.fault(at, unknown(name));
        };
        let whence = Whence::Line(self.path.to_owned(), self.line(at));
        // A value of an unsupported TOML type matches no kind. The placeholder list produces the
        // same error as any other value of the wrong kind.
        let value = Value::of(value).unwrap_or(Value::List(vec![String::new()]));
        if let Err(what) = self.layer.put(setting, is_file, Ok(value), whence) {
            self.fault(at, what);
        }
    }

    fn fault(&mut self, at: usize, what: String) {
        let line = self.line(at);
        self.faults.push((line, what));
    }

    fn line(&self, at: usize) -> usize {
        let before = self.text.as_bytes().get(..at).unwrap_or_default();
        1 + before.iter().filter(|&&byte| byte == b'\n').count()
    }
}

fn unknown_section(name: &str) -> String {
    let sections = SECTIONS.iter().map(|(section, _)| (*section).to_owned());
    match nearest(name, sections.filter(|section| !section.is_empty())) {
        Some(near) => format!("there is no section [{name}]; did you mean [{near}]?"),
        None => format!("there is no section [{name}]"),
    }
}
