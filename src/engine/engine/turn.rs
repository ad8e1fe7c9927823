//! The turn: the order of the engine's work, and its interface to the environment.
//!
//! Owns: the order, and how long the environment may wait before the next turn. The environment is
//! a poller with sockets (the reactor), or a simulation of both.

use std::io;
use std::mem;
use std::net::IpAddr;
use std::ops::ControlFlow;
use std::time::Duration;

use super::{Engine, MAX_BACKLOG, drain, floor_tick};
use crate::engine::timer::TICK_MS;
use crate::handler::Handler;
use crate::io::mailbox::Mail;
use crate::io::socket::Socket;
use crate::{ConnKey, ListenerId, Now};

/// The environment of the engine within a turn. No call may block.
pub trait Io {
    /// A connected socket.
    type Socket: Socket;
    /// See [`Handler::Command`].
    type Command;

    /// Returns the next message from other threads, if any.
    fn next_mail(&mut self) -> Option<Mail<Self::Command>>;

    /// Accepts a connection, and returns its socket with the peer's address; `None` on a unix
    /// socket.
    ///
    /// # Errors
    /// `WouldBlock` if no connection is queued; an event follows when there is one again. After any
    /// other error, `accept` is tried again without an event.
    fn accept(&mut self, listener: ListenerId) -> io::Result<(Self::Socket, Option<IpAddr>)>;

    /// Registers an accepted socket with the poller: from now on, its readiness is reported with
    /// this key, until the engine drops the socket.
    ///
    /// # Errors
    /// If the poller does not accept it. The engine then drops the socket.
    fn register(&mut self, socket: &mut Self::Socket, key: ConnKey) -> io::Result<()>;

    /// Makes a listening socket ignore connection attempts that have not begun, so that clients
    /// retry, while those in progress still complete.
    ///
    /// # Errors
    /// If the system does not support it.
    fn drop_new_syns(&mut self, listener: ListenerId) -> io::Result<()>;

    /// Closes a listening socket.
    fn close_listener(&mut self, listener: ListenerId);

    /// Returns the time since the turn began.
    fn elapsed(&self) -> Duration;
}

/// An event reported by a poller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IoEvent {
    /// A connection's socket is ready. Stale keys are ignored.
    Ready(ConnKey, Readiness),
    /// A listener has connections to accept.
    Acceptable(ListenerId),
}

/// The readiness of a socket, as reported by a poller.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Readiness {
    /// There may be bytes, an end of the stream, or an error to read.
    pub readable: bool,
    /// There may be buffer space.
    pub writable: bool,
    /// The peer shut down its write side, or the connection broke.
    pub read_closed: bool,
}

impl<S: Socket, H: Handler> Engine<S, H> {
    /// Runs a turn, which takes place at the time `now`, with the events reported since the last
    /// one. Each part of the work has a budget.
    ///
    /// Returns how long to wait for events before the next turn, which is zero if work is left.
    /// Returns `None` once the engine has been shut down.
    pub fn turn<I>(
        &mut self,
        now: Now,
        events: impl IntoIterator<Item = IoEvent>,
        io: &mut I,
    ) -> Option<Duration>
    where
        I: Io<Socket = S, Command = H::Command>,
    {
        self.begin_turn(now);
        // Events only mark connections and listeners as ready.
        for event in events {
            match event {
                IoEvent::Ready(key, readiness) => self.record_readiness(key, readiness),
                IoEvent::Acceptable(listener) => self.listeners.mark_pending(listener),
            }
        }
        // Messages from other threads. A second shutdown is immediate.
        if self.serve_mail(io).is_break() || self.has_shut_down() {
            return None;
        }
        // A shutdown in progress: first without new connections, then without the reserved listener.
        if self.is_shutting_down() {
            self.serve_handover(io);
            self.serve_reserved(io);
        }
        // Input, and the replies to it.
        self.serve_readers();
        // Deliveries of the handler, from its own queue of events to their receivers.
        self.serve_handler();
        // Queued output, with whatever the steps before have added.
        self.flush_dirty();
        // The next connections that a reload reaches.
        self.serve_reload();
        // Deadlines, when everything that arrived in time has been read.
        self.serve_timers();
        // The next connections that a shutdown closes.
        self.serve_drain();
        // Connections that must be closed because memory is short.
        self.shed_load();
        self.shed_incomplete();
        // Callbacks for connections that have sent their queued output.
        self.notify_flushed();
        self.apply_effects();
        // New connections, which are read from in the next turn.
        self.accept_pending(io);
        // Memory and descriptors of ended connections: no key that has been looked up is in use.
        if self.reap() {
            self.listeners.retry_at = None;
        }
        self.record_latencies(io.elapsed());
        Some(self.wait())
    }

