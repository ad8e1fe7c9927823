//! The read path: from the run queue through the socket to the decoder and the handler.

use std::mem;

use super::admission::missing;
use super::frames::FramesEnd;
use super::work::{
    Class, LARGE_SHARE, READ_COST, RECEIVED_BYTES, SMALL_MESSAGE, TLS_RECORD_BYTE_COST,
    TLS_STEP_COST, TURN_WORK,
};
use super::{
    BUSY_READ_SIZE, COMPRESSED_READ_SIZE, Engine, READ_SIZE, RUN_BUDGET, TLS_BUDGET, floor_tick,
};
use crate::ConnKey;
use crate::conn::lifecycle::Event;
use crate::conn::phase::Reading;
use crate::conn::{Conn, Flags, Phase};
use crate::handler::Handler;
use crate::io::socket::{Fill, Socket};
use crate::ws::Unread;

impl<S: Socket, H: Handler> Engine<S, H> {
    /// Serves the connections in the run queue, those with the least recent work first. Classes
    /// that a turn does not reach still get a small part of it.
    pub(super) fn serve_readers(&mut self) {
        if self.run.is_empty() {
            return;
        }
        let mut served = 0;
        for (class, mut waiting) in self.run.waiting() {
            if self.is_turn_over(served) {
                self.serve_on_credit(class, waiting);
                continue;
            }
            while waiting > 0 && !self.is_turn_over(served) {
                if let Some(key) = self.run.pop(class) {
                    self.visit(key, class);
                }
                served += 1;
                waiting -= 1;
            }
        }
    }

    fn is_turn_over(&self, served: usize) -> bool {
        served >= RUN_BUDGET || self.turn_work >= TURN_WORK
    }

    /// Serves connections of a class in the minimum part of a turn that each class is granted.
    #[cold]
    fn serve_on_credit(&mut self, class: Class, waiting: usize) {
        self.run.grant(class);
        for _ in 0..waiting {
            if !self.run.has_credit(class) {
                break;
            }
            let before = self.turn_work;
            if let Some(key) = self.run.pop(class) {
                self.visit(key, class);
            }
            self.run.spend(class, self.turn_work - before);
        }
    }

    /// Serves one connection of a class for its share of work.
    #[inline]
    fn visit(&mut self, key: ConnKey, class: Class) {
        let Some(conn) = self.arena.get_mut(key) else {
            return;
        };
        conn.flags.clear(Flags::QUEUED);
        let is_busy = !self.run.is_empty() && Some(conn.listener) != self.config.reserved_listener;
        self.visit = Visit::new(class, is_busy);
        self.outbox.work = 0;
        let next = self.serve_reader(key);
        self.apply_effects();
        self.charge(key, self.outbox.work);
        if let Some(rest) = next {
            self.enqueue_rest(key, rest);
        }
    }

    /// Charges a connection for work.
    #[inline]
    fn charge(&mut self, key: ConnKey, work: u64) {
        if let Some(conn) = self.arena.get_mut(key) {
            conn.recent.add(work, self.jitter.draw());
        }
        self.turn_work += work;
    }

    /// Runs `serve`, and charges the connection for the work it causes. A privileged connection is
    /// served as if no others were waiting.
    #[inline]
    pub(super) fn serve_and_charge<R>(
        &mut self,
        key: ConnKey,
        class: Class,
        is_privileged: bool,
        serve: impl FnOnce(&mut Self) -> R,
    ) -> R {
        let is_busy = !self.run.is_empty() && !is_privileged;
        let outer = mem::replace(&mut self.visit, Visit::new(class, is_busy));
        let outer_work = mem::take(&mut self.outbox.work);
        let result = serve(self);
        self.visit = outer;
        let work = mem::replace(&mut self.outbox.work, outer_work);
        self.charge(key, work);
        result
    }

    /// Serves one connection until its socket is empty or its share of work is used up. Returns how
    /// to requeue it, if input is left.
    ///
    /// Invariant: code that leaves bytes in the socket leaves `READABLE` set, and adds the
    /// connection to the run queue, immediately or when it may be read from again. There will be no
    /// further edge.
    #[inline(always)]
    pub(super) fn serve_reader(&mut self, key: ConnKey) -> Option<Requeue> {
        while let Some(source) = self.may_read(key) {
            if self.outbox.work >= self.visit.share {
                return Some(Requeue::Small);
            }
            if source == Source::Kept {
                let postponed = self.process_unread(key);
                self.update_incomplete(key);
                if postponed {
                    return Some(Requeue::Large);
                }
                continue;
            }
            let fill = self.fill(key)?;
            let postponed = fill.bytes > 0 && self.process_input(key, fill.bytes);
            if !fill.eof && self.is_settled(key) {
                return None;
            }
            self.update_incomplete(key);
            if fill.eof {
                self.on_eof(key);
                return None;
            }
            if postponed || (self.visit.is_quick && self.is_in_large_frame(key)) {
                return Some(Requeue::Large);
            }
        }
        None
    }

