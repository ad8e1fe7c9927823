//! What was said of each setting, and where.
//!
//! Owns: the layers that values come in, which of them wins, and from where each comes. What the
//! values come to is for `settle`.

use std::collections::BTreeMap;
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
pub(super) struct Layer(BTreeMap<&'static str, Given>);

/// What all sources say, those that rank higher having won.
// No `Debug`: there may be passwords in it.
#[derive(Clone, Default)]
pub struct Values {
    given: Layer,
    /// The configuration file that was read, if there was one.
    pub file: Option<PathBuf>,
    /// The sockets that there are already.
    pub(super) inherited: Inherited,
}

impl Layer {
    /// Takes a value up; with `is_file` it names the file that holds it.
    pub fn put(
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
        match self.0.insert(name, Given { value, whence }) {
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
        for (name, given) in layer.0 {
            self.given.0.entry(name).or_insert(given);
        }
    }

    /// Whether something was said of a setting.
    pub(super) fn is_given(&self, name: &str) -> bool {
        self.given.0.contains_key(name)
    }

    /// The source of a setting's value by the setting's name; `None` for the default.
    pub(super) fn source(&self, name: &str) -> Option<&Whence> {
        self.given.0.get(name).map(|given| &given.whence)
    }

    /// Where the value of a setting comes from; `None` for the default.
    pub fn whence(&self, setting: &Setting) -> Option<&Whence> {
        self.source(setting.name)
    }

    /// The value of a setting: what was given, else the default, else nothing.
    pub fn value(&self, setting: &Setting) -> Option<Value> {
        let given = self.given.0.get(setting.name);
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
            match running.given.0.get(setting.name) {
                Some(given) => self.given.0.insert(setting.name, given.clone()),
                None => self.given.0.remove(setting.name),
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
