//! What was said of each setting, and where.
//!
//! Owns: the layers that values come in, which of them wins, and from where each comes. What the
//! values come to is for `settle`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use super::table::{Preset, SETTINGS, Setting, find};
use super::units::{parse_duration, parse_size};
use super::value::Value;
use super::{ConfigError, Inherited};

/// Where a value comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Whence {
    /// A flag of the command line, by its name.
    Flag(&'static str),
    /// A variable of the environment.
    Variable(String),
    /// A file of systemd's credentials.
    Credential(PathBuf),
    /// A line of the configuration file.
    Line(PathBuf, usize),
    /// A file that holds it, which something else names.
    Held(PathBuf, Box<Whence>),
}

/// A value that was given.
#[derive(Clone)]
struct Given {
    value: Value,
    whence: Whence,
}

/// What one kind of source says.
#[derive(Clone, Default)]
pub(super) struct Layer {
    given: BTreeMap<&'static str, Given>,
    /// Settings with a value that cannot be read.
    faulty: BTreeSet<&'static str>,
    /// Nothing is known of what the source says.
    is_unreadable: bool,
}

/// What all sources say, those that rank higher having won.
// No `Debug`: there may be passwords in it.
#[derive(Clone, Default)]
pub struct Values {
    layer: Layer,
    /// The configuration file that was read, if there was one.
    pub file: Option<PathBuf>,
    /// The sockets that there are already.
    pub(super) inherited: Inherited,
}

impl Layer {
    /// Takes a value up; with `is_file` it names the file that holds it. An error takes the place
    /// of the value.
    pub fn put(
        &mut self,
        setting: &'static Setting,
        is_file: bool,
        value: Result<Value, String>,
        whence: Whence,
    ) -> Result<(), String> {
        let put = value.and_then(|value| self.put_value(setting, is_file, value, whence));
        if put.is_err() {
            self.faulty.insert(setting.name);
        }
        put
    }

    /// Nothing of what the source says can be read.
    pub fn is_unreadable(&mut self) {
        self.is_unreadable = true;
    }

    fn put_value(
        &mut self,
        setting: &'static Setting,
        is_file: bool,
        value: Value,
        whence: Whence,
    ) -> Result<(), String> {
        let name = setting.name;
        let (value, whence) = match (is_file, value) {
            (true, Value::Text(path)) => {
                let path = PathBuf::from(path);
                let text = read_secret(&path)
                    .map_err(|error| format!("{name}_file: {}: {error}", path.display()))?;
                (Value::Text(text), Whence::Held(path, Box::new(whence)))
            }
            (true, _) => return Err(format!("{name}_file: this must be a text in quotes")),
            (false, value) => (value, whence),
        };
        let value = setting.kind.accept(value);
        let value = value.map_err(|what| format!("{name}: {what}"))?;
        match self.given.insert(name, Given { value, whence }) {
            None => Ok(()),
            Some(_) => Err(format!("{name} and {name}_file: only one of them can hold")),
        }
    }
}

/// The text of a file that holds a secret, without the end of its line.
pub(super) fn read_secret(path: &std::path::Path) -> std::io::Result<String> {
    let text = std::fs::read_to_string(path)?;
    let text = text.trim_end_matches(['\r', '\n']);
    match text.is_empty() {
        true => Err(std::io::Error::other("there is nothing in it")),
        false => Ok(text.to_owned()),
    }
}

impl Values {
    /// Adds what a source says that ranks below those added before.
    pub(super) fn add(&mut self, layer: Layer) {
        for (name, given) in layer.given {
            self.layer.given.entry(name).or_insert(given);
        }
        self.layer.faulty.extend(layer.faulty);
        self.layer.is_unreadable |= layer.is_unreadable;
    }

    /// The sockets that the process was started with.
    pub fn inherited(&self) -> &Inherited {
        &self.inherited
    }

    /// Whether every source could be read, if not every value.
    pub fn are_complete(&self) -> bool {
        !self.layer.is_unreadable
    }

    /// Whether all that was said of these settings could be read.
    pub(super) fn can_be_read(&self, names: &[&str]) -> bool {
        names.iter().all(|name| !self.layer.faulty.contains(name))
    }

    /// A setting's value and where it comes from. Secrets are not shown.
    pub(super) fn describe(&self, name: &str) -> String {
        let found = find(name).and_then(|(setting, _)| Some((setting, self.value(setting)?)));
        match found {
            Some((setting, value)) if !setting.is_secret => {
                format!("{name} = {} ({})", value.to_toml(), self.origin(name))
            }
            Some(_) => self.place(name),
            None => format!("{name} is not set"),
        }
    }

