//! The whole API on simulated sockets: the engine, the Real Time API, and clients.

use std::time::Duration;

use h_realtime::model::Plan;
use h_realtime::realtime::ApiSettings;
use h_realtime_engine::{Config, ConnKey, Engine, ListenerId, ListenerOptions, Mail, Now};

use crate::api::{Api, Command};
use crate::environment::Environment;
use crate::frames::{ClientEvent, FrameReader, client_frame, handshake};
use crate::rng::Rng;
use crate::socket::{Calls, ROOMY, SimSocket, Wire};

/// A server and its clients, idle between two calls.
pub struct ApiHarness {
    engine: Engine<SimSocket, Api>,
    environment: Environment<SimSocket, Command>,
    clients: Vec<Client>,
    /// In milliseconds. It only advances in [`ApiHarness::wait`].
    clock: u64,
}

struct Client {
    wire: Wire,
    key: Option<ConnKey>,
    reader: FrameReader,
}

impl ApiHarness {
    /// `max_terms` as in [`ApiSettings`].
    pub fn new(max_terms: usize) -> ApiHarness {
        let settings = ApiSettings {
            max_terms,
            ..ApiSettings::default()
        };
        let mut engine = Engine::new(Config::default(), Api::new(settings), 1, at(START));
        let mut environment = Environment::new(Rng::new(1));
        environment.listen(&mut engine, ListenerOptions::default());
        ApiHarness {
            engine,
            environment,
            clients: Vec::new(),
            clock: START,
        }
    }

    /// Opens a WebSocket and returns the client's number.
    pub fn open(&mut self) -> usize {
        let number = self.connect();
        self.say(number, &handshake("/ws"));
        self.settle();
        assert_eq!(self.receive_events(number), [ClientEvent::Open]);
        number
    }

    /// Connects a client without sending anything and returns its number.
    pub fn connect(&mut self) -> usize {
        let wire = Wire::new(ROOMY, Rng::new(1));
        self.environment.connect(ListenerId(0), wire.socket(), None);
        let reader = FrameReader::default();
        let key = None;
        self.clients.push(Client { wire, key, reader });
        self.settle();
        self.clients.len() - 1
    }

    /// Sends a frame with this first byte, and runs turns until the engine is idle.
    pub fn send(&mut self, number: usize, first: u8, payload: &[u8]) {
        self.say(number, &client_frame(first, payload, [5, 6, 7, 8]));
        self.settle();
    }

    /// Delivers bytes from a client without running a turn.
    pub fn say(&mut self, number: usize, bytes: &[u8]) {
        let mut state = self.clients[number].wire.state();
        state.peer_send(bytes);
        state.deliver(usize::MAX);
    }

    /// Publishes an event.
    pub fn publish(&mut self, plan: Plan) {
        self.publish_all([plan]);
    }

    /// Publishes events in the same turn.
    pub fn publish_all(&mut self, plans: impl IntoIterator<Item = Plan>) {
        for plan in plans {
            self.environment.send(Mail::Command(Command::Event(plan)));
        }
        self.settle();
    }

    /// Sleeps for as long as the reactor would.
    pub fn wait(&mut self) {
        self.clock += self.timeout().as_millis() as u64;
        self.settle();
    }

    /// Returns the system calls on a client's socket since the last call.
    pub fn calls(&mut self, number: usize) -> Calls {
        std::mem::take(&mut self.clients[number].wire.state().calls)
    }

    /// Returns the events that a client has received since the last call.
    pub fn receive_events(&mut self, number: usize) -> Vec<ClientEvent> {
        let client = &mut self.clients[number];
        client
            .reader
            .feed(&client.wire.state().peer_take(usize::MAX));
        let mut events = Vec::new();
        while let Some(next) = client
            .reader
            .next_event()
            .expect("the server follows the protocol")
        {
            events.push(next);
        }
        assert!(!client.reader.is_incomplete());
        events
    }

    /// Runs turns until the engine would sleep.
    pub fn settle(&mut self) {
        for _ in 0..MAX_TURNS {
            for client in &self.clients {
                if let Some(key) = client.key
                    && let Some(readiness) = client.wire.state().take_edge()
                {
                    self.environment.ready(key, readiness);
                }
            }
            self.environment.turn(&mut self.engine, at(self.clock));
            for accepted in self.environment.take_accepted() {
                let client = &mut self.clients[accepted.number];
                client.key = Some(accepted.key);
                client.wire.state().register();
            }
            let mut clients = self.clients.iter();
            let has_edge = self.environment.has_event()
                || clients.any(|client| client.wire.state().has_edge());
            if !has_edge && self.timeout() > Duration::ZERO {
                assert_eq!(self.engine.check_invariants(), Ok(()));
                return;
            }
        }
        panic!("the engine does not become idle");
    }

    fn timeout(&self) -> Duration {
        self.environment.wait().expect("no shutdown")
    }
}

fn at(clock: u64) -> Now {
    Now {
        mono: clock,
        unix: 1_700_000_000_000 + clock,
    }
}

const START: u64 = 1_000_000;
/// The maximum number of turns until the engine is idle.
const MAX_TURNS: usize = 1000;
