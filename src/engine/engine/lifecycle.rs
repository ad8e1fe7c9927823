//! The interpreter of the connections' state machine: reports events to it, and performs its
//! actions.
//!
//! Owns: the sessions of closed WebSockets until `on_close` has been called.

use std::mem;
use std::time::Duration;

use super::{Engine, KEPT_EFFECTS, floor_tick};
use crate::ConnKey;
use crate::conn::close_cause::{CloseCause, Ending};
use crate::conn::lifecycle::{Action, Counter, Event, Left, Step};
use crate::conn::phase::Timeout;
use crate::conn::queue::TxQueue;
use crate::conn::{Conn, Deferred, Flags};
use crate::cx::CloseInfo;
use crate::handler::Handler;
use crate::io::socket::Socket;
use crate::ws::{self, CloseCode, CloseFrame, Decoder};

/// A closed WebSocket whose handler has not been told yet.
pub(super) struct Closed<C> {
    key: ConnKey,
    session: C,
    info: CloseInfo,
}

impl<S: Socket, H: Handler> Engine<S, H> {
    /// Makes the transition of a connection for an event, and performs its actions.
    #[inline(never)]
    pub(super) fn apply(&mut self, key: ConnKey, event: Event<'_, H::Session>) {
        self.apply_inlined(key, event);
    }

    /// Like `apply`, inlined for the events that every connection has.
    #[inline(always)]
    pub(super) fn apply_inlined(&mut self, key: ConnKey, event: Event<'_, H::Session>) {
        let Some(conn) = self.arena.get_mut(key) else {
            return;
        };
        let was_closing = conn.phase.is_closing();
        let event = match conn.is_open_stream() {
            true => event.on_event_stream(),
            false => event,
        };
        let Step { actions, left } = conn.phase.apply(event);
        let ends = conn.phase.is_dead();
        self.counters.closing += u64::from(conn.phase.is_closing());
        self.counters.closing -= u64::from(was_closing);
        let mut frame = None;
        if let Left::Session(session, cause) = left {
            let ending = cause.ending();
            self.end_session(key, session, &ending);
            frame = ending.frame;
        }
        if !actions.is_empty() {
            self.perform_all(key, actions, frame, ends);
        }
    }

    #[inline(never)]
    fn perform_all(
        &mut self,
        key: ConnKey,
        actions: &[Action],
        frame: Option<CloseFrame<'_>>,
        ends: bool,
    ) {
        for action in actions {
            self.perform(key, *action, frame);
            // A failed write ends the connection.
            let writes = match action {
                Action::SendClose => self.current != Some(key),
                Action::ShutDownWrite => true,
                _ => false,
            };
            let is_dead = |conn: &Conn<S, H::Session>| conn.phase.is_dead();
            if writes && !ends && self.arena.get(key).is_none_or(is_dead) {
                break;
            }
        }
    }

    fn perform(&mut self, key: ConnKey, action: Action, frame: Option<CloseFrame<'_>>) {
        match action {
            Action::DropOutput => self.drop_queued(key, TxQueue::drop_unstarted),
            Action::SendClose if self.is_event_stream(key) => self.send_last_blocks(key, frame),
            Action::SendClose => self.queue_own(key, |out| ws::encode_close(frame, out)),
            Action::Arm(timeout) => {
                let after = self.duration_of(timeout);
                self.arm(key, after);
            }
            Action::ArmSooner(timeout) => {
                let after = self.duration_of(timeout);
                self.arm_sooner(key, after);
            }
            Action::StartLinger => self.start_linger(key),
            Action::Read => self.read_again(key),
            Action::ShutDownWrite => self.shut_down_write(key),
            Action::Reset => {
                if let Some(conn) = self.arena.get_mut(key) {
                    conn.transport.socket_mut().abort_on_drop();
                }
            }
            Action::Free => self.free(key),
            Action::Refuse(refusal) => self.refuse(key, refusal),
            Action::AskHandler(refusal) => self.refuse_overdue(key, refusal),
            Action::CatchUp => self.catch_up_for_restart(key),
            Action::Count(counter) => self.count_end(counter),
        }
    }

    /// Returns the duration of a timeout.
    pub(super) fn duration_of(&self, timeout: Timeout) -> Duration {
        match timeout {
            Timeout::Handshake => self.config.handshake_timeout,
            Timeout::Body => self.config.body_timeout,
            Timeout::Defer => self.config.defer_timeout,
            Timeout::Respond => self.config.respond_timeout,
            Timeout::Close => self.config.close_timeout,
            Timeout::Linger => self.config.linger_timeout,
        }
    }

    fn count_end(&mut self, counter: Counter) {
        match counter {
            Counter::HandshakeTimeout => self.counters.handshake_timeouts += 1,
            Counter::TlsFailure => self.counters.tls_failures += 1,
            Counter::Unread => self.counters.refusals.slow += 1,
            Counter::Refused(refusal) => self.counters.count_refusal(refusal),
        }
    }

