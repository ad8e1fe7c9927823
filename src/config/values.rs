//! The values that were given for the settings, each with its source.
//!
//! Owns: the layers of values, their precedence, and the source of each value. Their resolution is
//! in `settings`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use super::address::InheritedAddresses;
use super::error::ConfigError;
use super::table::{DefaultValue, SETTINGS, Setting, find};
use super::units::{parse_duration, parse_size};
use super::value::Value;

/// The source of a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Provenance {
    /// A command-line flag, by name.
    Flag(&'static str),
    /// An environment variable.
    Variable(String),
    /// A systemd credential file.
    Credential(PathBuf),
    /// A line of the configuration file.
    Line(PathBuf, usize),
    /// A file that contains the value, with the source that names the file.
    SecretFile(PathBuf, Box<Provenance>),
}

/// A value with its source.
#[derive(Clone)]
struct SourcedValue {
    value: Value,
    provenance: Provenance,
}

/// The values of one kind of source.
#[derive(Clone, Default)]
pub(super) struct Layer {
    given: BTreeMap<&'static str, SourcedValue>,
    /// Settings with unreadable values.
    invalid: BTreeSet<&'static str>,
    /// The source as a whole could not be read.
    is_unreadable: bool,
}

/// The values of all sources, merged by precedence.
// No `Debug`: values may contain passwords.
#[derive(Clone, Default)]
pub struct Values {
    layer: Layer,
    /// The configuration file that was read, if any.
    pub file: Option<PathBuf>,
    /// The inherited sockets.
    pub(super) inherited: InheritedAddresses,
}

impl Layer {
    /// Adds a value. With `is_file`, the value names the file that contains it. If there is an
    /// error, the setting is recorded as invalid instead.
    pub(super) fn put(
        &mut self,
        setting: &'static Setting,
        is_file: bool,
        value: Result<Value, String>,
        provenance: Provenance,
    ) -> Result<(), String> {
        let put = value.and_then(|value| self.put_value(setting, is_file, value, provenance));
        if put.is_err() {
            self.invalid.insert(setting.name);
        }
        put
    }

    /// Marks the whole source as unreadable.
    pub(super) fn mark_unreadable(&mut self) {
        self.is_unreadable = true;
    }

    fn put_value(
        &mut self,
        setting: &'static Setting,
        is_file: bool,
        value: Value,
        provenance: Provenance,
    ) -> Result<(), String> {
        let name = setting.name;
        let (value, provenance) = match (is_file, value) {
            (true, Value::Text(path)) => {
                let path = PathBuf::from(path);
                let text = read_secret(&path)
                    .map_err(|error| format!("{name}_file: {}: {error}", path.display()))?;
                (
                    Value::Text(text),
                    Provenance::SecretFile(path, Box::new(provenance)),
                )
            }
            (true, _) => return Err(format!("{name}_file: expected a string in quotes")),
            (false, value) => (value, provenance),
        };
        let value = setting.kind.accept(value);
        let value = value.map_err(|error| format!("{name}: {error}"))?;
        match self.given.insert(name, SourcedValue { value, provenance }) {
            None => Ok(()),
            Some(_) => Err(format!(
                "{name} and {name}_file exclude each other; remove one of them"
            )),
        }
    }
}

/// Reads a file that contains a secret, without its trailing newline.
pub(super) fn read_secret(path: &std::path::Path) -> std::io::Result<String> {
    let text = std::fs::read_to_string(path)?;
    let text = text.trim_end_matches(['\r', '\n']);
    match text.is_empty() {
        true => Err(std::io::Error::other("the file is empty")),
        false => Ok(text.to_owned()),
    }
}

impl Values {
    /// Adds a layer with lower precedence than all layers added before.
    pub(super) fn add(&mut self, layer: Layer) {
        for (name, given) in layer.given {
            self.layer.given.entry(name).or_insert(given);
        }
        self.layer.invalid.extend(layer.invalid);
        self.layer.is_unreadable |= layer.is_unreadable;
    }

    /// Returns the inherited sockets.
    pub fn inherited(&self) -> &InheritedAddresses {
        &self.inherited
    }

    /// Returns whether every source could be read. Individual values may still be invalid.
    pub fn all_sources_were_read(&self) -> bool {
        !self.layer.is_unreadable
    }

    /// Returns whether all given values of these settings could be read.
    pub(super) fn are_readable(&self, names: &[&str]) -> bool {
        names.iter().all(|name| !self.layer.invalid.contains(name))
    }

