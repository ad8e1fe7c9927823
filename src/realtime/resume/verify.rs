//! Consistency checks of resumption, for tests and simulations only.

use std::collections::BTreeSet;

use crate::net::ConnKey;

use super::Resumption;

impl Resumption {
    /// Returns the connections that wait for the history, in no particular order.
    pub(in crate::realtime) fn waiting_connections(&self) -> impl Iterator<Item = ConnKey> {
        self.waiting.keys().copied()
    }

    /// Returns whether a connection waits for the history.
    pub(in crate::realtime) fn is_waiting(&self, key: ConnKey) -> bool {
        self.waiting.contains_key(&key)
    }

    /// Returns the connections that use cursors, with the time and position of the next mark. For
    /// tests.
    #[cfg(test)]
    pub(in crate::realtime) fn marks(&self) -> impl Iterator<Item = (ConnKey, u64, u64)> {
        let marks = self.marks.iter();
        marks.map(|mark| (mark.key, mark.due, mark.position))
    }

    /// Checks the queue of cursor marks.
    pub(in crate::realtime) fn verify(&self) -> Result<(), String> {
        let mut keys = BTreeSet::new();
        let mut due = 0;
        for mark in &self.marks {
            if !keys.insert(mark.key) {
                return Err(format!("{:?} gets two cursor marks", mark.key));
            }
            if mark.due < due {
                return Err(format!("{:?} is in the wrong place", mark.key));
            }
            due = mark.due;
        }
        Ok(())
    }
}
