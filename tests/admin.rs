//! The rest of the admin listener: who may talk to it, the page, health, and metrics that a
//! strict reader of Prometheus' format understands.

mod support;

use std::collections::{BTreeMap, BTreeSet};

use serde_json::json;
use support::{PATIENCE, Server, eventually, http};

fn request(server: &Server, line: &str, fields: &str) -> (u16, String, String) {
    let request = format!("{line} HTTP/1.1\r\n{fields}Connection: close\r\n\r\n");
    http(server.admin, request.as_bytes())
}

fn get(server: &Server, path: &str) -> (u16, String, String) {
    let host = format!("Host: {}\r\n", server.admin);
    request(server, &format!("GET {path}"), &host)
}

/// A server whose back end has said that it is there, which it does right after the start.
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
        ("GET /events", 405, Some("POST")),
        ("PUT /events", 405, Some("POST")),
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
    // An upgrade is not for this listener either.
    let upgrade = format!(
        "{host}Upgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
         Sec-WebSocket-Version: 13\r\n"
    );
    assert_eq!(request(&server, "GET /ws", &upgrade).0, 404);
}

#[test]
fn what_a_get_would_say_of_itself_a_head_says_too() {
    let server = ready();
    let host = format!("Host: {}\r\n", server.admin);
    for path in ["/", "/livez", "/readyz", "/nothing"] {
        let (status, head, body) = get(&server, path);
        let expected = (status, head, String::new());
        let found = request(&server, &format!("HEAD {path}"), &host);
        assert_eq!(found, expected, "{path}");
        assert!(!body.is_empty());
    }
}

// CVE-2026-22689, CVE-2026-44514, CVE-2026-34403, CVE-2026-55883
#[test]
fn another_sites_page_is_refused() {
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
        // Even with the right key.
        let fields = format!("{fields}Authorization: Bearer {key}\r\n");
        for (line, status) in [("GET /metrics", 200), ("GET /", 200), ("POST /events", 400)] {
            let (found, head, _) = request(&server, line, &fields);
            let expected = if good { status } else { 403 };
            assert_eq!(found, expected, "{line}\r\n{fields}");
            assert!(!head.to_lowercase().contains("access-control"), "{head}");
        }
    }
}

#[test]
fn the_page_is_one_file_that_may_do_little() {
    let server = Server::start();
    let (status, head, page) = get(&server, "/");
    assert_eq!(status, 200);
    for field in [
        "Content-Type: text/html; charset=utf-8",
        "Cache-Control: no-store",
        "Content-Security-Policy: default-src 'none';",
        "X-Content-Type-Options: nosniff",
    ] {
        assert!(head.contains(field), "{field}: {head}");
    }
    assert!(
        page.contains(&server.listeners[0]),
        "the page does not know where to connect"
    );
    for outside in ["src=", "@import", "url(", "href=\"http", "<base"] {
        assert!(!page.contains(outside), "{outside}");
    }
    assert!(!page.contains(&server.publish_key()));
}

// CVE-2026-33247
#[test]
fn metrics_are_prometheus_text_and_count() {
    let server = Server::start();
    let before = parse(&get(&server, "/metrics").2);
    let token = server.user("acct:me@example.org");
    let mut me = server.logged_in(&token);
    let mut other = server.anonymous();
    me.subscribe("/group", "__world__");
    other.subscribe("/group", "__world__");
    other.close(1000, "");
    other.receive();
    let event = json!({"topic": "annotation", "action": "create", "annotation": {
        "id": "A", "user": "acct:a@b", "uri": "https://example.org/",
        "permissions": {"read": ["group:__world__"]}}});
    server.publish(&event.to_string());
    assert_eq!(me.drain().len(), 1);

    let (status, head, text) = get(&server, "/metrics");
    assert_eq!(status, 200);
    assert!(head.contains("Content-Type: text/plain; version=0.0.4; charset=utf-8"));
    assert!(!text.contains(&token) && !text.contains(&server.publish_key()));
    let after = parse(&text);
    for (name, value) in [
        ("h_realtime_connections{state=\"open\"}", 1.0),
        ("h_realtime_connections_logged_in", 1.0),
        ("h_realtime_users", 1.0),
        ("h_realtime_connects_total", 2.0),
        ("h_realtime_disconnects_total{reason=\"client\"}", 1.0),
        ("h_realtime_authentications_total{result=\"known\"}", 1.0),
        ("h_realtime_authentications_total{result=\"none\"}", 1.0),
        ("h_realtime_client_messages_total{type=\"filter\"}", 2.0),
        ("h_realtime_events_received_total{kind=\"create\"}", 1.0),
        ("h_realtime_events_matched_total", 1.0),
        ("h_realtime_notifications_sent_total", 1.0),
        ("h_realtime_subscriptions", 1.0),
        ("h_realtime_backend_ready", 1.0),
    ] {
        assert_eq!(after.get(name), Some(&value), "{name}");
    }
    // A series that appears only once it has counted would be missed by whoever watches it.
    let names = |samples: &BTreeMap<String, f64>| samples.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&before), names(&after));
    for (name, value) in &before {
        let grows = name.contains("_total");
        assert!(!grows || after[name] >= *value, "{name}");
    }
}

/// The samples of a text in the exposition format 0.0.4, by name and labels. Stricter than
/// Prometheus: every family must be whole, described and named by the conventions.
fn parse(text: &str) -> BTreeMap<String, f64> {
    assert!(text.ends_with('\n'), "the last line has no end");
    let mut samples = BTreeMap::new();
    let mut families = BTreeSet::new();
    let (mut described, mut family) = (None, None);
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').unwrap();
            assert!(is_name(name) && !help.is_empty(), "{line}");
            assert!(families.insert(name), "a second family {name}");
            described = Some(name);
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            assert_eq!(described.take(), Some(name), "{line}");
            assert!(["counter", "gauge"].contains(&kind), "{line}");
            assert_eq!(name.ends_with("_total"), kind == "counter", "{line}");
            family = Some(name);
        } else {
            let (name, labels, value) = sample(line);
            assert_eq!(family, Some(name), "{line}");
            let value: f64 = value.parse().unwrap();
            assert!(value.is_finite() && value >= 0.0, "{line}");
            let series = format!("{name}{labels}");
            assert_eq!(samples.insert(series, value), None, "twice: {line}");
        }
    }
    assert!(!samples.is_empty());
    samples
}

/// Name, labels with their braces, and value.
fn sample(line: &str) -> (&str, &str, &str) {
    let end = line.find(['{', ' ']).unwrap();
    let (name, rest) = line.split_at(end);
    assert!(is_name(name), "{line}");
    let (labels, value) = match rest.find('}') {
        Some(end) => rest.split_at(end + 1),
        None => ("", rest),
    };
    for label in labels
        .trim_matches(['{', '}'])
        .split(',')
        .filter(|label| !label.is_empty())
    {
        let (name, value) = label.split_once('=').unwrap();
        let inner = value
            .strip_prefix('"')
            .and_then(|value| value.strip_suffix('"'));
        assert!(is_name(name) && !name.contains(':'), "{line}");
        assert!(
            inner.is_some_and(|text| !text.contains(['"', '\\'])),
            "{line}"
        );
    }
    let value = value.strip_prefix(' ').unwrap();
    assert!(!value.contains(' '), "{line}");
    (name, labels, value)
}

fn is_name(name: &str) -> bool {
    let is_letter = |c: char| c.is_ascii_alphabetic() || c == '_' || c == ':';
    name.starts_with(is_letter) && name.chars().all(|c| is_letter(c) || c.is_ascii_digit())
}
