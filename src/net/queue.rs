//! The output queue of a connection.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::mem;
use std::rc::Rc;

use super::frame::Frame;
use super::held::{Held, recount};
use super::timer::Tick;
use super::uptake::{PACE, Uptake};

/// Output that the kernel has not accepted yet. The queue exists only while there is some, and is
/// counted in the ledger meanwhile: call [`TxQueue::release`] before dropping it.
#[derive(Debug, Default)]
pub(super) struct TxQueue {
    entries: VecDeque<Entry>,
    /// The number of bytes of the first entry that have been sent.
    sent: usize,
    /// The first entry starts inside a frame, whose beginning was sent before the rest was queued.
    begins_inside: bool,
    /// Bytes still to be sent, including the pong.
    bytes: usize,
    /// Bytes of private entries, including sent ones.
    own: usize,
    /// Bytes of this queue counted in the ledger, excluding shared frames.
    counted: usize,
    /// The latest pong, waiting for a frame boundary (RFC 6455 §5.5.3: "it MAY elect to send a Pong
    /// frame for only the most recently processed Ping frame").
    pong: Option<Box<[u8]>>,
    /// The time since which the queue has exceeded the soft limit.
    pub over_soft_since: Option<Tick>,
    pub uptake: Uptake,
}

#[derive(Debug)]
struct Entry {
    chunk: Chunk,
    /// When the entry was queued.
    since: Tick,
}

#[derive(Debug)]
enum Chunk {
    Shared(Rc<Frame>),
    Owned(Box<[u8]>),
}

impl Entry {
    fn bytes(&self) -> &[u8] {
        match &self.chunk {
            Chunk::Shared(frame) => frame.bytes(),
            Chunk::Owned(bytes) => bytes,
        }
    }
}

impl TxQueue {
    /// Returns the number of bytes to be sent.
    pub fn len(&self) -> usize {
        self.bytes
    }

    /// Returns the memory freed with this queue, excluding shared frames, in bytes.
    pub fn private(&self) -> usize {
        self.counted
    }

    /// Returns the number of private output bytes.
    pub fn own(&self) -> usize {
        self.own
    }

    /// Returns the number of shared messages.
    pub fn messages(&self) -> usize {
        let is_shared = |entry: &&Entry| matches!(entry.chunk, Chunk::Shared(_));
        self.entries.iter().filter(is_shared).count()
    }

    /// Returns whether the peer reads at a reasonable pace: the message at the front was queued at
    /// most `grace` ticks ago. A message above `large` bytes may take longer, provided that
    /// [`PACE`] bytes of it are accepted per tick.
    pub fn keeps_pace(&self, now: Tick, grace: Tick, large: usize) -> bool {
        let Some(first) = self.entries.front().filter(|_| self.is_behind(now, grace)) else {
            return true;
        };
        let overtime = self.uptake.of_first(now).saturating_sub(grace);
        first.bytes().len() > large && self.sent >= overtime as usize * PACE
    }

    /// Returns whether the message at the front was queued more than `grace` ticks ago.
    pub fn is_behind(&self, now: Tick, grace: Tick) -> bool {
        let now = self.uptake.clock(now);
        let first = self.entries.front();
        first.is_some_and(|first| now.saturating_sub(first.since) > grace)
    }

    /// Appends a shared frame, `sent` bytes of which have already been sent.
    pub fn push_shared(&mut self, frame: Rc<Frame>, sent: usize, now: Tick, held: &mut Held) {
        debug_assert!(sent == 0 || self.entries.is_empty());
        let now = self.uptake.clock(now);
        frame.hold(held);
        if self.entries.is_empty() {
            self.uptake.begin(now);
        }
        self.bytes += frame.bytes().len() - sent;
        self.sent += sent;
        self.entries.push_back(Entry {
            chunk: Chunk::Shared(frame),
            since: now,
        });
        self.count(held);
    }

    /// Appends private frames. `begins_inside` is set if part of the first one has already been
    /// sent.
    pub fn push_owned(&mut self, bytes: &[u8], begins_inside: bool, now: Tick, held: &mut Held) {
        debug_assert!(!begins_inside || self.entries.is_empty());
        let now = self.uptake.clock(now);
        if !bytes.is_empty() {
            if self.entries.is_empty() {
                self.uptake.begin(now);
            }
            self.begins_inside |= begins_inside;
            self.bytes += bytes.len();
            self.push_own(bytes.into(), now);
        }
        self.count(held);
    }

