//! The engine with the whole API, and clients that make it hold memory in every way.
//!
//! Measures the memory that calls of the engine leave allocated. The memory of clients and sockets
//! is not included: it is allocated elsewhere, and sockets do not grow.

use std::time::Duration;

use h_realtime::realtime::ApiSettings;
use h_realtime_engine::ws::CAN_DEFLATE;
use h_realtime_engine::{Config, Engine, ListenerId, ListenerOptions, Mail, Now};

use crate::HEAP;
use crate::sim::api::{Api, Command, event};
use crate::sim::environment::Environment;
use crate::sim::rng::Rng;
use crate::sim::{OFFER, client_frame, deflate, handshake, handshake_with, pad};

use super::account::Account;
use super::peer::{Peer, Tls};
use super::wire::{ServerEnd, Wire};

pub struct Site {
    engine: Engine<ServerEnd, Api>,
    environment: Environment<ServerEnd, Command>,
    peers: Vec<Peer>,
    rng: Rng,
    tls: Option<Tls>,
    /// In milliseconds.
    clock: u64,
    /// Bytes that the engine and the API have allocated.
    allocated: usize,
    /// The same before the first client connected.
    idle: usize,
    /// Bytes of all events published so far.
    published: usize,
    /// The largest number of connections at once, and of TLS connections.
    most: (usize, usize),
}

/// A way to make the server hold memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hold {
    Filter,
    PartialMessage,
    Fragments,
    Replies,
    Pongs,
    Burst,
    PartialHead,
    PartialBody,
    /// A body in chunks of a few bytes each.
    PartialChunks,
    Deferred,
    Events,
    /// Many connections, for which large batches of events take several turns.
    ManyConnections,
    /// Output to clients with TLS.
    Records,
    PartialRecord,
}

pub const HOLDS: [Hold; 14] = [
    Hold::Filter,
    Hold::PartialMessage,
    Hold::Fragments,
    Hold::Replies,
    Hold::Pongs,
    Hold::Burst,
    Hold::PartialHead,
    Hold::PartialBody,
    Hold::PartialChunks,
    Hold::Deferred,
    Hold::Events,
    Hold::ManyConnections,
    Hold::Records,
    Hold::PartialRecord,
];

impl Site {
    pub fn new(seed: u64, tls: Option<Tls>) -> Self {
        let config = Config::default().max_connections(MANY + CONNECTIONS);
        let settings = ApiSettings {
            max_terms: MAX_TERMS,
            ..ApiSettings::default()
        };
        let before = HEAP.current_usage();
        let mut engine = Engine::new(config, Api::new(settings), seed, at(START));
        let allocated = HEAP.current_usage() - before;
        let mut environment = Environment::new(Rng::new(seed));
        for tls in [None, tls.as_ref().map(|tls| tls.server.clone())] {
            let options = ListenerOptions {
                tls,
                ..ListenerOptions::default()
            };
            environment.listen(&mut engine, options);
        }
        let mut site = Site {
            engine,
            environment,
            peers: Vec::new(),
            rng: Rng::new(seed),
            tls,
            clock: START,
            allocated,
            idle: 0,
            published: 0,
            most: (0, 0),
        };
        site.warm_up();
        site
    }

