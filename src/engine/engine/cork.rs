//! Write coalescing for the connection being served.
//!
//! Owns: the order of its output. Replies, pongs, and frames sent to this connection leave in call
//! order, in one write.

use std::mem;
use std::rc::Rc;

use super::Engine;
use super::work::WRITE_COST;
use super::write::{CoalescingPart, clear_for_reuse};
use crate::ConnKey;
use crate::conn::Flags;
use crate::conn::output::Part;
use crate::conn::queue::TxQueue;
use crate::cx::Corked;
use crate::engine::timer::Tick;
use crate::frame::Frame;
use crate::handler::Handler;
use crate::io::socket::Socket;
use crate::ledger::Ledger;

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
        self.outbox.cork = clear_for_reuse(own);
    }

    /// Writes private frames interleaved with shared ones.
    fn write_corked(&mut self, key: ConnKey, own: &[u8], shared: Vec<(usize, Rc<Frame>)>) {
        let messages = shared.len();
        let conn = self.arena.get(key);
        let deflates = conn.is_some_and(|conn| conn.flags.has(Flags::DEFLATE_OUT));
        let mut parts = Vec::with_capacity(2 * messages + 1);
        let mut at = 0;
        for (before, mut frame) in shared {
            if deflates {
                self.compress(&mut frame);
            }
            parts.push(CorkPart::Own(&own[mem::replace(&mut at, before)..before]));
            parts.push(CorkPart::Shared(frame));
        }
        parts.push(CorkPart::Own(&own[at..]));
        parts.retain(|part| !part.bytes().is_empty());
        let done = self.write_or_queue(key, &parts, 0);
        let left = parts[done..].iter().filter(|part| part.is_shared()).count();
        self.counters.messages_out += (messages - left) as u64;
        self.counters.undelivered += left as u64;
    }
}

/// A part of the collected output.
enum CorkPart<'a> {
    Own(&'a [u8]),
    Shared(Rc<Frame>),
}

impl CorkPart<'_> {
    fn is_shared(&self) -> bool {
        matches!(self, CorkPart::Shared(_))
    }
}

impl Part for CorkPart<'_> {
    fn bytes(&self) -> &[u8] {
        match self {
            CorkPart::Own(bytes) => bytes,
            CorkPart::Shared(frame) => frame.bytes(),
        }
    }

    fn queue(&self, tx: &mut TxQueue, sent: usize, now: Tick, ledger: &mut Ledger) {
        match self {
            CorkPart::Own(bytes) => bytes.queue(tx, sent, now, ledger),
            CorkPart::Shared(frame) => frame.queue(tx, sent, now, ledger),
        }
    }
}

impl CoalescingPart for CorkPart<'_> {}