    /// Returns whether an open connection has no input left: none incomplete, none buffered, and
    /// none in the socket.
    #[inline]
    fn is_settled(&self, key: ConnKey) -> bool {
        self.arena.get(key).is_some_and(|conn| {
            conn.is_open()
                && !conn.flags.has(Flags::READABLE)
                && !conn.flags.has(Flags::INCOMPLETE)
                && !conn.decoder.is_mid_message()
                && !conn.transport.is_tls()
        })
    }

    /// Returns whether the socket has more of a frame that is too long for a quick class.
    fn is_in_large_frame(&self, key: ConnKey) -> bool {
        self.arena.get(key).is_some_and(|conn| {
            conn.flags.has(Flags::READABLE) && conn.decoder.missing() > SMALL_MESSAGE as u64
        })
    }

    /// Returns the source of a connection's next input, if it may be processed now.
    #[inline(always)]
    fn may_read(&mut self, key: ConnKey) -> Option<Source> {
        let conn = self.arena.get_mut(key)?;
        let source = match conn.has_unread() {
            true => Source::Kept,
            false if conn.flags.has(Flags::READABLE) => Source::Socket,
            false => return None,
        };
        let is_choked = conn.queued() > self.config.queue_soft;
        let is_gone = conn.flags.has(Flags::READ_CLOSED);
        match conn.phase.reading(is_gone, is_choked) {
            Reading::Gone => {
                self.apply(key, Event::PeerGone);
                None
            }
            Reading::No => None,
            Reading::Yes if matches!(conn.phase, Phase::ProxyHeader(_)) => Some(source),
            Reading::Yes if conn.transport.is_handshaking() && self.tls_steps >= TLS_BUDGET => {
                self.enqueue(key);
                None
            }
            Reading::Yes => Some(source),
        }
    }

    /// Reads once. Returns `None` if that ended the connection.
    #[inline(always)]
    fn fill(&mut self, key: ConnKey) -> Option<Fill> {
        let conn = self.arena.get_mut(key)?;
        let limit = read_size(conn, self.config.max_head);
        let limit = match self.run.is_empty() {
            true => limit,
            // In its class, a large message is read as a whole, so that few are buffered in part at
            // a time.
            false => {
                let missing = match self.visit.is_quick {
                    true => 0,
                    false => usize::try_from(conn.decoder.missing()).unwrap_or(usize::MAX),
                };
                limit.min(BUSY_READ_SIZE.max(missing))
            }
        };
        let is_proxy_header = matches!(conn.phase, Phase::ProxyHeader(_));
        let was_handshaking = conn.transport.is_handshaking() && !is_proxy_header;
        self.outbox.work += READ_COST;
        let result = match conn.phase {
            Phase::ProxyHeader(_) => conn.transport.fill_before_tls(&mut self.scratch, limit),
            Phase::Linger { .. } => conn.transport.discard(&mut self.scratch, limit),
            _ => conn.transport.fill(&mut self.scratch, limit),
        };
        let ledger = &mut self.counters.ledger;
        conn.transport.count(ledger, self.scratch.now);
        if was_handshaking && !conn.transport.is_handshaking() {
            self.counters.tls_handshakes += 1;
        }
        let would_block = |fill: &Fill| fill.bytes == 0 && !fill.eof && fill.is_emptied;
        // A read without input is not a step.
        let is_step = was_handshaking && !result.as_ref().is_ok_and(would_block);
        if is_step {
            self.tls_steps += 1;
            self.outbox.work += TLS_STEP_COST;
        }
        match result {
            Ok(fill) => {
                let overhead = fill.received.saturating_sub(fill.bytes) as u64;
                self.outbox.work += overhead * TLS_RECORD_BYTE_COST;
                self.outbox.work += fill.received as u64 / RECEIVED_BYTES;
                // The only place that clears READABLE. A FIN can share an edge with the last bytes;
                // no further edge announces the end of the stream then.
                let would_block = would_block(&fill);
                if would_block || (fill.is_emptied && !conn.flags.has(Flags::READ_CLOSED)) {
                    conn.flags.clear(Flags::READABLE);
                }
                // Bytes of an incomplete TLS record count as activity, too.
                if !would_block && !fill.eof {
                    conn.note_activity(self.scratch.now);
                    conn.flags.clear(Flags::AWAITING_PONG);
                }
                self.counters.bytes_in += fill.bytes as u64;
                if conn.transport.has_output() && conn.flags.has(Flags::WRITABLE) {
                    self.mark_dirty(key);
                }
                Some(fill)
            }
            Err(error) => {
                log::debug!("{key:?}: {error}");
                let event = match was_handshaking {
                    true => Event::TlsFailed,
                    false => Event::Lost,
                };
                self.apply(key, event);
                None
            }
        }
    }