    /// Accounts for the end of a WebSocket or event stream. `deliver_close` calls its handler.
    #[inline(never)]
    fn end_session(&mut self, key: ConnKey, session: H::Session, ending: &Ending<'_>) {
        log::debug!("{key:?}: the connection ended: {ending}");
        let Some(conn) = self.arena.get_mut(key) else {
            return;
        };
        let last_activity = conn.last_activity();
        conn.flags.clear(Flags::AWAITING_PONG);
        let is_tls = conn.transport.is_tls();
        let is_stream = conn.flags.has(Flags::EVENT_STREAM);
        self.fan_out.unmute(key);
        self.counters.open -= 1;
        self.counters.open_tls -= u64::from(is_tls);
        self.counters.open_streams -= u64::from(is_stream);
        *(ending.counter)(&mut self.counters.closed) += 1;
        self.counters.close_codes.count(ending.code);
        self.closed.push_back(Closed {
            key,
            session,
            info: CloseInfo {
                code: ending.code,
                cause: ending.label,
                reason: ending.frame.map_or("", |frame| frame.reason).into(),
                last_received: self.outbox.last_received(last_activity),
            },
        });
    }

    /// Applies all recorded effects and delivers all closes.
    #[inline(never)]
    pub(super) fn apply_all(&mut self) {
        loop {
            if !self.outbox.effects.is_empty() {
                let mut effects = Vec::new();
                while !self.outbox.effects.is_empty() {
                    mem::swap(&mut effects, &mut self.outbox.effects);
                    for effect in effects.drain(..) {
                        self.apply_effect(effect);
                    }
                }
                // Keep the memory for later effects, unless there were unusually many.
                effects.shrink_to(KEPT_EFFECTS);
                self.outbox.effects = effects;
            }
            if !self.deliver_close() {
                return;
            }
        }
    }

    /// Calls the handler's `on_close` for one closed WebSocket. Returns whether there was one.
    ///
    /// This is the only place that calls it. Closes are delivered in order, together with the
    /// effects of handler calls and before any connection is freed, but not while a connection is
    /// being written to.
    #[inline]
    fn deliver_close(&mut self) -> bool {
        let Some(Closed { key, session, info }) = self.closed.pop_front() else {
            return false;
        };
        self.outbox.close_info = Some(info);
        self.with_handler(|handler, cx| handler.on_close(cx, key, session));
        self.outbox.close_info = None;
        true
    }

    /// Closes a connection on behalf of the application.
    pub(super) fn close_by_application(&mut self, key: ConnKey, code: CloseCode, reason: &str) {
        debug_assert!(code.may_be_sent());
        let frame = CloseFrame { code, reason };
        self.apply(key, Event::Close(CloseCause::Application(frame)));
    }

    /// Takes the deferred request of a connection, to respond to it.
    pub(super) fn take_deferred(&mut self, key: ConnKey) -> Option<Box<Deferred<H::Session>>> {
        match self.arena.get_mut(key)?.phase.apply(Event::Resumed).left {
            Left::Request(deferred) => Some(deferred),
            Left::Nothing | Left::Session(..) => None,
        }
    }

    fn start_linger(&mut self, key: ConnKey) {
        let Some(conn) = self.arena.get_mut(key) else {
            return;
        };
        conn.decoder = Decoder::default();
        if conn.flags.raise(Flags::DIRTY) {
            self.dirty.push_back(key);
        }
        let flags = conn.flags;
        if flags.has(Flags::INCOMPLETE) {
            self.update_incomplete(key);
        }
        if flags.has(Flags::READABLE) {
            self.enqueue(key);
        }
    }

    /// Shuts down the write side of a lingering connection that has sent everything.
    fn shut_down_write(&mut self, key: ConnKey) {
        let Some(conn) = self.arena.get_mut(key) else {
            return;
        };
        let result = conn.transport.shutdown_write(&mut self.scratch);
        let ledger = &mut self.counters.ledger;
        conn.transport.count(ledger, floor_tick(self.now));
        if result.is_err() {
            self.apply(key, Event::Lost);
        }
    }

    /// Releases everything that a dead connection holds but its slot, which `reap` frees.
    fn free(&mut self, key: ConnKey) {
        let Some(conn) = self.arena.get_mut(key) else {
            return;
        };
        conn.decoder = Decoder::default();
        let (flags, has_output) = (conn.flags, conn.tx.is_some());
        self.ended.push(key);
        if has_output {
            self.drop_queue(key);
        }
        if flags.has(Flags::PER_IP) {
            self.uncount_address(key);
        }
        if flags.has(Flags::INCOMPLETE) {
            self.update_incomplete(key);
        }
    }
}
