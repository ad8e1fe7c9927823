//! Thousands of clients on one thread that reconnect like the official client; and clients that
//! connect for the first time.

use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};

use super::PATIENCE;

/// Clients that connect, wait to be closed, and reconnect.
pub struct ReconnectingClients {
    poll: Poll,
    events: Events,
    address: SocketAddr,
    members: Vec<Member>,
    /// Total since the start.
    pub opened: usize,
    /// When closes with 1012 were received.
    pub closes: Vec<Instant>,
    /// Failures: refused or reset connects, interrupted handshakes, closes with other codes.
    pub faults: Vec<String>,
}

struct Member {
    state: State,
    /// Failed attempts since the last success.
    tries: u32,
}

enum State {
    /// Reconnects at this time.
    Disconnected(Instant),
    /// Handshake in progress, with the bytes received.
    Handshaking(TcpStream, bool, Vec<u8>),
    /// Open, with the bytes received.
    Open(TcpStream, Vec<u8>),
    /// Has replied to the close frame.
    Closing(TcpStream),
}

impl ReconnectingClients {
    /// Connects `count` clients, a few at a time.
    pub fn new(address: SocketAddr, count: usize) -> ReconnectingClients {
        let now = Instant::now();
        let arrives = |number: usize| now + Duration::from_micros(200 * number as u64);
        ReconnectingClients {
            poll: Poll::new().unwrap(),
            events: Events::with_capacity(1024),
            address,
            members: (0..count)
                .map(|number| Member {
                    state: State::Disconnected(arrives(number)),
                    tries: 0,
                })
                .collect(),
            opened: 0,
            closes: Vec::new(),
            faults: Vec::new(),
        }
    }

    /// Returns the number of open connections.
    pub fn open(&self) -> usize {
        let is_open = |member: &&Member| matches!(member.state, State::Open(..));
        self.members.iter().filter(is_open).count()
    }

    /// Serves the clients until `done` returns true, for at most `within`.
    pub fn run_until(
        &mut self,
        within: Duration,
        mut done: impl FnMut(&ReconnectingClients) -> bool,
    ) {
        let end = Instant::now() + within;
        while !done(self) {
            assert!(
                Instant::now() < end,
                "{} of {} are connected; faults: {:?}",
                self.open(),
                self.members.len(),
                self.faults.iter().take(5).collect::<Vec<_>>()
            );
            self.turn();
        }
    }

    fn turn(&mut self) {
        let now = Instant::now();
        for number in 0..self.members.len() {
            if matches!(self.members[number].state, State::Disconnected(at) if at <= now) {
                self.connect(number);
            }
        }
        let mut events = std::mem::replace(&mut self.events, Events::with_capacity(0));
        let wait = Duration::from_millis(5);
        self.poll.poll(&mut events, Some(wait)).unwrap();
        for event in &events {
            let number = event.token().0;
            let now = std::mem::replace(&mut self.members[number].state, State::Disconnected(now));
            let next = self.advance(number, now);
            self.members[number].state = next;
        }
        self.events = events;
    }

    fn connect(&mut self, number: usize) {
        let mut stream = TcpStream::connect(self.address).unwrap();
        let both = Interest::READABLE | Interest::WRITABLE;
        let registry = self.poll.registry();
        registry.register(&mut stream, Token(number), both).unwrap();
        self.members[number].state = State::Handshaking(stream, false, Vec::new());
    }

    /// Returns the next state of a client whose socket is ready.
    fn advance(&mut self, number: usize, state: State) -> State {
        match state {
            State::Disconnected(at) => State::Disconnected(at),
            State::Handshaking(stream, has_sent_request, bytes) => {
                self.handshake(number, stream, has_sent_request, bytes)
            }
            State::Open(mut stream, mut bytes) => match receive(&mut stream, &mut bytes) {
                Ok(is_over) => self.on_input(number, stream, bytes, is_over),
                Err(error) => self.fault(number, format!("while open: {error}")),
            },
            // The server's end of stream is reported as an event.
            State::Closing(mut stream) => match receive(&mut stream, &mut Vec::new()) {
                Ok(false) => State::Closing(stream),
                Ok(true) | Err(_) => self.schedule_reconnect(number),
            },
        }
    }

