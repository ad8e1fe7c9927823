//! Settings: what may be written in the configuration file and on the command line, and what
//! they come to.
//!
//! Two levels: [`File`] is what was written, [`Settings`] what it means, checked. Nothing else
//! reads options.

mod address;
mod back_end;
mod units;

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

use crate::net::{Address, Config};

use address::{parse_admin, parse_listen};

pub use back_end::{
    AmqpSection, BackEndKind, BackEndSettings, BrokerSettings, EventSource, HSection, HSettings,
};
pub use units::{parse_duration, parse_size};

/// What a configuration file may say. Every key may be left out.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct File {
    /// `ws://HOST:PORT`, `wss://HOST:PORT` or `unix:/path`.
    pub listen: Vec<String>,
    /// Whether other processes may listen on the same TCP ports (`SO_REUSEPORT`).
    pub reuse_port: bool,
    /// `HOST:PORT` or `unix:/path`.
    pub admin: Option<String>,
    /// Values of `Host` by which the admin listener is reached besides its address.
    pub admin_hosts: Vec<String>,
    /// The data directory.
    pub data: Option<PathBuf>,
    /// What knows users, tokens and groups.
    pub backend: BackEndKind,
    /// Where the embedded back end has events from, besides its HTTP endpoint.
    pub events: EventSource,
    /// Section `[h]`.
    pub h: HSection,
    /// Section `[amqp]`.
    pub amqp: AmqpSection,
    /// Section `[tls]`.
    pub tls: TlsSection,
    /// Section `[auth]`.
    pub auth: AuthSection,
    /// Section `[compression]`.
    pub compression: CompressionSection,
    /// Section `[limits]`.
    pub limits: LimitsSection,
    /// Section `[timeouts]`.
    pub timeouts: TimeoutsSection,
}

/// `[tls]`: the certificate of the `wss://` listeners.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TlsSection {
    /// A PEM file with the chain.
    pub cert: Option<PathBuf>,
    /// A PEM file with the private key.
    pub key: Option<PathBuf>,
}

/// `[auth]`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AuthSection {
    /// What becomes of an unknown or expired token.
    pub invalid_token: InvalidToken,
    /// What becomes of an open connection whose token ends.
    pub on_expiry: OnExpiry,
    /// Over how long the closes of connections whose tokens end together are spread.
    pub expiry_spread: Option<String>,
    /// How often h's database is asked about all who are connected.
    pub sweep: Option<String>,
}

/// What becomes of an open connection whose token has expired or was revoked, or whose user was
/// deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnExpiry {
    /// It is closed with 3000, to come back with another token.
    #[default]
    Close,
    /// It stays, as in h.
    Keep,
}

/// What becomes of a handshake with an unknown or expired token.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum InvalidToken {
    /// It is served as anonymous, as h does.
    #[default]
    Anonymous,
    /// It is refused with 401.
    Reject,
}

/// `[compression]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CompressionSection {
    /// Whether messages may be compressed, with clients that offer it.
    pub enabled: bool,
}

impl Default for CompressionSection {
    fn default() -> Self {
        CompressionSection { enabled: true }
    }
}

/// `[limits]`; sizes as `"64KiB"`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[allow(missing_docs)] // Each is named after the field of `Config` or `Settings` it sets.
pub struct LimitsSection {
    pub connections: Option<usize>,
    pub connections_per_ip: Option<u32>,
    pub trusted_proxies: Vec<IpAddr>,
    pub request_head: Option<String>,
    pub message: Option<String>,
    pub fragments: Option<u32>,
    pub filter_terms: Option<usize>,
    pub queue_soft: Option<String>,
    pub queue_hard: Option<String>,
    pub queue_total: Option<String>,
    pub unfinished_total: Option<String>,
}

/// `[timeouts]`; durations as `"30s"`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[allow(missing_docs)] // As above.
pub struct TimeoutsSection {
    pub handshake: Option<String>,
    pub body: Option<String>,
    pub message: Option<String>,
    pub auth: Option<String>,
    pub close: Option<String>,
    pub linger: Option<String>,
    pub ping: Option<String>,
    pub pong: Option<String>,
    pub slow: Option<String>,
    pub drain: Option<String>,
}

