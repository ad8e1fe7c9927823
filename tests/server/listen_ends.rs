//! `listen` with servers that end, refuse, or do not implement this API, and with signals: its
//! messages and exit codes.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tungstenite::protocol::Role;
use tungstenite::{Message, WebSocket};

use crate::support::{PROGRAM, Program, Server, scripted, switching};

fn listen(url: &str, args: &[&str]) -> Program {
    let mut command = Command::new(PROGRAM);
    Program::start(command.args(["listen", url]).args(args))
}

/// Runs `listen` to its end; returns the exit code and standard error.
fn ended(url: &str, args: &[&str]) -> (Option<i32>, String) {
    let mut listener = listen(url, args);
    let code = listener.wait();
    let lines: Vec<String> = std::iter::from_fn(|| listener.error_line()).collect();
    (code, lines.join("\n"))
}

fn signal(listener: &Program, signal: Signal) {
    kill_process(Pid::from_child(&listener.child), signal).unwrap();
}

/// Completes the handshake and reads the first messages up to `whoami`.
fn accepted(mut stream: TcpStream, key: &str) -> WebSocket<TcpStream> {
    let answer = switching(key, "Upgrade", "");
    stream.write_all(answer.as_bytes()).unwrap();
    let mut socket = WebSocket::from_raw_socket(stream, Role::Server, None);
    while !socket.read().unwrap().to_string().contains("whoami") {}
    socket
}

const ANONYMOUS: &str = r#"{"type":"whoyouare","userid":null,"ok":true,"reply_to":2}"#;
const EVENT: &str = r#"{"type":"annotation-notification","payload":[]}"#;

#[test]
fn upgrade_with_a_list_of_options_that_arrives_byte_by_byte_is_accepted() {
    let (url, server) = scripted(|mut stream, key| {
        stream.set_nodelay(true).unwrap();
        for byte in switching(&key, "keep-alive, upgrade", "X-Padding: 0123456789\r\n").bytes() {
            stream.write_all(&[byte]).unwrap();
            // One segment each: every write is a separate read of the client.
            thread::sleep(Duration::from_millis(1));
        }
        let mut socket = WebSocket::from_raw_socket(stream, Role::Server, None);
        socket.send(Message::text(EVENT)).unwrap();
        while socket.read().is_ok() {}
    });
    let (code, output) = ended(&url, &["--group", "g", "--count", "1"]);
    assert_eq!(code, Some(0), "{output}");
    server.join().unwrap();
}

#[test]
fn extension_that_was_not_offered_is_refused() {
    let (url, server) = scripted(|mut stream, key| {
        let field = "Sec-WebSocket-Extensions: permessage-deflate\r\n";
        let _ = stream.write_all(switching(&key, "Upgrade", field).as_bytes());
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).unwrap();
        rest
    });
    let (code, output) = ended(&url, &["--group", "g"]);
    assert_eq!(code, Some(69), "{output}");
    assert!(
        output.contains("not offered: permessage-deflate"),
        "{output}"
    );
    assert_eq!(server.join().unwrap(), b"", "no frame is sent");
}

#[test]
fn servers_of_other_protocols_are_identified() {
    for (bytes, parts) in [
        (
            &b"\x15\x03\x03\x00\x02\x02\x46"[..],
            ["requires TLS", "use wss://"],
        ),
        (b"SSH-2.0-OpenSSH_9.2\r\n", ["not HTTP", "SSH-2.0"]),
    ] {
        let (url, server) = scripted(move |mut stream, _| {
            let _ = stream.write_all(bytes);
        });
        let (code, output) = ended(&url, &["--group", "g"]);
        assert_eq!(code, Some(69), "{output}");
        for part in parts {
            assert!(output.contains(part), "{output}");
        }
        server.join().unwrap();
    }
}

#[cfg(feature = "tls")]
#[test]
fn swapped_tls_and_plain_ports_are_identified() {
    let tls = crate::support::TlsServer::start();
    let port = |url: &str| url.rsplit(':').next().unwrap().to_owned();
    let (secure, plain) = (
        port(&tls.server.listeners[0]),
        port(&tls.server.listeners[1]),
    );
    let ca = tls.cert.to_str().unwrap();
    let place = |port: &str| format!("localhost:{}", port.trim_end_matches("/ws"));
    for (url, hint) in [
        (
            format!("wss://localhost:{plain}"),
            format!(
                "the server at {} does not use TLS: use ws://",
                place(&plain)
            ),
        ),
        (format!("ws://localhost:{secure}"), "use wss://".to_owned()),
    ] {
        let (code, output) = ended(&url, &["--no-reconnect", "--ca-cert", ca, "--group", "g"]);
        assert_eq!(code, Some(69), "{output}");
        assert!(output.contains(&hint), "{output}");
    }
}

