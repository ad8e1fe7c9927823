//! Invariants between any two calls of the API, for tests and simulations only.
//!
//! Checks the tables by a full scan, and changes nothing.

use crate::model::Term;
use crate::net::ConnKey;

use super::Realtime;

#[doc(hidden)]
impl Realtime {
    /// Checks the index, the principals, the history, and the replays. Their connections must be
    /// open, or accepted and about to open.
    ///
    /// # Errors
    /// A description of the violated invariant.
    pub fn check_invariants(&self, is_open: impl Fn(ConnKey) -> bool) -> Result<(), String> {
        for key in self.index.verify()? {
            if !is_open(key) {
                return Err(format!("{key:?} has a filter and is not open"));
            }
        }
        for key in self.principals.verify()? {
            if !is_open(key) && !self.pending_opens.contains_key(&key) {
                return Err(format!("{key:?} is logged in and not open"));
            }
        }
        self.history.verify()?;
        self.resumption.verify()?;
        let replaying = self.replays.verify()?;
        for key in &replaying {
            if self.resumption.is_waiting(*key) {
                return Err(format!("{key:?} is in a replay, and waits for the history"));
            }
            if !is_open(*key) {
                return Err(format!("{key:?} is in a replay and not open"));
            }
        }
        match self
            .resumption
            .waiting_connections()
            .find(|key| !is_open(*key))
        {
            Some(key) => Err(format!("{key:?} waits for the history and is not open")),
            None => Ok(()),
        }
    }

    /// Changes the maximum number of entries that a connection is sent in a turn.
    pub fn limit_replays(&mut self, entries: usize) {
        self.replays.set_max_entries(entries);
    }

    /// Returns whether a connection is sent events from the history only, or waits for it.
    pub fn is_replaying(&self, key: ConnKey) -> bool {
        self.replays.position(key).is_some() || self.resumption.is_waiting(key)
    }

    /// Returns the connections whose filter contains a term, sorted by key.
    pub fn subscribers(&self, term: &Term) -> Vec<ConnKey> {
        let digest = self.digester.term(term.field, &term.value);
        let mut keys = Vec::new();
        self.index.collect(digest, &mut keys);
        keys.sort_unstable();
        keys
    }

    /// Returns the userid of a connection.
    pub fn userid(&self, key: ConnKey) -> Option<&str> {
        self.principals.of(key).map(|principal| principal.userid())
    }
}
