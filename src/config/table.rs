//! The table of all settings: name, kind, default, and description.
//!
//! Owns: the list. The keys of the configuration file, the environment variables, the text of
//! errors, the output of `config show` and `config default`, and the list in docs/operating.md are
//! all derived from it. Must not know how settings are resolved.

use super::rust_log::RUST_LOG;
use super::suggest::nearest;
use super::value::ValueKind;

/// The definition of a setting.
#[derive(Debug)]
pub struct Setting {
    /// The key in the file, prefixed with its section: `limits.message`.
    pub name: &'static str,
    /// The kind of value.
    pub kind: ValueKind,
    /// The default.
    pub default: DefaultValue,
    /// Whether a reload (SIGHUP) applies a new value. Otherwise a restart is required.
    pub is_reloadable: bool,
    /// Whether the value must not be shown. Such a setting has a second form, with the suffix
    /// `_file`, that names a file containing the value. It has no flag.
    pub is_secret: bool,
    /// Whether the setting may be a systemd credential under its own name. A credential is the
    /// value of a secret setting, and the path for any other.
    pub allows_credential: bool,
    /// An additional environment variable, which ranks below this program's own variable and above
    /// the file.
    pub variable: Option<&'static str>,
    /// A one-line description.
    pub doc: &'static str,
}

