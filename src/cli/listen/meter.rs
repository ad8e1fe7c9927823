//! Counts the bytes of a connection, and limits the bytes that one turn reads.
//!
//! The WebSocket library reads until a message is complete. A server that never completes a message
//! would keep it reading forever. The limit lets the caller check for signals and a closed standard
//! output in between.

use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::BorrowedFd;

use super::stream::ClientStream;

/// A connection that counts its bytes.
pub(super) struct MeteredStream<S = Box<dyn ClientStream>> {
    stream: S,
    /// The number of bytes that this turn may still read.
    left: usize,
    /// The number of bytes since the last complete message.
    incomplete: u64,
    has_read: bool,
    has_written: bool,
}

impl<S> MeteredStream<S> {
    pub(super) fn new(stream: S) -> Self {
        MeteredStream {
            stream,
            left: READ_LIMIT,
            incomplete: 0,
            has_read: false,
            has_written: false,
        }
    }

    /// Starts a turn: resets the limit and the flags of the previous turn.
    pub(super) fn begin_turn(&mut self) {
        self.left = READ_LIMIT;
        self.has_read = false;
        self.has_written = false;
    }

    /// Returns whether this turn has reached its limit, so that more input may be available
    /// immediately. With TLS, this input may be in a buffer that `poll` does not see.
    pub(super) fn is_limit_reached(&self) -> bool {
        self.left == 0
    }

    /// Returns whether this turn has read anything.
    pub(super) fn has_read(&self) -> bool {
        self.has_read
    }

    /// Returns whether this turn has written anything.
    pub(super) fn has_written(&self) -> bool {
        self.has_written
    }

    /// Called when a message is complete.
    pub(super) fn message_ended(&mut self) {
        self.incomplete = 0;
    }

    /// Called when a control frame with this payload length has been read. Control frames are not
    /// part of a message.
    pub(super) fn control_frame(&mut self, payload: usize) {
        let frame = (CONTROL_HEADER + payload) as u64;
        self.incomplete = self.incomplete.saturating_sub(frame);
    }

    /// Returns whether a message of the server exceeds its maximum size.
    pub(super) fn is_message_too_large(&self) -> bool {
        self.incomplete > (MAX_MESSAGE + MAX_FRAME_HEADERS) as u64
    }
}

impl MeteredStream {
    /// Returns the socket, for `poll`.
    pub(super) fn descriptor(&self) -> BorrowedFd<'_> {
        self.stream.descriptor()
    }

    /// Makes reads and writes non-blocking.
    pub(super) fn set_nonblocking(&self) -> io::Result<()> {
        self.stream.set_nonblocking()
    }
}

impl<S: Read> Read for MeteredStream<S> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = buffer.len().min(self.left);
        let Some(buffer) = buffer.get_mut(..most).filter(|_| self.left > 0) else {
            return Err(ErrorKind::WouldBlock.into());
        };
        let count = self.stream.read(buffer)?;
        self.left = self.left.saturating_sub(count);
        self.incomplete = self.incomplete.saturating_add(count as u64);
        self.has_read |= count > 0;
        Ok(count)
    }
}

