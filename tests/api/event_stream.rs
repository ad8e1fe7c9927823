//! Event streams over a server process: the contract of delivery, and every end.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::{Client, EventStream, PATIENCE, Server, event, eventually, filter, http};

const PAGE: &str = "uri=https://example.org/page";

fn publish(server: &Server, id: &str) {
    let body = event("create", json!({"id": id})).to_string();
    let (status, answer) = server.publish(&body);
    assert_eq!(status, 202, "{answer}");
}

fn id_of(event: &Value) -> &str {
    event["payload"][0]["id"].as_str().unwrap_or_default()
}

fn next_id(stream: &mut EventStream) -> String {
    let (kind, event) = stream.event().expect("an event");
    assert_eq!(kind, "message");
    assert_eq!(event["type"], "annotation-notification");
    id_of(&event).to_owned()
}

// S1
#[test]
fn stream_carries_the_notifications_of_a_web_socket() {
    let server = Server::start();
    let mut client = server.anonymous();
    client.subscribe("/uri", "https://example.org/page");
    let mut stream = server.event_stream(PAGE);
    stream.wait_for_position();
    for field in [
        "Content-Type: text/event-stream; charset=utf-8",
        "Cache-Control: no-cache",
        "X-Accel-Buffering: no",
        "Access-Control-Allow-Origin: *",
        "Connection: close",
    ] {
        assert!(stream.head.contains(field), "{field} in {}", stream.head);
    }
    let text = "two\nlines, \r\n, \u{2028} and data: x";
    for action in ["create", "update", "delete"] {
        let body = event(action, json!({"text": text})).to_string();
        assert_eq!(server.publish(&body).1["matched"], 2);
        let (kind, got) = stream.event().unwrap();
        assert_eq!(kind, "message");
        assert_eq!(got, client.json());
        assert_eq!(got["options"]["action"], action);
    }
    assert_eq!(server.metric("h_realtime_event_streams"), 1.0);
    drop(stream);
    eventually(PATIENCE, || {
        (server.metric("h_realtime_event_streams") == 0.0).then_some(())
    });
    let left = r#"h_realtime_disconnects_total{reason="client"}"#;
    assert_eq!(server.metric(left), 1.0);
}

#[test]
fn position_moves_between_transports() {
    let server = Server::start();
    let mut stream = server.event_stream(PAGE);
    stream.wait_for_position();
    publish(&server, "one");
    assert_eq!(next_id(&mut stream), "one");
    let position = stream.last_event_id.clone();
    publish(&server, "two");
    // To a WebSocket.
    let mut client = server.anonymous();
    let mut message = filter(json!([{"field": "/uri", "value": "https://example.org/page"}]));
    message["since"] = json!(position);
    client.send(&message.to_string());
    let got = client.json();
    assert_eq!(id_of(&got), "two");
    // And back.
    publish(&server, "three");
    let cursor = got["cursor"].as_str().unwrap();
    let mut stream = server.event_stream(&format!("{PAGE}&last_event_id={cursor}"));
    assert_eq!(next_id(&mut stream), "three");
}

#[test]
fn reconnecting_client_misses_nothing_across_restarts() {
    let mut server = Server::start();
    let mut stream = server.event_stream(PAGE);
    let mut position = stream.wait_for_position();
    for number in 0..3 {
        publish(&server, &format!("live {number}"));
        assert_eq!(next_id(&mut stream), format!("live {number}"));
        position.clone_from(&stream.last_event_id);
        drop(stream);
        publish(&server, &format!("missed {number}"));
        server.restart();
        server.wait_until_ready();
        let fields = format!("Last-Event-ID: {position}\r\n");
        stream = EventStream::open(server.address(), PAGE, &fields);
        assert_eq!(next_id(&mut stream), format!("missed {number}"));
    }
}

