//! One attempt to send a request to the receiver, over a kept connection or a new one.
//!
//! Owns: the timeout of the whole attempt, and the classification of failures. The status of the
//! response is the result. Redirects are failures, as Standard Webhooks recommends. Must not know
//! events or retries.

use std::io::{self, ErrorKind, Write as _};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::time::{Duration, Instant};

use super::circuit::FailureScope;
use super::kept::{Connection, KeptConnections, read_body};
use super::receiver_url::ReceiverUrl;
use crate::cli::listen::{
    BadResponse, ClientStream, ConnectError, DeadlineStream, ResponseHead, Trust, read_head,
    retry_after,
};
use crate::cli::sanitize::printable;
use crate::model::unix_now;

/// The receiver, and the settings of connections to it.
pub(super) struct Receiver {
    pub url: ReceiverUrl,
    /// Present for `https://` only.
    pub trust: Option<Trust>,
    /// The timeout of an attempt, from the name resolution to the head of the response.
    pub timeout: Duration,
    pub kept: KeptConnections,
}

/// The header fields that depend on the request.
pub(super) struct PostHead {
    pub id: String,
    pub timestamp: u64,
    /// The value of `webhook-signature`.
    pub signature: Option<String>,
}

/// The result of an attempt.
#[derive(Debug)]
pub(super) enum PostResult {
    Delivered,
    /// 410: the receiver refuses all further requests.
    Gone,
    Failed(PostFailure),
}

/// A failed attempt.
#[derive(Debug)]
pub(super) struct PostFailure {
    pub cause: FailureCause,
    /// A human-readable reason, without secrets.
    pub reason: String,
    /// The delay that the receiver requests.
    pub after: Option<Duration>,
}

/// The causes of failures, as in the metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FailureCause {
    /// No connection.
    Connect,
    Tls,
    Timeout,
    /// The connection ended before the response.
    Reset,
    /// The response is not HTTP.
    Invalid,
    Redirect,
    ClientError,
    Throttled,
    ServerError,
}

impl FailureCause {
    pub(super) const ALL: [FailureCause; 9] = [
        FailureCause::Connect,
        FailureCause::Tls,
        FailureCause::Timeout,
        FailureCause::Reset,
        FailureCause::Invalid,
        FailureCause::Redirect,
        FailureCause::ClientError,
        FailureCause::Throttled,
        FailureCause::ServerError,
    ];

    /// Returns the value of the label `cause`.
    pub(super) fn name(self) -> &'static str {
        match self {
            FailureCause::Connect => "connect",
            FailureCause::Tls => "tls",
            FailureCause::Timeout => "timeout",
            FailureCause::Reset => "reset",
            FailureCause::Invalid => "invalid",
            FailureCause::Redirect => "redirect",
            FailureCause::ClientError => "client_error",
            FailureCause::Throttled => "throttled",
            FailureCause::ServerError => "server_error",
        }
    }

    /// Returns which events the failure concerns.
    pub(super) fn scope(self) -> FailureScope {
        match self {
            FailureCause::Connect
            | FailureCause::Tls
            | FailureCause::Redirect
            | FailureCause::Throttled => FailureScope::Receiver,
            FailureCause::Timeout
            | FailureCause::Reset
            | FailureCause::Invalid
            | FailureCause::ClientError
            | FailureCause::ServerError => FailureScope::Event,
        }
    }
}

impl PostFailure {
    fn new(cause: FailureCause, reason: String) -> Self {
        PostFailure {
            cause,
            reason,
            after: None,
        }
    }
}

/// Makes one attempt.
pub(super) fn post(receiver: &Receiver, head: &PostHead, body: &[u8]) -> PostResult {
    let deadline = Instant::now() + receiver.timeout;
    match exchange(receiver, head, body, deadline) {
        Ok(result) => result,
        Err(failure) => PostResult::Failed(failure),
    }
}

