//! Byte streams below the WebSocket: TCP, Unix sockets, and TLS over TCP.

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use rustix::io::ioctl_fionbio;
use rustix::net::sockopt::{Timeout, set_socket_timeout};

/// A transport for a WebSocket.
pub(in crate::cli) trait ClientStream: Read + Write + Send {
    /// Returns the socket, for `poll` and for the options below.
    fn descriptor(&self) -> BorrowedFd<'_>;

    /// Returns whether bytes that have been read from the socket wait in a buffer, so that `poll`
    /// does not report them.
    fn has_unread(&mut self) -> bool {
        false
    }

    /// Sets the timeout of a single read and a single write.
    fn set_timeouts(&self, timeout: Duration) -> io::Result<()> {
        for direction in [Timeout::Recv, Timeout::Send] {
            set_socket_timeout(self.descriptor(), direction, Some(timeout))?;
        }
        Ok(())
    }

    /// Reads until a deadline.
    fn read_by(&mut self, buffer: &mut [u8], deadline: Instant) -> io::Result<usize> {
        self.set_timeouts(time_until(deadline)?)?;
        self.read(buffer)
    }

    /// Writes until a deadline.
    fn write_by(&mut self, bytes: &[u8], deadline: Instant) -> io::Result<usize> {
        self.set_timeouts(time_until(deadline)?)?;
        self.write(bytes)
    }

    /// Makes reads and writes non-blocking.
    fn set_nonblocking(&self) -> io::Result<()> {
        Ok(ioctl_fionbio(self.descriptor(), true)?)
    }
}

impl ClientStream for TcpStream {
    fn descriptor(&self) -> BorrowedFd<'_> {
        self.as_fd()
    }
}

impl ClientStream for UnixStream {
    fn descriptor(&self) -> BorrowedFd<'_> {
        self.as_fd()
    }
}

/// A stream with one deadline for all reads and writes together.
pub(in crate::cli) struct DeadlineStream<'a, S: ClientStream + ?Sized> {
    pub stream: &'a mut S,
    pub deadline: Instant,
}

fn time_until(deadline: Instant) -> io::Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    match left.is_zero() {
        true => Err(ErrorKind::TimedOut.into()),
        false => Ok(left),
    }
}

impl<S: ClientStream + ?Sized> Read for DeadlineStream<'_, S> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.stream.read_by(buffer, self.deadline)
    }
}

impl<S: ClientStream + ?Sized> Write for DeadlineStream<'_, S> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stream.write_by(bytes, self.deadline)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.set_timeouts(time_until(self.deadline)?)?;
        self.stream.flush()
    }
}