#[test]
fn gap_is_reported_as_an_event() {
    let server = Server::configured("[history]\nmemory = \"0\"\n");
    let mut stream = server.event_stream(PAGE);
    let position = stream.wait_for_position();
    publish(&server, "lost");
    drop(stream);
    let mut stream = server.event_stream(&format!("{PAGE}&last_event_id={position}"));
    let (kind, gap) = stream.event().unwrap();
    assert_eq!(kind, "recovery");
    assert_eq!(
        (&gap["type"], &gap["recovered"]),
        (&json!("recovery"), &json!(false))
    );
    assert!(gap["oldest"].is_string());
    assert_ne!(stream.last_event_id, position);
    publish(&server, "new");
    assert_eq!(next_id(&mut stream), "new");
}

#[test]
fn every_parameter_selects_annotations() {
    let server = Server::start();
    let annotation = json!({
        "id": "it", "user": "acct:Jo.Ann@example.org", "group": "__world__", "tags": ["Tides"],
        "references": ["root"],
    });
    let matching = [
        "uri=https://example.org/page",
        "uri=http://example.org/page%23part",
        "group=__world__",
        "id=it",
        "references=root",
        "user=acct:jo.ann@example.org",
        "tag=tides",
        "wildcard_uri=https://example.org/p*",
        "tag=tides&tag=moon&user=acct:jo.ann@example.org",
        "tag=tides&not_user=acct:other@example.org",
        "tag=moon&id=it&match=any",
        "id=it&actions=create",
    ];
    let others = [
        "uri=https://example.org/other",
        "tag=moon",
        "tag=tides&user=acct:other@example.org",
        "tag=tides&not_id=it",
        "tag=tides&not_wildcard_uri=https://example.org/p*",
        "id=it&actions=update,delete",
    ];
    let open = |query: &&str| {
        let mut stream = server.event_stream(query);
        stream.wait_for_position();
        stream
    };
    let mut streams: Vec<_> = matching.iter().map(open).collect();
    let others: Vec<_> = others.iter().map(open).collect();
    let (_, answer) = server.publish(&event("create", annotation).to_string());
    assert_eq!(answer["matched"], matching.len());
    for stream in &mut streams {
        assert_eq!(next_id(stream), "it");
    }
    drop(others);
}

#[test]
fn silent_stream_gets_comments() {
    let server = Server::configured("[timeouts]\nping = \"1s\"\n");
    let mut stream = server.event_stream(PAGE);
    stream.wait_for_position();
    for _ in 0..3 {
        let fields = stream.block().unwrap();
        // Empty, or a mark.
        assert_eq!(fields[0].0, "", "{fields:?}");
        assert!(fields.iter().all(|(name, _)| name != "data"), "{fields:?}");
    }
    assert!(server.metric("h_realtime_comments_sent_total") >= 3.0);
}

#[test]
fn shutdown_ends_the_stream_with_a_reconnection_time() {
    let mut server = Server::configured("[timeouts]\ndrain = \"1s\"\n");
    server.wait_until_ready();
    let mut stream = server.event_stream(PAGE);
    stream.wait_for_position();
    stream.retry = None;
    server.signal(Signal::TERM);
    let (kind, close) = stream.event().unwrap();
    assert_eq!(kind, "close");
    assert_eq!(close, json!({"code": 1012, "reason": "service restart"}));
    assert!((1000..10_000).contains(&stream.retry.unwrap()));
    stream.expect_end();
    assert_eq!(server.wait().1, Some(0));
}

// S7
#[test]
fn ended_token_ends_the_stream_and_is_then_refused() {
    let server = Server::start();
    let token = server.user("acct:me@example.org");
    let fields = format!("Authorization: Bearer {token}\r\n");
    let mut by_header = EventStream::open(server.address(), PAGE, &fields);
    let mut by_query = server.event_stream(&format!("{PAGE}&access_token={token}"));
    for stream in [&mut by_header, &mut by_query] {
        stream.wait_for_position();
    }
    let body = event(
        "create",
        json!({"id": "own", "user": "acct:me@example.org",
               "permissions": {"read": ["acct:me@example.org"]}}),
    );
    assert_eq!(server.publish(&body.to_string()).1["matched"], 2);
    server.run(&["user", "delete", "acct:me@example.org"]);
    for stream in [&mut by_header, &mut by_query] {
        assert_eq!(next_id(stream), "own");
        let (kind, close) = stream.event().unwrap();
        assert_eq!(kind, "close");
        assert_eq!(close["code"], 3000);
        stream.expect_end();
    }
    let refused = EventStream::try_open(server.address(), PAGE, &fields);
    assert_eq!(refused.status(), 401);
    assert!(refused.head.contains("Access-Control-Allow-Origin: *"));
    for query in ["&access_token=", "&access_token=unknown"] {
        let refused = EventStream::try_open(server.address(), &format!("{PAGE}{query}"), "");
        assert_eq!(refused.status(), 401, "{query}");
    }
}

