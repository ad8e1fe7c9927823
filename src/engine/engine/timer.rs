//! Deadlines: a hashed timer wheel of connection indices with lazy rescheduling.
//!
//! Most deadlines are postponed before they expire. Postponing one only updates the timer stored in
//! the connection: its entry stays in its slot, and is rescheduled when that tick is reached. Thus,
//! arming a timer touches no other connection, and the entries of a slot are contiguous in memory.

use std::collections::VecDeque;
use std::{array, mem};

use sweep::Sweep;

/// The only timer of a connection, stored in the connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Timer {
    deadline: Tick,
    /// The tick of the valid entry: the deadline, or earlier.
    scheduled_at: Tick,
}

/// Time in ticks of [`TICK_MS`]. Deadlines are rounded up.
pub(crate) type Tick = u32;

/// Milliseconds per tick. Deadlines are in the order of seconds, and no connection may be dropped
/// early.
pub(crate) const TICK_MS: u64 = 100;

/// Returns the first tick at or after a time.
pub(crate) fn tick_at(mono_ms: u64) -> Tick {
    mono_ms.div_ceil(TICK_MS) as Tick
}

/// Access to the timers.
pub(crate) trait Timers {
    /// Returns the timer of a connection, or `None` if there is no such connection.
    fn timer(&mut self, index: u32) -> Option<&mut Timer>;
}

impl Timer {
    pub(crate) const fn unarmed() -> Self {
        Timer {
            deadline: NEVER,
            scheduled_at: NEVER,
        }
    }

    /// Returns the deadline, if the timer is armed.
    pub(crate) fn deadline(&self) -> Option<Tick> {
        self.is_armed().then_some(self.deadline)
    }

    fn is_armed(&self) -> bool {
        self.scheduled_at != NEVER
    }
}

/// The wheel. Each armed timer has an entry in the slot of a tick no later than its deadline, or
/// among the due entries. Stale entries may exist as well: they are skipped when their tick is
/// reached, and swept when there are too many.
pub(crate) struct Wheel {
    slots: [Vec<u32>; SLOTS],
    /// One bit per slot, set if it has entries.
    occupied: [u64; WORDS],
    /// Entries that are due, in descending order.
    due: Vec<u32>,
    /// The latest tick of those.
    due_tick: Tick,
    /// The other due entries, by tick. No list is empty.
    coming: VecDeque<(Tick, Vec<u32>)>,
    /// The total number of entries.
    entries: usize,
    /// The number of armed timers.
    armed: usize,
    /// The last tick that has been processed.
    now: Tick,
    sweep: Sweep,
}

impl Wheel {
    pub(crate) fn new(now: Tick) -> Self {
        Wheel {
            slots: array::from_fn(|_| Vec::new()),
            occupied: [0; WORDS],
            due: Vec::new(),
            due_tick: now,
            coming: VecDeque::new(),
            entries: 0,
            armed: 0,
            now,
            sweep: Sweep::default(),
        }
    }

    /// Arms the timer of a connection, replacing its deadline.
    pub(crate) fn arm(&mut self, timer: &mut Timer, index: u32, deadline: Tick) {
        self.armed += usize::from(!timer.is_armed());
        // A deadline in the past expires at the next tick.
        timer.deadline = deadline.max(self.now + 1);
        if timer.scheduled_at > timer.deadline {
            self.schedule(timer, index);
            self.entries += 1;
        }
    }

    /// Disarms a timer, if it is armed.
    pub(crate) fn disarm(&mut self, timer: &mut Timer) {
        self.armed -= usize::from(timer.is_armed());
        *timer = Timer::unarmed();
    }

    /// Advances to `now`. Expired timers can then be taken. Each slot is visited at most once, even
    /// if the clock jumps.
    #[inline]
    pub(crate) fn advance(&mut self, now: Tick) {
        if now > self.now {
            self.advance_to(now);
        }
    }

    #[inline(never)]
    fn advance_to(&mut self, now: Tick) {
        let steps = (now - self.now).min(SLOTS as Tick);
        self.now = now;
        // The usual case needs no queue.
        let is_alone = steps == 1 && !self.has_due();
        for tick in self.now - steps + 1..=self.now {
            let slot = tick as usize % SLOTS;
            self.occupied[slot / 64] &= !(1 << (slot % 64));
            let entries = mem::take(&mut self.slots[slot]);
            self.sweep.on_taken(slot);
            if entries.is_empty() {
                continue;
            }
            if is_alone && entries.len() <= SORTED {
                (self.due, self.due_tick) = (entries, tick);
                self.sort_due();
            } else {
                self.coming.push_back((tick, entries));
            }
        }
    }

