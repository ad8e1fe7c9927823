//! Settings: reading the configuration file, the environment, and the command line, and resolving
//! them.
//!
//! There are three steps: [`Sources`] names the places that settings are read from, [`Values`]
//! holds the values as written, and [`Settings`] holds the resolved and checked result. No other
//! module reads options. Every setting is defined in one place, the table [`SETTINGS`].
//!
//! | file | holds |
//! |---|---|
//! | `table` | every setting: name, kind, default, description |
//! | `problems`, `places` | conflicts between settings |
//! | `value`, `units`, `address` | the syntax of values |
//! | `sources`, `file`, `values` | the sources of values and their precedence |
//! | `settle`, `backend` | resolution into [`Settings`] |
//! | `danger` | dangerous settings: refusals and warnings |
//! | `show`, `near` | settings as text, and suggestions for misspelled names |

mod address;
mod backend;
mod danger;
mod file;
mod near;
mod places;
mod problems;
mod rust_log;
mod settle;
mod show;
mod sources;
mod table;
mod units;
mod value;
mod values;

use std::path::PathBuf;
use std::time::Duration;

use crate::http::Origin;
use crate::logging::Format;
use crate::model::{InvalidToken, OnExpiry};
use crate::net::{Address, Config};

pub use backend::{BackendKind, BackendSettings, BrokerSettings, EventSource, Features, HSettings};
pub use danger::{Danger, warnings};
pub use rust_log::rust_log_level;
pub use show::{defaults, effective};
pub use sources::{Flag, KEY_VARIABLE, Sources, TOKEN_VARIABLE, USUAL_FILE};
pub use table::{Preset, SETTINGS, Setting};
pub use units::{parse_duration, parse_mode, parse_size};
pub use value::{Kind, Value};
pub use values::{Values, Whence};

/// The resolved configuration of the server.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Addresses to serve WebSockets on, each with or without TLS.
    pub listen: Vec<Listen>,
    /// The subset of `listen` that expects a PROXY protocol header on each connection.
    pub proxy_protocol: Vec<Listen>,
    /// The address of the admin interface.
    pub admin: Address,
    /// Ownership and permissions of the Unix sockets in `listen`.
    pub socket: SocketSettings,
    /// Ownership and permissions of the Unix socket of `admin`.
    pub admin_socket: SocketSettings,
    /// `Host` values that the admin listener accepts besides its own address.
    pub admin_hosts: Vec<String>,
    /// Whether `admin` may be a publicly reachable address.
    pub admin_public: bool,
    /// The key for the full metrics. The publish key is accepted as well.
    pub metrics_key: Option<MetricsKey>,
    /// Origins that may connect. If empty, every origin may.
    pub origins: Vec<Origin>,
    /// Whether other processes may listen on the same TCP ports (`SO_REUSEPORT`).
    pub reuse_port: bool,
    /// The data directory of the embedded back end.
    pub data: PathBuf,
    /// The source of users, tokens, and groups, and of events.
    pub backend: BackendSettings,
    /// Certificate chain and key for the listeners with TLS.
    pub tls: Option<(PathBuf, PathBuf)>,
    /// Handling of unknown and expired tokens at the handshake.
    pub invalid_token: InvalidToken,
    /// Handling of open connections when their tokens end.
    pub on_expiry: OnExpiry,
    /// The time over which connections are closed if their tokens end together.
    pub expiry_spread: Duration,
    /// The interval between sweeps that check all connected users against h's database. `None` if
    /// the back end reports changes itself.
    pub sweep: Option<Duration>,
    /// Maximum number of values in the filter of one connection.
    pub filter_terms: usize,
    /// Maximum bytes of the filters of all connections together.
    pub filters_total: usize,
    /// The limit on connections, if set. Otherwise it is derived from the limit on open files.
    pub connections: Option<usize>,
    /// Maximum bytes of an event from RabbitMQ.
    pub max_event: usize,
    /// Maximum number of events that wait for h's database, and maximum bytes of their messages.
    pub backlog: (usize, usize),
    /// The time over which a shutdown spreads its closes.
    pub drain: Duration,
    /// The log level.
    pub log_level: log::LevelFilter,
    /// The log format.
    pub log_format: Format,
    /// The settings of the engine.
    pub engine: Config,
}

/// The key for the full metrics. `Debug` does not show it.
#[derive(Clone, PartialEq, Eq)]
pub struct MetricsKey(pub String);

impl std::fmt::Debug for MetricsKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("MetricsKey(…)")
    }
}

/// An address to serve WebSockets on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listen {
    /// The address.
    pub address: Address,
    /// `wss://` rather than `ws://`.
    pub tls: bool,
}

/// Ownership and permissions of a Unix socket that the server creates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SocketSettings {
    /// Permission bits.
    pub mode: u32,
    /// The owner, by name or number, if other than the server's user.
    pub user: Option<String>,
    /// The group, by name or number, if other than the server's group.
    pub group: Option<String>,
}

/// Addresses of the listening sockets that the process inherited. The server opens no others at
/// these addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inherited {
    /// Addresses to serve WebSockets on.
    pub listen: Vec<Listen>,
    /// The address of the admin interface, if its socket is inherited.
    pub admin: Option<Address>,
}

/// An invalid configuration, with one line for each problem.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError(pub String);

impl std::fmt::Display for ConfigError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ConfigError {}

/// Returns the data directory for the commands that work on it: `named`, if given, otherwise the
/// configured one.
///
/// # Errors
/// [`ConfigError`] if a configuration exists but cannot be read.
pub fn data_directory(named: Option<PathBuf>) -> Result<PathBuf, ConfigError> {
    if let Some(path) = named {
        return Ok(path);
    }
    let values = Sources::of_process(Vec::new(), None).read()?;
    Ok(values.path("data").unwrap_or_else(|| DEFAULT_DATA.into()))
}

/// The default data directory.
pub const DEFAULT_DATA: &str = "./h-realtime-data";

#[cfg(test)]
mod tests;
