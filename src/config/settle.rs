//! Resolution of the values as written into [`Settings`].

use std::time::Duration;

use super::address::{parse_admin, parse_listen};
use super::problems::Problems;
use super::units::parse_mode;
use super::values::Values;
use super::{BackendSettings, ConfigError, Features, Listen, MetricsKey, Settings};
use super::{SocketSettings, backend, danger, places};
use crate::http::{ForwardedBy, Origin, Proxies};
use crate::logging::Format;
use crate::model::{InvalidToken, OnExpiry};
use crate::net::{Address, Config};

impl Values {
    /// Resolves the values.
    ///
    /// # Errors
    /// [`ConfigError`] with every conflict and every refused dangerous setting.
    pub fn settle(&self) -> Result<Settings, ConfigError> {
        let (settings, problems) = self.resolve(Features::ALL)?;
        match problems.is_empty() {
            true => Ok(settings),
            false => Err(ConfigError(problems.join("\n"))),
        }
    }

    /// Like [`Values::settle`], for a build with the given features. Resolves as much as possible
    /// despite problems, and returns one line for each problem.
    ///
    /// # Errors
    /// [`ConfigError`] for a value that should have been refused earlier.
    pub fn resolve(&self, features: Features) -> Result<(Settings, Vec<String>), ConfigError> {
        let mut problems = Problems::of(self);
        let backend = backend::settle(self, features, &mut problems)?;
        let settings = self.resolve_settings(backend, &mut problems)?;
        places::check(&settings, &self.inherited, &mut problems);
        danger::refuse(&settings, &mut problems);
        Ok((settings, problems.into_lines()))
    }

    fn resolve_settings(
        &self,
        backend: BackendSettings,
        problems: &mut Problems<'_>,
    ) -> Result<Settings, ConfigError> {
        let is_h = matches!(backend, BackendSettings::H(_));
        // The tokens of h's own clients expire together after a restart of the server.
        let spread = if is_h { DEFAULT_SPREAD } else { Duration::ZERO };
        let listen = self.listen(problems)?;
        let tls = match (self.path("tls.cert"), self.path("tls.key")) {
            (Some(cert), Some(key)) => Some((cert, key)),
            (None, None) => None,
            _ => {
                problems.add(&["tls.cert", "tls.key"], "tls.cert and tls.key go together");
                None
            }
        };
        let is_without = self.path("tls.cert").or(self.path("tls.key")).is_none();
        if is_without && listen.iter().any(|listen| listen.tls) {
            let text = "a wss:// listener needs tls.cert and tls.key";
            problems.add(&["listen", "tls.cert", "tls.key"], text);
        }
        let sweep = self.time("auth.sweep")?;
        Ok(Settings {
            proxy_protocol: self.proxy_protocol(&listen, problems)?,
            listen,
            admin: self.admin(problems)?,
            socket: self.socket("socket.mode", "socket.user", "socket.group")?,
            admin_socket: self.socket(
                "socket.admin_mode",
                "socket.admin_user",
                "socket.admin_group",
            )?,
            admin_hosts: self.list("admin_hosts"),
            admin_public: self.flag("admin_public")?,
            metrics_key: self.metrics_key(problems),
            origins: self.each("origins", Origin::parse)?,
            reuse_port: self.flag("reuse_port")?,
            backend,
            data: self.path("data").ok_or_else(|| odd("data"))?,
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
            expiry_spread: self.some_time("auth.expiry_spread").unwrap_or(spread),
            sweep: is_h.then_some(sweep),
            filter_terms: self.count("limits.filter_terms")?,
            filters_total: self.size("limits.filters_total")?,
            connections: self.number("limits.connections").map(saturated),
            max_event: self.size("limits.event")?,
            backlog: (
                self.count("limits.backlog_events")?,
                self.size("limits.backlog_total")?,
            ),
            drain: self.time("timeouts.drain")?,
            log_level: self
                .word("log.level")?
                .parse()
                .map_err(|_| odd("log.level"))?,
            log_format: self.choice(
                "log.format",
                &[
                    ("auto", Format::detected()),
                    ("text", Format::Text),
                    ("journal", Format::Journal),
                    ("json", Format::Json),
                ],
            )?,
            engine: self.engine(problems)?,
        })
    }

    /// Returns the inherited addresses and the configured ones. The default applies only if there
    /// are neither.
    fn listen(&self, problems: &mut Problems<'_>) -> Result<Vec<Listen>, ConfigError> {
        let mut listen = self.inherited.listen.clone();
        if !listen.is_empty() && !self.is_given("listen") {
            return Ok(listen);
        }
        for place in self.each("listen", parse_listen)? {
            let there = self.inherited.listen.iter();
            match there.clone().find(|there| there.address == place.address) {
                Some(there) if there.tls != place.tls => {
                    let text = format!(
                        "listen: the socket for {} that the server was started with has the name \
                         of one {} TLS",
                        place.address,
                        if there.tls { "with" } else { "without" }
                    );
                    problems.add(&["listen"], text);
                }
                Some(_) => {}
                None => listen.push(place),
            }
        }
        Ok(listen)
    }

    fn admin(&self, problems: &mut Problems<'_>) -> Result<Address, ConfigError> {
        let configured = parse_admin(&self.word("admin")?).ok_or_else(|| odd("admin"))?;
        match &self.inherited.admin {
            None => Ok(configured),
            Some(there) if !self.is_given("admin") || *there == configured => Ok(there.clone()),
            Some(there) => {
                let text = format!(
                    "admin is {configured}, but the socket for it that the server was started with \
                     listens on {there}: leave the setting out, or have both the same"
                );
                problems.add(&["admin"], text);
                Ok(there.clone())
            }
        }
    }