    /// Returns whether any entry is due.
    pub(crate) fn has_due(&self) -> bool {
        !self.due.is_empty() || !self.coming.is_empty()
    }

    /// Returns whether entries of an earlier tick are still due although later ones have followed.
    pub(crate) fn is_behind(&self) -> bool {
        let earliest = match (self.due.is_empty(), self.coming.front()) {
            (false, _) => self.due_tick,
            (true, Some((tick, _))) => *tick,
            (true, None) => return false,
        };
        let latest = self.coming.back();
        latest.is_some_and(|(tick, _)| *tick > earliest)
    }

    /// Processes a batch of due entries: disarms expired timers, and appends their indices to
    /// `out`. Returns the number of entries, some of which may be stale or postponed.
    ///
    /// Indices are processed in memory order, as are the reads and writes that follow. Batching
    /// lets the processor overlap the cache misses of several timers.
    pub(crate) fn take_due(&mut self, timers: &mut impl Timers, out: &mut Vec<u32>) -> usize {
        if self.due.is_empty() {
            self.gather();
        }
        let rest = self.due.len().saturating_sub(BATCH);
        let examined = self.due.len() - rest;
        let mut gone = examined;
        while self.due.len() > rest
            && let Some(index) = self.due.pop()
        {
            let Some(timer) = timers.timer(index) else {
                continue;
            };
            if timer.deadline <= self.now {
                self.disarm(timer);
                out.push(index);
            } else if timer.scheduled_at <= self.now {
                self.schedule(timer, index);
                gone -= 1;
            }
        }
        self.entries -= gone;
        if self.due.is_empty() {
            // Do not keep the memory of a peak.
            self.due = Vec::new();
        }
        examined
    }

    /// Moves entries of the earliest ticks to `due`, which must be empty, and sorts them. Their number is
    /// limited, so that the sort takes a bounded time after a jump of the clock.
    fn gather(&mut self) {
        while let Some((tick, list)) = self.coming.front_mut() {
            self.due_tick = *tick;
            let rest = (self.due.len() + list.len()).saturating_sub(SORTED);
            if rest > 0 {
                self.due.extend(list.drain(rest..));
                break;
            }
            match self.due.is_empty() {
                true => self.due = mem::take(list),
                false => self.due.append(list),
            }
            self.coming.pop_front();
        }
        self.sort_due();
    }

    fn sort_due(&mut self) {
        // The list consists of a few sorted runs, which the stable sort exploits.
        self.due.sort();
        self.due.reverse();
    }

    /// Returns the next tick at which to advance, or `None` if there are no entries.
    pub(crate) fn next_tick(&self) -> Option<Tick> {
        if self.has_due() {
            return Some(self.now);
        }
        let first = (self.now as usize + 1) % SLOTS;
        // Scans the bitmap once around, word by word; the low bits of the first word come last.
        (0..=WORDS)
            .find_map(|word| {
                let at = (first / 64 + word) % WORDS;
                let mask = match word {
                    0 => u64::MAX << (first % 64),
                    WORDS => !(u64::MAX << (first % 64)),
                    _ => u64::MAX,
                };
                let bits = self.occupied[at] & mask;
                (bits != 0).then(|| at * 64 + bits.trailing_zeros() as usize)
            })
            .map(|slot| self.now + 1 + ((slot + SLOTS - first) % SLOTS) as Tick)
    }

    /// Adds an entry at the timer's deadline, or at the horizon if that is earlier. The caller
    /// updates the count.
    fn schedule(&mut self, timer: &mut Timer, index: u32) {
        timer.scheduled_at = timer.deadline.min(self.now + HORIZON);
        let slot = timer.scheduled_at as usize % SLOTS;
        self.occupied[slot / 64] |= 1 << (slot % 64);
        self.slots[slot].push(index);
    }
}

/// Returns whether an entry at this tick belongs to this slot.
fn is_scheduled_in(slot: usize, scheduled_at: Tick, now: Tick) -> bool {
    scheduled_at > now && scheduled_at != NEVER && scheduled_at as usize % SLOTS == slot
}

/// A round of 51.2 s: longer than any deadline of the default configuration.
const SLOTS: usize = 512;
const WORDS: usize = SLOTS / 64;
/// How many ticks ahead an entry is scheduled at most.
const HORIZON: Tick = SLOTS as Tick - 1;
/// Entries processed together: about as many as the processor's outstanding memory accesses.
const BATCH: usize = 16;
/// Entries that are sorted together.
const SORTED: usize = 1024;
/// The tick of a timer that is not armed.
const NEVER: Tick = Tick::MAX;

