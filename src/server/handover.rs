//! Handover of the admin address from a server that is shutting down. That server keeps the address
//! until its last client is closed.

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::thread;
use std::time::{Duration, Instant};

use socket2::{Domain, SockAddr, Socket, Type};

use crate::net::{Address, Listener};

use super::notify::Notifier;

/// Returns whether binding failed because a server that is shutting down holds the address.
pub(super) fn is_held_by_draining_server(error: &io::Error, address: &Address) -> bool {
    error.kind() == ErrorKind::AddrInUse && is_draining(address, PROBE_TIMEOUT).unwrap_or(false)
}

/// Opens the admin listener with `open`, as soon as the server that holds its address has ended.
/// Notifies the service manager in the meantime.
///
/// # Errors
/// Errors of binding and listening, including an address that is in use by anything else.
pub(super) fn open_when_free(
    address: &Address,
    open: impl Fn() -> io::Result<Listener>,
    notifier: &Notifier,
) -> io::Result<Listener> {
    log::info!(
        "waiting for the admin address {address}: a server that is shutting down uses it; clients \
         are queued until it has stopped (a second SIGTERM stops it at once)"
    );
    let mut last_draining = Instant::now();
    let mut notified_at: Option<Instant> = None;
    loop {
        let error = match open() {
            Err(error) if error.kind() == ErrorKind::AddrInUse => error,
            result => return result,
        };
        if notified_at.is_none_or(|notified_at| notified_at.elapsed() >= NOTIFY_PERIOD) {
            notifier.waiting(format_args!("the admin address {address}"));
            notified_at = Some(Instant::now());
        }
        // The other server may be closing the address right now.
        if is_draining(address, PROBE_TIMEOUT).unwrap_or(false) {
            last_draining = Instant::now();
        } else if last_draining.elapsed() > MAX_SILENCE {
            return Err(error);
        }
        thread::sleep(RETRY);
    }
}

/// Asks the server at the address whether it is shutting down. The whole exchange takes at most
/// `timeout`, regardless of how the other process behaves.
fn is_draining(address: &Address, timeout: Duration) -> io::Result<bool> {
    let end = Instant::now() + timeout;
    let (socket, host) = match address {
        Address::Tcp(address) => {
            let socket = Socket::new(Domain::for_address(*address), Type::STREAM, None)?;
            socket.connect_timeout(&SockAddr::from(*address), timeout)?;
            (socket, address.to_string())
        }
        Address::Unix(path) => {
            let socket = Socket::new(Domain::UNIX, Type::STREAM.nonblocking(), None)?;
            // If the accept queue of the other process is full, this fails immediately.
            socket.connect(&SockAddr::unix(path)?)?;
            socket.set_nonblocking(false)?;
            (socket, "localhost".to_owned())
        }
    };
    probe(socket, &host, end)
}

fn probe(mut socket: Socket, host: &str, end: Instant) -> io::Result<bool> {
    let request = format!("GET /readyz HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    socket.set_write_timeout(Some(remaining(end)?))?;
    socket.write_all(request.as_bytes())?;
    let mut response = Vec::new();
    let mut part = [0; 1024];
    while response.len() < MAX_RESPONSE {
        socket.set_read_timeout(Some(remaining(end)?))?;
        match socket.read(&mut part) {
            Ok(0) => break,
            Ok(read) => response.extend_from_slice(&part[..read]),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    let response = String::from_utf8_lossy(&response);
    Ok(response.starts_with("HTTP/1.1 503 ") && response.contains(r#""error":"draining""#))
}

/// Returns the time until `end`. Never zero, which would mean no timeout.
fn remaining(end: Instant) -> io::Result<Duration> {
    let left = end.saturating_duration_since(Instant::now());
    match left.is_zero() {
        true => Err(ErrorKind::TimedOut.into()),
        false => Ok(left),
    }
}

/// The interval between two attempts to bind the address.
const RETRY: Duration = Duration::from_millis(100);
/// The interval between two messages to the service manager.
const NOTIFY_PERIOD: Duration = Duration::from_secs(1);
/// How long the address may be in use without a sign that the server there is shutting down. That
/// server needs a second for its last requests.
const MAX_SILENCE: Duration = Duration::from_secs(2);
/// How long the server at the address may take to respond.
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);
/// In bytes.
const MAX_RESPONSE: usize = 4096;

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::os::unix::net::UnixListener;

    use super::*;

    const DRAINING: &str =
        "HTTP/1.1 503 Service Unavailable\r\n\r\n{\"ok\":false,\"error\":\"draining\"}";

    /// Starts a server that sends the response one byte at a time, and stops when the peer has
    /// disconnected.
    fn server_answering_after(pause: Duration) -> Address {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 1024];
            let _ = stream.read(&mut request);
            for byte in DRAINING.bytes() {
                if stream.write_all(&[byte]).is_err() {
                    return;
                }
                thread::sleep(pause);
            }
        });
        Address::Tcp(address)
    }

    #[test]
    fn a_draining_server_is_recognized() {
        let timeout = Duration::from_secs(60);
        assert!(is_draining(&server_answering_after(Duration::ZERO), timeout).unwrap());
    }

    #[test]
    fn deadline_covers_the_whole_response() {
        // A timeout for each read would never end this.
        let address = server_answering_after(Duration::from_millis(50));
        let error = is_draining(&address, Duration::from_millis(200)).unwrap_err();
        let timeouts = [ErrorKind::TimedOut, ErrorKind::WouldBlock];
        assert!(timeouts.contains(&error.kind()), "{error}");
    }

    #[test]
    fn full_unix_accept_queue_fails_immediately() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("s");
        let _listener = UnixListener::bind(&path).unwrap();
        let fill = || {
            let socket = Socket::new(Domain::UNIX, Type::STREAM.nonblocking(), None)?;
            socket.connect(&SockAddr::unix(&path)?).map(|()| socket)
        };
        let mut waiting: Vec<Socket> = Vec::new();
        while let Ok(socket) = fill() {
            waiting.push(socket);
        }
        let error = is_draining(&Address::Unix(path), PROBE_TIMEOUT).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::WouldBlock);
    }
}
