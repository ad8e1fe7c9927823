//! The environment of the transcripts: h's database, its message queue, and a client that detects
//! when an event has been processed.

use std::cell::RefCell;
use std::env;
use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use h_realtime_engine::ws::OpCode;
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::kit::player::{Found, Message, Player, World};
use crate::kit::target::Target;
use crate::kit::transcript::Transcript;
use crate::support::{
    Client, PATIENCE, Postgres, Publisher, RabbitMq, Received, Server, Site, eventually, sql,
};

pub struct Environment<'b> {
    address: SocketAddr,
    database: String,
    broker: String,
    /// The server, if it belongs to the test.
    server: Option<Server>,
    restart: Restart<'b>,
    settle: Option<Duration>,
    time: f64,
    publisher: RefCell<Option<Publisher>>,
    observer: RefCell<Option<Client>>,
}

/// How to restart the message broker.
enum Restart<'b> {
    Own(&'b RabbitMq),
    Command(String),
    No,
}

impl<'b> Environment<'b> {
    /// Creates a server, a database, and a virtual host for the test.
    pub fn for_test(database: &Postgres, broker: &'b RabbitMq, config: &str) -> Self {
        let site = Site::on(database, broker);
        let server = site.server(config);
        Environment {
            address: server.address(),
            server: Some(server),
            restart: Restart::Own(broker),
            ..Environment::new(site.database, site.broker)
        }
    }

    /// Connects to another server and its environment, given by environment variables.
    pub fn external(address: &str, settle: Option<Duration>) -> Self {
        let variable = |name| env::var(name).unwrap_or_else(|_| panic!("{name} is not set"));
        let restart = env::var("CONFORMANCE_RESTART_BROKER");
        let at = variable("CONFORMANCE_DATABASE");
        Environment {
            address: address.parse().expect("HOST:PORT"),
            restart: restart.map_or(Restart::No, Restart::Command),
            settle,
            ..Environment::new(at, variable("CONFORMANCE_BROKER"))
        }
    }

    fn new(database: String, broker: String) -> Self {
        sql(&database, OBSERVED);
        Environment {
            address: ([127, 0, 0, 1], 0).into(),
            database,
            broker,
            server: None,
            restart: Restart::No,
            settle: None,
            time: 1.0,
            publisher: RefCell::new(None),
            observer: RefCell::new(None),
        }
    }

    /// Sets the factor for the waiting times recorded with h.
    pub fn with_time(self, time: f64) -> Self {
        Environment { time, ..self }
    }

    pub fn can_restart_broker(&self) -> bool {
        !matches!(self.restart, Restart::No)
    }

    pub fn play(&self, transcript: &Transcript) -> Found {
        Player::new(&Target::local(self.address), self, self.settle).find(transcript)
    }

    /// Publishes a message; reconnects after a restart of the broker. An unroutable event is
    /// published again: the server has not created its queue yet.
    fn publish_one(&self, key: &str, message: &Message) {
        eventually(2 * PATIENCE, || {
            let mut publisher = self.publisher.borrow_mut();
            let publisher = publisher.get_or_insert_with(|| Publisher::new(&self.broker));
            let Message {
                body,
                kind,
                encoding,
            } = message;
            publisher
                .publish_raw(key, body, kind, encoding)
                .then_some(())
        });
    }

    /// Waits until an event that follows all others of its key has arrived. Only the observer
    /// receives it.
    fn fence(&self, key: &str) {
        let mut observer = self.observer.borrow_mut();
        let observer = observer.get_or_insert_with(|| self.new_observer());
        let (event, kind) = match key {
            "user" => (
                json!({"type": "group-join", "userid": OBSERVER, "group": "open1234",
                       "session_model": {}}),
                "session-change",
            ),
            _ => (
                json!({"action": "update", "annotation_id": OBSERVED_ID, "src_client_id": "fence"}),
                "annotation-notification",
            ),
        };
        self.publish_one(key, &json(&event));
        let text = loop {
            match observer.receive() {
                Received::Ping(payload) => observer.send_frame(true, OpCode::Pong, &payload),
                Received::Text(text) => break text,
                other => panic!("{other:?}"),
            }
        };
        assert!(text.contains(kind), "{text}");
    }

    fn new_observer(&self) -> Client {
        let fields = format!("Authorization: Bearer {OBSERVER_TOKEN}\r\n");
        let mut observer = Client::open(self.address, "/ws", &fields);
        observer.subscribe("/id", OBSERVED_ID);
        observer
    }
}

impl World for Environment<'_> {
    fn publish(&self, key: &str, messages: &[Message]) {
        for message in messages {
            self.publish_one(key, message);
        }
        self.fence(key);
    }

    fn change(&self, statement: &str) {
        sql(&self.database, statement);
    }

    fn restart_broker(&self) {
        *self.publisher.borrow_mut() = None;
        match &self.restart {
            Restart::Own(broker) => {
                broker.stop();
                broker.start_again();
            }
            Restart::Command(command) => {
                let status = Command::new("sh").args(["-c", command]).status().unwrap();
                assert!(status.success(), "{command}: {status}");
            }
            Restart::No => unreachable!(),
        }
    }

    fn terminate(&self) {
        let server = self.server.as_ref().expect("a server of the test's own");
        server.signal(Signal::TERM);
    }

    fn time(&self, seconds: f64) -> Duration {
        Duration::from_secs_f64(seconds * self.time)
    }
}

fn json(event: &Value) -> Message {
    Message {
        body: event.to_string().into_bytes(),
        kind: "application/json".into(),
        encoding: "utf-8".into(),
    }
}

/// A user of `seed.sql` without a personal event in any transcript.
const OBSERVER: &str = "acct:student2@localhost";
const OBSERVER_TOKEN: &str = "6879-student2-developer-token";
/// An annotation that only the observer may read.
const OBSERVED: &str = "INSERT INTO annotation (id, userid, shared, target_uri, document_id)
    VALUES ('f0000000-1111-11e6-8000-0000000000f0', 'acct:student2@localhost', false,
            'http://observer.example/', 4) ON CONFLICT DO NOTHING";
const OBSERVED_ID: &str = "8AAAABEREeaAAAAAAAAA8A";
