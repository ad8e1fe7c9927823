//! Lines of the log about single connections: of those that ask for it by `?debug=1`, as in h,
//! and of all where the log's level is `debug`.
//!
//! Owns: who asked, and that nobody can fill the log by it: there are only so many such lines in
//! a second, of all connections together. Must not know what the lines say. What a client says
//! itself is never in them, only which of our words it was.

use std::collections::BTreeMap;
use std::fmt::Arguments;

use log::{Level, log, log_enabled, warn};

use crate::net::ConnKey;

/// Who is watched, and how much has been said of them. Times are monotonic milliseconds.
#[derive(Default)]
pub struct Trace {
    /// Those whose handshake has asked and who are not open yet, with when they asked.
    asked: BTreeMap<ConnKey, u64>,
    /// Open connections that asked.
    watched: usize,
    /// Thousandths of lines that may be said at `filled`, less those that have been.
    spent: u64,
    filled: u64,
    left_out: u64,
    /// How many of those left out the log has been told of, and when.
    told: (u64, u64),
}

impl Trace {
    /// A handshake asks for lines about its connection.
    pub fn ask(&mut self, key: ConnKey, now: u64) {
        if self.asked.len() < MOST_ASKED {
            self.asked.insert(key, now);
        }
    }

    /// A connection has opened; whether it asked.
    pub fn open(&mut self, key: ConnKey) -> bool {
        let asked = self.asked.remove(&key).is_some();
        self.watched += usize::from(asked);
        asked
    }

    /// A connection has ended that asked.
    pub fn close(&mut self) {
        self.watched -= 1;
    }

    /// Whether there may be anything to say of anybody. Where not, nobody need be looked up.
    pub fn is_on(&self) -> bool {
        self.watched > 0 || log_enabled!(Level::Debug)
    }

    /// Says something of a connection, if it is watched or if all are.
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

    /// Forgets those whose handshake came to nothing, and says how many lines were left out.
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

    /// Lines that were left out.
    pub fn left_out(&self) -> u64 {
        self.left_out
    }

    /// Takes one line of what there may be, if there is one: a bucket that fills with time.
    fn spend(&mut self, now: u64) -> bool {
        let elapsed = now.saturating_sub(self.filled);
        self.filled = now;
        self.spent = self.spent.saturating_sub(elapsed.saturating_mul(RATE));
        let may = self.spent + 1000 <= BURST * 1000;
        self.spent += if may { 1000 } else { 0 };
        may
    }
}

/// Lines about connections that may be said at once.
const BURST: u64 = 200;
/// Lines about connections in a second, in the long run.
const RATE: u64 = 10;
/// Handshakes under way whose wish is remembered.
const MOST_ASKED: usize = 1024;
/// How long it is: longer than any handshake may take.
const ASKED_LIFE: u64 = 60_000;
/// How often it is told how many lines were left out, in milliseconds.
const TELL_EVERY: u64 = 10_000;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::realtime::testing::key;

    #[test]
    fn there_are_only_so_many_lines_in_a_second() {
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
    fn a_wish_is_for_one_connection_and_is_forgotten_with_its_handshake() {
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
