//! The rest of the admin listener: access, the page, health, and the recent events.

use std::io::{Read, Write};
use std::net::TcpStream;

use serde_json::{Value, json};

use crate::support::{PATIENCE, Server, eventually, http};

fn request(server: &Server, line: &str, fields: &str) -> (u16, String, String) {
    let request = format!("{line} HTTP/1.1\r\n{fields}Connection: close\r\n\r\n");
    http(server.admin, request.as_bytes())
}

fn get(server: &Server, path: &str) -> (u16, String, String) {
    let host = format!("Host: {}\r\n", server.admin);
    request(server, &format!("GET {path}"), &host)
}

/// Starts a server and waits until its backend is ready, which it is right after the start.
fn ready() -> Server {
    let server = Server::start();
    eventually(PATIENCE, || {
        (get(&server, "/readyz").0 == 200).then_some(())
    });
    server
}

#[test]
fn routes_and_methods() {
    let server = ready();
    let host = format!("Host: {}\r\n", server.admin);
    for (line, status, allow) in [
        ("GET /", 200, None),
        ("GET /?x=y", 200, None),
        ("GET /metrics", 200, None),
        ("GET /livez", 200, None),
        ("GET /readyz", 200, None),
        ("GET /page.css", 200, None),
        ("GET /overview.js", 200, None),
        ("GET /tail", 401, None),
        ("POST /tail", 405, Some("GET, HEAD")),
        ("POST /page.css", 405, Some("GET, HEAD")),
        ("GET /events", 405, Some("POST")),
        ("PUT /events", 405, Some("POST")),
        ("GET /explain", 405, Some("POST")),
        ("GET /explain.js", 200, None),
        ("POST /", 405, Some("GET, HEAD")),
        ("DELETE /metrics", 405, Some("GET, HEAD")),
        ("post /events", 405, Some("POST")),
        ("GET /ws", 404, None),
        ("GET /events/", 404, None),
        ("GET /metrics/", 404, None),
        ("GET //", 404, None),
        ("GET /index.html", 404, None),
    ] {
        let (found, head, _) = request(&server, line, &host);
        assert_eq!(found, status, "{line}");
        let field = head.lines().find_map(|field| field.strip_prefix("Allow: "));
        assert_eq!(field, allow, "{line}");
    }
    // Nor does this listener upgrade connections.
    let upgrade = format!(
        "{host}Upgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
         Sec-WebSocket-Version: 13\r\n"
    );
    assert_eq!(request(&server, "GET /ws", &upgrade).0, 404);
}

#[test]
fn head_response_has_the_fields_of_get() {
    let server = ready();
    let host = format!("Host: {}\r\n", server.admin);
    for path in ["/", "/page.css", "/livez", "/readyz", "/nothing"] {
        let (status, head, body) = get(&server, path);
        let expected = (status, head, String::new());
        let found = request(&server, &format!("HEAD {path}"), &host);
        assert_eq!(found, expected, "{path}");
        assert!(!body.is_empty());
    }
}

// CVE-2026-22689, CVE-2026-44514, CVE-2026-34403, CVE-2026-55883
#[test]
fn requests_from_other_origins_are_refused() {
    let server = Server::start();
    let (admin, port) = (server.admin, server.admin.port());
    let key = server.publish_key();
    let cases = [
        (format!("Host: {admin}\r\n"), true),
        (format!("Host: localhost:{port}\r\n"), true),
        (format!("Host: {admin}\r\nOrigin: http://{admin}\r\n"), true),
        (String::new(), false),
        ("Host: 127.0.0.1\r\n".into(), false),
        (format!("Host: example.org:{port}\r\n"), false),
        (format!("Host: {}\r\n", server.address()), false),
        (format!("Host: {admin}\r\nOrigin: null\r\n"), false),
        (
            format!("Host: {admin}\r\nOrigin: http://example.org\r\n"),
            false,
        ),
        (
            format!("Host: {admin}\r\nOrigin: http://localhost:{port}\r\n"),
            false,
        ),
        (
            format!("Host: {admin}\r\nOrigin: http://{}\r\n", server.address()),
            false,
        ),
    ];
    for (fields, good) in cases {
        // Without Host, it is no request of HTTP/1.1.
        let refused = if fields.is_empty() { 400 } else { 403 };
        // Even with the right key.
        let fields = format!("{fields}Authorization: Bearer {key}\r\n");
        for (line, status) in [("GET /metrics", 200), ("GET /", 200), ("POST /events", 411)] {
            let (found, head, _) = request(&server, line, &fields);
            let expected = if good { status } else { refused };
            assert_eq!(found, expected, "{line}\r\n{fields}");
            assert!(!head.to_lowercase().contains("access-control"), "{head}");
        }
    }
}

