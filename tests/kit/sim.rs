//! A simulation: an engine with any handler, its clients, and the clock, one turn at a time.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use h_realtime_engine::tls::TlsConfig;
use h_realtime_engine::{
    ConnKey, Engine, Handler, Interest, ListenerId, ListenerOptions, Mail, Now, Readiness,
};

use crate::client::{Behavior, Client};
use crate::environment::Environment;
use crate::frames::ClientEvent;
use crate::oracle;
use crate::rng::Rng;
use crate::socket::{Calls, Faults, Limits, ROOMY, SimSocket, Wire};

/// An engine around the handler `H`, its environment, and its clients.
pub struct Sim<H: Handler> {
    pub engine: Engine<SimSocket, H>,
    pub environment: Environment<SimSocket, H::Command>,
    pub clients: Vec<Client>,
    pub poller_faults: PollerFaults,
    /// Sizes of the kernel's buffers for new connections.
    pub limits: Limits,
    /// The listener of new connections: 0, or another one of the environment.
    pub listener: ListenerId,
    /// In milliseconds.
    pub clock: u64,
    /// The wall clock when `clock` is 0, in milliseconds; it may be changed.
    pub wall: u64,
    /// The clients that are still connected.
    pub active: Vec<usize>,
    /// Whether a shutdown was requested.
    pub is_draining: bool,
    rng: Rng,
}

/// A handler with expectations, which are checked while it is simulated.
pub trait Checked: Handler + Sized {
    /// Called when a client's connection has been accepted and registered.
    fn on_accepted(&self, _number: usize, _key: ConnKey) {}

    /// Checks the engine and the handler after each turn.
    fn check_turn(_: &Engine<SimSocket, Self>) -> Result<(), String> {
        Ok(())
    }

    /// Checks a connected client after each turn.
    fn check_client(&self, _: &mut Client) -> Result<(), String> {
        Ok(())
    }

    /// Checks the events that a client has just received, the newest of [`Client::events`].
    fn check_received(&self, _: &mut Client, _received: &[ClientEvent]) -> Result<(), String> {
        Ok(())
    }

    /// Checks an open client with nothing in flight in either direction.
    fn check_complete(&self, _: &Client, _: Interest) -> Result<(), String> {
        Ok(())
    }

    /// Checks the engine and the handler whenever the engine is idle.
    fn check_idle(_: &Engine<SimSocket, Self>) -> Result<(), String> {
        Ok(())
    }

    /// Returns whether the application itself has closed an open connection.
    fn has_closed(&self, _: &Client) -> bool {
        false
    }

    /// Checks that no state is left after all clients have disconnected.
    fn check_over(&self) -> Result<(), String> {
        Ok(())
    }

    /// Chooses the client of a spurious event, in `percent` of the turns.
    fn choose_spurious(rng: &mut Rng, clients: usize, percent: u32) -> Option<usize> {
        (rng.chance(percent) && clients > 0).then(|| rng.below(clients))
    }
}

/// Irregularities of the poller, in percent.
#[derive(Clone, Copy, Debug, Default)]
pub struct PollerFaults {
    /// Events delayed to a later turn.
    pub delayed: u32,
    /// Spurious events in each turn.
    pub spurious: u32,
    /// Events reported twice.
    pub repeated: u32,
    /// In random order.
    pub shuffled: bool,
}

/// The time at which a simulation starts.
pub const START: Now = at(1_000_000, WALL);

impl<H: Checked> Sim<H> {
    /// Creates a simulation without faults, at [`START`].
    pub fn with_engine(
        engine: Engine<SimSocket, H>,
        environment: Environment<SimSocket, H::Command>,
        rng: Rng,
    ) -> Self {
        Sim {
            engine,
            environment,
            clients: Vec::new(),
            poller_faults: PollerFaults::default(),
            limits: ROOMY,
            listener: ListenerId(0),
            clock: START.mono,
            wall: WALL,
            active: Vec::new(),
            is_draining: false,
            rng,
        }
    }

