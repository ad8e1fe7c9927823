//! The output path of a connection: what the kernel accepts at once, and the queue of the rest.
//!
//! Owns: the only calls that write to a transport, and the forms of output. Queued output is in
//! [`queue`](super::queue), whose memory is counted in the ledger.

use std::io::{self, IoSlice};
use std::mem;
use std::rc::Rc;

use crate::conn::queue::TxQueue;
use crate::conn::{Conn, Flags};
use crate::engine::scratch::Scratch;
use crate::engine::timer::Tick;
use crate::frame::Frame;
use crate::io::socket::Socket;
use crate::io::transport::Transport;
use crate::ledger::Ledger;

/// A part of the output of a connection: written directly if possible, queued otherwise.
pub(crate) trait Part {
    fn bytes(&self) -> &[u8];

    /// Queues the part, `sent` bytes of which have been sent.
    fn queue(&self, tx: &mut TxQueue, sent: usize, now: Tick, ledger: &mut Ledger);
}

/// Private frames.
impl Part for &[u8] {
    fn bytes(&self) -> &[u8] {
        self
    }

    fn queue(&self, tx: &mut TxQueue, sent: usize, now: Tick, ledger: &mut Ledger) {
        tx.push_owned(&self[sent..], sent > 0, now, ledger);
    }
}

/// A frame shared with other connections.
impl Part for Rc<Frame> {
    fn bytes(&self) -> &[u8] {
        Frame::bytes(self)
    }

    fn queue(&self, tx: &mut TxQueue, sent: usize, now: Tick, ledger: &mut Ledger) {
        tx.push_shared(Rc::clone(self), sent, now, ledger);
    }
}

/// Returns the parts left after `sent` bytes, and the number of bytes sent of the first one.
#[inline]
pub(crate) fn unsent<P: Part>(mut parts: &[P], mut sent: usize) -> (&[P], usize) {
    while let [first, rest @ ..] = parts
        && first.bytes().len() <= sent
    {
        sent -= first.bytes().len();
        parts = rest;
    }
    (parts, sent)
}

impl<S: Socket, C> Conn<S, C> {
    /// Returns whether output may be written directly: none is queued before it, and the kernel may
    /// have buffer space.
    #[inline]
    pub(crate) fn may_write(&self) -> bool {
        self.tx.is_none() && self.flags.has(Flags::WRITABLE)
    }

    /// Writes the rest of one part. Returns the number of bytes accepted.
    #[inline]
    pub(crate) fn write_one(
        &mut self,
        bytes: &[u8],
        scratch: &mut Scratch,
        ledger: &mut Ledger,
    ) -> io::Result<usize> {
        let (transport, flags) = (&mut self.transport, &mut self.flags);
        try_write(transport, flags, &[IoSlice::new(bytes)], scratch, ledger)
    }

    /// Writes parts, the first of which has been sent up to `sent`. Returns the number of bytes
    /// accepted.
    pub(crate) fn write_parts(
        &mut self,
        parts: &[impl Part],
        mut sent: usize,
        scratch: &mut Scratch,
        ledger: &mut Ledger,
    ) -> io::Result<usize> {
        let mut slices = [IoSlice::new(&[]); MAX_SLICES];
        let mut count = 0;
        for (slice, part) in slices.iter_mut().zip(parts) {
            *slice = IoSlice::new(&part.bytes()[mem::take(&mut sent)..]);
            count += 1;
        }
        let (transport, flags) = (&mut self.transport, &mut self.flags);
        try_write(transport, flags, &slices[..count], scratch, ledger)
    }

    /// Writes as much of the queue as one call accepts, and removes the queue if it becomes empty.
    pub(crate) fn write_queued(
        &mut self,
        now: Tick,
        scratch: &mut Scratch,
        ledger: &mut Ledger,
    ) -> io::Result<usize> {
        let (transport, flags) = (&mut self.transport, &mut self.flags);
        let Some(queue) = &mut self.tx else {
            return try_write(transport, flags, &[], scratch, ledger);
        };
        let mut slices = [IoSlice::new(&[]); MAX_SLICES];
        let count = queue.slices(&mut slices);
        let sent = try_write(transport, flags, &slices[..count], scratch, ledger)?;
        queue.advance(sent, now, ledger);
        if !flags.has(Flags::WRITABLE) {
            queue.uptake.note_full(now);
            queue.is_blocked = true;
        }
        if queue.len() == 0 {
            queue.release(ledger);
            self.tx = None;
        }
        Ok(sent)
    }
}

