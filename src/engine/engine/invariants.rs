//! Invariants that hold between any two calls of the engine; for tests and simulations only.
//!
//! Owns nothing and changes nothing: it recounts by brute force everything that the engine tracks
//! incrementally.

use std::rc::Rc;

use super::{Engine, floor_tick, millis};
use crate::ConnKey;
use crate::conn::{Conn, Flags, Phase};
use crate::engine::timer::{Tick, tick_at};
use crate::frame::Frame;
use crate::handler::Handler;
use crate::io::socket::Socket;
use crate::ledger::Ledger;

/// The engine's scheduling state of one connection.
#[doc(hidden)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Interest {
    /// In the run queue or the flush list.
    pub is_scheduled: bool,
    /// Not read from, because the handler has deferred its response.
    pub is_deferred: bool,
    /// Not read from, because of queued output (backpressure).
    pub is_choked: bool,
    /// An open WebSocket or event stream.
    pub is_open: bool,
    /// No incomplete input and no queued output.
    pub is_idle: bool,
    /// All output has been queued, but our write side has not been shut down.
    pub is_to_be_shut: bool,
    /// Bytes in the output queue.
    pub queued: usize,
}

/// Totals recounted from the connections.
#[derive(Default)]
struct Sums {
    open: u64,
    closing: u64,
    slow: u64,
    queued_bytes: u64,
    incomplete: usize,
    incomplete_bytes: u64,
    ledger: Ledger,
    /// The address and the memory of the frames of each delivery; the same frame may be among them often.
    frames: Vec<(*const Frame, u64)>,
    armed: usize,
    in_run: usize,
    dirty: usize,
    dead: usize,
    per_ip: usize,
}

impl Sums {
    fn add_frame(&mut self, frame: &Rc<Frame>) {
        for frame in [Some(frame), frame.twin()].into_iter().flatten() {
            let memory = frame.memory() as u64;
            self.frames.push((Rc::as_ptr(frame), memory));
        }
    }

    /// Returns the memory of all frames, each counted once.
    fn frame_memory(&mut self) -> u64 {
        // A hash table would take most of the time of a simulation.
        self.frames.sort_unstable();
        self.frames.dedup();
        self.frames.iter().map(|(_, memory)| memory).sum()
    }
}

#[doc(hidden)]
impl<S: Socket, H: Handler> Engine<S, H> {
    /// Returns the scheduling state of a connection; `None` if it is gone.
    pub fn interest(&self, key: ConnKey) -> Option<Interest> {
        let conn = self.arena.get(key)?;
        let queued = conn.queued();
        let is_partial = conn.decoder.is_mid_message()
            || matches!(conn.phase, Phase::ProxyHeader(_))
            || matches!(&conn.phase, Phase::Request { partial, .. } if partial.is_some());
        let is_asking = matches!(conn.phase, Phase::Open(_) | Phase::Request { .. });
        Some(Interest {
            is_scheduled: conn.flags.has(Flags::QUEUED) || conn.flags.has(Flags::DIRTY),
            is_deferred: matches!(conn.phase, Phase::Deferred(_)),
            is_choked: is_asking && queued > 0,
            is_open: conn.is_open(),
            is_idle: conn.tx.is_none() && !is_partial,
            is_to_be_shut: matches!(conn.phase, Phase::Linger { is_shut: false, .. }),
            queued,
        })
    }

    /// Checks all invariants that hold between two turns.
    ///
    /// # Errors
    /// A description of the violated invariant.
    pub fn check_invariants(&self) -> Result<(), String> {
        self.arena.verify()?;
        self.fan_out.verify()?;
        let mut sums = Sums::default();
        let mut keys = Vec::new();
        while let Some(key) = self.arena.next_key(keys.last().map_or(0, after)) {
            keys.push(key);
            self.check_connection(key, &mut sums)
                .map_err(|what| format!("{key:?}: {what}"))?;
        }
        self.verify_places(&keys)?;
        self.check_lists(&sums)?;
        let armed = self.wheel.verify(|index| {
            let key = self.arena.key_at(index)?;
            self.arena.get(key).map(|conn| conn.timer)
        })?;
        equal("entries of the wheel", armed, sums.armed)?;
        let counters = &self.counters;
        equal("connections", counters.connections, self.arena.len() as u64)?;
        equal("open", counters.open, sums.open)?;
        equal("closing", counters.closing, sums.closing)?;
        equal("slow", counters.slow, sums.slow)?;
        equal("queued bytes", counters.queued_bytes, sums.queued_bytes)?;
        let noted = self.incomplete.len();
        equal("in the account of incomplete input", noted, sums.incomplete)?;
        let bytes = counters.incomplete_bytes;
        equal("unfinished bytes", bytes, sums.incomplete_bytes)?;
        for delivery in self.fan_out.deliveries() {
            delivery
                .frames
                .iter()
                .for_each(|frame| sums.add_frame(frame));
        }
        let ledger = Ledger {
            frames: sums.frame_memory(),
            receivers: self.fan_out.recount() as u64,
            input: sums.incomplete_bytes,
            ..sums.ledger
        };
        equal("held", counters.ledger, ledger)?;
        let per_ip: u32 = self.per_ip.values().sum();
        equal("counted by address", per_ip as usize, sums.per_ip)?;
        equal("counted addresses", self.counted_ips.len(), sums.per_ip)?;
        equal("closes left", self.closed.len(), 0)?;
        equal("effects left", self.outbox.effects.len(), 0)?;
        equal("bytes left in the cork", self.outbox.corked(), 0)?;
        equal("current connection", self.current, None)
    }

