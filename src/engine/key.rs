//! Connection keys, which remain unique after their connection is gone.

use std::fmt;

/// A generational key: the slot of a connection in the arena, and a generation.
///
/// Every readiness event, timer, backend response, and delivery carries a key. A key whose
/// generation does not match the slot's is stale and resolves to nothing, so that nothing meant for
/// a connection that is gone can reach the next one in its slot.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnKey {
    /// First, so that keys sort by slot.
    pub(crate) index: u32,
    /// Never 0: tokens below 2^32 belong to the reactor (listeners, waker).
    pub(crate) generation: u32,
}

impl ConnKey {
    /// Creates a key, for simulations and tests of handlers.
    pub const fn new(slot: u32, generation: u32) -> Self {
        ConnKey {
            index: slot,
            generation,
        }
    }

    /// Returns the slot of the connection. Slots are small numbers, fit for indexing a table; a slot
    /// is reused once its connection is gone.
    pub const fn slot(self) -> u32 {
        self.index
    }

    /// Returns the generation, which increases (and wraps around) each time the slot is reused.
    pub const fn generation(self) -> u32 {
        self.generation
    }

    /// Returns the key as one number, for epoll's user data and for request ids.
    pub fn to_u64(self) -> u64 {
        (u64::from(self.generation) << 32) | u64::from(self.index)
    }

    /// Converts a number from [`ConnKey::to_u64`] back; `None` if its generation is 0.
    pub fn from_u64(number: u64) -> Option<Self> {
        let generation = (number >> 32) as u32;
        let index = number as u32;
        (generation != 0).then_some(ConnKey { index, generation })
    }
}

impl fmt::Debug for ConnKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}.{}", self.index, self.generation)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_round_trips_through_a_token() {
        let key = ConnKey {
            index: u32::MAX,
            generation: 1,
        };
        assert_eq!(ConnKey::from_u64(key.to_u64()), Some(key));
        assert_eq!(ConnKey::from_u64(7), None, "generation 0 is the reactor's");
    }

    #[test]
    fn key_is_its_slot_and_generation() {
        let key = ConnKey::new(7, 3);
        assert_eq!((key.slot(), key.generation()), (7, 3));
        assert_eq!(format!("{key:?}"), "#7.3");
    }
}
