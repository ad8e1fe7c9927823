//! Tables that store small values by index.
//!
//! Owns: the reuse of slots, and growth by pages. A vector that grows as a single block leaves
//! holes of all its former sizes behind, a cost that every idle connection would share. Must not
//! know: the stored values.

use crate::net::ConnKey;

/// The index that stands for no slot.
pub(super) const NONE: u32 = u32::MAX;

/// Values by index. A vacant slot holds `T::default()` until it is reused.
#[derive(Default)]
pub(super) struct Slab<T> {
    entries: PagedVec<T>,
    vacant: Vec<u32>,
}

/// One index per connection, looked up by its slot in the engine's arena, which is dense. [`NONE`]
/// stands for no index.
#[derive(Default)]
pub(super) struct ConnMap {
    indices: PagedVec<OptionalIndex>,
}

/// A vector in pages of [`PAGE`] values.
pub(super) struct PagedVec<T> {
    pages: Vec<Box<[T]>>,
    len: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct OptionalIndex(u32);

impl<T: Default> Slab<T> {
    /// Stores a value and returns its index.
    pub(super) fn insert(&mut self, entry: T) -> u32 {
        if let Some(at) = self.vacant.pop()
            && let Some(slot) = self.entries.get_mut(at as usize)
        {
            *slot = entry;
            return at;
        }
        // The product of connections and terms is far below 2^32: file descriptors run out long
        // before.
        debug_assert!(self.entries.len < NONE as usize);
        let at = self.entries.len as u32;
        self.entries.push(entry);
        at
    }

    /// Removes a value. Its slot may be reused.
    pub(super) fn remove(&mut self, at: u32) -> Option<T> {
        let entry = std::mem::take(self.entries.get_mut(at as usize)?);
        self.vacant.push(at);
        Some(entry)
    }

    /// Returns the value in a slot.
    pub(super) fn get(&self, at: u32) -> Option<&T> {
        self.entries.get(at as usize)
    }

    /// Returns a mutable reference to the value in a slot.
    pub(super) fn get_mut(&mut self, at: u32) -> Option<&mut T> {
        self.entries.get_mut(at as usize)
    }

    /// Returns all slots in order, including vacant ones.
    pub(super) fn slots(&self) -> impl Iterator<Item = &T> {
        self.entries.iter()
    }

    /// Returns the number of values.
    pub(super) fn len(&self) -> usize {
        self.entries.len - self.vacant.len()
    }

    /// Returns whether the table is large and mostly vacant, so that rebuilding it pays off.
    pub(super) fn is_sparse(&self) -> bool {
        self.entries.len > PAGE && self.len() < self.entries.len / 4
    }

    /// Returns the allocated bytes, without those that the values own.
    pub(super) fn bytes(&self) -> usize {
        self.entries.bytes() + self.vacant.capacity() * size_of::<u32>()
    }
}

impl ConnMap {
    /// Returns the connection's index.
    pub(super) fn get(&self, key: ConnKey) -> u32 {
        let index = self.indices.get(key.slot() as usize);
        index.map_or(NONE, |index| index.0)
    }

    /// Sets the connection's index.
    pub(super) fn set(&mut self, key: ConnKey, index: u32) {
        let at = key.slot() as usize;
        while self.indices.len <= at {
            self.indices.push(OptionalIndex::default());
        }
        if let Some(slot) = self.indices.get_mut(at) {
            *slot = OptionalIndex(index);
        }
    }

    /// Removes the connection's index and returns it.
    pub(super) fn take(&mut self, key: ConnKey) -> u32 {
        let Some(slot) = self.indices.get_mut(key.slot() as usize) else {
            return NONE;
        };
        let index = std::mem::take(slot).0;
        self.indices.truncate_empty();
        index
    }

    /// Returns the indices, in arena order.
    pub(super) fn iter(&self) -> impl Iterator<Item = u32> {
        let indices = self.indices.iter().map(|index| index.0);
        indices.filter(|&index| index != NONE)
    }