/// What the server runs with.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where WebSockets are served, and whether with TLS.
    pub listen: Vec<Listen>,
    /// Where the admin interface is served.
    pub admin: Address,
    /// See [`File::admin_hosts`].
    pub admin_hosts: Vec<String>,
    /// See [`File::reuse_port`].
    pub reuse_port: bool,
    /// The data directory, of the embedded back end.
    pub data: PathBuf,
    /// What knows users, tokens and groups, and where events come from.
    pub back_end: BackEndSettings,
    /// Certificate chain and key, for the listeners with TLS.
    pub tls: Option<(PathBuf, PathBuf)>,
    /// See [`AuthSection::invalid_token`].
    pub invalid_token: InvalidToken,
    /// See [`AuthSection::on_expiry`].
    pub on_expiry: OnExpiry,
    /// See [`AuthSection::expiry_spread`].
    pub expiry_spread: Duration,
    /// See [`AuthSection::sweep`]; `None` where the back end tells of changes by itself.
    pub sweep: Option<Duration>,
    /// Terms that one connection's filter may have.
    pub filter_terms: usize,
    /// Whether the limit on connections was set, rather than to be derived from the limit on
    /// open files.
    pub connections: Option<usize>,
    /// Over how long a shutdown spreads its closes.
    pub drain: Duration,
    /// The engine's own.
    pub engine: Config,
}

/// One place to serve WebSockets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listen {
    /// Where.
    pub address: Address,
    /// `wss://` rather than `ws://`.
    pub tls: bool,
}

/// A setting that cannot be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError(pub String);

impl std::fmt::Display for ConfigError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ConfigError {}

