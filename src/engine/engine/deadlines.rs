//! The deadlines and heartbeats of connections.

use std::mem;
use std::time::Duration;

use super::{
    ENTRY_BUDGET, Engine, LATE_TIMER_BUDGET, MESSAGE_BUDGET, RUN_BUDGET, TICK_PERIOD, TIMER_BUDGET,
    floor_tick, millis,
};
use crate::ConnKey;
use crate::conn::keep_alive::{Lateness, PassedDeadline, TimerAction};
use crate::conn::lifecycle::Event;
use crate::conn::pace::SHORT_LAG;
use crate::conn::{Conn, Flags};
use crate::engine::timer::{TICK_MS, Tick};
use crate::handler::Handler;
use crate::io::socket::Socket;
use crate::ws::{self, OpCode};

impl<S: Socket, H: Handler> Engine<S, H> {
    /// Handles expired timers and periodic work.
    pub(super) fn serve_timers(&mut self) {
        self.wheel.advance(floor_tick(self.now));
        self.wheel.tidy(&mut self.arena);
        // The budget for TLS handshakes of connections served from timers; the run queue has its
        // own.
        self.tls_steps = 0;
        if self.wheel.has_due() {
            self.serve_due();
        }
        if self.now.mono >= self.next_tick {
            let late = Duration::from_millis(self.now.mono - self.next_tick);
            self.counters.lag.observe(late);
            self.next_tick = self.now.mono + TICK_PERIOD;
            self.flush_accept_log();
            self.with_handler(|handler, cx| handler.on_tick(cx));
            self.shrink();
        }
        self.apply_effects();
    }

    /// Handles expired timers, within a budget.
    #[inline(never)]
    fn serve_due(&mut self) {
        let mut due = mem::take(&mut self.due);
        let (mut handled, mut examined) = (0, 0);
        let budget = match self.wheel.is_behind() {
            true => LATE_TIMER_BUDGET,
            false => TIMER_BUDGET,
        };
        let most_messages = self.handled + MESSAGE_BUDGET;
        while self.wheel.has_due()
            && handled < budget
            && examined < ENTRY_BUDGET
            && self.rechecks < RUN_BUDGET
            && self.handled < most_messages
        {
            examined += self.wheel.take_due(&mut self.arena, &mut due);
            handled += due.len();
            for index in due.drain(..) {
                if let Some(key) = self.arena.key_at(index) {
                    self.on_timer(key);
                    self.apply_effects();
                }
            }
        }
        self.due = due;
    }

    /// Handles the expiry of a connection's timer, depending on its phase.
    fn on_timer(&mut self, key: ConnKey) {
        let Some(conn) = self.arena.get_mut(key) else {
            return;
        };
        if conn.timer.deadline().is_some() {
            // Handling another timer of the same batch has armed this one again.
            return;
        }
        if conn.is_open() {
            let has_deadline = !conn.is_at_rest() || conn.flags.has(Flags::AWAITING_PONG);
            if !has_deadline || self.is_in_time(key) {
                self.heartbeat(key);
            }
            return;
        }
        if self.extend_or_confirm_deadline(key) {
            return;
        }
        if let Some(conn) = self.arena.get(key) {
            let can_respond = !conn.transport.is_handshaking();
            self.apply(key, Event::Deadline { can_respond });
        }
    }

    /// Returns whether all deadlines of an open connection are met. A deadline that has passed is
    /// enforced only if it is still exceeded after the connection has been served once more.
    fn is_in_time(&mut self, key: ConnKey) -> bool {
        self.passed_deadline(key).is_none() || self.recheck_deadline(key)
    }

    /// Like `is_in_time`, for a connection with a deadline that seems to have passed.
    #[cold]
    fn recheck_deadline(&mut self, key: ConnKey) -> bool {
        let has_progressed = self.catch_up(key);
        if !self.arena.get(key).is_some_and(Conn::is_open) {
            return false;
        }
        let Some(passed_deadline) = self.passed_deadline(key) else {
            return true;
        };
        let timeout = match passed_deadline {
            PassedDeadline::Queue => self.config.slow_timeout,
            PassedDeadline::Message => self.config.message_timeout,
            PassedDeadline::Pong => self.config.pong_timeout,
        };
        match self.time_lost(timeout).filter(|_| has_progressed) {
            Some(rest) => self.extend(key, rest),
            None => self.apply(key, passed_deadline.event()),
        }
        false
    }

    /// Extends the timer of an open connection by time that was lost, up to the limit for its
    /// incomplete message.
    fn extend(&mut self, key: ConnKey, mut rest: Duration) {
        let conn = self.arena.get(key);
        if conn.is_some_and(|conn| conn.flags.has(Flags::INCOMPLETE)) {
            let lost = self.time_lost(self.config.message_timeout);
            rest = rest.min(lost.unwrap_or_else(|| duration(1)));
        }
        self.arm(key, rest);
    }

    /// Returns the deadline of an open connection that has passed, if any.
    fn passed_deadline(&self, key: ConnKey) -> Option<PassedDeadline> {
        let now = floor_tick(self.now);
        let conn = self.arena.get(key)?;
        let has_passed = |since: Tick, timeout| now >= since.saturating_add(ticks(timeout));
        let (slow, large) = (self.config.slow_timeout, self.config.queue_hard);
        let tx = conn.tx.as_ref();
        let queue = tx.and_then(|tx| tx.over_soft_since.map(|since| (tx, since)));
        let is_asked = conn.flags.has(Flags::AWAITING_PONG);
        let lateness = Lateness {
            queue: queue.map(|(tx, since)| {
                has_passed(since, slow) && !tx.keeps_pace(now, ticks(slow), large)
            }),
            has_unread: conn.has_unread(),
            message: conn.flags.has(Flags::INCOMPLETE) && self.time_to_complete(key) == Some(0),
            pong: is_asked && has_passed(conn.last_activity, self.config.pong_timeout),
        };
        lateness.passed_deadline()
    }

