//! The engine with the API, its clients, and the clocks, one turn at a time.

use std::cell::RefCell;
use std::net::Ipv4Addr;
use std::rc::Rc;

use h_realtime::realtime::{ApiSettings, TurnLimits};
use h_realtime_engine::{
    Config, ConnKey, Engine, ListenerId, ListenerOptions, Mail, Now, Readiness,
};

use crate::sim::environment::Environment;
use crate::sim::oracle::check_quiet;
use crate::sim::rng::Rng;
use crate::sim::socket::{SimSocket, Wire};
use crate::sim::world::PollerFaults;
use crate::sim::{Behavior, Client, Faults, Limits, Payload};

use super::app::{App, Command, RequestQueue};
use super::client_messages::ClientMessage;
use super::model::{Connection, Credentials, Model};
use super::oracle;

pub struct World {
    pub engine: Engine<SimSocket, App>,
    pub environment: Environment<SimSocket, Command>,
    pub clients: Vec<Client>,
    pub model: Rc<RefCell<Model>>,
    pub requests: RequestQueue,
    pub poller_faults: PollerFaults,
    /// Elapsed milliseconds.
    pub clock: u64,
    /// The wall clock at the start, in milliseconds; it may be changed.
    pub wall: u64,
    /// The clients that are still connected.
    pub active: Vec<usize>,
    rng: Rng,
    /// The credentials of each client.
    credentials: Vec<Credentials>,
}

/// The first bytes of a client.
pub struct Hello {
    pub credentials: Credentials,
    pub bytes: Vec<u8>,
    /// Whether it offers compression.
    pub compresses: bool,
}

impl World {
    pub fn new(
        config: Config,
        settings: ApiSettings,
        limits: TurnLimits,
        rejects: bool,
        mut rng: Rng,
    ) -> Self {
        let model = Rc::new(RefCell::new(Model {
            rejects,
            ..Model::default()
        }));
        let requests = RequestQueue::default();
        let app = App::new(
            Rc::clone(&model),
            requests.clone(),
            settings,
            limits,
            rng.next_u64(),
        );
        let (clock, wall) = (1_000_000, 1_700_000_000_000);
        let now = Now {
            mono: clock,
            unix: wall + clock,
        };
        let mut engine = Engine::new(config, app, rng.next_u64(), now);
        // With random numbers of its own, so that seeds keep their meaning.
        let mut environment = Environment::new(rng.clone());
        environment.listen(&mut engine, ListenerOptions::default());
        World {
            engine,
            environment,
            clients: Vec::new(),
            model,
            requests,
            poller_faults: PollerFaults::default(),
            clock,
            wall,
            active: Vec::new(),
            rng,
            credentials: Vec::new(),
        }
    }

    pub fn now(&self) -> Now {
        Now {
            mono: self.clock,
            unix: self.wall + self.clock,
        }
    }

    /// Connects a client, which is accepted in the next turn.
    pub fn connect(&mut self, behavior: Behavior, limits: Limits, faults: Faults, hello: Hello) {
        let wire = Wire::new(limits, self.rng.fork());
        wire.state().faults = faults;
        let peer = Some(Ipv4Addr::LOCALHOST.into());
        let number = self.environment.connect(ListenerId(0), wire.socket(), peer);
        let mut client = Client::new(wire, self.rng.fork(), behavior);
        client.compresses = hello.compresses;
        client.raw(hello.bytes);
        assert_eq!(number, self.clients.len());
        self.clients.push(client);
        self.active.push(number);
        self.credentials.push(hello.credentials);
    }

    /// A client sends a message in one or more frames.
    pub fn send(&mut self, number: usize, message: ClientMessage, fragment: Option<usize>) {
        let client = &mut self.clients[number];
        let Some(key) = client.key else { return };
        let payload = message.payload.clone();
        self.model
            .borrow_mut()
            .lives
            .entry(key)
            .or_default()
            .sent_messages
            .push_back(message);
        match (payload, fragment) {
            (payload, Some(size)) => while client.fragment(|| payload.clone(), size) {},
            (Payload::Text(text), None) => client.text(&text),
            (Payload::Binary(data), None) => client.binary(&data),
        }
    }

