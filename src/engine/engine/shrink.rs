//! Shrinks tables that a load peak has enlarged.
//!
//! Owns nothing. It covers the engine's state other than connections, which free their own memory
//! when they become idle and when they end.

use super::Engine;
use crate::handler::Handler;
use crate::io::socket::Socket;

impl<S: Socket, H: Handler> Engine<S, H> {
    /// Shrinks tables whose capacity far exceeds their length. It runs at every tick, and tables
    /// grow by doubling, so that shrinking and regrowing costs less than serving the connections
    /// that cause it.
    pub(super) fn shrink(&mut self) {
        self.run.shrink_next();
        if let Some(target) = shrink_target(self.dirty.len(), self.dirty.capacity()) {
            self.dirty.shrink_to(target);
        }
        if let Some(target) = shrink_target(self.ended.len(), self.ended.capacity()) {
            self.ended.shrink_to(target);
        }
        if let Some(target) = shrink_target(self.per_ip.len(), self.per_ip.capacity()) {
            self.per_ip.shrink_to(target);
        }
        if let Some(target) = shrink_target(self.counted_ips.len(), self.counted_ips.capacity()) {
            self.counted_ips.shrink_to(target);
        }
        self.shrink_pools();
        self.fan_out.shrink(&mut self.counters.ledger);
    }
}

/// Returns the capacity to shrink a table to, or `None` if its capacity is not excessive.
#[inline]
pub(super) fn shrink_target(len: usize, capacity: usize) -> Option<usize> {
    shrink_target_above(KEPT_CAPACITY, len, capacity)
}

/// Like [`shrink_target`], for a table that keeps memory for `kept` entries.
#[inline]
pub(super) fn shrink_target_above(kept: usize, len: usize, capacity: usize) -> Option<usize> {
    if capacity <= 2 * kept {
        return None;
    }
    let target = (2 * len).max(kept);
    (capacity > 2 * target).then_some(target)
}

/// Returns the capacity beyond that which even an empty table may keep. Only this part is counted
/// in the ledger.
pub(super) fn beyond_kept(kept: usize, capacity: usize) -> usize {
    capacity.saturating_sub(2 * kept)
}

/// Entries for which a table always keeps memory.
pub(super) const KEPT_CAPACITY: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_capacity_of_more_than_four_times_the_entries_is_shrunk() {
        for (len, capacity, target) in [
            (0, 20, None),
            (0, 21, Some(10)),
            (5, 21, Some(10)),
            (6, 24, None),
            (6, 25, Some(12)),
            (20, 80, None),
            (20, 81, Some(40)),
            (100, 100, None),
        ] {
            let shrunk = shrink_target_above(10, len, capacity);
            assert_eq!(shrunk, target, "{len} of {capacity}");
        }
        let twice = 2 * KEPT_CAPACITY;
        assert_eq!(shrink_target(0, twice), None);
        assert_eq!(shrink_target(0, twice + 1), Some(KEPT_CAPACITY));
    }

    #[test]
    fn capacity_that_is_always_kept_does_not_count() {
        let beyond = [0, 19, 20, 21, 50].map(|capacity| beyond_kept(10, capacity));
        assert_eq!(beyond, [0, 0, 0, 1, 30]);
    }
}
