//! The engine and the Real Time API with up to a million connections, one turn at a time.
//!
//! Each client has an id of its own, and a filter for a page of its own. The clients and the sockets
//! allocate no memory after [`Crowd::new`], except within calls: all that remains belongs to the
//! server.

use std::ops::Range;
use std::time::Duration;

use h_realtime::model::Plan;
use h_realtime::realtime::{ApiCounters, ApiSettings};
use h_realtime_engine::{
    Config, ConnKey, Counters, Engine, ListenerId, ListenerOptions, Mail, Readiness,
};

use crate::api::{Api, Command, page_event};
use crate::environment::{Environment, FRESH, at};
use crate::frames::{client_frame, handshake};
use crate::rng::Rng;

use sockets::NumberedSocket;

pub use saturation::Saturation;

mod saturation;
mod sockets;

/// The server and its clients.
pub struct Crowd {
    engine: Engine<NumberedSocket, Api>,
    environment: Environment<NumberedSocket, Command>,
    /// By number of the client.
    keys: Vec<ConnKey>,
    /// The clients that have been sent a ping.
    pinged: Vec<u32>,
    handshake: Vec<u8>,
    pong: Vec<u8>,
    /// In milliseconds.
    clock: u64,
    /// How often all clients have left: later ones have other ids.
    generation: u64,
    /// A page that all clients have in their filters besides their own.
    shared_page: Option<&'static str>,
}

/// The kind of a turn. Each runs in a function of its own, which a profiler can tell apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counted {
    Not,
    Arrival,
    SameReceiver,
    OtherReceivers,
    Heartbeat,
    IdleTick,
    Departure,
}

impl Crowd {
    /// Creates a server, and allocates the memory of the simulation for this many clients.
    pub fn new(connections: usize) -> Self {
        Crowd::with(connections, PING_INTERVAL, None)
    }

    fn with(
        connections: usize,
        ping_interval: Duration,
        shared_page: Option<&'static str>,
    ) -> Self {
        sockets::reserve(connections);
        let config = Config::default()
            .max_connections(connections + 1)
            .ping_interval(ping_interval);
        let settings = ApiSettings {
            filters_total: 1 << 30,
            ..ApiSettings::default()
        };
        let mut engine = Engine::new(config, Api::new(settings), 1, at(START));
        let mut environment = Environment::new(Rng::new(1));
        environment.reserve(4 * BATCH);
        environment.listen(&mut engine, ListenerOptions::default());
        let mut crowd = Crowd {
            engine,
            environment,
            keys: Vec::with_capacity(connections),
            pinged: Vec::with_capacity(connections),
            handshake: handshake("/ws"),
            pong: client_frame(0x8A, &[], MASK),
            clock: START,
            generation: 0,
            shared_page,
        };
        // Permanent buffers are allocated on first use, and the history begins with an event.
        crowd.arrive(BATCH.min(connections), Counted::Not);
        crowd.publish(0, "first", Counted::Not);
        crowd.depart_all(Counted::Not);
        crowd
    }

    /// Returns the counters of the engine.
    pub fn counters(&self) -> &Counters {
        self.engine.counters()
    }

    /// Returns the counters of the API.
    pub fn api_counters(&self) -> ApiCounters {
        self.engine.handler().realtime().counters()
    }

    /// Further clients arrive until there are `count`, a limited number at once.
    pub fn arrive(&mut self, count: usize, counted: Counted) {
        while self.keys.len() < count {
            let first = self.keys.len();
            let batch = BATCH.min(count - first);
            for number in first..first + batch {
                let socket = NumberedSocket::new(number as u32);
                self.environment.connect(ListenerId(0), socket, None);
            }
            self.turns_until_idle(counted);
            let accepted = self.environment.take_accepted();
            assert_eq!(accepted.len(), batch, "accepted");
            self.keys
                .extend(accepted.iter().map(|accepted| accepted.key));
            let numbers = first..first + batch;
            let handshake = self.handshake.clone();
            self.send_each(numbers.clone(), |_| handshake.clone(), counted);
            let seed = self.generation << 32;
            let id = |number| frame(&client_id(seed + number as u64));
            self.send_each(numbers.clone(), id, counted);
            let shared_page = self.shared_page;
            let filter = |number| frame(&filter(number, shared_page));
            self.send_each(numbers, filter, counted);
            self.clock += ARRIVAL_MS;
        }
        let open = self.engine.counters().open as usize;
        assert_eq!(open, self.keys.len(), "open connections");
        sockets::take_output();
    }

    /// Publishes an event on an annotation about the page of a client, and checks that exactly this
    /// client gets it.
    pub fn publish(&mut self, number: usize, annotation: &str, counted: Counted) {
        let before = self.engine.counters().messages_out;
        let plan = event(&page(number), annotation);
        self.environment.send(Mail::Command(Command::Event(plan)));
        self.turns_until_idle(counted);
        let sent = self.engine.counters().messages_out - before;
        assert_eq!((sent, sockets::take_output().writes), (1, 1), "event");
    }

    /// Waits for as long as the reactor would sleep, and runs the turns that follow. Clients answer
    /// pings in the next turn. Returns the number of pings.
    pub fn wait(&mut self, counted: Counted) -> usize {
        self.clock += self.timeout().as_millis() as u64;
        self.turns_until_idle(counted);
        sockets::take_output();
        let mut pinged = std::mem::take(&mut self.pinged);
        sockets::take_pinged(&mut pinged);
        let count = pinged.len();
        let pong = std::mem::take(&mut self.pong);
        for some in pinged.chunks(BATCH) {
            for number in some {
                sockets::send(*number, &pong);
                self.environment.ready(self.keys[*number as usize], FRESH);
            }
            self.turns_until_idle(counted);
        }
        self.pong = pong;
        pinged.clear();
        self.pinged = pinged;
        count
    }

