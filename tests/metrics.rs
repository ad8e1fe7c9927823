//! Metrics: a strict reader of Prometheus' format understands them, they count, and what the
//! dashboard and the alerts in `docs` ask for is there.

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use support::{PATIENCE, Server, TlsServer, eventually, http};

fn metrics(server: &Server) -> (String, String) {
    let request = format!(
        "GET /metrics HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n",
        server.admin
    );
    let (status, head, text) = http(server.admin, request.as_bytes());
    assert_eq!(status, 200);
    (head, text)
}

fn doc(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("docs")
        .join(name)
}

#[test]
fn dashboard_and_alerts_ask_for_what_there_is() {
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
    // And the other way round: what there is is described.
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
fn every_reason_of_an_end_is_described() {
    let server = Server::start();
    let samples = parse(&metrics(&server).1);
    let described = fs::read_to_string(doc("operating.md")).unwrap();
    for name in [
        "h_realtime_disconnects_total",
        "h_realtime_handshake_failures_total",
    ] {
        let start = format!("| `{name}` | counter, `reason` |");
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
fn the_certificates_end_is_told() {
    let server = TlsServer::start();
    let name = "h_realtime_certificate_expiry_timestamp_seconds";
    // rcgen's certificates end with the year 4095.
    assert_eq!(server.server.metric(name), 67_090_118_400.0);
    let plain = Server::start();
    assert!(!metrics(&plain).1.contains(&format!("\n{name} ")));
}

#[test]
fn failures_of_handshakes_are_told_apart() {
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
fn the_official_parser_reads_all_of_it() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let server = TlsServer::start();
    let text = metrics(&server.server).1;
    let mut child = Command::new(root.join("target/python/bin/python"))
        .arg(root.join("tests/clients/metrics.py"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("tests/run makes this environment");
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
    // It has had its answer, and the server waits for its end.
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
        // That which asks.
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
    // A series that appears only once it has counted would be missed by whoever watches it.
    let names = |samples: &BTreeMap<String, f64>| samples.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&before), names(&after));
    for (name, value) in &before {
        let grows = name.contains("_total") || name.contains("_bucket");
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
            assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
            assert_eq!(name.ends_with("_total"), kind == "counter", "{line}");
            family = Some((name, kind));
        } else {
            let (name, labels, value) = sample(line);
            let (family, kind) = family.unwrap();
            let part = name
                .strip_prefix(family)
                .unwrap_or_else(|| panic!("{line}"));
            match kind {
                "histogram" => assert!(["_bucket", "_sum", "_count"].contains(&part), "{line}"),
                _ => assert_eq!(part, "", "{line}"),
            }
            let value: f64 = value.parse().unwrap();
            assert!(value.is_finite() && value >= 0.0, "{line}");
            let series = format!("{name}{labels}");
            assert_eq!(samples.insert(series, value), None, "twice: {line}");
        }
    }
    assert!(!samples.is_empty());
    check_histograms(text, &samples);
    samples
}

/// Buckets grow, and the last, without a bound, holds all.
fn check_histograms(text: &str, samples: &BTreeMap<String, f64>) {
    for name in text
        .lines()
        .filter_map(|line| line.strip_suffix(" histogram"))
    {
        let name = name.strip_prefix("# TYPE ").unwrap();
        let start = format!("{name}_bucket{{le=\"");
        let buckets = text.lines().filter_map(|line| line.strip_prefix(&start));
        let buckets: Vec<(f64, f64)> = buckets
            .map(|bucket| bucket.split_once("\"} ").unwrap())
            .map(|(bound, count)| (bound.parse().unwrap(), count.parse().unwrap()))
            .collect();
        assert!(
            buckets.is_sorted_by(|a, b| a.0 < b.0 && a.1 <= b.1),
            "{name}"
        );
        let all = (f64::INFINITY, samples[&format!("{name}_count")]);
        assert_eq!(buckets.last(), Some(&all), "{name}");
    }
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
