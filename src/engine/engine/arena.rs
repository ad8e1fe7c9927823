//! The connection table: a paged slot arena, indexed by generational keys.

use crate::ConnKey;

/// A table of values with keys that are never reused.
///
/// Values are stored in pages of [`PAGE`] slots, so that growth moves no value. Insertion takes the
/// lowest free slot, so that after a load peak the upper pages become empty and are freed. Pages
/// are small because an allocator returns a large block of memory to the system only when all
/// allocations in it are free.
pub(crate) struct Arena<T> {
    pages: Vec<Option<Page<T>>>,
    /// One bit per page, set if the page has a free slot, whether or not it is allocated.
    roomy: Vec<u64>,
    /// All words of `roomy` before this one are zero.
    first_roomy: usize,
    len: usize,
    /// One empty page is kept, so that a count that oscillates around a page boundary does not
    /// allocate and free a page each time.
    empty: Option<usize>,
    /// The last generation assigned. It is shared by all slots, so that it survives the pages.
    generation: u32,
}

/// Generations are stored apart from the values, whose alignment would pad each of them from four
/// to eight bytes.
struct Page<T> {
    values: Box<[Option<T>; PAGE]>,
    /// 0 for a free slot.
    generations: Box<[u32; PAGE]>,
    /// One bit per slot, set if it is free.
    free: u64,
}

impl<T> Arena<T> {
    pub(crate) fn new() -> Self {
        Arena {
            pages: Vec::new(),
            roomy: Vec::new(),
            first_roomy: 0,
            len: 0,
            empty: None,
            generation: 0,
        }
    }

    /// Returns the number of values.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Inserts a value into the lowest free slot.
    pub(crate) fn insert(&mut self, value: T) -> ConnKey {
        let number = self.page_with_room();
        self.generation = self.generation.checked_add(1).unwrap_or(1);
        self.len += 1;
        let page = self.pages[number].get_or_insert_with(Page::new);
        if self.empty == Some(number) {
            self.empty = None;
        }
        let at = page.take_lowest();
        page.generations[at] = self.generation;
        page.values[at] = Some(value);
        if page.free == 0 {
            self.roomy[number / WORD] &= !(1 << (number % WORD));
        }
        ConnKey {
            index: (number * PAGE + at) as u32,
            generation: self.generation,
        }
    }

    /// Returns the value for a key, if it is still present.
    pub(crate) fn get(&self, key: ConnKey) -> Option<&T> {
        let (page, at) = self.place(key.index)?;
        // An early return costs fewer instructions than a filter.
        if page.generations[at] != key.generation {
            return None;
        }
        page.values[at].as_ref()
    }

    /// Returns the value for a key mutably, if it is still present.
    pub(crate) fn get_mut(&mut self, key: ConnKey) -> Option<&mut T> {
        let (page, at) = self.place_mut(key.index)?;
        if page.generations[at] != key.generation {
            return None;
        }
        page.values[at].as_mut()
    }

    /// Returns the value in a slot, regardless of its generation.
    pub(crate) fn at_mut(&mut self, index: u32) -> Option<&mut T> {
        let (page, at) = self.place_mut(index)?;
        page.values[at].as_mut()
    }

    /// Returns the key of the value in a slot.
    pub(crate) fn key_at(&self, index: u32) -> Option<ConnKey> {
        let (page, at) = self.place(index)?;
        let generation = page.generations[at];
        (generation != 0).then_some(ConnKey { index, generation })
    }

    /// Returns the first key at or after a slot.
    pub(crate) fn next_key(&self, from: u32) -> Option<ConnKey> {
        let (first, mut skip) = (from as usize / PAGE, from as usize % PAGE);
        for (number, page) in self.pages.iter().enumerate().skip(first) {
            let taken = page.as_ref().map_or(0, |page| !page.free) >> skip << skip;
            if taken != 0 {
                let at = taken.trailing_zeros() as usize;
                return self.key_at((number * PAGE + at) as u32);
            }
            skip = 0;
        }
        None
    }

    /// Removes a value, and invalidates its key.
    pub(crate) fn remove(&mut self, key: ConnKey) -> Option<T> {
        self.get(key)?;
        let number = key.index as usize / PAGE;
        let (page, at) = self.place_mut(key.index)?;
        page.generations[at] = 0;
        let value = page.values[at].take();
        page.free |= 1 << at;
        let is_empty = page.free == u64::MAX;
        self.len -= 1;
        self.roomy[number / WORD] |= 1 << (number % WORD);
        self.first_roomy = self.first_roomy.min(number / WORD);
        if is_empty {
            self.shrink(number);
        }
        value
    }

