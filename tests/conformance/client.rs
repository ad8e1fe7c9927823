//! A client that can send anything, and reports each failure of the server as an error.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use super::target::Target;

/// A connection to the server.
pub struct RawClient {
    stream: Box<dyn ByteStream>,
    /// Received bytes that have not been parsed yet.
    buffer: Vec<u8>,
    /// The beginning of a fragmented message, with its opcode.
    message: Option<(u8, Vec<u8>)>,
    /// Whether the stream ended with a reset, which can discard earlier output.
    pub was_reset: bool,
    patience: Duration,
}

/// A transport: TCP, or TLS over TCP.
pub trait ByteStream: Read + Write + Send {
    /// Returns the TCP connection below.
    fn tcp(&self) -> &TcpStream;
}

impl ByteStream for TcpStream {
    fn tcp(&self) -> &TcpStream {
        self
    }
}

/// An HTTP response.
#[derive(Debug)]
pub struct Answer {
    /// The status line and the fields.
    pub head: String,
    pub body: String,
}

/// A message or control frame from the server, or the end of the stream.
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

/// A description of the server's failure.
pub type Failure = String;

impl Answer {
    pub fn status(&self) -> Result<u16, Failure> {
        let status = self
            .head
            .split(' ')
            .nth(1)
            .and_then(|status| status.parse().ok());
        match status {
            Some(status) if self.head.starts_with("HTTP/1.") => Ok(status),
            _ => Err(format!("not an HTTP response: {:.40}", self.head)),
        }
    }

    /// Returns the value of a field, ignoring the case of its name.
    pub fn field(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().skip(1);
        let fields = lines.filter_map(|line| line.split_once(':'));
        fields
            .filter(|(field, _)| field.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.trim())
            .last()
    }
}

impl RawClient {
    /// Connects without sending anything.
    pub fn connect(target: &Target) -> Result<RawClient, Failure> {
        let stream = target.connect()?;
        let patience = target.patience;
        let timed = stream.tcp().set_read_timeout(Some(patience));
        timed.map_err(|error| error.to_string())?;
        Ok(RawClient {
            stream,
            buffer: Vec::new(),
            message: None,
            was_reset: false,
            patience,
        })
    }

    /// Sends bytes. The server may have ended the stream already; its earlier output is still read.
    pub fn send(&mut self, bytes: &[u8]) {
        let _ = self
            .stream
            .write_all(bytes)
            .and_then(|()| self.stream.flush());
    }

    /// Resets the stream without a close frame.
    pub fn cut(&mut self) {
        let _ = self.stream.tcp().shutdown(Shutdown::Both);
    }

    /// Returns whether no input arrives for this duration.
    pub fn is_quiet(&mut self, duration: Duration) -> bool {
        if !self.buffer.is_empty() {
            return false;
        }
        // A timeout of zero would mean none.
        let timeout = duration.max(Duration::from_millis(1));
        let _ = self.stream.tcp().set_read_timeout(Some(timeout));
        let filled = self.fill();
        let _ = self.stream.tcp().set_read_timeout(Some(self.patience));
        matches!(filled, Err(error) if is_timeout(&error))
    }

    /// Returns the next HTTP response, or `None` at the end of the stream. `head_only` for the
    /// response to a `HEAD` request, whose length is not that of a body.
    pub fn answer(&mut self, head_only: bool) -> Result<Option<Answer>, Failure> {
        let head = self.read_head()?;
        if head.is_empty() {
            return Ok(None);
        }
        let mut answer = Answer {
            head,
            body: String::new(),
        };
        if head_only || matches!(answer.status()?, 101 | 204 | 304) {
            return Ok(Some(answer));
        }
        let body = match answer.field("Transfer-Encoding") {
            Some(_) => self.chunks(),
            None => {
                let length = answer.field("Content-Length").unwrap_or("0");
                let length = length
                    .parse()
                    .map_err(|_| "an invalid Content-Length".to_owned())?;
                self.take_bytes(length)
            }
        };
        let body =
            body.map_err(|error| format!("the body of a response is incomplete: {error}"))?;
        answer.body = text(body)?;
        Ok(Some(answer))
    }

    /// Returns the next line of a body, without its end, or `None` at the end of the stream.
    pub fn line(&mut self) -> Result<Option<String>, Failure> {
        let mut line = Vec::new();
        loop {
            match self.take::<1>() {
                Ok([b'\n']) => return text(line).map(|line| Some(line.trim_end().to_owned())),
                Ok([byte]) => line.push(byte),
                Err(error) => return self.ended(&error).map(|()| None),
            }
        }
    }

