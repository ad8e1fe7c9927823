//! A WebSocket client for tests: blocking, and able to violate the protocol.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress};
use h_realtime_engine::ws::{OpCode, encode_client_frame};
use serde_json::{Value, json};

use super::PATIENCE;

/// A client over any stream.
pub struct Client<S = TcpStream> {
    pub stream: S,
    /// Received bytes that have not been parsed yet.
    buffer: Vec<u8>,
    /// The head of the handshake response.
    pub head: String,
    /// Whether the stream ended with a reset, which can discard earlier output.
    pub was_reset: bool,
    /// The number of compressed messages.
    pub inflated: usize,
    fence: u64,
}

/// An HTTP response.
#[derive(Debug)]
pub struct Answer {
    /// The status line and the fields.
    pub head: String,
    pub body: String,
}

impl Answer {
    pub fn status(&self) -> u16 {
        let status = self
            .head
            .strip_prefix("HTTP/1.1 ")
            .and_then(|rest| rest.get(..3));
        status
            .and_then(|status| status.parse().ok())
            .unwrap_or_else(|| panic!("{}", self.head))
    }

    /// Returns the value of a field, ignoring the case of its name.
    pub fn field(&self, name: &str) -> Option<&str> {
        let fields = self
            .head
            .lines()
            .skip(1)
            .filter_map(|line| line.split_once(": "));
        fields
            .filter(|(field, _)| field.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
            .last()
    }
}

/// A frame from the server, or the end of the stream.
#[derive(Clone, Debug, PartialEq)]
pub enum Received {
    Text(String),
    Binary(Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(Option<(u16, String)>),
    /// The stream has ended, or was reset.
    End,
}

/// Connects with timeouts.
pub fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

impl Client<TcpStream> {
    /// Opens a WebSocket; `fields` are additional header fields, each with its CRLF.
    pub fn open(address: SocketAddr, target: &str, fields: &str) -> Client {
        let client = Client::try_open(address, target, fields);
        assert!(client.head.starts_with("HTTP/1.1 101 "), "{}", client.head);
        client
    }

    /// Requests a WebSocket; the response may be a refusal.
    pub fn try_open(address: SocketAddr, target: &str, fields: &str) -> Client {
        Client::over(connect(address), target, fields)
    }

    /// Returns whether no input arrives for this duration.
    pub fn is_quiet(&self, duration: Duration) -> bool {
        if !self.buffer.is_empty() {
            return false;
        }
        self.stream.set_read_timeout(Some(duration)).unwrap();
        let looked = self.stream.peek(&mut [0]);
        self.stream.set_read_timeout(Some(PATIENCE)).unwrap();
        use io::ErrorKind::{TimedOut, WouldBlock};
        matches!(looked, Err(error) if matches!(error.kind(), TimedOut | WouldBlock))
    }

    /// Closes the sending direction of the stream.
    pub fn half_close(&self) {
        self.stream.shutdown(Shutdown::Write).unwrap();
    }
}

impl<S: Read + Write> Client<S> {
    /// Requests a WebSocket over a connected stream.
    pub fn over(stream: S, target: &str, fields: &str) -> Self {
        Client::over_as(stream, "localhost", target, fields)
    }

    /// Requests a WebSocket from a server under a host name.
    pub fn over_as(stream: S, host: &str, target: &str, fields: &str) -> Self {
        let mut client = Client::raw(stream);
        client.request_as(host, target, fields);
        client.head = client.read_head();
        client
    }

    /// Sends a handshake request.
    pub fn request_websocket(&mut self, target: &str, fields: &str) {
        self.request_as("localhost", target, fields);
    }

    fn request_as(&mut self, host: &str, target: &str, fields: &str) {
        let request = format!(
            "GET {target} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n{fields}\r\n"
        );
        self.send_raw(request.as_bytes());
    }

    /// Creates a client without sending anything.
    pub fn raw(stream: S) -> Self {
        Client {
            stream,
            buffer: Vec::new(),
            head: String::new(),
            was_reset: false,
            inflated: 0,
            fence: 1 << 40,
        }
    }

