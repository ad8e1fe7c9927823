//! Settings: what may be written in the configuration file and on the command line, and what
//! they come to.
//!
//! Two levels: [`File`] is what was written, [`Settings`] what it means, checked. Nothing else
//! reads options.

mod units;

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

use crate::net::{Address, Config};

pub use units::{parse_duration, parse_size};

/// What a configuration file may say. Every key may be left out.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct File {
    /// `ws://HOST:PORT`, `wss://HOST:PORT` or `unix:/path`.
    pub listen: Vec<String>,
    /// `HOST:PORT` or `unix:/path`.
    pub admin: Option<String>,
    /// Values of `Host` by which the admin listener is reached besides its address.
    pub admin_hosts: Vec<String>,
    /// The data directory.
    pub data: Option<PathBuf>,
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
    /// The data directory.
    pub data: PathBuf,
    /// Certificate chain and key, for the listeners with TLS.
    pub tls: Option<(PathBuf, PathBuf)>,
    /// See [`AuthSection::invalid_token`].
    pub invalid_token: InvalidToken,
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
            data: self.data.unwrap_or_else(|| DEFAULT_DATA.into()),
            tls,
            invalid_token: self.auth.invalid_token,
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

/// Reads where to serve WebSockets.
fn parse_listen(url: &str) -> Result<Listen, ConfigError> {
    let error = || {
        ConfigError(format!(
            "listen: {url:?} is none of ws://HOST:PORT, wss://HOST:PORT, unix:/path/to.sock"
        ))
    };
    if let Some(path) = url.strip_prefix("unix:") {
        let address = Address::Unix(unix_path(path).ok_or_else(error)?);
        return Ok(Listen {
            address,
            tls: false,
        });
    }
    let (host, tls) = match url.strip_prefix("wss://") {
        Some(host) => (host, true),
        None => (url.strip_prefix("ws://").ok_or_else(error)?, false),
    };
    // The path is always /ws: it may be there, as in the address that clients use.
    let host = host
        .strip_suffix("/ws")
        .or(host.strip_suffix('/'))
        .unwrap_or(host);
    let address = Address::Tcp(parse_socket(host).ok_or_else(error)?);
    Ok(Listen { address, tls })
}

fn parse_admin(text: &str) -> Result<Address, ConfigError> {
    let address = match text.strip_prefix("unix:") {
        Some(path) => unix_path(path).map(Address::Unix),
        None => {
            let host = text.strip_prefix("http://").unwrap_or(text);
            parse_socket(host.trim_end_matches('/')).map(Address::Tcp)
        }
    };
    address.ok_or_else(|| {
        ConfigError(format!(
            "admin: {text:?} is none of HOST:PORT, unix:/path/to.sock"
        ))
    })
}

fn unix_path(path: &str) -> Option<PathBuf> {
    (!path.is_empty()).then(|| path.into())
}

/// An address and port; `localhost` is 127.0.0.1, and other names are not looked up: what a
/// server listens on should not depend on a name server.
fn parse_socket(text: &str) -> Option<SocketAddr> {
    match text.strip_prefix("localhost:") {
        Some(port) => Some(SocketAddr::from(([127, 0, 0, 1], port.parse().ok()?))),
        None => text.parse().ok(),
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

#[cfg(test)]
mod tests {
    use super::*;

    fn settle(text: &str) -> Result<Settings, String> {
        File::parse(text)
            .and_then(File::settle)
            .map_err(|error| error.0)
    }

    #[test]
    fn nothing_said_is_the_default() {
        let settings = settle("").unwrap();
        assert_eq!(
            settings.listen,
            [Listen {
                address: Address::Tcp("127.0.0.1:5001".parse().unwrap()),
                tls: false
            }]
        );
        assert_eq!(
            settings.admin,
            Address::Tcp("127.0.0.1:5002".parse().unwrap())
        );
        assert_eq!(settings.invalid_token, InvalidToken::Anonymous);
        assert_eq!(settings.engine.max_message, 64 * 1024);
        assert!(settings.engine.deflate);
        assert_eq!(settings.drain, Duration::from_secs(10));
    }

    #[test]
    fn all_that_can_be_said() {
        let settings = settle(
            r#"
            listen = ["wss://[::1]:443/ws", "unix:/run/h.sock", "ws://localhost:80"]
            admin = "unix:/run/admin.sock"
            [tls]
            cert = "a.pem"
            key = "b.pem"
            [auth]
            invalid_token = "reject"
            [compression]
            enabled = false
            [limits]
            connections = 5
            connections_per_ip = 2
            trusted_proxies = ["192.0.2.1"]
            message = "1MiB"
            [timeouts]
            ping = "1m"
            slow = "500ms"
            "#,
        )
        .unwrap();
        assert!(settings.listen[0].tls);
        assert_eq!(
            settings.listen[1].address,
            Address::Unix("/run/h.sock".into())
        );
        assert_eq!(
            settings.listen[2].address,
            Address::Tcp("127.0.0.1:80".parse().unwrap())
        );
        assert_eq!(settings.invalid_token, InvalidToken::Reject);
        assert!(!settings.engine.deflate);
        assert_eq!(settings.engine.max_message, 1 << 20);
        assert_eq!(settings.engine.ping_interval, Duration::from_secs(60));
        assert_eq!(settings.engine.slow_timeout, Duration::from_millis(500));
    }

    #[test]
    fn what_cannot_be_is_named() {
        for (text, part) in [
            ("lisen = []", "unknown field `lisen`"),
            ("[limits]\nmessage = 5", "line 2"),
            ("[limits]\nmessage = \"5 bananas\"", "limits.message"),
            ("[timeouts]\nping = \"soon\"", "timeouts.ping"),
            ("[compression]\nenabled = 6", "line 2"),
            ("[auth]\ninvalid_token = \"ignore\"", "unknown variant"),
            ("listen = [\"http://127.0.0.1:1\"]", "listen"),
            ("listen = [\"wss://127.0.0.1:1\"]", "tls.cert"),
            ("listen = [\"ws://example.org:80\"]", "listen"),
            ("listen = [\"unix:\"]", "listen"),
            ("admin = \"5002\"", "admin"),
            ("[tls]\ncert = \"a\"", "go together"),
            ("[limits]\nqueue_soft = \"1MiB\"", "queue_soft"),
            ("[limits]\nconnections = 0", "limits.connections"),
        ] {
            let error = settle(text).unwrap_err();
            assert!(error.contains(part), "{text:?}: {error}");
        }
    }
}