    fn socket(&self, mode: &str, user: &str, group: &str) -> Result<SocketSettings, ConfigError> {
        Ok(SocketSettings {
            mode: parse_mode(&self.word(mode)?).ok_or_else(|| odd(mode))?,
            user: self.text(user),
            group: self.text(group),
        })
    }

    fn metrics_key(&self, problems: &mut Problems<'_>) -> Option<MetricsKey> {
        // An empty key in the file is an error: the operator expects that key to work.
        let source = self.source("metrics_key")?;
        let key = self.text("metrics_key").unwrap_or_default();
        let key = key.trim();
        if key.len() < MIN_KEY || !key.bytes().all(|byte| byte.is_ascii_graphic()) {
            let text = format!(
                "{source}: metrics_key must have at least {MIN_KEY} characters of ASCII, without \
                 spaces; `openssl rand -hex 32` makes one"
            );
            problems.add(&["metrics_key"], text);
        }
        Some(MetricsKey(key.to_owned()))
    }

    fn proxy_protocol(
        &self,
        listen: &[Listen],
        problems: &mut Problems<'_>,
    ) -> Result<Vec<Listen>, ConfigError> {
        let places = self.each("proxy_protocol", parse_listen)?;
        for stray in places.iter().filter(|place| !listen.contains(place)) {
            let text = format!("proxy_protocol: {} is not in listen", stray.address);
            problems.add(&["proxy_protocol", "listen"], text);
        }
        if !places.is_empty() && self.list("limits.trusted_proxies").is_empty() {
            let text = "proxy_protocol: without limits.trusted_proxies nobody could connect";
            problems.add(&["proxy_protocol", "limits.trusted_proxies"], text);
        }
        Ok(places)
    }

    fn engine(&self, problems: &mut Problems<'_>) -> Result<Config, ConfigError> {
        let default = Config::default();
        let config = Config {
            max_connections: self
                .number("limits.connections")
                .map_or(default.max_connections, saturated),
            reserved_listener: None,
            max_reserved: default.max_reserved,
            ipv6_prefix: self.count("limits.ipv6_prefix")?,
            max_per_ip: match self.number("limits.connections_per_ip") {
                Some(_) => Some(self.count("limits.connections_per_ip")?),
                None => None,
            },
            trusted_proxies: Proxies::parse(
                self.list("limits.trusted_proxies")
                    .iter()
                    .map(|item| &**item),
            )
            .map_err(|_| odd("limits.trusted_proxies"))?,
            forwarded_by: self.choice(
                "limits.forwarded_by",
                &[
                    ("x-forwarded-for", ForwardedBy::XForwardedFor),
                    ("forwarded", ForwardedBy::Forwarded),
                    ("nothing", ForwardedBy::Nothing),
                ],
            )?,
            max_head: self.size("limits.request_head")?,
            max_message: self.size("limits.message")?,
            max_fragments: self.count("limits.fragments")?,
            deflate: self.flag("compression.enabled")?,
            queue_soft: self.size("limits.queue_soft")?,
            queue_hard: self.size("limits.queue_hard")?,
            queue_total: self.size("limits.queue_total")?,
            unfinished_total: self.size("limits.unfinished_total")?,
            handshake_timeout: self.time("timeouts.handshake")?,
            body_timeout: self.time("timeouts.body")?,
            message_timeout: self.time("timeouts.message")?,
            defer_timeout: self.time("timeouts.auth")?,
            respond_timeout: self.time("timeouts.publish")?,
            close_timeout: self.time("timeouts.close")?,
            linger_timeout: self.time("timeouts.linger")?,
            ping_interval: self.time("timeouts.ping")?,
            pong_timeout: self.time("timeouts.pong")?,
            slow_timeout: self.time("timeouts.slow")?,
        };
        if config.queue_soft > config.queue_hard || config.queue_hard > config.queue_total {
            let names = [
                "limits.queue_soft",
                "limits.queue_hard",
                "limits.queue_total",
            ];
            problems.add(&names, format!("{} must hold", names.join(" <= ")));
        }
        Ok(config)
    }

    /// Parses each item of a list.
    fn each<T>(
        &self,
        name: &str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Result<Vec<T>, ConfigError> {
        let items = self.list(name);
        let items = items
            .iter()
            .map(|item| parse(item).ok_or_else(|| odd(name)));
        items.collect()
    }

    /// Maps a word to its variant.
    pub(super) fn choice<T: Copy>(
        &self,
        name: &str,
        words: &[(&str, T)],
    ) -> Result<T, ConfigError> {
        let wanted = self.word(name)?;
        let found = words.iter().find(|(word, _)| *word == wanted);
        found.map(|(_, meaning)| *meaning).ok_or_else(|| odd(name))
    }
}

fn saturated(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

/// The error for a value that its kind should have refused.
fn odd(name: &str) -> ConfigError {
    ConfigError(format!("{name} is not what it should be"))
}

/// 30 seconds: the official client reconnects two seconds after a close.
const DEFAULT_SPREAD: Duration = Duration::from_secs(30);
/// The minimum length of the metrics key, the same as for the publish key.
const MIN_KEY: usize = 16;
