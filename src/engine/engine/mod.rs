//! The engine: the connection state machine, independent of the socket type and the clock.
//!
//! Owns the connections and the order of work within a turn: [`Engine::turn`]. It reads no clock and
//! knows no poller: readiness, time, and sockets are supplied by the reactor or a simulation, as
//! [`Io`].
//!
//! Nothing is freed in the middle of a turn: ending a connection only marks it, and
//! marked connections are freed when no looked-up key is in use.

mod accept;
mod admission;
pub(crate) mod arena;
mod body;
mod catch_up;
mod coalesce;
mod cork;
mod deadlines;
mod delivery_latency;
mod drain;
mod event_stream;
mod eviction;
mod fan_out;
mod frames;
mod incomplete;
mod invariants;
mod lifecycle;
mod listeners;
mod merge;
mod read;
mod reload;
mod request;
pub(crate) mod scratch;
mod shed;
mod shrink;
pub(crate) mod timer;
mod turn;
mod work;
mod write;

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::time::Duration;

#[doc(hidden)]
pub use invariants::Interest;
pub use listeners::ListenerOptions;
use read::Requeue;
pub use turn::{Io, IoEvent, Readiness};
pub(crate) use work::RecentWork;
use work::{RunQueue, class_of};

use crate::config::Config;
use crate::conn::{Conn, Flags};
use crate::counters::Counters;
use crate::cx::{ConnCx, Cx, Effect, Outbox};
use crate::engine::arena::Arena;
use crate::engine::scratch::Scratch;
use crate::engine::timer::{TICK_MS, Tick, Wheel, tick_at};
use crate::handler::Handler;
use crate::io::socket::Socket;
use crate::ws::{Deflater, Inflater};
use crate::{ConnKey, Now, TICK_PERIOD};

/// The engine, generic over the socket and the handler.
pub struct Engine<S: Socket, H: Handler> {
    handler: H,
    config: Config,
    arena: Arena<Conn<S, H::Session>>,
    wheel: Wheel,
    scratch: Scratch,
    deflater: Deflater,
    inflater: Inflater,
    outbox: Outbox,
    counters: Counters,
    /// Connections with input.
    run: RunQueue,
    /// Work done for all connections in this turn.
    turn_work: u64,
    visit: read::Visit,
    /// A frame with a message that is to be handled later, until it is stored in its connection.
    postponed_message: Vec<u8>,
    /// Connections with output, in the order in which they were marked.
    dirty: VecDeque<ConnKey>,
    /// Connections that ended in this turn.
    ended: Vec<ConnKey>,
    /// WebSockets that are no longer open, until the handler has been told.
    closed: VecDeque<lifecycle::Closed<H::Session>>,
    /// Open connections that have sent their queued output.
    flushed: Vec<ConnKey>,
    /// Slots of the connections with timers being handled: a small batch.
    due: Vec<u32>,
    fan_out: fan_out::FanOut,
    coalesced: coalesce::CoalescedWrite,
    incomplete: incomplete::IncompleteInput,
    latencies: delivery_latency::TurnLatencies,
    /// The connection with output in the outbox's cork.
    current: Option<ConnKey>,
    /// Indexed by [`eviction::PoolId`].
    pools: [eviction::Pool; 2],
    /// Connections per address or network: see `counted_as`.
    per_ip: HashMap<IpAddr, u32>,
    /// The address of each connection counted in `per_ip`, by slot.
    counted_ips: HashMap<u32, IpAddr>,
    now: Now,
    next_tick: u64,
    drain: Option<drain::Drain>,
    jitter: work::Random,
    /// Messages handled in this turn.
    handled: usize,
    /// TLS handshake steps made in this turn.
    tls_steps: usize,
    /// The handler has work left for the next turn.
    has_handler_work: bool,
    /// Connections served once more in this turn before a deadline was enforced.
    rechecks: usize,
    pause: catch_up::Pause,
    /// The time since which output has used at least half of its memory limit.
    under_pressure_since: Option<Tick>,
    /// Obfuscates the server's clock in ping payloads.
    ping_mask: Tick,
    /// A reload that has not reached all connections yet.
    reload: Option<reload::Walk>,
    listeners: listeners::Listeners,
    /// There may be more messages in the mailbox than the turn has handled.
    has_mail: bool,
}

/// Returns the longest silence of a peer before it is sent a ping, in milliseconds: the interval with
/// its spread, and a delay of this server.
fn ping_silence(config: &Config) -> u64 {
    let interval = u64::try_from(config.ping_interval.as_millis()).unwrap_or(u64::MAX);
    interval.saturating_add(interval / 4).saturating_add(1000)
}

