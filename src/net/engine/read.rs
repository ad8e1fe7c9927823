//! From a socket's bytes to the handler: the run queue, and what an open WebSocket says.

use std::mem;

use crate::ws::{self, CloseCode, CloseFrame, Event, OpCode, ProtocolError};

use super::super::ConnKey;
use super::super::conn::{Conn, Farewell, Flags, Phase};
use super::super::counters::End;
use super::super::handler::{Handler, Message};
use super::super::socket::{Fill, Socket};
use super::address::missing;
use super::{
    COMPRESSED_READ_SIZE, CORK_SIZE, Engine, INFLATED_MESSAGE, MESSAGE_BUDGET, READ_SIZE,
    RUN_BUDGET, TLS_BUDGET, floor_tick,
};

impl<S: Socket, H: Handler> Engine<S, H> {
    /// Serves those in the run queue, each once.
    pub(super) fn serve_readers(&mut self) {
        for _ in 0..self.run.len().min(RUN_BUDGET) {
            if self.handled >= MESSAGE_BUDGET {
                break;
            }
            let Some(key) = self.run.pop_front() else {
                break;
            };
            if let Some(conn) = self.arena.get_mut(key) {
                conn.flags.clear(Flags::QUEUED);
                self.serve_reader(key);
            }
        }
    }

    /// Reads from one connection until its socket is empty or it has had its share.
    ///
    /// Whoever leaves bytes behind leaves `READABLE` set, and puts the connection into the run
    /// queue now (its share) or later (when what it waits for has come): no edge will.
    fn serve_reader(&mut self, key: ConnKey) {
        let mut share = 0;
        while self.may_read(key) {
            if share >= READ_SIZE {
                self.enqueue(key);
                return;
            }
            let Some(fill) = self.fill(key) else { return };
            // A read that brings nothing (an empty TLS record) is work, too.
            share += fill.bytes.max(READ_SIZE / 16);
            if fill.bytes > 0 {
                self.take_input(key, fill.bytes);
                share += mem::take(&mut self.inflated);
            }
            self.note_unfinished(key);
            if fill.eof {
                self.on_eof(key);
                return;
            }
        }
    }

    /// Whether a connection is to be read from now.
    fn may_read(&mut self, key: ConnKey) -> bool {
        let Some(conn) = self.arena.get_mut(key) else {
            return false;
        };
        if !conn.flags.has(Flags::READABLE) {
            return false;
        }
        match &conn.phase {
            // Nothing can come of a handshake whose client has gone.
            Phase::Deferred(deferred)
                if deferred.upgrade.is_some() && conn.flags.has(Flags::READ_CLOSED) =>
            {
                self.lose(key);
                false
            }
            Phase::Deferred(_) | Phase::Dead => false,
            // Who does not take the answers gets to ask no more.
            Phase::Open(_) | Phase::Request(_) if conn.queued() > self.config.queue_soft => false,
            Phase::Preface(_) => true,
            _ if conn.transport.is_handshaking() && self.tls_steps >= TLS_BUDGET => {
                self.enqueue(key);
                false
            }
            _ => true,
        }
    }

    /// Reads once; `None` when that ended the connection.
    fn fill(&mut self, key: ConnKey) -> Option<Fill> {
        let conn = self.arena.get_mut(key)?;
        let limit = read_size(conn, self.config.max_head);
        let is_preface = matches!(conn.phase, Phase::Preface(_));
        let was_handshaking = !is_preface && conn.transport.is_handshaking();
        self.tls_steps += usize::from(was_handshaking);
        let result = match conn.phase {
            Phase::Preface(_) => conn.transport.fill_before_tls(&mut self.scratch, limit),
            Phase::Linger => conn.transport.discard(&mut self.scratch),
            _ => conn.transport.fill(&mut self.scratch, limit),
        };
        if was_handshaking && !conn.transport.is_handshaking() {
            self.counters.tls_handshakes += 1;
        }
        match result {
            Ok(fill) => {
                // The one place that clears READABLE. A FIN can share its edge with the last
                // bytes, and then no further edge says that there is an end to be read.
                let would_block = fill.bytes == 0 && !fill.eof && fill.drained;
                if would_block || (fill.drained && !conn.flags.has(Flags::READ_CLOSED)) {
                    conn.flags.clear(Flags::READABLE);
                }
                if fill.bytes > 0 {
                    conn.heard = floor_tick(self.now);
                    conn.flags.clear(Flags::PING_OUT);
                }
                self.counters.bytes_in += fill.bytes as u64;
                if conn.transport.has_output() && conn.flags.has(Flags::WRITABLE) {
                    self.mark_dirty(key);
                }
                Some(fill)
            }
            Err(error) => {
                log::debug!("{key:?}: {error}");
                if was_handshaking && self.is_before_linger(key) {
                    self.counters.tls_failures += 1;
                    // The alert that says why has been sent: let it arrive.
                    self.linger(key);
                } else {
                    self.lose(key);
                }
                None
            }
        }
    }

