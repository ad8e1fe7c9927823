//! What the transcripts find around a server: h's database, its message queue, and a client
//! that knows when an event has been dealt with.

use std::cell::RefCell;
use std::env;
use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use h_realtime_engine::ws::OpCode;
use rustix::process::Signal;
use serde_json::{Value, json};

use super::player::{Found, Message, Player, World};
use super::transcript::Transcript;
use crate::support::{
    Client, PATIENCE, Postgres, Publisher, RabbitMq, Received, Server, Site, eventually, sql,
};

pub struct Surroundings<'b> {
    address: SocketAddr,
    database: String,
    broker: String,
    /// The server, where it is the test's own.
    server: Option<Server>,
    restart: Restart<'b>,
    settle: Option<Duration>,
    time: f64,
    publisher: RefCell<Option<Publisher>>,
    witness: RefCell<Option<Client>>,
}

/// How to restart the message broker.
enum Restart<'b> {
    Own(&'b RabbitMq),
    Command(String),
    No,
}

impl<'b> Surroundings<'b> {
    /// A server of the test's own, and a database and a virtual host of its own.
    pub fn of_the_test(database: &Postgres, broker: &'b RabbitMq, config: &str) -> Self {
        let site = Site::on(database, broker);
        let server = site.server(config);
        Surroundings {
            address: server.address(),
            server: Some(server),
            restart: Restart::Own(broker),
            ..Surroundings::new(site.database, site.broker)
        }
    }

    /// Another server, and what the environment says is around it.
    pub fn of_another(address: &str, settle: Option<Duration>) -> Self {
        let variable = |name| env::var(name).unwrap_or_else(|_| panic!("{name} is not set"));
        let restart = env::var("CONFORMANCE_RESTART_BROKER");
        let at = variable("CONFORMANCE_DATABASE");
        Surroundings {
            address: address.parse().expect("HOST:PORT"),
            restart: restart.map_or(Restart::No, Restart::Command),
            settle,
            ..Surroundings::new(at, variable("CONFORMANCE_BROKER"))
        }
    }

    fn new(database: String, broker: String) -> Self {
        sql(&database, WITNESSED);
        Surroundings {
            address: ([127, 0, 0, 1], 0).into(),
            database,
            broker,
            server: None,
            restart: Restart::No,
            settle: None,
            time: 1.0,
            publisher: RefCell::new(None),
            witness: RefCell::new(None),
        }
    }

    /// The times that were waited for h are multiplied by this.
    pub fn with_time(self, time: f64) -> Self {
        Surroundings { time, ..self }
    }

    pub fn can_restart_broker(&self) -> bool {
        !matches!(self.restart, Restart::No)
    }

    pub fn play(&self, transcript: &Transcript) -> Found {
        Player::new(self.address, self, self.settle).find(transcript)
    }

    /// Publishes, on a connection that is made again where the broker was restarted. An event
    /// that no queue gets is published again: the server has not made its own yet.
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

    /// Waits until an event that comes after all others of its key has arrived. Nobody but the
    /// witness gets it.
    fn fence(&self, key: &str) {
        let mut witness = self.witness.borrow_mut();
        let witness = witness.get_or_insert_with(|| self.new_witness());
        let (event, kind) = match key {
            "user" => (
                json!({"type": "group-join", "userid": WITNESS, "group": "open1234",
                       "session_model": {}}),
                "session-change",
            ),
            _ => (
                json!({"action": "update", "annotation_id": WITNESSED_ID, "src_client_id": "fence"}),
                "annotation-notification",
            ),
        };
        self.publish_one(key, &json(&event));
        let text = loop {
            match witness.receive() {
                Received::Ping(payload) => witness.send_frame(true, OpCode::Pong, &payload),
                Received::Text(text) => break text,
                other => panic!("{other:?}"),
            }
        };
        assert!(text.contains(kind), "{text}");
    }

    fn new_witness(&self) -> Client {
        let fields = format!("Authorization: Bearer {WITNESS_TOKEN}\r\n");
        let mut witness = Client::open(self.address, "/ws", &fields);
        witness.subscribe("/id", WITNESSED_ID);
        witness
    }
}

impl World for Surroundings<'_> {
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

/// A user of `seed.sql` whom no event of a transcript is sent to by name.
const WITNESS: &str = "acct:student2@localhost";
const WITNESS_TOKEN: &str = "6879-student2-developer-token";
/// An annotation that only the witness may read.
const WITNESSED: &str = "INSERT INTO annotation (id, userid, shared, target_uri, document_id)
    VALUES ('f0000000-1111-11e6-8000-0000000000f0', 'acct:student2@localhost', false,
            'http://witness.example/', 4) ON CONFLICT DO NOTHING";
const WITNESSED_ID: &str = "8AAAABEREeaAAAAAAAAA8A";
