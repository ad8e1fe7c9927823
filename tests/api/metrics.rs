//! Metrics: valid for a strict parser of Prometheus' format, counted correctly, and complete for
//! the dashboard and the alerts in `docs`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::support::{Client, METRICS_KEY, PATIENCE, Server, TlsServer, eventually, http};

mod exposition;

use exposition::parse;

fn metrics(server: &Server) -> (String, String) {
    let (status, head, text) = scrape(server, &bearer(METRICS_KEY));
    assert_eq!(status, 200);
    (head, text)
}

fn scrape(server: &Server, fields: &str) -> (u16, String, String) {
    let request = format!(
        "GET /metrics HTTP/1.1\r\nHost: {}\r\n{fields}Connection: close\r\n\r\n",
        server.admin
    );
    http(server.admin, request.as_bytes())
}

fn bearer(key: &str) -> String {
    format!("Authorization: Bearer {key}\r\n")
}

fn doc(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("docs")
        .join(name)
}

#[test]
fn dashboard_and_alerts_use_existing_metrics() {
    let server = TlsServer::start();
    let samples = parse(&metrics(&server.server).1);
    let there: BTreeSet<&str> = samples
        .keys()
        .map(|series| series.split('{').next().unwrap())
        .collect();
    let dashboard = fs::read_to_string(doc("grafana-dashboard.json")).unwrap();
    let _: Value = serde_json::from_str(&dashboard).unwrap();
    let alerts = fs::read_to_string(doc("alerts.yml")).unwrap();
    let described = fs::read_to_string(doc("operating.md")).unwrap();
    for (text, least) in [(&dashboard, 30), (&alerts, 10), (&described, 50)] {
        let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let names: BTreeSet<&str> = text
            .split(|c| !is_part(c))
            .filter(|word| word.starts_with("h_realtime_") || word.starts_with("process_"))
            .filter(|word| *word != "h_realtime_")
            .collect();
        assert!(names.len() >= least, "{names:?}");
        for name in names {
            let is_there = there.contains(name) || there.contains(&*format!("{name}_bucket"));
            assert!(is_there, "there is no {name}");
        }
    }
    // Conversely, every metric is documented.
    for name in there {
        let name = ["_bucket", "_sum", "_count"]
            .iter()
            .find_map(|part| name.strip_suffix(part))
            .unwrap_or(name);
        assert!(
            described.contains(name),
            "{name} is not in docs/operating.md"
        );
    }
}

#[test]
fn every_close_reason_is_documented() {
    let server = Server::start();
    let samples = parse(&metrics(&server).1);
    let described = fs::read_to_string(doc("operating.md")).unwrap();
    for name in [
        "h_realtime_disconnects_total",
        "h_realtime_handshake_failures_total",
    ] {
        let start = format!("| `{name}` ¹ | counter, `reason` |");
        let row = described.lines().find_map(|row| row.strip_prefix(&start));
        let row = row.unwrap_or_else(|| panic!("{name} has no row"));
        let told: BTreeSet<&str> = row.split('`').skip(1).step_by(2).collect();
        let there = samples.keys().filter_map(|series| {
            let labels = series.strip_prefix(name)?;
            labels.strip_prefix("{reason=\"")?.strip_suffix("\"}")
        });
        assert_eq!(there.collect::<BTreeSet<_>>(), told, "{name}");
    }
}

#[test]
fn certificate_expiry_is_exported() {
    let server = TlsServer::start();
    let name = "h_realtime_certificate_expiry_timestamp_seconds";
    // rcgen's certificates expire in the year 4095.
    assert_eq!(server.server.metric(name), 67_090_118_400.0);
    let plain = Server::start();
    assert!(!metrics(&plain).1.contains(&format!("\n{name} ")));
}

