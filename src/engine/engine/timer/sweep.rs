//! Removal of stale entries from the timer wheel, in steps of bounded work.
//!
//! Owns: the progress through the slots. Must not know: why entries are stale.

use super::{SLOTS, Timers, Wheel, is_scheduled_in};

/// The progress through the slots of the wheel.
#[derive(Default)]
pub(super) struct Sweep {
    slot: usize,
    /// The number of entries at the beginning of the slot's list that have been examined and kept.
    kept: usize,
    /// One bit per connection, set for those entries: a timer that was disarmed and armed again can have
    /// two entries in the same slot.
    seen: Vec<u64>,
}

impl Wheel {
    /// Removes stale entries when they are the majority, so that the number of entries stays
    /// proportional to the number of connections. Examines at most [`SWEPT`] entries.
    #[inline]
    pub(crate) fn tidy(&mut self, timers: &mut impl Timers) {
        if self.is_mostly_stale() {
            self.sweep(timers);
        } else if self.entries <= SLACK && self.sweep.seen.capacity() > 0 {
            // The memory is proportional to the number of connections that there have been.
            self.sweep = Sweep::default();
        }
    }

    fn is_mostly_stale(&self) -> bool {
        self.entries > 2 * self.armed + SLACK
    }

    #[inline(never)]
    fn sweep(&mut self, timers: &mut impl Timers) {
        if self.due.is_empty() {
            self.gather();
        }
        let before = self.due.len();
        self.due.retain(|&index| {
            let timer = timers.timer(index);
            timer.is_some_and(|timer| timer.scheduled_at <= self.now)
        });
        self.entries -= before - self.due.len();
        let mut budget = SWEPT.saturating_sub(before);
        for _ in 0..SLOTS {
            if !self.sweep_slot(timers, &mut budget) {
                break;
            }
        }
    }

    /// Examines the rest of a slot. Returns false if the budget was not sufficient.
    fn sweep_slot(&mut self, timers: &mut impl Timers, budget: &mut usize) -> bool {
        let slot = self.sweep.slot;
        let list = &mut self.slots[slot];
        while let Some(&index) = list.get(self.sweep.kept) {
            if *budget == 0 {
                return false;
            }
            *budget -= 1;
            let is_valid = timers
                .timer(index)
                .is_some_and(|timer| is_scheduled_in(slot, timer.scheduled_at, self.now));
            if is_valid && self.sweep.mark(index) {
                self.sweep.kept += 1;
            } else {
                list.swap_remove(self.sweep.kept);
                self.entries -= 1;
            }
        }
        if list.capacity() > 4 * list.len() {
            list.shrink_to(2 * list.len());
        }
        self.sweep.unmark(list);
        self.sweep.kept = 0;
        self.sweep.slot = (slot + 1) % SLOTS;
        true
    }
}

impl Sweep {
    /// Called when the list of a slot has been taken.
    pub(super) fn on_taken(&mut self, slot: usize) {
        if slot == self.slot {
            self.restart();
        }
    }

    /// Forgets the progress in the current slot.
    fn restart(&mut self) {
        self.kept = 0;
        self.seen.clear();
    }

    /// Returns whether an entry is the first one of its connection in this slot.
    fn mark(&mut self, index: u32) -> bool {
        let (word, bit) = (index as usize / WORD, 1 << (index as usize % WORD));
        if self.seen.len() <= word {
            self.seen.resize(word + 1, 0);
        }
        let is_first = self.seen[word] & bit == 0;
        self.seen[word] |= bit;
        is_first
    }

    /// Forgets the entries of a slot.
    fn unmark(&mut self, list: &[u32]) {
        if list.len() > self.seen.len() {
            self.seen.fill(0);
        } else {
            list.iter()
                .for_each(|index| self.seen[*index as usize / WORD] = 0);
        }
    }
}

const WORD: usize = u64::BITS as usize;
/// Entries that a sweep examines in a turn: less than 1 ms of cache misses.
const SWEPT: usize = 8192;
/// Stale entries that are tolerated in any case.
pub(super) const SLACK: usize = 1024;

#[cfg(test)]
mod tests {
    use super::super::tests::{Entries, take_all};
    use super::super::{Tick, Timer};
    use super::*;

