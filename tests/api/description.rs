//! The descriptions of the server for programs: `GET /ws` as JSON, and `/asyncapi.yaml`.

use std::net::SocketAddr;

use serde_json::{Value, json};

use crate::support::{Server, http};

fn get(address: SocketAddr, method: &str, path: &str, fields: &str) -> (u16, String, String) {
    let request =
        format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{fields}\r\n");
    http(address, request.as_bytes())
}

fn field<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let prefix = format!("{name}: ");
    head.lines().find_map(|line| line.strip_prefix(&*prefix))
}

const JSON: &str = "Accept: application/json\r\n";

#[test]
fn description_has_the_configured_limits_and_the_history() {
    let server = Server::configured(
        "[limits]\nmessage = \"32 KiB\"\nfilter_terms = 300\n[history]\nwindow = \"1 h\"\nmemory = \"1 MiB\"\n",
    );
    server.wait_until_ready();
    let (status, head, body) = get(server.address(), "GET", "/ws", JSON);
    assert_eq!(status, 200, "{head}");
    assert_eq!(field(&head, "Content-Type"), Some("application/json"));
    assert_eq!(field(&head, "Access-Control-Allow-Origin"), Some("*"));
    let described: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(described["name"], "h-realtime");
    assert_eq!(described["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(described["transports"]["websocket"], "/ws");
    assert_eq!(described["transports"]["sse"], "/sse");
    let limits = json!({"message_bytes": 32768, "id_characters": 256, "filter_values": 300,
        "filter_clauses": 300});
    assert_eq!(described["limits"], limits);
    assert_eq!(described["history"]["window_seconds"], 3600);
    assert_eq!(described["history"]["memory_bytes"], 1 << 20);

    // The oldest cursor is valid.
    let oldest = described["history"]["oldest"].as_str().unwrap();
    let mut client = server.anonymous();
    client.send(
        &json!({"type": "filter", "id": 1, "since": oldest,
            "filter": {"match_policy": "include_any", "clauses": [], "actions": {}}})
        .to_string(),
    );
    let reply = client.json();
    assert_eq!(reply["recovered"], true, "{reply}");

    let (_, same, nothing) = get(server.address(), "HEAD", "/ws", JSON);
    assert_eq!(nothing, "");
    assert_eq!(
        field(&same, "Content-Length"),
        field(&head, "Content-Length")
    );
    let tag = format!("{JSON}If-None-Match: {}\r\n", field(&head, "ETag").unwrap());
    let (status, _, nothing) = get(server.address(), "GET", "/ws", &tag);
    assert_eq!((status, &*nothing), (304, ""));
}

// RFC 9110 §13.1, §15.4.5
#[test]
fn conditions_are_evaluated_and_304_keeps_the_fields_for_caches() {
    let server = Server::start();
    // The oldest cursor, which is known then, is a part of the description.
    server.wait_until_ready();
    for (path, accept) in [("/ws", JSON), ("/asyncapi.yaml", "")] {
        let (_, head, _) = get(server.address(), "GET", path, accept);
        let tag = field(&head, "ETag").unwrap();
        assert_eq!(field(&head, "Vary"), (path == "/ws").then_some("Accept"));
        for method in ["GET", "HEAD"] {
            let fields = format!("{accept}If-None-Match: {tag}\r\n");
            let (status, unchanged, body) = get(server.address(), method, path, &fields);
            assert_eq!((status, &*body), (304, ""), "{path}");
            for name in ["ETag", "Cache-Control", "Vary", "Content-Length"] {
                assert_eq!(field(&unchanged, name), field(&head, name), "{path} {name}");
            }
            assert!(field(&unchanged, "Date").is_some());
            assert_eq!(field(&unchanged, "Content-Type"), None);
        }
        let fields = format!("{accept}If-Match: {tag}\r\n");
        assert_eq!(get(server.address(), "GET", path, &fields).0, 200);
        let fields = format!("{accept}If-Match: \"other\"\r\n");
        let (status, _, body) = get(server.address(), "GET", path, &fields);
        assert_eq!(status, 412, "{path}");
        assert!(body.contains("precondition_failed"), "{body}");
    }
}

#[test]
fn request_that_does_not_name_json_is_an_invalid_handshake() {
    let server = Server::start();
    for fields in ["", "Accept: */*\r\n", "Accept: text/html\r\n"] {
        let (status, _, body) = get(server.address(), "GET", "/ws", fields);
        assert_eq!(status, 400, "{fields}");
        assert!(body.contains("bad_handshake"), "{body}");
    }
    let upgrade = format!("{JSON}Upgrade: websocket\r\n");
    assert_eq!(get(server.address(), "GET", "/ws", &upgrade).0, 400);
    assert_eq!(get(server.address(), "POST", "/ws", JSON).0, 400);
}

#[test]
fn document_is_served_by_both_listeners() {
    let server = Server::start();
    let document = include_str!("../../docs/asyncapi.yaml");
    for (address, host) in [
        (server.address(), "localhost".to_owned()),
        (server.admin, server.admin.to_string()),
    ] {
        let request =
            format!("GET /asyncapi.yaml HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        let (status, head, body) = http(address, request.as_bytes());
        assert_eq!(status, 200, "{head}");
        assert_eq!(field(&head, "Content-Type"), Some("application/yaml"));
        assert!(body == document, "the document differs");
    }
    let (status, head, _) = get(server.address(), "POST", "/asyncapi.yaml", "");
    assert_eq!((status, field(&head, "Allow")), (405, Some("GET, HEAD")));
}
