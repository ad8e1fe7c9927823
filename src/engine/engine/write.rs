//! The write path: frames, output queues, and the treatment of slow readers.

use std::io;
use std::mem;
use std::rc::Rc;

use super::coalesce::CoalescedWrite;
use super::deadlines::ticks;
use super::{CORK_SIZE, Engine, FLUSH_BUDGET, WRITE_BUDGET, floor_tick};
use crate::ConnKey;
use crate::conn::lifecycle::Event;
use crate::conn::output::{Part, unsent};
use crate::conn::queue::TxQueue;
use crate::conn::{Conn, Flags, Phase};
use crate::engine::timer::Tick;
use crate::frame::{Deflated, Frame};
use crate::handler::Handler;
use crate::io::socket::Socket;
use crate::ledger::Ledger;

impl<S: Socket, H: Handler> Engine<S, H> {
    /// Sends the bytes written by `encode`, after any pending output of the connection.
    pub(super) fn queue_own(&mut self, key: ConnKey, encode: impl FnOnce(&mut Vec<u8>)) {
        if self.current == Some(key) {
            return encode(&mut self.outbox.cork);
        }
        let mut bytes = mem::take(&mut self.scratch.own);
        encode(&mut bytes);
        self.write_own(key, &bytes);
        self.scratch.own = clear_for_reuse(bytes);
    }

    /// Sends one shared frame.
    pub(super) fn send_frame(&mut self, key: ConnKey, frame: Rc<Frame>) {
        let is_current = self.current == Some(key) && !self.fan_out.is_muted(key);
        let is_fit =
            |conn: &Conn<_, _>| conn.is_open() && conn.is_open_stream() == frame.is_block();
        if is_current && self.arena.get(key).is_some_and(is_fit) {
            self.outbox.serves_stream = frame.is_block();
            self.outbox.collect(frame);
            self.outbox.serves_stream = false;
            if self.outbox.corked() >= CORK_SIZE {
                self.commit_cork();
            }
            return;
        }
        self.fan_out.note_block(&frame);
        let sent = self.send_shared(key, &mut [frame]);
        self.counters.messages_out += sent as u64;
        self.counters.undelivered += 1 - sent as u64;
    }

    /// Sends shared frames, without copying or queueing if no output is queued. Returns how many
    /// were sent or queued. Frames sent compressed are replaced in the slice by their compressed
    /// twins. Frames of the other transport are dropped.
    pub(super) fn send_shared(&mut self, key: ConnKey, frames: &mut [Rc<Frame>]) -> usize {
        if self.fan_out.is_muted(key) || frames.is_empty() {
            return 0;
        }
        let Some(conn) = self.arena.get(key).filter(|conn| conn.is_open()) else {
            return 0;
        };
        let (flags, is_stream) = (conn.flags, conn.flags.has(Flags::EVENT_STREAM));
        if (is_stream || self.fan_out.has_blocks())
            && frames.iter().any(|frame| frame.is_block() != is_stream)
        {
            let mut fit = frames.to_vec();
            fit.retain(|frame| frame.is_block() == is_stream);
            return self.send_shared(key, &mut fit);
        }
        if flags.has(Flags::DEFLATE_OUT) {
            frames.iter_mut().for_each(|frame| self.compress(frame));
        }
        self.write_or_queue(key, frames, 0)
    }

    /// Replaces a frame by its compressed twin, if it has one.
    pub(super) fn compress(&mut self, frame: &mut Rc<Frame>) {
        let twin = match frame.deflated(&mut self.deflater, &mut self.counters.ledger) {
            Deflated::Plain => return,
            Deflated::Known(twin) => twin,
            Deflated::Fresh(twin) => {
                let counters = &mut self.counters.compression;
                counters.deflated += 1;
                counters.deflated_from += frame.payload().len() as u64;
                counters.deflated_to += twin.payload().len() as u64;
                twin
            }
        };
        self.counters.compression.sent += 1;
        *frame = twin;
    }

    /// Writes private bytes, and queues the part that the kernel does not accept.
    pub(super) fn write_own(&mut self, key: ConnKey, bytes: &[u8]) {
        let Some(conn) = self.arena.get_mut(key).filter(|conn| !conn.phase.is_dead()) else {
            return;
        };
        let mut sent = 0;
        // The most frequent write: a reply to a connection without queued output.
        if conn.may_write() && !bytes.is_empty() {
            let (scratch, ledger) = (&mut self.scratch, &mut self.counters.ledger);
            match conn.write_one(bytes, scratch, ledger) {
                Ok(count) => sent = count,
                Err(error) => return self.on_write_error(key, &error),
            }
            self.counters.bytes_out += sent as u64;
        }
        if sent < bytes.len() {
            self.write_or_queue(key, &[bytes], sent);
        }
    }