    /// Returns a wheel in which each of these connections has been armed and disarmed `times` times for
    /// the same tick, and armed once more.
    fn duplicates(connections: u32, times: usize, tick: Tick) -> (Wheel, Entries) {
        let mut wheel = Wheel::new(0);
        let mut entries = Entries(vec![Some(Timer::unarmed()); connections as usize]);
        for _ in 0..times {
            (0..connections).for_each(|index| entries.arm(&mut wheel, index, tick));
            (0..connections).for_each(|index| entries.disarm(&mut wheel, index));
        }
        (0..connections).for_each(|index| entries.arm(&mut wheel, index, tick));
        (wheel, entries)
    }

    #[test]
    fn long_list_is_swept_in_steps_without_losing_a_timer() {
        let connections = 2 * SWEPT as u32;
        let (mut wheel, mut entries) = duplicates(connections, 3, 50);
        let mut steps = 0;
        while wheel.is_mostly_stale() {
            let before = wheel.entries;
            wheel.tidy(&mut entries);
            assert!(before - wheel.entries <= SWEPT, "too much work in a step");
            // Timers change meanwhile.
            entries.disarm(&mut wheel, steps);
            entries.arm(&mut wheel, steps, 50);
            entries.disarm(&mut wheel, connections - 1 - steps);
            steps += 1;
            assert!(steps < 100, "{} entries remain", wheel.entries);
        }
        assert!(steps > 4, "{steps} steps");
        let want: Vec<u32> = (0..connections - steps).collect();
        let mut fired = take_all(&mut wheel, &mut entries, 50);
        fired.sort_unstable();
        assert_eq!(fired, want);
    }

    #[test]
    fn slot_that_becomes_due_during_its_sweep_fires_all_timers() {
        let connections = 2 * SWEPT as u32;
        let (mut wheel, mut entries) = duplicates(connections, 3, 1);
        wheel.tidy(&mut entries);
        wheel.tidy(&mut entries);
        assert!(wheel.sweep.kept > 0 && wheel.is_mostly_stale());
        let fired = take_all(&mut wheel, &mut entries, 1);
        assert_eq!(fired.len(), connections as usize);
        // The same slot, a round later.
        let tick = 1 + SLOTS as Tick;
        wheel.advance(2);
        (0..connections).for_each(|index| entries.arm(&mut wheel, index, tick));
        wheel.tidy(&mut entries);
        let fired = take_all(&mut wheel, &mut entries, tick);
        assert_eq!(fired.len(), connections as usize);
    }

    #[test]
    fn memory_of_a_sweep_is_released() {
        let count = 3 * SLACK as u32;
        let (mut wheel, mut entries) = duplicates(count, 3, 50);
        while wheel.is_mostly_stale() {
            wheel.tidy(&mut entries);
        }
        assert!(wheel.entries <= 2 * wheel.armed + SLACK);
        assert!(wheel.slots[50].capacity() <= 4 * wheel.slots[50].len());
        (0..count).for_each(|index| entries.disarm(&mut wheel, index));
        for _ in 0..3 {
            wheel.tidy(&mut entries);
        }
        assert_eq!((wheel.entries, wheel.sweep.seen.capacity()), (0, 0));
        assert_eq!(wheel.slots[50].capacity(), 0);
    }

    #[test]
    fn memory_of_an_interrupted_sweep_is_released() {
        let connections = 4 * SWEPT as u32;
        let (mut wheel, mut entries) = duplicates(connections, 3, 1);
        wheel.tidy(&mut entries);
        wheel.tidy(&mut entries);
        take_all(&mut wheel, &mut entries, 1);
        for _ in 0..10 {
            wheel.tidy(&mut entries);
        }
        assert_eq!(wheel.entries, 0);
        assert_eq!(wheel.sweep.seen.capacity(), 0);
    }

    #[test]
    fn sweep_keeps_and_counts_due_entries() {
        let count = 3 * SLACK as u32;
        let (mut wheel, mut e) = duplicates(count, 0, 1);
        wheel.advance(1);
        (100..count).for_each(|index| e.disarm(&mut wheel, index));
        // Due entries are swept in parts, too.
        for _ in 0..3 {
            wheel.tidy(&mut e);
        }
        assert!(wheel.entries <= 2 * 100 + SLACK, "{}", wheel.entries);
        let left = wheel.due.len()
            + wheel
                .coming
                .iter()
                .map(|(_, list)| list.len())
                .sum::<usize>();
        assert_eq!(wheel.entries, left);
        assert_eq!(take_all(&mut wheel, &mut e, 1), Vec::from_iter(0..100));
    }
}