    /// Verifies all slots and counts. Returns a description of the first inconsistency. For tests
    /// and simulations only.
    pub(crate) fn verify(&self) -> Result<(), String> {
        let mut len = 0;
        for (number, page) in self.pages.iter().enumerate() {
            let used = page.as_ref().map_or(0, Page::used);
            let is_roomy = self.roomy[number / WORD] >> (number % WORD) & 1 == 1;
            if is_roomy != (used < PAGE) || (is_roomy && number / WORD < self.first_roomy) {
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
        let roomy: u32 = self.roomy.iter().map(|word| word.count_ones()).sum();
        if roomy as usize > self.pages.len() {
            return Err("a page has room that is not there".to_owned());
        }
        match len == self.len {
            true => Ok(()),
            false => Err(format!("{len} values, not {}", self.len)),
        }
    }

    /// Keeps the empty page with the lowest index, and frees any other.
    fn shrink(&mut self, number: usize) {
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
            let number = self.pages.len();
            self.roomy[number / WORD] &= !(1 << (number % WORD));
        }
        self.roomy.truncate(self.pages.len().div_ceil(WORD));
        self.pages.shrink_to(4 * self.pages.len());
        self.roomy.shrink_to(4 * self.roomy.len());
    }

    fn page_with_room(&mut self) -> usize {
        let words = self.roomy.iter().enumerate().skip(self.first_roomy);
        let found = words.map(|(at, word)| (at, *word)).find(|word| word.1 != 0);
        if let Some((at, word)) = found {
            self.first_roomy = at;
            return at * WORD + word.trailing_zeros() as usize;
        }
        let number = self.pages.len();
        self.pages.push(None);
        if number.is_multiple_of(WORD) {
            self.roomy.push(0);
        }
        self.roomy[number / WORD] |= 1 << (number % WORD);
        self.first_roomy = number / WORD;
        number
    }

    fn place(&self, index: u32) -> Option<(&Page<T>, usize)> {
        let page = self.pages.get(index as usize / PAGE)?.as_ref()?;
        Some((page, index as usize % PAGE))
    }

    fn place_mut(&mut self, index: u32) -> Option<(&mut Page<T>, usize)> {
        let page = self.pages.get_mut(index as usize / PAGE)?.as_mut()?;
        Some((page, index as usize % PAGE))
    }
}

impl<T> Page<T> {
    fn new() -> Self {
        Page {
            values: Box::new([const { None }; PAGE]),
            generations: Box::new([0; PAGE]),
            free: u64::MAX,
        }
    }

    fn used(&self) -> usize {
        self.free.count_zeros() as usize
    }

    fn verify(&self) -> Result<(), String> {
        for at in 0..PAGE {
            let is_free = self.free >> at & 1 == 1;
            if self.values[at].is_none() != is_free || (self.generations[at] == 0) != is_free {
                return Err(format!("slot {at} is free and not free"));
            }
        }
        Ok(())
    }

    fn take_lowest(&mut self) -> usize {
        debug_assert!(self.free != 0);
        let at = self.free.trailing_zeros() as usize % PAGE;
        self.free &= self.free.wrapping_sub(1);
        at
    }
}

/// Slots per page: about 5 KiB of connections, and one bitmap word.
const PAGE: usize = 64;
const WORD: usize = u64::BITS as usize;

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn key_returns_only_its_own_value() {
        let mut arena = Arena::new();
        let a = arena.insert("a");
        assert_eq!(arena.remove(a), Some("a"));
        let b = arena.insert("b");
        assert_eq!(a.index, b.index, "the lowest free slot comes first");
        assert_eq!(arena.get(a), None);
        assert_eq!(arena.get_mut(a), None);
        assert_eq!(arena.remove(a), None);
        assert_eq!(arena.get(b), Some(&"b"));
        assert_eq!(arena.get_mut(b), Some(&mut "b"));
        assert_eq!(arena.at_mut(a.index), Some(&mut "b"));
        assert_eq!((arena.key_at(0), arena.key_at(1)), (Some(b), None));
        assert_eq!(arena.at_mut(1), None);
        assert_eq!(arena.at_mut(PAGE as u32), None);
        assert_eq!(arena.len(), 1);
    }

    // M8
    /// mimalloc allocates blocks of up to 10 KiB in pages of 64 KiB, and larger blocks in pages of
    /// 512 KiB or 4 MiB, which a single remaining connection would keep allocated.
    #[test]
    fn page_fits_a_small_allocator_block() {
        type Connection = [u64; 10];
        assert!(size_of::<[Option<Connection>; PAGE]>() <= 10 * 1024);
    }

    // K5
    #[test]
    fn empty_pages_are_released() {
        let mut arena = Arena::new();
        let (pages, few) = (100, PAGE - 1);
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
    fn next_key_visits_every_value_once() {
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
    /// Inserts and removes batches in random order, and verifies the arena after each.
    #[test]
    fn matches_a_map_model() {
        let (mut arena, mut map) = (Arena::new(), BTreeMap::new());
        let mut seed = 1_u64;
        let mut below = |end: usize| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (seed >> 33) as usize % end.max(1)
        };
        let (rounds, most) = if cfg!(miri) { (4, 3) } else { (300, 30) };
        for round in 0..rounds {
            let crowd = below(most * PAGE);
            if below(2) == 0 {
                for n in 0..crowd {
                    map.insert(arena.insert(n), n);
                }
            } else {
                // Either a sample across the arena, or connections inserted together.
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
