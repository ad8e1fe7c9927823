//! An inverted index from terms to connections: an event costs its matches, regardless of the
//! number of connections.
//!
//! Owns: the subscriptions of all connections. Must not know: the meaning of terms, or anything
//! about a connection except its key.
//!
//! A subscription is a small node in two lists: the doubly linked list of its term, and the list of
//! its connection. Removal takes constant time, regardless of the number of other connections with
//! the same term. A connection with a single, unique term costs a node, a term, its share of a hash
//! table, and four bytes: about 70 bytes in total.

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

use crate::net::ConnKey;

use super::digest::Digest;
use super::slab::{ConnMap, NONE, Slab};

/// The inverted index.
#[derive(Default)]
pub struct Index {
    /// The first node of each connection.
    heads: ConnMap,
    nodes: Slab<Node>,
    terms: Slab<Term>,
    /// Indices into `terms`, by digest.
    table: HashTable<u32>,
}

#[derive(Clone, Copy)]
struct Node {
    key: ConnKey,
    term: u32,
    next_of_conn: u32,
    next_of_term: u32,
    prev_of_term: u32,
}

#[derive(Clone, Copy)]
struct Term {
    digest: Digest,
    /// The first node; [`NONE`] only in a vacant entry.
    head: u32,
}

impl Index {
    /// Replaces the terms of a connection. `terms` must be distinct.
    pub fn replace(&mut self, key: ConnKey, terms: &[Digest]) {
        self.vacate(key);
        let mut head = NONE;
        for &digest in terms {
            head = self.subscribe(key, digest, head);
        }
        if head != NONE {
            self.heads.set(key, head);
        }
    }

    /// Returns whether [`Index::replace`] with these arguments leaves the footprint at `total`
    /// bytes or less, or does not increase it.
    pub fn has_room(&self, key: ConnKey, terms: &[Digest], total: usize) -> bool {
        let now = self.footprint();
        // An upper bound, which is nearly always sufficient.
        if now + terms.len() * (NODE_BYTES + TERM_BYTES) <= total {
            return true;
        }
        let then = self.footprint_with(key, terms);
        then <= total || then <= now
    }

    /// Returns the footprint after [`Index::replace`] with the same arguments.
    fn footprint_with(&self, key: ConnKey, terms: &[Digest]) -> usize {
        let (mut nodes, mut distinct) = (self.nodes.len(), self.terms.len());
        let mut at = self.heads.get(key);
        while let Some(node) = self.nodes.get(at) {
            nodes -= 1;
            distinct -= usize::from(self.is_only_of(node.term, node.key));
            at = node.next_of_conn;
        }
        nodes += terms.len();
        let is_new = |digest: &&Digest| {
            let term = self.find(**digest);
            term.is_none_or(|term| self.is_only_of(term, key))
        };
        distinct += terms.iter().filter(is_new).count();
        nodes * NODE_BYTES + distinct * TERM_BYTES
    }

    /// Removes all terms of a connection.
    pub fn remove(&mut self, key: ConnKey) {
        let head = self.nodes.get(self.heads.get(key));
        if head.is_some_and(|head| head.key == key) {
            self.vacate(key);
        }
    }

    /// Appends the connections with this term to `out`.
    pub fn collect(&self, digest: Digest, out: &mut Vec<ConnKey>) {
        let term = self.find(digest).and_then(|term| self.terms.get(term));
        let mut at = term.map_or(NONE, |term| term.head);
        while let Some(node) = self.nodes.get(at) {
            out.push(node.key);
            at = node.next_of_term;
        }
    }

    /// Returns the number of subscriptions: the sum of the terms of all connections.
    pub fn subscriptions(&self) -> usize {
        self.nodes.len()
    }

    /// Returns the number of distinct terms.
    pub fn terms(&self) -> usize {
        self.terms.len()
    }

    /// Returns the size of all subscriptions in bytes. It depends only on the current
    /// subscriptions, and not on their history or on allocations.
    pub fn footprint(&self) -> usize {
        self.nodes.len() * NODE_BYTES + self.terms.len() * TERM_BYTES
    }

    /// Returns the allocated bytes.
    pub fn bytes(&self) -> usize {
        self.heads.bytes() + self.nodes.bytes() + self.terms.bytes() + self.table.allocation_size()
    }

