//! Connections through proxies over real sockets: the PROXY protocol before TLS, and
//! `X-Forwarded-For`.

use std::io::{Read, Write};

use crate::support::{Client, Server, connect, free_port};

const ONE_EACH: &str = "[limits]\nconnections_per_ip = 1\ntrusted_proxies = [\"127.0.0.0/8\"]\n";

/// Returns a header of version 2 for a client in 203.0.113.0/24.
fn header(last: u8) -> Vec<u8> {
    let mut header = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x13".to_vec();
    header.extend([203, 0, 113, last, 127, 0, 0, 1, 0, 1, 0, 2]);
    // PP2_TYPE_NOOP, which must be ignored.
    header.extend([4, 0, 4, 1, 2, 3, 4]);
    header
}

// P1
#[test]
fn forwarded_clients_are_counted_by_their_own_address() {
    let server = Server::configured(ONE_EACH);
    let field = |last: u8| format!("X-Forwarded-For: 127.0.0.7, 203.0.113.{last}\r\n");
    let open = |last| Client::try_open(server.address(), "/ws", &field(last));
    let mut first = open(1);
    assert!(first.head.starts_with("HTTP/1.1 101 "));
    let refused = open(1);
    assert!(
        refused
            .head
            .starts_with("HTTP/1.1 429 Too Many Requests\r\n"),
        "{}",
        refused.head
    );
    assert!(refused.head.contains("Retry-After: "), "{}", refused.head);
    let mut other = open(2);
    assert_eq!((first.drain(), other.drain()), (vec![], vec![]));
    // Counted once, under the right reason.
    let failures = "h_realtime_handshake_failures_total";
    assert_eq!(server.metric(failures), 1.0);
    let per_ip = format!("{failures}{{reason=\"per_ip\"}}");
    assert_eq!(server.metric(&per_ip), 1.0);
}

// P1
#[test]
fn untrusted_forwarding_fields_are_ignored() {
    let server = Server::configured("[limits]\nconnections_per_ip = 1");
    let fields = "X-Forwarded-For: 203.0.113.1\r\nForwarded: for=203.0.113.1\r\n";
    let open = || Client::open(server.address(), "/ws", fields);
    let mut clients = [open(), open(), open()];
    clients
        .iter_mut()
        .for_each(|client| assert_eq!(client.drain(), []));
}

// P2
#[test]
fn proxy_protocol_listener_only_accepts_trusted_proxies() {
    let url = format!("ws://127.0.0.1:{}", free_port());
    let place = format!("proxy_protocol = [\"{url}\"]\n");
    let open = |server: &Server, header: &[u8]| {
        let mut stream = connect(server.address());
        stream.write_all(header).unwrap();
        stream
    };
    let ends = |mut stream: std::net::TcpStream| {
        // A reset, if there was unread input.
        matches!(stream.read(&mut [0]), Ok(0) | Err(_))
    };
    let server = Server::with(&["--listen", &url], &format!("{place}{ONE_EACH}"));
    let mut first = Client::over(open(&server, &header(1)), "/ws", "");
    assert!(first.head.starts_with("HTTP/1.1 101 "), "{}", first.head);
    assert!(ends(open(&server, &header(1))));
    let line = b"PROXY TCP4 203.0.113.2 127.0.0.1 1 2\r\n";
    let mut other = Client::over(open(&server, line), "/ws", "");
    assert_eq!((first.drain(), other.drain()), (vec![], vec![]));
    // A health check of the proxy.
    let mut local = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0".to_vec();
    local.extend(b"GET /_status HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    let mut answer = String::new();
    open(&server, &local).read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    // Input without a header is not interpreted as anything else.
    assert!(ends(open(&server, b"GET /ws HTTP/1.1\r\nHost: a\r\n\r\n")));
    assert_eq!(server.metric("h_realtime_handshake_failures_total"), 2.0);

    let stranger = "[limits]\ntrusted_proxies = [\"192.0.2.1\"]\n";
    let url = format!("ws://127.0.0.1:{}", free_port());
    let place = format!("proxy_protocol = [\"{url}\"]\n");
    let server = Server::with(&["--listen", &url], &format!("{place}{stranger}"));
    // A valid header followed by a request: only the peer's address is wrong.
    assert!(ends(open(&server, &local)));
    let failures = "h_realtime_handshake_failures_total";
    let untrusted = server.metric(&format!("{failures}{{reason=\"proxy_peer\"}}"));
    assert_eq!((untrusted, server.metric(failures)), (1.0, 1.0));
}

// P2
#[cfg(feature = "tls")]
#[test]
fn proxy_header_precedes_tls() {
    let url = format!("wss://127.0.0.1:{}", free_port());
    let config = format!("proxy_protocol = [\"{url}\"]\n{ONE_EACH}");
    let tls = crate::support::TlsServer::at(&url, &config);
    let config = tls.config(&rustls::version::TLS13);
    let open = |header: &[u8]| tls.connect_behind(&config, header);
    let mut first = open(&header(1));
    assert!(first.head.starts_with("HTTP/1.1 101 "), "{}", first.head);
    let mut other = open(b"PROXY TCP6 2001:db8::1 ::1 1 2\r\n");
    assert_eq!((first.drain(), other.drain()), (vec![], vec![]));
}
