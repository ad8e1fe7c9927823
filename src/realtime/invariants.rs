//! What must hold between any two calls of the API; for tests and simulations only.
//!
//! Owns nothing and changes nothing: it goes through the tables, slowly, and says what is wrong.

use crate::model::Term;
use crate::net::ConnKey;

use super::Realtime;

#[doc(hidden)]
impl Realtime {
    /// Checks the index and the principals, which must be of open connections, or of some that
    /// are about to open.
    ///
    /// # Errors
    /// What does not hold, in words.
    pub fn check_invariants(&self, is_open: impl Fn(ConnKey) -> bool) -> Result<(), String> {
        for key in self.index.verify()? {
            if !is_open(key) {
                return Err(format!("{key:?} has a filter and is not open"));
            }
        }
        for key in self.principals.verify()? {
            if !is_open(key) && !self.arrivals.contains_key(&key) {
                return Err(format!("{key:?} is logged in and not open"));
            }
        }
        Ok(())
    }

    /// The connections whose filter has a term, in the order of their keys.
    pub fn subscribers(&self, term: &Term) -> Vec<ConnKey> {
        let digest = self.digester.term(term.field, &term.value);
        let mut keys = Vec::new();
        self.index.collect(digest, &mut keys);
        keys.sort_unstable();
        keys
    }

    /// Who a connection is.
    pub fn userid(&self, key: ConnKey) -> Option<&str> {
        self.principals.of(key).map(|principal| principal.userid())
    }
}