#[test]
fn handshake_failures_are_counted_by_reason() {
    let server = Server::configured("[auth]\ninvalid_token = \"reject\"\n");
    server.wait_until_ready();
    let get = |path: &str, fields: &str| {
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{fields}\r\n");
        http(server.address(), request.as_bytes()).0
    };
    let handshake = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
                     Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    assert_eq!(get("/nothing", ""), 404);
    assert_eq!(get("/ws", ""), 400);
    assert_eq!(get("/ws?access_token=wrong", handshake), 401);
    assert_eq!(get("/ws?access_token=", handshake), 401);
    assert_eq!(http(server.address(), b"nonsense\r\n\r\n").0, 400);
    for (reason, count) in [
        ("path", 1.0),
        ("no_handshake", 1.0),
        ("token", 2.0),
        ("malformed", 1.0),
        ("origin", 0.0),
        ("timeout", 0.0),
    ] {
        let name = format!("h_realtime_handshake_failures_total{{reason=\"{reason}\"}}");
        assert_eq!(server.metric(&name), count, "{reason}");
    }
}

#[test]
#[ignore = "needs python3 with prometheus_client: run tests/run"]
fn official_parser_accepts_all_metrics() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let server = TlsServer::start();
    let text = metrics(&server.server).1;
    let mut child = Command::new(root.join("target/python/bin/python"))
        .arg(root.join("tests/clients/metrics.py"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("tests/setup makes this environment");
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(text.as_bytes()).unwrap();
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    let read: usize = String::from_utf8(output.stdout)
        .unwrap()
        .trim()
        .parse()
        .unwrap();
    assert_eq!(read, parse(&text).len());
}

// CVE-2026-33247
#[test]
fn metrics_are_prometheus_text_and_count() {
    let server = Server::start();
    let before = parse(&metrics(&server).1);
    let token = server.user("acct:me@example.org");
    let mut me = server.logged_in(&token);
    let mut other = server.anonymous();
    me.subscribe("/group", "__world__");
    other.subscribe("/group", "__world__");
    other.close(1000, "");
    other.receive();
    // It has received its response, and the server waits for its end.
    let closing = "h_realtime_connections{state=\"closing\"}";
    assert_eq!(parse(&metrics(&server).1)[closing], 1.0);
    drop(other);
    eventually(PATIENCE, || {
        (parse(&metrics(&server).1)[closing] == 0.0).then_some(())
    });
    let event = json!({"topic": "annotation", "action": "create", "annotation": {
        "id": "A", "user": "acct:a@b", "uri": "https://example.org/",
        "permissions": {"read": ["group:__world__"]}}});
    server.publish(&event.to_string());
    assert_eq!(me.drain().len(), 1);

    let (head, text) = metrics(&server);
    assert!(head.contains("Content-Type: text/plain; version=0.0.4; charset=utf-8"));
    assert!(!text.contains(&token) && !text.contains(&server.publish_key()));
    let after = parse(&text);
    for (name, value) in [
        ("h_realtime_connections{state=\"open\"}", 1.0),
        // The scraping connection itself.
        ("h_realtime_connections{state=\"request\"}", 1.0),
        ("h_realtime_connections_logged_in", 1.0),
        ("h_realtime_users", 1.0),
        ("h_realtime_connects_total", 2.0),
        ("h_realtime_disconnects_total{reason=\"client\"}", 1.0),
        ("h_realtime_close_codes_total{code=\"1000\"}", 1.0),
        ("h_realtime_close_codes_total{code=\"other\"}", 0.0),
        ("h_realtime_slow_readers", 0.0),
        ("h_realtime_authentications_total{result=\"known\"}", 1.0),
        ("h_realtime_authentications_total{result=\"none\"}", 1.0),
        ("h_realtime_client_messages_total{type=\"filter\"}", 2.0),
        ("h_realtime_events_received_total{kind=\"create\"}", 1.0),
        ("h_realtime_events_matched_total", 1.0),
        ("h_realtime_notifications_sent_total", 1.0),
        ("h_realtime_event_latency_seconds_count", 1.0),
        ("h_realtime_subscriptions", 1.0),
        ("h_realtime_backend_ready", 1.0),
    ] {
        assert_eq!(after.get(name), Some(&value), "{name}");
    }
    for name in ["h_realtime_turn_seconds_count", "process_cpu_seconds_total"] {
        assert!(after[name] > 0.0, "{name}");
    }
    let files = after["process_open_fds"];
    assert!(
        (10.0..100.0).contains(&files) && files < after["process_max_fds"],
        "{files}"
    );
    assert!(after["process_resident_memory_bytes"] > 1e6);
    let started = after["process_start_time_seconds"];
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    assert!((now.as_secs_f64() - started) < 600.0, "{started}");
    // A series that only appears with its first count would be missed by alerts.
    let names = |samples: &BTreeMap<String, f64>| samples.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&before), names(&after));
    for (name, value) in &before {
        let grows = name.contains("_total") || name.contains("_bucket");
        assert!(!grows || after[name] >= *value, "{name}");
    }
}

