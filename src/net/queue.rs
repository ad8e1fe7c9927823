//! What a connection still has to send.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::mem;
use std::rc::Rc;

use super::frame::Frame;
use super::timer::Tick;

/// Output that the kernel has not taken yet. It exists only while there is some.
#[derive(Debug, Default)]
pub(super) struct TxQueue {
    chunks: VecDeque<Chunk>,
    /// How much of the first chunk has been sent.
    sent: usize,
    /// The first chunk begins inside a frame, whose beginning was sent before it was queued.
    begins_inside: bool,
    /// Bytes still to be sent, the pong's included.
    bytes: usize,
    /// A pong that waits for its turn: the newest only (RFC 6455 §5.5.3: "it MAY elect to
    /// send a Pong frame for only the most recently processed Ping frame").
    pong: Option<Box<[u8]>>,
    /// Since when there has been more than the soft limit.
    pub over_soft_since: Option<Tick>,
}

#[derive(Debug)]
enum Chunk {
    Shared(Rc<Frame>),
    Owned(Box<[u8]>),
}

impl Chunk {
    fn bytes(&self) -> &[u8] {
        match self {
            Chunk::Shared(frame) => frame.bytes(),
            Chunk::Owned(bytes) => bytes,
        }
    }
}

impl TxQueue {
    /// Bytes that wait.
    pub fn len(&self) -> usize {
        self.bytes
    }

    /// Messages among it that others are sent, too.
    pub fn messages(&self) -> usize {
        let is_shared = |chunk: &&Chunk| matches!(chunk, Chunk::Shared(_));
        self.chunks.iter().filter(is_shared).count()
    }

    /// Adds a frame that others send too; `sent` bytes of it are gone already.
    pub fn push_shared(&mut self, frame: Rc<Frame>, sent: usize) {
        debug_assert!(sent == 0 || self.chunks.is_empty());
        self.bytes += frame.bytes().len() - sent;
        self.sent += sent;
        self.chunks.push_back(Chunk::Shared(frame));
    }

    /// Adds frames of the connection's own; `begins_inside` where the first of them was begun.
    pub fn push_owned(&mut self, bytes: &[u8], begins_inside: bool) {
        debug_assert!(!begins_inside || self.chunks.is_empty());
        if bytes.is_empty() {
            return;
        }
        self.begins_inside |= begins_inside;
        self.bytes += bytes.len();
        self.chunks.push_back(Chunk::Owned(bytes.into()));
    }

    /// Adds a pong, in place of one that has not left yet.
    pub fn set_pong(&mut self, frame: &[u8]) {
        self.bytes += frame.len();
        self.bytes -= self.pong.replace(frame.into()).map_or(0, |old| old.len());
    }

    /// Has all that waits sent first and whole, whatever else comes.
    pub fn seal(&mut self) {
        let mut bytes = Vec::with_capacity(self.bytes);
        let mut skip = mem::take(&mut self.sent);
        for chunk in self.chunks.drain(..) {
            bytes.extend_from_slice(&chunk.bytes()[mem::take(&mut skip)..]);
        }
        self.begins_inside = !bytes.is_empty();
        self.chunks
            .extend(self.begins_inside.then(|| Chunk::Owned(bytes.into())));
    }

    /// The next bytes to send, as at most as many slices as `out` has room for.
    pub fn slices<'a>(&'a self, out: &mut [IoSlice<'a>]) -> usize {
        // A control frame may go between frames, never inside one (RFC 6455 §5.4).
        let pong = self.pong.as_deref().filter(|_| !self.is_inside());
        // The first chunk alone, while a pong waits to go behind it.
        let limit = match self.pong.is_some() && pong.is_none() {
            true => 1,
            false => out.len(),
        };
        let mut skip = self.sent;
        let chunks = self.chunks.iter();
        let chunks = chunks.map(|chunk| &chunk.bytes()[mem::take(&mut skip)..]);
        let mut count = 0;
        for (slot, bytes) in out
            .iter_mut()
            .zip(pong.into_iter().chain(chunks))
            .take(limit)
        {
            *slot = IoSlice::new(bytes);
            count += 1;
        }
        count
    }

    /// Whether the peer is in the midst of a frame.
    fn is_inside(&self) -> bool {
        self.sent > 0 || self.begins_inside
    }

