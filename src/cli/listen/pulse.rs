//! Detects servers that are dead or do not read. Knows no clock: the time is an argument.

use std::time::{Duration, Instant};

/// Detects a dead server: after a silence a ping is sent, and must be answered. Also detects one
/// that does not read.
pub(super) struct Pulse {
    heard: Instant,
    has_pinged: bool,
    /// Since when something is queued of which nothing could be written.
    unread: Option<Instant>,
}

/// What is due.
#[derive(Debug, PartialEq)]
pub(super) enum Beat {
    Wait,
    Ping,
    Dead,
    /// The server does not read.
    Unread,
}

impl Pulse {
    pub fn new(now: Instant) -> Self {
        Pulse {
            heard: now,
            has_pinged: false,
            unread: None,
        }
    }

    pub fn heard(&mut self, now: Instant) {
        self.heard = now;
        self.has_pinged = false;
    }

    /// The queue was written, all of it, or at least some.
    pub fn sent(&mut self, now: Instant, is_flushed: bool, has_written: bool) {
        self.unread = match (is_flushed, has_written) {
            (true, _) => None,
            (false, true) => Some(now),
            (false, false) => self.unread.or(Some(now)),
        };
    }

    /// A ping is due once in a silence.
    pub fn next(&mut self, now: Instant) -> Beat {
        let unread = self
            .unread
            .map(|since| now.saturating_duration_since(since));
        if unread.is_some_and(|unread| unread >= UNREAD_AFTER) {
            return Beat::Unread;
        }
        let silence = now.saturating_duration_since(self.heard);
        if silence >= PING_AFTER + DEAD_AFTER && self.has_pinged {
            return Beat::Dead;
        }
        if silence >= PING_AFTER && !self.has_pinged {
            self.has_pinged = true;
            return Beat::Ping;
        }
        Beat::Wait
    }

    /// How long nothing is due.
    pub fn patience(&self, now: Instant) -> Duration {
        let due = match self.has_pinged {
            true => PING_AFTER + DEAD_AFTER,
            false => PING_AFTER,
        };
        let silent = due.saturating_sub(now.saturating_duration_since(self.heard));
        match self.unread {
            Some(since) => {
                silent.min(UNREAD_AFTER.saturating_sub(now.saturating_duration_since(since)))
            }
            None => silent,
        }
    }
}

/// How long nothing may be heard until a ping is sent. Servers of this API send one of their own
/// after 30 s.
pub(super) const PING_AFTER: Duration = Duration::from_secs(40);
/// How long its answer may take.
pub(super) const DEAD_AFTER: Duration = Duration::from_secs(20);
/// How long the server may read nothing of what is sent: as long as it may be silent.
pub(super) const UNREAD_AFTER: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_leads_to_one_ping_and_then_to_the_end() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut pulse = Pulse::new(start);
        assert_eq!(pulse.next(at(39)), Beat::Wait);
        assert_eq!(pulse.patience(at(39)), Duration::from_secs(1));
        assert_eq!(pulse.next(at(40)), Beat::Ping);
        assert_eq!(pulse.next(at(59)), Beat::Wait);
        assert_eq!(pulse.patience(at(59)), Duration::from_secs(1));
        assert_eq!(pulse.next(at(60)), Beat::Dead);
        pulse.heard(at(60));
        assert_eq!(pulse.next(at(99)), Beat::Wait);
        // A process that was stopped for long asks first.
        assert_eq!(pulse.next(at(900)), Beat::Ping);
    }

    #[test]
    fn server_that_reads_nothing_is_given_up_whatever_it_sends() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut pulse = Pulse::new(start);
        pulse.sent(at(0), false, true);
        for second in 1..=10 {
            pulse.heard(at(second));
            pulse.sent(at(second), false, false);
        }
        assert_eq!(pulse.patience(at(10)), Duration::from_secs(40));
        pulse.heard(at(50));
        assert_eq!(pulse.next(at(59)), Beat::Wait);
        assert_eq!(pulse.patience(at(59)), Duration::from_secs(1));
        assert_eq!(pulse.next(at(60)), Beat::Unread);
        // Slowly is enough, and so is all of it.
        pulse.sent(at(60), false, true);
        assert_eq!(pulse.next(at(80)), Beat::Wait);
        pulse.sent(at(80), true, true);
        pulse.heard(at(120));
        pulse.sent(at(120), false, false);
        assert_eq!(pulse.next(at(121)), Beat::Wait);
    }
}
