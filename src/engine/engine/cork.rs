//! Write coalescing for the connection being served.
//!
//! Owns: the order of its output. Replies, pongs, and frames sent to this connection leave in call
//! order, in one write.

use std::collections::VecDeque;
use std::mem;
use std::rc::Rc;

use super::work::WRITE_COST;
use super::write::{emptied, gather_out};
use super::{Engine, floor_tick};
use crate::ConnKey;
use crate::conn::{Conn, Flags};
use crate::cx::Corked;
use crate::frame::Frame;
use crate::handler::Handler;
use crate::io::socket::Socket;

impl<S: Socket, H: Handler> Engine<S, H> {
    /// Runs `work` with `key` as the connection whose output is coalesced.
    pub(super) fn as_current(&mut self, key: ConnKey, work: impl FnOnce(&mut Self)) {
        if self.current == Some(key) {
            return work(self);
        }
        self.commit_cork();
        let outer = self.current.replace(key);
        work(self);
        self.commit_cork();
        self.current = outer;
    }

    /// Writes the collected output of the current connection, and queues what the kernel does not
    /// accept.
    pub(super) fn commit_cork(&mut self) {
        self.counters.messages_out += mem::take(&mut self.outbox.replies);
        if self.outbox.corked() == 0 {
            return;
        }
        self.outbox.work += WRITE_COST + self.outbox.corked() as u64;
        let Corked { own, shared } = self.outbox.uncork();
        if let Some(key) = self.current.take() {
            // `current` is cleared meanwhile, so that a close frame caused by this write is sent
            // directly after it.
            match shared.is_empty() {
                true => self.write_own(key, &own),
                false => self.write_corked(key, &own, shared),
            }
            self.current = Some(key);
        }
        self.outbox.cork = emptied(own);
    }

    /// Writes private frames interleaved with shared ones.
    fn write_corked(&mut self, key: ConnKey, own: &[u8], shared: Vec<(usize, Rc<Frame>)>) {
        let messages = shared.len();
        let conn = self.arena.get(key);
        let deflates = conn.is_some_and(|conn| conn.flags.has(Flags::DEFLATE_OUT));
        let mut parts = VecDeque::with_capacity(2 * messages + 1);
        let mut at = 0;
        for (before, mut frame) in shared {
            if deflates {
                self.compress(&mut frame);
            }
            parts.push_back(Part::Own(&own[mem::replace(&mut at, before)..before]));
            parts.push_back(Part::Shared(frame));
        }
        parts.push_back(Part::Own(&own[at..]));
        parts.retain(|part| !part.bytes().is_empty());
        let sent = self.write_parts(key, &mut parts);
        let left = match sent {
            Some(sent) => self.queue_parts(key, parts, sent),
            None => parts.iter().filter(|part| part.is_shared()).count(),
        };
        self.counters.messages_out += (messages - left) as u64;
        self.counters.undelivered += left as u64;
    }

    /// Writes from the front and removes the parts that were sent. Returns how much of the new
    /// first part has been sent, or `None` if the write ended the connection.
    fn write_parts(&mut self, key: ConnKey, parts: &mut VecDeque<Part<'_>>) -> Option<usize> {
        let mut sent = 0;
        loop {
            let conn = self.arena.get_mut(key)?;
            if conn.phase.is_dead() {
                return None;
            }
            if parts.is_empty() || conn.tx.is_some() || !conn.flags.has(Flags::WRITABLE) {
                return Some(sent);
            }
            let bytes = parts.iter().map(Part::bytes);
            let ledger = &mut self.counters.ledger;
            match gather_out(conn, bytes, sent, &mut self.scratch, ledger) {
                Ok(0) => return Some(sent),
                Ok(bytes) => {
                    self.counters.bytes_out += bytes as u64;
                    sent += bytes;
                    while let Some(part) = parts.front().filter(|p| p.bytes().len() <= sent) {
                        sent -= part.bytes().len();
                        parts.pop_front();
                    }
                }
                Err(error) => {
                    self.broken(key, &error);
                    return None;
                }
            }
        }
    }

    /// Queues parts, the first of which has been sent up to `sent`. Returns the number of shared
    /// frames that were not queued because the connection was closed for exceeding a limit.
    fn queue_parts(&mut self, key: ConnKey, parts: VecDeque<Part<'_>>, mut sent: usize) -> usize {
        let was_open = self.arena.get(key).is_some_and(Conn::is_open);
        let now = floor_tick(self.now);
        let mut parts = parts.into_iter();
        while let Some(conn) = self.arena.get_mut(key)
            && (conn.is_open() || !was_open)
            && let Some(part) = parts.next()
        {
            let before = conn.queued();
            let tx = conn.tx.get_or_insert_default();
            let skip = mem::take(&mut sent);
            let ledger = &mut self.counters.ledger;
            match part {
                Part::Own(bytes) => tx.push_owned(&bytes[skip..], skip > 0, now, ledger),
                Part::Shared(frame) => tx.push_shared(frame, skip, now, ledger),
            }
            self.counters.queued_bytes += (tx.len() - before) as u64;
            self.watch_queue(key, before);
        }
        parts.filter(Part::is_shared).count()
    }
}

/// A part of the collected output.
enum Part<'a> {
    Own(&'a [u8]),
    Shared(Rc<Frame>),
}

impl Part<'_> {
    fn bytes(&self) -> &[u8] {
        match self {
            Part::Own(bytes) => bytes,
            Part::Shared(frame) => frame.bytes(),
        }
    }

    fn is_shared(&self) -> bool {
        matches!(self, Part::Shared(_))
    }
}
