//! Establishes a connection: socket, TLS if requested, and WebSocket handshake. Owns the timeouts
//! of these steps. Must not know the messages.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use serde::Deserialize;
use tungstenite::WebSocket;
use tungstenite::handshake::client::generate_key;
use tungstenite::protocol::{Role, WebSocketConfig};

use super::Plan;
use super::handshake::{self, BadAnswer, Head};
use super::meter::{LONGEST_MESSAGE, Metered};
use super::retry::retry_after;
use super::target::{Target, Way};
use crate::cli::exit::Exit;
use crate::cli::text::printable;
use crate::model::unix_now;

/// A connection after its handshake.
pub(super) type Socket = WebSocket<Metered>;

/// A transport for a WebSocket.
pub(super) trait Stream: Read + Write {
    /// Returns the socket, for `poll`.
    fn descriptor(&self) -> BorrowedFd<'_>;
    /// Sets the timeout of a single read and a single write.
    fn set_patience(&self, patience: Duration) -> io::Result<()>;
    /// Makes reads and writes non-blocking.
    fn set_nonblocking(&self) -> io::Result<()>;
}

impl Stream for TcpStream {
    fn descriptor(&self) -> BorrowedFd<'_> {
        self.as_fd()
    }

    fn set_patience(&self, patience: Duration) -> io::Result<()> {
        self.set_read_timeout(Some(patience))?;
        self.set_write_timeout(Some(patience))
    }

    fn set_nonblocking(&self) -> io::Result<()> {
        TcpStream::set_nonblocking(self, true)
    }
}

impl Stream for UnixStream {
    fn descriptor(&self) -> BorrowedFd<'_> {
        self.as_fd()
    }

    fn set_patience(&self, patience: Duration) -> io::Result<()> {
        self.set_read_timeout(Some(patience))?;
        self.set_write_timeout(Some(patience))
    }

    fn set_nonblocking(&self) -> io::Result<()> {
        UnixStream::set_nonblocking(self, true)
    }
}

/// A stream with one deadline for all reads and writes together.
pub(super) struct Until<'a, S: Stream + ?Sized> {
    pub stream: &'a mut S,
    pub deadline: Instant,
}

impl<S: Stream + ?Sized> Until<'_, S> {
    fn wait_no_longer(&self) -> io::Result<()> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(ErrorKind::TimedOut.into());
        }
        self.stream.set_patience(left)
    }
}

impl<S: Stream + ?Sized> Read for Until<'_, S> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.wait_no_longer()?;
        self.stream.read(buffer)
    }
}

impl<S: Stream + ?Sized> Write for Until<'_, S> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.wait_no_longer()?;
        self.stream.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.wait_no_longer()?;
        self.stream.flush()
    }
}

/// The reason why there is no connection.
#[derive(Debug)]
pub(super) enum Refused {
    /// Trying again is useless.
    Final(Exit),
    /// The server does not match the URL, for this human-readable reason. Final, unless a
    /// connection has succeeded before: the server may be under repair.
    Unfit(String),
    /// A later attempt may succeed.
    ForNow {
        /// A human-readable reason.
        reason: String,
        /// The minimum time to wait, if the server specifies one.
        after: Option<Duration>,
    },
}

impl Refused {
    pub(super) fn for_now(reason: String) -> Self {
        Refused::ForNow {
            reason,
            after: None,
        }
    }
}

/// Makes one attempt to connect.
pub(super) fn connect(plan: &Plan) -> Result<Socket, Refused> {
    let stream: Box<dyn Stream> = match &plan.target.way {
        Way::Unix(path) => match UnixStream::connect(path) {
            Ok(stream) => Box::new(stream),
            Err(error) => return Err(Refused::for_now(unconnected(&path.display(), &error))),
        },
        Way::Tcp { host, port } => Box::new(dial(host, *port)?),
        Way::Tls { host, port } => {
            let Some(trust) = &plan.trust else {
                return Err(Refused::Unfit("TLS is not set up".to_owned()));
            };
            let tcp = dial(host, *port)?;
            trust.wrap(tcp, host, &plan.target.place(), Instant::now() + ANSWER)?
        }
    };
    let socket = upgrade(plan, stream)?;
    let quick = socket.get_ref().set_nonblocking();
    quick.map_err(|error| Refused::for_now(io_reason(&error)))?;
    Ok(socket)
}

