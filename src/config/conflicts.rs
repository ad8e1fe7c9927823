//! Conflicts in a configuration, all collected in one run.

use std::fmt::Display;

use super::values::Values;

/// The conflicts found so far.
pub(super) struct Conflicts<'a> {
    values: &'a Values,
    lines: Vec<String>,
}

impl<'a> Conflicts<'a> {
    /// Returns an empty list.
    pub(super) fn new(values: &'a Values) -> Self {
        Conflicts {
            values,
            lines: Vec::new(),
        }
    }

    /// Adds a problem, followed by the values of the settings that it concerns and their sources.
    /// Ignored if one of these settings could not be read, since that has been reported already.
    pub(super) fn add(&mut self, settings: &[&str], text: impl Display) {
        if self.values.are_readable(settings) {
            let described = settings.iter().map(|name| self.values.describe(name));
            let described = described.collect::<Vec<_>>().join(", ");
            let line = format!("{text}: {described}");
            if !self.lines.contains(&line) {
                self.lines.push(line);
            }
        }
    }

    /// Returns one line for each problem.
    pub(super) fn into_lines(self) -> Vec<String> {
        self.lines
    }
}