#[test]
fn full_server_answers_with_a_reconnection_time() {
    let server = Server::configured("[limits]\nconnections = 2\n");
    let clients: Vec<Client> = (0..2).map(|_| server.anonymous()).collect();
    let mut refused = EventStream::try_open(server.address(), PAGE, "");
    assert_eq!(refused.status(), 200);
    assert!(
        refused.head.contains("Connection: close"),
        "{}",
        refused.head
    );
    let comment = refused.block().unwrap();
    assert_eq!(comment[0].0, "", "{comment:?}");
    assert!((5000..30_000).contains(&refused.retry.unwrap()));
    refused.expect_end();
    // Other requests are still refused with an error.
    let other = Client::try_open(server.address(), "/ws", "");
    assert!(other.head.starts_with("HTTP/1.1 503 "), "{}", other.head);
    drop(clients);
}

// S6
#[test]
fn slow_reader_is_ended() {
    let config =
        "[limits]\nqueue_soft = \"4KiB\"\nqueue_hard = \"8KiB\"\n[timeouts]\nslow = \"1s\"\n";
    let server = Server::configured(config);
    let mut stream = server.event_stream(PAGE);
    stream.wait_for_position();
    let text = "x".repeat(100_000);
    // More than the buffers of both kernels.
    eventually(3 * PATIENCE, || {
        let body = event("create", json!({"text": text})).to_string();
        server.publish(&body);
        let slow = r#"h_realtime_disconnects_total{reason="slow"}"#;
        (server.metric(slow) == 1.0).then_some(())
    });
    let mut bytes = Vec::new();
    // A reset follows the close timeout at the latest.
    let _ = stream.stream.read_to_end(&mut bytes);
    let eventual = server.metric("h_realtime_event_streams");
    assert_eq!(eventual, 0.0);
}

// S4
#[test]
fn unread_input_and_pipelined_requests_are_ignored() {
    let server = Server::start();
    let mut stream = server.event_stream(PAGE);
    stream.wait_for_position();
    let request = b"GET /_status HTTP/1.1\r\nHost: a\r\n\r\n".repeat(2000);
    stream.stream.write_all(&request).unwrap();
    publish(&server, "one");
    assert_eq!(next_id(&mut stream), "one");
    assert_eq!(server.metric("h_realtime_unfinished_bytes"), 0.0);
}

