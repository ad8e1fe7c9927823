//! The engine with its connections and the clock, one turn at a time, in the order of the reactor.

use std::rc::Rc;

use h_realtime::realtime::ApiSettings;
use h_realtime_engine::{Arrival, Config, ConnKey, Engine, ListenerId, Now, Readiness};

use crate::api::{Api, Command};
use crate::socket::{IoCounters, SimSocket};

/// A server and its clients, idle between two calls.
pub struct Harness {
    engine: Engine<SimSocket, Api>,
    clients: Vec<(ConnKey, SimSocket)>,
    counters: Rc<IoCounters>,
    /// In milliseconds. It only advances in [`Harness::wait`].
    clock: u64,
}

impl Harness {
    pub fn new(config: Config) -> Self {
        Harness {
            engine: Engine::new(config, Api::new(ApiSettings::default()), 1, at(START)),
            clients: Vec::new(),
            counters: Rc::default(),
            clock: START,
        }
    }

    /// Connects a client.
    pub fn connect(&mut self) -> usize {
        let number = self.clients.len();
        let socket = SimSocket::new(number, Rc::clone(&self.counters));
        let arrival = Arrival {
            socket: socket.clone(),
            listener: ListenerId(0),
            peer: None,
            tls: None,
            expects_proxy_header: false,
        };
        let key = self.engine.accept(arrival).expect("room");
        self.clients.push((key, socket));
        number
    }

    /// Opens WebSocket connections, sends the given messages, and reads the replies.
    pub fn open(&mut self, count: usize, messages: &[&'static [u8]]) {
        let numbers: Vec<_> = (0..count).map(|_| self.connect()).collect();
        for message in messages {
            self.send(numbers.iter().copied(), message);
        }
        assert_eq!(self.engine.counters().open as usize, self.clients.len());
    }

    /// Sends bytes from clients, all in the same turn, and processes them completely.
    pub fn send(&mut self, numbers: impl IntoIterator<Item = usize>, bytes: &'static [u8]) {
        self.engine.begin_turn(at(self.clock));
        for number in numbers {
            let (key, socket) = &self.clients[number];
            socket.send(bytes);
            self.engine.ready(*key, FRESH);
        }
        self.finish_turn();
    }

    /// Publishes events, all in the same turn.
    pub fn publish(&mut self, commands: impl IntoIterator<Item = Command>) {
        self.engine.begin_turn(at(self.clock));
        for command in commands {
            self.engine.command(command);
        }
        self.finish_turn();
    }

    /// Runs only the handler's part of a client's message.
    pub fn dispatch(&mut self, number: usize, text: &'static str) {
        let key = self.clients[number].0;
        self.engine.command(Command::Message(key, text));
    }

    /// Ends a client's direction and removes the connection once it has ended.
    pub fn disconnect(&mut self, number: usize) {
        let (key, socket) = self.clients.swap_remove(number);
        assert_eq!(number, self.clients.len(), "the newest leaves");
        socket.finish();
        self.engine.begin_turn(at(self.clock));
        let readiness = Readiness {
            read_closed: true,
            ..FRESH
        };
        self.engine.ready(key, readiness);
        self.finish_turn();
        assert_eq!(self.engine.counters().connections, number as u64);
    }

    /// Sleeps for as long as the reactor would and runs a turn.
    pub fn wait(&mut self) {
        self.clock += self.engine.timeout().as_millis() as u64;
        self.engine.begin_turn(at(self.clock));
        self.finish_turn();
    }

    /// Takes the numbers of the connections written to.
    pub fn take_written(&mut self) -> Vec<usize> {
        self.counters.written.take()
    }

    /// Returns the counters of the engine's I/O.
    pub fn counters(&self) -> &IoCounters {
        &self.counters
    }

    /// Completes a turn and runs the turns that must follow at once.
    fn finish_turn(&mut self) {
        self.engine.serve();
        self.engine.reap();
        while self.engine.timeout().is_zero() {
            self.engine.begin_turn(at(self.clock));
            self.engine.serve();
            self.engine.reap();
        }
    }
}

fn at(clock: u64) -> Now {
    Now {
        mono: clock,
        unix: 1_700_000_000_000 + clock,
    }
}

/// The readiness edge of newly arrived bytes.
const FRESH: Readiness = Readiness {
    readable: true,
    writable: true,
    read_closed: false,
};
const START: u64 = 1_000_000;
