//! A model client: its input, its behavior, and the output it has received.

use std::collections::VecDeque;

use h_realtime_engine::ConnKey;

use crate::app::Payload;
use crate::frames::{ClientEvent, FrameReader, OFFER, client_frame, deflate, handshake_with};
use crate::rng::Rng;
use crate::socket::{End, Wire};

/// One client and its connection.
pub struct Client {
    pub wire: Wire,
    /// The engine's key for the connection, once it is accepted.
    pub key: Option<ConnKey>,
    pub behavior: Behavior,
    /// Everything that it has received.
    pub events: Vec<ClientEvent>,
    /// For each received message, whether it was compressed.
    pub compressed_flags: Vec<bool>,
    /// The data messages that it has sent completely.
    pub sent_messages: Vec<Payload>,
    /// Pings without a pong.
    pub pings: Vec<Vec<u8>>,
    /// For each outstanding request, the acceptable statuses.
    pub expected: VecDeque<&'static [u16]>,
    pub progress: Progress,
    /// A test has sent an incomplete request or message by hand.
    pub has_begun: bool,
    /// Offers compression, and then compresses every other message.
    pub compresses: bool,
    /// Has requested an event stream, after which it has nothing to say.
    pub has_requested_stream: bool,
    reader: FrameReader,
    part: Option<Part>,
    rng: Rng,
    pings_sent: u32,
}

/// The behavior of a client.
#[derive(Clone, Copy, Debug, Default)]
pub struct Behavior {
    /// Sends and reads whenever possible.
    pub is_eager: bool,
    /// Answers neither pings nor close frames.
    pub is_mute: bool,
    /// Violated the protocol, or vanished without a close frame.
    pub is_wrong: bool,
    /// Closed its sending direction.
    pub has_finished: bool,
    pub has_sent_close: bool,
}

impl Behavior {
    /// A client that sends and reads whenever possible.
    pub const EAGER: Behavior = Behavior {
        is_eager: true,
        is_mute: false,
        is_wrong: false,
        has_finished: false,
        has_sent_close: false,
    };
}

/// How far the oracle has matched the received messages.
#[derive(Clone, Copy, Debug, Default)]
pub struct Progress {
    pub is_open: bool,
    pub is_closed: bool,
    pub has_ended: bool,
    pub inbox: usize,
    pub replies: usize,
    pub deliveries: usize,
}

/// A message of which some fragments have been sent.
struct Part {
    message: Payload,
    /// Its first byte, without FIN, and its bytes on the wire.
    first: u8,
    bytes: Vec<u8>,
    sent: usize,
}

impl Client {
    pub fn new(wire: Wire, rng: Rng, behavior: Behavior) -> Self {
        Client {
            wire,
            key: None,
            behavior,
            events: Vec::new(),
            compressed_flags: Vec::new(),
            sent_messages: Vec::new(),
            pings: Vec::new(),
            expected: VecDeque::new(),
            progress: Progress::default(),
            has_begun: false,
            compresses: false,
            has_requested_stream: false,
            reader: FrameReader::default(),
            part: None,
            rng,
            pings_sent: 0,
        }
    }

    /// Expects responses without content, as to requests with the method `HEAD`.
    pub fn expect_no_content(&mut self) {
        self.reader.is_head = true;
    }

    /// Sends raw bytes.
    pub fn raw(&mut self, bytes: impl AsRef<[u8]>) {
        self.wire.state().peer_send(bytes.as_ref());
    }

    /// Sends a WebSocket handshake.
    pub fn send_handshake(&mut self, path: &str) {
        self.expected.push_back(&[101, 403]);
        self.raw(handshake_with(
            path,
            if self.compresses { OFFER } else { "" },
        ));
    }

    /// Sends a request that is not a handshake; `right` are the acceptable statuses.
    pub fn request(&mut self, request: impl AsRef<[u8]>, right: &'static [u16]) {
        self.expected.push_back(right);
        self.raw(request);
    }

    /// Requests an event stream.
    pub fn request_stream(&mut self, path: &str) {
        self.has_requested_stream = true;
        let request = format!("GET {path} HTTP/1.1\r\nHost: sim\r\n\r\n");
        self.request(request, &[200, 403]);
    }

    pub fn frame(&mut self, first: u8, payload: &[u8]) {
        let mask = (self.rng.next_u64() as u32).to_be_bytes();
        self.raw(client_frame(first, payload, mask));
    }

    fn message(&mut self, first: u8, message: &[u8]) {
        match self.compresses && self.rng.chance(50) {
            true => self.frame(first | 0x40, &deflate(message)),
            false => self.frame(first, message),
        }
    }

    /// Returns the number of compressed messages received.
    pub fn inflated(&self) -> usize {
        self.reader.inflated
    }

    pub fn text(&mut self, text: &str) {
        self.finish_part();
        self.message(0x81, text.as_bytes());
        self.sent_messages.push(Payload::Text(text.to_owned()));
    }

    pub fn binary(&mut self, data: &[u8]) {
        self.finish_part();
        self.message(0x82, data);
        self.sent_messages.push(Payload::Binary(data.to_vec()));
    }

    /// Begins or continues a fragmented message. Returns true while it is incomplete.
    pub fn fragment(&mut self, message: impl FnOnce() -> Payload, size: usize) -> bool {
        let mut part = match self.part.take() {
            Some(part) => part,
            None => self.begin(message()),
        };
        let first = if part.sent == 0 { part.first } else { 0 };
        let end = part.bytes.len().min(part.sent + size.max(1));
        let is_last = end == part.bytes.len();
        let fragment = part.bytes[part.sent..end].to_vec();
        self.frame(if is_last { 0x80 } else { 0 } | first, &fragment);
        part.sent = end;
        match is_last {
            true => self.sent_messages.push(part.message),
            false => self.part = Some(part),
        }
        !is_last
    }