#[test]
fn refusals_end_the_connection() {
    let server = Server::start();
    let own = format!("Host: {}\r\n", server.admin);
    for (line, fields, status) in [
        ("GET /metrics", "Host: example.org\r\n", 403),
        ("GET /tail", &*own, 401),
        ("POST /events", &*own, 401),
    ] {
        // Only the server ends the connection.
        let request = format!("{line} HTTP/1.1\r\n{fields}\r\n");
        let (found, head, _) = http(server.admin, request.as_bytes());
        assert_eq!(found, status, "{line}");
        assert_eq!(field(&head, "Connection"), Some("close"), "{line}");
    }
}

/// Opens connections that have been answered, or have sent an incomplete head or nothing.
fn idle_connections(server: &Server, count: usize) -> Vec<TcpStream> {
    let whole = format!("GET /livez HTTP/1.1\r\nHost: {}\r\n\r\n", server.admin);
    let begun = ["", "GET /livez HTTP/1.1\r\nA: ", &*whole];
    let connect = |number: usize| {
        let mut stream = TcpStream::connect(server.admin).unwrap();
        stream.write_all(begun[number % 3].as_bytes()).unwrap();
        stream
    };
    (0..count).map(connect).collect()
}

// A8
#[test]
fn idle_connections_do_not_keep_requests_from_being_served() {
    let server = ready();
    let idle = idle_connections(&server, 900);
    for path in ["/livez", "/readyz", "/metrics", "/"] {
        assert_eq!(get(&server, path).0, 200, "{path}");
    }
    assert_eq!(server.publish("").0, 400);
    let ended = server.metric("h_realtime_evictions_total{limit=\"admin\"}");
    assert!(ended > 600.0, "{ended}");
    let full = server.metric("h_realtime_handshake_failures_total{reason=\"full\"}");
    assert_eq!(full, 0.0);
    drop(idle);
}

/// Sends a publish request, and returns the status of the response.
fn publish_over(stream: &mut TcpStream, server: &Server, key: &str) -> String {
    let event = json!({"topic": "annotation", "action": "update", "annotation": {
        "id": "A", "user": "acct:joe@example.org", "uri": "https://example.org/",
        "permissions": {"read": ["group:__world__"]}}})
    .to_string();
    let request = format!(
        "POST /events HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {key}\r\nContent-Length: {}\r\n\r\n{event}",
        server.admin,
        event.len()
    );
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = [0; 4096];
    let length = stream.read(&mut answer).unwrap();
    String::from_utf8_lossy(&answer[..length])
        .chars()
        .take(12)
        .collect()
}

#[test]
fn publishers_pool_of_100_connections_survives_other_connections() {
    let server = ready();
    let key = server.publish_key();
    let mut pool: Vec<_> = (0..100)
        .map(|_| {
            let stream = TcpStream::connect(server.admin).unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            stream
        })
        .collect();
    for round in 0..3 {
        for stream in &mut pool {
            let status = publish_over(stream, &server, &key);
            assert_eq!(status, "HTTP/1.1 202", "{round}");
        }
        drop(idle_connections(&server, 300));
        let idle = idle_connections(&server, 300);
        assert_eq!(get(&server, "/livez").0, 200);
        drop(idle);
    }
}

