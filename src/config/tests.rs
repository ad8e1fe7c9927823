//! Tests of accepted and rejected configuration files.

use std::path::Path;

use std::time::Duration;

use super::values::Layer;
use super::*;
use crate::model::InvalidToken;
use crate::net::{Address, Config};

fn read(text: &str) -> Result<Values, String> {
    let (mut layer, mut errors) = (Layer::default(), Vec::new());
    file::read(Path::new("file"), text, &mut layer, &mut errors);
    let mut values = Values::default();
    values.add(layer);
    match errors.is_empty() {
        true => Ok(values),
        false => Err(errors.join("\n")),
    }
}

/// Returns the values of a valid file.
pub(super) fn values(text: &str) -> Values {
    read(text).unwrap()
}

fn resolve(text: &str) -> Result<ServerSettings, String> {
    resolve_values(&read(text)?)
}

fn resolve_values(values: &Values) -> Result<ServerSettings, String> {
    let (settings, conflicts) = values.resolve(Features::ALL).map_err(|error| error.0)?;
    match conflicts.is_empty() {
        true => Ok(settings),
        false => Err(conflicts.join("\n")),
    }
}

#[test]
fn empty_configuration_yields_the_defaults() {
    let settings = resolve("").unwrap();
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
    // The table's defaults are the engine's.
    let engine = format!("{:?}", settings.engine);
    assert_eq!(engine, format!("{:?}", Config::default()));
}

#[test]
fn printed_defaults_are_a_file_that_changes_nothing() {
    let shown = values(&defaults());
    assert_eq!(shown.differing(&Values::default()).count(), 0);
    assert!(resolve_values(&shown).is_ok());
    let lines = defaults();
    let longest = lines.lines().map(|line| line.chars().count()).max();
    assert!(longest < Some(121), "{longest:?}");
    // The output of `effective` can be read back in the same way.
    let set = values("origins = [\"https://a.example\"]\n[limits]\nconnections = 7");
    assert_eq!(values(&effective(&set)).differing(&set).count(), 0);
}

