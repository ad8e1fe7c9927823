//! Rate limit for repetitive log lines.
//!
//! Owns: when a line is due, and how many occurrences it reports. No occurrence is lost: the first
//! one is reported at once, and suppressed ones are reported when the period ends, even if nothing
//! further happens. Time is an argument, in milliseconds of any clock. Must not know: the text of
//! the lines.

use std::cell::Cell;

/// One kind of log line, written at most once in a period.
///
/// The caller logs the number that a method returns. It calls [`LogThrottle::poll`] at regular
/// intervals, and [`LogThrottle::finish`] at the end.
#[derive(Debug)]
pub struct LogThrottle {
    period: u64,
    last_report: Cell<Option<u64>>,
    suppressed: Cell<u64>,
}

impl Default for LogThrottle {
    /// Uses a period of [`PERIOD`].
    fn default() -> Self {
        LogThrottle::every(PERIOD)
    }
}

impl LogThrottle {
    /// Creates a throttle with a period in milliseconds.
    pub fn every(period: u64) -> Self {
        LogThrottle {
            period,
            last_report: Cell::new(None),
            suppressed: Cell::new(0),
        }
    }

    /// Records `count` occurrences at `now`. Returns the number to report if a line is due: these
    /// and all that were suppressed before.
    pub fn count(&self, count: u64, now: u64) -> Option<u64> {
        let total = self.suppressed.get().saturating_add(count);
        self.suppressed.set(total);
        self.poll(now)
    }

    /// Returns the number of suppressed occurrences if there are any and their period has ended.
    /// A clock that was set back ends the period.
    pub fn poll(&self, now: u64) -> Option<u64> {
        if self.suppressed.get() == 0 {
            return None;
        }
        let last_report = self.last_report.get();
        let elapsed = last_report.and_then(|last_report| now.checked_sub(last_report));
        if elapsed.is_some_and(|elapsed| elapsed < self.period) {
            return None;
        }
        let count = self.finish()?;
        self.last_report.set(Some(now));
        Some(count)
    }

    /// Returns the number of suppressed occurrences, if there are any, even within the period.
    pub fn finish(&self) -> Option<u64> {
        Some(self.suppressed.take()).filter(|count| *count > 0)
    }
}

/// The default period, in milliseconds.
pub const PERIOD: u64 = 10_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_occurrence_is_reported_and_the_others_are_counted_until_the_next_line() {
        let throttle = LogThrottle::default();
        assert_eq!(throttle.count(1, 5), Some(1));
        for now in 6..100 {
            assert_eq!(throttle.count(1, now), None);
        }
        assert_eq!(throttle.count(1, PERIOD + 4), None);
        assert_eq!(throttle.count(1, PERIOD + 5), Some(96));
        assert_eq!(throttle.count(1, 3 * PERIOD), Some(1));
    }

    #[test]
    fn suppressed_occurrences_are_reported_when_nothing_further_happens() {
        let throttle = LogThrottle::default();
        assert_eq!(throttle.poll(0), None, "nothing has happened");
        assert_eq!(throttle.count(1, 5), Some(1));
        assert_eq!(throttle.count(5_903, 6), None);
        assert_eq!(throttle.poll(PERIOD + 4), None);
        assert_eq!(throttle.poll(PERIOD + 5), Some(5_903));
        assert_eq!(throttle.poll(9 * PERIOD), None);
        // The line of the remainder begins a period as well.
        assert_eq!(throttle.count(1, PERIOD + 6), None);
        assert_eq!(throttle.finish(), Some(1));
        assert_eq!(throttle.finish(), None);
    }

    #[test]
    fn clock_set_back_does_not_silence_the_line() {
        let throttle = LogThrottle::default();
        assert_eq!(throttle.count(1, 10 * PERIOD), Some(1));
        assert_eq!(throttle.count(1, 10 * PERIOD + 1), None);
        assert_eq!(throttle.count(1, 7), Some(2));
        assert_eq!(throttle.count(1, 8), None);
        assert_eq!(throttle.count(1, PERIOD + 7), Some(2));
    }
}
