//! An inverted index from terms to connections: an event costs its matches, regardless of the
//! number of connections.
//!
//! Owns: the subscriptions of all connections. Must not know: the meaning of terms, or anything
//! about a connection except its key.
//!
//! A subscription is a member of two lists: the doubly linked list of its term in a [`GroupTable`],
//! and the list of its connection. A connection with a single, unique term costs a subscription, a
//! term, its share of a hash table, and four bytes: about 70 bytes in total.

use crate::net::ConnKey;

use super::digest::Digest;
use super::group_table::{Group, GroupTable, Links, Member};
use super::slab::{ConnMap, NONE};

/// The inverted index.
#[derive(Default)]
pub struct Index {
    /// The first subscription of each connection.
    heads: ConnMap,
    /// The subscriptions, grouped by term.
    table: GroupTable<Digest, Subscription>,
}

/// A term of a connection's filter.
#[derive(Clone, Copy)]
struct Subscription {
    key: ConnKey,
    /// The next subscription of the connection.
    next_of_conn: u32,
    links: Links,
}

impl Index {
    /// Replaces the terms of a connection. `terms` must be distinct.
    pub fn replace(&mut self, key: ConnKey, terms: &[Digest]) {
        self.clear(key);
        let mut head = NONE;
        for &digest in terms {
            let subscription = Subscription {
                key,
                next_of_conn: head,
                links: Links::default(),
            };
            (_, head) = self.table.insert(digest, subscription);
        }
        if head != NONE {
            self.heads.set(key, head);
        }
    }

    /// Returns whether [`Index::replace`] with these arguments leaves the footprint at `total`
    /// bytes or less, or does not increase it.
    pub fn has_room(&self, key: ConnKey, terms: &[Digest], total: usize) -> bool {
        let before = self.footprint();
        // An upper bound, which is nearly always sufficient.
        if before + terms.len() * (SUBSCRIPTION_BYTES + TERM_BYTES) <= total {
            return true;
        }
        let after = self.footprint_with(key, terms);
        after <= total || after <= before
    }

    /// Returns the footprint after [`Index::replace`] with the same arguments.
    fn footprint_with(&self, key: ConnKey, terms: &[Digest]) -> usize {
        let (mut subscriptions, mut distinct) = (self.subscriptions(), self.terms());
        for subscription in self.filter(self.heads.get(key)) {
            subscriptions -= 1;
            let term = subscription.links.group();
            distinct -= usize::from(self.is_only_of(term, subscription.key));
        }
        subscriptions += terms.len();
        let is_new = |digest: &&Digest| {
            let term = self.find(**digest);
            term.is_none_or(|term| self.is_only_of(term, key))
        };
        distinct += terms.iter().filter(is_new).count();
        subscriptions * SUBSCRIPTION_BYTES + distinct * TERM_BYTES
    }

    /// Removes all terms of a connection.
    pub fn remove(&mut self, key: ConnKey) {
        let head = self.table.member(self.heads.get(key));
        if head.is_some_and(|head| head.key == key) {
            self.clear(key);
        }
    }

    /// Appends the connections with this term to `out`.
    pub fn collect(&self, digest: Digest, out: &mut Vec<ConnKey>) {
        if let Some(term) = self.find(digest) {
            out.extend(self.table.members_of(term).map(|member| member.key));
        }
    }

    /// Returns the terms of a connection.
    pub fn terms_of(&self, key: ConnKey) -> Vec<Digest> {
        let own = self.filter(self.heads.get(key));
        own.filter(|subscription| subscription.key == key)
            .filter_map(|subscription| self.table.group(subscription.links.group()))
            .copied()
            .collect()
    }

    /// Returns the connection in a slot, if it has a term.
    pub fn in_slot(&self, slot: u32) -> Option<ConnKey> {
        let head = self.heads.get(ConnKey::new(slot, 0));
        self.table.member(head).map(|subscription| subscription.key)
    }

    /// Returns the connections that have a term.
    pub fn connections(&self) -> impl Iterator<Item = ConnKey> {
        let heads = self.heads.iter();
        heads.filter_map(|head| self.table.member(head).map(|member| member.key))
    }

    /// Returns the number of subscriptions: the sum of the terms of all connections.
    pub fn subscriptions(&self) -> usize {
        self.table.len()
    }

    /// Returns the number of distinct terms.
    pub fn terms(&self) -> usize {
        self.table.group_count()
    }

    /// Returns the size of all subscriptions in bytes. It depends only on the current
    /// subscriptions, and not on their history or on allocations.
    pub fn footprint(&self) -> usize {
        self.subscriptions() * SUBSCRIPTION_BYTES + self.terms() * TERM_BYTES
    }

    /// Returns the allocated bytes.
    pub fn bytes(&self) -> usize {
        self.heads.bytes() + self.table.bytes()
    }

    /// Releases unused memory after many subscriptions have been removed. The cost is proportional
    /// to the remaining subscriptions, which are fewer than those removed since the last call.
    pub fn shrink(&mut self) {
        if !self.table.is_sparse() {
            return;
        }
        let old = std::mem::take(self);
        let mut terms = Vec::new();
        for head in old.heads.iter() {
            terms.clear();
            let mut key = None;
            for subscription in old.filter(head) {
                key = Some(subscription.key);
                terms.extend(old.table.group(subscription.links.group()));
            }
            if let Some(key) = key {
                self.replace(key, &terms);
            }
        }
    }

    /// Removes the terms of the connection in this key's arena slot, whichever it is.
    fn clear(&mut self, key: ConnKey) {
        let mut at = self.heads.take(key);
        while let Some(subscription) = self.table.remove(at) {
            at = subscription.next_of_conn;
        }
    }

    /// Returns the subscriptions of a connection from the first one.
    fn filter(&self, head: u32) -> impl Iterator<Item = &Subscription> {
        let first = self.table.member(head);
        std::iter::successors(first, |subscription| {
            self.table.member(subscription.next_of_conn)
        })
    }

    /// Returns the index of a term.
    fn find(&self, digest: Digest) -> Option<u32> {
        self.table.find(digest.table_hash(), |term| *term == digest)
    }

    /// Returns whether this connection is the only one with the term.
    fn is_only_of(&self, term: u32, key: ConnKey) -> bool {
        let subscription = self.table.only_member(term);
        subscription.is_some_and(|subscription| subscription.key == key)
    }
}

impl Group for Digest {
    fn table_hash(&self) -> u64 {
        Digest::table_hash(*self)
    }

    fn has_same_key(&self, other: &Self) -> bool {
        self == other
    }
}

impl Member for Subscription {
    fn links(&self) -> &Links {
        &self.links
    }

    fn links_mut(&mut self) -> &mut Links {
        &mut self.links
    }
}

impl Default for Subscription {
    fn default() -> Self {
        Subscription {
            key: ConnKey::new(NONE, 0),
            next_of_conn: NONE,
            links: Links::default(),
        }
    }
}

const SUBSCRIPTION_BYTES: usize = GroupTable::<Digest, Subscription>::MEMBER_BYTES;
const TERM_BYTES: usize = GroupTable::<Digest, Subscription>::GROUP_BYTES;
// Every subscription and every distinct term takes this much memory.
const _: () = assert!(SUBSCRIPTION_BYTES <= 28 && TERM_BYTES <= 40);

mod verify;

#[cfg(test)]
mod tests;