    pub fn now(&self) -> Now {
        at(self.clock, self.wall)
    }

    /// Adds a listener with these options, to which clients connect from then on.
    pub fn listen_with(&mut self, options: ListenerOptions) -> ListenerId {
        self.listener = self.environment.listen(&mut self.engine, options);
        self.listener
    }

    /// Adds a TLS listener, to which clients connect from then on.
    pub fn listen_tls(&mut self, tls: TlsConfig) -> ListenerId {
        self.listen_with(ListenerOptions {
            tls: Some(tls),
            ..ListenerOptions::default()
        })
    }

    /// Adds a listener that expects the PROXY protocol, to which clients connect from then on.
    pub fn listen_proxied(&mut self) -> ListenerId {
        self.listen_with(ListenerOptions {
            expects_proxy_header: true,
            ..ListenerOptions::default()
        })
    }

    /// Connects a client from this machine, which is accepted in the next turn.
    pub fn connect(&mut self) -> usize {
        self.connect_from(Some(Ipv4Addr::LOCALHOST.into()), Behavior::EAGER)
    }

    pub fn connect_from(&mut self, peer: Option<IpAddr>, behavior: Behavior) -> usize {
        let wire = Wire::new(self.limits, self.rng.fork());
        let rng = self.rng.fork();
        let number = self.environment.connect(self.listener, wire.socket(), peer);
        assert_eq!(number, self.clients.len());
        self.clients.push(Client::new(wire, rng, behavior));
        self.active.push(number);
        number
    }

    pub fn client(&mut self, number: usize) -> &mut Client {
        &mut self.clients[number]
    }

    pub fn key(&self, number: usize) -> ConnKey {
        self.clients[number]
            .key
            .expect("the connection was not accepted")
    }

    /// Returns the engine's interest in a client's socket; `None` after it is closed.
    pub fn interest(&self, number: usize) -> Option<Interest> {
        self.engine.interest(self.clients[number].key?)
    }

    /// Delivers everything that a client has sent.
    pub fn deliver(&mut self, number: usize) {
        self.clients[number].wire.state().deliver(usize::MAX);
    }

    /// Returns the system calls on a client's socket since the last call.
    pub fn calls(&mut self, number: usize) -> Calls {
        std::mem::take(&mut self.clients[number].wire.state().calls)
    }

    pub fn command(&mut self, command: H::Command) {
        self.environment.send(Mail::Command(command));
    }

    /// Runs a turn in which the server is told to shut down.
    pub fn shut_down(&mut self, over: Duration) {
        self.environment.send(Mail::Shutdown(over));
        self.turn();
    }

    /// Returns whether the server has ended.
    pub fn has_ended(&self) -> bool {
        self.environment.wait().is_none()
    }

    /// Runs one turn.
    pub fn turn(&mut self) {
        let events = self.poll(self.poller_faults.delayed);
        self.turn_with(events);
    }

