//! The engine with the API, its clients, and the model, which checks both.

use std::cell::RefCell;
use std::net::Ipv4Addr;
use std::rc::Rc;

use h_realtime::realtime::{ApiSettings, TurnLimits};
use h_realtime_engine::{Config, ConnKey, Engine, Interest, ListenerOptions};

use crate::sim::environment::Environment;
use crate::sim::rng::Rng;
use crate::sim::sim::START;
use crate::sim::socket::SimSocket;
use crate::sim::{Behavior, Checked, Client, ClientEvent, Faults, Limits, Payload, Sim};

use super::app::{App, RequestQueue};
use super::client_messages::ClientMessage;
use super::model::{Connection, Credentials, Model};
use super::oracle;

pub struct World {
    pub sim: Sim<App>,
    pub requests: RequestQueue,
    model: Rc<RefCell<Model>>,
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
        let engine = Engine::new(config, app, rng.next_u64(), START);
        // With random numbers of its own, so that seeds keep their meaning.
        let environment = Environment::new(rng.clone());
        let mut sim = Sim::with_engine(engine, environment, rng);
        sim.listen_with(ListenerOptions::default());
        World {
            sim,
            requests,
            model,
        }
    }

    /// Connects a client, which is accepted in the next turn.
    pub fn connect(&mut self, behavior: Behavior, limits: Limits, faults: Faults, hello: Hello) {
        self.sim.limits = limits;
        let peer = Some(Ipv4Addr::LOCALHOST.into());
        let number = self.sim.connect_from(peer, behavior);
        let client = self.sim.client(number);
        client.wire.state().faults = faults;
        client.compresses = hello.compresses;
        client.raw(hello.bytes);
        self.model.borrow_mut().credentials.push(hello.credentials);
    }

    /// A client sends a message in one or more frames.
    pub fn send(&mut self, number: usize, message: ClientMessage, fragment: Option<usize>) {
        let client = self.sim.client(number);
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
}

impl Checked for App {
    fn on_accepted(&self, number: usize, key: ConnKey) {
        let mut model = self.model.borrow_mut();
        let connection = Connection {
            credentials: model.credentials[number].clone(),
            ..Connection::default()
        };
        model.lives.insert(key, connection);
    }

    fn check_turn(engine: &Engine<SimSocket, App>) -> Result<(), String> {
        let app = engine.handler();
        let model = app.model.borrow();
        assert!(model.breaches.is_empty(), "{:#?}", model.breaches);
        oracle::check_counters(&model, &app.realtime.counters())?;
        oracle::check_tables(&model, &app.realtime)?;
        for (key, life) in model.open() {
            assert_eq!(life.closed, None, "{key:?} is still open");
        }
        let open = model.open().count() as u64;
        assert_eq!(engine.counters().open, open, "open connections");
        Ok(())
    }

    fn check_client(&self, client: &mut Client) -> Result<(), String> {
        oracle::check_end(client)
    }

    fn check_received(&self, client: &mut Client, received: &[ClientEvent]) -> Result<(), String> {
        let mut model = self.model.borrow_mut();
        match client.key.and_then(|key| model.lives.get_mut(&key)) {
            Some(life) => {
                let compressed_flags = client.compressed_flags.clone();
                let mut events = received.iter().zip(compressed_flags);
                events.try_for_each(|(event, is_compressed)| {
                    oracle::check_form(client, event, is_compressed)?;
                    oracle::check_event(client, event, life)
                })
            }
            None if received.is_empty() => Ok(()),
            None => Err(format!("received {received:?} without being accepted")),
        }
    }

    fn check_complete(&self, client: &Client, interest: Interest) -> Result<(), String> {
        let model = self.model.borrow();
        match client.key.and_then(|key| model.lives.get(&key)) {
            Some(life) => oracle::check_complete(client, interest, life),
            None => Err("is open, but unknown to the model".to_owned()),
        }
    }

    fn check_idle(engine: &Engine<SimSocket, App>) -> Result<(), String> {
        let model = engine.handler().model.borrow();
        oracle::check_accounts(&model, engine.counters())
    }

    /// Tokens end in the course of time.
    fn has_closed(&self, client: &Client) -> bool {
        let model = self.model.borrow();
        let life = client.key.and_then(|key| model.lives.get(&key));
        life.is_some_and(|life| life.closed.is_some())
    }

    fn check_over(&self) -> Result<(), String> {
        oracle::check_over(&self.model.borrow(), &self.realtime.counters())
    }

    /// Draws the client before the chance, so that seeds keep their meaning.
    fn choose_spurious(rng: &mut Rng, clients: usize, percent: u32) -> Option<usize> {
        let number = rng.below(clients);
        (rng.chance(percent) && clients > 0).then_some(number)
    }
}