#[test]
fn invalid_requests_are_refused_with_the_parameter() {
    let server = Server::start();
    let many: String = (0..201).map(|id| format!("&id={id}")).collect();
    for (query, status, expected) in [
        ("", 400, ["invalid_parameter", "uri"]),
        ("uri=a&colour=red", 400, ["invalid_parameter", "colour"]),
        ("uri=http://[", 400, ["invalid_parameter", "uri"]),
        (
            "wildcard_uri=ht*p://a",
            400,
            ["invalid_parameter", "wildcard_uri"],
        ),
        ("uri=a&match=maybe", 400, ["invalid_parameter", "match"]),
        ("uri=a&actions=purge", 400, ["invalid_parameter", "actions"]),
        ("uri=a&since=x", 400, ["invalid_cursor", "since"]),
        (
            "uri=a&last_event_id=AQ",
            400,
            ["invalid_cursor", "last_event_id"],
        ),
        (&many[1..], 400, ["invalid_parameter", "id"]),
        ("uri=a&%zz=%zz", 400, ["invalid_parameter", "%zz"]),
    ] {
        let request = format!("GET /sse?{query} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        let (got, head, body) = http(server.address(), request.as_bytes());
        assert_eq!(got, status, "{query:.60}: {body}");
        assert!(head.contains("Access-Control-Allow-Origin: *"), "{head}");
        let body: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(body["ok"], false);
        assert_eq!(
            [&body["error"], &body["parameter"]],
            expected,
            "{query:.60}"
        );
        assert!(!body["reason"].as_str().unwrap().is_empty());
    }
    let reason = r#"h_realtime_handshake_failures_total{reason="parameters"}"#;
    assert_eq!(server.metric(reason), 10.0);
}

#[test]
fn other_methods_are_answered_as_http_requires() {
    let server = Server::start();
    for (method, status, field) in [
        (
            "HEAD",
            200,
            "Content-Type: text/event-stream; charset=utf-8",
        ),
        (
            "OPTIONS",
            200,
            "Access-Control-Allow-Headers: Authorization, Last-Event-ID",
        ),
        ("POST", 405, "Allow: GET, HEAD, OPTIONS"),
        ("DELETE", 405, "Allow: GET, HEAD, OPTIONS"),
    ] {
        let request = format!(
            "{method} /sse?{PAGE} HTTP/1.1\r\nHost: a\r\nOrigin: https://any.example\r\n\
             Connection: close\r\n\r\n"
        );
        let (got, head, _) = http(server.address(), request.as_bytes());
        assert_eq!(got, status, "{method}");
        assert!(head.contains(field), "{method}: {head}");
        assert!(head.contains("Access-Control-Allow-Origin: *"), "{head}");
    }
    // HTTP/1.0 has no chunked coding, which event streams do not need.
    let mut stream = TcpStream::connect(server.address()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(stream, "GET /sse?{PAGE} HTTP/1.0\r\n\r\n").unwrap();
    let mut start = [0; 15];
    stream.read_exact(&mut start).unwrap();
    assert_eq!(&start, b"HTTP/1.1 200 OK");
}

// S8
#[test]
fn pages_of_other_origins_are_refused() {
    let server = Server::configured("origins = [\"https://good.example\"]\n");
    for (fields, status, allowed) in [
        ("", 200, "Access-Control-Allow-Origin: *"),
        (
            "Origin: https://good.example\r\n",
            200,
            "Access-Control-Allow-Origin: https://good.example",
        ),
        ("Origin: https://bad.example\r\n", 403, "Connection: close"),
    ] {
        let stream = EventStream::try_open(server.address(), PAGE, fields);
        assert_eq!(stream.status(), status, "{fields}");
        assert!(stream.head.contains(allowed), "{}", stream.head);
    }
}

// S3
#[test]
fn streams_count_for_the_limit_per_address_behind_a_proxy() {
    let server =
        Server::configured("[limits]\ntrusted_proxies = [\"127.0.0.1\"]\nconnections_per_ip = 2\n");
    let fields = "X-Forwarded-For: 192.0.2.7\r\n";
    let open: Vec<_> = (0..2)
        .map(|_| EventStream::open(server.address(), PAGE, fields))
        .collect();
    let mut refused = EventStream::try_open(server.address(), PAGE, fields);
    assert_eq!(refused.status(), 200);
    refused.block().unwrap();
    refused.expect_end();
    assert!(refused.retry.is_some());
    let other = "X-Forwarded-For: 192.0.2.8\r\n";
    EventStream::open(server.address(), PAGE, other).wait_for_position();
    drop(open);
    // The places are free again when the clients have left.
    eventually(PATIENCE, || {
        let mut stream = EventStream::try_open(server.address(), PAGE, fields);
        let field = stream.block()?;
        field.iter().any(|(name, _)| name == "id").then_some(())
    });
}

#[test]
fn unix_socket_serves_event_streams() {
    let folder = tempfile::TempDir::new().unwrap();
    let path = folder.path().join("socket");
    let url = format!("unix:{}", path.display());
    let server = Server::with(&["--listen", &url], "");
    let stream = std::os::unix::net::UnixStream::connect(&path).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    let mut stream = EventStream::over(stream, PAGE, "");
    stream.wait_for_position();
    publish(&server, "one");
    let (_, event) = stream.event().unwrap();
    assert_eq!(id_of(&event), "one");
}