// benches/micro includes this file in another place.
#[path = "timer/sweep.rs"]
mod sweep;
#[path = "timer/verify.rs"]
mod verify;

#[cfg(test)]
mod tests {
    use super::sweep::SLACK;
    use super::*;

    pub(super) struct Entries(pub(super) Vec<Option<Timer>>);

    impl Timers for Entries {
        fn timer(&mut self, index: u32) -> Option<&mut Timer> {
            self.0.get_mut(index as usize)?.as_mut()
        }
    }

    impl Entries {
        pub(super) fn arm(&mut self, wheel: &mut Wheel, index: u32, deadline: Tick) {
            wheel.arm(self.timer(index).unwrap(), index, deadline);
        }

        pub(super) fn disarm(&mut self, wheel: &mut Wheel, index: u32) {
            wheel.disarm(self.timer(index).unwrap());
        }
    }

    fn entries(count: usize) -> Entries {
        Entries(vec![Some(Timer::unarmed()); count])
    }

    pub(super) fn take_all(wheel: &mut Wheel, entries: &mut Entries, now: Tick) -> Vec<u32> {
        wheel.advance(now);
        let mut due = Vec::new();
        while wheel.has_due() {
            wheel.take_due(entries, &mut due);
        }
        let armed = entries.0.iter().flatten().filter(|t| t.is_armed()).count();
        let verified = wheel.verify(|index| entries.0.get(index as usize).copied().flatten());
        assert_eq!(verified, Ok(armed));
        due
    }

    #[test]
    fn timers_expire_at_their_tick_in_index_order() {
        let (mut wheel, mut e) = (Wheel::new(0), entries(5));
        e.arm(&mut wheel, 1, 5);
        e.arm(&mut wheel, 4, 5);
        e.arm(&mut wheel, 0, 5);
        e.arm(&mut wheel, 2, 5 + SLOTS as Tick);
        e.arm(&mut wheel, 3, 7);
        assert_eq!(wheel.next_tick(), Some(5));
        assert!(take_all(&mut wheel, &mut e, 4).is_empty());
        assert_eq!(take_all(&mut wheel, &mut e, 5), [0, 1, 4]);
        e.disarm(&mut wheel, 3);
        assert!(take_all(&mut wheel, &mut e, 100).is_empty());
        assert!(take_all(&mut wheel, &mut e, 4 + SLOTS as Tick).is_empty());
        assert_eq!(take_all(&mut wheel, &mut e, 5 + SLOTS as Tick), [2]);
        assert_eq!(wheel.next_tick(), None);
    }

    // W19
    #[test]
    fn clock_jump_expires_each_timer_once() {
        let (mut wheel, mut e) = (Wheel::new(0), entries(1000));
        (0..1000).for_each(|index| e.arm(&mut wheel, index, 1 + index * 3));
        assert_eq!(take_all(&mut wheel, &mut e, 36_000).len(), 1000);
        assert!(take_all(&mut wheel, &mut e, 72_000).is_empty());
    }

    #[test]
    fn postponed_timer_keeps_its_entry_until_its_tick() {
        let (mut wheel, mut e) = (Wheel::new(0), entries(1));
        e.arm(&mut wheel, 0, 10);
        for deadline in 10..1000 {
            e.arm(&mut wheel, 0, deadline);
        }
        assert_eq!(wheel.entries, 1);
        assert_eq!(wheel.next_tick(), Some(10));
        assert!(take_all(&mut wheel, &mut e, 998).is_empty());
        assert_eq!(take_all(&mut wheel, &mut e, 999), [0]);
    }

    #[test]
    fn next_tick_is_found_in_every_slot() {
        for now in [0, 1, 62, 63, 70, 1000] {
            for ahead in 1..=HORIZON {
                let (mut wheel, mut e) = (Wheel::new(now), entries(1));
                e.arm(&mut wheel, 0, now + ahead);
                assert_eq!(wheel.next_tick(), Some(now + ahead));
            }
        }
    }

    #[test]
    fn due_timer_can_be_disarmed_and_rearmed() {
        let (mut wheel, mut e) = (Wheel::new(0), entries(3));
        (0..3).for_each(|index| e.arm(&mut wheel, index, 2));
        wheel.advance(2);
        e.disarm(&mut wheel, 1);
        e.arm(&mut wheel, 0, 1);
        assert_eq!(take_all(&mut wheel, &mut e, 2), [2]);
        // A past deadline is the next tick.
        assert_eq!(take_all(&mut wheel, &mut e, 3), [0]);
    }

