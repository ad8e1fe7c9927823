//! Client of the admin listener: finding its address and key, sending events, and interpreting the
//! responses.

use std::cell::Cell;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;
use ureq::http::header::{AUTHORIZATION, CONTENT_TYPE};
use ureq::http::{HeaderValue, Response, Uri};
use ureq::{Agent, Body};

use super::unix::{NoResolver, UnixConnector};
use crate::backend::advice::about;
use crate::cli::sanitize::printable;
use crate::exit::Exit;

/// The admin listener of one server. Keeps the connection between requests.
pub(in crate::cli) struct AdminClient {
    agent: Agent,
    url: String,
    /// The path of the socket, for a Unix socket.
    socket: Option<PathBuf>,
    key: HeaderValue,
    /// Whether the agent may have kept a connection from an earlier request.
    may_reuse: Cell<bool>,
}

impl AdminClient {
    /// Finds the address and the key: the given ones, or else those that the server left in `data`.
    pub(in crate::cli) fn find(
        data: &Path,
        address: Option<&str>,
        key: Option<String>,
    ) -> Result<Self, Exit> {
        let AdminEndpoint { url, socket } = match address {
            Some(address) => endpoint(address)
                .map_err(|reason| Exit::new(Exit::USAGE, format!("--admin: {reason}")))?,
            None => {
                let file = data.join("admin.address");
                let address = read(&file, "no server is using this data directory")?;
                endpoint(&address).map_err(|reason| {
                    Exit::new(Exit::CONFIG, format!("{}: {reason}", file.display()))
                })?
            }
        };
        let key = match key {
            Some(key) => key,
            None => read(
                &data.join("publish.key"),
                "the server creates it at its first start",
            )?,
        };
        let mut key = HeaderValue::try_from(format!("Bearer {}", key.trim())).map_err(|_| {
            Exit::new(
                Exit::NO_PERMISSION,
                "the publish key contains invalid characters",
            )
        })?;
        key.set_sensitive(true);
        // Proxy variables of the environment are ignored: the key is only for the server on this
        // machine.
        let config = Agent::config_builder()
            .proxy(None)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .http_status_as_error(false)
            .timeout_global(Some(RESPONSE_TIMEOUT))
            .build();
        let agent = match &socket {
            Some(path) => Agent::with_parts(config, UnixConnector(path.clone()), NoResolver),
            None => config.into(),
        };
        Ok(AdminClient {
            agent,
            url,
            socket,
            key,
            may_reuse: Cell::new(false),
        })
    }

    /// Publishes one event. Returns the number of connections that it matched.
    pub(super) fn send(&self, event: String) -> Result<u64, Exit> {
        let (status, body) = self.request("events", &event)?;
        parse_response(status, &body)
    }

    /// Requests an explanation, and returns the answer.
    pub(in crate::cli) fn explain(&self, request: &str) -> Result<Value, Exit> {
        let (status, body) = self.request("explain", request)?;
        match (status, serde_json::from_str(&body)) {
            (200, Ok(answer @ Value::Object(_))) => Ok(answer),
            _ => Err(refused(status, &body, "not explained: ")),
        }
    }

    /// Sends a request, and returns the status and the body of the response.
    fn request(&self, name: &str, body: &str) -> Result<(u16, String), Exit> {
        let mut result = self.post(name, body);
        // The server may close an idle connection while a request is in transit, but it answers
        // every request that it has read. RFC 9110 §9.2.2 allows a retry with "some means to detect
        // that the original request was never applied". A new connection is not idle.
        let was_reused = self.may_reuse.replace(result.is_ok());
        if was_reused && result.as_ref().is_err_and(closed_before_response) {
            result = self.post(name, body);
            self.may_reuse.set(result.is_ok());
        }
        let mut response = result.map_err(|error| self.transport_failed(&error))?;
        // The body is always read to its end, since the connection cannot be reused otherwise.
        let body = response
            .body_mut()
            .with_config()
            .limit(MAX_RESPONSE)
            .read_to_string()
            .map_err(|error| self.transport_failed(&error))?;
        Ok((response.status().as_u16(), body))
    }

    fn post(&self, name: &str, body: &str) -> Result<Response<Body>, ureq::Error> {
        let request = self
            .agent
            .post(format!("{}{name}", self.url))
            .header(AUTHORIZATION, self.key.clone())
            .header(CONTENT_TYPE, "application/json");
        request.send(body)
    }

    fn transport_failed(&self, error: &ureq::Error) -> Exit {
        let text = error.to_string();
        let reason = printable(&text);
        // The library's error, and the system's, which has no error kind of its own.
        if matches!(error, ureq::Error::HostNotFound) || text.contains("failed to lookup address") {
            let uri = self.url.parse::<Uri>();
            let host = uri.as_ref().ok().and_then(Uri::host).unwrap_or(&self.url);
            let message = format!(
                "cannot resolve the host {host}: {reason}; check the name in --admin and the name \
                 resolution of this host"
            );
            return Exit::new(Exit::UNAVAILABLE, message);
        }
        let endpoint = match &self.socket {
            Some(path) => format!("unix:{}", path.display()),
            None => self.url.clone(),
        };
        match (&self.socket, error) {
            (Some(_), ureq::Error::Io(cause)) if cause.kind() == ErrorKind::PermissionDenied => {
                let help = "run this as root or as the server's user, or give access to one of your groups \
                            with socket.admin_group and socket.admin_mode = \"0660\"";
                Exit::new(Exit::NO_PERMISSION, format!("{endpoint}: {reason}; {help}"))
            }
            _ => Exit::new(
                Exit::UNAVAILABLE,
                format!(
                    "no response from {endpoint}: {reason}; check that `h-realtime serve` is running"
                ),
            ),
        }
    }
}

