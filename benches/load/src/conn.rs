//! One client connection: TCP, optional TLS, upgrade, and frames.

use std::io::{self, Read, Write};
use std::mem;
use std::time::Duration;

use base64::prelude::{BASE64_STANDARD, Engine as _};
use mio::net::TcpStream;
use rustls::{ClientConnection, HandshakeKind};
use sha1::{Digest, Sha1};
use socket2::SockRef;

use crate::frames::{self, Frame};
use crate::target::Target;

/// An event on a connection.
pub enum ConnEvent<'a> {
    /// The upgrade has completed.
    Open,
    /// A message has arrived. For a fragmented message, only the last frame is reported.
    Message(Frame<'a>),
}

/// The reason a connection has ended.
pub type CloseReason = String;

/// The handshake data shared by all connections of a run.
pub struct Script {
    request: Vec<u8>,
    /// The `Sec-WebSocket-Accept` value that proves that the server read the key.
    accept: String,
    /// Whether the server must have accepted compression.
    deflate: bool,
    /// Whether the connections are event streams, whose output is only counted as received.
    is_stream: bool,
    pub mask: [u8; 4],
}

impl Script {
    /// # Errors
    ///
    /// Returns an error if the system has no randomness.
    pub fn new(target: &Target, deflate: bool) -> crate::Result<Script> {
        let (mut key, mut mask) = ([0; 16], [0; 4]);
        getrandom::fill(&mut key)?;
        getrandom::fill(&mut mask)?;
        let key = BASE64_STANDARD.encode(key);
        let digest = Sha1::digest(format!("{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11"));
        let extensions = match deflate {
            true => concat!(
                "Sec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover; ",
                "client_no_context_takeover\r\n"
            ),
            false => "",
        };
        let is_stream = target.path.starts_with(EVENT_STREAM);
        let upgrade = format!(
            "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: {key}\r\n\
             Sec-WebSocket-Version: 13\r\n{extensions}"
        );
        let fields = if is_stream { "" } else { &upgrade };
        let request = format!(
            "GET {} HTTP/1.1\r\nHost: {}\r\n{fields}\r\n",
            target.path, target.host
        );
        Ok(Script {
            request: request.into_bytes(),
            accept: BASE64_STANDARD.encode(digest),
            deflate,
            is_stream,
            mask,
        })
    }

    /// Returns the handshake request.
    pub fn request(&self) -> &[u8] {
        &self.request
    }
}

/// A connection.
pub struct Conn {
    pub number: u64,
    /// The number of outstanding responses, maintained by the mode.
    pub outstanding: u32,
    /// Whether the messages before the measurement have been exchanged.
    pub ready: bool,
    /// Whether received messages are ignored, as for a publisher.
    pub ignored: bool,
    /// The number of the server's pings that it has answered.
    pub pongs: u64,
    stream: TcpStream,
    tls: Option<Box<ClientConnection>>,
    phase: Phase,
    /// An incomplete head or frame.
    partial: Vec<u8>,
    /// Bytes that the kernel has not accepted yet.
    unsent: Vec<u8>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Connecting,
    Upgrading,
    Open,
}

impl Conn {
    /// Begins to connect.
    ///
    /// # Errors
    ///
    /// Returns the errors of the operating system and of rustls.
    pub fn new(target: &Target, number: u64) -> crate::Result<Conn> {
        let tls = match &target.tls {
            None => None,
            Some(tls) => {
                let session = ClientConnection::new(tls.config.clone(), tls.name.clone())?;
                Some(Box::new(session))
            }
        };
        Ok(Conn {
            number,
            outstanding: 0,
            ready: false,
            ignored: false,
            pongs: 0,
            stream: target.connect(number)?,
            tls,
            phase: Phase::Connecting,
            partial: Vec::new(),
            unsent: Vec::new(),
        })
    }

    pub fn source(&mut self) -> &mut TcpStream {
        &mut self.stream
    }

    pub fn is_open(&self) -> bool {
        self.phase == Phase::Open
    }

    /// Returns whether its TLS session was resumed.
    pub fn is_resumed(&self) -> bool {
        let kind = self.tls.as_ref().and_then(|tls| tls.handshake_kind());
        kind == Some(HandshakeKind::Resumed)
    }