fn exchange(
    receiver: &Receiver,
    head: &PostHead,
    body: &[u8],
    deadline: Instant,
) -> Result<PostResult, PostFailure> {
    let request = [request_head(receiver, head, body.len()).as_bytes(), body].concat();
    if let Some(connection) = receiver.kept.take(Instant::now()) {
        match request_over(connection, receiver, &request, deadline) {
            // The receiver has closed the connection at this moment, since it was idle. The
            // request has no response, so it is sent again.
            Err(bad) if is_end(&bad) => {}
            Ok(response) if response.status == 408 => {}
            result => return outcome(result, receiver),
        }
    }
    let connection = Connection {
        stream: connect(receiver, deadline)?,
        opened: Instant::now(),
    };
    let response = request_over(connection, receiver, &request, deadline);
    outcome(response, receiver)
}

/// Sends a request, and reads the head of its response. Keeps the connection if possible.
fn request_over(
    mut connection: Connection,
    receiver: &Receiver,
    request: &[u8],
    deadline: Instant,
) -> Result<ResponseHead, BadResponse> {
    let stream = &mut *connection.stream;
    let mut timed = DeadlineStream {
        stream: &mut *stream,
        deadline,
    };
    let sent = timed.write_all(request).and_then(|()| timed.flush());
    // A receiver may respond before it has read the whole request, and then close the connection.
    let response = read_head(&mut timed);
    let is_sent = sent.is_ok();
    let (response, rest) = response.map_err(|bad| sent.err().map_or(bad, BadResponse::Io))?;
    if is_sent && read_body(stream, &response, &rest, Instant::now()) {
        receiver.kept.keep(connection, Instant::now());
    }
    Ok(response)
}

/// Returns whether the connection ended before a complete response.
fn is_end(bad: &BadResponse) -> bool {
    match bad {
        BadResponse::Io(error) => !is_timeout(error),
        BadResponse::Ended { .. } => true,
        BadResponse::Tls | BadResponse::NotHttp { .. } => false,
    }
}

/// Returns the result of an attempt with this response.
fn outcome(
    response: Result<ResponseHead, BadResponse>,
    receiver: &Receiver,
) -> Result<PostResult, PostFailure> {
    let response = response.map_err(|bad| bad_response(bad, receiver))?;
    let status = response.status;
    let reason = format!("{status} {}", response.standard_reason());
    let reason = match response.value("Location") {
        Some(_) if (300..400).contains(&status) => {
            format!("{reason}; redirects are not followed: change the receiver's URL")
        }
        _ => reason.trim_end().to_owned(),
    };
    let cause = match status {
        200..300 => return Ok(PostResult::Delivered),
        410 => return Ok(PostResult::Gone),
        300..400 => FailureCause::Redirect,
        408 | 425 | 429 | 502 | 503 | 504 => FailureCause::Throttled,
        400..500 => FailureCause::ClientError,
        500..600 => FailureCause::ServerError,
        _ => FailureCause::Invalid,
    };
    let after = response.value("Retry-After");
    Err(PostFailure {
        cause,
        reason: format!("the receiver responded with {reason}"),
        after: after.and_then(|value| retry_after(value, unix_now())),
    })
}

fn request_head(receiver: &Receiver, head: &PostHead, length: usize) -> String {
    let ReceiverUrl {
        target, authority, ..
    } = &receiver.url;
    let version = env!("CARGO_PKG_VERSION");
    let (id, timestamp) = (&head.id, head.timestamp);
    let signature = match &head.signature {
        Some(signature) => format!("webhook-signature: {signature}\r\n"),
        None => String::new(),
    };
    format!(
        "POST {target} HTTP/1.1\r\nHost: {authority}\r\n\
         User-Agent: h-realtime/{version}\r\nContent-Type: application/json\r\n\
         Content-Length: {length}\r\nwebhook-id: {id}\r\nwebhook-timestamp: {timestamp}\r\n\
         {signature}\r\n"
    )
}

fn connect(receiver: &Receiver, deadline: Instant) -> Result<Box<dyn ClientStream>, PostFailure> {
    let tcp = dial(&receiver.url, deadline)?;
    if !receiver.url.is_tls {
        return Ok(Box::new(tcp));
    }
    let tls = |reason| PostFailure::new(FailureCause::Tls, reason);
    let Some(trust) = &receiver.trust else {
        return Err(tls("TLS is not configured".to_owned()));
    };
    let (host, name) = (&receiver.url.host, receiver.url.name());
    trust
        .handshake(tcp, host, &name, deadline)
        .map_err(|error| match error {
            ConnectError::Permanent(exit) => tls(exit.message),
            ConnectError::Mismatch(reason)
            | ConnectError::InvalidCursor(reason)
            | ConnectError::Temporary { reason, .. } => tls(reason),
        })
}

