//! Estimates how long a slow reader needs to read the output written to it.
//!
//! The kernel accepts far more output than a client behind a slow link has read: it fills our send
//! buffer and the receive buffer of the client's kernel, which acknowledges everything in it. A
//! ping is read after all of that, so the time to answer it depends on the output ahead of it.

use crate::engine::timer::{TICK_MS, Tick};

/// The time by which a peer that reads at [`MIN_READ_RATE`] has read all output written so far, in
/// fractions of a tick, so that short messages count by their length. It may wrap around.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Pace {
    read_by: u32,
}

impl Pace {
    /// Accounts for bytes written.
    #[inline]
    pub(crate) fn add(&mut self, bytes: usize, now: Tick) {
        let ahead = self.ahead(now) + parts_to_read(bytes);
        self.read_by = parts(now).wrapping_add(ahead.min(MAX_LAG * PARTS));
    }

    /// Returns how long the peer may need to read the output already written, and `queued` bytes
    /// after it.
    pub(crate) fn lag(self, queued: usize, now: Tick) -> Tick {
        let ahead = self.ahead(now) + parts_to_read(queued);
        ahead.div_ceil(PARTS).min(MAX_LAG)
    }

    /// Records that the peer has read everything up to the point that was due in `ahead` ticks.
    pub(crate) fn advance(&mut self, ahead: Tick, now: Tick) {
        let left = self.ahead(now).saturating_sub(ahead.saturating_mul(PARTS));
        self.read_by = parts(now).wrapping_add(left);
    }

    /// Returns the fractions of a tick until the peer has read all output.
    fn ahead(self, now: Tick) -> u32 {
        let ahead = self.read_by.wrapping_sub(parts(now));
        // Beyond the bound, it is a time in the past.
        if ahead <= MAX_LAG * PARTS { ahead } else { 0 }
    }
}

fn parts(now: Tick) -> u32 {
    now.wrapping_mul(PARTS)
}

/// Returns the time to read some bytes, in fractions of a tick: 6.4 bytes each at
/// [`MIN_READ_RATE`].
#[inline]
fn parts_to_read(bytes: usize) -> u32 {
    let parts_in_a_second = u64::from(PARTS) * 1000 / TICK_MS;
    let parts = (bytes as u64 * parts_in_a_second + MIN_READ_RATE / 2) / MIN_READ_RATE;
    parts.min(u64::from(MAX_LAG * PARTS)) as u32
}

/// Fractions of a tick: 6.25 ms each.
const PARTS: u32 = 16;
/// Bytes per second at which a client that reads continuously is never considered dead.
pub(crate) const MIN_READ_RATE: u64 = 1024;
/// The longest time granted for output ahead of a ping: five minutes.
pub(crate) const MAX_LAG: Tick = (300_000 / TICK_MS) as Tick;
/// The lag up to which a ping needs no payload: one second.
pub(crate) const SHORT_LAG: Tick = (1000 / TICK_MS) as Tick;

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Tick = (1000 / TICK_MS) as Tick;

    #[test]
    fn output_takes_one_second_per_kibibyte() {
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
    fn parts_to_read_are_rounded_and_bounded() {
        assert_eq!(parts_to_read(3), 0);
        assert_eq!(parts_to_read(4), 1);
        assert_eq!(parts_to_read(1 << 40), MAX_LAG * PARTS);
    }

    #[test]
    fn lag_is_bounded() {
        let mut pace = Pace::default();
        for _ in 0..1000 {
            pace.add(1 << 20, 5);
        }
        pace.add(usize::MAX / 2000, 5);
        assert_eq!(pace.lag(1 << 20, 5), MAX_LAG);
    }

    #[test]
    fn answered_ping_leaves_later_output_outstanding() {
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
