//! WebSockets, event streams, and a publisher for the checks of extensions.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::client::{Answer, Failure, RawClient, Received};
use super::connection::masked;
use super::target::Target;

/// An open WebSocket.
pub struct Session {
    client: RawClient,
    patience: Duration,
}

impl Session {
    /// Opens a WebSocket. `fields` are additional header fields, each with its CRLF.
    pub fn open(target: &Target, query: &str, fields: &str) -> Result<(Session, Answer), Failure> {
        let mut client = RawClient::connect(target)?;
        let host = &target.host;
        let request = format!(
            "GET /ws{query} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n{fields}\r\n"
        );
        client.send(request.as_bytes());
        let answer = client.answer(false)?.ok_or("no response to a handshake")?;
        match answer.status()? {
            101 => {
                let patience = target.patience;
                Ok((Session { client, patience }, answer))
            }
            status => Err(format!("a handshake was answered with {status}")),
        }
    }

    pub fn anonymous(target: &Target) -> Result<Session, Failure> {
        Session::open(target, "", "").map(|(session, _)| session)
    }

    pub fn send(&mut self, message: &Value) {
        self.client
            .send(&masked(0x81, message.to_string().as_bytes()));
    }

    /// Sends a message. Returns all messages before the reply to a `whoami` that follows it.
    pub fn ask(&mut self, message: &Value) -> Result<Vec<Value>, Failure> {
        self.send(message);
        self.send(&json!({"type": "whoami", "id": FENCE}));
        let mut replies = Vec::new();
        loop {
            match self.next()? {
                reply if reply["type"] == "whoyouare" && reply["reply_to"] == FENCE => {
                    return Ok(replies);
                }
                reply => replies.push(reply),
            }
        }
    }

    /// Sets a filter that must not be rejected.
    pub fn subscribe(&mut self, filter: &Value) -> Result<(), Failure> {
        let message = json!({"type": "filter", "filter": filter, "id": 1});
        match self.ask(&message)?.first() {
            None => Ok(()),
            Some(reply) => Err(format!("a filter was answered with {reply}")),
        }
    }

    /// Returns the next message. Pings are answered.
    pub fn next(&mut self) -> Result<Value, Failure> {
        let end = Instant::now() + self.patience;
        loop {
            match self.client.receive()? {
                Received::Text(text) => {
                    let message = serde_json::from_str(&text);
                    return message.map_err(|_| format!("not JSON: {text:.80}"));
                }
                Received::Ping(payload) => self.client.send(&masked(0x8A, &payload)),
                Received::Pong(_) => {}
                other => return Err(format!("unexpected: {other:?}")),
            }
            if Instant::now() > end {
                return Err("no message in time".to_owned());
            }
        }
    }

    /// Returns the next event, which must be a notification about one annotation: its action and its
    /// id, and the whole message.
    pub fn notification(&mut self) -> Result<(String, Value), Failure> {
        loop {
            let message = self.next()?;
            if message["type"] != "cursor" {
                return described(&message).map(|text| (text, message));
            }
        }
    }
}

/// Returns the action and the id of a notification.
pub fn described(message: &Value) -> Result<String, Failure> {
    let action = message["options"]["action"].as_str();
    let id = message["payload"][0]["id"].as_str();
    match (message["type"].as_str(), action, id) {
        (Some("annotation-notification"), Some(action), Some(id)) => Ok(format!("{action} {id}")),
        _ => Err(format!("not a notification: {message}")),
    }
}

/// Sends a request without a body. The connection serves no other.
pub fn get(target: &Target, path: &str, fields: &str) -> Result<(RawClient, Answer), Failure> {
    let mut client = RawClient::connect(target)?;
    let host = &target.host;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n{fields}\r\n");
    client.send(request.as_bytes());
    let answer = client.answer(false)?.ok_or("no response")?;
    Ok((client, answer))
}

/// An open event stream.
pub struct Events {
    client: RawClient,
    end: Instant,
}

/// A block of an event stream.
#[derive(Debug, Default)]
pub struct EventBlock {
    pub id: Option<String>,
    pub event: Option<String>,
    pub data: String,
}

impl Events {
    /// Requests an event stream. The error has the status of another response.
    pub fn open(
        target: &Target,
        query: &str,
        fields: &str,
    ) -> Result<Result<Events, u16>, Failure> {
        let (client, answer) = get(target, &format!("/sse?{query}"), fields)?;
        let kind = answer.field("Content-Type").unwrap_or_default();
        match answer.status()? {
            200 if kind.starts_with("text/event-stream") => Ok(Ok(Events {
                client,
                end: Instant::now() + target.patience,
            })),
            200 => Err(format!("an event stream has the content type {kind}")),
            status => Ok(Err(status)),
        }
    }

    /// Returns the next block that has an id or data.
    pub fn next(&mut self) -> Result<EventBlock, Failure> {
        let mut block = EventBlock::default();
        while Instant::now() < self.end {
            let line = self.client.line()?.ok_or("the event stream ended")?;
            let (name, value) = line.split_once(':').unwrap_or((&line, ""));
            let value = value.strip_prefix(' ').unwrap_or(value).to_owned();
            match name {
                "id" => block.id = Some(value),
                "event" => block.event = Some(value),
                "data" => block.data.push_str(&value),
                "" if line.is_empty() && (block.id.is_some() || !block.data.is_empty()) => {
                    return Ok(block);
                }
                _ => {}
            }
        }
        Err("no event in time".to_owned())
    }
}

/// The admin listener.
pub struct Publisher {
    admin: Target,
    key: String,
}

impl Publisher {
    pub fn new(url: &str, key: &str, patience: Duration) -> Result<Publisher, Failure> {
        let rest = url
            .strip_prefix("http://")
            .map(|rest| rest.trim_end_matches('/'));
        let rest = rest.ok_or_else(|| format!("{url}: expected http://HOST:PORT/"))?;
        let mut admin = Target::parse(&format!("ws://{rest}/ws"))?;
        rest.clone_into(&mut admin.host);
        admin.patience = patience;
        let key = key.to_owned();
        Ok(Publisher { admin, key })
    }

    /// Publishes an event, which must be accepted.
    pub fn publish(&self, action: &str, annotation: &Value) -> Result<(), Failure> {
        let event = json!({"topic": "annotation", "action": action, "annotation": annotation});
        let body = event.to_string();
        let (host, key, length) = (&self.admin.host, &self.key, body.len());
        let request = format!(
            "POST /events HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {key}\r\n\
             Content-Length: {length}\r\nConnection: close\r\n\r\n{body}"
        );
        let mut client = RawClient::connect(&self.admin)?;
        client.send(request.as_bytes());
        let answer = client
            .answer(false)?
            .ok_or("no response to a publication")?;
        match answer.status()? {
            202 => Ok(()),
            status => Err(format!(
                "an event was answered with {status} {}",
                answer.body
            )),
        }
    }
}

/// The id of the message that follows all others.
const FENCE: u64 = 4_711;