impl<S: Socket, H: Handler> Engine<S, H> {
    /// Creates an engine without connections. `seed` randomizes heartbeats; it need not be secret.
    pub fn new(config: Config, handler: H, seed: u64, now: Now) -> Self {
        let mut scratch = Scratch::new(READ_SIZE);
        scratch.now = floor_tick(now);
        Engine {
            handler,
            arena: Arena::new(),
            wheel: Wheel::new(floor_tick(now)),
            scratch,
            deflater: Deflater::default(),
            inflater: Inflater::default(),
            outbox: Outbox::new(ping_silence(&config)),
            counters: Counters::default(),
            run: RunQueue::default(),
            turn_work: 0,
            visit: read::Visit::default(),
            postponed_message: Vec::new(),
            dirty: VecDeque::new(),
            ended: Vec::new(),
            closed: VecDeque::new(),
            flushed: Vec::new(),
            due: Vec::new(),
            fan_out: fan_out::FanOut::default(),
            coalesced: coalesce::CoalescedWrite::default(),
            incomplete: incomplete::IncompleteInput::default(),
            latencies: delivery_latency::TurnLatencies::default(),
            current: None,
            pools: Default::default(),
            per_ip: HashMap::new(),
            counted_ips: HashMap::new(),
            now,
            next_tick: now.mono + TICK_PERIOD,
            drain: None,
            jitter: work::Random::new(seed),
            handled: 0,
            tls_steps: 0,
            has_handler_work: false,
            rechecks: 0,
            pause: catch_up::Pause::default(),
            under_pressure_since: None,
            ping_mask: (seed >> 32) as Tick ^ seed as Tick,
            reload: None,
            listeners: listeners::Listeners::default(),
            has_mail: false,
            config,
        }
    }

    /// Returns the handler.
    pub fn handler(&self) -> &H {
        &self.handler
    }

    /// Returns the counters.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Records readiness. Stale keys are ignored.
    fn record_readiness(&mut self, key: ConnKey, readiness: Readiness) {
        let now = self.scratch.now;
        let Some(conn) = self.arena.get_mut(key) else {
            return;
        };
        if readiness.read_closed {
            conn.flags.set(Flags::READ_CLOSED);
        }
        if readiness.readable || readiness.read_closed {
            conn.flags.set(Flags::READABLE);
            if conn.flags.raise(Flags::QUEUED) {
                let class = class_of(conn, now, self.config.reserved_listener);
                self.run.push(key, class);
            }
        }
        if readiness.writable {
            if conn.flags.raise(Flags::WRITABLE) {
                // The socket has become writable: the peer is reading its output.
                conn.note_activity(now);
                conn.flags.clear(Flags::AWAITING_PONG);
                if let Some(tx) = &mut conn.tx {
                    tx.uptake.note_room(now);
                }
            }
            let has_output = conn.tx.is_some() || conn.transport.has_output();
            if has_output && conn.flags.raise(Flags::DIRTY) {
                self.dirty.push_back(key);
            }
        }
    }

    /// Adds a connection to the run queue, unless it is already there.
    fn enqueue(&mut self, key: ConnKey) {
        self.enqueue_rest(key, Requeue::Small);
    }

    /// Adds a served connection to the run queue again.
    fn enqueue_rest(&mut self, key: ConnKey, rest: Requeue) {
        let now = floor_tick(self.now);
        if let Some(conn) = self.arena.get_mut(key)
            && conn.flags.raise(Flags::QUEUED)
        {
            let class = class_of(conn, now, self.config.reserved_listener);
            let class = match rest {
                Requeue::Small => class,
                Requeue::Large => class.for_large(),
            };
            self.run.push(key, class);
        }
    }

    /// Schedules a read for a connection that was not being read from. No edge will announce bytes
    /// that the socket already has.
    fn read_again(&mut self, key: ConnKey) {
        let conn = self.arena.get(key);
        if conn.is_some_and(|conn| conn.flags.has(Flags::READABLE) || conn.has_unread()) {
            self.enqueue(key);
        }
    }

    /// Adds a connection to the flush list, unless it is already there.
    fn mark_dirty(&mut self, key: ConnKey) {
        if let Some(conn) = self.arena.get_mut(key)
            && conn.flags.raise(Flags::DIRTY)
        {
            self.dirty.push_back(key);
        }
    }

    /// Arms a connection's timer, replacing its deadline.
    fn arm(&mut self, key: ConnKey, after: Duration) {
        self.arm_after(key, millis(after));
    }

    /// Like `arm`, in milliseconds.
    #[inline]
    fn arm_after(&mut self, key: ConnKey, after: u64) {
        if let Some(conn) = self.arena.get_mut(key) {
            let deadline = tick_at(self.now.mono.saturating_add(after));
            self.wheel.arm(&mut conn.timer, key.index, deadline);
        }
    }

    /// Arms a connection's timer, unless it is armed for an earlier time.
    fn arm_sooner(&mut self, key: ConnKey, after: Duration) {
        let deadline = tick_at(self.now.mono.saturating_add(millis(after)));
        if let Some(conn) = self.arena.get_mut(key)
            && conn.timer.deadline().is_none_or(|armed| armed > deadline)
        {
            self.wheel.arm(&mut conn.timer, key.index, deadline);
        }
    }

