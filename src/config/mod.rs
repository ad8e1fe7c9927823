//! Settings: what may be said in the configuration file, in the environment and on the command
//! line, and what it comes to.
//!
//! Three steps: [`Sources`] say where settings are read from, [`Values`] are what was written
//! there, [`Settings`] what that means, checked. Nothing else reads options. What settings there
//! are stands in one place, the table [`SETTINGS`].
//!
//! | file | holds |
//! |---|---|
//! | `table` | every setting: name, kind, default, what it is for |
//! | `problems`, `places` | all that does not go together |
//! | `value`, `units`, `address` | what may be written for one |
//! | `sources`, `file`, `values` | where it is read, and which of several wins |
//! | `settle`, `back_end` | what it comes to |
//! | `danger` | what is refused or said loudly |
//! | `show`, `near` | settings as text, and help with what was mistyped |

mod address;
mod back_end;
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
use crate::net::{Address, Config};

pub use back_end::{
    BackEndKind, BackEndSettings, BrokerSettings, EventSource, Features, HSettings,
};
pub use danger::{Danger, warnings};
pub use rust_log::rust_log_level;
pub use show::{defaults, effective};
pub use sources::{Flag, KEY_VARIABLE, Sources, TOKEN_VARIABLE, USUAL_FILE};
pub use table::{Preset, SETTINGS, Setting};
pub use units::{parse_duration, parse_mode, parse_size};
pub use value::{Kind, Value};
pub use values::{Values, Whence};

/// What becomes of an open connection whose token has expired or was revoked, or whose user was
/// deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnExpiry {
    /// It is closed with 3000, to come back with another token.
    #[default]
    Close,
    /// It stays, as in h.
    Keep,
}

/// What becomes of a handshake with an unknown or expired token.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum InvalidToken {
    /// It is served as anonymous, as h does.
    #[default]
    Anonymous,
    /// It is refused with 401.
    Reject,
}

/// What the server runs with.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where WebSockets are served, and whether with TLS.
    pub listen: Vec<Listen>,
    /// Those of them whose connections begin with a header of the PROXY protocol.
    pub proxy_protocol: Vec<Listen>,
    /// Where the admin interface is served.
    pub admin: Address,
    /// The files of the unix sockets of `listen`.
    pub socket: SocketSettings,
    /// The file of the unix socket of `admin`.
    pub admin_socket: SocketSettings,
    /// Values of `Host` by which the admin listener is reached besides its address.
    pub admin_hosts: Vec<String>,
    /// Whether that may be an address that strangers may reach.
    pub admin_public: bool,
    /// The key for all metrics, besides the publish key.
    pub metrics_key: Option<MetricsKey>,
    /// The pages that may connect; where there are none, all may.
    pub origins: Vec<Origin>,
    /// Whether other processes may listen on the same TCP ports (`SO_REUSEPORT`).
    pub reuse_port: bool,
    /// The data directory, of the embedded back end.
    pub data: PathBuf,
    /// What knows users, tokens and groups, and where events come from.
    pub back_end: BackEndSettings,
    /// Certificate chain and key, for the listeners with TLS.
    pub tls: Option<(PathBuf, PathBuf)>,
    /// What becomes of an unknown or expired token.
    pub invalid_token: InvalidToken,
    /// What becomes of an open connection whose token ends.
    pub on_expiry: OnExpiry,
    /// Over how long the closes of connections whose tokens end together are spread.
    pub expiry_spread: Duration,
    /// How often h's database is asked about all who are connected; `None` where the back end
    /// tells of changes by itself.
    pub sweep: Option<Duration>,
    /// Values that one connection's filter may have.
    pub filter_terms: usize,
    /// Bytes that the filters of all connections may take.
    pub filters_total: usize,
    /// The limit on connections where it was set, rather than to be derived from the limit on
    /// open files.
    pub connections: Option<usize>,
    /// Bytes of an event from RabbitMQ.
    pub max_event: usize,
    /// Events that may wait for h's database, and the bytes of their messages.
    pub backlog: (usize, usize),
    /// Over how long a shutdown spreads its closes.
    pub drain: Duration,
    /// What is logged.
    pub log_level: log::LevelFilter,
    /// And how.
    pub log_format: Format,
    /// The engine's own.
    pub engine: Config,
}

/// The key for all metrics. `Debug` does not show it.
#[derive(Clone, PartialEq, Eq)]
pub struct MetricsKey(pub String);

impl std::fmt::Debug for MetricsKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("MetricsKey(…)")
    }
}

/// One place to serve WebSockets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listen {
    /// Where.
    pub address: Address,
    /// `wss://` rather than `ws://`.
    pub tls: bool,
}

/// The file of a unix socket that the server opens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SocketSettings {
    /// Its permissions.
    pub mode: u32,
    /// Its owner, by name or number, if it is not the server's user.
    pub user: Option<String>,
    /// Its group, by name or number, if it is not the server's.
    pub group: Option<String>,
}

/// Where the process listens already by sockets that it was started with; no others are opened
/// there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inherited {
    /// Where WebSockets are to be served.
    pub listen: Vec<Listen>,
    /// Where the admin interface is to be served, if by one of them.
    pub admin: Option<Address>,
}

/// Settings that cannot be: a line for each thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError(pub String);

impl std::fmt::Display for ConfigError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ConfigError {}

/// The data directory for the commands that work on it: the one that is named, else the one that
/// the configuration names.
///
/// # Errors
/// [`ConfigError`] where there is a configuration, and it cannot be read.
pub fn data_directory(named: Option<PathBuf>) -> Result<PathBuf, ConfigError> {
    if let Some(path) = named {
        return Ok(path);
    }
    let values = Sources::of_process(Vec::new(), None).read()?;
    Ok(values.path("data").unwrap_or_else(|| DEFAULT_DATA.into()))
}

/// The data directory if nothing else is said.
pub const DEFAULT_DATA: &str = "./h-realtime-data";

#[cfg(test)]
mod tests;