    /// Returns the next message or control frame.
    pub fn receive(&mut self) -> Result<Received, Failure> {
        loop {
            let (first, payload) = match self.frame() {
                Ok(frame) => frame,
                Err(error) => return self.ended(&error).map(|()| Received::End),
            };
            let (is_final, opcode) = (first & 0x80 != 0, first & 0x0F);
            if first & 0x70 != 0 {
                return Err("a frame of the server has reserved bits".to_owned());
            }
            let (opcode, payload) = match (opcode, self.message.take()) {
                (8.., partial) => {
                    self.message = partial;
                    return control(opcode, payload);
                }
                (0, Some((opcode, begun))) => (opcode, [begun, payload].concat()),
                (1 | 2, None) => (opcode, payload),
                _ => return Err(format!("a frame of the server has the opcode {opcode}")),
            };
            match (is_final, opcode) {
                (false, _) => self.message = Some((opcode, payload)),
                (true, 1) => return text(payload).map(Received::Text),
                (true, _) => return Ok(Received::Binary(payload)),
            }
        }
    }

    fn frame(&mut self) -> io::Result<(u8, Vec<u8>)> {
        let [first, second] = self.take()?;
        let length = match second & 0x7F {
            126 => u16::from_be_bytes(self.take()?).into(),
            127 => u64::from_be_bytes(self.take()?),
            short => u64::from(short),
        };
        if second & 0x80 != 0 {
            return Err(io::Error::other("a frame of the server is masked"));
        }
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        self.take_bytes(length).map(|payload| (first, payload))
    }

    fn chunks(&mut self) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let mut size = Vec::new();
            while !size.ends_with(b"\r\n") {
                size.extend(self.take::<1>()?);
            }
            let digits = String::from_utf8_lossy(&size);
            let digits = digits.split(';').next().unwrap_or_default().trim();
            let size = usize::from_str_radix(digits, 16);
            let size = size.map_err(|_| io::Error::other("an invalid chunk size"))?;
            body.extend(self.take_bytes(size)?);
            self.take::<2>()?;
            if size == 0 {
                return Ok(body);
            }
        }
    }

    fn read_head(&mut self) -> Result<String, Failure> {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            match self.take::<1>() {
                Ok([byte]) => head.push(byte),
                Err(error) => {
                    self.ended(&error)?;
                    break;
                }
            }
        }
        text(head)
    }

    /// Records the end of the stream. Other errors are failures of the server.
    fn ended(&mut self, error: &io::Error) -> Result<(), Failure> {
        self.was_reset = error.kind() == ErrorKind::ConnectionReset;
        match error.kind() {
            _ if is_timeout(error) => {
                let seconds = self.patience.as_secs();
                Err(format!("no answer within {seconds} s"))
            }
            ErrorKind::UnexpectedEof if !self.buffer.is_empty() => {
                Err("the stream ended within a frame or a line".to_owned())
            }
            ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset => Ok(()),
            _ => Err(error.to_string()),
        }
    }

    fn take<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let bytes = self.take_bytes(N)?;
        bytes
            .try_into()
            .map_err(|_| ErrorKind::UnexpectedEof.into())
    }

    fn take_bytes(&mut self, count: usize) -> io::Result<Vec<u8>> {
        if count > MAX_LENGTH {
            return Err(io::Error::other("the server announces more than 16 MiB"));
        }
        while self.buffer.len() < count {
            self.fill()?;
        }
        Ok(self.buffer.drain(..count).collect())
    }

    fn fill(&mut self) -> io::Result<()> {
        let mut chunk = [0; 16_384];
        match self.stream.read(&mut chunk)? {
            0 => Err(ErrorKind::UnexpectedEof.into()),
            read => {
                self.buffer.extend_from_slice(&chunk[..read]);
                Ok(())
            }
        }
    }
}

fn control(opcode: u8, payload: Vec<u8>) -> Result<Received, Failure> {
    match (opcode, payload.as_slice()) {
        (8, []) => Ok(Received::Close(None)),
        (8, [high, low, reason @ ..]) => {
            let code = u16::from_be_bytes([*high, *low]);
            Ok(Received::Close(Some((code, text(reason.to_vec())?))))
        }
        (9, _) => Ok(Received::Ping(payload)),
        (10, _) => Ok(Received::Pong(payload)),
        _ => Err(format!("an invalid control frame with the opcode {opcode}")),
    }
}

fn text(bytes: Vec<u8>) -> Result<String, Failure> {
    String::from_utf8(bytes).map_err(|_| "the server sent text that is not UTF-8".to_owned())
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::TimedOut | ErrorKind::WouldBlock)
}

/// The maximum length of a frame or body of the server, in bytes.
const MAX_LENGTH: usize = 16 << 20;
