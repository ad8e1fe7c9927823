//! Half-closes and resets in every phase of a connection: each ends promptly without affecting
//! others, and the server becomes idle again. CVE-2017-2670, CVE-2019-15541, and RUSTSEC-2024-0336
//! are vulnerabilities in which such an end caused a busy loop.

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Instant;

use rustix::process::Signal;

use crate::support::{Client, LoadTest, PATIENCE, Received, Server, connect, reset};

/// Brings a connection into a phase.
type Setup = Box<dyn Fn(&Server) -> TcpStream>;

fn begun(bytes: &[u8]) -> Setup {
    let bytes = bytes.to_vec();
    Box::new(move |server| {
        let mut stream = connect(server.address());
        stream.write_all(&bytes).unwrap();
        stream
    })
}

fn open(then: &[u8]) -> Setup {
    let then = then.to_vec();
    Box::new(move |server| {
        let mut stream = server.anonymous().stream;
        stream.write_all(&then).unwrap();
        stream
    })
}

fn phases() -> Vec<(&'static str, Setup)> {
    let handshake = "GET /ws?access_token=nobodys HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\
                     Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
                     Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    let with_frame = [handshake.as_bytes(), b"\x81\xfe\x01\0\0\0\0\0half"].concat();
    let closed: Setup = Box::new(|server| {
        let mut client = server.anonymous();
        client.send("not JSON");
        assert!(matches!(client.receive(), Received::Close(Some((1007, _)))));
        client.stream
    });
    let refused: Setup = Box::new(|server| {
        let mut client = Client::raw(connect(server.address()));
        client.send_raw(b"nonsense\r\n\r\n");
        assert_eq!(client.answer(false).unwrap().status(), 400);
        client.stream
    });
    let unread: Setup = Box::new(|server| {
        let mut client = server.anonymous();
        for id in 0..500 {
            client.send(&format!(r#"{{"type":"ping","id":{id}}}"#));
        }
        client.stream
    });
    vec![
        ("accepted", begun(b"")),
        ("in a head", begun(b"GET /ws HTTP/1.1\r\nHost:")),
        (
            "between requests",
            begun(b"GET /_status HTTP/1.1\r\nHost: a\r\n\r\n"),
        ),
        ("while its token is looked up", begun(handshake.as_bytes())),
        ("the same, with half a frame", begun(&with_frame)),
        ("open", open(b"")),
        ("in a header", open(b"\x81\xfe")),
        ("in a frame", open(b"\x81\xfe\x01\0\0\0\0\0half")),
        ("in a message", open(b"\x01\x81\0\0\0\0x")),
        ("with answers unread", unread),
        ("its close frame sent", open(b"\x88\x80\0\0\0\0")),
        ("closed by the server", closed),
        ("refused", refused),
    ]
}

/// Resets half of the connections, and half-closes the other half, which the server must end.
fn end_all(load: &mut LoadTest, phase: &str, streams: Vec<TcpStream>) {
    let mut halves = Vec::new();
    for (number, stream) in streams.into_iter().enumerate() {
        if number % 2 == 0 {
            reset(stream);
        } else {
            // Fails if the server has already ended the connection.
            let _ = stream.shutdown(Shutdown::Write);
            halves.push(stream);
        }
    }
    load.ping();
    for mut stream in halves {
        let mut rest = Vec::new();
        if let Err(error) = stream.read_to_end(&mut rest) {
            assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{phase}");
        }
    }
    load.wait_for_disconnects();
}

// W1: unless the signal is ignored, writing to a connection that the peer has reset terminates the
// process.
#[test]
fn server_ignores_sigpipe() {
    let server = Server::start();
    let path = format!("/proc/{}/status", server.child.id());
    let status = fs::read_to_string(path).unwrap();
    let mut lines = status.lines();
    let mask = lines.find_map(|line| line.strip_prefix("SigIgn:")).unwrap();
    let mask = u64::from_str_radix(mask.trim(), 16).unwrap();
    assert_ne!(mask & 1 << (Signal::PIPE.as_raw() - 1), 0, "{mask:x}");
}

// CVE-2017-2670, W1
#[test]
fn half_close_or_reset_in_any_phase_ends_the_connection() {
    let mut load = LoadTest::new("");
    for (phase, bring) in phases() {
        let since = Instant::now();
        let streams = (0..20).map(|_| bring(&load.server)).collect();
        end_all(&mut load, phase, streams);
        // The only deadline that has passed is that of a peer with outstanding input.
        assert!(since.elapsed() < PATIENCE / 2, "{phase}");
    }
    load.check_recovery();
}

// RUSTSEC-2024-0336, T2
#[cfg(feature = "tls")]
#[test]
fn half_close_or_reset_around_tls_handshake_ends_the_connection() {
    let tls = crate::support::TlsServer::start();
    let config = tls.config(&rustls::version::TLS13);
    let hello = crate::support::hello(&config).1;
    let mut phases: Vec<(&str, Vec<TcpStream>)> = Vec::new();
    let close_notify = b"\x15\x03\x03\0\x02\x01\0";
    let parts: [(&str, &[u8]); 5] = [
        ("nothing sent", b""),
        ("half a hello", &hello[..hello.len() / 2]),
        ("a whole hello", &hello),
        ("close_notify at once", close_notify),
        (
            "close_notify behind a hello",
            &[&hello[..], close_notify].concat(),
        ),
    ];
    for (phase, bytes) in parts {
        let begin = |_| {
            let mut stream = tls.tcp();
            stream.write_all(bytes).unwrap();
            stream
        };
        phases.push((phase, (0..10).map(begin).collect()));
    }
    let open = (0..10).map(|_| tls.connect(&config, "").stream.into_parts().1);
    phases.push(("open", open.collect()));
    let in_record = (0..10).map(|_| {
        let mut stream = tls.connect(&config, "").stream.into_parts().1;
        stream.write_all(b"\x17\x03\x03\x20\0half").unwrap();
        stream
    });
    phases.push(("in a record", in_record.collect()));
    let probe = tls.plain();
    let mut load = LoadTest::of(tls.server, probe);
    let all = phases
        .into_iter()
        .flat_map(|(_, streams)| streams)
        .collect();
    end_all(&mut load, "TLS", all);
    load.check_recovery();
}
