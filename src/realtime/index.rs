//! An inverted index from terms to connections: an event costs its matches, regardless of the
//! number of connections.
//!
//! Owns: the subscriptions of all connections. Must not know: the meaning of terms, or anything
//! about a connection except its key.
//!
//! A subscription is a member of two lists: the doubly linked list of its term in a [`GroupTable`],
//! and the list of its connection. A connection with a single, unique term costs a subscription, a
//! term, its share of the buckets, and four bytes: 56 bytes in total, regardless of the number of
//! connections. Conditional filters are in a table of their own.

use std::rc::Rc;

use crate::net::ConnKey;

pub(super) use conditional::ConditionalFilters;

use super::digest::Digest;
use super::filter::{Filter, Matcher};
use super::group_table::{Group, GroupTable, Links, Member};
use super::slab::{ConnMap, NONE};

/// The inverted index.
#[derive(Default)]
pub struct Index {
    /// The first subscription of each connection.
    heads: ConnMap,
    /// The subscriptions, grouped by term.
    table: GroupTable<Digest, Subscription>,
    conditional: ConditionalFilters,
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
    /// Replaces the filter of a connection.
    pub fn set(&mut self, key: ConnKey, filter: &Filter) {
        match filter {
            Filter::Terms(terms) => self.replace(key, terms),
            Filter::Conditional(conditional) => {
                self.clear(key);
                self.conditional.insert(key, conditional);
            }
        }
    }

    /// Replaces the terms of a connection. `terms` must be distinct.
    pub fn replace(&mut self, key: ConnKey, terms: &[Digest]) {
        self.conditional.remove(key.slot());
        self.remove_terms(self.heads.get(key));
        let mut head = NONE;
        for &digest in terms {
            let subscription = Subscription {
                key,
                next_of_conn: head,
                links: Links::default(),
            };
            (_, head) = self.table.insert(digest, subscription);
        }
        self.heads.set(key, head);
    }

    /// Returns whether [`Index::set`] with these arguments leaves the footprint at `total` bytes or
    /// less, or does not increase it.
    pub fn has_room(&self, key: ConnKey, filter: &Filter, total: usize) -> bool {
        let before = self.footprint();
        // An upper bound, which is nearly always sufficient.
        let size = match filter {
            Filter::Terms(terms) => terms.len() * (SUBSCRIPTION_BYTES + TERM_BYTES),
            Filter::Conditional(conditional) => ConditionalFilters::bytes_of(conditional),
        };
        if before + size <= total {
            return true;
        }
        let after = self.footprint_with(key, filter);
        after <= total || after <= before
    }

    /// Returns the footprint after [`Index::set`] with the same arguments.
    fn footprint_with(&self, key: ConnKey, filter: &Filter) -> usize {
        let (terms, conditional) = match filter {
            Filter::Terms(terms) => (&terms[..], None),
            Filter::Conditional(conditional) => (&[][..], Some(&**conditional)),
        };
        let (mut subscriptions, mut distinct) = (self.table.len(), self.table.group_count());
        for subscription in self.filter(self.heads.get(key)) {
            subscriptions -= 1;
            let term = self.table.group_of(subscription);
            distinct -= usize::from(self.is_only_of(term, subscription.key));
        }
        subscriptions += terms.len();
        let is_new = |digest: &&Digest| {
            let term = self.find(**digest);
            term.is_none_or(|term| self.is_only_of(term, key))
        };
        distinct += terms.iter().filter(is_new).count();
        subscriptions * SUBSCRIPTION_BYTES
            + distinct * TERM_BYTES
            + self.conditional.footprint_with(key, conditional)
    }

    /// Removes the filter of a connection.
    pub fn remove(&mut self, key: ConnKey) {
        if self.in_slot(key.slot()) == Some(key) {
            self.clear(key);
        }
    }

    /// Appends the connections with this term to `out`, except those with conditional filters.
    #[inline]
    pub fn collect(&self, digest: Digest, out: &mut Vec<ConnKey>) {
        if let Some(term) = self.find(digest) {
            out.extend(self.table.members_of(term).map(|member| member.key));
        }
    }

    /// Appends the conditional filters with this anchor to `out`, for [`Index::conditional`].
    pub fn collect_conditional(&self, digest: Digest, out: &mut Vec<u32>) {
        self.conditional.collect(digest, out);
    }