    pub fn command(&mut self, command: Command) {
        self.environment.send(Mail::Command(command));
    }

    /// Runs one turn.
    pub fn turn(&mut self) {
        let events = self.poll(self.poller_faults.delayed);
        self.turn_with(events);
    }

    fn turn_with(&mut self, events: Vec<(ConnKey, Readiness)>) {
        let now = self.now();
        for (key, readiness) in events {
            self.environment.ready(key, readiness);
        }
        self.environment.turn(&mut self.engine, now);
        for accepted in self.environment.take_accepted() {
            let client = &mut self.clients[accepted.number];
            client.key = Some(accepted.key);
            if !accepted.is_registered {
                client.behavior.is_wrong = true;
                continue;
            }
            client.wire.state().register();
            let connection = Connection {
                credentials: self.credentials[accepted.number].clone(),
                ..Connection::default()
            };
            self.model
                .borrow_mut()
                .lives
                .insert(accepted.key, connection);
        }
        self.check();
    }

    /// Returns the events of a turn.
    fn poll(&mut self, delayed: u32) -> Vec<(ConnKey, Readiness)> {
        let mut events = Vec::new();
        for &number in &self.active {
            let client = &self.clients[number];
            let mut state = client.wire.state();
            if let Some(key) = client.key
                && state.has_edge()
                && !self.rng.chance(delayed)
                && let Some(readiness) = state.take_edge()
            {
                let times = 1 + usize::from(self.rng.chance(self.poller_faults.repeated));
                events.extend(std::iter::repeat_n((key, readiness), times));
            }
        }
        let number = self.rng.below(self.clients.len());
        if self.rng.chance(self.poller_faults.spurious)
            && let Some(key) = self.clients.get(number).and_then(|client| client.key)
        {
            let readiness = Readiness {
                readable: self.rng.chance(50),
                writable: self.rng.chance(50),
                read_closed: false,
            };
            events.push((key, readiness));
        }
        if self.poller_faults.shuffled {
            self.rng.shuffle(&mut events);
        }
        events
    }

    /// The invariants after every turn.
    fn check(&mut self) {
        if let Err(problem) = self.engine.check_invariants() {
            panic!("{problem}");
        }
        let model = self.model.borrow();
        assert!(model.breaches.is_empty(), "{:#?}", model.breaches);
        let realtime = &self.engine.handler().realtime;
        let result = oracle::check_counters(&model, &realtime.counters());
        let result = result.and_then(|()| oracle::check_tables(&model, realtime));
        if let Err(problem) = result {
            panic!("{problem}");
        }
        for (key, life) in model.open() {
            assert_eq!(life.closed, None, "{key:?} is still open");
        }
        let open = model.open().count() as u64;
        assert_eq!(self.engine.counters().open, open, "open connections");
        drop(model);
        for number in self.active.clone() {
            let result = oracle::check_end(&mut self.clients[number]);
            self.judge(number, result);
        }
        let clients = &self.clients;
        self.active.retain(|&number| !clients[number].is_over());
    }

    fn judge(&self, number: usize, result: Result<(), String>) {
        if let Err(problem) = result {
            let client = &self.clients[number];
            panic!(
                "client {number} ({:?}, {:?}): {problem}",
                client.key, client.behavior
            );
        }
    }

    /// A client reads at most `max` bytes.
    pub fn listen(&mut self, number: usize, max: usize) {
        let client = &mut self.clients[number];
        let result = client.listen(max).and_then(|fresh| {
            let mut model = self.model.borrow_mut();
            let life = client.key.and_then(|key| model.lives.get_mut(&key));
            match life {
                Some(life) => {
                    let compressed_flags = client.compressed_flags.clone();
                    let mut events = fresh.iter().zip(compressed_flags);
                    events.try_for_each(|(event, is_compressed)| {
                        oracle::check_form(client, event, is_compressed)?;
                        oracle::check_event(client, event, life)
                    })
                }
                None if fresh.is_empty() => Ok(()),
                None => Err(format!("received {fresh:?} without being accepted")),
            }
        });
        self.judge(number, result);
    }

