//! A model client: what it sends, how it behaves, and what it has heard.

use std::collections::VecDeque;

use h_realtime_engine::ConnKey;

use super::app::Said;
use super::frames::{Ear, Heard, OFFER, client_frame, deflate, handshake_with};
use super::rng::Rng;
use super::socket::{End, Wire};

/// One client and its connection.
pub struct Client {
    pub wire: Wire,
    /// The server's name for the connection, once it is accepted.
    pub key: Option<ConnKey>,
    pub conduct: Conduct,
    /// All that it has heard.
    pub heard: Vec<Heard>,
    /// Of each that it has heard last, whether it came compressed.
    pub squeezed: Vec<bool>,
    /// The data messages that it has sent whole.
    pub said: Vec<Said>,
    /// Pings that no pong has answered.
    pub pings: Vec<Vec<u8>>,
    /// The answers that are awaited: for each request those that are right.
    pub expected: VecDeque<&'static [u16]>,
    pub progress: Progress,
    /// A test has sent a part of something by hand.
    pub has_begun: bool,
    /// Offers compression, and then compresses every other message.
    pub compresses: bool,
    ear: Ear,
    part: Option<Part>,
    rng: Rng,
    pings_sent: u32,
}

/// How it behaves.
#[derive(Clone, Copy, Debug, Default)]
pub struct Conduct {
    /// Sends and reads at once, whatever there is.
    pub is_eager: bool,
    /// Answers neither pings nor close frames.
    pub is_mute: bool,
    /// Broke the protocol, or left without a word.
    pub is_wrong: bool,
    /// Ended its direction.
    pub has_finished: bool,
    pub has_sent_close: bool,
}

impl Conduct {
    /// A client that sends and reads at once.
    pub const EAGER: Conduct = Conduct {
        is_eager: true,
        is_mute: false,
        is_wrong: false,
        has_finished: false,
        has_sent_close: false,
    };
}

/// What the oracle has ticked off.
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
    message: Said,
    /// Its first byte, without FIN, and its bytes on the wire.
    first: u8,
    bytes: Vec<u8>,
    sent: usize,
}

impl Client {
    pub fn new(wire: Wire, rng: Rng, conduct: Conduct) -> Self {
        Client {
            wire,
            key: None,
            conduct,
            heard: Vec::new(),
            squeezed: Vec::new(),
            said: Vec::new(),
            pings: Vec::new(),
            expected: VecDeque::new(),
            progress: Progress::default(),
            has_begun: false,
            compresses: false,
            ear: Ear::default(),
            part: None,
            rng,
            pings_sent: 0,
        }
    }

    /// Sends bytes as they are.
    pub fn raw(&mut self, bytes: impl AsRef<[u8]>) {
        self.wire.state().peer_send(bytes.as_ref());
    }

    /// Asks for a WebSocket.
    pub fn shake(&mut self, path: &str) {
        self.expected.push_back(&[101, 403]);
        self.raw(handshake_with(
            path,
            if self.compresses { OFFER } else { "" },
        ));
    }

    /// Sends a request that is no handshake; these answers to it are right.
    pub fn request(&mut self, request: impl AsRef<[u8]>, right: &'static [u16]) {
        self.expected.push_back(right);
        self.raw(request);
    }

    pub fn frame(&mut self, first: u8, payload: &[u8]) {
        let mask = (self.rng.next() as u32).to_be_bytes();
        self.raw(client_frame(first, payload, mask));
    }

    fn message(&mut self, first: u8, message: &[u8]) {
        match self.compresses && self.rng.chance(50) {
            true => self.frame(first | 0x40, &deflate(message)),
            false => self.frame(first, message),
        }
    }

    /// How many messages it has heard that were compressed.
    pub fn inflated(&self) -> usize {
        self.ear.inflated
    }

    pub fn text(&mut self, text: &str) {
        self.finish_part();
        self.message(0x81, text.as_bytes());
        self.said.push(Said::Text(text.to_owned()));
    }

    pub fn binary(&mut self, data: &[u8]) {
        self.finish_part();
        self.message(0x82, data);
        self.said.push(Said::Binary(data.to_vec()));
    }