/// Connects to the first address of the host that accepts a connection.
fn dial(url: &ReceiverUrl, deadline: Instant) -> Result<TcpStream, PostFailure> {
    let failed = |reason| PostFailure::new(FailureCause::Connect, reason);
    let addresses = (&*url.host, url.port).to_socket_addrs().map_err(|error| {
        let error = printable(&error.to_string());
        failed(format!("cannot resolve the host {}: {error}", url.host))
    })?;
    let mut failure = failed(format!("the host {} has no IP address", url.host));
    for address in addresses {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            break;
        }
        let made = TcpStream::connect_timeout(&address, left.min(CONNECT_TIMEOUT))
            .and_then(|stream| stream.set_nodelay(true).map(|()| stream));
        match made {
            Ok(stream) => return Ok(stream),
            Err(error) => {
                let error = printable(&error.to_string());
                failure = failed(format!("cannot connect to {address}: {error}"));
            }
        }
    }
    Err(failure)
}

fn bad_response(bad: BadResponse, receiver: &Receiver) -> PostFailure {
    let name = receiver.url.name();
    match bad {
        BadResponse::Io(error) if is_timeout(&error) => {
            let seconds = receiver.timeout.as_secs();
            let reason = format!("{name} did not respond within {seconds} s");
            PostFailure::new(FailureCause::Timeout, reason)
        }
        BadResponse::Io(error) => {
            let reason = format!("{name}: {}", printable(&error.to_string()));
            PostFailure::new(FailureCause::Reset, reason)
        }
        BadResponse::Ended { .. } => {
            let reason = format!("{name} closed the connection without a complete response");
            PostFailure::new(FailureCause::Reset, reason)
        }
        BadResponse::Tls => {
            let reason = format!("{name} requires TLS: use https://");
            PostFailure::new(FailureCause::Invalid, reason)
        }
        // The bytes are not shown: those of a receiver that repeats the request have the URL.
        BadResponse::NotHttp { problem, .. } => PostFailure::new(FailureCause::Invalid, problem),
    }
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::TimedOut | ErrorKind::WouldBlock)
}

/// The timeout for one address, so that others of the same host are tried.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::net::TcpListener;
    use std::thread;

    use super::*;

    /// Returns the failure of a request to a receiver that makes its response from the target.
    fn failure(response: fn(&str) -> String) -> PostFailure {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
        let port = listener.local_addr().expect("an address").port();
        let url = format!("http://127.0.0.1:{port}/services/SECRET");
        let receiver = Receiver {
            url: ReceiverUrl::parse(&url, false).expect("a URL"),
            trust: None,
            timeout: Duration::from_secs(20),
            kept: KeptConnections::default(),
        };
        let head = PostHead {
            id: "evt_1".to_owned(),
            timestamp: 1,
            signature: None,
        };
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("a connection");
            let mut request = [0; 1024];
            let count = stream.read(&mut request).expect("a request");
            let request = String::from_utf8_lossy(&request[..count]).into_owned();
            stream
                .write_all(response(&request).as_bytes())
                .expect("sent");
        });
        let result = post(&receiver, &head, b"{}");
        server.join().expect("a response");
        match result {
            PostResult::Failed(failure) => failure,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn reasons_have_no_text_of_the_receiver() {
        let responses: [fn(&str) -> String; 5] = [
            str::to_owned,
            |request| format!("HTTP/1.1 200 OK\r\n{request}"),
            |request| format!("HTTP/1.1 {request}"),
            |_| "HTTP/1.1 499 /services/SECRET\r\n\r\n".to_owned(),
            |_| "HTTP/1.1 302 x\r\nLocation: /services/SECRET\r\n\r\n".to_owned(),
        ];
        for response in responses {
            let reason = failure(response).reason;
            assert!(!reason.contains("services"), "{reason}");
            assert!(!reason.contains("SECRET"), "{reason}");
        }
    }
}