    pub fn turn_with(&mut self, events: Vec<(ConnKey, Readiness)>) {
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
            let handler = self.engine.handler();
            handler.on_accepted(accepted.number, accepted.key);
        }
        self.check();
    }

    /// Returns the events of a turn.
    pub fn poll(&mut self, delayed: u32) -> Vec<(ConnKey, Readiness)> {
        let mut events = Vec::new();
        for &number in &self.active {
            let client = &self.clients[number];
            let mut state = client.wire.state();
            if let Some(key) = client.key
                && state.has_edge()
                && !self.rng.chance(delayed)
                && let Some(readiness) = state.take_edge()
            {
                events.push((key, readiness));
                if self.rng.chance(self.poller_faults.repeated) {
                    events.push((key, readiness));
                }
            }
        }
        let percent = self.poller_faults.spurious;
        if let Some(number) = H::choose_spurious(&mut self.rng, self.clients.len(), percent)
            && let Some(key) = self.clients[number].key
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
        let result = self.engine.check_invariants();
        if let Err(problem) = result.and_then(|()| H::check_turn(&self.engine)) {
            panic!("{problem}");
        }
        for number in self.active.clone() {
            self.clients[number].wire.state().expire(self.clock);
            let handler = self.engine.handler();
            let result = handler.check_client(&mut self.clients[number]);
            self.judge(number, result);
        }
        let clients = &self.clients;
        self.active.retain(|&number| !clients[number].is_over());
    }

    /// Returns the result of a check, or panics with the client that it concerns.
    pub(crate) fn judge<T>(&self, number: usize, result: Result<T, String>) -> T {
        result.unwrap_or_else(|problem| {
            let client = &self.clients[number];
            let counters = self.engine.counters();
            panic!(
                "client {number} ({:?}): {problem}; {:?} {:?}",
                client.key, client.behavior, counters.closed
            );
        })
    }

    /// A client reads at most `max` bytes. Returns the events in them.
    pub fn listen(&mut self, number: usize, max: usize) -> Vec<ClientEvent> {
        let client = &mut self.clients[number];
        let handler = self.engine.handler();
        let result = client.listen(max).and_then(|received| {
            handler.check_received(client, &received)?;
            Ok(received)
        });
        self.judge(number, result)
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

    /// Returns the milliseconds for which the reactor would sleep: forever once it has ended.
    pub fn timeout(&self) -> u64 {
        let wait = self.environment.wait();
        wait.map_or(u64::MAX, |wait| wait.as_millis() as u64)
    }

    pub(crate) fn check_quiet(&self) {
        if let Err(problem) = self.environment.check_quiet() {
            panic!("{problem}");
        }
        for &number in &self.active {
            let client = &self.clients[number];
            if let Some(interest) = client.key.and_then(|key| self.engine.interest(key)) {
                let result = oracle::check_quiet(client, interest);
                let result = result.and_then(|()| match interest.is_open && client.is_done() {
                    true => self.engine.handler().check_complete(client, interest),
                    false => Ok(()),
                });
                self.judge(number, result);
            }
        }
        if let Err(problem) = H::check_idle(&self.engine) {
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

    /// Stalls the server while the network and the eager clients go on.
    pub fn stand_still(&mut self, ms: u64) {
        while self.exchange() {}
        self.clock += ms;
    }

    /// Runs a turn without poller events.
    pub fn turn_without_events(&mut self) {
        self.turn_with(Vec::new());
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
            // The network delivers nothing more of it, not even a FIN.
            client.wire.state().has_vanished |= !client.behavior.is_eager;
            match (client.behavior.is_eager, self.rng.below(3)) {
                (true, _) | (_, 0) => client.finish(),
                (_, 1) => client.reset(),
                _ => client.vanish(),
            }
        }
        self.wait(60_000);
        // A client may need a second for each kibibyte before it can answer a ping, for at most
        // five minutes. Output that its kernel accepts from a queue counts as activity as well,
        // once.
        for second in 0..=360 {
            let mut left = false;
            for (number, client) in self.clients.iter().enumerate() {
                if let Some(interest) = client.key.and_then(|key| self.engine.interest(key)) {
                    assert!(
                        client.wire.state().written / 1024 + 60 >= second,
                        "client {number} is still connected after {second} s, {:?}: {interest:?}",
                        client.behavior
                    );
                    left = true;
                }
            }
            if !left {
                break;
            }
            self.wait(1000);
        }
        let counters = self.engine.counters();
        let left = (counters.connections, counters.open, counters.queued_bytes);
        assert_eq!(left, (0, 0, 0), "connections, open, queued bytes");
        let live = |client: &&Client| !client.wire.state().is_closed;
        assert_eq!(self.clients.iter().filter(live).count(), 0, "sockets left");
        assert_eq!(self.engine.handler().check_over(), Ok(()));
    }
}

const fn at(clock: u64, wall: u64) -> Now {
    Now {
        mono: clock,
        unix: wall + clock,
    }
}

/// The wall clock when the monotonic clock is 0, in milliseconds.
const WALL: u64 = 1_700_000_000_000;
/// The maximum number of turns until the engine is idle.
const MAX_TURNS: usize = 20_000;
