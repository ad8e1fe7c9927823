//! Deadlines for the expiry of tokens and for closing connections with ended credentials.
//!
//! Owns: the order of deadlines, and the detection of wall-clock steps. Must not know: whether a
//! connection still exists. An entry may outlive its connection, so the caller must check each key.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::net::{ConnKey, Now};

/// Connections by deadline on one clock, in milliseconds.
#[derive(Default)]
pub(super) struct Deadlines {
    heap: BinaryHeap<Reverse<(u64, ConnKey)>>,
}

impl Deadlines {
    /// Adds a deadline.
    pub(super) fn push(&mut self, at: u64, key: ConnKey) {
        self.heap.push(Reverse((at, key)));
    }

    /// Removes the earliest deadline if it is due.
    pub(super) fn pop_due(&mut self, now: u64) -> Option<ConnKey> {
        let Reverse((at, key)) = *self.heap.peek()?;
        if at > now {
            return None;
        }
        self.heap.pop();
        Some(key)
    }

    /// Returns the number of pending deadlines.
    pub(super) fn len(&self) -> usize {
        self.heap.len()
    }

    /// Drops the entries for which `keeps` returns false, and their memory.
    pub(super) fn retain(&mut self, mut keeps: impl FnMut(ConnKey) -> bool) {
        self.heap.retain(|Reverse((_, key))| keeps(*key));
        self.heap.shrink_to_fit();
    }
}

impl FromIterator<(u64, ConnKey)> for Deadlines {
    fn from_iter<I: IntoIterator<Item = (u64, ConnKey)>>(entries: I) -> Self {
        Deadlines {
            heap: entries.into_iter().map(Reverse).collect(),
        }
    }
}

/// Detects forward steps of the wall clock. Without a step, its lead over the monotonic clock stays
/// constant, up to a millisecond of rounding.
pub(super) struct WallClock {
    /// The smallest lead since the last detected step.
    lead: i64,
}

impl WallClock {
    /// Records the clocks at a moment after which a step matters.
    pub(super) fn record(&mut self, now: Now) {
        self.lead = self.lead.min(lead(now));
    }

    /// Returns whether the wall clock has gained [`STEP`] or more since an earlier call, and
    /// reports each gain once. A resume after a suspend looks like such a step.
    pub(super) fn has_stepped_forward(&mut self, now: Now) -> bool {
        let has_stepped = lead(now).saturating_sub(self.lead) >= STEP;
        if has_stepped {
            self.lead = lead(now);
        }
        self.record(now);
        has_stepped
    }
}

fn lead(now: Now) -> i64 {
    let (unix, mono) = (now.unix.cast_signed(), now.mono.cast_signed());
    unix.saturating_sub(mono)
}

impl Default for WallClock {
    fn default() -> Self {
        WallClock { lead: i64::MAX }
    }
}

/// The gain of the wall clock, in milliseconds, above which its deadlines are checked separately.
const STEP: i64 = 1000;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::realtime::testing::key;

    #[test]
    fn earliest_deadline_first_and_none_early() {
        let mut deadlines: Deadlines = [(30, key(3)), (10, key(1))].into_iter().collect();
        deadlines.push(20, key(2));
        assert_eq!(deadlines.pop_due(9), None);
        assert_eq!(deadlines.pop_due(20), Some(key(1)));
        assert_eq!(deadlines.pop_due(20), Some(key(2)));
        assert_eq!(deadlines.pop_due(20), None);
        assert_eq!(deadlines.len(), 1);
        deadlines.retain(|key| key.slot() != 3);
        assert_eq!(deadlines.len(), 0);
    }

    #[test]
    fn only_a_gain_of_one_second_is_a_forward_step() {
        let mut clock = WallClock::default();
        let mut at = |mono, unix| clock.has_stepped_forward(Now { mono, unix });
        assert!(!at(0, 50_000));
        // Rounding, and a slewed clock.
        assert!(!at(10, 50_011) && !at(500, 50_499) && !at(1000, 51_900));
        assert!(at(2000, 53_000), "a second in all");
        assert!(!at(3000, 54_000), "once");
        assert!(!at(4000, 5_000), "a step back");
        assert!(!at(5000, 6_999));
        assert!(at(5000, 7_000));
    }
}
