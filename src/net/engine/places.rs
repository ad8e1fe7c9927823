//! Places for connections, and which connection is ended to make room for another.
//!
//! Owns the account of places. All listeners share `max_connections` of them, except the reserved
//! one, which has `max_reserved` of its own. A connection that waits for a request, be it the
//! first or the next, holds its place only until another connection needs it.

use std::collections::{HashMap, VecDeque};
use std::mem;
use std::net::IpAddr;

use super::super::conn::{Conn, Flags, Phase};
use super::super::handler::Handler;
use super::super::socket::Socket;
use super::super::timer::{TICK_MS, Tick};
use super::super::{ConnKey, ListenerId};
use super::give_back::enough;
use super::life::ticks;
use super::{Engine, floor_tick};

/// The connections that share a limit.
#[derive(Default)]
pub(super) struct Pool {
    /// Connections that hold a place.
    placed: usize,
    /// Connections beyond the limit, accepted only to be told 503.
    surplus: usize,
    /// All connections that speak HTTP, each once, among keys of connections that are gone or
    /// have become WebSockets: these are removed when they are met, or are many.
    http: VecDeque<ConnKey>,
}

/// Names a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PoolId {
    Public,
    Reserved,
}

/// Which kind of place a new connection has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// One within the limit.
    Own,
    /// One beyond it, to be told 503.
    Surplus,
}

/// Connections that may be ended, by the loss that this means.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    /// Has been answered, or has had [`GRACE`] to send a request.
    Idle,
    /// Has yet to send its first request, or to take its last answer.
    Fresh,
    /// Belongs to a client that has authenticated itself.
    Authenticated,
}

/// The order within a class: connections with unread input last, else the longest idle first.
type Rank = (bool, Tick, u32);

/// The first connection of each class, and how many there are in it.
#[derive(Default)]
struct Candidates {
    first: [Option<(Rank, ConnKey)>; 3],
    counts: [usize; 3],
}

impl Candidates {
    fn add(&mut self, class: Class, rank: Rank, key: ConnKey) {
        let first = &mut self.first[class as usize];
        if first.is_none_or(|(best, _)| rank < best) {
            *first = Some((rank, key));
        }
        self.counts[class as usize] += 1;
    }

    fn first_of(&self, classes: &[Class]) -> Option<ConnKey> {
        let mut first = classes.iter().map(|&class| self.first[class as usize]);
        first.find_map(|first| first.map(|(_, key)| key))
    }
}

impl<S: Socket, H: Handler> Engine<S, H> {
    pub(super) fn pool_of(&self, listener: ListenerId) -> PoolId {
        match Some(listener) == self.config.reserved_listener {
            true => PoolId::Reserved,
            false => PoolId::Public,
        }
    }

    /// Connections of the reserved listener.
    pub(super) fn reserved_connections(&self) -> usize {
        let pool = &self.pools[PoolId::Reserved as usize];
        pool.placed + pool.surplus
    }

    /// Finds a place for a new connection, if need be by ending another one; `None` if there is
    /// not even a place to be told so.
    pub(super) fn find_place(&mut self, id: PoolId) -> Option<Place> {
        if self.is_full(id) {
            // Connections that ended in this turn hold their places until they are freed.
            self.reap();
        }
        if self.is_full(id)
            && let Some(key) = self.find_idle(id, None)
        {
            match id {
                PoolId::Public => self.counters.evicted.connections += 1,
                PoolId::Reserved => self.counters.evicted.reserved += 1,
            }
            self.end_idle(key);
            self.reap();
        }
        match self.is_full(id) {
            false => Some(Place::Own),
            true => (self.pools[id as usize].surplus < SURPLUS).then_some(Place::Surplus),
        }
    }

    fn is_full(&self, id: PoolId) -> bool {
        let limit = match id {
            PoolId::Public => self.config.max_connections,
            PoolId::Reserved => self.config.max_reserved,
        };
        self.pools[id as usize].placed >= limit
    }

