//! A non-blocking publisher that posts one event after the other over one connection.

use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::path::Path;

use mio::net::TcpStream;
use mio::{Interest, Registry, Token};

use crate::Result;
use crate::target::resolve;

/// The target and the key for publishing events.
#[derive(Clone)]
pub struct Endpoint {
    pub address: SocketAddr,
    host: String,
    authorization: String,
}

/// A connection to an [`Endpoint`].
pub struct Poster {
    endpoint: Endpoint,
    stream: TcpStream,
    unsent: Vec<u8>,
    answer: Vec<u8>,
}

impl Endpoint {
    /// Reads `http://HOST:PORT` of the admin interface and the file with the publish key.
    ///
    /// # Errors
    ///
    /// Returns an error if the URL does not point to this machine, or the file cannot be read.
    pub fn new(url: &str, key_file: Option<&Path>, allow_remote: bool) -> Result<Endpoint> {
        let host = url.strip_prefix("http://");
        let host = host.ok_or("--publish needs http://HOST:PORT")?;
        let host = host.trim_end_matches('/').trim_end_matches("/events");
        let authorization = match key_file {
            Some(file) => {
                let key = std::fs::read_to_string(file)
                    .map_err(|error| format!("{}: {error}", file.display()))?;
                format!("Authorization: Bearer {}\r\n", key.trim())
            }
            None => String::new(),
        };
        Ok(Endpoint {
            address: resolve(host, 80, allow_remote)?,
            host: host.to_owned(),
            authorization,
        })
    }

    /// Requests a page over a separate connection, with the key, and waits for the response.
    ///
    /// # Errors
    ///
    /// Returns an error if there is no response with status 200 within 30 seconds.
    pub fn get(&self, path: &str) -> Result<String> {
        let mut stream = std::net::TcpStream::connect(self.address)?;
        stream.set_read_timeout(Some(std::time::Duration::from_secs(30)))?;
        stream.write_all(self.get_request(path).as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        match answer.split_once("\r\n\r\n") {
            Some((head, body)) if head.starts_with("HTTP/1.1 200 ") => Ok(body.to_owned()),
            _ => Err(format!("{path}: {}", answer.lines().next().unwrap_or_default()).into()),
        }
    }

    /// Without the key, `/metrics` only has the metrics that do not depend on events.
    fn get_request(&self, path: &str) -> String {
        let Endpoint {
            host,
            authorization,
            ..
        } = self;
        format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n{authorization}Connection: close\r\n\r\n")
    }
}

impl Poster {
    /// Begins to connect.
    ///
    /// # Errors
    ///
    /// Returns the errors of the operating system.
    pub fn new(endpoint: Endpoint, registry: &Registry, token: Token) -> Result<Poster> {
        let mut stream = TcpStream::connect(endpoint.address)?;
        let both = Interest::READABLE | Interest::WRITABLE;
        registry.register(&mut stream, token, both)?;
        Ok(Poster {
            endpoint,
            stream,
            unsent: Vec::new(),
            answer: Vec::new(),
        })
    }

    /// Sends an event after the unsent bytes of earlier ones.
    ///
    /// # Errors
    ///
    /// Returns the errors of the socket.
    pub fn post(&mut self, event: &str) -> Result<()> {
        let Endpoint {
            host,
            authorization,
            ..
        } = &self.endpoint;
        let head = format!(
            "POST /events HTTP/1.1\r\nHost: {host}\r\n{authorization}Content-Length: {}\r\n\r\n",
            event.len()
        );
        self.unsent.extend(head.as_bytes());
        self.unsent.extend(event.as_bytes());
        self.flush()
    }

    /// Reads and writes as far as the socket is ready. Returns the status of a complete response.
    ///
    /// # Errors
    ///
    /// Returns an error if the connection has ended.
    pub fn ready(&mut self) -> Result<Option<u16>> {
        self.flush()?;
        let mut buffer = [0; 4096];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => return Err("the publisher's connection was closed".into()),
                Ok(read) => self.answer.extend(&buffer[..read]),
                Err(error) if is_retryable(&error) => break,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(take_response(&mut self.answer))
    }

    fn flush(&mut self) -> Result<()> {
        while !self.unsent.is_empty() {
            match self.stream.write(&self.unsent) {
                Ok(sent) => drop(self.unsent.drain(..sent)),
                Err(error) if is_retryable(&error) => break,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

/// Returns whether the operation can be retried: it would block, or the socket is still connecting.
fn is_retryable(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::NotConnected
    )
}

/// Removes a response from the received bytes and returns its status.
fn take_response(bytes: &mut Vec<u8>) -> Option<u16> {
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n")?;
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        let value = name.eq_ignore_ascii_case("content-length").then_some(value);
        value?.trim().parse::<usize>().ok()
    });
    let whole = end + 4 + length.unwrap_or(0);
    if bytes.len() < whole {
        return None;
    }
    bytes.drain(..whole);
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok());
    Some(status.unwrap_or(0))
}

/// Returns an event of a public annotation with a URI that ends in `number`.
pub fn event(number: u64, text: &str) -> String {
    format!(
        r#"{{"topic":"annotation","action":"create","annotation_id":"AAAAAREREeaAAAAAAAAAAQ","annotation":{{"id":"AAAAAREREeaAAAAAAAAAAQ","user":"acct:author@example.org","uri":"{URI}{number:06}","text":"{text}","permissions":{{"read":["group:__world__"]}}}}}}"#
    )
}

/// Returns the number of an event from a message about it.
pub fn event_number(message: &[u8]) -> Option<u64> {
    let uri = URI.as_bytes();
    let at = message
        .windows(uri.len())
        .position(|window| window == uri)?;
    let digits = message.get(at + uri.len()..at + uri.len() + 6)?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

const URI: &str = "https://hostile.example/";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn page_requests_carry_the_key() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("key");
        std::fs::write(&file, "secret\n").unwrap();
        let endpoint = Endpoint::new("http://127.0.0.1:1", Some(&file), false).unwrap();
        let request = endpoint.get_request("/metrics");
        assert!(
            request.contains("\r\nAuthorization: Bearer secret\r\n"),
            "{request}"
        );
    }

    #[test]
    fn responses_are_parsed_one_by_one() {
        let first = b"HTTP/1.1 202 Accepted\r\nContent-Length: 2\r\n\r\n{}";
        let second = b"HTTP/1.1 401 Unauthorized\r\ncontent-length: 0\r\n\r\n";
        let all = [&first[..], second].concat();
        let mut bytes = Vec::new();
        let mut statuses = Vec::new();
        for byte in all {
            bytes.push(byte);
            statuses.extend(take_response(&mut bytes));
        }
        assert_eq!((statuses, bytes), (vec![202, 401], Vec::new()));
    }

    #[test]
    fn events_are_json_and_carry_their_number() {
        let event = event(12, "some text");
        serde_json::from_str::<serde_json::Value>(&event).unwrap();
        assert_eq!(event_number(event.as_bytes()), Some(12));
        assert_eq!(event_number(b"{}"), None);
    }
}
