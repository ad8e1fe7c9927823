//! The origins of pages that may open a WebSocket.

use std::net::SocketAddr;

use serde_json::json;
use tempfile::TempDir;

use crate::support::{Client, Server, http};

const ALLOWED: &str = "origins = [\"https://good.example\", \"http://localhost:8080\", \"chrome-extension://abcdef\"]";

fn status(address: SocketAddr, path: &str, fields: &str) -> String {
    let client = Client::try_open(address, path, fields);
    client.head.get(9..12).unwrap_or_default().to_owned()
}

// CSWSH
#[test]
fn only_listed_origins_and_clients_without_origin_connect() {
    let server = Server::configured(ALLOWED);
    let good = [
        "",
        "Origin: https://good.example\r\n",
        "Origin: HTTPS://GOOD.example\r\n",
        "Origin: https://good.example:443\r\n",
        "Origin: http://localhost:8080\r\n",
        "Origin: chrome-extension://abcdef\r\n",
    ];
    for fields in good {
        assert_eq!(status(server.address(), "/ws", fields), "101", "{fields}");
    }
    let bad = [
        "Origin: \r\n",
        "Origin: null\r\n",
        "Origin: *\r\n",
        "Origin: http://good.example\r\n",
        "Origin: https://good.example:8443\r\n",
        "Origin: https://good.example.evil.example\r\n",
        "Origin: https://evilgood.example\r\n",
        "Origin: https://evil.example/https://good.example\r\n",
        "Origin: https://good.example@evil.example\r\n",
        "Origin: https://good.example https://evil.example\r\n",
        "Origin: https://sub.good.example\r\n",
        "Origin: https://good.example/\r\n",
        "Origin: https://127.0.0.1\r\n",
        "Origin: http://localhost\r\n",
        "Origin: moz-extension://abcdef\r\n",
        "Origin: https://g\u{f8}od.example\r\n",
        "Origin: https://good.example\r\nOrigin: https://good.example\r\n",
        "Origin: https://good.example\r\nOrigin: https://evil.example\r\n",
    ];
    for fields in bad {
        assert_eq!(status(server.address(), "/ws", fields), "403", "{fields}");
    }
    let refused = server.metric("h_realtime_handshake_failures_total{reason=\"origin\"}");
    assert_eq!(refused, bad.len() as f64);
}

#[test]
fn refused_origin_gets_403_with_any_token() {
    let server = Server::configured(ALLOWED);
    let token = server.user("acct:me@example.org");
    let mut client = Client::raw(crate::support::connect(server.address()));
    let fields = "Origin: https://evil.example\r\n";
    client.request_websocket(&format!("/ws?access_token={token}"), fields);
    let answer = client.answer(false).unwrap();
    let body: serde_json::Value = serde_json::from_str(&answer.body).unwrap();
    let reason = "Pages of this origin may not connect.";
    assert_eq!(answer.status(), 403);
    assert_eq!(
        body,
        json!({"ok": false, "error": "forbidden_origin", "reason": reason})
    );
    assert_eq!(answer.field("Content-Type"), Some("application/json"));
    // A proxy may treat the connection as a tunnel now.
    client.expect_end();
}

#[test]
fn origins_only_apply_to_websockets() {
    let server = Server::configured(ALLOWED);
    let foreign = "Origin: https://evil.example\r\n";
    let status_of = |line: &str, host: &str, address, fields: &str| {
        let request =
            format!("{line} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{fields}\r\n");
        http(address, request.as_bytes()).0
    };
    let public = server.address();
    assert_eq!(status_of("GET /_status", "a", public, foreign), 200);
    assert_eq!(status_of("GET /nothing", "a", public, foreign), 404);
    assert_eq!(status_of("GET /ws", "a", public, foreign), 400);
    // The admin listener has its own rules.
    let host = server.admin.to_string();
    let own = format!("Origin: http://{host}\r\n");
    assert_eq!(status_of("GET /", &host, server.admin, &own), 200);
    let listed = "Origin: https://good.example\r\n";
    assert_eq!(status_of("GET /", &host, server.admin, listed), 403);
}

#[test]
fn flag_sets_origins_and_default_allows_all() {
    let flags = [
        "--listen",
        "ws://127.0.0.1:0",
        "--origin",
        "https://a.example",
    ];
    let server = Server::in_folder(TempDir::new().unwrap(), &flags, ALLOWED);
    for (origin, want) in [
        ("https://a.example", "101"),
        ("https://good.example", "403"),
    ] {
        let fields = format!("Origin: {origin}\r\n");
        assert_eq!(status(server.address(), "/ws", &fields), want, "{origin}");
    }
    let server = Server::start();
    for origin in ["https://evil.example", "null", "nonsense"] {
        let fields = format!("Origin: {origin}\r\n");
        assert_eq!(status(server.address(), "/ws", &fields), "101", "{origin}");
    }
}
