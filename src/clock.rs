//! The wall clock, for code outside the reactor.

use std::time::SystemTime;

use crate::model::UnixMillis;

/// Returns the current time. A clock before 1970 counts as 1970.
pub fn unix_now() -> UnixMillis {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |since| since.as_millis() as u64)
}
