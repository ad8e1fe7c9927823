//! Ten thousand connections at once, and the behavior at lower limits.

use std::fs;
use std::net::TcpStream;
use std::process::Command;
use std::time::Instant;

use h_realtime_engine::raise_open_files;
use serde_json::json;
use tempfile::TempDir;

use crate::support::{Client, PATIENCE, PROGRAM, Received, Server, eventually};

/// Starts a server from a shell that sets a limit first.
fn limited(limit: &str) -> Server {
    let folder = TempDir::new().unwrap();
    fs::write(folder.path().join("config.toml"), "").unwrap();
    let mut command = Command::new("sh");
    let script = format!(r#"ulimit {limit} && exec "$0" "$@""#);
    command.args(["-c", &script, PROGRAM]);
    Server::launch(command, folder, &["--listen", "ws://127.0.0.1:0"])
}

fn event() -> String {
    let annotation = json!({"id": "A", "user": "acct:a@example.org", "uri": PAGE,
                            "permissions": {"read": ["group:__world__"]}});
    json!({"topic": "annotation", "action": "create", "annotation": annotation}).to_string()
}

fn is_refused(client: &Client) -> bool {
    client.head.starts_with("HTTP/1.1 503 ")
}

#[test]
fn ten_thousand_idle_connections_are_then_all_served() {
    let limit = raise_open_files();
    assert!(
        limit >= COUNT as u64 + 500,
        "this needs more open files than {limit}: ulimit -n"
    );
    let server = Server::start();
    let mut clients: Vec<Client> = (0..COUNT).map(|_| server.anonymous()).collect();
    assert_eq!(server.metric("h_realtime_connects_total"), COUNT as f64);

    let filter = json!({"filter": {"match_policy": "include_any", "actions": {}, "clauses": [
        {"field": "/uri", "operator": "one_of", "value": [PAGE]}]}});
    for client in &mut clients {
        client.send(&filter.to_string());
        client.send(r#"{"type": "ping", "id": 1}"#);
    }
    for client in &mut clients {
        let pong = json!({"type": "pong", "ok": true, "reply_to": 1});
        assert_eq!(client.json(), pong);
    }
    let since = Instant::now();
    let answer = json!({"accepted": 1, "matched": COUNT});
    assert_eq!(server.publish(&event()), (202, answer));
    for client in &mut clients {
        assert_eq!(client.json()["payload"][0]["id"], "A");
    }
    assert!(since.elapsed() < PATIENCE, "{:?}", since.elapsed());
    assert_eq!(server.metric("h_realtime_disconnects_total"), 0.0);

    drop(clients);
    eventually(PATIENCE, || {
        let open = server.metric("h_realtime_connections{state=\"open\"}");
        (open == 0.0).then_some(())
    });
    assert_eq!(server.anonymous().drain(), []);
}

// A3
#[test]
fn soft_limit_on_open_files_is_raised_and_reported() {
    let server = limited("-S -n 256");
    let path = format!("/proc/{}/limits", server.child.id());
    let limits = fs::read_to_string(path).unwrap();
    let line = limits
        .lines()
        .find(|line| line.starts_with("Max open files"))
        .unwrap();
    let numbers: Vec<u64> = line
        .split_whitespace()
        .filter_map(|word| word.parse().ok())
        .collect();
    let [soft, hard] = numbers[..] else {
        panic!("{line}");
    };
    assert_eq!(soft, hard);
    let told = format!(
        "  open files     {hard} (at most {} connections)",
        hard - 304
    );
    assert!(
        server.banner.lines().any(|line| line == told),
        "{}",
        server.banner
    );
    let mut clients: Vec<Client> = (0..300).map(|_| server.anonymous()).collect();
    assert_eq!(clients[299].drain(), []);
}

#[test]
fn connections_over_the_limit_get_503_until_others_close() {
    let server = limited("-n 100");
    let most = 36;
    let told = format!("  open files     100 (at most {most} connections)");
    assert!(
        server.banner.lines().any(|line| line == told),
        "{}",
        server.banner
    );
    let mut clients: Vec<Client> = (0..most).map(|_| server.anonymous()).collect();
    for _ in 0..3 {
        let refused = Client::try_open(server.address(), "/ws", "");
        assert!(is_refused(&refused), "{}", refused.head);
        assert!(
            refused.head.contains("\r\nRetry-After: "),
            "{}",
            refused.head
        );
    }
    // Open connections are not affected.
    for client in &mut clients {
        assert_eq!(client.drain(), []);
    }
    clients[0].close(1000, "");
    assert!(matches!(clients[0].receive(), Received::Close(_)));
    clients.remove(0);
    clients.push(connect_until_accepted(&server));
    for client in &mut clients {
        assert_eq!(client.drain(), []);
    }
}

/// Reconnects until a connection is accepted.
fn connect_until_accepted(server: &Server) -> Client {
    eventually(PATIENCE, || {
        let client = Client::try_open(server.address(), "/ws", "");
        client.head.starts_with("HTTP/1.1 101 ").then_some(client)
    })
}

// A1
/// With fewer descriptors than the server's own reserve.
#[test]
fn server_without_descriptors_accepts_waiting_clients_later() {
    let server = limited("-n 40");
    let mut first = server.anonymous();
    // They wait to be accepted, or to be refused.
    let waiting: Vec<TcpStream> = (0..60)
        .map(|_| TcpStream::connect(server.address()).unwrap())
        .collect();
    server.log_with("no connection can be accepted");
    assert_eq!(first.drain(), []);
    drop((first, waiting));
    let mut next = connect_until_accepted(&server);
    assert_eq!(next.drain(), []);
    drop(next);
    assert_eq!(connect_until_accepted(&server).drain(), []);
}

/// Clients on this machine are often a proxy in front of the server.
#[test]
fn address_limit_does_not_apply_to_loopback() {
    let server = Server::configured("[limits]\nconnections_per_ip = 1");
    let mut clients: Vec<Client> = (0..5).map(|_| server.anonymous()).collect();
    for client in &mut clients {
        assert_eq!(client.drain(), []);
    }
}

const COUNT: usize = 10_000;
const PAGE: &str = "https://example.org/page";
