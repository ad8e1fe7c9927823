//! Detects servers that are dead or do not read. Must not know a clock: the time is an argument.

use std::time::{Duration, Instant};

/// Detects a dead server: after a period of silence a ping is sent, and must be answered. Also
/// detects a server that does not read.
pub(super) struct Pulse {
    heard: Instant,
    has_pinged: bool,
    /// The time since which output is queued and no part of it could be written.
    unread: Option<Instant>,
}

/// The action that is due.
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

    /// Records the result of a write: the queue was flushed, or at least some bytes were written.
    pub fn sent(&mut self, now: Instant, is_flushed: bool, has_written: bool) {
        self.unread = match (is_flushed, has_written) {
            (true, _) => None,
            (false, true) => Some(now),
            (false, false) => self.unread.or(Some(now)),
        };
    }

    /// Returns the action that is due. A ping is due once in a period of silence.
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

    /// Returns the time until the next action may be due.
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

/// The period of silence after which a ping is sent. Servers of this API send a ping after 30 s.
pub(super) const PING_AFTER: Duration = Duration::from_secs(40);
/// The time that the answer to a ping may take.
pub(super) const DEAD_AFTER: Duration = Duration::from_secs(20);
/// The time for which the server may read nothing: as long as it may be silent.
pub(super) const UNREAD_AFTER: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_leads_to_one_ping_then_disconnect() {
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
        // A process that was suspended for a long time sends a ping first.
        assert_eq!(pulse.next(at(900)), Beat::Ping);
    }

    #[test]
    fn server_that_never_reads_is_disconnected() {
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
        // Writing slowly is sufficient, as is a flushed queue.
        pulse.sent(at(60), false, true);
        assert_eq!(pulse.next(at(80)), Beat::Wait);
        pulse.sent(at(80), true, true);
        pulse.heard(at(120));
        pulse.sent(at(120), false, false);
        assert_eq!(pulse.next(at(121)), Beat::Wait);
    }
}