/// Writes to the transport, after the records that it buffers. The only place that clears
/// `WRITABLE`: the kernel has just shown that its buffer is full.
#[inline(always)]
fn try_write<S: Socket>(
    transport: &mut Transport<S>,
    flags: &mut Flags,
    slices: &[IoSlice<'_>],
    scratch: &mut Scratch,
    ledger: &mut Ledger,
) -> io::Result<usize> {
    let offered: usize = slices.iter().map(|slice| slice.len()).sum();
    let sent = match transport.flush()? {
        true if offered > 0 => transport.send(slices, scratch)?,
        _ => 0,
    };
    transport.count(ledger, scratch.now);
    // TLS accepts a limited amount per call: only buffered records mean that the socket is full.
    let is_full = transport.has_output() || (sent < offered && !transport.is_tls());
    if is_full || (sent == 0 && offered > 0) {
        flags.clear(Flags::WRITABLE);
    }
    Ok(sent)
}

/// Slices per system call. Linux allows 1,024; a client seldom has more than a few.
pub(crate) const MAX_SLICES: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ListenerId;
    use crate::conn::pace::Pace;

    /// A socket that accepts some more bytes.
    #[derive(Default)]
    struct Room {
        left: usize,
        written: Vec<u8>,
    }

    impl Socket for Room {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::ErrorKind::WouldBlock.into())
        }

        fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
            let before = self.written.len();
            if slices.iter().all(|slice| slice.is_empty()) {
                return Ok(0);
            }
            for byte in slices.iter().flat_map(|slice| slice.iter()) {
                if self.left > 0 {
                    self.left -= 1;
                    self.written.push(*byte);
                }
            }
            match self.written.len() - before {
                0 => Err(io::ErrorKind::WouldBlock.into()),
                count => Ok(count),
            }
        }

        fn shutdown_write(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn conn(left: usize) -> Conn<Room, ()> {
        let room = Room {
            left,
            ..Room::default()
        };
        Conn::new(Transport::Plain(room, Pace::default()), ListenerId(0), 0)
    }

    fn written(conn: &mut Conn<Room, ()>) -> &[u8] {
        &conn.transport.socket_mut().written
    }

    fn is_writable(conn: &Conn<Room, ()>) -> bool {
        conn.flags.has(Flags::WRITABLE)
    }

    #[test]
    fn output_is_written_directly_unless_some_is_queued_or_the_socket_is_full() {
        let mut conn = conn(0);
        assert!(conn.may_write());
        conn.tx = Some(Box::default());
        assert!(!conn.may_write());
        conn.flags = Flags::default();
        assert!(!conn.may_write());
        conn.tx = None;
        assert!(!conn.may_write());
    }

    #[test]
    fn socket_that_accepts_only_a_part_is_full() {
        let (scratch, ledger) = (&mut Scratch::new(0), &mut Ledger::default());
        for (room, accepted, is_left) in [(4, 4, true), (3, 3, false), (0, 0, false)] {
            let mut conn = conn(room);
            let sent = conn.write_one(b"abcd", scratch, ledger);
            assert_eq!(sent.unwrap(), accepted);
            assert_eq!(written(&mut conn), &b"abcd"[..accepted]);
            assert_eq!(is_writable(&conn), is_left, "{room}");
        }
    }

    #[test]
    fn parts_are_written_after_the_sent_bytes_of_the_first() {
        let (scratch, ledger) = (&mut Scratch::new(0), &mut Ledger::default());
        let mut conn = conn(5);
        let parts: [&[u8]; 3] = [b"ab", b"cd", b"ef"];
        let sent = conn.write_parts(&parts, 1, scratch, ledger);
        assert_eq!(sent.unwrap(), 5);
        assert_eq!(written(&mut conn), b"bcdef");
        assert!(is_writable(&conn));
    }

    #[test]
    fn queue_is_removed_when_all_of_it_has_been_sent() {
        let (scratch, ledger) = (&mut Scratch::new(0), &mut Ledger::default());
        let mut conn = conn(2);
        // Nothing is offered, so that nothing is known about the socket.
        assert_eq!(conn.write_queued(0, scratch, ledger).unwrap(), 0);
        assert!(is_writable(&conn));
        let mut tx = TxQueue::default();
        tx.push_owned(b"abc", false, 0, ledger);
        tx.push_owned(b"def", false, 0, ledger);
        conn.tx = Some(Box::new(tx));
        assert_eq!(conn.write_queued(0, scratch, ledger).unwrap(), 2);
        assert!(!is_writable(&conn));
        assert!(conn.tx.as_ref().is_some_and(|tx| tx.is_blocked));
        conn.flags.set(Flags::WRITABLE);
        conn.transport.socket_mut().left = 4;
        conn.tx.as_mut().unwrap().is_blocked = false;
        assert_eq!(conn.write_queued(0, scratch, ledger).unwrap(), 4);
        assert!(is_writable(&conn) && conn.tx.is_none());
        assert_eq!(written(&mut conn), b"abcdef");
        assert_eq!(*ledger, Ledger::default());
    }

    #[test]
    fn queue_in_a_writable_socket_is_not_blocked() {
        let (scratch, ledger) = (&mut Scratch::new(0), &mut Ledger::default());
        let mut conn = conn(MAX_SLICES);
        let mut tx = TxQueue::default();
        for _ in 0..=MAX_SLICES {
            tx.push_owned(b"a", false, 0, ledger);
        }
        conn.tx = Some(Box::new(tx));
        let sent = conn.write_queued(0, scratch, ledger);
        assert_eq!(sent.unwrap(), MAX_SLICES);
        let tx = conn.tx.as_ref().unwrap();
        assert!(tx.len() == 1 && !tx.is_blocked && is_writable(&conn));
    }

    #[test]
    fn sent_bytes_complete_parts_in_order() {
        let parts: [&[u8]; 3] = [b"ab", b"c", b"def"];
        for (bytes, left, sent) in [
            (0, 3, 0),
            (1, 3, 1),
            (2, 2, 0),
            (3, 1, 0),
            (5, 1, 2),
            (6, 0, 0),
        ] {
            let (rest, of_first) = unsent(&parts, bytes);
            assert_eq!((rest, of_first), (&parts[3 - left..], sent));
        }
    }

    #[test]
    fn rest_of_a_part_in_transmission_is_queued() {
        let (ledger, frame) = (&mut Ledger::default(), Frame::text("shared"));
        let mut tx = TxQueue::default();
        Part::queue(&frame, &mut tx, 3, 0, ledger);
        Part::queue(&&b"own"[..], &mut tx, 0, 0, ledger);
        assert_eq!(tx.len(), frame.bytes().len() - 3 + 3);
        assert_eq!(tx.verify(), Ok(()));
        tx.release(ledger);
        assert_eq!(*ledger, Ledger::default());
    }
}