    /// Sends a ping to an open connection that has been idle for long, or a comment to an event
    /// stream, and arms its timer.
    fn heartbeat(&mut self, key: ConnKey) {
        let now = self.scratch.now;
        let Some(conn) = self.arena.get_mut(key) else {
            return;
        };
        if conn.flags.has(Flags::EVENT_STREAM) {
            return self.comment(key);
        }
        let silent = u64::from(now.saturating_sub(conn.last_activity)) * TICK_MS;
        let interval = millis(self.config.ping_interval);
        let (heartbeat, action) = conn.flags.heartbeat().expire(silent, interval);
        conn.flags.set_heartbeat(heartbeat);
        let next = match action {
            TimerAction::KeepWaiting => {
                let pong_deadline = conn
                    .last_activity
                    .saturating_add(ticks(self.config.pong_timeout));
                // By then, the pong may have arrived, and the next ping may be due.
                let next = self.spread(interval, 9, 11);
                match pong_deadline > now {
                    true => next.min(u64::from(pong_deadline - now) * TICK_MS),
                    false => next,
                }
            }
            TimerAction::Ping => {
                let wait = self.ping(key);
                wait.min(self.spread(interval, 9, 11))
            }
            TimerAction::Nothing => self.spread(interval, 9, 11).saturating_sub(silent),
        };
        self.arm_open(key, next);
    }

    /// Sends a ping. Returns the timeout for the pong in milliseconds.
    fn ping(&mut self, key: ConnKey) -> u64 {
        let now = self.scratch.now;
        let Some(conn) = self.arena.get_mut(key) else {
            return 0;
        };
        // If the socket is full, an edge, which counts as activity, will occur before the peer can
        // have read the output accepted by the kernel. Queued output is accounted for when it is
        // written.
        let is_leaving = conn.flags.has(Flags::WRITABLE);
        let queued = if is_leaving { conn.queued() } else { 0 };
        let lag = conn.transport.pace().lag(queued, now);
        conn.note_activity(now);
        // From here on, `last_activity` is the latest time at which the ping has been read.
        conn.last_activity = now + lag;
        match lag > SHORT_LAG {
            true => conn.flags.set(Flags::SLOW_PING),
            false => conn.flags.clear(Flags::SLOW_PING),
        }
        self.counters.pings_sent += 1;
        let mark = (conn.last_activity ^ self.ping_mask).to_be_bytes();
        // If the lag is significant, the payload lets the pong tell how far the peer has read.
        let payload = if lag > SHORT_LAG { &mark[..] } else { &[] };
        self.queue_own(key, |out| ws::encode_frame(OpCode::Ping, payload, out));
        millis(self.config.pong_timeout).saturating_add(u64::from(lag) * TICK_MS)
    }

    /// Handles a pong, which proves that its ping and all output before it have been read.
    pub(super) fn on_pong(&mut self, key: ConnKey, payload: &[u8]) {
        let now = floor_tick(self.now);
        if let Ok(mark) = payload.try_into().map(Tick::from_be_bytes)
            && let Some(conn) = self.arena.get_mut(key)
        {
            let read_by = mark ^ self.ping_mask;
            let ahead = read_by.saturating_sub(now);
            conn.transport.pace_mut().advance(ahead, now);
        }
    }

    /// Arms the timer of an open connection, in milliseconds, but no later than the deadline of its
    /// queue or incomplete message.
    pub(super) fn arm_open(&mut self, key: ConnKey, after: u64) {
        let sooner = self.time_to_deadline(key).map(millis);
        self.arm_after(key, sooner.map_or(after, |sooner| sooner.min(after)));
    }

    /// Returns the time until the deadline of a connection's queue or incomplete message.
    #[inline]
    pub(super) fn time_to_deadline(&self, key: ConnKey) -> Option<Duration> {
        let conn = self.arena.get(key)?;
        if conn.is_at_rest() {
            return None;
        }
        self.earliest_deadline(key, conn)
    }

    #[inline(never)]
    fn earliest_deadline(&self, key: ConnKey, conn: &Conn<S, H::Session>) -> Option<Duration> {
        let over_soft_since = conn.tx.as_ref().and_then(|tx| tx.over_soft_since);
        let is_unfinished = conn.flags.has(Flags::INCOMPLETE);
        if over_soft_since.is_none() && !is_unfinished {
            return None;
        }
        let slow = over_soft_since.map(|since| {
            let at = u64::from(since) * TICK_MS + millis(self.config.slow_timeout);
            Duration::from_millis(at.saturating_sub(self.now.mono))
        });
        let incomplete = self.time_to_complete(key).map(Duration::from_millis);
        [slow, incomplete].into_iter().flatten().min()
    }

    /// Returns the time until a new connection's first heartbeat. It is random, so that connections
    /// accepted together spread out.
    pub(super) fn first_ping(&mut self) -> Duration {
        let interval = millis(self.config.ping_interval);
        Duration::from_millis(self.spread(interval, 5, 10))
    }

    /// Returns a random duration from `from` to `to` tenths of an interval.
    pub(super) fn spread(&mut self, interval: u64, from: u64, to: u64) -> u64 {
        let span = (interval / 10 * (to - from)).max(1);
        interval / 10 * from + self.jitter.draw() % span
    }
}

fn duration(ticks: Tick) -> Duration {
    Duration::from_millis(u64::from(ticks) * TICK_MS)
}

pub(super) fn ticks(duration: Duration) -> Tick {
    Tick::try_from(millis(duration).div_ceil(TICK_MS)).unwrap_or(Tick::MAX / 2)
}
