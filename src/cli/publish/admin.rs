//! The admin listener of a running server as a client sees it: where it is, the key, one
//! request for an event and what its answer means.

use std::cell::Cell;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use ureq::http::header::{AUTHORIZATION, CONTENT_TYPE};
use ureq::http::{HeaderValue, Response, Uri};
use ureq::{Agent, Body};

use super::unix::{NoResolver, UnixConnector};
use crate::backend::advice::about;
use crate::cli::exit::Exit;
use crate::cli::text::printable;

/// One server's admin listener. Holds the connection between requests.
pub(super) struct Admin {
    agent: Agent,
    url: String,
    /// The unix socket, if it is one.
    socket: Option<PathBuf>,
    key: HeaderValue,
    /// Whether the agent may have kept a connection from an earlier request.
    may_reuse: Cell<bool>,
}

impl Admin {
    /// Finds address and key: the ones given, else those that the server left in `data`.
    pub(super) fn find(
        data: &Path,
        address: Option<&str>,
        key: Option<String>,
    ) -> Result<Self, Exit> {
        let Endpoint { url, socket } = match address {
            Some(address) => endpoint(address)
                .map_err(|why| Exit::new(Exit::USAGE, format!("--admin: {why}")))?,
            None => {
                let file = data.join("admin.address");
                let address = read(&file, "no server runs with this data directory")?;
                endpoint(&address)
                    .map_err(|why| Exit::new(Exit::CONFIG, format!("{}: {why}", file.display())))?
            }
        };
        let key = match key {
            Some(key) => key,
            None => read(
                &data.join("publish.key"),
                "the first start of a server makes it",
            )?,
        };
        let mut key = HeaderValue::try_from(format!("Bearer {}", key.trim()))
            .map_err(|_| Exit::new(Exit::NO_PERMISSION, "the publish key is not one"))?;
        key.set_sensitive(true);
        // No proxy, whatever the environment says: the key is for this machine's server alone.
        let config = Agent::config_builder()
            .proxy(None)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .http_status_as_error(false)
            .timeout_global(Some(ANSWER))
            .build();
        let agent = match &socket {
            Some(path) => Agent::with_parts(config, UnixConnector(path.clone()), NoResolver),
            None => config.into(),
        };
        Ok(Admin {
            agent,
            url,
            socket,
            key,
            may_reuse: Cell::new(false),
        })
    }

    /// Publishes one event and returns how many connections it matched.
    pub(super) fn send(&self, event: String) -> Result<u64, Exit> {
        let mut result = self.post(&event);
        // The server may end an idle connection while a request is on its way, but leaves no
        // request unanswered that it has read. RFC 9110 §9.2.2 allows another try with "some means
        // to detect that the original request was never applied". A new connection is not idle.
        let was_reused = self.may_reuse.replace(result.is_ok());
        if was_reused && result.as_ref().is_err_and(has_ended) {
            result = self.post(&event);
            self.may_reuse.set(result.is_ok());
        }
        let mut response = result.map_err(|error| self.failed(&error))?;
        // Read to its end also where it says nothing: only then the connection can be kept.
        let body = response
            .body_mut()
            .with_config()
            .limit(LONGEST_ANSWER)
            .read_to_string()
            .map_err(|error| self.failed(&error))?;
        judge(response.status().as_u16(), &body)
    }

    fn post(&self, event: &str) -> Result<Response<Body>, ureq::Error> {
        let request = self
            .agent
            .post(&self.url)
            .header(AUTHORIZATION, self.key.clone())
            .header(CONTENT_TYPE, "application/json");
        request.send(event)
    }

    fn failed(&self, error: &ureq::Error) -> Exit {
        let text = error.to_string();
        let why = printable(&text);
        // The library's own error, and that of the system, which has no kind for it.
        if matches!(error, ureq::Error::HostNotFound) || text.contains("failed to lookup address") {
            let uri = self.url.parse::<Uri>();
            let host = uri.as_ref().ok().and_then(Uri::host).unwrap_or(&self.url);
            let message = format!(
                "cannot resolve the host {host}: {why}; check its name in --admin, and this \
                 machine's name resolution"
            );
            return Exit::new(Exit::UNAVAILABLE, message);
        }
        let place = match &self.socket {
            Some(path) => format!("unix:{}", path.display()),
            None => self.url.clone(),
        };
        match (&self.socket, error) {
            (Some(_), ureq::Error::Io(cause)) if cause.kind() == ErrorKind::PermissionDenied => {
                let help = "run this as root or as the server's user, or let a group of yours \
                            connect: socket.admin_group, and socket.admin_mode = \"0660\"";
                Exit::new(Exit::NO_PERMISSION, format!("{place}: {why}; {help}"))
            }
            _ => Exit::new(
                Exit::UNAVAILABLE,
                format!("no answer from {place}: {why}. Is `h-realtime serve` running?"),
            ),
        }
    }
}

