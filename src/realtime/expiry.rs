//! When tokens end.
//!
//! Owns: an order of moments. Must not know whether a connection still exists: an entry may
//! outlive it, and whoever takes one out has to look.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::model::UnixMillis;
use crate::net::ConnKey;

/// Connections by the moment when something about them ends.
#[derive(Default)]
pub struct Expiries {
    heap: BinaryHeap<Reverse<(UnixMillis, ConnKey)>>,
}

impl Expiries {
    /// Adds a moment.
    pub fn push(&mut self, at: UnixMillis, key: ConnKey) {
        self.heap.push(Reverse((at, key)));
    }

    /// Takes out one whose moment has come, the earliest first.
    pub fn pop_due(&mut self, now: UnixMillis) -> Option<ConnKey> {
        let Reverse((at, key)) = *self.heap.peek()?;
        if at > now {
            return None;
        }
        self.heap.pop();
        Some(key)
    }

    /// Moments that have not come.
    pub fn len(&self) -> usize {
        self.heap.len()
    }
}

impl FromIterator<(UnixMillis, ConnKey)> for Expiries {
    fn from_iter<I: IntoIterator<Item = (UnixMillis, ConnKey)>>(entries: I) -> Self {
        Expiries {
            heap: entries.into_iter().map(Reverse).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::realtime::testing::key;

    #[test]
    fn the_earliest_first_and_none_too_early() {
        let mut expiries: Expiries = [(30, key(3)), (10, key(1))].into_iter().collect();
        expiries.push(20, key(2));
        assert_eq!(expiries.pop_due(9), None);
        assert_eq!(expiries.pop_due(20), Some(key(1)));
        assert_eq!(expiries.pop_due(20), Some(key(2)));
        assert_eq!(expiries.pop_due(20), None);
        assert_eq!(expiries.len(), 1);
    }
}
