//! The admin listener during a shutdown: health, metrics, and publishing are available until the
//! last client is closed, and then the next server takes over the address.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::sync::Arc;
use std::thread;

use rustix::process::Signal;
use serde_json::json;
use tempfile::TempDir;

use crate::support::{
    Client, PATIENCE, PROGRAM, Program, Received, Server, activated, event, eventually, http,
};

const PAGE: &str = "https://example.org/page";
/// The server waits for the reply to its close frame, so that a client can delay a shutdown.
const PATIENT: &str = "[timeouts]\nclose = \"1h\"\ndrain = \"0s\"";

fn service_restart() -> Received {
    Received::Close(Some((1012, "service restart".to_owned())))
}

fn get(server: &Server, path: &str) -> (u16, String) {
    let host = server.admin;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    let (status, _, body) = http(host, request.as_bytes());
    (status, body)
}

fn is_refused(address: SocketAddr) -> bool {
    let error = TcpStream::connect(address).err();
    error.is_some_and(|error| error.kind() == ErrorKind::ConnectionRefused)
}

/// Returns a server that is shutting down, and a client that has not replied to its close frame
/// yet.
fn draining(config: &str) -> (Server, Client) {
    let server = Server::configured(config);
    server.wait_until_ready();
    let mut client = server.anonymous();
    server.signal(Signal::TERM);
    assert_eq!(client.receive(), service_restart());
    (server, client)
}

#[test]
fn events_reach_the_clients_that_are_still_connected() {
    // 200 closes per second: the last client is closed after two seconds.
    let mut server = Server::configured("[timeouts]\ndrain = \"1s\"");
    server.wait_until_ready();
    let before: Vec<Client> = (0..400).map(|_| server.anonymous()).collect();
    let mut last = server.anonymous();
    last.subscribe("/uri", PAGE);
    let file = server.folder().join("event");
    fs::write(&file, event("create", json!({})).to_string()).unwrap();
    let address = fs::read_to_string(server.data().join("admin.address")).unwrap();
    server.signal(Signal::TERM);
    eventually(PATIENCE, || is_refused(server.address()).then_some(()));

    let (status, answer) = server.publish(&event("create", json!({})).to_string());
    assert_eq!((status, &answer["matched"]), (202, &json!(1)));
    // Commands find it, too.
    let output = server.run(&["publish", file.to_str().unwrap()]);
    assert!(output.ends_with("matched 1"), "{output}");
    let found = fs::read_to_string(server.data().join("admin.address")).unwrap();
    assert_eq!(found, address);
    for _ in 0..2 {
        assert!(matches!(last.receive(), Received::Text(_)));
    }
    assert_eq!(last.receive(), service_restart());
    drop((before, last));
    let (log, code) = server.wait();
    assert_eq!(code, Some(0), "{log}");
    assert!(!server.data().join("admin.address").exists());
    assert!(is_refused(server.admin));
}

