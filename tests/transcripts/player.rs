//! Plays one transcript, and says what comes back.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::net::{Shutdown, SocketAddr};

use h_realtime::ws::{OpCode, encode_client_frame};
use serde_json::{Map, Value, json};

use crate::support::{Answer, Client, Received, connect};

/// The connections of one transcript, by name.
pub struct Player {
    address: SocketAddr,
    connections: BTreeMap<String, Connection>,
}

struct Connection {
    client: Client,
    phase: Phase,
}

#[derive(Clone, Copy, PartialEq)]
enum Phase {
    Http,
    WebSocket,
    /// The server's close frame is here, and the stream has not ended.
    Closing,
    Ended,
}

impl Player {
    pub fn new(address: SocketAddr) -> Player {
        Player {
            address,
            connections: BTreeMap::new(),
        }
    }

    /// Does what a step says, and returns all that comes back before the next may begin.
    pub fn play(&mut self, step: &Value) -> Vec<Value> {
        let name = step["conn"].as_str().unwrap_or("a").to_owned();
        let op = step["op"].as_str().unwrap();
        if op == "connect" || (op == "http" && step["reuse"] != true) {
            let client = Client::raw(connect(self.address));
            let connection = Connection {
                client,
                phase: Phase::Http,
            };
            self.connections.insert(name.clone(), connection);
        }
        let connection = self.connections.get_mut(&name).unwrap();
        match op {
            "connect" => connection.ask(&handshake(step), false),
            "http" => {
                let mut request = content(step);
                request.extend(hex(step["then_hex"].as_str().unwrap_or("")));
                connection.ask(&request, step["head"] == true)
            }
            "tcp_close" => {
                connection.client.stream.shutdown(Shutdown::Both).unwrap();
                connection.phase = Phase::Ended;
                Vec::new()
            }
            _ => connection.say(step),
        }
    }
}

impl Connection {
    /// Sends a request; the answer, and whatever follows it at once.
    fn ask(&mut self, request: &[u8], head_only: bool) -> Vec<Value> {
        self.send(request);
        let Some(answer) = self.client.answer(head_only) else {
            return vec![self.end()];
        };
        if answer.status() == 101 {
            self.phase = Phase::WebSocket;
        }
        let mut events = vec![http(&answer)];
        events.extend(self.settle(false));
        events
    }

    /// Sends bytes or frames. What is no WebSocket (any more) is sent none, as by any client.
    fn say(&mut self, step: &Value) -> Vec<Value> {
        if !matches!(self.phase, Phase::WebSocket | Phase::Closing) {
            return Vec::new();
        }
        let op = step["op"].as_str().unwrap();
        if op == "drip" {
            hex(step["hex"].as_str().unwrap())
                .chunks(1)
                .for_each(|byte| self.send(byte));
        } else {
            self.send(&frame(step, op));
        }
        self.settle(op == "close" || expects_end(step))
    }

    /// All that comes before the answer to something that is always answered, or before the end.
    /// After a close frame nothing is answered any more: the end is only waited for where it
    /// must come, because both sides have closed or h ended the stream there as well.
    fn settle(&mut self, must_end: bool) -> Vec<Value> {
        match self.phase {
            Phase::Http => {
                self.send(b"GET /_status HTTP/1.1\r\nHost: fence\r\n\r\n");
                match self.client.answer(false) {
                    Some(_) => Vec::new(),
                    None => vec![self.end()],
                }
            }
            Phase::WebSocket => {
                self.send(&masked(0x89, FENCE));
                self.receive(must_end)
            }
            Phase::Closing if must_end => self.receive(true),
            Phase::Closing | Phase::Ended => Vec::new(),
        }
    }

    fn receive(&mut self, must_end: bool) -> Vec<Value> {
        let mut events = Vec::new();
        loop {
            events.push(match self.client.receive() {
                Received::Pong(payload) if payload == FENCE => return events,
                Received::Pong(payload) => json!({ "pong": String::from_utf8(payload).unwrap() }),
                Received::Text(text) => json!({ "text": text }),
                Received::Close(close) => {
                    self.phase = Phase::Closing;
                    json!({ "close": close })
                }
                Received::End => {
                    events.push(self.end());
                    return events;
                }
                other => panic!("{other:?}"),
            });
            if self.phase == Phase::Closing && !(must_end || failed(&events)) {
                return events;
            }
        }
    }

    fn end(&mut self) -> Value {
        self.phase = Phase::Ended;
        json!(if self.client.was_reset {
            "reset"
        } else {
            "eof"
        })
    }

    /// The server may have ended the stream already; what it said before is still read.
    fn send(&mut self, bytes: &[u8]) {
        let _ = self.client.stream.write_all(bytes);
    }
}

fn expects_end(step: &Value) -> bool {
    let expected = step["expect"].as_array();
    expected.is_some_and(|events| events.iter().any(|event| event == "eof"))
}

