//! Sockets of the operating system.

use std::io::{self, IoSlice, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::time::Duration;

use mio::event::Source;
use mio::net::{TcpStream, UnixStream};
use mio::{Interest, Registry, Token};

use crate::io::socket::Socket;

/// A connected socket.
#[derive(Debug)]
pub enum Stream {
    /// A TCP socket.
    Tcp(TcpStream),
    /// A Unix socket.
    Unix(UnixStream),
}

impl Stream {
    /// Registers both directions once. With edge triggering, the registration never changes, so
    /// that no further system calls are needed.
    pub(crate) fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        let interests = Interest::READABLE | Interest::WRITABLE;
        match self {
            Stream::Tcp(stream) => stream.register(registry, token, interests),
            Stream::Unix(stream) => stream.register(registry, token, interests),
        }
    }
}

impl Socket for Stream {
    fn peer(&self) -> Option<SocketAddr> {
        match self {
            Stream::Tcp(stream) => stream.peer_addr().ok(),
            Stream::Unix(_) => None,
        }
    }

    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Tcp(stream) => stream.read(buf),
            Stream::Unix(stream) => stream.read(buf),
        }
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match (self, slices) {
            // `send` is slightly cheaper than `writev`.
            (Stream::Tcp(stream), [one]) => stream.write(one),
            (Stream::Tcp(stream), many) => stream.write_vectored(many),
            (Stream::Unix(stream), many) => stream.write_vectored(many),
        }
    }

    fn shutdown_write(&mut self) -> io::Result<()> {
        match self {
            Stream::Tcp(stream) => stream.shutdown(Shutdown::Write),
            Stream::Unix(stream) => stream.shutdown(Shutdown::Write),
        }
    }

    /// TCP_USER_TIMEOUT, which Linux implements. A Unix socket has no unacknowledged output.
    #[cfg(target_os = "linux")]
    fn set_user_timeout(&mut self, timeout: Duration) {
        if let Stream::Tcp(stream) = self
            && let Err(error) = socket2::SockRef::from(&*stream).set_tcp_user_timeout(Some(timeout))
        {
            log::debug!("TCP_USER_TIMEOUT: {error}");
        }
    }

    fn abort_on_drop(&mut self) {
        if let Stream::Tcp(stream) = self
            && let Err(error) = socket2::SockRef::from(&*stream).set_linger(Some(Duration::ZERO))
        {
            log::debug!("SO_LINGER: {error}");
        }
    }
}
