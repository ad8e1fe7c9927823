//! Other limits and deadlines for an engine that runs.
//!
//! Owns: what has to be done about those who are connected when they change.

use std::mem;

use super::super::ConnKey;
use super::super::config::Config;
use super::super::conn::{Flags, Phase};
use super::super::handler::Handler;
use super::super::socket::Socket;
use super::{Engine, RELOAD_BUDGET, floor_tick};

/// A reload on its way to all connections: a part of them in each turn.
#[derive(Clone, Copy, Debug)]
pub(super) struct Walk {
    /// The slot to go on from.
    cursor: u32,
    is_ping_shorter: bool,
    is_pong_shorter: bool,
}

impl Walk {
    /// Whether the reload has yet to reach a connection.
    pub fn is_ahead_of(&self, key: ConnKey) -> bool {
        key.index >= self.cursor
    }
}

impl<S: Socket, H: Handler> Engine<S, H> {
    /// Goes on with other limits and deadlines: see [`Reload`](crate::net::Reload).
    pub fn reconfigure(&mut self, config: Config) {
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
        self.recount_addresses();
        self.with_handler(|handler, cx| handler.on_reload(cx));
        self.apply_effects();
    }

    /// Has a reload reach the next connections.
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

    /// No connection waits for longer than a timeout that has become shorter, counted from now on, or
    /// from when it began for a queue and a message.
    fn hold_to_limits(&mut self, key: ConnKey, walk: Walk) {
        let Some(conn) = self.arena.get(key) else {
            return;
        };
        match conn.phase {
            Phase::Open(_) => self.hold_open(key, walk),
            Phase::Dead => {}
            _ => self.arm_sooner(key, self.phase_timeout(conn)),
        }
    }

    /// A client that was slow by another limit may not be by this one, and the other way round;
    /// and one that is, or has yet to complete a message, may have to be looked at sooner.
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
        if walk.is_pong_shorter && conn.flags.has(Flags::PING_OUT) {
            // The shorter time to answer a ping that was sent already counts from now on.
            conn.heard = conn.heard.max(now);
            self.arm_sooner(key, self.config.pong_timeout);
        }
        if walk.is_ping_shorter {
            // Spread like the first pings of connections that came together.
            let after = self.first_ping();
            self.arm_sooner(key, after);
        }
        if let Some(after) = self.wanted_within(key) {
            self.arm_sooner(key, after);
        }
    }
}
