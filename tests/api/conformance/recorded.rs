//! A server that answers as h did: it replays the recordings to any client.
//!
//! The conversations of all transcripts that need no database are the server's only knowledge. A
//! connection can be in any conversation whose input so far equals its own, and gets the output that
//! follows there. Other input gets the simplest response of h.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use h_realtime_engine::ws::{OpCode, encode_frame};
use serde_json::{Value, json};

use crate::kit::connection::{FENCE, content, frame, hex, masked};
use crate::kit::player::handshake;
use crate::kit::transcript::{Events, Needs, Transcript, all, of_step};

/// The input of a connection, and h's output.
#[derive(Clone)]
struct Turn {
    input: Vec<u8>,
    output: Vec<Value>,
    head_only: bool,
}

type Conversations = Vec<Vec<Turn>>;

/// Starts a server for as long as the process runs. `change` may falsify the recordings.
pub fn start(change: impl Fn(&mut Vec<Transcript>)) -> SocketAddr {
    let mut transcripts = all();
    transcripts.retain(|transcript| matches!(transcript.needs, Needs::Nothing | Needs::Users));
    change(&mut transcripts);
    let conversations: Conversations = transcripts.iter().flat_map(conversations).collect();
    let conversations = Arc::new(conversations);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let conversations = Arc::clone(&conversations);
            thread::spawn(move || serve(stream, &conversations));
        }
    });
    address
}

/// Returns the conversation of each connection of a transcript.
fn conversations(transcript: &Transcript) -> Conversations {
    let mut finished = Vec::new();
    let mut open: BTreeMap<&str, Vec<Turn>> = BTreeMap::new();
    for step in &transcript.steps {
        let asked = &step.asked;
        let op = asked["op"].as_str().unwrap();
        for (index, name) in of_step(asked).into_iter().enumerate() {
            let input = match op {
                "connect" => handshake(asked, index),
                "http" => {
                    let then = hex(asked["then_hex"].as_str().unwrap_or(""));
                    [content(asked), then].concat()
                }
                "drip" => hex(asked["hex"].as_str().unwrap()),
                "tcp_close" | "wait" => continue,
                op => frame(asked, op),
            };
            if op == "connect" || (op == "http" && asked["reuse"] != true) {
                finished.extend(open.remove(name));
            }
            open.entry(name).or_default().push(Turn {
                input,
                output: of_connection(&step.expected, name),
                head_only: asked["head"] == true,
            });
        }
    }
    finished.extend(open.into_values());
    finished
}

fn of_connection(events: &Events, name: &str) -> Vec<Value> {
    events.get(name).cloned().unwrap_or_default()
}

/// A connection, and the conversations that it may be in.
struct Conversation<'a> {
    stream: TcpStream,
    candidates: Vec<&'a [Turn]>,
    is_open: bool,
}

fn serve(stream: TcpStream, conversations: &Conversations) {
    let _ = stream.set_read_timeout(Some(Duration::from_secs(60)));
    let candidates = conversations.iter().map(Vec::as_slice).collect();
    let mut conversation = Conversation {
        stream,
        candidates,
        is_open: false,
    };
    let mut received = Vec::new();
    let mut chunk = [0; 65_536];
    while let Ok(count @ 1..) = conversation.stream.read(&mut chunk) {
        received.extend_from_slice(&chunk[..count]);
        if !conversation.on_input(&mut received) {
            return;
        }
    }
}

