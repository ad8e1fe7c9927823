//! The environment of h's websocket process: a database and a message queue.

use serde_json::{Value, json};

use super::{Client, Postgres, Publisher, RabbitMq, Server, Transaction, sql};

/// A database and a virtual host of one test.
pub struct Site {
    pub database: String,
    pub broker: String,
}

impl Site {
    /// Creates them on the servers shared by all tests of this process.
    pub fn new() -> Site {
        Site::on(Postgres::shared(), RabbitMq::shared())
    }

    pub fn on(database: &Postgres, broker: &RabbitMq) -> Site {
        Site {
            database: database.database(),
            broker: broker.vhost(),
        }
    }

    /// Starts a server with h's backend on a free port.
    pub fn server(&self, config: &str) -> Server {
        self.server_at("ws://127.0.0.1:0", config)
    }

    /// Starts a server with h's backend at this address.
    pub fn server_at(&self, listen: &str, config: &str) -> Server {
        Server::of_h(&self.database, &self.broker, listen, config)
    }

    pub fn publisher(&self) -> Publisher {
        Publisher::new(&self.broker)
    }

    /// Begins a transaction in the database and runs statements in it.
    pub fn begin(&self, statements: &str) -> Transaction {
        Transaction::begin(&self.database, statements)
    }

    /// Runs statements in the database.
    pub fn sql(&self, statements: &str) -> String {
        sql(&self.database, statements)
    }
}

/// Returns an event about an annotation, as h publishes it.
pub fn annotation_event(action: &str, id: &str) -> Value {
    json!({"action": action, "annotation_id": id, "src_client_id": null})
}

/// Returns an event about a user, as h publishes it.
pub fn user_event(kind: &str, userid: &str, group: &str) -> Value {
    let model = json!({"userid": userid, "groups": [], "features": {}, "preferences": {}});
    json!({"type": kind, "userid": userid, "group": group, "session_model": model})
}

/// Returns the action of an annotation's notification, and the annotation's id.
pub fn action_and_id(message: &Value) -> (&str, &str) {
    assert_eq!(message["type"], "annotation-notification", "{message}");
    let action = message["options"]["action"].as_str().unwrap();
    (action, message["payload"][0]["id"].as_str().unwrap())
}

impl Server {
    /// Connects a client that is authenticated as a user of `seed.sql`.
    pub fn user_of_h(&self, name: &str) -> Client {
        self.logged_in(&format!("6879-{name}-developer-token"))
    }
}

/// An annotation by alice in `seed.sql` that everyone may read.
pub const PUBLIC: &str = "AAAAAREREeaAAAAAAAAAAQ";
/// An annotation by alice in `seed.sql` that the members of `priv1234` may read: alice, bob, carol,
/// and dave.
pub const OF_GROUP: &str = "AAAAAxEREeaAAAAAAAAAAw";
/// An annotation in `lmsgrp12` in `seed.sql` that a checkpoint hides from students.
pub const BEHIND_CHECKPOINT: &str = "AAAAKREREeaAAAAAAAAAKQ";