    fn push_own(&mut self, bytes: Box<[u8]>, since: Tick) {
        self.own += bytes.len();
        self.entries.push_back(Entry {
            chunk: Chunk::Owned(bytes),
            since,
        });
    }

    /// Sets the pending pong, replacing an older one.
    pub fn set_pong(&mut self, frame: &[u8], held: &mut Held) {
        self.bytes += frame.len();
        self.bytes -= self.pong.replace(frame.into()).map_or(0, |old| old.len());
        self.count(held);
    }

    /// Concatenates all pending output into one unit that nothing can overtake or replace.
    pub fn seal(&mut self, held: &mut Held) {
        let mut bytes = Vec::with_capacity(self.bytes);
        let mut skip = mem::take(&mut self.sent);
        let since = self.entries.front().map_or(0, |entry| entry.since);
        for entry in self.entries.drain(..) {
            bytes.extend_from_slice(&entry.bytes()[mem::take(&mut skip)..]);
            entry.release(held);
        }
        self.own = 0;
        self.begins_inside = !bytes.is_empty();
        if self.begins_inside {
            self.push_own(bytes.into(), since);
        }
        self.count(held);
    }

    /// Drops everything, and removes it from the ledger.
    pub fn release(&mut self, held: &mut Held) {
        for entry in self.entries.drain(..) {
            entry.release(held);
        }
        recount(&mut held.queues, &mut self.counted, 0);
    }

    /// Updates the ledger.
    fn count(&mut self, held: &mut Held) {
        let memory = self.memory();
        recount(&mut held.queues, &mut self.counted, memory);
    }

    fn memory(&self) -> usize {
        let pong = self.pong.as_ref().map_or(0, |pong| pong.len());
        size_of::<TxQueue>() + self.entries.capacity() * size_of::<Entry>() + self.own + pong
    }

    /// Fills `out` with the next bytes to send. Returns the number of slices used.
    pub fn slices<'a>(&'a self, out: &mut [IoSlice<'a>]) -> usize {
        // A control frame may be sent between frames, but not inside one (RFC 6455 §5.4).
        let pong = self.pong.as_deref().filter(|_| !self.is_inside());
        // Only the first chunk, if a pong is to follow it.
        let limit = match self.pong.is_some() && pong.is_none() {
            true => 1,
            false => out.len(),
        };
        let mut skip = self.sent;
        let entries = self.entries.iter();
        let chunks = entries.map(|entry| &entry.bytes()[mem::take(&mut skip)..]);
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

    /// Returns whether a frame has been sent in part.
    fn is_inside(&self) -> bool {
        self.sent > 0 || self.begins_inside
    }

    /// Removes the first `count` bytes, which have been sent.
    pub fn advance(&mut self, mut count: usize, now: Tick, held: &mut Held) {
        debug_assert!(count <= self.bytes);
        let now = self.uptake.clock(now);
        if count > 0 {
            self.uptake.note_taken(count, now);
        }
        self.bytes -= count;
        // An offered pong remains replaceable until a byte of it has been sent.
        if count > 0
            && !self.is_inside()
            && let Some(pong) = self.pong.take()
        {
            let since = self.entries.front().map_or(now, |entry| entry.since);
            self.own += pong.len();
            self.entries.push_front(Entry {
                chunk: Chunk::Owned(pong),
                since,
            });
        }
        while let Some(entry) = self.entries.front() {
            let left = entry.bytes().len() - self.sent;
            if count < left {
                self.sent += count;
                self.shrink_first();
                break;
            }
            count -= left;
            self.sent = 0;
            self.begins_inside = false;
            self.uptake.note_next(now);
            if let Some(entry) = self.entries.pop_front() {
                self.own -= entry.own();
                entry.release(held);
            }
        }
        if self.entries.capacity() > 64 && self.entries.len() < self.entries.capacity() / 4 {
            self.entries.shrink_to(self.entries.len() * 2);
        }
        self.count(held);
    }

    /// Frees the sent part of the first entry if it is more than half of it.
    fn shrink_first(&mut self) {
        if let Some(Entry {
            chunk: Chunk::Owned(bytes),
            ..
        }) = self.entries.front_mut()
            && bytes.len() > WORTH_SHRINKING
            && self.sent > bytes.len() / 2
        {
            self.own -= self.sent;
            *bytes = Box::from(&bytes[mem::take(&mut self.sent)..]);
            self.begins_inside = true;
        }
    }

    /// Verifies the counts. Returns a description of a mismatch.
    pub fn verify(&self) -> Result<(), String> {
        let first = self.entries.front().map_or(0, |entry| entry.bytes().len());
        if self.sent > 0 && self.sent >= first {
            return Err(format!("{} of the first {first} bytes are sent", self.sent));
        }
        let chunks: usize = self.entries.iter().map(|entry| entry.bytes().len()).sum();
        let own: usize = self.entries.iter().map(Entry::own).sum();
        if (own, self.memory()) != (self.own, self.counted) {
            let (memory, counted) = (self.memory(), self.counted);
            return Err(format!(
                "{own} own bytes, {memory} in memory, {counted} counted"
            ));
        }
        let pong = self.pong.as_ref().map_or(0, |pong| pong.len());
        match chunks - self.sent + pong {
            0 => Err("an empty queue was kept".to_owned()),
            bytes if bytes != self.bytes => Err(format!("{} bytes, not {bytes}", self.bytes)),
            _ => Ok(()),
        }
    }

    /// Drops all frames that have not been started. A frame in progress must be completed, because
    /// the peer would take the next frame for its rest.
    pub fn drop_unstarted(&mut self, held: &mut Held) {
        self.pong = None;
        self.drop_where(|_| true, held);
    }

    /// Drops all messages that have not been started; private frames stay.
    pub fn drop_messages(&mut self, held: &mut Held) {
        self.drop_where(|entry| matches!(entry.chunk, Chunk::Shared(_)), held);
    }

    fn drop_where(&mut self, is_dropped: impl Fn(&Entry) -> bool, held: &mut Held) {
        for entry in self.entries.split_off(usize::from(self.is_inside())) {
            match is_dropped(&entry) {
                true => entry.release(held),
                false => self.entries.push_back(entry),
            }
        }
        self.entries.shrink_to_fit();
        self.own = self.entries.iter().map(Entry::own).sum();
        let queued: usize = self.entries.iter().map(|entry| entry.bytes().len()).sum();
        let pong = self.pong.as_ref().map_or(0, |pong| pong.len());
        self.bytes = queued + pong - self.sent;
        self.count(held);
    }

    /// Returns the shared frames in the queue.
    #[doc(hidden)]
    pub fn frames(&self) -> impl Iterator<Item = &Rc<Frame>> {
        self.entries.iter().filter_map(|entry| match &entry.chunk {
            Chunk::Shared(frame) => Some(frame),
            Chunk::Owned(_) => None,
        })
    }
}

impl Entry {
    fn own(&self) -> usize {
        match &self.chunk {
            Chunk::Shared(_) => 0,
            Chunk::Owned(bytes) => bytes.len(),
        }
    }

