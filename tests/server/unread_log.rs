//! A log that nobody reads: the pipe is full, and the server goes on all the same.

use std::fs;
use std::process::Command;

use rustix::process::Signal;
use tempfile::TempDir;

use crate::support::{Client, PROGRAM, Received, Server, connect, eventually};

// M10
#[test]
fn a_pipe_that_nobody_reads_stops_nobody() {
    let folder = TempDir::new().unwrap();
    fs::write(folder.path().join("config.toml"), "").unwrap();
    let fifo = folder.path().join("fifo");
    assert!(
        Command::new("mkfifo")
            .arg(&fifo)
            .status()
            .unwrap()
            .success()
    );
    let mut command = Command::new("sh");
    // Opened for both directions, it can be opened without a reader.
    let script = r#"exec 2<>"$FIFO" && exec "$0" "$@""#;
    command.args(["-c", script, PROGRAM]).env("FIFO", &fifo);
    command.env("RUST_LOG", "trace");
    let mut server = Server::launch(command, folder, &["--listen", "ws://127.0.0.1:0"]);
    let mut witness = server.anonymous();
    // Each writes some lines of its own, and a pipe holds 64 KiB.
    for _ in 0..2000 {
        let mut client = Client::raw(connect(server.address()));
        client.send_raw(b"nonsense\r\n\r\n");
        assert_eq!(client.answer(false).unwrap().status(), 400);
        assert_eq!(witness.drain(), []);
    }
    let refused = r#"h_realtime_handshake_failures_total{reason="malformed"}"#;
    assert_eq!(server.metric(refused), 2000.0);
    server.signal(Signal::TERM);
    assert!(matches!(witness.receive(), Received::Close(_)));
    drop(witness);
    let status = eventually(crate::support::PATIENCE, || {
        server.child.try_wait().unwrap()
    });
    assert!(status.success());
}