    /// A setting and where its value comes from.
    pub fn place(&self, name: &str) -> String {
        format!("{name} ({})", self.origin(name))
    }

    fn origin(&self, name: &str) -> String {
        let source = self.source(name);
        source.map_or_else(|| "default".to_owned(), Whence::to_string)
    }

    /// Whether something was said of a setting.
    pub(super) fn is_given(&self, name: &str) -> bool {
        self.layer.given.contains_key(name)
    }

    /// The source of a setting's value by the setting's name; `None` for the default.
    pub(super) fn source(&self, name: &str) -> Option<&Whence> {
        self.layer.given.get(name).map(|given| &given.whence)
    }

    /// Where the value of a setting comes from; `None` for the default.
    pub fn whence(&self, setting: &Setting) -> Option<&Whence> {
        self.source(setting.name)
    }

    /// The value of a setting: what was given, else the default, else nothing.
    pub fn value(&self, setting: &Setting) -> Option<Value> {
        let given = self.layer.given.get(setting.name);
        match (given, setting.preset) {
            (Some(given), _) => Some(given.value.clone()),
            (None, Preset::Is(text)) => Value::from_toml(text),
            (None, Preset::Unset(_)) => None,
        }
    }

    /// The settings whose values are others than in `before`.
    pub fn differing(&self, before: &Values) -> impl Iterator<Item = &'static Setting> {
        let differs = move |setting: &&Setting| self.value(setting) != before.value(setting);
        SETTINGS.iter().filter(differs)
    }

    /// These values, but those that only a start takes over as they are in `running`.
    #[must_use]
    pub fn over(mut self, running: &Values) -> Values {
        for setting in SETTINGS.iter().filter(|setting| !setting.is_live) {
            match running.layer.given.get(setting.name) {
                Some(given) => self.layer.given.insert(setting.name, given.clone()),
                None => self.layer.given.remove(setting.name),
            };
        }
        self
    }
}

/// Values by name. That a setting is there and of the right kind was seen to when it was read; an
/// error says which was asked for wrongly.
impl Values {
    fn get(&self, name: &str) -> Option<Value> {
        let (setting, _) = find(name)?;
        self.value(setting)
    }

    pub(super) fn flag(&self, name: &str) -> Result<bool, ConfigError> {
        match self.get(name) {
            Some(Value::Flag(flag)) => Ok(flag),
            _ => Err(unset(name)),
        }
    }

    pub(super) fn number(&self, name: &str) -> Option<u64> {
        match self.get(name) {
            Some(Value::Number(number)) => Some(number),
            _ => None,
        }
    }

    /// A number that there is always.
    pub(super) fn count<T: TryFrom<u64>>(&self, name: &str) -> Result<T, ConfigError> {
        let number = self
            .number(name)
            .and_then(|number| T::try_from(number).ok());
        number.ok_or_else(|| unset(name))
    }

    /// A text that is not empty.
    pub(super) fn text(&self, name: &str) -> Option<String> {
        match self.get(name) {
            Some(Value::Text(text)) if !text.is_empty() => Some(text),
            _ => None,
        }
    }

    /// A text that there is always.
    pub(super) fn word(&self, name: &str) -> Result<String, ConfigError> {
        self.text(name).ok_or_else(|| unset(name))
    }

    pub(super) fn path(&self, name: &str) -> Option<PathBuf> {
        self.text(name).map(PathBuf::from)
    }

    pub(super) fn list(&self, name: &str) -> Vec<String> {
        match self.get(name) {
            Some(Value::List(items)) => items,
            _ => Vec::new(),
        }
    }

    pub(super) fn size(&self, name: &str) -> Result<usize, ConfigError> {
        let text = self.word(name)?;
        parse_size(&text).ok_or_else(|| unset(name))
    }

    pub(super) fn time(&self, name: &str) -> Result<Duration, ConfigError> {
        self.some_time(name).ok_or_else(|| unset(name))
    }

    pub(super) fn some_time(&self, name: &str) -> Option<Duration> {
        parse_duration(&self.text(name)?)
    }
}

fn unset(name: &str) -> ConfigError {
    ConfigError(format!("{name} must be set"))
}

impl fmt::Display for Whence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Whence::Flag(flag) => write!(f, "{flag}"),
            Whence::Variable(name) => write!(f, "{name}"),
            Whence::Credential(path) => write!(f, "the credential {}", path.display()),
            Whence::Line(path, line) => write!(f, "{}, line {line}", path.display()),
            Whence::Held(path, by) => write!(f, "{}, by {by}", path.display()),
        }
    }
}
