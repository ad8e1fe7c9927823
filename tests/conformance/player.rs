//! Replays a transcript and reports differences.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::client::Failure;
use super::connection::{Connection, Outcome, content, hex};
use super::summary;
use super::target::Target;
use super::transcript::{Events, Step, Transcript, of_step};

/// The environment of the server.
pub trait World {
    /// Publishes messages in order, and waits until the server has processed all.
    fn publish(&self, key: &str, messages: &[Message]);

    /// Changes the database.
    fn change(&self, sql: &str);

    /// Restarts the message broker.
    fn restart_broker(&self);

    /// Terminates the server.
    fn terminate(&self);

    /// Scales a waiting time in seconds that was recorded with h.
    fn time(&self, seconds: f64) -> Duration;
}

/// A published message.
#[cfg_attr(not(feature = "h"), allow(dead_code))]
pub struct Message {
    pub body: Vec<u8>,
    /// Content type; empty for none.
    pub kind: String,
    /// Content encoding; empty for none.
    pub encoding: String,
}

/// The differences of a transcript; empty if there are none.
#[derive(Default)]
pub struct Found {
    /// The output here in the steps that differ, in short.
    pub here: String,
    /// The output of both servers in these steps.
    pub both: String,
}

impl Found {
    /// Records the failure that ends the transcript.
    fn fail(&mut self, number: usize, failure: &str, asked: &Value) {
        if !self.here.is_empty() {
            self.here.push_str("; ");
        }
        write!(self.here, "{number}: {failure}").unwrap();
        writeln!(
            self.both,
            "  {number} sent {asked}\n  {number} here {failure}"
        )
        .unwrap();
    }
}

/// The connections of one transcript, by name.
pub struct Player<'w> {
    target: Target,
    world: &'w dyn World,
    settle: Option<Duration>,
    connections: BTreeMap<String, Connection>,
}

impl<'w> Player<'w> {
    /// `settle` is for a server without an order of its output: everything within this time belongs
    /// to a step.
    pub fn new(target: &Target, world: &'w dyn World, settle: Option<Duration>) -> Self {
        Player {
            target: target.clone(),
            world,
            settle,
            connections: BTreeMap::new(),
        }
    }

    /// Replays the whole transcript.
    pub fn find(&mut self, transcript: &Transcript) -> Found {
        let mut found = Found::default();
        for (number, Step { asked, expected }) in transcript.steps.iter().enumerate() {
            let here = match self.play(asked) {
                Ok(here) => here,
                Err(failure) => {
                    found.fail(number, &failure, asked);
                    break;
                }
            };
            let Some(difference) = summary::difference(asked, expected, &here) else {
                continue;
            };
            if !found.here.is_empty() {
                found.here.push_str("; ");
            }
            write!(found.here, "{number}: {difference}").unwrap();
            writeln!(found.both, "  {number} sent {asked}").unwrap();
            for (side, events) in [("h", expected), ("here", &here)] {
                for (name, events) in events {
                    let events = Value::from(events.clone());
                    writeln!(found.both, "  {number} {side:4} {name}: {events}").unwrap();
                }
            }
        }
        found
    }

    /// Executes a step and returns all output before the next one.
    fn play(&mut self, step: &Value) -> Result<Events, Failure> {
        let connections = of_step(step);
        let op = step["op"].as_str().unwrap();
        match op {
            "publish" => {
                let key = step["key"].as_str().unwrap();
                self.world.publish(key, &events(step));
                self.each(Connection::settle_open)
            }
            "publish_raw" => {
                let key = step["key"].as_str().unwrap();
                self.world.publish(key, &[raw(step)]);
                self.each(Connection::settle_open)
            }
            "sql" => {
                self.world.change(step["sql"].as_str().unwrap());
                self.each(Connection::settle_open)
            }
            "restart_broker" => {
                self.world.restart_broker();
                self.each(Connection::settle_open)
            }
            "sigterm" => {
                self.world.terminate();
                self.each(Connection::listen_to_end)
            }
            "wait" => {
                let long = self.world.time(step["seconds"].as_f64().unwrap());
                let (until, silent) = (Instant::now() + long, step["silent"] == true);
                self.each(|connection| connection.listen(until, silent))
            }
            _ => {
                let mut all = Events::new();
                for (index, name) in connections.into_iter().enumerate() {
                    let events = self.play_on(name, index, op, step)?;
                    if !events.is_empty() {
                        all.insert(name.to_owned(), events);
                    }
                }
                Ok(all)
            }
        }
    }

    /// Executes a step on one connection, the `index`th of the step.
    fn play_on(&mut self, name: &str, index: usize, op: &str, step: &Value) -> Outcome {
        if op == "connect" || (op == "http" && step["reuse"] != true) {
            let connection = Connection::open(&self.target, self.settle)?;
            self.connections.insert(name.to_owned(), connection);
        }
        let connection = self.connections.get_mut(name).unwrap();
        match op {
            "connect" => connection.ask(&handshake(step, index), false),
            "http" if step["incomplete"] == true => connection.begin(&content(step)),
            "http" => {
                let mut request = content(step);
                request.extend(hex(step["then_hex"].as_str().unwrap_or("")));
                connection.ask(&request, step["head"] == true)
            }
            "tcp_close" => connection.cut(),
            _ => connection.say(step),
        }
    }

    fn each(
        &mut self,
        mut action: impl FnMut(&mut Connection) -> Outcome,
    ) -> Result<Events, Failure> {
        let mut all = Events::new();
        for (name, connection) in &mut self.connections {
            let events = action(connection)?;
            if !events.is_empty() {
                all.insert(name.clone(), events);
            }
        }
        Ok(all)
    }
}

pub fn handshake(step: &Value, index: usize) -> Vec<u8> {
    let path = step["path"].as_str().unwrap_or("/ws");
    let mut request = format!(
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
    );
    if let Some(token) = step["tokens"][index].as_str() {
        write!(request, "Authorization: Bearer {token}\r\n").unwrap();
    }
    for field in step["headers"].as_array().into_iter().flatten() {
        let [name, value] = [0, 1].map(|at| field[at].as_str().unwrap());
        write!(request, "{name}: {value}\r\n").unwrap();
    }
    request.push_str("\r\n");
    request.into_bytes()
}

/// Returns the messages that h itself would publish.
fn events(step: &Value) -> Vec<Message> {
    let events = step["events"].as_array().unwrap().iter();
    let message = |event: &Value| Message {
        body: event.to_string().into_bytes(),
        kind: "application/json".into(),
        encoding: "utf-8".into(),
    };
    events.map(message).collect()
}

fn raw(step: &Value) -> Message {
    let word = |key: &str| step[key].as_str().unwrap_or("").to_owned();
    Message {
        body: content(step),
        kind: word("type"),
        encoding: word("encoding"),
    }
}
