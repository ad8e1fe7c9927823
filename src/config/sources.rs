//! Sources of settings: flags, the environment, credentials, and the configuration file.
//!
//! Owns: how the sources are read, and their precedence. The environment is read once, at startup.
//! Files are read again on every reload.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::address::InheritedAddresses;
use super::error::ConfigError;
use super::file;
use super::rust_log::{RUST_LOG, rust_log_level};
use super::suggest::nearest;
use super::table::{DEFAULT_DATA, PREFIX, SETTINGS, Setting, all_names, variable};
use super::value::{Value, ValueKind};
use super::values::{Layer, Provenance, Values, read_secret};

/// All sources of settings.
// No `Debug`: the environment may contain passwords.
#[derive(Clone)]
pub(crate) struct Sources {
    flags: Vec<Flag>,
    file: ConfigFile,
    environment: BTreeMap<String, OsString>,
    inherited: InheritedAddresses,
}

/// A command-line flag.
#[derive(Clone, Debug)]
pub(crate) struct Flag {
    /// The flag as typed, such as `--listen`.
    pub flag: &'static str,
    /// The name of the setting.
    pub setting: &'static str,
    /// The value of the flag.
    pub value: Value,
}

/// The configuration file to read.
#[derive(Clone, Debug)]
enum ConfigFile {
    /// A file that must exist.
    Required(PathBuf),
    /// A file that is read only if it exists.
    Optional(PathBuf),
}

impl Sources {
    /// Returns the sources of this process. If `file` is `None`, the configuration file is the one
    /// that H_REALTIME_CONFIG names, or else [`DEFAULT_FILE`], if it exists.
    pub(crate) fn of_process(flags: Vec<Flag>, file: Option<PathBuf>) -> Self {
        let environment =
            std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value)));
        Sources::new(flags, file, environment)
    }

    fn new(
        flags: Vec<Flag>,
        file: Option<PathBuf>,
        environment: impl Iterator<Item = (String, OsString)>,
    ) -> Self {
        // A variable that is set to the empty string counts as unset, as in h.
        let environment: BTreeMap<_, _> = environment
            .filter(|(_, value)| !value.is_empty())
            .filter(|(name, _)| is_relevant(name))
            .collect();
        let named = file.or_else(|| environment.get(CONFIG_VARIABLE).map(PathBuf::from));
        let file = match named {
            Some(path) => ConfigFile::Required(path),
            None => ConfigFile::Optional(DEFAULT_FILE.into()),
        };
        Sources {
            flags,
            file,
            environment,
            inherited: InheritedAddresses::default(),
        }
    }

    /// Adds the sockets that the process inherited.
    pub(crate) fn inherit(&mut self, inherited: InheritedAddresses) {
        self.inherited = inherited;
    }

    /// Reads all sources. The precedence, highest first, is: flags, this program's variables,
    /// credentials, h's variables, the configuration file.
    ///
    /// # Errors
    /// [`ConfigError`] with one line for each problem and its location.
    pub(crate) fn read(&self) -> Result<Values, ConfigError> {
        let (values, errors) = self.read_all();
        match errors.is_empty() {
            true => Ok(values),
            false => Err(ConfigError(errors.join("\n"))),
        }
    }

    /// Like [`Sources::read`], but returns everything that can be read despite errors, so that
    /// problems of those values can be reported together with the errors.
    pub(crate) fn read_all(&self) -> (Values, Vec<String>) {
        let mut errors = Vec::new();
        let mut values = Values::default();
        values.inherited = self.inherited.clone();
        values.add(self.read_flags(&mut errors));
        values.add(self.read_variables(&mut errors));
        values.add(self.read_credentials(&mut errors));
        values.add(self.read_other_variables(&mut errors));
        let mut layer = Layer::default();
        let (path, is_required) = match &self.file {
            ConfigFile::Required(path) => (path, true),
            ConfigFile::Optional(path) => (path, false),
        };
        match std::fs::read_to_string(path) {
            Ok(text) => {
                file::read(path, &text, &mut layer, &mut errors);
                values.file = Some(path.clone());
            }
            Err(error) if error.kind() == ErrorKind::NotFound && !is_required => {}
            Err(error) => {
                layer.mark_unreadable();
                errors.push(format!("{}: {error}", path.display()));
            }
        }
        values.add(layer);
        (values, errors)
    }

    /// Requires from now on that the configuration file exists if it was read before: a file that
    /// disappears must not reset the settings to their defaults.
    pub(crate) fn pin_file(&mut self, values: &Values) {
        if let Some(path) = &values.file {
            self.file = ConfigFile::Required(path.clone());
        }
    }

    fn read_flags(&self, errors: &mut Vec<String>) -> Layer {
        let mut layer = Layer::default();
        for Flag {
            flag,
            setting,
            value,
        } in &self.flags
        {
            let known = SETTINGS.iter().find(|known| known.name == *setting);
            let put = match known {
                Some(known) => {
                    let value = known.kind.accept(value.clone());
                    layer.put(known, false, value, Provenance::Flag(flag))
                }
                None => Err(super::table::unknown(setting)),
            };
            errors.extend(put.err().map(|error| format!("{flag}: {error}")));
        }
        layer
    }

    fn read_variables(&self, errors: &mut Vec<String>) -> Layer {
        let mut layer = Layer::default();
        for name in self.environment.keys() {
            if !name.starts_with(PREFIX) || is_reserved(name) {
                continue;
            }
            let found = all_names().find(|known| variable(known) == *name);
            let Some((setting, is_file)) = found.and_then(|name| super::table::find(&name)) else {
                errors.push(unknown_variable(name));
                continue;
            };
            let kind = if is_file {
                ValueKind::Path
            } else {
                setting.kind
            };
            self.read_variable(name, setting, (kind, is_file), &mut layer, errors);
        }
        layer
    }

    /// Reads h's variables and `RUST_LOG`.
    fn read_other_variables(&self, errors: &mut Vec<String>) -> Layer {
        let mut layer = Layer::default();
        for setting in SETTINGS {
            if let Some(name) = setting.variable
                && self.environment.contains_key(name)
            {
                self.read_variable(name, setting, (setting.kind, false), &mut layer, errors);
            }
        }
        layer
    }

    fn read_variable(
        &self,
        name: &str,
        setting: &'static Setting,
        (kind, is_file): (ValueKind, bool),
        layer: &mut Layer,
        errors: &mut Vec<String>,
    ) {
        let text = self.environment.get(name).and_then(|text| text.to_str());
        let text = match text.map(rust_log_level) {
            _ if name != RUST_LOG => text,
            // All directives are for other programs.
            Some(None) => return,
            Some(level) => level,
            None => None,
        };
        let value = match text {
            Some(text) => kind.read(text),
            None => Err("the value is not valid UTF-8".to_owned()),
        };
        let put = layer.put(
            setting,
            is_file,
            value,
            Provenance::Variable(name.to_owned()),
        );
        errors.extend(put.err().map(|error| format!("{name}: {error}")));
    }

    fn read_credentials(&self, errors: &mut Vec<String>) -> Layer {
        let mut layer = Layer::default();
        let Some(folder) = self.environment.get(CREDENTIALS_VARIABLE) else {
            return layer;
        };
        for setting in SETTINGS.iter().filter(|setting| setting.allows_credential) {
            let path = Path::new(folder).join(setting.name);
            let text = match setting.is_secret {
                true => read_secret(&path),
                false => std::fs::metadata(&path).map(|_| path.display().to_string()),
            };
            let put = match text {
                Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
                text => {
                    let value = text.map(Value::Text).map_err(|error| error.to_string());
                    layer.put(setting, false, value, Provenance::Credential(path.clone()))
                }
            };
            errors.extend(
                put.err()
                    .map(|error| format!("{}: {error}", path.display())),
            );
        }
        layer
    }
}

