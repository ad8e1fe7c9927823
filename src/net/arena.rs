//! The connections, side by side in pages, found by key.

use super::ConnKey;

/// A table of values whose keys are never used twice.
///
/// Values live in pages of [`PAGE`] slots, so that growing moves nothing, and the lowest free
/// slot is taken first, so that the pages of a past crowd fall empty and are given back.
pub(super) struct Arena<T> {
    pages: Vec<Option<Page<T>>>,
    len: usize,
    /// No page before this one has a free slot.
    first_free: usize,
    /// One empty page is kept, so that a count that swings around a page's edge does not
    /// allocate a page each time.
    empty: Option<usize>,
    /// One sequence for all slots: it survives the pages.
    generation: u32,
}

struct Page<T> {
    slots: Box<[Slot<T>]>,
    /// A bit per slot, set where it is free.
    free: [u64; PAGE / 64],
    used: usize,
}

struct Slot<T> {
    /// 0 while it is free.
    generation: u32,
    value: Option<T>,
}

impl<T> Arena<T> {
    pub fn new() -> Self {
        Arena {
            pages: Vec::new(),
            len: 0,
            first_free: 0,
            empty: None,
            generation: 0,
        }
    }

    /// How many values there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Puts a value into the lowest free slot.
    pub fn insert(&mut self, value: T) -> ConnKey {
        let number = self.page_with_room();
        self.generation = self.generation.checked_add(1).unwrap_or(1);
        self.len += 1;
        let page = self.pages[number].get_or_insert_with(Page::new);
        if self.empty == Some(number) {
            self.empty = None;
        }
        let slot = page.take_lowest();
        page.slots[slot] = Slot {
            generation: self.generation,
            value: Some(value),
        };
        ConnKey {
            index: (number * PAGE + slot) as u32,
            generation: self.generation,
        }
    }

    /// The value of this key, if it is still there.
    pub fn get(&self, key: ConnKey) -> Option<&T> {
        let slot = self.slot(key.index)?;
        slot.value
            .as_ref()
            .filter(|_| slot.generation == key.generation)
    }

    /// The value of this key, if it is still there.
    pub fn get_mut(&mut self, key: ConnKey) -> Option<&mut T> {
        let slot = self.slot_mut(key.index)?;
        let is_current = slot.generation == key.generation;
        slot.value.as_mut().filter(|_| is_current)
    }

    /// The value in this slot, whatever its generation.
    pub fn at_mut(&mut self, index: u32) -> Option<&mut T> {
        self.slot_mut(index)?.value.as_mut()
    }

    /// The key of the value in this slot.
    pub fn key_at(&self, index: u32) -> Option<ConnKey> {
        let slot = self.slot(index)?;
        slot.value.as_ref().map(|_| ConnKey {
            index,
            generation: slot.generation,
        })
    }

    /// The first key at or after this slot.
    pub fn next_key(&self, from: u32) -> Option<ConnKey> {
        let end = self.pages.len() * PAGE;
        let mut index = from as usize;
        while index < end {
            match &self.pages[index / PAGE] {
                Some(page) if page.used > 0 => {
                    if index.is_multiple_of(64) && page.free[index % PAGE / 64] == u64::MAX {
                        index += 64;
                        continue;
                    }
                    if let Some(key) = self.key_at(index as u32) {
                        return Some(key);
                    }
                    index += 1;
                }
                _ => index = (index / PAGE + 1) * PAGE,
            }
        }
        None
    }

    /// Takes a value out; its key finds nothing from now on.
    pub fn remove(&mut self, key: ConnKey) -> Option<T> {
        self.get(key)?;
        let number = key.index as usize / PAGE;
        let page = self.pages.get_mut(number)?.as_mut()?;
        let at = key.index as usize % PAGE;
        let slot = &mut page.slots[at];
        slot.generation = 0;
        let value = slot.value.take();
        page.free[at / 64] |= 1 << (at % 64);
        page.used -= 1;
        let is_empty = page.used == 0;
        self.len -= 1;
        self.first_free = self.first_free.min(number);
        if is_empty {
            self.give_back(number);
        }
        value
    }

    /// Goes through all slots: whether the figures are right, or what is not. For tests and
    /// simulations only.
    pub fn verify(&self) -> Result<(), String> {
        let mut len = 0;
        for (number, page) in self.pages.iter().enumerate() {
            let used = page.as_ref().map_or(0, |page| page.used);
            if number < self.first_free && used < PAGE {
                return Err(format!("page {number} has room, and is passed over"));
            }
            let is_spare = page.is_some() && used == 0;
            if is_spare != (self.empty == Some(number)) {
                return Err(format!("page {number}: {used} used, kept: {is_spare}"));
            }
            if let Some(page) = page {
                page.verify()
                    .map_err(|what| format!("page {number}: {what}"))?;
            }
            len += used;
        }
        match len == self.len {
            true => Ok(()),
            false => Err(format!("{len} values, not {}", self.len)),
        }
    }

    /// Keeps the lower of two empty pages.
    fn give_back(&mut self, number: usize) {
        let spare = match self.empty {
            Some(kept) => {
                self.empty = Some(kept.min(number));
                kept.max(number)
            }
            None => {
                self.empty = Some(number);
                return;
            }
        };
        self.pages[spare] = None;
        while let Some(None) = self.pages.last() {
            self.pages.pop();
        }
        self.pages.shrink_to(4 * self.pages.len());
    }

    fn page_with_room(&mut self) -> usize {
        let has_room = |page: &Option<Page<T>>| page.as_ref().is_none_or(|page| page.used < PAGE);
        let skipped = self.pages[self.first_free.min(self.pages.len())..]
            .iter()
            .position(has_room);
        let number = match skipped {
            Some(skipped) => self.first_free + skipped,
            None => {
                self.pages.push(None);
                self.pages.len() - 1
            }
        };
        self.first_free = number;
        number
    }

