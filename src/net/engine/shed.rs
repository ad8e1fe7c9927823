//! Load shedding: which connections are closed when all together hold too much memory.
//!
//! Owns no account: memory is counted in the ledger ([`Held`](super::super::Held)). A connection is
//! closed only for memory that its end frees, and a connection that takes its output at a
//! reasonable pace only for memory that nothing else uses.

use super::super::ConnKey;
use super::super::conn::{Conn, Phase};
use super::super::counters::End;
use super::super::handler::{Handler, Refusal};
use super::super::socket::Socket;
use super::super::timer::Tick;
use super::life::ticks;
use super::{Engine, floor_tick};
use crate::ws::{CloseCode, ProtocolError};

/// A connection with output that could be dropped.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Debtor {
    /// It does not take its output at a reasonable pace.
    is_late: bool,
    /// Bytes that no other connection uses.
    private: usize,
    key: ConnKey,
}

impl<S: Socket, H: Handler> Engine<S, H> {
    /// Holds the output of all connections together under its limit. From half of it on,
    /// connections that do not take theirs are closed, those with the most memory of their own
    /// first. Beyond one and a half of the limit, connections with much memory of their own are
    /// closed at any pace.
    pub(super) fn shed_load(&mut self) {
        let limit = self.config.queue_total as u64;
        // From half of the limit on, further events wait for memory (`has_room`).
        if self.counters.held.output() <= limit / 2 {
            return;
        }
        let mut debtors = self.debtors();
        debtors.sort_unstable_by(|a, b| b.cmp(a));
        for debtor in debtors {
            let held = self.counters.held.output();
            let is_needed = match debtor.is_late {
                true => held > limit / 8 * 3,
                false => held > limit / 2 * 3 && debtor.private >= MUCH,
            };
            if is_needed {
                self.drop_output(debtor.key);
            }
        }
    }

    fn debtors(&self) -> Vec<Debtor> {
        let now = floor_tick(self.now);
        let slow = ticks(self.config.slow_timeout);
        let grace = PRESSURE_GRACE.min(slow);
        let mut debtors = Vec::new();
        let mut from = 0;
        while let Some(key) = self.arena.next_key(from) {
            from = key.index + 1;
            let Some(conn) = self.arena.get(key) else {
                continue;
            };
            let Some(tx) = &conn.tx else { continue };
            debtors.push(Debtor {
                is_late: !tx.keeps_pace(now, grace, self.config.queue_hard)
                    || tx.stalls(now, STALL.min(slow)),
                private: tx.private() + conn.transport.records(),
                key,
            });
        }
        debtors
    }

    /// Closes a connection and drops its output. If the message in progress is short, a close frame
    /// follows it; otherwise the connection is reset, since the close frame would have to wait for
    /// the very memory that is to be freed.
    fn drop_output(&mut self, key: ConnKey) {
        let Some(conn) = self.arena.get(key) else {
            return;
        };
        if !conn.is_open() {
            let is_request = matches!(conn.phase, Phase::Request(_) | Phase::Deferred(_));
            self.counters.refusals.slow += u64::from(is_request);
            return self.lose(key);
        }
        self.evict(key);
        if self
            .arena
            .get(key)
            .is_some_and(|conn| conn.queued() > SHORT)
        {
            self.abort(key);
        }
    }

    /// Holds incomplete input under its limit: connections with the most of it are given up.
    /// Input of connections that are ending already will be freed soon, so it is not counted again.
    /// If it comes to half of the limit besides, they are ended at once.
    pub(super) fn shed_unfinished(&mut self) {
        let limit = self.config.unfinished_total as u64;
        if self.counters.unfinished_bytes <= limit {
            return;
        }
        let mut ending = 0;
        let (mut going, mut staying) = (Vec::new(), Vec::new());
        for (bytes, key) in self.unfinished.iter() {
            let phase = self.arena.get(key).map(|conn| &conn.phase);
            if let Some(Phase::Closing | Phase::Linger) = phase {
                ending += bytes as u64;
                going.push((bytes, key));
            } else {
                staying.push((bytes, key));
            }
        }
        staying.sort_unstable_by(|a, b| b.cmp(a));
        for (_, key) in staying {
            if self.counters.unfinished_bytes - ending <= limit / 4 * 3 {
                break;
            }
            self.give_up(key);
            let left = self.arena.get(key).map_or(0, Conn::unfinished);
            ending += left as u64;
            going.push((left, key));
        }
        going.sort_unstable_by(|a, b| b.cmp(a));
        for (_, key) in going {
            if self.counters.unfinished_bytes <= limit / 2 * 3 {
                return;
            }
            self.lose(key);
        }
    }

    fn give_up(&mut self, key: ConnKey) {
        let Some(conn) = self.arena.get_mut(key) else {
            return;
        };
        match &mut conn.phase {
            Phase::Open(_) => {
                let reason = "too much is unfinished";
                let error = ProtocolError::new(CloseCode::TRY_AGAIN_LATER, reason);
                self.fail_as(key, error, End::Overload);
            }
            Phase::Request(_) if !conn.transport.is_handshaking() => {
                self.refuse(key, Refusal::Overloaded);
            }
            phase @ Phase::Deferred(_) => {
                *phase = Phase::Request(None);
                self.refuse(key, Refusal::Overloaded);
            }
            // No answer can be sent before TLS.
            Phase::Request(_) | Phase::Preface(_) => {
                self.counters.count_refusal(Refusal::Overloaded);
                self.lose(key);
            }
            Phase::Closing | Phase::Linger | Phase::Dead => self.lose(key),
        }
    }
}

/// How long a message may wait at the front of a queue while all together hold too much.
const PRESSURE_GRACE: Tick = 20;
/// How long a connection may take nothing at all while all together hold too much.
const STALL: Tick = 30;
/// Bytes of its own output beyond which a connection is closed even if it keeps pace. One that only
/// receives events has next to none.
const MUCH: usize = 16 * 1024;
/// Bytes of begun output that an evicted connection may keep until it has been told.
const SHORT: usize = 16 * 1024;
