//! h's back end whose servers accept connections and say nothing, or are not there at all: what
//! needs neither is served, who comes with a token is told to come back, and the end is prompt.
#![cfg(feature = "h")]

use std::net::TcpListener;
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tempfile::TempDir;

use crate::support::{Client, PROGRAM, Server, http};

/// A server of h on these ports.
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

fn serves_what_it_can(mut server: Server) {
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
    // Nothing of it has waited for a server: the shortest such wait is that for a broker.
    assert!(began.elapsed() < Duration::from_secs(10), "{log}");
    assert!(
        !log.contains("secret") && !server.banner.contains("secret"),
        "{log}"
    );
    assert!(server.banner.contains("127.0.0.1"), "{}", server.banner);
}

#[test]
fn servers_that_say_nothing_hold_nothing_up() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = silent.local_addr().unwrap().port();
    serves_what_it_can(server(port, port));
}

#[test]
fn servers_that_are_not_there_hold_nothing_up() {
    // Nobody listens on these.
    serves_what_it_can(server(1, 1));
}

#[test]
fn settings_that_cannot_be_are_said_without_what_is_secret() {
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
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(78), "{said}");
        assert!(said.contains(part) && !said.contains("secret"), "{said}");
    }
}
