//! The vacant slots of a table, lowest first.
//!
//! Owns: one bit per slot, and one for each word of them. Must not know: the table.

/// A set of slots.
#[derive(Default)]
pub(super) struct VacantSlots {
    /// One bit per slot, set if it is vacant.
    slots: Vec<u64>,
    /// One bit per word of `slots`, set if the word is not zero.
    words: Vec<u64>,
    /// All of `words` before this one are zero.
    first: usize,
    len: usize,
}

impl VacantSlots {
    /// Adds a slot. Returns false if it was vacant already.
    pub(super) fn insert(&mut self, at: u32) -> bool {
        let (word, of_words) = (at as usize / BITS, at as usize / BITS / BITS);
        if self.slots.len() <= word {
            self.slots.resize(word + 1, 0);
            self.words.resize(of_words + 1, 0);
        }
        let bit = 1 << (at as usize % BITS);
        if self.slots[word] & bit != 0 {
            return false;
        }
        self.slots[word] |= bit;
        self.words[of_words] |= 1 << (word % BITS);
        self.first = self.first.min(of_words);
        self.len += 1;
        true
    }

    /// Removes a slot. Returns false if it was not vacant.
    pub(super) fn remove(&mut self, at: u32) -> bool {
        let word = at as usize / BITS;
        let bit = 1 << (at as usize % BITS);
        match self.slots.get_mut(word) {
            Some(slots) if *slots & bit != 0 => {
                *slots &= !bit;
                if *slots == 0 {
                    self.words[word / BITS] &= !(1 << (word % BITS));
                }
                self.len -= 1;
                true
            }
            _ => false,
        }
    }

    /// Removes the lowest slot and returns it.
    #[inline]
    pub(super) fn pop_first(&mut self) -> Option<u32> {
        if self.len == 0 {
            return None;
        }
        while *self.words.get(self.first)? == 0 {
            self.first += 1;
        }
        let word = self.first * BITS + self.words[self.first].trailing_zeros() as usize;
        let at = (word * BITS) as u32 + self.slots.get(word)?.trailing_zeros();
        self.remove(at);
        Some(at)
    }

    /// Returns the number of vacant slots.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Returns the allocated bytes.
    pub(super) fn bytes(&self) -> usize {
        (self.slots.capacity() + self.words.capacity()) * size_of::<u64>()
    }
}

const BITS: usize = u64::BITS as usize;

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::realtime::testing::Random;

    #[test]
    fn lowest_slot_comes_first() {
        let (mut vacant, mut model) = (VacantSlots::default(), BTreeSet::new());
        let mut random = Random(3);
        for _ in 0..20_000 {
            let at = random.below(10_000) as u32;
            match random.below(3) {
                0 => assert_eq!(vacant.pop_first(), model.pop_first()),
                1 => assert_eq!(vacant.remove(at), model.remove(&at)),
                _ => assert_eq!(vacant.insert(at), model.insert(at)),
            }
            assert_eq!(vacant.len(), model.len());
        }
        while let Some(at) = model.pop_first() {
            assert_eq!(vacant.pop_first(), Some(at));
        }
        assert_eq!(vacant.pop_first(), None);
    }
}
