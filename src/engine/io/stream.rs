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

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream as Peer};
    use std::os::unix::net::UnixStream as UnixPeer;

    use super::*;

    /// Returns both ends of a TCP connection.
    fn tcp() -> (Stream, Peer) {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let peer = Peer::connect(listener.local_addr().unwrap()).unwrap();
        let (stream, _) = listener.accept().unwrap();
        (Stream::Tcp(TcpStream::from_std(stream)), peer)
    }

    fn unix() -> (Stream, UnixPeer) {
        let (stream, peer) = UnixPeer::pair().unwrap();
        (Stream::Unix(UnixStream::from_std(stream)), peer)
    }

    fn exchange(mut stream: Stream, mut peer: impl Read + Write) {
        let slices = [IoSlice::new(b"ab"), IoSlice::new(b"c")];
        assert_eq!(stream.write_vectored(&slices).unwrap(), 3);
        assert_eq!(stream.write_vectored(&slices[..1]).unwrap(), 2);
        peer.write_all(b"defg").unwrap();
        let mut buf = [0; 8];
        let read = stream.read(&mut buf).unwrap();
        assert_eq!(&buf[..read], b"defg");
        stream.shutdown_write().unwrap();
        let mut all = Vec::new();
        peer.read_to_end(&mut all).unwrap();
        assert_eq!(all, b"abcab");
    }

    #[test]
    fn bytes_are_exchanged_until_the_write_side_is_shut_down() {
        let (stream, peer) = tcp();
        assert_eq!(stream.peer(), peer.local_addr().ok());
        exchange(stream, peer);
        let (stream, peer) = unix();
        assert_eq!(stream.peer(), None);
        exchange(stream, peer);
    }

    #[test]
    fn aborted_connection_is_reset() {
        let (mut stream, mut peer) = tcp();
        stream.abort_on_drop();
        drop(stream);
        let error = peer.read(&mut [0]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn user_timeout_is_that_of_the_socket() {
        let (mut stream, _peer) = tcp();
        let timeout = Duration::from_secs(7);
        stream.set_user_timeout(timeout);
        let Stream::Tcp(stream) = &stream else {
            panic!("a TCP socket");
        };
        let found = socket2::SockRef::from(stream).tcp_user_timeout();
        assert_eq!(found.unwrap(), Some(timeout));
    }
}
