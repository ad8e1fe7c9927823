//! HTTP from the client's side: accepted handshakes, and the responses to all other requests.

use std::io::{Read, Write};

use h_realtime_engine::ws::{OpCode, encode_client_frame};

use crate::support::{Answer, Client, Received, Server, connect};

#[test]
fn valid_handshake_is_accepted_without_subprotocol() {
    let server = Server::start();
    for (from, to) in [
        ("", ""),
        ("Upgrade: websocket", "Upgrade: WebSocket"),
        ("Upgrade: websocket", "Upgrade: h2c, websocket"),
        ("Connection: Upgrade", "Connection: keep-alive, upgrade"),
        ("Connection: Upgrade", "CONNECTION:upgrade"),
        ("Sec-WebSocket-Version: 13", "sec-websocket-version:   13  "),
        ("Host: localhost", "Host: elsewhere.example:99"),
        ("GET /ws ", "GET /%77s "),
        ("GET /ws ", "GET /ws? "),
        ("GET /ws ", "GET /ws?a=%zz&debug=1&%ff "),
        ("\r\n\r\n", "\r\nOrigin: https://elsewhere.example\r\n\r\n"),
        ("\r\n\r\n", "\r\nOrigin: null\r\nCookie: a=b\r\n\r\n"),
        ("\r\n\r\n", "\r\nContent-Length: 0\r\n\r\n"),
        ("\r\n\r\n", "\r\nSec-WebSocket-Protocol: soap, wamp\r\n\r\n"),
        (
            "\r\n\r\n",
            "\r\nSec-WebSocket-Extensions: x-webkit-deflate-frame\r\n\r\n",
        ),
    ] {
        let request = HANDSHAKE.replacen(from, to, 1);
        let mut client = Client::raw(connect(server.address()));
        client.send_raw(request.as_bytes());
        let answer = client.answer(false).unwrap();
        assert_eq!(answer.head, SWITCHING, "{to}");
        assert_eq!(client.drain(), [], "{to}");
    }
}

