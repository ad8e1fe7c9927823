//! The shutdown of an engine: everybody is told to come back later, in their turn.
//!
//! Owns: how many are closed when, and what becomes of those who are no WebSocket yet.

use std::time::Duration;

use crate::ws::CloseCode;

use super::super::conn::{Conn, Farewell, Phase};
use super::super::counters::End;
use super::super::handler::{Handler, Refusal};
use super::super::socket::Socket;
use super::super::timer::TICK_MS;
use super::super::{ConnKey, ListenerId};
use super::{Engine, floor_tick, millis};

/// A shutdown that is under way.
pub(super) struct Drain {
    started: u64,
    /// When the last are closed.
    end: u64,
    /// Up to when `due` has been added to.
    counted: u64,
    /// Thousandths of connections that are to be closed.
    due: u64,
    /// The slot to go on from. Who opens in one before it is found when all have been visited.
    cursor: u32,
    /// When to look again at those who are no WebSockets.
    next_sweep: u64,
    /// When the connections of the reserved listener began to be ended, too.
    last: Option<u64>,
}

impl<S: Socket, H: Handler> Engine<S, H> {
    /// Begins the shutdown: nobody is let in any more, and everybody is told to come back
    /// later, spread evenly over `over`. The first are told at once. Who has a request under way
    /// has a second to complete it, and is then one of them.
    ///
    /// Connections of the reserved listener are accepted and served, each for one request, until
    /// [`Engine::finish_drain`]: operators and publishers have to reach the server as long as it has
    /// clients.
    pub fn begin_drain(&mut self, over: Duration) {
        if self.drain.is_none() {
            let now = self.now.mono;
            let mut drain = Drain {
                started: now,
                end: now.saturating_add(millis(over)),
                counted: now,
                due: 0,
                cursor: 0,
                next_sweep: now,
                last: None,
            };
            drain.add(DRAIN_STEP, self.counters.open);
            self.drain = Some(drain);
        }
    }

    /// Whether a shutdown is under way.
    pub fn is_draining(&self) -> bool {
        self.drain.is_some()
    }

    /// Whether all connections have ended but those of the reserved listener.
    pub fn is_public_drained(&self) -> bool {
        self.drain.is_some() && self.arena.len() == self.reserved_connections()
    }

    /// Ends the connections of the reserved listener as well, those with a request under way within
    /// a second.
    pub fn finish_drain(&mut self) {
        let now = self.now.mono;
        if let Some(drain) = &mut self.drain
            && drain.last.is_none()
        {
            drain.last = Some(now);
            drain.next_sweep = now;
        }
    }

    /// Whether this is [`Config::reserved_listener`](super::super::Config::reserved_listener).
    pub fn is_reserved(&self, listener: ListenerId) -> bool {
        Some(listener) == self.config.reserved_listener
    }

    /// Whether a connection of this listener may still be accepted.
    pub(super) fn admits(&self, listener: ListenerId) -> bool {
        let drain = self.drain.as_ref();
        drain.is_none_or(|drain| self.is_reserved(listener) && drain.last.is_none())
    }

    /// Whether the shutdown is complete.
    pub fn is_drained(&self) -> bool {
        self.drain.is_some() && self.arena.len() == 0
    }

    /// Closes those whose turn it is.
    pub(super) fn serve_drain(&mut self) {
        let Some(mut drain) = self.drain.take() else {
            return;
        };
        self.send_off_requests(&mut drain);
        let quota = drain.quota(self.now.mono, self.counters.open);
        let (mut closed, mut has_wrapped) = (0, false);
        while closed < quota && self.counters.open > 0 {
            match self.arena.next_key(drain.cursor) {
                Some(key) => {
                    drain.cursor = key.index + 1;
                    closed += u64::from(self.send_off(key));
                }
                None if has_wrapped => break,
                None => (drain.cursor, has_wrapped) = (0, true),
            }
        }
        self.drain = Some(drain);
    }

