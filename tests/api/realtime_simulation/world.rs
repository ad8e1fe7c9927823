//! The engine with the API, its clients and the clocks, a turn at a time.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::net::Ipv4Addr;
use std::rc::Rc;

use h_realtime::realtime::{ApiSettings, TurnLimits};
use h_realtime_engine::{Arrival, Config, ConnKey, Engine, ListenerId, Now, Readiness};

use crate::sim::backlog::{Accept, Backlog};
use crate::sim::oracle::check_quiet;
use crate::sim::rng::Rng;
use crate::sim::socket::{SimSocket, Wire};
use crate::sim::world::Disorder;
use crate::sim::{Client, Conduct, Faults, Limits, Said};

use super::app::{App, Asked, Command};
use super::matcher::{Life, Model, Wants};
use super::oracle;
use super::says::Say;

pub struct World {
    pub engine: Engine<SimSocket, App>,
    pub clients: Vec<Client>,
    pub model: Rc<RefCell<Model>>,
    pub asked: Asked,
    pub disorder: Disorder,
    /// Milliseconds that have passed.
    pub clock: u64,
    /// Milliseconds of the wall clock at the beginning; it may be set anew.
    pub wall: u64,
    /// The clients of whom there is more to come.
    pub active: Vec<usize>,
    rng: Rng,
    pub backlog: Backlog<(usize, Wants, Arrival<SimSocket>)>,
    commands: VecDeque<Command>,
}