    /// Ends a connection of an address that has as many as it may; false if none may be ended.
    pub(super) fn make_room_for(&mut self, ip: IpAddr) -> bool {
        let Some(key) = self.find_idle(PoolId::Public, Some(ip)) else {
            return false;
        };
        self.counters.evicted.per_ip += 1;
        self.end_idle(key);
        true
    }

    fn end_idle(&mut self, key: ConnKey) {
        log::debug!("{key:?}: ended while it waited for a request, to make room");
        self.lose(key);
    }

    /// Notes that a connection holds a place from now on.
    pub(super) fn take_place(&mut self, key: ConnKey, id: PoolId, place: Place) {
        let pool = &mut self.pools[id as usize];
        match place {
            Place::Own => pool.placed += 1,
            Place::Surplus => pool.surplus += 1,
        }
        pool.http.push_back(key);
        self.compact(id);
    }

    /// Notes that a connection has been freed.
    pub(super) fn leave_place(&mut self, conn: &Conn<S, H::Session>) {
        let pool = &mut self.pools[self.pool_of(conn.listener) as usize];
        match conn.flags.has(Flags::SURPLUS) {
            false => pool.placed -= 1,
            true => pool.surplus -= 1,
        }
    }

    /// The connection to end in favor of another: of a pool, or of an address in it.
    ///
    /// All connections of the reserved pool are compared. Of the public one it is a sample, since
    /// there may be many thousands; each time another one, so that none is passed over for long.
    fn find_idle(&mut self, id: PoolId, ip: Option<IpAddr>) -> Option<ConnKey> {
        let mut http = mem::take(&mut self.pools[id as usize].http);
        let sample = match id {
            PoolId::Public => SAMPLE,
            PoolId::Reserved => http.len(),
        };
        let (mut candidates, mut seen) = (Candidates::default(), 0);
        for _ in 0..http.len() {
            if seen == sample {
                break;
            }
            let Some(key) = http.pop_front() else { break };
            if !self.speaks_http(key) {
                continue;
            }
            http.push_back(key);
            seen += 1;
            if ip.is_none_or(|ip| self.is_counted_for(key, ip))
                && let Some((class, rank)) = self.rank(key, id)
            {
                candidates.add(class, rank, key);
            }
        }
        self.pools[id as usize].http = http;
        // Clients that have yet to authenticate share a quarter of the reserved places, however
        // many the others hold; the others keep the rest.
        let share = self.config.max_reserved / 4;
        let is_crowded = candidates.counts[Class::Fresh as usize] >= share;
        candidates.first_of(match id {
            PoolId::Public => &[Class::Idle, Class::Authenticated],
            PoolId::Reserved if is_crowded => &[Class::Idle, Class::Fresh, Class::Authenticated],
            PoolId::Reserved => &[Class::Idle, Class::Authenticated, Class::Fresh],
        })
    }

    /// Whether and in which order a connection may be ended: never while a request is under way.
    /// How long it has waited follows from its deadline, which no byte puts off.
    fn rank(&self, key: ConnKey, id: PoolId) -> Option<(Class, Rank)> {
        let conn = self.arena.get(key)?;
        let is_queued = conn.flags.has(Flags::QUEUED);
        let is_public = id == PoolId::Public;
        if conn.flags.has(Flags::SURPLUS) || (is_public && is_queued) {
            return None;
        }
        let config = &self.config;
        let (time, is_idle) = match &conn.phase {
            Phase::Request(Some(partial)) if partial.body.is_some() => return None,
            Phase::Preface(_) | Phase::Request(Some(_)) => (config.handshake_timeout, false),
            Phase::Request(None) => {
                let is_idle = !conn.flags.has(Flags::YOUNG) && conn.tx.is_none();
                (config.handshake_timeout, is_idle)
            }
            // On the public listeners it ends soon enough by itself.
            Phase::Linger if is_public => return None,
            Phase::Linger if conn.flags.has(Flags::SHUT) => (config.linger_timeout, true),
            Phase::Linger => (config.close_timeout, false),
            Phase::Deferred(_) | Phase::Open(_) | Phase::Closing | Phase::Dead => return None,
        };
        let since = conn.timer.deadline()?.saturating_sub(ticks(time));
        let age = u64::from(floor_tick(self.now).saturating_sub(since)) * TICK_MS;
        let class = match conn.flags.has(Flags::AUTHENTICATED) {
            // An answer that has not left, or not arrived, would be missed.
            true if is_queued || conn.tx.is_some() || matches!(conn.phase, Phase::Linger) => {
                return None;
            }
            true => Class::Authenticated,
            false if is_idle || age >= GRACE => Class::Idle,
            false => Class::Fresh,
        };
        Some((class, (is_queued, since, key.generation)))
    }

