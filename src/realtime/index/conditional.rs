//! The conditional filters of connections, found by their anchors.
//!
//! Owns: a table of anchors like that of terms, and the matcher of each filter. An anchor leads to its
//! filter, which decides on the event. Connections with other filters take no memory here.

use std::collections::BTreeSet;
use std::rc::Rc;

use crate::net::ConnKey;
use crate::realtime::buckets::{Buckets, Chained};
use crate::realtime::digest::Digest;
use crate::realtime::filter::{Conditional, Matcher};
use crate::realtime::group_table::{GroupTable, Links, Member};
use crate::realtime::slab::{NONE, Slab};

/// Conditional filters by anchor and by connection.
#[derive(Default)]
pub(in crate::realtime) struct ConditionalFilters {
    anchors: GroupTable<Digest, Anchor>,
    filters: Slab<Option<Installed>>,
    /// The filters, by the connection's slot in the engine's arena.
    by_slot: Buckets<1>,
    /// A slot above those of all connections with a filter.
    end: usize,
    /// The number of filters that may match annotations without any of their terms.
    with_patterns: usize,
    /// The sum of [`Matcher::footprint`].
    matcher_bytes: usize,
}

/// The filter of a connection.
struct Installed {
    key: ConnKey,
    matcher: Rc<Matcher>,
    /// The first anchor.
    head: u32,
    /// The next filter in the same bucket.
    next_in_bucket: u32,
}

/// An anchor of a filter.
#[derive(Clone, Copy)]
struct Anchor {
    /// The index of the filter.
    filter: u32,
    next_of_filter: u32,
    links: Links,
}

impl ConditionalFilters {
    /// Sets the filter of a connection, which must have none.
    pub(super) fn insert(&mut self, key: ConnKey, conditional: &Conditional) {
        let matcher = &conditional.matcher;
        self.matcher_bytes += matcher.footprint();
        self.with_patterns += usize::from(matcher.terms().is_none());
        let filter = self.filters.insert(Some(Installed {
            key,
            matcher: Rc::clone(matcher),
            head: NONE,
            next_in_bucket: NONE,
        }));
        self.by_slot.insert(filter, &mut self.filters);
        self.end = self.end.max(key.slot() as usize + 1);
        let mut head = NONE;
        for &digest in &conditional.anchors {
            let anchor = Anchor {
                filter,
                next_of_filter: head,
                links: Links::default(),
            };
            (_, head) = self.anchors.insert(digest, anchor);
        }
        if let Some(Some(installed)) = self.filters.get_mut(filter) {
            installed.head = head;
        }
    }

    /// Removes the filter of the connection in a slot, if it has one.
    pub(super) fn remove(&mut self, slot: u32) {
        if self.filters.len() == 0 {
            return;
        }
        let Some(filter) = self.find(slot) else {
            return;
        };
        self.by_slot.remove(filter, &mut self.filters);
        let Some(installed) = self.filters.remove(filter).flatten() else {
            return;
        };
        if self.filters.len() == 0 {
            self.end = 0;
        }
        self.matcher_bytes -= installed.matcher.footprint();
        self.with_patterns -= usize::from(installed.matcher.terms().is_none());
        let mut at = installed.head;
        while let Some(anchor) = self.anchors.remove(at) {
            at = anchor.next_of_filter;
        }
    }

    /// Appends the indices of the filters with an anchor to `out`.
    pub(super) fn collect(&self, digest: Digest, out: &mut Vec<u32>) {
        let found = self
            .anchors
            .find(digest.table_hash(), |anchor| *anchor == digest);
        if let Some(group) = found {
            out.extend(self.anchors.members_of(group).map(|anchor| anchor.filter));
        }
    }

    /// Returns a filter and its connection.
    pub(super) fn get(&self, filter: u32) -> Option<(ConnKey, &Matcher)> {
        let installed = self.filters.get(filter)?.as_ref()?;
        Some((installed.key, &installed.matcher))
    }