#[test]
fn health_and_metrics_are_served_until_the_last_client_has_closed() {
    let (mut server, mut client) = draining(PATIENT);
    assert!(is_refused(server.address()));
    assert_eq!(get(&server, "/livez").0, 200);
    let (status, body) = get(&server, "/readyz");
    assert_eq!(status, 503);
    assert!(body.contains(r#""error":"draining""#), "{body}");
    let closing = server.metric("h_realtime_connections{state=\"closing\"}");
    assert!(closing >= 1.0, "{closing}");
    assert_eq!(
        server.publish(&event("create", json!({})).to_string()).0,
        202
    );
    client.close(1012, "");
    assert_eq!(client.receive(), Received::End);
    let (log, code) = server.wait();
    assert_eq!(code, Some(0), "{log}");
    assert!(is_refused(server.admin));
}

#[test]
fn pooled_admin_connection_gets_one_response_before_close() {
    let server = Server::configured(PATIENT);
    server.wait_until_ready();
    let mut client = server.anonymous();
    let mut pooled = Client::raw(TcpStream::connect(server.admin).unwrap());
    let request = format!("GET /livez HTTP/1.1\r\nHost: {}\r\n\r\n", server.admin);
    pooled.send_raw(request.as_bytes());
    let answer = pooled.answer(false).unwrap();
    assert_eq!(answer.field("Keep-Alive"), Some("timeout=10"));
    server.signal(Signal::TERM);
    assert_eq!(client.receive(), service_restart());
    pooled.send_raw(request.as_bytes());
    let answer = pooled.answer(false).unwrap();
    assert_eq!(answer.field("Connection"), Some("close"));
    assert!(pooled.answer(false).is_none());
}

#[test]
fn second_signal_also_stops_the_admin_listener() {
    let (mut server, _client) = draining(PATIENT);
    assert_eq!(get(&server, "/livez").0, 200);
    server.signal(Signal::TERM);
    assert_eq!(server.wait().1, Some(0));
    assert!(is_refused(server.admin));
    assert!(!server.data().join("admin.address").exists());
}

/// Starts the next server on the same addresses, including the admin address, as soon as the first
/// has ended.
fn next_at_once(server: &Server) -> Server {
    let admin = server.admin.to_string();
    let args = ["--admin", &admin, "--listen", &server.listeners[0]];
    Server::launch_as_is(Command::new(PROGRAM), server.shared_folder(), &args)
}

#[test]
fn next_server_and_its_clients_wait_for_the_admin_address() {
    let (mut server, mut client) = draining(PATIENT);
    let next = thread::scope(|scope| {
        let next = scope.spawn(|| next_at_once(&server));
        server.log_with("waiting for the admin address");
        // It already accepts clients, and the old server still responds on the admin address.
        let waiting = scope.spawn(|| server.anonymous());
        assert_eq!(get(&server, "/readyz").0, 503);
        client.close(1012, "");
        let mut early = waiting.join().unwrap();
        assert_eq!(early.drain(), []);
        next.join().unwrap()
    });
    assert_eq!(server.wait().1, Some(0));
    assert_eq!(
        (next.admin, next.address()),
        (server.admin, server.address())
    );
    // The first server has not removed the second server's address file.
    let found = fs::read_to_string(next.data().join("admin.address")).unwrap();
    assert_eq!(found.trim(), format!("http://{}/", next.admin));
    next.wait_until_ready();
    assert_eq!(get(&next, "/readyz").0, 200);
}

#[test]
fn admin_address_of_another_program_is_an_immediate_error() {
    let server = Server::start();
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    for taken in [server.admin, other.local_addr().unwrap()] {
        let folder = TempDir::new().unwrap();
        let mut command = Command::new(PROGRAM);
        command.args(["serve", "--listen", "ws://127.0.0.1:0", "--admin"]);
        command
            .arg(taken.to_string())
            .arg("--data")
            .arg(folder.path());
        let mut program = Program::start(&mut command);
        program.wait_for_error_line(&format!("cannot listen on {taken}"));
        assert_eq!(program.wait(), Some(69));
    }
}

#[test]
fn inherited_admin_socket_is_served_and_kept_for_the_next_server() {
    let folder = TempDir::new().unwrap();
    fs::write(folder.path().join("config.toml"), PATIENT).unwrap();
    let [ws, admin] = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    let (command, kept) = activated(PROGRAM, &[("ws", &ws), ("admin", &admin)]);
    let mut server = Server::launch_as_is(command, folder, &[]);
    drop(kept);
    server.wait_until_ready();
    let mut client = server.anonymous();
    server.signal(Signal::TERM);
    assert_eq!(client.receive(), service_restart());
    assert_eq!(get(&server, "/readyz").0, 503);
    assert_eq!(
        server.publish(&event("create", json!({})).to_string()).0,
        202
    );
    // A new client waits for the next server.
    let mut early = Client::raw(crate::support::connect(server.address()));
    early.request_websocket("/ws", "");
    client.close(1012, "");
    assert_eq!(server.wait().1, Some(0));
    let mut request = TcpStream::connect(server.admin).unwrap();
    let head = format!("GET /livez HTTP/1.1\r\nHost: {}\r\n", server.admin);
    let head = format!("{head}Connection: close\r\n\r\n");
    request.write_all(head.as_bytes()).unwrap();
    let (command, kept) = activated(PROGRAM, &[("ws", &ws), ("admin", &admin)]);
    let next = Server::launch_as_is(command, server.shared_folder(), &[]);
    drop(kept);
    let mut answer = String::new();
    request.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert_eq!(early.answer(false).map(|answer| answer.status()), Some(101));
    drop(next);
}

/// Sends a request to a Unix socket and returns the response.
fn ask(path: &std::path::Path, host: &str) -> String {
    let mut stream = UnixStream::connect(path).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let request = format!("GET /readyz HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// Starts a server whose admin interface is on a Unix socket.
fn on_unix_sockets(folder: &Arc<TempDir>) -> Program {
    let path = |name: &str| format!("unix:{}", folder.path().join(name).display());
    let mut command = Command::new(PROGRAM);
    command.args([
        "serve",
        "--listen",
        &path("ws.sock"),
        "--admin",
        &path("admin.sock"),
    ]);
    command.env("H_REALTIME_TIMEOUTS__CLOSE", "1h");
    command.env("H_REALTIME_TIMEOUTS__DRAIN", "0s");
    command.env("H_REALTIME_ADMIN_HOSTS", "admin.example.org");
    command.arg("--data").arg(folder.path().join("data"));
    Program::start(&mut command)
}

#[test]
fn an_admin_interface_on_a_unix_socket_is_served_to_the_end() {
    let folder = Arc::new(TempDir::new().unwrap());
    let mut first = on_unix_sockets(&folder);
    first.wait_for_error_line("started");
    let (ws, admin) = (
        folder.path().join("ws.sock"),
        folder.path().join("admin.sock"),
    );
    eventually(PATIENCE, || {
        ask(&admin, "localhost").contains(" 200 ").then_some(())
    });
    // Only configured host names are accepted.
    assert!(ask(&admin, "admin.example.org").starts_with("HTTP/1.1 200 "));
    let rebound = ask(&admin, "rebound.example.org");
    assert!(rebound.starts_with("HTTP/1.1 403 "), "{rebound}");
    assert!(rebound.contains("admin_hosts"), "{rebound}");

    let mut client = Client::over(UnixStream::connect(&ws).unwrap(), "/ws", "");
    let pid = rustix::process::Pid::from_child(&first.child);
    rustix::process::kill_process(pid, Signal::TERM).unwrap();
    assert_eq!(client.receive(), service_restart());
    assert!(ask(&admin, "localhost").contains(r#""error":"draining""#));
    let next = on_unix_sockets(&folder);
    next.wait_for_error_line("waiting for the admin address unix:");
    client.close(1012, "");
    assert_eq!(first.wait(), Some(0));
    next.wait_for_error_line("started");
    eventually(PATIENCE, || {
        ask(&admin, "localhost").contains(" 200 ").then_some(())
    });
    let found = fs::read_to_string(folder.path().join("data/admin.address")).unwrap();
    assert!(found.contains("admin.sock"), "{found}");
}
