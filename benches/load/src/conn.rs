//! One client connection: TCP, TLS if asked for, the upgrade, frames.

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

/// What a connection has to tell.
pub enum Said<'a> {
    /// The upgrade is done.
    Open,
    /// A message has arrived. Of one in several frames it is the last that is told.
    Message(Frame<'a>),
}

/// Why a connection is no more.
pub type Gone = String;

/// What all connections of a run say, made once.
pub struct Script {
    request: Vec<u8>,
    /// The value of `Sec-WebSocket-Accept` that proves that the server read the key.
    accept: String,
    /// Whether the server must have agreed to compression.
    deflate: bool,
    pub mask: [u8; 4],
}

impl Script {
    /// # Errors
    ///
    /// If the system has no randomness.
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
        let request = format!(
            "GET {} HTTP/1.1\r\nHost: {}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n{extensions}\r\n",
            target.path, target.host
        );
        Ok(Script {
            request: request.into_bytes(),
            accept: BASE64_STANDARD.encode(digest),
            deflate,
            mask,
        })
    }

    /// The request of the handshake.
    pub fn request(&self) -> &[u8] {
        &self.request
    }
}

/// A connection.
pub struct Conn {
    pub number: u64,
    /// Answers that it still waits for: the mode's to count.
    pub awaited: u32,
    /// Whether it has said and heard all that comes before the measurement.
    pub ready: bool,
    /// Whether what it is sent is nobody's business: that of a publisher.
    pub ignored: bool,
    /// Heartbeats of the server that it has answered.
    pub pongs: u64,
    stream: TcpStream,
    tls: Option<Box<ClientConnection>>,
    phase: Phase,
    /// A head or a frame that is not whole.
    partial: Vec<u8>,
    /// What the kernel has not taken.
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
    /// Those of the operating system and of rustls.
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
            awaited: 0,
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

    /// Whether its TLS session was resumed.
    pub fn is_resumed(&self) -> bool {
        let kind = self.tls.as_ref().and_then(|tls| tls.handshake_kind());
        kind == Some(HandshakeKind::Resumed)
    }

    /// Sends, or keeps what the kernel does not take.
    ///
    /// # Errors
    ///
    /// Those of the socket.
    pub fn send(&mut self, bytes: &[u8]) -> Result<(), Gone> {
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

    /// Does what can be done now. `said` is told what has come.
    ///
    /// # Errors
    ///
    /// Why the connection is no more.
    pub fn ready(
        &mut self,
        script: &Script,
        buffer: &mut [u8],
        said: &mut impl FnMut(&mut Conn, Said<'_>) -> Result<(), Gone>,
    ) -> Result<(), Gone> {
        if self.phase == Phase::Connecting && !self.connected(script)? {
            return Ok(());
        }
        if !self.unsent.is_empty() || self.tls.is_some() {
            self.flush()?;
        }
        match self.tls.is_some() {
            true => self.read_tls(script, buffer, said),
            false => self.read_plain(script, buffer, said),
        }
    }

    /// Ends it with a reset, so that its port is free at once.
    pub fn reset(self) {
        // It ends one way or the other.
        let _ = SockRef::from(&self.stream).set_linger(Some(Duration::ZERO));
    }

    fn connected(&mut self, script: &Script) -> Result<bool, Gone> {
        if let Some(error) = self.stream.take_error().map_err(text)? {
            return Err(format!("connect: {error}"));
        }
        if self.stream.peer_addr().is_err() {
            return Ok(false);
        }
        self.phase = Phase::Upgrading;
        self.send(&script.request)?;
        Ok(true)
    }

    fn read_plain(
        &mut self,
        script: &Script,
        buffer: &mut [u8],
        said: &mut impl FnMut(&mut Conn, Said<'_>) -> Result<(), Gone>,
    ) -> Result<(), Gone> {
        loop {
            let read = match self.stream.read(buffer) {
                Ok(0) => return Err(self.ended()),
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error.to_string()),
            };
            self.take(script, &buffer[..read], said)?;
            // A short read emptied the socket; an end that hides behind it makes an event of
            // its own, since the socket stays readable for level and edge alike.
            if read < buffer.len() {
                return Ok(());
            }
        }
    }

    fn read_tls(
        &mut self,
        script: &Script,
        buffer: &mut [u8],
        said: &mut impl FnMut(&mut Conn, Said<'_>) -> Result<(), Gone>,
    ) -> Result<(), Gone> {
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
                // What it says meanwhile goes through the session.
                self.tls = Some(tls);
                let taken = self.take(script, &buffer[..read], said);
                tls = self.tls.take().ok_or("no session")?;
                taken?;
            }
        }
        self.tls = Some(tls);
        self.flush()
    }

    fn ended(&self) -> Gone {
        match self.phase {
            Phase::Open => "the server ended the connection".into(),
            _ => "the server ended the connection before the upgrade".into(),
        }
    }

    /// Takes bytes in: first the head, then frames.
    fn take(
        &mut self,
        script: &Script,
        bytes: &[u8],
        said: &mut impl FnMut(&mut Conn, Said<'_>) -> Result<(), Gone>,
    ) -> Result<(), Gone> {
        if self.partial.is_empty() {
            let taken = self.parse(script, bytes, said)?;
            self.partial.extend(&bytes[taken..]);
            return Ok(());
        }
        let mut all = mem::take(&mut self.partial);
        all.extend(bytes);
        let taken = self.parse(script, &all, said)?;
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
        said: &mut impl FnMut(&mut Conn, Said<'_>) -> Result<(), Gone>,
    ) -> Result<usize, Gone> {
        let mut taken = 0;
        if self.phase == Phase::Upgrading {
            let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else {
                return Ok(0);
            };
            check_head(script, &bytes[..end])?;
            taken = end + 4;
            self.phase = Phase::Open;
            said(self, Said::Open)?;
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
                _ => said(self, Said::Message(frame))?,
            }
        }
        Ok(taken)
    }

    fn flush(&mut self) -> Result<(), Gone> {
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

fn check_head(script: &Script, head: &[u8]) -> Result<(), Gone> {
    let head = String::from_utf8_lossy(head);
    let first = head.lines().next().unwrap_or_default();
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

/// Writes what fits.
fn write(stream: &mut TcpStream, bytes: &[u8]) -> Result<usize, Gone> {
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

fn text(error: impl std::fmt::Display) -> Gone {
    error.to_string()
}