    /// Writes parts, the first of which has been sent up to `sent`, and queues the rest that the
    /// kernel does not accept. Returns the number of parts written or queued: fewer than given if
    /// the connection ends or is closed meanwhile.
    #[inline]
    pub(super) fn write_or_queue<P: CoalescingPart>(
        &mut self,
        key: ConnKey,
        parts: &[P],
        mut sent: usize,
    ) -> usize {
        let mut rest = parts;
        let is_broken = loop {
            let Some(conn) = self.arena.get_mut(key).filter(|conn| !conn.phase.is_dead()) else {
                break true;
            };
            if !conn.may_write() {
                break false;
            }
            let (scratch, ledger) = (&mut self.scratch, &mut self.counters.ledger);
            let joined = match rest {
                [one] => Some(&one.bytes()[sent..]),
                // The rest after a partial write is not worth copying.
                many if sent == 0 => P::join(many, &mut self.coalesced),
                _ => None,
            };
            let result = match joined {
                Some(bytes) => conn.write_one(bytes, scratch, ledger),
                None => conn.write_parts(rest, sent, scratch, ledger),
            };
            match result {
                Ok(0) => break false,
                Ok(bytes) => {
                    self.counters.bytes_out += bytes as u64;
                    (rest, sent) = unsent(rest, sent + bytes);
                    if rest.is_empty() {
                        return parts.len();
                    }
                }
                Err(error) => {
                    self.on_write_error(key, &error);
                    break true;
                }
            }
        };
        let written = parts.len() - rest.len();
        match is_broken {
            true => written,
            false => written + self.queue_parts(key, rest, sent),
        }
    }

    /// Queues parts, the first of which has been sent up to `sent`. Returns how many were queued
    /// before the connection was closed for exceeding a limit.
    fn queue_parts(&mut self, key: ConnKey, parts: &[impl Part], mut sent: usize) -> usize {
        let now = floor_tick(self.now);
        let was_open = self.arena.get(key).is_some_and(Conn::is_open);
        for (count, part) in parts.iter().enumerate() {
            let conn = self.arena.get_mut(key);
            let Some(conn) = conn.filter(|conn| conn.is_open() || !was_open) else {
                return count;
            };
            let before = conn.queued();
            let tx = conn.tx.get_or_insert_default();
            part.queue(tx, mem::take(&mut sent), now, &mut self.counters.ledger);
            self.counters.queued_bytes += (tx.len() - before) as u64;
            self.watch_queue(key, before);
        }
        parts.len()
    }

    /// Handles growth of a queue from length `before`: schedules a flush, and enforces the limits.
    pub(super) fn watch_queue(&mut self, key: ConnKey, before: usize) {
        self.mark_dirty(key);
        let now = floor_tick(self.now);
        let Some(conn) = self.arena.get_mut(key) else {
            return;
        };
        if !conn.is_open() {
            return;
        }
        let Some(tx) = conn.tx.as_mut() else { return };
        match conn.flags.has(Flags::WRITABLE) {
            true => tx.uptake.note_room(now),
            false => tx.is_blocked = true,
        }
        let hard = self.config.queue_hard;
        // Events arrive at the publishers' pace; the client must read them at a reasonable one.
        let grace = HARD_GRACE.min(ticks(self.config.slow_timeout));
        if before > 0 && is_too_long(tx, now, grace, hard) {
            return self.close_unless_writable(key);
        }
        if tx.len() > self.config.queue_soft && tx.over_soft_since.is_none() {
            tx.over_soft_since = Some(now);
            self.counters.slow += 1;
            self.arm_sooner(key, self.config.slow_timeout);
        }
    }

    /// Closes a connection whose queue is too long, unless a write shows that the socket has room.
    fn close_unless_writable(&mut self, key: ConnKey) {
        self.write_again(key);
        let now = floor_tick(self.now);
        let grace = HARD_GRACE.min(ticks(self.config.slow_timeout));
        let tx = self.arena.get(key).and_then(|conn| conn.tx.as_ref());
        if tx.is_some_and(|tx| is_too_long(tx, now, grace, self.config.queue_hard)) {
            return self.apply(key, Event::TooSlow);
        }
        // The rest may still exceed the soft limit without having been recorded.
        self.watch_queue(key, 0);
    }

    /// Flushes the marked connections, each at most once, within the turn's budget.
    pub(super) fn flush_dirty(&mut self) {
        let start = self.counters.bytes_out;
        for _ in 0..self.dirty.len() {
            if self.counters.bytes_out - start >= FLUSH_BUDGET as u64 {
                break;
            }
            let Some(key) = self.dirty.pop_front() else {
                break;
            };
            if let Some(conn) = self.arena.get_mut(key) {
                conn.flags.clear(Flags::DIRTY);
                self.flush(key);
            }
        }
    }

