//! Tables that store small values by index.
//!
//! Owns: the reuse of slots, and growth by pages. A vector that grows as a single block leaves
//! holes of all its former sizes behind, a cost that every idle connection would share. Must not
//! know: the stored values.

use crate::net::ConnKey;

use super::sparse::SparseVec;
use super::vacant::VacantSlots;

/// The index that stands for no slot.
pub(super) const NONE: u32 = u32::MAX;

/// Values by index. A vacant slot holds `T::default()` until it is reused.
#[derive(Default)]
pub(super) struct Slab<T> {
    entries: PagedVec<T>,
    vacant: VacantSlots,
    /// Memory is being released: see [`Slab::next_move`].
    is_shrinking: bool,
}

/// One index per connection, looked up by its slot in the engine's arena, which is mostly dense.
/// [`NONE`] stands for no index.
#[derive(Default)]
pub(super) struct ConnMap {
    indices: SparseVec<OptionalIndex>,
}

/// A vector in pages of [`PAGE`] values.
pub(super) struct PagedVec<T> {
    pages: Vec<Box<[T; PAGE]>>,
    len: usize,
}

/// An index or [`NONE`], which is the default.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct OptionalIndex(pub(super) u32);

impl<T: Default> Slab<T> {
    /// Stores a value and returns its index.
    pub(super) fn insert(&mut self, entry: T) -> u32 {
        if let Some(at) = self.vacant.pop_first()
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
        let slot = self.entries.get_mut(at as usize)?;
        let is_new = self.vacant.insert(at);
        is_new.then(|| std::mem::take(slot))
    }

    /// Returns whether the table is large and mostly vacant.
    #[inline]
    pub(super) fn is_sparse(&self) -> bool {
        self.entries.len > PAGE && self.len() < self.entries.len / 4
    }

    /// Returns whether memory is being released.
    #[inline]
    pub(super) fn is_shrinking(&self) -> bool {
        self.is_shrinking
    }

    /// Begins to release memory, until the table is dense.
    pub(super) fn begin_shrinking(&mut self) {
        self.is_shrinking = true;
    }

    /// Continues to release memory, after [`Slab::begin_shrinking`]. Vacant slots at the end are
    /// removed. If the last value has moved to a lower slot, returns its former and its new index; the
    /// caller updates all references to it, and calls again.
    ///
    /// The work is subtracted from `budget`, so that a large table is released in many steps.
    #[inline]
    pub(super) fn next_move(&mut self, budget: &mut usize) -> Option<(u32, u32)> {
        let (from, to) = self.begin_move(budget)?;
        self.entries.pop();
        Some((from, to))
    }

    /// Like [`Slab::next_move`] for a value with many references. Its former slot is not reused before
    /// [`Slab::remove`], which the caller calls when it has updated all of them.
    pub(super) fn begin_move(&mut self, budget: &mut usize) -> Option<(u32, u32)> {
        while self.is_shrinking && *budget > 0 {
            if self.vacant.len() == 0 {
                self.is_shrinking = false;
                self.entries.trim();
                self.vacant = VacantSlots::default();
                break;
            }
            let last = self.entries.len.checked_sub(1)? as u32;
            let run = self.vacant.pop_below(last + 1);
            if run > 0 {
                *budget = budget.saturating_sub(RUN_COST);
                self.entries.pop_defaults(run as usize);
                continue;
            }
            *budget = budget.saturating_sub(MOVE_COST);
            let to = self.vacant.pop_first()?;
            let entry = std::mem::take(self.entries.get_mut(last as usize)?);
            *self.entries.get_mut(to as usize)? = entry;
            return Some((last, to));
        }
        None
    }
}

impl<T> Slab<T> {
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

    /// Returns an index above those of all values.
    pub(super) fn end(&self) -> usize {
        self.entries.len
    }

    /// Returns the number of values.
    pub(super) fn len(&self) -> usize {
        self.entries.len - self.vacant.len()
    }

    /// Returns the allocated bytes, without those that the values own.
    pub(super) fn bytes(&self) -> usize {
        self.entries.bytes() + self.vacant.bytes()
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
        self.indices.replace(at, OptionalIndex(index));
    }

    /// Removes the connection's index and returns it.
    pub(super) fn take(&mut self, key: ConnKey) -> u32 {
        let at = key.slot() as usize;
        self.indices.replace(at, OptionalIndex::default()).0
    }

    /// Returns a slot above those of all connections with an index.
    pub(super) fn end(&self) -> usize {
        self.indices.end()
    }

