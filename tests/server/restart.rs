//! Replacing a server without losing a client: all clients reconnect, and none is refused or reset
//! in between.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use h_realtime_engine::raise_open_files;
use rustix::process::Signal;
use tempfile::TempDir;

use crate::support::{NewClients, PROGRAM, ReconnectingClients, Server, activated, eventually};

/// Serializes the tests, which would otherwise slow each other down.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// Returns the number of clients, limited by the limit on open files, with a note if it is reduced.
fn count() -> usize {
    let possible = raise_open_files().saturating_sub(500) as usize;
    if possible < COUNT {
        println!("only {possible} of {COUNT} clients: raise the hard limit on open files");
    }
    possible.min(COUNT)
}

fn folder() -> TempDir {
    let folder = TempDir::new().unwrap();
    let config = "reuse_port = true\n[timeouts]\ndrain = \"5s\"\nping = \"1h\"";
    fs::write(folder.path().join("config.toml"), config).unwrap();
    folder
}

fn connect_clients(address: SocketAddr) -> ReconnectingClients {
    let count = count();
    let mut clients = ReconnectingClients::new(address, count);
    clients.run_until(PATIENCE, |clients| clients.open() == count);
    clients
}

/// Asserts that all clients are connected to this server, and reconnected without a failure.
fn expect_all_reconnected(clients: &mut ReconnectingClients, server: &Server, since: Instant) {
    let count = count();
    clients.run_until(PATIENCE, |clients| {
        clients.closes.len() == count && clients.open() == count
    });
    println!("all clients have reconnected after {:?}", since.elapsed());
    assert_eq!(clients.faults, [""; 0]);
    assert_eq!(
        server.metric("h_realtime_connections{state=\"open\"}"),
        count as f64
    );
    expect_even_spread(&clients.closes);
}

/// Asserts that closes are spread evenly over the seconds, so that clients do not reconnect all at
/// once.
fn expect_even_spread(closes: &[Instant]) {
    for second in 0..5 {
        let span = Duration::from_secs(second)..Duration::from_secs(second + 1);
        let of_it = closes
            .iter()
            .filter(|at| span.contains(&(**at - closes[0])));
        let seen = of_it.count();
        println!("{seen} were closed in second {second}");
        assert!(seen < closes.len() / 2, "{seen} of {}", closes.len());
    }
}

/// Like `systemctl restart` with a socket unit: the new server starts when the old one has ended.
#[test]
#[ignore = "thousands of connections"]
fn restart_with_inherited_socket() {
    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
    socket.bind(&any.into()).unwrap();
    socket.listen(4096).unwrap();
    let socket = TcpListener::from(socket);
    let address = socket.local_addr().unwrap();
    let (command, kept) = activated(PROGRAM, &[("ws", &socket)]);
    let mut first = Server::launch(command, folder(), &[]);
    drop(kept);
    let mut clients = connect_clients(address);

    let new_clients = NewClients::start(address, 4);
    let since = Instant::now();
    first.signal(Signal::TERM);
    clients.run_until(PATIENCE, |_| first.child.try_wait().unwrap().is_some());
    assert_eq!(first.wait().1, Some(0));
    let (command, _kept) = activated(PROGRAM, &[("ws", &socket)]);
    let next = first.beside(command, &[]);
    clients.run_until(PATIENCE, |clients| clients.open() == count());
    let connected = new_clients.end().unwrap();
    assert!(connected > 0);
    wait_until_closed(&next, count());
    expect_all_reconnected(&mut clients, &next, since);
}

/// With SO_REUSEPORT: the new server listens beside the old one, which is then terminated.
#[test]
#[ignore = "thousands of connections"]
fn restart_with_reuse_port() {
    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let mut first = Server::launch(
        Command::new(PROGRAM),
        folder(),
        &["--listen", "ws://127.0.0.1:0"],
    );
    let address = first.address();
    let mut clients = connect_clients(address);

    let new_clients = NewClients::start(address, 4);
    let next = first.beside(Command::new(PROGRAM), &["--listen", &first.listeners[0]]);
    let since = Instant::now();
    first.signal(Signal::TERM);
    clients.run_until(PATIENCE, |_| first.child.try_wait().unwrap().is_some());
    assert_eq!(first.wait().1, Some(0));
    let connected = new_clients.end().unwrap();
    println!("{connected} clients connected meanwhile");
    assert!(connected > 0);
    clients.run_until(PATIENCE, |clients| clients.open() == count());
    wait_until_closed(&next, count());
    expect_all_reconnected(&mut clients, &next, since);
    // The old server has not removed the new one's address file.
    let address = fs::read_to_string(next.data().join("admin.address")).unwrap();
    assert_eq!(address.trim(), format!("http://{}/", next.admin));
}

/// Connects clients that send a handshake and are not accepted yet, since the server is suspended.
fn queue_up(address: SocketAddr, count: usize) -> Vec<TcpStream> {
    let request = format!(
        "GET /ws HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    let connect = |_| {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        stream
    };
    (0..count).map(connect).collect()
}

/// Reads a successful handshake response.
fn expect_accepted(stream: &mut TcpStream) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        head.extend(byte);
    }
    assert!(
        head.starts_with(b"HTTP/1.1 101 "),
        "{}",
        String::from_utf8_lossy(&head)
    );
}

/// Reads a close frame with 1012.
fn expect_close_1012(stream: &mut TcpStream) {
    let mut frame = [0; 4];
    stream.read_exact(&mut frame).unwrap();
    assert_eq!((frame[0], frame[2], frame[3]), (0x88, 0x03, 0xf4));
}

#[test]
fn shutdown_does_not_reset_clients_in_the_accept_queue() {
    let config = "[timeouts]\nclose = \"300ms\"\ndrain = \"300ms\"";
    let mut server = Server::configured(config);
    server.signal(Signal::STOP);
    let mut waiting = queue_up(server.address(), 800);
    server.signal(Signal::TERM);
    server.signal(Signal::CONT);
    for stream in &mut waiting {
        expect_accepted(stream);
    }
    waiting.iter_mut().for_each(expect_close_1012);
    assert_eq!(server.wait().1, Some(0));
}

#[test]
fn shutdown_of_one_of_two_servers_does_not_reset_its_accept_queue() {
    let config = "reuse_port = true\n[timeouts]\nclose = \"300ms\"\ndrain = \"300ms\"";
    let mut first = Server::configured(config);
    let next = first.successor();
    first.signal(Signal::STOP);
    let mut waiting = queue_up(first.address(), 800);
    first.signal(Signal::TERM);
    first.signal(Signal::CONT);
    waiting.iter_mut().for_each(expect_accepted);
    assert_eq!(first.wait().1, Some(0));
    let served = next.metric("h_realtime_connects_total");
    assert!(
        (200.0..600.0).contains(&served),
        "{served}: each server had some"
    );
}

/// Waits until the server has closed all short-lived connections.
fn wait_until_closed(server: &Server, count: usize) {
    eventually(PATIENCE, || {
        let open = server.metric("h_realtime_connections{state=\"open\"}");
        (open as usize == count).then_some(())
    });
}

const COUNT: usize = 5000;
/// For a whole restart, each of which takes less than 10 s.
const PATIENCE: Duration = Duration::from_secs(25);