impl<S: Write> Write for MeteredStream<S> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.stream.write(bytes)? {
            // The buffer of the TLS library is full. The WebSocket library would interpret this as
            // the end of the connection.
            0 if !bytes.is_empty() => Err(ErrorKind::WouldBlock.into()),
            count => {
                self.has_written |= count > 0;
                Ok(count)
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

/// The maximum size of a server's message, in bytes, including all fragments.
pub(super) const MAX_MESSAGE: usize = 16 * 1024 * 1024;
/// The maximum total size of the frame headers of one message. This limits the number of its
/// fragments: a header has 2 to 10 bytes.
pub(super) const MAX_FRAME_HEADERS: usize = 1024 * 1024;
/// The maximum number of bytes that one turn reads. This keeps a turn to a few milliseconds,
/// regardless of the content.
const READ_LIMIT: usize = 64 * 1024;
/// The size of a control frame's header from a server, in bytes.
const CONTROL_HEADER: usize = 2;

#[cfg(test)]
mod tests {
    use tungstenite::protocol::Role;
    use tungstenite::{Error, Message, WebSocket};

    use super::*;

    /// A stream that repeats its bytes forever, and discards writes.
    struct Endless(&'static [u8]);

    impl Read for Endless {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let count = buffer.len() / self.0.len() * self.0.len();
            if count == 0 {
                return Err(ErrorKind::WouldBlock.into());
            }
            for (byte, &value) in buffer.iter_mut().zip(self.0.iter().cycle()).take(count) {
                *byte = value;
            }
            Ok(count)
        }
    }

    impl Write for Endless {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(ErrorKind::WouldBlock.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Err(ErrorKind::WouldBlock.into())
        }
    }

    /// Reads until the turn ends. Returns the number of messages received.
    fn turn(socket: &mut WebSocket<MeteredStream<Endless>>) -> usize {
        socket.get_mut().begin_turn();
        for count in 0.. {
            match socket.read() {
                Ok(Message::Ping(data)) => socket.get_mut().control_frame(data.len()),
                Ok(_) => socket.get_mut().message_ended(),
                Err(Error::Io(error)) if error.kind() == ErrorKind::WouldBlock => return count,
                Err(error) => panic!("{error}"),
            }
        }
        unreachable!("a turn ends")
    }

    fn socket(first: &[u8], then: &'static [u8]) -> WebSocket<MeteredStream<Endless>> {
        let stream = MeteredStream::new(Endless(then));
        WebSocket::from_partially_read(stream, first.to_vec(), Role::Client, None)
    }

    /// Reads a whole turn without the WebSocket library. Returns its bytes.
    fn raw_turn(meter: &mut MeteredStream<Endless>) -> usize {
        meter.begin_turn();
        let count = meter.read(&mut [0; 2 * READ_LIMIT]).expect("a turn");
        assert!(meter.is_limit_reached() && meter.has_read());
        assert!(meter.read(&mut [0]).is_err(), "the turn is over");
        count
    }

    #[test]
    fn turn_of_empty_fragments_ends() {
        // The first fragment of a text message, followed by empty continuation frames.
        let mut socket = socket(b"\x01\x00", b"\x00\x00");
        for _ in 0..3 {
            assert_eq!(turn(&mut socket), 0);
            assert!(socket.get_ref().is_limit_reached() && socket.get_ref().has_read());
        }
        assert!(!socket.get_ref().is_message_too_large());
        assert_eq!(socket.get_ref().incomplete, 3 * READ_LIMIT as u64);
    }

    #[test]
    fn message_length_including_headers_is_bounded() {
        let mut meter = MeteredStream::new(Endless(b"\x00\x00"));
        for number in 0..=MOST / READ_LIMIT {
            assert!(!meter.is_message_too_large(), "{number}");
            raw_turn(&mut meter);
        }
        assert!(meter.is_message_too_large());
    }

    #[test]
    fn control_frames_and_complete_messages_do_not_count_toward_message_length() {
        let mut pings = socket(b"\x01\x00", b"\x89\x02ab");
        let mut texts = socket(b"", b"\x81\x02ab");
        for socket in [&mut pings, &mut texts] {
            assert_eq!(turn(socket), READ_LIMIT / 4);
            assert_eq!(socket.get_ref().incomplete, 0);
        }
    }

    #[test]
    fn full_tls_buffer_does_not_end_the_connection() {
        struct Full;
        impl Write for Full {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Ok(0)
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let mut meter = MeteredStream::new(Full);
        let error = meter.write(b"a").expect_err("no room");
        assert_eq!(error.kind(), ErrorKind::WouldBlock);
        assert!(!meter.has_written());
        assert_eq!(meter.write(b"").ok(), Some(0));
    }

    const MOST: usize = MAX_MESSAGE + MAX_FRAME_HEADERS;
}
