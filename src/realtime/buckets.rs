//! The buckets of a hash table whose entries are stored elsewhere and linked to each other.
//!
//! Owns: the first entry of each bucket. The number of buckets changes by one at a time (linear
//! hashing): no operation moves more than a few entries, and memory is proportional to the number of
//! entries at any size. A table that doubles would stall the reactor to move a million entries, and
//! leave up to half of its memory unused. Must not know: the content of entries.

use super::slab::{NONE, OptionalIndex, PagedVec};

/// The entries of a hash table, by index.
pub(super) trait Chained {
    /// Returns the hash of an entry.
    fn hash(&self, at: u32) -> u64;

    /// Returns the next entry in the same bucket.
    fn next(&self, at: u32) -> u32;

    /// Sets the next entry in the same bucket.
    fn set_next(&mut self, at: u32, next: u32);
}

/// Buckets of `LOAD` entries on average, or half as many after removals.
#[derive(Default)]
pub(super) struct Buckets<const LOAD: usize> {
    heads: PagedVec<OptionalIndex>,
    /// The bits of a hash that select a bucket: those of the next power of two.
    mask: usize,
    /// The number of entries.
    len: usize,
}

impl<const LOAD: usize> Buckets<LOAD> {
    /// Returns the first entry of the bucket for a hash.
    #[inline]
    pub(super) fn first(&self, hash: u64) -> u32 {
        self.head(self.bucket_of(hash))
    }

    /// Adds an entry.
    pub(super) fn insert(&mut self, at: u32, entries: &mut impl Chained) {
        self.len += 1;
        if self.heads.len() * LOAD < self.len {
            self.split(entries);
        }
        self.push(self.bucket_of(entries.hash(at)), at, entries);
    }

    /// Removes an entry.
    pub(super) fn remove(&mut self, at: u32, entries: &mut impl Chained) {
        let next = entries.next(at);
        if !self.relink(at, next, entries) {
            return;
        }
        self.len -= 1;
        // The number of buckets must decrease faster than that of entries.
        for _ in 0..2 {
            if self.heads.len() * LOAD > 2 * self.len && self.heads.len() > KEPT_BUCKETS {
                self.merge(entries);
            }
        }
    }

    /// Replaces the index of an entry, which has been moved from one index to another with its link.
    pub(super) fn replace(&mut self, from: u32, to: u32, entries: &mut impl Chained) {
        let hash = entries.hash(to);
        self.relink_in(self.bucket_of(hash), from, to, entries);
    }

    /// Returns the number of entries.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Returns the allocated bytes.
    pub(super) fn bytes(&self) -> usize {
        self.heads.bytes()
    }

    /// Returns the bucket for a hash. While the number of buckets is between two powers of two, those
    /// that have not been split yet contain the entries of two.
    #[inline]
    fn bucket_of(&self, hash: u64) -> usize {
        let bucket = hash as usize & self.mask;
        if bucket < self.heads.len() {
            return bucket;
        }
        bucket & (self.mask >> 1)
    }

    fn set_mask(&mut self) {
        self.mask = self.heads.len().next_power_of_two() - 1;
    }

    #[inline]
    fn head(&self, bucket: usize) -> u32 {
        self.heads.get(bucket).map_or(NONE, |head| head.0)
    }

    fn set_head(&mut self, bucket: usize, at: u32) {
        if let Some(head) = self.heads.get_mut(bucket) {
            *head = OptionalIndex(at);
        }
    }

    fn push(&mut self, bucket: usize, at: u32, entries: &mut impl Chained) {
        entries.set_next(at, self.head(bucket));
        self.set_head(bucket, at);
    }

    /// Lets the entry that precedes `at` in its bucket, or the bucket itself, lead to `to`. Returns
    /// false if the entry is not in the table.
    fn relink(&mut self, at: u32, to: u32, entries: &mut impl Chained) -> bool {
        self.relink_in(self.bucket_of(entries.hash(at)), at, to, entries)
    }

    fn relink_in(&mut self, bucket: usize, at: u32, to: u32, entries: &mut impl Chained) -> bool {
        let mut before = self.head(bucket);
        if before == at {
            self.set_head(bucket, to);
            return true;
        }
        while before != NONE {
            let next = entries.next(before);
            if next == at {
                entries.set_next(before, to);
                return true;
            }
            before = next;
        }
        false
    }

