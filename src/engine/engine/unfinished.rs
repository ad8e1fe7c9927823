//! Limits on incomplete input: a deadline for each connection, and the account of total memory.
//!
//! Owns the account. Complete input and queued output are not part of it.

use std::collections::HashMap;

use super::{Engine, floor_tick, millis};
use crate::ConnKey;
use crate::conn::Flags;
use crate::counters::{Counters, End};
use crate::engine::timer::{TICK_MS, Tick};
use crate::handler::Handler;
use crate::held::recount;
use crate::io::socket::Socket;
use crate::ws::{CloseCode, ProtocolError};

/// The account. Connections without incomplete input have no entry.
#[derive(Default)]
pub(super) struct Unfinished {
    /// By slot.
    held: HashMap<u32, Held>,
}

struct Held {
    key: ConnKey,
    bytes: usize,
    /// Bytes of a request body, which the handler has requested.
    body: usize,
    since: Tick,
}

impl Unfinished {
    pub(super) fn len(&self) -> usize {
        self.held.len()
    }

    /// Returns the time since which the connection has had input without completing it.
    pub(super) fn since(&self, key: ConnKey) -> Option<Tick> {
        self.held.get(&key.index).map(|held| held.since)
    }

    /// Returns the incomplete input of each connection: its bytes, its start time, and the key.
    pub(super) fn iter(&self) -> impl Iterator<Item = (usize, Tick, ConnKey)> {
        let held = self.held.values().filter(|held| held.bytes > 0);
        held.map(|held| (held.bytes, held.since, held.key))
    }

    /// Updates the entry of a connection.
    fn put(&mut self, key: ConnKey, bytes: usize, body: usize, now: Tick, counters: &mut Counters) {
        let since = now;
        let entry = self.held.entry(key.index).or_insert(Held {
            key,
            bytes: 0,
            body: 0,
            since,
        });
        recount(&mut counters.held.input, &mut entry.bytes, bytes);
        counters.unfinished_bytes = counters.held.input;
        recount(&mut counters.held.bodies, &mut entry.body, body);
        if bytes + body == 0 {
            self.held.remove(&key.index);
            if self.held.is_empty() && self.held.capacity() > KEPT_CAPACITY {
                self.held = HashMap::new();
            }
        }
    }
}

impl<S: Socket, H: Handler> Engine<S, H> {
    /// Updates the account with the current input of a connection. The deadline counts from the
    /// first byte and is not extended by later ones.
    pub(super) fn note_unfinished(&mut self, key: ConnKey) {
        let Some(conn) = self.arena.get_mut(key) else {
            return;
        };
        let (bytes, body) = match conn.is_open() {
            true => (conn.unfinished_frames(), 0),
            false => (conn.unfinished(), conn.body()),
        };
        let was_noted = conn.flags.has(Flags::UNFINISHED);
        if bytes + body == 0 && !was_noted {
            return;
        }
        match bytes + body {
            0 => conn.flags.clear(Flags::UNFINISHED),
            _ => conn.flags.set(Flags::UNFINISHED),
        }
        let is_open = conn.is_open();
        let now = floor_tick(self.now);
        self.unfinished
            .put(key, bytes, body, now, &mut self.counters);
        if !was_noted && is_open {
            self.arm_sooner(key, self.config.message_timeout);
        }
    }

    /// A message or request has been completed: the deadline of the next one starts anew.
    pub(super) fn restart_unfinished(&mut self, key: ConnKey) {
        if let Some(conn) = self.arena.get_mut(key)
            && conn.flags.has(Flags::UNFINISHED)
        {
            conn.flags.clear(Flags::UNFINISHED);
            self.unfinished.put(key, 0, 0, 0, &mut self.counters);
        }
    }

    /// Returns the milliseconds that an open connection has left to complete its input.
    pub(super) fn time_to_complete(&self, key: ConnKey) -> Option<u64> {
        let since = self.unfinished.since(key)?;
        let end = u64::from(since) * TICK_MS + millis(self.config.message_timeout);
        Some(end.saturating_sub(self.now.mono))
    }

    /// Closes an open connection whose message was not completed in time.
    pub(super) fn give_up_message(&mut self, key: ConnKey) {
        let reason = "message was not complete in time";
        let error = ProtocolError::new(CloseCode::POLICY, reason);
        self.fail_as(key, error, End::TimedOut);
    }
}

/// Entries for which memory is always kept.
const KEPT_CAPACITY: usize = 256;
