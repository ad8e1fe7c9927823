//! The engine with its connections and the clock, a turn at a time, as the reactor turns.

use std::rc::Rc;

use h_realtime::realtime::ApiSettings;
use h_realtime_engine::{Arrival, Config, ConnKey, Engine, ListenerId, Now, Readiness};

use crate::api::{Api, Command};
use crate::line::{Line, Tally};

/// A server and its clients, at rest between two calls.
pub struct Stage {
    engine: Engine<Line, Api>,
    guests: Vec<(ConnKey, Line)>,
    tally: Rc<Tally>,
    /// Milliseconds. It stands still but in [`Stage::wait`].
    clock: u64,
}

impl Stage {
    pub fn new(config: Config) -> Self {
        Stage {
            engine: Engine::new(config, Api::new(ApiSettings::default()), 1, at(START)),
            guests: Vec::new(),
            tally: Rc::default(),
            clock: START,
        }
    }

    /// A client connects.
    pub fn connect(&mut self) -> usize {
        let number = self.guests.len();
        let line = Line::new(number, Rc::clone(&self.tally));
        let arrival = Arrival {
            socket: line.clone(),
            listener: ListenerId(0),
            peer: None,
            tls: None,
            expects_proxy_header: false,
        };
        let key = self.engine.accept(arrival).expect("room");
        self.guests.push((key, line));
        number
    }

    /// Clients whose WebSockets are open: they have had these answers to these words.
    pub fn open(&mut self, count: usize, words: &[&'static [u8]]) {
        let numbers: Vec<_> = (0..count).map(|_| self.connect()).collect();
        for said in words {
            self.say(numbers.iter().copied(), said);
        }
        assert_eq!(self.engine.counters().open as usize, self.guests.len());
    }

    /// Clients say something, all in the same turn, and everything takes its course.
    pub fn say(&mut self, numbers: impl IntoIterator<Item = usize>, bytes: &'static [u8]) {
        self.engine.begin_turn(at(self.clock));
        for number in numbers {
            let (key, line) = &self.guests[number];
            line.say(bytes);
            self.engine.ready(*key, FRESH);
        }
        self.settle();
    }

    /// Events happen, all in the same turn.
    pub fn happen(&mut self, commands: impl IntoIterator<Item = Command>) {
        self.engine.begin_turn(at(self.clock));
        for command in commands {
            self.engine.command(command);
        }
        self.settle();
    }

    /// Only the handler's part of a client's message.
    pub fn dispatch(&mut self, number: usize, text: &'static str) {
        let key = self.guests[number].0;
        self.engine.command(Command::Said(key, text));
    }

    /// A client ends its direction. When the connection has ended, it is forgotten.
    pub fn leave(&mut self, number: usize) {
        let (key, line) = self.guests.swap_remove(number);
        assert_eq!(number, self.guests.len(), "the newest leaves");
        line.finish();
        self.engine.begin_turn(at(self.clock));
        let readiness = Readiness {
            read_closed: true,
            ..FRESH
        };
        self.engine.ready(key, readiness);
        self.settle();
        assert_eq!(self.engine.counters().connections, number as u64);
    }

    /// Sleeps for as long as the reactor would, and turns.
    pub fn wait(&mut self) {
        self.clock += self.engine.timeout().as_millis() as u64;
        self.engine.begin_turn(at(self.clock));
        self.settle();
    }

    /// Takes the numbers of those who were written to.
    pub fn take_written(&mut self) -> Vec<usize> {
        self.tally.written.take()
    }

    /// What the engine has done to all sockets.
    pub fn tally(&self) -> &Tally {
        &self.tally
    }

    /// The rest of a turn, and those that must follow at once.
    fn settle(&mut self) {
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

/// What the edge of bytes that have arrived says.
const FRESH: Readiness = Readiness {
    readable: true,
    writable: true,
    read_closed: false,
};
const START: u64 = 1_000_000;