    /// Calls the handler outside of any connection that could be replied to.
    fn with_handler<R>(&mut self, call: impl FnOnce(&mut H, &mut Cx<'_, H::Session>) -> R) -> R {
        self.outbox.backlog = self.fan_out.backlog();
        let mut cx = Cx::new(self.now, &mut self.arena, &mut self.outbox, &self.counters);
        call(&mut self.handler, &mut cx)
    }

    /// Calls the handler for the current connection, and collects its replies.
    fn with_replies(
        &mut self,
        key: ConnKey,
        call: impl FnOnce(&mut H, &mut ConnCx<'_, H::Session>),
    ) {
        debug_assert!(
            self.arena.get(key).is_some_and(Conn::is_open),
            "handlers may rely on the session of an open connection"
        );
        self.outbox.serving = self.current;
        self.outbox.backlog = self.fan_out.backlog();
        let cx = Cx::new(self.now, &mut self.arena, &mut self.outbox, &self.counters);
        call(&mut self.handler, &mut ConnCx { cx, key });
        self.outbox.serving = None;
    }

    /// Applies recorded effects and delivers closes, including those recorded meanwhile.
    #[inline]
    fn apply_effects(&mut self) {
        // Most handler calls record no effects.
        if !self.outbox.effects.is_empty() || !self.closed.is_empty() {
            self.apply_all();
        }
    }

    #[inline]
    fn apply_effect(&mut self, effect: Effect) {
        match effect {
            Effect::Send(key, frame) => self.send_frame(key, frame),
            Effect::FanOut(delivery) => self.fan_out.push(delivery, &mut self.counters.ledger),
            Effect::Close(key, code, reason) => self.close_by_application(key, code, &reason),
            Effect::Mute(key) => self.mute(key),
            Effect::Accept(key) => self.accept_deferred(key),
            Effect::MarkAuthenticated(key) => {
                if let Some(conn) = self.arena.get_mut(key) {
                    conn.flags.set(Flags::AUTHENTICATED);
                }
            }
            Effect::Respond(key, response) => self.respond_deferred(key, response),
            Effect::ShutDown(over) => {
                self.listeners.requested = Some(over);
                // The next turn begins at once, and starts the shutdown.
                self.has_mail = true;
            }
        }
    }
}

fn floor_tick(now: Now) -> Tick {
    (now.mono / TICK_MS) as Tick
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX / 2)
}

/// Bytes per read.
const READ_SIZE: usize = 64 * 1024;
/// Bytes per read while other connections wait: input beyond a connection's share of work must be
/// buffered.
const BUSY_READ_SIZE: usize = 8 * 1024;
/// Bytes per read of possibly compressed input, which can expand by a factor of a thousand.
const COMPRESSED_READ_SIZE: usize = 4 * 1024;
/// Connections served per turn.
const RUN_BUDGET: usize = 256;
/// Messages handled per turn for connections with a due timer. Those of other connections are
/// limited by their work.
const MESSAGE_BUDGET: usize = 4096;
/// TLS handshake steps per turn. A step costs as much as a hundred messages.
const TLS_BUDGET: usize = 8;
/// Bytes sent to one connection per turn, before others get theirs.
const WRITE_BUDGET: usize = 64 * 1024;
/// Bytes of queued output sent per turn to all connections: a few milliseconds of copying into the
/// kernel.
const FLUSH_BUDGET: usize = 4 * 1024 * 1024;
/// Timers handled per turn: few enough that the replies to their pings, which arrive meanwhile, find
/// the connections still in the processor's cache.
const TIMER_BUDGET: usize = 128;
/// The same while timers of an earlier tick are left: with about a million connections, or with long
/// turns, more than [`TIMER_BUDGET`] become due from turn to turn.
const LATE_TIMER_BUDGET: usize = 1024;
/// Entries of timers examined per turn, most of which have been postponed.
const ENTRY_BUDGET: usize = 1024;
/// Connections that a reload reaches per turn.
const RELOAD_BUDGET: usize = 8192;
/// Connections served with deliveries per turn: about 5 ms of system calls.
const FAN_OUT_BUDGET: usize = 512;
/// Bytes sent per turn of deliveries. The kernel may accept megabytes of the one that reaches the
/// limit.
const DELIVERY_BUDGET: usize = 1024 * 1024;
/// Pending receivers of deliveries from which on commands must wait.
const MAX_BACKLOG: usize = 1_000_000;
/// Effects for which memory is kept.
const KEPT_EFFECTS: usize = 64;
/// Bytes of replies collected before they are written while input is still being processed.
const CORK_SIZE: usize = 16 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ping_is_sent_within_the_interval_its_spread_and_a_second() {
        let config = Config {
            ping_interval: Duration::from_secs(40),
            ..Config::default()
        };
        assert_eq!(ping_silence(&config), 51_000);
    }

    #[test]
    fn ticks_are_rounded_down() {
        let at = |mono| floor_tick(Now { mono, unix: 0 });
        let ticks = [0, TICK_MS - 1, TICK_MS, 7 * TICK_MS + 1].map(at);
        assert_eq!(ticks, [0, 0, 1, 7]);
    }

    #[test]
    fn endless_durations_are_long() {
        assert_eq!(millis(Duration::from_micros(7900)), 7);
        assert_eq!(millis(Duration::MAX), u64::MAX / 2);
    }
}
