//! Connection limits, and eviction to make room for new connections.
//!
//! Owns the connection counts. All listeners share `max_connections`, except the reserved one,
//! which has `max_reserved` of its own. A connection that waits for a request, whether the first or
//! a later one, can be evicted when another connection needs its place.

use std::collections::VecDeque;
use std::mem;
use std::net::IpAddr;

use super::deadlines::ticks;
use super::shrink::shrink_target;
use super::{Engine, floor_tick};
use crate::conn::lifecycle::Event;
use crate::conn::phase::Idleness;
use crate::conn::{Conn, Flags, Phase};
use crate::engine::timer::{TICK_MS, Tick};
use crate::handler::Handler;
use crate::io::socket::Socket;
use crate::{ConnKey, ListenerId};

/// Connections that share a limit.
#[derive(Default)]
pub(super) struct Pool {
    /// Connections within the limit.
    within_limit: usize,
    /// Connections over the limit, accepted only to be answered with 503.
    over_limit: usize,
    /// All HTTP connections, each once. Keys of connections that are gone or have become WebSockets
    /// are removed lazily, or when there are many.
    http: VecDeque<ConnKey>,
}

/// Identifies a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PoolId {
    Public,
    Reserved,
}

/// How a new connection is admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Admitted {
    /// Within the limit.
    Own,
    /// Over the limit; to be answered with 503.
    OverLimit,
}

/// Classes of evictable connections, by increasing cost of the eviction.
#[derive(Clone, Copy, PartialEq, Eq)]
enum EvictionClass {
    /// Has been answered, or has had [`GRACE`] to send a request.
    Idle,
    /// Has not sent its first request, or has not received its last response.
    Fresh,
    /// Belongs to an authenticated client.
    Authenticated,
}

/// The order within a class: connections without unread input first, then the longest idle.
type Rank = (bool, Tick, u32);

/// The best candidate of each class, and the number of candidates.
#[derive(Default)]
struct Candidates {
    first: [Option<(Rank, ConnKey)>; 3],
    counts: [usize; 3],
}

impl Candidates {
    fn add(&mut self, class: EvictionClass, rank: Rank, key: ConnKey) {
        let first = &mut self.first[class as usize];
        if first.is_none_or(|(best, _)| rank < best) {
            *first = Some((rank, key));
        }
        self.counts[class as usize] += 1;
    }

    fn first_of(&self, classes: &[EvictionClass]) -> Option<ConnKey> {
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

    /// Returns the number of connections of the reserved listener.
    pub(super) fn reserved_connections(&self) -> usize {
        let pool = &self.pools[PoolId::Reserved as usize];
        pool.within_limit + pool.over_limit
    }

    /// Finds a place for a new connection, if necessary by evicting another one. Returns `None` if
    /// there is not even a place to respond with 503.
    pub(super) fn find_room(&mut self, id: PoolId) -> Option<Admitted> {
        if self.is_full(id) {
            // Connections that ended in this turn count until they are freed.
            self.reap();
        }
        if self.is_full(id)
            && let Some(key) = self.find_idle(id, None)
        {
            match id {
                PoolId::Public => self.counters.evicted.connections += 1,
                PoolId::Reserved => self.counters.evicted.reserved += 1,
            }
            self.evict_idle(key);
            self.reap();
        }
        match self.is_full(id) {
            false => Some(Admitted::Own),
            true => {
                (self.pools[id as usize].over_limit < OVER_LIMIT).then_some(Admitted::OverLimit)
            }
        }
    }

    fn is_full(&self, id: PoolId) -> bool {
        let limit = match id {
            PoolId::Public => self.config.max_connections,
            PoolId::Reserved => self.config.max_reserved,
        };
        self.pools[id as usize].within_limit >= limit
    }

    /// Evicts a connection of an address that has reached its limit. Returns false if none can be
    /// evicted.
    pub(super) fn make_room_for(&mut self, ip: IpAddr) -> bool {
        let Some(key) = self.find_idle(PoolId::Public, Some(ip)) else {
            return false;
        };
        self.counters.evicted.per_ip += 1;
        self.evict_idle(key);
        true
    }

    fn evict_idle(&mut self, key: ConnKey) {
        log::debug!("{key:?}: ended while it waited for a request, to make room");
        self.apply(key, Event::Lost);
    }

    /// Counts a new connection.
    pub(super) fn take_place(&mut self, key: ConnKey, id: PoolId, place: Admitted) {
        let pool = &mut self.pools[id as usize];
        match place {
            Admitted::Own => pool.within_limit += 1,
            Admitted::OverLimit => pool.over_limit += 1,
        }
        pool.http.push_back(key);
        self.compact(id);
    }

    /// Takes a WebSocket or an event stream off the list of connections that may be evicted. Later, while
    /// it ends, it could not be told from a connection that ends after a request. On public listeners,
    /// none of them are evicted then.
    #[inline]
    pub(super) fn unlist_opened(&mut self, key: ConnKey, listener: ListenerId) {
        let id = self.pool_of(listener);
        if id == PoolId::Reserved {
            self.pools[id as usize].http.retain(|other| *other != key);
        }
    }

    /// Stops counting a freed connection.
    pub(super) fn leave_pool(&mut self, conn: &Conn<S, H::Session>) {
        let pool = &mut self.pools[self.pool_of(conn.listener) as usize];
        match conn.flags.has(Flags::OVER_LIMIT) {
            false => pool.within_limit -= 1,
            true => pool.over_limit -= 1,
        }
    }

    /// Returns the connection to evict from a pool, or among those of one address in it.
    ///
    /// All connections of the reserved pool are compared. The public pool may have many thousands,
    /// so that only a sample is compared, which rotates so that no connection is skipped for long.
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
        // Unauthenticated clients share a quarter of the reserved places, regardless of how many
        // the authenticated ones occupy; the rest is kept for authenticated clients.
        let share = self.config.max_reserved / 4;
        let is_crowded = candidates.counts[EvictionClass::Fresh as usize] >= share;
        candidates.first_of(match id {
            PoolId::Public => &[EvictionClass::Idle, EvictionClass::Authenticated],
            PoolId::Reserved if is_crowded => &[
                EvictionClass::Idle,
                EvictionClass::Fresh,
                EvictionClass::Authenticated,
            ],
            PoolId::Reserved => &[
                EvictionClass::Idle,
                EvictionClass::Authenticated,
                EvictionClass::Fresh,
            ],
        })
    }

