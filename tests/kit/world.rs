//! The simulation of the test application, whose results the oracle checks.

use h_realtime_engine::{Config, Engine, Interest, ListenerOptions, Mail, Reload};

use crate::app::{App, Log};
use crate::client::Client;
use crate::environment::Environment;
use crate::frames::ClientEvent;
use crate::oracle;
use crate::rng::Rng;
use crate::sim::{Checked, START, Sim};
use crate::socket::SimSocket;

/// The engine with the test application.
pub type World = Sim<App>;

impl Checked for App {
    fn check_turn(engine: &Engine<SimSocket, App>) -> Result<(), String> {
        let breaches = std::mem::take(&mut engine.handler().log().get().breaches);
        match breaches.is_empty() {
            true => Ok(()),
            false => Err(format!("{breaches:?}")),
        }
    }

    fn check_client(&self, client: &mut Client) -> Result<(), String> {
        oracle::check_inbox(client, self.log())?;
        let may_shed = self.log().get().may_shed;
        oracle::check_end(client, may_shed)
    }

    fn check_received(&self, client: &mut Client, received: &[ClientEvent]) -> Result<(), String> {
        let mut events = received.iter();
        events.try_for_each(|event| oracle::check_event(client, event, self.log()))
    }

    fn check_complete(&self, client: &Client, interest: Interest) -> Result<(), String> {
        oracle::check_complete(client, interest, self.log())
    }

    fn check_over(&self) -> Result<(), String> {
        oracle::check_over(self.log())
    }
}

impl Sim<App> {
    /// Creates a simulation of the application without faults.
    pub fn new(config: Config, seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let log = Log::default();
        log.get().may_shed = may_shed(&config);
        let app = App::new(log, rng.fork());
        let engine = Engine::new(config, app, rng.next_u64(), START);
        // With random numbers of its own, so that seeds keep their meaning.
        let environment = Environment::new(Rng::new(seed ^ 0xACCE));
        let mut sim = Sim::with_engine(engine, environment, rng);
        for _ in 0..2 {
            let options = ListenerOptions::default();
            sim.environment.listen(&mut sim.engine, options);
        }
        sim
    }

    pub fn calm() -> Self {
        World::new(Config::default(), 1)
    }

    /// Returns the application's records.
    pub fn log(&self) -> &Log {
        self.engine.handler().log()
    }

    /// Opens a WebSocket from this machine.
    pub fn open(&mut self) -> usize {
        let number = self.connect();
        self.client(number).send_handshake("/ws");
        self.flow();
        assert!(
            self.clients[number].progress.is_open,
            "the handshake failed"
        );
        number
    }

    /// Opens an event stream from this machine.
    pub fn open_stream(&mut self) -> usize {
        let number = self.connect();
        self.client(number).request_stream("/stream");
        self.flow();
        assert!(self.clients[number].progress.is_open, "the request failed");
        number
    }

    /// Opens a WebSocket with compression.
    pub fn open_compressing(&mut self) -> usize {
        let number = self.connect();
        self.client(number).compresses = true;
        self.client(number).send_handshake("/ws");
        self.flow();
        assert!(
            self.clients[number].progress.is_open,
            "the handshake failed"
        );
        number
    }

    /// Opens a WebSocket; from then on, the client only reads and sends when told to.
    pub fn open_lazy(&mut self) -> usize {
        let number = self.open();
        self.client(number).behavior.is_eager = false;
        number
    }

    /// Returns the number of messages that the application received from a client.
    pub fn inbox(&self, number: usize) -> usize {
        let key = self.key(number);
        self.log()
            .get()
            .lives
            .get(&key)
            .map_or(0, |life| life.inbox.len())
    }

    /// Reloads the engine's configuration in the next turn.
    pub fn reload(&mut self, config: Config) {
        self.log().get().may_shed |= may_shed(&config);
        let reload = Reload { config, tls: None };
        self.environment.send(Mail::Reload(Box::new(reload)));
    }
}

/// Whether queues may grow so long that even closing connections are shed.
fn may_shed(config: &Config) -> bool {
    config.queue_total < 1 << 20
}
