//! Memory retained by connections: heap bytes counted by the allocator, over simulated sockets and
//! a simulated clock.

use std::cell::RefCell;
use std::io::{self, ErrorKind, IoSlice};
use std::mem;
use std::net::{IpAddr, Ipv4Addr};
use std::rc::Rc;
use std::time::Duration;

use h_realtime_engine::http::{Request, Response, check_upgrade};
use h_realtime_engine::ws::{OpCode, encode_client_frame};
use h_realtime_engine::{
    Config, ConnCx, ConnKey, Cx, Engine, Frame, Handler, ListenerId, ListenerOptions, Message, Now,
    Readiness, RequestCx, Socket, Verdict,
};

use crate::sim::environment::{Descriptive, Environment};
use crate::sim::rng::Rng;
use crate::{HEAP, alone};

/// The variation caused by the tests themselves.
const NOISE: usize = 2048;

// M1
#[test]
fn an_hour_of_pings_retains_no_memory() {
    alone(module_path!(), "an_hour_of_pings_retains_no_memory", || {
        let mut world = World::new(Config::default());
        world.open_many(1000);
        world.advance(Duration::from_secs(120));
        let (before, pings) = (HEAP.current_usage(), world.pings);
        world.advance(Duration::from_secs(3600));
        let after = HEAP.current_usage();
        assert!(world.pings - pings > 100_000, "{}", world.pings - pings);
        assert_eq!(world.engine.counters().open, 1000);
        assert!(after <= before + NOISE, "from {before} to {after}");
    });
}

// M1
#[test]
fn large_message_retains_no_memory() {
    alone(module_path!(), "large_message_retains_no_memory", || {
        let mut world = World::new(Config::default());
        world.open_many(200);
        // The engine's permanent buffers are allocated once.
        world.echo_large(0);
        world.advance(Duration::from_secs(1));
        let before = HEAP.current_usage();
        for peer in 1..200 {
            world.echo_large(peer);
        }
        world.advance(Duration::from_secs(1));
        let after = HEAP.current_usage();
        assert_eq!(world.engine.counters().open, 200);
        assert!(after <= before + NOISE, "from {before} to {after}");
    });
}

// K5, M1
#[test]
fn closed_connections_retain_no_memory() {
    alone(
        module_path!(),
        "closed_connections_retain_no_memory",
        || {
            let mut world = World::new(Config::default().max_per_ip(Some(10)));
            world.open_many(1);
            world.disconnect_all();
            let before = HEAP.current_usage();
            world.open_many(5000);
            let with_all = HEAP.current_usage();
            world.disconnect_all();
            let after = HEAP.current_usage();
            assert!(with_all > before + 5000 * 70);
            // Tables for a few hundred connections are kept.
            assert!(after <= before + 32 * 1024, "from {before} to {after}");
        },
    );
}

/// A connection between its two sides.
#[derive(Default)]
struct Wire {
    to_server: Vec<u8>,
    read: usize,
    from_server: Vec<u8>,
    /// The kernel's buffer space, `None` for unlimited.
    room: Option<usize>,
    has_ended: bool,
    number: usize,
}

/// The server's side, which records the peers with unread output.
struct ServerSocket {
    wire: Rc<RefCell<Wire>>,
    written: Rc<RefCell<Vec<usize>>>,
}

