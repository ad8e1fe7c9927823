//! Requests that other parsers may interpret differently or that are expensive to parse, and their
//! effect on the log.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::{Client, LoadTest, Received, Server, connect, event};

/// Returns requests with ambiguous framing or meaning.
fn ambiguous(line: &str, host: &str) -> Vec<String> {
    let fields = [
        "Transfer-Encoding : chunked",
        "Transfer-Encoding:",
        "Transfer-Encoding: chunked, identity",
        "Transfer-Encoding: chunked, chunked",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: \"chunked\"",
        "Transfer-Encoding: chunked;a=b",
        "Transfer-Encoding: \u{b}chunked",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: x",
        "Transfer-Encoding:\r\n chunked",
        "transfer-encoding: CHUNKED\r\nContent-Length: 3",
        "Content-Length: 3\r\nTransfer-Encoding: chunked",
        "Content-Length: 3\r\nTransfer-Encoding: gzip, chunked",
        "Content-Length: 0\r\nContent-Length: 3",
        "Content-Length: 3, 3",
        "Content-Length: +3",
        "Content-Length: -3",
        "Content-Length: 0x3",
        "Content-Length: 3 3",
        "Content-Length: \u{b}3",
        "Content-Length: 18446744073709551619",
        "Content-Length: 99999999999999999999999999",
        "Content-Length: 3\u{0}",
        "Content-Length:",
        "Content-Length: 3\r",
        "Content-Length : 3",
        "X: y\n\r\nContent-Length: 3",
        "X: y\n",
        "X: y\r\n z",
        "X\r\n: y",
        ": y",
        "Host: other",
    ];
    let request = |field| format!("{line}\r\nHost: {host}\r\n{field}\r\n\r\n");
    fields.iter().map(request).collect()
}

/// Sends all bytes at once, and returns the statuses of the responses.
fn answers(client: &mut Client, bytes: &[u8]) -> Vec<u16> {
    client.send_raw(bytes);
    let mut statuses = Vec::new();
    while let Some(answer) = client.answer(false) {
        statuses.push(answer.status());
    }
    statuses
}

// CVE-2021-21299, CVE-2021-32714, CVE-2021-32715, CVE-2020-35863, CVE-2020-35884, CVE-2021-38512:
// nothing after such a request is treated as a request.
#[test]
fn bytes_after_an_ambiguous_request_are_never_executed() {
    let mut load = LoadTest::new("");
    let hidden = "0\r\n\r\nGET /_status HTTP/1.1\r\nHost: a\r\n\r\n";
    for line in ["GET /_status HTTP/1.1", "POST /_status HTTP/1.1"] {
        for request in ambiguous(line, "a") {
            let mut client = Client::raw(connect(load.server.address()));
            let bytes = format!("{request}{hidden}");
            assert_eq!(answers(&mut client, bytes.as_bytes()), [400], "{bytes:?}");
        }
    }
    // Unambiguous framing: nothing in a body that is not read or not supported is executed either,
    // and the connection ends.
    for (field, version, status) in [
        ("Transfer-Encoding: chunked", "HTTP/1.1", 200),
        ("Transfer-Encoding:\tChunked ", "HTTP/1.1", 200),
        ("Transfer-Encoding: chunked", "HTTP/1.0", 400),
        ("Transfer-Encoding: identity", "HTTP/1.1", 400),
        ("Transfer-Encoding: xchunked", "HTTP/1.1", 400),
        ("Transfer-Encoding: gzip, chunked", "HTTP/1.1", 501),
        ("Transfer-Encoding: xchunked, chunked", "HTTP/1.1", 501),
    ] {
        let mut client = Client::raw(connect(load.server.address()));
        let bytes = format!("GET /_status {version}\r\nHost: a\r\n{field}\r\n\r\n{hidden}");
        assert_eq!(
            answers(&mut client, bytes.as_bytes()),
            [status],
            "{bytes:?}"
        );
    }
    load.ping();
    load.check_recovery();
}

