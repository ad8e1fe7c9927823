//! The resolved settings: their types, and how each is computed from the values as written.
//!
//! Owns: the field of each setting in [`ServerSettings`] or in the engine's [`Config`], its
//! computation, and conflicts between settings. The syntax of a single value is checked earlier, in
//! `value`.

use std::path::PathBuf;
use std::time::Duration;

use super::address::{Listen, parse_admin, parse_listen};
use super::backend::{self, BackendSettings, Features};
use super::conflicts::Conflicts;
use super::error::ConfigError;
use super::history::HistoryConfig;
use super::units::parse_mode;
use super::values::Values;
use super::{address_conflicts, insecure};
use crate::http::{ForwardedBy, Origin, Proxies};
use crate::logging::Format;
use crate::model::{InvalidToken, OnExpiry};
use crate::net::{Address, Config};

/// The resolved configuration of the server.
#[derive(Clone, Debug)]
pub struct ServerSettings {
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
    /// The data directory of the embedded backend.
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
    /// the backend reports changes itself.
    pub sweep: Option<Duration>,
    /// The limits and the storage of the history.
    pub history: HistoryConfig,
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

impl Values {
    /// Resolves the values, for a build with the given features. Resolves as much as possible
    /// despite conflicts and refused insecure settings, and returns one line for each of them.
    ///
    /// # Errors
    /// [`ConfigError`] for a value that should have been refused earlier.
    pub fn resolve(
        &self,
        features: Features,
    ) -> Result<(ServerSettings, Vec<String>), ConfigError> {
        let mut conflicts = Conflicts::new(self);
        let backend = backend::resolve(self, features, &mut conflicts)?;
        let settings = self.resolve_settings(backend, &mut conflicts)?;
        address_conflicts::check(&settings, &self.inherited, &mut conflicts);
        insecure::reject(&settings, &mut conflicts);
        Ok((settings, conflicts.into_lines()))
    }

    fn resolve_settings(
        &self,
        backend: BackendSettings,
        conflicts: &mut Conflicts<'_>,
    ) -> Result<ServerSettings, ConfigError> {
        let is_h = matches!(backend, BackendSettings::H(_));
        // The tokens of h's own clients expire together after a restart of the server.
        let spread = if is_h { DEFAULT_SPREAD } else { Duration::ZERO };
        let listen = self.listen(conflicts)?;
        let tls = match (self.path("tls.cert"), self.path("tls.key")) {
            (Some(cert), Some(key)) => Some((cert, key)),
            (None, None) => None,
            _ => {
                conflicts.add(
                    &["tls.cert", "tls.key"],
                    "tls.cert and tls.key must be set together",
                );
                None
            }
        };
        let is_without = self.path("tls.cert").or(self.path("tls.key")).is_none();
        if is_without && listen.iter().any(|listen| listen.tls) {
            let text = "a wss:// listener requires tls.cert and tls.key";
            conflicts.add(&["listen", "tls.cert", "tls.key"], text);
        }
        let sweep = self.duration("auth.sweep")?;
        Ok(ServerSettings {
            proxy_protocol: self.proxy_protocol(&listen, conflicts)?,
            listen,
            admin: self.admin(conflicts)?,
            socket: self.socket("socket.mode", "socket.user", "socket.group")?,
            admin_socket: self.socket(
                "socket.admin_mode",
                "socket.admin_user",
                "socket.admin_group",
            )?,
            admin_hosts: self.list("admin_hosts"),
            admin_public: self.boolean("admin_public")?,
            metrics_key: self.metrics_key(conflicts),
            origins: self.parse_list("origins", Origin::parse)?,
            reuse_port: self.boolean("reuse_port")?,
            backend,
            data: self.path("data").ok_or_else(|| invalid("data"))?,
            tls,
            invalid_token: self.choice(
                "auth.invalid_token",
                &[
                    ("anonymous", InvalidToken::Anonymous),
                    ("reject", InvalidToken::Reject),
                ],
            )?,
            on_expiry: self.choice(
                "auth.on_expiry",
                &[("close", OnExpiry::Close), ("keep", OnExpiry::Keep)],
            )?,
            expiry_spread: self
                .optional_duration("auth.expiry_spread")
                .unwrap_or(spread),
            sweep: is_h.then_some(sweep),
            history: self.history()?,
            filter_terms: self.integer("limits.filter_terms")?,
            filters_total: self.size("limits.filters_total")?,
            connections: self.number("limits.connections").map(saturated),
            max_event: self.size("limits.event")?,
            backlog: (
                self.integer("limits.backlog_events")?,
                self.size("limits.backlog_total")?,
            ),
            drain: self.duration("timeouts.drain")?,
            log_level: self
                .required_text("log.level")?
                .parse()
                .map_err(|_| invalid("log.level"))?,
            log_format: self.choice(
                "log.format",
                &[
                    ("auto", Format::detected()),
                    ("text", Format::Text),
                    ("journal", Format::Journal),
                    ("json", Format::Json),
                ],
            )?,
            engine: self.engine(conflicts)?,
        })
    }