    fn is_before_linger(&self, key: ConnKey) -> bool {
        let phase = self.arena.get(key).map(|conn| &conn.phase);
        matches!(phase, Some(Phase::Request(_)))
    }

    /// Hands what was read to whoever the phase says.
    fn take_input(&mut self, key: ConnKey, count: usize) {
        // Taken out, so that the bytes can be lent while the engine works; put back below.
        let mut input = mem::take(&mut self.scratch.input);
        self.current = Some(key);
        self.take_bytes(key, &mut input[..count]);
        self.commit_cork();
        self.current = None;
        self.scratch.input = input;
    }

    /// The phase's own way with fresh bytes. Called again for what is left when the phase has
    /// changed in the midst of them.
    pub(super) fn take_bytes(&mut self, key: ConnKey, bytes: &mut [u8]) {
        match self.arena.get(key).map(|conn| &conn.phase) {
            Some(Phase::Preface(_)) => self.take_preface(key, bytes),
            Some(Phase::Request(_)) => self.take_request_bytes(key, bytes),
            Some(Phase::Open(_) | Phase::Closing) => self.take_frames(key, bytes),
            Some(Phase::Deferred(_) | Phase::Linger | Phase::Dead) | None => {}
        }
    }

    /// Decodes frames until the bytes or the WebSocket end.
    fn take_frames(&mut self, key: ConnKey, bytes: &mut [u8]) {
        let Some(conn) = self.arena.get_mut(key) else {
            return;
        };
        let limits = ws::Limits {
            max_message: self.config.max_message,
            max_fragments: self.config.max_fragments,
            deflate: conn.flags.has(Flags::DEFLATE),
        };
        let mut decoder = mem::take(&mut conn.decoder);
        let (mut at, mut any_message) = (0, false);
        loop {
            match decoder.next(&mut bytes[at..], &limits) {
                // RFC 6455 §5.5.3: "A response to an unsolicited Pong frame is not expected."
                Ok((taken, Some(Event::Pong(_)))) => at += taken,
                Ok((taken, Some(event))) => {
                    at += taken;
                    any_message |= !matches!(event, Event::Ping(_));
                    if !self.on_event(key, event) {
                        return;
                    }
                }
                Ok((_, None)) => break,
                Err(error) => return self.fail(key, error),
            }
        }
        if let Some(conn) = self.arena.get_mut(key) {
            conn.decoder = decoder;
        }
        if any_message {
            self.restart_unfinished(key);
        }
    }

    /// What the peer said; false when no more of it is to be heard.
    fn on_event(&mut self, key: ConnKey, event: Event<'_>) -> bool {
        let is_open = self.arena.get(key).is_some_and(|conn| conn.is_open());
        match event {
            Event::Close(frame) => {
                self.on_peer_close(key, frame);
                return false;
            }
            // After our own close frame only the peer's counts.
            _ if !is_open => {}
            Event::Text(text) => self.on_message(key, Message::Text(text)),
            Event::Binary(data) => self.on_message(key, Message::Binary(data)),
            Event::Compressed { is_text, data } => return self.on_compressed(key, is_text, data),
            Event::Ping(payload) => self.pong(key, payload),
            Event::Pong(_) => {}
        }
        if self.outbox.corked() >= CORK_SIZE {
            self.commit_cork();
        }
        matches!(
            self.arena.get(key).map(|conn| &conn.phase),
            Some(Phase::Open(_) | Phase::Closing)
        )
    }

    /// Decompresses a message; what comes out counts as if it had been read.
    fn on_compressed(&mut self, key: ConnKey, is_text: bool, data: &[u8]) -> bool {
        // Taken out, so that its output can be lent while the engine works.
        let mut inflater = mem::take(&mut self.inflater);
        let goes_on = match inflater.inflate(is_text, data, self.config.max_message) {
            Ok(event) => {
                let size = event.size();
                self.inflated += size;
                self.handled += size / INFLATED_MESSAGE;
                let counters = &mut self.counters.compression;
                counters.inflated += 1;
                counters.inflated_from += data.len() as u64;
                counters.inflated_to += size as u64;
                self.on_event(key, event)
            }
            Err(error) => {
                self.counters.compression.failures += 1;
                self.fail(key, error);
                false
            }
        };
        self.inflater = inflater;
        goes_on
    }

