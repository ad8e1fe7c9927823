//! The server's log: its formats, and that logging never blocks.

use std::fs::{self, OpenOptions};
use std::io::Read;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::process::Command;

use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

use crate::support::{Client, PATIENCE, PROGRAM, Server, connect, eventually};

fn nonsense(server: &Server) {
    let mut client = Client::raw(connect(server.address()));
    client.send_raw(b"nonsense\r\n\r\n");
    assert_eq!(
        client.answer(false).map(|answer| answer.status()),
        Some(400)
    );
}

#[test]
fn json_format_is_configurable() {
    let mut server = Server::configured("[log]\nformat = \"json\"\nlevel = \"debug\"");
    nonsense(&server);
    server.signal(Signal::TERM);
    let (log, code) = server.wait();
    assert_eq!(code, Some(0), "{log}");
    let lines: Vec<Value> = log
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}")))
        .collect();
    let has = |level: &str, part: &str| {
        let mut lines = lines.iter();
        lines.any(|line| line["level"] == level && line["message"].as_str().unwrap().contains(part))
    };
    assert!(
        has("info", "started") && has("debug", "refused") && has("info", "stopped"),
        "{log}"
    );
}

#[test]
fn journal_output_has_priorities() {
    let folder = TempDir::new().unwrap();
    fs::write(
        folder.path().join("config.toml"),
        "[log]\nlevel = \"debug\"",
    )
    .unwrap();
    let log = folder.path().join("log");
    fs::write(&log, "").unwrap();
    let file = fs::metadata(&log).unwrap();
    let mut command = Command::new(PROGRAM);
    command.env("JOURNAL_STREAM", format!("{}:{}", file.dev(), file.ino()));
    let mut server = Server::launch(command, folder, &["--listen", "ws://127.0.0.1:0"]);
    nonsense(&server);
    server.signal(Signal::TERM);
    let (log, _) = server.wait();
    let lines: Vec<&str> = log.lines().collect();
    assert!(
        lines.contains(&"<6>started") && lines.contains(&"<6>stopped"),
        "{log}"
    );
    let debug = lines.iter().find(|line| line.contains("refused"));
    assert!(
        debug.is_some_and(|line| line.starts_with("<7>h_realtime_engine::engine")),
        "{log}"
    );
    assert!(lines.iter().all(|line| line.starts_with('<')), "{log}");
}

// M10
#[test]
fn unread_log_lines_are_dropped_and_counted() {
    let folder = TempDir::new().unwrap();
    fs::write(
        folder.path().join("config.toml"),
        "[log]\nlevel = \"debug\"\n[timeouts]\nping = \"1h\"",
    )
    .unwrap();
    let pipe = folder.path().join("pipe");
    assert!(
        Command::new("mkfifo")
            .arg(&pipe)
            .status()
            .unwrap()
            .success()
    );
    // Open for reading and writing, since opening it would otherwise wait for a writer.
    let nonblocking = rustix::fs::OFlags::NONBLOCK.bits() as i32;
    let mut reader = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(nonblocking)
        .open(&pipe)
        .unwrap();
    let mut command = Command::new("sh");
    command
        .args(["-c", r#"exec "$0" "$@" 2>"$PIPE""#, PROGRAM])
        .env("PIPE", &pipe);
    let server = Server::launch(command, folder, &["--listen", "ws://127.0.0.1:0"]);
    let mut probe = server.anonymous();
    let dropped = || server.metric("h_realtime_log_lines_dropped_total");
    // The pipe holds 64 KiB, and the queue 1,024 lines.
    let mut sent = 0;
    while dropped() == 0.0 {
        (0..200).for_each(|_| nonsense(&server));
        sent += 200;
        assert!(sent < 20_000, "no line was dropped");
    }
    assert_eq!(probe.drain(), []);
    // Once the log is read again, the number of dropped lines is reported.
    let mut log = Vec::new();
    eventually(PATIENCE, || {
        let mut buffer = [0; 4096];
        while let Ok(count @ 1..) = reader.read(&mut buffer) {
            log.extend_from_slice(&buffer[..count]);
        }
        let text = String::from_utf8_lossy(&log);
        text.contains("log lines because standard error was not read")
            .then_some(())
    });
    nonsense(&server);
    assert_eq!(probe.drain(), []);
}

#[test]
fn debug_connection_is_logged_in_detail() {
    let mut server = Server::start();
    let token = server.user("acct:joe@example.org");
    let target = format!("/ws?access_token={token}&debug=1");
    let stream = connect(server.address());
    let from = stream.local_addr().unwrap();
    let mut client = Client::over(stream, &target, "");
    client.ask(r#"{"type": "whoami", "id": 1}"#);
    client.ask(r#"{"type": "forged", "id": 2}"#);
    let debug = client.subscribe_traced("/group", "__world__");
    assert_eq!(
        (&debug[0]["event"], &debug[1]["event"]),
        (&"rejected".into(), &"filter".into())
    );
    let other = server.anonymous();
    let event = serde_json::json!({"topic": "annotation", "action": "create", "annotation": {
        "id": "A", "user": "acct:joe@example.org", "uri": "https://example.org/",
        "permissions": {"read": ["group:__world__"]}}});
    server.publish(&event.to_string());
    client.close(4321, "a reason of its own");
    client.receive();
    client.receive();
    drop(other);
    server.signal(Signal::TERM);
    let (log, code) = server.wait();
    assert_eq!(code, Some(0), "{log}");
    assert!(
        !log.contains(&token) && !log.contains("debug=1") && !log.contains("forge"),
        "{log}"
    );
    let lines: Vec<&str> = log.lines().filter(|line| line.contains("] #")).collect();
    let dropped: Vec<&str> = lines
        .iter()
        .map(|line| line.split_once(": ").unwrap().1)
        .collect();
    let open = format!("opened peer={from} user=acct:joe@example.org");
    assert_eq!(
        dropped,
        [
            &*open,
            "message type=whoami",
            "message type=unknown rejected=invalid_type",
            "message type=filter",
            "message type=ping",
            "event kind=create decision=send variant=0",
            "closed code=4321 by=client",
        ],
        "{log}"
    );
    assert!(lines.iter().all(|line| line.contains(" INFO ")), "{log}");
}

// M10
#[test]
fn one_connection_cannot_fill_the_log() {
    let mut server = Server::start();
    let mut client = Client::open(server.address(), "/ws?debug=yes", "");
    for _ in 0..10 {
        (0..100).for_each(|_| client.send(r#"{"type": "ping"}"#));
        assert_eq!(client.drain(), []);
    }
    let left_out = server.metric("h_realtime_connection_lines_left_out_total");
    assert!(left_out > 500.0, "{left_out}");
    server.signal(Signal::TERM);
    let (log, _) = server.wait();
    let lines = log.lines().filter(|line| line.contains("] #")).count();
    // The initial burst, and ten per second: this took less than half a minute.
    assert!((200..500).contains(&lines), "{lines}");
    assert!(
        log.contains(" lines about connections: more than 10 per second"),
        "{log}"
    );
}
