//! SIGHUP: a running server applies another configuration and another certificate, or nothing at
//! all; no connection is closed.

use std::fs;

use h_realtime::model::Secret;
use h_realtime::model::unix_now;
use h_realtime_engine::ws::OpCode;
use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, prlimit};

use crate::support::{Client, PATIENCE, Received, Server, connect, eventually};

/// Signals the server, waits until it logs the result, and returns that line.
fn signal(server: &Server) -> String {
    let told = |log: &str| -> Vec<String> {
        let is_result = |line: &str| line.contains("reloaded") || line.contains("reload failed");
        let lines = log.lines().filter(|line| is_result(line));
        lines.map(str::to_owned).collect()
    };
    let before = told(&server.log()).len();
    server.signal(Signal::HUP);
    eventually(PATIENCE, || told(&server.log()).into_iter().nth(before))
}

/// Writes a configuration and reloads it.
fn reload(server: &Server, config: &str) -> String {
    fs::write(server.folder().join("config.toml"), config).unwrap();
    signal(server)
}

/// Returns the status that a page of this origin receives.
fn status(server: &Server, origin: &str) -> String {
    let fields = format!("Origin: {origin}\r\n");
    let client = Client::try_open(server.address(), "/ws", &fields);
    client.head.get(9..12).unwrap_or_default().to_owned()
}

fn reloads(server: &Server, result: &str) -> f64 {
    server.metric(&format!("h_realtime_reloads_total{{result=\"{result}\"}}"))
}

#[test]
fn limits_and_origins_change_without_closing_connections() {
    let server = Server::configured("");
    let (mut first, mut second) = (server.anonymous(), server.anonymous());
    first.subscribe("/uri", "https://example.org/");
    assert_eq!(status(&server, "https://other.example"), "101");

    let output = reload(
        &server,
        "origins = [\"https://a.example\"]\n[limits]\nmessage = \"1KiB\"\nfilter_terms = 1",
    );
    assert!(
        output.ends_with(
            "configuration reloaded: changed origins, limits.message, limits.filter_terms"
        ),
        "{output}"
    );
    assert_eq!(status(&server, "https://other.example"), "403");
    assert_eq!(status(&server, "https://a.example"), "101");
    // The new limits apply to existing connections.
    let filter = r#"{"filter": {"match_policy": "include_any", "actions": {}, "clauses": [
        {"field": "/uri", "operator": "one_of", "value": ["https://b.example/", "https://c.example/"]}]}, "id": 1}"#;
    first.send(filter);
    assert_eq!(first.drain().len(), 1, "the filter is refused");
    second.send_frame(true, OpCode::Text, &[b' '; 2000]);
    assert!(matches!(second.receive(), Received::Close(Some((1009, _)))));
    assert_eq!(first.drain(), []);
    assert_eq!(
        server.metric("h_realtime_disconnects_total{reason=\"server\"}"),
        0.0
    );

    let output = reload(&server, "");
    assert!(
        output.ends_with("changed origins, limits.message, limits.filter_terms"),
        "{output}"
    );
    assert_eq!(status(&server, "https://other.example"), "101");
    first.send(filter);
    assert_eq!(first.drain(), [], "the filter is accepted");
    let output = signal(&server);
    assert!(output.ends_with("no changes"), "{output}");
    assert_eq!(
        (reloads(&server, "ok"), reloads(&server, "error")),
        (3.0, 0.0)
    );
}

