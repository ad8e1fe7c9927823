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

    /// Removes vacant slots directly below `end`, at most a word of them; all slots from there on must
    /// not be in the set. Returns their number.
    pub(super) fn pop_below(&mut self, end: u32) -> u32 {
        let Some(last) = end.checked_sub(1) else {
            return 0;
        };
        let (word, at) = (last as usize / BITS, last % u64::BITS);
        let Some(slots) = self.slots.get_mut(word) else {
            return 0;
        };
        let run = (*slots << (u64::BITS - 1 - at)).leading_ones();
        if run == 0 {
            return 0;
        }
        *slots &= !(u64::MAX >> (u64::BITS - run) << (at + 1 - run));
        if *slots == 0 {
            self.words[word / BITS] &= !(1 << (word % BITS));
        }
        self.len -= run as usize;
        run
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
    fn slots_are_removed_from_the_end_in_runs() {
        let mut random = Random(4);
        for density in [0, 1, 30, 63, 64] {
            let (mut vacant, mut model) = (VacantSlots::default(), BTreeSet::new());
            for at in (0..10_000).filter(|_| random.below(64) < density) {
                vacant.insert(at);
                model.insert(at);
            }
            let (mut end, mut steps) = (10_000, 0);
            while end > 0 {
                let run = vacant.pop_below(end);
                for at in end - run..end {
                    assert!(model.remove(&at), "{at}");
                }
                end -= run;
                steps += 1;
                if run == 0 {
                    assert!(!model.contains(&(end - 1)));
                    end -= 1;
                }
                assert_eq!(vacant.len(), model.len());
            }
            assert_eq!((vacant.pop_first(), vacant.pop_below(0)), (None, 0));
            assert!(density < 64 || steps == 157, "{steps} steps");
        }
    }

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
