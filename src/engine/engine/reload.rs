//! Reconfiguration of a running engine.
//!
//! Owns: applying changed limits and timeouts to existing connections.

use std::mem;

use super::{Engine, RELOAD_BUDGET, floor_tick};
use crate::ConnKey;
use crate::config::Config;
use crate::conn::{Flags, Phase};
use crate::handler::Handler;
use crate::io::socket::Socket;

/// A reload in progress: it reaches some of the connections in each turn.
#[derive(Clone, Copy, Debug)]
pub(super) struct Walk {
    /// The slot to continue from.
    cursor: u32,
    is_ping_shorter: bool,
    is_pong_shorter: bool,
}

impl Walk {
    /// Returns whether the reload has yet to reach a connection.
    pub(super) fn is_ahead_of(&self, key: ConnKey) -> bool {
        key.index >= self.cursor
    }
}

impl<S: Socket, H: Handler> Engine<S, H> {
    /// Applies a new configuration: see [`Reload`](crate::Reload).
    pub(super) fn reconfigure(&mut self, config: Config) {
        let reserved_listener = self.config.reserved_listener;
        let old = mem::replace(
            &mut self.config,
            Config {
                reserved_listener,
                ..config
            },
        );
        let before = self.reload.take();
        let was = |shorter: fn(&Walk) -> bool| before.as_ref().is_some_and(shorter);
        self.reload = Some(Walk {
            cursor: 0,
            is_ping_shorter: was(|walk| walk.is_ping_shorter)
                || self.config.ping_interval < old.ping_interval,
            is_pong_shorter: was(|walk| walk.is_pong_shorter)
                || self.config.pong_timeout < old.pong_timeout,
        });
        // Pings sent so far may have followed a longer silence.
        let silence = super::ping_silence(&self.config);
        self.outbox.ping_silence = self.outbox.ping_silence.max(silence);
        self.recount_addresses();
        self.with_handler(|handler, cx| handler.on_reload(cx));
        self.apply_effects();
    }

    /// Applies a reload to the next connections.
    pub(super) fn serve_reload(&mut self) {
        let Some(mut walk) = self.reload.take() else {
            return;
        };
        for _ in 0..RELOAD_BUDGET {
            let Some(key) = self.arena.next_key(walk.cursor) else {
                return;
            };
            walk.cursor = key.index + 1;
            self.hold_to_limits(key, walk);
        }
        self.reload = Some(walk);
    }

    /// Shortens the deadlines of a connection to the new timeouts, counted from now. Deadlines of a
    /// queue and an incomplete message are counted from their start.
    fn hold_to_limits(&mut self, key: ConnKey, walk: Walk) {
        let Some(conn) = self.arena.get(key) else {
            return;
        };
        match &conn.phase {
            Phase::Open(_) => self.hold_open(key, walk),
            Phase::Dead => {}
            phase => {
                let after = self.duration_of(phase.timeout());
                self.arm_sooner(key, after);
            }
        }
    }

    /// Applies new limits to an open connection. Whether it counts as slow may change in either
    /// direction, and the deadline of its queue or incomplete message may become earlier.
    fn hold_open(&mut self, key: ConnKey, walk: Walk) {
        let now = floor_tick(self.now);
        let Some(conn) = self.arena.get_mut(key) else {
            return;
        };
        if let Some(tx) = conn.tx.as_mut() {
            let since = tx.over_soft_since.unwrap_or(now);
            let was_slow = tx.over_soft_since.is_some();
            tx.over_soft_since = (tx.len() > self.config.queue_soft).then_some(since);
            self.counters.slow += u64::from(tx.over_soft_since.is_some());
            self.counters.slow -= u64::from(was_slow);
        }
        if walk.is_pong_shorter && conn.flags.has(Flags::AWAITING_PONG) {
            // For a ping already sent, the shorter timeout counts from now.
            conn.last_activity = conn.last_activity.max(now);
            conn.flags.set(Flags::SLOW_PING);
            self.arm_sooner(key, self.config.pong_timeout);
        }
        if walk.is_ping_shorter {
            // Spread like the first pings of connections accepted together.
            let after = self.first_ping();
            self.arm_sooner(key, after);
        }
        if let Some(after) = self.time_to_deadline(key) {
            self.arm_sooner(key, after);
        }
    }
}
