//! Catching up before a deadline is enforced.
//!
//! A deadline limits the peer's actions, but the engine has observed them only as far as it has
//! read and written. After a pause of the process (stopped, or in a suspended virtual machine) or
//! in a long turn, input waits in the socket and readiness events wait in the poller. Therefore,
//! the connection is served once more, and the deadline is enforced only if it is still exceeded.

use std::time::Duration;

use super::read::Requeue;
use super::work::Class;
use super::{Engine, READ_SIZE, TICK_PERIOD, TLS_BUDGET, WRITE_BUDGET, floor_tick, millis};
use crate::ConnKey;
use crate::conn::phase::Extension;
use crate::conn::{Flags, Phase};
use crate::engine::timer::{TICK_MS, Tick};
use crate::handler::Handler;
use crate::io::socket::Socket;

/// The last pause during which the engine did not run, in milliseconds.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Pause {
    ended: u64,
    lasted: u64,
}

impl Pause {
    /// Records a turn that starts at `now`, after one that started at `before`.
    pub(super) fn note(&mut self, before: u64, now: u64) {
        let lasted = now.saturating_sub(before);
        if lasted >= LONGEST_SLEEP {
            // A second pause keeps the time of the first one that has not been given back.
            let left = (self.ended + self.lasted).saturating_sub(now);
            *self = Pause {
                ended: now,
                lasted: lasted + left,
            };
        }
    }

    /// Returns the time until which a timeout may be extended to compensate for the pause.
    pub(super) fn extends_to(&self, timeout: Duration) -> u64 {
        self.ended + self.lasted.min(millis(timeout))
    }
}

impl<S: Socket, H: Handler> Engine<S, H> {
    /// Serves a connection that is not an open WebSocket once more. Returns whether its deadline no
    /// longer applies; its timer has been armed again then.
    pub(super) fn extend_or_confirm_deadline(&mut self, key: ConnKey) -> bool {
        let Some(conn) = self.arena.get(key) else {
            return true;
        };
        let timeout = conn.phase.timeout();
        let was_closing = matches!(conn.phase, Phase::Closing);
        // The response to a deferred request comes from another thread, which was paused as well.
        let is_deferred = matches!(conn.phase, Phase::Deferred(_));
        let has_progressed = is_deferred || self.catch_up(key);
        let Some(conn) = self.arena.get(key) else {
            return true;
        };
        if matches!(conn.phase, Phase::Dead) || conn.timer.deadline().is_some() {
            return true;
        }
        // Unread input is not a delay of this server if it is caused by backpressure.
        let is_unread = conn.has_unread() && conn.queued() <= self.config.queue_soft
            || conn.flags.has(Flags::READABLE)
                && conn.transport.is_handshaking()
                && self.tls_steps >= TLS_BUDGET;
        let extension = conn.phase.extension(was_closing, is_unread, has_progressed);
        let timeout = self.duration_of(timeout);
        let rest = match extension {
            Some(Extension::Linger) => Some(self.config.linger_timeout),
            Some(Extension::NextTick) => Some(Duration::from_millis(TICK_MS)),
            Some(Extension::Pause) => self.time_lost(timeout),
            None => None,
        };
        if let Some(rest) = rest {
            self.arm(key, rest);
        }
        rest.is_some()
    }

    /// Reads and writes once more, regardless of readiness events. Returns whether the connection
    /// has made progress since the last pause, or could have: queued output counts.
    pub(super) fn catch_up(&mut self, key: ConnKey) -> bool {
        self.rechecks += 1;
        let had_output = self.has_output(key);
        self.write_again(key);
        if let Some(conn) = self.arena.get_mut(key)
            && !matches!(conn.phase, Phase::Deferred(_) | Phase::Dead)
        {
            conn.flags.set(Flags::READABLE);
            // A message may need several reads.
            let mut next = None;
            for _ in 0..=self.config.max_message / READ_SIZE {
                next = self.serve_late(key);
                if next.is_none() {
                    break;
                }
            }
            if let Some(rest) = next {
                self.enqueue_rest(key, rest);
            }
        }
        let resumed = (self.pause.ended / TICK_MS) as Tick;
        let conn = self.arena.get(key);
        had_output || conn.is_some_and(|conn| conn.last_activity >= resumed)
    }

    #[cold]
    fn serve_late(&mut self, key: ConnKey) -> Option<Requeue> {
        self.serve_and_charge(key, Class::FIRST, true, |engine| engine.serve_reader(key))
    }

    fn has_output(&self, key: ConnKey) -> bool {
        let conn = self.arena.get(key);
        conn.is_some_and(|conn| conn.tx.is_some() || conn.transport.has_output())
    }

    /// Writes queued output once more: a socket marked as full may have become writable without the
    /// edge having been delivered.
    pub(super) fn write_again(&mut self, key: ConnKey) {
        let now = floor_tick(self.now);
        if !self.has_output(key) {
            return;
        }
        let Some(conn) = self.arena.get_mut(key) else {
            return;
        };
        let was_full = !conn.flags.has(Flags::WRITABLE);
        conn.flags.set(Flags::WRITABLE);
        let before = self.counters.bytes_out;
        for _ in 0..=self.config.queue_hard / WRITE_BUDGET {
            self.flush(key);
            let conn = self.arena.get(key);
            if conn.is_none_or(|conn| conn.tx.is_none() || !conn.flags.has(Flags::WRITABLE)) {
                break;
            }
        }
        if was_full
            && self.counters.bytes_out > before
            && let Some(conn) = self.arena.get_mut(key)
        {
            // As in `ready`: the peer has made room.
            conn.note_activity(now);
            conn.flags.clear(Flags::AWAITING_PONG);
        }
    }

    /// Returns the rest of a timeout that was lost to a pause.
    pub(super) fn time_lost(&self, timeout: Duration) -> Option<Duration> {
        let left = self.pause.extends_to(timeout);
        let left = left.saturating_sub(self.now.mono);
        (left > 0).then(|| Duration::from_millis(left))
    }
}

/// The longest time in milliseconds between two turns that is not a pause: the engine sleeps for at
/// most a tick, and turns are short.
const LONGEST_SLEEP: u64 = 2 * TICK_PERIOD;

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(3600);

    #[test]
    fn only_a_long_time_between_two_turns_is_a_pause() {
        let mut pause = Pause::default();
        pause.note(1000, 1000 + LONGEST_SLEEP - 1);
        assert_eq!(pause.extends_to(LONG), 0);
        pause.note(10_000, 10_000 + LONGEST_SLEEP);
        assert_eq!(pause.extends_to(LONG), 10_000 + 2 * LONGEST_SLEEP);
        let timeout = Duration::from_millis(7);
        assert_eq!(pause.extends_to(timeout), 10_007 + LONGEST_SLEEP);
    }

    #[test]
    fn second_pause_keeps_the_rest_of_the_first() {
        let mut pause = Pause::default();
        pause.note(10_000, 20_000);
        // Of the first pause, 8,000 ms have not been given back.
        pause.note(21_000, 22_000);
        assert_eq!(pause.extends_to(LONG), 22_000 + 1000 + 8000);
    }
}
