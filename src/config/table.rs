//! The table of all settings: name, kind, default, and description.
//!
//! Owns: the list, but not the resolution of the settings. The keys of the configuration file, the
//! environment variables, the text of errors, the output of `config show` and `config default`, and
//! the list in docs/operating.md are all derived from it.

use super::near::nearest;
use super::rust_log::RUST_LOG;
use super::value::Kind;

/// The definition of a setting.
#[derive(Debug)]
pub struct Setting {
    /// The key in the file, prefixed with its section: `limits.message`.
    pub name: &'static str,
    /// The kind of value.
    pub kind: Kind,
    /// The default.
    pub preset: Preset,
    /// Whether a reload (SIGHUP) applies a new value. Otherwise a restart is required.
    pub is_live: bool,
    /// Whether the value must not be shown. Such a setting has a second form, with the suffix
    /// `_file`, that names a file containing the value. It has no flag.
    pub is_secret: bool,
    /// Whether the setting may be a systemd credential under its own name. A credential is the
    /// value of a secret setting, and the path for any other.
    pub by_credential: bool,
    /// An additional environment variable, which ranks below this program's own variable and above
    /// the file.
    pub variable: Option<&'static str>,
    /// A one-line description.
    pub doc: &'static str,
}

/// The default of a setting.
#[derive(Clone, Copy, Debug)]
pub enum Preset {
    /// A value, as written in the file.
    Is(&'static str),
    /// No value, with a description of the effect.
    Unset(&'static str),
}

impl Setting {
    /// Returns the section (empty for the top level) and the key in it.
    pub fn place(&self) -> (&'static str, &'static str) {
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

    const fn new(name: &'static str, kind: Kind, preset: Preset, doc: &'static str) -> Self {
        Setting {
            name,
            kind,
            preset,
            is_live: true,
            is_secret: false,
            by_credential: false,
            variable: None,
            doc,
        }
    }

    const fn fixed(mut self) -> Self {
        self.is_live = false;
        self
    }

    const fn secret(mut self) -> Self {
        self.is_secret = true;
        self.by_credential = true;
        self
    }

    const fn by_credential(mut self) -> Self {
        self.by_credential = true;
        self
    }

    const fn or(mut self, variable: &'static str) -> Self {
        self.variable = Some(variable);
        self
    }
}

/// Finds a setting by name. The flag is true if the name is that of the `_file` form.
pub fn find(name: &str) -> Option<(&'static Setting, bool)> {
    let named = |name: &str| SETTINGS.iter().find(|setting| setting.name == name);
    let of_file = || name.strip_suffix(FILE).and_then(named);
    named(name)
        .map(|setting| (setting, false))
        .or_else(|| Some((of_file().filter(|setting| setting.is_secret)?, true)))
}

/// Returns the error text for an unknown name.
pub fn unknown(name: &str) -> String {
    let key = name.rsplit('.').next().unwrap_or(name);
    // Prefer the same key in another section to a similar key.
    let elsewhere = SETTINGS.iter().find(|setting| setting.place().1 == key);
    let near = match elsewhere {
        Some(setting) => Some(setting.name.to_owned()),
        None => nearest(name, all_names()),
    };
    match near {
        Some(near) => format!("there is no setting {name}; did you mean {near}?"),
        None => format!("there is no setting {name}"),
    }
}

/// Returns all accepted names, including the `_file` forms.
pub fn all_names() -> impl Iterator<Item = String> {
    let forms = |setting: &Setting| [Some(setting.name.to_owned()), setting.file_form()];
    SETTINGS.iter().flat_map(forms).flatten()
}

/// Returns the environment variable for a name.
pub fn variable(name: &str) -> String {
    format!("{PREFIX}{}", name.to_uppercase().replace('.', "__"))
}

/// The prefix of this program's environment variables.
pub const PREFIX: &str = "H_REALTIME_";
/// The suffix of the name that gives a file instead of the value.
const FILE: &str = "_file";

/// The sections in order, with their descriptions.
pub static SECTIONS: &[(&str, &str)] = &[
    ("", ""),
    (
        "socket",
        "files of unix sockets; systemd's have those of their units",
    ),
    ("h", "what h's own servers have in their environment"),
    ("amqp", "RabbitMQ, for h and for events = \"amqp\""),
    ("tls", "for wss://"),
    ("auth", ""),
    ("compression", ""),
    ("limits", ""),
    ("timeouts", ""),
    ("log", ""),
];

use self::Preset::{Is, Unset};

const ANY_TIME: Kind = Kind::Time { least: 0 };
/// A shorter time can only be a mistake, and would prevent anything from completing.
const TIME: Kind = Kind::Time { least: 100 };
const ANY_SIZE: Kind = Kind::Size { least: 0 };
const SIZE: Kind = Kind::Size { least: 1 };

const fn set(name: &'static str, kind: Kind, preset: &'static str, doc: &'static str) -> Setting {
    Setting::new(name, kind, Is(preset), doc)
}

const fn unset(name: &'static str, kind: Kind, preset: &'static str, doc: &'static str) -> Setting {
    Setting::new(name, kind, Unset(preset), doc)
}

/// All settings, grouped by section.
#[rustfmt::skip]
pub static SETTINGS: &[Setting] = &[
    set("listen", Kind::Places, r#"["ws://127.0.0.1:5001"]"#,
        "ws://HOST:PORT, wss://HOST:PORT, unix:/path/to.sock").fixed(),
    set("proxy_protocol", Kind::AnyPlaces, "[]",
        "those of listen that only trusted_proxies connect to, with PROXY headers").fixed(),
    set("reuse_port", Kind::Flag, "false",
        "let other servers share the TCP ports and the data directory").fixed(),
    set("admin", Kind::Place, r#""127.0.0.1:5002""#,
        "HOST:PORT or unix:/path/to.sock; keep it private").fixed(),
    set("admin_hosts", Kind::Names, "[]",
        "other values of Host for the admin address, as of a proxy").fixed(),
    set("admin_public", Kind::Flag, "false",
        "let the admin address be one that strangers may reach").fixed(),
    unset("metrics_key", Kind::Text, "the publish key alone",
        "a Bearer key for all of /metrics").fixed().secret(),
    set("origins", Kind::Origins, "[]",
        "pages that may connect, like \"https://example.org\"; none is all"),
    set("data", Kind::Path, r#""./h-realtime-data""#,
        "where database and publish key are").fixed(),
    set("backend", Kind::OneOf(&["embedded", "h"]), r#""embedded""#,
        "or \"h\": h's database and message queue (feature h)").fixed(),
    set("events", Kind::OneOf(&["http", "amqp"]), r#""http""#,
        "or \"amqp\": events come from RabbitMQ as well (feature amqp)").fixed(),

    set("socket.mode", Kind::Mode, r#""0666""#,
        "permissions of those of listen; clients and proxies need to write").fixed(),
    unset("socket.user", Kind::Text, "the server's user",
        "their owner, by name or number").fixed(),
    unset("socket.group", Kind::Text, "the server's group",
        "their group, by name or number").fixed(),
    set("socket.admin_mode", Kind::Mode, r#""0600""#,
        "permissions of that of admin; 0660 lets its group publish and monitor").fixed(),
    unset("socket.admin_user", Kind::Text, "the server's user",
        "its owner, by name or number").fixed(),
    unset("socket.admin_group", Kind::Text, "the server's group",
        "its group, by name or number").fixed(),

    unset("h.database_url", Kind::Text, "there has to be one for h",
        "PostgreSQL, with its password").fixed().secret().or("DATABASE_URL"),
    set("h.authority", Kind::Text, r#""localhost""#,
        "the authority of the users").fixed().or("AUTHORITY"),
    set("h.app_url", Kind::Text, r#""http://localhost:5000""#,
        "where h's pages are, the base of links").fixed().or("APP_URL"),
    unset("h.bouncer_url", Kind::Text, "no such links",
        "the base of links to annotations in context").fixed().or("BOUNCER_URL"),

    set("amqp.url", Kind::Text, r#""amqp://guest:guest@localhost:5672//""#,
        "several, separated by ;, are tried in turn").fixed().secret().or("BROKER_URL"),

    unset("tls.cert", Kind::Path, "there has to be one for wss://",
        "a PEM file with the chain").by_credential(),
    unset("tls.key", Kind::Path, "there has to be one for wss://",
        "a PEM file with the private key").by_credential(),

    set("auth.invalid_token", Kind::OneOf(&["anonymous", "reject"]), r#""anonymous""#,
        "or \"reject\": answer an unknown or expired token with 401"),
    set("auth.on_expiry", Kind::OneOf(&["close", "keep"]), r#""close""#,
        "or \"keep\": leave those connected whose token has ended"),
    unset("auth.expiry_spread", ANY_TIME, "30s for h, else 0s",
        "spreads the closes of those whose tokens end together"),
    set("auth.sweep", TIME, r#""60s""#,
        "how often h's database is asked whether tokens are still good"),

    set("compression.enabled", Kind::Flag, "true",
        "permessage-deflate, with clients that offer it"),

    unset("limits.connections", Kind::Number { least: 1, most: u64::MAX },
        "the limit on open files, less 64 to 304", "connections at once"),
    unset("limits.connections_per_ip", Kind::Number { least: 1, most: u32::MAX as u64 },
        "none", "never for loopback and unix sockets"),
    set("limits.ipv6_prefix", Kind::Number { least: 1, most: 128 }, "64",
        "connections_per_ip counts IPv6 addresses that share so many bits as one"),
    set("limits.trusted_proxies", Kind::Proxies, "[]",
        "whose word on clients' addresses counts: \"10.0.0.0/8\", \"::1\", \"unix\""),
    set("limits.forwarded_by", Kind::OneOf(&["x-forwarded-for", "forwarded", "nothing"]),
        r#""x-forwarded-for""#, "or \"forwarded\" (RFC 7239) or \"nothing\": where they give it"),
    set("limits.request_head", Kind::Size { least: 512 }, r#""16KiB""#, "the longest head of a request"),
    set("limits.message", SIZE, r#""64KiB""#, "what a client may send"),
    set("limits.fragments", Kind::Number { least: 1, most: u32::MAX as u64 }, "1024",
        "of one message"),
    set("limits.filter_terms", Kind::Number { least: 0, most: u32::MAX as u64 }, "200",
        "values in one client's filter, repeated ones too"),
    set("limits.filters_total", ANY_SIZE, r#""64MiB""#,
        "what filters of all may take; 16 values each beyond it"),
    set("limits.queue_soft", ANY_SIZE, r#""64KiB""#,
        "output queued for one client for timeouts.slow"),
    set("limits.queue_hard", ANY_SIZE, r#""256KiB""#,
        "the same of a client that does not keep pace"),
    set("limits.queue_total", ANY_SIZE, r#""64MiB""#, "memory for the output of all clients"),
    set("limits.unfinished_total", ANY_SIZE, r#""64MiB""#,
        "memory for incomplete input of all clients"),
    set("limits.event", Kind::Size { least: 1024 }, r#""4MiB""#,
        "an event from RabbitMQ").fixed(),
    set("limits.backlog_events", Kind::Number { least: 1, most: 60_000 }, "4096",
        "events that wait while h's database is away; then the oldest is dropped").fixed(),
    set("limits.backlog_total", SIZE, r#""16MiB""#, "the bytes of these events").fixed(),

    set("timeouts.handshake", TIME, r#""10s""#,
        "from accept to the end of the request head, TLS included"),
    set("timeouts.body", TIME, r#""10s""#, "from the end of the head to that of the body"),
    set("timeouts.message", TIME, r#""10s""#, "from a message's first byte to its last"),
    set("timeouts.auth", TIME, r#""10s""#, "for the back end to say whose a token is"),
    set("timeouts.publish", TIME, r#""30s""#,
        "for the back end to read published events; then none of them is delivered"),
    set("timeouts.close", TIME, r#""5s""#, "from our close frame to the end"),
    set("timeouts.linger", ANY_TIME, r#""2s""#, "for which is read what a peer still sends"),
    set("timeouts.ping", TIME, r#""30s""#, "silence after which a client is sent a ping"),
    set("timeouts.pong", TIME, r#""20s""#, "then it is cut if it stays silent"),
    set("timeouts.slow", ANY_TIME, r#""10s""#, "how long more than queue_soft may wait"),
    set("timeouts.drain", ANY_TIME, r#""10s""#, "over how long a shutdown spreads its closes"),

    set("log.level", Kind::OneOf(&["error", "warn", "info", "debug", "trace"]), r#""info""#,
        "error, warn, info, debug or trace").or(RUST_LOG),
    set("log.format", Kind::OneOf(&["auto", "text", "journal", "json"]), r#""auto""#,
        "text, journal or json; auto is journal under systemd, else text"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_sorted_and_defaults_are_valid() {
        let mut sections = SECTIONS.iter().map(|(section, _)| *section).peekable();
        for setting in SETTINGS {
            let (section, key) = setting.place();
            while sections.peek().is_some_and(|next| *next != section) {
                sections.next();
            }
            assert!(
                sections.peek().is_some(),
                "{} is out of order",
                setting.name
            );
            assert!(!key.contains('.') && !setting.doc.is_empty());
            if let Is(text) = setting.preset {
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
            let said = unknown(wrong);
            match right {
                Some(right) => assert!(said.ends_with(&format!("mean {right}?")), "{said}"),
                None => assert_eq!(said, format!("there is no setting {wrong}")),
            }
        }
        assert_eq!(
            variable("limits.connections_per_ip"),
            "H_REALTIME_LIMITS__CONNECTIONS_PER_IP"
        );
    }
}
