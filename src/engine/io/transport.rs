//! Plain or TLS transport: the only place where the engine distinguishes them.

use std::io::{self, IoSlice};

use crate::conn::pace::Pace;
use crate::engine::scratch::Scratch;
use crate::engine::timer::Tick;
use crate::io::socket::{Fill, Socket};
use crate::io::tls::TlsLink;
use crate::ledger::Ledger;

/// The transport of a connection. The pace is stored in the variants because it fits their padding
/// there.
pub(crate) enum Transport<S> {
    Plain(S, Pace),
    Tls(Box<TlsLink<S>>, Pace),
}

impl<S: Socket> Transport<S> {
    /// Reads once, limited by `limit` bytes (with TLS, of records) and the size of the scratch
    /// input.
    pub(crate) fn fill(&mut self, scratch: &mut Scratch, limit: usize) -> io::Result<Fill> {
        let limit = limit.min(scratch.input.len());
        match self {
            Transport::Plain(socket, _) => read_once(socket, &mut scratch.input[..limit]),
            Transport::Tls(link, _) => link.fill(scratch, limit),
        }
    }

    /// Reads once, at most `limit` bytes, input that precedes TLS.
    pub(crate) fn fill_before_tls(
        &mut self,
        scratch: &mut Scratch,
        limit: usize,
    ) -> io::Result<Fill> {
        let limit = limit.min(scratch.input.len());
        read_once(self.socket_mut(), &mut scratch.input[..limit])
    }

    /// Reads once, at most `limit` bytes, bypassing TLS, input that is discarded.
    pub(crate) fn discard(&mut self, scratch: &mut Scratch, limit: usize) -> io::Result<Fill> {
        self.fill_before_tls(scratch, limit)
    }

