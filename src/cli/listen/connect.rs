//! Establishes a connection: socket, TLS if requested, and WebSocket handshake. Owns the timeouts
//! of these steps. Must not know the messages.

use std::io::{self, ErrorKind, Read, Write as _};
use std::net::{TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use serde::Deserialize;
use tungstenite::WebSocket;
use tungstenite::handshake::client::generate_key;
use tungstenite::protocol::{Role, WebSocketConfig};

use super::connect_error::{ConnectError, STEP_TIMEOUT, io_reason};
use super::handshake::{self, BadResponse, ResponseHead};
use super::meter::{MAX_MESSAGE, MeteredStream};
use super::options::ListenOptions;
use super::retry::retry_after;
use super::server_url::{ServerAddress, ServerUrl, Transport};
use super::stream::{ClientStream, DeadlineStream};
use crate::cli::sanitize::printable;
use crate::exit::Exit;
use crate::model::unix_now;

/// A connection after its handshake.
pub(super) type Socket = WebSocket<MeteredStream>;

/// Makes one attempt to connect. The messages `opening` must fit the write buffer.
pub(super) fn connect(options: &ListenOptions, opening: &[String]) -> Result<Socket, ConnectError> {
    let socket = upgrade(options, opening, open_stream(options)?)?;
    let quick = socket.get_ref().set_nonblocking();
    quick.map_err(|error| ConnectError::temporary(io_reason(&error)))?;
    Ok(socket)
}

/// Opens the connection to the server, with TLS if the URL requires it.
pub(super) fn open_stream(options: &ListenOptions) -> Result<Box<dyn ClientStream>, ConnectError> {
    match &options.target.address {
        ServerAddress::Unix(path) => match UnixStream::connect(path) {
            Ok(stream) => Ok(Box::new(stream)),
            Err(error) => Err(ConnectError::temporary(connect_failed(
                &path.display(),
                &error,
            ))),
        },
        ServerAddress::Tcp { host, port } => Ok(Box::new(dial(host, *port)?)),
        ServerAddress::Tls { host, port } => {
            let Some(trust) = &options.trust else {
                return Err(ConnectError::Mismatch("TLS is not configured".to_owned()));
            };
            let tcp = dial(host, *port)?;
            trust.handshake(
                tcp,
                host,
                &options.target.endpoint(),
                Instant::now() + STEP_TIMEOUT,
            )
        }
    }
}

/// Connects to the first address of `host` that accepts a connection.
fn dial(host: &str, port: u16) -> Result<TcpStream, ConnectError> {
    let addresses = (host, port).to_socket_addrs().map_err(|error| {
        let error = printable(&error.to_string());
        ConnectError::temporary(format!(
            "cannot resolve the host {host}: {error}; check the name in the URL and the name \
             resolution of this host"
        ))
    })?;
    let mut failure = format!("the host {host} has no IP address");
    for address in addresses {
        let made = TcpStream::connect_timeout(&address, STEP_TIMEOUT)
            .and_then(|stream| stream.set_nodelay(true).map(|()| stream));
        match made {
            Ok(stream) => return Ok(stream),
            Err(error) => failure = connect_failed(&address, &error),
        }
    }
    Err(ConnectError::temporary(failure))
}

fn connect_failed(endpoint: &dyn std::fmt::Display, error: &io::Error) -> String {
    let reason = io_reason(error);
    match error.kind() {
        ErrorKind::ConnectionRefused | ErrorKind::NotFound => {
            format!("cannot connect to {endpoint}: {reason}; check that the server is running")
        }
        _ => format!("cannot connect to {endpoint}: {reason}"),
    }
}

fn upgrade(
    options: &ListenOptions,
    opening: &[String],
    mut stream: Box<dyn ClientStream>,
) -> Result<Socket, ConnectError> {
    let key = generate_key();
    let request = handshake::request(&options.target.request, &key, options.token.as_ref());
    let (head, rest) = exchange(&mut *stream, &request, 101, &options.target)?;
    head.check_upgrade(&key).map_err(ConnectError::Mismatch)?;
    Ok(WebSocket::from_partially_read(
        MeteredStream::new(stream),
        rest,
        Role::Client,
        Some(limits(opening)),
    ))
}

/// Sends a request, and reads the head of its response. Returns the head, and the bytes that follow
/// it. A response with another status than `expected` is a rejection.
pub(super) fn exchange(
    stream: &mut dyn ClientStream,
    request: &[u8],
    expected: u16,
    target: &ServerUrl,
) -> Result<(ResponseHead, Vec<u8>), ConnectError> {
    let mut timed = DeadlineStream {
        stream,
        deadline: Instant::now() + STEP_TIMEOUT,
    };
    let sent = timed.write_all(request).and_then(|()| timed.flush());
    let answer = sent
        .map_err(BadResponse::from)
        .and_then(|()| handshake::read_head(&mut timed));
    let (head, rest) = answer.map_err(|bad| bad_response(bad, target))?;
    if head.status == expected {
        return Ok((head, rest));
    }
    timed.deadline = timed.deadline.min(Instant::now() + BODY_TIMEOUT);
    let body = read_body(&head, rest, &mut timed);
    Err(rejection(&head, &body, target))
}

/// Returns the limits of the WebSocket library's buffers. The opening messages must fit completely.
/// Only pongs are written after them, and the library keeps the latest pong if there is no room.
fn limits(opening: &[String]) -> WebSocketConfig {
    let opening: usize = opening
        .iter()
        .map(|message| message.len() + MAX_FRAME_HEADER)
        .sum();
    WebSocketConfig::default()
        .write_buffer_size(WRITE_BUFFER)
        .max_write_buffer_size(opening + 2 * WRITE_BUFFER)
        .max_message_size(Some(MAX_MESSAGE))
        .max_frame_size(Some(MAX_MESSAGE))
}

fn bad_response(bad: BadResponse, target: &ServerUrl) -> ConnectError {
    let endpoint = target.endpoint();
    match bad {
        BadResponse::Io(error) => ConnectError::temporary(io_reason(&error)),
        BadResponse::Tls => ConnectError::Mismatch(requires_tls(&endpoint)),
        BadResponse::NotHttp { problem, excerpt } => ConnectError::Mismatch(match excerpt {
            Some(excerpt) => format!("{problem}: {excerpt}"),
            None => problem,
        }),
        BadResponse::Ended { is_empty: false } => ConnectError::temporary(format!(
            "{endpoint} closed the connection before the end of its response"
        )),
        BadResponse::Ended { is_empty: true } => {
            let hint = match target.address {
                ServerAddress::Tcp { .. } => " (if it requires TLS, use wss://)",
                ServerAddress::Tls { .. } | ServerAddress::Unix(_) => "",
            };
            ConnectError::temporary(format!(
                "{endpoint} closed the connection without a response{hint}"
            ))
        }
    }
}

fn requires_tls(endpoint: &str) -> String {
    format!("the server at {endpoint} requires TLS: use wss://")
}

/// Reads the body of a rejection, as far as it arrives in time. Its reason is useful, but not
/// required.
fn read_body(head: &ResponseHead, mut body: Vec<u8>, stream: &mut dyn Read) -> Vec<u8> {
    let length = head.value("Content-Length");
    let length = length.and_then(|length| length.parse().ok());
    let most = length.unwrap_or(MAX_BODY).min(MAX_BODY);
    let mut chunk = [0; 1024];
    while body.len() < most {
        match stream.read(&mut chunk) {
            Ok(0) | Err(_) => break,
            Ok(count) => body.extend_from_slice(chunk.get(..count).unwrap_or_default()),
        }
    }
    body
}

/// Interprets a response with an unexpected status. Redirects are not followed: the token is intended for the
/// server that the user named, not for one that this server names.
fn rejection(head: &ResponseHead, body: &[u8], target: &ServerUrl) -> ConnectError {
    let (status, name) = (head.status, &target.name);
    if status == 400 && matches!(target.address, ServerAddress::Tcp { .. }) && is_about_tls(body) {
        return ConnectError::Mismatch(requires_tls(&target.endpoint()));
    }
    let described = reason_of(body);
    if status == 400
        && target.transport == Transport::Sse
        && let Some(rejected) = &described
        && rejected.error.as_deref() == Some("invalid_cursor")
    {
        return ConnectError::InvalidCursor(printable(&rejected.reason));
    }
    let detail = match (head.value("Location"), described) {
        (Some(location), _) => format!("see {location}"),
        (None, Some(rejected)) => rejected.reason,
        (None, None) => head.reason().to_owned(),
    };
    let reason = printable(&format!("{name} responded with {status} {detail}"));
    match status {
        // The parameters of the request are those of the command.
        400 if target.transport == Transport::Sse => {
            ConnectError::Permanent(Exit::new(Exit::USAGE, reason))
        }
        401 | 403 => ConnectError::Permanent(Exit::new(Exit::NO_PERMISSION, reason)),
        408 | 425 | 429 | 500.. => {
            let after = head.value("Retry-After");
            let after = after.and_then(|value| retry_after(value, unix_now()));
            ConnectError::Temporary { reason, after }
        }
        _ => ConnectError::Permanent(Exit::new(Exit::UNAVAILABLE, reason)),
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

/// The body of a rejection in h's format.
#[derive(Deserialize)]
struct RejectionBody {
    #[serde(default)]
    error: Option<String>,
    reason: String,
}

/// Parses the body of a rejection. Chunk sizes around the JSON are skipped.
fn reason_of(body: &[u8]) -> Option<RejectionBody> {
    let start = body.iter().position(|&byte| byte == b'{')?;
    let end = body.iter().rposition(|&byte| byte == b'}')?;
    serde_json::from_slice(body.get(start..=end)?).ok()
}

/// The timeout for the body of a rejection.
const BODY_TIMEOUT: Duration = Duration::from_secs(2);
/// In bytes.
const MAX_BODY: usize = 8 * 1024;
/// The maximum size of a client's frame header with its mask, in bytes.
const MAX_FRAME_HEADER: usize = 14;
/// The size of each write buffer for a server that does not read, in bytes: this much before the
/// first write is attempted, and as much again after it.
const WRITE_BUFFER: usize = 16 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn rejection_of(answer: &str, body: &str) -> ConnectError {
        rejection_over(Transport::WebSocket, answer, body)
    }

    fn rejection_over(transport: Transport, answer: &str, body: &str) -> ConnectError {
        let answer = format!("HTTP/1.1 {answer}\r\n\r\n");
        let (head, _) = handshake::read_head(&mut answer.as_bytes()).expect("a head");
        let target = ServerUrl::parse("ws://h.example/ws", transport).expect("a URL");
        rejection(&head, body.as_bytes(), &target)
    }

    #[test]
    fn bad_request_for_events_is_a_usage_error_or_an_invalid_cursor() {
        for (error, code) in [("bad_request", Some(Exit::USAGE)), ("invalid_cursor", None)] {
            let body = format!(r#"{{"ok":false,"error":"{error}","reason":"the reason"}}"#);
            let (found, text) = match rejection_over(Transport::Sse, "400 No", &body) {
                ConnectError::Permanent(exit) => (Some(exit.code), exit.message),
                ConnectError::InvalidCursor(text) => (None, text),
                other => panic!("{other:?}"),
            };
            assert_eq!(found, code, "{error}");
            assert!(text.ends_with("the reason"), "{text}");
        }
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
            let found = match rejection_of(&status.to_string(), "") {
                ConnectError::Permanent(exit) => Some(exit.code),
                ConnectError::Temporary { .. } => None,
                other => panic!("{other:?}"),
            };
            assert_eq!(found, code, "{status}");
        }
    }

    #[test]
    fn response_yields_retry_after_and_tls_hint() {
        let ConnectError::Temporary { after, reason } =
            rejection_of("503 Busy\r\nRetry-After: 7", "")
        else {
            panic!("503 is for now");
        };
        assert_eq!(after, Some(Duration::from_secs(7)));
        assert_eq!(
            reason,
            "ws://h.example/ws responded with 503 Service Unavailable"
        );
        let html = "<html>400 The plain HTTP request was sent to HTTPS port</html>";
        let ConnectError::Mismatch(reason) = rejection_of("400 Bad Request", html) else {
            panic!("it requires TLS");
        };
        assert_eq!(
            reason,
            "the server at h.example:80 requires TLS: use wss://"
        );
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
            let found = reason_of(body).map(|rejected| rejected.reason);
            assert_eq!(found.as_deref(), reason);
        }
    }
}