    fn handshake(
        &mut self,
        number: usize,
        mut stream: TcpStream,
        has_sent_request: bool,
        mut bytes: Vec<u8>,
    ) -> State {
        if !has_sent_request {
            if let Some(error) = stream.take_error().unwrap() {
                return self.fault(number, format!("connect: {error}"));
            }
            match stream.peer_addr() {
                Ok(_) => {}
                Err(_) => return State::Handshaking(stream, false, bytes),
            }
            let request = request(self.address);
            // The request fits an empty socket buffer.
            if let Err(error) = stream.write_all(request.as_bytes()) {
                return self.fault(number, format!("handshake: {error}"));
            }
        }
        match receive(&mut stream, &mut bytes) {
            Err(error) => return self.fault(number, format!("handshake: {error}")),
            Ok(true) => return self.fault(number, "handshake: ended".to_owned()),
            Ok(false) => {}
        }
        let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else {
            return State::Handshaking(stream, true, bytes);
        };
        if !bytes.starts_with(b"HTTP/1.1 101 ") {
            let head = String::from_utf8_lossy(&bytes).into_owned();
            return self.fault(number, format!("handshake: {head}"));
        }
        bytes.drain(..end + 4);
        self.opened += 1;
        self.members[number].tries = 0;
        self.on_input(number, stream, bytes, false)
    }

    /// Expects nothing but a close frame.
    fn on_input(
        &mut self,
        number: usize,
        mut stream: TcpStream,
        bytes: Vec<u8>,
        over: bool,
    ) -> State {
        match bytes[..] {
            [0x88, length, high, low, ..] if bytes.len() == usize::from(length) + 2 => {
                let code = u16::from_be_bytes([high, low]);
                if code != 1012 {
                    return self.fault(number, format!("closed with {code}"));
                }
                self.closes.push(Instant::now());
                // With a mask of zeros.
                let answer = [0x88, 0x82, 0, 0, 0, 0, high, low];
                match stream.write_all(&answer) {
                    Ok(()) => self.advance(number, State::Closing(stream)),
                    Err(error) => self.fault(number, format!("close: {error}")),
                }
            }
            [] | [0x88, ..] if !over => State::Open(stream, bytes),
            _ if over => self.fault(number, "ended without a close frame".to_owned()),
            _ => self.fault(number, format!("received {bytes:?}")),
        }
    }

    fn fault(&mut self, number: usize, problem: String) -> State {
        self.faults.push(problem);
        self.members[number].tries += 1;
        self.schedule_reconnect(number)
    }

    /// Schedules a reconnect after 2 s, 4 s, 8 s …, as the official client does.
    fn schedule_reconnect(&mut self, number: usize) -> State {
        let delay = Duration::from_secs(2 << self.members[number].tries.min(8));
        State::Disconnected(Instant::now() + delay)
    }
}

/// Reads all available bytes. Returns whether the stream has ended.
fn receive(stream: &mut TcpStream, bytes: &mut Vec<u8>) -> io::Result<bool> {
    let mut buffer = [0; 4096];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return Ok(true),
            Ok(length) => bytes.extend_from_slice(&buffer[..length]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            Err(error) => return Err(error),
        }
    }
}

fn request(address: SocketAddr) -> String {
    format!(
        "GET /ws HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
}

/// Clients that each connect once, complete the handshake, and close.
pub struct NewClients {
    is_over: Arc<AtomicBool>,
    threads: Vec<JoinHandle<io::Result<usize>>>,
}

impl NewClients {
    /// Starts this many threads.
    pub fn start(address: SocketAddr, threads: usize) -> NewClients {
        let is_over = Arc::new(AtomicBool::new(false));
        let threads = (0..threads).map(|_| {
            let is_over = Arc::clone(&is_over);
            thread::spawn(move || {
                let mut count = 0;
                while !is_over.load(Ordering::Relaxed) {
                    connect_once(address)?;
                    count += 1;
                }
                Ok(count)
            })
        });
        NewClients {
            threads: threads.collect(),
            is_over,
        }
    }

    /// Stops the threads. Returns the number of clients if all handshakes succeeded.
    pub fn end(self) -> io::Result<usize> {
        self.is_over.store(true, Ordering::Relaxed);
        let counts = self.threads.into_iter();
        counts.map(|thread| thread.join().unwrap()).sum()
    }
}

fn connect_once(address: SocketAddr) -> io::Result<()> {
    let mut stream = std::net::TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(request(address).as_bytes())?;
    let mut status = [0; 12];
    stream.read_exact(&mut status)?;
    match &status {
        b"HTTP/1.1 101" => Ok(()),
        _ => Err(io::Error::other(String::from_utf8_lossy(&status))),
    }
}
