//! Plain or TLS transport: the only place where the engine distinguishes them.

use std::io::{self, IoSlice};

use super::held::Held;
use super::pace::Pace;
use super::scratch::Scratch;
use super::socket::{Fill, Socket};
use super::timer::Tick;
use super::tls::TlsLink;

/// The transport of a connection. The pace is stored in the variants because it fits their padding
/// there.
pub(super) enum Transport<S> {
    Plain(S, Pace),
    Tls(Box<TlsLink<S>>, Pace),
}

impl<S: Socket> Transport<S> {
    /// Reads once, limited by `limit` bytes (with TLS, of records) and the size of the scratch
    /// input.
    pub fn fill(&mut self, scratch: &mut Scratch, limit: usize) -> io::Result<Fill> {
        let limit = limit.min(scratch.input.len());
        match self {
            Transport::Plain(socket, _) => read_once(socket, &mut scratch.input[..limit]),
            Transport::Tls(link, _) => link.fill(scratch, limit),
        }
    }

    /// Reads once, at most `limit` bytes, input that precedes TLS.
    pub fn fill_before_tls(&mut self, scratch: &mut Scratch, limit: usize) -> io::Result<Fill> {
        let limit = limit.min(scratch.input.len());
        read_once(self.socket_mut(), &mut scratch.input[..limit])
    }

    /// Reads once, at most `limit` bytes, bypassing TLS, input that is discarded.
    pub fn discard(&mut self, scratch: &mut Scratch, limit: usize) -> io::Result<Fill> {
        self.fill_before_tls(scratch, limit)
    }

    /// Sends a prefix of the slices, and returns its length; 0 if it would block.
    pub fn send(&mut self, slices: &[IoSlice<'_>], scratch: &mut Scratch) -> io::Result<usize> {
        let (sent, pace) = match self {
            Transport::Plain(socket, pace) => (write_once(socket, slices)?, pace),
            Transport::Tls(link, pace) => (link.send(slices, scratch)?, pace),
        };
        pace.add(sent, scratch.now);
        Ok(sent)
    }

    /// Returns the estimate of how long the peer needs to read all output.
    pub fn pace(&self) -> Pace {
        let (Transport::Plain(_, pace) | Transport::Tls(_, pace)) = self;
        *pace
    }

    /// See [`Transport::pace`].
    pub fn pace_mut(&mut self) -> &mut Pace {
        let (Transport::Plain(_, pace) | Transport::Tls(_, pace)) = self;
        pace
    }

    /// Sends output buffered by the transport itself. Returns false if some of it is left.
    pub fn flush(&mut self) -> io::Result<bool> {
        match self {
            Transport::Plain(..) => Ok(true),
            Transport::Tls(link, _) => link.flush(),
        }
    }

    /// Returns whether the transport buffers output.
    pub fn has_output(&self) -> bool {
        match self {
            Transport::Plain(..) => false,
            Transport::Tls(link, _) => link.has_output(),
        }
    }

    /// Returns whether the TLS handshake is in progress.
    pub fn is_handshaking(&self) -> bool {
        match self {
            Transport::Plain(..) => false,
            Transport::Tls(link, _) => link.is_handshaking(),
        }
    }

    /// Returns the number of bytes of TLS records that the socket has not accepted.
    pub fn records(&self) -> usize {
        match self {
            Transport::Plain(..) => 0,
            Transport::Tls(link, _) => link.records(),
        }
    }

    /// Updates the ledger with the buffered records.
    pub fn count(&mut self, held: &mut Held, now: Tick) {
        if let Transport::Tls(link, _) = self {
            link.count(held, now);
        }
    }

    /// Returns whether TLS records are buffered of which the socket has accepted nothing for longer
    /// than `longest`.
    pub fn stalls(&self, now: Tick, longest: Tick) -> bool {
        match self {
            Transport::Plain(..) => false,
            Transport::Tls(link, _) => link.stalls(now, longest),
        }
    }

    /// Removes the buffered records from the ledger, before the connection is freed.
    pub fn release(&mut self, held: &mut Held) {
        if let Transport::Tls(link, _) = self {
            link.release(held);
        }
    }

    /// Returns the number of bytes of an incomplete TLS record.
    pub fn held(&self) -> usize {
        match self {
            Transport::Plain(..) => 0,
            Transport::Tls(link, _) => link.held(),
        }
    }

    pub fn is_tls(&self) -> bool {
        !matches!(self, Transport::Plain(..))
    }

    /// Shuts down the write side.
    pub fn shutdown_write(&mut self, scratch: &mut Scratch) -> io::Result<()> {
        match self {
            Transport::Plain(socket, _) => socket.shutdown_write(),
            Transport::Tls(link, _) => link.shutdown_write(scratch),
        }
    }

    pub fn socket_mut(&mut self) -> &mut S {
        match self {
            Transport::Plain(socket, _) => socket,
            Transport::Tls(link, _) => link.socket_mut(),
        }
    }
}

pub(super) fn read_once(socket: &mut impl Socket, buf: &mut [u8]) -> io::Result<Fill> {
    loop {
        return match socket.read(buf) {
            Ok(bytes) => Ok(Fill {
                bytes,
                received: bytes,
                // With epoll, a short read has emptied the socket, and the next byte to arrive
                // causes a new edge.
                drained: bytes < buf.len(),
                eof: bytes == 0,
            }),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(Fill {
                bytes: 0,
                received: 0,
                drained: true,
                eof: false,
            }),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => Err(error),
        };
    }
}

pub(super) fn write_once(socket: &mut impl Socket, slices: &[IoSlice<'_>]) -> io::Result<usize> {
    loop {
        return match socket.write_vectored(slices) {
            Ok(0) => Err(io::ErrorKind::WriteZero.into()),
            Ok(bytes) => Ok(bytes),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => Err(error),
        };
    }
}