    /// Sends bytes, and buffers any that the kernel does not accept.
    ///
    /// # Errors
    ///
    /// Returns the errors of the socket.
    pub fn send(&mut self, bytes: &[u8]) -> Result<(), CloseReason> {
        match &mut self.tls {
            None if self.unsent.is_empty() => {
                let sent = write(&mut self.stream, bytes)?;
                self.unsent.extend(&bytes[sent..]);
                Ok(())
            }
            None => {
                self.unsent.extend(bytes);
                self.flush()
            }
            Some(tls) => {
                tls.writer().write_all(bytes).map_err(text)?;
                self.flush()
            }
        }
    }

    /// Serves the socket as far as it is ready. Events are passed to `on_event`.
    ///
    /// # Errors
    ///
    /// Returns the reason if the connection has ended.
    pub fn ready(
        &mut self,
        script: &Script,
        buffer: &mut [u8],
        on_event: &mut impl FnMut(&mut Conn, ConnEvent<'_>) -> Result<(), CloseReason>,
    ) -> Result<(), CloseReason> {
        if self.phase == Phase::Connecting && !self.connected(script)? {
            return Ok(());
        }
        if !self.unsent.is_empty() || self.tls.is_some() {
            self.flush()?;
        }
        match self.tls.is_some() {
            true => self.read_tls(script, buffer, on_event),
            false => self.read_plain(script, buffer, on_event),
        }
    }

    /// Closes the connection with a reset, which frees its port at once.
    pub fn reset(self) {
        // If this fails, the connection still closes, only without a reset.
        let _ = SockRef::from(&self.stream).set_linger(Some(Duration::ZERO));
    }

    fn connected(&mut self, script: &Script) -> Result<bool, CloseReason> {
        if let Some(error) = self.stream.take_error().map_err(text)? {
            return Err(format!("connect: {error}"));
        }
        if self.stream.peer_addr().is_err() {
            return Ok(false);
        }
        self.phase = Phase::Upgrading;
        match script.is_stream {
            true => self.send(&numbered(&script.request, self.number))?,
            false => self.send(&script.request)?,
        }
        Ok(true)
    }

    fn read_plain(
        &mut self,
        script: &Script,
        buffer: &mut [u8],
        on_event: &mut impl FnMut(&mut Conn, ConnEvent<'_>) -> Result<(), CloseReason>,
    ) -> Result<(), CloseReason> {
        loop {
            let read = match self.stream.read(buffer) {
                Ok(0) => return Err(self.ended()),
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error.to_string()),
            };
            self.take(script, &buffer[..read], on_event)?;
            // A short read has emptied the socket. An end of stream behind it causes an event of
            // its own, since the socket stays readable, level- and edge-triggered alike.
            if read < buffer.len() {
                return Ok(());
            }
        }
    }

    fn read_tls(
        &mut self,
        script: &Script,
        buffer: &mut [u8],
        on_event: &mut impl FnMut(&mut Conn, ConnEvent<'_>) -> Result<(), CloseReason>,
    ) -> Result<(), CloseReason> {
        let Some(mut tls) = self.tls.take() else {
            return Ok(());
        };
        loop {
            match tls.read_tls(&mut self.stream) {
                Ok(0) => return Err(self.ended()),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error.to_string()),
            }
            tls.process_new_packets().map_err(text)?;
            loop {
                let read = match tls.reader().read(buffer) {
                    Ok(0) => return Err(self.ended()),
                    Ok(read) => read,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(error) => return Err(error.to_string()),
                };
                // Bytes sent during the handshake go through the session.
                self.tls = Some(tls);
                let taken = self.take(script, &buffer[..read], on_event);
                tls = self.tls.take().ok_or("no session")?;
                taken?;
            }
        }
        self.tls = Some(tls);
        self.flush()
    }

    fn ended(&self) -> CloseReason {
        match self.phase {
            Phase::Open => "the server ended the connection".into(),
            _ => "the server ended the connection before the upgrade".into(),
        }
    }

    /// Processes input: first the response head, then frames.
    fn take(
        &mut self,
        script: &Script,
        bytes: &[u8],
        on_event: &mut impl FnMut(&mut Conn, ConnEvent<'_>) -> Result<(), CloseReason>,
    ) -> Result<(), CloseReason> {
        if self.partial.is_empty() {
            let taken = self.parse(script, bytes, on_event)?;
            self.partial.extend(&bytes[taken..]);
            return Ok(());
        }
        let mut all = mem::take(&mut self.partial);
        all.extend(bytes);
        let taken = self.parse(script, &all, on_event)?;
        if taken < all.len() {
            all.drain(..taken);
            self.partial = all;
        }
        Ok(())
    }

    fn parse(
        &mut self,
        script: &Script,
        bytes: &[u8],
        on_event: &mut impl FnMut(&mut Conn, ConnEvent<'_>) -> Result<(), CloseReason>,
    ) -> Result<usize, CloseReason> {
        let mut taken = 0;
        if self.phase == Phase::Upgrading {
            let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else {
                return Ok(0);
            };
            check_head(script, &bytes[..end])?;
            taken = end + 4;
            self.phase = Phase::Open;
            on_event(self, ConnEvent::Open)?;
        }
        if script.is_stream {
            return Ok(bytes.len());
        }
        while let Some((frame, length)) = frames::decode(&bytes[taken..])? {
            taken += length;
            match frame.opcode {
                frames::PING => {
                    let pong = frames::encode(frames::PONG, frame.payload, script.mask);
                    self.send(&pong)?;
                    self.pongs += 1;
                }
                frames::CLOSE => {
                    let code = frame
                        .payload
                        .first_chunk()
                        .map(|two| u16::from_be_bytes(*two));
                    return Err(format!("the server closed with {}", code.unwrap_or(1005)));
                }
                frames::PONG => {}
                _ if !frame.fin => {}
                _ => on_event(self, ConnEvent::Message(frame))?,
            }
        }
        Ok(taken)
    }

    fn flush(&mut self) -> Result<(), CloseReason> {
        if let Some(tls) = &mut self.tls {
            while tls.wants_write() {
                match tls.write_tls(&mut self.stream) {
                    Ok(_) => {}
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(error) => return Err(error.to_string()),
                }
            }
            return Ok(());
        }
        let sent = write(&mut self.stream, &self.unsent)?;
        self.unsent.drain(..sent);
        Ok(())
    }
}

fn check_head(script: &Script, head: &[u8]) -> Result<(), CloseReason> {
    let head = String::from_utf8_lossy(head);
    let first = head.lines().next().unwrap_or_default();
    if script.is_stream {
        let is_open = first.starts_with("HTTP/1.1 200") && !head.contains("Content-Length");
        return is_open
            .then_some(())
            .ok_or_else(|| format!("no event stream: {first}"));
    }
    if !first.starts_with("HTTP/1.1 101") {
        return Err(format!("no upgrade: {first}"));
    }
    let field = |wanted: &str| {
        let mut fields = head.lines().skip(1).filter_map(|line| line.split_once(':'));
        let found = fields.find(|(name, _)| name.eq_ignore_ascii_case(wanted));
        found.map(|(_, value)| value.trim())
    };
    if field("Sec-WebSocket-Accept") != Some(&script.accept) {
        return Err("Sec-WebSocket-Accept is wrong".into());
    }
    let extension = field("Sec-WebSocket-Extensions").unwrap_or_default();
    if script.deflate && !extension.contains("permessage-deflate") {
        return Err("the server did not agree to compression".into());
    }
    Ok(())
}

/// Returns a request with the number of the connection in place of `{n}`.
fn numbered(request: &[u8], number: u64) -> Vec<u8> {
    let request = String::from_utf8_lossy(request);
    request.replace("{n}", &format!("{number:06}")).into_bytes()
}

/// The path of event streams.
const EVENT_STREAM: &str = "/sse";

/// Writes as much as the socket accepts.
fn write(stream: &mut TcpStream, bytes: &[u8]) -> Result<usize, CloseReason> {
    let mut sent = 0;
    while sent < bytes.len() {
        match stream.write(&bytes[sent..]) {
            Ok(more) => sent += more,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) => return Err(error.to_string()),
        }
    }
    Ok(sent)
}

fn text(error: impl std::fmt::Display) -> CloseReason {
    error.to_string()
}
