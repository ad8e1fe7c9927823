//! Times on the wall clock and on the monotonic clock.
//!
//! Owns: the units, and reading the wall clock outside the reactor. Must not know: the use of a
//! time.

use std::time::{Duration, SystemTime};

/// Milliseconds since the Unix epoch.
pub type UnixMillis = u64;

/// Milliseconds on a monotonic clock since a fixed moment of this process, for measuring durations.
/// This is the reactor's clock in [`Now::mono`](crate::net::Now::mono). The separate type prevents
/// confusion with the wall clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MonoMillis(pub u64);

impl MonoMillis {
    /// Returns the time elapsed since an earlier moment.
    pub fn since(self, earlier: MonoMillis) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

/// Returns the current time on the wall clock, for code outside the reactor, which passes its own
/// time to the application. A clock before 1970 counts as 1970.
pub fn unix_now() -> UnixMillis {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |since| since.as_millis() as u64)
}
