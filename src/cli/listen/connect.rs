//! Makes one connection: socket, TLS where asked for, the WebSocket handshake. Owns the
//! timeouts of the sockets; knows nothing of the messages that go over them.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use serde::Deserialize;
use tungstenite::client::IntoClientRequest;
use tungstenite::handshake::HandshakeError;
use tungstenite::http::header::{AUTHORIZATION, LOCATION};
use tungstenite::{Error, WebSocket};

use super::Plan;
use super::target::Way;
use crate::cli::exit::Exit;
use crate::cli::text::printable;

/// A connection after its handshake.
pub(super) type Socket = WebSocket<Box<dyn Stream>>;

/// Whatever a WebSocket can go over.
pub(super) trait Stream: Read + Write {
    /// Sets how long one read and one write may take.
    fn set_patience(&self, read: Duration, write: Duration) -> io::Result<()>;
}

impl Stream for TcpStream {
    fn set_patience(&self, read: Duration, write: Duration) -> io::Result<()> {
        self.set_read_timeout(Some(read))?;
        self.set_write_timeout(Some(write))
    }
}

impl Stream for UnixStream {
    fn set_patience(&self, read: Duration, write: Duration) -> io::Result<()> {
        self.set_read_timeout(Some(read))?;
        self.set_write_timeout(Some(write))
    }
}

/// Why there is no connection.
#[derive(Debug)]
pub(super) enum Refused {
    /// Trying again can do no good.
    Final(Exit),
    /// It may be better later; the reason, for a person.
    ForNow(String),
}

impl From<io::Error> for Refused {
    fn from(error: io::Error) -> Self {
        Refused::ForNow(io_reason(&error))
    }
}

/// Connects once.
pub(super) fn connect(plan: &Plan) -> Result<Socket, Refused> {
    let stream: Box<dyn Stream> = match &plan.target.way {
        Way::Unix(path) => Box::new(UnixStream::connect(path)?),
        Way::Tcp { host, port } => Box::new(dial(host, *port)?),
        Way::Tls { host, port } => {
            let Some(trust) = &plan.trust else {
                return Err(Refused::ForNow("TLS is not set up".to_owned()));
            };
            let tcp = dial(host, *port)?;
            tcp.set_patience(ANSWER, ANSWER)?;
            trust.wrap(tcp, host).map_err(Refused::ForNow)?
        }
    };
    stream.set_patience(ANSWER, ANSWER)?;
    let socket = handshake(plan, stream)?;
    socket.get_ref().set_patience(SILENCE, ANSWER)?;
    Ok(socket)
}

/// The first address of `host` that answers.
fn dial(host: &str, port: u16) -> io::Result<TcpStream> {
    let mut failure = io::Error::new(ErrorKind::NotFound, "the host has no address");
    for address in (host, port).to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, ANSWER) {
            Ok(stream) => {
                stream.set_nodelay(true)?;
                return Ok(stream);
            }
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

fn handshake(plan: &Plan, stream: Box<dyn Stream>) -> Result<Socket, Refused> {
    let usage = |error: Error| Refused::Final(Exit::new(Exit::USAGE, error));
    let mut request = (&plan.target.request)
        .into_client_request()
        .map_err(usage)?;
    if let Some(token) = &plan.token {
        request.headers_mut().insert(AUTHORIZATION, token.clone());
    }
    match tungstenite::client::client_with_config(request, stream, None) {
        Ok((socket, _)) => Ok(socket),
        Err(HandshakeError::Interrupted(_)) => Err(Refused::ForNow(unanswered())),
        Err(HandshakeError::Failure(Error::Http(response))) => {
            let status = response.status();
            let location = response.headers().get(LOCATION);
            // The library has of the body only what came together with the head.
            let body = response.body().as_deref().unwrap_or_default();
            let said = match location.and_then(|value| value.to_str().ok()) {
                Some(location) => format!("see {location}"),
                None => reason_of(body)
                    .unwrap_or_else(|| status.canonical_reason().unwrap_or("").to_owned()),
            };
            Err(judge(status.as_u16(), &said, &plan.target.name))
        }
        Err(HandshakeError::Failure(Error::Io(error))) => Err(error.into()),
        Err(HandshakeError::Failure(error)) => Err(Refused::ForNow(printable(&error.to_string()))),
    }
}

/// What an answer other than 101 means. Redirections are not followed: the token is for the
/// server that a person named, not for one that this server names.
fn judge(status: u16, said: &str, name: &str) -> Refused {
    let message = printable(&format!("{name} answers {status} {said}"));
    match status {
        401 | 403 => Refused::Final(Exit::new(Exit::NO_PERMISSION, message)),
        408 | 425 | 429 | 500.. => Refused::ForNow(message),
        _ => Refused::Final(Exit::new(Exit::UNAVAILABLE, message)),
    }
}

/// The reason in the body of a refusal as h words it.
fn reason_of(body: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Refusal {
        reason: String,
    }
    let refusal: Refusal = serde_json::from_slice(body).ok()?;
    Some(refusal.reason)
}

/// What a failing socket says, for a person.
pub(super) fn io_reason(error: &io::Error) -> String {
    match error.kind() {
        // The name that the system has for a timeout on a blocking socket.
        ErrorKind::WouldBlock | ErrorKind::TimedOut => unanswered(),
        _ => printable(&error.to_string()),
    }
}

fn unanswered() -> String {
    format!("no answer within {} s", ANSWER.as_secs())
}

/// For every single step of connecting.
const ANSWER: Duration = Duration::from_secs(10);

/// A connection on which nothing at all was heard for so long is dead: servers of this API send
/// a heartbeat every 30 s.
pub(super) const SILENCE: Duration = Duration::from_secs(90);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_final_where_asking_again_is_no_use() {
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
            let found = match judge(status, "", "ws://h.example/ws") {
                Refused::Final(exit) => Some(exit.code),
                Refused::ForNow(_) => None,
            };
            assert_eq!(found, code, "{status}");
        }
    }

    #[test]
    fn the_reason_of_a_refusal_is_found_where_there_is_one() {
        for (body, reason) in [
            (
                &br#"{"ok": false, "reason": "no such token"}"#[..],
                Some("no such token"),
            ),
            (br#"{"reason": 1}"#, None),
            (b"<html>", None),
            (b"", None),
        ] {
            assert_eq!(reason_of(body).as_deref(), reason);
        }
    }
}