// D5
#[test]
fn only_requests_with_a_key_get_all_metrics() {
    let server = Server::start();
    let names = |fields: &str| {
        let (status, _, text) = scrape(&server, fields);
        assert_eq!(status, 200);
        parse(&text)
    };
    let (public, all) = (names(""), names(&bearer(METRICS_KEY)));
    assert_eq!(names(&bearer(&server.publish_key())).len(), all.len());
    // For example for a proxy in front rather than for this server.
    assert_eq!(names("Authorization: Basic abc\r\n").len(), public.len());
    assert!(public.len() < all.len());
    assert!(public.keys().all(|series| all.contains_key(series)));
    for (name, is_public) in described() {
        let is_family = |series: &String| {
            let rest = series.strip_prefix(name.as_str());
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['{', '_']))
        };
        // There is no certificate here.
        if all.keys().any(is_family) {
            assert_eq!(public.keys().any(is_family), is_public, "{name}");
        }
    }
    let complete = "h_realtime_metrics_complete";
    assert_eq!((public[complete], all[complete]), (0.0, 1.0));
    let (status, head, _) = scrape(&server, &bearer("wrong"));
    assert_eq!(status, 401);
    assert!(head.contains("WWW-Authenticate: Bearer"), "{head}");
}

/// Returns the metrics in the tables of docs/operating.md, and whether they are marked as public:
/// each by itself, or a whole row by one mark at its end.
fn described() -> Vec<(String, bool)> {
    let text = fs::read_to_string(doc("operating.md")).unwrap();
    let (_, section) = text.split_once("\n## Metrics\n").unwrap();
    let (section, _) = section.split_once("\n## ").unwrap();
    let rows = section.lines().filter(|line| line.starts_with("| `"));
    let cells = rows.map(|row| row.split(" | ").next().unwrap());
    let mut metrics = Vec::new();
    for cell in cells {
        let all = cell.ends_with(MARK) && cell.matches(MARK).count() == 1;
        for part in cell.split(", ") {
            let name = part.split('`').nth(1).unwrap();
            metrics.push((name.to_owned(), all || part.ends_with(MARK)));
        }
    }
    assert!(metrics.len() > 50, "{metrics:?}");
    metrics
}

const MARK: &str = "` ¹";

