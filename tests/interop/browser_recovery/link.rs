//! A TCP proxy between browsers and the server that interrupts connections, and records the frames
//! that pass it.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;

use serde_json::Value;

use crate::support::inflate;

/// The network between browsers and the server.
pub struct Link {
    pub address: SocketAddr,
    shared: Arc<Shared>,
}

/// A frame that has passed the link.
#[derive(Clone, Debug)]
pub struct PassedFrame {
    /// The number of the connection, from 0.
    pub connection: usize,
    pub direction: Direction,
    pub opcode: u8,
    /// Decompressed.
    pub payload: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    ToServer,
    ToBrowser,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Bytes pass.
    Open,
    /// Bytes are held back, also those of new connections.
    Stalled,
    /// Bytes to browsers are lost, except handshakes.
    Lossy,
    /// New connections are closed at once.
    Down,
}

struct Shared {
    upstream: SocketAddr,
    state: Mutex<State>,
    changed: Condvar,
    /// The number of connections that have been cut: all before this one.
    cut: AtomicUsize,
    /// The socket of the browser and of the server for each connection.
    sockets: Mutex<Vec<(TcpStream, TcpStream)>>,
    frames: Mutex<Vec<PassedFrame>>,
}

impl Link {
    /// Starts a link to a server.
    pub fn start(upstream: SocketAddr) -> Link {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            upstream,
            state: Mutex::new(State::Open),
            changed: Condvar::new(),
            cut: AtomicUsize::new(0),
            sockets: Mutex::default(),
            frames: Mutex::default(),
        });
        let accepting = Arc::clone(&shared);
        thread::spawn(move || {
            for browser in listener.incoming().flatten() {
                let shared = Arc::clone(&accepting);
                thread::spawn(move || shared.connect(browser));
            }
        });
        Link { address, shared }
    }

    /// Holds back all bytes in both directions. No connection is closed.
    pub fn stall(&self) {
        self.set(State::Stalled);
    }

    /// Loses all frames to browsers. Handshakes and bytes to the server pass.
    pub fn lose_output(&self) {
        self.set(State::Lossy);
    }

    /// Closes the browsers' sides of all connections, and refuses new ones. Bytes that were held back
    /// are lost. The server is not notified.
    pub fn cut(&self) {
        let sockets = self.shared.sockets.lock().unwrap();
        self.shared.cut.store(sockets.len(), Ordering::SeqCst);
        self.set(State::Down);
        for (browser, _) in sockets.iter() {
            let _ = browser.shutdown(Shutdown::Both);
        }
    }

    /// Lets bytes pass again, also those that were held back.
    pub fn restore(&self) {
        self.set(State::Open);
    }

    /// Closes the server's sides of the connections that were cut.
    pub fn close_server_sides(&self) {
        let cut = self.shared.cut.load(Ordering::SeqCst);
        for (_, server) in self.shared.sockets.lock().unwrap().iter().take(cut) {
            let _ = server.shutdown(Shutdown::Both);
        }
    }

    /// Returns the number of connections so far.
    pub fn connections(&self) -> usize {
        self.shared.sockets.lock().unwrap().len()
    }

    /// Returns the frames that have passed so far.
    pub fn frames(&self) -> Vec<PassedFrame> {
        self.shared.frames.lock().unwrap().clone()
    }

    fn set(&self, state: State) {
        *self.shared.state.lock().unwrap() = state;
        self.shared.changed.notify_all();
    }
}

impl PassedFrame {
    /// Returns the JSON text of a data frame.
    pub fn json(&self) -> Option<Value> {
        (self.opcode == 1).then(|| serde_json::from_slice(&self.payload).unwrap())
    }
}

impl Shared {
    /// Connects a browser to the server as soon as bytes pass.
    fn connect(self: &Arc<Shared>, browser: TcpStream) {
        let state = self.state.lock().unwrap();
        let is_stalled = |state: &mut State| *state == State::Stalled;
        if *self.changed.wait_while(state, is_stalled).unwrap() == State::Down {
            return;
        }
        let Ok(server) = TcpStream::connect(self.upstream) else {
            return;
        };
        for socket in [&browser, &server] {
            socket.set_nodelay(true).unwrap();
        }
        let (to_server, to_browser) = (server.try_clone().unwrap(), browser.try_clone().unwrap());
        let connection = {
            let mut sockets = self.sockets.lock().unwrap();
            sockets.push((browser.try_clone().unwrap(), server.try_clone().unwrap()));
            sockets.len() - 1
        };
        let shared = Arc::clone(self);
        thread::spawn(move || shared.pump(connection, Direction::ToServer, browser, to_server));
        self.pump(connection, Direction::ToBrowser, server, to_browser);
    }

    fn pump(
        &self,
        connection: usize,
        direction: Direction,
        mut from: TcpStream,
        mut to: TcpStream,
    ) {
        let mut chunk = [0; 65_536];
        let mut parser = Parser::default();
        loop {
            let length = from.read(&mut chunk).unwrap_or(0);
            let state = self.state.lock().unwrap();
            let is_stalled = |state: &mut State| *state == State::Stalled;
            let state = *self.changed.wait_while(state, is_stalled).unwrap();
            if connection < self.cut.load(Ordering::SeqCst) {
                return;
            }
            if length == 0 {
                let _ = to.shutdown(Shutdown::Write);
                return;
            }
            let is_lossy = state == State::Lossy && direction == Direction::ToBrowser;
            if is_lossy && parser.is_past_head {
                continue;
            }
            // Recorded before the receiver can react.
            parser.bytes.extend_from_slice(&chunk[..length]);
            let mut frames = self.frames.lock().unwrap();
            let passed = frames.len();
            while let Some((opcode, payload)) = parser.next() {
                frames.push(PassedFrame {
                    connection,
                    direction,
                    opcode,
                    payload,
                });
            }
            if to.write_all(&chunk[..length]).is_err() {
                frames.truncate(passed);
                return;
            }
        }
    }
}

/// Splits a stream of one direction into frames.
#[derive(Default)]
struct Parser {
    bytes: Vec<u8>,
    is_past_head: bool,
}

impl Parser {
    /// Returns the opcode and the payload of the next frame.
    fn next(&mut self) -> Option<(u8, Vec<u8>)> {
        if !self.is_past_head {
            let end = self.bytes.windows(4).position(|part| part == b"\r\n\r\n")?;
            self.bytes.drain(..end + 4);
            self.is_past_head = true;
        }
        let [first, second, ..] = self.bytes[..] else {
            return None;
        };
        assert!(first & 0x80 != 0, "fragmented");
        let (mut at, length) = match second & 0x7F {
            126 => (
                4,
                u16::from_be_bytes(self.bytes.get(2..4)?.try_into().unwrap()).into(),
            ),
            127 => (
                10,
                u64::from_be_bytes(self.bytes.get(2..10)?.try_into().unwrap()),
            ),
            length => (2, length.into()),
        };
        let mut mask = [0; 4];
        if second & 0x80 != 0 {
            mask.copy_from_slice(self.bytes.get(at..at + 4)?);
            at += 4;
        }
        let end = at + usize::try_from(length).unwrap();
        let mut payload = self.bytes.get(at..end)?.to_vec();
        self.bytes.drain(..end);
        for (byte, key) in payload.iter_mut().zip(mask.iter().cycle()) {
            *byte ^= key;
        }
        if first & 0x40 != 0 {
            payload = inflate(&payload);
        }
        Some((first & 0x0F, payload))
    }
}
