//! What has come of requests and messages that are not whole: how long it may stay so, and how
//! much memory all of it may take.
//!
//! Owns the account of it. What is whole is no matter of this module, nor what waits to be sent.

use std::collections::HashMap;

use crate::ws::{CloseCode, ProtocolError};

use super::super::ConnKey;
use super::super::conn::{Flags, Phase};
use super::super::handler::{Handler, Refusal};
use super::super::socket::Socket;
use super::super::timer::{TICK_MS, Tick};
use super::{Engine, floor_tick, millis};

/// The account. Connections that hold nothing are not in it.
#[derive(Default)]
pub(super) struct Unfinished {
    /// By slot.
    held: HashMap<u32, Held>,
}

struct Held {
    key: ConnKey,
    bytes: usize,
    since: Tick,
}

impl Unfinished {
    pub fn len(&self) -> usize {
        self.held.len()
    }

    /// Since when the connection has held something without completing it.
    pub fn since(&self, key: ConnKey) -> Option<Tick> {
        self.held.get(&key.index).map(|held| held.since)
    }

    /// Takes note of what a connection holds, and says what it held before.
    fn put(&mut self, key: ConnKey, bytes: usize, now: Tick) -> usize {
        if bytes == 0 {
            let before = self.held.remove(&key.index).map_or(0, |held| held.bytes);
            if self.held.is_empty() && self.held.capacity() > KEPT_CAPACITY {
                self.held = HashMap::new();
            }
            return before;
        }
        let since = now;
        let held = self.held.entry(key.index).or_insert(Held {
            key,
            bytes: 0,
            since,
        });
        std::mem::replace(&mut held.bytes, bytes)
    }
}

impl<S: Socket, H: Handler> Engine<S, H> {
    /// Takes note of what a connection holds now. Its time runs from the first byte, and no
    /// further byte stretches it.
    pub(super) fn note_unfinished(&mut self, key: ConnKey) {
        let Some(conn) = self.arena.get_mut(key) else {
            return;
        };
        let (bytes, was_noted) = (conn.unfinished(), conn.flags.has(Flags::UNFINISHED));
        if bytes == 0 && !was_noted {
            return;
        }
        match bytes {
            0 => conn.flags.clear(Flags::UNFINISHED),
            _ => conn.flags.set(Flags::UNFINISHED),
        }
        let is_open = conn.is_open();
        let before = self.unfinished.put(key, bytes, floor_tick(self.now));
        self.counters.unfinished_bytes += bytes as u64;
        self.counters.unfinished_bytes -= before as u64;
        if !was_noted && is_open {
            self.arm_sooner(key, self.config.message_timeout);
        }
    }

    /// Something has been completed: the time of what has begun since runs anew.
    pub(super) fn restart_unfinished(&mut self, key: ConnKey) {
        if let Some(conn) = self.arena.get_mut(key)
            && conn.flags.has(Flags::UNFINISHED)
        {
            conn.flags.clear(Flags::UNFINISHED);
            let before = self.unfinished.put(key, 0, 0);
            self.counters.unfinished_bytes -= before as u64;
        }
    }

    /// Milliseconds that an open connection still has to complete what it has begun.
    pub(super) fn time_to_complete(&self, key: ConnKey) -> Option<u64> {
        let since = self.unfinished.since(key)?;
        let end = u64::from(since) * TICK_MS + millis(self.config.message_timeout);
        Some(end.saturating_sub(self.now.mono))
    }

    /// Ends an open connection whose message did not become whole.
    pub(super) fn give_up_message(&mut self, key: ConnKey) {
        let reason = "message was not complete in time";
        self.fail(key, ProtocolError::new(CloseCode::POLICY, reason));
    }

    /// Holds what is unfinished under its limit, by giving up those that have the most of it.
    pub(super) fn shed_unfinished(&mut self) {
        let limit = self.config.unfinished_total as u64;
        if self.counters.unfinished_bytes <= limit {
            return;
        }
        let held = self.unfinished.held.values();
        let mut held: Vec<_> = held.map(|held| (held.bytes, held.key)).collect();
        held.sort_unstable_by(|a, b| b.cmp(a));
        for (_, key) in held {
            if self.counters.unfinished_bytes <= limit / 4 * 3 {
                return;
            }
            self.give_up(key);
        }
    }

    fn give_up(&mut self, key: ConnKey) {
        let Some(conn) = self.arena.get_mut(key) else {
            return;
        };
        match &mut conn.phase {
            Phase::Open(_) => {
                let reason = "too much is unfinished";
                self.fail(key, ProtocolError::new(CloseCode::TRY_AGAIN_LATER, reason));
            }
            Phase::Request(_) if conn.transport.is_handshaking() => self.lose(key),
            Phase::Request(_) => self.refuse(key, Refusal::Full),
            phase @ Phase::Deferred(_) => {
                *phase = Phase::Request(None);
                self.refuse(key, Refusal::Full);
            }
            Phase::Preface(_) | Phase::Closing | Phase::Linger | Phase::Dead => self.lose(key),
        }
    }
}

/// Entries whose memory is kept for the next ones.
const KEPT_CAPACITY: usize = 256;
