//! Other limits and deadlines for an engine that runs.
//!
//! Owns: what has to be done about those who are connected when they change.

use super::super::ConnKey;
use super::super::config::Config;
use super::super::handler::Handler;
use super::super::socket::Socket;
use super::{Engine, floor_tick};

impl<S: Socket, H: Handler> Engine<S, H> {
    /// Goes on with other limits and deadlines: see [`Reload`](crate::net::Reload).
    pub fn reconfigure(&mut self, config: Config) {
        self.config = Config {
            reserved_listener: self.config.reserved_listener,
            ..config
        };
        self.recount_addresses();
        let mut from = 0;
        while let Some(key) = self.arena.next_key(from) {
            from = key.index + 1;
            self.hold_to_limits(key);
        }
        self.with_handler(|handler, cx| handler.on_reload(cx));
        self.apply_effects();
    }

    /// Who was slow by another limit may not be by this one, and the other way round; and who is,
    /// or has yet to complete a message, may have to be looked at sooner.
    fn hold_to_limits(&mut self, key: ConnKey) {
        let now = floor_tick(self.now);
        let Some(conn) = self.arena.get_mut(key).filter(|conn| conn.is_open()) else {
            return;
        };
        if let Some(tx) = conn.tx.as_mut() {
            let since = tx.over_soft_since.unwrap_or(now);
            let was_slow = tx.over_soft_since.is_some();
            tx.over_soft_since = (tx.len() > self.config.queue_soft).then_some(since);
            self.counters.slow += u64::from(tx.over_soft_since.is_some());
            self.counters.slow -= u64::from(was_slow);
        }
        if let Some(after) = self.wanted_within(key) {
            self.arm_sooner(key, after);
        }
    }
}
