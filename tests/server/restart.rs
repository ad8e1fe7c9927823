//! One server in the place of another, without losing a client: all that were connected are back,
//! and nobody was refused or cut off meanwhile.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use h_realtime_engine::raise_open_files;
use rustix::process::Signal;
use tempfile::TempDir;

use crate::support::{Crowd, Newcomers, PROGRAM, Server, activated, eventually};

/// Where each waits for the other, lest both take twice the time.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// As many as there are to be, or as the limit on open files allows; it is said if those are less.
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

fn gather(address: SocketAddr) -> Crowd {
    let count = count();
    let mut crowd = Crowd::new(address, count);
    crowd.run_until(PATIENCE, |crowd| crowd.open() == count);
    crowd
}

/// Everybody is with this server, and came by the shortest way.
fn all_are_back(crowd: &mut Crowd, server: &Server, since: Instant) {
    let count = count();
    crowd.run_until(PATIENCE, |crowd| {
        crowd.told.len() == count && crowd.open() == count
    });
    println!("all are back after {:?}", since.elapsed());
    assert_eq!(crowd.faults, [""; 0]);
    assert_eq!(
        server.metric("h_realtime_connections{state=\"open\"}"),
        count as f64
    );
    is_even(&crowd.told);
}

/// In no second were many more told to go than in others: they come back together.
fn is_even(told: &[Instant]) {
    for second in 0..5 {
        let span = Duration::from_secs(second)..Duration::from_secs(second + 1);
        let of_it = told.iter().filter(|at| span.contains(&(**at - told[0])));
        let seen = of_it.count();
        println!("{seen} were told in second {second}");
        assert!(seen < told.len() / 2, "{seen} of {}", told.len());
    }
}

/// As `systemctl restart` does with a socket unit: the new one starts when the old one has ended.
#[test]
#[ignore = "thousands of connections"]
fn by_a_socket_that_stays_open() {
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
    let mut crowd = gather(address);

    let newcomers = Newcomers::start(address, 4);
    let since = Instant::now();
    first.signal(Signal::TERM);
    crowd.run_until(PATIENCE, |_| first.child.try_wait().unwrap().is_some());
    assert_eq!(first.wait().1, Some(0));
    let (command, _kept) = activated(PROGRAM, &[("ws", &socket)]);
    let next = first.beside(command, &[]);
    crowd.run_until(PATIENCE, |crowd| crowd.open() == count());
    let came = newcomers.end().unwrap();
    assert!(came > 0);
    left(&next, count());
    all_are_back(&mut crowd, &next, since);
}

/// With SO_REUSEPORT: the new one listens beside the old one, which then is told to end.
#[test]
#[ignore = "thousands of connections"]
fn by_a_port_that_both_listen_on() {
    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let mut first = Server::launch(
        Command::new(PROGRAM),
        folder(),
        &["--listen", "ws://127.0.0.1:0"],
    );
    let address = first.address();
    let mut crowd = gather(address);

    let newcomers = Newcomers::start(address, 4);
    let next = first.beside(Command::new(PROGRAM), &["--listen", &first.listeners[0]]);
    let since = Instant::now();
    first.signal(Signal::TERM);
    crowd.run_until(PATIENCE, |_| first.child.try_wait().unwrap().is_some());
    assert_eq!(first.wait().1, Some(0));
    let came = newcomers.end().unwrap();
    println!("{came} came meanwhile");
    assert!(came > 0);
    crowd.run_until(PATIENCE, |crowd| crowd.open() == count());
    left(&next, count());
    all_are_back(&mut crowd, &next, since);
    // What the new one said of itself is not gone with the old one.
    let said = fs::read_to_string(next.data().join("admin.address")).unwrap();
    assert_eq!(said.trim(), format!("http://{}/", next.admin));
}

/// Clients that have connected and said what they want, and whom nobody has accepted yet: the
/// server stands still.
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

/// Reads the answer, which must be a good one.
fn is_let_in(stream: &mut TcpStream) {
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
fn is_told_to_come_back(stream: &mut TcpStream) {
    let mut frame = [0; 4];
    stream.read_exact(&mut frame).unwrap();
    assert_eq!((frame[0], frame[2], frame[3]), (0x88, 0x03, 0xf4));
}

#[test]
fn who_waits_in_the_queue_of_a_server_that_ends_is_not_cut_off() {
    let config = "[timeouts]\nclose = \"300ms\"\ndrain = \"300ms\"";
    let mut server = Server::configured(config);
    server.signal(Signal::STOP);
    let mut waiting = queue_up(server.address(), 800);
    server.signal(Signal::TERM);
    server.signal(Signal::CONT);
    for stream in &mut waiting {
        is_let_in(stream);
    }
    waiting.iter_mut().for_each(is_told_to_come_back);
    assert_eq!(server.wait().1, Some(0));
}

#[test]
fn who_waits_at_one_of_two_servers_on_a_port_is_not_cut_off_when_that_ends() {
    let config = "reuse_port = true\n[timeouts]\nclose = \"300ms\"\ndrain = \"300ms\"";
    let mut first = Server::configured(config);
    let next = first.successor();
    first.signal(Signal::STOP);
    let mut waiting = queue_up(first.address(), 800);
    first.signal(Signal::TERM);
    first.signal(Signal::CONT);
    waiting.iter_mut().for_each(is_let_in);
    assert_eq!(first.wait().1, Some(0));
    let served = next.metric("h_realtime_connects_total");
    assert!(
        (200.0..600.0).contains(&served),
        "{served}: each has had some"
    );
}

/// The server has noticed that the newcomers have left.
fn left(server: &Server, count: usize) {
    eventually(PATIENCE, || {
        let open = server.metric("h_realtime_connections{state=\"open\"}");
        (open as usize == count).then_some(())
    });
}

const COUNT: usize = 5000;
/// For all of a way: each takes less than 10 s.
const PATIENCE: Duration = Duration::from_secs(25);
