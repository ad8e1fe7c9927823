//! How long a slow reader may need for output that was written to it.
//!
//! The kernel accepts far more output than a client behind a slow link has read: its own send
//! buffer, and the receive buffer of the client's kernel, which acknowledges everything in it. A
//! ping is read behind all of that, so the time to answer it depends on how much output is ahead.

use super::timer::{TICK_MS, Tick};

/// The time by which a peer that reads at [`MIN_READ_RATE`] has read all output written so far.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Pace {
    read_by: Tick,
}

impl Pace {
    /// Accounts for bytes that were written.
    pub fn add(&mut self, bytes: usize, now: Tick) {
        let from = self.read_by.max(now);
        self.read_by = (from + ticks_to_read(bytes)).min(now + MAX_LAG);
    }

    /// How long the peer may need for what was written, and for so many bytes behind it.
    pub fn lag(self, queued: usize, now: Tick) -> Tick {
        let lag = self.read_by.saturating_sub(now);
        (lag + ticks_to_read(queued)).min(MAX_LAG)
    }

    /// The peer has read everything up to the point for which it had `ahead` more ticks.
    pub fn advance(&mut self, ahead: Tick, now: Tick) {
        self.read_by = self.read_by.saturating_sub(ahead).max(now);
    }
}

fn ticks_to_read(bytes: usize) -> Tick {
    let ticks = (bytes as u64 * 1000).div_ceil(MIN_READ_RATE * TICK_MS);
    ticks.min(u64::from(MAX_LAG)) as Tick
}

/// Bytes per second at which a client that reads all the time is never taken for a dead one.
pub(super) const MIN_READ_RATE: u64 = 1024;
/// The longest time granted for output ahead of a ping: five minutes.
pub(super) const MAX_LAG: Tick = (300_000 / TICK_MS) as Tick;

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Tick = (1000 / TICK_MS) as Tick;

    #[test]
    fn output_takes_a_second_for_each_kibibyte() {
        let mut pace = Pace::default();
        assert_eq!(pace.lag(0, 1000), 0);
        pace.add(10 * 1024, 1000);
        assert_eq!(pace.lag(0, 1000), 10 * SECOND);
        assert_eq!(pace.lag(5 * 1024, 1000), 15 * SECOND);
        assert_eq!(pace.lag(0, 1000 + 4 * SECOND), 6 * SECOND);
        pace.add(1024, 1000 + 4 * SECOND);
        assert_eq!(pace.lag(0, 1000 + 4 * SECOND), 7 * SECOND);
        assert_eq!(pace.lag(0, 1000 + 60 * SECOND), 0);
    }

    #[test]
    fn the_time_granted_is_bounded() {
        let mut pace = Pace::default();
        for _ in 0..1000 {
            pace.add(1 << 20, 5);
        }
        pace.add(usize::MAX / 2000, 5);
        assert_eq!(pace.lag(1 << 20, 5), MAX_LAG);
    }

    #[test]
    fn an_answered_ping_leaves_what_was_written_behind_it() {
        let mut pace = Pace::default();
        pace.add(20 * 1024, 1000);
        let ping = pace.lag(0, 1000);
        pace.add(3 * 1024, 1000);
        pace.advance(ping - SECOND, 1000 + SECOND);
        assert_eq!(pace.lag(0, 1000 + SECOND), 3 * SECOND);
        pace.advance(Tick::MAX, 1000 + SECOND);
        assert_eq!(pace.lag(0, 1000 + SECOND), 0);
    }
}
