//! Shutdown of the engine: clients are told to reconnect later, at a limited rate.
//!
//! Owns: the rate at which open connections are closed, and the treatment of connections that are
//! not open WebSockets.

use std::time::Duration;

use super::{Engine, floor_tick, millis};
use crate::conn::close_cause::CloseCause;
use crate::conn::lifecycle::Event;
use crate::engine::timer::TICK_MS;
use crate::handler::Handler;
use crate::io::socket::Socket;
use crate::ws::CloseFrame;
use crate::{ConnKey, ListenerId};

/// A shutdown in progress.
pub(super) struct Drain {
    started: u64,
    /// When the last connections are closed.
    end: u64,
    /// The time up to which `due` has been accumulated.
    counted: u64,
    /// Connections due to be closed, in thousandths.
    due: u64,
    /// The slot at which to continue. A connection that opens in a lower slot is found after
    /// wraparound.
    cursor: u32,
    /// When to check the connections that are not WebSockets again.
    next_sweep: u64,
    /// When the shutdown of the reserved listener's connections began.
    last: Option<u64>,
}

impl<S: Socket, H: Handler> Engine<S, H> {
    /// Begins the shutdown. No new connections are accepted, and open WebSockets are closed with a
    /// request to reconnect later, spread evenly over `over`; the first ones are closed
    /// immediately. Pending requests have one second to complete.
    ///
    /// Connections of the reserved listener are still accepted and served, for one request each,
    /// until [`Engine::finish_drain`]: operators and publishers must be able to reach the server as
    /// long as it has clients.
    pub(super) fn begin_drain(&mut self, over: Duration) {
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

    /// Returns whether all connections except those of the reserved listener have ended.
    pub(super) fn is_public_drained(&self) -> bool {
        self.drain.is_some() && self.arena.len() == self.reserved_connections()
    }

    /// Starts to close the connections of the reserved listener as well. Pending requests have one
    /// second to complete.
    pub(super) fn finish_drain(&mut self) {
        let now = self.now.mono;
        if let Some(drain) = &mut self.drain
            && drain.last.is_none()
        {
            drain.last = Some(now);
            drain.next_sweep = now;
        }
    }

    /// Returns whether this is
    /// [`Config::reserved_listener`](crate::Config::reserved_listener).
    pub(crate) fn is_reserved(&self, listener: ListenerId) -> bool {
        Some(listener) == self.config.reserved_listener
    }

    /// Returns whether the shutdown is complete.
    pub(super) fn is_drained(&self) -> bool {
        self.drain.is_some() && self.arena.len() == 0
    }

    /// Closes the connections that are due.
    pub(super) fn serve_drain(&mut self) {
        let Some(mut drain) = self.drain.take() else {
            return;
        };
        self.close_requests_for_restart(&mut drain);
        let quota = drain.quota(self.now.mono, self.counters.open);
        let (mut closed, mut has_wrapped) = (0, false);
        while closed < quota && self.counters.open > 0 {
            match self.arena.next_key(drain.cursor) {
                Some(key) => {
                    drain.cursor = key.index + 1;
                    closed += u64::from(self.close_for_restart(key));
                }
                None if has_wrapped => break,
                None => (drain.cursor, has_wrapped) = (0, true),
            }
        }
        self.drain = Some(drain);
    }

    /// Closes a connection if it is an open WebSocket. Returns whether it was.
    fn close_for_restart(&mut self, key: ConnKey) -> bool {
        if !self.arena.get(key).is_some_and(|conn| conn.is_open()) {
            return false;
        }
        let frame = CloseFrame {
            code: self.config.restart_code,
            reason: self.config.restart_reason,
        };
        self.apply(key, Event::Close(CloseCause::Restart(frame)));
        // Delivered one by one, so that the sessions of many connections do not pile up.
        self.apply_effects();
        true
    }

    /// Ends connections that are not WebSockets: immediately if they are idle, otherwise after a
    /// grace period.
    fn close_requests_for_restart(&mut self, drain: &mut Drain) {
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
                self.close_request_for_restart(key, self.now.mono >= since + REQUEST_GRACE);
            }
        }
    }

    fn close_request_for_restart(&mut self, key: ConnKey, is_over: bool) {
        let now = floor_tick(self.now);
        if let Some(conn) = self.arena.get(key) {
            let silent = u64::from(now.saturating_sub(conn.last_activity)) * TICK_MS;
            let event = Event::Restart {
                is_late: is_over || silent >= REQUEST_GRACE,
                is_over,
                has_output: conn.tx.is_some(),
            };
            self.apply(key, event);
        }
    }

    /// Ends a connection whose request is late, unless the missing input was already in the socket
    /// or the grace period was lost to a pause.
    pub(super) fn catch_up_for_restart(&mut self, key: ConnKey) {
        let has_progressed = self.catch_up(key);
        let grace = Duration::from_millis(REQUEST_GRACE);
        if !(has_progressed && self.time_lost(grace).is_some()) {
            self.apply(key, Event::RestartLate);
        }
    }
}

impl Drain {
    /// Returns how many of the open connections to close now.
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

    /// Accumulates the connections due after `elapsed` milliseconds: the same fraction of the open
    /// connections as of the remaining time, but at least `DRAIN_RATE` per second.
    fn add(&mut self, elapsed: u64, open: u64) {
        let left = self.end.saturating_sub(self.counted).max(1);
        let paced = open.saturating_mul(1000).saturating_mul(elapsed) / left;
        self.due += paced.max(elapsed * DRAIN_RATE);
    }
}

/// Milliseconds between two steps of a shutdown.
pub(super) const DRAIN_STEP: u64 = 50;
/// Closes per second that need no spreading: clients can reconnect at this rate.
const DRAIN_RATE: u64 = 200;
/// Grace period in milliseconds for requests pending at the start of a shutdown. Connections that
/// have been silent for as long are ended immediately.
const REQUEST_GRACE: u64 = 1000;
/// Milliseconds between two checks of the connections that are not WebSockets.
const SWEEP_PERIOD: u64 = 200;

#[cfg(test)]
mod tests {
    use super::*;

    fn drain(end: u64) -> Drain {
        Drain {
            started: 0,
            end,
            counted: 0,
            due: 0,
            cursor: 0,
            next_sweep: 0,
            last: None,
        }
    }

    #[test]
    fn connections_are_closed_evenly_over_the_remaining_time() {
        let (mut drain, mut open) = (drain(10_000), 100_000);
        for step in 1..200 {
            let quota = drain.quota(step * DRAIN_STEP, open);
            assert!(quota.abs_diff(500) <= 1, "{quota} in step {step}");
            open -= quota;
        }
        assert_eq!(drain.quota(10_000, open), u64::MAX);
    }

    #[test]
    fn few_connections_are_closed_at_the_least_rate() {
        let mut drain = drain(1_000_000);
        let quotas = [4, 5, 10, 1000].map(|now| drain.quota(now, 3));
        assert_eq!(quotas, [0, 1, 1, 198]);
    }
}
