//! The modes that an echo server supports, against `examples/conformance.rs` of this repository.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::Value;

struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start() -> (Server, String) {
    let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target");
    let built = ["release", "debug"].map(|kind| target.join(kind).join("examples/conformance"));
    let program = built.iter().find(|file| file.exists());
    let program = program.expect("run `cargo build --example conformance` first");
    let mut child = Command::new(program)
        .arg("127.0.0.1:0")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    let output = child.stdout.take().unwrap();
    BufReader::new(output).read_line(&mut line).unwrap();
    let address = line.trim().strip_prefix("listening on ").unwrap();
    (Server(child), format!("ws://{address}/"))
}

fn load(server: &Server, args: &str, more: &[&str]) -> Result<Value, String> {
    let output = Command::new(env!("CARGO_BIN_EXE_load"))
        .args(args.split_whitespace())
        .args(more)
        .args(["--pid", &server.0.id().to_string(), "--json", "-"])
        .output()
        .unwrap();
    match output.status.success() {
        true => Ok(serde_json::from_slice(&output.stdout).unwrap()),
        false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
    }
}

fn number(report: &Value, figure: &str) -> f64 {
    report[figure]
        .as_f64()
        .unwrap_or_else(|| panic!("no {figure} in {report}"))
}

#[test]
fn messages_are_echoed() {
    let (server, url) = start();
    for mode in ["echo", "pipelined"] {
        let report = load(
            &server,
            &format!("{mode} {url} -n 10 --seconds 1 --warm-up 0"),
            &[],
        )
        .unwrap();
        assert!(number(&report, "messages") >= 10.0);
        assert!(number(&report, "server_cpu_us_per_message") > 0.0);
        assert!(number(&report["latency_us"], "p50") > 0.0);
    }
    let slow = load(
        &server,
        &format!("echo {url} -n 3 --seconds 1 --rate 50"),
        &[],
    )
    .unwrap();
    assert!((20.0..=60.0).contains(&number(&slow, "messages")), "{slow}");
}

#[test]
fn unexpected_response_ends_the_run() {
    let (server, url) = start();
    let failed = load(
        &server,
        &format!("echo {url} -n 1 --seconds 1 --expect"),
        &["something else"],
    );
    assert!(failed.unwrap_err().contains("unexpected response"));
}

#[test]
fn idle_connections_open_and_close() {
    let (server, url) = start();
    let args = format!("idle {url} -n 50 --large 100000 --hold 1 --leave --settle 1");
    let report = load(&server, &args, &[]).unwrap();
    assert!(number(&report, "resident_with_all") > 0.0);
    assert!(number(&report, "resident_after_all_left") > 0.0);
}

#[test]
fn probe_is_answered_during_handshake_storm() {
    let (server, url) = start();
    let args = format!("storm {url} -n 5 --concurrent 10 --seconds 1 --warm-up 0 --probe 20");
    let report = load(&server, &args, &[]).unwrap();
    assert!(number(&report, "handshakes") > 10.0);
    assert!(number(&report["probe_us"], "count") > 1.0);
}

#[test]
fn latency_is_measured_during_attack() {
    let (server, url) = start();
    let args = format!("hostile {url} -n 20 --attack json-pings --rate 20KB --seconds 1 --calm 1");
    let report = load(&server, &args, &[]).unwrap();
    assert!(number(&report["ping_us"], "count") > 10.0, "{report}");
    assert!(number(&report["calm_ping_us"], "count") > 10.0);
    assert!(number(&report["handshake_us"], "count") > 1.0);
    assert_eq!(number(&report, "pings_unanswered"), 0.0, "{report}");
    // A connection sends no more than its rate, and its advance.
    let sent = number(&report, "attack_bytes_per_s");
    assert!((40_000.0..=480_000.0).contains(&sent), "{report}");
    assert!(number(&report, "reply_bytes_per_s") > 0.0);
}

#[test]
fn attackers_reconnect() {
    let (server, url) = start();
    for (attack, least) in [("handshakes", 20.0), ("random-frames", 1.0)] {
        let args = format!("hostile {url} -n 5 --attack {attack} --seconds 1 --calm 0");
        let report = load(&server, &args, &[]).unwrap();
        let reconnected = number(&report, "attackers_reconnected");
        assert!(reconnected >= least, "{report}");
    }
}

#[test]
fn held_memory_is_measured_while_clients_are_connected() {
    let (server, url) = start();
    let args = format!("hold {url} -n 50 --scenario filters --calm 0 --clients 2");
    let report = load(&server, &args, &[]).unwrap();
    assert!(number(&report, "resident_growth") > 0.0, "{report}");
    assert_eq!(number(&report, "clients_closed"), 0.0, "{report}");
}
