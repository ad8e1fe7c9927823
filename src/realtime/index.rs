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

    /// Whether the subscriptions will count for at most `total` bytes when [`Index::replace`] has
    /// given the connection these terms, or at least not for more than before.
    pub fn has_room(&self, key: ConnKey, terms: &[Digest], total: usize) -> bool {
        let now = self.footprint();
        // Nearly always this is enough to know.
        if now + terms.len() * (NODE_BYTES + TERM_BYTES) <= total {
            return true;
        }
        let then = self.footprint_with(key, terms);
        then <= total || then <= now
    }

    /// The footprint after [`Index::replace`] with the same arguments.
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

    /// Takes out all terms of a connection.
    pub fn remove(&mut self, key: ConnKey) {
        let head = self.nodes.get(self.heads.get(key));
        if head.is_some_and(|head| head.key == key) {
            self.vacate(key);
        }
    }

    /// Adds the connections with this term to `out`.
    pub fn collect(&self, digest: Digest, out: &mut Vec<ConnKey>) {
        let term = self.find(digest).and_then(|term| self.terms.get(term));
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

    /// Bytes that the subscriptions count for, independent of allocations: it follows from
    /// the current subscriptions alone, and not from their history.
    pub fn footprint(&self) -> usize {
        self.nodes.len() * NODE_BYTES + self.terms.len() * TERM_BYTES
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

    /// The place of a term.
    fn find(&self, digest: Digest) -> Option<u32> {
        let is_it = |&place: &u32| {
            let term = self.terms.get(place);
            term.is_some_and(|term| term.digest == digest)
        };
        self.table.find(digest.bucket(), is_it).copied()
    }

    /// Whether only this connection has the term.
    fn is_only_of(&self, term: u32, key: ConnKey) -> bool {
        let head = self.terms.get(term).map_or(NONE, |term| term.head);
        let node = self.nodes.get(head);
        node.is_some_and(|node| node.key == key && node.next_of_term == NONE)
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

/// The bytes of a subscription: its node, and the number of its place once that is vacant.
const NODE_BYTES: usize = size_of::<Node>() + size_of::<u32>();
/// The bytes of a distinct term: the same, and its share of a hash table, which has a number and
/// a control byte for each place and is up to eight sevenths times two as large as its contents.
const TERM_BYTES: usize = size_of::<Term>() + size_of::<u32>() + 12;

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
