//! h's backend when its servers accept connections without responding, or are unreachable:
//! requests that need neither are served, authenticated handshakes are refused with a retry, and
//! shutdown is prompt.
#![cfg(feature = "h")]

use std::net::TcpListener;
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tempfile::TempDir;

use crate::support::{Client, PROGRAM, Server, http};

/// Starts a server of h with these ports.
fn server(database: u16, broker: u16) -> Server {
    let folder = TempDir::new().unwrap();
    std::fs::write(folder.path().join("config.toml"), "").unwrap();
    let mut command = Command::new(PROGRAM);
    command
        .env(
            "DATABASE_URL",
            format!("postgresql://h:secret@127.0.0.1:{database}/h"),
        )
        .env(
            "BROKER_URL",
            format!("amqp://h:secret@127.0.0.1:{broker}//"),
        );
    let args = ["--backend", "h", "--listen", "ws://127.0.0.1:0"];
    Server::launch(command, folder, &args)
}

fn check_degraded_service(mut server: Server) {
    let with_token = "Authorization: Bearer 6879-alice-developer-token\r\n";
    let began = Instant::now();
    for _ in 0..3 {
        let answer = Client::try_open(server.address(), "/ws", with_token).head;
        assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
        assert!(answer.contains("\r\nRetry-After: "), "{answer}");
    }
    let mut client = server.anonymous();
    assert_eq!(client.drain(), []);
    assert_eq!(server.readiness(), 503);
    assert_eq!(server.post_events("", "{}").0, 404);
    let status = b"GET /_status HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    assert_eq!(http(server.address(), status).0, 200);
    drop(client);
    server.signal(Signal::TERM);
    let (log, code) = server.wait();
    assert_eq!(code, Some(0), "{log}");
    // Nothing has waited for a timeout: the shortest one is the broker's.
    assert!(began.elapsed() < Duration::from_secs(10), "{log}");
    assert!(
        !log.contains("secret") && !server.banner.contains("secret"),
        "{log}"
    );
    assert!(server.banner.contains("127.0.0.1"), "{}", server.banner);
}

#[test]
fn silent_servers_do_not_block() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = silent.local_addr().unwrap().port();
    check_degraded_service(server(port, port));
}

#[test]
fn unreachable_servers_do_not_block() {
    // Nothing listens on these ports.
    check_degraded_service(server(1, 1));
}

#[test]
fn invalid_settings_are_reported_without_secrets() {
    let good = "postgresql://h:secret@127.0.0.1:1/h";
    for (database, broker, part) in [
        (good, "redis://h:secret@127.0.0.1//", "BROKER_URL"),
        (
            good,
            "amqp://a//;amqp://h:secret@127.0.0.1:x//",
            "BROKER_URL",
        ),
        ("mysql://h:secret@127.0.0.1/h", "amqp://a//", "DATABASE_URL"),
    ] {
        let output = Command::new(PROGRAM)
            .args(["serve", "--backend", "h", "--listen", "ws://127.0.0.1:0"])
            .args(["--admin", "127.0.0.1:0"])
            .env("DATABASE_URL", database)
            .env("BROKER_URL", broker)
            .output()
            .unwrap();
        let printed = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(78), "{printed}");
        assert!(
            printed.contains(part) && !printed.contains("secret"),
            "{printed}"
        );
    }
}