    /// Returns the connection with a filter in a slot, and its filter.
    pub(super) fn in_slot(&self, slot: u32) -> Option<(ConnKey, &Rc<Matcher>)> {
        let installed = self.filters.get(self.find(slot)?)?.as_ref()?;
        Some((installed.key, &installed.matcher))
    }

    /// Returns the connections with a filter.
    pub(super) fn connections(&self) -> impl Iterator<Item = ConnKey> {
        let filters = self.filters.slots().flatten();
        filters.map(|installed| installed.key)
    }

    /// Returns a slot above those of all connections with a filter.
    pub(super) fn end(&self) -> usize {
        self.end
    }

    /// Returns the number of filters.
    pub(super) fn len(&self) -> usize {
        self.filters.len()
    }

    /// Returns whether any filter may match annotations without any of its terms.
    pub(super) fn has_patterns(&self) -> bool {
        self.with_patterns > 0
    }

    /// Returns the numbers of anchors, and of distinct ones.
    pub(super) fn anchors(&self) -> (usize, usize) {
        (self.anchors.len(), self.anchors.group_count())
    }

    /// Returns the size of all filters in bytes.
    pub(super) fn footprint(&self) -> usize {
        self.anchors.len() * ANCHOR_BYTES
            + self.anchors.group_count() * DISTINCT_BYTES
            + self.len() * FILTER_BYTES
            + self.matcher_bytes
    }

    /// Returns the footprint after the filter of the connection in this key's slot has been replaced.
    pub(super) fn footprint_with(&self, key: ConnKey, new: Option<&Conditional>) -> usize {
        let (mut anchors, mut distinct) = self.anchors();
        let mut rest = self.len() * FILTER_BYTES + self.matcher_bytes;
        let own = self.find(key.slot());
        let mut freed = BTreeSet::new();
        if let Some(Some(installed)) = own.and_then(|at| self.filters.get(at)) {
            rest -= FILTER_BYTES + installed.matcher.footprint();
            for anchor in self.anchors_of(installed) {
                anchors -= 1;
                let group = self.anchors.group_of(anchor);
                if self.anchors.only_member(group).is_some() {
                    distinct -= 1;
                    freed.insert(group);
                }
            }
        }
        if let Some(new) = new {
            rest += FILTER_BYTES + new.matcher.footprint();
            anchors += new.anchors.len();
            let is_new = |digest: &&Digest| {
                let group = self.anchors.find(digest.table_hash(), |it| it == *digest);
                group.is_none_or(|group| freed.contains(&group))
            };
            distinct += new.anchors.iter().filter(is_new).count();
        }
        anchors * ANCHOR_BYTES + distinct * DISTINCT_BYTES + rest
    }

    /// Returns an upper bound of the bytes that a further filter takes.
    pub(in crate::realtime) fn bytes_of(new: &Conditional) -> usize {
        let anchors = new.anchors.len() * (ANCHOR_BYTES + DISTINCT_BYTES);
        FILTER_BYTES + anchors + new.matcher.footprint()
    }

    /// Returns the allocated bytes.
    pub(super) fn bytes(&self) -> usize {
        self.anchors.bytes() + self.filters.bytes() + self.by_slot.bytes() + self.matcher_bytes
    }

    /// Releases unused memory after many filters have been removed. The work is subtracted from
    /// `budget`.
    pub(super) fn shrink(&mut self, budget: &mut usize) {
        if self.filters.is_sparse() {
            self.filters.begin_shrinking();
        }
        while let Some((from, to)) = self.filters.next_move(budget) {
            self.by_slot.replace(from, to, &mut self.filters);
            let Some(Some(installed)) = self.filters.get(to) else {
                return;
            };
            let mut at = installed.head;
            while let Some(anchor) = self.anchors.member_mut(at) {
                *budget = budget.saturating_sub(1);
                anchor.filter = to;
                at = anchor.next_of_filter;
            }
            debug_assert!(from > to, "filters move to lower indices");
        }
        while let Some((from, to)) = self.anchors.next_move(budget) {
            let filter = self.anchors.member(to).map_or(NONE, |anchor| anchor.filter);
            let Some(Some(installed)) = self.filters.get_mut(filter) else {
                return;
            };
            let mut at = installed.head;
            if at == from {
                installed.head = to;
            }
            while let Some(anchor) = self.anchors.member_mut(at) {
                *budget = budget.saturating_sub(1);
                at = anchor.next_of_filter;
                if at == from {
                    anchor.next_of_filter = to;
                    break;
                }
            }
        }
    }

