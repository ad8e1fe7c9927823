//! Log lines about single connections: those that request tracing by `?debug=1`, as in h, and all
//! of them at log level `debug`.
//!
//! Owns: the traced connections, and a rate limit on the lines of all connections together, so that
//! clients cannot flood the log. Must not know: the content of the lines. Text from clients is
//! never logged, only the server's name for the kind of message.

use std::collections::BTreeMap;
use std::fmt::Arguments;

use log::{Level, log, log_enabled, warn};

use crate::net::ConnKey;

/// The traced connections, and the rate limit. Times are in monotonic milliseconds.
#[derive(Default)]
pub struct Trace {
    /// Connections that have requested tracing and are not open yet, with the time of the request.
    asked: BTreeMap<ConnKey, u64>,
    /// The number of open traced connections.
    watched: usize,
    /// Thousandths of lines taken from the token bucket, as of `filled`.
    spent: u64,
    filled: u64,
    left_out: u64,
    /// The number of suppressed lines at the last report in the log, and its time.
    told: (u64, u64),
}

impl Trace {
    /// Records a handshake that requests tracing of its connection.
    pub fn ask(&mut self, key: ConnKey, now: u64) {
        if self.asked.len() < MOST_ASKED {
            self.asked.insert(key, now);
        }
    }

    /// Records that a connection has opened. Returns whether it requested tracing.
    pub fn open(&mut self, key: ConnKey) -> bool {
        let asked = self.asked.remove(&key).is_some();
        self.watched += usize::from(asked);
        asked
    }

    /// Records that a traced connection has closed.
    pub fn close(&mut self) {
        self.watched -= 1;
    }

    /// Returns whether any connection may be traced. If not, callers can skip all lookups.
    pub fn is_on(&self) -> bool {
        self.watched > 0 || log_enabled!(Level::Debug)
    }

    /// Logs a line about a connection if it is traced, or all connections are.
    pub fn say(&mut self, key: ConnKey, is_watched: bool, now: u64, what: Arguments<'_>) {
        let level = if is_watched {
            Level::Info
        } else {
            Level::Debug
        };
        if !log_enabled!(level) {
            return;
        }
        match self.spend(now) {
            true => log!(level, "{key:?}: {what}"),
            false => self.left_out += 1,
        }
    }

    /// Forgets failed handshakes, and logs the number of suppressed lines.
    pub fn tidy(&mut self, now: u64) {
        self.asked
            .retain(|_, since| now.saturating_sub(*since) < ASKED_LIFE);
        let (told, at) = self.told;
        if self.left_out > told && (told == 0 || now.saturating_sub(at) >= TELL_EVERY) {
            let count = self.left_out - told;
            warn!("{count} lines about connections were left out: there were too many");
            self.told = (self.left_out, now);
        }
    }

    /// Returns the number of suppressed lines.
    pub fn left_out(&self) -> u64 {
        self.left_out
    }

    /// Takes one line from the token bucket. Returns false if it is empty.
    fn spend(&mut self, now: u64) -> bool {
        let elapsed = now.saturating_sub(self.filled);
        self.filled = now;
        self.spent = self.spent.saturating_sub(elapsed.saturating_mul(RATE));
        let may = self.spent + 1000 <= BURST * 1000;
        self.spent += if may { 1000 } else { 0 };
        may
    }
}

/// The maximum burst of lines about connections.
const BURST: u64 = 200;
/// The sustained rate of lines about connections, per second.
const RATE: u64 = 10;
/// The maximum number of pending handshakes whose tracing requests are stored.
const MOST_ASKED: usize = 1024;
/// The lifetime of a stored request, which exceeds the timeout of handshakes.
const ASKED_LIFE: u64 = 60_000;
/// The interval of reports on suppressed lines, in milliseconds.
const TELL_EVERY: u64 = 10_000;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::realtime::testing::key;

    #[test]
    fn lines_are_rate_limited() {
        let mut trace = Trace::default();
        let count = |trace: &mut Trace, now| (0..1000).filter(|_| trace.spend(now)).count();
        assert_eq!(count(&mut trace, 5_000), 200);
        assert_eq!(count(&mut trace, 5_099), 0);
        assert_eq!(count(&mut trace, 5_100), 1);
        assert_eq!(count(&mut trace, 6_100), 10);
        assert_eq!(count(&mut trace, 4_000), 0, "a clock never runs backwards");
        assert_eq!(count(&mut trace, 1_000_000), 200);
    }

    #[test]
    fn tracing_request_applies_to_one_connection_and_expires() {
        let mut trace = Trace::default();
        trace.ask(key(1), 0);
        trace.ask(key(2), 10);
        assert!(trace.open(key(1)) && !trace.open(key(1)) && !trace.open(key(3)));
        assert!(trace.is_on());
        trace.tidy(ASKED_LIFE + 9);
        assert_eq!(trace.asked.len(), 1);
        trace.tidy(ASKED_LIFE + 10);
        assert_eq!(trace.asked.len(), 0);
        trace.close();
        assert_eq!(trace.watched, 0);
        for index in 0..2000 {
            trace.ask(key(index), 0);
        }
        assert_eq!(trace.asked.len(), MOST_ASKED);
    }
}
