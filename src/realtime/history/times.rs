//! The last position at each time, to find the position from which a client resumes by time.
//!
//! Owns: a sorted list of bounded length. Beyond the bound, every other time is forgotten, and a look-up
//! returns an earlier position.

use std::collections::VecDeque;

/// Positions by time, both increasing.
#[derive(Default)]
pub(super) struct Times {
    list: VecDeque<(u64, u64)>,
}

impl Times {
    /// Records that a position has a time, in UNIX milliseconds. Neither may be smaller than before.
    pub(super) fn push(&mut self, time: u64, position: u64) {
        if let Some(last) = self.list.back_mut().filter(|last| last.0 == time) {
            last.1 = position;
            return;
        }
        if self.list.len() >= MAX_TIMES {
            let mut is_kept = false;
            self.list.retain(|_| {
                is_kept = !is_kept;
                is_kept
            });
        }
        self.list.push_back((time, position));
    }

    /// Returns a position after which all events are later than `time`, unless events up to it have
    /// been forgotten: the last one up to the time, or an earlier one.
    pub(super) fn position_at(&self, time: u64) -> Option<u64> {
        let end = self.list.partition_point(|(at, _)| *at <= time);
        let (_, position) = self.list.get(end.checked_sub(1)?)?;
        Some(*position)
    }

    /// Forgets positions below a floor.
    pub(super) fn raise_floor(&mut self, floor: u64) {
        while self
            .list
            .front()
            .is_some_and(|(_, position)| *position <= floor)
        {
            self.list.pop_front();
        }
    }
}

/// The maximum number of times: 256 KiB.
const MAX_TIMES: usize = 16_384;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn position_precedes_all_later_events() {
        let mut times = Times::default();
        assert_eq!(times.position_at(5), None);
        for position in 1..=100_000 {
            times.push(position / 2, position);
        }
        for time in [0, 1, 2, 777, 20_000, 49_999, 50_000, 60_000] {
            let last = (2 * time + 1).min(100_000);
            let found = times.position_at(time).unwrap_or(0);
            assert!(found <= last, "{time}: {found}");
            assert!(found + 64 >= last, "{time}: {found}");
        }
        assert!(times.list.len() <= MAX_TIMES);
        times.raise_floor(99_999);
        assert_eq!(times.position_at(49_999), None);
        assert_eq!(times.position_at(50_000), Some(100_000));
    }

    #[test]
    fn times_are_exact_below_the_limit() {
        let mut times = Times::default();
        for position in 1..=MAX_TIMES as u64 {
            times.push(10 * position, position);
        }
        for position in 1..=MAX_TIMES as u64 {
            assert_eq!(times.position_at(10 * position), Some(position));
            assert_eq!(times.position_at(10 * position + 9), Some(position));
        }
    }
}