    fn check_connection(&self, key: ConnKey, sums: &mut Sums) -> Result<(), String> {
        let Some(conn) = self.arena.get(key) else {
            return Err("has a key that finds nothing".to_owned());
        };
        let is_dead = matches!(conn.phase, Phase::Dead);
        let is_armed = conn.timer.deadline().is_some();
        if let Some(tx) = &conn.tx {
            tx.verify()?;
            if is_dead {
                return Err("is dead and has a queue".to_owned());
            }
        }
        if !is_armed && !is_dead {
            return Err("has no deadline".to_owned());
        }
        check_wakeups(conn)?;
        self.check_deadline(key, conn)?;
        sums.open += u64::from(conn.is_open());
        sums.closing += u64::from(conn.phase.is_closing());
        sums.slow += u64::from(conn.is_slow());
        sums.queued_bytes += conn.queued() as u64;
        if let Some(tx) = &conn.tx {
            sums.ledger.queues += tx.private() as u64;
            tx.frames().for_each(|frame| sums.add_frame(frame));
        }
        sums.ledger.records += conn.transport.records() as u64;
        sums.ledger.bodies += conn.body() as u64;
        let incomplete = conn.incomplete();
        if conn.flags.has(Flags::INCOMPLETE) != (incomplete + conn.body() > 0) {
            return Err(format!(
                "{incomplete} bytes of incomplete input are not recorded"
            ));
        }
        sums.incomplete += usize::from(incomplete + conn.body() > 0);
        sums.incomplete_bytes += incomplete as u64;
        sums.armed += usize::from(is_armed);
        sums.in_run += usize::from(conn.flags.has(Flags::QUEUED));
        sums.dirty += usize::from(conn.flags.has(Flags::DIRTY));
        sums.dead += usize::from(is_dead);
        sums.per_ip += usize::from(conn.flags.has(Flags::PER_IP) && !is_dead);
        Ok(())
    }

    /// Checks that an open connection's timer expires before the deadlines of its queue and of its
    /// incomplete message.
    fn check_deadline(&self, key: ConnKey, conn: &Conn<S, H::Session>) -> Result<(), String> {
        let (true, Some(deadline)) = (conn.is_open(), conn.timer.deadline()) else {
            return Ok(());
        };
        // Start times are rounded down, and deadlines are rounded up. Deadlines that a shortened
        // timeout has already passed are checked now.
        let now = floor_tick(self.now);
        let extended = |after| tick_at(self.pause.extends_to(after));
        let latest = |since: Tick, after| {
            (since + tick_at(millis(after)))
                .max(now)
                .max(extended(after))
                + 1
        };
        if self.reload.is_some_and(|walk| walk.is_ahead_of(key)) {
            return Ok(());
        }
        let tx = conn.tx.as_ref();
        match tx.and_then(|tx| tx.over_soft_since) {
            Some(since) if deadline > latest(since, self.config.slow_timeout) => {
                return Err("its queue has no deadline".to_owned());
            }
            // A pong does not count.
            None if conn.queued() > self.config.queue_soft + MAX_CONTROL => {
                return Err("exceeds its limit without a consequence".to_owned());
            }
            _ => {}
        }
        match self.incomplete.since(key) {
            Some(since) if deadline > latest(since, self.config.message_timeout) => {
                Err("its message has no deadline".to_owned())
            }
            _ => Ok(()),
        }
    }

    /// Checks that each list contains every connection flagged as its member exactly once. Apart
    /// from these, it may contain only stale keys.
    fn check_lists(&self, sums: &Sums) -> Result<(), String> {
        let listed = |keys: &mut dyn Iterator<Item = &ConnKey>| {
            keys.filter(|key| self.arena.get(**key).is_some()).count()
        };
        equal(
            "in the run queue",
            listed(&mut self.run.iter()),
            sums.in_run,
        )?;
        equal("to flush", listed(&mut self.dirty.iter()), sums.dirty)?;
        equal("ended", self.ended.len(), sums.dead)
    }
}

/// Checks that no possible read or write depends on an edge that will not occur.
fn check_wakeups<S: Socket, C>(conn: &Conn<S, C>) -> Result<(), String> {
    let flags = conn.flags;
    let has_gone = flags.has(Flags::READ_CLOSED);
    let is_paused = match &conn.phase {
        Phase::Dead => return Ok(()),
        Phase::Deferred(deferred) => deferred.opening.is_none() || !has_gone,
        Phase::Open(_) | Phase::Request { .. } => conn.queued() > 0,
        Phase::ProxyHeader(_) | Phase::Closing | Phase::Linger { .. } => false,
    };
    let has_input = flags.has(Flags::READABLE) || conn.has_unread();
    if has_input && !is_paused && !flags.has(Flags::QUEUED) {
        return Err("may have something to read, and is not in the run queue".to_owned());
    }
    let has_output = conn.tx.is_some() || conn.transport.has_output();
    if has_output && flags.has(Flags::WRITABLE) && !flags.has(Flags::DIRTY) {
        return Err("has something to send and room for it, and is not flushed".to_owned());
    }
    Ok(())
}

/// Returns the slot after that of a connection.
fn after(key: &ConnKey) -> u32 {
    key.index + 1
}

fn equal<T: PartialEq + std::fmt::Debug>(what: &str, is: T, should: T) -> Result<(), String> {
    if is == should {
        return Ok(());
    }
    Err(format!("{what}: {is:?}, should be {should:?}"))
}

/// The longest control frame of a server. RFC 6455 §5.5 allows a payload of 125 bytes.
const MAX_CONTROL: usize = 127;