impl Conversation<'_> {
    /// Answers the input as far as it is complete. Returns whether the connection stays open.
    fn on_input(&mut self, received: &mut Vec<u8>) -> bool {
        let fence = match self.is_open {
            true => masked(0x89, FENCE),
            false => b"GET /_status HTTP/1.1\r\nHost: fence\r\n\r\n".to_vec(),
        };
        loop {
            // A fence follows the input of the step, possibly in one piece with it.
            let at = (0..received.len()).find(|&at| received[at..].starts_with(&fence));
            let step = &received[..at.unwrap_or(received.len())];
            let (is_answered, goes_on) = self.on_step(step, at.is_some());
            if !goes_on {
                return false;
            }
            let Some(at) = at else {
                if is_answered {
                    received.clear();
                }
                return true;
            };
            received.drain(..at + fence.len());
            let pong = match self.is_open {
                true => unmasked(OpCode::Pong, FENCE),
                false => response(&json!({"status": 200, "body": "{}"}), false),
            };
            let _ = self.stream.write_all(&pong);
            if received.is_empty() {
                return true;
            }
        }
    }

    /// Answers the input of one step. Returns whether it was answered, and whether the connection
    /// stays open.
    fn on_step(&mut self, input: &[u8], is_complete: bool) -> (bool, bool) {
        if input.is_empty() {
            return (true, true);
        }
        let follows = |turns: &&[Turn]| turns.first().is_some_and(|turn| turn.input == input);
        let followed: Vec<&[Turn]> = self.candidates.iter().copied().filter(follows).collect();
        if let Some(turn) = followed.first().and_then(|turns| turns.first()) {
            let goes_on = self.send(&turn.output, turn.head_only);
            self.candidates = followed.iter().map(|turns| &turns[1..]).collect();
            return (true, goes_on);
        }
        let begins = |turns: &&[Turn]| {
            turns
                .first()
                .is_some_and(|turn| turn.input.starts_with(input))
        };
        if !is_complete && self.candidates.iter().any(begins) {
            return (false, true);
        }
        self.candidates.clear();
        self.improvise(input)
    }

    /// Sends h's output. Returns whether the connection stays open.
    fn send(&mut self, output: &[Value], head_only: bool) -> bool {
        for event in output {
            let bytes = match event {
                Value::String(end) if end == "eof" || end == "reset" => {
                    let _ = self.stream.shutdown(Shutdown::Write);
                    // The client may still be sending.
                    let _ = std::io::copy(&mut self.stream, &mut std::io::sink());
                    return false;
                }
                event if event["status"].is_u64() => {
                    self.is_open |= event["status"] == 101;
                    response(event, head_only)
                }
                event if event["text"].is_string() => {
                    unmasked(OpCode::Text, event["text"].as_str().unwrap().as_bytes())
                }
                event if event["pong"].is_string() => {
                    unmasked(OpCode::Pong, event["pong"].as_str().unwrap().as_bytes())
                }
                event if event.get("close").is_some() => close_frame(&event["close"]),
                other => panic!("{other}"),
            };
            let _ = self.stream.write_all(&bytes);
        }
        true
    }

    /// Answers input that was not recorded.
    fn improvise(&mut self, input: &[u8]) -> (bool, bool) {
        if !self.is_open {
            if !input.ends_with(b"\r\n\r\n") {
                return (false, true);
            }
            let text = String::from_utf8_lossy(input);
            let event = match () {
                () if text.contains("Upgrade: websocket") => json!({"status": 101}),
                () if text.starts_with("GET /ws") => json!({"status": 400, "body": "{}"}),
                () => json!({"status": 404, "body": "{}"}),
            };
            return (true, self.send(&[event], false));
        }
        let mut rest = input;
        while let Some((message, after)) = message_of(rest) {
            rest = after;
            let message: Value = serde_json::from_slice(&message).unwrap_or_default();
            let id = &message["id"];
            let reply = match message["type"].as_str() {
                Some("whoami") => json!({"type": "whoyouare", "userid": null, "reply_to": id}),
                Some("filter") if message["filter"]["match_policy"] != "include_any" => {
                    json!({"type": "error", "reply_to": id})
                }
                _ => continue,
            };
            let text = json!({"text": reply.to_string()});
            self.send(&[text], false);
        }
        (rest.is_empty(), true)
    }
}

/// Returns the payload of the first complete frame, and the bytes after it.
fn message_of(bytes: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let [_, second, rest @ ..] = bytes else {
        return None;
    };
    let (length, rest) = match (second & 0x7F, rest) {
        (126, [high, low, rest @ ..]) => (usize::from(u16::from_be_bytes([*high, *low])), rest),
        (length, rest) => (usize::from(length), rest),
    };
    let (key, rest) = rest.split_at_checked(4)?;
    let (payload, rest) = rest.split_at_checked(length)?;
    let unmasked = payload
        .iter()
        .zip(key.iter().cycle())
        .map(|(byte, key)| byte ^ key);
    Some((unmasked.collect(), rest))
}

fn response(event: &Value, head_only: bool) -> Vec<u8> {
    let body = event["body"].as_str().unwrap_or("");
    let mut head = format!("HTTP/1.1 {} Recorded\r\n", event["status"]);
    for (name, value) in event["headers"].as_object().into_iter().flatten() {
        head.push_str(&format!("{name}: {}\r\n", value.as_str().unwrap()));
    }
    head.push_str(&format!("Content-Length: {}\r\n\r\n", body.len()));
    if !head_only {
        head.push_str(body);
    }
    head.into_bytes()
}

/// Returns an unmasked frame.
fn unmasked(opcode: OpCode, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    encode_frame(opcode, payload, &mut frame);
    frame
}

fn close_frame(close: &Value) -> Vec<u8> {
    let Some(code) = close[0].as_u64() else {
        return unmasked(OpCode::Close, b"");
    };
    let code = u16::try_from(code).unwrap().to_be_bytes();
    let reason = close[1].as_str().unwrap_or("");
    unmasked(OpCode::Close, &[&code, reason.as_bytes()].concat())
}