    fn release(self, held: &mut Held) {
        if let Chunk::Shared(frame) = self.chunk {
            frame.release(held);
        }
    }
}

/// The entry size in bytes up to which freeing the sent part does not pay.
const WORTH_SHRINKING: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    /// Sends `step` bytes at a time. Returns all bytes sent.
    fn drain(queue: &mut TxQueue, step: usize, held: &mut Held) -> Vec<u8> {
        let mut out = Vec::new();
        while queue.len() > 0 {
            let mut slices = [IoSlice::new(&[]); 3];
            let count = queue.slices(&mut slices);
            let all: Vec<u8> = slices[..count].iter().flat_map(|s| s.to_vec()).collect();
            let taken = step.min(all.len());
            assert!(taken > 0, "bytes are counted that are not offered");
            out.extend_from_slice(&all[..taken]);
            queue.advance(taken, 0, held);
        }
        out
    }

    #[test]
    fn bytes_leave_in_order_for_any_write_size() {
        let held = &mut Held::default();
        for step in 1..20 {
            let mut queue = TxQueue::default();
            queue.push_shared(Frame::text("one"), 2, 0, held);
            for part in [&b"two"[..], b"", b"three"] {
                queue.push_owned(part, false, 0, held);
            }
            queue.push_shared(Frame::text("four"), 0, 0, held);
            assert_eq!(drain(&mut queue, step, held), b"onetwothree\x81\x04four");
        }
    }

    #[test]
    fn pong_follows_the_frame_in_progress() {
        let held = &mut Held::default();
        for step in 1..20 {
            let mut queue = TxQueue::default();
            queue.push_owned(b"rest", true, 0, held);
            queue.push_owned(b"next", false, 0, held);
            queue.set_pong(b"old", held);
            queue.set_pong(b"PONG", held);
            assert_eq!(drain(&mut queue, step, held), b"restPONGnext");
        }
        let mut queue = TxQueue::default();
        queue.push_owned(b"next", false, 0, held);
        queue.set_pong(b"PONG", held);
        assert_eq!(drain(&mut queue, 3, held), b"PONGnext");
    }

