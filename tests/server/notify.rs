//! Notifications to a service manager, and their absence when the server hangs.

use std::fs;
use std::io::ErrorKind;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use rustix::time::{ClockId, clock_gettime};
use tempfile::TempDir;

use crate::support::{PATIENCE, PROGRAM, Received, Server};

/// The receiving side of a service manager.
struct Manager {
    socket: UnixDatagram,
    folder: Option<TempDir>,
}

impl Manager {
    fn start(config: &str) -> (Manager, Command) {
        let folder = TempDir::new().unwrap();
        fs::write(folder.path().join("config.toml"), config).unwrap();
        let path = folder.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        let mut command = Command::new(PROGRAM);
        command.env("NOTIFY_SOCKET", path);
        let folder = Some(folder);
        (Manager { socket, folder }, command)
    }

    fn launch(&mut self, command: Command) -> Server {
        let folder = self.folder.take().unwrap();
        Server::launch(command, folder, &["--listen", "ws://127.0.0.1:0"])
    }

    /// Returns the next message.
    fn receive(&self, within: Duration) -> Option<String> {
        let mut buffer = [0; 4096];
        self.socket.set_read_timeout(Some(within)).unwrap();
        match self.socket.recv(&mut buffer) {
            Ok(length) => Some(String::from_utf8(buffer[..length].to_vec()).unwrap()),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::WouldBlock);
                None
            }
        }
    }

    /// Returns the next message that contains `part`.
    fn expect(&self, part: &str) -> String {
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end {
            if let Some(text) = self.receive(PATIENCE)
                && text.contains(part)
            {
                return text;
            }
        }
        panic!("no message contains {part}");
    }

    /// Returns all pending messages.
    fn drain(&self) -> Vec<String> {
        std::iter::from_fn(|| self.receive(Duration::from_millis(1))).collect()
    }
}

fn micros() -> i128 {
    let now = clock_gettime(ClockId::Monotonic);
    i128::from(now.tv_sec) * 1_000_000 + i128::from(now.tv_nsec) / 1000
}

#[test]
fn start_reload_and_end_are_notified() {
    let (mut manager, command) = Manager::start("[timeouts]\ndrain = \"3s\"\nclose = \"3s\"");
    let mut server = manager.launch(command);
    assert_eq!(
        manager.receive(PATIENCE).unwrap(),
        "READY=1\nSTATUS=0 connections"
    );
    let mut client = server.anonymous();
    manager.expect("STATUS=1 connections");

    // Type=notify-reload: the time must not precede the signal.
    let before = micros();
    server.signal(Signal::HUP);
    let told = manager.expect("RELOADING=1");
    let at = told
        .lines()
        .find_map(|line| line.strip_prefix("MONOTONIC_USEC="));
    let at: i128 = at.unwrap().parse().unwrap();
    assert!((before..=micros()).contains(&at), "{before} {at}");
    assert_eq!(manager.receive(PATIENCE).unwrap(), "READY=1");
    // A failed reload has finished as well.
    let good = fs::read_to_string(server.folder().join("config.toml")).unwrap();
    fs::write(server.folder().join("config.toml"), "nonsense").unwrap();
    server.signal(Signal::HUP);
    manager.expect("RELOADING=1");
    let told = manager.expect("READY=1");
    assert!(told.contains("\nSTATUS=reload failed, "), "{told}");
    assert!(!told.contains("WATCHDOG"), "no message was expected");
    // The next successful reload replaces that message.
    fs::write(server.folder().join("config.toml"), good).unwrap();
    server.signal(Signal::HUP);
    manager.expect("RELOADING=1");
    manager.expect("STATUS=1 connections");

    // A client that does not reply delays the shutdown.
    server.signal(Signal::TERM);
    manager.expect("STOPPING=1");
    assert!(matches!(client.receive(), Received::Close(Some((1012, _)))));
    server.signal(Signal::HUP);
    let told = manager.expect("EXTEND_TIMEOUT_USEC=");
    assert!(
        told.contains("STATUS=shutting down, 0 connections left"),
        "{told}"
    );
    let (log, code) = server.wait();
    assert_eq!(code, Some(0), "{log}");
    for told in manager.drain() {
        assert!(
            !told.contains("READY") && !told.contains("RELOADING"),
            "{told}"
        );
    }
}

#[test]
fn watchdog_messages_stop_when_the_reactor_hangs() {
    let (mut manager, mut command) = Manager::start("");
    command.env("WATCHDOG_USEC", "2000000");
    let server = manager.launch(command);
    for _ in 0..3 {
        let since = Instant::now();
        manager.expect("WATCHDOG=1");
        assert!(since.elapsed() < Duration::from_secs(2));
    }
    server.signal(Signal::STOP);
    // Messages in flight.
    manager.drain();
    assert_eq!(manager.receive(Duration::from_millis(2500)), None);
    server.signal(Signal::CONT);
    manager.expect("WATCHDOG=1");
}

#[test]
fn watchdog_of_another_process_is_ignored() {
    let (mut manager, mut command) = Manager::start("");
    command.envs([("WATCHDOG_USEC", "2000000"), ("WATCHDOG_PID", "1")]);
    let _server = manager.launch(command);
    manager.expect("READY=1");
    while let Some(told) = manager.receive(Duration::from_millis(1500)) {
        assert!(!told.contains("WATCHDOG"), "{told}");
    }
}

#[test]
fn abstract_socket_names_work() {
    let (mut manager, mut command) = Manager::start("");
    let name = format!("h-realtime-test-{}", std::process::id());
    let address = SocketAddr::from_abstract_name(&name).unwrap();
    manager.socket = UnixDatagram::bind_addr(&address).unwrap();
    command.env("NOTIFY_SOCKET", format!("@{name}"));
    let _server = manager.launch(command);
    manager.expect("READY=1");
}

#[test]
fn missing_or_blocked_manager_does_not_block_the_server() {
    let (mut manager, mut command) = Manager::start("");
    command.env("NOTIFY_SOCKET", "/nowhere/at/all");
    let server = manager.launch(command);
    server.log_with("NOTIFY_SOCKET");
    assert_eq!(server.anonymous().drain(), []);

    // Its queue is full, and is not read.
    let (mut manager, mut command) = Manager::start("[timeouts]\ndrain = \"100ms\"");
    command.env("WATCHDOG_USEC", "2000000");
    let mut server = manager.launch(command);
    let deaf = UnixDatagram::unbound().unwrap();
    let path = server.folder().join("notify");
    deaf.set_nonblocking(true).unwrap();
    while deaf.send_to(b"X=1", &path).is_ok() {}
    let mut client = server.anonymous();
    for _ in 0..20 {
        assert_eq!(client.drain(), []);
        std::thread::sleep(Duration::from_millis(50));
    }
    server.signal(Signal::TERM);
    assert!(matches!(client.receive(), Received::Close(Some((1012, _)))));
    client.close(1012, "");
    assert_eq!(server.wait().1, Some(0));
}
