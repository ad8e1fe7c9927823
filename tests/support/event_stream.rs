//! A client of event streams for tests, which interprets them as browsers do (WHATWG HTML, "Server-sent
//! events").

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};

use serde_json::Value;

use super::{PATIENCE, Server};

/// An open event stream.
pub struct EventStream<S = TcpStream> {
    pub stream: S,
    /// The head of the response.
    pub head: String,
    /// The id that a browser would send when it reconnects.
    pub last_event_id: String,
    /// The last reconnection time, in milliseconds.
    pub retry: Option<u64>,
    buffer: Vec<u8>,
}

/// A block with data: the type and the data of an event.
pub type Event = (String, Value);

impl EventStream {
    /// Opens an event stream; `fields` are additional header fields, each with its CRLF.
    pub fn open(address: SocketAddr, query: &str, fields: &str) -> EventStream {
        let opened = EventStream::try_open(address, query, fields);
        assert_eq!(opened.status(), 200, "{}", opened.head);
        opened
    }

    /// Requests an event stream; the response may be a refusal.
    pub fn try_open(address: SocketAddr, query: &str, fields: &str) -> EventStream {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        EventStream::over(stream, query, fields)
    }
}

impl<S: Read + Write> EventStream<S> {
    /// Requests an event stream over a connected stream.
    pub fn over(mut stream: S, query: &str, fields: &str) -> Self {
        let request = format!("GET /sse?{query} HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        let mut opened = EventStream {
            stream,
            head: String::new(),
            last_event_id: String::new(),
            retry: None,
            buffer: Vec::new(),
        };
        opened.head = opened.read_until(b"\r\n\r\n").expect("a head");
        opened
    }

    pub fn status(&self) -> u16 {
        let status = self.head.split(' ').nth(1);
        status.and_then(|status| status.parse().ok()).unwrap_or(0)
    }

    /// Returns the fields of the next block; `None` at the end of the stream. An incomplete block at
    /// the end is an error of the server.
    pub fn block(&mut self) -> Option<Vec<(String, String)>> {
        let block = self.read_until(b"\n\n")?;
        let mut fields = Vec::new();
        let mut id = None;
        for line in block.lines().filter(|line| !line.is_empty()) {
            let (name, value) = line.split_once(':').unwrap_or((line, ""));
            let value = value.strip_prefix(' ').unwrap_or(value);
            match name {
                "id" => id = Some(value.to_owned()),
                "retry" => self.retry = Some(value.parse().unwrap()),
                "" | "event" | "data" => {}
                _ => panic!("{line}"),
            }
            fields.push((name.to_owned(), value.to_owned()));
        }
        if let Some(id) = id {
            self.last_event_id = id;
        }
        Some(fields)
    }

    /// Returns the next event; `None` at the end of the stream.
    pub fn event(&mut self) -> Option<Event> {
        loop {
            let fields = self.block()?;
            let of = |name: &str| fields.iter().rfind(|(field, _)| field == name);
            if let Some((_, data)) = of("data") {
                let kind = of("event").map_or("message", |(_, kind)| kind);
                return Some((kind.to_owned(), serde_json::from_str(data).unwrap()));
            }
        }
    }

    /// Reads until a block has set an id, so that the position of the client is known.
    pub fn wait_for_position(&mut self) -> String {
        while self.last_event_id.is_empty() {
            self.block().expect("a position");
        }
        self.last_event_id.clone()
    }

    /// Asserts that the stream has ended without a reset.
    pub fn expect_end(&mut self) {
        assert_eq!(self.block(), None);
    }

    fn read_until(&mut self, end: &[u8]) -> Option<String> {
        loop {
            if let Some(at) = self
                .buffer
                .windows(end.len())
                .position(|window| window == end)
            {
                let rest = self.buffer.split_off(at + end.len());
                let taken = std::mem::replace(&mut self.buffer, rest);
                return Some(String::from_utf8(taken).unwrap());
            }
            let mut bytes = [0; 16 * 1024];
            match self.stream.read(&mut bytes) {
                Ok(0) => break,
                Ok(count) => self.buffer.extend_from_slice(&bytes[..count]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => panic!("{error}: {:?}", String::from_utf8_lossy(&self.buffer)),
            }
        }
        let rest = String::from_utf8_lossy(&self.buffer);
        assert_eq!(rest, "", "the stream ended in the middle of a block");
        None
    }
}

impl Server {
    /// Opens an event stream of an anonymous client.
    pub fn event_stream(&self, query: &str) -> EventStream {
        EventStream::open(self.address(), query, "")
    }
}
