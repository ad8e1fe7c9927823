//! The engine: what happens to a connection, whatever its socket and whatever the time.
//!
//! Owns the connections and the order of work within a turn. It reads no clock and knows no
//! poller: readiness, time and sockets are given to it, by the reactor or by a simulation.
//!
//! Nothing is freed in the middle of a turn: to end a connection is to mark it, and
//! [`Engine::reap`] frees the marked ones when nobody holds a key any more that was looked up.

mod accept;
mod address;
mod body;
mod catch_up;
mod cork;
mod drain;
mod fan_out;
mod frames;
mod give_back;
mod invariants;
mod joined;
mod latency;
mod life;
mod places;
mod read;
mod reload;
mod request;
mod shed;
mod stretch;
mod unfinished;
mod work;
mod write;

#[doc(hidden)]
pub use invariants::Interest;
pub(super) use work::RecentWork;

use std::collections::{HashMap, VecDeque};
use std::mem;
use std::net::IpAddr;
use std::time::Duration;

use crate::ws::{Deflater, Inflater};

use super::arena::Arena;
use super::config::Config;
use super::conn::{Conn, Flags};
use super::counters::Counters;
use super::handler::Handler;
use super::outbox::{Cx, Effect, Outbox};
use super::scratch::Scratch;
use super::socket::Socket;
use super::timer::{TICK_MS, Tick, Wheel, tick_at};
use super::tls::TlsConfig;
use super::{ConnKey, ListenerId, Now, TICK_PERIOD};
use read::Rest;
use work::{RunQueue, class_of};

/// The engine over any socket and any handler.
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
    /// A frame with a message that is to be handled later, until it is kept.
    put_back: Vec<u8>,
    /// Connections with output, in the order in which it was noticed.
    dirty: VecDeque<ConnKey>,
    /// Those that ended in this turn.
    ended: Vec<ConnKey>,
    /// Those whose timers are being handled, by slot: a few at once.
    due: Vec<u32>,
    fan_out: fan_out::FanOut,
    joined: joined::Joined,
    unfinished: unfinished::Unfinished,
    written: latency::Written,
    /// The connection whose replies are being collected in the outbox's cork.
    current: Option<ConnKey>,
    /// By [`places::PoolId`].
    pools: [places::Pool; 2],
    /// By address or network: see `counted_as`.
    per_ip: HashMap<IpAddr, u32>,
    /// The address of each connection that counts in `per_ip`.
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
    /// Connections served once more in this turn, before a deadline was enforced.
    looks: usize,
    standstill: catch_up::Standstill,
    /// Since when output has taken half of its memory or more.
    pressed_since: Option<Tick>,
    /// Hides the server's clock in the payloads of pings.
    ping_mask: Tick,
    /// A reload that has not reached all connections.
    reload: Option<reload::Walk>,
}

/// What a poller says of a socket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Readiness {
    /// There may be bytes, or an end, or an error to read.
    pub readable: bool,
    /// There may be room.
    pub writable: bool,
    /// The peer ended its direction, or the connection broke.
    pub read_closed: bool,
}

/// A connection that is about to be accepted.
pub struct Arrival<S> {
    /// The connected socket.
    pub socket: S,
    /// The listener it came in on.
    pub listener: ListenerId,
    /// The peer's address; `None` on a unix socket.
    pub peer: Option<IpAddr>,
    /// Whether it has to begin with a header of the PROXY protocol.
    pub has_preface: bool,
    /// The certificate to speak TLS with, on a listener that does.
    pub tls: Option<TlsConfig>,
}

