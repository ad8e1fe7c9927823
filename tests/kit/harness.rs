//! The whole API on simulated sockets: the engine, the Real Time API, and clients.

use h_realtime::model::Plan;
use h_realtime::realtime::ApiSettings;
use h_realtime_engine::{Config, Engine, ListenerOptions};

use crate::api::{Api, Command};
use crate::client::Behavior;
use crate::environment::Environment;
use crate::frames::{ClientEvent, client_frame, handshake};
use crate::rng::Rng;
use crate::sim::{Checked, START, Sim};
use crate::socket::Calls;

/// A server and its clients, idle between two calls. The clients only send what a test tells them
/// to, and the clock only advances in [`ApiHarness::wait`].
pub struct ApiHarness {
    sim: Sim<Api>,
}

/// The tests themselves check what the clients receive.
impl Checked for Api {}

impl ApiHarness {
    /// `max_terms` as in [`ApiSettings`].
    pub fn new(max_terms: usize) -> ApiHarness {
        let settings = ApiSettings {
            max_terms,
            ..ApiSettings::default()
        };
        let engine = Engine::new(Config::default(), Api::new(settings), 1, START);
        let mut sim = Sim::with_engine(engine, Environment::new(Rng::new(1)), Rng::new(1));
        sim.listen_with(ListenerOptions::default());
        ApiHarness { sim }
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
        let behavior = Behavior {
            is_mute: true,
            ..Behavior::default()
        };
        let number = self.sim.connect_from(None, behavior);
        self.settle();
        number
    }

    /// Sends a frame with this first byte, and runs turns until the engine is idle.
    pub fn send(&mut self, number: usize, first: u8, payload: &[u8]) {
        self.say(number, &client_frame(first, payload, [5, 6, 7, 8]));
        self.settle();
    }

    /// Delivers bytes from a client without running a turn.
    pub fn say(&mut self, number: usize, bytes: &[u8]) {
        self.sim.client(number).raw(bytes);
        self.sim.deliver(number);
    }

    /// Publishes an event.
    pub fn publish(&mut self, plan: Plan) {
        self.publish_all([plan]);
    }

    /// Publishes events in the same turn.
    pub fn publish_all(&mut self, plans: impl IntoIterator<Item = Plan>) {
        for plan in plans {
            self.sim.command(Command::Event(plan));
        }
        self.settle();
    }

    /// Sleeps for as long as the reactor would.
    pub fn wait(&mut self) {
        self.sim.clock += self.sim.timeout();
        self.settle();
    }

    /// Returns the system calls on a client's socket since the last call.
    pub fn calls(&mut self, number: usize) -> Calls {
        self.sim.calls(number)
    }

    /// Returns the events that a client has received since the last call.
    pub fn receive_events(&mut self, number: usize) -> Vec<ClientEvent> {
        let events = self.sim.listen(number, usize::MAX);
        assert!(!self.sim.client(number).has_partial_input());
        events
    }

    /// Runs turns until the engine would sleep.
    pub fn settle(&mut self) {
        self.sim.settle();
    }
}
