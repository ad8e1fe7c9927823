//! Work in proportion to the number of connections, in steps: each turn does a bounded part of it.
//!
//! Owns: the progress of such work. Must not know: the tables on which it is done.

use std::collections::BTreeSet;

use crate::model::{BackendRequest, TokenId};
use crate::net::{ConnKey, Cx};

use super::history::Cursor;
use super::principals::LoginWalk;
use super::session::SessionFlag;
use super::slab::SHRINK_BUDGET;
use super::{ApiSession, Realtime};

/// The work in progress.
pub(super) struct Steps {
    /// Memory is being released.
    is_releasing: bool,
    recording: Option<Recording>,
    /// A walk through all logins, and the tokens found so far.
    tokens: Option<(LoginWalk, Vec<TokenId>)>,
    /// The connections that a step examines.
    size: usize,
}

/// The clients that have connected before the history was ready, and are being recorded as connected.
struct Recording {
    /// The position up to which they have received everything.
    received: Cursor,
    /// The slot of the next connection.
    next: u32,
    /// Later connections that have been recorded at once. Another client of theirs is not recorded.
    done: BTreeSet<ConnKey>,
}

impl Realtime {
    /// Continues all work in progress. Returns whether any is left.
    pub(super) fn continue_steps(&mut self, cx: &mut Cx<'_, ApiSession>) -> bool {
        let is_releasing = self.steps.is_releasing && self.release_memory();
        let is_recording = self.record_some(cx);
        let is_evicting = self.clients.evict(self.steps.size);
        let is_collecting = self.collect_tokens(cx.now().mono);
        is_releasing || is_recording || is_evicting || is_collecting
    }

    /// Called periodically: begins work that may be due, and continues all.
    pub(super) fn begin_steps(&mut self, cx: &mut Cx<'_, ApiSession>) {
        self.steps.is_releasing = true;
        self.begin_sweep(cx.now().mono);
        if self.continue_steps(cx) {
            cx.request_turn();
        }
    }

    /// Releases memory after many connections have closed. Returns whether there is more to release.
    fn release_memory(&mut self) -> bool {
        let mut budget = SHRINK_BUDGET;
        self.index.shrink(&mut budget);
        self.principals.shrink(&mut budget);
        self.steps.is_releasing = budget == 0;
        self.steps.is_releasing
    }

    /// Begins to collect the tokens of all connections for a sweep by the backend, if one is due.
    fn begin_sweep(&mut self, now: u64) {
        let Some(period) = self.settings.sweep_period else {
            self.steps.tokens = None;
            return;
        };
        if self.steps.tokens.is_none() && now.saturating_sub(self.last_sweep) >= period {
            // A vector that grows would have to be moved.
            let tokens = Vec::with_capacity(self.principals.logins());
            self.steps.tokens = Some((LoginWalk::new(), tokens));
        }
    }

    /// Requests a sweep when all tokens have been collected. Returns whether there are more.
    fn collect_tokens(&mut self, now: u64) -> bool {
        let Some((walk, tokens)) = &mut self.steps.tokens else {
            return false;
        };
        if self.principals.next_tokens(walk, self.steps.size, tokens) {
            return true;
        }
        let tokens = std::mem::take(tokens);
        self.steps.tokens = None;
        // If the backend's queue is full, the next tick begins again.
        if tokens.is_empty() || self.backend.send(BackendRequest::Sweep { tokens }).is_ok() {
            self.last_sweep = now;
        }
        false
    }

    /// Begins to record the clients that have connected before the history was ready, and have missed
    /// nothing.
    pub(super) fn begin_recording(&mut self, cx: &mut Cx<'_, ApiSession>) {
        self.steps.recording = Some(Recording {
            received: self.history.start_cursor(),
            next: 0,
            done: BTreeSet::new(),
        });
        if self.record_some(cx) {
            cx.request_turn();
        }
    }

    /// Records all clients that are left to be recorded, before the history begins again.
    pub(super) fn finish_recording(&mut self, cx: &mut Cx<'_, ApiSession>) {
        while self.record_some(cx) {}
    }

    /// Records further clients. Returns whether any is left.
    fn record_some(&mut self, cx: &mut Cx<'_, ApiSession>) -> bool {
        let Some(mut recording) = self.steps.recording.take() else {
            return false;
        };
        let first = recording.next as usize;
        let end = self.index.end().min(first + self.steps.size);
        for slot in first as u32..end as u32 {
            if let Some(key) = self.index.in_slot(slot)
                && !recording.done.remove(&key)
            {
                self.record_one(cx, key, recording.received);
            }
        }
        recording.next = end as u32;
        let is_left = end < self.index.end();
        self.steps.recording = is_left.then_some(recording);
        is_left
    }

    /// Records the client of a connection, if it is left to be recorded. Must precede any change of the
    /// client's state: the order in which clients are recorded has no effect then.
    #[inline]
    pub(super) fn record_now(&mut self, cx: &mut Cx<'_, ApiSession>, key: ConnKey) {
        if let Some(received) = self.unrecorded(key) {
            self.record_one(cx, key, received);
            if let Some(recording) = &mut self.steps.recording {
                recording.done.insert(key);
            }
        }
    }

    /// Returns the position up to which the client of a connection has received everything, if it may be
    /// left to be recorded.
    #[inline]
    pub(super) fn unrecorded(&self, key: ConnKey) -> Option<Cursor> {
        let recording = self.steps.recording.as_ref()?;
        let is_left = key.slot() >= recording.next
            && self.index.in_slot(key.slot()) == Some(key)
            && !recording.done.contains(&key);
        is_left.then_some(recording.received)
    }

    fn record_one(&mut self, cx: &mut Cx<'_, ApiSession>, key: ConnKey, received: Cursor) {
        let is_behind = self.resumption.receipts.contains(key);
        let is_replaying = |session: &mut ApiSession| session.has(SessionFlag::Replaying);
        if !is_behind && !cx.session(key).is_some_and(is_replaying) {
            self.record_connected(cx, key, received);
        }
    }

    /// Changes the number of connections that a step examines.
    #[cfg(test)]
    pub(super) fn set_step(&mut self, size: usize) {
        self.steps.size = size;
    }
}

impl Default for Steps {
    fn default() -> Self {
        Steps {
            is_releasing: false,
            recording: None,
            tokens: None,
            size: STEP,
        }
    }
}

/// The connections that a step examines: about a millisecond of work if all of them are recorded.
const STEP: usize = 1024;

#[cfg(test)]
mod tests;