/// The default of a setting.
#[derive(Clone, Copy, Debug)]
pub enum DefaultValue {
    /// A value, as written in the file.
    Literal(&'static str),
    /// No value, with a description of the effect.
    Unset(&'static str),
}

impl Setting {
    /// Returns the section (empty for the top level) and the key in it.
    pub fn section_and_key(&self) -> (&'static str, &'static str) {
        self.name.split_once('.').unwrap_or(("", self.name))
    }

    /// Returns the name of this program's environment variable for the setting.
    pub fn own_variable(&self) -> String {
        variable(self.name)
    }

    /// Returns the name of the `_file` form.
    pub fn file_form(&self) -> Option<String> {
        self.is_secret.then(|| format!("{}{FILE}", self.name))
    }

    const fn new(
        name: &'static str,
        kind: ValueKind,
        default: DefaultValue,
        doc: &'static str,
    ) -> Self {
        Setting {
            name,
            kind,
            default,
            is_reloadable: true,
            is_secret: false,
            allows_credential: false,
            variable: None,
            doc,
        }
    }

    const fn restart_only(mut self) -> Self {
        self.is_reloadable = false;
        self
    }

    const fn secret(mut self) -> Self {
        self.is_secret = true;
        self.allows_credential = true;
        self
    }

    const fn allows_credential(mut self) -> Self {
        self.allows_credential = true;
        self
    }

    const fn or_variable(mut self, variable: &'static str) -> Self {
        self.variable = Some(variable);
        self
    }
}

/// Finds a setting by name. The flag is true if the name is that of the `_file` form.
pub(super) fn find(name: &str) -> Option<(&'static Setting, bool)> {
    let named = |name: &str| SETTINGS.iter().find(|setting| setting.name == name);
    let of_file = || name.strip_suffix(FILE).and_then(named);
    named(name)
        .map(|setting| (setting, false))
        .or_else(|| Some((of_file().filter(|setting| setting.is_secret)?, true)))
}

/// Returns the error text for an unknown name.
pub(super) fn unknown(name: &str) -> String {
    let key = name.rsplit('.').next().unwrap_or(name);
    // Prefer the same key in another section to a similar key.
    let elsewhere = SETTINGS
        .iter()
        .find(|setting| setting.section_and_key().1 == key);
    let suggestion = match elsewhere {
        Some(setting) => Some(setting.name.to_owned()),
        None => nearest(name, all_names()),
    };
    match suggestion {
        Some(suggestion) => format!("unknown setting {name}; did you mean {suggestion}?"),
        None => format!("unknown setting {name}"),
    }
}

/// Returns all accepted names, including the `_file` forms.
pub(super) fn all_names() -> impl Iterator<Item = String> {
    let forms = |setting: &Setting| [Some(setting.name.to_owned()), setting.file_form()];
    SETTINGS.iter().flat_map(forms).flatten()
}

/// Returns the environment variable for a name.
pub(super) fn variable(name: &str) -> String {
    format!("{PREFIX}{}", name.to_uppercase().replace('.', "__"))
}

/// The default data directory.
pub(crate) const DEFAULT_DATA: &str = "./h-realtime-data";
/// The prefix of this program's environment variables.
pub(super) const PREFIX: &str = "H_REALTIME_";
/// The suffix of the name that gives a file instead of the value.
const FILE: &str = "_file";

/// The sections in order, with their descriptions.
pub(super) static SECTIONS: &[(&str, &str)] = &[
    ("", ""),
    (
        "socket",
        "Unix sockets of this server; systemd socket units have their own settings",
    ),
    ("h", "h's own servers read these from their environment"),
    (
        "amqp",
        "RabbitMQ, for backend = \"h\" and events = \"amqp\"",
    ),
    ("tls", "certificate for wss://"),
    ("auth", ""),
    ("compression", ""),
    (
        "history",
        "recent events, from which clients resume after an interruption",
    ),
    ("limits", ""),
    ("timeouts", ""),
    ("log", ""),
];

use self::DefaultValue::{Literal, Unset};

const ANY_TIME: ValueKind = ValueKind::Duration { min: 0 };
/// A shorter time can only be a mistake, and would prevent anything from completing.
const TIME: ValueKind = ValueKind::Duration { min: 100 };
const ANY_SIZE: ValueKind = ValueKind::Size { min: 0 };
const SIZE: ValueKind = ValueKind::Size { min: 1 };

const fn set(
    name: &'static str,
    kind: ValueKind,
    default: &'static str,
    doc: &'static str,
) -> Setting {
    Setting::new(name, kind, Literal(default), doc)
}

const fn unset(
    name: &'static str,
    kind: ValueKind,
    default: &'static str,
    doc: &'static str,
) -> Setting {
    Setting::new(name, kind, Unset(default), doc)
}

/// All settings, grouped by section.
#[rustfmt::skip]
pub static SETTINGS: &[Setting] = &[
    set("listen", ValueKind::ListenAddresses, r#"["ws://127.0.0.1:5001"]"#,
        "ws://HOST:PORT, wss://HOST:PORT, or unix:/path/to.sock").restart_only(),
    set("proxy_protocol", ValueKind::OptionalListenAddresses, "[]",
        "listeners that expect PROXY headers; only trusted_proxies may connect").restart_only(),
    set("reuse_port", ValueKind::Bool, "false",
        "share the TCP ports and the data directory with other servers").restart_only(),
    set("admin", ValueKind::AdminAddress, r#""127.0.0.1:5002""#,
        "HOST:PORT or unix:/path/to.sock; keep it private").restart_only(),
    set("admin_hosts", ValueKind::Names, "[]",
        "additional Host values for the admin address, such as a proxy's").restart_only(),
    set("admin_public", ValueKind::Bool, "false",
        "allow a publicly reachable admin address").restart_only(),
    unset("metrics_key", ValueKind::Text, "only the publish key",
        "a Bearer key for all of /metrics").restart_only().secret(),
    set("origins", ValueKind::Origins, "[]",
        "origins of pages that may connect, like \"https://example.org\"; empty allows all"),
    set("data", ValueKind::Path, r#""./h-realtime-data""#,
        "the directory of the server's own files, such as the database").restart_only(),
    set("backend", ValueKind::OneOf(&["embedded", "h"]), r#""embedded""#,
        "or \"h\": h's database and message queue (feature h)").restart_only(),
    set("events", ValueKind::OneOf(&["http", "amqp"]), r#""http""#,
        "or \"amqp\": events also arrive from RabbitMQ (feature amqp)").restart_only(),

    set("socket.mode", ValueKind::Mode, r#""0666""#,
        "permissions of listen's sockets; clients and proxies need write access").restart_only(),
    unset("socket.user", ValueKind::Text, "the server's user",
        "owner of these sockets, by name or number").restart_only(),
    unset("socket.group", ValueKind::Text, "the server's group",
        "group of these sockets, by name or number").restart_only(),
    set("socket.admin_mode", ValueKind::Mode, r#""0600""#,
        "permissions of admin's socket; 0660 lets its group publish and monitor").restart_only(),
    unset("socket.admin_user", ValueKind::Text, "the server's user",
        "owner of admin's socket, by name or number").restart_only(),
    unset("socket.admin_group", ValueKind::Text, "the server's group",
        "group of admin's socket, by name or number").restart_only(),

    unset("h.database_url", ValueKind::Text, "none, required for h",
        "URL of PostgreSQL, with the password").restart_only().secret().or_variable("DATABASE_URL"),
    set("h.authority", ValueKind::Text, r#""localhost""#,
        "authority of the users").restart_only().or_variable("AUTHORITY"),
    set("h.app_url", ValueKind::Text, r#""http://localhost:5000""#,
        "base URL of h's pages and of links to them").restart_only().or_variable("APP_URL"),
    unset("h.bouncer_url", ValueKind::Text, "no such links",
        "base URL of links to annotations in context").restart_only().or_variable("BOUNCER_URL"),

    set("amqp.url", ValueKind::Text, r#""amqp://guest:guest@localhost:5672//""#,
        "URL of RabbitMQ; several, separated by ;, are tried in turn").restart_only().secret().or_variable("BROKER_URL"),

    unset("tls.cert", ValueKind::Path, "none, required for wss://",
        "PEM file with the certificate chain").allows_credential(),
    unset("tls.key", ValueKind::Path, "none, required for wss://",
        "PEM file with the private key").allows_credential(),

    set("auth.invalid_token", ValueKind::OneOf(&["anonymous", "reject"]), r#""anonymous""#,
        "or \"reject\": respond to an unknown or expired token with 401"),
    set("auth.on_expiry", ValueKind::OneOf(&["close", "keep"]), r#""close""#,
        "or \"keep\": keep connections open after their tokens end"),
    unset("auth.expiry_spread", ANY_TIME, "30s for h, otherwise 0s",
        "period over which to close if many tokens end"),
    set("auth.sweep", TIME, r#""60s""#,
        "interval at which h's database is checked for changes without an event"),

    set("compression.enabled", ValueKind::Bool, "true",
        "permessage-deflate, for clients that offer it"),

    set("history.memory", ANY_SIZE, r#""16MiB""#, "memory for recent events; 0 disables the history").restart_only(),
    set("history.window", TIME, r#""7d""#, "maximum age of these events").restart_only(),
    set("history.clients", ValueKind::Number { min: 0, max: 10_000_000 }, "65536",
        "disconnected clients that are sent missed events when they return; 0 for none"),
    set("history.disk", SIZE, r#""64MiB""#,
        "maximum size of the history in the data directory (embedded)").restart_only(),
    set("history.durability", ValueKind::OneOf(&["normal", "full"]), r#""normal""#,
        "or \"full\": accepted events survive a power failure (embedded)").restart_only(),

    unset("limits.connections", ValueKind::Number { min: 1, max: u64::MAX },
        "the limit on open files minus 64 to 304", "maximum number of connections"),
    unset("limits.connections_per_ip", ValueKind::Number { min: 1, max: u32::MAX as u64 },
        "none", "maximum per IP address; not applied to loopback and Unix sockets"),
    set("limits.ipv6_prefix", ValueKind::Number { min: 1, max: 128 }, "64",
        "connections_per_ip counts IPv6 addresses that share this many bits as one"),
    set("limits.trusted_proxies", ValueKind::Proxies, "[]",
        "proxies that are trusted to report client addresses: \"10.0.0.0/8\", \"::1\", \"unix\""),
    set("limits.forwarded_by", ValueKind::OneOf(&["x-forwarded-for", "forwarded", "nothing"]),
        r#""x-forwarded-for""#, "or \"forwarded\" (RFC 7239) or \"nothing\": header with the client's address"),
    set("limits.request_head", ValueKind::Size { min: 512 }, r#""16KiB""#, "maximum size of a request head"),
    set("limits.message", SIZE, r#""64KiB""#, "maximum size of a client's message"),
    set("limits.fragments", ValueKind::Number { min: 1, max: u32::MAX as u64 }, "1024",
        "maximum number of fragments in a message"),
    set("limits.filter_terms", ValueKind::Number { min: 0, max: u32::MAX as u64 }, "200",
        "maximum number of values in a client's filter, including repeated ones"),
    set("limits.filters_total", ANY_SIZE, r#""64MiB""#,
        "memory for all filters; beyond it, 16 values per filter"),
    set("limits.queue_soft", ANY_SIZE, r#""64KiB""#,
        "queued output of a client that may be exceeded only for timeouts.slow"),
    set("limits.queue_hard", ANY_SIZE, r#""256KiB""#,
        "maximum queued output of a client that does not keep pace"),
    set("limits.queue_total", ANY_SIZE, r#""64MiB""#, "memory for the queued output of all clients"),
    set("limits.unfinished_total", ANY_SIZE, r#""64MiB""#,
        "memory for the incomplete input of all clients"),
    set("limits.event", ValueKind::Size { min: 1024 }, r#""4MiB""#,
        "maximum size of an event from RabbitMQ").restart_only(),
    set("limits.backlog_events", ValueKind::Number { min: 1, max: 60_000 }, "4096",
        "events queued while h's database is unavailable; drops the oldest").restart_only(),
    set("limits.backlog_total", SIZE, r#""16MiB""#, "maximum size of these events together").restart_only(),

    set("timeouts.handshake", TIME, r#""10s""#,
        "from accept to the end of the request head, including TLS"),
    set("timeouts.body", TIME, r#""10s""#, "from the end of the request head to the end of the body"),
    set("timeouts.message", TIME, r#""10s""#, "from the first byte of a message to the last"),
    set("timeouts.auth", TIME, r#""10s""#, "for the backend to resolve a token"),
    set("timeouts.publish", TIME, r#""30s""#,
        "for the backend to process published events; then none is delivered"),
    set("timeouts.close", TIME, r#""5s""#, "from the server's close frame to the end of the connection"),
    set("timeouts.linger", ANY_TIME, r#""2s""#, "how long to keep reading after a close, so that the last output is not lost"),
    set("timeouts.ping", TIME, r#""30s""#, "silence after which a client is sent a ping"),
    set("timeouts.pong", TIME, r#""20s""#, "further silence after which the connection is dropped"),
    set("timeouts.slow", ANY_TIME, r#""10s""#, "how long queued output may exceed queue_soft"),
    set("timeouts.drain", ANY_TIME, r#""10s""#, "period over which a shutdown spreads its closes"),

    set("log.level", ValueKind::OneOf(&["error", "warn", "info", "debug", "trace"]), r#""info""#,
        "error, warn, info, debug, or trace").or_variable(RUST_LOG),
    set("log.format", ValueKind::OneOf(&["auto", "text", "journal", "json"]), r#""auto""#,
        "text, journal, or json; auto is journal under systemd, otherwise text"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_sorted_and_defaults_are_valid() {
        let mut sections = SECTIONS.iter().map(|(section, _)| *section).peekable();
        for setting in SETTINGS {
            let (section, key) = setting.section_and_key();
            while sections.peek().is_some_and(|next| *next != section) {
                sections.next();
            }
            assert!(
                sections.peek().is_some(),
                "{} is out of order",
                setting.name
            );
            assert!(!key.contains('.') && !setting.doc.is_empty());
            if let Literal(text) = setting.default {
                let value = crate::config::value::Value::from_toml(text).unwrap();
                setting.kind.accept(value).unwrap();
            }
            let again = SETTINGS.iter().filter(|other| other.name == setting.name);
            assert_eq!(again.count(), 1, "{}", setting.name);
        }
    }

    #[test]
    fn names_are_found_and_typos_get_suggestions() {
        assert!(find("h.database_url_file").unwrap().1);
        assert!(find("h.authority_file").is_none() && find("limits").is_none());
        for (wrong, right) in [
            ("lisen", Some("listen")),
            ("limits.mesage", Some("limits.message")),
            ("limit.message", Some("limits.message")),
            ("limits.ping", Some("timeouts.ping")),
            ("amqp.urlfile", Some("amqp.url_file")),
            ("colour", None),
        ] {
            let error = unknown(wrong);
            match right {
                Some(right) => assert!(error.ends_with(&format!("mean {right}?")), "{error}"),
                None => assert_eq!(error, format!("unknown setting {wrong}")),
            }
        }
        assert_eq!(
            variable("limits.connections_per_ip"),
            "H_REALTIME_LIMITS__CONNECTIONS_PER_IP"
        );
    }
}
