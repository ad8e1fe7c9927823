//! A bucket queue that merges the entries of several deliveries for neighboring slots, in slot
//! order.
//!
//! Owns: a FIFO list for each slot of a bucket. Must not know: the content of deliveries.

use super::shrink::{KEPT_CAPACITY, beyond_kept, shrink_target};
use crate::ConnKey;

/// Returns the bucket that contains a slot.
pub(super) fn bucket_of(key: ConnKey) -> u32 {
    key.index / SLOTS as u32
}

/// The entries of one bucket. Push and pop take constant time.
pub(super) struct SlotBucket {
    /// All entries, including those already popped; cleared when the last one is popped.
    links: Vec<Link>,
    chains: [Chain; SLOTS],
    /// One bit per slot, set if its list is not empty.
    occupied: u64,
}

/// A pending frame for one connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct MergeEntry {
    pub key: ConnKey,
    /// The index of the delivery in the batch.
    pub delivery: u32,
    pub variant: u8,
}

struct Link {
    due: MergeEntry,
    next: u32,
}

#[derive(Clone, Copy, Default)]
struct Chain {
    first: u32,
    last: u32,
}

impl Default for SlotBucket {
    fn default() -> Self {
        SlotBucket {
            links: Vec::new(),
            chains: [Chain::default(); SLOTS],
            occupied: 0,
        }
    }
}

impl SlotBucket {
    /// Counts the remaining entries. For tests and simulations only.
    pub(super) fn count(&self) -> usize {
        let taken_up = (0..SLOTS).filter(|slot| self.occupied >> slot & 1 == 1);
        let firsts = taken_up.map(|slot| self.links.get(self.chains[slot].first as usize));
        firsts
            .map(|first| std::iter::successors(first, |link| self.links.get(link.next as usize)))
            .map(Iterator::count)
            .sum()
    }

    /// Shrinks a table that many deliveries have enlarged.
    pub(super) fn shrink(&mut self) {
        if let Some(target) = shrink_target(self.links.len(), self.links.capacity()) {
            self.links.shrink_to(target);
        }
    }

    /// Returns the memory in bytes beyond the capacity that is always kept.
    pub(super) fn memory(&self) -> usize {
        beyond_kept(KEPT_CAPACITY, self.links.capacity()) * size_of::<Link>()
    }

    /// Appends an entry to the list of its slot.
    pub(super) fn push(&mut self, due: MergeEntry) {
        let at = self.links.len() as u32;
        let slot = due.key.index as usize % SLOTS;
        self.links.push(Link { due, next: NONE });
        let bit = 1 << slot;
        let chain = &mut self.chains[slot];
        if self.occupied & bit == 0 {
            self.occupied |= bit;
            chain.first = at;
        } else if let Some(last) = self.links.get_mut(chain.last as usize) {
            last.next = at;
        }
        chain.last = at;
    }

    /// Pops the next entry of the lowest occupied slot. With `Some(key)`, only if the entry is for
    /// `key`.
    pub(super) fn pop(&mut self, key: Option<ConnKey>) -> Option<MergeEntry> {
        if self.occupied == 0 {
            return None;
        }
        let slot = self.occupied.trailing_zeros() as usize;
        let chain = &mut self.chains[slot];
        let link = self.links.get(chain.first as usize)?;
        let due = link.due;
        if key.is_some_and(|key| key != due.key) {
            return None;
        }
        chain.first = link.next;
        if link.next == NONE {
            self.occupied &= self.occupied - 1;
            if self.occupied == 0 {
                self.links.clear();
            }
        }
        Some(due)
    }
}

/// Slots per bucket: one bitmap word.
const SLOTS: usize = 64;
const NONE: u32 = u32::MAX;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_pop_in_order_and_fifo_within_a_slot() {
        let mut bucket = SlotBucket::default();
        // A slot may have been used by two connections in succession.
        let dues = [(130, 1), (128, 1), (191, 2), (130, 1), (130, 3), (128, 1)];
        let dues = dues.map(|(index, generation)| ConnKey { index, generation });
        for (delivery, key) in (0..).zip(dues) {
            assert_eq!(bucket_of(key), 2);
            bucket.push(MergeEntry {
                key,
                delivery,
                variant: 0,
            });
        }
        assert_eq!(bucket.count(), 6);
        let mut order = Vec::new();
        while let Some(due) = bucket.pop(None) {
            order.push((due.key.index, due.delivery));
            while let Some(same) = bucket.pop(Some(due.key)) {
                assert_eq!(same.key, due.key);
                order.push((same.key.index, same.delivery));
            }
        }
        let want = [(128, 1), (128, 5), (130, 0), (130, 3), (130, 4), (191, 2)];
        assert_eq!(order, want);
        assert_eq!(bucket.count(), 0);
    }

    #[test]
    fn memory_of_a_large_table_is_counted_and_released() {
        let mut bucket = SlotBucket::default();
        assert_eq!(bucket.memory(), 0);
        bucket.links.reserve_exact(10 * KEPT_CAPACITY);
        let beyond = bucket.links.capacity() - 2 * KEPT_CAPACITY;
        assert_eq!(bucket.memory(), beyond * size_of::<Link>());
        bucket.shrink();
        assert_eq!(bucket.memory(), 0);
    }
}
