//! Limits on incomplete input: a deadline for each connection, and the account of total memory.
//!
//! Owns the account. Complete input and queued output are not part of it.

use std::collections::HashMap;

use super::{Engine, floor_tick, millis};
use crate::ConnKey;
use crate::conn::Flags;
use crate::counters::Counters;
use crate::engine::timer::{TICK_MS, Tick};
use crate::handler::Handler;
use crate::io::socket::Socket;
use crate::ledger::recount;

/// The account. Connections without incomplete input have no entry.
#[derive(Default)]
pub(super) struct IncompleteInput {
    /// By slot.
    entries: HashMap<u32, PartialInput>,
}

struct PartialInput {
    key: ConnKey,
    bytes: usize,
    /// Bytes of a request body, which the handler has requested.
    body: usize,
    since: Tick,
}

impl IncompleteInput {
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Returns the time since which the connection has had input without completing it.
    pub(super) fn since(&self, key: ConnKey) -> Option<Tick> {
        self.entries.get(&key.index).map(|partial| partial.since)
    }

    /// Returns the incomplete input of each connection: its bytes, its start time, and the key.
    pub(super) fn iter(&self) -> impl Iterator<Item = (usize, Tick, ConnKey)> {
        let partial = self.entries.values().filter(|partial| partial.bytes > 0);
        partial.map(|partial| (partial.bytes, partial.since, partial.key))
    }

    /// Updates the entry of a connection.
    fn put(&mut self, key: ConnKey, bytes: usize, body: usize, now: Tick, counters: &mut Counters) {
        let since = now;
        let entry = self.entries.entry(key.index).or_insert(PartialInput {
            key,
            bytes: 0,
            body: 0,
            since,
        });
        recount(&mut counters.ledger.input, &mut entry.bytes, bytes);
        counters.incomplete_bytes = counters.ledger.input;
        recount(&mut counters.ledger.bodies, &mut entry.body, body);
        if bytes + body == 0 {
            self.entries.remove(&key.index);
            if self.entries.is_empty() && self.entries.capacity() > KEPT_CAPACITY {
                self.entries = HashMap::new();
            }
        }
    }
}

impl<S: Socket, H: Handler> Engine<S, H> {
    /// Updates the account with the current input of a connection. The deadline counts from the
    /// first byte and is not extended by later ones.
    pub(super) fn update_incomplete(&mut self, key: ConnKey) {
        let Some(conn) = self.arena.get_mut(key) else {
            return;
        };
        let (bytes, body) = match conn.is_open() {
            true => (conn.incomplete_frames(), 0),
            false => (conn.incomplete(), conn.body()),
        };
        let was_noted = conn.flags.has(Flags::INCOMPLETE);
        if bytes + body == 0 && !was_noted {
            return;
        }
        match bytes + body {
            0 => conn.flags.clear(Flags::INCOMPLETE),
            _ => conn.flags.set(Flags::INCOMPLETE),
        }
        let is_open = conn.is_open();
        let now = floor_tick(self.now);
        self.incomplete
            .put(key, bytes, body, now, &mut self.counters);
        if !was_noted && is_open {
            self.arm_sooner(key, self.config.message_timeout);
        }
    }

    /// A message or request has been completed: the deadline of the next one starts anew.
    pub(super) fn clear_incomplete(&mut self, key: ConnKey) {
        if let Some(conn) = self.arena.get_mut(key)
            && conn.flags.has(Flags::INCOMPLETE)
        {
            conn.flags.clear(Flags::INCOMPLETE);
            self.incomplete.put(key, 0, 0, 0, &mut self.counters);
        }
    }

    /// Returns the milliseconds that an open connection has left to complete its input.
    pub(super) fn time_to_complete(&self, key: ConnKey) -> Option<u64> {
        let since = self.incomplete.since(key)?;
        let end = u64::from(since) * TICK_MS + millis(self.config.message_timeout);
        Some(end.saturating_sub(self.now.mono))
    }
}

/// Entries for which memory is always kept.
const KEPT_CAPACITY: usize = 256;