    /// Returns the inherited addresses and the configured ones. The default applies only if there
    /// are neither.
    fn listen(&self, conflicts: &mut Conflicts<'_>) -> Result<Vec<Listen>, ConfigError> {
        let mut listen = self.inherited.listen.clone();
        if !listen.is_empty() && !self.is_given("listen") {
            return Ok(listen);
        }
        for configured in self.parse_list("listen", parse_listen)? {
            let mut inherited = self.inherited.listen.iter();
            match inherited.find(|inherited| inherited.address == configured.address) {
                Some(inherited) if inherited.tls != configured.tls => {
                    let text = format!(
                        "listen: the inherited socket for {} is named for a listener {} TLS; rename it \
                         (FileDescriptorName=) or change listen",
                        configured.address,
                        if inherited.tls { "with" } else { "without" }
                    );
                    conflicts.add(&["listen"], text);
                }
                Some(_) => {}
                None => listen.push(configured),
            }
        }
        Ok(listen)
    }

    fn admin(&self, conflicts: &mut Conflicts<'_>) -> Result<Address, ConfigError> {
        let configured =
            parse_admin(&self.required_text("admin")?).ok_or_else(|| invalid("admin"))?;
        match &self.inherited.admin {
            None => Ok(configured),
            Some(inherited) if !self.is_given("admin") || *inherited == configured => {
                Ok(inherited.clone())
            }
            Some(inherited) => {
                let text = format!(
                    "admin is {configured}, but the inherited admin socket listens on {inherited}: remove \
                     the setting, or use the same address in both"
                );
                conflicts.add(&["admin"], text);
                Ok(inherited.clone())
            }
        }
    }

    fn socket(&self, mode: &str, user: &str, group: &str) -> Result<SocketSettings, ConfigError> {
        Ok(SocketSettings {
            mode: parse_mode(&self.required_text(mode)?).ok_or_else(|| invalid(mode))?,
            user: self.text(user),
            group: self.text(group),
        })
    }

    fn metrics_key(&self, conflicts: &mut Conflicts<'_>) -> Option<MetricsKey> {
        // An empty key in the file is an error: the operator expects that key to work.
        let source = self.source("metrics_key")?;
        let key = self.text("metrics_key").unwrap_or_default();
        let key = key.trim();
        if key.len() < MIN_KEY || !key.bytes().all(|byte| byte.is_ascii_graphic()) {
            let text = format!(
                "{source}: metrics_key must have at least {MIN_KEY} printable ASCII characters and \
                 no spaces; generate one with `openssl rand -hex 32`"
            );
            conflicts.add(&["metrics_key"], text);
        }
        Some(MetricsKey(key.to_owned()))
    }