/// A client that subscribes to a page or a group learns nothing from the metrics about annotations
/// there that it may not read.
// D5
#[test]
fn no_metric_without_a_key_depends_on_annotations_that_a_client_may_not_read() {
    let server = Server::configured("[timeouts]\nping = \"1h\"");
    server.wait_until_ready();
    let token = server.user(AUTHOR);
    server.run(&["group", "add", "secret"]);
    server.run(&["group", "member", "add", "secret", AUTHOR]);
    // A client that makes the server log its matches, and the permitted readers.
    let mut curious = [
        Client::open(server.address(), "/ws?debug=1", ""),
        server.anonymous(),
    ];
    let mut author = server.logged_in(&token);
    let [traced, other] = &mut curious;
    traced.subscribe_traced("/uri", "https://example.org/");
    for client in [other, &mut author] {
        client.subscribe("/uri", "https://example.org/");
    }
    let mut admin = Admin::new(&server);
    let key = bearer(&server.publish_key());
    let event = |action: &str, group: &str, reader: &str, text: &str| {
        json!({"topic": "annotation", "action": action, "annotation": {
            "id": "A", "user": AUTHOR, "uri": "https://example.org/", "text": text,
            "group": group, "permissions": {"read": [reader]}}})
        .to_string()
    };
    // The first delivery allocates lazily created state.
    let first = event("create", "__world__", AUTHOR, "first");
    admin.ask("POST /events", &key, &first, "202");
    assert_eq!(author.drain().len(), 1);
    let (before, all_before) = (admin.scrape(""), admin.scrape(&key));
    let long = "long ".repeat(2000);
    for (group, reader) in [("__world__", AUTHOR), ("secret", "group:secret")] {
        for action in ["create", "update", "delete"] {
            admin.ask(
                "POST /events",
                &key,
                &event(action, group, reader, &long),
                "202",
            );
        }
    }
    let (after, all_after) = (admin.scrape(""), admin.scrape(&key));
    for (name, count) in [
        ("h_realtime_notifications_sent_total", 6.0),
        (
            "h_realtime_notifications_suppressed_total{rule=\"permission\"}",
            12.0,
        ),
    ] {
        assert_eq!(all_after[name] - all_before[name], count, "{name}");
    }
    assert_eq!(
        before.keys().collect::<Vec<_>>(),
        after.keys().collect::<Vec<_>>()
    );
    for (series, value) in &after {
        let is_of_time = TIME_DEPENDENT
            .iter()
            .any(|(name, _)| series.starts_with(name));
        assert!(
            is_of_time || *value == before[series],
            "{series} has changed"
        );
    }
}

/// Metrics without a key that change over time, and the reasons.
const TIME_DEPENDENT: [(&str, &str); 4] = [
    (
        "h_realtime_loop_lag_seconds",
        "counts half seconds since the start, and how busy the host is",
    ),
    ("process_cpu_seconds_total", "time of any work"),
    (
        "process_virtual_memory_bytes",
        "the allocator's, for anything",
    ),
    (
        "process_resident_memory_bytes",
        "the allocator's, for anything",
    ),
];

/// A persistent connection to the admin listener, so that it is counted once.
struct Admin(TcpStream, String);

impl Admin {
    fn new(server: &Server) -> Self {
        let stream = TcpStream::connect(server.admin).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Admin(stream, format!("Host: {}\r\n", server.admin))
    }

    /// Returns the samples of a scrape with these header fields.
    fn scrape(&mut self, fields: &str) -> BTreeMap<String, f64> {
        parse(&self.ask("GET /metrics", fields, "", "200"))
    }

    fn ask(&mut self, line: &str, fields: &str, body: &str, status: &str) -> String {
        let (host, length) = (&self.1, body.len());
        let request =
            format!("{line} HTTP/1.1\r\n{host}{fields}Content-Length: {length}\r\n\r\n{body}");
        self.0.write_all(request.as_bytes()).unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            self.0.read_exact(&mut byte).unwrap();
            head.push(byte[0]);
        }
        let head = String::from_utf8(head).unwrap();
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{head}");
        let length = head
            .lines()
            .find_map(|field| field.strip_prefix("Content-Length: "));
        let mut answer = vec![0; length.unwrap().parse().unwrap()];
        self.0.read_exact(&mut answer).unwrap();
        String::from_utf8(answer).unwrap()
    }
}

const AUTHOR: &str = "acct:author@example.org";