    fn on_message(&mut self, key: ConnKey, message: Message<'_>) {
        self.handled += 1;
        self.counters.messages_in += 1;
        self.with_replies(|handler, cx| handler.on_message(cx, key, message));
        self.apply_effects();
    }

    /// §5.5.3: "A Pong frame sent in response to a Ping frame must have identical "Application
    /// data"". It joins the other replies, or waits as the only one of its kind while the
    /// peer does not read.
    fn pong(&mut self, key: ConnKey, payload: &[u8]) {
        self.handled += 1;
        let Some(conn) = self.arena.get_mut(key) else {
            return;
        };
        match &mut conn.tx {
            None => ws::encode_frame(OpCode::Pong, payload, &mut self.outbox.cork),
            Some(tx) => {
                let mut frame = Vec::with_capacity(2 + payload.len());
                ws::encode_frame(OpCode::Pong, payload, &mut frame);
                let before = tx.len();
                tx.set_pong(&frame);
                self.counters.queued_bytes += tx.len() as u64;
                self.counters.queued_bytes -= before as u64;
                self.mark_dirty(key);
            }
        }
    }

    /// §5.5.1: "If an endpoint receives a Close frame and did not previously send a Close
    /// frame, the endpoint MUST send a Close frame in response. (When sending a Close frame in
    /// response, the endpoint typically echos the status code it received.)"
    fn on_peer_close(&mut self, key: ConnKey, frame: Option<CloseFrame<'_>>) {
        if self.arena.get(key).is_some_and(|conn| conn.is_open()) {
            let code = frame.map_or(NO_CODE, |frame| frame.code.0);
            self.end_session(key, End::ByPeer, code);
            self.queue_own(key, |out| ws::encode_close(frame, out));
            self.arm(key, self.config.close_timeout);
        }
        self.linger(key);
    }

    /// §7.1.7 _Fail the WebSocket Connection_: "the endpoint SHOULD send a Close frame with an
    /// appropriate status code … before proceeding to _Close the WebSocket Connection_".
    pub(super) fn fail(&mut self, key: ConnKey, error: ProtocolError) {
        log::debug!("{key:?}: {error}");
        self.say_farewell(
            key,
            Farewell {
                code: error.code,
                reason: error.reason,
                end: End::Protocol,
            },
        );
        self.linger(key);
    }

    /// The peer's stream has ended.
    fn on_eof(&mut self, key: ConnKey) {
        let Some(conn) = self.arena.get_mut(key) else {
            return;
        };
        conn.flags.set(Flags::EOF);
        conn.flags.clear(Flags::READABLE);
        match conn.phase {
            // A deferred request that is no handshake keeps its answer.
            Phase::Deferred(_) | Phase::Dead => {}
            // One who only looked whether somebody is there.
            Phase::Preface(_) => self.lose(key),
            // A peer that only ended its own direction still gets what it asked for. It can
            // send no close frame any more, so none is waited for.
            _ => self.linger(key),
        }
    }

    /// Code that a connection is closed with by the application, checked.
    pub(super) fn close_by_application(&mut self, key: ConnKey, code: CloseCode, reason: &str) {
        debug_assert!(code.may_be_sent());
        if self.arena.get(key).is_some_and(|conn| conn.is_open()) {
            self.say_farewell(
                key,
                Farewell {
                    code,
                    reason,
                    end: End::ByApplication,
                },
            );
        }
    }
}

/// RFC 6455 §7.1.5: where the close frame has no code, "_The WebSocket Connection Close Code_ is
/// considered to be 1005".
const NO_CODE: u16 = 1005;

/// How much to read at once. All that was read is handled at once, so it is little where it may
/// be compressed: on such a connection, and behind a head that may ask for one.
fn read_size<S, C>(conn: &Conn<S, C>, max_head: usize) -> usize {
    match &conn.phase {
        Phase::Preface(preface) => missing(preface),
        Phase::Open(_) if conn.flags.has(Flags::DEFLATE) => COMPRESSED_READ_SIZE,
        Phase::Request(partial) if partial.as_ref().is_none_or(|part| part.whole.is_none()) => {
            max_head
        }
        _ => READ_SIZE,
    }
}
