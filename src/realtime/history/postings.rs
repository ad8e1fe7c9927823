//! The positions of the history's entries by term.
//!
//! Owns: a sorted list of positions for each term. Must not know: the entries.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use crate::realtime::digest::{Digest, DigestHasher};

/// Positions by term.
#[derive(Default)]
pub(super) struct Postings {
    lists: HashMap<Digest, Positions, DigestHasher>,
}

/// The positions of a term, in increasing order. Most terms have only one.
enum Positions {
    One(u64),
    Many(VecDeque<u64>),
}

impl Postings {
    /// Adds a position to a term's list. It must be greater than all positions in the list.
    pub(super) fn push(&mut self, term: Digest, position: u64) {
        match self.lists.entry(term) {
            std::collections::hash_map::Entry::Vacant(entry) => {
                entry.insert(Positions::One(position));
            }
            std::collections::hash_map::Entry::Occupied(mut entry) => {
                let list = entry.get_mut();
                match list {
                    Positions::One(first) => *list = Positions::Many([*first, position].into()),
                    Positions::Many(many) => many.push_back(position),
                }
            }
        }
    }

    /// Removes a position from a term's list.
    pub(super) fn remove(&mut self, term: Digest, position: u64) {
        let Some(list) = self.lists.get_mut(&term) else {
            return;
        };
        let is_empty = match list {
            Positions::One(one) => {
                if *one != position {
                    return;
                }
                true
            }
            Positions::Many(many) => {
                let Ok(at) = many.binary_search(&position) else {
                    return;
                };
                many.remove(at);
                if many.len() * 4 < many.capacity() {
                    many.shrink_to(many.len() * 2);
                }
                many.is_empty()
            }
        };
        if is_empty {
            self.lists.remove(&term);
        }
    }

    /// Appends the positions of a term after `after`, at most `limit` of them, in order.
    pub(super) fn after(&self, term: Digest, after: u64, limit: usize, out: &mut Vec<u64>) {
        match self.lists.get(&term) {
            None => {}
            Some(Positions::One(one)) => out.extend(Some(*one).filter(|one| *one > after)),
            Some(Positions::Many(many)) => {
                let start = many.partition_point(|position| *position <= after);
                out.extend(many.range(start..).take(limit));
            }
        }
    }

    /// Returns the positions of each term, for tests and simulations only.
    pub(super) fn to_map(&self) -> BTreeMap<Digest, BTreeSet<u64>> {
        let set = |positions: &Positions| match positions {
            Positions::One(one) => BTreeSet::from([*one]),
            Positions::Many(many) => many.iter().copied().collect(),
        };
        let lists = self.lists.iter();
        lists.map(|(term, list)| (*term, set(list))).collect()
    }

    /// Releases unused memory.
    pub(super) fn shrink(&mut self) {
        if self.lists.capacity() > 8 * self.lists.len() + 64 {
            self.lists.shrink_to(2 * self.lists.len());
        }
    }
}