    /// Lets the engine allocate its permanent buffers.
    fn warm_up(&mut self) {
        // Disables the comparison until then.
        self.idle = usize::MAX / 2;
        self.connect(false);
        self.connect(false);
        if self.tls.is_some() {
            self.connect(true);
        }
        (0..4).for_each(|_| self.turn());
        for number in 0..self.peers.len() {
            self.open(number, CAN_DEFLATE && number == 0);
            self.turn();
            let long = pad(60 * 1024);
            let text = format!(r#"{{"type":"whoami","id":1,"more":"{long}"}}"#);
            self.say(number, &text);
            self.turn();
        }
        self.publish(1, 140_000);
        self.turn();
        self.finish();
        self.idle = self.allocated;
        self.most = (0, 0);
    }

    /// Runs random operations, most of them of one kind.
    pub fn play(&mut self, main: Hold, steps: usize) {
        // The percentage of steps with a new connection, and of these with TLS.
        let (often, tls) = match main {
            Hold::Records | Hold::PartialRecord => (40, 90),
            Hold::PartialHead | Hold::Deferred => (100, 0),
            _ => (40, 5),
        };
        if main == Hold::ManyConnections {
            self.connect_many();
        }
        for _ in 0..steps {
            let hold = match self.rng.chance(70) {
                true => main,
                false => HOLDS[self.rng.below(HOLDS.len())],
            };
            if self.peers.len() < CONNECTIONS && self.rng.chance(often) {
                let is_tls = self.rng.chance(tls) && self.tls.is_some();
                self.connect(is_tls);
            }
            if !self.peers.is_empty() {
                self.hold(hold);
                self.advance();
            }
            if self.rng.chance(70) {
                self.turn();
            }
        }
        self.finish();
    }

    /// Disconnects all clients.
    fn finish(&mut self) {
        for peer in &self.peers {
            peer.wire.state().finish();
        }
        self.wait(120_000);
        assert_eq!(self.engine.check_invariants(), Ok(()));
        let counters = self.engine.counters();
        assert_eq!((counters.connections, counters.ledger.total()), (0, 0));
    }

    /// Connects many clients.
    fn connect_many(&mut self) {
        while self.peers.len() < MANY {
            self.connect(false);
            self.open(self.peers.len() - 1, false);
        }
        (0..20).for_each(|_| self.turn());
    }

    /// Makes the server hold more memory for one or more clients.
    fn hold(&mut self, hold: Hold) {
        let number = self.rng.below(self.peers.len());
        let size = self.rng.below(60_000);
        let head = format!("POST /body HTTP/1.1\r\nHost: sim\r\nContent-Length: {size}\r\n");
        match (hold, self.peers[number].is_open) {
            (Hold::ManyConnections, _) => self.publish(40, 100),
            (Hold::Events, _) => {
                let (count, size) = match self.rng.below(3) {
                    0 => (1, self.rng.below(200_000)),
                    1 => (1 + self.rng.below(30), self.rng.below(3000)),
                    _ => (500 + self.rng.below(1500), self.rng.below(100)),
                };
                self.publish(count, size);
            }
            (Hold::PartialHead, false) => {
                let head = format!("{head}More: {}\r\n\r\n{}", pad(7000), pad(size));
                self.peers[number].send_part(head.as_bytes(), 4000 + size % 3000);
            }
            (Hold::PartialBody, false) => {
                let request = format!("{head}\r\n{}", pad(size));
                let part = self.rng.below(request.len());
                self.peers[number].send_part(request.as_bytes(), part);
            }
            (Hold::PartialChunks, false) => {
                let length = format!("Content-Length: {size}");
                let head = head.replace(&length, "Transfer-Encoding: chunked");
                let data = pad(1 + size % 40);
                let chunk = format!("{:x}\r\n{data}\r\n", data.len());
                let chunks = chunk.repeat(size / chunk.len());
                let request = format!("{head}\r\n{chunks}0\r\n\r\n");
                let part = self.rng.below(request.len());
                self.peers[number].send_part(request.as_bytes(), part);
            }
            (Hold::Deferred, false) if self.peers[number].deferred.is_none() => {
                self.defer(number, 3000 + size % 3000);
            }
            (Hold::PartialRecord, _) if self.peers[number].is_tls() => {
                let size = 8000 + size % 8000;
                let frame = client_frame(0x82, &vec![7; size], [1; 4]);
                let part = size - self.rng.below(2000);
                self.peers[number].send_part_of_record(&frame, part);
            }
            (_, false) => {
                let compresses = CAN_DEFLATE && self.rng.chance(50);
                self.open(number, compresses);
            }
            (hold, true) => self.hold_by_messages(hold, number, size),
        }
    }

    /// Makes the server hold more memory for one or more WebSocket clients.
    fn hold_by_messages(&mut self, hold: Hold, number: usize, size: usize) {
        match hold {
            Hold::Records => self.publish(1, 10_000 + size),
            Hold::Filter => {
                let group = format!("{number} {}", self.rng.below(3));
                let values = 1 + self.rng.below(MAX_TERMS);
                self.say_bytes(number, &filter(&group, values));
            }
            Hold::PartialMessage => {
                let part = self.rng.below(size + 8);
                let frame = client_frame(0x82, &vec![7; size], [1; 4]);
                self.peers[number].send_part(&frame, part);
            }
            Hold::Fragments => {
                let peer = &mut self.peers[number];
                peer.send(&client_frame(0x01, &vec![b'x'; size / 4], [1; 4]));
                peer.send(&client_frame(0x00, &vec![b'x'; size / 4], [1; 4]));
                peer.send_part(&client_frame(0x80, &vec![b'x'; size / 4], [1; 4]), size / 8);
            }
            Hold::Replies => {
                for _ in 0..self.rng.below(200) {
                    let id = "9".repeat(self.rng.below(250) + 1);
                    self.say(number, &format!(r#"{{"type":"whoami","id":{id}}}"#));
                }
            }
            Hold::Pongs => {
                let ping = client_frame(0x89, &[b'p'; 120], [1; 4]);
                (0..size % 50).for_each(|_| self.peers[number].send(&ping));
            }
            _ => self.burst(),
        }
    }

    /// Several clients send more than their share of a turn.
    fn burst(&mut self) {
        let more = pad(self.rng.below(2000));
        let text = format!(r#"{{"type":"ping","id":1,"more":"{more}"}}"#);
        for number in 0..self.peers.len() {
            if self.peers[number].is_open && self.rng.chance(50) {
                (0..40).for_each(|_| self.say(number, &text));
            }
        }
    }

    fn defer(&mut self, number: usize, trailing: usize) {
        let is_handshake = self.rng.chance(50);
        let peer = &mut self.peers[number];
        peer.deferred = Some(is_handshake);
        match is_handshake {
            true => {
                peer.send(&handshake("/later"));
                peer.send(&client_frame(0x82, &vec![7; trailing], [1; 4]));
            }
            false => {
                peer.send(b"GET /slow HTTP/1.1\r\nHost: sim\r\n\r\n");
                let head = format!(
                    "GET /slow HTTP/1.1\r\nHost: sim\r\nMore: {}\r\n\r\n",
                    pad(7000)
                );
                peer.send_part(head.as_bytes(), trailing);
            }
        }
    }

    /// Publishes events for all clients in a batch.
    fn publish(&mut self, count: usize, size: usize) {
        let before = HEAP.current_usage();
        let plans: Vec<_> = (0..count)
            .map(|number| event(EVERY, format!("{number} {}", pad(size))))
            .collect();
        // The queue has an entry for each event to count its receivers.
        let bytes = HEAP.current_usage() - before + count * size_of::<usize>();
        self.allocated += HEAP.current_usage() - before;
        self.published += bytes;
        let command = Command::Batch(plans, bytes);
        self.environment.send(Mail::Command(command));
    }

    /// Ends or continues something.
    fn advance(&mut self) {
        let number = self.rng.below(self.peers.len());
        match self.rng.below(60) {
            0 => self.peers[number].wire.state().finish(),
            1 => self.peers[number].send(&client_frame(0x88, &[3, 232], [1; 4])),
            2..5 => self.peers[number].read(),
            5..8 => self.peers[number].send(b""),
            8..12 => self.answer(number),
            12 => self.clock += self.rng.below(3000) as u64,
            13 => (0..50).for_each(|_| self.turn()),
            _ => {}
        }
    }

    fn answer(&mut self, number: usize) {
        let peer = &mut self.peers[number];
        if let Some(is_handshake) = peer.deferred.take() {
            peer.is_open |= is_handshake;
            if let Some(key) = peer.key {
                let command = Command::Answer(key, is_handshake);
                self.environment.send(Mail::Command(command));
            }
        }
    }

    fn connect(&mut self, is_tls: bool) {
        let sizes = match is_tls {
            true => [2000, 5000, 20_000],
            false => [2000, 20_000, 200_000],
        };
        let size = sizes[self.rng.below(3)];
        let wire = Wire::new(size);
        let tls = self.tls.clone().filter(|_| is_tls);
        let listener = ListenerId(u8::from(is_tls));
        let socket = ServerEnd(wire.clone());
        let number = self.environment.connect(listener, socket, None);
        let session = tls.map(|tls| (tls.connect)());
        self.peers.push(Peer::new(wire, number, session));
    }

    /// Sends a handshake, and a filter for all events.
    fn open(&mut self, number: usize, compresses: bool) {
        let peer = &mut self.peers[number];
        if peer.deferred.is_some() || peer.is_handshaking() {
            return;
        }
        peer.compresses = compresses;
        peer.is_open = true;
        peer.send(&match compresses {
            true => handshake_with("/ws", OFFER),
            false => handshake("/ws"),
        });
        self.say_bytes(number, &filter(EVERY, 1));
    }

    fn say(&mut self, number: usize, text: &str) {
        self.say_bytes(number, text.as_bytes());
    }

    fn say_bytes(&mut self, number: usize, text: &[u8]) {
        let peer = &mut self.peers[number];
        peer.send(&match peer.compresses {
            true => client_frame(0xC1, &deflate(text), [1; 4]),
            false => client_frame(0x81, text, [1; 4]),
        });
    }

    fn wait(&mut self, ms: u64) {
        let end = self.clock + ms;
        while self.clock < end {
            let timeout = self.environment.wait().expect("nobody shuts it down");
            self.clock += timeout
                .clamp(Duration::from_millis(1), Duration::from_millis(500))
                .as_millis() as u64;
            self.turn();
        }
    }

    fn turn(&mut self) {
        for peer in &mut self.peers {
            peer.push();
            if peer.is_handshaking() {
                peer.read();
            }
            let Some(key) = peer.key else { continue };
            if let Some(readiness) = peer.wire.state().take_edge() {
                self.environment.ready(key, readiness);
            }
        }
        let now = at(self.clock);
        let before = HEAP.current_usage();
        self.environment.turn(&mut self.engine, now);
        self.allocated = self.allocated + HEAP.current_usage() - before;
        for accepted in self.environment.take_accepted() {
            let mut peers = self.peers.iter_mut();
            if let Some(peer) = peers.find(|peer| peer.number == accepted.number) {
                peer.key = Some(accepted.key);
            }
        }
        let tls = self.peers.iter().filter(|peer| peer.is_tls()).count();
        self.most = (self.most.0.max(self.peers.len()), self.most.1.max(tls));
        self.check();
        self.peers.retain(|peer| !peer.wire.state().is_closed);
    }

    /// Compares the allocator with the ledger.
    fn check(&self) {
        let api = self.engine.handler();
        let account = Account {
            allocated: self.allocated as i64 - self.idle as i64,
            held: self.engine.counters().ledger,
            filters: api.realtime().counters().index_bytes,
            events: self.published - api.progress.done,
            connections: self.most.0,
            tls_connections: self.most.1,
        };
        account.check();
    }
}

/// Returns a filter with this number of values.
fn filter(group: &str, values: usize) -> Vec<u8> {
    let rest: String = (1..values).map(|n| format!(",\"{group} {n}\"")).collect();
    format!(
        r#"{{"filter":{{"match_policy":"include_any","actions":{{}},
            "clauses":[{{"field":"/group","value":["{group}"{rest}]}}]}}}}"#
    )
    .into_bytes()
}

fn at(mono: u64) -> Now {
    Now {
        mono,
        unix: 1_700_000_000_000 + mono,
    }
}

const START: u64 = 1_000_000;
const CONNECTIONS: usize = 64;
const MAX_TERMS: usize = 1000;
/// More connections than one turn delivers to.
const MANY: usize = 600;
/// The group of the events.
const EVERY: &str = "every";