#[cfg(feature = "tls")]
#[test]
fn rejected_certificates_are_explained() {
    use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair};

    type Change = fn(&mut CertificateParams);
    let tls = crate::support::TlsServer::start();
    let url = tls.server.listeners[0].replace("127.0.0.1", "localhost");
    let folder = tls.server.folder().to_owned();
    let certified = |name: &str, change: Change| {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(["localhost".to_owned()]).unwrap();
        let common_name = rcgen::DnType::CommonName;
        params.distinguished_name.push(common_name, name);
        change(&mut params);
        let made = params.self_signed(&key).unwrap();
        let paths = ["pem", "key"].map(|kind| folder.join(format!("{name}.{kind}")));
        std::fs::write(&paths[0], made.pem()).unwrap();
        std::fs::write(&paths[1], key.serialize_pem()).unwrap();
        paths.map(|path| path.to_str().unwrap().to_owned())
    };
    let [other, _] = certified("other", |_| {});
    let (code, output) = ended(&url, &["--ca-cert", &other, "--group", "g"]);
    assert_eq!(code, Some(69), "{output}");
    assert!(
        output.contains("is not issued by a trusted CA; if you trust it"),
        "{output}"
    );

    let own = tls.cert.to_str().unwrap();
    let by_address = &tls.server.listeners[0];
    let (code, output) = ended(by_address, &["--ca-cert", own, "--group", "g"]);
    assert_eq!(code, Some(69), "{output}");
    assert!(
        output.contains("is for localhost, not for 127.0.0.1"),
        "{output}"
    );

    let cases: [(&str, Change, &str); 2] = [
        (
            "ca",
            |params| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained),
            "is self-signed, or a CA certificate; if you trust it",
        ),
        (
            "old",
            |params| params.not_after = rcgen::date_time_ymd(2020, 1, 1),
            "certificate expired ",
        ),
    ];
    for (name, change, part) in cases {
        let [cert, key] = certified(name, change);
        let args = [
            "--listen",
            "wss://127.0.0.1:0",
            "--tls-cert",
            &cert,
            "--tls-key",
            &key,
        ];
        let server = Server::with(&args, "");
        let url = server.listeners[0].replace("127.0.0.1", "localhost");
        let trusted = if name == "old" { &cert } else { &other };
        let (code, output) = ended(&url, &["--ca-cert", trusted, "--group", "g"]);
        assert_eq!(code, Some(69), "{output}");
        assert!(output.contains(part), "{output}");
    }
}

#[test]
fn unresolvable_host_is_named_with_the_remedy() {
    let (code, output) = ended(
        "ws://no-such-host.invalid/",
        &["--no-reconnect", "--group", "g"],
    );
    assert_eq!(code, Some(69), "{output}");
    for part in [
        "cannot resolve the host no-such-host.invalid",
        "check the name",
    ] {
        assert!(output.contains(part), "{output}");
    }
}

#[test]
fn ended_token_ends_the_command_rather_than_making_it_anonymous() {
    let server = Server::start();
    let token = server.user(ME);
    let url = &server.listeners[0];
    let mut listener = listen(url, &["--group", "__world__", "--token", &token]);
    listener.wait_for_error_line("connected as");
    server.run(&["token", "revoke", "1"]);
    let output = listener.wait_for_error_line("3000");
    assert!(
        output.contains("token revoked") && output.contains("get a new one"),
        "{output}"
    );
    assert_eq!(listener.wait(), Some(77));
    // It does not connect anonymously either.
    let (code, output) = ended(url, &["--group", "__world__", "--token", &token]);
    assert_eq!(code, Some(77), "{output}");
    assert!(output.contains("does not accept the token"), "{output}");
    assert!(!output.contains("connected, anonymous"), "{output}");
}

#[test]
fn refused_filter_ends_the_command_with_the_text_of_the_server() {
    let server = Server::start();
    let values: Vec<String> = (0..201).map(|number| format!("--id=A{number}")).collect();
    let args: Vec<&str> = values.iter().map(String::as_str).collect();
    let (code, output) = ended(&server.listeners[0], &args);
    assert_eq!(code, Some(64), "{output}");
    assert!(
        output.contains("filter has more than 200 values"),
        "{output}"
    );
}

