//! Consistency checks of the index, for tests and simulations only.

use std::collections::BTreeSet;

use crate::net::ConnKey;

use super::Index;

impl Index {
    /// Walks every list. Returns the connections that have a filter, or an error.
    pub fn verify(&self) -> Result<Vec<ConnKey>, String> {
        self.table.verify()?;
        self.conditional.verify()?;
        let (mut keys, mut subscriptions) = (Vec::new(), 0);
        for head in self.heads.iter() {
            let first = self.table.member(head).map(|first| first.key);
            let key = first.ok_or_else(|| format!("subscription {head} does not exist"))?;
            if self.heads.get(key) != head {
                return Err(format!("{key:?} is stored in another slot"));
            }
            subscriptions += self.verify_filter(key, head)?;
            keys.push(key);
        }
        if let Some(key) = self
            .conditional
            .connections()
            .find(|key| keys.contains(key))
        {
            return Err(format!("{key:?} has two filters"));
        }
        match subscriptions == self.table.len() {
            true => Ok(self.connections().collect()),
            false => Err(format!(
                "connections have {subscriptions} subscriptions of {}",
                self.table.len()
            )),
        }
    }

    /// Checks a connection's list, and returns its length.
    fn verify_filter(&self, key: ConnKey, head: u32) -> Result<usize, String> {
        let mut terms = BTreeSet::new();
        for subscription in self.filter(head) {
            if subscription.key != key {
                return Err(format!("{:?} is in the list of {key:?}", subscription.key));
            }
            if !terms.insert(self.table.group_of(subscription)) {
                return Err(format!("{key:?} has a term twice"));
            }
        }
        Ok(terms.len())
    }
}
