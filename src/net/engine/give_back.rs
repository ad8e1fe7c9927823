//! What a crowd leaves behind: tables keep the size that they once had.
//!
//! Owns nothing. It looks at what the engine holds besides connections, which give back their
//! own memory when they become idle and when they end.

use super::super::handler::Handler;
use super::super::socket::Socket;
use super::Engine;

impl<S: Socket, H: Handler> Engine<S, H> {
    /// Gives back the memory of tables that could hold far more than they do. It is done at
    /// every tick, and a table that grows again does so by doubling: however a crowd swings,
    /// that costs less than to serve it.
    pub(super) fn give_back(&mut self) {
        self.run.shrink_next();
        if let Some(enough) = enough(self.dirty.len(), self.dirty.capacity()) {
            self.dirty.shrink_to(enough);
        }
        if let Some(enough) = enough(self.ended.len(), self.ended.capacity()) {
            self.ended.shrink_to(enough);
        }
        if let Some(enough) = enough(self.per_ip.len(), self.per_ip.capacity()) {
            self.per_ip.shrink_to(enough);
        }
        if let Some(enough) = enough(self.counted_ips.len(), self.counted_ips.capacity()) {
            self.counted_ips.shrink_to(enough);
        }
        self.give_back_places();
        self.fan_out.give_back(&mut self.counters.held);
    }
}

/// The capacity that a table should have; `None` while what it has is not too much.
#[inline]
pub(super) fn enough(len: usize, capacity: usize) -> Option<usize> {
    enough_above(KEPT_CAPACITY, len, capacity)
}

/// The same for a table that keeps memory for so many entries.
#[inline]
pub(super) fn enough_above(kept: usize, len: usize, capacity: usize) -> Option<usize> {
    if capacity <= 2 * kept {
        return None;
    }
    let enough = (2 * len).max(kept);
    (capacity > 2 * enough).then_some(enough)
}

/// Entries beyond those that even an empty table may keep, which the ledger does not count.
pub(super) fn beyond_kept(kept: usize, capacity: usize) -> usize {
    capacity.saturating_sub(2 * kept)
}

/// Entries with memory that is kept for the next ones.
pub(super) const KEPT_CAPACITY: usize = 256;
