//! The end of connections: closing handshakes, lingering, and connections that are dropped.

use std::mem;

use super::Engine;
use crate::ConnKey;
use crate::conn::{CloseRequest, Flags, Phase};
use crate::counters::CloseCause;
use crate::cx::CloseInfo;
use crate::handler::Handler;
use crate::io::socket::Socket;
use crate::ws::{self, CloseFrame, Decoder};

impl<S: Socket, H: Handler> Engine<S, H> {
    /// Takes the session out of an open connection, and calls the handler's `on_close`. `code` is
    /// the code of the first close frame.
    pub(super) fn end_session(&mut self, key: ConnKey, end: CloseCause, code: u16) {
        let Some(conn) = self.arena.get_mut(key) else {
            return;
        };
        let session = match mem::replace(&mut conn.phase, Phase::Closing) {
            Phase::Open(session) => session,
            other => {
                conn.phase = other;
                return;
            }
        };
        conn.flags.clear(Flags::AWAITING_PONG);
        self.fan_out.unmute(key);
        let is_tls = conn.transport.is_tls();
        self.counters.open -= 1;
        self.counters.open_tls -= u64::from(is_tls);
        self.counters.closing += 1;
        self.counters.closed.count(end);
        self.counters.close_codes.count(code);
        let reason = end.as_str();
        self.outbox.close_info = Some(CloseInfo { code, reason });
        self.with_handler(|handler, cx| handler.on_close(cx, key, session));
        self.outbox.close_info = None;
    }

    /// Sends the first close frame, and arms the timeout for the peer's response.
    pub(super) fn start_close(&mut self, key: ConnKey, close: CloseRequest<'_>) {
        if !self.arena.get(key).is_some_and(|conn| conn.is_open()) {
            return;
        }
        self.end_session(key, close.end, close.code.0);
        let close = CloseFrame {
            code: close.code,
            reason: close.reason,
        };
        self.queue_own(key, |out| ws::encode_close(Some(close), out));
        self.arm(key, self.config.close_timeout);
        // Backpressure no longer applies; input must be read again.
        self.read_again(key);
    }

    /// Starts the end of a connection: queued output is sent, then our write side is shut down, and
    /// input is discarded for a while. Closing the socket with unread input would make the kernel
    /// reset the connection, and the reset could destroy output in flight.
    pub(super) fn linger(&mut self, key: ConnKey) {
        let phase = self.arena.get(key).map(|conn| &conn.phase);
        let is_closing = matches!(phase, Some(Phase::Closing));
        let is_request = matches!(phase, Some(Phase::Request(_) | Phase::Deferred(_)));
        self.counters.closing += u64::from(is_request);
        self.end_session(key, CloseCause::Lost, ABNORMAL);
        let Some(conn) = self.arena.get_mut(key) else {
            return;
        };
        if matches!(conn.phase, Phase::Dead) {
            return;
        }
        let has_ended = conn.flags.has(Flags::EOF) && conn.flags.has(Flags::SHUT);
        if !matches!(conn.phase, Phase::Linger) {
            conn.phase = Phase::Linger;
            conn.decoder = Decoder::default();
            self.update_incomplete(key);
            if !is_closing {
                self.arm(key, self.config.close_timeout);
            }
            self.mark_dirty(key);
            self.read_again(key);
        } else if has_ended {
            self.mark_dead(key);
        }
    }

    /// Shuts down the write side of a lingering connection that has sent everything.
    pub(super) fn shutdown_write(&mut self, key: ConnKey) {
        let Some(conn) = self.arena.get_mut(key) else {
            return;
        };
        if !conn.flags.raise(Flags::SHUT) {
            return;
        }
        let result = conn.transport.shutdown_write(&mut self.scratch);
        let ledger = &mut self.counters.ledger;
        conn.transport.count(ledger, self.scratch.now);
        if result.is_err() || conn.flags.has(Flags::EOF) {
            return self.mark_dead(key);
        }
        self.arm_sooner(key, self.config.linger_timeout);
    }

    /// Drops a broken connection, to which nothing more can be sent.
    pub(super) fn drop_lost(&mut self, key: ConnKey) {
        self.end_session(key, CloseCause::Lost, ABNORMAL);
        self.mark_dead(key);
    }

    /// Resets a connection after its session has ended; output in flight may be lost.
    pub(super) fn abort(&mut self, key: ConnKey) {
        if let Some(conn) = self.arena.get_mut(key) {
            conn.transport.socket_mut().abort_on_drop();
        }
        self.mark_dead(key);
    }

    /// Marks a connection as dead. It is freed by `reap`.
    pub(super) fn mark_dead(&mut self, key: ConnKey) {
        self.drop_queue(key);
        let Some(conn) = self.arena.get_mut(key) else {
            return;
        };
        if matches!(conn.phase, Phase::Dead) {
            return;
        }
        debug_assert!(!conn.is_open(), "a session must be given back first");
        let is_closing = matches!(conn.phase, Phase::Closing | Phase::Linger);
        self.counters.closing -= u64::from(is_closing);
        conn.phase = Phase::Dead;
        conn.decoder = Decoder::default();
        self.ended.push(key);
        if conn.flags.has(Flags::PER_IP) {
            self.uncount_address(key);
        }
        self.update_incomplete(key);
    }
}

/// RFC 6455 §7.1.5: without a close frame, "_The WebSocket Connection Close Code_ is considered to
/// be 1006".
pub(super) const ABNORMAL: u16 = 1006;