// CVE-2021-21299, CVE-2021-32714, CVE-2021-32715, CVE-2020-35863, CVE-2020-35884, CVE-2021-38512
#[test]
fn smuggled_publish_request_is_not_executed() {
    let load = LoadTest::new("");
    let (admin, key) = (load.server.admin, load.server.publish_key());
    let body = event("create", json!({})).to_string();
    let publish = format!(
        "POST /events HTTP/1.1\r\nHost: {admin}\r\nAuthorization: Bearer {key}\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    for line in ["GET /metrics HTTP/1.1", "POST /events HTTP/1.1"] {
        for request in ambiguous(line, &admin.to_string()) {
            let mut client = Client::raw(connect(admin));
            let bytes = format!("{request}{publish}");
            assert_eq!(answers(&mut client, bytes.as_bytes()), [400], "{bytes:?}");
        }
    }
    // In a refused or unwanted body, a request is only data.
    for head in [
        "POST /events HTTP/1.1",
        "GET /metrics HTTP/1.1",
        "POST /nothing HTTP/1.1",
    ] {
        let fields = format!("Host: {admin}\r\nContent-Length: {}", publish.len());
        let bytes = format!("{head}\r\n{fields}\r\n\r\n{publish}");
        let mut client = Client::raw(connect(admin));
        assert_eq!(answers(&mut client, bytes.as_bytes()).len(), 1, "{head}");
        let chunk = format!("{:x}\r\n{publish}\r\n0\r\n\r\n", publish.len());
        let fields = format!("Host: {admin}\r\nTransfer-Encoding: chunked");
        let bytes = format!("{head}\r\n{fields}\r\n\r\n{chunk}");
        let mut client = Client::raw(connect(admin));
        assert_eq!(answers(&mut client, bytes.as_bytes()).len(), 1, "{head}");
    }
    // Bytes after malformed chunks.
    let head = format!(
        "POST /events HTTP/1.1\r\nHost: {admin}\r\nAuthorization: Bearer {key}\r\n\
         Transfer-Encoding: chunked\r\n\r\n"
    );
    for chunks in [
        "1\r\n{",
        "1\n{\r\n0\r\n\r\n",
        "1;a\n{\r\n0\r\n\r\n",
        "2\r\n{}\n0\r\n\r\n",
        "0\r\n",
        "0\n\r\n",
        "0\r\nContent-Length : 3\r\n\r\n",
        "10000000000000000\r\n",
    ] {
        let mut client = Client::raw(connect(admin));
        let bytes = format!("{head}{chunks}{publish}");
        let statuses = answers(&mut client, bytes.as_bytes());
        assert!(
            matches!(statuses[..], [400 | 413]),
            "{statuses:?} {chunks:?}"
        );
    }
    let received = load.server.metric("h_realtime_events_received_total");
    assert_eq!(received, 0.0);
    load.check_recovery();
}

// CVE-2026-22689, CVE-2026-44514, CVE-2026-34403, CVE-2026-55883: any page can make its visitor's
// browser send requests here, as often as it likes, even with a key that it knows.
#[test]
fn cross_origin_requests_have_no_effect() {
    let mut load = LoadTest::new("");
    let (admin, key) = (load.server.admin, load.server.publish_key());
    let body = event("create", json!({})).to_string();
    let port = admin.port();
    let sites = [
        format!("Host: {admin}\r\nOrigin: https://example.org"),
        format!("Host: {admin}\r\nOrigin: http://{admin}.example.org"),
        format!("Host: {admin}\r\nOrigin: http://example.org/{admin}"),
        format!("Host: {admin}\r\nOrigin: http://127.0.0.1"),
        format!("Host: {admin}\r\nOrigin: http://{}", load.server.address()),
        format!("Host: {admin}\r\nOrigin: ws://{admin}"),
        format!("Host: {admin}\r\nOrigin: null"),
        format!("Host: evil.example:{port}\r\nOrigin: http://evil.example:{port}"),
        format!("Host: evil.example:{port}"),
    ];
    let length = format!("Content-Length: {}", body.len());
    let upgrade = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
                   Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==";
    for _ in 0..20 {
        for site in &sites {
            for (line, fields, body) in [
                ("GET /", "Connection: close", ""),
                ("GET /metrics", "Connection: close", ""),
                (
                    "OPTIONS /events",
                    "Access-Control-Request-Method: POST\r\nConnection: close",
                    "",
                ),
                ("POST /events", &length, &body[..]),
                ("GET /events", upgrade, ""),
            ] {
                let head = format!("{line} HTTP/1.1\r\n{site}\r\nAuthorization: Bearer {key}");
                let mut client = Client::raw(connect(admin));
                client.send_raw(format!("{head}\r\n{fields}\r\n\r\n{body}").as_bytes());
                client.half_close();
                let answer = client.answer(false).unwrap();
                assert_eq!(answer.status(), 403, "{line} {site}");
                assert!(!answer.head.to_lowercase().contains("access-control"));
            }
        }
        load.ping();
    }
    let received = load.server.metric("h_realtime_events_received_total");
    assert_eq!(received, 0.0);
    assert_eq!(load.server.publish(&body).0, 202);
    load.ping();
    load.check_recovery();
}

