//! One connection of a transcript: sends the input of its steps, and returns the server's output.

use std::time::{Duration, Instant};

use h_realtime_engine::ws::{OpCode, encode_client_frame};
use serde_json::{Map, Value, json};

use super::client::{Answer, Failure, RawClient, Received};
use super::target::Target;
use super::transcript::notification;

/// The output of a step.
pub type Outcome = Result<Vec<Value>, Failure>;

pub struct Connection {
    client: RawClient,
    target: Target,
    phase: Phase,
    /// For a server without an order between responses and pongs: how long to wait for more.
    settle: Option<Duration>,
}

#[derive(Clone, Copy, PartialEq)]
enum Phase {
    Http,
    WebSocket,
    /// The server's close frame has arrived, and the stream has not ended.
    Closing,
    Ended,
}

impl Connection {
    pub fn open(target: &Target, settle: Option<Duration>) -> Result<Connection, Failure> {
        Ok(Connection {
            client: RawClient::connect(target)?,
            target: target.clone(),
            phase: Phase::Http,
            settle,
        })
    }

    /// Sends a request. Returns the response, and any output that follows it at once.
    pub fn ask(&mut self, request: &[u8], head_only: bool) -> Outcome {
        self.send(&self.target.addressed(request));
        if let Some(settle) = self.settle
            && self.client.is_quiet(UNANSWERED.max(settle))
        {
            return Ok(Vec::new());
        }
        let mut events = self.answer(head_only)?;
        events.extend(self.settle(false)?);
        Ok(events)
    }

    /// Sends a part of a request, to which there is no response.
    pub fn begin(&mut self, part: &[u8]) -> Outcome {
        self.send(&self.target.addressed(part));
        Ok(Vec::new())
    }

    /// Sends bytes or frames. Like any client, sends no frames unless the WebSocket is open.
    pub fn say(&mut self, step: &Value) -> Outcome {
        if !matches!(self.phase, Phase::WebSocket | Phase::Closing) {
            return Ok(Vec::new());
        }
        let op = step["op"].as_str().unwrap();
        if op == "drip" {
            hex(step["hex"].as_str().unwrap())
                .chunks(1)
                .for_each(|byte| self.send(byte));
        } else {
            self.send(&frame(step, op));
        }
        let was_closing = self.phase == Phase::Closing;
        let mut events = self.settle(op == "close" || expects_end(step))?;
        if was_closing && events.is_empty() && expects_output(step) {
            // After a close frame there are no fences, except the one that was sent before it.
            events = self.listen(Instant::now() + AFTER_CLOSE, true)?;
            let fence = json!({ "pong": String::from_utf8_lossy(FENCE) });
            events.retain(|event| *event != fence);
        }
        Ok(events)
    }

    /// Resets the stream without a close frame.
    pub fn cut(&mut self) -> Outcome {
        self.client.cut();
        self.phase = Phase::Ended;
        Ok(Vec::new())
    }

    /// Returns everything that arrives before the reply to a fence, or before the end. After a
    /// close frame there are no replies: the end is only awaited if it must come, because both
    /// sides have closed or h ended the stream there as well.
    pub fn settle(&mut self, must_end: bool) -> Outcome {
        let mut events = match self.phase {
            Phase::Http => {
                let host = match self.target.host.as_str() {
                    "localhost" => "fence",
                    host => host,
                };
                let fence = format!("GET /_status HTTP/1.1\r\nHost: {host}\r\n\r\n");
                self.send(fence.as_bytes());
                match self.client.answer(false)? {
                    Some(_) => Vec::new(),
                    None => vec![self.end()],
                }
            }
            Phase::WebSocket => {
                self.send(&masked(0x89, FENCE));
                self.receive(must_end)?
            }
            Phase::Closing if must_end => self.receive(true)?,
            Phase::Closing | Phase::Ended => Vec::new(),
        };
        if let Some(settle) = self.settle {
            events.extend(self.listen(Instant::now() + settle, true)?);
        }
        Ok(events)
    }

    /// The same for a WebSocket only; other connections have no fence.
    pub fn settle_open(&mut self) -> Outcome {
        match self.phase {
            Phase::Http => Ok(Vec::new()),
            _ => self.settle(false),
        }
    }

    /// Returns everything that arrives until then. Pings are answered, unless `silent`; consecutive
    /// pings are reported as one.
    pub fn listen(&mut self, until: Instant, silent: bool) -> Outcome {
        let mut events = Vec::new();
        while self.phase != Phase::Ended {
            let left = until.saturating_duration_since(Instant::now());
            if self.client.is_quiet(left) {
                break;
            }
            if self.phase == Phase::Http {
                events.extend(self.answer(false)?);
                continue;
            }
            let received = self.client.receive()?;
            if let (Received::Ping(payload), false) = (&received, silent) {
                let pong = masked(0x8A, payload);
                self.send(&pong);
            }
            events.push(self.event(received)?);
        }
        events.dedup_by(|one, other| one == "ping" && other == "ping");
        Ok(events)
    }