    fn proxy_protocol(
        &self,
        listen: &[Listen],
        conflicts: &mut Conflicts<'_>,
    ) -> Result<Vec<Listen>, ConfigError> {
        let listeners = self.parse_list("proxy_protocol", parse_listen)?;
        for unknown in listeners.iter().filter(|it| !listen.contains(it)) {
            let text = format!("proxy_protocol: {} is not in listen", unknown.address);
            conflicts.add(&["proxy_protocol", "listen"], text);
        }
        if !listeners.is_empty() && self.list("limits.trusted_proxies").is_empty() {
            let text =
                "proxy_protocol requires limits.trusted_proxies: without it, no client can connect";
            conflicts.add(&["proxy_protocol", "limits.trusted_proxies"], text);
        }
        Ok(listeners)
    }

    fn engine(&self, conflicts: &mut Conflicts<'_>) -> Result<Config, ConfigError> {
        let default = Config::default().max_connections;
        let config = Config::default()
            .max_connections(self.number("limits.connections").map_or(default, saturated))
            .ipv6_prefix(self.integer("limits.ipv6_prefix")?)
            .max_per_ip(match self.number("limits.connections_per_ip") {
                Some(_) => Some(self.integer("limits.connections_per_ip")?),
                None => None,
            })
            .trusted_proxies(
                Proxies::parse(
                    self.list("limits.trusted_proxies")
                        .iter()
                        .map(|item| &**item),
                )
                .map_err(|_| invalid("limits.trusted_proxies"))?,
            )
            .forwarded_by(self.choice(
                "limits.forwarded_by",
                &[
                    ("x-forwarded-for", ForwardedBy::XForwardedFor),
                    ("forwarded", ForwardedBy::Forwarded),
                    ("nothing", ForwardedBy::Nothing),
                ],
            )?)
            .max_head(self.size("limits.request_head")?)
            .max_message(self.size("limits.message")?)
            .max_fragments(self.integer("limits.fragments")?)
            .deflate(self.boolean("compression.enabled")?)
            .queue_soft(self.size("limits.queue_soft")?)
            .queue_hard(self.size("limits.queue_hard")?)
            .queue_total(self.size("limits.queue_total")?)
            .unfinished_total(self.size("limits.unfinished_total")?)
            .handshake_timeout(self.duration("timeouts.handshake")?)
            .body_timeout(self.duration("timeouts.body")?)
            .message_timeout(self.duration("timeouts.message")?)
            .defer_timeout(self.duration("timeouts.auth")?)
            .respond_timeout(self.duration("timeouts.publish")?)
            .close_timeout(self.duration("timeouts.close")?)
            .linger_timeout(self.duration("timeouts.linger")?)
            .ping_interval(self.duration("timeouts.ping")?)
            .pong_timeout(self.duration("timeouts.pong")?)
            .slow_timeout(self.duration("timeouts.slow")?);
        if config.queue_soft > config.queue_hard || config.queue_hard > config.queue_total {
            let names = [
                "limits.queue_soft",
                "limits.queue_hard",
                "limits.queue_total",
            ];
            conflicts.add(&names, format!("{} is required", names.join(" <= ")));
        }
        Ok(config)
    }

    /// Parses each item of a list.
    fn parse_list<T>(
        &self,
        name: &str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Result<Vec<T>, ConfigError> {
        let items = self.list(name);
        let items = items
            .iter()
            .map(|item| parse(item).ok_or_else(|| invalid(name)));
        items.collect()
    }

    /// Maps a word to its variant.
    pub(super) fn choice<T: Copy>(
        &self,
        name: &str,
        variants: &[(&str, T)],
    ) -> Result<T, ConfigError> {
        let word = self.required_text(name)?;
        let found = variants.iter().find(|(name, _)| *name == word);
        found
            .map(|(_, meaning)| *meaning)
            .ok_or_else(|| invalid(name))
    }
}

fn saturated(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

/// The error for a value that its kind should have refused.
fn invalid(name: &str) -> ConfigError {
    ConfigError(format!("{name} is invalid"))
}

/// 30 seconds: the official client reconnects two seconds after a close.
const DEFAULT_SPREAD: Duration = Duration::from_secs(30);
/// The minimum length of the metrics key, the same as for the publish key.
const MIN_KEY: usize = 16;