/// Connects to the first address of `host` that accepts a connection.
fn dial(host: &str, port: u16) -> Result<TcpStream, Refused> {
    let addresses = (host, port).to_socket_addrs().map_err(|error| {
        let error = printable(&error.to_string());
        Refused::for_now(format!(
            "cannot resolve the host {host}: {error}; check its name in the URL, and this \
             machine's name resolution"
        ))
    })?;
    let mut failure = format!("the host {host} has no address");
    for address in addresses {
        let made = TcpStream::connect_timeout(&address, ANSWER)
            .and_then(|stream| stream.set_nodelay(true).map(|()| stream));
        match made {
            Ok(stream) => return Ok(stream),
            Err(error) => failure = unconnected(&address, &error),
        }
    }
    Err(Refused::for_now(failure))
}

fn unconnected(place: &dyn std::fmt::Display, error: &io::Error) -> String {
    let reason = io_reason(error);
    match error.kind() {
        ErrorKind::ConnectionRefused | ErrorKind::NotFound => {
            format!("cannot connect to {place}: {reason}; is the server running there?")
        }
        _ => format!("cannot connect to {place}: {reason}"),
    }
}

fn upgrade(plan: &Plan, mut stream: Box<dyn Stream>) -> Result<Socket, Refused> {
    let key = generate_key();
    let request = handshake::request(&plan.target.request, &key, plan.token.as_ref());
    let mut timed = Until {
        stream: &mut *stream,
        deadline: Instant::now() + ANSWER,
    };
    let sent = timed.write_all(&request).and_then(|()| timed.flush());
    let answer = sent
        .map_err(BadAnswer::from)
        .and_then(|()| handshake::read_head(&mut timed));
    let (head, rest) = answer.map_err(|bad| unusable(bad, &plan.target))?;
    if head.status != 101 {
        timed.deadline = timed.deadline.min(Instant::now() + BODY);
        let body = read_body(&head, rest, &mut timed);
        return Err(judge(&head, &body, &plan.target));
    }
    head.check_upgrade(&key).map_err(Refused::Unfit)?;
    Ok(WebSocket::from_partially_read(
        Metered::new(stream),
        rest,
        Role::Client,
        Some(limits(&plan.opening)),
    ))
}

/// Returns the limits of the WebSocket library's buffers. The opening messages must fit completely.
/// Only pongs are written after them, and the library keeps the latest pong if there is no room.
fn limits(opening: &[String]) -> WebSocketConfig {
    let opening: usize = opening
        .iter()
        .map(|message| message.len() + LONGEST_HEADER)
        .sum();
    WebSocketConfig::default()
        .write_buffer_size(UNWRITTEN)
        .max_write_buffer_size(opening + 2 * UNWRITTEN)
        .max_message_size(Some(LONGEST_MESSAGE))
        .max_frame_size(Some(LONGEST_MESSAGE))
}

fn unusable(bad: BadAnswer, target: &Target) -> Refused {
    let place = target.place();
    match bad {
        BadAnswer::Io(error) => Refused::for_now(io_reason(&error)),
        BadAnswer::Tls => Refused::Unfit(speaks_tls(&place)),
        BadAnswer::NotHttp(text) => Refused::Unfit(text),
        BadAnswer::Ended { is_empty: false } => {
            Refused::for_now(format!("{place} closed the connection within its answer"))
        }
        BadAnswer::Ended { is_empty: true } => {
            let hint = match target.way {
                Way::Tcp { .. } => " (if it speaks TLS: use wss://)",
                Way::Tls { .. } | Way::Unix(_) => "",
            };
            Refused::for_now(format!(
                "{place} closed the connection without an answer{hint}"
            ))
        }
    }
}

fn speaks_tls(place: &str) -> String {
    format!("the server at {place} speaks TLS: use wss://")
}

/// Reads the body of a rejection, as far as it arrives in time. Its reason is useful, but not
/// required.
fn read_body(head: &Head, mut body: Vec<u8>, stream: &mut dyn Read) -> Vec<u8> {
    let length = head.value("Content-Length");
    let length = length.and_then(|length| length.parse().ok());
    let most = length.unwrap_or(LONGEST_BODY).min(LONGEST_BODY);
    let mut chunk = [0; 1024];
    while body.len() < most {
        match stream.read(&mut chunk) {
            Ok(0) | Err(_) => break,
            Ok(count) => body.extend_from_slice(chunk.get(..count).unwrap_or_default()),
        }
    }
    body
}

