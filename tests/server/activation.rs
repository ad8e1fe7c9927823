//! Socket activation: the server listens on inherited sockets, whose names select their purpose.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::process::{Command, Output};

use rustix::process::Signal;
use tempfile::TempDir;

use crate::support::{Client, PROGRAM, Program, Server, activated, free_port, http};

fn folder(config: &str) -> TempDir {
    let folder = TempDir::new().unwrap();
    fs::write(folder.path().join("config.toml"), config).unwrap();
    folder
}

fn socket() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").unwrap()
}

fn url(socket: &TcpListener) -> String {
    format!("ws://{}/ws", socket.local_addr().unwrap())
}

/// Asserts that the server does not start, and returns its error.
fn refused(sockets: &[(&str, &dyn AsFd)], args: &[&str]) -> String {
    let folder = TempDir::new().unwrap();
    let (mut command, _kept) = activated(PROGRAM, sockets);
    let Output { status, stderr, .. } = command
        .args(["serve", "--data"])
        .arg(folder.path())
        .args(args)
        .output()
        .unwrap();
    let printed = String::from_utf8(stderr).unwrap();
    assert_eq!(status.code(), Some(78), "{printed}");
    printed
}

#[test]
fn sockets_are_assigned_by_name() {
    let (ws, another, admin) = (socket(), socket(), socket());
    let (command, kept) = activated(PROGRAM, &[("ws", &ws), ("admin", &admin), ("ws", &another)]);
    let mut server = Server::launch_as_is(command, folder(""), &[]);
    drop(kept);
    // Without the default listener.
    assert_eq!(server.listeners, [url(&ws), url(&another)]);
    assert_eq!(server.admin, admin.local_addr().unwrap());
    for socket in [&ws, &another] {
        let mut client = Client::open(socket.local_addr().unwrap(), "/ws", "");
        assert_eq!(client.drain(), []);
    }
    server.wait_until_ready();
    server.signal(Signal::TERM);
    assert_eq!(server.wait().1, Some(0));
    // The sockets stay open for the next server.
    for socket in [ws, another, admin] {
        TcpStream::connect(socket.local_addr().unwrap()).unwrap();
    }
}

#[test]
fn inherited_addresses_are_not_opened_again() {
    let ws = socket();
    let other = free_port();
    let listen = format!("ws://{}", ws.local_addr().unwrap());
    let config = format!("listen = [\"{listen}\", \"ws://127.0.0.1:{other}\"]");
    let (command, _kept) = activated(PROGRAM, &[("ws", &ws)]);
    let server = Server::launch(command, folder(&config), &[]);
    let more = format!("ws://127.0.0.1:{other}/ws");
    assert_eq!(server.listeners, [url(&ws), more]);
    // A reload does not treat inherited sockets as a changed setting.
    server.signal(Signal::HUP);
    let log = server.log_with("reloaded");
    let told = log.lines().find(|line| line.contains("reloaded")).unwrap();
    assert!(told.ends_with("no changes"), "{told}");
}