#[test]
fn reload_that_no_longer_keeps_ended_credentials_closes_their_connections() {
    let config = |on_expiry: &str| format!("[auth]\non_expiry = \"{on_expiry}\"\n");
    let server = Server::configured(&config("keep"));
    let (me, store) = ("acct:me@example.org", server.store());
    store.add_user(me, None, 0).unwrap();
    let add = |secret: &str, expires: Option<u64>| {
        let secret = Secret(secret.to_owned());
        store.add_token(me, &secret, 0, expires).unwrap()
    };
    add("short", Some(unix_now() + 1000));
    let token = add("revoked", None);
    add("long", Some(unix_now() + 3_600_000));
    let [mut expired, mut ended, mut stays] =
        ["short", "revoked", "long"].map(|token| server.logged_in(token));
    store.revoke_token(token).unwrap();
    // New connections with these tokens are anonymous, so the server has processed the change.
    let whoami = |client: &mut Client| client.ask(r#"{"type": "whoami", "id": 1}"#);
    for token in ["short", "revoked"] {
        eventually(PATIENCE, || {
            let answer = whoami(&mut server.logged_in(token));
            answer.contains("null").then_some(())
        });
    }
    for client in [&mut expired, &mut ended, &mut stays] {
        assert!(whoami(client).contains(me));
    }
    reload(&server, &config("close"));
    let close = |reason: &str| Received::Close(Some((3000, reason.to_owned())));
    assert_eq!(expired.receive(), close("token expired"));
    assert_eq!(ended.receive(), close("token revoked"));
    assert!(whoami(&mut stays).contains(me));
    assert_eq!(server.metric("h_realtime_credentials_ended_total"), 2.0);
}

/// The error of a build without h's backend.
const NO_H: &str = match cfg!(feature = "h") {
    true => "DATABASE_URL",
    false => "this build does not include h's backend",
};

// CVE-2017-7652
#[test]
fn failed_reload_changes_nothing() {
    let good = "origins = [\"https://a.example\"]";
    let server = Server::configured(good);
    let mut client = server.anonymous();
    let bad = [
        (
            "origins = []\nlisen = 5",
            "line 2: unknown setting lisen; did you mean listen?",
        ),
        ("origins = []\n[limits]\nmessage = \"much\"", "line 3"),
        ("origins = []\n[limits", "line 2"),
        ("origins = []\nadmin_hosts = 5", "admin_hosts"),
        // Valid for the running server, but not for the next start.
        ("origins = []\nbackend = \"h\"", NO_H),
        (
            "origins = []\n[tls]\ncert = \"/nowhere\"\nkey = \"/nowhere\"",
            "/nowhere",
        ),
        (
            "origins = []\n[tls]\ncert = \"/nowhere\"",
            "must be set together",
        ),
    ];
    for (number, (text, part)) in bad.iter().enumerate() {
        let output = reload(&server, text);
        assert!(
            output.contains("reload failed, keeping the configuration in effect: "),
            "{output}"
        );
        assert!(output.contains(part), "{output}");
        assert_eq!(status(&server, "https://other.example"), "403", "{text}");
        assert_eq!(reloads(&server, "error"), (number + 1) as f64);
    }
    // A missing file must not reset the settings to their defaults.
    fs::remove_file(server.folder().join("config.toml")).unwrap();
    let output = signal(&server);
    assert!(output.contains("config.toml"), "{output}");
    assert_eq!(status(&server, "https://other.example"), "403");
    assert_eq!(client.drain(), []);
    assert!(reload(&server, good).ends_with("no changes"));
}

// CVE-2017-7652
#[test]
fn reload_without_descriptors_changes_nothing() {
    let server = Server::configured("origins = [\"https://a.example\"]");
    let config = server.folder().join("config.toml");
    fs::write(config, "").unwrap();
    let pid = Some(Pid::from_child(&server.child));
    let none = Rlimit {
        current: Some(0),
        ..getrlimit(Resource::Nofile)
    };
    let before = prlimit(pid, Resource::Nofile, none).unwrap();
    let output = signal(&server);
    assert!(
        output.contains("reload failed") && output.contains("Too many open files"),
        "{output}"
    );
    prlimit(pid, Resource::Nofile, before).unwrap();
    assert_eq!(status(&server, "https://other.example"), "403");
    assert!(signal(&server).ends_with("configuration reloaded: changed origins"));
    assert_eq!(status(&server, "https://other.example"), "101");
}

#[test]
fn settings_that_need_a_restart_are_named_until_then() {
    let server = Server::configured("");
    for _ in 0..2 {
        let text = "reuse_port = true\nadmin_hosts = [\"a\"]\n[timeouts]\nping = \"1m\"";
        reload(&server, text);
        let named = "take effect after a restart: reuse_port, admin_hosts";
        let log = eventually(PATIENCE, || {
            Some(server.log()).filter(|log| log.contains(named))
        });
        assert!(!log.contains("changed: reuse_port"), "{log}");
    }
    let warned = |log: &str| log.matches("after a restart: ").count();
    eventually(PATIENCE, || (warned(&server.log()) == 2).then_some(()));
    reload(&server, "");
    assert_eq!(warned(&server.log()), 2);
}

#[test]
fn settings_that_need_a_restart_are_not_called_unchanged() {
    let server = Server::configured("");
    let output = reload(&server, "reuse_port = true");
    assert!(
        output.ends_with("no changes in effect; restart to apply reuse_port"),
        "{output}"
    );
    assert!(reload(&server, "").ends_with("no changes"));
}

#[test]
fn log_level_changes() {
    let server = Server::configured("");
    let nonsense = || {
        let mut client = Client::raw(connect(server.address()));
        client.send_raw(b"nonsense\r\n\r\n");
        assert_eq!(
            client.answer(false).map(|answer| answer.status()),
            Some(400)
        );
    };
    let told = || server.log().matches("refused: Malformed").count();
    nonsense();
    reload(&server, "[log]\nlevel = \"debug\"");
    assert_eq!(told(), 0, "{}", server.log());
    nonsense();
    eventually(PATIENCE, || (told() == 1).then_some(()));
    reload(&server, "");
    nonsense();
    // This result is logged after any line about the malformed request.
    signal(&server);
    assert_eq!(told(), 1, "{}", server.log());
}

#[test]
fn many_signals_cause_no_error() {
    let server = Server::configured("");
    let mut client = server.anonymous();
    for number in 0..50 {
        let text = format!("[limits]\nmessage = \"{}KiB\"", 1 + number % 2);
        fs::write(server.folder().join("config.toml"), text).unwrap();
        server.signal(Signal::HUP);
    }
    // The last signal is not lost, whatever happened to earlier ones.
    eventually(PATIENCE, || {
        let mut client = server.anonymous();
        client.send_frame(true, OpCode::Text, &[b' '; 1500]);
        let is_small = matches!(client.receive(), Received::Close(Some((1009, _))));
        (!is_small).then_some(())
    });
    assert_eq!(client.drain(), []);
}

#[test]
fn shorter_ping_interval_reaches_idle_connections() {
    let server = Server::configured("[timeouts]\nping = \"5m\"\npong = \"5m\"\n");
    let mut answering: Vec<_> = (0..20).map(|_| server.anonymous()).collect();
    let silent: Vec<_> = (0..5).map(|_| server.anonymous()).collect();
    let output = reload(&server, "[timeouts]\nping = \"1s\"\npong = \"1s\"\n");
    assert!(output.ends_with("timeouts.ping, timeouts.pong"), "{output}");
    for client in &mut answering {
        assert_eq!(client.receive(), Received::Ping(Vec::new()));
        client.send_frame(true, OpCode::Pong, b"");
    }
    let timeouts = || server.metric("h_realtime_disconnects_total{reason=\"timeout\"}");
    eventually(PATIENCE, || (timeouts() >= 5.0).then_some(()));
    drop(silent);
}

#[cfg(feature = "tls")]
mod certificates {
    use std::sync::Arc;

    use crate::support::TlsServer;
    use rustls::version::TLS13;
    use rustls::{ClientConfig, ClientConnection};

    use super::*;

    /// Replaces the certificate, as an ACME client does, and returns a configuration that trusts
    /// only the new one.
    fn renew(tls: &TlsServer) -> Arc<ClientConfig> {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        for (name, text) in [
            ("cert.pem", made.cert.pem()),
            ("key.pem", made.signing_key.serialize_pem()),
        ] {
            let path = tls.server.folder().join(name);
            fs::write(path.with_extension("new"), text).unwrap();
            fs::rename(path.with_extension("new"), path).unwrap();
        }
        tls.config(&TLS13)
    }

    /// Returns whether a client with this configuration connects.
    fn is_trusted(tls: &TlsServer, config: &Arc<ClientConfig>) -> bool {
        let name = "localhost".try_into().unwrap();
        let mut session = ClientConnection::new(Arc::clone(config), name).unwrap();
        let mut stream = tls.tcp();
        while session.is_handshaking() {
            if session.complete_io(&mut stream).is_err() {
                return false;
            }
        }
        true
    }

    #[test]
    fn new_certificate_is_used_after_sighup_without_closing_connections() {
        let tls = TlsServer::start();
        let old = tls.config(&TLS13);
        let mut client = tls.connect(&old, "");
        assert!(client.ask(r#"{"type":"ping","id":1}"#).contains("pong"));
        let new = renew(&tls);
        assert!(signal(&tls.server).contains("] configuration reloaded"));
        assert!(is_trusted(&tls, &new) && !is_trusted(&tls, &old));
        assert!(client.ask(r#"{"type":"ping","id":2}"#).contains("pong"));
        let mut next = tls.connect(&new, "");
        assert_eq!(next.drain(), []);
    }

    // D9
    #[test]
    fn expired_certificate_does_not_replace_a_valid_one() {
        let tls = TlsServer::start();
        let in_use = tls.config(&TLS13);
        let mut params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        params.not_after = rcgen::date_time_ymd(2021, 1, 1);
        let key = rcgen::KeyPair::generate().unwrap();
        let folder = tls.server.folder();
        fs::write(
            folder.join("cert.pem"),
            params.self_signed(&key).unwrap().pem(),
        )
        .unwrap();
        fs::write(folder.join("key.pem"), key.serialize_pem()).unwrap();
        let why = "expired at 2021-01-01T00:00:00Z: clients reject it; renew it; the \
                   certificate in use is valid until 4096-01-01T00:00:00Z";
        let kept = format!(
            "keeping the certificate in use: certificate of CN=rcgen self \
                            signed cert {why}"
        );
        tls.server.log_with(&kept);
        assert!(is_trusted(&tls, &in_use));
        let output = signal(&tls.server);
        assert!(
            output.contains("keeping the configuration in effect"),
            "{output}"
        );
        assert!(output.contains(why), "{output}");
        assert!(is_trusted(&tls, &in_use));
        assert_eq!(reloads(&tls.server, "error"), 2.0);
        // A valid one is accepted.
        let new = renew(&tls);
        assert!(signal(&tls.server).contains("] configuration reloaded"));
        assert!(is_trusted(&tls, &new) && !is_trusted(&tls, &in_use));
    }

    #[test]
    fn changed_certificate_is_detected_and_an_invalid_one_ignored() {
        let tls = TlsServer::start();
        let old = tls.config(&TLS13);
        let mut client = tls.connect(&old, "");
        let new = renew(&tls);
        let line = "certificate files changed: now using the new certificate";
        eventually(PATIENCE, || tls.server.log().contains(line).then_some(()));
        assert!(is_trusted(&tls, &new) && !is_trusted(&tls, &old));

        fs::write(tls.server.folder().join("key.pem"), "no key").unwrap();
        let line = "keeping the certificate in use: ";
        eventually(PATIENCE, || tls.server.log().contains(line).then_some(()));
        assert!(is_trusted(&tls, &new));
        let output = signal(&tls.server);
        assert!(
            output.contains("key.pem: there is no private key"),
            "{output}"
        );
        assert!(is_trusted(&tls, &new));
        assert!(client.ask(r#"{"type":"ping","id":1}"#).contains("pong"));
        assert_eq!(
            (reloads(&tls.server, "ok"), reloads(&tls.server, "error")),
            (1.0, 2.0)
        );
    }
}
