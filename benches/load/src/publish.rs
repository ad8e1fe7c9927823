//! Publishers of events: an HTTP client that posts events, or a WebSocket client that sends a
//! message.

use std::io::{self, Read, Write};
use std::path::Path;

use mio::net::TcpStream;

use crate::Result;
use crate::cli::FanOut;
use crate::frames;
use crate::pool::{ConnPool, numbered};
use crate::target::resolve;

pub enum Publisher {
    /// The client at `index` sends this message.
    Client {
        index: usize,
        frame: Vec<u8>,
    },
    Http(Http),
}

/// A persistent connection that posts events.
pub struct Http {
    stream: TcpStream,
    /// The request head up to the value of `Content-Length`.
    head: String,
    event: String,
    answer: Vec<u8>,
}

impl Publisher {
    /// # Errors
    ///
    /// Returns an error if the publisher cannot connect.
    pub fn new(args: &FanOut, pool: &mut ConnPool) -> Result<Publisher> {
        let Some(url) = &args.publish else {
            let index = pool.open(1, 1, &[], 0)?;
            // Some servers echo a published message to its publisher, others do not.
            pool.conn(index)
                .ok_or("the publisher has disconnected")?
                .ignored = true;
            let text = args.payload.text();
            let frame = frames::encode(frames::TEXT, text.as_bytes(), pool.script.mask);
            return Ok(Publisher::Client { index, frame });
        };
        let event = args.event.clone().ok_or("--publish needs --event")?;
        let mut http = Http::new(url, args.key.as_deref(), event, args.common.allow_remote)?;
        pool.wake_for(&mut http.stream)?;
        Ok(Publisher::Http(http))
    }

    /// Returns the bytes that publish `burst` messages at once.
    pub fn prepare(&self, number: u64, burst: u64) -> Vec<u8> {
        match self {
            Publisher::Client { frame, .. } => (0..burst).flat_map(|_| frame.clone()).collect(),
            Publisher::Http(http) => http.request(number, burst),
        }
    }

    /// # Errors
    ///
    /// Returns the errors of the socket.
    pub fn send(&mut self, pool: &mut ConnPool, bytes: &[u8]) -> Result<()> {
        match self {
            Publisher::Client { index, .. } => {
                let conn = pool.conn(*index).ok_or("the publisher has disconnected")?;
                Ok(conn.send(bytes)?)
            }
            Publisher::Http(http) => {
                http.answer.clear();
                Ok(http.stream.write_all(bytes)?)
            }
        }
    }

    /// Returns whether the last request has been accepted.
    ///
    /// # Errors
    ///
    /// Returns an error if it was refused.
    pub fn is_accepted(&mut self) -> Result<bool> {
        match self {
            Publisher::Client { .. } => Ok(true),
            Publisher::Http(http) => http.is_accepted(),
        }
    }
}

impl Http {
    fn new(url: &str, key: Option<&Path>, event: String, allow_remote: bool) -> Result<Http> {
        let rest = url
            .strip_prefix("http://")
            .ok_or("--publish needs http://…")?;
        let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let address = resolve(host, 80, allow_remote)?;
        let authorization = match key {
            Some(file) => {
                let key = std::fs::read_to_string(file)?;
                format!("Authorization: Bearer {}\r\n", key.trim())
            }
            None => String::new(),
        };
        // Connected while still blocking, since nothing else has to be served yet.
        let stream = std::net::TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        Ok(Http {
            stream: TcpStream::from_std(stream),
            head: format!(
                "POST {path} HTTP/1.1\r\nHost: {host}\r\n{authorization}Content-Length: "
            ),
            event,
            answer: Vec::new(),
        })
    }

    fn request(&self, number: u64, burst: u64) -> Vec<u8> {
        let event = numbered(&self.event, number);
        let body = vec![event; usize::try_from(burst).unwrap_or_default()].join("\n");
        format!("{}{}\r\n\r\n{body}", self.head, body.len()).into_bytes()
    }

    fn is_accepted(&mut self) -> Result<bool> {
        let mut buffer = [0; 1024];
        match self.stream.read(&mut buffer) {
            Ok(0) => return Err("the publisher's connection was closed".into()),
            Ok(read) => self.answer.extend(&buffer[..read]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error.into()),
        }
        let text = String::from_utf8_lossy(&self.answer);
        let Some((head, body)) = text.split_once("\r\n\r\n") else {
            return Ok(false);
        };
        let length = head.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("content-length")
                .then(|| value.trim().parse::<usize>())
        });
        if body.len() < length.transpose()?.unwrap_or(0) {
            return Ok(false);
        }
        match head.split(' ').nth(1) {
            Some(status) if status.starts_with('2') => Ok(true),
            _ => Err(format!("the event was refused: {text}").into()),
        }
    }
}