    /// Returns the allocated bytes.
    pub(super) fn bytes(&self) -> usize {
        self.indices.bytes()
    }
}

impl<T: Default> PagedVec<T> {
    /// Appends a value.
    pub(super) fn push(&mut self, value: T) {
        if self.len == self.pages.len() * PAGE {
            let page = std::iter::repeat_with(T::default).take(PAGE).collect();
            self.pages.push(page);
        }
        self.len += 1;
        if let Some(slot) = self.get_mut(self.len - 1) {
            *slot = value;
        }
    }

    /// Removes the last value. Releases memory, except for a page that the next values may need.
    pub(super) fn pop(&mut self) -> Option<T> {
        let last = self.len.checked_sub(1)?;
        let value = self.get_mut(last).map(std::mem::take);
        self.len = last;
        self.pages.truncate(last.div_ceil(PAGE) + 1);
        value
    }

    /// Returns a mutable reference to a value.
    pub(super) fn get_mut(&mut self, at: usize) -> Option<&mut T> {
        let page = self.pages.get_mut(at / PAGE)?;
        page.get_mut(at % PAGE).filter(|_| at < self.len)
    }
}

impl<T> PagedVec<T> {
    /// Returns the number of values.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Returns a value.
    pub(super) fn get(&self, at: usize) -> Option<&T> {
        let page = self.pages.get(at / PAGE)?;
        page.get(at % PAGE).filter(|_| at < self.len)
    }

    fn iter(&self) -> impl Iterator<Item = &T> {
        self.pages
            .iter()
            .flat_map(|page| page.iter())
            .take(self.len)
    }

    /// Returns the values in pages, each with the index of its first value.
    pub(super) fn pages(&self) -> impl Iterator<Item = (usize, &[T])> {
        let pages = self.pages.iter().enumerate();
        pages.map(|(number, page)| {
            let first = number * PAGE;
            (
                first,
                &page[..page.len().min(self.len.saturating_sub(first))],
            )
        })
    }

    /// Returns the allocated bytes, without those that the values own.
    pub(super) fn bytes(&self) -> usize {
        self.pages.len() * PAGE * size_of::<T>() + self.pages.capacity() * size_of::<Box<[T]>>()
    }
}

impl<T: Default + PartialEq> PagedVec<T> {
    /// Removes default values from the end, and their memory.
    pub(super) fn truncate_empty(&mut self) {
        let empty = T::default();
        while self.len > 0 && self.get(self.len - 1) == Some(&empty) {
            self.len -= 1;
        }
        self.pages.truncate(self.len.div_ceil(PAGE));
    }
}

impl<T> Default for PagedVec<T> {
    fn default() -> Self {
        PagedVec {
            pages: Vec::new(),
            len: 0,
        }
    }
}

impl Default for OptionalIndex {
    fn default() -> Self {
        OptionalIndex(NONE)
    }
}

/// Small enough to be negligible for a server with few connections.
const PAGE: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_reused() {
        let mut slab = Slab::default();
        let slots: Vec<u32> = (1..=3).map(|n| slab.insert(n)).collect();
        assert_eq!(slots, [0, 1, 2]);
        assert_eq!(slab.remove(1), Some(2));
        assert_eq!((slab.get(1), slab.len()), (Some(&0), 2));
        assert_eq!(slab.insert(9), 1);
        assert_eq!(slab.slots().collect::<Vec<_>>(), [&1, &9, &3]);
        assert_eq!(slab.remove(NONE), None);
    }

    #[test]
    fn indices_are_stored_by_connection() {
        let key = |index| ConnKey::new(index, 1);
        let mut indices = ConnMap::default();
        indices.set(key(5), 50);
        indices.set(key(2), 20);
        assert_eq!(indices.iter().collect::<Vec<_>>(), [20, 50]);
        assert_eq!((indices.get(key(5)), indices.get(key(9))), (50, NONE));
        assert_eq!((indices.take(key(5)), indices.take(key(5))), (50, NONE));
        assert_eq!(indices.indices.len, 3);
    }
}