    /// Returns everything that arrives before the end, which must come. A close frame is answered.
    pub fn listen_to_end(&mut self) -> Outcome {
        if self.phase == Phase::Http {
            return self.answer(false);
        }
        let mut events = Vec::new();
        while self.phase != Phase::Ended {
            let received = self.client.receive()?;
            if let Received::Close(Some((code, _))) = &received {
                let close = masked(0x88, &code.to_be_bytes());
                self.send(&close);
            }
            events.push(self.event(received)?);
        }
        Ok(events)
    }

    fn answer(&mut self, head_only: bool) -> Outcome {
        let Some(answer) = self.client.answer(head_only)? else {
            return Ok(vec![self.end()]);
        };
        if answer.status()? == 101 {
            self.phase = Phase::WebSocket;
        }
        Ok(vec![http(&answer)?])
    }

    fn receive(&mut self, must_end: bool) -> Outcome {
        let mut events = Vec::new();
        loop {
            let received = self.client.receive()?;
            if received == Received::Pong(FENCE.to_vec()) {
                return Ok(events);
            }
            events.push(self.event(received)?);
            let is_over = self.phase == Phase::Closing && !(must_end || failed(&events));
            if self.phase == Phase::Ended || is_over {
                return Ok(events);
            }
        }
    }

    fn event(&mut self, received: Received) -> Result<Value, Failure> {
        Ok(match received {
            Received::Pong(payload) => json!({ "pong": String::from_utf8_lossy(&payload) }),
            Received::Ping(_) => json!("ping"),
            Received::Text(text) => message(&text),
            Received::Close(close) => {
                self.phase = Phase::Closing;
                json!({ "close": close })
            }
            Received::End => self.end(),
            Received::Binary(_) => return Err("the server sent a binary message".to_owned()),
        })
    }

    fn end(&mut self) -> Value {
        self.phase = Phase::Ended;
        json!(if self.client.was_reset {
            "reset"
        } else {
            "eof"
        })
    }

    fn send(&mut self, bytes: &[u8]) {
        self.client.send(bytes);
    }
}

fn message(text: &str) -> Value {
    let parsed: Option<Value> = serde_json::from_str(text).ok();
    let kind = parsed.as_ref().and_then(|message| message["type"].as_str());
    match (kind, &parsed) {
        (Some("annotation-notification" | "session-change"), Some(message)) => {
            notification(message)
        }
        _ => json!({ "text": text }),
    }
}

fn expects_output(step: &Value) -> bool {
    step["expect"]
        .as_array()
        .is_some_and(|events| !events.is_empty())
}

fn expects_end(step: &Value) -> bool {
    let expected = step["expect"].as_array();
    expected.is_some_and(|events| events.iter().any(|event| event == "eof"))
}

/// Returns whether the server has failed the connection, which it then also ends. Otherwise it
/// waits for the client's close frame.
fn failed(events: &[Value]) -> bool {
    events.last().is_some_and(|event| event["close"][0] == 1002)
}

/// Returns the compared part of a response.
fn http(answer: &Answer) -> Result<Value, Failure> {
    let status = answer.status()?;
    let of_handshake: &[&str] = match status {
        101 => &["Upgrade", "Connection", "Sec-WebSocket-Accept"],
        _ => &["Content-Type"],
    };
    let mut fields = Map::new();
    for name in of_handshake {
        if let Some(value) = answer.field(name) {
            fields.insert((*name).to_owned(), value.into());
        }
    }
    let mut event = json!({ "status": status });
    if !fields.is_empty() {
        event["headers"] = fields.into();
    }
    if !answer.body.is_empty() {
        event["body"] = answer.body.clone().into();
    }
    Ok(event)
}

/// Returns the bytes of a step that is not a request.
pub fn frame(step: &Value, op: &str) -> Vec<u8> {
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

/// Returns a masked frame with any first byte.
pub fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    encode_client_frame(true, OpCode::Text, [1, 2, 3, 4], payload, &mut frame);
    frame[0] = first;
    frame
}

/// Returns the content of a step: given as text, as hexadecimal digits, or generated.
pub fn content(step: &Value) -> Vec<u8> {
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

pub fn hex(digits: &str) -> Vec<u8> {
    let pairs = digits
        .as_bytes()
        .chunks(2)
        .map(|pair| std::str::from_utf8(pair).unwrap());
    pairs
        .map(|pair| u8::from_str_radix(pair, 16).unwrap())
        .collect()
}

pub const FENCE: &[u8] = b"a fence";
/// The wait for output that follows a close frame, as only h sends it.
const AFTER_CLOSE: Duration = Duration::from_millis(200);
/// The wait for a server that may leave a request unanswered.
const UNANSWERED: Duration = Duration::from_secs(2);
