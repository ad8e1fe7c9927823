//! Vectors that hold small things by number.
//!
//! Owns: places that are used again, and growth in small steps: a vector that doubles would
//! keep up to twice of what is needed, for every connection. Must not know what is held.

use crate::net::ConnKey;

/// No place.
pub const NONE: u32 = u32::MAX;

/// Values by number. A place that was given up holds `T::default()` until it is used again.
pub struct Slab<T> {
    entries: Vec<T>,
    vacant: Vec<u32>,
}

/// One number for each connection that has one, found by the connection's place in the
/// engine's arena, which is dense. [`NONE`] stands for none.
#[derive(Default)]
pub struct ByConn {
    numbers: Vec<u32>,
}

impl<T: Default> Slab<T> {
    /// Stores a value and says where.
    pub fn insert(&mut self, entry: T) -> u32 {
        if let Some(at) = self.vacant.pop()
            && let Some(place) = self.entries.get_mut(at as usize)
        {
            *place = entry;
            return at;
        }
        // The number of connections, times the terms of each, is far from 2^32: descriptors
        // end long before.
        debug_assert!(self.entries.len() < NONE as usize);
        let at = self.entries.len() as u32;
        reserve_one(&mut self.entries);
        self.entries.push(entry);
        at
    }

    /// Takes a value out; its place may be used again.
    pub fn remove(&mut self, at: u32) -> Option<T> {
        let entry = std::mem::take(self.entries.get_mut(at as usize)?);
        self.vacant.push(at);
        Some(entry)
    }

    /// The value in a place.
    pub fn get(&self, at: u32) -> Option<&T> {
        self.entries.get(at as usize)
    }

    /// The value in a place, to be changed.
    pub fn get_mut(&mut self, at: u32) -> Option<&mut T> {
        self.entries.get_mut(at as usize)
    }

    /// All places, vacant ones too, in order.
    pub fn places(&self) -> &[T] {
        &self.entries
    }

    /// How many values there are.
    pub fn len(&self) -> usize {
        self.entries.len() - self.vacant.len()
    }

    /// Whether most of a large memory holds nothing, and building it anew would pay.
    pub fn is_sparse(&self) -> bool {
        self.entries.len() > 256 && self.len() < self.entries.len() / 4
    }

    /// Bytes held, without what the values themselves point to.
    pub fn bytes(&self) -> usize {
        self.entries.capacity() * size_of::<T>() + self.vacant.capacity() * size_of::<u32>()
    }
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Slab {
            entries: Vec::new(),
            vacant: Vec::new(),
        }
    }
}

impl ByConn {
    /// The connection's number.
    pub fn get(&self, key: ConnKey) -> u32 {
        let number = self.numbers.get(key.index as usize);
        number.copied().unwrap_or(NONE)
    }

    /// Gives the connection a number.
    pub fn set(&mut self, key: ConnKey, number: u32) {
        let at = key.index as usize;
        while self.numbers.len() <= at {
            reserve_one(&mut self.numbers);
            self.numbers.push(NONE);
        }
        if let Some(place) = self.numbers.get_mut(at) {
            *place = number;
        }
    }

    /// Takes the connection's number.
    pub fn take(&mut self, key: ConnKey) -> u32 {
        let Some(place) = self.numbers.get_mut(key.index as usize) else {
            return NONE;
        };
        let number = std::mem::replace(place, NONE);
        while self.numbers.last() == Some(&NONE) {
            self.numbers.pop();
        }
        number
    }

    /// The numbers, in the order of the arena.
    pub fn iter(&self) -> impl Iterator<Item = u32> {
        self.numbers
            .iter()
            .copied()
            .filter(|&number| number != NONE)
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        self.numbers.capacity() * size_of::<u32>()
    }
}

/// Grows by an eighth: five times the copying of a vector that doubles, but a third of its
/// slack, and every idle connection pays for slack.
fn reserve_one<T>(vec: &mut Vec<T>) {
    if vec.len() == vec.capacity() {
        vec.reserve_exact((vec.len() / 8).max(16));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_used_again() {
        let mut slab = Slab::default();
        let places: Vec<u32> = (1..=3).map(|n| slab.insert(n)).collect();
        assert_eq!(places, [0, 1, 2]);
        assert_eq!(slab.remove(1), Some(2));
        assert_eq!((slab.get(1), slab.len()), (Some(&0), 2));
        assert_eq!(slab.insert(9), 1);
        assert_eq!(slab.places(), [1, 9, 3]);
        assert_eq!(slab.remove(NONE), None);
    }

    #[test]
    fn numbers_by_connection() {
        let key = |index| ConnKey {
            index,
            generation: 1,
        };
        let mut numbers = ByConn::default();
        numbers.set(key(5), 50);
        numbers.set(key(2), 20);
        assert_eq!(numbers.iter().collect::<Vec<_>>(), [20, 50]);
        assert_eq!((numbers.get(key(5)), numbers.get(key(9))), (50, NONE));
        assert_eq!((numbers.take(key(5)), numbers.take(key(5))), (50, NONE));
        assert_eq!(numbers.numbers.len(), 3);
    }
}