/// Where events go.
#[derive(Debug, PartialEq, Eq)]
struct Endpoint {
    url: String,
    /// The socket that the URL is requested from; else the URL says.
    socket: Option<PathBuf>,
}

/// Whether a connection ended before the response.
fn has_ended(error: &ureq::Error) -> bool {
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

/// Where events go, made of the address as a person or the server wrote it.
fn endpoint(address: &str) -> Result<Endpoint, String> {
    let address = address.trim();
    let expected = || {
        let found = printable(address);
        format!("expected http://HOST:PORT/ or unix:/path/to.sock, found {found}")
    };
    if let Some(path) = address.strip_prefix("unix:") {
        if path.is_empty() {
            return Err(expected());
        }
        return Ok(Endpoint {
            url: "http://localhost/events".to_owned(),
            socket: Some(path.into()),
        });
    }
    let authority = address.strip_prefix("http://").unwrap_or(address);
    let authority = authority.strip_suffix('/').unwrap_or(authority);
    if authority.is_empty() || authority.contains(['/', '?', '#', '@']) {
        return Err(expected());
    }
    let url = format!("http://{authority}/events");
    match url.parse::<Uri>() {
        Ok(uri) if uri.host().is_some_and(|host| !host.is_empty()) => {
            Ok(Endpoint { url, socket: None })
        }
        _ => Err(expected()),
    }
}

/// The content of a file of the data directory, or why it cannot be had.
fn read(file: &Path, absent: &str) -> Result<String, Exit> {
    fs::read_to_string(file).map_err(|error| {
        let name = file.display();
        match error.kind() {
            ErrorKind::NotFound => {
                let help = "start one with `h-realtime serve`, or name its directory with --data";
                Exit::new(
                    Exit::UNAVAILABLE,
                    format!("{name} is not there: {absent}; {help}"),
                )
            }
            ErrorKind::PermissionDenied => Exit::new(Exit::NO_PERMISSION, about(file, &error)),
            _ => Exit::new(Exit::NO_INPUT, format!("{name}: {error}")),
        }
    })
}

/// What an answer means: how many connections were matched, or whose fault it is.
fn judge(status: u16, body: &str) -> Result<u64, Exit> {
    #[derive(Deserialize)]
    struct Accepted {
        matched: u64,
    }
    #[derive(Default, Deserialize)]
    struct Problem {
        reason: Option<String>,
        error: Option<String>,
    }
    if status == 202 {
        return match serde_json::from_str(body) {
            Ok(Accepted { matched }) => Ok(matched),
            Err(_) => Err(Exit::new(Exit::UNAVAILABLE, NOT_OURS)),
        };
    }
    let problem: Problem = serde_json::from_str(body).unwrap_or_default();
    let reason = problem.reason.or(problem.error).unwrap_or_default();
    let reason = printable(&reason);
    let (code, what) = match status {
        400 => (Exit::DATA, ""),
        413 => (Exit::DATA, "too large: "),
        401 => (Exit::NO_PERMISSION, "the publish key is not accepted: "),
        403 => (Exit::NO_PERMISSION, "not allowed: "),
        // With a reason it comes from the server itself, which then delivers nothing of the request.
        503 if !reason.is_empty() => (Exit::UNAVAILABLE, "not published: "),
        500.. => (Exit::UNAVAILABLE, "the server cannot do it now: "),
        _ => return Err(Exit::new(Exit::UNAVAILABLE, NOT_OURS)),
    };
    let reason = if reason.is_empty() {
        format!("{what}status {status}")
    } else {
        format!("{what}{reason}")
    };
    Err(Exit::new(code, reason))
}

const NOT_OURS: &str = "the answer is not that of an admin listener: is the admin address right?";

/// For one event; the server answers once the event is queued to its receivers. Longer than the
/// default of `timeouts.publish`, so that the outcome is the server's answer.
const ANSWER: Duration = Duration::from_secs(60);

/// In bytes. An answer is one short line.
const LONGEST_ANSWER: u64 = 64 * 1024;

#[cfg(test)]
mod tests;
