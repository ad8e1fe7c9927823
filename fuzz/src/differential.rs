//! The frame decoder compared with tungstenite's.
//!
//! Both must return the same events, or both must fail. Permitted differences:
//!
//! - We reject a length that is not encoded in the fewest bytes (RFC 6455 §5.2), and report a
//!   control frame with such a length as too long; tungstenite accepts both.
//! - We fail at the first byte that makes the frame invalid; tungstenite only when the frame is
//!   complete. It may therefore still be waiting for input when we have failed.
//! - We reject a close frame with a code that must not be sent (§7.4.1); tungstenite turns it into a
//!   close frame of code 1002, or fails if the reason is not valid UTF-8 either. It does the same
//!   for 1014, which IANA has registered since.

use std::io::{self, Read, Write};

use tungstenite::error::{Error, ProtocolError};
use tungstenite::protocol::{Role, WebSocketConfig};
use tungstenite::{Message, WebSocket};

use h_realtime_engine::ws::Limits;

use crate::decoder::{Decoded, End, Outcome, decode};

/// Input: a client's bytes.
pub fn frame_differential(input: &[u8]) {
    let limits = Limits {
        max_message: MAX_MESSAGE,
        max_fragments: u32::MAX,
        deflate: false,
    };
    let Outcome { mut events, end } = decode([input], &limits);
    let theirs = read_with_tungstenite(input);
    if let Some(Decoded::Close(Some((code @ 1014, reason)))) = events.last_mut() {
        (*code, *reason) = (1002, REFUSED_CLOSE.to_owned());
    }
    let is_ahead = theirs.events.starts_with(&events);
    let is_same = theirs.events == events;
    let agrees = match end {
        End::Open { .. } => is_same && theirs.end == Theirs::Waits,
        End::Closed => is_same,
        End::Failed(error) if NOT_MINIMAL.contains(&error.reason) => is_ahead,
        End::Failed(error) if error.reason == "invalid close code" => {
            let refused = Decoded::Close(Some((1002, REFUSED_CLOSE.to_owned())));
            let answers = is_ahead && theirs.events[events.len()..] == [refused];
            answers || is_same && theirs.end == Theirs::Failed
        }
        End::Failed(_) => is_same,
    };
    assert!(agrees, "ours: {events:?} {end:?}; tungstenite: {theirs:?}");
}

#[derive(Debug)]
struct Reading {
    events: Vec<Decoded>,
    end: Theirs,
}

#[derive(Debug, PartialEq, Eq)]
enum Theirs {
    /// No error so far.
    Waits,
    Closed,
    Failed,
}

fn read_with_tungstenite(input: &[u8]) -> Reading {
    let config = WebSocketConfig::default()
        .max_message_size(Some(MAX_MESSAGE))
        .max_frame_size(Some(MAX_MESSAGE));
    let mut socket = WebSocket::from_raw_socket(Wire(input), Role::Server, Some(config));
    let mut events = Vec::new();
    let end = loop {
        match socket.read() {
            Ok(Message::Text(text)) => events.push(Decoded::Text(text.as_str().to_owned())),
            Ok(Message::Binary(data)) => events.push(Decoded::Binary(data.to_vec())),
            Ok(Message::Ping(data)) => events.push(Decoded::Ping(data.to_vec())),
            Ok(Message::Pong(data)) => events.push(Decoded::Pong(data.to_vec())),
            Ok(Message::Close(close)) => {
                let close = close.map(|close| (close.code.into(), close.reason.to_string()));
                events.push(Decoded::Close(close));
                break Theirs::Closed;
            }
            Ok(Message::Frame(frame)) => panic!("read gives no frames: {frame}"),
            Err(Error::Protocol(ProtocolError::ResetWithoutClosingHandshake)) => {
                break Theirs::Waits;
            }
            Err(_) => break Theirs::Failed,
        }
    };
    Reading { events, end }
}

/// A stream of client input. Its output is discarded.
struct Wire<'a>(&'a [u8]);

impl Read for Wire<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.0.read(buf)
    }
}

impl Write for Wire<'_> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

const MAX_MESSAGE: usize = 2000;
/// Our errors for a length that is not minimal.
const NOT_MINIMAL: [&str; 2] = ["length is not minimal", "control frame is too long"];
/// The reason in tungstenite's close frame for a code that must not be sent.
const REFUSED_CLOSE: &str = "Protocol violation";
