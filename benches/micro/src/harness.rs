//! The engine with its connections and the clock, one turn at a time.

use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use h_realtime::realtime::ApiSettings;
use h_realtime_engine::{Config, ConnKey, Engine, ListenerId, ListenerOptions, Mail, Readiness};

use crate::socket::{IoCounters, SimSocket};
use h_realtime_test_kit::api::{Api, Command};
use h_realtime_test_kit::environment::{Descriptive, Environment, FRESH, at};
use h_realtime_test_kit::rng::Rng;

/// A server and its clients, idle between two calls.
pub struct Harness {
    engine: Engine<SimSocket, Api>,
    environment: Environment<SimSocket, Command>,
    clients: Vec<(Option<ConnKey>, SimSocket)>,
    /// The clients that have not been accepted, in the order in which they connected.
    connecting: VecDeque<usize>,
    counters: Rc<IoCounters>,
    /// In milliseconds. It only advances in [`Harness::wait`].
    clock: u64,
}

impl Harness {
    pub fn new(config: Config) -> Self {
        let mut engine = Engine::new(config, Api::new(ApiSettings::default()), 1, at(START));
        let mut environment = Environment::new(Rng::new(1));
        environment.listen(&mut engine, ListenerOptions::default());
        Harness {
            engine,
            environment,
            clients: Vec::new(),
            connecting: VecDeque::new(),
            counters: Rc::default(),
            clock: START,
        }
    }

    /// Connects a client, which is accepted in the next turn.
    pub fn connect(&mut self) -> usize {
        let number = self.clients.len();
        let socket = SimSocket::new(number, Rc::clone(&self.counters));
        self.environment
            .connect(ListenerId(0), socket.clone(), None);
        self.clients.push((None, socket));
        self.connecting.push_back(number);
        number
    }

    /// Opens WebSocket connections, sends the given messages, and reads the replies.
    pub fn open(&mut self, count: usize, messages: &[&'static [u8]]) {
        let numbers: Vec<_> = (0..count).map(|_| self.connect()).collect();
        self.finish_turn();
        for message in messages {
            self.send(numbers.iter().copied(), message);
        }
        assert_eq!(self.engine.counters().open as usize, self.clients.len());
    }

    /// Sends bytes from clients, all in the same turn, and processes them completely.
    pub fn send(&mut self, numbers: impl IntoIterator<Item = usize>, bytes: &'static [u8]) {
        for number in numbers {
            let (key, socket) = &self.clients[number];
            socket.send(bytes);
            self.environment.ready(key.expect("it was accepted"), FRESH);
        }
        self.finish_turn();
    }

    /// Publishes events, all in the same turn.
    pub fn publish(&mut self, commands: impl IntoIterator<Item = Command>) {
        for command in commands {
            self.environment.send(Mail::Command(command));
        }
        self.finish_turn();
    }

    /// Ends a client's direction, and removes the connection once it has ended. The last client
    /// takes its number.
    pub fn disconnect(&mut self, number: usize) {
        let (key, socket) = self.clients.swap_remove(number);
        socket.finish();
        let readiness = Readiness {
            read_closed: true,
            ..FRESH
        };
        self.environment
            .ready(key.expect("it was accepted"), readiness);
        self.finish_turn();
        let connections = self.engine.counters().connections;
        assert_eq!(connections, self.clients.len() as u64);
    }

    /// Sleeps for as long as the reactor would and runs a turn.
    pub fn wait(&mut self) {
        self.clock += self.timeout().as_millis() as u64;
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

    /// Runs a turn, and the turns that must follow at once.
    pub fn finish_turn(&mut self) {
        loop {
            self.environment.turn(&mut self.engine, at(self.clock));
            if !self.timeout().is_zero() {
                break;
            }
        }
        if !self.connecting.is_empty() {
            for accepted in self.environment.take_accepted() {
                let number = self.connecting.pop_front().expect("it connected");
                self.clients[number].0 = Some(accepted.key);
            }
        }
    }

    fn timeout(&self) -> Duration {
        self.environment.wait().expect("no shutdown")
    }
}

impl Descriptive for SimSocket {}

const START: u64 = 1_000_000;