impl<S: Socket, H: Handler> Engine<S, H> {
    /// An engine without connections. `seed` spreads heartbeats; it need not be secret.
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
            outbox: Outbox::default(),
            counters: Counters::default(),
            run: RunQueue::default(),
            turn_work: 0,
            visit: read::Visit::default(),
            put_back: Vec::new(),
            dirty: VecDeque::new(),
            ended: Vec::new(),
            due: Vec::new(),
            fan_out: fan_out::FanOut::default(),
            joined: joined::Joined::default(),
            unfinished: unfinished::Unfinished::default(),
            written: latency::Written::default(),
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
            looks: 0,
            standstill: catch_up::Standstill::default(),
            pressed_since: None,
            ping_mask: (seed >> 32) as Tick ^ seed as Tick,
            reload: None,
            config,
        }
    }

    /// The application.
    pub fn handler(&self) -> &H {
        &self.handler
    }

    /// What has been counted.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// The socket of a connection, for registering it with a poller.
    pub fn socket_mut(&mut self, key: ConnKey) -> Option<&mut S> {
        Some(self.arena.get_mut(key)?.transport.socket_mut())
    }

    /// Takes note of readiness. Keys of connections that are gone do nothing.
    pub fn ready(&mut self, key: ConnKey, readiness: Readiness) {
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
                // There was no room, and now there is: the peer is taking what it gets.
                conn.note_heard(now);
                conn.flags.clear(Flags::PING_OUT);
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

    /// Starts a turn: everything in it happens at `now`.
    pub fn begin_turn(&mut self, now: Now) {
        let before = self.now.mono;
        self.now = Now {
            mono: now.mono.max(before),
            unix: now.unix,
        };
        self.standstill.note(before, self.now.mono);
        self.scratch.now = floor_tick(self.now);
        self.handled = 0;
        self.turn_work = 0;
        self.tls_steps = 0;
        let records = self.counters.held.records;
        self.scratch
            .limit_records(records, self.config.queue_total as u64);
        self.looks = 0;
        self.written.clear();
    }

    /// Whether there is room for what another command may cause. While there is not, commands
    /// should stay where they are, so that whoever sends them waits.
    pub fn wants_commands(&self) -> bool {
        self.fan_out.backlog() < MAX_BACKLOG
    }

    /// Hands a command to the handler.
    pub fn command(&mut self, command: H::Command) {
        self.with_handler(|handler, cx| handler.on_command(cx, command));
        self.has_handler_work = true;
        self.apply_effects();
    }

    /// Serves those who have something to read, then the deliveries, then those who have
    /// something to send, then the clock: each within a budget.
    pub fn serve(&mut self) {
        self.serve_readers();
        let backlog = self.fan_out.backlog();
        self.serve_handler();
        // While a handler goes on with a burst of deliveries, they are gathered, to leave together.
        let goes_on = self.has_handler_work && self.fan_out.backlog() > backlog;
        if !goes_on || !self.fan_out.may_gather() {
            self.serve_fan_out();
        }
        self.flush_dirty();
        self.serve_reload();
        self.serve_timers();
        self.serve_drain();
        self.shed_load();
        self.shed_unfinished();
        self.apply_effects();
    }

    /// Lets the handler continue its own work, if it has any and there is memory for the output.
    fn serve_handler(&mut self) {
        if self.has_handler_work && self.has_room() {
            self.has_handler_work = self.with_handler(|handler, cx| handler.on_turn(cx));
            self.apply_effects();
        }
    }

    /// Whether further events may be delivered: output takes less than half of its memory.
    fn has_room(&self) -> bool {
        self.counters.held.output() < self.config.queue_total as u64 / 2
    }

    /// Frees the connections that ended. Returns whether any did, which may have made room
    /// for an `accept` that failed.
    #[inline]
    pub fn reap(&mut self) -> bool {
        let any = !self.ended.is_empty();
        if any {
            self.free_ended();
        }
        any
    }

    #[inline(never)]
    fn free_ended(&mut self) {
        while let Some(key) = self.ended.pop() {
            if let Some(mut ended) = self.arena.remove(key) {
                self.wheel.disarm(&mut ended.timer);
                ended.transport.release(&mut self.counters.held);
                self.leave_place(&ended);
            }
            self.counters.connections -= 1;
        }
    }

    /// How long the poller may wait: zero while work was left behind.
    #[inline(always)]
    pub fn timeout(&self) -> Duration {
        let has_output = !self.dirty.is_empty() || self.fan_out.backlog() > 0;
        let has_work = self.reload.is_some() || (self.has_handler_work && self.has_room());
        if !self.run.is_empty() || has_output || has_work {
            return Duration::ZERO;
        }
        let wheel = self.wheel.next_tick().map(|tick| u64::from(tick) * TICK_MS);
        let next = wheel.map_or(self.next_tick, |wheel| wheel.min(self.next_tick));
        let drain = self.drain.as_ref().map_or(u64::MAX, |_| drain::DRAIN_STEP);
        Duration::from_millis(next.saturating_sub(self.now.mono).min(drain))
    }

    /// Puts a connection into the run queue, if it is not there.
    fn enqueue(&mut self, key: ConnKey) {
        self.enqueue_rest(key, Rest::Small);
    }

    /// The same, of a connection that was served.
    fn enqueue_rest(&mut self, key: ConnKey, rest: Rest) {
        let now = floor_tick(self.now);
        if let Some(conn) = self.arena.get_mut(key)
            && conn.flags.raise(Flags::QUEUED)
        {
            let class = class_of(conn, now, self.config.reserved_listener);
            let class = match rest {
                Rest::Small => class,
                Rest::Large => class.for_large(),
            };
            self.run.push(key, class);
        }
    }

    /// Has a connection read from again that something has kept from it: of what its socket
    /// has already no edge will tell.
    fn read_again(&mut self, key: ConnKey) {
        let conn = self.arena.get(key);
        if conn.is_some_and(|conn| conn.flags.has(Flags::READABLE) || conn.has_unread()) {
            self.enqueue(key);
        }
    }

    /// Puts a connection on the list of those to flush, if it is not there.
    fn mark_dirty(&mut self, key: ConnKey) {
        if let Some(conn) = self.arena.get_mut(key)
            && conn.flags.raise(Flags::DIRTY)
        {
            self.dirty.push_back(key);
        }
    }

    /// Sets a connection's timer, in place of what it was set for.
    fn arm(&mut self, key: ConnKey, after: Duration) {
        self.arm_after(key, millis(after));
    }

    /// The same, in milliseconds.
    #[inline]
    fn arm_after(&mut self, key: ConnKey, after: u64) {
        if let Some(conn) = self.arena.get_mut(key) {
            let deadline = tick_at(self.now.mono.saturating_add(after));
            self.wheel.arm(&mut conn.timer, key.index, deadline);
        }
    }

    /// Sets a connection's timer, unless it is set for an earlier time already.
    fn arm_sooner(&mut self, key: ConnKey, after: Duration) {
        let deadline = tick_at(self.now.mono.saturating_add(millis(after)));
        if let Some(conn) = self.arena.get_mut(key)
            && conn.timer.deadline().is_none_or(|armed| armed > deadline)
        {
            self.wheel.arm(&mut conn.timer, key.index, deadline);
        }
    }

    /// Calls the handler where there is no connection that a reply could be meant for: what it
    /// says there must not reach whoever happens to be served.
    fn with_handler<R>(&mut self, call: impl FnOnce(&mut H, &mut Cx<'_, H::Session>) -> R) -> R {
        let (bytes, replies) = (self.outbox.cork.len(), self.outbox.replies);
        let result = self.call_handler(call);
        self.outbox.cork.truncate(bytes);
        self.outbox.replies = replies;
        result
    }

    /// Calls the handler for the current connection, and collects what it says to it.
    fn with_replies<R>(&mut self, call: impl FnOnce(&mut H, &mut Cx<'_, H::Session>) -> R) -> R {
        self.outbox.serving = self.current;
        let result = self.call_handler(call);
        self.outbox.serving = None;
        result
    }

    fn call_handler<R>(&mut self, call: impl FnOnce(&mut H, &mut Cx<'_, H::Session>) -> R) -> R {
        self.outbox.backlog = self.fan_out.backlog();
        let mut cx = Cx::new(self.now, &mut self.arena, &mut self.outbox, &self.counters);
        call(&mut self.handler, &mut cx)
    }

    /// Does what handlers asked for, and what they ask for while it is done.
    #[inline]
    fn apply_effects(&mut self) {
        // Most calls of a handler ask for nothing.
        if !self.outbox.effects.is_empty() {
            self.apply_all_effects();
        }
    }

    #[inline(never)]
    fn apply_all_effects(&mut self) {
        let mut effects = Vec::new();
        while !self.outbox.effects.is_empty() {
            mem::swap(&mut effects, &mut self.outbox.effects);
            for effect in effects.drain(..) {
                self.apply_effect(effect);
            }
        }
        // The memory is kept for the next ones, unless there were unusually many.
        effects.shrink_to(KEPT_EFFECTS);
        self.outbox.effects = effects;
    }

    #[inline]
    fn apply_effect(&mut self, effect: Effect) {
        match effect {
            Effect::Send(key, frame) => self.send_frame(key, frame),
            Effect::FanOut(delivery) => self.fan_out.push(delivery, &mut self.counters.held),
            Effect::Close(key, code, reason) => self.close_by_application(key, code, &reason),
            Effect::Accept(key) => self.accept_deferred(key),
            Effect::MarkAuthenticated(key) => {
                if let Some(conn) = self.arena.get_mut(key) {
                    conn.flags.set(Flags::AUTHENTICATED);
                }
            }
            Effect::Respond(key, response) => self.respond_deferred(key, response),
        }
    }
}

fn floor_tick(now: Now) -> Tick {
    (now.mono / TICK_MS) as Tick
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX / 2)
}

/// Bytes read at once.
const READ_SIZE: usize = 64 * 1024;
/// Bytes read at once while other connections wait: input that a connection's share of work does
/// not cover has to be kept for it.
const BUSY_READ_SIZE: usize = 8 * 1024;
/// Bytes read at once that may be compressed: each may stand for a thousand.
const COMPRESSED_READ_SIZE: usize = 4 * 1024;
/// Connections served in a turn.
const RUN_BUDGET: usize = 256;
/// Messages of connections with a timer that is due, after which a turn goes on to its other duties.
/// Those of other connections are limited by their work.
const MESSAGE_BUDGET: usize = 4096;
/// TLS handshake steps in a turn: each costs as much as a hundred messages.
const TLS_BUDGET: usize = 8;
/// Bytes sent to one connection in a turn, before others have theirs.
const WRITE_BUDGET: usize = 64 * 1024;
/// Bytes of queued output sent in a turn to all connections together: a few milliseconds of
/// copying into the kernel.
const FLUSH_BUDGET: usize = 4 * 1024 * 1024;
/// Timers handled in a turn.
const TIMER_BUDGET: usize = 1024;
/// Connections that a reload reaches in a turn.
const RELOAD_BUDGET: usize = 8192;
/// Connections served with deliveries in a turn: about 5 ms of system calls.
const FAN_OUT_BUDGET: usize = 512;
/// Receivers that deliveries may be waiting for, before commands have to wait.
const MAX_BACKLOG: usize = 1_000_000;
/// Effects for which memory is kept.
const KEPT_EFFECTS: usize = 64;
/// Replies collected before they are written in the midst of a connection's input.
const CORK_SIZE: usize = 16 * 1024;