/// The endpoint to send requests to.
#[derive(Debug, PartialEq, Eq)]
struct AdminEndpoint {
    /// Ends with a slash.
    url: String,
    /// The socket to request the URL from. `None` means the host of the URL.
    socket: Option<PathBuf>,
}

/// Returns whether a connection ended before the response.
fn closed_before_response(error: &ureq::Error) -> bool {
    let ureq::Error::Io(error) = error else {
        return false;
    };
    matches!(
        error.kind(),
        ErrorKind::UnexpectedEof
            | ErrorKind::ConnectionReset
            | ErrorKind::ConnectionAborted
            | ErrorKind::BrokenPipe
    )
}

/// Parses an admin address, as given by a user or written by the server.
fn endpoint(address: &str) -> Result<AdminEndpoint, String> {
    let address = address.trim();
    let expected = || {
        let found = printable(address);
        format!("expected http://HOST:PORT/ or unix:/path/to.sock, found {found}")
    };
    if let Some(path) = address.strip_prefix("unix:") {
        if path.is_empty() {
            return Err(expected());
        }
        return Ok(AdminEndpoint {
            url: "http://localhost/".to_owned(),
            socket: Some(path.into()),
        });
    }
    let authority = address.strip_prefix("http://").unwrap_or(address);
    let authority = authority.strip_suffix('/').unwrap_or(authority);
    if authority.is_empty() || authority.contains(['/', '?', '#', '@']) {
        return Err(expected());
    }
    let url = format!("http://{authority}/");
    match url.parse::<Uri>() {
        Ok(uri) if uri.host().is_some_and(|host| !host.is_empty()) => {
            Ok(AdminEndpoint { url, socket: None })
        }
        _ => Err(expected()),
    }
}

/// Reads a file of the data directory. The error describes the problem.
fn read(file: &Path, absent: &str) -> Result<String, Exit> {
    fs::read_to_string(file).map_err(|error| {
        let name = file.display();
        match error.kind() {
            ErrorKind::NotFound => {
                let help =
                    "start a server with `h-realtime serve`, or give its directory with --data";
                Exit::new(
                    Exit::UNAVAILABLE,
                    format!("{name} does not exist: {absent}; {help}"),
                )
            }
            ErrorKind::PermissionDenied => Exit::new(Exit::NO_PERMISSION, about(file, &error)),
            _ => Exit::new(Exit::NO_INPUT, format!("{name}: {error}")),
        }
    })
}

/// Interprets a response: the number of matched connections, or an error with an exit code for its
/// cause.
fn parse_response(status: u16, body: &str) -> Result<u64, Exit> {
    #[derive(Deserialize)]
    struct Accepted {
        matched: u64,
    }
    if status == 202 {
        return match serde_json::from_str(body) {
            Ok(Accepted { matched }) => Ok(matched),
            Err(_) => Err(Exit::new(Exit::UNAVAILABLE, UNEXPECTED_RESPONSE)),
        };
    }
    Err(refused(status, body, "not published: "))
}

/// Returns the failure in a response other than success. `undone` is the effect of a response by
/// which the server itself refuses the request.
fn refused(status: u16, body: &str, undone: &str) -> Exit {
    #[derive(Default, Deserialize)]
    struct ErrorBody {
        reason: Option<String>,
        error: Option<String>,
    }
    let error_body: ErrorBody = serde_json::from_str(body).unwrap_or_default();
    let reason = error_body.reason.or(error_body.error).unwrap_or_default();
    let reason = printable(&reason);
    let (code, cause) = match status {
        400 => (Exit::DATA, ""),
        413 => (Exit::DATA, "too large: "),
        401 => (Exit::NO_PERMISSION, "the server rejected the publish key: "),
        403 => (Exit::NO_PERMISSION, "not allowed: "),
        // A response with a reason comes from the server itself, which then delivers nothing of the
        // request.
        503 if !reason.is_empty() => (Exit::UNAVAILABLE, undone),
        500.. => (Exit::UNAVAILABLE, "the server is unavailable: "),
        _ => return Exit::new(Exit::UNAVAILABLE, UNEXPECTED_RESPONSE),
    };
    let reason = if reason.is_empty() {
        format!("{cause}status {status}")
    } else {
        format!("{cause}{reason}")
    };
    Exit::new(code, reason)
}

const UNEXPECTED_RESPONSE: &str =
    "the response does not come from an admin listener; check the admin address";

/// The timeout for one event. The server responds once the event is queued to its receivers. Longer
/// than the default of `timeouts.publish`, so that the server's response determines the outcome.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(60);

/// In bytes. An explanation describes up to 16 connections.
const MAX_RESPONSE: u64 = 8 * 1024 * 1024;

#[cfg(test)]
mod tests;
