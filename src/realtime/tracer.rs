//! Log lines about single connections: those that request tracing by `?debug=1`, as in h, and all
//! of them at log level `debug`.
//!
//! Owns: the traced connections, and a rate limit on the lines of all connections together, so that
//! clients cannot flood the log. Must not know: the content of the lines. Text from clients is
//! never logged, only the server's name for the kind of message.

use std::collections::BTreeMap;
use std::fmt::Arguments;

use log::{Level, log, log_enabled, warn};

use crate::log_throttle::LogThrottle;
use crate::net::ConnKey;

/// The traced connections, and the rate limit. Times are in monotonic milliseconds.
#[derive(Default)]
pub(super) struct Tracer {
    /// Connections that have requested tracing and are not open yet, with the time of the request.
    requests: BTreeMap<ConnKey, u64>,
    /// The number of open traced connections.
    traced: usize,
    /// Thousandths of lines taken from the token bucket, as of `refilled_at`.
    used: u64,
    refilled_at: u64,
    /// The number of suppressed lines.
    suppressed: u64,
    /// The part of `suppressed` that `throttle` has not counted yet.
    uncounted: u64,
    throttle: LogThrottle,
}

impl Tracer {
    /// Records a handshake that requests tracing of its connection.
    pub(super) fn request(&mut self, key: ConnKey, now: u64) {
        if self.requests.len() < MAX_REQUESTS {
            self.requests.insert(key, now);
        }
    }

    /// Records that a connection has opened. Returns whether it requested tracing.
    pub(super) fn open(&mut self, key: ConnKey) -> bool {
        let is_traced = self.requests.remove(&key).is_some();
        self.traced += usize::from(is_traced);
        is_traced
    }

    /// Records that a traced connection has closed.
    pub(super) fn close(&mut self) {
        self.traced -= 1;
    }

    /// Returns whether any connection may be traced. If not, callers can skip all lookups.
    pub(super) fn is_on(&self) -> bool {
        self.traced > 0 || log_enabled!(Level::Debug)
    }

    /// Logs a line about a connection if it is traced, or all connections are.
    pub(super) fn log(&mut self, key: ConnKey, is_traced: bool, now: u64, line: Arguments<'_>) {
        let level = if is_traced { Level::Info } else { Level::Debug };
        if !log_enabled!(level) {
            return;
        }
        if self.take_token(now) {
            log!(level, "{key:?}: {line}");
        } else {
            self.suppressed += 1;
            self.uncounted += 1;
        }
    }

    /// Drops the requests of failed handshakes, and logs the number of suppressed lines.
    pub(super) fn on_tick(&mut self, now: u64) {
        self.requests
            .retain(|_, since| now.saturating_sub(*since) < REQUEST_LIFETIME);
        let uncounted = std::mem::take(&mut self.uncounted);
        if let Some(count) = self.throttle.count(uncounted, now) {
            warn!("suppressed {count} lines about connections: more than {RATE} per second");
        }
    }

    /// Returns the number of suppressed lines.
    pub(super) fn suppressed(&self) -> u64 {
        self.suppressed
    }

    /// Takes one line from the token bucket. Returns false if it is empty.
    fn take_token(&mut self, now: u64) -> bool {
        let elapsed = now.saturating_sub(self.refilled_at);
        self.refilled_at = now;
        self.used = self.used.saturating_sub(elapsed.saturating_mul(RATE));
        let has_token = self.used + 1000 <= BURST * 1000;
        self.used += if has_token { 1000 } else { 0 };
        has_token
    }
}

/// The maximum burst of lines about connections.
const BURST: u64 = 200;
/// The sustained rate of lines about connections, per second.
const RATE: u64 = 10;
/// The maximum number of stored tracing requests of handshakes in progress.
const MAX_REQUESTS: usize = 1024;
/// The lifetime of a stored request, which exceeds the timeout of handshakes.
const REQUEST_LIFETIME: u64 = 60_000;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::realtime::testing::key;

    #[test]
    fn lines_are_rate_limited() {
        let mut tracer = Tracer::default();
        let count = |tracer: &mut Tracer, now| (0..1000).filter(|_| tracer.take_token(now)).count();
        assert_eq!(count(&mut tracer, 5_000), 200);
        assert_eq!(count(&mut tracer, 5_099), 0);
        assert_eq!(count(&mut tracer, 5_100), 1);
        assert_eq!(count(&mut tracer, 6_100), 10);
        assert_eq!(count(&mut tracer, 4_000), 0, "a clock never runs backwards");
        assert_eq!(count(&mut tracer, 1_000_000), 200);
    }

    #[test]
    fn tracing_request_applies_to_one_connection_and_expires() {
        let mut tracer = Tracer::default();
        tracer.request(key(1), 0);
        tracer.request(key(2), 10);
        assert!(tracer.open(key(1)) && !tracer.open(key(1)) && !tracer.open(key(3)));
        assert!(tracer.is_on());
        tracer.on_tick(REQUEST_LIFETIME + 9);
        assert_eq!(tracer.requests.len(), 1);
        tracer.on_tick(REQUEST_LIFETIME + 10);
        assert_eq!(tracer.requests.len(), 0);
        tracer.close();
        assert_eq!(tracer.traced, 0);
        for index in 0..2000 {
            tracer.request(key(index), 0);
        }
        assert_eq!(tracer.requests.len(), MAX_REQUESTS);
    }
}
