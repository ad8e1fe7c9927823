//! Detects servers that are dead or do not read. Must not know a clock: the time is an argument.

use std::time::{Duration, Instant};

/// Detects a dead server: after a period of silence a ping is sent, and must be answered. Also
/// detects a server that does not read.
pub(super) struct Liveness {
    last_activity: Instant,
    has_pinged: bool,
    /// The time since which output is queued and no part of it could be written.
    blocked_since: Option<Instant>,
}

/// The action that is due.
#[derive(Debug, PartialEq)]
pub(super) enum LivenessAction {
    Wait,
    Ping,
    Dead,
    /// The server does not read.
    NotReading,
}

impl Liveness {
    pub(super) fn new(now: Instant) -> Self {
        Liveness {
            last_activity: now,
            has_pinged: false,
            blocked_since: None,
        }
    }

    pub(super) fn on_activity(&mut self, now: Instant) {
        self.last_activity = now;
        self.has_pinged = false;
    }

    /// Records the result of a write: the queue was flushed, or at least some bytes were written.
    pub(super) fn on_write(&mut self, now: Instant, is_flushed: bool, has_written: bool) {
        self.blocked_since = match (is_flushed, has_written) {
            (true, _) => None,
            (false, true) => Some(now),
            (false, false) => self.blocked_since.or(Some(now)),
        };
    }

    /// Returns the action that is due. A ping is due once in a period of silence.
    pub(super) fn next(&mut self, now: Instant) -> LivenessAction {
        let blocked_since = self
            .blocked_since
            .map(|since| now.saturating_duration_since(since));
        if blocked_since.is_some_and(|blocked_since| blocked_since >= WRITE_TIMEOUT) {
            return LivenessAction::NotReading;
        }
        let silence = now.saturating_duration_since(self.last_activity);
        if silence >= PING_INTERVAL + PONG_TIMEOUT && self.has_pinged {
            return LivenessAction::Dead;
        }
        if silence >= PING_INTERVAL && !self.has_pinged {
            self.has_pinged = true;
            return LivenessAction::Ping;
        }
        LivenessAction::Wait
    }

    /// Returns the time until the next action may be due.
    pub(super) fn timeout(&self, now: Instant) -> Duration {
        let due = match self.has_pinged {
            true => PING_INTERVAL + PONG_TIMEOUT,
            false => PING_INTERVAL,
        };
        let silent = due.saturating_sub(now.saturating_duration_since(self.last_activity));
        match self.blocked_since {
            Some(since) => {
                silent.min(WRITE_TIMEOUT.saturating_sub(now.saturating_duration_since(since)))
            }
            None => silent,
        }
    }
}

/// The period of silence after which a ping is sent. Servers of this API send a ping after 30 s.
pub(super) const PING_INTERVAL: Duration = Duration::from_secs(40);
/// The time that the answer to a ping may take.
pub(super) const PONG_TIMEOUT: Duration = Duration::from_secs(20);
/// The time for which the server may read nothing: as long as it may be silent.
pub(super) const WRITE_TIMEOUT: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_leads_to_one_ping_then_disconnect() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut liveness = Liveness::new(start);
        assert_eq!(liveness.next(at(39)), LivenessAction::Wait);
        assert_eq!(liveness.timeout(at(39)), Duration::from_secs(1));
        assert_eq!(liveness.next(at(40)), LivenessAction::Ping);
        assert_eq!(liveness.next(at(59)), LivenessAction::Wait);
        assert_eq!(liveness.timeout(at(59)), Duration::from_secs(1));
        assert_eq!(liveness.next(at(60)), LivenessAction::Dead);
        liveness.on_activity(at(60));
        assert_eq!(liveness.next(at(99)), LivenessAction::Wait);
        // A process that was suspended for a long time sends a ping first.
        assert_eq!(liveness.next(at(900)), LivenessAction::Ping);
    }

    #[test]
    fn server_that_never_reads_is_disconnected() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut liveness = Liveness::new(start);
        liveness.on_write(at(0), false, true);
        for second in 1..=10 {
            liveness.on_activity(at(second));
            liveness.on_write(at(second), false, false);
        }
        assert_eq!(liveness.timeout(at(10)), Duration::from_secs(40));
        liveness.on_activity(at(50));
        assert_eq!(liveness.next(at(59)), LivenessAction::Wait);
        assert_eq!(liveness.timeout(at(59)), Duration::from_secs(1));
        assert_eq!(liveness.next(at(60)), LivenessAction::NotReading);
        // Writing slowly is sufficient, as is a flushed queue.
        liveness.on_write(at(60), false, true);
        assert_eq!(liveness.next(at(80)), LivenessAction::Wait);
        liveness.on_write(at(80), true, true);
        liveness.on_activity(at(120));
        liveness.on_write(at(120), false, false);
        assert_eq!(liveness.next(at(121)), LivenessAction::Wait);
    }
}