    /// Sends raw bytes.
    pub fn send_raw(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    pub fn send_frame(&mut self, fin: bool, opcode: OpCode, payload: &[u8]) {
        let mut bytes = Vec::new();
        encode_client_frame(fin, opcode, [0x12, 0x34, 0x56, 0x78], payload, &mut bytes);
        self.stream.write_all(&bytes).unwrap();
    }

    pub fn send(&mut self, text: &str) {
        self.send_frame(true, OpCode::Text, text.as_bytes());
    }

    /// Sends a compressed message in one frame.
    pub fn send_compressed(&mut self, opcode: OpCode, message: &[u8]) {
        self.send_rsv1(opcode, &deflate(message));
    }

    /// Sends a frame that is marked as compressed.
    pub fn send_rsv1(&mut self, opcode: OpCode, payload: &[u8]) {
        let mut bytes = Vec::new();
        encode_client_frame(true, opcode, [0x12, 0x34, 0x56, 0x78], payload, &mut bytes);
        bytes[0] |= 0x40;
        self.stream.write_all(&bytes).unwrap();
    }

    pub fn close(&mut self, code: u16, reason: &str) {
        let mut payload = code.to_be_bytes().to_vec();
        payload.extend_from_slice(reason.as_bytes());
        self.send_frame(true, OpCode::Close, &payload);
    }

    /// Returns the next frame.
    pub fn receive(&mut self) -> Received {
        match self.try_receive() {
            Ok(received) => received,
            Err(error) => {
                self.note_end(&error);
                Received::End
            }
        }
    }

    /// Asserts that the server ends the stream after its queued output, without a reset.
    pub fn expect_end(&mut self) {
        assert_eq!(self.receive(), Received::End);
        assert!(
            self.buffer.is_empty(),
            "the stream ended within a frame: {:?}",
            self.buffer
        );
        assert!(!self.was_reset, "the stream was reset");
    }

    /// Returns the next HTTP response, or `None` at the end of the stream. `head_only` for the
    /// response to a `HEAD` request, whose length is not that of a body.
    pub fn answer(&mut self, head_only: bool) -> Option<Answer> {
        let head = self.read_head();
        if head.is_empty() {
            return None;
        }
        let mut answer = Answer {
            head,
            body: String::new(),
        };
        let length = answer
            .field("Content-Length")
            .map_or(0, |length| length.parse().unwrap());
        if !head_only && answer.status() != 101 {
            let body = self.take_bytes(length).expect("the whole body");
            answer.body = String::from_utf8(body).unwrap();
        }
        Some(answer)
    }

    /// Returns the next text message as JSON.
    pub fn json(&mut self) -> Value {
        match self.receive_non_ping() {
            Received::Text(text) => serde_json::from_str(&text).unwrap(),
            other => panic!("expected a text message, received {other:?}"),
        }
    }

    /// Sends a message and returns the next text message.
    pub fn ask(&mut self, message: &str) -> String {
        self.send(message);
        match self.receive_non_ping() {
            Received::Text(text) => text,
            other => panic!("{message}: received {other:?}"),
        }
    }

    /// Returns the next frame other than a ping. Pings are answered, since a test on a busy machine
    /// can take longer than the ping interval.
    fn receive_non_ping(&mut self) -> Received {
        loop {
            match self.receive() {
                Received::Ping(payload) => self.send_frame(true, OpCode::Pong, &payload),
                other => return other,
            }
        }
    }

    /// Returns everything that arrives before the reply to a ping message sent now.
    pub fn drain(&mut self) -> Vec<Received> {
        self.fence += 1;
        let fence = self.fence;
        self.send(&json!({"type": "ping", "id": fence}).to_string());
        let mut before = Vec::new();
        loop {
            match self.receive() {
                Received::Text(text) if text.contains(&format!("\"reply_to\": {fence}")) => {
                    return before;
                }
                Received::End => panic!("the connection ended after {before:?}"),
                other => before.push(other),
            }
        }
    }

    /// Subscribes to one value of a field.
    pub fn subscribe(&mut self, field: &str, value: &str) {
        let clause = json!({"field": field, "operator": "one_of", "value": [value]});
        let filter = json!({"match_policy": "include_any", "clauses": [clause], "actions": {}});
        self.send(&json!({"filter": filter}).to_string());
        assert_eq!(self.drain(), []);
    }

    /// Subscribes a connection with `?debug=1` to one value of a field, and returns the debug messages
    /// up to the one about the filter, which may follow later replies.
    pub fn subscribe_traced(&mut self, field: &str, value: &str) -> Vec<Value> {
        let clause = json!({"field": field, "operator": "one_of", "value": [value]});
        let filter = json!({"match_policy": "include_any", "clauses": [clause], "actions": {}});
        self.send(&json!({"filter": filter}).to_string());
        let read = |received| match received {
            Received::Text(text) => serde_json::from_str(&text).unwrap(),
            other => panic!("{other:?}"),
        };
        let mut messages: Vec<Value> = self.drain().into_iter().map(read).collect();
        while !messages.iter().any(|message| message["event"] == "filter") {
            messages.push(self.json());
        }
        let is_debug = |message: &Value| message["type"] == "debug";
        assert!(messages.iter().all(is_debug), "{messages:?}");
        messages
    }

    fn try_receive(&mut self) -> io::Result<Received> {
        let [first, second] = self.take()?;
        let length = match second & 0x7F {
            126 => u16::from_be_bytes(self.take()?).into(),
            127 => u64::from_be_bytes(self.take()?),
            short => u64::from(short),
        };
        assert_eq!(second & 0x80, 0, "server frames are not masked");
        assert_eq!(first & 0xB0, 0x80, "server messages have one frame");
        let mut payload = self.take_bytes(length as usize)?;
        if first & 0x40 != 0 {
            assert!(self.head.contains("permessage-deflate"), "{}", self.head);
            assert!(
                matches!(first & 0x0F, 1 | 2),
                "a control frame is compressed"
            );
            payload = inflate(&payload);
            self.inflated += 1;
        }
        Ok(match first & 0x0F {
            1 => Received::Text(String::from_utf8(payload).unwrap()),
            2 => Received::Binary(payload),
            8 if payload.is_empty() => Received::Close(None),
            8 => {
                let code = u16::from_be_bytes([payload[0], payload[1]]);
                Received::Close(Some((
                    code,
                    String::from_utf8(payload[2..].to_vec()).unwrap(),
                )))
            }
            9 => Received::Ping(payload),
            10 => Received::Pong(payload),
            opcode => panic!("opcode {opcode}"),
        })
    }

    fn read_head(&mut self) -> String {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            match self.take::<1>() {
                Ok([byte]) => head.push(byte),
                Err(error) => {
                    self.note_end(&error);
                    break;
                }
            }
        }
        String::from_utf8(head).unwrap()
    }