/// Interprets a response other than 101. Redirects are not followed: the token is intended for the
/// server that the user named, not for one that this server names.
fn judge(head: &Head, body: &[u8], target: &Target) -> Refused {
    let (status, name) = (head.status, &target.name);
    if status == 400 && matches!(target.way, Way::Tcp { .. }) && is_about_tls(body) {
        return Refused::Unfit(speaks_tls(&target.place()));
    }
    let said = match (head.value("Location"), reason_of(body)) {
        (Some(location), _) => format!("see {location}"),
        (None, Some(reason)) => reason,
        (None, None) => head.reason().to_owned(),
    };
    let reason = printable(&format!("{name} answers {status} {said}"));
    match status {
        401 | 403 => Refused::Final(Exit::new(Exit::NO_PERMISSION, reason)),
        408 | 425 | 429 | 500.. => {
            let after = head.value("Retry-After");
            let after = after.and_then(|value| retry_after(value, unix_now()));
            Refused::ForNow { reason, after }
        }
        _ => Refused::Final(Exit::new(Exit::UNAVAILABLE, reason)),
    }
}

/// Returns whether a server reports that it received plain text on a TLS port, in the wording of
/// nginx, Apache, and Go.
fn is_about_tls(body: &[u8]) -> bool {
    let text = String::from_utf8_lossy(body).to_ascii_lowercase();
    ["https port", "https server", "ssl-enabled server"]
        .iter()
        .any(|words| text.contains(words))
}

/// Extracts the reason from the body of a rejection in h's format. Chunk sizes around the JSON are
/// skipped.
fn reason_of(body: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Refusal {
        reason: String,
    }
    let start = body.iter().position(|&byte| byte == b'{')?;
    let end = body.iter().rposition(|&byte| byte == b'}')?;
    let refusal: Refusal = serde_json::from_slice(body.get(start..=end)?).ok()?;
    Some(refusal.reason)
}

/// Returns a human-readable reason for a socket error.
pub(super) fn io_reason(error: &io::Error) -> String {
    match error.kind() {
        // The error kind that the system uses for a timeout on a blocking socket.
        ErrorKind::WouldBlock | ErrorKind::TimedOut => {
            format!("no complete answer within {} s", ANSWER.as_secs())
        }
        _ => printable(&error.to_string()),
    }
}

/// The timeout of each step of connecting: TCP, TLS, and the upgrade.
const ANSWER: Duration = Duration::from_secs(10);
/// The timeout for the body of a rejection.
const BODY: Duration = Duration::from_secs(2);
/// In bytes.
const LONGEST_BODY: usize = 8 * 1024;
/// The maximum size of a client's frame header with its mask, in bytes.
const LONGEST_HEADER: usize = 14;
/// The size of each write buffer for a server that does not read, in bytes: this much before the
/// first write is attempted, and as much again after it.
const UNWRITTEN: usize = 16 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(answer: &str, body: &str) -> Refused {
        let answer = format!("HTTP/1.1 {answer}\r\n\r\n");
        let (head, _) = handshake::read_head(&mut answer.as_bytes()).expect("a head");
        let target = Target::parse("ws://h.example/ws").expect("a URL");
        judge(&head, body.as_bytes(), &target)
    }

    #[test]
    fn permanent_rejections_are_final() {
        for (status, code) in [
            (200, Some(Exit::UNAVAILABLE)),
            (301, Some(Exit::UNAVAILABLE)),
            (400, Some(Exit::UNAVAILABLE)),
            (401, Some(Exit::NO_PERMISSION)),
            (403, Some(Exit::NO_PERMISSION)),
            (404, Some(Exit::UNAVAILABLE)),
            (429, None),
            (500, None),
            (503, None),
            (999, None),
        ] {
            let found = match judged(&status.to_string(), "") {
                Refused::Final(exit) => Some(exit.code),
                Refused::ForNow { .. } => None,
                Refused::Unfit(reason) => panic!("{reason}"),
            };
            assert_eq!(found, code, "{status}");
        }
    }

    #[test]
    fn response_yields_retry_after_and_tls_hint() {
        let Refused::ForNow { after, reason } = judged("503 Busy\r\nRetry-After: 7", "") else {
            panic!("503 is for now");
        };
        assert_eq!(after, Some(Duration::from_secs(7)));
        assert_eq!(reason, "ws://h.example/ws answers 503 Service Unavailable");
        let html = "<html>400 The plain HTTP request was sent to HTTPS port</html>";
        let Refused::Unfit(reason) = judged("400 Bad Request", html) else {
            panic!("it speaks TLS");
        };
        assert_eq!(reason, "the server at h.example:80 speaks TLS: use wss://");
    }

    #[test]
    fn rejection_reason_is_extracted_from_body() {
        for (body, reason) in [
            (
                &br#"{"ok": false, "reason": "no such token"}"#[..],
                Some("no such token"),
            ),
            (b"10\r\n{\"reason\": \"no\"}\r\n0\r\n\r\n", Some("no")),
            (br#"{"reason": 1}"#, None),
            (b"<html>", None),
            (b"}{", None),
            (b"", None),
        ] {
            assert_eq!(reason_of(body).as_deref(), reason);
        }
    }
}
