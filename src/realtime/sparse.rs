//! A table of small values by index, in which most indices may hold the default value.
//!
//! Owns: pages of values, which exist only while one of their values is not the default. No operation
//! takes time proportional to an index: a connection at the top of an almost empty arena costs a page
//! each time it sets its filter, and not one for each slot below it. Must not know: the stored values.

use super::slab::PAGE;

/// Values by index. All other indices hold `T::default()`.
pub(super) struct SparseVec<T> {
    /// The pages up to the last one, or to one that has been released since the last
    /// [`SparseVec::trim`].
    pages: Vec<Page<T>>,
}

struct Page<T> {
    /// `None` if all values are the default.
    values: Option<Box<[T; PAGE]>>,
    /// The number of values that are not the default.
    used: u32,
}

impl<T: Default + PartialEq> SparseVec<T> {
    /// Sets a value, and returns the previous one.
    pub(super) fn replace(&mut self, at: usize, value: T) -> T {
        let empty = T::default();
        let is_empty = value == empty;
        if self.pages.len() <= at / PAGE {
            if is_empty {
                return empty;
            }
            self.pages.resize_with(at / PAGE + 1, Page::default);
        }
        let Some(page) = self.pages.get_mut(at / PAGE) else {
            return empty;
        };
        if page.values.is_none() {
            if is_empty {
                return empty;
            }
            page.values = new_page();
        }
        let slot = page.values.as_mut();
        let Some(slot) = slot.and_then(|values| values.get_mut(at % PAGE)) else {
            return empty;
        };
        let before = std::mem::replace(slot, value);
        match (before == empty, is_empty) {
            (true, false) => page.used += 1,
            (false, true) => {
                page.used -= 1;
                if page.used == 0 {
                    page.values = None;
                }
            }
            _ => {}
        }
        before
    }

    /// Returns the values that are not the default, in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        let values = self.pages.iter().filter_map(|page| page.values.as_ref());
        values
            .flat_map(|values| values.iter())
            .filter(|value| **value != T::default())
    }
}

impl<T> SparseVec<T> {
    /// Returns a value; `None` for some of those that are the default.
    #[inline]
    pub(super) fn get(&self, at: usize) -> Option<&T> {
        let values = self.pages.get(at / PAGE)?.values.as_ref()?;
        values.get(at % PAGE)
    }

    /// Returns a mutable reference to a value, which must neither be nor become the default.
    #[inline]
    pub(super) fn get_mut(&mut self, at: usize) -> Option<&mut T> {
        let values = self.pages.get_mut(at / PAGE)?.values.as_mut()?;
        values.get_mut(at % PAGE)
    }

    /// Returns an index above those of all values that are not the default.
    pub(super) fn end(&self) -> usize {
        self.pages.len() * PAGE
    }

    /// Releases the list of pages beyond the last page. Takes time in proportion to them, a 256th of
    /// the indices; called from time to time, rather than whenever a page is released.
    #[inline]
    pub(super) fn trim(&mut self) {
        while self.pages.last().is_some_and(|page| page.used == 0) {
            self.pages.pop();
        }
        if self.pages.capacity() > 4 * self.pages.len() + KEPT_PAGES {
            self.pages.shrink_to(2 * self.pages.len());
        }
    }

    /// Returns the allocated bytes, without those that the values own.
    pub(super) fn bytes(&self) -> usize {
        let pages = self.pages.iter().filter(|page| page.values.is_some());
        pages.count() * PAGE * size_of::<T>() + self.pages.capacity() * size_of::<Page<T>>()
    }
}

fn new_page<T: Default>() -> Option<Box<[T; PAGE]>> {
    let page: Box<[T]> = std::iter::repeat_with(T::default).take(PAGE).collect();
    page.try_into().ok()
}

impl<T> Default for SparseVec<T> {
    fn default() -> Self {
        SparseVec { pages: Vec::new() }
    }
}

impl<T> Default for Page<T> {
    fn default() -> Self {
        Page {
            values: None,
            used: 0,
        }
    }
}

/// The number of pages for which the list of pages always keeps memory.
const KEPT_PAGES: usize = 16;

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::realtime::testing::Random;

    #[test]
    fn values_agree_with_a_model_and_empty_pages_are_released() {
        let (mut values, mut model) = (SparseVec::default(), BTreeMap::new());
        let mut random = Random(9);
        for step in 0..20_000 {
            let at = random.below(40 * PAGE as u64) as usize;
            // At first most operations set values, later most reset them.
            let value = if random.below(10) < step / 2_000 {
                0
            } else {
                random.below(100)
            };
            let before = match value {
                0 => model.remove(&at),
                _ => model.insert(at, value),
            };
            assert_eq!(values.replace(at, value), before.unwrap_or(0), "{step}");
            if random.below(100) == 0 {
                values.trim();
            }
            let at = random.below(50 * PAGE as u64) as usize;
            let found = values.get(at).copied().unwrap_or(0);
            assert_eq!(found, model.get(&at).copied().unwrap_or(0));
            assert!(
                model
                    .keys()
                    .next_back()
                    .is_none_or(|last| *last < values.end())
            );
        }
        assert!(values.iter().eq(model.values()));
        for at in model.keys() {
            values.replace(*at, 0);
        }
        values.trim();
        let list = (4 + KEPT_PAGES) * size_of::<Page<u64>>();
        assert!(values.bytes() <= list, "{}", values.bytes());
        assert_eq!((values.end(), values.iter().count()), (0, 0));
    }

    #[test]
    fn value_at_a_high_index_takes_one_page() {
        let mut values = SparseVec::default();
        let top = 1 << 20;
        for _ in 0..10 {
            values.replace(top, 1_u32);
            let pages = values.pages.iter().filter(|page| page.values.is_some());
            assert_eq!(pages.count(), 1);
            assert_eq!(values.replace(top, 0), 1);
        }
        values.trim();
        assert_eq!(values.end(), 0);
    }
}
