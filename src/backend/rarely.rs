//! Log lines about what may happen often: one now and then, which says how often.

use std::cell::Cell;

/// One kind of log line, written at most once in [`PERIOD`].
#[derive(Debug, Default)]
pub(super) struct Rarely {
    written: Cell<Option<u64>>,
    unsaid: Cell<u64>,
}

impl Rarely {
    /// It has happened, at this many milliseconds of any clock. When it is time for a line, how
    /// often since the last one. After a clock was set back it is time.
    pub(super) fn count(&self, now: u64) -> Option<u64> {
        let count = self.unsaid.get().saturating_add(1);
        let is_due = self
            .written
            .get()
            .and_then(|written| now.checked_sub(written))
            .is_none_or(|since| since >= PERIOD);
        self.unsaid.set(if is_due { 0 } else { count });
        if is_due {
            self.written.set(Some(now));
        }
        is_due.then_some(count)
    }
}

/// In milliseconds.
const PERIOD: u64 = 10_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_is_said_and_the_others_are_counted_until_the_next_line() {
        let rarely = Rarely::default();
        assert_eq!(rarely.count(5), Some(1));
        for now in 6..100 {
            assert_eq!(rarely.count(now), None);
        }
        assert_eq!(rarely.count(PERIOD + 4), None);
        assert_eq!(rarely.count(PERIOD + 5), Some(96));
        assert_eq!(rarely.count(3 * PERIOD), Some(1));
    }

    #[test]
    fn a_clock_set_back_does_not_silence_the_line() {
        let rarely = Rarely::default();
        assert_eq!(rarely.count(10 * PERIOD), Some(1));
        assert_eq!(rarely.count(10 * PERIOD + 1), None);
        assert_eq!(rarely.count(7), Some(2));
        assert_eq!(rarely.count(8), None);
        assert_eq!(rarely.count(PERIOD + 7), Some(2));
    }
}
