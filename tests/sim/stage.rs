//! The whole API on simulated sockets: the engine, the Real Time API on it, and clients.

use std::collections::VecDeque;
use std::time::Duration;

use h_realtime::model::Plan;
use h_realtime::realtime::ApiSettings;
use h_realtime_engine::{Arrival, Config, ConnKey, Engine, ListenerId, Now};

use super::api::{Api, Command};
use super::frames::{Ear, Heard, client_frame, handshake};
use super::rng::Rng;
use super::socket::{Calls, ROOMY, SimSocket, Wire};

/// A server and its clients, at rest between two calls.
pub struct Stage {
    engine: Engine<SimSocket, Api>,
    guests: Vec<Guest>,
    plans: VecDeque<Plan>,
    /// Milliseconds. It stands still but in [`Stage::wait`].
    clock: u64,
}

struct Guest {
    wire: Wire,
    key: ConnKey,
    ear: Ear,
}

impl Stage {
    /// `max_terms` as in [`ApiSettings`].
    pub fn new(max_terms: usize) -> Stage {
        let settings = ApiSettings {
            max_terms,
            ..ApiSettings::default()
        };
        Stage {
            engine: Engine::new(Config::default(), Api::new(settings), 1, at(START)),
            guests: Vec::new(),
            plans: VecDeque::new(),
            clock: START,
        }
    }

    /// The number of a new client, whose WebSocket is open.
    pub fn open(&mut self) -> usize {
        let number = self.connect();
        self.say(number, &handshake("/ws"));
        self.settle();
        assert_eq!(self.hear(number), [Heard::Open]);
        number
    }

    /// The number of a new client, which has said nothing yet.
    pub fn connect(&mut self) -> usize {
        let wire = Wire::new(ROOMY, Rng::new(1));
        let arrival = Arrival {
            socket: wire.socket(),
            listener: ListenerId(0),
            peer: None,
            expects_proxy_header: false,
            tls: None,
        };
        let key = self.engine.accept(arrival).expect("room");
        wire.state().register();
        let ear = Ear::default();
        self.guests.push(Guest { wire, key, ear });
        self.guests.len() - 1
    }

    /// A client sends a frame, whose first byte is given, and everything takes its course.
    pub fn send(&mut self, number: usize, first: u8, payload: &[u8]) {
        self.say(number, &client_frame(first, payload, [5, 6, 7, 8]));
        self.settle();
    }

    /// What a client sends arrives, and nothing is done about it yet.
    pub fn say(&mut self, number: usize, bytes: &[u8]) {
        let mut state = self.guests[number].wire.state();
        state.peer_send(bytes);
        state.deliver(usize::MAX);
    }

    /// An event is published.
    pub fn publish(&mut self, plan: Plan) {
        self.publish_all([plan]);
    }

    /// Events are published in the same turn.
    pub fn publish_all(&mut self, plans: impl IntoIterator<Item = Plan>) {
        self.plans.extend(plans);
        self.settle();
    }

    /// Sleeps for as long as the reactor would.
    pub fn wait(&mut self) {
        self.clock += self.engine.timeout().as_millis() as u64;
        self.settle();
    }

    /// The system calls made on a client's socket since they were last asked for.
    pub fn calls(&mut self, number: usize) -> Calls {
        std::mem::take(&mut self.guests[number].wire.state().calls)
    }

    /// What a client has heard since it was last asked.
    pub fn hear(&mut self, number: usize) -> Vec<Heard> {
        let guest = &mut self.guests[number];
        guest.ear.feed(&guest.wire.state().peer_take(usize::MAX));
        let mut heard = Vec::new();
        while let Some(next) = guest.ear.next().expect("the server keeps to the protocol") {
            heard.push(next);
        }
        assert!(!guest.ear.is_mid_word());
        heard
    }

    /// Everything takes its course, until the engine would sleep.
    pub fn settle(&mut self) {
        for _ in 0..MAX_TURNS {
            self.engine.begin_turn(at(self.clock));
            for guest in &self.guests {
                let edge = guest.wire.state().take_edge();
                if let Some(readiness) = edge {
                    self.engine.ready(guest.key, readiness);
                }
            }
            while self.engine.wants_commands()
                && let Some(plan) = self.plans.pop_front()
            {
                self.engine.command(Command::Event(plan));
            }
            self.engine.serve();
            self.engine.reap();
            let mut guests = self.guests.iter();
            let has_edge = guests.any(|guest| guest.wire.state().has_edge());
            if !has_edge && self.plans.is_empty() && self.engine.timeout() > Duration::ZERO {
                assert_eq!(self.engine.check_invariants(), Ok(()));
                return;
            }
        }
        panic!("it never comes to rest");
    }
}

fn at(clock: u64) -> Now {
    Now {
        mono: clock,
        unix: 1_700_000_000_000 + clock,
    }
}

const START: u64 = 1_000_000;
/// Turns in which everything must come to rest.
const MAX_TURNS: usize = 1000;