impl Socket for ServerSocket {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let wire = &mut *self.wire.borrow_mut();
        let rest = &wire.to_server[wire.read..];
        if rest.is_empty() {
            return match wire.has_ended {
                true => Ok(0),
                false => Err(ErrorKind::WouldBlock.into()),
            };
        }
        let count = rest.len().min(buf.len());
        buf[..count].copy_from_slice(&rest[..count]);
        wire.read += count;
        if wire.read == wire.to_server.len() {
            (wire.to_server, wire.read) = (Vec::new(), 0);
        }
        Ok(count)
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let wire = &mut *self.wire.borrow_mut();
        let mut written = 0;
        for slice in slices {
            let count = slice.len().min(wire.room.unwrap_or(slice.len()));
            wire.room = wire.room.map(|room| room - count);
            wire.from_server.extend_from_slice(&slice[..count]);
            written += count;
        }
        if written == 0 {
            return Err(ErrorKind::WouldBlock.into());
        }
        self.written.borrow_mut().push(wire.number);
        Ok(written)
    }

    fn shutdown_write(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Replies to text messages, and sends binary ones back.
struct Echo;

impl Handler for Echo {
    type Session = [u64; 3];
    type Command = ();

    fn on_request(
        &mut self,
        _: &mut RequestCx<'_, [u64; 3]>,
        request: &Request<'_>,
    ) -> Verdict<[u64; 3]> {
        match check_upgrade(request) {
            Ok(upgrade) => Verdict::Upgrade(upgrade, [0; 3]),
            Err(refused) => {
                Verdict::Respond(Response::new(400, "text/plain", refused.0.as_bytes()))
            }
        }
    }

    fn on_message(&mut self, cx: &mut ConnCx<'_, [u64; 3]>, message: Message<'_>) {
        let key = cx.key();
        match message {
            Message::Text(_) => cx.reply(message),
            Message::Binary(data) => cx.send(key, Frame::binary(data)),
        }
    }

    fn on_command(&mut self, _: &mut Cx<'_, [u64; 3]>, (): ()) {}
}

impl Descriptive for ServerSocket {}

struct Peer {
    key: ConnKey,
    wire: Rc<RefCell<Wire>>,
}

struct World {
    engine: Engine<ServerSocket, Echo>,
    environment: Environment<ServerSocket, ()>,
    peers: Vec<Peer>,
    written: Rc<RefCell<Vec<usize>>>,
    /// In milliseconds.
    clock: u64,
    /// Pings answered so far.
    pings: u64,
}

impl World {
    fn new(config: Config) -> Self {
        let mut engine = Engine::new(config, Echo, 1, at(0));
        let mut environment = Environment::new(Rng::new(1));
        environment.reserve(8192);
        environment.listen(&mut engine, ListenerOptions::default());
        World {
            engine,
            environment,
            peers: Vec::with_capacity(8192),
            written: Rc::new(RefCell::new(Vec::with_capacity(8192))),
            clock: 0,
            pings: 0,
        }
    }

    /// Opens `count` WebSockets, each from a different address.
    fn open_many(&mut self, count: usize) {
        for number in 0..count {
            let wire = Rc::new(RefCell::new(Wire {
                number,
                ..Wire::default()
            }));
            let ip = Ipv4Addr::from(0x0a00_0000 + number as u32);
            let socket = ServerSocket {
                wire: Rc::clone(&wire),
                written: Rc::clone(&self.written),
            };
            self.environment
                .connect(ListenerId(0), socket, Some(IpAddr::V4(ip)));
            self.turns();
            let key = self.environment.take_accepted()[0].key;
            self.peers.push(Peer { key, wire });
            self.send(number, HANDSHAKE);
            self.turns();
            let answer = self.take(number);
            assert!(answer.starts_with(b"HTTP/1.1 101"));
        }
    }

    /// Sends a peer's bytes.
    fn send(&mut self, number: usize, bytes: &[u8]) {
        let peer = &self.peers[number];
        peer.wire.borrow_mut().to_server.extend_from_slice(bytes);
        self.environment.ready(peer.key, edge(false));
    }

    /// Takes the server's output to a peer.
    fn take(&mut self, number: usize) -> Vec<u8> {
        self.written.borrow_mut().retain(|&other| other != number);
        mem::take(&mut self.peers[number].wire.borrow_mut().from_server)
    }

    /// Sends a long message in fragments and many reads, and receives its echo in many writes.
    fn echo_large(&mut self, number: usize) {
        let (mut message, payload) = (Vec::new(), vec![b'x'; LARGE / 2]);
        let opcode = [OpCode::Text, OpCode::Binary][number % 2];
        encode_client_frame(false, opcode, [1, 2, 3, 4], &payload, &mut message);
        let rest = OpCode::Continuation;
        encode_client_frame(true, rest, [5, 6, 7, 8], &payload, &mut message);
        self.peers[number].wire.borrow_mut().room = Some(0);
        for piece in message.chunks(7000) {
            self.send(number, piece);
            self.turns();
        }
        let mut echoed = 0;
        while echoed < LARGE {
            self.peers[number].wire.borrow_mut().room = Some(9000);
            self.environment.ready(self.peers[number].key, edge(false));
            self.turns();
            let bytes = self.take(number).len();
            assert!(bytes > 0, "only {echoed} bytes were echoed");
            echoed += bytes;
        }
        self.peers[number].wire.borrow_mut().room = None;
    }

    /// Disconnects all peers at once.
    fn disconnect_all(&mut self) {
        for peer in self.peers.drain(..) {
            peer.wire.borrow_mut().has_ended = true;
            self.environment.ready(peer.key, edge(true));
        }
        self.turns();
        self.written.borrow_mut().clear();
        self.advance(Duration::from_secs(5));
        assert_eq!(self.engine.counters().connections, 0);
    }

    /// Advances the clock; pings are answered.
    fn advance(&mut self, span: Duration) {
        let end = self.clock + span.as_millis() as u64;
        while self.clock < end {
            self.clock += self.wait().as_millis().max(1) as u64;
            self.turns();
            while let Some(number) = self.next_written() {
                self.answer_ping(number);
            }
            self.turns();
        }
    }

    fn next_written(&self) -> Option<usize> {
        self.written.borrow_mut().pop()
    }

    fn answer_ping(&mut self, number: usize) {
        let Some(peer) = self.peers.get(number) else {
            return;
        };
        let ping = mem::take(&mut peer.wire.borrow_mut().from_server);
        assert_eq!(ping[0], 0x80 | OpCode::Ping as u8);
        let mut pong = Vec::new();
        encode_client_frame(true, OpCode::Pong, [1, 2, 3, 4], &ping[2..], &mut pong);
        self.send(number, &pong);
        self.pings += 1;
    }

    /// Runs turns until the engine is idle.
    fn turns(&mut self) {
        loop {
            self.environment.turn(&mut self.engine, at(self.clock));
            if !self.wait().is_zero() {
                return;
            }
        }
    }

    fn wait(&self) -> Duration {
        self.environment.wait().expect("no shutdown")
    }
}

fn edge(read_closed: bool) -> Readiness {
    Readiness {
        readable: true,
        writable: true,
        read_closed,
    }
}

fn at(clock: u64) -> Now {
    Now {
        mono: clock,
        unix: clock,
    }
}

const LARGE: usize = 60_000;

const HANDSHAKE: &[u8] = b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n\
    Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
    Sec-WebSocket-Version: 13\r\n\r\n";