    fn speaks_http(&self, key: ConnKey) -> bool {
        let phase = self.arena.get(key).map(|conn| &conn.phase);
        matches!(
            phase,
            Some(Phase::Preface(_) | Phase::Request(_) | Phase::Deferred(_) | Phase::Linger)
        )
    }

    /// Removes the keys of connections that no longer speak HTTP, where they are many.
    fn compact(&mut self, id: PoolId) {
        let pool = &self.pools[id as usize];
        let not_open = self.counters.connections.saturating_sub(self.counters.open);
        let most = (pool.placed + pool.surplus).min(not_open as usize);
        if pool.http.len() <= 2 * most + SLACK {
            return;
        }
        let mut http = mem::take(&mut self.pools[id as usize].http);
        http.retain(|key| self.speaks_http(*key));
        self.pools[id as usize].http = http;
    }

    /// Gives back the memory that a crowd of handshakes has needed here.
    pub(super) fn give_back_places(&mut self) {
        for id in [PoolId::Public, PoolId::Reserved] {
            if self.pools[id as usize].http.len() > SLACK {
                self.compact(id);
            }
            let http = &mut self.pools[id as usize].http;
            if let Some(enough) = enough(http.len(), http.capacity()) {
                http.shrink_to(enough);
            }
        }
    }

    /// Recounts all connections to verify the account; for tests only.
    pub(super) fn verify_places(&self, keys: &[ConnKey]) -> Result<(), String> {
        let mut counts = [(0, 0); 2];
        let mut listed: HashMap<ConnKey, usize> = HashMap::new();
        for key in self.pools.iter().flat_map(|pool| &pool.http) {
            *listed.entry(*key).or_default() += 1;
        }
        for key in keys {
            let Some(conn) = self.arena.get(*key) else {
                continue;
            };
            let (placed, surplus) = &mut counts[self.pool_of(conn.listener) as usize];
            match conn.flags.has(Flags::SURPLUS) {
                false => *placed += 1,
                true => *surplus += 1,
            }
            let times = listed.get(key).copied().unwrap_or(0);
            // It may have been a WebSocket.
            let may_be_absent = matches!(conn.phase, Phase::Linger);
            if self.speaks_http(*key) && times != 1 && !(may_be_absent && times == 0) {
                return Err(format!("{key:?} is listed {times} times"));
            }
        }
        let pools = self.pools.each_ref();
        match pools.map(|pool| (pool.placed, pool.surplus)) {
            noted if noted == counts => Ok(()),
            noted => Err(format!("places: {noted:?}, should be {counts:?}")),
        }
    }
}

/// Connections beyond a limit that are accepted to be told 503.
const SURPLUS: usize = 32;
/// Milliseconds after which a connection that has not completed its request, or taken its answer,
/// counts as idle.
const GRACE: u64 = 2000;
/// Public connections that are compared to find one that has been idle for long.
const SAMPLE: usize = 128;
/// Outdated keys that are not worth removing.
const SLACK: usize = 64;