    /// Begins a message of several frames, or goes on with it; true while it is not whole.
    pub fn fragment(&mut self, message: impl FnOnce() -> Said, size: usize) -> bool {
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
            true => self.said.push(part.message),
            false => self.part = Some(part),
        }
        !is_last
    }

    fn begin(&mut self, message: Said) -> Part {
        let (opcode, bytes) = match &message {
            Said::Text(text) => (1, text.as_bytes()),
            Said::Binary(data) => (2, data.as_slice()),
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

    /// Sends the rest of a message that it has begun.
    pub fn finish_part(&mut self) {
        while self.part.is_some() && self.fragment(|| Said::Binary(Vec::new()), 1 << 20) {}
    }

    /// A ping of a payload of its own.
    pub fn ping(&mut self) {
        self.pings_sent += 1;
        let payload = format!("ping {}", self.pings_sent).into_bytes();
        self.frame(0x89, &payload);
        self.pings.push(payload);
    }

    /// Whether its newest ping has had its pong; older ones may have none.
    pub fn has_its_pong(&self) -> bool {
        let newest = format!("ping {}", self.pings_sent);
        self.pings
            .last()
            .is_none_or(|ping| *ping != newest.as_bytes())
    }

    pub fn close(&mut self, code: u16) {
        self.finish_part();
        self.frame(0x88, &code.to_be_bytes());
        self.conduct.has_sent_close = true;
    }

    /// Ends its direction.
    pub fn finish(&mut self) {
        self.conduct.has_finished = true;
        self.wire.state().peer_finish();
    }

    pub fn reset(&mut self) {
        self.conduct.is_wrong = true;
        self.wire.state().peer_reset();
    }

    /// From now on it neither sends nor reads, and nothing says so.
    pub fn vanish(&mut self) {
        self.conduct.is_eager = false;
        self.conduct.is_wrong = true;
        self.conduct.is_mute = true;
    }

    /// Reads at most `max` bytes, reacts as it must, and returns what it heard.
    pub fn listen(&mut self, max: usize) -> Result<Vec<Heard>, String> {
        let bytes = self.wire.state().peer_take(max);
        self.ear.feed(&bytes);
        let mut fresh = Vec::new();
        self.squeezed.clear();
        let mut inflated = self.ear.inflated;
        while let Some(heard) = self.ear.next()? {
            self.squeezed.push(self.ear.inflated > inflated);
            inflated = self.ear.inflated;
            if !self.conduct.is_mute {
                self.react(&heard);
            }
            fresh.push(heard);
        }
        self.heard.extend_from_slice(&fresh);
        if self.end() == End::Eof && self.conduct.is_eager && !self.conduct.has_finished {
            self.finish();
        }
        Ok(fresh)
    }

    fn react(&mut self, heard: &Heard) {
        match heard {
            Heard::Ping(payload) => self.frame(0x8A, payload),
            Heard::Close(close) if !self.conduct.has_sent_close => {
                self.conduct.has_sent_close = true;
                let code = close.as_ref().map(|(code, _)| code.to_be_bytes());
                let payload = code.as_ref().map_or(&[][..], |code| &code[..]);
                self.frame(0x88, payload);
            }
            _ => {}
        }
    }

    /// The server has dropped its socket, and there is nothing left to hear.
    pub fn is_over(&self) -> bool {
        self.progress.has_ended && self.wire.state().is_closed
    }

    /// Nothing is on its way to it or from it.
    pub fn is_done(&self) -> bool {
        self.wire.state().is_quiet()
    }

    pub fn end(&self) -> End {
        self.wire.state().peer_end()
    }

    /// Whether it has sent a part of something only.
    pub fn is_mid_word(&self) -> bool {
        self.has_begun || self.part.is_some() || self.ear.is_mid_word()
    }

    /// The code of the close frame that it has heard.
    pub fn closed_with(&self) -> Option<u16> {
        self.heard.iter().find_map(|heard| match heard {
            Heard::Close(close) => Some(close.as_ref().map_or(1005, |(code, _)| *code)),
            _ => None,
        })
    }

    /// The statuses of the answers that it has heard.
    pub fn statuses(&self) -> Vec<u16> {
        let statuses = self.heard.iter().filter_map(|heard| match heard {
            Heard::Response { status, .. } => Some(*status),
            Heard::Open => Some(101),
            _ => None,
        });
        statuses.collect()
    }

    /// The text messages that it has heard.
    pub fn texts(&self) -> Vec<&str> {
        let texts = self.heard.iter().filter_map(|heard| match heard {
            Heard::Text(text) => Some(text.as_str()),
            _ => None,
        });
        texts.collect()
    }
}