/// What a client begins with.
pub struct Hello {
    pub wants: Wants,
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
        let asked = Asked::default();
        let app = App::new(
            Rc::clone(&model),
            asked.clone(),
            settings,
            limits,
            rng.next(),
        );
        let (clock, wall) = (1_000_000, 1_700_000_000_000);
        let now = Now {
            mono: clock,
            unix: wall + clock,
        };
        World {
            engine: Engine::new(config, app, rng.next(), now),
            clients: Vec::new(),
            model,
            asked,
            disorder: Disorder::default(),
            clock,
            wall,
            active: Vec::new(),
            rng,
            backlog: Backlog::new(),
            commands: VecDeque::new(),
        }
    }

    pub fn now(&self) -> Now {
        Now {
            mono: self.clock,
            unix: self.wall + self.clock,
        }
    }

    /// A client connects; it is accepted in the next turn.
    pub fn connect(&mut self, conduct: Conduct, limits: Limits, faults: Faults, hello: Hello) {
        let wire = Wire::new(limits, self.rng.fork());
        wire.state().faults = faults;
        let arrival = Arrival {
            socket: wire.socket(),
            listener: ListenerId(0),
            peer: Some(Ipv4Addr::LOCALHOST.into()),
            expects_proxy_header: false,
            tls: None,
        };
        let mut client = Client::new(wire, self.rng.fork(), conduct);
        client.compresses = hello.compresses;
        client.raw(hello.bytes);
        self.clients.push(client);
        let number = self.clients.len() - 1;
        self.active.push(number);
        self.backlog.push((number, hello.wants, arrival));
    }

    /// A client says something, in one frame or in several.
    pub fn say(&mut self, number: usize, say: Say, fragment: Option<usize>) {
        let client = &mut self.clients[number];
        let Some(key) = client.key else { return };
        let message = say.message.clone();
        self.model
            .borrow_mut()
            .lives
            .entry(key)
            .or_default()
            .said
            .push_back(say);
        match (message, fragment) {
            (message, Some(size)) => while client.fragment(|| message.clone(), size) {},
            (Said::Text(text), None) => client.text(&text),
            (Said::Binary(data), None) => client.binary(&data),
        }
    }

    pub fn command(&mut self, command: Command) {
        self.commands.push_back(command);
    }

    /// One turn, in the order of the reactor's.
    pub fn turn(&mut self) {
        let events = self.poll(self.disorder.delayed);
        self.turn_with(events);
    }

    fn turn_with(&mut self, events: Vec<(ConnKey, Readiness)>) {
        self.engine.begin_turn(self.now());
        for (key, readiness) in events {
            self.engine.ready(key, readiness);
        }
        while self.engine.wants_commands()
            && let Some(command) = self.commands.pop_front()
        {
            self.engine.command(command);
        }
        self.engine.serve();
        self.accept();
        if self.engine.reap() {
            self.backlog.reaped();
        }
        self.check();
    }

    /// The events of a turn.
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
                let times = 1 + usize::from(self.rng.chance(self.disorder.repeated));
                events.extend(std::iter::repeat_n((key, readiness), times));
            }
        }
        let number = self.rng.below(self.clients.len());
        if self.rng.chance(self.disorder.spurious)
            && let Some(key) = self.clients.get(number).and_then(|client| client.key)
        {
            let readiness = Readiness {
                readable: self.rng.chance(50),
                writable: self.rng.chance(50),
                read_closed: false,
            };
            events.push((key, readiness));
        }
        if self.disorder.shuffled {
            self.rng.shuffle(&mut events);
        }
        events
    }

    fn accept(&mut self) {
        loop {
            let connections = self.engine.counters().connections;
            let (number, wants, arrival) = match self.backlog.accept(self.clock, connections) {
                Accept::One(arrival) => arrival,
                Accept::NoDescriptor => return self.engine.count_accept_failure(),
                Accept::Nobody => return,
            };
            let key = self.engine.accept(arrival);
            self.clients[number].key = key;
            let Some(key) = key else { continue };
            if self.rng.chance(self.backlog.unregistered) {
                self.clients[number].conduct.is_wrong = true;
                self.engine.abandon(key);
                self.engine.count_accept_failure();
                return self.backlog.refuse(self.clock);
            }
            self.clients[number].wire.state().register();
            let life = Life {
                wants,
                ..Life::default()
            };
            self.model.borrow_mut().lives.insert(key, life);
        }
    }

    /// What holds after every turn.
    fn check(&mut self) {
        if let Err(what) = self.engine.check_invariants() {
            panic!("{what}");
        }
        let model = self.model.borrow();
        assert!(model.breaches.is_empty(), "{:#?}", model.breaches);
        let realtime = &self.engine.handler().realtime;
        let result = oracle::check_counters(&model, &realtime.counters());
        let result = result.and_then(|()| oracle::check_tables(&model, realtime));
        if let Err(what) = result {
            panic!("{what}");
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
        if let Err(what) = result {
            let client = &self.clients[number];
            panic!(
                "client {number} ({:?}, {:?}): {what}",
                client.key, client.conduct
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
                    let squeezed = client.squeezed.clone();
                    let mut heard = fresh.iter().zip(squeezed);
                    heard.try_for_each(|(heard, squeezed)| {
                        oracle::check_form(client, heard, squeezed)?;
                        oracle::check_heard(client, heard, life)
                    })
                }
                None if fresh.is_empty() => Ok(()),
                None => Err(format!("heard {fresh:?} and was not accepted")),
            }
        });
        self.judge(number, result);
    }

    /// Turns until no edge is outstanding and the engine would sleep; nothing moves on the
    /// network meanwhile.
    pub fn settle(&mut self) {
        for _ in 0..MAX_TURNS {
            let events = self.poll(0);
            let is_quiet = events.is_empty();
            self.turn_with(events);
            let mut active = self.active.iter().map(|&number| &self.clients[number]);
            let has_edge =
                active.any(|client| client.key.is_some() && client.wire.state().has_edge());
            if is_quiet && !has_edge && self.timeout() > 0 {
                return self.check_quiet();
            }
        }
        panic!("the engine spins: {:?}", self.engine.counters());
    }

    /// Milliseconds that the reactor would sleep.
    fn timeout(&self) -> u64 {
        let engine = self.engine.timeout().as_millis() as u64;
        engine.min(self.backlog.timeout(self.clock))
    }

    fn check_quiet(&mut self) {
        let connections = self.engine.counters().connections;
        if let Err(what) = self.backlog.check_quiet(connections) {
            panic!("{what}");
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
        if let Err(what) = oracle::check_accounts(&model, self.engine.counters()) {
            panic!("{what}");
        }
    }

    /// Has everything of the eager clients reach its end.
    pub fn flow(&mut self) {
        for _ in 0..MAX_TURNS {
            self.settle();
            if !self.exchange() {
                return;
            }
        }
        panic!("somebody never stops talking");
    }

    /// Moves what is on its way to and from eager clients, once; says whether anything was.
    pub fn exchange(&mut self) -> bool {
        let mut any = false;
        for number in self.active.clone() {
            if !self.clients[number].conduct.is_eager {
                continue;
            }
            let untaken = self.clients[number].wire.state().untaken();
            self.listen(number, usize::MAX);
            any |= self.clients[number].wire.state().deliver(usize::MAX) || untaken > 0;
        }
        any
    }

    /// Lets time pass, with the eager clients doing what they must.
    pub fn wait(&mut self, ms: u64) {
        self.flow();
        let end = self.clock + ms;
        while self.clock < end {
            self.clock = end.min(self.clock + self.timeout().clamp(1, 500));
            self.flow();
        }
    }

    /// Everybody leaves, time passes, and nothing must be left.
    pub fn finish(&mut self) {
        self.disorder = Disorder::default();
        self.backlog.lift();
        self.flow();
        for number in 0..self.clients.len() {
            let client = &mut self.clients[number];
            // Room that comes of no reading would pass for a sign of life.
            client.wire.state().faults = Faults::default();
            match (client.conduct.is_eager, self.rng.below(3)) {
                (true, _) | (_, 0) => client.finish(),
                (_, 1) => client.reset(),
                _ => client.vanish(),
            }
        }
        self.wait(60_000);
        // As in the engine's simulation: a second for each kibibyte, and once more for the output
        // that a kernel takes of a queue.
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
                assert!(written + 60 >= second, "{second}: {:?}", client.conduct);
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

/// Turns in which everything must come to rest.
const MAX_TURNS: usize = 20_000;
