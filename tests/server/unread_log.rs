//! A log that is not read: the pipe is full, and the server continues to serve.

use std::fs;
use std::process::Command;

use rustix::process::Signal;
use tempfile::TempDir;

use crate::support::{Client, PROGRAM, Received, Server, connect, eventually};

// M10
#[test]
fn unread_log_pipe_does_not_block_the_server() {
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
    // Opening it for both directions does not need a reader.
    let script = r#"exec 2<>"$FIFO" && exec "$0" "$@""#;
    command.args(["-c", script, PROGRAM]).env("FIFO", &fifo);
    command.env("RUST_LOG", "trace");
    let mut server = Server::launch(command, folder, &["--listen", "ws://127.0.0.1:0"]);
    let mut probe = server.anonymous();
    // Each connection causes some lines, and a pipe holds 64 KiB.
    for _ in 0..2000 {
        let mut client = Client::raw(connect(server.address()));
        client.send_raw(b"nonsense\r\n\r\n");
        assert_eq!(client.answer(false).unwrap().status(), 400);
        assert_eq!(probe.drain(), []);
    }
    let refused = r#"h_realtime_handshake_failures_total{reason="malformed"}"#;
    assert_eq!(server.metric(refused), 2000.0);
    server.signal(Signal::TERM);
    assert!(matches!(probe.receive(), Received::Close(_)));
    drop(probe);
    let status = eventually(crate::support::PATIENCE, || {
        server.child.try_wait().unwrap()
    });
    assert!(status.success());
}
