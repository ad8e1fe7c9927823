//! Settings: reading them from the configuration file, the environment, and the command line, and
//! resolving them.
//!
//! Owns: the names, syntax, defaults, and precedence of settings, their documentation, and the
//! checks that need nothing but the settings. Must not know how a setting takes effect: `server`
//! passes the resolved values on. No other module reads options or variables that are settings.
//!
//! There are three steps: `Sources` names the places that settings are read from, `Values`
//! holds the values as written with the source of each, and `ServerSettings` holds the resolved
//! and checked result.
//!
//! | file | holds |
//! |---|---|
//! | `table` | every setting: name, kind, default, description |
//! | `value`, `units`, `address` | kinds of values and their syntax |
//! | `sources`, `file`, `rust_log` | the sources of values and their precedence |
//! | `values` | the merged values, each with its source |
//! | `settings`, `backend`, `history` | the resolved settings, and how each is computed |
//! | `conflicts`, `address_conflicts` | conflicts between settings, reported together |
//! | `insecure` | settings that disable a protection: errors and warnings |
//! | `show` | settings as text |
//! | `suggest` | "did you mean …?" suggestions for misspelled names |
//! | `error` | the error of an invalid configuration |
//!
//! # To add a setting
//!
//! 1. Add a row to [`SETTINGS`] in `table`. The key of the file, the environment variable, the
//!    syntax check, `config show`, `config default`, and reloads follow from the row. Mark the row
//!    `.restart_only()` if a reload cannot apply the setting.
//! 2. Add a field to `ServerSettings` in `settings` and compute it in `resolve_settings`. The
//!    compiler then lists the code that must handle the field. For a setting of the engine, add a
//!    field to `net::Config`, with a line of `setters!` in `engine/config.rs`, and call its setter
//!    in `engine`. The compiler does not detect a missing call.
//! 3. Add another value than the default to `OTHERS` in `tests`. A test then fails if the setting
//!    has no effect.
//! 4. Copy the output of `h-realtime config default` to the list in docs/operating.md. A
//!    test in tests/server/config.rs compares the two, and prints the expected list.
//!
//! A command-line flag is optional: add a field to `ServeArgs` and a line to its `sources` in
//! `cli/serve.rs`. The flag is a source of the setting and needs no other code.
//!
//! # To add an option of listeners
//!
//! Add a setting that names the listeners that have the option, as `proxy_protocol` does: its kind
//! is `OptionalListenAddresses`, and `proxy_protocol` in `settings` shows the check that each
//! address is one of `listen`. `server/bind.rs` applies the option when it opens the listener.
//! A number that must be known when the socket is opened is a field of `OpenOptions` there, and an
//! argument of the constructors of `net::Listener`.

mod address;
mod address_conflicts;
mod backend;
mod conflicts;
mod error;
mod file;
mod history;
mod insecure;
mod rust_log;
mod settings;
mod show;
mod sources;
mod suggest;
mod table;
mod units;
mod value;
mod values;

pub(crate) use address::{InheritedAddresses, Listen};
pub(crate) use backend::{
    BackendKind, BackendSettings, BrokerSettings, EventSource, Features, HSettings,
};
pub(crate) use error::ConfigError;
pub(crate) use insecure::{InsecureSetting, warnings};
pub use rust_log::rust_log_level;
pub(crate) use settings::{ServerSettings, SocketSettings};
pub(crate) use show::{defaults, effective};
pub(crate) use sources::{Flag, KEY_VARIABLE, Sources, TOKEN_VARIABLE, data_directory};
pub(crate) use table::DEFAULT_DATA;
pub use table::{DefaultValue, SETTINGS, Setting};
pub(crate) use value::Value;
pub use value::ValueKind;

pub(crate) use units::parse_duration;
pub(crate) use values::Values;

#[cfg(test)]
mod tests;