    #[test]
    fn partially_sent_pong_keeps_pace() {
        let held = &mut Held::default();
        let mut queue = TxQueue::default();
        queue.push_owned(b"rest", true, 1000, held);
        queue.set_pong(b"PONG", held);
        queue.advance(4, 1000, held);
        queue.advance(1, 1001, held);
        assert!(queue.keeps_pace(1005, 5, 100));
        assert!(!queue.keeps_pace(1007, 5, 100));
    }

    #[test]
    fn nothing_overtakes_sealed_output() {
        let held = &mut Held::default();
        for step in 1..20 {
            let mut queue = TxQueue::default();
            queue.push_owned(b"answer", false, 0, held);
            queue.push_owned(b"switch", false, 0, held);
            queue.advance(2, 0, held);
            queue.seal(held);
            assert_eq!(queue.verify(), Ok(()));
            queue.set_pong(b"PONG", held);
            queue.push_owned(b"next", false, 0, held);
            assert_eq!(drain(&mut queue, step, held), b"swerswitchPONGnext");
        }
        let mut queue = TxQueue::default();
        queue.push_owned(b"switch", false, 0, held);
        queue.seal(held);
        queue.push_owned(b"next", false, 0, held);
        queue.drop_unstarted(held);
        assert_eq!(drain(&mut queue, 100, held), b"switch");
        queue.seal(held);
        assert_eq!(queue.len(), 0);
    }

    #[test]
    fn drop_unstarted_keeps_the_frame_in_progress() {
        let held = &mut Held::default();
        let mut queue = TxQueue::default();
        queue.push_owned(b"first", false, 0, held);
        queue.push_owned(b"second", false, 0, held);
        queue.set_pong(b"PONG", held);
        queue.drop_unstarted(held);
        assert_eq!(queue.len(), 0);
        queue.push_owned(b"first", false, 0, held);
        queue.push_owned(b"second", false, 0, held);
        queue.advance(2, 0, held);
        queue.drop_unstarted(held);
        queue.push_owned(b"close", false, 0, held);
        assert_eq!(drain(&mut queue, 4, held), b"rstclose");
    }

    #[test]
    fn drop_messages_keeps_replies_and_the_frame_in_progress() {
        let held = &mut Held::default();
        let mut queue = TxQueue::default();
        queue.push_shared(Frame::text("event"), 3, 0, held);
        queue.push_owned(b"reply", false, 0, held);
        queue.push_shared(Frame::text("event"), 0, 0, held);
        queue.drop_messages(held);
        assert_eq!(queue.verify(), Ok(()));
        assert_eq!(drain(&mut queue, 20, held), b"ventreply");
    }

    // M11
    #[test]
    fn sent_part_of_a_long_chunk_is_released() {
        let held = &mut Held::default();
        let mut queue = TxQueue::default();
        let bytes: Vec<u8> = (0..100_000).map(|byte| byte as u8).collect();
        queue.push_owned(&bytes, false, 0, held);
        let overhead = held.queues - 100_000;
        let mut out = Vec::new();
        while queue.len() > 0 {
            let mut slices = [IoSlice::new(&[]); 1];
            assert_eq!(queue.slices(&mut slices), 1);
            let taken = slices[0].len().min(1500);
            out.extend_from_slice(&slices[0][..taken]);
            queue.advance(taken, 0, held);
            let most = 2 * queue.len() + WORTH_SHRINKING;
            assert!(held.queues - overhead <= most as u64);
            assert!(queue.len() == 0 || queue.verify() == Ok(()));
        }
        assert_eq!(out, bytes);
        queue.release(held);
        assert_eq!(*held, Held::default());
    }

    // M6
    #[test]
    fn shared_frame_is_counted_once() {
        let held = &mut Held::default();
        let frame = Frame::text(&"x".repeat(10_000));
        let mut queues: Vec<_> = (0..10).map(|_| TxQueue::default()).collect();
        for queue in &mut queues {
            queue.push_shared(Rc::clone(&frame), 0, 0, held);
        }
        assert_eq!(held.frames, frame.memory() as u64);
        for queue in &mut queues {
            assert_eq!(held.frames, frame.memory() as u64);
            queue.release(held);
        }
        assert_eq!(*held, Held::default());
    }
}