    /// Waits until a time after the last arrival, in milliseconds.
    pub fn wait_for(&mut self, ms: u64) {
        let end = self.clock + ms;
        while self.clock < end {
            self.wait(Counted::Not);
        }
    }

    /// All clients leave, in random order.
    pub fn depart_all(&mut self, counted: Counted) {
        let mut order: Vec<u32> = (0..self.keys.len() as u32).collect();
        Rng::new(7).shuffle(&mut order);
        for some in order.chunks(BATCH) {
            for number in some {
                sockets::finish(*number);
                let readiness = Readiness {
                    read_closed: true,
                    ..FRESH
                };
                self.environment
                    .ready(self.keys[*number as usize], readiness);
            }
            self.turns_until_idle(counted);
            self.clock += ARRIVAL_MS;
        }
        self.keys.clear();
        self.generation += 1;
        sockets::take_pinged(&mut self.pinged);
        self.pinged.clear();
        // Timers and tables are tidied at ticks.
        let end = self.clock + SETTLING_MS;
        while self.clock < end {
            self.clock += self.timeout().as_millis() as u64;
            self.turns_until_idle(counted);
        }
        let counters = self.engine.counters();
        assert_eq!((counters.connections, counters.ledger.total()), (0, 0));
        sockets::take_output();
    }

    /// Each of these clients sends bytes, all in the same turn.
    fn send_each(
        &mut self,
        numbers: Range<usize>,
        bytes: impl Fn(usize) -> Vec<u8>,
        counted: Counted,
    ) {
        for number in numbers {
            sockets::send(number as u32, &bytes(number));
            self.environment.ready(self.keys[number], FRESH);
        }
        self.turns_until_idle(counted);
    }

    /// Runs a turn, and the turns that must follow at once.
    fn turns_until_idle(&mut self, counted: Counted) {
        loop {
            match counted {
                Counted::Not => self.turn(),
                Counted::Arrival => self.turn_of_arrival(),
                Counted::SameReceiver => self.turn_of_same_receiver(),
                Counted::OtherReceivers => self.turn_of_other_receivers(),
                Counted::Heartbeat => self.turn_of_heartbeat(),
                Counted::IdleTick => self.turn_of_idle_tick(),
                Counted::Departure => self.turn_of_departure(),
            }
            if !self.timeout().is_zero() {
                break;
            }
        }
        sockets::clear_input();
    }

    #[inline(never)]
    fn turn(&mut self) {
        self.environment.turn(&mut self.engine, at(self.clock));
    }

    fn timeout(&self) -> Duration {
        self.environment.wait().expect("no shutdown")
    }
}

/// Defines functions that only run a turn, one for each kind. The result keeps the compiler from
/// merging them.
macro_rules! counted_turns {
    ($($name:ident = $number:expr;)*) => {
        impl Crowd {
            $(
                #[inline(never)]
                fn $name(&mut self) {
                    self.turn();
                    std::hint::black_box($number);
                }
            )*
        }
    };
}

counted_turns! {
    turn_of_arrival = 1;
    turn_of_same_receiver = 2;
    turn_of_other_receivers = 3;
    turn_of_heartbeat = 4;
    turn_of_idle_tick = 5;
    turn_of_departure = 6;
}

/// Returns a message in a frame.
fn frame(text: &str) -> Vec<u8> {
    client_frame(0x81, text.as_bytes(), MASK)
}

/// Returns the URL of a client's page.
fn page(number: usize) -> String {
    format!("https://example.org/articles/2024/03/how-tides-work-{number}.html")
}

/// Returns the message that subscribes to a client's page, as the official client sends it.
fn filter(number: usize, shared_page: Option<&str>) -> String {
    let mut page = page(number);
    if let Some(shared) = shared_page {
        page.push_str(r#"",""#);
        page.push_str(shared);
    }
    format!(
        r#"{{"filter":{{"match_policy":"include_any","clauses":[{{"field":"/uri","operator":"one_of","value":["{page}"],"case_sensitive":true}}],"actions":{{"create":true,"update":true,"delete":true}}}}}}"#
    )
}

/// Returns the event of a public annotation on a page.
fn event(page: &str, annotation: &str) -> Plan {
    let notification = format!(r#"{{"text": "{}"}}"#, "a".repeat(600));
    page_event(page, annotation, &notification)
}

/// Returns the message with a client's id, a UUID.
fn client_id(seed: u64) -> String {
    let mut rng = Rng::new(seed);
    let (high, low) = (rng.next_u64(), rng.next_u64());
    format!(
        r#"{{"messageType":"client_id","value":"{:08x}-{:04x}-4{:03x}-a{:03x}-{:012x}"}}"#,
        high >> 32,
        high >> 16 & 0xffff,
        high & 0xfff,
        low >> 52,
        low & 0xffff_ffff_ffff,
    )
}

const MASK: [u8; 4] = [1, 2, 3, 4];
const START: u64 = 1_000_000;
/// Clients that arrive, send, or leave at once.
const BATCH: usize = 256;
/// The time between two batches: a million clients arrive within 16 s, before the first is due to be
/// pinged.
const ARRIVAL_MS: u64 = 4;
/// Long enough for times without any due timer after the arrival.
const PING_INTERVAL: Duration = Duration::from_secs(120);
/// Long enough for all timers of clients that have left.
const SETTLING_MS: u64 = 240_000;