#[test]
fn invalid_handshake_is_refused() {
    let server = Server::start();
    for (from, to) in [
        ("GET ", "POST "),
        ("GET ", "get "),
        ("GET ", "OPTIONS "),
        ("HTTP/1.1", "HTTP/1.0"),
        ("Upgrade: websocket", "Upgrade: websockets"),
        ("Upgrade: websocket", "Upgrade: h2c"),
        ("Connection: Upgrade\r\n", ""),
        ("Connection: Upgrade", "Connection: close"),
        ("Sec-WebSocket-Version: 13\r\n", ""),
        ("Version: 13", "Version: 8"),
        ("Version: 13", "Version: 13, 8"),
        ("Version: 13", "Version: +13"),
        ("Version: 13", "Version: 13\r\nSec-WebSocket-Version: 13"),
        ("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", ""),
        ("dGhlIHNhbXBsZSBub25jZQ==", ""),
        ("dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZSBub25jZQ"),
        ("dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZSBub25jZXh4"),
        ("\r\n\r\n", "\r\nContent-Length: 5\r\n\r\nhello"),
        (
            "\r\n\r\n",
            "\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        ),
    ] {
        let request = HANDSHAKE.replacen(from, to, 1);
        let (answer, mut client) = ask(&server, &request);
        assert_eq!(
            (answer.status(), error(&answer)),
            (400, BAD_HANDSHAKE),
            "{to}"
        );
        assert_eq!(answer.field("Sec-WebSocket-Version"), Some("13"), "{to}");
        // A proxy may treat the connection as a tunnel now.
        assert_eq!(answer.field("Connection"), Some("close"), "{to}");
        client.expect_end();
    }
}

// RFC 9112 §3.2.2
#[test]
fn absolute_form_targets_are_served() {
    let server = Server::start();
    for scheme in ["http", "https", "ws", "WSS"] {
        let target = format!("{scheme}://elsewhere.example:81/ws?a=b");
        let (answer, _client) = ask(&server, &HANDSHAKE.replace("/ws", &target));
        assert_eq!(answer.status(), 101, "{target}");
    }
    let status = "GET http://localhost/_status HTTP/1.1\r\nHost: localhost\r\n\r\n";
    assert_eq!(ask(&server, status).0.status(), 200);
}

// CVE-2020-7693
#[test]
fn unknown_paths_are_not_found() {
    let server = Server::start();
    for path in [
        "/",
        "/ws/",
        "//ws",
        "/WS",
        "/w%2573",
        "/ws%2f",
        "/ws;a=b",
        "/a/x",
        "/_status/",
        "/_STATUS",
        "/events",
        "/metrics",
        "/api/annotations/x",
        "*",
        "http://localhost/ws/",
        "ftp://localhost/ws",
        "/%ff",
    ] {
        for upgrade in [false, true] {
            let request = HANDSHAKE.replace("/ws", path);
            let request = match upgrade {
                true => request,
                false => request.replace("Upgrade: websocket\r\n", ""),
            };
            let (answer, mut client) = ask(&server, &request);
            assert_eq!(
                (answer.status(), error(&answer)),
                (404, NOT_FOUND),
                "{path}"
            );
            assert_eq!(
                answer.field("Content-Type"),
                Some("application/json"),
                "{path}"
            );
            if upgrade {
                client.expect_end();
            } else {
                is_kept_alive(&mut client);
            }
        }
    }
}

#[test]
fn malformed_http_is_refused() {
    let server = Server::start();
    let head = |field: &str| format!("GET /_status HTTP/1.1\r\nHost: a\r\n{field}\r\n");
    for request in [
        "\r\nGET /_status HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(),
        "GET /_status HTTP/1.1\nHost: a\n\n".to_owned(),
        "GET /_status HTTP/2.0\r\n\r\n".to_owned(),
        "GET /_status HTTP/1.2\r\nHost: a\r\n\r\n".to_owned(),
        "GET /_status\r\n\r\n".to_owned(),
        "GET  /_status HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(),
        "GET /_status HTTP/1.1\r\n\r\n".to_owned(),
        "GET /_status HTTP/1.1\r\nHost: a/b\r\n\r\n".to_owned(),
        "GET /_status HTTP/1.1\r\n Host: a\r\n\r\n".to_owned(),
        HANDSHAKE.replace("Host: localhost\r\n", ""),
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(),
        "\u{16}\u{3}\u{1}\u{2}\0\u{1}".to_owned(),
        head("nonsense\r\n"),
        head("A : b\r\n"),
        head("A: b\r\n c\r\n"),
        head("A: b\rc\r\n"),
        head("A: b\0c\r\n"),
        head("Host: b\r\n"),
        head("Transfer-Encoding: chunked\r\nContent-Length: 0\r\n"),
        head("Content-Length: 0\r\nContent-Length: 0\r\n"),
        head("Content-Length: +0\r\n"),
        head("Content-Length: 0x0\r\n"),
        head("Content-Length: \r\n"),
        head("Transfer-Encoding: gzip\r\n"),
    ] {
        let (answer, mut client) = ask(&server, &request);
        let want = (400, ("bad_request", "The request is not valid HTTP/1.1."));
        assert_eq!((answer.status(), error(&answer)), want, "{request:?}");
        assert_eq!(answer.field("Connection"), Some("close"), "{request:?}");
        client.expect_end();
    }
}

#[test]
fn heads_are_limited_to_16_kib_and_64_fields() {
    let server = Server::start();
    let of_size = |size: usize| {
        let filler = size - HANDSHAKE.len() - "A: \r\n".len();
        let field = format!("\r\nA: {}\r\n\r\n", "x".repeat(filler));
        HANDSHAKE.replace("\r\n\r\n", &field)
    };
    let of_target = |size: usize| HANDSHAKE.replace("/ws", &format!("/ws?{}", "x".repeat(size)));
    let of_fields = |count: usize| {
        let fields = "A: b\r\n".repeat(count - 5);
        HANDSHAKE.replace("\r\n\r\n", &format!("\r\n{fields}\r\n"))
    };
    for (request, status) in [
        (of_size(16_384), 101),
        (of_size(16_385), 431),
        (of_size(100_000), 431),
        (of_target(15_000), 101),
        (of_target(17_000), 414),
        (of_fields(64), 101),
        (of_fields(65), 431),
        (of_fields(1000), 431),
        ("x".repeat(20_000), 414),
    ] {
        let (answer, mut client) = ask(&server, &request);
        assert_eq!(answer.status(), status, "{}", request.len());
        if status == 101 {
            assert_eq!(client.drain(), []);
        } else {
            let want = match status {
                414 => ("uri_too_long", "The request's URI is too long."),
                _ => ("head_too_large", "The request's head is too large."),
            };
            assert_eq!(error(&answer), want);
            client.expect_end();
        }
    }
}

#[test]
fn incomplete_head_times_out_with_408_but_silence_without_response() {
    let server = Server::configured("[timeouts]\nhandshake = \"500ms\"\n");
    let begun = [
        &HANDSHAKE[..1],
        &HANDSHAKE[..30],
        &HANDSHAKE[..HANDSHAKE.len() - 1],
    ];
    let mut begun = begun.map(|part| {
        let mut client = Client::raw(connect(server.address()));
        client.send_raw(part.as_bytes());
        client
    });
    let mut open = server.anonymous();
    let mut silent = Client::raw(connect(server.address()));
    let (answer, mut idle) = ask(&server, "GET /_status HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(answer.status(), 200);
    for client in &mut begun {
        let answer = client.answer(false).unwrap();
        let want = ("timeout", "The request was not complete in time.");
        assert_eq!((answer.status(), error(&answer)), (408, want));
        client.expect_end();
    }
    silent.expect_end();
    idle.expect_end();
    // An open WebSocket has no such deadline.
    assert_eq!(open.drain(), []);
}

#[test]
fn status_requires_acceptable_json() {
    let server = Server::start();
    for (request, status) in [
        ("GET /_status", 200),
        ("GET /_status?replica", 200),
        ("POST /_status", 200),
        ("GET /_status HTTP/1.1\r\nAccept: */*", 200),
        (
            "GET /_status HTTP/1.1\r\nAccept: text/html, application/*;q=0.1",
            200,
        ),
        ("GET /_status HTTP/1.1\r\nAccept: text/html", 404),
        ("GET /_status HTTP/1.1\r\nAccept: application/json;q=0", 404),
        // An unknown token does not matter here.
        (
            "GET /_status HTTP/1.1\r\nAuthorization: Bearer unknown",
            200,
        ),
    ] {
        let request = match request.contains(" HTTP/1.1") {
            true => format!("{request}\r\nHost: a\r\n\r\n"),
            false => format!("{request} HTTP/1.1\r\nHost: a\r\n\r\n"),
        };
        let (answer, mut client) = ask(&server, &request);
        assert_eq!(answer.status(), status, "{request}");
        if status == 200 {
            assert_eq!(answer.body, r#"{"status": "okay"}"#);
            assert_eq!(answer.field("Content-Type"), Some("application/json"));
            let cache = "max-age=0, must-revalidate, no-cache, no-store";
            assert_eq!(answer.field("Cache-Control"), Some(cache));
            assert_eq!(answer.field("Pragma"), Some("no-cache"));
            for name in ["Expires", "Last-Modified"] {
                assert_eq!(answer.field(name), answer.field("Date"));
            }
        }
        is_kept_alive(&mut client);
    }
}

#[test]
fn head_response_has_no_body() {
    let server = Server::start();
    for path in ["/_status", "/", "/ws"] {
        let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n");
        let (full, mut client) = ask(&server, &request);
        client.send_raw(request.replace("GET", "HEAD").as_bytes());
        let head = client.answer(true).unwrap();
        let without_dates = |head: &str| -> Vec<String> {
            let lines = head.lines().filter(|line| !line.ends_with(" GMT"));
            lines.map(str::to_owned).collect()
        };
        assert_eq!(
            without_dates(&head.head),
            without_dates(&full.head),
            "{path}"
        );
        is_kept_alive(&mut client);
    }
}

// RFC 9110 §9.3.2
#[test]
fn refused_head_request_gets_no_content() {
    let server = Server::start();
    for (fields, status) in [
        ("A : b\r\n".to_owned(), "400"),
        ("Transfer-Encoding: gzip, chunked\r\n".to_owned(), "501"),
        (format!("A: {}\r\n", "x".repeat(20_000)), "431"),
    ] {
        let mut stream = connect(server.address());
        let request = format!("HEAD /_status HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")),
            "{answer}"
        );
        assert!(answer.ends_with("\r\n\r\n"), "{answer}");
        assert!(!answer.contains("Content-Length: 0"), "{answer}");
    }
}

#[test]
fn connection_is_kept_alive_if_framing_is_unambiguous() {
    let server = Server::start();
    for (request, kept) in [
        ("GET /_status HTTP/1.1\r\nHost: a\r\n\r\n", true),
        ("GET /ws HTTP/1.1\r\nHost: a\r\n\r\n", true),
        (
            "GET /nope HTTP/1.1\r\nHost: a\r\nConnection: keep-alive\r\n\r\n",
            true,
        ),
        (
            "GET /_status HTTP/1.1\r\nHost: a\r\nConnection: x, Close\r\n\r\n",
            false,
        ),
        ("GET /_status HTTP/1.0\r\nHost: a\r\n\r\n", false),
        (
            "GET /_status HTTP/1.1\r\nHost: a\r\nUpgrade: h2c\r\n\r\n",
            false,
        ),
        // A parser that ignores the framing would treat the body as a request.
        (
            "POST /nope HTTP/1.1\r\nHost: a\r\nContent-Length: 38\r\n\r\nGET /_status HTTP/1.1\r\nHost: inner\r\n\r\n",
            false,
        ),
        (
            "POST /nope HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            false,
        ),
    ] {
        let (answer, mut client) = ask(&server, request);
        let want = match kept {
            true => (Some("keep-alive"), Some("timeout=10")),
            false => (Some("close"), None),
        };
        let fields = (answer.field("Connection"), answer.field("Keep-Alive"));
        assert_eq!(fields, want, "{request}");
        if kept {
            is_kept_alive(&mut client);
        } else {
            client.expect_end();
        }
    }
}

#[test]
fn input_may_be_split_at_any_byte() {
    let server = Server::start();
    let status = "GET /_status HTTP/1.1\r\nHost: a\r\n\r\n";
    let mut frames = Vec::new();
    for text in [
        r#"{"type": "ping", "id": 1}"#,
        r#"{"type": "whoami", "id": 2}"#,
    ] {
        encode_client_frame(
            true,
            OpCode::Text,
            [1, 2, 3, 4],
            text.as_bytes(),
            &mut frames,
        );
    }
    let token = server.user("acct:joe@example.org");
    let with_token = HANDSHAKE.replace("/ws", &format!("/ws?access_token={token}"));
    for (handshake, userid) in [
        (HANDSHAKE, "null"),
        // The frames are buffered while the backend resolves the token.
        (&*with_token, "\"acct:joe@example.org\""),
    ] {
        let bytes = [
            status.as_bytes(),
            status.as_bytes(),
            handshake.as_bytes(),
            &frames,
        ];
        let bytes = bytes.concat();
        for size in [bytes.len(), 1] {
            let mut client = Client::raw(connect(server.address()));
            bytes.chunks(size).for_each(|chunk| client.send_raw(chunk));
            for want in [200, 200, 101] {
                assert_eq!(client.answer(false).unwrap().status(), want);
            }
            let whoyouare = format!(
                r#"{{"type": "whoyouare", "userid": {userid}, "ok": true, "reply_to": 2}}"#
            );
            for want in [r#"{"type": "pong", "ok": true, "reply_to": 1}"#, &whoyouare] {
                assert_eq!(client.receive(), Received::Text(want.to_owned()));
            }
        }
    }
}

#[test]
fn connection_over_the_limit_gets_503() {
    let server = Server::configured("[limits]\nconnections = 2\n");
    let mut open = [server.anonymous(), server.anonymous()];
    let (answer, mut client) = ask(&server, HANDSHAKE);
    let want = ("full", "The server takes no more connections now.");
    assert_eq!((answer.status(), error(&answer)), (503, want));
    assert_eq!(answer.field("Retry-After"), Some("5"));
    client.expect_end();
    // Reaching the limit must neither stop events nor block the admin interface.
    open[0].subscribe("/id", "a");
    let deleted = r#"{"topic":"annotation","action":"delete","annotation":{"id":"a","user":"acct:a@b","uri":"https://a.example/","permissions":{"read":["group:__world__"]}}}"#;
    assert_eq!(server.publish(deleted).1["matched"], 1);
    assert_eq!(open[0].json()["payload"][0]["id"], "a");
    assert_eq!(server.metric("h_realtime_connects_total"), 2.0);
    for client in &mut open {
        assert_eq!(client.drain(), []);
    }
}

fn ask(server: &Server, request: &str) -> (Answer, Client) {
    let mut client = Client::raw(connect(server.address()));
    client.send_raw(request.as_bytes());
    let answer = client.answer(false);
    let answer = answer.unwrap_or_else(|| panic!("no response to {request:?}"));
    let is_dated = answer
        .field("Date")
        .is_some_and(|date| date.ends_with(" GMT"));
    assert!(is_dated || answer.status() == 101, "{}", answer.head);
    (answer, client)
}

/// Returns the members of an error's body, which has no others.
fn error(answer: &Answer) -> (&str, &str) {
    let inner = answer.body.strip_prefix(r#"{"ok": false, "error": ""#);
    let inner = inner.and_then(|inner| inner.strip_suffix("\"}"));
    let parts = inner.and_then(|inner| inner.split_once(r#"", "reason": ""#));
    parts.unwrap_or_else(|| panic!("{}", answer.body))
}

fn is_kept_alive(client: &mut Client) {
    client.send_raw(b"GET /_status HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.answer(false).unwrap().status(), 200);
}

const HANDSHAKE: &str = "GET /ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
/// The accept value of the example in RFC 6455 §1.3.
const SWITCHING: &str = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                         Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
const BAD_HANDSHAKE: (&str, &str) = (
    "bad_handshake",
    "Handshake failed. Are you a WebSocket client?",
);
const NOT_FOUND: (&str, &str) = ("not_found", "These are not the droids you are looking for.");