    fn slot(&self, index: u32) -> Option<&Slot<T>> {
        let page = self.pages.get(index as usize / PAGE)?.as_ref()?;
        page.slots.get(index as usize % PAGE)
    }

    fn slot_mut(&mut self, index: u32) -> Option<&mut Slot<T>> {
        let page = self.pages.get_mut(index as usize / PAGE)?.as_mut()?;
        page.slots.get_mut(index as usize % PAGE)
    }
}

impl<T> Page<T> {
    fn new() -> Self {
        let vacant = || Slot {
            generation: 0,
            value: None,
        };
        Page {
            slots: std::iter::repeat_with(vacant).take(PAGE).collect(),
            free: [u64::MAX; PAGE / 64],
            used: 0,
        }
    }

    fn verify(&self) -> Result<(), String> {
        let mut used = 0;
        for (at, slot) in self.slots.iter().enumerate() {
            let is_free = self.free[at / 64] >> (at % 64) & 1 == 1;
            if slot.value.is_none() != is_free || (slot.generation == 0) != is_free {
                return Err(format!("slot {at} is free and not free"));
            }
            used += usize::from(!is_free);
        }
        match used == self.used {
            true => Ok(()),
            false => Err(format!("{used} values, not {}", self.used)),
        }
    }

    fn take_lowest(&mut self) -> usize {
        debug_assert!(self.used < PAGE);
        let word = self.free.iter().position(|&word| word != 0).unwrap_or(0);
        let bit = self.free[word].trailing_zeros() as usize;
        self.free[word] &= self.free[word].wrapping_sub(1);
        self.used += 1;
        word * 64 + bit
    }
}

/// Slots a page: about 100 KiB of connections. Miri, which is slow, sees more of fewer.
const PAGE: usize = if cfg!(miri) { 64 } else { 1024 };

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn a_key_finds_its_own_value_only() {
        let mut arena = Arena::new();
        let a = arena.insert("a");
        assert_eq!(arena.remove(a), Some("a"));
        let b = arena.insert("b");
        assert_eq!(a.index, b.index, "the lowest free slot comes first");
        assert_eq!(arena.get(a), None);
        assert_eq!(arena.get_mut(a), None);
        assert_eq!(arena.remove(a), None);
        assert_eq!(arena.get(b), Some(&"b"));
        assert_eq!(arena.len(), 1);
    }

    // K5
    #[test]
    fn pages_of_a_past_crowd_are_given_back() {
        let mut arena = Arena::new();
        let (pages, few) = (if cfg!(miri) { 20 } else { 100 }, PAGE / 64 * 63);
        let keys: Vec<_> = (0..pages * PAGE).map(|n| arena.insert(n)).collect();
        assert_eq!(arena.pages.len(), pages);
        for key in &keys[few..] {
            arena.remove(*key);
        }
        assert_eq!(arena.len(), few);
        assert!(arena.pages.iter().flatten().count() <= 2);
        for (n, key) in keys[..few].iter().enumerate() {
            assert_eq!(arena.get(*key), Some(&n));
        }
        assert_eq!(arena.verify(), Ok(()));
        let again: Vec<_> = (0..2 * PAGE).map(|n| arena.insert(n)).collect();
        assert!(again.iter().all(|key| (key.index as usize) < 3 * PAGE));
    }

    #[test]
    fn walking_visits_every_value_once() {
        let mut arena = Arena::new();
        let keys: Vec<_> = (0..3 * PAGE).map(|n| arena.insert(n)).collect();
        for key in keys.iter().filter(|key| key.index % 7 != 0) {
            arena.remove(*key);
        }
        let mut seen = Vec::new();
        let mut from = 0;
        while let Some(key) = arena.next_key(from) {
            seen.push(key);
            from = key.index + 1;
        }
        let want: Vec<_> = keys.into_iter().filter(|key| key.index % 7 == 0).collect();
        assert_eq!(seen, want);
    }

    // K5
    /// Crowds come and go, in any order; with every one of them all is counted again.
    #[test]
    fn agrees_with_a_plain_map() {
        let (mut arena, mut map) = (Arena::new(), BTreeMap::new());
        let mut seed = 1_u64;
        let mut below = |end: usize| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (seed >> 33) as usize % end.max(1)
        };
        for round in 0..if cfg!(miri) { 4 } else { 300 } {
            let crowd = below(3 * PAGE);
            if below(2) == 0 {
                for n in 0..crowd {
                    map.insert(arena.insert(n), n);
                }
            } else {
                // Some from all over, or all that came together.
                let every = 1 + below(2) * below(8);
                let first = below(map.len());
                let keys: Vec<_> = map.keys().copied().skip(first).step_by(every).collect();
                for key in keys.into_iter().take(crowd) {
                    assert_eq!(arena.remove(key), map.remove(&key));
                    assert_eq!(arena.remove(key), None);
                }
            }
            assert_eq!(arena.verify(), Ok(()), "round {round}");
            assert_eq!(arena.len(), map.len());
            let mut walked = 0;
            let mut from = 0;
            while let Some(key) = arena.next_key(from) {
                assert_eq!(arena.get(key), map.get(&key));
                from = key.index + 1;
                walked += 1;
            }
            assert_eq!(walked, map.len());
        }
    }

    #[test]
    fn generations_skip_zero() {
        let mut arena = Arena::new();
        arena.generation = u32::MAX;
        assert_eq!(arena.insert(()).generation, 1);
    }
}