fn is_relevant(name: &str) -> bool {
    name.starts_with(PREFIX)
        || name == CREDENTIALS_VARIABLE
        || SETTINGS
            .iter()
            .any(|setting| setting.variable == Some(name))
}

/// Returns whether a variable has this program's prefix but is not a setting.
fn is_reserved(name: &str) -> bool {
    let is_of_a_cluster = name.starts_with("H_REALTIME_SERVICE_")
        || name == "H_REALTIME_PORT"
        || name.starts_with("H_REALTIME_PORT_");
    is_of_a_cluster || OTHER_VARIABLES.contains(&name)
}

fn unknown_variable(name: &str) -> String {
    match nearest(name, all_names().map(|known| variable(&known))) {
        Some(suggestion) => format!("{name}: unknown setting; did you mean {suggestion}?"),
        None => format!("{name}: unknown setting"),
    }
}

/// Returns the data directory for the commands that work on it: `named`, if given, otherwise the
/// configured one.
///
/// # Errors
/// [`ConfigError`] if a configuration exists but cannot be read.
pub(crate) fn data_directory(named: Option<PathBuf>) -> Result<PathBuf, ConfigError> {
    if let Some(path) = named {
        return Ok(path);
    }
    let values = Sources::of_process(Vec::new(), None).read()?;
    Ok(values.path("data").unwrap_or_else(|| DEFAULT_DATA.into()))
}

/// The configuration file that is read by default, if it exists.
const DEFAULT_FILE: &str = "/etc/h-realtime/h-realtime.toml";
/// The variable that names the configuration file if no flag does.
const CONFIG_VARIABLE: &str = "H_REALTIME_CONFIG";
/// The directory where systemd puts the credentials of `LoadCredential=`.
const CREDENTIALS_VARIABLE: &str = "CREDENTIALS_DIRECTORY";
/// The token for the command `listen`.
pub(crate) const TOKEN_VARIABLE: &str = "H_REALTIME_TOKEN";
/// The key for the command `publish`.
pub(crate) const KEY_VARIABLE: &str = "H_REALTIME_PUBLISH_KEY";
/// Variables with this program's prefix that are not settings. Kubernetes sets further ones in
/// every container beside a service of that name: see [`is_reserved`].
const OTHER_VARIABLES: &[&str] = &[CONFIG_VARIABLE, TOKEN_VARIABLE, KEY_VARIABLE];

#[cfg(test)]
mod tests;