    /// Takes note that the first `count` bytes were sent.
    pub fn advance(&mut self, mut count: usize) {
        debug_assert!(count <= self.bytes);
        self.bytes -= count;
        // A pong that was offered stays one that can be replaced, until a byte of it is sent.
        if count > 0
            && !self.is_inside()
            && let Some(pong) = self.pong.take()
        {
            self.chunks.push_front(Chunk::Owned(pong));
        }
        while let Some(chunk) = self.chunks.front() {
            let left = chunk.bytes().len() - self.sent;
            if count < left {
                self.sent += count;
                return;
            }
            count -= left;
            self.sent = 0;
            self.begins_inside = false;
            self.chunks.pop_front();
        }
        debug_assert_eq!(count, 0);
    }

    /// Whether its figures are right; says what is not.
    pub fn verify(&self) -> Result<(), String> {
        let first = self.chunks.front().map_or(0, |chunk| chunk.bytes().len());
        if self.sent > 0 && self.sent >= first {
            return Err(format!("{} of the first {first} bytes are sent", self.sent));
        }
        let chunks: usize = self.chunks.iter().map(|chunk| chunk.bytes().len()).sum();
        let pong = self.pong.as_ref().map_or(0, |pong| pong.len());
        match chunks - self.sent + pong {
            0 => Err("an empty queue was kept".to_owned()),
            bytes if bytes != self.bytes => Err(format!("{} bytes, not {bytes}", self.bytes)),
            _ => Ok(()),
        }
    }

    /// Drops everything of which nothing was sent: what was begun must be finished, or the
    /// peer would take the next frame for the rest of it.
    pub fn drop_unstarted(&mut self) {
        self.pong = None;
        self.chunks.truncate(usize::from(self.is_inside()));
        self.bytes = self.chunks.front().map_or(0, |chunk| chunk.bytes().len()) - self.sent;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sends `step` bytes at a time, and returns all that came out.
    fn drain(queue: &mut TxQueue, step: usize) -> Vec<u8> {
        let mut out = Vec::new();
        while queue.len() > 0 {
            let mut slices = [IoSlice::new(&[]); 3];
            let count = queue.slices(&mut slices);
            let all: Vec<u8> = slices[..count].iter().flat_map(|s| s.to_vec()).collect();
            let taken = step.min(all.len());
            assert!(taken > 0, "bytes are counted that are not offered");
            out.extend_from_slice(&all[..taken]);
            queue.advance(taken);
        }
        out
    }

    #[test]
    fn bytes_leave_in_order_whatever_the_kernel_takes() {
        for step in 1..20 {
            let mut queue = TxQueue::default();
            queue.push_shared(Frame::text("one"), 2);
            for part in [&b"two"[..], b"", b"three"] {
                queue.push_owned(part, false);
            }
            queue.push_shared(Frame::text("four"), 0);
            assert_eq!(drain(&mut queue, step), b"onetwothree\x81\x04four");
        }
    }

    #[test]
    fn a_pong_goes_behind_the_frame_that_was_begun() {
        for step in 1..20 {
            let mut queue = TxQueue::default();
            queue.push_owned(b"rest", true);
            queue.push_owned(b"next", false);
            queue.set_pong(b"old");
            queue.set_pong(b"PONG");
            assert_eq!(drain(&mut queue, step), b"restPONGnext");
        }
        let mut queue = TxQueue::default();
        queue.push_owned(b"next", false);
        queue.set_pong(b"PONG");
        assert_eq!(drain(&mut queue, 3), b"PONGnext");
    }

    #[test]
    fn nothing_overtakes_what_is_sealed() {
        for step in 1..20 {
            let mut queue = TxQueue::default();
            queue.push_owned(b"answer", false);
            queue.push_owned(b"switch", false);
            queue.advance(2);
            queue.seal();
            assert_eq!(queue.verify(), Ok(()));
            queue.set_pong(b"PONG");
            queue.push_owned(b"next", false);
            assert_eq!(drain(&mut queue, step), b"swerswitchPONGnext");
        }
        let mut queue = TxQueue::default();
        queue.push_owned(b"switch", false);
        queue.seal();
        queue.push_owned(b"next", false);
        queue.drop_unstarted();
        assert_eq!(drain(&mut queue, 100), b"switch");
        queue.seal();
        assert_eq!(queue.len(), 0);
    }

    #[test]
    fn what_was_begun_is_finished() {
        let mut queue = TxQueue::default();
        queue.push_owned(b"first", false);
        queue.push_owned(b"second", false);
        queue.set_pong(b"PONG");
        queue.drop_unstarted();
        assert_eq!(queue.len(), 0);
        queue.push_owned(b"first", false);
        queue.push_owned(b"second", false);
        queue.advance(2);
        queue.drop_unstarted();
        queue.push_owned(b"close", false);
        assert_eq!(drain(&mut queue, 4), b"rstclose");
    }
}