    /// Releases unused memory.
    pub(super) fn trim(&mut self) {
        self.indices.trim();
    }

    /// Returns the indices, in arena order.
    pub(super) fn iter(&self) -> impl Iterator<Item = u32> {
        self.indices.iter().map(|index| index.0)
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
            let page: Box<[T]> = std::iter::repeat_with(T::default).take(PAGE).collect();
            self.pages.extend(page.try_into().ok());
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
        self.truncate_pages(last.div_ceil(PAGE) + 1);
        value
    }
}

impl<T> PagedVec<T> {
    /// Removes values from the end, which must be the default. Releases memory like
    /// [`PagedVec::pop`].
    fn pop_defaults(&mut self, count: usize) {
        self.len = self.len.saturating_sub(count);
        self.truncate_pages(self.len.div_ceil(PAGE) + 1);
    }

    /// Returns a mutable reference to a value.
    #[inline]
    pub(super) fn get_mut(&mut self, at: usize) -> Option<&mut T> {
        let page = self.pages.get_mut(at / PAGE)?;
        page.get_mut(at % PAGE).filter(|_| at < self.len)
    }

    /// Returns the number of values.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Returns a value. Beyond the end, returns `None` or, within the last page, `T::default()`.
    #[inline]
    pub(super) fn get(&self, at: usize) -> Option<&T> {
        let page = self.pages.get(at / PAGE)?;
        page.get(at % PAGE)
    }

    /// Releases the page that [`PagedVec::pop`] keeps.
    fn trim(&mut self) {
        self.truncate_pages(self.len.div_ceil(PAGE));
    }

    /// Releases pages at the end, and the memory of their list if it is mostly unused.
    #[inline]
    fn truncate_pages(&mut self, pages: usize) {
        if self.pages.len() > pages {
            self.pages.truncate(pages);
            if self.pages.capacity() > 4 * pages + KEPT_PAGES {
                self.pages.shrink_to(2 * pages);
            }
        }
    }

    fn iter(&self) -> impl Iterator<Item = &T> {
        self.pages
            .iter()
            .flat_map(|page| page.iter())
            .take(self.len)
    }

    /// Returns the allocated bytes, without those that the values own.
    pub(super) fn bytes(&self) -> usize {
        self.pages.len() * PAGE * size_of::<T>()
            + self.pages.capacity() * size_of::<Box<[T; PAGE]>>()
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
pub(super) const PAGE: usize = 256;
/// The number of pages for which the list of pages always keeps memory.
const KEPT_PAGES: usize = 16;
/// The cost of moving a value, in units of the cost of an instruction or two: the value and the
/// references to it are in no cache.
pub(super) const MOVE_COST: usize = 128;
/// The cost of removing a run of vacant slots, with its share of the release of a page.
const RUN_COST: usize = MOVE_COST / 2;
/// The work of a turn to release memory: about a quarter of a millisecond.
pub(super) const SHRINK_BUDGET: usize = 1024 * MOVE_COST;

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
    fn sparse_table_is_released_in_steps() {
        let mut slab = Slab::default();
        let count = 100 * PAGE as i32;
        let mut slots: Vec<u32> = (1..=count).map(|n| slab.insert(n)).collect();
        let full = slab.bytes();
        for n in (1..=count).filter(|n| n % 10 != 0) {
            slab.remove(slots[n as usize - 1]);
        }
        assert!(slab.is_sparse());
        slab.begin_shrinking();
        let mut steps = 0;
        while slab.bytes() > full / 8 {
            let mut budget = 3 * MOVE_COST;
            let mut moves = 0;
            while let Some((from, to)) = slab.next_move(&mut budget) {
                let value = *slab.get(to).unwrap();
                assert_eq!((slots[value as usize - 1], to < from), (from, true));
                slots[value as usize - 1] = to;
                moves += 1;
            }
            assert!(moves <= 3, "{moves} moves");
            steps += 1;
            assert!(steps < count, "memory is not released");
            // Slots are reused meanwhile.
            let slot = slab.insert(7);
            assert_eq!(slab.remove(slot), Some(7));
        }
        assert!(steps > 100, "{steps} steps");
        while slab.next_move(&mut (100 * MOVE_COST)).is_some() {}
        for n in (1..=count).filter(|n| n % 10 == 0) {
            assert_eq!(slab.remove(slots[n as usize - 1]), Some(n));
        }
        assert_eq!(slab.len(), 0);
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
        assert_eq!(indices.take(key(2)), 20);
        indices.trim();
        assert_eq!((indices.end(), indices.iter().next()), (0, None));
    }
}