#[test]
fn inherited_unix_sockets_are_served_and_kept() {
    let folder = folder("");
    let path = folder.path().join("ws.sock");
    let ws = UnixListener::bind(&path).unwrap();
    let (command, kept) = activated(PROGRAM, &[("ws", &ws)]);
    let mut server = Server::launch(command, folder, &[]);
    drop(kept);
    let mut stream = UnixStream::connect(&path).unwrap();
    stream
        .write_all(b"GET /_status HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    server.signal(Signal::TERM);
    assert_eq!(server.wait().1, Some(0));
    UnixStream::connect(&path).unwrap();
}

#[test]
fn unknown_socket_names_are_refused() {
    for name in ["h-realtime.socket", "unknown", "http", ""] {
        let printed = refused(&[("ws", &socket()), (name, &socket())], &[]);
        let part = format!("inherited socket 2 has the unknown name {name:?}");
        assert!(printed.contains(&part), "{printed}");
        assert!(printed.contains("FileDescriptorName="), "{printed}");
    }
}

#[test]
fn sockets_that_contradict_the_configuration_are_refused() {
    let (ws, admin) = (socket(), socket());
    let address = ws.local_addr().unwrap();
    let printed = refused(&[("admin", &admin)], &["--admin", "127.0.0.1:5002"]);
    assert!(printed.contains("remove the setting"), "{printed}");
    let printed = refused(&[("admin", &admin), ("admin", &ws)], &[]);
    assert!(
        printed.contains("more than one inherited socket"),
        "{printed}"
    );
    let printed = refused(&[("wss", &ws)], &[]);
    assert!(
        printed.contains("requires tls.cert and tls.key"),
        "{printed}"
    );
    let tls = ["--tls-cert", "c", "--tls-key", "k", "--listen"];
    let printed = refused(
        &[("ws", &ws)],
        &[&tls[..], &[&format!("wss://{address}")]].concat(),
    );
    assert!(
        printed.contains("is named for a listener without TLS"),
        "{printed}"
    );
    // The address decides, regardless of which process opened the socket.
    let public = TcpListener::bind("0.0.0.0:0").unwrap();
    let printed = refused(&[("admin", &public)], &[]);
    assert!(printed.contains("admin_public = true"), "{printed}");
}

#[test]
fn sockets_that_do_not_listen_are_refused() {
    let folder = TempDir::new().unwrap();
    let datagrams = UnixDatagram::bind(folder.path().join("a")).unwrap();
    let (there, _) = UnixStream::pair().unwrap();
    let connected = TcpStream::connect(socket().local_addr().unwrap()).unwrap();
    let file = fs::File::open("Cargo.toml").unwrap();
    let sockets: [&dyn AsFd; 4] = [&datagrams, &there, &connected, &file];
    for socket in sockets {
        let printed = refused(&[("ws", socket)], &[]);
        assert!(
            printed.contains("must be a listening stream socket"),
            "{printed}"
        );
    }
}

#[test]
fn sockets_of_another_process_are_ignored() {
    let mut command = Command::new(PROGRAM);
    command.envs([
        ("LISTEN_PID", "1"),
        ("LISTEN_FDS", "1"),
        ("LISTEN_FDNAMES", "ws"),
    ]);
    let server = Server::launch(command, folder(""), &["--listen", "ws://127.0.0.1:0"]);
    assert_eq!(server.anonymous().drain(), []);
}

/// systemd's own activator starts the server with the first connection.
#[test]
#[ignore = "needs systemd-socket-activate"]
fn systemd_socket_activation_starts_the_server() {
    let folder = folder("");
    let (ws, admin) = (free_port(), free_port());
    let listen = |port: u16| format!("--listen=127.0.0.1:{port}");
    let activator = Program::start(
        Command::new("systemd-socket-activate")
            .args([&listen(ws), &listen(admin), "--fdname=ws:admin"])
            .arg(PROGRAM)
            .args(["serve", "--data"])
            .arg(folder.path().join("data")),
    );
    let address = |port: u16| std::net::SocketAddr::from(([127, 0, 0, 1], port));
    activator.wait_for_error_line(&format!("Listening on {}", address(admin)));
    let mut client = Client::open(address(ws), "/ws", "");
    assert_eq!(client.drain(), []);
    let request = format!(
        "GET /livez HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n",
        address(admin)
    );
    assert_eq!(http(address(admin), request.as_bytes()).0, 200);
}

/// systemd accepts the units, and rates their exposure as low.
#[test]
#[ignore = "needs systemd-analyze"]
fn systemd_units_are_valid_and_sandboxed() {
    let folder = TempDir::new().unwrap();
    let mut analyze = Command::new("systemd-analyze");
    analyze.args(["verify", "--man=no"]);
    for entry in fs::read_dir("docs/systemd").unwrap() {
        let path = entry.unwrap().path();
        let unit = fs::read_to_string(&path).unwrap();
        // The program is not installed here.
        let unit = unit.replace("ExecStart=h-realtime", &format!("ExecStart={PROGRAM}"));
        let copy = folder.path().join(path.file_name().unwrap());
        fs::write(&copy, unit).unwrap();
        analyze.arg(copy);
    }
    let Output { status, stderr, .. } = analyze.output().unwrap();
    let printed = String::from_utf8_lossy(&stderr);
    assert!(status.success() && printed.is_empty(), "{printed}");

    // In tenths, of at most 100.
    for unit in ["h-realtime.service", "h-realtime-forward@.service"] {
        let Output { status, stdout, .. } = Command::new("systemd-analyze")
            .args(["security", "--offline=yes", "--no-pager", "--threshold=15"])
            .arg(format!("docs/systemd/{unit}"))
            .output()
            .unwrap();
        assert!(status.success(), "{}", String::from_utf8_lossy(&stdout));
    }
}
