//! The frame decoder against tungstenite's.
//!
//! Both must say the same, or both must fail. Where they may differ, and why:
//!
//! - We refuse a length that is not written in the fewest bytes (RFC 6455 §5.2), and take a
//!   control frame that has one to be too long; tungstenite takes it.
//! - We fail at the first byte that makes it certain; tungstenite only when the frame is whole.
//!   So it may still be waiting where we have failed.
//! - We refuse a close frame whose code must not be sent (§7.4.1); tungstenite makes a close
//!   frame of code 1002 of it, or fails where the reason is not UTF-8 either. It does so for
//!   1014, too, which IANA has registered since.

use std::io::{self, Read, Write};

use tungstenite::error::{Error, ProtocolError};
use tungstenite::protocol::{Role, WebSocketConfig};
use tungstenite::{Message, WebSocket};

use h_realtime_engine::ws::Limits;

use crate::decoder::{End, Outcome, Said, decode};

/// A client's bytes.
pub fn frame_differential(input: &[u8]) {
    let limits = Limits {
        max_message: MAX_MESSAGE,
        max_fragments: u32::MAX,
        deflate: false,
    };
    let Outcome { mut said, end } = decode([input], &limits);
    let theirs = read_with_tungstenite(input);
    if let Some(Said::Close(Some((code @ 1014, reason)))) = said.last_mut() {
        (*code, *reason) = (1002, REFUSED_CLOSE.to_owned());
    }
    let is_ahead = theirs.said.starts_with(&said);
    let is_same = theirs.said == said;
    let agrees = match end {
        End::Open { .. } => is_same && theirs.end == Theirs::Waits,
        End::Closed => is_same,
        End::Failed(error) if NOT_MINIMAL.contains(&error.reason) => is_ahead,
        End::Failed(error) if error.reason == "invalid close code" => {
            let refused = Said::Close(Some((1002, REFUSED_CLOSE.to_owned())));
            let answers = is_ahead && theirs.said[said.len()..] == [refused];
            answers || is_same && theirs.end == Theirs::Failed
        }
        End::Failed(_) => is_same,
    };
    assert!(
        agrees,
        "we say {said:?} {end:?}, and tungstenite {theirs:?}"
    );
}

#[derive(Debug)]
struct Reading {
    said: Vec<Said>,
    end: Theirs,
}

#[derive(Debug, PartialEq, Eq)]
enum Theirs {
    /// Nothing is wrong so far.
    Waits,
    Closed,
    Failed,
}

fn read_with_tungstenite(input: &[u8]) -> Reading {
    let config = WebSocketConfig::default()
        .max_message_size(Some(MAX_MESSAGE))
        .max_frame_size(Some(MAX_MESSAGE));
    let mut socket = WebSocket::from_raw_socket(Wire(input), Role::Server, Some(config));
    let mut said = Vec::new();
    let end = loop {
        match socket.read() {
            Ok(Message::Text(text)) => said.push(Said::Text(text.as_str().to_owned())),
            Ok(Message::Binary(data)) => said.push(Said::Binary(data.to_vec())),
            Ok(Message::Ping(data)) => said.push(Said::Ping(data.to_vec())),
            Ok(Message::Pong(data)) => said.push(Said::Pong(data.to_vec())),
            Ok(Message::Close(close)) => {
                let close = close.map(|close| (close.code.into(), close.reason.to_string()));
                said.push(Said::Close(close));
                break Theirs::Closed;
            }
            Ok(Message::Frame(frame)) => panic!("read gives no frames: {frame}"),
            Err(Error::Protocol(ProtocolError::ResetWithoutClosingHandshake)) => {
                break Theirs::Waits;
            }
            Err(_) => break Theirs::Failed,
        }
    };
    Reading { said, end }
}

/// What a client sent, and nobody who listens.
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
/// What we may say of a length that is not minimal.
const NOT_MINIMAL: [&str; 2] = ["length is not minimal", "control frame is too long"];
/// What tungstenite makes of a close frame with a code that must not be sent.
const REFUSED_CLOSE: &str = "Protocol violation";