impl File {
    /// Reads a configuration file.
    ///
    /// # Errors
    /// [`ConfigError`] that names the file, and the line of what is wrong in it.
    pub fn read(path: &Path) -> Result<File, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| ConfigError(format!("{}: {error}", path.display())))?;
        File::parse(&text).map_err(|error| ConfigError(format!("{}: {error}", path.display())))
    }

    /// Reads the text of a configuration file.
    ///
    /// # Errors
    /// As [`File::read`].
    pub fn parse(text: &str) -> Result<File, ConfigError> {
        toml::from_str(text).map_err(|error| ConfigError(error.to_string().trim_end().to_owned()))
    }

    /// What the file comes to, with defaults for what it does not say.
    ///
    /// # Errors
    /// [`ConfigError`] for the first setting that cannot be.
    pub fn settle(self) -> Result<Settings, ConfigError> {
        let engine = self.engine()?;
        let back_end = back_end::settle(self.backend, self.events, self.h, self.amqp)?;
        let is_h = matches!(back_end, BackEndSettings::H(_));
        // The tokens of h's own clients end together after a restart of the server.
        let spread = if is_h { DEFAULT_SPREAD } else { Duration::ZERO };
        let spread = duration("auth.expiry_spread", &self.auth.expiry_spread, spread)?;
        let sweep = duration("auth.sweep", &self.auth.sweep, DEFAULT_SWEEP)?;
        let mut listen = Vec::new();
        for url in &self.listen {
            listen.push(parse_listen(url)?);
        }
        if listen.is_empty() {
            listen.push(parse_listen(DEFAULT_LISTEN)?);
        }
        let tls = match (self.tls.cert, self.tls.key) {
            (Some(cert), Some(key)) => Some((cert, key)),
            (None, None) => None,
            _ => return Err(ConfigError("tls.cert and tls.key go together".into())),
        };
        if tls.is_none() && listen.iter().any(|listen| listen.tls) {
            let message = "a wss:// listener needs tls.cert and tls.key";
            return Err(ConfigError(message.into()));
        }
        let admin = parse_admin(self.admin.as_deref().unwrap_or(DEFAULT_ADMIN))?;
        Ok(Settings {
            listen,
            admin,
            admin_hosts: self.admin_hosts,
            reuse_port: self.reuse_port,
            back_end,
            data: self.data.unwrap_or_else(|| DEFAULT_DATA.into()),
            tls,
            invalid_token: self.auth.invalid_token,
            on_expiry: self.auth.on_expiry,
            expiry_spread: spread,
            sweep: is_h.then_some(sweep),
            filter_terms: self.limits.filter_terms.unwrap_or(DEFAULT_FILTER_TERMS),
            connections: self.limits.connections,
            drain: duration("timeouts.drain", &self.timeouts.drain, DEFAULT_DRAIN)?,
            engine,
        })
    }

    fn engine(&self) -> Result<Config, ConfigError> {
        let (limits, timeouts, default) = (&self.limits, &self.timeouts, Config::default());
        let config = Config {
            max_connections: limits.connections.unwrap_or(default.max_connections),
            reserved_listener: None,
            max_per_ip: limits.connections_per_ip,
            per_ip_exempt: limits.trusted_proxies.clone(),
            max_head: size(
                "limits.request_head",
                &limits.request_head,
                default.max_head,
            )?,
            max_message: size("limits.message", &limits.message, default.max_message)?,
            max_fragments: limits.fragments.unwrap_or(default.max_fragments),
            deflate: self.compression.enabled,
            queue_soft: size("limits.queue_soft", &limits.queue_soft, default.queue_soft)?,
            queue_hard: size("limits.queue_hard", &limits.queue_hard, default.queue_hard)?,
            queue_total: size(
                "limits.queue_total",
                &limits.queue_total,
                default.queue_total,
            )?,
            unfinished_total: size(
                "limits.unfinished_total",
                &limits.unfinished_total,
                default.unfinished_total,
            )?,
            handshake_timeout: duration(
                "timeouts.handshake",
                &timeouts.handshake,
                default.handshake_timeout,
            )?,
            body_timeout: duration("timeouts.body", &timeouts.body, default.body_timeout)?,
            message_timeout: duration(
                "timeouts.message",
                &timeouts.message,
                default.message_timeout,
            )?,
            defer_timeout: duration("timeouts.auth", &timeouts.auth, default.defer_timeout)?,
            close_timeout: duration("timeouts.close", &timeouts.close, default.close_timeout)?,
            linger_timeout: duration("timeouts.linger", &timeouts.linger, default.linger_timeout)?,
            ping_interval: duration("timeouts.ping", &timeouts.ping, default.ping_interval)?,
            pong_timeout: duration("timeouts.pong", &timeouts.pong, default.pong_timeout)?,
            slow_timeout: duration("timeouts.slow", &timeouts.slow, default.slow_timeout)?,
        };
        if config.queue_soft > config.queue_hard || config.queue_hard > config.queue_total {
            let message = "limits.queue_soft <= limits.queue_hard <= limits.queue_total must hold";
            return Err(ConfigError(message.into()));
        }
        for (name, value) in [
            ("limits.request_head", config.max_head),
            ("limits.message", config.max_message),
            ("limits.connections", config.max_connections),
        ] {
            if value == 0 {
                return Err(ConfigError(format!("{name} must not be 0")));
            }
        }
        Ok(config)
    }
}

fn size(name: &str, text: &Option<String>, default: usize) -> Result<usize, ConfigError> {
    match text {
        None => Ok(default),
        Some(text) => parse_size(text).ok_or_else(|| {
            ConfigError(format!(
                "{name}: {text:?} is no size; write it like \"64KiB\""
            ))
        }),
    }
}

fn duration(name: &str, text: &Option<String>, default: Duration) -> Result<Duration, ConfigError> {
    match text {
        None => Ok(default),
        Some(text) => parse_duration(text).ok_or_else(|| {
            ConfigError(format!(
                "{name}: {text:?} is no duration; write it like \"30s\""
            ))
        }),
    }
}

/// Where WebSockets are served if nothing else is said.
pub const DEFAULT_LISTEN: &str = "ws://127.0.0.1:5001";
/// Where the admin interface is served if nothing else is said.
pub const DEFAULT_ADMIN: &str = "127.0.0.1:5002";
/// The data directory if nothing else is said.
pub const DEFAULT_DATA: &str = "./h-realtime-data";
/// The official client sends about three.
const DEFAULT_FILTER_TERMS: usize = 200;
const DEFAULT_DRAIN: Duration = Duration::from_secs(10);
/// Half a minute: the official client comes back two seconds after it was closed.
const DEFAULT_SPREAD: Duration = Duration::from_secs(30);
const DEFAULT_SWEEP: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests;