    fn note_end(&mut self, error: &io::Error) {
        use io::ErrorKind::{TimedOut, WouldBlock};
        assert!(!matches!(error.kind(), TimedOut | WouldBlock), "timed out");
        self.was_reset = error.kind() == io::ErrorKind::ConnectionReset;
    }

    fn take<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let bytes = self.take_bytes(N)?;
        Ok(bytes.try_into().unwrap())
    }

    fn take_bytes(&mut self, count: usize) -> io::Result<Vec<u8>> {
        while self.buffer.len() < count {
            let mut chunk = [0; 65_536];
            let read = self.stream.read(&mut chunk)?;
            if read == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.buffer.extend_from_slice(&chunk[..read]);
        }
        Ok(self.buffer.drain(..count).collect())
    }
}

/// Returns the payload of a compressed message (RFC 7692 §7.2.1).
pub fn deflate(message: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(2 * message.len() + 1024);
    let mut stream = Compress::new(Compression::best(), false);
    let flush = FlushCompress::Sync;
    stream.compress_vec(message, &mut out, flush).unwrap();
    assert!(out.ends_with(&[0, 0, 0xFF, 0xFF]));
    out.truncate(out.len() - 4);
    out
}

/// Returns the message of a compressed payload (§7.2.2).
pub fn inflate(payload: &[u8]) -> Vec<u8> {
    let data = [payload, &[0, 0, 0xFF, 0xFF]].concat();
    let mut out = Vec::with_capacity(1 << 20);
    let mut stream = Decompress::new(false);
    let flush = FlushDecompress::Sync;
    stream.decompress_vec(&data, &mut out, flush).unwrap();
    assert_eq!(stream.total_in() as usize, data.len());
    out
}