    /// Returns a conditional filter and its connection.
    pub fn conditional(&self, filter: u32) -> Option<(ConnKey, &Matcher)> {
        self.conditional.get(filter)
    }

    /// Returns the conditional filter of a connection.
    pub fn conditional_of(&self, key: ConnKey) -> Option<&Rc<Matcher>> {
        let (owner, matcher) = self.conditional.in_slot(key.slot())?;
        (owner == key).then_some(matcher)
    }

    /// Returns the number of conditional filters.
    pub fn conditional_count(&self) -> usize {
        self.conditional.len()
    }

    /// Returns whether any filter is found by prefixes of pages.
    pub fn has_patterns(&self) -> bool {
        self.conditional.has_patterns()
    }

    /// Returns the terms of a connection whose filter is not conditional.
    pub fn terms_of(&self, key: ConnKey) -> Vec<Digest> {
        let own = self.filter(self.heads.get(key));
        own.filter(|subscription| subscription.key == key)
            .filter_map(|subscription| self.table.group(self.table.group_of(subscription)))
            .copied()
            .collect()
    }

    /// Returns the connection in a slot, if its filter can match anything.
    pub fn in_slot(&self, slot: u32) -> Option<ConnKey> {
        let head = self.heads.get(ConnKey::new(slot, 0));
        match self.table.member(head) {
            Some(subscription) => Some(subscription.key),
            None if self.conditional.len() == 0 => None,
            None => self.conditional.in_slot(slot).map(|(key, _)| key),
        }
    }

    /// Returns the connections with a filter that can match anything.
    pub fn connections(&self) -> impl Iterator<Item = ConnKey> {
        let heads = self.heads.iter();
        heads
            .filter_map(|head| self.table.member(head).map(|member| member.key))
            .chain(self.conditional.connections())
    }

    /// Returns a slot above those of all connections with a filter that can match anything.
    pub fn end(&self) -> usize {
        self.heads.end().max(self.conditional.end())
    }

    /// Returns the number of subscriptions: the sum of the terms, or anchors, of all connections.
    pub fn subscriptions(&self) -> usize {
        self.table.len() + self.conditional.anchors().0
    }

    /// Returns the number of distinct terms and anchors.
    pub fn terms(&self) -> usize {
        self.table.group_count() + self.conditional.anchors().1
    }

    /// Returns the size of all filters in bytes. It depends only on the current filters, and not on
    /// their history or on allocations.
    pub fn footprint(&self) -> usize {
        self.table.len() * SUBSCRIPTION_BYTES
            + self.table.group_count() * TERM_BYTES
            + self.conditional.footprint()
    }

    /// Returns the allocated bytes.
    pub fn bytes(&self) -> usize {
        self.heads.bytes() + self.table.bytes() + self.conditional.bytes()
    }

    /// Releases unused memory after many subscriptions have been removed. The work is subtracted from
    /// `budget`; some is left if that reaches zero.
    pub fn shrink(&mut self, budget: &mut usize) {
        self.heads.trim();
        self.conditional.shrink(budget);
        while let Some((from, to)) = self.table.next_move(budget) {
            let Some(key) = self.table.member(to).map(|member| member.key) else {
                return;
            };
            let mut at = self.heads.get(key);
            if at == from {
                self.heads.set(key, to);
            }
            while let Some(subscription) = self.table.member_mut(at) {
                *budget = budget.saturating_sub(1);
                at = subscription.next_of_conn;
                if at == from {
                    subscription.next_of_conn = to;
                    break;
                }
            }
        }
    }

    /// Removes the filter of the connection in this key's arena slot, whichever it is.
    fn clear(&mut self, key: ConnKey) {
        self.conditional.remove(key.slot());
        let head = self.heads.take(key);
        self.remove_terms(head);
    }

    /// Removes the subscriptions of a connection from the first one.
    fn remove_terms(&mut self, mut at: u32) {
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
    #[inline]
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
/// The bytes of a term that no other connection has.
pub(super) const BYTES_OF_TERM: usize = SUBSCRIPTION_BYTES + TERM_BYTES;
// Every subscription and every distinct term takes this much memory.
const _: () = assert!(SUBSCRIPTION_BYTES <= 25 && TERM_BYTES <= 33);

mod conditional;
mod verify;

#[cfg(test)]
mod tests;