    #[test]
    fn earlier_due_timers_are_taken_first() {
        let (mut wheel, mut e) = (Wheel::new(0), entries(100));
        (0..50).for_each(|index| e.arm(&mut wheel, index, 2));
        (50..100).for_each(|index| e.arm(&mut wheel, index, 1));
        let mut due = Vec::new();
        wheel.advance(1);
        wheel.take_due(&mut e, &mut due);
        assert!(wheel.has_due() && !wheel.is_behind());
        wheel.advance(2);
        assert!(wheel.is_behind());
        while wheel.has_due() {
            wheel.take_due(&mut e, &mut due);
        }
        assert_eq!(due, (50..100).chain(0..50).collect::<Vec<_>>());
    }

    #[test]
    fn wheel_is_behind_after_a_full_part_of_a_list() {
        let count = 2 * SORTED as u32;
        let (mut wheel, mut e) = (Wheel::new(0), entries(count as usize + 2));
        (0..count).for_each(|index| e.arm(&mut wheel, index, 1));
        e.arm(&mut wheel, count, 2);
        wheel.advance(1);
        let (mut due, mut examined) = (Vec::new(), 0);
        while examined < SORTED {
            examined += wheel.take_due(&mut e, &mut due);
        }
        wheel.advance(2);
        // A thousand timers of tick 1 are still due, and one of tick 2 has followed.
        assert_eq!(due.len(), SORTED);
        assert!(wheel.is_behind());
    }

    #[test]
    fn many_due_entries_are_sorted_in_parts() {
        let count = 5 * SORTED as u32 / 2;
        let (mut wheel, mut e) = (Wheel::new(0), entries(count as usize));
        (0..count).for_each(|index| e.arm(&mut wheel, index, 1 + index % 3));
        wheel.advance(3);
        let mut due = Vec::new();
        let mut examined = 0;
        while wheel.has_due() {
            examined += wheel.take_due(&mut e, &mut due);
            assert!(wheel.due.len() < SORTED);
            assert_eq!(wheel.is_behind(), due.len() <= SORTED);
        }
        assert_eq!(examined, count as usize);
        for part in due.chunks(SORTED) {
            assert!(part.is_sorted());
        }
        due.sort_unstable();
        assert!(due.into_iter().eq(0..count));
    }

    #[test]
    fn stale_entries_are_bounded_by_armed_timers() {
        let (mut wheel, mut e) = (Wheel::new(0), entries(10_000));
        for round in 0..100 {
            for index in 0..10_000 {
                e.arm(&mut wheel, index, 100 + round % 7);
                // A turn arms a few hundred timers.
                if index % 256 == 0 {
                    wheel.tidy(&mut e);
                }
            }
            wheel.tidy(&mut e);
            assert!(wheel.entries <= 2 * 10_000 + SLACK, "{}", wheel.entries);
            e.0.fill(Some(Timer::unarmed()));
            wheel.armed = 0;
        }
        e.0.fill(None);
        for _ in 0..4 {
            wheel.tidy(&mut e);
        }
        assert_eq!(wheel.entries, 0);
        assert!(take_all(&mut wheel, &mut e, 200).is_empty());
    }

    // CVE-2026-79677
    #[test]
    fn matches_a_sorted_list_model() {
        let (mut wheel, mut e) = (Wheel::new(0), entries(200));
        let mut naive: Vec<Option<Tick>> = vec![None; 200];
        let (mut seed, mut now) = (1_u64, 0);
        for _ in 0..20_000 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let index = (seed >> 33) as u32 % 200;
            match (seed >> 20) % 4 {
                0 | 1 => {
                    let deadline = now + (seed >> 45) as Tick % 2000;
                    e.arm(&mut wheel, index, deadline);
                    naive[index as usize] = Some(deadline.max(now + 1));
                }
                2 => {
                    e.disarm(&mut wheel, index);
                    naive[index as usize] = None;
                }
                _ => {
                    now += (seed >> 50) as Tick % 40;
                    let want: Vec<u32> = (0..200)
                        .filter(|&i| naive[i as usize].is_some_and(|d| d <= now))
                        .collect();
                    let mut got = take_all(&mut wheel, &mut e, now);
                    got.sort_unstable();
                    assert_eq!(got, want);
                    want.iter().for_each(|&i| naive[i as usize] = None);
                }
            }
            let soonest = naive.iter().flatten().min();
            assert!(soonest.is_none() || wheel.next_tick().is_some());
            assert!(soonest.is_none() || wheel.next_tick() <= soonest.copied());
            let naive_slot = (1..=SLOTS as Tick)
                .map(|ahead| now + ahead)
                .find(|tick| !wheel.slots[*tick as usize % SLOTS].is_empty());
            assert!(!wheel.due.is_empty() || wheel.next_tick() == naive_slot);
        }
    }
}