    /// Returns whether and in which order a connection may be evicted: never during a request. The
    /// waiting time is derived from the deadline, which received bytes do not extend.
    fn rank(&self, key: ConnKey, id: PoolId) -> Option<(EvictionClass, Rank)> {
        let conn = self.arena.get(key)?;
        let is_queued = conn.flags.has(Flags::QUEUED);
        let is_public = id == PoolId::Public;
        if conn.flags.has(Flags::OVER_LIMIT) || (is_public && is_queued) {
            return None;
        }
        // On public listeners, lingering ends soon enough by itself.
        let lingers = matches!(conn.phase, Phase::Linger { .. });
        if lingers && is_public {
            return None;
        }
        let is_idle = conn.phase.idleness(conn.tx.is_some())? == Idleness::Idle;
        let timeout = self.duration_of(conn.phase.timeout());
        let since = conn.timer.deadline()?.saturating_sub(ticks(timeout));
        let age = u64::from(floor_tick(self.now).saturating_sub(since)) * TICK_MS;
        let class = match conn.flags.has(Flags::AUTHENTICATED) {
            // The client would lose a response that has not been sent, or has not arrived.
            true if is_queued || conn.tx.is_some() || lingers => return None,
            true => EvictionClass::Authenticated,
            false if is_idle || age >= GRACE => EvictionClass::Idle,
            false => EvictionClass::Fresh,
        };
        Some((class, (is_queued, since, key.generation)))
    }

    fn speaks_http(&self, key: ConnKey) -> bool {
        let phase = self.arena.get(key).map(|conn| &conn.phase);
        matches!(
            phase,
            Some(
                Phase::ProxyHeader(_)
                    | Phase::Request { .. }
                    | Phase::Deferred(_)
                    | Phase::Linger { .. }
            )
        )
    }

    /// Removes stale keys if there are many.
    fn compact(&mut self, id: PoolId) {
        let pool = &self.pools[id as usize];
        let not_open = self.counters.connections.saturating_sub(self.counters.open);
        let most = (pool.within_limit + pool.over_limit).min(not_open as usize);
        if pool.http.len() <= 2 * most + SLACK {
            return;
        }
        let mut http = mem::take(&mut self.pools[id as usize].http);
        http.retain(|key| self.speaks_http(*key));
        self.pools[id as usize].http = http;
    }

    /// Shrinks tables that a peak of handshakes has enlarged.
    pub(super) fn shrink_pools(&mut self) {
        for id in [PoolId::Public, PoolId::Reserved] {
            if self.pools[id as usize].http.len() > SLACK {
                self.compact(id);
            }
            let http = &mut self.pools[id as usize].http;
            if let Some(target) = shrink_target(http.len(), http.capacity()) {
                http.shrink_to(target);
            }
        }
    }

    /// Verifies the counts against all connections; for tests only.
    pub(super) fn verify_places(&self, keys: &[ConnKey]) -> Result<(), String> {
        let mut counts = [(0, 0); 2];
        let listed = self.pools.iter().flat_map(|pool| &pool.http);
        let mut listed: Vec<ConnKey> = listed.copied().collect();
        listed.sort_unstable();
        for key in keys {
            let Some(conn) = self.arena.get(*key) else {
                continue;
            };
            let (within_limit, over_limit) = &mut counts[self.pool_of(conn.listener) as usize];
            match conn.flags.has(Flags::OVER_LIMIT) {
                false => *within_limit += 1,
                true => *over_limit += 1,
            }
            let from = listed.partition_point(|other| other < key);
            let times = listed.partition_point(|other| other <= key) - from;
            // Connections that were WebSockets are not listed.
            let may_be_absent = matches!(conn.phase, Phase::Linger { .. });
            let is_unlisted = matches!(conn.phase, Phase::Open(_) | Phase::Closing);
            if is_unlisted && self.is_reserved(conn.listener) && times != 0 {
                return Err(format!("{key:?} is open, and listed {times} times"));
            }
            if self.speaks_http(*key) && times != 1 && !(may_be_absent && times == 0) {
                return Err(format!("{key:?} is listed {times} times"));
            }
        }
        let pools = self.pools.each_ref();
        match pools.map(|pool| (pool.within_limit, pool.over_limit)) {
            noted if noted == counts => Ok(()),
            noted => Err(format!("places: {noted:?}, should be {counts:?}")),
        }
    }
}

/// Connections over a limit that are accepted to be answered with 503.
const OVER_LIMIT: usize = 32;
/// Milliseconds after which a connection that has not completed its request, or has not received
/// its response, counts as idle.
const GRACE: u64 = 2000;
/// Public connections compared to find one that has been idle for long.
const SAMPLE: usize = 128;
/// Stale keys that are not worth removing.
const SLACK: usize = 64;