    /// Processes newly read input. Returns whether a message was postponed.
    fn process_input(&mut self, key: ConnKey, count: usize) -> bool {
        // Moved out of `self`, so that the bytes can be borrowed while the engine works.
        let mut input = mem::take(&mut self.scratch.input);
        self.current = Some(key);
        let postponed = self.on_bytes(key, &mut input[..count]);
        self.commit_cork();
        self.current = None;
        self.scratch.input = input;
        postponed
    }

    /// Processes buffered input. Returns whether a message was postponed.
    #[cold]
    fn process_unread(&mut self, key: ConnKey) -> bool {
        self.current = Some(key);
        let now = floor_tick(self.now);
        let mut unread = None;
        if let Some(conn) = self.arena.get_mut(key) {
            // Brings `recent` up to date. The input came from a living peer, and is processed only
            // now.
            conn.note_activity(now);
            unread = conn.decoder.take_unread();
        }
        let postponed = match unread {
            Some(mut unread) => {
                let end = self.on_frames(key, &mut unread.bytes[unread.at..]);
                match end {
                    FramesEnd::Whole => false,
                    FramesEnd::Share(taken) => {
                        unread.at += taken;
                        self.keep_unread(key, unread);
                        false
                    }
                    FramesEnd::Postponed(taken) => {
                        let rest = &unread.bytes[unread.at + taken..];
                        self.keep_message(key, rest);
                        true
                    }
                }
            }
            None => {
                self.on_request_bytes(key, &mut []);
                false
            }
        };
        self.commit_cork();
        self.current = None;
        postponed
    }

    /// Dispatches input by phase. Returns whether a message was postponed. Called again with the
    /// remainder if the phase changes partway.
    pub(super) fn on_bytes(&mut self, key: ConnKey, bytes: &mut [u8]) -> bool {
        let conn = self.arena.get(key);
        let is_stream = conn.is_some_and(|conn| conn.flags.has(Flags::EVENT_STREAM));
        match conn.map(|conn| &conn.phase) {
            Some(Phase::ProxyHeader(_)) => self.on_proxy_header(key, bytes),
            Some(Phase::Request { .. }) => self.on_request_bytes(key, bytes),
            Some(Phase::Open(_)) if is_stream => self.discard_input(bytes),
            Some(Phase::Open(_) | Phase::Closing) => match self.on_frames(key, bytes) {
                FramesEnd::Whole => {}
                FramesEnd::Share(taken) => {
                    let bytes = bytes[taken..].to_vec();
                    self.keep_unread(key, Unread { bytes, at: 0 });
                }
                FramesEnd::Postponed(taken) => {
                    self.keep_message(key, &bytes[taken..]);
                    return true;
                }
            },
            Some(Phase::Deferred(_) | Phase::Linger { .. } | Phase::Dead) | None => {}
        }
        false
    }

    /// Buffers a postponed message and the input after it.
    #[cold]
    fn keep_message(&mut self, key: ConnKey, rest: &[u8]) {
        let mut bytes = mem::take(&mut self.postponed_message);
        bytes.extend_from_slice(rest);
        self.keep_unread(key, Unread { bytes, at: 0 });
    }

    #[cold]
    fn keep_unread(&mut self, key: ConnKey, unread: Unread) {
        if let Some(conn) = self.arena.get_mut(key) {
            conn.decoder.keep_unread(unread);
        }
    }

    /// Handles the end of the peer's stream.
    fn on_eof(&mut self, key: ConnKey) {
        if let Some(conn) = self.arena.get_mut(key) {
            conn.flags.clear(Flags::READABLE);
            self.apply_inlined(key, Event::PeerEnded);
        }
    }
}

/// The source of input.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Source {
    /// Received before, and buffered.
    Kept,
    Socket,
}

/// Input left for a later visit.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Requeue {
    /// Handled in the class of the connection.
    Small,
    /// A postponed large message comes next.
    Large,
}

/// Limits for the connection being served.
#[derive(Clone, Copy, Default)]
pub(super) struct Visit {
    /// Work after which it goes to the back of the queue.
    pub share: u64,
    /// Large messages are postponed, because other connections are waiting.
    pub is_quick: bool,
}

impl Visit {
    #[inline]
    fn new(class: Class, is_busy: bool) -> Self {
        Visit {
            share: if is_busy { class.share() } else { LARGE_SHARE },
            is_quick: is_busy && class.is_quick(),
        }
    }
}

/// Returns how much to read at once. All input is processed after the read, so the amount is small
/// if the input may be compressed, or if it may follow a head that negotiates compression.
fn read_size<S, C>(conn: &Conn<S, C>, max_head: usize) -> usize {
    match &conn.phase {
        Phase::ProxyHeader(proxy_header) => missing(proxy_header),
        Phase::Open(_) if conn.flags.has(Flags::DEFLATE) => COMPRESSED_READ_SIZE,
        Phase::Request { partial, .. }
            if partial.as_ref().is_none_or(|part| part.body.is_none()) =>
        {
            max_head
        }
        _ => READ_SIZE,
    }
}
