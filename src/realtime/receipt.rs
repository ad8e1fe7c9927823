//! Receipt of replays by clients that do not use cursors.
//!
//! Owns: the connections with a replay that has been sent, but perhaps not received. A client is
//! recorded as connected only when it has shown a sign of life so long after the end of its replay
//! that the replay must have arrived. If the connection or the process ends before, the old position
//! is still in effect, and the replay is repeated.

use std::collections::{HashMap, VecDeque};

use crate::net::{ConnKey, Cx};

use super::recognition::IN_FLIGHT;
use super::session::SessionFlag;
use super::{ApiSession, Realtime};

/// The connections whose replay may not have been received.
#[derive(Default)]
pub(super) struct PendingReceipts {
    /// When the replay of each connection ended, in monotonic milliseconds.
    ends: HashMap<ConnKey, u64>,
    /// The same connections and times, to be checked in turn. Entries that differ are obsolete.
    queue: VecDeque<(ConnKey, u64)>,
}

impl PendingReceipts {
    /// Forgets a connection that has closed, or gets another replay.
    pub(super) fn remove(&mut self, key: ConnKey) {
        self.ends.remove(&key);
    }

    /// Returns whether a connection may not have received its replay.
    pub(super) fn contains(&self, key: ConnKey) -> bool {
        self.ends.contains_key(&key)
    }

    /// Returns when the replay of a connection ended, for tests.
    #[cfg(test)]
    pub(super) fn end(&self, key: ConnKey) -> Option<u64> {
        self.ends.get(&key).copied()
    }

    fn insert(&mut self, key: ConnKey, end: u64) {
        self.ends.insert(key, end);
        self.queue.push_back((key, end));
    }
}

impl Realtime {
    /// Called at the end of a replay. Waits for its receipt if the client can be recognized when it
    /// reconnects.
    pub(super) fn await_receipt(&mut self, cx: &mut Cx<'_, ApiSession>, key: ConnKey) {
        let is_recognized = |session: &mut ApiSession| {
            session.has(SessionFlag::Registered) && !session.has(SessionFlag::Connected)
        };
        if cx.session(key).is_some_and(is_recognized) {
            self.resumption.receipts.insert(key, cx.now().mono);
        }
    }

    /// Records the clients that have certainly received their replay as connected.
    pub(super) fn check_receipts(&mut self, cx: &mut Cx<'_, ApiSession>) {
        let count = self.resumption.receipts.queue.len().min(MAX_CHECKED);
        for _ in 0..count {
            let receipts = &mut self.resumption.receipts;
            let Some((key, end)) = receipts.queue.pop_front() else {
                return;
            };
            if receipts.ends.get(&key) != Some(&end) {
                continue;
            }
            let last = cx.last_received(key).unwrap_or_default();
            if last < end.saturating_add(IN_FLIGHT) {
                receipts.queue.push_back((key, end));
                continue;
            }
            receipts.remove(key);
            let received = self.received(key, last);
            self.record_connected(cx, key, received);
        }
    }
}

/// The maximum number of connections that are checked at a tick.
const MAX_CHECKED: usize = 4096;
