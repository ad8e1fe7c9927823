//! `wss://` on a real server: both versions of TLS, a fragmented first flight, and input that is
//! not TLS.
#![cfg(feature = "tls")]

use std::io::{Read, Write};
use std::process::{Command, Stdio};

use rustls::StreamOwned;

use crate::support::{Client, Received, TlsServer, hello};

// T8
#[test]
fn the_api_over_both_versions_of_tls() {
    let tls = TlsServer::start();
    let token = tls.server.user("acct:me@example.org");
    for version in [&rustls::version::TLS13, &rustls::version::TLS12] {
        let config = tls.config(version);
        let mut client = tls.connect(&config, &format!("Authorization: Bearer {token}\r\n"));
        let me = client.ask(r#"{"type":"whoami","id":1}"#);
        assert!(me.contains("acct:me@example.org"), "{me}");
        client.subscribe("/uri", "https://example.org/");
        // Larger than a TLS record.
        let text = "x".repeat(100_000);
        let event = format!(
            r#"{{"topic":"annotation","action":"create","annotation":{{"id":"a","user":"acct:me@example.org","uri":"https://example.org/","text":"{text}","permissions":{{"read":["group:__world__"]}}}}}}"#
        );
        assert_eq!(tls.server.publish(&event).0, 202);
        assert_eq!(client.json()["payload"][0]["text"], text);
        client.close(1000, "bye");
        assert_eq!(
            client.receive(),
            Received::Close(Some((1000, "bye".into())))
        );
        assert_eq!(client.receive(), Received::End);
    }
}

// Together they exceed the session's buffer: encryption stops in the middle of one of the last.
#[test]
fn burst_resumes_after_a_full_tls_buffer() {
    let tls = TlsServer::start();
    let mut client = tls.connect(&tls.config(&rustls::version::TLS13), "");
    client.subscribe("/uri", "https://example.org/");
    let text = "x".repeat(4700);
    let event = |number: usize| {
        format!(
            r#"{{"topic":"annotation","action":"create","annotation":{{"id":"{number}","user":"acct:me@example.org","uri":"https://example.org/","text":"{text}","permissions":{{"read":["group:__world__"]}}}}}}"#
        )
    };
    let burst: Vec<String> = (0..14).map(event).collect();
    assert_eq!(tls.server.publish(&burst.join("\n")).0, 202);
    for number in 0..14 {
        let received = client.json();
        assert_eq!(received["payload"][0]["id"], number.to_string());
        assert_eq!(received["payload"][0]["text"], text);
    }
    assert_eq!(client.drain(), []);
}

// RUSTSEC-2024-0399
#[test]
fn client_hello_may_be_split_anywhere() {
    let tls = TlsServer::start();
    let config = tls.config(&rustls::version::TLS13);
    let mut fence = tls.plain();
    let length = hello(&config).1.len();
    for cut in 1..length {
        let (session, hello) = hello(&config);
        let mut stream = tls.tcp();
        stream.write_all(&hello[..cut.min(hello.len())]).unwrap();
        // A reply to another client shows that the server has run a turn.
        assert_eq!(fence.drain(), []);
        stream.write_all(&hello[cut.min(hello.len())..]).unwrap();
        let mut client = Client::over(StreamOwned::new(session, stream), "/ws", "");
        assert!(client.head.starts_with("HTTP/1.1 101 "), "cut at {cut}");
        let pong = client.ask(r#"{"type":"ping","id":1}"#);
        assert!(pong.contains("pong"), "cut at {cut}: {pong}");
    }
}

// T9
#[test]
fn input_other_than_tls_gets_an_alert_without_affecting_others() {
    let tls = TlsServer::start();
    let mut other = tls.connect(&tls.config(&rustls::version::TLS13), "");
    for garbage in [
        &b"GET /ws HTTP/1.1\r\nHost: localhost\r\n\r\n"[..],
        &[0xFF; 20_000],
        b"\x16\x03\x01\xFF\xFF",
    ] {
        let mut stream = tls.tcp();
        stream.write_all(garbage).unwrap();
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        // RFC 8446 §5.1: 21 is an alert. A truncated record causes none.
        assert!(answer.is_empty() || answer[0] == 21, "{answer:x?}");
        assert_eq!(other.drain(), []);
    }
    // A client that disconnects in the middle of a handshake.
    let (_, hello) = hello(&tls.config(&rustls::version::TLS13));
    tls.tcp().write_all(&hello[..50]).unwrap();
    assert_eq!(other.drain(), []);
}

#[test]
fn listen_trusts_the_given_certificate() {
    let tls = TlsServer::start();
    let url = tls.server.listeners[0].replace("127.0.0.1", "localhost");
    let listen = |extra: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_h-realtime"));
        command.args([
            "listen",
            &url,
            "--uri",
            "https://example.org/",
            "--no-reconnect",
            "--count",
            "1",
        ]);
        command
            .args(extra)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command.spawn().unwrap()
    };
    let refused = listen(&[]).wait_with_output().unwrap();
    assert_eq!(
        refused.status.code(),
        Some(69),
        "an unknown certificate must be refused"
    );

    let mut child = listen(&["--ca-cert", tls.cert.to_str().unwrap()]);
    let mut printed = std::io::BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    std::io::BufRead::read_line(&mut printed, &mut line).unwrap();
    assert!(line.contains("connected"), "{line}");
    let event = r#"{"topic":"annotation","action":"delete","annotation":{"id":"a","user":"acct:me@example.org","uri":"https://example.org/","permissions":{"read":["group:__world__"]}}}"#;
    assert_eq!(tls.server.publish(event).1["matched"], 1);
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains(r#""payload":[{"id":"a"}]"#), "{text}");
}