    /// Calls the handler's `on_drain` for connections that have sent their queued output.
    pub(super) fn notify_flushed(&mut self) {
        if self.flushed.is_empty() {
            return;
        }
        for key in mem::take(&mut self.flushed) {
            if self.arena.get(key).is_some_and(Conn::is_open) {
                self.as_current(key, |engine| match engine.is_event_stream(key) {
                    true => engine.with_stream_output(key, |handler, cx| handler.on_drain(cx)),
                    false => engine.with_replies(key, |handler, cx| handler.on_drain(cx)),
                });
            }
        }
        // Connections flushed meanwhile are served in the next turn, without sleeping.
        if let Some(key) = self.flushed.first() {
            self.mark_dirty(*key);
        }
    }

    /// Sends queued output until the kernel accepts no more or the connection's budget is used up.
    pub(super) fn flush(&mut self, key: ConnKey) {
        let now = floor_tick(self.now);
        let mut share = 0;
        loop {
            let Some(conn) = self.arena.get_mut(key) else {
                return;
            };
            if matches!(conn.phase, Phase::Dead) {
                return;
            }
            if conn.tx.is_none() && !conn.transport.has_output() {
                return self.apply_inlined(key, Event::Flushed);
            }
            if !conn.flags.has(Flags::WRITABLE) {
                return;
            }
            if share >= WRITE_BUDGET {
                return self.mark_dirty(key);
            }
            let was_slow = conn.is_slow();
            let was_blocked = conn.tx.as_ref().is_some_and(|tx| tx.is_blocked);
            match conn.write_queued(now, &mut self.scratch, &mut self.counters.ledger) {
                Ok(0) if conn.tx.is_some() || conn.transport.has_output() => return,
                Ok(sent) => {
                    share += sent;
                    if let Some(tx) = conn.tx.as_mut()
                        && tx.len() <= self.config.queue_soft
                    {
                        tx.over_soft_since = None;
                    }
                    if was_blocked && conn.tx.is_none() && conn.is_open() {
                        self.flushed.push(key);
                    }
                    self.counters.slow -= u64::from(was_slow && !conn.is_slow());
                    self.counters.bytes_out += sent as u64;
                    self.counters.queued_bytes -= sent as u64;
                }
                Err(error) => {
                    self.on_write_error(key, &error);
                    return;
                }
            }
        }
    }

    /// Handles a failed write: the connection is gone.
    pub(super) fn on_write_error(&mut self, key: ConnKey, error: &io::Error) {
        log::debug!("{key:?}: {error}");
        self.apply(key, Event::Lost);
    }

    /// Drops queued output of a connection that has not been started, by `drop`.
    pub(super) fn drop_queued(&mut self, key: ConnKey, drop: fn(&mut TxQueue, &mut Ledger)) {
        let Some(conn) = self.arena.get_mut(key) else {
            return;
        };
        if let Some(tx) = conn.tx.as_mut() {
            let (before, messages) = (tx.len(), tx.messages());
            drop(tx, &mut self.counters.ledger);
            self.counters.queued_bytes -= (before - tx.len()) as u64;
            self.counters.unsent += (messages - tx.messages()) as u64;
            self.counters.slow -= u64::from(tx.over_soft_since.take().is_some());
            if tx.len() == 0 {
                tx.release(&mut self.counters.ledger);
                conn.tx = None;
            }
        }
    }

    /// Drops a connection's queue.
    pub(super) fn drop_queue(&mut self, key: ConnKey) {
        if let Some(conn) = self.arena.get_mut(key)
            && let Some(mut tx) = conn.tx.take()
        {
            self.counters.queued_bytes -= tx.len() as u64;
            self.counters.unsent += tx.messages() as u64;
            self.counters.slow -= u64::from(tx.over_soft_since.is_some());
            // Empties the queue.
            tx.release(&mut self.counters.ledger);
        }
    }
}

/// Returns whether a queue exceeds the hard limit, by private output or while it does not keep
/// pace.
fn is_too_long(tx: &TxQueue, now: Tick, grace: Tick, hard: usize) -> bool {
    tx.len() > hard && (tx.own() > hard || !tx.keeps_pace(now, grace, hard))
}

/// Clears a buffer for reuse, and frees its memory if it is unusually large.
pub(super) fn clear_for_reuse(mut buffer: Vec<u8>) -> Vec<u8> {
    buffer.clear();
    buffer.shrink_to(4 * CORK_SIZE);
    buffer
}

/// Parts that may be concatenated for one write.
pub(super) trait CoalescingPart: Part + Sized {
    /// Returns the concatenated bytes of several parts, if copying them is cheaper than a vectored
    /// write.
    fn join<'a>(parts: &'a [Self], coalesced: &'a mut CoalescedWrite) -> Option<&'a [u8]> {
        let _ = (parts, coalesced);
        None
    }
}

impl CoalescingPart for &[u8] {}

impl CoalescingPart for Rc<Frame> {
    fn join<'a>(parts: &'a [Self], coalesced: &'a mut CoalescedWrite) -> Option<&'a [u8]> {
        coalesced.bytes(parts)
    }
}

/// How long a queue may exceed the hard limit while the connection accepts none of it: one or two
/// round trips, after which the kernel knows the capacity of the path to the peer.
const HARD_GRACE: Tick = 10;
