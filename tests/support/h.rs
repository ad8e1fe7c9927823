//! What an installation of h has around its websocket process: a database and a message queue.

use serde_json::{Value, json};

use super::{Client, Postgres, Publisher, RabbitMq, Server, Transaction, sql};

/// A database and a virtual host that no other test uses.
pub struct Site {
    pub database: String,
    pub broker: String,
}

impl Site {
    /// On the servers that all tests of this process share.
    pub fn new() -> Site {
        Site::on(Postgres::shared(), RabbitMq::shared())
    }

    pub fn on(database: &Postgres, broker: &RabbitMq) -> Site {
        Site {
            database: database.database(),
            broker: broker.vhost(),
        }
    }

    /// A server with h's back end, on a port that is free.
    pub fn server(&self, config: &str) -> Server {
        self.server_at("ws://127.0.0.1:0", config)
    }

    /// The same, at an address of the test's own.
    pub fn server_at(&self, listen: &str, config: &str) -> Server {
        Server::of_h(&self.database, &self.broker, listen, config)
    }

    pub fn publisher(&self) -> Publisher {
        Publisher::new(&self.broker)
    }

    /// Begins a transaction in the database, and runs statements in it.
    pub fn begin(&self, statements: &str) -> Transaction {
        Transaction::begin(&self.database, statements)
    }

    /// Changes the database.
    pub fn sql(&self, statements: &str) -> String {
        sql(&self.database, statements)
    }
}

/// An event about an annotation, as h publishes it.
pub fn annotation_event(action: &str, id: &str) -> Value {
    json!({"action": action, "annotation_id": id, "src_client_id": null})
}

/// An event about a user, as h publishes it.
pub fn user_event(kind: &str, userid: &str, group: &str) -> Value {
    let model = json!({"userid": userid, "groups": [], "features": {}, "preferences": {}});
    json!({"type": kind, "userid": userid, "group": group, "session_model": model})
}

/// The action of an annotation's notification, and which annotation it is about.
pub fn heard(message: &Value) -> (&str, &str) {
    assert_eq!(message["type"], "annotation-notification", "{message}");
    let action = message["options"]["action"].as_str().unwrap();
    (action, message["payload"][0]["id"].as_str().unwrap())
}

impl Server {
    /// A client that is logged in as a user of `seed.sql`.
    pub fn user_of_h(&self, name: &str) -> Client {
        self.logged_in(&format!("6879-{name}-developer-token"))
    }
}

/// Of `seed.sql`: an annotation by alice that everybody may read.
pub const PUBLIC: &str = "AAAAAREREeaAAAAAAAAAAQ";
/// Of `seed.sql`: one by alice that the members of `priv1234` may read: alice, bob, carol, dave.
pub const OF_GROUP: &str = "AAAAAxEREeaAAAAAAAAAAw";
/// Of `seed.sql`: one in `lmsgrp12` that a checkpoint hides from students.
pub const BEHIND_CHECKPOINT: &str = "AAAAKREREeaAAAAAAAAAKQ";
