//! Connections to the receiver that stay open between requests.
//!
//! Owns: which response leaves its connection usable, and for how long. Must not know requests.

use std::io::Read as _;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::cli::listen::{ClientStream, DeadlineStream, ResponseHead};

/// The idle connections. Each thread that makes requests has at most one of them.
#[derive(Default)]
pub(super) struct KeptConnections(Mutex<Vec<Kept>>);

/// A connection to the receiver.
pub(super) struct Connection {
    pub stream: Box<dyn ClientStream>,
    pub opened: Instant,
}

struct Kept {
    connection: Connection,
    since: Instant,
}

impl KeptConnections {
    /// Takes the connection that was used last, unless all have been idle too long or are closed by the receiver.
    pub(super) fn take(&self, now: Instant) -> Option<Connection> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some(Kept { connection, since }) = kept.pop() {
            if is_fresh(since, now) && is_silent(&*connection.stream) {
                return Some(connection);
            }
        }
        None
    }

    /// Keeps a connection on which the whole response has been read, unless it is old.
    pub(super) fn keep(&self, connection: Connection, now: Instant) {
        if now.saturating_duration_since(connection.opened) < MAX_AGE {
            let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let since = now;
            kept.push(Kept { connection, since });
        }
    }

    /// Closes the connections that have been idle too long.
    pub(super) fn close_old(&self, now: Instant) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.retain(|one| is_fresh(one.since, now));
    }
}

/// Reads the body of a response, of which `rest` has been read with the head. Returns whether the
/// connection can be used again: the body must be short, and be there within `BODY_TIMEOUT`, so
/// that it does not delay the result.
pub(super) fn read_body(
    stream: &mut dyn ClientStream,
    head: &ResponseHead,
    rest: &[u8],
    now: Instant,
) -> bool {
    let Some(length) = head.length_if_kept().filter(|length| *length <= MAX_BODY) else {
        return false;
    };
    // Bytes after the body belong to no request.
    let Some(mut left) = length.checked_sub(rest.len()) else {
        return false;
    };
    let deadline = now + BODY_TIMEOUT;
    let mut chunk = [0; 4096];
    while let Some(part) = chunk
        .get_mut(..left.min(4096))
        .filter(|part| !part.is_empty())
    {
        match (DeadlineStream { stream, deadline }).read(part) {
            Ok(count) if count > 0 => left = left.saturating_sub(count),
            _ => return false,
        }
    }
    !stream.has_unread()
}

fn is_fresh(since: Instant, now: Instant) -> bool {
    now.saturating_duration_since(since) < KEPT_FOR
}

/// Returns whether nothing can be read: neither the end of the connection, nor bytes that no
/// request expects.
fn is_silent(stream: &dyn ClientStream) -> bool {
    let mut fds = [PollFd::from_borrowed_fd(stream.descriptor(), PollFlags::IN)];
    poll(&mut fds, Some(&Timespec::default())) == Ok(0)
}

/// How long a connection stays open between two requests. Receivers keep theirs for five seconds or
/// more, as a rule: below that, few close one while a request is on its way.
pub(super) const KEPT_FOR: Duration = Duration::from_secs(4);
/// The maximum age of a connection for a further request, so that a changed address of the receiver
/// takes effect.
const MAX_AGE: Duration = Duration::from_secs(60);
/// The maximum size of a body that is read, in bytes.
const MAX_BODY: usize = 64 * 1024;
/// The maximum time for a body.
const BODY_TIMEOUT: Duration = Duration::from_millis(200);

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::os::unix::net::UnixStream;

    use super::*;
    use crate::cli::listen::read_head;

    /// Returns the connection of a response that has been sent, the receiver's end, and whether the
    /// connection can be used again.
    fn answered(response: &[u8]) -> (Connection, UnixStream, bool) {
        let opened = Instant::now();
        let (ours, mut theirs) = UnixStream::pair().expect("a pair");
        theirs.write_all(response).expect("a response");
        let mut stream: Box<dyn ClientStream> = Box::new(ours);
        let (head, rest) = read_head(&mut stream).expect("a head");
        let is_usable = read_body(&mut *stream, &head, &rest, Instant::now());
        (Connection { stream, opened }, theirs, is_usable)
    }

    #[test]
    fn connection_is_usable_after_a_response_of_known_length() {
        let long = format!(
            "HTTP/1.1 200 OK\r\nContent-Length: 9000\r\n\r\n{}",
            "x".repeat(9000)
        );
        for response in [
            "HTTP/1.1 204 No Content\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok",
            "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: keep-alive\r\n\r\n",
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 503 x\r\nContent-Length: 1\r\n\r\n!",
            &long,
        ] {
            assert!(answered(response.as_bytes()).2, "{response}");
        }
    }

    #[test]
    fn connection_is_not_usable_after_any_other_response() {
        for response in [
            "HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n",
            "HTTP/1.1 204 No Content\r\nConnection: x, Close\r\n\r\n",
            "HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n",
            "HTTP/1.1 101 Switching Protocols\r\nContent-Length: 0\r\n\r\n",
            "HTTP/1.1 200 OK\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: x\r\nContent-Length: 0\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\nx",
            "HTTP/1.1 200 OK\r\nContent-Length: +1\r\n\r\nx",
            "HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\nx",
            "HTTP/1.1 200 OK\r\nContent-Length: 65537\r\n\r\nx",
            // A part of a body, and bytes after one.
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nx",
            "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nxHTTP/1.1 200 OK\r\n\r\n",
            "HTTP/1.1 204 No Content\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n",
        ] {
            assert!(!answered(response.as_bytes()).2, "{response}");
        }
    }

    #[test]
    fn only_a_silent_open_and_recent_connection_is_taken() {
        let now = Instant::now();
        let kept = KeptConnections::default();
        let keep = || {
            let (connection, theirs, _) = answered(b"HTTP/1.1 204 x\r\n\r\n");
            kept.keep(connection, now);
            theirs
        };
        let _open = keep();
        assert!(kept.take(now + KEPT_FOR / 2).is_some());
        assert!(kept.take(now).is_none(), "it is in use");
        let _old = keep();
        assert!(kept.take(now + KEPT_FOR).is_none());
        drop(keep());
        assert!(kept.take(now).is_none(), "closed by the receiver");
        keep().write_all(b"HTTP/1.1 408 x\r\n\r\n").expect("sent");
        assert!(kept.take(now).is_none(), "a response to no request");
    }

    #[test]
    fn old_connections_are_closed() {
        let now = Instant::now();
        let kept = KeptConnections::default();
        let (connection, mut theirs, _) = answered(b"HTTP/1.1 204 x\r\n\r\n");
        kept.keep(connection, now);
        kept.close_old(now + KEPT_FOR / 2);
        theirs.set_nonblocking(true).expect("set");
        let blocked = theirs.read(&mut [0]).map_err(|error| error.kind());
        assert_eq!(blocked, Err(std::io::ErrorKind::WouldBlock));
        kept.close_old(now + KEPT_FOR);
        assert_eq!(theirs.read(&mut [0]).expect("the end"), 0);

        // However often it is used.
        let (connection, _theirs, _) = answered(b"HTTP/1.1 204 x\r\n\r\n");
        let late = connection.opened + MAX_AGE;
        kept.keep(connection, late);
        assert!(kept.take(late).is_none());
    }
}