    /// Runs turns until no edge is outstanding and the engine would sleep, without network
    /// activity.
    pub fn settle(&mut self) {
        for _ in 0..MAX_TURNS {
            let events = self.poll(0);
            let is_quiet = events.is_empty();
            self.turn_with(events);
            let mut active = self.active.iter().map(|&number| &self.clients[number]);
            let has_edge = self.environment.has_event()
                || active.any(|client| client.key.is_some() && client.wire.state().has_edge());
            if is_quiet && !has_edge && self.timeout() > 0 {
                return self.check_quiet();
            }
        }
        panic!(
            "the engine does not become idle: {:?}",
            self.engine.counters()
        );
    }

    /// Returns the milliseconds for which the reactor would sleep.
    fn timeout(&self) -> u64 {
        let wait = self.environment.wait().expect("no shutdown");
        wait.as_millis() as u64
    }

    fn check_quiet(&mut self) {
        if let Err(problem) = self.environment.check_quiet() {
            panic!("{problem}");
        }
        let model = self.model.borrow();
        for &number in &self.active {
            let client = &self.clients[number];
            let life = client.key.and_then(|key| model.lives.get(&key));
            let interest = client.key.and_then(|key| self.engine.interest(key));
            if let (Some(life), Some(interest)) = (life, interest) {
                let result = check_quiet(client, interest);
                let result = result.and_then(|()| match interest.is_open && client.is_done() {
                    true => oracle::check_complete(client, interest, life),
                    false => Ok(()),
                });
                self.judge(number, result);
            }
        }
        if let Err(problem) = oracle::check_accounts(&model, self.engine.counters()) {
            panic!("{problem}");
        }
    }

    /// Exchanges everything with the eager clients.
    pub fn flow(&mut self) {
        for _ in 0..MAX_TURNS {
            self.settle();
            if !self.exchange() {
                return;
            }
        }
        panic!("the exchange does not end");
    }

    /// Moves everything in flight to and from eager clients, once. Returns whether there was
    /// anything.
    pub fn exchange(&mut self) -> bool {
        let mut any = false;
        for number in self.active.clone() {
            if !self.clients[number].behavior.is_eager {
                continue;
            }
            let unread_output = self.clients[number].wire.state().unread_output();
            self.listen(number, usize::MAX);
            any |= self.clients[number].wire.state().deliver(usize::MAX) || unread_output > 0;
        }
        any
    }

    /// Advances the clock while the eager clients keep reacting.
    pub fn wait(&mut self, ms: u64) {
        self.flow();
        let end = self.clock + ms;
        while self.clock < end {
            self.clock = end.min(self.clock + self.timeout().clamp(1, 500));
            self.flow();
        }
    }

    /// Disconnects all clients, advances the clock, and checks that no state is left.
    pub fn finish(&mut self) {
        self.poller_faults = PollerFaults::default();
        self.environment.lift();
        self.flow();
        for number in 0..self.clients.len() {
            let client = &mut self.clients[number];
            // Room without a read would count as activity.
            client.wire.state().faults = Faults::default();
            match (client.behavior.is_eager, self.rng.below(3)) {
                (true, _) | (_, 0) => client.finish(),
                (_, 1) => client.reset(),
                _ => client.vanish(),
            }
        }
        self.wait(60_000);
        // As in the engine's simulation: one second for each kibibyte, and one for the output that
        // a kernel accepts from a queue.
        for second in 0..=360 {
            let is_left = |client: &Client| {
                client
                    .key
                    .is_some_and(|key| self.engine.interest(key).is_some())
            };
            let mut left = self
                .clients
                .iter()
                .filter(|client| is_left(client))
                .peekable();
            if left.peek().is_none() {
                break;
            }
            for client in left {
                let written = client.wire.state().written / 1024;
                assert!(written + 60 >= second, "{second}: {:?}", client.behavior);
            }
            self.wait(1000);
        }
        let counters = self.engine.counters();
        let left = (counters.connections, counters.open, counters.queued_bytes);
        assert_eq!(left, (0, 0, 0), "connections, open, queued bytes");
        let counters = self.engine.handler().realtime.counters();
        let result = oracle::check_over(&self.model.borrow(), &counters);
        assert_eq!(result, Ok(()));
    }
}

/// The maximum number of turns until the engine is idle.
const MAX_TURNS: usize = 20_000;
