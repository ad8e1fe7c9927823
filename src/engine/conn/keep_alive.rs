//! Keep-alive of open connections: pings, and the deadlines that a peer can miss.
//!
//! Owns: when a ping is due, and which deadline is enforced first. Must not know: sockets, queues,
//! or the clock.

use super::Flags;
use super::close_cause::{CloseCause, OpenTimeout};
use super::lifecycle::Event;

/// The state of an open connection's heartbeat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Heartbeat {
    /// The first heartbeat, which comes sooner than later ones, is still due.
    First,
    /// There has been activity since the last ping.
    Quiet,
    /// A ping was sent, and there has been no activity since.
    AwaitingPong,
}

/// The action when a timer expires and no deadline has passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TimerAction {
    /// A ping is sent.
    Ping,
    /// The pong is still awaited.
    KeepWaiting,
    /// There was activity: no ping is due.
    Nothing,
}

impl Heartbeat {
    /// Handles an expired timer, after `silent` of `interval` milliseconds without activity.
    pub(crate) fn expire(self, silent: u64, interval: u64) -> (Heartbeat, TimerAction) {
        let tenths = match self {
            Heartbeat::AwaitingPong => return (self, TimerAction::KeepWaiting),
            Heartbeat::First => 5,
            Heartbeat::Quiet => 9,
        };
        match silent >= interval / 10 * tenths {
            true => (Heartbeat::AwaitingPong, TimerAction::Ping),
            false => (Heartbeat::Quiet, TimerAction::Nothing),
        }
    }
}

impl Flags {
    pub(crate) fn heartbeat(self) -> Heartbeat {
        if self.has(Flags::AWAITING_PONG) {
            Heartbeat::AwaitingPong
        } else if self.has(Flags::FIRST_PING) {
            Heartbeat::First
        } else {
            Heartbeat::Quiet
        }
    }

    pub(crate) fn set_heartbeat(&mut self, heartbeat: Heartbeat) {
        self.clear(Flags::AWAITING_PONG);
        self.clear(Flags::FIRST_PING);
        match heartbeat {
            Heartbeat::First => self.set(Flags::FIRST_PING),
            Heartbeat::Quiet => {}
            Heartbeat::AwaitingPong => self.set(Flags::AWAITING_PONG),
        }
    }
}

/// The lateness of an open connection, for each of its deadlines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Lateness {
    /// If the output queue exceeds the soft limit: whether it has for too long.
    pub queue: Option<bool>,
    /// Received input is unprocessed.
    pub has_unread: bool,
    /// An incomplete message has used up its time.
    pub message: bool,
    /// An awaited pong has used up its time.
    pub pong: bool,
}

/// A deadline of an open connection that has passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PassedDeadline {
    /// The output queue has exceeded the soft limit for too long.
    Queue,
    /// A message was not completed in time.
    Message,
    /// A ping was not answered in time.
    Pong,
}

impl Lateness {
    /// Returns the deadline to enforce, if any.
    pub(crate) fn passed_deadline(self) -> Option<PassedDeadline> {
        match self.queue {
            // While the queue exceeds the soft limit, nothing is read, so input has no deadline.
            Some(is_late) => is_late.then_some(PassedDeadline::Queue),
            // The delay is this server's.
            None if self.has_unread => None,
            None if self.message => Some(PassedDeadline::Message),
            None if self.pong => Some(PassedDeadline::Pong),
            None => None,
        }
    }
}

impl PassedDeadline {
    /// Returns the event of enforcing the deadline.
    pub(crate) fn event<C>(self) -> Event<'static, C> {
        match self {
            PassedDeadline::Queue => Event::TooSlow,
            PassedDeadline::Message => Event::Failed(CloseCause::Timeout(OpenTimeout::Message)),
            PassedDeadline::Pong => Event::PongOverdue,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_ping_comes_sooner_than_later_ones() {
        for (before, silent, after, beat) in [
            (
                Heartbeat::First,
                499,
                Heartbeat::Quiet,
                TimerAction::Nothing,
            ),
            (
                Heartbeat::First,
                500,
                Heartbeat::AwaitingPong,
                TimerAction::Ping,
            ),
            (
                Heartbeat::Quiet,
                899,
                Heartbeat::Quiet,
                TimerAction::Nothing,
            ),
            (
                Heartbeat::Quiet,
                900,
                Heartbeat::AwaitingPong,
                TimerAction::Ping,
            ),
            (
                Heartbeat::AwaitingPong,
                9000,
                Heartbeat::AwaitingPong,
                TimerAction::KeepWaiting,
            ),
        ] {
            assert_eq!(before.expire(silent, 1000), (after, beat));
            let mut flags = Flags::READABLE;
            for heartbeat in [after, before, after] {
                flags.set_heartbeat(heartbeat);
                assert_eq!(flags.heartbeat(), heartbeat);
                assert!(flags.has(Flags::READABLE));
            }
        }
    }

    #[test]
    fn one_deadline_is_enforced_at_a_time() {
        for bits in 0..16 {
            let [message, pong, has_unread, is_over] = [1, 2, 4, 8].map(|bit| bits & bit != 0);
            let of = |queue| {
                let lateness = Lateness {
                    queue,
                    has_unread,
                    message,
                    pong,
                };
                lateness.passed_deadline()
            };
            assert_eq!(of(Some(is_over)), is_over.then_some(PassedDeadline::Queue));
            let want = match (has_unread, message, pong) {
                (true, ..) | (_, false, false) => None,
                (false, true, _) => Some(PassedDeadline::Message),
                (false, false, true) => Some(PassedDeadline::Pong),
            };
            assert_eq!(of(None), want);
        }
    }
}