    /// Returns a setting's value and source as text. Secrets are masked.
    pub(super) fn describe(&self, name: &str) -> String {
        let found = find(name).and_then(|(setting, _)| Some((setting, self.value(setting)?)));
        match found {
            Some((setting, value)) if !setting.is_secret => {
                format!("{name} = {} ({})", value.to_toml(), self.origin(name))
            }
            Some(_) => self.name_with_provenance(name),
            None => format!("{name} is not set"),
        }
    }

    /// Returns a setting's name and the source of its value as text.
    pub fn name_with_provenance(&self, name: &str) -> String {
        format!("{name} ({})", self.origin(name))
    }

    fn origin(&self, name: &str) -> String {
        let source = self.source(name);
        source.map_or_else(|| "default".to_owned(), Provenance::to_string)
    }

    /// Returns whether a value was given for a setting.
    pub(super) fn is_given(&self, name: &str) -> bool {
        self.layer.given.contains_key(name)
    }

    /// Returns the source of a setting's value by the setting's name. `None` means the default.
    pub(super) fn source(&self, name: &str) -> Option<&Provenance> {
        self.layer.given.get(name).map(|given| &given.provenance)
    }

    /// Returns the source of a setting's value. `None` means the default.
    pub fn provenance(&self, setting: &Setting) -> Option<&Provenance> {
        self.source(setting.name)
    }

    /// Returns the given value of a setting, or else its default, if any.
    pub fn value(&self, setting: &Setting) -> Option<Value> {
        let given = self.layer.given.get(setting.name);
        match (given, setting.default) {
            (Some(given), _) => Some(given.value.clone()),
            (None, DefaultValue::Literal(text)) => Value::from_toml(text),
            (None, DefaultValue::Unset(_)) => None,
        }
    }

    /// Returns the settings that differ from `before`.
    pub fn differing(&self, before: &Values) -> impl Iterator<Item = &'static Setting> {
        let differs = move |setting: &&Setting| self.value(setting) != before.value(setting);
        SETTINGS.iter().filter(differs)
    }

    /// Returns these values, except that settings that require a restart keep their value in
    /// `running`.
    #[must_use]
    pub fn with_restart_only_of(mut self, running: &Values) -> Values {
        for setting in SETTINGS.iter().filter(|setting| !setting.is_reloadable) {
            match running.layer.given.get(setting.name) {
                Some(given) => self.layer.given.insert(setting.name, given.clone()),
                None => self.layer.given.remove(setting.name),
            };
        }
        self
    }
}

/// Typed access by name. Presence and kind were checked when the values were read, so an error
/// indicates a mistake of the caller, and names the setting.
impl Values {
    fn get(&self, name: &str) -> Option<Value> {
        let (setting, _) = find(name)?;
        self.value(setting)
    }

    pub(super) fn boolean(&self, name: &str) -> Result<bool, ConfigError> {
        match self.get(name) {
            Some(Value::Bool(flag)) => Ok(flag),
            _ => Err(unset(name)),
        }
    }

    pub(super) fn number(&self, name: &str) -> Option<u64> {
        match self.get(name) {
            Some(Value::Number(number)) => Some(number),
            _ => None,
        }
    }

    /// Returns the number of a setting that always has a value.
    pub(super) fn integer<T: TryFrom<u64>>(&self, name: &str) -> Result<T, ConfigError> {
        let number = self
            .number(name)
            .and_then(|number| T::try_from(number).ok());
        number.ok_or_else(|| unset(name))
    }

    /// Returns the text of a setting, or `None` if it is empty.
    pub(super) fn text(&self, name: &str) -> Option<String> {
        match self.get(name) {
            Some(Value::Text(text)) if !text.is_empty() => Some(text),
            _ => None,
        }
    }

    /// Returns the text of a setting that always has a value.
    pub(super) fn required_text(&self, name: &str) -> Result<String, ConfigError> {
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
        let text = self.required_text(name)?;
        parse_size(&text).ok_or_else(|| unset(name))
    }

    pub(super) fn duration(&self, name: &str) -> Result<Duration, ConfigError> {
        self.optional_duration(name).ok_or_else(|| unset(name))
    }

    pub(super) fn optional_duration(&self, name: &str) -> Option<Duration> {
        parse_duration(&self.text(name)?)
    }
}

fn unset(name: &str) -> ConfigError {
    ConfigError(format!("{name} must be set"))
}

impl fmt::Display for Provenance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Provenance::Flag(flag) => write!(f, "{flag}"),
            Provenance::Variable(name) => write!(f, "{name}"),
            Provenance::Credential(path) => write!(f, "the credential {}", path.display()),
            Provenance::Line(path, line) => write!(f, "{}, line {line}", path.display()),
            Provenance::SecretFile(path, by) => write!(f, "{}, by {by}", path.display()),
        }
    }
}
