//! Who asked for what: from terms to connections, so that an event costs its matches, not the
//! number of connections.
//!
//! Owns: the subscriptions of all connections. Must not know what terms stand for, or what a
//! connection is besides its key.
//!
//! A subscription is one small node in two lists: that of its term, linked both ways, and that
//! of its connection. So it is taken out in constant time, whatever the number of others that
//! want the same, and a connection with one term of its own costs a node, a term, its share of
//! a hash table and four bytes: about 70 in all.

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

use crate::net::ConnKey;

use super::slab::{ByConn, NONE, Slab};
use super::term::Digest;

/// The inverted index.
#[derive(Default)]
pub struct Index {
    /// The first node of each connection.
    heads: ByConn,
    nodes: Slab<Node>,
    terms: Slab<Term>,
    /// Places in `terms`, by digest.
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
    /// The first node; [`NONE`] only while the place is vacant.
    head: u32,
}

impl Index {
    /// Gives a connection new terms instead of those it had. They must be distinct.
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

    /// Takes out all terms of a connection.
    pub fn remove(&mut self, key: ConnKey) {
        let head = self.nodes.get(self.heads.get(key));
        if head.is_some_and(|head| head.key == key) {
            self.vacate(key);
        }
    }

    /// Adds the connections with this term to `out`.
    pub fn collect(&self, digest: Digest, out: &mut Vec<ConnKey>) {
        let place = self.table.find(digest.bucket(), |&place| {
            self.terms
                .get(place)
                .is_some_and(|term| term.digest == digest)
        });
        let term = place.and_then(|&place| self.terms.get(place));
        let mut at = term.map_or(NONE, |term| term.head);
        while let Some(node) = self.nodes.get(at) {
            out.push(node.key);
            at = node.next_of_term;
        }
    }

    /// Subscriptions that exist: connections times their terms.
    pub fn subscriptions(&self) -> usize {
        self.nodes.len()
    }

    /// Distinct terms that somebody asks for.
    pub fn terms(&self) -> usize {
        self.terms.len()
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        self.heads.bytes() + self.nodes.bytes() + self.terms.bytes() + self.table.allocation_size()
    }

    /// Gives back the memory of a crowd that has left. Costs the subscriptions that are still
    /// there, which are fewer than those that have gone since it was last done.
    pub fn tidy(&mut self) {
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

    /// Takes out the terms of whatever connection had this key's place in the arena.
    fn vacate(&mut self, key: ConnKey) {
        let mut at = self.heads.take(key);
        while let Some(node) = self.nodes.remove(at) {
            self.unlink(node);
            at = node.next_of_conn;
        }
    }

    /// Adds one node in front of its term's list and of its connection's.
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

    fn intern(&mut self, digest: Digest) -> u32 {
        let terms = &self.terms;
        let entry = self.table.entry(
            digest.bucket(),
            |&place| terms.get(place).is_some_and(|term| term.digest == digest),
            |&place| terms.get(place).map_or(0, |term| term.digest.bucket()),
        );
        match entry {
            Entry::Occupied(entry) => *entry.get(),
            Entry::Vacant(entry) => {
                let place = self.terms.insert(Term { digest, head: NONE });
                entry.insert(place);
                place
            }
        }
    }

    /// Takes a node, which is no longer in its place, out of its term's list; and the term
    /// with it when it was the last.
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
            let bucket = term.digest.bucket();
            self.terms.remove(node.term);
            if let Ok(entry) = self.table.find_entry(bucket, |&place| place == node.term) {
                entry.remove();
            }
        }
    }
}

impl Default for Node {
    fn default() -> Self {
        Node {
            key: ConnKey {
                index: NONE,
                generation: 0,
            },
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