    /// Releases unused memory after many subscriptions have been removed. The cost is proportional
    /// to the remaining subscriptions, which are fewer than those removed since the last call.
    pub fn shrink(&mut self) {
        if !self.nodes.is_sparse() && !self.terms.is_sparse() {
            return;
        }
        let old = std::mem::take(self);
        let mut terms = Vec::new();
        for head in old.heads.iter() {
            terms.clear();
            let mut key = None;
            let mut at = head;
            while let Some(node) = old.nodes.get(at) {
                key = Some(node.key);
                terms.extend(old.terms.get(node.term).map(|term| term.digest));
                at = node.next_of_conn;
            }
            if let Some(key) = key {
                self.replace(key, &terms);
            }
        }
    }

    /// Removes the terms of the connection in this key's arena slot, whichever it is.
    fn vacate(&mut self, key: ConnKey) {
        let mut at = self.heads.take(key);
        while let Some(node) = self.nodes.remove(at) {
            self.unlink(node);
            at = node.next_of_conn;
        }
    }

    /// Adds a node to the front of the lists of its term and its connection.
    fn subscribe(&mut self, key: ConnKey, digest: Digest, next_of_conn: u32) -> u32 {
        let term = self.intern(digest);
        let next_of_term = self.terms.get(term).map_or(NONE, |term| term.head);
        let at = self.nodes.insert(Node {
            key,
            term,
            next_of_conn,
            next_of_term,
            prev_of_term: NONE,
        });
        if let Some(next) = self.nodes.get_mut(next_of_term) {
            next.prev_of_term = at;
        }
        if let Some(term) = self.terms.get_mut(term) {
            term.head = at;
        }
        at
    }

    /// Returns the index of a term.
    fn find(&self, digest: Digest) -> Option<u32> {
        let is_same = |&slot: &u32| {
            let term = self.terms.get(slot);
            term.is_some_and(|term| term.digest == digest)
        };
        self.table.find(digest.table_hash(), is_same).copied()
    }

    /// Returns whether this connection is the only one with the term.
    fn is_only_of(&self, term: u32, key: ConnKey) -> bool {
        let head = self.terms.get(term).map_or(NONE, |term| term.head);
        let node = self.nodes.get(head);
        node.is_some_and(|node| node.key == key && node.next_of_term == NONE)
    }

    fn intern(&mut self, digest: Digest) -> u32 {
        let terms = &self.terms;
        let entry = self.table.entry(
            digest.table_hash(),
            |&slot| terms.get(slot).is_some_and(|term| term.digest == digest),
            |&slot| terms.get(slot).map_or(0, |term| term.digest.table_hash()),
        );
        match entry {
            Entry::Occupied(entry) => *entry.get(),
            Entry::Vacant(entry) => {
                let slot = self.terms.insert(Term { digest, head: NONE });
                entry.insert(slot);
                slot
            }
        }
    }

    /// Unlinks a node, which has been removed from its slot, from its term's list. Removes the term
    /// if it has no other node.
    fn unlink(&mut self, node: Node) {
        if let Some(next) = self.nodes.get_mut(node.next_of_term) {
            next.prev_of_term = node.prev_of_term;
        }
        if let Some(prev) = self.nodes.get_mut(node.prev_of_term) {
            prev.next_of_term = node.next_of_term;
            return;
        }
        let Some(term) = self.terms.get_mut(node.term) else {
            return;
        };
        term.head = node.next_of_term;
        if term.head == NONE {
            let bucket = term.digest.table_hash();
            self.terms.remove(node.term);
            if let Ok(entry) = self.table.find_entry(bucket, |&slot| slot == node.term) {
                entry.remove();
            }
        }
    }
}

/// The bytes of a subscription: its node, and the entry in the list of vacant slots once it is
/// removed.
const NODE_BYTES: usize = size_of::<Node>() + size_of::<u32>();
/// The bytes of a distinct term: likewise, plus its share of a hash table, which has an index and a
/// control byte for each slot, and up to 2 × 8/7 times as many slots as entries.
const TERM_BYTES: usize = size_of::<Term>() + size_of::<u32>() + 12;

impl Default for Node {
    fn default() -> Self {
        Node {
            key: ConnKey::new(NONE, 0),
            term: NONE,
            next_of_conn: NONE,
            next_of_term: NONE,
            prev_of_term: NONE,
        }
    }
}

impl Default for Term {
    fn default() -> Self {
        Term {
            digest: Digest::default(),
            head: NONE,
        }
    }
}

mod verify;

#[cfg(test)]
mod tests;