    /// Adds a bucket, which gets about half of the entries of another one.
    fn split(&mut self, entries: &mut impl Chained) {
        let new = self.heads.len();
        let from = sibling(new);
        let mut at = self.head(from);
        self.heads.push(OptionalIndex::default());
        self.set_mask();
        self.set_head(from, NONE);
        while at != NONE {
            let next = entries.next(at);
            self.push(self.bucket_of(entries.hash(at)), at, entries);
            at = next;
        }
    }

    /// Removes the last bucket. Its entries return to the bucket from which they were split.
    fn merge(&mut self, entries: &mut impl Chained) {
        let Some(OptionalIndex(mut at)) = self.heads.pop() else {
            return;
        };
        self.set_mask();
        let to = sibling(self.heads.len());
        while at != NONE {
            let next = entries.next(at);
            self.push(to, at, entries);
            at = next;
        }
    }
}

/// Returns the bucket that is split to add a bucket: its number without the highest bit.
fn sibling(bucket: usize) -> usize {
    bucket & ((bucket + 1).next_power_of_two() / 2).saturating_sub(1)
}

/// The number of buckets that are kept, so that the visits of a few clients split and merge none.
const KEPT_BUCKETS: usize = 16;

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::realtime::testing::Random;

    /// Entries with a hash and a link.
    #[derive(Default)]
    struct Entries(BTreeMap<u32, (u64, u32)>);

    impl Chained for Entries {
        fn hash(&self, at: u32) -> u64 {
            self.0[&at].0
        }

        fn next(&self, at: u32) -> u32 {
            self.0[&at].1
        }

        fn set_next(&mut self, at: u32, next: u32) {
            self.0.get_mut(&at).unwrap().1 = next;
        }
    }

    /// Returns the entries in the bucket for a hash.
    fn bucket(buckets: &Buckets<2>, entries: &Entries, hash: u64) -> Vec<u32> {
        let first = buckets.first(hash);
        let next = |at: &u32| Some(entries.next(*at)).filter(|at| *at != NONE);
        std::iter::successors(Some(first).filter(|at| *at != NONE), next).collect()
    }

    #[test]
    fn entries_are_found_while_buckets_are_split_and_merged() {
        let (mut buckets, mut entries) = (Buckets::<2>::default(), Entries::default());
        let mut random = Random(5);
        for round in 0..6000 {
            // Grows first, and then shrinks.
            let at = random.below(1000) as u32;
            let is_present = entries.0.contains_key(&at);
            if !is_present && (round < 3000 || random.below(8) == 0) {
                // Some hashes are equal.
                entries
                    .0
                    .insert(at, (random.below(700) * 0x9E37_79B9, NONE));
                buckets.insert(at, &mut entries);
            } else if is_present && round >= 2000 {
                buckets.remove(at, &mut entries);
                entries.0.remove(&at);
            }
            assert_eq!(buckets.len(), entries.0.len());
            let count = buckets.heads.len();
            assert!(count * 2 >= entries.0.len(), "too few buckets");
            let most = entries.0.len().max(KEPT_BUCKETS) + 1;
            assert!(count <= most, "{count} buckets are too many");
            if round % 50 == 0 {
                for (at, (hash, _)) in &entries.0 {
                    assert!(bucket(&buckets, &entries, *hash).contains(at), "{round}");
                }
                let all = (0..count).flat_map(|at| bucket(&buckets, &entries, at as u64));
                assert_eq!(all.count(), entries.0.len());
            }
        }
    }

    #[test]
    fn moved_entry_is_found_at_its_new_index() {
        let (mut buckets, mut entries) = (Buckets::<2>::default(), Entries::default());
        for at in 0..6 {
            entries.0.insert(at, (u64::from(at % 2), NONE));
            buckets.insert(at, &mut entries);
        }
        for from in 0..6 {
            let entry = entries.0.remove(&from).unwrap();
            entries.0.insert(from + 100, entry);
            buckets.replace(from, from + 100, &mut entries);
        }
        let mut found = bucket(&buckets, &entries, 0);
        found.extend(bucket(&buckets, &entries, 1));
        found.sort_unstable();
        assert_eq!(found, (100..106).collect::<Vec<_>>());
    }
}
