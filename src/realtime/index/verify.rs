//! Consistency checks of the index's lists and tables, for tests and simulations only.

use std::collections::BTreeSet;

use crate::net::ConnKey;
use crate::realtime::slab::NONE;

use super::Index;

impl Index {
    /// Walks every list from both ends. Returns the connections that have a filter, or an error.
    pub fn verify(&self) -> Result<Vec<ConnKey>, String> {
        let (mut keys, mut nodes) = (Vec::new(), 0);
        for head in self.heads.iter() {
            let first = self.nodes.get(head).map(|node| node.key);
            let key = first.ok_or_else(|| format!("node {head} is not there"))?;
            if self.heads.get(key) != head {
                return Err(format!("{key:?} has another's slot"));
            }
            nodes += self.verify_filter(key, head)?;
            keys.push(key);
        }
        let mut postings = 0;
        for (slot, term) in (0..).zip(self.terms.slots()) {
            if term.head == NONE {
                continue;
            }
            let by_digest = |&at: &u32| at == slot;
            if self
                .table
                .find(term.digest.table_hash(), by_digest)
                .is_none()
            {
                return Err(format!("term {slot} is not found by its digest"));
            }
            postings += self.verify_postings(slot, term.head)?;
        }
        let counts = (nodes, postings, self.table.len());
        match counts == (self.nodes.len(), self.nodes.len(), self.terms.len()) {
            true => Ok(keys),
            false => Err(format!(
                "{counts:?} nodes, postings and digests of {} and {}",
                self.nodes.len(),
                self.terms.len()
            )),
        }
    }

    /// Checks a connection's list.
    fn verify_filter(&self, key: ConnKey, head: u32) -> Result<usize, String> {
        let mut terms = BTreeSet::new();
        let mut at = head;
        while at != NONE {
            let node = self.nodes.get(at).filter(|node| node.key == key);
            let node = node.ok_or_else(|| format!("node {at} is not {key:?}'s"))?;
            if !terms.insert(node.term) {
                return Err(format!("{key:?} has a term twice"));
            }
            at = node.next_of_conn;
        }
        Ok(terms.len())
    }

    /// Checks a term's list.
    fn verify_postings(&self, term: u32, head: u32) -> Result<usize, String> {
        let (mut count, mut before, mut at) = (0, NONE, head);
        while at != NONE {
            let node = self.nodes.get(at).filter(|node| node.term == term);
            let node = node.ok_or_else(|| format!("node {at} is not of term {term}"))?;
            if node.prev_of_term != before || count == self.nodes.len() {
                return Err(format!("node {at} hangs wrongly in term {term}"));
            }
            (before, at) = (at, node.next_of_term);
            count += 1;
        }
        Ok(count)
    }
}
