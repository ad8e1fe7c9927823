//! How long to wait before connecting again. Knows neither clock nor chance: both are arguments.

use std::time::Duration;

/// The connections that failed or ended soon, one after the other.
#[derive(Debug)]
pub struct Backoff {
    shortest_ms: u64,
    longest_ms: u64,
    failures: u32,
}

impl Backoff {
    /// Delays from `shortest`, doubled with every failure, up to `longest`.
    pub fn new(shortest: Duration, longest: Duration) -> Self {
        let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        Backoff {
            shortest_ms: millis(shortest),
            longest_ms: millis(longest),
            failures: 0,
        }
    }

    /// The delay after a connection that `lasted` so long (zero: it was never made), between
    /// half of the current bound and all of it as `random` says. A server that restarts loses
    /// all its clients in one moment and must not get them all back in one.
    pub fn next(&mut self, lasted: Duration, random: u64) -> Duration {
        if lasted >= STEADY {
            self.failures = 0;
        }
        self.failures = self.failures.saturating_add(1);
        let bound = self
            .shortest_ms
            .saturating_mul(1 << self.failures.min(16))
            .min(self.longest_ms);
        let half = bound / 2;
        Duration::from_millis(half + random % (half + 1))
    }
}

/// A connection that lasted so long was a good one.
const STEADY: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use super::*;

    fn backoff() -> Backoff {
        Backoff::new(Duration::from_secs(1), Duration::from_secs(60))
    }

    #[test]
    fn delays_double_up_to_a_minute_and_are_spread() {
        let bounds = [
            (1, 2),
            (2, 4),
            (4, 8),
            (8, 16),
            (16, 32),
            (30, 60),
            (30, 60),
        ];
        let (mut low, mut high) = (backoff(), backoff());
        for (least, most) in bounds {
            let most_ms = most * 1_000;
            assert_eq!(low.next(Duration::ZERO, 0), Duration::from_secs(least));
            assert_eq!(
                high.next(Duration::ZERO, most_ms / 2),
                Duration::from_secs(most)
            );
        }
        for random in [u64::MAX, u64::MAX / 3, 12_345] {
            let delay = low.next(Duration::ZERO, random).as_millis();
            assert!((30_000..=60_000).contains(&delay), "{delay}");
        }
    }

    #[test]
    fn only_a_connection_that_lasted_starts_anew() {
        let mut backoff = backoff();
        for _ in 0..100 {
            backoff.next(Duration::ZERO, 0);
        }
        let short = Duration::from_millis(29_999);
        assert_eq!(backoff.next(short, 0), Duration::from_secs(30));
        let steady = Duration::from_secs(30);
        assert_eq!(backoff.next(steady, 0), Duration::from_secs(1));
        assert_eq!(backoff.next(short, 0), Duration::from_secs(2));
    }
}