/// Whether the server has failed the connection, which it then also ends by itself. Other than
/// that it waits for the client's close frame.
fn failed(events: &[Value]) -> bool {
    events.last().is_some_and(|event| event["close"][0] == 1002)
}

/// What of an answer counts.
fn http(answer: &Answer) -> Value {
    let of_handshake: &[&str] = match answer.status() {
        101 => &["Upgrade", "Connection", "Sec-WebSocket-Accept"],
        _ => &["Content-Type"],
    };
    let mut fields = Map::new();
    for name in of_handshake {
        if let Some(value) = answer.field(name) {
            fields.insert((*name).to_owned(), value.into());
        }
    }
    let mut event = json!({ "status": answer.status() });
    if !fields.is_empty() {
        event["headers"] = fields.into();
    }
    if !answer.body.is_empty() {
        event["body"] = answer.body.clone().into();
    }
    event
}

/// Events in a few words.
pub fn summary(events: &[Value]) -> String {
    let words: Vec<_> = events.iter().map(in_words).collect();
    match words.is_empty() {
        true => "nothing".to_owned(),
        false => words.join(", "),
    }
}

fn in_words(event: &Value) -> String {
    if let Some(status) = event["status"].as_u64() {
        let body = event["body"]
            .as_str()
            .and_then(|body| serde_json::from_str(body).ok());
        let error = body
            .as_ref()
            .and_then(|body: &Value| body["error"].as_str());
        return format!("{status} {}", error.unwrap_or(""))
            .trim_end()
            .to_owned();
    }
    if let Some(text) = event["text"].as_str() {
        let message: Value = serde_json::from_str(text).unwrap();
        return match (message["type"].as_str(), &message["reply_to"]) {
            (Some("whoyouare"), id) => format!("{id} is {}", message["userid"]),
            (Some("error"), id) => format!("{id} {}", message["error"]["description"]),
            (kind, id) => format!("{id} {}", kind.unwrap()),
        };
    }
    match &event["close"] {
        Value::Array(close) => format!("close {} {}", close[0], close[1].as_str().unwrap()),
        _ if event.get("close").is_some() => "close without a code".to_owned(),
        _ => event.as_str().unwrap_or("pong").to_owned(),
    }
}

fn handshake(step: &Value) -> Vec<u8> {
    let path = step["path"].as_str().unwrap_or("/ws");
    let mut request = format!(
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
    );
    for field in step["headers"].as_array().into_iter().flatten() {
        let [name, value] = [0, 1].map(|at| field[at].as_str().unwrap());
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    request.push_str("\r\n");
    request.into_bytes()
}

/// The bytes of a step that is not made of requests.
fn frame(step: &Value, op: &str) -> Vec<u8> {
    let content = content(step);
    match op {
        "raw" => content,
        "text" => masked(0x81, &content),
        "binary" => masked(0x82, &content),
        "close" => {
            let code = u16::try_from(step["code"].as_u64().unwrap()).unwrap();
            let reason = step["reason"].as_str().unwrap();
            masked(0x88, &[&code.to_be_bytes(), reason.as_bytes()].concat())
        }
        "frame" => {
            let fin = u8::from(step["fin"] != false) << 7;
            let reserved = u8::try_from(step["rsv"].as_u64().unwrap_or(0)).unwrap() << 4;
            let first = fin | reserved | u8::try_from(step["opcode"].as_u64().unwrap()).unwrap();
            match step["unmasked"] == true {
                true => [&[first, u8::try_from(content.len()).unwrap()], &content[..]].concat(),
                false => masked(first, &content),
            }
        }
        other => panic!("{other}"),
    }
}

/// A masked frame with any first byte.
fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    encode_client_frame(true, OpCode::Text, [1, 2, 3, 4], payload, &mut frame);
    frame[0] = first;
    frame
}

/// What a step sends: as text, as hexadecimal digits, or generated.
fn content(step: &Value) -> Vec<u8> {
    for key in ["data", "raw"] {
        if let Some(text) = step[key].as_str() {
            return text.as_bytes().to_vec();
        }
    }
    if let Some(parts) = step["gen"].as_object() {
        let [pre, rep, post] = ["pre", "rep", "post"].map(|key| parts[key].as_str().unwrap());
        let times = usize::try_from(parts["n"].as_u64().unwrap()).unwrap();
        return [pre, &rep.repeat(times), post].concat().into_bytes();
    }
    hex(step["hex"].as_str().unwrap_or(""))
}

fn hex(digits: &str) -> Vec<u8> {
    let pairs = digits
        .as_bytes()
        .chunks(2)
        .map(|pair| std::str::from_utf8(pair).unwrap());
    pairs
        .map(|pair| u8::from_str_radix(pair, 16).unwrap())
        .collect()
}

const FENCE: &[u8] = b"a fence";
