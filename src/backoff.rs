//! Exponential backoff with jitter for reconnecting. Time and randomness are arguments.

use std::time::Duration;

/// The state of the backoff: the number of consecutive connections that failed or ended soon.
#[derive(Debug)]
pub struct Backoff {
    shortest_ms: u64,
    longest_ms: u64,
    failures: u32,
}

impl Backoff {
    /// Creates a backoff whose delays start at `shortest`, double with every failure, and end at
    /// `longest`.
    pub fn new(shortest: Duration, longest: Duration) -> Self {
        let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        Backoff {
            shortest_ms: millis(shortest),
            longest_ms: millis(longest),
            failures: 0,
        }
    }

    /// Returns the delay after a connection that `lasted` for this duration, or zero if connecting
    /// failed. `random` selects a value between half of the current bound and the bound, since all
    /// clients of a server that restarts would otherwise reconnect at the same time.
    pub fn next(&mut self, lasted: Duration, random: u64) -> Duration {
        if lasted >= STABLE_AFTER {
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

/// A connection that lasted for this duration resets the backoff.
const STABLE_AFTER: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use super::*;

    fn backoff() -> Backoff {
        Backoff::new(Duration::from_secs(1), Duration::from_secs(60))
    }

    #[test]
    fn delays_double_up_to_the_maximum_and_are_jittered() {
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
    fn only_lasting_connection_resets_the_backoff() {
        let mut backoff = backoff();
        for _ in 0..100 {
            backoff.next(Duration::ZERO, 0);
        }
        let short = Duration::from_millis(29_999);
        assert_eq!(backoff.next(short, 0), Duration::from_secs(30));
        let stable = Duration::from_secs(30);
        assert_eq!(backoff.next(stable, 0), Duration::from_secs(1));
        assert_eq!(backoff.next(short, 0), Duration::from_secs(2));
    }
}