    /// Closes a connection if it is an open WebSocket; whether it was.
    fn send_off(&mut self, key: ConnKey) -> bool {
        if !self.arena.get(key).is_some_and(|conn| conn.is_open()) {
            return false;
        }
        // Not 1001: there are clients that take it, like 1000, for a reason never to come back.
        let farewell = Farewell {
            code: CloseCode::SERVICE_RESTART,
            reason: "service restart",
            end: End::Shutdown,
        };
        self.say_farewell(key, farewell);
        true
    }

    /// Ends those who are no WebSockets: at once where nothing is under way, else when they have
    /// had their time.
    fn send_off_requests(&mut self, drain: &mut Drain) {
        if self.now.mono < drain.next_sweep || self.counters.connections == self.counters.open {
            return;
        }
        drain.next_sweep = self.now.mono + SWEEP_PERIOD;
        let mut from = 0;
        while let Some(key) = self.arena.next_key(from) {
            from = key.index + 1;
            let listener = self.arena.get(key).map(|conn| conn.listener);
            let is_reserved = listener.is_some_and(|listener| self.is_reserved(listener));
            let since = match is_reserved {
                true => drain.last,
                false => Some(drain.started),
            };
            if let Some(since) = since {
                self.send_off_request(key, self.now.mono >= since + REQUEST_GRACE);
            }
        }
    }

    fn send_off_request(&mut self, key: ConnKey, is_late: bool) {
        let now = floor_tick(self.now);
        let Some(conn) = self.arena.get_mut(key) else {
            return;
        };
        let silent = u64::from(now.saturating_sub(conn.heard)) * TICK_MS;
        match &conn.phase {
            Phase::Request(_) if conn.tx.is_some() => self.linger(key),
            Phase::Preface(_) | Phase::Request(_) if is_late || silent >= REQUEST_GRACE => {
                self.send_off_late(key)
            }
            Phase::Deferred(_) if is_late => self.refuse_overdue(key, Refusal::ShuttingDown),
            _ => {}
        }
    }

    /// Ends a connection whose request is late, unless all of it was in the socket, or a standstill
    /// has taken the time for it.
    fn send_off_late(&mut self, key: ConnKey) {
        let has_progressed = self.catch_up(key);
        let grace = Duration::from_millis(REQUEST_GRACE);
        let conn = self.arena.get(key);
        let is_under_way =
            conn.is_some_and(|conn| matches!(conn.phase, Phase::Preface(_) | Phase::Request(_)));
        if is_under_way && !(has_progressed && self.time_lost(grace).is_some()) {
            if !conn.is_some_and(Conn::is_answered) {
                self.counters.count_refusal(Refusal::ShuttingDown);
            }
            self.lose(key);
        }
    }
}

impl Drain {
    /// How many are to be closed now, of so many that are open.
    fn quota(&mut self, now: u64, open: u64) -> u64 {
        if now >= self.end {
            return u64::MAX;
        }
        self.add(now.saturating_sub(self.counted), open);
        self.counted = now;
        let whole = self.due / 1000;
        self.due %= 1000;
        whole
    }

    /// Those whose turn comes within so many milliseconds: of what time is left, and of those who
    /// are open, the same part. A few are closed sooner, whatever the time there is for them.
    fn add(&mut self, elapsed: u64, open: u64) {
        let left = self.end.saturating_sub(self.counted).max(1);
        let paced = open.saturating_mul(1000).saturating_mul(elapsed) / left;
        self.due += paced.max(elapsed * DRAIN_RATE);
    }
}

/// Milliseconds between two steps of a shutdown.
pub(super) const DRAIN_STEP: u64 = 50;
/// Closes a second that need no spreading: that many clients can come back at once.
const DRAIN_RATE: u64 = 200;
/// Milliseconds that a request may take that is under way when a shutdown begins. Who has said
/// nothing for as long is not waited for at all.
const REQUEST_GRACE: u64 = 1000;
/// Milliseconds between two looks at all who are no WebSockets.
const SWEEP_PERIOD: u64 = 200;