    fn begin(&mut self, message: Payload) -> Part {
        let (opcode, bytes) = match &message {
            Payload::Text(text) => (1, text.as_bytes()),
            Payload::Binary(data) => (2, data.as_slice()),
        };
        let (first, bytes) = match self.compresses && self.rng.chance(50) {
            true => (opcode | 0x40, deflate(bytes)),
            false => (opcode, bytes.to_vec()),
        };
        Part {
            message,
            first,
            bytes,
            sent: 0,
        }
    }

    /// Sends the rest of a fragmented message.
    pub fn finish_part(&mut self) {
        while self.part.is_some() && self.fragment(|| Payload::Binary(Vec::new()), 1 << 20) {}
    }

    /// Sends a ping with a unique payload.
    pub fn ping(&mut self) {
        self.pings_sent += 1;
        let payload = format!("ping {}", self.pings_sent).into_bytes();
        self.frame(0x89, &payload);
        self.pings.push(payload);
    }

    /// Returns whether its newest ping has been answered; older ones may remain unanswered.
    pub fn has_newest_pong(&self) -> bool {
        let newest = format!("ping {}", self.pings_sent);
        self.pings
            .last()
            .is_none_or(|ping| *ping != newest.as_bytes())
    }

    pub fn close(&mut self, code: u16) {
        self.finish_part();
        self.frame(0x88, &code.to_be_bytes());
        self.behavior.has_sent_close = true;
    }

    /// Closes its sending direction.
    pub fn finish(&mut self) {
        self.behavior.has_finished = true;
        self.wire.state().peer_finish();
    }

    pub fn reset(&mut self) {
        self.behavior.is_wrong = true;
        self.wire.state().peer_reset();
    }

    /// Stops sending and reading without a FIN or RST.
    pub fn vanish(&mut self) {
        self.behavior.is_eager = false;
        self.behavior.is_wrong = true;
        self.behavior.is_mute = true;
        self.wire.state().has_vanished = true;
    }

    /// Reads at most `max` bytes, reacts as the protocol requires, and returns the received events.
    pub fn listen(&mut self, max: usize) -> Result<Vec<ClientEvent>, String> {
        let bytes = self.wire.state().peer_take(max);
        self.reader.feed(&bytes);
        let mut fresh = Vec::new();
        self.compressed_flags.clear();
        let mut inflated = self.reader.inflated;
        while let Some(event) = self.reader.next_event()? {
            self.compressed_flags.push(self.reader.inflated > inflated);
            inflated = self.reader.inflated;
            if !self.behavior.is_mute {
                self.react(&event);
            }
            fresh.push(event);
        }
        self.events.extend_from_slice(&fresh);
        if self.end() == End::Eof && self.behavior.is_eager && !self.behavior.has_finished {
            self.finish();
        }
        Ok(fresh)
    }

    /// Returns whether it has received an incomplete response or frame.
    pub fn has_partial_input(&self) -> bool {
        self.reader.is_incomplete()
    }

    fn react(&mut self, event: &ClientEvent) {
        match event {
            ClientEvent::Ping(payload) => self.frame(0x8A, payload),
            ClientEvent::Close(close) if !self.behavior.has_sent_close => {
                self.behavior.has_sent_close = true;
                let code = close.as_ref().map(|(code, _)| code.to_be_bytes());
                let payload = code.as_ref().map_or(&[][..], |code| &code[..]);
                self.frame(0x88, payload);
            }
            _ => {}
        }
    }

    /// Returns whether the server has dropped its socket and all output has been read.
    pub fn is_over(&self) -> bool {
        self.progress.has_ended && self.wire.state().is_closed
    }

    /// Returns whether nothing is in flight in either direction.
    pub fn is_done(&self) -> bool {
        self.wire.state().is_quiet()
    }

    pub fn end(&self) -> End {
        self.wire.state().peer_end()
    }

    /// Returns whether it has sent an incomplete request or message.
    pub fn is_incomplete(&self) -> bool {
        self.has_begun || self.part.is_some() || self.reader.is_incomplete()
    }

    /// Returns the code of the received close frame, or of the last block.
    pub fn closed_with(&self) -> Option<u16> {
        self.events.iter().find_map(|event| match event {
            ClientEvent::Block { event, data } if event.is_some() => data.parse().ok(),
            ClientEvent::Close(close) => Some(close.as_ref().map_or(1005, |(code, _)| *code)),
            _ => None,
        })
    }

    /// Returns the statuses of the received responses.
    pub fn statuses(&self) -> Vec<u16> {
        let statuses = self.events.iter().filter_map(|event| match event {
            ClientEvent::Response { status, .. } => Some(*status),
            ClientEvent::Open => Some(101),
            ClientEvent::StreamOpen => Some(200),
            _ => None,
        });
        statuses.collect()
    }

    /// Returns the received text messages, or the events of an event stream.
    pub fn texts(&self) -> Vec<&str> {
        let texts = self.events.iter().filter_map(|event| match event {
            ClientEvent::Text(text) => Some(text.as_str()),
            ClientEvent::Block { event: None, data } => Some(data.as_str()),
            _ => None,
        });
        texts.collect()
    }
}