#[test]
fn filter_that_is_too_long_ends_the_command() {
    let server = Server::start();
    let uri = format!("https://example.org/{}", "a".repeat(4000));
    let values: Vec<String> = (0..40)
        .map(|number| format!("--uri={uri}{number}"))
        .collect();
    let args: Vec<&str> = values.iter().map(String::as_str).collect();
    let (code, output) = ended(&server.listeners[0], &args);
    assert_eq!(code, Some(64), "{output}");
    assert!(output.contains("1009"), "{output}");
}

#[test]
fn ignored_signal_stays_ignored() {
    let server = Server::start();
    let mut command = Command::new("sh");
    let line = r#"trap "" INT; exec "$0" listen "$1" --group g"#;
    let mut listener = Program::start(command.args(["-c", line, PROGRAM, &server.listeners[0]]));
    listener.wait_for_error_line("connected, anonymous");
    signal(&listener, Signal::INT);
    signal(&listener, Signal::TERM);
    // By SIGTERM: SIGINT would have led to 130.
    assert_eq!(listener.wait(), Some(0));
}

#[test]
fn signals_close_the_connection_and_lead_to_their_exit_codes() {
    for (name, number, args, code) in [
        ("INT", Signal::INT, &[][..], 130),
        ("TERM", Signal::TERM, &[], 0),
        ("TERM", Signal::TERM, &["--count", "1"], 143),
    ] {
        let (url, server) = scripted(|stream, key| {
            let mut socket = accepted(stream, &key);
            socket.send(Message::text(ANONYMOUS)).unwrap();
            let close = loop {
                if let Message::Close(frame) = socket.read().expect("a close frame") {
                    break frame.map(|frame| u16::from(frame.code));
                }
            };
            let _ = socket.flush();
            close
        });
        let mut listener = listen(&url, &[&["--group", "g"], args].concat());
        listener.wait_for_error_line("connected, anonymous");
        signal(&listener, number);
        assert_eq!(server.join().unwrap(), Some(1001), "{name}");
        assert_eq!(listener.wait(), Some(code), "{name} {args:?}");
        assert_eq!(listener.error_line(), None);
    }
}

#[test]
fn unanswered_close_frame_does_not_delay_signals() {
    let (url, server) = scripted(|stream, key| {
        let mut socket = accepted(stream, &key);
        socket.send(Message::text(ANONYMOUS)).unwrap();
        // The library only replies to a close frame in the next call, which is not made.
        while !socket.read().expect("a close frame").is_close() {}
        socket
    });
    let mut listener = listen(&url, &["--group", "g"]);
    listener.wait_for_error_line("connected, anonymous");
    signal(&listener, Signal::INT);
    let _silent = server.join().unwrap();
    assert_eq!(listener.wait(), Some(130));
}

#[test]
fn signals_end_an_unconnected_command_at_once() {
    let (url, server) = scripted(|stream, _| stream);
    let mut listener = listen(&url, &["--group", "g"]);
    // The request has been read, and is never answered.
    let _silent = server.join().unwrap();
    signal(&listener, Signal::INT);
    assert_eq!(listener.wait(), Some(130));

    let mut listener = listen("ws://127.0.0.1:1/", &["--group", "g"]);
    listener.wait_for_error_line("reconnecting in ");
    signal(&listener, Signal::TERM);
    assert_eq!(listener.wait(), Some(0));
}

#[test]
fn command_ends_when_its_output_is_closed_without_any_event() {
    let (url, server) = scripted(|stream, key| {
        let mut socket = accepted(stream, &key);
        socket.send(Message::text(ANONYMOUS)).unwrap();
        while !socket.read().expect("a close frame").is_close() {}
        let _ = socket.flush();
    });
    let mut child = Command::new(PROGRAM)
        .args(["listen", &url, "--group", "g"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "connected, anonymous");
    drop(child.stdout.take());
    server.join().unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert!(lines.next().is_none());
}

#[test]
fn retry_after_of_a_refusal_is_respected() {
    let (url, server) = scripted(|mut stream, _| {
        let answer = "HTTP/1.1 503 Busy\r\nRetry-After: 600\r\nContent-Length: 0\r\n\r\n";
        let _ = stream.write_all(answer.as_bytes());
    });
    let listener = listen(&url, &["--group", "g"]);
    let output = listener.wait_for_error_line("reconnecting in ");
    let delay = output.split(' ').nth(2).unwrap().parse::<f64>().unwrap();
    assert!((600.0..760.0).contains(&delay), "{output}");
    assert!(
        output.contains("responded with 503 Service Unavailable"),
        "{output}"
    );
    server.join().unwrap();
}

const ME: &str = "acct:me@example.org";