    fn begin_turn(&mut self, now: Now) {
        let before = self.now.mono;
        self.now = Now {
            mono: now.mono.max(before),
            unix: now.unix,
        };
        self.pause.note(before, self.now.mono);
        self.scratch.now = floor_tick(self.now);
        self.handled = 0;
        self.turn_work = 0;
        self.tls_steps = 0;
        let records = self.counters.ledger.records;
        self.scratch
            .limit_records(records, self.config.queue_total as u64);
        self.rechecks = 0;
    }

    /// Handles messages from other threads. They stay in the mailbox while too many deliveries are
    /// pending, so that senders get backpressure. Breaks if the turn must be the last.
    fn serve_mail(
        &mut self,
        io: &mut impl Io<Socket = S, Command = H::Command>,
    ) -> ControlFlow<()> {
        self.has_mail = true;
        if let Some(over) = self.listeners.requested.take() {
            match self.is_shutting_down() {
                true => return ControlFlow::Break(()),
                false => self.begin_shutdown(over, io),
            }
        }
        for _ in 0..MAIL_BUDGET {
            if !self.has_room_for_commands() {
                break;
            }
            match io.next_mail() {
                Some(Mail::Command(command)) => {
                    self.with_handler(|handler, cx| handler.on_command(cx, command));
                    self.has_handler_work = true;
                    self.apply_effects();
                }
                Some(Mail::Reload(reload)) => self.reload(*reload),
                Some(Mail::Shutdown(_)) if self.is_shutting_down() => {
                    return ControlFlow::Break(());
                }
                Some(Mail::Shutdown(over)) => self.begin_shutdown(over, io),
                None => {
                    self.has_mail = false;
                    break;
                }
            }
        }
        ControlFlow::Continue(())
    }

    fn has_room_for_commands(&self) -> bool {
        self.fan_out.backlog() < MAX_BACKLOG
    }

    /// Lets the handler continue its own work, if it has any and there is memory for the output,
    /// and sends deliveries to their next receivers. While the handler keeps producing a burst of
    /// deliveries, they are gathered to be sent together.
    fn serve_handler(&mut self) {
        let backlog = self.fan_out.backlog();
        self.has_handler_work |= mem::take(&mut self.outbox.wants_turn);
        if self.has_handler_work && self.has_room() {
            self.has_handler_work = self.with_handler(|handler, cx| handler.on_turn(cx));
            self.apply_effects();
        }
        let goes_on = self.has_handler_work && self.fan_out.backlog() > backlog;
        if !goes_on || !self.fan_out.may_gather() {
            self.serve_fan_out();
        }
    }

    /// Returns whether further events may be delivered: output uses less than half of its memory
    /// limit.
    fn has_room(&self) -> bool {
        self.counters.ledger.output() < self.config.queue_total as u64 / 2
    }

    /// Frees the connections that ended. Returns whether there were any, which may allow a failed
    /// `accept` to be retried.
    #[inline]
    pub(super) fn reap(&mut self) -> bool {
        let any = !self.ended.is_empty();
        if any {
            // A slot is freed after `on_close`.
            self.apply_effects();
            self.free_ended();
        }
        any
    }

    #[inline(never)]
    fn free_ended(&mut self) {
        while let Some(key) = self.ended.pop() {
            if let Some(mut ended) = self.arena.remove(key) {
                self.wheel.disarm(&mut ended.timer);
                ended.transport.release(&mut self.counters.ledger);
                self.leave_pool(&ended);
            }
            self.counters.connections -= 1;
        }
    }

    /// Returns how long the environment may wait for events: zero if there is work left.
    #[inline(always)]
    fn wait(&self) -> Duration {
        let has_output = !self.dirty.is_empty() || self.fan_out.backlog() > 0;
        let has_output = has_output || !self.closed.is_empty();
        let wants_turn = self.has_handler_work || self.outbox.wants_turn;
        let has_work = self.reload.is_some() || (wants_turn && self.has_room());
        let has_mail = self.has_mail && self.has_room_for_commands();
        if !self.run.is_empty() || has_output || has_work || has_mail {
            return Duration::ZERO;
        }
        let wheel = self.wheel.next_tick().map(|tick| u64::from(tick) * TICK_MS);
        let next = wheel.map_or(self.next_tick, |wheel| wheel.min(self.next_tick));
        let wait = next.saturating_sub(self.now.mono);
        let drain = self.drain.as_ref().map_or(u64::MAX, |_| drain::DRAIN_STEP);
        Duration::from_millis(wait.min(drain).min(self.listeners.wait(self.now.mono)))
    }
}

/// Messages from other threads handled per turn.
const MAIL_BUDGET: usize = 64;