// RUSTSEC-2026-0033, CVE-2020-7693: a proxy that treats a connection as a tunnel must not be able
// to pass a second request through it, whatever made the first one fail.
#[test]
fn bytes_after_a_failed_upgrade_are_not_executed() {
    let mut load = LoadTest::new("[auth]\ninvalid_token = \"reject\"\n");
    let (admin, key) = (load.server.admin, load.server.publish_key());
    let upgrade = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
                   Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    let good = format!("GET /ws HTTP/1.1\r\nHost: a\r\n{upgrade}\r\n");
    let body = event("create", json!({})).to_string();
    let publish = format!(
        "POST /events HTTP/1.1\r\nHost: {admin}\r\nAuthorization: Bearer {key}\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let methods = [
        "GET", "HEAD", "POST", "PUT", "CONNECT", "OPTIONS", "TRACE", "get",
    ];
    for method in methods {
        for target in [
            "/",
            "/ws",
            "/ws?access_token=nobodys",
            "/_status",
            "/events",
            "/metrics",
            "*",
            "a:1",
        ] {
            let is_good = method == "GET" && target == "/ws";
            if !is_good {
                let bad = good.replacen("GET /ws", &format!("{method} {target}"), 1);
                let mut client = Client::raw(connect(load.server.address()));
                client.send_raw(format!("{bad}{good}").as_bytes());
                let is_head = method == "HEAD";
                let status = client.answer(is_head).unwrap().status();
                assert!(status == 200 || status >= 400, "{bad:?}: {status}");
                client.expect_end();
            }
            let bad = format!("{method} {target} HTTP/1.1\r\nHost: {admin}\r\n{upgrade}\r\n");
            let mut client = Client::raw(connect(admin));
            client.send_raw(format!("{bad}{publish}").as_bytes());
            assert_ne!(client.answer(method == "HEAD").unwrap().status(), 101);
            client.expect_end();
        }
    }
    for (from, to) in [
        ("Version: 13", "Version: 12"),
        ("Key: dGhl", "Key: "),
        ("Upgrade: websocket", "Upgrade: h2c"),
        ("Connection: Upgrade", "Connection: keep-alive"),
    ] {
        let mut client = Client::raw(connect(load.server.address()));
        let bytes = format!("{}{good}", good.replacen(from, to, 1));
        assert_eq!(answers(&mut client, bytes.as_bytes()), [400], "{to}");
    }
    let received = load.server.metric("h_realtime_events_received_total");
    assert_eq!(received, 0.0);
    // The well-behaved client, and its predecessors.
    assert_eq!(load.server.metric("h_realtime_connects_total"), 1.0);
    load.ping();
    load.check_recovery();
}

// CVE-2020-27813 CVE-2022-21676: an invalid frame is detected wherever it begins.
#[test]
fn violation_after_the_handshake_in_one_segment_is_answered() {
    let mut load = LoadTest::new("");
    let token = load.server.user("acct:me@example.org");
    for query in [String::new(), format!("?access_token={token}")] {
        for (frame, code) in [
            (&b"\xC1\x80\0\0\0\0"[..], 1002),
            (b"\xA1\x80\0\0\0\0", 1002),
            (b"\x91\x80\0\0\0\0", 1002),
            (b"\x83\xFF", 1002),
            (b"\x81\x02{}", 1002),
            (b"\x80\x80\0\0\0\0", 1002),
            (b"\x81\xFF\x80\0\0\0\0\0\0\0\0\0\0\0", 1002),
            (b"\x81\xFF\x7F\xFF\xFF\xFF\xFF\xFF\xFF\xFF\0\0\0\0", 1009),
            (b"\x81\x81\0\0\0\0\xFF", 1007),
        ] {
            let head = format!(
                "GET /ws{query} HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                 Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
            );
            let mut client = Client::raw(connect(load.server.address()));
            client.send_raw(&[head.as_bytes(), frame].concat());
            assert_eq!(client.answer(false).unwrap().status(), 101);
            let close = client.receive();
            assert!(
                matches!(close, Received::Close(Some((found, _))) if found == code),
                "{frame:x?}: {close:?}"
            );
            client.expect_end();
        }
    }
    load.ping();
    load.check_recovery();
}

// M10: at the default log level, no peer can cause log output.
#[test]
fn peers_cannot_write_to_the_log_by_default() {
    let mut load = LoadTest::new("");
    for _ in 0..100 {
        let mut client = Client::raw(connect(load.server.address()));
        assert_eq!(answers(&mut client, b"nonsense\r\n\r\n"), [400]);
        let mut client = load.server.anonymous();
        client.send("not JSON");
        client.receive();
        crate::support::reset(client.stream);
        let mut client = Client::raw(connect(load.server.admin));
        assert_eq!(
            answers(
                &mut client,
                b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
            ),
            [403]
        );
    }
    load.ping();
    let log = load.server.log();
    assert!(log.lines().count() < 5, "{log}");
    load.check_recovery();
}

