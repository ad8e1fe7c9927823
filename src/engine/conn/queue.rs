//! The output queue of a connection.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::mem;
use std::rc::Rc;

use crate::conn::uptake::{PACE, Uptake};
use crate::engine::timer::Tick;
use crate::frame::Frame;
use crate::ledger::{Ledger, recount};

/// Output that the kernel has not accepted yet. The queue exists only while there is some, and is
/// counted in the ledger meanwhile: call [`TxQueue::release`] before dropping it.
#[derive(Debug, Default)]
pub(crate) struct TxQueue {
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
    /// The socket was full while this output waited: the handler is called when it has been sent.
    pub is_blocked: bool,
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
    pub(crate) fn len(&self) -> usize {
        self.bytes
    }

    /// Returns the memory freed with this queue, excluding shared frames, in bytes.
    pub(crate) fn private(&self) -> usize {
        self.counted
    }

    /// Returns the number of private output bytes.
    pub(crate) fn own(&self) -> usize {
        self.own
    }

    /// Returns the number of shared messages.
    pub(crate) fn messages(&self) -> usize {
        let is_shared = |entry: &&Entry| matches!(entry.chunk, Chunk::Shared(_));
        self.entries.iter().filter(is_shared).count()
    }

    /// Returns whether the peer reads at a reasonable pace: the message at the front was queued at
    /// most `grace` ticks ago. A message above `large` bytes may take longer, provided that
    /// [`PACE`] bytes of it are accepted per tick.
    pub(crate) fn keeps_pace(&self, now: Tick, grace: Tick, large: usize) -> bool {
        let Some(first) = self.entries.front().filter(|_| self.is_behind(now, grace)) else {
            return true;
        };
        let overtime = self.uptake.of_first(now).saturating_sub(grace);
        first.bytes().len() > large && self.sent >= overtime as usize * PACE
    }

    /// Returns whether the message at the front was queued more than `grace` ticks ago.
    pub(crate) fn is_behind(&self, now: Tick, grace: Tick) -> bool {
        let now = self.uptake.clock(now);
        let first = self.entries.front();
        first.is_some_and(|first| now.saturating_sub(first.since) > grace)
    }

    /// Appends a shared frame, `sent` bytes of which have already been sent.
    pub(crate) fn push_shared(
        &mut self,
        frame: Rc<Frame>,
        sent: usize,
        now: Tick,
        ledger: &mut Ledger,
    ) {
        debug_assert!(sent == 0 || self.entries.is_empty());
        let now = self.uptake.clock(now);
        frame.hold(ledger);
        if self.entries.is_empty() {
            self.uptake.begin(now);
        }
        self.bytes += frame.bytes().len() - sent;
        self.sent += sent;
        self.entries.push_back(Entry {
            chunk: Chunk::Shared(frame),
            since: now,
        });
        self.count(ledger);
    }

    /// Appends private frames. `begins_inside` is set if part of the first one has already been
    /// sent.
    pub(crate) fn push_owned(
        &mut self,
        bytes: &[u8],
        begins_inside: bool,
        now: Tick,
        ledger: &mut Ledger,
    ) {
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
        self.count(ledger);
    }

    fn push_own(&mut self, bytes: Box<[u8]>, since: Tick) {
        self.own += bytes.len();
        self.entries.push_back(Entry {
            chunk: Chunk::Owned(bytes),
            since,
        });
    }

    /// Sets the pending pong, replacing an older one.
    pub(crate) fn set_pong(&mut self, frame: &[u8], ledger: &mut Ledger) {
        self.bytes += frame.len();
        self.bytes -= self.pong.replace(frame.into()).map_or(0, |old| old.len());
        self.count(ledger);
    }

    /// Concatenates all pending output into one unit that nothing can overtake or replace.
    pub(crate) fn seal(&mut self, ledger: &mut Ledger) {
        let mut bytes = Vec::with_capacity(self.bytes);
        let mut skip = mem::take(&mut self.sent);
        let since = self.entries.front().map_or(0, |entry| entry.since);
        for entry in self.entries.drain(..) {
            bytes.extend_from_slice(&entry.bytes()[mem::take(&mut skip)..]);
            entry.release(ledger);
        }
        self.own = 0;
        self.begins_inside = !bytes.is_empty();
        if self.begins_inside {
            self.push_own(bytes.into(), since);
        }
        self.count(ledger);
    }

    /// Drops everything, and removes it from the ledger.
    pub(crate) fn release(&mut self, ledger: &mut Ledger) {
        for entry in self.entries.drain(..) {
            entry.release(ledger);
        }
        recount(&mut ledger.queues, &mut self.counted, 0);
    }

    /// Updates the ledger.
    fn count(&mut self, ledger: &mut Ledger) {
        let memory = self.memory();
        recount(&mut ledger.queues, &mut self.counted, memory);
    }

    fn memory(&self) -> usize {
        let pong = self.pong.as_ref().map_or(0, |pong| pong.len());
        size_of::<TxQueue>() + self.entries.capacity() * size_of::<Entry>() + self.own + pong
    }

    /// Fills `out` with the next bytes to send. Returns the number of slices used.
    pub(crate) fn slices<'a>(&'a self, out: &mut [IoSlice<'a>]) -> usize {
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
    pub(crate) fn advance(&mut self, mut count: usize, now: Tick, ledger: &mut Ledger) {
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
                entry.release(ledger);
            }
        }
        if self.entries.capacity() > 64 && self.entries.len() < self.entries.capacity() / 4 {
            self.entries.shrink_to(self.entries.len() * 2);
        }
        self.count(ledger);
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
    pub(crate) fn verify(&self) -> Result<(), String> {
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
    pub(crate) fn drop_unstarted(&mut self, ledger: &mut Ledger) {
        self.pong = None;
        self.drop_where(|_| true, ledger);
    }

    /// Drops all messages that have not been started; private frames stay.
    pub(crate) fn drop_messages(&mut self, ledger: &mut Ledger) {
        self.drop_where(|entry| matches!(entry.chunk, Chunk::Shared(_)), ledger);
    }

    fn drop_where(&mut self, is_dropped: impl Fn(&Entry) -> bool, ledger: &mut Ledger) {
        for entry in self.entries.split_off(usize::from(self.is_inside())) {
            match is_dropped(&entry) {
                true => entry.release(ledger),
                false => self.entries.push_back(entry),
            }
        }
        self.entries.shrink_to_fit();
        self.own = self.entries.iter().map(Entry::own).sum();
        let queued: usize = self.entries.iter().map(|entry| entry.bytes().len()).sum();
        let pong = self.pong.as_ref().map_or(0, |pong| pong.len());
        self.bytes = queued + pong - self.sent;
        self.count(ledger);
    }

    /// Returns the shared frames in the queue.
    #[doc(hidden)]
    pub(crate) fn frames(&self) -> impl Iterator<Item = &Rc<Frame>> {
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

    fn release(self, ledger: &mut Ledger) {
        if let Chunk::Shared(frame) = self.chunk {
            frame.release(ledger);
        }
    }
}

/// The entry size in bytes up to which freeing the sent part does not pay.
const WORTH_SHRINKING: usize = 4096;

#[cfg(test)]
mod tests;