/// A value other than the default for every setting.
const OTHERS: &[(&str, &str)] = &[
    ("listen", r#"["unix:/a"]"#),
    (
        "proxy_protocol",
        "[\"ws://127.0.0.1:5001\"]\nlimits.trusted_proxies = [\"unix\"]",
    ),
    ("reuse_port", "true"),
    ("admin", r#""127.0.0.1:1""#),
    ("admin_hosts", r#"["a"]"#),
    ("admin_public", "true"),
    ("metrics_key", r#""0123456789abcdef""#),
    ("origins", r#"["https://a.example"]"#),
    ("data", r#""/a""#),
    ("backend", r#""embedded""#),
    ("events", r#""amqp""#),
    ("socket.mode", r#""0660""#),
    ("socket.user", r#""root""#),
    ("socket.group", r#""root""#),
    ("socket.admin_mode", r#""0660""#),
    ("socket.admin_user", r#""0""#),
    ("socket.admin_group", r#""0""#),
    ("h.database_url", r#""postgresql://other/h""#),
    ("h.authority", r#""a.example""#),
    ("h.app_url", r#""https://a.example""#),
    ("h.bouncer_url", r#""https://b.example""#),
    ("amqp.url", r#""amqp://a//""#),
    ("tls.cert", r#""a""#),
    ("tls.key", r#""a""#),
    ("auth.invalid_token", r#""reject""#),
    ("auth.on_expiry", r#""keep""#),
    ("auth.expiry_spread", r#""7s""#),
    ("auth.sweep", r#""7s""#),
    ("compression.enabled", "false"),
    ("history.memory", r#""7MiB""#),
    ("history.window", r#""7h""#),
    ("history.clients", "7"),
    ("history.disk", r#""7MiB""#),
    ("history.durability", r#""full""#),
    ("limits.connections", "7"),
    ("limits.connections_per_ip", "7"),
    ("limits.ipv6_prefix", "56"),
    ("limits.trusted_proxies", r#"["192.0.2.0/24"]"#),
    ("limits.forwarded_by", r#""forwarded""#),
    ("limits.request_head", r#""7KiB""#),
    ("limits.message", r#""7KiB""#),
    ("limits.fragments", "7"),
    ("limits.filter_terms", "7"),
    ("limits.filters_total", r#""7MiB""#),
    ("limits.queue_soft", r#""7KiB""#),
    ("limits.queue_hard", r#""70KiB""#),
    ("limits.queue_total", r#""7MiB""#),
    ("limits.unfinished_total", r#""7MiB""#),
    ("limits.event", r#""7MiB""#),
    ("limits.backlog_events", "7"),
    ("limits.backlog_total", r#""7MiB""#),
    ("timeouts.handshake", r#""7s""#),
    ("timeouts.body", r#""7s""#),
    ("timeouts.message", r#""7s""#),
    ("timeouts.auth", r#""7s""#),
    ("timeouts.publish", r#""7s""#),
    ("timeouts.close", r#""7s""#),
    ("timeouts.linger", r#""7s""#),
    ("timeouts.ping", r#""7s""#),
    ("timeouts.pong", r#""7s""#),
    ("timeouts.slow", r#""7s""#),
    ("timeouts.drain", r#""7s""#),
    ("log.level", r#""debug""#),
    ("log.format", r#""json""#),
];

#[test]
fn every_setting_has_an_effect() {
    let base = "[tls]\ncert = \"c\"\nkey = \"k\"\n[h]\ndatabase_url = \"postgresql://db/h\"\n";
    // Returns the effective settings, including secrets. One setting at a time is in a file of its
    // own.
    let in_force = |setting: &str, text: &str| {
        let (mut layer, mut errors) = (Layer::default(), Vec::new());
        file::read(Path::new("one"), text, &mut layer, &mut errors);
        let mut values = Values::default();
        values.add(layer);
        // Only h's backend uses these.
        let is_of_h = ["h.", "amqp.", "auth.sweep"]
            .iter()
            .any(|part| setting.starts_with(part));
        let backend = if is_of_h { "backend = \"h\"\n" } else { "" };
        let mut layer = Layer::default();
        file::read(
            Path::new("base"),
            &format!("{backend}{base}"),
            &mut layer,
            &mut errors,
        );
        values.add(layer);
        assert_eq!(errors, [""; 0]);
        let settings = resolve_values(&values).unwrap();
        let secrets = match &settings.backend {
            BackendSettings::H(h) => format!("{} {:?}", h.database_url, h.broker.urls),
            BackendSettings::Embedded(_) => String::new(),
        };
        let metrics_key = settings.metrics_key.as_ref().map(|key| &key.0);
        format!("{settings:?} {secrets} {metrics_key:?}")
    };
    for setting in SETTINGS {
        let other = OTHERS.iter().find(|(name, _)| *name == setting.name);
        let (name, value) = other.unwrap_or_else(|| panic!("{} is new", setting.name));
        if *name == "backend" {
            continue; // Selects the backend, and so affects every comparison.
        }
        let changed = in_force(name, &format!("{name} = {value}"));
        assert_ne!(
            changed,
            in_force(name, ""),
            "{name} = {value} changes nothing"
        );
    }
}

#[test]
fn restart_only_settings_keep_their_values_on_reload() {
    let running = values("listen = [\"unix:/a\"]\n[limits]\nmessage = \"1KiB\"");
    let new = values("admin = \"127.0.0.1:9\"\n[limits]\nmessage = \"2KiB\"");
    let names = |values: &Values| -> Vec<_> {
        values
            .differing(&running)
            .map(|setting| setting.name)
            .collect()
    };
    assert_eq!(names(&new), ["listen", "admin", "limits.message"]);
    assert_eq!(
        names(&new.with_restart_only_of(&running)),
        ["limits.message"]
    );
}

#[test]
fn secrets_are_not_shown() {
    let shown = effective(&values(
        "[h]\ndatabase_url = \"postgresql://u:hunter2@db/h\"\n[amqp]\nurl = \"amqp://u:hunter2@mq//\"",
    ));
    assert!(!shown.contains("hunter2"), "{shown}");
    assert!(shown.contains("h.database_url = \"***\""), "{shown}");
    assert!(shown.contains("# file, line 2"), "{shown}");
}

// GO-2026-4703
#[test]
fn public_admin_address_requires_confirmation() {
    let open = "admin = \"0.0.0.0:5002\"\n";
    let error = resolve(open).unwrap_err();
    assert!(error.contains("admin_public"), "{error}");
    let settings = resolve(&format!("{open}admin_public = true")).unwrap();
    assert!(InsecureSetting::AdminPublic.applies_to(&settings));
    let settings = resolve("admin = \"10.0.0.1:5002\"\nadmin_public = true").unwrap();
    assert!(!InsecureSetting::AdminPublic.applies_to(&settings));
    assert!(resolve("admin = \"unix:/run/admin.sock\"").is_ok());
    let settings = resolve("[auth]\non_expiry = \"keep\"").unwrap();
    assert!(InsecureSetting::OnExpiryKeep.applies_to(&settings));
    assert_eq!(warnings(&settings, &Values::default()).len(), 1);
}

#[test]
fn valid_values_are_resolved() {
    let settings = resolve(
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
        trusted_proxies = ["192.0.2.1", "10.0.0.0/8", "2001:db8::/32", "unix"]
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
fn invalid_values_are_reported() {
    for (text, part) in [
        (
            "lisen = []",
            "line 1: unknown setting lisen; did you mean listen?",
        ),
        ("[limits]\nmessage = 5", "line 2"),
        ("[limits]\nmessage = \"5 bananas\"", "limits.message"),
        ("[timeouts]\nping = \"soon\"", "timeouts.ping"),
        ("[compression]\nenabled = 6", "line 2"),
        (
            "[auth]\ninvalid_token = \"ignore\"",
            "line 2: auth.invalid_token: \"ignore\" is not one of",
        ),
        ("listen = [\"http://127.0.0.1:1\"]", "listen"),
        ("listen = [\"wss://127.0.0.1:1\"]", "tls.cert"),
        ("listen = [\"ws://example.org:80\"]", "listen"),
        ("listen = [\"unix:\"]", "listen"),
        (
            "[socket]\nmode = \"rw\"",
            "line 2: socket.mode: \"rw\" is not a valid mode",
        ),
        ("[socket]\nadmin_mode = 660", "line 2: socket.admin_mode"),
        ("admin = \"5002\"", "admin"),
        ("[tls]\ncert = \"a\"", "must be set together"),
        (
            "metrics_key = \"short\"",
            "line 1: metrics_key must have at least 16",
        ),
        (
            "metrics_key = \"\"",
            "line 1: metrics_key must have at least 16",
        ),
        ("[limits]\nqueue_soft = \"1MiB\"", "queue_soft"),
        ("[limits]\nconnections = 0", "limits.connections"),
        ("[limits]\nconnections_per_ip = 4294967296", "too large"),
        ("[limits]\nipv6_prefix = 0", "limits.ipv6_prefix"),
        ("[limits]\nipv6_prefix = 129", "limits.ipv6_prefix"),
        (
            "[limits]\ntrusted_proxies = [\"10.0.0.0/33\"]",
            "limits.trusted_proxies: \"10.0.0.0/33\" is neither an IP address",
        ),
        ("proxy_protocol = [\"ws://127.0.0.1:1\"]", "not in listen"),
        (
            "proxy_protocol = [\"ws://127.0.0.1:5001\"]",
            "proxy_protocol requires limits.trusted_proxies",
        ),
        ("[timeouts]\nping = \"0s\"", "it must be at least 100ms"),
        ("[timeouts]\nping = \"1ms\"", "it must be at least 100ms"),
        ("[auth]\nsweep = \"1ms\"", "it must be at least 100ms"),
        ("[limits]\nrequest_head = \"1\"", "it must be at least 512B"),
        ("[limits]\nmessage = \"0\"", "it must be at least 1B"),
        ("origins = [\"example.org\"]", "not an origin"),
        (
            "origins = [\"https://example.org/\"]",
            "remove the slash and the rest: \"https://example.org\"",
        ),
        (
            "origins = [\"http://localhost:8080/a/b\"]",
            "remove the slash and the rest: \"http://localhost:8080\"",
        ),
        ("listen = []", "listen"),
    ] {
        let error = resolve(text).unwrap_err();
        assert!(error.contains(part), "{text:?}: {error}");
    }
}