// CVE-2020-7662, CVE-2020-7663, CVE-2021-32640, CVE-2024-37890: parsed in linear time, whatever
// their content and wherever the limit truncates them.
#[test]
fn fields_of_64_kib_are_read_in_linear_time() {
    let mut load = LoadTest::new("[limits]\nrequest_head = \"128KiB\"\n");
    let good = "GET /ws HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    let long = |part: &str| part.repeat(65_000 / part.len());
    let spaces = format!("b{}x", long(" "));
    let mut table = Vec::new();
    for name in [
        "Sec-WebSocket-Extensions",
        "Sec-WebSocket-Protocol",
        "Sec-WebSocket-Version",
        "Sec-WebSocket-Key",
        "Connection",
        "Upgrade",
        "Authorization",
        "Accept",
        "Cookie",
        "Origin",
        "Content-Length",
    ] {
        for value in [
            &spaces,
            &long(","),
            &long(", ,\t"),
            &long("a;"),
            &long("a=\"\\\""),
            &long("permessage-deflate;"),
        ] {
            table.push(format!("{good}{name}: {value}\r\n\r\n"));
            // Before the valid fields, so that the search for an element scans all of it.
            let first = format!("\r\n{name}: {value}\r\nHost");
            table.push(good.replacen("\r\nHost", &first, 1) + "\r\n");
        }
    }
    for query in ["%", "%zz", "&", "&=", "a&", "access_token=&", "+", "%25"] {
        table.push(good.replacen("/ws", &format!("/ws?{}", long(query)), 1) + "\r\n");
        table.push(good.replacen("/ws", &format!("/{}", long(query)), 1) + "\r\n");
    }
    table.push(format!(
        "GET /_status HTTP/1.1\r\nHost: a\r\nAccept: {}\r\n\r\n",
        long("a/b;q=0,")
    ));
    for request in table {
        let since = Instant::now();
        let mut client = Client::raw(connect(load.server.address()));
        client.send_raw(request.as_bytes());
        client.answer(false).unwrap();
        // Quadratic time would be billions of steps.
        let elapsed = since.elapsed();
        assert!(
            elapsed < Duration::from_secs(2),
            "{elapsed:?}: {}",
            &request[..300]
        );
    }
    load.ping();
    load.check_recovery();
}

// CVE-2024-37890: fields beyond a limit are not silently dropped; the request is refused.
#[test]
fn two_thousand_fields_before_the_key_are_refused() {
    let mut load = LoadTest::new("[limits]\nrequest_head = \"128KiB\"\n");
    let fields = "A: b\r\n".repeat(2000);
    let request = format!(
        "GET /ws HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n{fields}\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    let mut client = Client::raw(connect(load.server.address()));
    assert_eq!(answers(&mut client, request.as_bytes()), [431]);
    load.ping();
    load.check_recovery();
}

// RUSTSEC-2025-0055: a terminal interprets escape sequences, and a reader of logs trusts the
// beginning of a line.
#[test]
fn peer_input_is_escaped_in_the_log() {
    let server = Server::verbose("");
    let evil = "\u{1b}[2J\u{7}\r\nFORGED \u{9b}31m\u{202e}";
    let raw = [
        format!("GET /{evil} HTTP/1.1\r\nHost: a\r\n\r\n"),
        format!("GET /ws HTTP/1.1\r\nUser-Agent: {evil}\r\nHost: a\r\n\r\n"),
        format!("{evil} / HTTP/1.1\r\nHost: a\r\n\r\n"),
        format!("GET / HTTP/1.1\r\nHost: {evil}\r\n\r\n"),
        "GET /%1b%5b2J%0d%0aFORGED HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(),
        "GET /ws?access_token=%1b%0aFORGED HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(),
    ];
    for address in [server.address(), server.admin] {
        for request in &raw {
            let mut client = Client::raw(connect(address));
            client.send_raw(request.as_bytes());
            client.half_close();
            while client.answer(false).is_some() {}
        }
    }
    let mut client = server.anonymous();
    let clause = json!({"field": evil, "operator": evil, "value": evil});
    for message in [
        json!({"type": evil, "id": 1}),
        json!({"messageType": "client_id", "value": evil}),
        json!({"filter": {"clauses": [clause], "match_policy": evil}}),
    ] {
        client.send(&message.to_string());
    }
    client.send(evil);
    client.close(1000, evil);
    let mut next = server.anonymous();
    next.send_raw(b"\xf1\x80\0\0\0\0");
    next.receive();
    server.post_events("", &json!({"topic": evil}).to_string());
    let bad = event(evil, json!({"id": evil})).to_string();
    assert_eq!(server.publish(&bad).0, 400);
    let log = server.log();
    assert!(log.lines().count() > 3, "nothing is logged: {log}");
    assert!(!log.contains("FORGED"), "{log}");
    let is_tame = |c: char| c == '\n' || !c.is_control() && c != '\u{202e}';
    assert!(log.chars().all(is_tame), "{log:?}");
}
