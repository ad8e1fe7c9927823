//! The name of a connection, which outlives the connection.

use std::fmt;

/// Names one connection for ever: its place in the arena and the generation of that place.
///
/// Every readiness event, timer, back-end answer and delivery carries the key, and a key whose
/// generation is not the slot's own finds nothing. So whatever arrives late for a connection
/// that is gone cannot reach the one that has its place now.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnKey {
    /// First, so that keys sort by place in the arena.
    pub(crate) index: u32,
    /// Never 0: tokens below 2^32 are the reactor's own (listeners, waker).
    pub(crate) generation: u32,
}

impl ConnKey {
    /// The key as one number, for epoll's user data and for tickets.
    pub fn to_u64(self) -> u64 {
        (u64::from(self.generation) << 32) | u64::from(self.index)
    }

    /// The key that [`ConnKey::to_u64`] made this number of; `None` where generation is 0.
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
    fn a_key_survives_the_journey_through_a_token() {
        let key = ConnKey {
            index: u32::MAX,
            generation: 1,
        };
        assert_eq!(ConnKey::from_u64(key.to_u64()), Some(key));
        assert_eq!(ConnKey::from_u64(7), None, "generation 0 is the reactor's");
    }
}