#[test]
fn page_is_self_contained_and_restricted_by_csp() {
    let server = Server::start();
    let (status, head, page) = get(&server, "/");
    assert_eq!(status, 200);
    let policy = field(&head, "Content-Security-Policy").unwrap();
    assert!(
        policy.starts_with("default-src 'none';") && !policy.contains("unsafe"),
        "{policy}"
    );
    assert!(
        page.contains(&server.listeners[0]),
        "the page does not contain the address to connect to"
    );
    assert!(!page.contains(&server.publish_key()));
    let quoted = |before: &str| -> Vec<String> {
        let parts = page.split(before).skip(1);
        parts
            .map(|rest| rest.split('"').next().unwrap().to_owned())
            .collect()
    };
    let parts = [quoted("src=\""), quoted("rel=\"stylesheet\" href=\"")].concat();
    assert_eq!(parts.len(), 5);
    let mut texts = vec![(head, page.clone())];
    for part in parts {
        let (status, head, text) = get(&server, &part);
        assert_eq!(status, 200, "{part}");
        let kind = match part.rsplit_once('.').unwrap().1 {
            "css" => "text/css; charset=utf-8",
            _ => "text/javascript; charset=utf-8",
        };
        assert_eq!(field(&head, "Content-Type"), Some(kind), "{part}");
        texts.push((head, text));
    }
    for (head, text) in texts {
        assert_eq!(field(&head, "Cache-Control"), Some("no-store"));
        assert_eq!(field(&head, "X-Content-Type-Options"), Some("nosniff"));
        for outside in [
            "@import",
            "url(",
            "href=\"http",
            "src=\"http",
            "<base",
            "innerHTML",
            "style=\"",
        ] {
            assert!(!text.contains(outside), "{outside}");
        }
    }
}

#[test]
fn recent_events_need_the_key_and_omit_content() {
    let server = ready();
    let key = server.publish_key();
    let tail = |key: &str, query: &str| {
        let fields = format!("Host: {}\r\nAuthorization: Bearer {key}\r\n", server.admin);
        let (status, head, body) = request(&server, &format!("GET /tail{query}"), &fields);
        assert_eq!(
            field(&head, "Cache-Control"),
            (status == 200).then_some("no-store")
        );
        (status, serde_json::from_str::<Value>(&body).unwrap())
    };
    assert_eq!(tail("wrong", "").0, 401);
    assert_eq!(tail(&key, ""), (200, json!({"last": 0, "events": []})));
    let mut reader = server.anonymous();
    reader.subscribe("/group", "__world__");
    let event = json!({"topic": "annotation", "action": "update", "annotation": {
        "id": "A", "user": "acct:joe@example.org", "uri": "https://example.org/", "text": "secret",
        "permissions": {"read": ["group:__world__"]}}});
    server.publish(&event.to_string());
    server.publish(&event.to_string());
    let (status, mut told) = tail(&key, "");
    assert_eq!((status, &told["last"]), (200, &json!(2)));
    let first = told["events"][0].as_object_mut().unwrap();
    assert!(first.remove("time").unwrap().as_u64().unwrap() > 1_600_000_000_000);
    let expected =
        json!({"number": 1, "action": "update", "id": "A", "group": "__world__", "matched": 1});
    assert_eq!(Value::from(first.clone()), expected);
    let (_, newer) = tail(&key, "?after=1");
    assert_eq!(newer["events"].as_array().unwrap().len(), 1);
    assert_eq!(tail(&key, "?after=2").1["events"], json!([]));
    assert_eq!(tail(&key, "?after=nonsense").1["last"], 2);
    assert_eq!(
        server.metric("h_realtime_publish_refusals_total{reason=\"key\"}"),
        1.0
    );
}

fn field<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let mut lines = head.lines();
    lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
}

#[test]
fn metrics_key_equal_to_publish_key_causes_a_warning() {
    let mut server = Server::start();
    assert!(!server.log().contains("metrics_key"), "{}", server.log());
    let file = server.data().join("publish.key");
    std::fs::write(file, crate::support::METRICS_KEY).unwrap();
    server.restart();
    server.log_with("metrics_key equals the publish key");
}
