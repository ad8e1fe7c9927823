//! The log of a server: its forms, and that it holds nobody up.

mod support;

use std::fs::{self, OpenOptions};
use std::io::Read;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::process::Command;

use rustix::process::Signal;
use serde_json::Value;
use support::{Client, PATIENCE, PROGRAM, Server, connect, eventually};
use tempfile::TempDir;

fn nonsense(server: &Server) {
    let mut client = Client::raw(connect(server.address()));
    client.send_raw(b"nonsense\r\n\r\n");
    assert_eq!(
        client.answer(false).map(|answer| answer.status()),
        Some(400)
    );
}

#[test]
fn json_on_demand() {
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
        has("info", "started") && has("debug", "refused") && has("info", "ended"),
        "{log}"
    );
}

#[test]
fn priorities_where_systemd_says_that_it_is_the_journal() {
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
        lines.contains(&"<6>started") && lines.contains(&"<6>ended"),
        "{log}"
    );
    let debug = lines.iter().find(|line| line.contains("refused"));
    assert!(
        debug.is_some_and(|line| line.starts_with("<7>h_realtime::net")),
        "{log}"
    );
    assert!(lines.iter().all(|line| line.starts_with('<')), "{log}");
}

// M10
#[test]
fn what_nobody_takes_is_dropped_and_that_is_told() {
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
    // Open for both, or it would wait for who writes.
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
    let mut witness = server.anonymous();
    let dropped = || server.metric("h_realtime_log_lines_dropped_total");
    // The pipe holds 64 KiB, and the queue 1,024 lines.
    let mut told = 0;
    while dropped() == 0.0 {
        (0..200).for_each(|_| nonsense(&server));
        told += 200;
        assert!(told < 20_000, "nothing is dropped");
    }
    assert_eq!(witness.drain(), []);
    // When somebody takes them again, it is said how many are missing.
    let mut log = Vec::new();
    eventually(PATIENCE, || {
        let mut buffer = [0; 4096];
        while let Ok(count @ 1..) = reader.read(&mut buffer) {
            log.extend_from_slice(&buffer[..count]);
        }
        let text = String::from_utf8_lossy(&log);
        text.contains("lines of the log were dropped").then_some(())
    });
    nonsense(&server);
    assert_eq!(witness.drain(), []);
}