    /// Sends a prefix of the slices, and returns its length; 0 if it would block.
    pub(crate) fn send(
        &mut self,
        slices: &[IoSlice<'_>],
        scratch: &mut Scratch,
    ) -> io::Result<usize> {
        let (sent, pace) = match self {
            Transport::Plain(socket, pace) => (write_once(socket, slices)?, pace),
            Transport::Tls(link, pace) => (link.send(slices, scratch)?, pace),
        };
        pace.add(sent, scratch.now);
        Ok(sent)
    }

    /// Returns the estimate of how long the peer needs to read all output.
    pub(crate) fn pace(&self) -> Pace {
        let (Transport::Plain(_, pace) | Transport::Tls(_, pace)) = self;
        *pace
    }

    /// See [`Transport::pace`].
    pub(crate) fn pace_mut(&mut self) -> &mut Pace {
        let (Transport::Plain(_, pace) | Transport::Tls(_, pace)) = self;
        pace
    }

    /// Sends output buffered by the transport itself. Returns false if some of it is left.
    pub(crate) fn flush(&mut self) -> io::Result<bool> {
        match self {
            Transport::Plain(..) => Ok(true),
            Transport::Tls(link, _) => link.flush(),
        }
    }

    /// Returns whether the transport buffers output.
    pub(crate) fn has_output(&self) -> bool {
        match self {
            Transport::Plain(..) => false,
            Transport::Tls(link, _) => link.has_output(),
        }
    }

    /// Returns whether the TLS handshake is in progress.
    pub(crate) fn is_handshaking(&self) -> bool {
        match self {
            Transport::Plain(..) => false,
            Transport::Tls(link, _) => link.is_handshaking(),
        }
    }

    /// Returns the number of bytes of TLS records that the socket has not accepted.
    pub(crate) fn records(&self) -> usize {
        match self {
            Transport::Plain(..) => 0,
            Transport::Tls(link, _) => link.records(),
        }
    }

    /// Updates the ledger with the buffered records.
    pub(crate) fn count(&mut self, ledger: &mut Ledger, now: Tick) {
        if let Transport::Tls(link, _) = self {
            link.count(ledger, now);
        }
    }

    /// Returns whether TLS records are buffered of which the socket has accepted nothing for longer
    /// than `longest`.
    pub(crate) fn stalls(&self, now: Tick, longest: Tick) -> bool {
        match self {
            Transport::Plain(..) => false,
            Transport::Tls(link, _) => link.stalls(now, longest),
        }
    }

    /// Removes the buffered records from the ledger, before the connection is freed.
    pub(crate) fn release(&mut self, ledger: &mut Ledger) {
        if let Transport::Tls(link, _) = self {
            link.release(ledger);
        }
    }

    /// Returns the number of bytes of an incomplete TLS record.
    pub(crate) fn buffered(&self) -> usize {
        match self {
            Transport::Plain(..) => 0,
            Transport::Tls(link, _) => link.buffered(),
        }
    }

    pub(crate) fn is_tls(&self) -> bool {
        !matches!(self, Transport::Plain(..))
    }

    /// Shuts down the write side.
    pub(crate) fn shutdown_write(&mut self, scratch: &mut Scratch) -> io::Result<()> {
        match self {
            Transport::Plain(socket, _) => socket.shutdown_write(),
            Transport::Tls(link, _) => link.shutdown_write(scratch),
        }
    }

    pub(crate) fn socket_mut(&mut self) -> &mut S {
        match self {
            Transport::Plain(socket, _) => socket,
            Transport::Tls(link, _) => link.socket_mut(),
        }
    }
}

pub(crate) fn read_once(socket: &mut impl Socket, buf: &mut [u8]) -> io::Result<Fill> {
    loop {
        return match socket.read(buf) {
            Ok(bytes) => Ok(Fill {
                bytes,
                received: bytes,
                // With epoll, a short read has emptied the socket, and the next byte to arrive
                // causes a new edge.
                is_emptied: bytes < buf.len(),
                eof: bytes == 0,
            }),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(Fill {
                bytes: 0,
                received: 0,
                is_emptied: true,
                eof: false,
            }),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => Err(error),
        };
    }
}

pub(crate) fn write_once(socket: &mut impl Socket, slices: &[IoSlice<'_>]) -> io::Result<usize> {
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

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::io::ErrorKind;

    use super::*;

    /// A socket with these results of its calls.
    struct Scripted {
        results: VecDeque<Result<usize, ErrorKind>>,
        is_shut: bool,
    }

    impl Scripted {
        fn next(&mut self) -> io::Result<usize> {
            let result = self.results.pop_front();
            Ok(result.expect("another call")?)
        }
    }

    impl Socket for Scripted {
        fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
            Ok(self.next()?.min(buf.len()))
        }

        fn write_vectored(&mut self, _: &[IoSlice<'_>]) -> io::Result<usize> {
            self.next()
        }

        fn shutdown_write(&mut self) -> io::Result<()> {
            self.is_shut = true;
            Ok(())
        }
    }

    fn socket(results: &[Result<usize, ErrorKind>]) -> Scripted {
        Scripted {
            results: results.iter().copied().collect(),
            is_shut: false,
        }
    }

    fn transport(results: &[Result<usize, ErrorKind>]) -> Transport<Scripted> {
        Transport::Plain(socket(results), Pace::default())
    }

    #[test]
    fn short_read_empties_the_socket_and_an_empty_one_ends_it() {
        use ErrorKind::{ConnectionReset, Interrupted, WouldBlock};
        let fill = |bytes, is_emptied, eof| Fill {
            bytes,
            received: bytes,
            is_emptied,
            eof,
        };
        for (results, want) in [
            (&[Ok(3)][..], Ok(fill(3, true, false))),
            (&[Ok(4)], Ok(fill(4, false, false))),
            (&[Ok(0)], Ok(fill(0, true, true))),
            (&[Err(WouldBlock)], Ok(fill(0, true, false))),
            (&[Err(Interrupted), Ok(1)], Ok(fill(1, true, false))),
            (&[Err(ConnectionReset)], Err(ConnectionReset)),
        ] {
            let mut socket = socket(results);
            let filled = read_once(&mut socket, &mut [0; 4]);
            assert_eq!(filled.map_err(|error| error.kind()), want, "{results:?}");
            assert!(socket.results.is_empty());
        }
    }

    #[test]
    fn write_is_repeated_only_if_it_was_interrupted() {
        use ErrorKind::{BrokenPipe, Interrupted, WouldBlock, WriteZero};
        for (results, want) in [
            (&[Ok(3)][..], Ok(3)),
            (&[Ok(0)], Err(WriteZero)),
            (&[Err(WouldBlock)], Ok(0)),
            (&[Err(Interrupted), Ok(2)], Ok(2)),
            (&[Err(BrokenPipe)], Err(BrokenPipe)),
        ] {
            let mut socket = socket(results);
            let sent = write_once(&mut socket, &[IoSlice::new(b"abc")]);
            assert_eq!(sent.map_err(|error| error.kind()), want, "{results:?}");
            assert!(socket.results.is_empty());
        }
    }

    #[test]
    fn reads_are_limited() {
        let scratch = &mut Scratch::new(0);
        let all = scratch.input.len();
        let mut transport = transport(&[Ok(usize::MAX); 6]);
        for (limit, want) in [(5, 5), (usize::MAX, all)] {
            let filled = transport.fill(scratch, limit).unwrap();
            assert_eq!((filled.bytes, filled.is_emptied), (want, false));
            let filled = transport.fill_before_tls(scratch, limit).unwrap();
            assert_eq!(filled.bytes, want);
            assert_eq!(transport.discard(scratch, limit).unwrap().bytes, want);
        }
    }

    #[test]
    fn plain_transport_buffers_nothing() {
        let (scratch, ledger) = (&mut Scratch::new(0), &mut Ledger::default());
        let mut transport = transport(&[Ok(2048)]);
        assert!(transport.flush().unwrap());
        assert!(!transport.is_tls() && !transport.has_output());
        assert!(!transport.is_handshaking() && !transport.stalls(1000, 0));
        assert_eq!((transport.records(), transport.buffered()), (0, 0));
        let sent = transport.send(&[IoSlice::new(&[0; 4096])], scratch);
        assert_eq!(sent.unwrap(), 2048);
        // The peer needs time to read this output.
        assert_eq!(transport.pace().lag(0, scratch.now), 20);
        transport.pace_mut().advance(Tick::MAX, scratch.now);
        assert_eq!(transport.pace().lag(0, scratch.now), 0);
        transport.count(ledger, 0);
        assert_eq!(*ledger, Ledger::default());
        transport.shutdown_write(scratch).unwrap();
        assert!(transport.socket_mut().is_shut);
    }
}
