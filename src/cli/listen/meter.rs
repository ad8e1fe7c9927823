//! Counts what goes over a connection, and bounds what one turn reads of it.
//!
//! The WebSocket library reads on until a message is complete. A server that never completes one
//! would keep it reading; with a bound the caller looks after signals and standard output between.

use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::BorrowedFd;

use super::connect::Stream;

/// A connection whose bytes are counted.
pub(super) struct Metered<S = Box<dyn Stream>> {
    stream: S,
    /// How much this turn may still read.
    left: usize,
    /// The bytes since the last complete message.
    unfinished: u64,
    has_read: bool,
    has_written: bool,
}

impl<S> Metered<S> {
    pub fn new(stream: S) -> Self {
        Metered {
            stream,
            left: TURN,
            unfinished: 0,
            has_read: false,
            has_written: false,
        }
    }

    /// Allows the reads of another turn, and forgets what the last one did.
    pub fn begin_turn(&mut self) {
        self.left = TURN;
        self.has_read = false;
        self.has_written = false;
    }

    /// Whether this turn has ended by its bound, so that there may be more to read at once. With
    /// TLS that may be in memory, where `poll` does not see it.
    pub fn is_cut(&self) -> bool {
        self.left == 0
    }

    /// Whether this turn has read anything.
    pub fn has_read(&self) -> bool {
        self.has_read
    }

    /// Whether this turn has written anything.
    pub fn has_written(&self) -> bool {
        self.has_written
    }

    /// A message was complete.
    pub fn message_ended(&mut self) {
        self.unfinished = 0;
    }

    /// A control frame with so long a payload was read: it is no part of a message.
    pub fn control_frame(&mut self, payload: usize) {
        let frame = (CONTROL_HEADER + payload) as u64;
        self.unfinished = self.unfinished.saturating_sub(frame);
    }

    /// Whether the server sends a message without an end.
    pub fn is_endless(&self) -> bool {
        self.unfinished > (LONGEST_MESSAGE + LONGEST_HEADERS) as u64
    }
}

impl Metered {
    /// The socket, to wait for.
    pub fn descriptor(&self) -> BorrowedFd<'_> {
        self.stream.descriptor()
    }

    /// From now on reads and writes do not wait.
    pub fn set_nonblocking(&self) -> io::Result<()> {
        self.stream.set_nonblocking()
    }
}

impl<S: Read> Read for Metered<S> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = buffer.len().min(self.left);
        let Some(buffer) = buffer.get_mut(..most).filter(|_| self.left > 0) else {
            return Err(ErrorKind::WouldBlock.into());
        };
        let count = self.stream.read(buffer)?;
        self.left = self.left.saturating_sub(count);
        self.unfinished = self.unfinished.saturating_add(count as u64);
        self.has_read |= count > 0;
        Ok(count)
    }
}

impl<S: Write> Write for Metered<S> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.stream.write(bytes)? {
            // The buffer of the TLS library is full. The WebSocket library would take this for the
            // end of the connection.
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

/// The longest message of a server, in bytes, all its fragments together.
pub(super) const LONGEST_MESSAGE: usize = 16 * 1024 * 1024;
/// How long the frame headers of one message may be in all. This bounds its fragments: a header
/// has from 2 to 10 bytes.
pub(super) const LONGEST_HEADERS: usize = 1024 * 1024;
/// What one turn reads at most. A turn takes some milliseconds, whatever the bytes are.
const TURN: usize = 64 * 1024;
/// The header of a control frame from a server, in bytes.
const CONTROL_HEADER: usize = 2;

#[cfg(test)]
mod tests {
    use tungstenite::protocol::Role;
    use tungstenite::{Error, Message, WebSocket};

    use super::*;

    /// Sends its bytes again and again, and takes none.
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

    /// Reads until the turn ends; returns how many messages came.
    fn turn(socket: &mut WebSocket<Metered<Endless>>) -> usize {
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

    fn socket(first: &[u8], then: &'static [u8]) -> WebSocket<Metered<Endless>> {
        let stream = Metered::new(Endless(then));
        WebSocket::from_partially_read(stream, first.to_vec(), Role::Client, None)
    }

    /// Reads a whole turn, by hand; returns its bytes.
    fn raw_turn(meter: &mut Metered<Endless>) -> usize {
        meter.begin_turn();
        let count = meter.read(&mut [0; 2 * TURN]).expect("a turn");
        assert!(meter.is_cut() && meter.has_read());
        assert!(meter.read(&mut [0]).is_err(), "the turn is over");
        count
    }

    #[test]
    fn turn_of_empty_fragments_ends() {
        // The first fragment of a text, then empty continuation frames.
        let mut socket = socket(b"\x01\x00", b"\x00\x00");
        for _ in 0..3 {
            assert_eq!(turn(&mut socket), 0);
            assert!(socket.get_ref().is_cut() && socket.get_ref().has_read());
        }
        assert!(!socket.get_ref().is_endless());
        assert_eq!(socket.get_ref().unfinished, 3 * TURN as u64);
    }

    #[test]
    fn length_of_a_message_with_its_headers_is_bounded() {
        let mut meter = Metered::new(Endless(b"\x00\x00"));
        for number in 0..=MOST / TURN {
            assert!(!meter.is_endless(), "{number}");
            raw_turn(&mut meter);
        }
        assert!(meter.is_endless());
    }

    #[test]
    fn control_frames_and_complete_messages_do_not_make_a_message_longer() {
        let mut pings = socket(b"\x01\x00", b"\x89\x02ab");
        let mut texts = socket(b"", b"\x81\x02ab");
        for socket in [&mut pings, &mut texts] {
            assert_eq!(turn(socket), TURN / 4);
            assert_eq!(socket.get_ref().unfinished, 0);
        }
    }

    #[test]
    fn full_buffer_of_the_layer_below_is_no_end_of_the_connection() {
        struct Full;
        impl Write for Full {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Ok(0)
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let mut meter = Metered::new(Full);
        let error = meter.write(b"a").expect_err("no room");
        assert_eq!(error.kind(), ErrorKind::WouldBlock);
        assert!(!meter.has_written());
        assert_eq!(meter.write(b"").ok(), Some(0));
    }

    const MOST: usize = LONGEST_MESSAGE + LONGEST_HEADERS;
}
