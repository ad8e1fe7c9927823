//! Rate limit for log lines about something that may happen often.
//!
//! Owns: when a line is due, and how many occurrences it reports. No occurrence is lost: the first
//! one is reported at once, and those that are suppressed are reported when the period ends, even
//! if nothing further happens. Time is an argument, in milliseconds of any clock.

use std::cell::Cell;

/// One kind of log line, written at most once in a period.
///
/// The caller logs the number that a method returns. It calls [`LogThrottle::flush`] at regular
/// intervals, and [`LogThrottle::finish`] at the end.
#[derive(Debug)]
pub struct LogThrottle {
    period: u64,
    latencies: Cell<Option<u64>>,
    suppressed: Cell<u64>,
}

impl Default for LogThrottle {
    /// A period of [`PERIOD`].
    fn default() -> Self {
        LogThrottle::every(PERIOD)
    }
}

impl LogThrottle {
    /// A period of so many milliseconds.
    pub fn every(period: u64) -> Self {
        LogThrottle {
            period,
            latencies: Cell::new(None),
            suppressed: Cell::new(0),
        }
    }

    /// Records `count` occurrences at `now`. Returns the number to report if a line is due: these
    /// and all that were suppressed before.
    pub fn count(&self, count: u64, now: u64) -> Option<u64> {
        let total = self.suppressed.get().saturating_add(count);
        self.suppressed.set(total);
        self.flush(now)
    }

    /// Returns the number of suppressed occurrences if there are any and their period has ended.
    /// A clock that was set back ends the period.
    pub fn flush(&self, now: u64) -> Option<u64> {
        let latencies = self.latencies.get();
        let elapsed = latencies.and_then(|latencies| now.checked_sub(latencies));
        if elapsed.is_some_and(|elapsed| elapsed < self.period) {
            return None;
        }
        let count = self.finish()?;
        self.latencies.set(Some(now));
        Some(count)
    }

    /// Returns the number of suppressed occurrences, if there are any, whenever the last line was.
    pub fn finish(&self) -> Option<u64> {
        Some(self.suppressed.take()).filter(|count| *count > 0)
    }
}

/// How often most lines are written, in milliseconds.
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
        assert_eq!(throttle.flush(0), None, "nothing has happened");
        assert_eq!(throttle.count(1, 5), Some(1));
        assert_eq!(throttle.count(5_903, 6), None);
        assert_eq!(throttle.flush(PERIOD + 4), None);
        assert_eq!(throttle.flush(PERIOD + 5), Some(5_903));
        assert_eq!(throttle.flush(9 * PERIOD), None);
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