    /// Walks every list, for tests and simulations only. Returns an error if they are inconsistent.
    pub(super) fn verify(&self) -> Result<(), String> {
        self.anchors.verify()?;
        let (mut anchors, mut bytes, mut with_patterns) = (0, 0, 0);
        for (at, installed) in (0..).zip(self.filters.slots()) {
            let Some(installed) = installed else {
                continue;
            };
            let slot = installed.key.slot();
            if self.find(slot) != Some(at) || slot as usize >= self.end {
                return Err(format!("{:?} is not found by its slot", installed.key));
            }
            bytes += installed.matcher.footprint();
            with_patterns += usize::from(installed.matcher.terms().is_none());
            for anchor in self.anchors_of(installed) {
                anchors += 1;
                if anchor.filter != at {
                    return Err(format!(
                        "an anchor of {} is in the list of {at}",
                        anchor.filter
                    ));
                }
            }
        }
        let counts = (anchors, bytes, with_patterns, self.by_slot.len());
        let stored = (
            self.anchors.len(),
            self.matcher_bytes,
            self.with_patterns,
            self.len(),
        );
        match counts == stored {
            true => Ok(()),
            false => Err(format!("conditional filters: {stored:?} of {counts:?}")),
        }
    }

    /// Returns the index of the filter of the connection in a slot.
    fn find(&self, slot: u32) -> Option<u32> {
        let mut at = self.by_slot.first(slot_hash(slot));
        while let Some(Some(installed)) = self.filters.get(at) {
            if installed.key.slot() == slot {
                return Some(at);
            }
            at = installed.next_in_bucket;
        }
        None
    }

    fn anchors_of(&self, installed: &Installed) -> impl Iterator<Item = &Anchor> {
        let first = self.anchors.member(installed.head);
        std::iter::successors(first, |anchor| self.anchors.member(anchor.next_of_filter))
    }
}

impl Chained for Slab<Option<Installed>> {
    fn hash(&self, at: u32) -> u64 {
        let installed = self.get(at).and_then(Option::as_ref);
        installed.map_or(0, |installed| slot_hash(installed.key.slot()))
    }

    fn next(&self, at: u32) -> u32 {
        let installed = self.get(at).and_then(Option::as_ref);
        installed.map_or(NONE, |installed| installed.next_in_bucket)
    }

    fn set_next(&mut self, at: u32, next: u32) {
        if let Some(Some(installed)) = self.get_mut(at) {
            installed.next_in_bucket = next;
        }
    }
}

/// Returns a hash of which any bits differ, even if only every hundredth connection has a filter.
fn slot_hash(slot: u32) -> u64 {
    u64::from(slot).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32
}

impl Member for Anchor {
    fn links(&self) -> &Links {
        &self.links
    }

    fn links_mut(&mut self) -> &mut Links {
        &mut self.links
    }
}

impl Default for Anchor {
    fn default() -> Self {
        Anchor {
            filter: NONE,
            next_of_filter: NONE,
            links: Links::default(),
        }
    }
}

const ANCHOR_BYTES: usize = GroupTable::<Digest, Anchor>::MEMBER_BYTES;
const DISTINCT_BYTES: usize = GroupTable::<Digest, Anchor>::GROUP_BYTES;
/// The bytes of a filter without its matcher and its anchors: its slot, its bit among the vacant
/// slots, and its share of the buckets by slot, of which there are up to twice as many as filters.
const FILTER_BYTES: usize = size_of::<Option<Installed>>() + 1 + 2 * size_of::<u32>();
const _: () = assert!(FILTER_BYTES <= 33);
